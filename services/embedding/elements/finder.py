"""Pictures in, features out; features in, appearances out: the service's work on elements."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from imagesearch_services.common.errors import ServiceError, field_error, missing_field
from imagesearch_services.embedding.admission import CallAdmission, PixelBudget
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
from imagesearch_services.embedding.elements.regional import (
    DenseView,
    Regional,
    RegionalDescriber,
    likeness,
    with_regional,
    without_regional,
)
from imagesearch_services.embedding.elements.verification import (
    Rules,
    Verified,
    verify,
)
from imagesearch_services.embedding.elements.vocabulary import Vocabulary
from imagesearch_services.embedding.embed import FAULTS_OF_ONE_PICTURE
from imagesearch_services.embedding.geometry import Box
from imagesearch_services.embedding.items import Item, validate_thumbnail
from imagesearch_services.embedding.models import Model
from imagesearch_services.embedding.pictures import PictureFile, PictureInfo
from imagesearch_services.embedding.preparing import clipped_region
from imagesearch_services.embedding.steps import Steps
from imagesearch_services.embedding.thumbnails import thumbnail
from imagesearch_services.embedding.workers import Workers

MAX_ITEMS = 100
MAX_CANDIDATES = 1000
WORKING_PIXELS = 3_000_000
"""What a picture takes after it has been decoded, with its features."""
FEWEST_A_THREAD = 16
"""Candidates that are not worth another thread."""
FULL_SPREAD = 0.3
"""Matches that are spread over so much of an element count in full."""
SHARE_WEIGHT = 0.3
"""Of the logarithm of the share of an element's features that match."""
FEWEST_KEYPOINTS = 20
"""Elements with fewer are judged as if they had so many."""
SHAPE_WEIGHT, SHAPE_START = 3.5, -1.0
"""Of how close a shape is, as much as features that are as seldom wrong."""
REGIONAL_WEIGHT = 3.0
"""Of the similarity of regions beside the logarithm of what the features say."""
NO_WORDS = Bag(np.empty(0, np.int64), np.empty(0, np.float32))
UNVERIFIED = -1.0
"""What the features say where none agree."""


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
class Candidate:
    """A stored element that may appear."""

    id: str
    features: bytes
    regional_similarity: float | None = None
    """Of embeddings, where there are some."""


@dataclass(frozen=True, slots=True)
class Appearance:
    """A place where an element appears."""

    corners: npt.NDArray[np.float64]
    """In the picture as shown, pixels, clockwise from the element's own top left, [4, 2]."""
    inlier_count: int


@dataclass(frozen=True, slots=True)
class FoundElement:
    """An element that appears in a picture."""

    id: str
    evidence: float
    appearances: Sequence[Appearance]
    """Best first."""


