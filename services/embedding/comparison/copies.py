"""Aligns pairs of thumbnails and measures how well their pixels agree.

The pixels of copies agree; the pixels of different photos of one scene do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from imagesearch_services.common.concurrency import together
from imagesearch_services.common.errors import ServiceError, field_error, missing_field
from imagesearch_services.embedding.comparison.alignment import align
from imagesearch_services.embedding.comparison.view import View, grey_of
from imagesearch_services.embedding.embed.items import PICTURE_ERRORS
from imagesearch_services.embedding.features.local_features import ExtractionLimits, extract
from imagesearch_services.embedding.pictures.opened_file import OpenedFile
from imagesearch_services.embedding.runtime import Call, Runtime

MAX_PICTURES = 100
"""Maximum thumbnails per call."""
MAX_PAIRS = 1000
"""Maximum pairs of thumbnails per call."""
MAX_SIDE_PX = 1024
"""Maximum side of a thumbnail, in pixels."""

LIMITS = ExtractionLimits(max_features=300)
"""Limits of the features of a thumbnail, chosen at 320 px: more features take longer and find no
more copies."""
AGREEMENT_SIDE_PX = 256
"""Maximum long side of the overlap when it is compared, in pixels; at 160 px, one pair in a hundred
is judged worse."""
FEATURES_SCALE = 0.5
"""Scale factor of a thumbnail before features are extracted: full scale takes three times as long
and finds no more copies."""


@dataclass(frozen=True, slots=True)
class CopyEvidence:
    """How well the pixels of two aligned pictures agree; all 0 if they cannot be aligned."""

    agreement: float = 0.0
    """Mean correlation of the windows that have contrast, 0 to 1."""
    contrast_share: float = 0.0
    """Share of the overlap that has contrast."""
    bend: float = 0.0
    """Displacement by the non-rigid refinement, as a share of the overlap's long side."""
    shown_of_first: float = 0.0
    """Share of the first picture's area that the second shows."""
    shown_of_second: float = 0.0
    """Share of the second picture's area that the first shows."""
    inlier_count: int = 0
    """Matches of local features that are inliers of the alignment."""


class CopyChecker:
    """Checks pairs of thumbnails."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def check(
        self, contents: Sequence[bytes], pairs: Sequence[tuple[int, int]]
    ) -> list[CopyEvidence | None]:
        """Align pairs of thumbnails and measure how well their pixels agree.

        Args:
            contents: files of the thumbnails.
            pairs: pairs of indices into `contents`.

        Returns:
            The evidence of each pair; None if a picture of the pair is unreadable or too large.

        Raises:
            ServiceError: FIELD_REQUIRED, FIELD_INVALID, OVERLOADED.
        """
        _check_request(contents, pairs)
        call = self._runtime.start_call()
        files = await together(_open(call, content) for content in contents)
        async with call.admit(sum(file.pixels for file in files if file)):
            views = await together(_view(call, file) for file in files)
            return await together(
                call.long.run(_evidence, views[first], views[second]) for first, second in pairs
            )


async def _open(call: Call, content: bytes) -> OpenedFile | None:
    """Read the header of a thumbnail; None if it is unreadable or too large."""
    try:
        file = await call.open(content)
    except ServiceError as error:
        if error.reason not in PICTURE_ERRORS:
            raise
        return None
    return file if max(file.width, file.height) <= MAX_SIDE_PX else None


def _evidence(first: View | None, second: View | None) -> CopyEvidence | None:
    return None if first is None or second is None else measure_pair(first, second)


def measure_pair(first: View, second: View) -> CopyEvidence:
    """Align one picture with the other and measure how well their pixels agree."""
    aligned = align(first, second, side_px=AGREEMENT_SIDE_PX)
    if aligned is None:
        return CopyEvidence()
    return CopyEvidence(
        agreement=aligned.agreement,
        contrast_share=aligned.contrast_share,
        bend=aligned.bend,
        shown_of_first=aligned.shown_of_first,
        shown_of_second=aligned.shown_of_second,
        inlier_count=aligned.inlier_count,
    )


def view_of(pixels: npt.NDArray[np.uint8]) -> View:
    """Return the grey levels and local features of a thumbnail, uint8 RGB [height, width, 3]."""
    grey = grey_of(pixels)
    height, width = grey.shape
    size = max(2, round(width * FEATURES_SCALE)), max(2, round(height * FEATURES_SCALE))
    coarse = np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.uint8)
    coarse_features = extract(coarse, LIMITS)
    scales = np.array([width / size[0], height / size[1]], np.float32)
    features = replace(
        coarse_features,
        points=coarse_features.points * scales,
        sizes=coarse_features.sizes * np.float32(scales.mean()),
    )
    return View(grey, grey, features)


async def _view(call: Call, file: OpenedFile | None) -> View | None:
    if file is None:
        return None
    try:
        picture = await call.decode(file)
    except ServiceError as error:
        if error.reason not in PICTURE_ERRORS:
            raise
        return None
    return await call.long.run(lambda: view_of(np.asarray(picture.image)))


def _check_request(contents: Sequence[bytes], pairs: Sequence[tuple[int, int]]) -> None:
    if not pairs:
        raise missing_field("pairs")
    for number, content in enumerate(contents):
        if not content:
            raise missing_field(f"images[{number}].content")
    if len(contents) > MAX_PICTURES:
        raise field_error("images", f"has {len(contents)} images; the maximum is {MAX_PICTURES}")
    if len(pairs) > MAX_PAIRS:
        raise field_error("pairs", f"has {len(pairs)} pairs; the maximum is {MAX_PAIRS:,}")
    for number, pair in enumerate(pairs):
        if pair[0] == pair[1] or not all(0 <= row < len(contents) for row in pair):
            raise field_error(
                f"pairs[{number}]",
                f"is {pair}; must be two different indices from 0 to {len(contents) - 1}",
            )
