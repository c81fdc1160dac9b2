"""Two files in, everything that is known of their relation out."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from imagesearch_services.common import roles
from imagesearch_services.common.errors import (
    FieldViolation,
    ServiceError,
    missing_field,
)
from imagesearch_services.common.types import ModelVersion, PictureInfo
from imagesearch_services.embedding.admission import CallAdmission, PixelBudget
from imagesearch_services.embedding.background import Background
from imagesearch_services.embedding.comparison.alignment import Aligned, align
from imagesearch_services.embedding.comparison.edit import Edit
from imagesearch_services.embedding.comparison.looking import (
    Inputs,
    Looked,
    Vectors,
    judge,
    look,
    overlap_inputs,
)
from imagesearch_services.embedding.comparison.overlay import draw_overlay
from imagesearch_services.embedding.models import Model, ModelRegistry
from imagesearch_services.embedding.pictures import PictureFile
from imagesearch_services.embedding.stacking import Rows, Stacker
from imagesearch_services.embedding.steps import Steps
from imagesearch_services.embedding.triton import TritonClient
from imagesearch_services.embedding.workers import Workers

WORKING_PIXELS = 4_000_000
"""What two pictures take after they have been decoded, with their features and overlaps."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """How two pictures compare."""

    infos: tuple[PictureInfo, PictureInfo]
    measures: Mapping[str, float]
    edits: Sequence[Edit]
    """Those that explain the difference; none where the pictures could not be aligned."""
    overlay: bytes
    """A PNG file; empty unless asked for."""
    model: ModelVersion
    """The copy descriptor."""
    timings: Sequence[tuple[str, float]]
    """Step and seconds. Steps that run side by side may exceed the total together."""


class Comparer:
    """Compares pictures with the models that serve."""

    def __init__(
        self,
        triton: TritonClient,
        registry: ModelRegistry,
        *,
        workers: int,
        budget: PixelBudget,
        overload_retry_s: float,
        backgrounds: Mapping[str, Background],
    ) -> None:
        """Set up the threads.

        Args:
            triton: to infer with.
            registry: of the models that it serves.
            workers: threads.
            budget: of pixels, shared with what else the service does.
            overload_retry_s: when a refused caller is told to come back.
            backgrounds: of the models that have one, by vector space.
        """
        self._triton = triton
        self._registry = registry
        self._budget = budget
        self._overload_retry_s = overload_retry_s
        self._backgrounds = backgrounds
        self._workers = Workers(workers, "comparison")
        # Of its own, so that a refusal never waits behind other comparisons.
        self._header_reader = Workers(1, "comparison-headers")

    def close(self) -> None:
        self._workers.close()
        self._header_reader.close()

    async def compare(self, first: bytes, second: bytes, *, draw: bool) -> Comparison:
        """Compare two picture files.

        Args:
            first: one.
            second: the other; edits are told from the first to it.
            draw: make the overlay, too.

        Raises:
            ServiceError: as an embedding of either picture, naming which is at fault; OVERLOADED,
                MODEL_NOT_SERVED, MODEL_SERVER_UNAVAILABLE.
        """
        steps = Steps()
        with steps.step("total"):
            copy = self._registry.with_role(roles.COPY)
            files = [
                await self._opened(content, name)
                for content, name in ((first, "image_a"), (second, "image_b"))
            ]
            admission = CallAdmission(self._budget, retry_after_s=self._overload_retry_s)
            # Together, since both are held at the same time: apart, two calls could wait for
            # each other's second picture for ever.
            async with admission.admit(sum(file.pixels for file in files)) as grant:
                with steps.step("decode"):
                    a, b = await self._looked(files)
                grant.shrink_to(WORKING_PIXELS)
                aligned, vectors = await self._aligned(copy, a, b, steps)
                with steps.step("measure"):
                    background = self._backgrounds.get(copy.space)
                    measures, edits = await self._workers.run(
                        judge, a, b, aligned, vectors, background
                    )
                overlay = b""
                if draw:
                    with steps.step("draw"):
                        overlay = await self._workers.run(draw_overlay, a.view, b.view, aligned)
        timings = list(steps.seconds.items())
        return Comparison((a.info, b.info), measures, edits, overlay, copy.model_version, timings)

    async def _opened(self, content: bytes, name: str) -> PictureFile:
        if not content:
            raise missing_field(f"{name}.content")
        try:
            return await self._header_reader.run(PictureFile, content)
        except ServiceError as error:
            raise _of_picture(name, error) from error

    async def _looked(self, files: Sequence[PictureFile]) -> list[Looked]:
        async def one(file: PictureFile, name: str) -> Looked:
            try:
                return await self._workers.run(look, file)
            except ServiceError as error:
                raise _of_picture(name, error) from error

        names = ("image_a", "image_b")
        with _first_fault():
            async with asyncio.TaskGroup() as tasks:
                looks = [
                    tasks.create_task(one(file, name))
                    for file, name in zip(files, names, strict=True)
                ]
        return [each.result() for each in looks]

    async def _aligned(
        self, copy: Model, first: Looked, second: Looked, steps: Steps
    ) -> tuple[Aligned | None, Vectors]:
        """Align in a thread while Triton embeds the whole pictures; then embed what both show."""
        semantic = self._semantic()

        async def found() -> Aligned | None:
            with steps.step("align"):
                return await self._workers.run(align, first.view, second.view)

        with _first_fault():
            async with asyncio.TaskGroup() as tasks:
                alignment = tasks.create_task(found())
                with steps.step("infer"):
                    inputs = await self._workers.run(_whole, copy, first, second)
                    copies = tasks.create_task(self._embed(copy, inputs, tasks))
                    of_semantic = None
                    if semantic is not None:
                        inputs = await self._workers.run(_whole, semantic, first, second)
                        of_semantic = await self._embed(semantic, inputs, tasks)
                    of_copy = await copies
                aligned = await alignment
                of_overlap = None
                if aligned is not None:
                    with steps.step("infer"):
                        inputs = await self._workers.run(overlap_inputs, aligned, copy.input)
                        of_overlap = await self._embed(copy, inputs, tasks)
        return aligned, Vectors(of_copy, of_semantic, of_overlap)

    async def _embed(self, model: Model, inputs: Inputs, tasks: asyncio.TaskGroup) -> Rows:
        return await Stacker(self._triton, model, tasks).run(inputs)

    def _semantic(self) -> Model | None:
        """Give the model that knows kinds of things; it is welcome, not needed."""
        try:
            return self._registry.with_role(roles.SEMANTIC)
        except ServiceError:
            return None


def _whole(model: Model, first: Looked, second: Looked) -> Inputs:
    return np.concatenate([first.inputs(model.input), second.inputs(model.input)])


@contextmanager
def _first_fault() -> Iterator[None]:
    """Raise one of the faults of a task group, ours before those of a picture."""
    try:
        yield
    except ExceptionGroup as group:
        raise min(group.exceptions, key=lambda each: isinstance(each, ServiceError)) from group


def _of_picture(name: str, error: ServiceError) -> ServiceError:
    """Say which of the pictures is at fault."""
    return ServiceError(
        error.reason,
        f"{name}: {error.message}",
        metadata=error.metadata | {"field": f"{name}.content"},
        fields=[FieldViolation(f"{name}.content", error.message)],
        retry_after_s=error.retry_after_s,
    )
