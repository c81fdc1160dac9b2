"""`imagesearch duplicates` and `imagesearch reject`: near-duplicates within a library."""
# ruff: noqa: PLC0415  # imported by the commands that use it

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
    help="The image of a group to keep.",
)
@click.option(
    "--filter", "filter_", default="", metavar="F", help="Compare only images that match."
)
@click.option(
    "--min-score", type=click.FloatRange(0, 1), metavar="S", help="Minimum score, 0 to 1."
)
@click.option(
    "--max-false-positive-rate",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="R",
    help="Maximum share of images without copies that are matched by chance.  [default: 0.01]",
)
@click.option(
    "--page-token",
    default="",
    metavar="T",
    help="Continue a scan after the --json message with this nextPageToken.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a response message per line.")
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
    """Find groups of near-duplicates in LIBRARY.

    A group is a picture and edited copies of it; the image to keep is listed first. Nothing is
    deleted: use `imagesearch image delete` to delete images, or `imagesearch reject` to mark
    images as different pictures.
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

            page = duplicates_page(
                library_id,
                groups,
                _thumbnails(client, groups),
                checked_count=image_count,
                keep=keep,
            )
            saving.write(html, page.encode())
    if not as_json:
        click.echo(
            f"{output.count_text(show.group_count, 'group')},"
            f" {output.count_text(show.duplicate_count, 'duplicate')}"
            f" in {output.count_text(image_count, 'image')}."
        )


@click.command()
@click.argument("library")
@click.argument("image_ids", nargs=-1, required=True, metavar="IMAGE_ID IMAGE_ID...")
@click.option("--json", "as_json", is_flag=True, help="Print the response message.")
@connection_options()
def reject(library: str, image_ids: Sequence[str], as_json: bool) -> None:
    """Mark images of LIBRARY as different pictures.

    `imagesearch duplicates` will never again put two of them into one group.
    """
    import itertools

    from imagesearch.client import image_name

    if len(set(image_ids)) < 2 or len(set(image_ids)) < len(image_ids):  # noqa: PLR2004  # a pair
        raise click.UsageError("Pass two or more different image ids.")
    library_id = values.library_id(library)
    names = [image_name(library_id, image_id) for image_id in image_ids]
    with connected() as client:
        answer = client.reject_pairs(
            parent=f"libraries/{library_id}", pairs=itertools.combinations(names, 2)
        )
    if as_json:
        output.print_json(answer)
    else:
        click.echo(f"{output.count_text(answer.added_count, 'new pair')} rejected.")


def _policy(keep: str) -> Any:
    from imagesearch.client import KeepPolicy

    return KeepPolicy.Value(f"KEEP_POLICY_{keep.upper()}")


def _closable(messages: Iterable[FindDuplicatesResponse]) -> Any:
    """Return the messages, which are a generator, as a type that has `close`."""
    return messages


def _group_text(group: DuplicateGroup) -> str:
    """Return the lines of a group, the image to keep first."""
    lines = []
    for number, member in enumerate(group.images):
        info = member.image.info
        label = "keep " if number == 0 else f"{member.score:.3f}"
        note = "" if number == 0 or member.pixels_agree else "  (pixels not compared)"
        name = member.image.image_id
        name = name if name.isprintable() else repr(name)
        lines.append(f"{label}  {info.width}x{info.height}  {name}{note}")
    return "\n".join(lines) + "\n"


def _thumbnails(client: Client, groups: Iterable[DuplicateGroup]) -> dict[str, bytes]:
    """Return the thumbnails of all groups, by image name.

    After an error, the remaining thumbnails are omitted, so that the result of a long scan is not
    lost.
    """
    from imagesearch.client import ImageSearchError

    thumbnails: dict[str, bytes] = {}
    for group in groups:
        for member in group.images:
            name = member.image.name
            if name in thumbnails:
                continue
            try:
                thumbnails[name] = client.get_thumbnail(name=name).content
            except ImageSearchError as error:
                if error.reason not in {"THUMBNAIL_NOT_FOUND", "IMAGE_NOT_FOUND"}:
                    click.echo(f"Note: thumbnails are missing in the page: {error}", err=True)
                    return thumbnails
    return thumbnails


class _Display:
    """Counts and shows the groups and the progress of a search."""

    def __init__(
        self, print_text: Callable[[str], None], advance: Callable[[int, int], None]
    ) -> None:
        self.print = print_text
        self.advance = advance
        self.group_count = 0
        self.duplicate_count = 0

    def count(self, duplicates: int) -> None:
        self.group_count += 1
        self.duplicate_count += duplicates


@contextlib.contextmanager
def _progress(*, lines_on_stdout: bool) -> Iterator[_Display]:
    """Draw a progress bar if stderr is a terminal that no other output uses."""
    if not sys.stderr.isatty() or (lines_on_stdout and sys.stdout.isatty()):
        yield _Display(click.echo, lambda checked, total: None)  # noqa: ARG005  # no terminal
        return
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (*Progress.get_default_columns()[:-1], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("Searching", total=None)

        def print_text(text: str) -> None:
            if sys.stdout.isatty():
                progress.console.print(text, markup=False, highlight=False)
            else:
                click.echo(text)

        yield _Display(
            print_text,
            lambda checked, total: progress.update(task, completed=checked, total=total),
        )
