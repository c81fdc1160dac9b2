"""The border to Triton: KServe v2 over gRPC in, arrays and our own errors out."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import numpy as np
import numpy.typing as npt
from tritonclient.grpc import (  # type: ignore[import-untyped]
    model_config_pb2,
    service_pb2,
    service_pb2_grpc,
)

from imagesearch_services.common.context import time_remaining_s
from imagesearch_services.common.errors import Reason, ServiceError

CONTROL_TIMEOUT_S = 5.0
"""For questions that Triton answers without running a model."""

DEADLINE_MARGIN_S = 0.01
"""Of the caller's time, what is kept for the way back."""

READY = "READY"
"""State of a model in Triton's repository index."""


class WrongAnswerError(ServiceError):
    """Triton answered, but not with what was asked."""

    def __init__(self, message: str) -> None:
        super().__init__(Reason.MODEL_SERVER_UNAVAILABLE, message)


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output as a model's configuration declares it."""

    data_type: str
    """For example "TYPE_UINT8"."""
    dims: tuple[int, ...]
    """Without the batch dimension; -1: any."""


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """What Triton tells of one version of a model."""

    name: str
    version: str
    max_batch_size: int
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    parameters: Mapping[str, str]


class TritonClient:
    """Calls to one Triton. Connects on first use, and again by itself."""

    def __init__(self, target: str, *, infer_timeout_s: float) -> None:
        """Prepare to call.

        Args:
            target: gRPC name, for example `127.0.0.1:8001`.
            infer_timeout_s: how long one inference may take where the caller left us longer.
        """
        self._infer_timeout_s = infer_timeout_s
        self._channel = grpc.aio.insecure_channel(
            target,
            options=[
                ("grpc.max_send_message_length", -1),
                ("grpc.max_receive_message_length", -1),
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 1000),
                ("grpc.keepalive_time_ms", 30_000),
                ("grpc.keepalive_timeout_ms", 5_000),
            ],
        )
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    async def close(self) -> None:
        await self._channel.close()

    async def connection_lost(self) -> None:
        """Return when there is no connection, at once if there is none."""
        state = self._channel.get_state()
        while state is grpc.ChannelConnectivity.READY:
            await self._channel.wait_for_state_change(state)
            state = self._channel.get_state()

    async def ready_models(self) -> list[tuple[str, str]]:
        """Return name and version of every model that is loaded.

        Raises:
            ServiceError: MODEL_SERVER_UNAVAILABLE.
        """
        index = await self._ask(
            self._stub.RepositoryIndex, service_pb2.RepositoryIndexRequest(ready=True)
        )
        return [(model.name, model.version) for model in index.models if model.state == READY]

    async def model_config(self, name: str, version: str) -> ModelConfig:
        """Return how a model describes itself.

        Raises:
            ServiceError: MODEL_SERVER_UNAVAILABLE.
        """
        response = await self._ask(
            self._stub.ModelConfig, service_pb2.ModelConfigRequest(name=name, version=version)
        )
        config = response.config
        return ModelConfig(
            name=name,
            version=version,
            max_batch_size=config.max_batch_size,
            inputs=_tensors(config.input),
            outputs=_tensors(config.output),
            parameters={key: value.string_value for key, value in config.parameters.items()},
        )

    async def infer(
        self,
        name: str,
        version: str,
        inputs: npt.NDArray[np.uint8],
        *,
        input_name: str,
        output_names: Sequence[str],
    ) -> list[npt.NDArray[np.float32]]:
        """Run a model.

        Args:
            name: of the model.
            version: of the model.
            inputs: uint8, batch first, at most the model's largest batch.
            input_name: of the tensor.
            output_names: of the tensors.

        Returns:
            The outputs in the order of their names, float32, batch first.

        Raises:
            ServiceError: MODEL_SERVER_UNAVAILABLE (also for an answer that is none),
                MODEL_NOT_SERVED, OVERLOADED or DEADLINE_EXCEEDED.
        """
        remaining_s = time_remaining_s(math.inf) - DEADLINE_MARGIN_S
        timeout_s = min(self._infer_timeout_s, remaining_s)
        if timeout_s <= 0:
            raise _deadline_exceeded()
        request = service_pb2.ModelInferRequest(model_name=name, model_version=version)
        tensor = request.inputs.add(name=input_name, datatype="UINT8")
        tensor.shape.extend(inputs.shape)
        for output_name in output_names:
            request.outputs.add(name=output_name)
        request.raw_input_contents.append(inputs.tobytes())
        try:
            response = await self._stub.ModelInfer(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise _infer_error(error, name, version, callers=timeout_s == remaining_s) from error
        return _outputs(response, output_names)

    async def _ask(self, method: Callable[..., Awaitable[Any]], request: Any) -> Any:
        try:
            return await method(request, timeout=CONTROL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise _unavailable(f"Triton does not answer ({error.code().name.lower()})") from error


def _tensors(tensors: Any) -> dict[str, Tensor]:
    return {
        tensor.name: Tensor(model_config_pb2.DataType.Name(tensor.data_type), tuple(tensor.dims))
        for tensor in tensors
    }


def _outputs(response: Any, names: Sequence[str]) -> list[npt.NDArray[np.float32]]:
    """Read the outputs. Nothing of them is taken on trust: backends have answered garbage."""
    if not len(response.outputs) == len(response.raw_output_contents) == len(names):
        raise WrongAnswerError(
            f"Triton gave {len(response.outputs)} outputs where {len(names)} were asked"
        )
    given = {
        output.name: _output(output, content)
        for output, content in zip(response.outputs, response.raw_output_contents, strict=True)
    }
    if given.keys() != set(names):
        raise WrongAnswerError(f"Triton gave {', '.join(given)} where others were asked")
    return [given[name] for name in names]


def _output(output: Any, content: bytes) -> npt.NDArray[np.float32]:
    shape = tuple(output.shape)
    if output.datatype != "FP32" or len(content) != 4 * math.prod(shape):
        raise WrongAnswerError(
            f"Triton gave {len(content)} bytes as {output.name} {output.datatype} {list(shape)}"
        )
    return np.frombuffer(content, dtype="<f4").reshape(shape)


def _infer_error(
    error: grpc.aio.AioRpcError, name: str, version: str, *, callers: bool
) -> ServiceError:
    """Say what a failed inference means.

    Args:
        error: as raised by the stub.
        name: of the model.
        version: of the model.
        callers: whether the time was limited by our caller's deadline, not by ourselves.
    """
    code, details = error.code(), (error.details() or "").lower()
    timed_out = code is grpc.StatusCode.DEADLINE_EXCEEDED
    if timed_out and callers:
        return _deadline_exceeded()
    if timed_out:
        return _unavailable("Triton does not answer in time")
    if "maximum queue size" in details or code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return ServiceError(Reason.OVERLOADED, f"the queue of model {name} is full")
    if code is grpc.StatusCode.NOT_FOUND or "unknown model" in details:
        return model_not_served(name, version)
    return _unavailable(f"Triton failed to run model {name} ({code.name.lower()})")


def model_not_served(name: str, version: str) -> ServiceError:
    return ServiceError(
        Reason.MODEL_NOT_SERVED,
        f"model {name}, version {version}, is not served now",
        metadata={"model": name, "version": version},
    )


def _deadline_exceeded() -> ServiceError:
    return ServiceError(Reason.DEADLINE_EXCEEDED, "the deadline passed")


def _unavailable(message: str) -> ServiceError:
    return ServiceError(Reason.MODEL_SERVER_UNAVAILABLE, message)
