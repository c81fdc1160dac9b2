"""Compares a Catalog with a model after a fault, and settles what was uncertain."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import grpc.aio
import numpy as np

from imagesearch.catalog.v1 import catalog_service_pb2 as pb
from tests.contract.catalog.support import Catalog, where
from tests.faults.model import REVISION_TAG, EntryState, LibraryModel, Model

T = TypeVar("T")

PAGE = 100
"""Entries read per call."""

SAMPLES = 5
"""Entries per library that are also searched for and filtered."""


@dataclass
class Findings:
    """What differs between a Catalog and its model."""

    problems: list[str] = field(default_factory=list)
    entry_count: int = 0
    """Number of entries that were read."""

    def add(self, problem: str) -> None:
        self.problems.append(problem)


async def check(catalog: Catalog, model: Model, *, retries: bool = True) -> Findings:
    """Read everything, compare it with the model, and set the model to what was found.

    With `retries`, answered deletions and unanswered puts are repeated, too.
    """
    findings = Findings()
    try:
        await _check_libraries(catalog, model, findings)
        if retries and not findings.problems:
            await _check_answers(catalog, model, findings)
    except grpc.aio.AioRpcError as error:
        findings.add(f"{error.code().name}: {error.details()}")
    return findings


async def _check_libraries(catalog: Catalog, model: Model, findings: Findings) -> None:
    listed = {library.library_id async for library in _libraries(catalog)}
    for library in model.libraries.values():
        found = library.library_id in listed
        if found not in library.states:
            findings.add(f"library {library.library_id}: {'there' if found else 'lost'}")
        library.settle_existence(found)
        if found:
            await _check_entries(catalog, library, findings)
    for library_id in listed - model.libraries.keys():
        findings.add(f"library {library_id} is unknown")


async def _libraries(catalog: Catalog) -> AsyncIterator[pb.Library]:
    token = ""
    while True:
        page = await catalog.stub.ListLibraries(pb.ListLibrariesRequest(page_token=token))
        for library in page.libraries:
            yield library
        token = page.next_page_token
        if not token:
            return


async def _check_entries(catalog: Catalog, library: LibraryModel, findings: Findings) -> None:
    for image_ids in _pages(list(library.entries)):
        found = {
            entry.image_id: entry
            for entry in await catalog.get(
                library.library_id, *image_ids, include_vectors=True, include_features=True
            )
        }
        thumbnails = dict(
            zip(
                found,
                await catalog.thumbnails(library.library_id, *found) if found else [],
                strict=True,
            )
        )
        for image_id in image_ids:
            states = library.entries[image_id]
            entry, thumbnail = found.get(image_id), thumbnails.get(image_id, b"")
            matching = [state for state in states if _matches(state, entry, thumbnail)]
            findings.entry_count += entry is not None
            if matching:
                library.settle(image_id, matching[0])
                continue
            library.settle(image_id, None)
            findings.add(
                f"entry {image_id}: {_description(entry, thumbnail)}; "
                f"possible: {[_summary(state) for state in states]}"
            )
    certain = library.certain()
    count = (await catalog.library(library.library_id)).entry_count
    listed = await catalog.count(library.library_id)
    if not findings.problems and (count, listed) != (len(certain), len(certain)):
        findings.add(
            f"library {library.library_id}: counts {count} and {listed}, not {len(certain)}"
        )
    for state in certain[:: max(1, len(certain) // SAMPLES)]:
        await _check_search(catalog, library, state, findings)


async def _check_search(
    catalog: Catalog, library: LibraryModel, state: EntryState, findings: Findings
) -> None:
    if state.image_id not in await catalog.nearest(library.library_id, state.vector, limit=3):
        findings.add(f"entry {state.image_id}: not found by its vector")
    tagged = where(f"tags.{REVISION_TAG}", "=", state.revision)
    hits = await catalog.nearest(library.library_id, state.vector, limit=3, filter=tagged)
    if state.image_id not in hits:
        findings.add(f"entry {state.image_id}: not found by its tag")


async def _check_answers(catalog: Catalog, model: Model, findings: Findings) -> None:
    """Repeat answered deletions, and unanswered puts, which must succeed now."""
    for answered in model.answered[-SAMPLES:]:
        if not model.library(answered.request.library_id).exists:
            continue
        again = await catalog.stub.DeleteEntries(answered.request)
        if again.deleted_count != answered.deleted_count:
            findings.add(f"request {answered.request.request_id}: another answer than before")
    for put in model.unanswered_puts:
        library = model.library(put.library_id)
        if not library.exists:
            continue
        results = (await catalog.stub.PutEntries(put)).results
        for entry, result in zip(put.entries, results, strict=True):
            if not result.HasField("entry"):
                findings.add(f"retry of {entry.image_id}: {result.error.message}")
            revision = entry.tags[REVISION_TAG].int_value
            library.settle(entry.image_id, EntryState(entry.image_id, revision))
    model.unanswered_puts.clear()


def _matches(state: EntryState | None, entry: pb.Entry | None, thumbnail: bytes) -> bool:
    if state is None or entry is None:
        return state is None and entry is None
    (vector,) = entry.vectors
    return (
        entry.tags[REVISION_TAG].int_value == state.revision
        and entry.entity_id == state.entity_id
        and entry.features == state.thumbnail[:100]
        and thumbnail == state.thumbnail
        and np.allclose(
            np.frombuffer(vector.values, "<f4"), np.frombuffer(state.vector, "<f4"), atol=1e-6
        )
    )


def _summary(state: EntryState | None) -> str:
    return "absent" if state is None else f"revision {state.revision} {state.entity_id!r}"


def _description(entry: pb.Entry | None, thumbnail: bytes) -> str:
    if entry is None:
        return "lost"
    return (
        f"revision {entry.tags[REVISION_TAG].int_value} {entry.entity_id!r}, "
        f"thumbnail of {len(thumbnail)} bytes"
    )


def _pages(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), PAGE):
        yield items[start : start + PAGE]
