"""`imagesearch search`: one picture or many, answered in their order."""
# ruff: noqa: PLC0415  # the client waits for the command that needs it

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from imagesearch.cli import output, saving, values
from imagesearch.cli.connection import connected, connection_options, explain

if TYPE_CHECKING:
    from imagesearch.client import Box, Client, ImageSearchError, SearchImagesResponse

Answer = TypeVar("Answer")

IN_FLIGHT = 4
"""Searches."""
PAGE_SIZE = 100
DRAWN_MATCHES = 6
"""Beside the query, in a drawing."""


@click.command()
@click.argument("library")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--relation",
    type=click.Choice(values.RELATIONS, case_sensitive=False),
    help="The same picture or an edited copy, one that looks like it, or both;"
    " whole-image libraries.  [default: same]",
)
@click.option(
    "--limit",
    type=click.IntRange(1, 1000),
    default=10,
    show_default=True,
    metavar="N",
    help="Most matches.",
)
@click.option("--filter", "filter_", default="", metavar="F", help="'tags.year >= 2020', ...")
@click.option(
    "--category",
    type=click.Choice(values.CATEGORIES, case_sensitive=False),
    metavar="NAME",
    help="Only images of it; in product libraries it picks the subject, too:"
    f" {', '.join(values.CATEGORIES)}.",
)
@click.option("--region", type=values.RegionParameter(), help="Search only this part, in pixels.")
@values.subject_detection_option
@click.option(
    "--min-score", type=click.FloatRange(0, 1), metavar="S", help="Leave out lower scores, 0 to 1."
)
@click.option(
    "--max-false-positive-rate",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="R",
    help="Leave out matches that a picture without any would get this often by chance, as 0.01.",
)
@click.option("--distinct-entities", is_flag=True, help="Only the best match of each entity.")
@click.option("--json", "as_json", is_flag=True, help="Print one response message a line.")
@saving.save_option
@saving.html_option
@connection_options()
@click.pass_context
def search(
    ctx: click.Context,
    *,
    library: str,
    files: Sequence[str],
    relation: str | None,
    limit: int,
    filter_: str,
    category: str | None,
    region: Box | None,
    subject_detection: bool | None,
    min_score: float | None,
    max_false_positive_rate: float | None,
    distinct_entities: bool,
    as_json: bool,
    save: Path | None,
    html: Path | None,
) -> None:
    """Search LIBRARY with pictures; - is standard input.

    With several files the answers keep their order. A file that can't be searched gives an error
    in its place and exit status 1, and does not stop the others.
    """
    if save and len(files) > 1:
        raise click.UsageError("--save draws one picture; --html shows many.")
    saving.refuse_to_replace(files, save, html)
    if html:
        saving.require_report()
    first_page: dict[str, Any] = {
        "parent": f"libraries/{values.library_id(library)}",
        "relation": values.relation(relation),
        "filter": filter_,
        "category": values.category(category),
        "region": region,
        "subject_detection": subject_detection,
        "min_score": min_score,
        "max_false_positive_rate": max_false_positive_rate,
        "distinct_entities": distinct_entities,
        "include_thumbnails": html is not None,
        "annotation": saving.drawing_options(save, match_count=min(limit, DRAWN_MATCHES)),
    }
    failed: list[str] = []

    def answered(client: Client) -> Iterator[tuple[str, bytes, SearchImagesResponse | str]]:
        """Search and print; give each file's name, its bytes and its answer or what is wrong."""

        def search_file(file: str) -> tuple[bytes, SearchImagesResponse]:
            content = read_picture(file)
            return content, search_pages(client, limit, image=content, **first_page)

        for file, outcome in in_order(search_file, files, stop=client.close):
            if not as_json and len(files) > 1:
                click.echo(file)
            if isinstance(outcome, Exception):
                failed.append(file)
                words = print_failure(file, outcome, client.target, as_json=as_json)
                yield file, b"", words
                continue
            content, answer = outcome
            _print_answer(answer, save, as_json=as_json)
            yield file, content, answer

    with connected() as client:
        if html:
            from imagesearch.report import Query, search_page

            asked = {
                "relation": relation,
                "filter": filter_,
                "category": category,
                "region": None if region is None else output.box_text(region),
                "score from": min_score,
                "false-positive rate up to": max_false_positive_rate,
            }
            page = search_page(
                values.library_id(library),
                (Query(*one) for one in answered(client)),
                asked=[f"{name} {value}" for name, value in asked.items() if value],
            )
            saving.write(html, page.encode())
        else:
            for _ in answered(client):
                pass
    ctx.exit(1 if failed else 0)


