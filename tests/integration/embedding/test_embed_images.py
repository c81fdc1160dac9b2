"""EmbedImages and ListModels on a real Triton."""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import onnxruntime  # type: ignore[import-untyped]
import pytest
from PIL import Image

from imagesearch.embedding.v1 import embedding_service_pb2 as pb
from imagesearch.type.v1 import geometry_pb2, library_type_pb2, picture_pb2
from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.status import from_rpc_error, from_status
from tests.integration.embedding.harness import Client
from tests.pictures import encoded, photo, png_header

COPY, SEMANTIC = "sscd@1", "efficientnet_lite2@1"

Box = tuple[float, float, float, float]


def item(content: bytes, regions: Sequence[Box] = (), proposed: int = 0) -> pb.EmbedImageItem:
    return pb.EmbedImageItem(
        image=picture_pb2.ImageContent(content=content),
        regions=[
            geometry_pb2.Box(x_min=x_min, y_min=y_min, x_max=x_max, y_max=y_max)
            for x_min, y_min, x_max, y_max in regions
        ],
        max_proposed_regions=proposed,
    )


async def embed(
    client: Client,
    items: Sequence[pb.EmbedImageItem],
    spaces: Sequence[str] = (COPY,),
) -> pb.EmbedImagesResponse:
    request = pb.EmbedImagesRequest(items=items, spaces=spaces)
    response: pb.EmbedImagesResponse = await client.embedding.EmbedImages(request, timeout=60)
    return response


async def refusal(client: Client, request: pb.EmbedImagesRequest, **options: Any) -> ServiceError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.embedding.EmbedImages(request, **{"timeout": 30, **options})
    return from_rpc_error(caught.value, peer=Reason.EMBEDDING_UNAVAILABLE)


def vector(region: pb.EmbeddedRegion, space: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.frombuffer(region.vectors[space].values, "<f4")


def reason(result: pb.EmbedImageResult) -> Reason | None:
    if not result.HasField("error"):
        return None
    error = from_status(result.error)
    assert error is not None
    assert not result.HasField("info")
    assert not result.regions
    return error.reason


def in_process(models_dir: Path, model: str, inputs: list[Image.Image]) -> np.ndarray[Any, Any]:
    """Embed pictures of the model's input size with ONNX Runtime, at unit length."""
    session = onnxruntime.InferenceSession(models_dir / "repository" / model / "1/model.onnx")
    raw = session.run(
        ["embedding"], {"image": np.stack([np.asarray(pixels) for pixels in inputs])}
    )[0]
    return np.asarray(raw / np.linalg.norm(raw, axis=1, keepdims=True))


async def test_models_are_listed_as_configured(client: Client) -> None:
    response = await client.embedding.ListModels(pb.ListModelsRequest(), timeout=10)
    models = {model.space: model for model in response.models}
    copy, semantic = models[COPY], models[SEMANTIC]
    assert (copy.model.role, copy.model.name, copy.model.version) == ("copy", "sscd", "1")
    assert (copy.dimensions, semantic.dimensions) == (512, 1280)
    assert semantic.model.role == "semantic"
    assert library_type_pb2.LIBRARY_TYPE_WHOLE_IMAGE in copy.library_types
    assert [model.model.role for model in response.models] == sorted(
        model.model.role for model in response.models
    )


async def test_embeddings_equal_those_of_onnx_runtime(client: Client, models_dir: Path) -> None:
    files = [encoded(photo(seed, (640, 480))) for seed in range(20)]
    response = await embed(client, [item(file) for file in files])
    found = np.stack([vector(result.regions[0]) for result in response.results])
    decoded = [Image.open(io.BytesIO(file)).convert("RGB") for file in files]
    resized = [image.resize((288, 288), Image.Resampling.BILINEAR) for image in decoded]
    expected = in_process(models_dir, "sscd", resized)
    assert np.einsum("ij,ij->i", found, expected).min() > 0.9999
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-6)


async def test_a_picture_is_described(client: Client) -> None:
    content = encoded(photo(1, (640, 480)), "PNG")
    result = (await embed(client, [item(content)])).results[0]
    assert (result.info.width, result.info.height) == (640, 480)
    assert result.info.media_type == "image/png"
    assert result.info.size_bytes == len(content)
    assert result.info.sha256 == hashlib.sha256(content).hexdigest()
    assert result.info.sharpness > 0
    box = result.regions[0].box
    assert (box.x_min, box.y_min, box.x_max, box.y_max) == (0, 0, 640, 480)
    assert result.regions[0].source == ""


