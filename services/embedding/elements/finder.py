"""Pictures in, features out; features in, appearances out: the service's work on elements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from imagesearch_services.common.concurrency import both, task_group
from imagesearch_services.common.errors import ServiceError, field_error, missing_field
from imagesearch_services.common.stopwatch import Stopwatch
from imagesearch_services.common.types import Box, PictureInfo, StepTiming
from imagesearch_services.embedding.elements.features import (
    QUERY_SIDE_PX,
    STORED_SIDE_PX,
    Bag,
    QueryFeatures,
    StoredElement,
    Working,
    describe_element,
    describe_texture,
    query_shapes,
    shape_bag,
    working,
)
from imagesearch_services.embedding.elements.fusion import Candidate, FoundElement, find
from imagesearch_services.embedding.elements.regional import (
    DenseModel,
    DenseView,
    Regional,
    RegionalDescriber,
    with_regional,
)
from imagesearch_services.embedding.elements.verification import Rules
from imagesearch_services.embedding.elements.vocabulary import Vocabulary
from imagesearch_services.embedding.items import PICTURE_FAULTS, Item, validate_thumbnail
from imagesearch_services.embedding.pictures import PictureFile
from imagesearch_services.embedding.preparing import clipped_region
from imagesearch_services.embedding.runtime import Call, Runtime
from imagesearch_services.embedding.thumbnails import thumbnail

MAX_ITEMS = 100
MAX_CANDIDATES = 1000
WORKING_PIXELS = 3_000_000
"""What a picture takes after it has been decoded, with its features."""
NO_WORDS = Bag(np.empty(0, np.int64), np.empty(0, np.float32))


@dataclass(frozen=True, slots=True)
class Extracted:
    """The features of one picture."""

    info: PictureInfo
    box: Box
    features: bytes
    keypoint_count: int
    bag: Bag
    shape_bag: Bag
    """Of a query's shapes; those of an element are in `bag`."""
    thumbnail: bytes
    """JPEG of the whole picture, where asked for."""
    regional: Regional | None = None
    """Where asked for; it is in `features`, too."""


@dataclass(frozen=True, slots=True)
class Purpose:
    """What pictures of a call are described for."""

    for_query: bool
    thumbnail_max_side_px: int = 0
    """0: no small picture is made."""
    regional_space: str = ""
    """Of the dense model to describe with, too; empty: none."""

    @property
    def side_px(self) -> int:
        return QUERY_SIDE_PX if self.for_query else STORED_SIDE_PX


