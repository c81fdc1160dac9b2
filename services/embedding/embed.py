"""Pictures in, embeddings out: decode, find regions, preprocess, infer."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from imagesearch_services.common.errors import Reason, ServiceError, field_error, missing_field
from imagesearch_services.embedding.admission import CallAdmission, PixelBudget
from imagesearch_services.embedding.backgrounds import Background
from imagesearch_services.embedding.geometry import Box
from imagesearch_services.embedding.models import Model, ModelRegistry
from imagesearch_services.embedding.pictures import Picture, PictureFile, PictureInfo
from imagesearch_services.embedding.preprocess import harmless_reduction, preprocess
from imagesearch_services.embedding.regions import propose_regions
from imagesearch_services.embedding.stacking import Embeddings, Inputs, Stacker
from imagesearch_services.embedding.thumbnails import MAX_SIDE_PX, MIN_SIDE_PX, thumbnail
from imagesearch_services.embedding.triton import TritonClient
from imagesearch_services.embedding.workers import Workers

MAX_ITEMS = 100
MAX_REGIONS = 100
MAX_PROPOSED_REGIONS = 64

PROPOSAL_SIDE_PX = 1600
"""Long side that a picture keeps, if it has it, where regions of it are proposed."""

PICTURES_IN_WORK = 2
"""Pictures of one call that threads are asked to prepare at once, for each thread: enough to keep
them busy, few enough that another call's picture gets its turn soon."""

HEADER_READERS = 2
"""Threads that look at headers."""

FAULTS_OF_ONE_PICTURE = {
    Reason.FIELD_REQUIRED,
    Reason.IMAGE_UNREADABLE,
    Reason.IMAGE_TRUNCATED,
    Reason.IMAGE_TOO_LARGE,
    Reason.IMAGE_TOO_SMALL,
    Reason.REGION_INVALID,
}
"""Reasons that concern one picture of a call and leave the others alone."""


@dataclass(frozen=True, slots=True)
class Item:
    """One picture and what to embed of it."""

    content: bytes
    """The file."""
    regions: Sequence[Box] = ()
    """Regions to embed; none: the whole picture."""
    max_proposed_regions: int = 0
    """Embed instead up to this many regions that look like a picture of their own, found inside
    the first of `regions` or the whole picture."""


@dataclass(frozen=True, slots=True)
class EmbeddedRegion:
    """A region and its embeddings."""

    box: Box
    vectors: Sequence[npt.NDArray[np.float32]]
    """Unit length, one for each space asked, in that order."""
    background_similarities: Sequence[float]
    """How close each vector lies to pictures in general; 0 where the model has no such set."""
    source: str
    """Which rule proposed it; empty for regions asked."""


@dataclass(frozen=True, slots=True)
class EmbeddedPicture:
    """What came of one picture."""

    info: PictureInfo
    regions: Sequence[EmbeddedRegion]
    thumbnail: bytes = b""
    """JPEG of the whole picture, where asked for."""