def search_pages(client: Client, limit: int, **first_page: Any) -> SearchImagesResponse:
    """Search for up to `limit` matches, over as many pages as that takes."""
    answer = client.search_images(page_size=min(limit, PAGE_SIZE), **first_page)
    while answer.next_page_token and (missing := limit - len(answer.matches)) > 0:
        page = client.search_images(
            parent=first_page["parent"],
            page_size=min(missing, PAGE_SIZE),
            page_token=answer.next_page_token,
            include_thumbnails=first_page.get("include_thumbnails", False),
        )
        answer.matches.extend(page.matches)
        answer.next_page_token = page.next_page_token
    return answer


def in_order(
    work: Callable[[str], Answer],
    files: Iterable[str],
    *,
    stop: Callable[[], None],
) -> Iterator[tuple[str, Answer | ImageSearchError | OSError]]:
    """Work on a few files at a time; give each one's answer or error, in their order."""
    from imagesearch.client import ImageSearchError

    waiting: deque[tuple[str, Future[Answer]]] = deque()

    def next_answer() -> tuple[str, Answer | ImageSearchError | OSError]:
        file, future = waiting.popleft()
        try:
            return file, future.result()
        except (ImageSearchError, OSError) as error:
            return file, error

    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        try:
            for file in files:
                if len(waiting) == IN_FLIGHT:
                    yield next_answer()
                waiting.append((file, pool.submit(work, file)))
            while waiting:
                yield next_answer()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            stop()
            raise


def read_picture(file: str) -> bytes:
    return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()


def read_named(file: str) -> bytes:
    """Read a picture; say which file it was where that fails."""
    try:
        return read_picture(file)
    except OSError as error:
        raise click.ClickException(f"{file}: {output.os_message(error)}") from error


def _print_answer(answer: SearchImagesResponse, save: Path | None, *, as_json: bool) -> None:
    """Print an answer, its drawing into a file."""
    if as_json:
        printed = answer
        if save:
            printed = type(answer)()
            printed.CopyFrom(answer)
            printed.ClearField("annotated_image")
        output.print_json(printed)
    else:
        _print_table(answer)
    if save:
        saving.save_drawing(save, answer.annotated_image)


def _print_table(answer: SearchImagesResponse) -> None:
    if answer.HasField("chosen_subject"):
        click.echo(output.chosen_text(answer))
    if answer.matches:
        output.print_matches(answer.matches)
    total = f"{answer.total_found:,}{'+' if answer.total_is_lower_bound else ''}"
    taken_ms = next((step.duration_ms for step in answer.timings if step.step == "total"), None)
    time_text = "" if taken_ms is None else f" in {taken_ms:.0f} ms"
    click.echo(f"{total if answer.total_found else 'Nothing'} found{time_text}.")
    for warning in answer.warnings:
        click.echo(f"Note: {warning}", err=True)


def print_failure(
    file: str, error: ImageSearchError | OSError, target: str, *, as_json: bool
) -> str:
    """Say why there is no answer, and give the words."""
    from imagesearch.client import ImageSearchError

    if isinstance(error, ImageSearchError):
        message = explain(error, target)
        status = error.status
    else:
        message = output.os_message(error)
        status = output.local_error(message, "FILE_UNREADABLE")
    if as_json:
        output.print_json({"path": file, "error": output.to_dict(status)})
    click.echo(f"Error: {file}: {message}", err=True)
    return message
