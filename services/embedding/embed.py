"""Pictures in, embeddings out: decode, find regions or subjects, preprocess, infer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from imagesearch_services.common import roles
from imagesearch_services.common.errors import Reason, ServiceError, missing_field
from imagesearch_services.common.types import Box, Category, ModelVersion, PictureInfo, Subject
from imagesearch_services.embedding import spaces as vector_spaces
from imagesearch_services.embedding.admission import CallAdmission, PixelBudget
from imagesearch_services.embedding.background import Background
from imagesearch_services.embedding.items import (
    EmbeddedPicture,
    EmbeddedRegion,
    Item,
    Timings,
    validate,
    validate_thumbnail,
)
from imagesearch_services.embedding.models import Model, ModelRegistry
from imagesearch_services.embedding.pictures import PictureFile
from imagesearch_services.embedding.preparing import (
    MAX_SUBJECTS,
    Described,
    Look,
    Plan,
    Prepared,
    describe,
    open_closer,
    open_for_parser,
    prepare,
    prepare_subjects,
)
from imagesearch_services.embedding.spaces import ModelInput, Space
from imagesearch_services.embedding.stacking import Inputs, Rows, Stacker
from imagesearch_services.embedding.subjects.labels import Classification, Labels
from imagesearch_services.embedding.triton import TritonClient, WrongAnswerError
from imagesearch_services.embedding.workers import Workers

PICTURES_IN_WORK = 2
"""Pictures of one call that threads are asked to prepare at once, for each thread: enough to keep
them busy, few enough that another call's picture gets its turn soon."""

HEADER_READERS = 2
"""Threads that look at headers."""

MAX_LOOKS = 3
"""Of the parser at one picture: at all of it, and at the halves of whoever is there."""

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
class Embedded:
    """What came of a call."""

    pictures: Sequence[EmbeddedPicture | ServiceError]
    """In order; of a picture at fault, its error."""
    timings: Timings
    detection_models: Sequence[ModelVersion]
    """Those that found subjects; none where none were looked for."""


@dataclass(frozen=True, slots=True)
class Detection:
    """The subjects of a picture."""

    subjects: Sequence[Subject]
    info: PictureInfo
    models: Sequence[ModelVersion]
    timings: Timings


@dataclass(frozen=True, slots=True)
class _Call:
    """What the pictures of one call share."""

    plan: Plan
    stackers: Mapping[str, Stacker]
    """By name and version of the model."""
    admission: CallAdmission
    lane: asyncio.Semaphore
    timings: Timings

    def stacker(self, model: Model) -> Stacker:
        return self.stackers[_key(model)]


@dataclass(frozen=True, slots=True)
class _Answer:
    """What came of one picture, by the models of the plan."""

    prepared: Prepared
    described: Described
    rows: Mapping[tuple[str, str, float], Rows]
    """By `ModelInput.key`."""