@dataclass(slots=True)
class Timings:
    """Time of each step, for all pictures of a call together, seconds.

    The first three are work added up; pictures are worked on at once, so that they may exceed the
    total. `infer_s` is from the first input sent to the last embedding received.
    """

    decode_s: float = 0.0
    propose_regions_s: float = 0.0
    preprocess_s: float = 0.0
    infer_s: float = 0.0
    total_s: float = 0.0

    def add(self, picture: Timings) -> None:
        """Add the work on one picture."""
        self.decode_s += picture.decode_s
        self.propose_regions_s += picture.propose_regions_s
        self.preprocess_s += picture.preprocess_s


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A picture that is ready for its models."""

    picture: Picture
    boxes: Sequence[Box]
    sources: Sequence[str]
    inputs: Sequence[Inputs]
    """One for each model, all regions."""
    timings: Timings


@dataclass(frozen=True, slots=True)
class _Call:
    """What the pictures of one call share."""

    models: Sequence[Model]
    stackers: Sequence[Stacker]
    admission: CallAdmission
    lane: asyncio.Semaphore
    timings: Timings
    thumbnail_max_side_px: int
    """0: none is made."""


class Embedder:
    """Embeds pictures with the models that serve."""

    def __init__(
        self,
        triton: TritonClient,
        registry: ModelRegistry,
        *,
        workers: int,
        pixel_budget: int,
        overload_retry_s: float,
        backgrounds: Mapping[str, Background],
    ) -> None:
        """Set up the threads and the budget.

        Args:
            triton: to infer with.
            registry: of the models that it serves.
            workers: threads that decode and preprocess.
            pixel_budget: pixels that all calls together may hold.
            overload_retry_s: when a refused caller is told to come back.
            backgrounds: of the models that have one, by vector space.
        """
        self.budget = PixelBudget(pixel_budget)
        self._triton = triton
        self._registry = registry
        self._overload_retry_s = overload_retry_s
        self._backgrounds = backgrounds
        self._workers = Workers(workers, "pixels")
        # Of their own, so that a refusal never waits behind the decoding of other pictures.
        self._header_readers = Workers(HEADER_READERS, "headers")

    def close(self) -> None:
        self._workers.close()
        self._header_readers.close()

    async def embed(
        self, items: Sequence[Item], spaces: Sequence[str], *, thumbnail_max_side_px: int = 0
    ) -> tuple[list[EmbeddedPicture | ServiceError], Timings]:
        """Embed pictures, or regions of them, into vector spaces.

        Args:
            items: the pictures.
            spaces: to embed into.
            thumbnail_max_side_px: make a small picture of each, too; 0: none.

        Returns:
            What came of each picture, in order; of a picture at fault, its error.

        Raises:
            ServiceError: for all of them together: FIELD_REQUIRED, FIELD_INVALID, OVERLOADED,
                MODEL_NOT_SERVED, MODEL_SERVER_UNAVAILABLE or DEADLINE_EXCEEDED.
        """
        started_s = time.perf_counter()
        _validate(items, spaces)
        _validate_thumbnail(thumbnail_max_side_px)
        models = self._registry.resolve(spaces)
        try:
            async with asyncio.TaskGroup() as tasks:
                call = _Call(
                    models=models,
                    stackers=[Stacker(self._triton, model, tasks) for model in models],
                    admission=CallAdmission(self.budget, retry_after_s=self._overload_retry_s),
                    lane=asyncio.Semaphore(PICTURES_IN_WORK * self._workers.threads),
                    timings=Timings(),
                    thumbnail_max_side_px=thumbnail_max_side_px,
                )
                outcomes = [
                    tasks.create_task(self._outcome(call, index, item))
                    for index, item in enumerate(items)
                ]
        except ExceptionGroup as group:
            raise _foremost(group) from group
        call.timings.infer_s = _infer_s(call.stackers)
        call.timings.total_s = time.perf_counter() - started_s
        return [outcome.result() for outcome in outcomes], call.timings

    async def _outcome(self, call: _Call, index: int, item: Item) -> EmbeddedPicture | ServiceError:
        try:
            return await self._embed(call, index, item)
        except ServiceError as error:
            if error.reason in FAULTS_OF_ONE_PICTURE:
                return error
            raise

    async def _embed(self, call: _Call, index: int, item: Item) -> EmbeddedPicture:
        if not item.content:
            raise missing_field(f"items[{index}].image.content")
        file = await self._header_readers.run(PictureFile, item.content)
        most_regions = item.max_proposed_regions or len(item.regions) or 1
        input_pixels = most_regions * sum(model.input.pixels for model in call.models)
        async with call.admission.admit(file.pixels + input_pixels) as grant:
            async with call.lane:
                prepared = await self._workers.run(_prepare, file, index, item, call)
            call.timings.add(prepared.timings)

            async def describe() -> tuple[PictureInfo, bytes]:
                # While Triton works: nothing waits for it.
                described = await self._workers.run(
                    _describe, file, prepared.picture, call.thumbnail_max_side_px
                )
                grant.shrink_to(input_pixels)
                return described

            async with asyncio.TaskGroup() as tasks:
                description = tasks.create_task(describe())
                embeddings = [
                    tasks.create_task(stacker.embed(inputs))
                    for stacker, inputs in zip(call.stackers, prepared.inputs, strict=True)
                ]
        vectors = [each.result() for each in embeddings]
        closeness = [
            self._background_similarities(model, rows)
            for model, rows in zip(call.models, vectors, strict=True)
        ]
        regions = [
            EmbeddedRegion(
                box, [rows[row] for rows in vectors], [each[row] for each in closeness], source
            )
            for row, (box, source) in enumerate(zip(prepared.boxes, prepared.sources, strict=True))
        ]
        info, small = description.result()
        return EmbeddedPicture(info, regions, small)

    def _background_similarities(self, model: Model, vectors: Embeddings) -> list[float]:
        background = self._backgrounds.get(model.space)
        if background is None or not len(vectors):
            return [0.0] * len(vectors)
        similarities: list[float] = background.similarities(vectors).tolist()
        return similarities


def _prepare(file: PictureFile, index: int, item: Item, call: _Call) -> _Prepared:
    """Decode a picture, choose its regions and make them inputs. Runs in a thread."""
    timings = Timings()
    began_s = time.perf_counter()
    reduction = _reduction(file, item, call.models)
    if call.thumbnail_max_side_px:
        reduction = min(reduction, max(file.width, file.height) / call.thumbnail_max_side_px)
    picture = file.decode(reduction)
    timings.decode_s = time.perf_counter() - began_s
    boxes = [
        _clipped(region, picture, f"items[{index}].regions[{number}]")
        for number, region in enumerate(item.regions)
    ] or [Box(0, 0, picture.width, picture.height)]
    sources = [""] * len(boxes)
    if item.max_proposed_regions:
        began_s = time.perf_counter()
        boxes, sources = _propose(picture, boxes[0], item.max_proposed_regions)
        timings.propose_regions_s = time.perf_counter() - began_s
    began_s = time.perf_counter()
    inputs = [preprocess(picture, boxes, model.input) for model in call.models]
    timings.preprocess_s = time.perf_counter() - began_s
    return _Prepared(picture, boxes, sources, inputs, timings)


def _describe(
    file: PictureFile, picture: Picture, thumbnail_max_side_px: int
) -> tuple[PictureInfo, bytes]:
    """Tell of a picture and make its small one. Runs in a thread."""
    small = b""
    if thumbnail_max_side_px:
        small = thumbnail(picture.image, thumbnail_max_side_px)
    return file.describe(picture), small


def _reduction(file: PictureFile, item: Item, models: Sequence[Model]) -> float:
    """Return by what the sides may be divided while decoding.

    It is not known yet which way up the picture is, so both must do.
    """
    if item.max_proposed_regions:
        return max(file.width, file.height) / PROPOSAL_SIDE_PX
    specs = [model.input for model in models]
    return min(
        harmless_reduction(width, height, _inside(item.regions, width, height), specs)
        for width, height in ((file.width, file.height), (file.height, file.width))
    )


def _inside(regions: Sequence[Box], width: int, height: int) -> list[Box]:
    clipped = (region.clipped(width, height) for region in regions)
    return [region for region in clipped if region is not None]


def _clipped(region: Box, picture: Picture, field_name: str) -> Box:
    inside = region.clipped(picture.width, picture.height)
    if inside is None:
        raise field_error(
            field_name,
            f"{region} leaves less than one pixel of the picture of "
            f"{picture.width} × {picture.height}",
            reason=Reason.REGION_INVALID,
        )
    return inside


def _propose(picture: Picture, within: Box, most: int) -> tuple[list[Box], list[str]]:
    """Find regions that look like a picture of their own, best first, and the rules they are by."""
    inner = within.scaled(picture.x_scale, picture.y_scale)
    left, top = math.floor(inner.x_min), math.floor(inner.y_min)
    right = min(picture.image.width, math.ceil(inner.x_max))
    bottom = min(picture.image.height, math.ceil(inner.y_max))
    pixels = np.asarray(picture.image.crop((left, top, right, bottom)))
    boxes: list[Box] = []
    sources: list[str] = []
    for region in propose_regions(pixels, most):
        found = Box(region.x_min, region.y_min, region.x_max, region.y_max).moved(left, top)
        box = found.scaled(1 / picture.x_scale, 1 / picture.y_scale)
        if (inside := box.clipped(picture.width, picture.height)) is not None:
            boxes.append(inside)
            sources.append(region.source)
    return boxes, sources


def _validate(items: Sequence[Item], spaces: Sequence[str]) -> None:
    if not items:
        raise missing_field("items")
    if len(items) > MAX_ITEMS:
        raise field_error("items", f"has {len(items)} items; at most {MAX_ITEMS} are taken")
    if not spaces:
        raise missing_field("spaces")
    if len(set(spaces)) != len(spaces):
        raise field_error("spaces", "names a space twice")
    for index, item in enumerate(items):
        name = f"items[{index}]"
        if len(item.regions) > MAX_REGIONS:
            raise field_error(
                f"{name}.regions",
                f"has {len(item.regions)} regions; at most {MAX_REGIONS} are taken",
            )
        if not 0 <= item.max_proposed_regions <= MAX_PROPOSED_REGIONS:
            raise field_error(
                f"{name}.max_proposed_regions",
                f"is {item.max_proposed_regions}; 0 to {MAX_PROPOSED_REGIONS} are taken",
            )


def _validate_thumbnail(max_side_px: int) -> None:
    if max_side_px and not MIN_SIDE_PX <= max_side_px <= MAX_SIDE_PX:
        raise field_error(
            "thumbnail_max_side_px",
            f"is {max_side_px}; 0 or {MIN_SIDE_PX} to {MAX_SIDE_PX} are taken",
        )


def _foremost(group: ExceptionGroup[Exception]) -> Exception:
    """Return the exception to tell of: a fault of ours hides no other, so it comes first."""
    return min(group.exceptions, key=lambda error: isinstance(error, ServiceError))


def _infer_s(stackers: Sequence[Stacker]) -> float:
    """Return the time from the first input sent to the last embedding received."""
    sent = [stacker.first_sent_s for stacker in stackers if stacker.first_sent_s is not None]
    got = [stacker.last_answered_s for stacker in stackers if stacker.last_answered_s is not None]
    return max(got) - min(sent) if sent and got else 0.0
