"""Embeds pictures, regions and subjects, and detects subjects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from imagesearch_services.common import roles
from imagesearch_services.common.errors import ServiceError, unwrap
from imagesearch_services.common.stopwatch import Stopwatch
from imagesearch_services.common.types import (
    Box,
    Category,
    ModelVersion,
    PictureInfo,
    StepTiming,
    Subject,
)
from imagesearch_services.embedding.embed.items import (
    EmbeddedPicture,
    EmbeddedRegion,
    Item,
    validate,
    validate_thumbnail,
)
from imagesearch_services.embedding.embed.labeling import label_regions, subject_at, with_subjects
from imagesearch_services.embedding.embed.pipeline import Processed, process
from imagesearch_services.embedding.embed.preparing import Plan
from imagesearch_services.embedding.inference import spaces as vector_spaces
from imagesearch_services.embedding.inference.background import Background
from imagesearch_services.embedding.inference.registry import ModelRegistry
from imagesearch_services.embedding.inference.spaces import ModelInput, Space
from imagesearch_services.embedding.inference.stacking import Rows
from imagesearch_services.embedding.inference.triton import WrongAnswerError
from imagesearch_services.embedding.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Embedded:
    """The embedded pictures of a call."""

    pictures: Sequence[EmbeddedPicture | ServiceError]
    """Embeddings or error of each picture, in the order of the items."""
    timings: Sequence[StepTiming]
    detection_models: Sequence[ModelVersion]
    """Models that searched for subjects; empty if no item needed it."""


@dataclass(frozen=True, slots=True)
class Detection:
    """The subjects of a picture, the main subject first."""

    subjects: Sequence[Subject]
    info: PictureInfo
    models: Sequence[ModelVersion]
    timings: Sequence[StepTiming]


class Embedder:
    """Embeds pictures with the served models, and detects their subjects."""

    def __init__(
        self, runtime: Runtime, registry: ModelRegistry, backgrounds: Mapping[str, Background]
    ) -> None:
        """Prepare to embed.

        Args:
            runtime: threads and pixel budget.
            registry: served models.
            backgrounds: background sets of models, by vector space.
        """
        self._runtime = runtime
        self._registry = registry
        self._backgrounds = backgrounds

    async def embed(
        self, items: Sequence[Item], spaces: Sequence[str], *, thumbnail_max_side_px: int = 0
    ) -> Embedded:
        """Embed pictures, or regions or subjects of them, into vector spaces.

        Args:
            items: the pictures.
            spaces: names of the vector spaces.
            thumbnail_max_side_px: maximum long side of the thumbnails, in pixels; 0: no thumbnails.

        Raises:
            ServiceError: for all pictures: FIELD_REQUIRED, FIELD_INVALID, OVERLOADED,
                MODEL_NOT_SERVED, MODEL_SERVER_UNAVAILABLE or DEADLINE_EXCEEDED.
        """
        stopwatch = Stopwatch()
        validate(items, spaces)
        validate_thumbnail(thumbnail_max_side_px)
        resolved = vector_spaces.resolve(self._registry, spaces)
        inputs = {
            model_input.key: model_input for space in resolved for model_input in space.inputs
        }
        parser = None
        if any(item.subject_detection for item in items):
            parser = self._registry.with_role(roles.SUBJECTS)
        plan = Plan(
            inputs=list(inputs.values()),
            parser=parser,
            are_colors_named=any(space.labels for space in resolved),
            thumbnail_max_side_px=thumbnail_max_side_px,
        )
        items_by_field = {f"items[{index}].": item for index, item in enumerate(items)}
        outcomes = await self._process(items_by_field, plan, stopwatch)
        pictures = [
            outcome if isinstance(outcome, ServiceError) else self._embedded(outcome, resolved)
            for outcome in outcomes
        ]
        models = [] if parser is None else [parser.model_version]
        return Embedded(pictures, stopwatch.timings(), models)

    async def detect(
        self, content: bytes, region: Box | None, category: Category | None
    ) -> Detection:
        """Detect and describe the subjects of a picture.

        Args:
            content: the picture file.
            region: region to search; None: the whole picture.
            category: category of the subjects to return; None: all subjects.

        Raises:
            ServiceError: FIELD_REQUIRED, an IMAGE_… reason, REGION_INVALID, OVERLOADED,
                MODEL_NOT_SERVED, MODEL_SERVER_UNAVAILABLE or DEADLINE_EXCEEDED.
        """
        stopwatch = Stopwatch()
        parser = self._registry.with_role(roles.SUBJECTS)
        space = vector_spaces.space_of(self._registry, self._registry.with_role(roles.PRODUCT))
        if space.labels is None:
            raise WrongAnswerError(f"model {space.name} does not label subjects")
        plan = Plan(
            inputs=[space.own], parser=parser, are_all_described=True, are_colors_named=True
        )
        item = Item(content, [] if region is None else [region], subject_detection=True)
        (outcome,) = await self._process({"": item}, plan, stopwatch)
        processed = unwrap(outcome)
        labeled = label_regions(space, space.labels, processed)
        subjects = [
            subject_at(processed, row, labeled[row]) for row in range(len(processed.prepared.found))
        ]
        return Detection(
            [subject for subject in subjects if category in {None, subject.category}],
            processed.described.info,
            [parser.model_version, space.own.model.model_version],
            stopwatch.timings(),
        )

    async def _process(
        self, items: Mapping[str, Item], plan: Plan, stopwatch: Stopwatch
    ) -> list[Processed | ServiceError]:
        return await process(
            items, plan, runtime=self._runtime, registry=self._registry, stopwatch=stopwatch
        )

    def _embedded(self, processed: Processed, spaces: Sequence[Space]) -> EmbeddedPicture:
        prepared, described = processed.prepared, processed.described
        vectors = [_vectors(space, processed) for space in spaces]
        similarities = [
            self._background_similarities(space, rows)
            for space, rows in zip(spaces, vectors, strict=True)
        ]
        regions = [
            EmbeddedRegion(
                box,
                [rows[row] for rows in vectors],
                [of_space[row] for of_space in similarities],
                source,
            )
            for row, (box, source) in enumerate(zip(prepared.boxes, prepared.sources, strict=True))
        ]
        picture = EmbeddedPicture(described.info, regions, thumbnail=described.thumbnail)
        for space in spaces:
            if space.labels is not None:
                labeled = label_regions(space, space.labels, processed)
                return with_subjects(picture, processed, labeled)
        return picture

    def _background_similarities(self, space: Space, vectors: Rows) -> list[float]:
        background = self._backgrounds.get(space.name)
        if background is None or not len(vectors):
            return [0.0] * len(vectors)
        similarities: list[float] = background.similarities(vectors).tolist()
        return similarities


def _vectors(space: Space, processed: Processed) -> Rows:
    own, *joined = (_embeddings(model_input, processed) for model_input in space.inputs)
    return space.vectors(own, joined[0] if joined else None)


def _embeddings(model_input: ModelInput, processed: Processed) -> Rows:
    outputs = model_input.model.outputs_in(processed.rows[model_input.key])
    return outputs[model_input.model.output_name]