@dataclass(frozen=True, slots=True)
class Extraction:
    """What came of a call, in the order of its items."""

    pictures: Sequence[Extracted | ServiceError]
    steps: Steps


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found, best first."""

    elements: Sequence[FoundElement]
    info: PictureInfo | None
    """None where the query came as features."""
    steps: Steps


class ElementFinder:
    """Describes elements and finds them."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        regional: RegionalDescriber,
        *,
        workers: int,
        budget: PixelBudget,
        overload_retry_s: float,
    ) -> None:
        """Set up the threads.

        Args:
            vocabulary: of visual words.
            regional: runs dense models.
            workers: threads.
            budget: of pixels, shared with what else the service does.
            overload_retry_s: when a refused caller is told to come back.
        """
        self._vocabulary = vocabulary
        self._regional = regional
        self._budget = budget
        self._overload_retry_s = overload_retry_s
        self._workers = Workers(workers, "elements")
        self._rules = Rules()

    def close(self) -> None:
        self._workers.close()

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
        steps = Steps()
        admission = self._admission()
        with steps.step("total"):
            try:
                async with asyncio.TaskGroup() as tasks:
                    outcomes = [
                        tasks.create_task(
                            self._outcome(admission, item, f"items[{index}].", steps, purpose)
                        )
                        for index, item in enumerate(items)
                    ]
            except ExceptionGroup as group:
                raise min(
                    group.exceptions, key=lambda error: isinstance(error, ServiceError)
                ) from group
        return Extraction([outcome.result() for outcome in outcomes], steps)

    async def verify(self, query: Item | bytes, candidates: Sequence[Candidate]) -> Verification:
        """Say which candidates appear in a picture, and where.

        Args:
            query: the picture, or its features.
            candidates: stored elements.

        Raises:
            ServiceError: FIELD_REQUIRED, FIELD_INVALID, OVERLOADED, what is wrong with the picture.
        """
        if len(candidates) > MAX_CANDIDATES:
            raise field_error("candidates", f"must be at most {MAX_CANDIDATES}")
        steps = Steps()
        info = None
        with steps.step("total"):
            if isinstance(query, Item):
                purpose = Purpose(for_query=True)
                extracted = await self._extracted(self._admission(), query, "", steps, purpose)
                info, raw = extracted.info, extracted.features
            else:
                raw = query
            with steps.step("verify"):
                found = await self._found(raw, candidates)
        return Verification(found, info, steps)

    def _admission(self) -> CallAdmission:
        return CallAdmission(self._budget, retry_after_s=self._overload_retry_s)

    async def _outcome(
        self, admission: CallAdmission, item: Item, place: str, steps: Steps, purpose: Purpose
    ) -> Extracted | ServiceError:
        try:
            return await self._extracted(admission, item, place, steps, purpose)
        except ServiceError as error:
            if error.reason in FAULTS_OF_ONE_PICTURE:
                return error
            raise

    async def _extracted(
        self, admission: CallAdmission, item: Item, place: str, steps: Steps, purpose: Purpose
    ) -> Extracted:
        if not item.content:
            raise missing_field(f"{place}image.content")
        model = self._regional.model(purpose.regional_space) if purpose.regional_space else None
        file = await self._workers.run(PictureFile, item.content)
        async with admission.admit(file.pixels + WORKING_PIXELS) as grant:
            with steps.step("decode"):
                opened = await self._workers.run(_opened, file, item, place, purpose, model)
            grant.shrink_to(WORKING_PIXELS)
            regional = asyncio.create_task(self._regionally(opened, steps))
            try:
                with steps.step("describe"):
                    extracted = await self._described(opened, purpose)
                found = await regional
            finally:
                regional.cancel()
        features = with_regional(extracted.features, found)
        return replace(extracted, features=features, regional=found)

    async def _regionally(self, opened: _Opened, steps: Steps) -> Regional | None:
        if opened.dense is None:
            return None
        with steps.step("infer"):
            return await self._regional.describe(opened.dense)

    async def _described(self, opened: _Opened, purpose: Purpose) -> Extracted:
        described: QueryFeatures | StoredElement
        shape_words = NO_WORDS
        if purpose.for_query:
            texture, shapes = await asyncio.gather(
                self._workers.run(describe_texture, opened.view, self._vocabulary),
                self._workers.run(query_shapes, opened.view, self._vocabulary),
            )
            texture_only, bag = texture
            described = replace(texture_only, shapes=shapes)
            shape_words = shape_bag(shapes, self._vocabulary)
        else:
            described, bag = await self._workers.run(
                describe_element, opened.view, self._vocabulary
            )
        return Extracted(
            opened.info,
            opened.view.region,
            described.to_bytes(),
            described.feature_count,
            bag,
            shape_words,
            opened.thumbnail,
        )

    async def _found(self, raw: bytes, candidates: Sequence[Candidate]) -> list[FoundElement]:
        """Look for the candidates in as many threads as there are."""
        read = await self._workers.run(self._read, raw, candidates)
        query, elements = read.query, read.elements
        size = max(FEWEST_A_THREAD, math.ceil(len(elements) / self._workers.threads))
        try:
            async with asyncio.TaskGroup() as tasks:
                parts = [
                    tasks.create_task(
                        self._workers.run(
                            verify,
                            query,
                            elements[start : start + size],
                            self._vocabulary,
                            self._rules,
                        )
                    )
                    for start in range(0, len(elements), size)
                ]
        except ExceptionGroup as group:
            raise group.exceptions[0] from group
        verified = {
            part * size + one.row: one
            for part, several in enumerate(parts)
            for one in several.result()
        }
        found = [
            one
            for row, candidate in enumerate(candidates)
            if (one := _in_picture(read, row, candidate, verified.get(row))) is not None
        ]
        return sorted(found, key=lambda one: (-one.evidence, one.id))

    def _read(self, raw: bytes, candidates: Sequence[Candidate]) -> _Read:
        field = "query_features"
        raw, query_regional = without_regional(raw, field=field)
        query = QueryFeatures.from_bytes(raw, self._vocabulary.components, field=field)
        elements, regional = [], []
        for row, one in enumerate(candidates):
            field = f"candidates[{row}].features"
            local, dense = without_regional(one.features, field=field)
            elements.append(
                StoredElement.from_bytes(local, self._vocabulary.code_bytes, field=field)
            )
            regional.append(dense)
        return _Read(query, elements, query_regional, likeness(query_regional, regional))


