"""Which models are served: found on Triton, as they describe themselves, and checked.

A model takes part only after it gave the known answer to its probe picture, and until it gives
another one. When the connection to Triton is lost everything is forgotten: what comes back may be
something else.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.logs import logger
from imagesearch_services.common.types import LibraryType, ModelVersion
from imagesearch_services.embedding.preprocess import InputSpec, Resize
from imagesearch_services.embedding.probe import (
    agreement,
    decode_answer,
    probe_answer,
    probe_picture,
)
from imagesearch_services.embedding.subjects.labels import Labels
from imagesearch_services.embedding.triton import (
    ModelConfig,
    Tensor,
    TritonClient,
    WrongAnswerError,
    model_not_served,
)
from imagesearch_services.embedding.windows import Windows

RETRY_INTERVAL_S = 0.1
"""How often to look while Triton does not answer: callers are waiting."""


class ModelDescriptionError(Exception):
    """A model's configuration does not say what a caller must know."""


@dataclass(frozen=True, slots=True)
class Model:
    """A version of a model that embeds pictures, or tells what is in them."""

    name: str
    version: str
    role: str
    """What it is for, for example "copy" or "semantic"."""
    library_types: tuple[LibraryType, ...]
    """Types of library that new libraries use it for."""
    input: InputSpec
    input_name: str
    output_name: str
    dimensions: int
    """Components of an embedding; 0 for a model that does not embed."""
    outputs: Mapping[str, tuple[int, ...]]
    """Shape of every output, without the batch dimension; that of `output_name` first."""
    max_batch_size: int
    probe: npt.NDArray[np.float32] = field(repr=False)
    """What it gives for the probe picture, see `probe_answer`; unit length."""
    probe_min_cosine: float
    """How near to it the model must come."""
    parameters: Mapping[str, str] = field(repr=False)
    """Everything that its configuration says, for what only some models have."""

    @property
    def model_version(self) -> ModelVersion:
        return ModelVersion(self.role, self.name, self.version)

    @property
    def space(self) -> str:
        """The vector space that it embeds into; empty where it does not."""
        return f"{self.name}@{self.version}" if self.dimensions else ""

    @property
    def row_length(self) -> int:
        """Numbers that it gives for each region, in all its outputs."""
        return sum(map(math.prod, self.outputs.values()))

    def outputs_in(self, rows: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float32]]:
        """Take its outputs apart: [regions, row length] → [regions, *shape] of each."""
        found, start = {}, 0
        for name, shape in self.outputs.items():
            end = start + math.prod(shape)
            found[name] = rows[:, start:end].reshape(len(rows), *shape)
            start = end
        return found


def describe(config: ModelConfig) -> Model:
    """Read what a model's configuration says of it.

    Raises:
        ModelDescriptionError: something is missing, or does not fit together.
    """
    try:
        parameters = config.parameters
        spec = InputSpec(
            int(parameters["input_width"]),
            int(parameters["input_height"]),
            Resize(parameters["resize"]),
        )
        model = Model(
            name=config.name,
            version=config.version,
            role=parameters["role"],
            library_types=_library_types(parameters["library_types"]),
            input=spec,
            input_name=parameters["input_name"],
            output_name=parameters["output_name"],
            dimensions=int(parameters["dimensions"]),
            outputs=_shapes(config.outputs, parameters["output_name"]),
            max_batch_size=max(1, config.max_batch_size),
            probe=decode_answer(parameters["probe"]),
            probe_min_cosine=float(parameters["probe_min_cosine"]),
            parameters=parameters,
        )
        _check_others(parameters)
    except KeyError as error:
        raise ModelDescriptionError(f"the parameter {error} is missing") from error
    except ValueError as error:
        raise ModelDescriptionError(str(error)) from error
    if parameters.get("input_layout") != "NHWC":
        raise ModelDescriptionError("input_layout must be NHWC")
    _check_tensor(
        config.inputs, model.input_name, Tensor("TYPE_UINT8", (spec.height, spec.width, 3))
    )
    output = config.outputs.get(model.output_name)
    shape = (model.dimensions,) if model.dimensions or output is None else output.dims
    _check_tensor(config.outputs, model.output_name, Tensor("TYPE_FP32", shape))
    return model


