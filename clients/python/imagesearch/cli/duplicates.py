"""`imagesearch duplicates` and `imagesearch reject`: repeats within a library, and what is none."""
# ruff: noqa: PLC0415  # the client waits for the command that needs it

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from imagesearch.cli import output, saving, values
from imagesearch.cli.connection import connected, connection_options

if TYPE_CHECKING:
    from imagesearch.client import Client, DuplicateGroup, FindDuplicatesResponse

POLICIES = ("largest", "sharpest", "oldest")


@click.command()
@click.argument("library")
@click.option(
    "--keep",
    type=click.Choice(POLICIES, case_sensitive=False),
    default="largest",
    show_default=True,
    help="Which image of a group to propose to keep.",
)
@click.option("--filter", "filter_", default="", metavar="F", help="Only among these images.")
@click.option(
    "--min-score", type=click.FloatRange(0, 1), metavar="S", help="Leave out lower scores, 0 to 1."
)
@click.option(
    "--max-false-positive-rate",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="R",
    help="How often an image may be taken for a copy of another by chance.  [default: 0.01]",
)
@click.option("--page-token", default="", metavar="T", help="Go on after that message of --json.")
@click.option("--json", "as_json", is_flag=True, help="Print one response message a line.")
@saving.html_option
@connection_options()
def duplicates(
    *,
    library: str,
    keep: str,
    filter_: str,
    min_score: float | None,
    max_false_positive_rate: float | None,
    page_token: str,
    as_json: bool,
    html: Path | None,
) -> None:
    """Find groups of the same picture, or edited copies of it, in LIBRARY.

    The image to keep comes first in each group. Nothing is deleted: `imagesearch image delete`
    does that, and `imagesearch reject` remembers that two pictures are not the same.
    """
    if html is not None:
        saving.require_report()
    library_id = values.library_id(library)
    groups: list[DuplicateGroup] = []
    image_count = 0
    with connected() as client:
        messages = client.find_duplicates(
            parent=f"libraries/{library_id}",
            filter=filter_,
            min_score=min_score,
            max_false_positive_rate=max_false_positive_rate,
            keep=_policy(keep),
            page_token=page_token,
        )
        with (
            _progress(lines_on_stdout=as_json) as show,
            contextlib.closing(_closable(messages)) as received,
        ):
            for message in received:
                image_count = message.checked_count
                if as_json:
                    output.print_json(message)
                elif message.HasField("group"):
                    show.print(_group_text(message.group))
                if html is not None and message.HasField("group"):
                    groups.append(message.group)
                if message.HasField("group"):
                    show.count(len(message.group.images) - 1)
                show.advance(message.checked_count, message.total_count)
        if html is not None:
            from imagesearch.report.duplicates import duplicates_page

            small = _thumbnails(client, groups)
            page = duplicates_page(library_id, groups, small, checked_count=image_count, keep=keep)
            saving.write(html, page.encode())
    if not as_json:
        click.echo(
            f"{_count(show.group_count, 'group')},"
            f" {_count(show.repeat_count, 'image')} beside those to keep,"
            f" among {_count(image_count, 'image')}."
        )


@click.command()
@click.argument("library")
@click.argument("image_ids", nargs=-1, required=True, metavar="IMAGE_ID IMAGE_ID...")
@click.option("--json", "as_json", is_flag=True, help="Print the response message.")
@connection_options()
def reject(library: str, image_ids: Sequence[str], as_json: bool) -> None:
    """Remember that images of LIBRARY are different pictures, each of them from each other.

    `imagesearch duplicates` never puts two of them into one group again.
    """
    import itertools

    from imagesearch.client import image_name

    if len(set(image_ids)) < 2 or len(set(image_ids)) < len(image_ids):  # noqa: PLR2004  # a pair
        raise click.UsageError("Give two or more different image ids.")
    library_id = values.library_id(library)
    names = [image_name(library_id, image_id) for image_id in image_ids]
    with connected() as client:
        answer = client.reject_pairs(
            parent=f"libraries/{library_id}", pairs=itertools.combinations(names, 2)
        )
    if as_json:
        output.print_json(answer)
    else:
        click.echo(f"{_count(answer.added_count, 'pair')} rejected that were not before.")


def _count(count: int, thing: str) -> str:
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def _policy(keep: str) -> Any:
    from imagesearch.client import KeepPolicy

    return KeepPolicy.Value(f"KEEP_POLICY_{keep.upper()}")


def _closable(messages: Iterable[FindDuplicatesResponse]) -> Any:
    """Say to the type checker that it is a generator, which it is."""
    return messages


def _group_text(group: DuplicateGroup) -> str:
    """Write a group, the one to keep first."""
    lines = []
    for number, member in enumerate(group.images):
        info = member.image.info
        what = "keep " if number == 0 else f"{member.score:.3f}"
        doubt = "" if number == 0 or member.pixels_agree else "  (by its score alone)"
        name = member.image.image_id
        name = name if name.isprintable() else repr(name)
        lines.append(f"{what}  {info.width}x{info.height}  {name}{doubt}")
    return "\n".join(lines) + "\n"


def _thumbnails(client: Client, groups: Iterable[DuplicateGroup]) -> dict[str, bytes]:
    """Get the small pictures of all groups, by full name, as far as they are to be had.

    A page without them is worth more than none after a long search.
    """
    from imagesearch.client import ImageSearchError

    found: dict[str, bytes] = {}
    for group in groups:
        for member in group.images:
            name = member.image.name
            if name in found:
                continue
            try:
                found[name] = client.get_thumbnail(name=name).content
            except ImageSearchError as error:
                if error.reason not in {"THUMBNAIL_NOT_FOUND", "IMAGE_NOT_FOUND"}:
                    click.echo(f"Small pictures are missing from the page: {error}", err=True)
                    return found
    return found


class _Shown:
    """What was found, and how far the search has come."""

    def __init__(
        self, print_text: Callable[[str], None], advance: Callable[[int, int], None]
    ) -> None:
        self.print = print_text
        self.advance = advance
        self.group_count = 0
        self.repeat_count = 0

    def count(self, repeats: int) -> None:
        self.group_count += 1
        self.repeat_count += repeats


@contextlib.contextmanager
def _progress(*, lines_on_stdout: bool) -> Iterator[_Shown]:
    """Draw a bar, on a terminal that is free for it."""
    if not sys.stderr.isatty() or (lines_on_stdout and sys.stdout.isatty()):
        yield _Shown(click.echo, lambda checked, total: None)  # noqa: ARG005  # nothing to draw on
        return
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (*Progress.get_default_columns()[:-1], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("Looking", total=None)

        def print_text(text: str) -> None:
            if sys.stdout.isatty():
                progress.console.print(text, markup=False, highlight=False)
            else:
                click.echo(text)

        yield _Shown(
            print_text,
            lambda checked, total: progress.update(task, completed=checked, total=total),
        )
