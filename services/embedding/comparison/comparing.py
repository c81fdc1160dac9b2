"""Compares two picture files: similarities, alignment, likely edits and an overlay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from imagesearch_services.common import roles
from imagesearch_services.common.concurrency import task_group, together
from imagesearch_services.common.errors import (
    FieldViolation,
    ServiceError,
    missing_field,
)
from imagesearch_services.common.stopwatch import Stopwatch
from imagesearch_services.common.types import ModelVersion, PictureInfo, StepTiming
from imagesearch_services.embedding.comparison.alignment import Aligned, align
from imagesearch_services.embedding.comparison.edit import Edit
from imagesearch_services.embedding.comparison.judging import (
    ComparedPicture,
    Inputs,
    Vectors,
    judge,
    max_reduction,
    overlap_inputs,
    read_picture,
    whole_inputs,
)
from imagesearch_services.embedding.comparison.overlay import draw_overlay
from imagesearch_services.embedding.inference.background import Background
from imagesearch_services.embedding.inference.models import Model
from imagesearch_services.embedding.inference.registry import ModelRegistry
from imagesearch_services.embedding.inference.stacking import Rows, Stacker
from imagesearch_services.embedding.pictures.opened_file import OpenedFile
from imagesearch_services.embedding.runtime import LARGE_PICTURE_PX, Call, Runtime

WORKING_PIXELS = 4_000_000
"""Memory of two compared pictures with their features and overlap, in pixels of the budget."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result of comparing two pictures."""

    infos: tuple[PictureInfo, PictureInfo]
    measures: Mapping[str, float]
    edits: Sequence[Edit]
    """Edits that explain the difference; empty if the pictures could not be aligned."""
    overlay: bytes
    """PNG file; empty unless requested."""
    model: ModelVersion
    """Version of the copy descriptor."""
    timings: Sequence[StepTiming]


class Comparer:
    """Compares pictures with the served models."""

    def __init__(
        self, runtime: Runtime, registry: ModelRegistry, backgrounds: Mapping[str, Background]
    ) -> None:
        """Prepare to compare.

        Args:
            runtime: threads and pixel budget.
            registry: served models.
            backgrounds: background sets of models, by vector space.
        """
        self._runtime = runtime
        self._registry = registry
        self._backgrounds = backgrounds

    async def compare(self, first: bytes, second: bytes, *, draw: bool) -> Comparison:
        """Compare two picture files.

        Args:
            first: the original.
            second: the picture that may have been edited from it.
            draw: whether to draw the overlay.

        Raises:
            ServiceError: FIELD_REQUIRED or an IMAGE_… reason, with the name of the invalid picture;
                OVERLOADED, MODEL_NOT_SERVED, MODEL_SERVER_UNAVAILABLE or DEADLINE_EXCEEDED.
        """
        stopwatch = Stopwatch()
        copy = self._registry.with_role(roles.COPY)
        call = self._runtime.start_call()
        files = [
            await _open(call, content, name)
            for content, name in ((first, "image_a"), (second, "image_b"))
        ]
        # Admit both pictures at once: two calls would deadlock if each held the pixel budget of one
        # picture and waited for that of the other.
        async with call.admit(_needed_pixels(files)) as grant:
            with stopwatch.step("decode"):
                a, b = await _views(call, files)
            grant.shrink_to(WORKING_PIXELS)
            aligned, vectors = await self._align(call, copy, a, b, stopwatch)
            with stopwatch.step("measure"):
                background = self._backgrounds.get(copy.space)
                measures, edits = await call.long.run(judge, a, b, aligned, vectors, background)
            overlay = b""
            if draw:
                with stopwatch.step("draw"):
                    overlay = await call.long.run(draw_overlay, a.view, b.view, aligned)
        return Comparison(
            (a.info, b.info), measures, edits, overlay, copy.model_version, stopwatch.timings()
        )

    async def _align(
        self,
        call: Call,
        copy: Model,
        first: ComparedPicture,
        second: ComparedPicture,
        stopwatch: Stopwatch,
    ) -> tuple[Aligned | None, Vectors]:
        """Align the pictures while Triton embeds them; then embed their overlap."""
        semantic = self._semantic()

        async def alignment() -> Aligned | None:
            with stopwatch.step("align"):
                return await call.long.run(align, first.view, second.view)

        async with task_group() as tasks:

            async def embed(model: Model, inputs: Inputs) -> Rows:
                return await Stacker(self._registry, model, tasks).run(inputs)

            alignment_task = tasks.create_task(alignment())
            with stopwatch.step("infer"):
                inputs = await call.long.run(whole_inputs, first, second, copy.input)
                copy_task = tasks.create_task(embed(copy, inputs))
                semantic_vectors = None
                if semantic is not None:
                    inputs = await call.long.run(whole_inputs, first, second, semantic.input)
                    semantic_vectors = await embed(semantic, inputs)
                copy_vectors = await copy_task
            aligned = await alignment_task
            overlap_vectors = None
            if aligned is not None:
                with stopwatch.step("infer"):
                    inputs = await call.long.run(overlap_inputs, aligned, copy.input)
                    overlap_vectors = await embed(copy, inputs)
        return aligned, Vectors(copy_vectors, semantic_vectors, overlap_vectors)

    def _semantic(self) -> Model | None:
        """Return the optional model for similar content; None if it is not served."""
        try:
            return self._registry.with_role(roles.SEMANTIC)
        except ServiceError:
            return None


async def _open(call: Call, content: bytes, name: str) -> OpenedFile:
    if not content:
        raise missing_field(f"{name}.content")
    try:
        return await call.open(content)
    except ServiceError as error:
        raise _named_picture_error(name, error) from error


def _are_large(files: Sequence[OpenedFile]) -> bool:
    return sum(file.pixels for file in files) > LARGE_PICTURE_PX


def _needed_pixels(files: Sequence[OpenedFile]) -> int:
    """Return the pixels of the budget for both pictures."""
    needed = [file.budget_pixels for file in files]
    return max(needed) + WORKING_PIXELS if _are_large(files) else sum(needed)


async def _views(call: Call, files: Sequence[OpenedFile]) -> list[ComparedPicture]:
    """Read both pictures; large pictures one after the other, since the budget counts one."""
    named = list(zip(files, ("image_a", "image_b"), strict=True))
    if _are_large(files):
        return [await _view(call, file, name) for file, name in named]
    return await together(_view(call, file, name) for file, name in named)


async def _view(call: Call, file: OpenedFile, name: str) -> ComparedPicture:
    try:
        decoded = await call.decode(file, max_reduction(file.width, file.height))
    except ServiceError as error:
        raise _named_picture_error(name, error) from error
    return await call.long.run(lambda: read_picture(file.describe(decoded), decoded))


def _named_picture_error(name: str, error: ServiceError) -> ServiceError:
    """Return the error with the field of the invalid picture added."""
    return ServiceError(
        error.reason,
        f"{name}: {error.message}",
        metadata=error.metadata | {"field": f"{name}.content"},
        fields=[FieldViolation(f"{name}.content", error.message)],
        retry_after_s=error.retry_after_s,
    )