@dataclass(frozen=True, slots=True)
class Extraction:
    """What came of a call, in the order of its items."""

    pictures: Sequence[Extracted | ServiceError]
    timings: Sequence[StepTiming]


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found, best first."""

    elements: Sequence[FoundElement]
    timings: Sequence[StepTiming]


class ElementFinder:
    """Describes elements and finds them."""

    def __init__(
        self, runtime: Runtime, vocabulary: Vocabulary, regional: RegionalDescriber
    ) -> None:
        self._runtime = runtime
        self._vocabulary = vocabulary
        self._regional = regional
        self._rules = Rules()

    async def extract(self, items: Sequence[Item], purpose: Purpose) -> Extraction:
        """Describe pictures, or one region of each, by local features and with a dense model.

        Raises:
            ServiceError: for all of them together: FIELD_REQUIRED, FIELD_INVALID, OVERLOADED,
                MODEL_NOT_SERVED, MODEL_SERVER_UNAVAILABLE.
        """
        if not 1 <= len(items) <= MAX_ITEMS:
            raise field_error("items", f"must be 1 to {MAX_ITEMS}")
        for index, item in enumerate(items):
            if len(item.regions) > 1:
                raise field_error(f"items[{index}].regions", "must be at most one")
        validate_thumbnail(purpose.thumbnail_max_side_px)
        work = _Work(self._runtime.start_call(), purpose, Stopwatch())
        async with task_group() as tasks:
            outcomes = [
                tasks.create_task(self._outcome(work, item, f"items[{index}]."))
                for index, item in enumerate(items)
            ]
        return Extraction([outcome.result() for outcome in outcomes], work.stopwatch.timings())

    async def verify(self, query_features: bytes, candidates: Sequence[Candidate]) -> Verification:
        """Return the candidates that appear in a picture, and where.

        Args:
            query_features: `Extracted.features` of the picture, extracted for a query.
            candidates: stored elements.

        Raises:
            ServiceError: FIELD_REQUIRED, FIELD_INVALID.
        """
        if not query_features:
            raise missing_field("query_features")
        if len(candidates) > MAX_CANDIDATES:
            raise field_error("candidates", f"must be at most {MAX_CANDIDATES}")
        stopwatch = Stopwatch()
        with stopwatch.step("verify"):
            found = await self._runtime.start_call().long.run(
                find, query_features, candidates, self._vocabulary, self._rules
            )
        return Verification(found, stopwatch.timings())

    async def _outcome(self, work: _Work, item: Item, place: str) -> Extracted | ServiceError:
        try:
            return await self._extract(work, item, place)
        except ServiceError as error:
            if error.reason in PICTURE_FAULTS:
                return error
            raise

    async def _extract(self, work: _Work, item: Item, place: str) -> Extracted:
        call, purpose, stopwatch = work.call, work.purpose, work.stopwatch
        if not item.content:
            raise missing_field(f"{place}image.content")
        dense = None
        if purpose.regional_space:
            dense = self._regional.dense(purpose.regional_space, for_query=purpose.for_query)
        file = await self._runtime.read_header(item.content)
        working_pixels = WORKING_PIXELS + (dense.input_pixels if dense else 0)
        async with call.admit(file.pixels + working_pixels) as grant:
            with stopwatch.step("decode"):
                opened = await call.lane_for(file).run(_opened, file, item, place, purpose, dense)
            grant.shrink_to(working_pixels)
            async with task_group() as tasks:
                inference = tasks.create_task(self._describe_regions(opened, stopwatch))
                with stopwatch.step("describe"):
                    extracted = await self._describe(call, opened, purpose)
        regional = inference.result()
        features = with_regional(extracted.features, regional)
        return replace(extracted, features=features, regional=regional)

    async def _describe_regions(self, opened: _Opened, stopwatch: Stopwatch) -> Regional | None:
        if opened.dense is None:
            return None
        with stopwatch.step("infer"):
            return await self._regional.describe(opened.dense)

    async def _describe(self, call: Call, opened: _Opened, purpose: Purpose) -> Extracted:
        described: QueryFeatures | StoredElement
        shape_words = NO_WORDS
        if purpose.for_query:
            texture, shapes = await both(
                call.long.run(describe_texture, opened.view, self._vocabulary),
                call.long.run(query_shapes, opened.view),
            )
            texture_only, bag = texture
            described = replace(texture_only, shapes=shapes)
            shape_words = shape_bag(shapes, self._vocabulary)
        else:
            described, bag = await call.long.run(describe_element, opened.view, self._vocabulary)
        return Extracted(
            opened.info,
            opened.view.region,
            described.to_bytes(),
            described.feature_count,
            bag,
            shape_words,
            opened.thumbnail,
        )


@dataclass(frozen=True, slots=True)
class _Work:
    """State that the pictures of one call share."""

    call: Call
    purpose: Purpose
    stopwatch: Stopwatch


@dataclass(frozen=True, slots=True)
class _Opened:
    """A decoded picture, and what of it is to be described."""

    info: PictureInfo
    view: Working
    thumbnail: bytes
    dense: DenseView | None


def _opened(
    file: PictureFile, item: Item, place: str, purpose: Purpose, dense: DenseModel | None
) -> _Opened:
    """Decode a picture and cut out what is to be described."""
    long_side_px = max(file.width, file.height)
    # Both ways up, since it is not known yet which one is shown.
    sides = [
        max(inside.width, inside.height)
        for region in item.regions
        for width, height in ((file.width, file.height), (file.height, file.width))
        if (inside := region.clipped(width, height)) is not None
    ]
    reduction = min([long_side_px, *sides]) / purpose.side_px
    small_px = purpose.thumbnail_max_side_px
    if small_px:
        reduction = min(reduction, long_side_px / small_px)
    picture = file.decode(reduction)
    box = Box(0, 0, picture.width, picture.height)
    if item.regions:
        box = clipped_region(item.regions[0], picture, f"{place}regions[0]")
    return _Opened(
        file.describe(picture),
        working(picture, box, purpose.side_px),
        thumbnail(picture.image, small_px) if small_px else b"",
        None if dense is None else dense.view(picture, box),
    )