class Embedder:
    """Embeds pictures with the models that serve, and finds their subjects."""

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
    ) -> Embedded:
        """Embed pictures, or regions or subjects of them, into vector spaces.

        Args:
            items: the pictures.
            spaces: to embed into.
            thumbnail_max_side_px: make a small picture of each, too; 0: none.

        Raises:
            ServiceError: for all of them together: FIELD_REQUIRED, FIELD_INVALID, OVERLOADED,
                MODEL_NOT_SERVED, MODEL_SERVER_UNAVAILABLE or DEADLINE_EXCEEDED.
        """
        started_s = time.perf_counter()
        validate(items, spaces)
        validate_thumbnail(thumbnail_max_side_px)
        resolved = vector_spaces.resolve(self._registry, spaces)
        inputs = {one.key: one for space in resolved for one in space.inputs}
        parser = None
        if any(item.subject_detection for item in items):
            parser = self._registry.with_role(roles.SUBJECTS)
        plan = Plan(
            inputs=list(inputs.values()),
            parser=parser,
            are_colors_named=any(space.labels for space in resolved),
            thumbnail_max_side_px=thumbnail_max_side_px,
        )
        answers, timings = await self._answers(
            {f"items[{index}].": item for index, item in enumerate(items)}, plan
        )
        timings.total_s = time.perf_counter() - started_s
        pictures = [
            one if isinstance(one, ServiceError) else self._embedded(one, resolved)
            for one in answers
        ]
        return Embedded(pictures, timings, [] if parser is None else [parser.model_version])

    async def detect(
        self, content: bytes, region: Box | None, category: Category | None
    ) -> Detection:
        """Find and describe the subjects of a picture.

        Args:
            content: the file.
            region: look only there; None: everywhere.
            category: return only subjects of this category; None: all.

        Raises:
            ServiceError: what is wrong with the picture, OVERLOADED, MODEL_NOT_SERVED,
                MODEL_SERVER_UNAVAILABLE or DEADLINE_EXCEEDED.
        """
        started_s = time.perf_counter()
        parser = self._registry.with_role(roles.SUBJECTS)
        teller = vector_spaces.space_of(self._registry, self._registry.with_role(roles.PRODUCT))
        if teller.labels is None:
            raise WrongAnswerError(f"model {teller.name} tells nothing of a subject")
        plan = Plan(
            inputs=[teller.own], parser=parser, are_all_described=True, are_colors_named=True
        )
        item = Item(content, [] if region is None else [region], subject_detection=True)
        (answer,), timings = await self._answers({"": item}, plan)
        if isinstance(answer, ServiceError):
            raise answer
        told = _told(teller, teller.labels, answer)
        subjects = [_subject(answer, row, told[row]) for row in range(len(answer.prepared.found))]
        timings.total_s = time.perf_counter() - started_s
        return Detection(
            [one for one in subjects if category in {None, one.category}],
            answer.described.info,
            [parser.model_version, teller.own.model.model_version],
            timings,
        )

    async def _answers(
        self, items: Mapping[str, Item], plan: Plan
    ) -> tuple[list[_Answer | ServiceError], Timings]:
        """Do the work on pictures; the keys stand before the names of their fields in errors."""
        models = {_key(one.model): one.model for one in plan.inputs}
        if plan.parser is not None:
            models[_key(plan.parser)] = plan.parser
        try:
            async with asyncio.TaskGroup() as tasks:
                call = _Call(
                    plan=plan,
                    stackers={
                        key: Stacker(self._triton, model, tasks) for key, model in models.items()
                    },
                    admission=CallAdmission(self.budget, retry_after_s=self._overload_retry_s),
                    lane=asyncio.Semaphore(PICTURES_IN_WORK * self._workers.threads),
                    timings=Timings(),
                )
                outcomes = [
                    tasks.create_task(self._outcome(call, place, item))
                    for place, item in items.items()
                ]
        except ExceptionGroup as group:
            raise _foremost(group) from group
        call.timings.infer_s = _infer_s([call.stacker(one.model) for one in plan.inputs])
        return [outcome.result() for outcome in outcomes], call.timings

    async def _outcome(self, call: _Call, place: str, item: Item) -> _Answer | ServiceError:
        try:
            return await self._answer(call, place, item)
        except ServiceError as error:
            if error.reason in FAULTS_OF_ONE_PICTURE:
                return error
            raise

    async def _answer(self, call: _Call, place: str, item: Item) -> _Answer:
        if not item.content:
            raise missing_field(f"{place}image.content")
        file = await self._header_readers.run(PictureFile, item.content)
        plan = call.plan
        most_regions = item.max_proposed_regions or len(item.regions) or 1
        if plan.are_all_described:
            most_regions = MAX_SUBJECTS
        input_pixels = most_regions * sum(one.model.input.pixels for one in plan.inputs)
        if item.subject_detection and plan.parser is not None:
            input_pixels += MAX_LOOKS * plan.parser.input.pixels
        async with call.admission.admit(file.pixels + input_pixels) as grant:
            prepared = await self._prepared(call, file, place, item)
            call.timings.add(prepared.timings)

            async def describe_it() -> Described:
                # While Triton works: nothing waits for it.
                described = await self._workers.run(describe, file, prepared, plan)
                grant.shrink_to(input_pixels)
                return described

            async with asyncio.TaskGroup() as tasks:
                description = tasks.create_task(describe_it())
                rows = {
                    one.key: tasks.create_task(call.stacker(one.model).run(inputs))
                    for one, inputs in zip(plan.inputs, prepared.inputs, strict=True)
                }
        return _Answer(
            prepared, description.result(), {key: task.result() for key, task in rows.items()}
        )

    async def _prepared(self, call: _Call, file: PictureFile, place: str, item: Item) -> Prepared:
        parser = call.plan.parser
        if parser is None or not item.subject_detection:
            async with call.lane:
                return await self._workers.run(prepare, file, place, item, call.plan)
        async with call.lane:
            opened = await self._workers.run(open_for_parser, file, place, item, call.plan, parser)
        began_s = time.perf_counter()
        looks = await _looks(call, parser, [opened.within], opened.parser_input)
        async with call.lane:
            boxes, inputs = await self._workers.run(open_closer, opened, looks[0], parser)
        if boxes:
            looks += await _looks(call, parser, boxes, inputs)
        opened.timings.find_subjects_s = time.perf_counter() - began_s
        async with call.lane:
            return await self._workers.run(prepare_subjects, opened, looks, item, call.plan, parser)

    def _embedded(self, answer: _Answer, spaces: Sequence[Space]) -> EmbeddedPicture:
        prepared, described = answer.prepared, answer.described
        vectors = [_vectors(space, answer) for space in spaces]
        closeness = [
            self._background_similarities(space, rows)
            for space, rows in zip(spaces, vectors, strict=True)
        ]
        regions = [
            EmbeddedRegion(
                box, [rows[row] for rows in vectors], [each[row] for each in closeness], source
            )
            for row, (box, source) in enumerate(zip(prepared.boxes, prepared.sources, strict=True))
        ]
        picture = EmbeddedPicture(described.info, regions, thumbnail=described.thumbnail)
        teller = next((space for space in spaces if space.labels is not None), None)
        if teller is None or teller.labels is None:
            return picture
        told = _told(teller, teller.labels, answer)
        return _with_subjects(picture, answer, told)

    def _background_similarities(self, space: Space, vectors: Rows) -> list[float]:
        background = self._backgrounds.get(space.name)
        if background is None or not len(vectors):
            return [0.0] * len(vectors)
        similarities: list[float] = background.similarities(vectors).tolist()
        return similarities


