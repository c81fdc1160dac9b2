"""Thumbnails of matches.

A search does not fail if thumbnails are missing: the answer has a warning instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from imagesearch_services.common.errors import ServiceError
from imagesearch_services.common.logs import logger
from imagesearch_services.common.stopwatch import Stopwatch
from imagesearch_services.gateway.search.answer import Match, SearchAnswer

MAX_ANSWER_BYTES = 24 * 1024 * 1024
"""Maximum bytes of all thumbnails in an answer. The whole answer has to fit in 32 MiB."""


class ThumbnailStore(Protocol):
    """The part of the Catalog that stores thumbnails."""

    async def get_thumbnails(
        self, library_id: str, image_ids: Sequence[str], *, library_uid: str = ""
    ) -> Sequence[bytes]:
        """Return a thumbnail for each id; empty if the image has no thumbnail."""


async def load_thumbnails(
    store: ThumbnailStore,
    library_id: str,
    image_ids: Sequence[str],
    loaded: Mapping[str, bytes | ServiceError],
    *,
    library_uid: str = "",
) -> tuple[dict[str, bytes], ServiceError | None]:
    """Return the thumbnails of images, loading only those that did not come with the hits.

    Args:
        store: store to load thumbnails from.
        library_id: library of the images.
        image_ids: ids of the images.
        loaded: thumbnails that came with the hits. If it contains an error, the store is
            unavailable and is not called again.
        library_uid: expected uid of the library.

    Returns:
        The existing thumbnails by image id, and the error of the store if it is unavailable.
    """
    results = [loaded[image_id] for image_id in image_ids if image_id in loaded]
    error = next((result for result in results if isinstance(result, ServiceError)), None)
    missing = [image_id for image_id in image_ids if image_id not in loaded]
    files = dict(loaded)
    if missing and error is None:
        try:
            stored = await store.get_thumbnails(library_id, missing, library_uid=library_uid)
        except ServiceError as unavailable:
            error = unavailable
        else:
            files |= zip(missing, stored, strict=True)
    thumbnails = {}
    for image_id in image_ids:
        file = files.get(image_id)
        if file and isinstance(file, bytes):
            thumbnails[image_id] = file
    return thumbnails, error


async def with_thumbnails(
    store: ThumbnailStore, library_id: str, library_uid: str, answer: SearchAnswer, max_bytes: int
) -> SearchAnswer:
    """Return the answer with the thumbnails of its first matches, as many as fit `max_bytes`."""
    stopwatch = Stopwatch(answer.timings)
    with stopwatch.step("thumbnails"):
        image_ids = [match.image.image_id for match in answer.matches]
        thumbnails, error = await load_thumbnails(
            store, library_id, image_ids, answer.thumbnails, library_uid=library_uid
        )
        matches, omitted_count = _fit(answer.matches, thumbnails, max_bytes)
    warnings = list(answer.warnings)
    if error is not None:
        logger().warning("search.thumbnails_missing", reason=error.reason)
        warnings.append(f"thumbnails: not included: {error.message}")
    if omitted_count:
        warnings.append(
            f"thumbnails: {omitted_count} left out: the limit for all thumbnails is "
            f"{max_bytes:,} bytes; request a smaller page"
        )
    return replace(
        answer,
        matches=matches,
        warnings=warnings,
        thumbnails={image_id: thumbnails.get(image_id, error or b"") for image_id in image_ids},
        timings=stopwatch.timings(),
    )


def _fit(
    matches: Sequence[Match], thumbnails: Mapping[str, bytes], max_bytes: int
) -> tuple[list[Match], int]:
    """Return the matches with the thumbnails that fit, and the number of omitted thumbnails.

    After the first thumbnail that does not fit, all further thumbnails are omitted.
    """
    fitted: list[Match] = []
    free_bytes, omitted_count = max_bytes, 0
    for match in matches:
        thumbnail = thumbnails.get(match.image.image_id, b"")
        if len(thumbnail) > free_bytes:
            free_bytes, omitted_count = 0, omitted_count + 1
            fitted.append(match)
        else:
            free_bytes -= len(thumbnail)
            fitted.append(replace(match, thumbnail=thumbnail))
    return fitted, omitted_count
