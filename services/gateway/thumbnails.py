"""Small pictures beside matches.

They come on top of an answer and never cost it: what is missing is a warning.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import structlog

from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.gateway.model import Match, SearchAnswer, StepTiming
from imagesearch_services.gateway.names import image_name
from imagesearch_services.gateway.ports import Catalog

SIDE_PX = 320
"""Long side of those that are kept, at most."""

ANSWER_BYTES = 24 * 1024 * 1024
"""Most bytes of them in an answer; the rest of it has to fit in 32 MiB, too."""


async def with_thumbnails(
    catalog: Catalog, library_id: str, library_uid: str, answer: SearchAnswer, max_bytes: int
) -> SearchAnswer:
    """Give the matches their small pictures, as many of the first as fit in `max_bytes`."""
    started_s = time.perf_counter()
    matches, warnings = answer.matches, answer.warnings
    try:
        files = await catalog.get_thumbnails(
            library_id, [match.image.image_id for match in matches], library_uid=library_uid
        )
    except ServiceError as error:
        structlog.get_logger().warning("search.no_thumbnails", reason=error.reason)
        warnings = [*warnings, f"thumbnails: none are given: {error.message}"]
    else:
        matches, left_out = _fitting(matches, files, max_bytes)
        if left_out:
            warnings = [*warnings, f"thumbnails: {left_out} left out: the answer is full"]
    *steps, total = answer.timings
    took_ms = (time.perf_counter() - started_s) * 1e3
    return replace(
        answer,
        matches=matches,
        warnings=warnings,
        timings=[
            *steps,
            StepTiming("thumbnails", took_ms),
            StepTiming(total.step, total.duration_ms + took_ms),
        ],
    )


def thumbnail_not_found(library_id: str, image_id: str) -> ServiceError:
    """Say that an image has no small picture."""
    name = image_name(library_id, image_id)
    return ServiceError(
        Reason.THUMBNAIL_NOT_FOUND, f"{name} has no small picture", metadata={"image": name}
    )


def _fitting(
    matches: Sequence[Match], files: Sequence[bytes], max_bytes: int
) -> tuple[list[Match], int]:
    """Return the matches with their small pictures, and how many had no room for theirs."""
    given: list[Match] = []
    left_bytes, left_out = max_bytes, 0
    for match, file in zip(matches, files, strict=True):
        if len(file) > left_bytes:
            left_bytes, left_out = 0, left_out + 1
            given.append(match)
        else:
            left_bytes -= len(file)
            given.append(replace(match, thumbnail=file))
    return given, left_out
