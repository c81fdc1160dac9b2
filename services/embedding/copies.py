"""Pairs of small pictures laid over each other: what tells copies from pictures of one series."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from imagesearch_services.common.errors import ServiceError, field_error, missing_field
from imagesearch_services.embedding.admission import CallAdmission, PixelBudget
from imagesearch_services.embedding.comparison.alignment import View, align, grey_of
from imagesearch_services.embedding.local_features import ExtractionLimits, extract
from imagesearch_services.embedding.pictures import PictureFile
from imagesearch_services.embedding.workers import Workers

MAX_PICTURES = 100
MAX_PAIRS = 1000
MAX_SIDE_PX = 1024

LIMITS = ExtractionLimits(max_features=300)
"""Of a picture of 320 pixels; more cost time and tell no more copies."""
AGREEMENT_SIDE_PX = 256
"""Long side at which what both show is compared: at 160 px one in a hundred is told less well."""
FEATURES_SCALE = 0.5
"""At which they are taken: finer ones take three times as long and tell no more copies."""


@dataclass(frozen=True, slots=True)
class CopyEvidence:
    """How well two pictures agree where one lies over the other; all 0 where nothing fits."""

    agreement: float = 0.0
    """Mean correlation of the windows that have contrast, 0 to 1."""
    contrast_share: float = 0.0
    """Share of the overlap that has contrast."""
    bend: float = 0.0
    """How far parts had to be bent to agree, as a share of the overlap's long side."""
    shown_of_first: float = 0.0
    """Share of the first picture's area that the second shows."""
    shown_of_second: float = 0.0
    """Share of the second picture's area that the first shows."""
    inlier_count: int = 0
    """Matches of local features that agree on the alignment."""


class CopyChecker:
    """Checks pairs in threads."""

    def __init__(self, *, workers: int, budget: PixelBudget, overload_retry_s: float) -> None:
        """Set up the threads; `budget` is shared with what else the service does."""
        self._workers = Workers(workers, "copies")
        # Of its own, so that a refusal never waits behind the pairs of other calls.
        self._header_reader = Workers(1, "copy-headers")
        self._budget = budget
        self._overload_retry_s = overload_retry_s

    def close(self) -> None:
        self._workers.close()
        self._header_reader.close()

    async def check(
        self, contents: Sequence[bytes], pairs: Sequence[tuple[int, int]]
    ) -> list[CopyEvidence | None]:
        """Lay pairs of pictures over each other.

        Args:
            contents: files of small pictures.
            pairs: indices into them.

        Returns:
            What was found of each pair; None where one of the two can't be read or is not small.

        Raises:
            ServiceError: FIELD_REQUIRED, FIELD_INVALID, OVERLOADED.
        """
        _check_request(contents, pairs)
        files = await self._header_reader.run(_opened, contents)
        admission = CallAdmission(self._budget, retry_after_s=self._overload_retry_s)
        async with admission.admit(sum(file.pixels for file in files if file)):
            views = await asyncio.gather(*(self._workers.run(_view, file) for file in files))
            return await asyncio.gather(
                *(
                    self._workers.run(_evidence, views[first], views[second])
                    for first, second in pairs
                )
            )


def _evidence(first: View | None, second: View | None) -> CopyEvidence | None:
    return None if first is None or second is None else evidence(first, second)


def evidence(first: View, second: View) -> CopyEvidence:
    """Lay one picture over the other and measure how well they agree there."""
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
    """Describe a small picture, uint8 RGB [height, width, 3]."""
    grey = grey_of(pixels)
    height, width = grey.shape
    size = max(2, round(width * FEATURES_SCALE)), max(2, round(height * FEATURES_SCALE))
    coarse = np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.uint8)
    found = extract(coarse, LIMITS)
    scales = np.array([width / size[0], height / size[1]], np.float32)
    features = replace(
        found, points=found.points * scales, sizes=found.sizes * np.float32(scales.mean())
    )
    return View(grey, grey, features)


def _opened(contents: Sequence[bytes]) -> list[PictureFile | None]:
    """Read the headers of all pictures, in their order; None for what is no small picture."""
    return [_opened_one(each) for each in contents]


def _opened_one(content: bytes) -> PictureFile | None:
    try:
        file = PictureFile(content)
    except ServiceError:
        return None
    return file if max(file.width, file.height) <= MAX_SIDE_PX else None


def _view(file: PictureFile | None) -> View | None:
    try:
        return None if file is None else view_of(np.asarray(file.decode().image))
    except ServiceError:
        return None


def _check_request(contents: Sequence[bytes], pairs: Sequence[tuple[int, int]]) -> None:
    if not pairs:
        raise missing_field("pairs")
    for number, content in enumerate(contents):
        if not content:
            raise missing_field(f"images[{number}].content")
    if len(contents) > MAX_PICTURES:
        raise field_error("images", f"must be at most {MAX_PICTURES}")
    if len(pairs) > MAX_PAIRS:
        raise field_error("pairs", f"must be at most {MAX_PAIRS}")
    for number, pair in enumerate(pairs):
        if pair[0] == pair[1] or not all(0 <= row < len(contents) for row in pair):
            raise field_error(f"pairs[{number}]", "must be two different indices into images")
