"""Extracts the features of elements and queries, and finds elements in queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from imagesearch_services.common.concurrency import both, task_group
from imagesearch_services.common.errors import ServiceError, field_error, missing_field
from imagesearch_services.common.stopwatch import Stopwatch
from imagesearch_services.common.types import Box, PictureInfo, StepTiming
from imagesearch_services.embedding.elements.bags import Bag, query_shape_bag
from imagesearch_services.embedding.elements.description import (
    QUERY_SIDE_PX,
    STORED_SIDE_PX,
    WorkingImage,
    describe_element,
    describe_local_features,
    query_shapes,
    working_image,
)
from imagesearch_services.embedding.elements.features import QueryFeatures, StoredElement
from imagesearch_services.embedding.elements.fusion import (
    Candidate,
    FoundElement,
    find_elements,
)
from imagesearch_services.embedding.elements.regional import (
    DenseModel,
    DenseView,
    Regional,
    RegionalDescriber,
    pack_regional,
)
from imagesearch_services.embedding.elements.rules import Rules
from imagesearch_services.embedding.elements.vocabulary import Vocabulary
from imagesearch_services.embedding.embed.items import PICTURE_ERRORS, Item, validate_thumbnail
from imagesearch_services.embedding.embed.preparing import clipped_region
from imagesearch_services.embedding.pictures.opened_file import OpenedFile
from imagesearch_services.embedding.pictures.picture import Picture
from imagesearch_services.embedding.pictures.thumbnails import thumbnail
from imagesearch_services.embedding.runtime import Call, Runtime

MAX_ITEMS = 100
"""Maximum pictures per call."""
MAX_CANDIDATES = 1000
"""Maximum candidates per call."""
WORKING_PIXELS = 3_000_000
"""Memory of a picture's features and working image, in pixels of the budget."""
NO_WORDS = Bag(np.empty(0, np.int64), np.empty(0, np.float32))
"""An empty bag of words."""


@dataclass(frozen=True, slots=True)
class Extracted:
    """The features of one picture."""

    info: PictureInfo
    box: Box
    """The described region, in pixels of the picture as shown."""
    features: bytes
    """Serialized local features and, if requested, regional features."""
    keypoint_count: int
    """Number of keypoints and of the shapes' rings."""
    bag: Bag
    """Words of the local features; for an element, also those of its shape."""
    shape_bag: Bag
    """Words of a query's shapes; empty for an element."""
    thumbnail: bytes
    """JPEG of the whole picture; empty if not requested."""
    regional: Regional | None = None
    """The regional features in `features`; None if not requested."""


@dataclass(frozen=True, slots=True)
class Purpose:
    """Options of an extraction."""

    for_query: bool
    """Whether the pictures are queries rather than elements to store."""
    thumbnail_max_side_px: int = 0
    """Maximum long side of the thumbnails, in pixels; 0: no thumbnails."""
    regional_space: str = ""
    """Vector space of the dense model; empty: no regional features."""

    @property
    def side_px(self) -> int:
        """Long side of the working image, in pixels."""
        return QUERY_SIDE_PX if self.for_query else STORED_SIDE_PX


@dataclass(frozen=True, slots=True)
class Extraction:
    """The features of the pictures of one call."""

    pictures: Sequence[Extracted | ServiceError]
    """Features or error of each picture, in the order of the items."""
    timings: Sequence[StepTiming]


@dataclass(frozen=True, slots=True)
class Verification:
    """The elements that appear in a query."""

    elements: Sequence[FoundElement]
    """Elements that appear in the query, best first."""
    timings: Sequence[StepTiming]