async def _looks(call: _Call, parser: Model, boxes: Sequence[Box], inputs: Inputs) -> list[Look]:
    """Let the parser look at parts of a picture."""
    outputs = parser.outputs_in(await call.stacker(parser).run(inputs))
    return [
        Look(box, {name: rows[row] for name, rows in outputs.items()})
        for row, box in enumerate(boxes)
    ]


def _vectors(space: Space, answer: _Answer) -> Rows:
    own, *joined = (_embeddings(one, answer) for one in space.inputs)
    return space.vectors(own, joined[0] if joined else None)


def _embeddings(one: ModelInput, answer: _Answer) -> Rows:
    return one.model.outputs_in(answer.rows[one.key])[one.model.output_name]


def _told(teller: Space, labels: Labels, answer: _Answer) -> list[Classification]:
    """Say what each region shows."""
    outputs = teller.own.model.outputs_in(answer.rows[teller.own.key])
    prepared = answer.prepared
    found = prepared.found
    if prepared.chosen is not None and len(prepared.boxes) == 1:
        found = [found[prepared.chosen]]
    clothing = [one.garment_category for one in found] or [None] * len(prepared.boxes)
    return [
        labels.classify(
            outputs["attributes"][row],
            outputs["categories"][row],
            garment_category=worn,
            is_alone=len(prepared.found) <= 1,
        )
        for row, worn in enumerate(clothing)
    ]


def _subject(answer: _Answer, row: int, told: Classification | None) -> Subject:
    """Describe a subject that was found; attributes are of those whose crop was looked at."""
    found = answer.prepared.found[row]
    colors = answer.described.subject_colors[row]
    if told is None:
        return Subject(found.box, found.garment_category or Category.OTHER, found.score, colors)
    score = found.score if found.garment_category else found.score * told.score
    return Subject(found.box, told.category, score, colors, told.attributes)


def _with_subjects(
    picture: EmbeddedPicture, answer: _Answer, told: Sequence[Classification]
) -> EmbeddedPicture:
    prepared, described = answer.prepared, answer.described
    if prepared.chosen is None:
        regions = [
            replace(
                region,
                subject=Subject(region.box, one.category, one.score, colors, one.attributes),
            )
            for region, one, colors in zip(
                picture.regions, told, described.region_colors, strict=True
            )
        ]
        return replace(picture, regions=regions)
    subjects = [
        _subject(answer, row, told[0] if row == prepared.chosen else None)
        for row in range(len(prepared.found))
    ]
    (region,) = picture.regions
    return replace(
        picture,
        regions=[replace(region, subject=subjects[prepared.chosen])],
        subjects=subjects,
        chosen_subject=prepared.chosen,
    )


def _key(model: Model) -> str:
    return f"{model.name}@{model.version}"


def _foremost(group: ExceptionGroup[Exception]) -> Exception:
    """Return the exception to tell of: a fault of ours hides no other, so it comes first."""
    return min(group.exceptions, key=lambda error: isinstance(error, ServiceError))


def _infer_s(stackers: Sequence[Stacker]) -> float:
    """Return the time from the first input sent to the last embedding received."""
    sent = [stacker.first_sent_s for stacker in stackers if stacker.first_sent_s is not None]
    got = [stacker.last_answered_s for stacker in stackers if stacker.last_answered_s is not None]
    return max(got) - min(sent) if sent and got else 0.0