def _check_others(parameters: Mapping[str, str]) -> None:
    """Read what only some models have, so that what can't be read is found before it is needed.

    Raises:
        KeyError: something is missing.
        ValueError: something can't be read.
    """
    float(parameters.get("crop_margin", "0"))
    if "joined_with" in parameters:
        float(parameters["joined_weight"])
    if "categories" in parameters:
        Labels.from_parameters(parameters)
    if "maps" in parameters:
        int(parameters["stride"])
    if "windows" in parameters:
        Windows.from_parameters(parameters)


def _library_types(text: str) -> tuple[LibraryType, ...]:
    """Read comma-separated names of library types; the text may be empty.

    Raises:
        ValueError: a name is unknown.
    """
    names = [name for name in text.split(",") if name]
    unknown = [name for name in names if name not in LibraryType.__members__]
    if unknown:
        raise ValueError(f"unknown library types: {', '.join(unknown)}")
    return tuple(LibraryType[name] for name in names)


def _shapes(outputs: Mapping[str, Tensor], first: str) -> dict[str, tuple[int, ...]]:
    names = sorted(outputs, key=lambda name: name != first)
    return {name: outputs[name].dims for name in names}


def _check_tensor(tensors: Mapping[str, Tensor], name: str, expected: Tensor) -> None:
    found = tensors.get(name)
    if (
        found is None
        or found.data_type != expected.data_type
        or len(found.dims) != len(expected.dims)
        or any(dim not in {-1, want} for dim, want in zip(found.dims, expected.dims, strict=True))
    ):
        raise ModelDescriptionError(f"tensor {name} is {found}, {expected} is described")


async def run(
    triton: TritonClient, model: Model, inputs: npt.NDArray[np.uint8]
) -> npt.NDArray[np.float32]:
    """Run a model on preprocessed regions.

    Args:
        triton: that serves the model.
        model: to run.
        inputs: uint8 [regions, height, width, 3], at most the model's largest batch.

    Returns:
        All that it gives for each region, float32 [regions, row length]: see `Model.outputs_in`.
        Embeddings are of unit length.

    Raises:
        ServiceError: as `TritonClient.infer`; MODEL_SERVER_UNAVAILABLE also for outputs of another
            shape, embeddings of no length, and numbers that are none.
    """
    names = list(model.outputs)
    outputs = await triton.infer(
        model.name, model.version, inputs, input_name=model.input_name, output_names=names
    )
    parts = []
    for name, output in zip(names, outputs, strict=True):
        if output.shape != (len(inputs), *model.outputs[name]) or not np.isfinite(output).all():
            raise WrongAnswerError(f"model {model.name} gave something that is no {name}")
        parts.append(output.reshape(len(inputs), -1))
    if model.dimensions:
        lengths = np.sqrt(np.einsum("ij,ij->i", parts[0], parts[0], dtype=np.float64))
        if not lengths.all():
            raise WrongAnswerError(f"model {model.name} gave an embedding of no length")
        parts[0] = (parts[0] / lengths[:, None]).astype(np.float32)
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


