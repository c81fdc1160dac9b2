"""The models that serve now: discovered on Triton, probed, and run.

A model serves only after it has given the known answer to its probe picture, and until it gives
another answer. When the connection to Triton is lost all models are forgotten: another Triton may
come back.
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

RETRY_INTERVAL_S = 0.1
"""Interval between attempts while Triton does not answer; short, since callers are waiting."""


class ModelRegistry:
    """The models that serve now; watches Triton while it runs."""

    def __init__(
        self, triton: TritonClient, *, watch_interval_s: float, probe_interval_s: float
    ) -> None:
        self._triton = triton
        self._watch_interval_s = watch_interval_s
        self._probe_interval_s = probe_interval_s
        self._is_reachable = False
        self._serving: dict[str, Model] = {}
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
        """Return the models that serve, by role, name and version.

        Raises:
            ServiceError: MODEL_SERVER_UNAVAILABLE.
        """
        self._check_reachable()
        return sorted(
            self._serving.values(), key=lambda model: (model.role, model.name, int(model.version))
        )

    def resolve(self, spaces: Sequence[str]) -> list[Model]:
        """Return the models that embed into the spaces, in the order of the spaces.

        Raises:
            ServiceError: MODEL_SERVER_UNAVAILABLE or MODEL_NOT_SERVED.
        """
        self._check_reachable()
        return [self._resolve(space) for space in spaces]

    def with_role(self, role: str) -> Model:
        """Return the model of a role: the last by name and version if there are several.

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
        """Raise ServiceError while Triton does not answer or no model serves."""
        self._check_reachable()
        if not self._serving:
            raise ServiceError(Reason.MODEL_SERVER_UNAVAILABLE, "no model serves")

    async def run(self, model: Model, inputs: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Run a model on preprocessed regions.

        Args:
            model: a model that `models`, `resolve` or `with_role` returned.
            inputs: uint8 [regions, height, width, 3], at most the model's largest batch.

        Returns:
            All outputs of each region, float32 [regions, row length], see `Model.outputs_in`.
            Embeddings have unit length.

        Raises:
            ServiceError: as `TritonClient.infer`; MODEL_SERVER_UNAVAILABLE also for outputs of
                another shape, embeddings of length zero, and NaN or infinity.
        """
        names = list(model.outputs)
        outputs = await self._triton.infer(
            model.name, model.version, inputs, input_name=model.input_name, output_names=names
        )
        parts = []
        for name, output in zip(names, outputs, strict=True):
            if output.shape != (len(inputs), *model.outputs[name]) or not np.isfinite(output).all():
                raise WrongAnswerError(
                    f"model {model.name} returned a wrong shape, NaN or infinity as {name}"
                )
            parts.append(output.reshape(len(inputs), -1))
        if model.dimensions:
            lengths = np.sqrt(np.einsum("ij,ij->i", parts[0], parts[0], dtype=np.float64))
            if not lengths.all():
                raise WrongAnswerError(f"model {model.name} returned an embedding of length zero")
            parts[0] = (parts[0] / lengths[:, None]).astype(np.float32)
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    async def refresh(self) -> None:
        """Read which models Triton has loaded, and probe those that are new or due.

        Raises:
            ServiceError: Triton does not answer; then no model serves.
        """
        try:
            loaded = await self._triton.ready_models()
            spaces = {f"{name}@{version}": (name, version) for name, version in loaded}
            for gone in self._serving.keys() - spaces.keys():
                logger().warning("model.unloaded", space=gone)
                del self._serving[gone]
            self._refused = {space: why for space, why in self._refused.items() if space in spaces}
            for space, (name, version) in spaces.items():
                if space not in self._serving or self._is_due(space):
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
            return  # not a model of this project
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
            if space not in self._serving:
                self._refuse(space, error.message)
            # A serving model that is slow or overloaded has not answered wrongly.
            return
        cosine = agreement(answer, model.probe)
        if cosine < model.probe_min_cosine:
            self._refuse(
                space,
                f"the cosine of its answer to the probe and the known answer is {cosine:.4f}, "
                f"at least {model.probe_min_cosine} is required",
            )
            return
        if space not in self._serving:
            logger().info("model.serves", space=space, role=model.role, cosine=round(cosine, 4))
        self._refused.pop(space, None)
        self._serving[space] = model
        self._probed_at_s[space] = time.monotonic()

    async def _probe(self, model: Model) -> npt.NDArray[np.float32]:
        picture = probe_picture(model.input.width, model.input.height)[None]
        outputs = model.outputs_in(await self.run(model, picture))
        return probe_answer(outputs[model.output_name])

    def _refuse(self, space: str, why: str) -> None:
        self._serving.pop(space, None)
        if self._refused.get(space) != why:
            logger().error("model.refused", space=space, why=why)
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

    def _check_reachable(self) -> None:
        if not self._is_reachable:
            raise ServiceError(Reason.MODEL_SERVER_UNAVAILABLE, "Triton does not answer")

    def _forget(self) -> None:
        if self._is_reachable:
            logger().warning("triton.lost")
        self._is_reachable = False
        self._serving.clear()
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