@dataclass(frozen=True, slots=True)
class _Read:
    """A query and candidates, and how alike they are by a dense model."""

    query: QueryFeatures
    elements: Sequence[StoredElement]
    regional: Regional | None
    likeness: Sequence[tuple[float, int] | None]
    """Of each candidate, and to which of the query's windows."""


def evidence(
    element: StoredElement, verified: Verified, regional_similarity: float | None
) -> float:
    """Weigh what speaks for an element: its features or its shape, and the likeness of regions."""
    local, shape = _local_evidence(element, verified), _shape_evidence(verified)
    return max(local, shape) + REGIONAL_WEIGHT * (regional_similarity or 0.0)


def _local_evidence(element: StoredElement, verified: Verified) -> float:
    """Weigh the best instance.

    Matches that crowd in a small part of the element count less: two packages may share a word. And
    those count more that explain a large share of what the element has.
    """
    if not verified.instances:
        return UNVERIFIED
    best = verified.instances[0]
    nearer = math.log1p(best.weight * min(1.0, best.spread / FULL_SPREAD))
    share = min(1.0, best.inlier_count / max(len(element.keypoints), FEWEST_KEYPOINTS))
    return nearer + SHARE_WEIGHT * math.log(share)


def _shape_evidence(verified: Verified) -> float:
    if not verified.outlines:
        return UNVERIFIED
    return SHAPE_START + SHAPE_WEIGHT * verified.outlines[0].closeness


def _in_picture(
    read: _Read, row: int, candidate: Candidate, verified: Verified | None
) -> FoundElement | None:
    """Say where a candidate appears; None where nothing speaks for it."""
    likeness = read.likeness[row]
    similarity = candidate.regional_similarity if likeness is None else likeness[0]
    if verified is not None:
        element = read.elements[row]
        return FoundElement(
            candidate.id,
            evidence(element, verified, similarity),
            _appearances(read.query, places(element, verified)),
        )
    is_plain = not len(read.elements[row].keypoints)  # as like one plain colour as another
    if likeness is None or read.regional is None or is_plain:
        return None
    # No features agree: it is where the window is that it resembles, roughly.
    box = Box(*map(float, read.regional.boxes[likeness[1]]))
    return FoundElement(
        candidate.id,
        UNVERIFIED + REGIONAL_WEIGHT * likeness[0],
        [Appearance(corners_of(box), inlier_count=0)],
    )


def places(element: StoredElement, verified: Verified) -> list[Appearance]:
    """Give where an element was found, in the query's working size; best first.

    What its shape tells and what its features tell are joined, but for the same place told twice.
    """
    by_features = [Appearance(one.corners, one.inlier_count) for one in verified.instances]
    by_shape = [Appearance(one.corners, 0) for one in verified.outlines]
    first, second = by_features, by_shape
    if _shape_evidence(verified) > _local_evidence(element, verified):
        first, second = by_shape, by_features
    return first + [one for one in second if not any(_same_place(one, each) for each in first)]


def _same_place(one: Appearance, other: Appearance) -> bool:
    reach = np.ptp(other.corners, axis=0).max() / 2
    apart = np.linalg.norm(one.corners.mean(axis=0) - other.corners.mean(axis=0))
    return bool(apart < reach)


def _appearances(query: QueryFeatures, found: Sequence[Appearance]) -> list[Appearance]:
    """Bring corners from the working size to the picture as shown."""
    region = query.region
    factors = np.array([region.width / query.width, region.height / query.height])
    origin = np.array([region.x_min, region.y_min])
    return [Appearance(one.corners * factors + origin, one.inlier_count) for one in found]


def corners_of(box: Box) -> npt.NDArray[np.float64]:
    """Clockwise from the top left, [4, 2]."""
    left, top, right, bottom = box
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], np.float64)


@dataclass(frozen=True, slots=True)
class _Opened:
    """A decoded picture, and what of it is to be described."""

    info: PictureInfo
    view: Working
    thumbnail: bytes
    dense: DenseView | None


def _opened(
    file: PictureFile, item: Item, place: str, purpose: Purpose, model: Model | None
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
        None if model is None else DenseView.of(picture, box, model, is_query=purpose.for_query),
    )