class ElementFinder:
    """Extracts and verifies features of elements."""

    def __init__(
        self, runtime: Runtime, vocabulary: Vocabulary, regional: RegionalDescriber
    ) -> None:
        self._runtime = runtime
        self._vocabulary = vocabulary
        self._regional = regional
        self._rules = Rules()

    async def extract(self, items: Sequence[Item], purpose: Purpose) -> Extraction:
        """Describe pictures, or one region of each, by local features and with a dense model.

        An error that concerns one picture is the result of that picture.

        Raises:
            ServiceError: for all pictures: FIELD_REQUIRED, FIELD_INVALID, OVERLOADED,
                MODEL_NOT_SERVED, MODEL_SERVER_UNAVAILABLE or DEADLINE_EXCEEDED.
        """
        if not 1 <= len(items) <= MAX_ITEMS:
            raise field_error("items", f"has {len(items)} items; must have 1 to {MAX_ITEMS}")
        for index, item in enumerate(items):
            if len(item.regions) > 1:
                raise field_error(
                    f"items[{index}].regions", f"has {len(item.regions)} regions; the maximum is 1"
                )
        validate_thumbnail(purpose.thumbnail_max_side_px)
        work = _Work(self._runtime.start_call(), purpose, Stopwatch())
        async with task_group() as tasks:
            outcomes = [
                tasks.create_task(self._outcome(work, item, f"items[{index}]."))
                for index, item in enumerate(items)
            ]
        return Extraction([outcome.result() for outcome in outcomes], work.stopwatch.timings())

    async def verify(self, query_features: bytes, candidates: Sequence[Candidate]) -> Verification:
        """Find the candidates that appear in a picture, and their positions.

        Args:
            query_features: `Extracted.features` of the picture, extracted as a query.
            candidates: stored elements.

        Raises:
            ServiceError: FIELD_REQUIRED, FIELD_INVALID.
        """
        if not query_features:
            raise missing_field("query_features")
        if len(candidates) > MAX_CANDIDATES:
            raise field_error(
                "candidates", f"has {len(candidates)} candidates; the maximum is {MAX_CANDIDATES:,}"
            )
        stopwatch = Stopwatch()
        with stopwatch.step("verify"):
            found = await self._runtime.start_call().long.run(
                find_elements, query_features, candidates, self._vocabulary, self._rules
            )
        return Verification(found, stopwatch.timings())

    async def _outcome(
        self, work: _Work, item: Item, field_prefix: str
    ) -> Extracted | ServiceError:
        try:
            return await self._extract(work, item, field_prefix)
        except ServiceError as error:
            if error.reason in PICTURE_ERRORS:
                return error
            raise

    async def _extract(self, work: _Work, item: Item, field_prefix: str) -> Extracted:
        call, purpose, stopwatch = work.call, work.purpose, work.stopwatch
        if not item.content:
            raise missing_field(f"{field_prefix}image.content")
        dense = None
        if purpose.regional_space:
            dense = self._regional.dense(purpose.regional_space, for_query=purpose.for_query)
        file = await call.open(item.content)
        working_pixels = WORKING_PIXELS + (dense.input_pixels if dense else 0)
        async with call.admit(file.budget_pixels + working_pixels) as grant:
            with stopwatch.step("decode"):
                picture = await call.decode(file, _max_reduction(file, item, purpose))
                box = Box(0, 0, picture.width, picture.height)
                if item.regions:
                    box = clipped_region(item.regions[0], picture, f"{field_prefix}regions[0]")
                opened = await call.lane_for(file).run(_prepare, file, picture, box, purpose, dense)
                del picture
            grant.shrink_to(working_pixels)
            async with task_group() as tasks:
                inference = tasks.create_task(self._describe_regions(opened, stopwatch))
                with stopwatch.step("describe"):
                    extracted = await self._describe(call, opened, purpose)
        regional = inference.result()
        features = pack_regional(extracted.features, regional)
        return replace(extracted, features=features, regional=regional)

    async def _describe_regions(self, opened: _Opened, stopwatch: Stopwatch) -> Regional | None:
        if opened.dense is None:
            return None
        with stopwatch.step("infer"):
            return await self._regional.describe(opened.dense)

    async def _describe(self, call: Call, opened: _Opened, purpose: Purpose) -> Extracted:
        described: QueryFeatures | StoredElement
        shape_bag = NO_WORDS
        if purpose.for_query:
            (local, bag), shapes = await both(
                call.long.run(describe_local_features, opened.working, self._vocabulary),
                call.long.run(query_shapes, opened.working),
            )
            described = replace(local, shapes=shapes)
            shape_bag = query_shape_bag(shapes, self._vocabulary)
        else:
            described, bag = await call.long.run(describe_element, opened.working, self._vocabulary)
        return Extracted(
            opened.info,
            opened.working.region,
            described.to_bytes(),
            described.feature_count,
            bag,
            shape_bag,
            opened.thumbnail,
        )


@dataclass(frozen=True, slots=True)
class _Work:
    """State that all pictures of one call share."""

    call: Call
    purpose: Purpose
    stopwatch: Stopwatch


@dataclass(frozen=True, slots=True)
class _Opened:
    """A decoded picture, prepared for description."""

    info: PictureInfo
    working: WorkingImage
    thumbnail: bytes
    dense: DenseView | None


def _prepare(
    file: OpenedFile,
    picture: Picture,
    box: Box,
    purpose: Purpose,
    dense: DenseModel | None,
) -> _Opened:
    """Resize the region of a picture for description.

    Args:
        file: the picture file.
        picture: the decoded picture.
        box: region to describe.
        purpose: options of the extraction.
        dense: model of the regional features.
    """
    thumbnail_px = purpose.thumbnail_max_side_px
    return _Opened(
        file.describe(picture),
        working_image(picture, box, purpose.side_px),
        thumbnail(picture.image, thumbnail_px) if thumbnail_px else b"",
        None if dense is None else dense.view(picture, box),
    )


def _max_reduction(file: OpenedFile, item: Item, purpose: Purpose) -> float:
    """Return the factor by which decoding may divide the sides of a picture.

    Regions are clipped in both orientations, since the EXIF orientation is not known yet.
    """
    long_side_px = max(file.width, file.height)
    region_sides = [
        max(inside.width, inside.height)
        for region in item.regions
        for width, height in ((file.width, file.height), (file.height, file.width))
        if (inside := region.clipped(width, height)) is not None
    ]
    reduction = min([long_side_px, *region_sides]) / purpose.side_px
    if purpose.thumbnail_max_side_px:
        reduction = min(reduction, long_side_px / purpose.thumbnail_max_side_px)
    return reduction
