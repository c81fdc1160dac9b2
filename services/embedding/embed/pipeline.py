"""Processes the pictures of one call: open, decode, preprocess, infer, describe."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from imagesearch_services.common.concurrency import task_group
from imagesearch_services.common.errors import ServiceError, missing_field
from imagesearch_services.common.stopwatch import Stopwatch
from imagesearch_services.common.types import Box
from imagesearch_services.embedding.embed.items import PICTURE_ERRORS, Item
from imagesearch_services.embedding.embed.preparing import (
    Described,
    ItemFile,
    Plan,
    Prepared,
    describe,
    prepare,
    reduction,
)
from imagesearch_services.embedding.embed.subject_preparing import (
    MAX_SUBJECTS,
    ParsedPart,
    open_for_parser,
    prepare_subjects,
    second_pass_inputs,
)
from imagesearch_services.embedding.inference.models import Model
from imagesearch_services.embedding.inference.registry import ModelRegistry
from imagesearch_services.embedding.inference.stacking import Inputs, Rows, Stacker
from imagesearch_services.embedding.pictures.picture import Picture
from imagesearch_services.embedding.runtime import Runtime

MAX_PARSED_PARTS = 3
"""Maximum runs of the parser for one picture: the whole picture, and two halves of a person."""


@dataclass(frozen=True, slots=True)
class Processed:
    """A picture with everything that the models of the plan returned for it."""

    prepared: Prepared
    described: Described
    rows: Mapping[tuple[str, str, float], Rows]
    """Outputs of each model for all regions, by `ModelInput.key`."""


async def process(
    items: Mapping[str, Item],
    plan: Plan,
    *,
    runtime: Runtime,
    registry: ModelRegistry,
    stopwatch: Stopwatch,
) -> list[Processed | ServiceError]:
    """Process the pictures of one call.

    Args:
        items: items, by the prefix of their request fields in errors.
        plan: work to do on each picture.
        runtime: threads and pixel budget.
        registry: served models.
        stopwatch: stopwatch that times the steps.

    Returns:
        The outputs for each picture, or its error if the error concerns only that picture.

    Raises:
        ServiceError: for all pictures: OVERLOADED, MODEL_NOT_SERVED, MODEL_SERVER_UNAVAILABLE or
            DEADLINE_EXCEEDED.
    """
    async with task_group() as tasks:
        pipeline = _Pipeline(plan, runtime, registry, stopwatch, tasks)
        outcomes = [
            tasks.create_task(pipeline.outcome(field_prefix, item))
            for field_prefix, item in items.items()
        ]
    if inference_s := pipeline.inference_s():
        stopwatch.add("infer", inference_s)
    return [outcome.result() for outcome in outcomes]


class _Pipeline:
    """Processes the pictures of one call and stacks their regions into batches for inference."""

    def __init__(
        self,
        plan: Plan,
        runtime: Runtime,
        registry: ModelRegistry,
        stopwatch: Stopwatch,
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._plan = plan
        self._call = runtime.start_call()
        self._stopwatch = stopwatch
        models = [model_input.model for model_input in plan.inputs]
        if plan.parser is not None:
            models.append(plan.parser)
        self._stackers = {model.model_version: Stacker(registry, model, tasks) for model in models}

    async def outcome(self, field_prefix: str, item: Item) -> Processed | ServiceError:
        try:
            return await self._process(field_prefix, item)
        except ServiceError as error:
            if error.reason in PICTURE_ERRORS:
                return error
            raise

    async def _process(self, field_prefix: str, item: Item) -> Processed:
        if not item.content:
            raise missing_field(f"{field_prefix}image.content")
        file = item.file or await self._call.open(item.content)
        input_pixels = self._input_pixels(item)
        async with self._call.admit(file.budget_pixels + input_pixels) as grant:
            source = ItemFile(item, file, field_prefix)
            with self._stopwatch.step("decode"):
                picture = await self._call.decode(file, reduction(source, self._plan))
            grant.shrink_to(file.pixels + input_pixels)
            prepared = await self._prepare(source, picture)

            async def describe_picture() -> Described:
                described = await self._call.lane_for(file).run(
                    describe, file, prepared, self._plan
                )
                grant.shrink_to(input_pixels)
                return described

            async with task_group() as tasks:
                description = tasks.create_task(describe_picture())
                rows = {
                    model_input.key: tasks.create_task(self._stacker(model_input.model).run(inputs))
                    for model_input, inputs in zip(self._plan.inputs, prepared.inputs, strict=True)
                }
        return Processed(
            prepared, description.result(), {key: task.result() for key, task in rows.items()}
        )

    def _input_pixels(self, item: Item) -> int:
        """Return an upper bound of the pixels in the model inputs of a picture."""
        max_regions = item.max_proposed_regions or len(item.regions) or 1
        if self._plan.are_all_described:
            max_regions = MAX_SUBJECTS
        pixels = max_regions * sum(
            model_input.model.input.pixels for model_input in self._plan.inputs
        )
        if item.subject_detection and self._plan.parser is not None:
            pixels += MAX_PARSED_PARTS * self._plan.parser.input.pixels
        return pixels

    async def _prepare(self, source: ItemFile, picture: Picture) -> Prepared:
        plan, item = self._plan, source.item
        if plan.parser is not None and item.subject_detection:
            return await self._prepare_subjects(source, picture, plan.parser)
        lane = self._call.long if item.max_proposed_regions else self._call.lane_for(source.file)
        return await lane.run(prepare, source, picture, plan, self._stopwatch)

    async def _prepare_subjects(
        self, source: ItemFile, picture: Picture, parser: Model
    ) -> Prepared:
        plan, stopwatch, lane = self._plan, self._stopwatch, self._call.lane_for(source.file)
        opened = await lane.run(open_for_parser, source, picture, parser, stopwatch)
        with stopwatch.step("find_subjects"):
            parts = await self._parse(parser, [opened.within], opened.parser_input)
            boxes, inputs = await lane.run(second_pass_inputs, opened, parts[0], parser)
            if boxes:
                parts += await self._parse(parser, boxes, inputs)
        return await lane.run(prepare_subjects, opened, parts, plan, parser, stopwatch)

    async def _parse(self, parser: Model, boxes: Sequence[Box], inputs: Inputs) -> list[ParsedPart]:
        outputs = parser.outputs_in(await self._stacker(parser).run(inputs))
        return [
            ParsedPart(box, {name: rows[row] for name, rows in outputs.items()})
            for row, box in enumerate(boxes)
        ]

    def _stacker(self, model: Model) -> Stacker:
        return self._stackers[model.model_version]

    def inference_s(self) -> float:
        """Return the time from the first region sent to the last embedding received, in seconds."""
        stackers = [self._stacker(model_input.model) for model_input in self._plan.inputs]
        sent = [stacker.first_sent_s for stacker in stackers if stacker.first_sent_s is not None]
        answered = [
            stacker.last_answered_s for stacker in stackers if stacker.last_answered_s is not None
        ]
        return max(answered) - min(sent) if sent and answered else 0.0
