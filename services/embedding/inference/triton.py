"""Calls Triton (KServe v2 over gRPC); returns arrays and raises ServiceError."""

from __future__ import annotations

import math
import time
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
"""Deadline of calls that run no model, in seconds."""

DEADLINE_MARGIN_S = 0.01
"""Part of the caller's remaining time that is reserved for the response, in seconds."""

READY = "READY"
"""State of a model in Triton's repository index."""


class WrongAnswerError(ServiceError):
    """Triton returned an invalid response."""

    def __init__(self, message: str) -> None:
        super().__init__(Reason.MODEL_SERVER_UNAVAILABLE, message)


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output tensor that a model's configuration declares."""

    data_type: str
    """Name of the enum value, such as "TYPE_UINT8"."""
    dims: tuple[int, ...]
    """Shape without the batch dimension; -1: any size."""


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The configuration of a model version on Triton."""

    name: str
    version: str
    max_batch_size: int
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    parameters: Mapping[str, str]


class TritonClient:
    """Client of one Triton server; connects on first use and reconnects automatically."""

    def __init__(self, target: str, *, infer_timeout_s: float) -> None:
        """Create the client without connecting.

        Args:
            target: gRPC name, such as `127.0.0.1:8001`.
            infer_timeout_s: maximum duration of an inference, in seconds; the deadline of the
                caller may be earlier.
        """
        self._infer_timeout_s = infer_timeout_s
        self._asked_s: float | None = None
        """Time at which the control call in progress began."""
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
        """Wait until the connection is lost; return at once if there is no connection."""
        state = self._channel.get_state()
        while state is grpc.ChannelConnectivity.READY:
            await self._channel.wait_for_state_change(state)
            state = self._channel.get_state()

    async def ready_models(self) -> list[tuple[str, str]]:
        """Return the name and version of every loaded model.

        Raises:
            ServiceError: MODEL_SERVER_UNAVAILABLE.
        """
        index = await self._call(
            self._stub.RepositoryIndex, service_pb2.RepositoryIndexRequest(ready=True)
        )
        return [(model.name, model.version) for model in index.models if model.state == READY]

    async def model_config(self, name: str, version: str) -> ModelConfig:
        """Return the configuration of a model.

        Raises:
            ServiceError: MODEL_SERVER_UNAVAILABLE.
        """
        response = await self._call(
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
            name: name of the model.
            version: version of the model.
            inputs: uint8, batch first, at most the model's maximum batch size.
            input_name: name of the input tensor.
            output_names: names of the output tensors.

        Returns:
            The outputs in the order of `output_names`, float32, batch first.

        Raises:
            ServiceError: MODEL_SERVER_UNAVAILABLE (also for an invalid response),
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
            raise _infer_error(
                error, name, version, is_callers_deadline=timeout_s == remaining_s
            ) from error
        return _outputs(response, output_names)

    async def _call(self, method: Callable[..., Awaitable[Any]], request: Any) -> Any:
        self._asked_s = time.monotonic()
        try:
            return await method(request, timeout=CONTROL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise _unavailable(f"Triton does not answer ({error.code().name.lower()})") from error
        finally:
            self._asked_s = None

    def silent_s(self) -> float:
        """Return for how long a call that runs no model has waited for its answer, in seconds."""
        return 0.0 if self._asked_s is None else time.monotonic() - self._asked_s


def _tensors(tensors: Any) -> dict[str, Tensor]:
    return {
        tensor.name: Tensor(model_config_pb2.DataType.Name(tensor.data_type), tuple(tensor.dims))
        for tensor in tensors
    }


def _outputs(response: Any, names: Sequence[str]) -> list[npt.NDArray[np.float32]]:
    """Read the outputs, with strict checks: backends have returned garbage without an error."""
    if not len(response.outputs) == len(response.raw_output_contents) == len(names):
        raise WrongAnswerError(
            f"Triton returned {len(response.outputs)} outputs; {len(names)} were requested"
        )
    outputs = {
        output.name: _output(output, content)
        for output, content in zip(response.outputs, response.raw_output_contents, strict=True)
    }
    if outputs.keys() != set(names):
        raise WrongAnswerError(
            f"Triton returned the outputs {', '.join(outputs)}; {', '.join(names)} were requested"
        )
    return [outputs[name] for name in names]


def _output(output: Any, content: bytes) -> npt.NDArray[np.float32]:
    shape = tuple(output.shape)
    if output.datatype != "FP32" or len(content) != 4 * math.prod(shape):
        raise WrongAnswerError(
            f"Triton returned {len(content)} bytes of {output.datatype} with shape {list(shape)} "
            f"for output {output.name}; must be FP32 with 4 bytes per value"
        )
    return np.frombuffer(content, dtype="<f4").reshape(shape)


def _infer_error(
    error: grpc.aio.AioRpcError, name: str, version: str, *, is_callers_deadline: bool
) -> ServiceError:
    """Return the ServiceError for a failed inference.

    Args:
        error: error that the stub raised.
        name: name of the model.
        version: version of the model.
        is_callers_deadline: whether the caller's deadline limited the duration, not the client's
            timeout.
    """
    code, details = error.code(), (error.details() or "").lower()
    timed_out = code is grpc.StatusCode.DEADLINE_EXCEEDED
    if timed_out and is_callers_deadline:
        return _deadline_exceeded()
    if timed_out:
        return _unavailable("Triton did not answer in time")
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
    return ServiceError(Reason.DEADLINE_EXCEEDED, "the deadline of the call was exceeded")


def _unavailable(message: str) -> ServiceError:
    return ServiceError(Reason.MODEL_SERVER_UNAVAILABLE, message)
