"""Keeps the registry of served models: discovers them on Triton, probes and runs them.

A model is served once it has returned the known answer to its probe picture, until it returns
another answer. When the connection to Triton is lost, all models are removed from the registry,
since another Triton may answer next.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.logs import logger
from imagesearch_services.embedding.inference.models import Model, ModelDescriptionError, read_model
from imagesearch_services.embedding.inference.probe import agreement, probe_answer, probe_picture
from imagesearch_services.embedding.inference.triton import (
    TritonClient,
    WrongAnswerError,
    model_not_served,
)

SILENT_S = 2.0
"""Time that a call without a model may wait before health reports it, in seconds. Its deadline is
later: a loaded Triton that answers late keeps its models."""

RETRY_INTERVAL_S = 0.1
"""Interval between attempts while Triton does not answer, in seconds; short, since callers wait."""


class ModelRegistry:
    """The served models, kept up to date by watching Triton."""

    def __init__(
        self, triton: TritonClient, *, watch_interval_s: float, probe_interval_s: float
    ) -> None:
        self._triton = triton
        self._watch_interval_s = watch_interval_s
        self._probe_interval_s = probe_interval_s
        self._is_reachable = False
        self._served: dict[str, Model] = {}
        self._probed_at_s: dict[str, float] = {}
        self._refused: dict[str, str] = {}
        self._watcher: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start watching Triton."""
        self._watcher = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """Stop watching Triton."""
        if self._watcher is not None:
            self._watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watcher

    def models(self) -> list[Model]:
        """Return the served models, ordered by role, name and version.

        Raises:
            ServiceError: MODEL_SERVER_UNAVAILABLE.
        """
        self._check_reachable()
        return sorted(
            self._served.values(), key=lambda model: (model.role, model.name, int(model.version))
        )

    def resolve(self, spaces: Sequence[str]) -> list[Model]:
        """Return the models that embed into the spaces, in the order of the spaces.

        Raises:
            ServiceError: MODEL_SERVER_UNAVAILABLE or MODEL_NOT_SERVED.
        """
        self._check_reachable()
        return [self._resolve(space) for space in spaces]

    def with_role(self, role: str) -> Model:
        """Return the model with a role; if several have it, the last by name and version.

        Raises:
            ServiceError: MODEL_SERVER_UNAVAILABLE or MODEL_NOT_SERVED.
        """
        found = [model for model in self.models() if model.role == role]
        if not found:
            raise ServiceError(
                Reason.MODEL_NOT_SERVED,
                f'no model with the role "{role}" is served now',
                metadata={"model": role, "version": ""},
            )
        return found[-1]

    def check(self) -> None:
        """Check that Triton answers and that a model is served.

        Raises:
            ServiceError: MODEL_SERVER_UNAVAILABLE.
        """
        self._check_reachable()
        if self._triton.silent_s() > SILENT_S:
            raise ServiceError(Reason.MODEL_SERVER_UNAVAILABLE, "Triton does not answer")
        if not self._served:
            raise ServiceError(Reason.MODEL_SERVER_UNAVAILABLE, "no model is served")

    async def run(self, model: Model, inputs: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Run a model on preprocessed regions.

        Args:
            model: a model that `models`, `resolve` or `with_role` returned.
            inputs: uint8 [regions, height, width, 3], at most the model's maximum batch size.

        Returns:
            All outputs of each region, float32 [regions, row length], see `Model.outputs_in`.
            Embeddings have unit length.

        Raises:
            ServiceError: as `TritonClient.infer`; MODEL_SERVER_UNAVAILABLE also for outputs of a
                wrong shape, embeddings of length zero, NaN or infinity.
        """
        names = list(model.outputs)
        outputs = await self._triton.infer(
            model.name, model.version, inputs, input_name=model.input_name, output_names=names
        )
        parts = []
        for name, output in zip(names, outputs, strict=True):
            if output.shape != (len(inputs), *model.outputs[name]) or not np.isfinite(output).all():
                raise WrongAnswerError(
                    f"model {model.name} returned a wrong shape, NaN or infinity in output {name}"
                )
            parts.append(output.reshape(len(inputs), -1))
        if model.dimensions:
            lengths = np.sqrt(np.einsum("ij,ij->i", parts[0], parts[0], dtype=np.float64))
            if not lengths.all():
                raise WrongAnswerError(f"model {model.name} returned an embedding of length zero")
            parts[0] = (parts[0] / lengths[:, None]).astype(np.float32)
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    async def refresh(self) -> None:
        """Read the list of models that Triton has loaded, and probe models that are new or due.

        Raises:
            ServiceError: MODEL_SERVER_UNAVAILABLE; then no model is served.
        """
        try:
            loaded = await self._triton.ready_models()
            spaces = {f"{name}@{version}": (name, version) for name, version in loaded}
            for space in self._served.keys() - spaces.keys():
                logger().warning("model.unloaded", space=space)
                del self._served[space]
            self._refused = {
                space: reason for space, reason in self._refused.items() if space in spaces
            }
            for space, (name, version) in spaces.items():
                if space not in self._served or self._is_due(space):
                    await self._verify(space, name, version)
        except ServiceError:
            self._forget()
            raise
        self._is_reachable = True

    def _is_due(self, space: str) -> bool:
        return time.monotonic() - self._probed_at_s[space] >= self._probe_interval_s

    async def _verify(self, space: str, name: str, version: str) -> None:
        config = await self._triton.model_config(name, version)
        if "role" not in config.parameters:
            return  # the model belongs to another project
        try:
            model = read_model(config)
        except ModelDescriptionError as error:
            self._refuse(space, str(error))
            return
        try:
            answer = await self._probe(model)
        except WrongAnswerError as error:
            self._refuse(space, error.message)
            return
        except ServiceError as error:
            if space not in self._served:
                self._refuse(space, error.message)
            # A served model stays served, since a slow or overloaded model is not a wrong model.
            return
        cosine = agreement(answer, model.probe)
        if cosine < model.probe_min_cosine:
            self._refuse(
                space,
                f"the cosine of its answer to the probe and the known answer is {cosine:.4f}; "
                f"must be at least {model.probe_min_cosine}",
            )
            return
        if space not in self._served:
            logger().info("model.served", space=space, role=model.role, cosine=round(cosine, 4))
        self._refused.pop(space, None)
        self._served[space] = model
        self._probed_at_s[space] = time.monotonic()

    async def _probe(self, model: Model) -> npt.NDArray[np.float32]:
        picture = probe_picture(model.input.width, model.input.height)[None]
        outputs = model.outputs_in(await self.run(model, picture))
        return probe_answer(outputs[model.output_name])

    def _refuse(self, space: str, reason: str) -> None:
        self._served.pop(space, None)
        if self._refused.get(space) != reason:
            logger().error("model.refused", space=space, reason=reason)
        self._refused[space] = reason

    def _resolve(self, space: str) -> Model:
        model = self._served.get(space)
        if model is not None and model.dimensions:
            return model
        if space in self._refused:
            raise ServiceError(
                Reason.MODEL_SERVER_UNAVAILABLE,
                f"model {space} is not served: {self._refused[space]}",
            )
        name, _, version = space.partition("@")
        raise model_not_served(name, version)

    def _check_reachable(self) -> None:
        if not self._is_reachable:
            raise ServiceError(Reason.MODEL_SERVER_UNAVAILABLE, "Triton does not answer")

    def _forget(self) -> None:
        if self._is_reachable:
            logger().warning("triton.connection_lost")
        self._is_reachable = False
        self._served.clear()
        self._refused.clear()

    async def _watch(self) -> None:
        while True:
            try:
                await self.refresh()
            except ServiceError as error:
                logger().debug("triton.unreachable", error=error.message)
                await asyncio.sleep(RETRY_INTERVAL_S)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._watch_interval_s):
                    await self._triton.connection_lost()
                self._forget()