async def test_vectors_are_in_the_order_of_the_spaces(client: Client) -> None:
    content = encoded(photo(1))
    spaces = [SEMANTIC, COPY]
    both = (await embed(client, [item(content)], spaces)).results[0].regions[0]
    assert [vector.space for vector in both.vectors] == spaces
    assert [len(vector.values) for vector in both.vectors] == [4 * 1280, 4 * 512]
    lengths = [float(np.linalg.norm(vector(both, number))) for number in range(2)]
    assert lengths == pytest.approx([1, 1], abs=1e-6)
    alone = (await embed(client, [item(content)])).results[0].regions[0]
    assert np.array_equal(vector(both, 1), vector(alone))


async def test_a_region_has_the_embedding_of_the_picture_pasted_there(client: Client) -> None:
    pasted = photo(7, (300, 200))
    page = Image.new("RGB", (900, 700), "white")
    page.paste(pasted, (400, 300))
    page_file = encoded(page, "PNG")
    regions: list[Box] = [(400, 300, 700, 500), (0, 0, 900, 700), (-50, -50, 5000, 5000)]
    response = await embed(client, [item(page_file, regions), item(encoded(pasted, "PNG"))])
    region, whole, clipped = response.results[0].regions
    alone = response.results[1].regions[0]
    assert vector(region) @ vector(alone) > 0.999
    assert vector(whole) @ vector(alone) < 0.9
    assert np.array_equal(vector(whole), vector(clipped))
    assert (clipped.box.x_max, clipped.box.y_max) == (900, 700)


async def test_a_pasted_picture_is_proposed_as_a_region(client: Client) -> None:
    pasted = photo(8, (320, 240))
    page = Image.new("RGB", (1000, 800), (250, 250, 245))
    page.paste(pasted, (500, 400))
    file = encoded(page, "PNG")
    response = await embed(
        client, [item(file, proposed=16), item(file, [(450, 350, 1000, 800)], 16), item(file)]
    )
    alone = vector((await embed(client, [item(encoded(pasted, "PNG"))])).results[0].regions[0])
    for result in response.results[:2]:
        assert 1 <= len(result.regions) <= 16
        best = max(result.regions, key=lambda region: float(vector(region) @ alone))
        assert vector(best) @ alone > 0.9
        assert best.source
        corners = (best.box.x_min, best.box.y_min, best.box.x_max, best.box.y_max)
        assert corners == pytest.approx((500, 400, 820, 640), abs=12)
    inside = response.results[1].regions
    assert min(region.box.x_min for region in inside) >= 450
    assert vector(response.results[2].regions[0]) @ alone < 0.9


async def test_no_regions_are_proposed_in_a_flat_picture(client: Client) -> None:
    flat = encoded(Image.new("RGB", (400, 300), "white"), "PNG")
    result = (await embed(client, [item(flat, proposed=8)])).results[0]
    assert reason(result) is None
    assert list(result.regions) == []
    assert result.info.width == 400


