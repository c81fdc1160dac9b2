"""`imagesearch add`: adds files in batches, with several calls in flight."""
# ruff: noqa: PLC0415  # imported by the commands that use it

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imagesearch.cli import files, output, values
from imagesearch.cli.connection import HINTS, connected, connection_options

if TYPE_CHECKING:
    from google.rpc.status_pb2 import Status

    from imagesearch.client import (
        AddImageRequest,
        BatchAddImagesResult,
        Box,
        Category,
        Client,
        PlainTag,
    )

FILE_UNREADABLE = "FILE_UNREADABLE"
"""Reason of the error for a file that the command line cannot read."""

IN_FLIGHT = 4
"""Maximum calls in flight."""
ATTEMPTS = 10
"""Maximum attempts to add a picture while the suite is overloaded."""


@click.command()
@click.argument("library")
@click.argument(
    "paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PATH..."
)
@click.option(
    "--tag",
    "tags",
    multiple=True,
    type=values.TagParameter(),
    help="Tag of every picture; repeatable.",
)
@click.option(
    "--category",
    type=click.Choice(values.CATEGORIES, case_sensitive=False),
    metavar="NAME",
    help=f"Category of every picture: {', '.join(values.CATEGORIES)}.",
)
@click.option(
    "--region",
    type=values.RegionParameter(),
    help="Store only this part of each picture, in pixels.",
)
@values.subject_detection_option
@click.option("--entity", default="", metavar="ID", help="Id of the entity that the pictures show.")
@click.option("--overwrite", is_flag=True, help="Replace images that exist.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object per picture.")
@connection_options()
@click.pass_context
def add(
    ctx: click.Context,
    *,
    library: str,
    paths: Sequence[Path],
    tags: Sequence[tuple[str, PlainTag]],
    category: str | None,
    region: Box | None,
    subject_detection: bool | None,
    entity: str,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Add pictures, or all pictures in folders, to LIBRARY.

    The id of a picture in a folder is its path relative to the folder, with / written as %2F and %
    as %25. The id of a single file is its name. Folders are searched for files with the extension
    of a picture format; hidden files are skipped.

    Tag values are typed as in JSON: true and false, 4 (integer), 4.0 (float). Any other text is a
    string. Quotes make a value a string: --tag 'sku="007"'.

    Product libraries store the main subject of each picture, and its category unless one is given.

    If a picture cannot be added, the others still are. Failures are listed at the end, and the
    exit status is 1.
    """
    found = files.find_pictures(paths)
    total = len(found.pictures) + len(found.rejected)
    started_s = time.monotonic()
    failures: list[tuple[Path, Status]] = []
    warnings: list[str] = []
    added_count = 0
    with connected() as client:
        adder = Adder(
            client,
            f"libraries/{values.library_id(library)}",
            tags=dict(tags),
            category=values.category(category),
            entity_id=entity,
            allow_overwrite=overwrite,
            region=region,
            subject_detection=subject_detection,
        )
        try:
            with (
                _progress(total, lines_on_stdout=as_json) as advance,
                contextlib.closing(adder.add_all(found)) as results,
            ):
                for path, result in results:
                    if as_json:
                        output.print_json({"path": str(path), **output.to_dict(result)})
                    if result.HasField("error"):
                        failures.append((path, result.error))
                    else:
                        added_count += 1
                    warnings += [f"{path}: {warning}" for warning in result.image.warnings]
                    advance()
        finally:
            if not as_json and (added_count or failures or not total):
                _summarize(library, added_count, time.monotonic() - started_s, found.skipped_count)
            for warning in warnings:
                click.echo(f"Note: {warning}", err=True)
            _list_failures(failures)
    ctx.exit(1 if failures else 0)


@dataclass
class Adder:
    """Adds pictures with the same metadata to a library."""

    client: Client
    parent: str
    tags: Mapping[str, PlainTag]
    category: Category.ValueType
    entity_id: str
    allow_overwrite: bool
    region: Box | None = None
    subject_detection: bool | None = None

    def __post_init__(self) -> None:
        self._stopping = threading.Event()

    def add_all(
        self, found: files.Found
    ) -> Generator[tuple[Path, BatchAddImagesResult], None, None]:
        """Yield the result of each picture, in order, while other calls are in flight."""
        for path, message in found.rejected:
            yield path, _failed(message, FILE_UNREADABLE)
        waiting: deque[tuple[Sequence[files.Picture], Future[list[BatchAddImagesResult]]]] = deque()
        with ThreadPoolExecutor(IN_FLIGHT) as pool:
            try:
                for batch in files.batches(found.pictures):
                    if len(waiting) == IN_FLIGHT:
                        yield from _finish(*waiting.popleft())
                    waiting.append((batch, pool.submit(self._add_batch, batch)))
                while waiting:
                    yield from _finish(*waiting.popleft())
            except BaseException:
                self._stopping.set()
                pool.shutdown(wait=False, cancel_futures=True)
                self.client.close()
                raise

    def _add_batch(self, batch: Sequence[files.Picture]) -> list[BatchAddImagesResult]:
        results: dict[Path, BatchAddImagesResult] = {}
        waiting: dict[Path, AddImageRequest] = {}
        for picture in batch:
            try:
                waiting[picture.path] = self._request(picture)
            except OSError as error:
                results[picture.path] = _failed(output.os_message(error), FILE_UNREADABLE)
        for attempt in range(1, ATTEMPTS + 1):
            if not waiting:
                break
            wait_s = self._attempt(waiting, results, last=attempt == ATTEMPTS)
            if waiting and attempt < ATTEMPTS:
                self._stopping.wait(wait_s)
        return [results[picture.path] for picture in batch]

    def _attempt(
        self,
        waiting: dict[Path, AddImageRequest],
        results: dict[Path, BatchAddImagesResult],
        *,
        last: bool,
    ) -> float:
        """Send the waiting pictures once.

        Pictures that the service asks to send again remain in `waiting`.

        Returns:
            Delay before the next attempt, in seconds.
        """
        from imagesearch.client import ImageSearchError
        from imagesearch.client._retries import with_jitter

        try:
            answer = self.client.batch_add_images(parent=self.parent, requests=waiting.values())
        except ImageSearchError as error:
            if error.retry_after_s is None or last:
                raise
            return with_jitter(error.retry_after_s)
        wait_s = 0.0
        for path, result in zip(list(waiting), answer.results, strict=True):
            results[path] = result
            retry_after_s = (
                ImageSearchError.from_status(result.error).retry_after_s
                if result.HasField("error")
                else None
            )
            if retry_after_s is None:
                del waiting[path]
            else:
                wait_s = max(wait_s, retry_after_s)
        return with_jitter(wait_s)

    def _request(self, picture: files.Picture) -> AddImageRequest:
        from imagesearch.client import request_builders

        if picture.size_bytes > files.BATCH_BYTES:
            raise OSError(
                f"{picture.size_bytes:,} bytes exceed the limit of {files.BATCH_BYTES:,} per call"
            )
        return request_builders.add_image(
            image=picture.path.read_bytes(),
            image_id=picture.image_id,
            tags=self.tags,
            category=self.category,
            entity_id=self.entity_id,
            allow_overwrite=self.allow_overwrite,
            region=self.region,
            subject_detection=self.subject_detection,
        )


def _finish(
    batch: Sequence[files.Picture], future: Future[list[BatchAddImagesResult]]
) -> Iterator[tuple[Path, BatchAddImagesResult]]:
    for picture, result in zip(batch, future.result(), strict=True):
        yield picture.path, result


def _failed(message: str, reason: str) -> BatchAddImagesResult:
    from imagesearch.client import BatchAddImagesResult

    return BatchAddImagesResult(error=output.local_error(message, reason))


def _summarize(library: str, added_count: int, duration_s: float, skipped_count: int) -> None:
    rate = added_count / duration_s if duration_s else 0.0
    added = output.count_text(added_count, "picture")
    click.echo(f"Added {added} to {library} in {duration_s:.1f} s ({rate:.1f}/s).")
    if skipped_count:
        skipped = output.count_text(skipped_count, "file")
        click.echo(f"Skipped {skipped} without the extension of a picture format.")


def _list_failures(failures: Sequence[tuple[Path, Status]]) -> None:
    from imagesearch.client import ImageSearchError

    if not failures:
        return
    click.echo(f"Not added, {output.count_text(len(failures), 'picture')}:", err=True)
    errors = [(path, ImageSearchError.from_status(status)) for path, status in failures]
    for path, error in errors:
        click.echo(f"  {path}: {error.message} [{error.reason}]", err=True)
    for reason in sorted({error.reason for _, error in errors} & HINTS.keys()):
        click.echo(f"{reason}: {HINTS[reason]}", err=True)


@contextlib.contextmanager
def _progress(total: int, *, lines_on_stdout: bool) -> Iterator[Callable[[], None]]:
    """Yield a function to call after each picture. It draws a bar if stderr is a terminal."""
    if not sys.stderr.isatty() or (lines_on_stdout and sys.stdout.isatty()):
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (*Progress.get_default_columns()[:-1], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("Adding", total=total)
        yield lambda: progress.advance(task)
