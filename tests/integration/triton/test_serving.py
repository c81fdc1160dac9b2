"""Models on a real Triton: outputs, probes, batching, errors, metrics and restarts."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import numpy.typing as npt
import onnxruntime  # type: ignore[import-untyped]
import pytest
from tritonclient.grpc import (  # type: ignore[import-untyped]
    InferInput,
    InferRequestedOutput,
)
from tritonclient.grpc.aio import InferenceServerClient  # type: ignore[import-untyped]
from tritonclient.utils import InferenceServerException  # type: ignore[import-untyped]

from imagesearch_services.embedding.inference.probe import (
    agreement,
    decode_answer,
    probe_answer,
    probe_picture,
)
from imagesearch_services.runner.triton import TritonError, TritonPorts
from tests.triton_server import MODELS_DIR, TritonProcess, running_triton

if TYPE_CHECKING:
    from pathlib import Path

MODELS = {"sscd": (288, 512), "efficientnet_lite2": (260, 1280), "product": (384, 256)}
DEADLINE_S = 30.0
each_model = pytest.mark.parametrize("model", MODELS)


def pictures(model: str, count: int) -> npt.NDArray[np.uint8]:
    """Return variants of the probe picture: rotated, mirrored and shifted, all different."""
    size, _ = MODELS[model]
    probe = probe_picture(size, size)
    return np.stack([np.roll(np.rot90(probe, turn), turn * 7, axis=1) for turn in range(count)])


async def infer(
    client: InferenceServerClient, model: str, images: npt.NDArray[np.uint8], **options: Any
) -> npt.NDArray[np.float32]:
    image = InferInput("image", list(images.shape), "UINT8")
    image.set_data_from_numpy(images)
    answer = await client.infer(model, [image], **{"client_timeout": DEADLINE_S, **options})
    embedding: npt.NDArray[np.float32] = answer.as_numpy("embedding")
    return embedding


async def infer_once(address: str) -> npt.NDArray[np.float32]:
    async with InferenceServerClient(address) as client:
        return await infer(client, "sscd", pictures("sscd", 1))


def in_process(model: str, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    (weights,) = (MODELS_DIR / "repository" / model).glob("*/model.onnx")
    session = onnxruntime.InferenceSession(weights)
    outputs: list[npt.NDArray[np.float32]] = session.run(["embedding"], {"image": images})
    return outputs[0]


@each_model
async def test_outputs_equal_those_of_plain_onnx_runtime(triton: TritonProcess, model: str) -> None:
    images = pictures(model, 5)
    async with InferenceServerClient(triton.ports.grpc_address) as client:
        served = await infer(client, model, images)
    expected = in_process(model, images)
    assert served.shape == (5, MODELS[model][1])
    for ours, theirs in zip(served, expected, strict=True):
        assert agreement(ours, theirs) > 0.9999


@each_model
async def test_each_model_describes_itself_and_passes_the_probe(
    triton: TritonProcess, model: str
) -> None:
    async with InferenceServerClient(triton.ports.grpc_address) as client:
        config = (await client.get_model_config(model)).config
        settings = {key: value.string_value for key, value in config.parameters.items()}
        width, height = int(settings["input_width"]), int(settings["input_height"])
        answer = await infer(client, model, probe_picture(width, height)[None])
    assert settings["input_layout"] == "NHWC"
    assert list(config.input[0].dims) == [height, width, 3]
    assert settings["input_name"] == config.input[0].name
    assert settings["output_name"] == config.output[0].name
    assert int(settings["dimensions"]) == config.output[0].dims[0]
    assert agreement(answer[0], decode_answer(settings["probe"])) > float(
        settings["probe_min_cosine"]
    )


@each_model
async def test_the_probe_rejects_the_output_for_another_picture(
    triton: TritonProcess, model: str
) -> None:
    size, _ = MODELS[model]
    noise = np.arange(size * size * 3).reshape(1, size, size, 3).astype(np.uint8)
    async with InferenceServerClient(triton.ports.grpc_address) as client:
        parameters = (await client.get_model_config(model)).config.parameters
        answer = await infer(client, model, noise)
    known = decode_answer(parameters["probe"].string_value)
    assert agreement(answer[0], known) < float(parameters["probe_min_cosine"].string_value)


async def test_only_requested_outputs_are_returned(
    triton: TritonProcess,
) -> None:
    image = InferInput("image", [2, 384, 384, 3], "UINT8")
    image.set_data_from_numpy(pictures("product", 2))
    requested = [["attributes"], ["categories", "embedding"]]
    async with InferenceServerClient(triton.ports.grpc_address) as client:
        answers = await asyncio.gather(
            *(
                client.infer(
                    "product",
                    [image],
                    outputs=[InferRequestedOutput(name) for name in names],
                    client_timeout=DEADLINE_S,
                )
                for names in requested
            )
        )
    returned = [{output.name for output in answer.get_response().outputs} for answer in answers]
    assert returned == [set(names) for names in requested]
    assert answers[0].as_numpy("attributes")[:, :10].sum(axis=1) == pytest.approx([1, 1], abs=1e-3)
    assert answers[1].as_numpy("categories").shape == (2, 14)


async def test_the_parser_classifies_every_cell_and_passes_the_probe(
    triton: TritonProcess,
) -> None:
    image = InferInput("image", [1, 512, 352, 3], "UINT8")
    image.set_data_from_numpy(probe_picture(352, 512)[None])
    async with InferenceServerClient(triton.ports.grpc_address) as client:
        settings = (await client.get_model_config("subject_parser")).config.parameters
        answer = await client.infer("subject_parser", [image], client_timeout=DEADLINE_S)
    maps = answer.as_numpy("maps")
    assert maps.shape == (1, 10, 64, 44)
    assert maps[:, :9].sum(axis=1) == pytest.approx(1, abs=1e-3)
    known = decode_answer(settings["probe"].string_value)
    assert agreement(probe_answer(maps[0]), known) > float(
        settings["probe_min_cosine"].string_value
    )


async def test_queued_requests_run_as_one_batch_and_each_gets_its_own_output(
    triton: TritonProcess,
) -> None:
    images = pictures("sscd", 16)
    async with InferenceServerClient(triton.ports.grpc_address) as client:
        answers = await asyncio.gather(*(infer(client, "sscd", image[None]) for image in images))
        statistics = await client.get_inference_statistics("sscd")
    expected = in_process("sscd", images)
    for answer, theirs in zip(answers, expected, strict=True):
        assert agreement(answer[0], theirs) > 0.9999
    sizes = {batch.batch_size for batch in statistics.model_stats[0].batch_stats}
    assert max(sizes) > 5  # no single request above has more pictures


@pytest.mark.parametrize(
    "shape", [(1, 260, 260, 3), (1, 288, 288, 1), (1, 3, 288, 288), (9, 288, 288, 3)]
)
async def test_an_input_of_a_wrong_shape_is_an_error(
    triton: TritonProcess, shape: tuple[int, ...]
) -> None:
    async with InferenceServerClient(triton.ports.grpc_address) as client:
        with pytest.raises(InferenceServerException) as raised:
            await infer(client, "sscd", np.zeros(shape, np.uint8))
        assert raised.value.status() == "StatusCode.INVALID_ARGUMENT"
        answer = await infer(client, "sscd", pictures("sscd", 1))
    assert np.isfinite(answer).all()


async def test_a_request_that_times_out_in_the_queue_fails_alone(
    triton: TritonProcess,
) -> None:
    async with InferenceServerClient(triton.ports.grpc_address) as client:
        # Sent in this order over one connection: the last request waits behind three full batches.
        *answers, late = await asyncio.gather(
            *(infer(client, "sscd", pictures("sscd", 8)) for _ in range(3)),
            infer(client, "sscd", pictures("sscd", 8), client_timeout=0.1),
            return_exceptions=True,
        )
        for answer in answers:
            assert isinstance(answer, np.ndarray)
            assert answer.shape == (8, 512)
        assert isinstance(late, InferenceServerException)
        assert late.status() == "StatusCode.DEADLINE_EXCEEDED"
        assert (await infer(client, "sscd", pictures("sscd", 1))).shape == (1, 512)


async def test_metrics_count_the_pictures(triton: TritonProcess) -> None:
    async with InferenceServerClient(triton.ports.grpc_address) as client:
        await infer(client, "sscd", pictures("sscd", 1))
    async with httpx.AsyncClient() as http:
        page = (await http.get(f"http://{triton.ports.metrics_address}/metrics")).text
    assert 'nv_inference_count{model="sscd",version="1"}' in page


def test_a_killed_triton_restarts_on_the_same_ports() -> None:
    with running_triton() as triton:
        address = triton.ports.grpc_address
        os.kill(triton.pid, signal.SIGKILL)
        os.waitid(os.P_PID, triton.pid, os.WEXITED | os.WNOWAIT)
        assert not triton.is_alive
        triton.start()
        triton.wait_ready()
        assert triton.ports.grpc_address == address
        assert asyncio.run(infer_once(address)).shape == (1, 512)


def test_a_model_that_does_not_load_is_named_when_triton_ends(tmp_path: Path) -> None:
    with running_triton():  # the prepared models are complete
        pass
    for folder in ("triton", "backend-env"):
        (tmp_path / folder).symlink_to(MODELS_DIR / folder)
    version = tmp_path / "repository/broken/1"
    version.mkdir(parents=True)
    source = MODELS_DIR / "repository/sscd"
    (version / "model.py").symlink_to(source / "1/model.py")
    (version / "model.onnx").write_bytes(b"no model")
    configuration = (source / "configs/python.pbtxt").read_text()
    (version.parent / "config.pbtxt").write_text(configuration.replace('"sscd"', '"broken"', 1))
    triton = TritonProcess(tmp_path, TritonPorts.free(), tmp_path / "triton.log")
    with triton, pytest.raises(TritonError, match="failed to load 'broken'"):
        triton.wait_ready()