async def test_an_invalid_picture_does_not_affect_the_others(client: Client) -> None:
    good = encoded(photo(1))
    invalid_items = {
        Reason.FIELD_REQUIRED: item(b""),
        Reason.IMAGE_UNREADABLE: item(b"no picture at all"),
        Reason.IMAGE_TRUNCATED: item(good[: len(good) // 2]),
        Reason.IMAGE_TOO_LARGE: item(png_header(100_000, 100_000)),
        Reason.IMAGE_TOO_SMALL: item(encoded(Image.new("RGB", (15, 100)), "PNG")),
        Reason.REGION_INVALID: item(good, [(0, 0, 50, 50), (320, 0, 400, 50)]),
    }
    items = [entry for invalid in invalid_items.values() for entry in (invalid, item(good))]
    response = await embed(client, items)
    assert [reason(result) for result in response.results[::2]] == list(invalid_items)
    expected = vector(response.results[1].regions[0])
    for result in response.results[1::2]:
        assert np.array_equal(vector(result.regions[0]), expected)
    region_error = from_status(response.results[10].error)
    assert region_error is not None
    assert region_error.metadata["field"] == "items[10].regions[1]"


@pytest.mark.parametrize(
    "region",
    [
        (10, 10, 10, 50),
        (50, 50, 10, 10),
        (float("nan"), 0, 50, 50),
        (0, 0, 0.5, 0.5),
        (-100, -100, 0, 0),
        (400, 0, float("inf"), 50),
    ],
)
async def test_a_region_without_pixels_is_invalid(client: Client, region: Box) -> None:
    response = await embed(client, [item(encoded(photo(1)), [region])])
    assert reason(response.results[0]) is Reason.REGION_INVALID


@pytest.mark.parametrize(
    ("request_message", "field", "expected"),
    [
        (pb.EmbedImagesRequest(spaces=[COPY]), "items", Reason.FIELD_REQUIRED),
        (pb.EmbedImagesRequest(items=[item(b"x")]), "spaces", Reason.FIELD_REQUIRED),
        (
            pb.EmbedImagesRequest(items=[item(b"x")] * 101, spaces=[COPY]),
            "items",
            Reason.FIELD_INVALID,
        ),
        (
            pb.EmbedImagesRequest(items=[item(b"x")], spaces=[COPY, COPY]),
            "spaces",
            Reason.FIELD_INVALID,
        ),
        (
            pb.EmbedImagesRequest(items=[item(b"x"), item(b"x", proposed=65)], spaces=[COPY]),
            "items[1].max_proposed_regions",
            Reason.FIELD_INVALID,
        ),
        (
            pb.EmbedImagesRequest(items=[item(b"x", proposed=-1)], spaces=[COPY]),
            "items[0].max_proposed_regions",
            Reason.FIELD_INVALID,
        ),
        (
            pb.EmbedImagesRequest(items=[item(b"x", [(0, 0, 9, 9)] * 101)], spaces=[COPY]),
            "items[0].regions",
            Reason.FIELD_INVALID,
        ),
    ],
)
async def test_an_invalid_request_is_refused_with_its_field(
    client: Client, request_message: pb.EmbedImagesRequest, field: str, expected: Reason
) -> None:
    error = await refusal(client, request_message)
    assert error.reason is expected
    assert [violation.field for violation in error.fields] == [field]


@pytest.mark.parametrize("space", ["sscd@2", "nothing@1", "sscd", ""])
async def test_the_error_names_a_space_that_is_not_served(client: Client, space: str) -> None:
    error = await refusal(
        client, pb.EmbedImagesRequest(items=[item(encoded(photo(1)))], spaces=[COPY, space])
    )
    assert error.reason is Reason.MODEL_NOT_SERVED
    model, _, version = space.partition("@")
    assert (error.metadata["model"], error.metadata["version"]) == (model, version)


async def test_each_step_is_timed(client: Client) -> None:
    response = await embed(client, [item(encoded(photo(1)), proposed=4)])
    steps = {timing.step: timing.duration_ms for timing in response.timings}
    assert list(steps) == ["decode", "propose_regions", "preprocess", "infer", "total"]
    assert all(duration_ms > 0 for duration_ms in steps.values())
    assert sum(steps.values()) <= 2 * steps["total"]


async def test_regions_have_the_same_embeddings_together_and_alone(client: Client) -> None:
    content = encoded(photo(3, (640, 480)))
    boxes: list[Box] = [(3 * n, 2 * n, 300 + 3 * n, 250 + 2 * n) for n in range(40)]
    together = (await embed(client, [item(content, boxes)])).results[0].regions
    apart = await embed(client, [item(content, [box]) for box in boxes])
    for region, result in zip(together, apart.results, strict=True):
        assert region.box == result.regions[0].box
        assert vector(region) @ vector(result.regions[0]) > 0.9999


async def test_a_deadline_of_a_millisecond_is_exceeded_and_all_pixels_are_given_back(
    client: Client,
) -> None:
    request = pb.EmbedImagesRequest(items=[item(encoded(photo(1)))] * 50, spaces=[COPY])
    for _ in range(20):
        error = await refusal(client, request, timeout=0.001)
        assert error.reason is Reason.DEADLINE_EXCEEDED
    assert len((await embed(client, [item(encoded(photo(1)))])).results) == 1


async def test_concurrent_calls_get_their_own_results(client: Client) -> None:
    files = [encoded(photo(seed)) for seed in range(24)]
    responses = await asyncio.gather(*(embed(client, [item(file)]) for file in files))
    batch = await embed(client, [item(file) for file in files])
    for response, result in zip(responses, batch.results, strict=True):
        assert vector(response.results[0].regions[0]) @ vector(result.regions[0]) > 0.9999