class ModelRegistry:
    """The models that serve now; watches Triton while it runs."""

    def __init__(
        self, triton: TritonClient, *, watch_interval_s: float, probe_interval_s: float
    ) -> None:
        self._triton = triton
        self._watch_interval_s = watch_interval_s
        self._probe_interval_s = probe_interval_s
        self._answers = False
        self._serving: dict[str, Model] = {}
        self._probed_at_s: dict[str, float] = {}
        self._refused: dict[str, str] = {}
        self._watcher: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to watch Triton."""
        self._watcher = asyncio.create_task(self._watch())

    async def close(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watcher

    def models(self) -> list[Model]:
        """Return the models that serve, by role and name.

        Raises:
            ServiceError: MODEL_SERVER_UNAVAILABLE.
        """
        self._check_answers()
        return sorted(
            self._serving.values(), key=lambda model: (model.role, model.name, int(model.version))
        )

    def resolve(self, spaces: Sequence[str]) -> list[Model]:
        """Return the models that embed into the spaces, in their order.

        Raises:
            ServiceError: MODEL_SERVER_UNAVAILABLE or MODEL_NOT_SERVED.
        """
        self._check_answers()
        return [self._resolve(space) for space in spaces]

    def with_role(self, role: str) -> Model:
        """Return the model of a role; of several the last by name and version.

        Raises:
            ServiceError: MODEL_SERVER_UNAVAILABLE or MODEL_NOT_SERVED.
        """
        found = [model for model in self.models() if model.role == role]
        if not found:
            raise ServiceError(
                Reason.MODEL_NOT_SERVED,
                f'no model of the role "{role}" is served now',
                metadata={"model": role, "version": ""},
            )
        return found[-1]

    def check(self) -> None:
        """Raise ServiceError while Triton does not answer or no model serves."""
        self._check_answers()
        if not self._serving:
            raise ServiceError(Reason.MODEL_SERVER_UNAVAILABLE, "no model serves")

    async def refresh(self) -> None:
        """Look which models Triton has loaded, and probe those that are new or due.

        Raises:
            ServiceError: Triton does not answer; then nothing serves.
        """
        try:
            loaded = await self._triton.ready_models()
            spaces = {f"{name}@{version}": (name, version) for name, version in loaded}
            for gone in self._serving.keys() - spaces.keys():
                logger().warning("model unloaded", space=gone)
                del self._serving[gone]
            self._refused = {space: why for space, why in self._refused.items() if space in spaces}
            for space, (name, version) in spaces.items():
                if space not in self._serving or self._is_due(space):
                    await self._verify(space, name, version)
        except ServiceError:
            self._forget()
            raise
        self._answers = True

    def _is_due(self, space: str) -> bool:
        return time.monotonic() - self._probed_at_s[space] >= self._probe_interval_s

    async def _verify(self, space: str, name: str, version: str) -> None:
        config = await self._triton.model_config(name, version)
        if "role" not in config.parameters:
            return  # not one of ours
        try:
            model = describe(config)
        except ModelDescriptionError as error:
            self._refuse(space, str(error))
            return
        try:
            answer = await self._probe(model)
        except WrongAnswerError as error:
            self._refuse(space, error.message)
            return
        except ServiceError as error:
            if space not in self._serving:
                self._refuse(space, error.message)
            # A serving model that is slow or overloaded has not answered wrongly.
            return
        cosine = agreement(answer, model.probe)
        if cosine < model.probe_min_cosine:
            self._refuse(
                space,
                f"its answer to the probe has a cosine of {cosine:.4f} to the known one, "
                f"{model.probe_min_cosine} is the least",
            )
            return
        if space not in self._serving:
            logger().info("model serves", space=space, role=model.role, cosine=round(cosine, 4))
        self._refused.pop(space, None)
        self._serving[space] = model
        self._probed_at_s[space] = time.monotonic()

    async def _probe(self, model: Model) -> npt.NDArray[np.float32]:
        picture = probe_picture(model.input.width, model.input.height)[None]
        outputs = model.outputs_in(await run(self._triton, model, picture))
        return probe_answer(outputs[model.output_name])

    def _refuse(self, space: str, why: str) -> None:
        self._serving.pop(space, None)
        if self._refused.get(space) != why:
            logger().error("model refused", space=space, why=why)
        self._refused[space] = why

    def _resolve(self, space: str) -> Model:
        model = self._serving.get(space)
        if model is not None and model.dimensions:
            return model
        if space in self._refused:
            raise ServiceError(
                Reason.MODEL_SERVER_UNAVAILABLE, f"model {space} is refused: {self._refused[space]}"
            )
        name, _, version = space.partition("@")
        raise model_not_served(name, version)

    def _check_answers(self) -> None:
        if not self._answers:
            raise ServiceError(Reason.MODEL_SERVER_UNAVAILABLE, "Triton does not answer")

    def _forget(self) -> None:
        if self._answers:
            logger().warning("triton lost")
        self._answers = False
        self._serving.clear()
        self._refused.clear()

    async def _watch(self) -> None:
        while True:
            try:
                await self.refresh()
            except ServiceError as error:
                logger().debug("triton does not answer", error=error.message)
                await asyncio.sleep(RETRY_INTERVAL_S)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._watch_interval_s):
                    await self._triton.connection_lost()
                self._forget()
