"""Small pictures beside matches.

They come on top of an answer and never cost it: what is missing is a warning.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import structlog

from imagesearch_services.common.errors import ServiceError
from imagesearch_services.common.types import StepTiming
from imagesearch_services.gateway.model import Match, SearchAnswer

ANSWER_BYTES = 24 * 1024 * 1024
"""Most bytes of them in an answer; the rest of it has to fit in 32 MiB, too."""


class Shelf(Protocol):
    """The Catalog, as far as it keeps small pictures."""

    async def get_thumbnails(
        self, library_id: str, image_ids: Sequence[str], *, library_uid: str = ""
    ) -> Sequence[bytes]:
        """Give as many as ids; empty where none is kept."""


async def small_pictures(
    shelf: Shelf,
    library_id: str,
    image_ids: Sequence[str],
    at_hand: Mapping[str, bytes | ServiceError],
    *,
    library_uid: str = "",
) -> tuple[dict[str, bytes], ServiceError | None]:
    """Get small pictures, asking for none that came with the hits, nor a store that is away.

    Returns:
        Those that are kept, by image id, and why others could not be had.
    """
    known = [at_hand[image_id] for image_id in image_ids if image_id in at_hand]
    error = next((one for one in known if isinstance(one, ServiceError)), None)
    missing = [image_id for image_id in image_ids if image_id not in at_hand]
    files = dict(at_hand)
    if missing and error is None:
        try:
            got = await shelf.get_thumbnails(library_id, missing, library_uid=library_uid)
        except ServiceError as away:
            error = away
        else:
            files |= zip(missing, got, strict=True)
    kept = ((image_id, files.get(image_id)) for image_id in image_ids)
    return {image_id: file for image_id, file in kept if file and isinstance(file, bytes)}, error


async def with_thumbnails(
    shelf: Shelf, library_id: str, library_uid: str, answer: SearchAnswer, max_bytes: int
) -> SearchAnswer:
    """Give the matches their small pictures, as many of the first as fit in `max_bytes`."""
    started_s = time.perf_counter()
    image_ids = [match.image.image_id for match in answer.matches]
    files, error = await small_pictures(
        shelf, library_id, image_ids, answer.thumbnails, library_uid=library_uid
    )
    matches, left_out = _fitting(answer.matches, files, max_bytes)
    warnings = list(answer.warnings)
    if error is not None:
        structlog.get_logger().warning("search.no_thumbnails", reason=error.reason)
        warnings.append(f"thumbnails: none are given: {error.message}")
    if left_out:
        warnings.append(f"thumbnails: {left_out} left out: the answer is full")
    *steps, total = answer.timings
    took_ms = (time.perf_counter() - started_s) * 1e3
    return replace(
        answer,
        matches=matches,
        warnings=warnings,
        thumbnails={image_id: files.get(image_id, error or b"") for image_id in image_ids},
        timings=[
            *steps,
            StepTiming("thumbnails", took_ms),
            StepTiming(total.step, total.duration_ms + took_ms),
        ],
    )


def _fitting(
    matches: Sequence[Match], files: Mapping[str, bytes], max_bytes: int
) -> tuple[list[Match], int]:
    """Return the matches with their small pictures, and how many had no room for theirs."""
    given: list[Match] = []
    left_bytes, left_out = max_bytes, 0
    for match in matches:
        file = files.get(match.image.image_id, b"")
        if len(file) > left_bytes:
            left_bytes, left_out = 0, left_out + 1
            given.append(match)
        else:
            left_bytes -= len(file)
            given.append(replace(match, thumbnail=file))
    return given, left_out
