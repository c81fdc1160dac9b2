"""Behavior when Triton is unavailable, wrong or stuck, and when the pixel budget is full."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc.aio
import numpy as np
import pytest
from PIL import Image

from imagesearch.embedding.v1 import embedding_service_pb2 as pb
from imagesearch.type.v1 import picture_pb2
from imagesearch_services.common.context import begin_call
from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.status import from_rpc_error
from imagesearch_services.embedding.cage.cage import Cage
from imagesearch_services.embedding.elements import vocabulary
from imagesearch_services.embedding.embed.embedder import Embedder
from imagesearch_services.embedding.embed.items import Item
from imagesearch_services.embedding.inference.probe import encode_answer
from imagesearch_services.embedding.inference.registry import ModelRegistry
from imagesearch_services.embedding.inference.triton import TritonClient
from imagesearch_services.embedding.runtime import Runtime
from imagesearch_services.embedding.settings import PREFIX
from imagesearch_services.runner.triton import TritonPorts
from tests.integration.embedding.harness import NOT_SERVING, SERVING, Client, running_embedding
from tests.pictures import encoded, photo
from tests.ports import free_port
from tests.triton_server import TritonProcess

COPY, SEMANTIC, DENSE = "sscd@1", "efficientnet_lite2@1", "dense@2"

FAST_S = 1.0
"""Maximum duration of a call that fails at once, in seconds."""


def request(content: bytes, space: str = COPY) -> pb.EmbedImagesRequest:
    image = picture_pb2.ImageContent(content=content)
    return pb.EmbedImagesRequest(items=[pb.EmbedImageItem(image=image)], spaces=[space])


async def refusal(
    client: Client, message: pb.EmbedImagesRequest, *, timeout_s: float = 60
) -> ServiceError | None:
    """Make a call and return its error; None if it succeeded."""
    try:
        await client.embedding.EmbedImages(message, timeout=timeout_s)
    except grpc.aio.AioRpcError as error:
        return from_rpc_error(error, peer=Reason.EMBEDDING_UNAVAILABLE)
    return None


@pytest.fixture
def fragile_triton(models_dir: Path, tmp_path: Path) -> Iterator[TritonProcess]:
    """Run a Triton that the test may kill."""
    with TritonProcess(models_dir, TritonPorts.free(), tmp_path / "triton.log") as triton:
        triton.wait_ready()
        yield triton


@dataclass
class Domain:
    """The domain of the service, with served models."""

    triton: TritonClient
    runtime: Runtime
    embedder: Embedder


@pytest.fixture
async def domain(triton: TritonProcess) -> AsyncIterator[Domain]:
    client = TritonClient(triton.ports.grpc_address, infer_timeout_s=10)
    registry = ModelRegistry(client, watch_interval_s=1, probe_interval_s=30)
    await registry.refresh()
    cage = Cage(workers=2, overload_retry_s=0.25)
    runtime = Runtime(workers=2, pixel_budget=50_000_000, overload_retry_s=0.25, decoder=cage)
    yield Domain(client, runtime, Embedder(runtime, registry, {}))
    runtime.close()
    cage.close()
    await client.close()


async def test_without_triton_calls_fail_at_once_and_the_service_is_unhealthy() -> None:
    async with running_embedding(f"127.0.0.1:{free_port()}") as client:
        await client.until(NOT_SERVING)
        started_s = time.monotonic()
        error = await refusal(client, request(encoded(photo(1))))
        assert time.monotonic() - started_s < FAST_S
        assert error is not None
        assert error.reason is Reason.MODEL_SERVER_UNAVAILABLE
        assert error.retry_after_s is not None
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.embedding.ListModels(pb.ListModelsRequest(), timeout=10)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_calls_fail_at_once_after_triton_was_killed_and_succeed_after_its_restart(
    fragile_triton: TritonProcess,
) -> None:
    message = request(encoded(photo(1)))
    async with running_embedding(fragile_triton.ports.grpc_address) as client:
        await client.until(SERVING)
        assert await refusal(client, message) is None

        in_flight = [asyncio.create_task(refusal(client, message)) for _ in range(16)]
        os.kill(fragile_triton.pid, signal.SIGKILL)
        errors = [error for error in await asyncio.gather(*in_flight) if error is not None]
        assert {error.reason for error in errors} <= {Reason.MODEL_SERVER_UNAVAILABLE}

        await client.until(NOT_SERVING)
        started_s = time.monotonic()
        error = await refusal(client, message)
        assert time.monotonic() - started_s < FAST_S
        assert error is not None
        assert error.reason is Reason.MODEL_SERVER_UNAVAILABLE

        await asyncio.to_thread(fragile_triton.stop)
        await asyncio.to_thread(fragile_triton.start)
        await client.until(SERVING)
        assert await refusal(client, message) is None


async def reason_of_stuck_inference(target: str, remaining_s: float) -> Reason:
    """Run a model for a caller with this remaining time and return the reason of the error."""
    triton = TritonClient(target, infer_timeout_s=10)
    begin_call("test", remaining_s)
    picture = np.zeros((1, 288, 288, 3), np.uint8)
    with pytest.raises(ServiceError) as caught:
        await triton.infer("sscd", "1", picture, input_name="image", output_names=["embedding"])
    await triton.close()
    return caught.value.reason


async def test_calls_to_a_stuck_triton_time_out(fragile_triton: TritonProcess) -> None:
    message = request(encoded(photo(1)))
    target = fragile_triton.ports.grpc_address
    async with running_embedding(target, INFER_TIMEOUT_S="1") as client:
        await client.until(SERVING)
        os.kill(fragile_triton.pid, signal.SIGSTOP)
        try:
            reason = await asyncio.create_task(reason_of_stuck_inference(target, 0.3))
            assert reason is Reason.DEADLINE_EXCEEDED
            started_s = time.monotonic()
            error = await refusal(client, message)
            assert time.monotonic() - started_s < 1 + FAST_S
            assert error is not None
            assert error.reason is Reason.MODEL_SERVER_UNAVAILABLE
            await client.until(NOT_SERVING)
        finally:
            os.kill(fragile_triton.pid, signal.SIGCONT)
        await client.until(SERVING)
        assert await refusal(client, message) is None


async def test_a_model_with_a_wrong_answer_to_its_probe_is_not_served(
    repository_with_wrong_answer: Callable[[str, str], Path], tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    wrong = encode_answer(random.standard_normal(512).astype(np.float32))
    models_dir = repository_with_wrong_answer("sscd", wrong)
    with TritonProcess(models_dir, TritonPorts.free(), tmp_path / "triton.log") as triton:
        await asyncio.to_thread(triton.wait_ready)
        async with running_embedding(triton.ports.grpc_address) as client:
            await client.until(SERVING)
            listed = await client.embedding.ListModels(pb.ListModelsRequest(), timeout=10)
            spaces = {model.space for model in listed.models if model.space}
            assert spaces == {SEMANTIC, DENSE, vocabulary.SPACE}
            content = encoded(photo(1))
            assert await refusal(client, request(content, SEMANTIC)) is None
            error = await refusal(client, request(content, COPY))
            assert error is not None
            assert error.reason is Reason.MODEL_SERVER_UNAVAILABLE
            assert COPY in error.message


async def test_a_model_is_no_longer_served_once_it_answers_wrongly(triton: TritonProcess) -> None:
    client = TritonClient(triton.ports.grpc_address, infer_timeout_s=10)
    registry = ModelRegistry(client, watch_interval_s=1, probe_interval_s=0)
    await registry.refresh()
    assert [model.space for model in registry.resolve([COPY])] == [COPY]

    class ZeroAnswers(TritonClient):
        """A client that replaces the outputs of one model by zeros."""

        async def infer(self, name, version, inputs, **names):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN003, ANN202
            answers = await super().infer(name, version, inputs, **names)
            return [np.zeros_like(answer) for answer in answers] if name == "sscd" else answers

    client.__class__ = ZeroAnswers
    await registry.refresh()
    with pytest.raises(ServiceError) as caught:
        registry.resolve([COPY])
    assert caught.value.reason is Reason.MODEL_SERVER_UNAVAILABLE
    assert registry.resolve([SEMANTIC])
    client.__class__ = TritonClient
    await registry.refresh()
    assert registry.resolve([COPY])
    await client.close()


async def test_a_cancelled_call_gives_its_pixels_back(domain: Domain) -> None:
    whole = domain.runtime.budget.free
    items = [Item(encoded(photo(seed, (2000, 1500)), "PNG")) for seed in range(6)] * 5
    call = asyncio.create_task(domain.embedder.embed(items, [COPY]))
    while domain.runtime.budget.free == whole:  # noqa: ASYNC110  # yields to the event loop
        await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert domain.runtime.budget.free == whole


async def test_a_failed_call_gives_its_pixels_back(domain: Domain) -> None:
    whole = domain.runtime.budget.free
    await domain.triton.close()
    items = [Item(encoded(photo(seed))) for seed in range(20)]
    with pytest.raises(Exception):  # noqa: B017, PT011  # a closed channel may raise any error
        await domain.embedder.embed(items, [COPY, SEMANTIC])
    assert domain.runtime.budget.free == whole


async def test_a_batch_larger_than_the_budget_is_embedded(domain: Domain) -> None:
    content = encoded(photo(1, (4000, 3000)))
    embedded = await domain.embedder.embed([Item(content)] * 12, [COPY])
    assert not [picture for picture in embedded.pictures if isinstance(picture, ServiceError)]
    assert domain.runtime.budget.free == 50_000_000


async def test_two_hundred_pictures_of_fifty_megapixels_are_admitted_by_budget(
    triton: TritonProcess,
) -> None:
    """Run the service in a separate process, to measure its memory, start and stop."""
    port = free_port()
    variables = {
        f"{PREFIX}PORT": str(port),
        f"{PREFIX}TRITON_TARGET": triton.ports.grpc_address,
        f"{PREFIX}WORKERS": "2",
        f"{PREFIX}PIXEL_BUDGET": "128000000",
        f"{PREFIX}CHECK_INTERVAL_S": "0.05",
    }
    process = subprocess.Popen(  # noqa: ASYNC220  # starts immediately
        [sys.executable, "-m", "imagesearch_services.embedding"],
        env=os.environ | variables,
        stderr=subprocess.DEVNULL,
    )
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            await asyncio.wait_for(channel.channel_ready(), 30)
            client = Client(channel)
            await client.until(SERVING)
            # The files are small and arrive faster than they can be decoded.
            message = request(encoded(Image.new("RGB", (10_000, 5_000), "teal"), "PNG"))
            errors = await asyncio.gather(*(refusal(client, message) for _ in range(200)))
            reasons = Counter(error and error.reason for error in errors)
            assert set(reasons) == {None, Reason.OVERLOADED}
            assert all(error.retry_after_s for error in errors if error)
            assert await refusal(client, request(encoded(photo(1)))) is None
            assert peak_memory_bytes(process.pid) < 2_000_000_000
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 20) == 0
    finally:
        process.kill()
        process.wait()


def peak_memory_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    kibibytes = next(line.split()[1] for line in lines if line.startswith("VmHWM"))
    return int(kibibytes) * 1024
