"""`imagesearch search`: searches with pictures; the answers are in the order of the files."""
# ruff: noqa: PLC0415  # imported by the commands that use it

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
"""Maximum searches in flight."""
PAGE_SIZE = 100
"""Maximum matches per call."""
DRAWN_MATCHES = 6
"""Maximum matches drawn next to the query in an annotated picture."""


@click.command()
@click.argument("library")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--relation",
    type=click.Choice(values.RELATIONS, case_sensitive=False),
    help="Find the same picture and edited copies, similar pictures, or both; whole-image"
    " libraries only.  [default: same]",
)
@click.option(
    "--limit",
    type=click.IntRange(1, 1000),
    default=10,
    show_default=True,
    metavar="N",
    help="Maximum number of matches.",
)
@click.option(
    "--filter",
    "filter_",
    default="",
    metavar="F",
    help="Find only images that match, such as 'tags.year >= 2020'.",
)
@click.option(
    "--category",
    type=click.Choice(values.CATEGORIES, case_sensitive=False),
    metavar="NAME",
    help="Find only images of this category; in product libraries it also selects the subject of"
    f" the query: {', '.join(values.CATEGORIES)}.",
)
@click.option(
    "--region",
    type=values.RegionParameter(),
    help="Search only with this part, in pixels.",
)
@values.subject_detection_option
@click.option(
    "--min-score", type=click.FloatRange(0, 1), metavar="S", help="Minimum score, 0 to 1."
)
@click.option(
    "--max-false-positive-rate",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="R",
    help="Maximum share of searches without a true match that return a match, such as 0.01.",
)
@click.option(
    "--distinct-entities", is_flag=True, help="Return only the best match of each entity."
)
@click.option("--json", "as_json", is_flag=True, help="Print a response message per line.")
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
    """Search LIBRARY with pictures; FILE - is standard input.

    Answers are in the order of the files. If a file fails, an error takes the place of its answer,
    the other files are processed, and the exit status is 1.
    """
    if save and len(files) > 1:
        raise click.UsageError("--save takes a single picture; --html takes many.")
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
        "annotation": saving.annotation_options(save, match_count=min(limit, DRAWN_MATCHES)),
    }
    failed: list[str] = []

    def answers(client: Client) -> Iterator[tuple[str, bytes, SearchImagesResponse | str]]:
        """Search with each file, print, and yield its name, its bytes, and the answer or error."""

        def search_file(file: str) -> tuple[bytes, SearchImagesResponse]:
            content = read_picture(file)
            return content, search_pages(client, limit, image=content, **first_page)

        for file, outcome in in_order(search_file, files, stop=client.close):
            if not as_json and len(files) > 1:
                click.echo(file)
            if isinstance(outcome, Exception):
                failed.append(file)
                message = print_failure(file, outcome, client.target, as_json=as_json)
                yield file, b"", message
                continue
            content, answer = outcome
            _print_answer(answer, save, as_json=as_json)
            yield file, content, answer

    with connected() as client:
        if html:
            from imagesearch.report import Query, search_page

            restrictions = {
                "relation": relation,
                "filter": filter_,
                "category": category,
                "region": None if region is None else output.box_text(region),
                "minimum score": min_score,
                "maximum false-positive rate": max_false_positive_rate,
            }
            page = search_page(
                values.library_id(library),
                (Query(*result) for result in answers(client)),
                restrictions=[f"{name} {value}" for name, value in restrictions.items() if value],
            )
            saving.write(html, page.encode())
        else:
            for _ in answers(client):
                pass
    ctx.exit(1 if failed else 0)


def search_pages(client: Client, limit: int, **first_page: Any) -> SearchImagesResponse:
    """Return up to `limit` matches, from as many pages as needed."""
    answer = client.search_images(page_size=min(limit, PAGE_SIZE), **first_page)
    while answer.next_page_token and (remaining := limit - len(answer.matches)) > 0:
        page = client.search_images(
            parent=first_page["parent"],
            page_size=min(remaining, PAGE_SIZE),
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
    """Process several files concurrently and yield the answer or error of each file, in order.

    Args:
        work: returns the answer of a file.
        files: names of the files.
        stop: cancels the calls in flight if the caller stops early.
    """
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
    """Read a picture. The error message of a failure names the file."""
    try:
        return read_picture(file)
    except OSError as error:
        raise click.ClickException(f"{file}: {output.os_message(error)}") from error


def _print_answer(answer: SearchImagesResponse, save: Path | None, *, as_json: bool) -> None:
    """Print an answer and save its annotated picture."""
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
        saving.save_picture(save, answer.annotated_image)


def _print_table(answer: SearchImagesResponse) -> None:
    if answer.HasField("chosen_subject"):
        click.echo(output.chosen_text(answer))
    if answer.matches:
        output.print_matches(answer.matches)
    total = f"{answer.total_found:,}{'+' if answer.total_is_lower_bound else ''}"
    total_ms = next((step.duration_ms for step in answer.timings if step.step == "total"), None)
    time_text = "" if total_ms is None else f" in {total_ms:.0f} ms"
    click.echo(f"{total if answer.total_found else 'Nothing'} found{time_text}.")
    for warning in answer.warnings:
        click.echo(f"Note: {warning}", err=True)


def print_failure(
    file: str, error: ImageSearchError | OSError, target: str, *, as_json: bool
) -> str:
    """Print the error of a file and return its message."""
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
