"""Detection, description and embedding of subjects on a real Triton."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest

from imagesearch.embedding.v1 import embedding_service_pb2 as pb
from imagesearch.type.v1 import category_pb2, geometry_pb2, picture_pb2
from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.status import from_rpc_error, from_status
from tests.goods import BLUE, BOX, RED, SIZE, blank_picture, carton, shirt
from tests.integration.embedding.harness import Client
from tests.pictures import encoded

SPACE, COPY = "product@2", "sscd@1"
SHARED = Path(__file__).parents[4] / "shared" / "data"
GOODS = encoded(carton(RED, "cola"), "PNG")
MARGIN = 0.05
JOINED_WEIGHT = 0.3
JOINED_DIMENSIONS = 512
KINDS = slice(246, 256)
"""Components of the embedding for the kinds of garment, in the order of the attribute's values."""
T_SHIRT = 9
"""Index of the kind t-shirt."""


def item(content: bytes = GOODS, **fields: Any) -> pb.EmbedImageItem:
    return pb.EmbedImageItem(image=picture_pb2.ImageContent(content=content), **fields)


async def embed(
    client: Client, *items: pb.EmbedImageItem, space: str = SPACE
) -> pb.EmbedImagesResponse:
    response: pb.EmbedImagesResponse = await client.embedding.EmbedImages(
        pb.EmbedImagesRequest(items=items, spaces=[space])
    )
    return response


def values(region: pb.EmbeddedRegion) -> Any:
    return np.frombuffer(region.vectors[0].values, "<f4")


async def refusal(call: Any) -> ServiceError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    error = from_rpc_error(caught.value, peer=Reason.EMBEDDING_UNAVAILABLE)
    assert error is not None
    return error


async def test_the_product_space_has_the_dimensions_of_both_models(client: Client) -> None:
    response = await client.embedding.ListModels(pb.ListModelsRequest())
    served = {model.model.role: model for model in response.models}
    assert served["product"].space == SPACE
    assert served["product"].dimensions == 256 + JOINED_DIMENSIONS
    assert served["subjects"].space == ""
    assert served["subjects"].dimensions == 0


async def test_a_detected_subject_has_the_embedding_of_its_box(client: Client) -> None:
    response = await embed(client, item(subject_detection=True))
    (result,) = response.results
    (region,) = result.regions
    assert result.chosen_subject == 0
    assert result.subjects[0] == region.subject
    assert region.box == region.subject.box
    assert [model.role for model in response.detection_models] == ["subjects"]
    requested = await embed(client, item(regions=[region.box]))
    assert values(region) @ values(requested.results[0].regions[0]) > 0.999
    assert np.linalg.norm(values(region)) == pytest.approx(1, abs=1e-3)


async def test_the_joined_part_is_the_copy_descriptor_of_the_crop_with_margin(
    client: Client,
) -> None:
    box = geometry_pb2.Box(x_min=BOX[0], y_min=BOX[1], x_max=BOX[2], y_max=BOX[3])
    width, height = BOX[2] - BOX[0], BOX[3] - BOX[1]
    crop = geometry_pb2.Box(
        x_min=BOX[0] - MARGIN * width,
        y_min=BOX[1] - MARGIN * height,
        x_max=BOX[2] + MARGIN * width,
        y_max=BOX[3] + MARGIN * height,
    )
    joined = values((await embed(client, item(regions=[box]))).results[0].regions[0])
    copy = await embed(client, item(regions=[crop]), space=COPY)
    tail = joined[-JOINED_DIMENSIONS:]
    assert np.linalg.norm(tail) == pytest.approx(
        np.sqrt(JOINED_WEIGHT / (1 + JOINED_WEIGHT)), abs=1e-3
    )
    assert tail / np.linalg.norm(tail) @ values(copy.results[0].regions[0]) > 0.99


async def test_only_embeddings_of_clothing_contain_kinds_of_garment(client: Client) -> None:
    response = await embed(client, item(subject_detection=True), item(encoded(shirt(BLUE), "PNG")))
    of_goods, of_shirt = (values(result.regions[0])[KINDS] for result in response.results)
    np.testing.assert_array_equal(of_goods, 0)
    assert of_shirt.argmax() == T_SHIRT
    # The kinds of garment are a substantial part, next to the projection and the copy descriptor.
    assert np.linalg.norm(of_shirt) > 1 / 3


async def test_a_picture_without_a_subject_is_embedded_whole(
    client: Client,
) -> None:
    blank = encoded(blank_picture())
    (result,) = (await embed(client, item(blank, subject_detection=True))).results
    assert not result.subjects
    assert not result.HasField("chosen_subject")
    assert result.regions[0].box == geometry_pb2.Box(x_max=SIZE[0], y_max=SIZE[1])
    assert result.regions[0].subject.category
    detected = await client.embedding.DetectSubjects(
        pb.DetectSubjectsRequest(image=picture_pb2.ImageContent(content=blank))
    )
    assert not detected.subjects


async def test_a_call_may_mix_pictures_with_and_without_subject_detection(client: Client) -> None:
    response = await embed(client, item(subject_detection=True), item(), item(b"no picture"))
    found, whole, bad = response.results
    assert found.HasField("chosen_subject")
    assert not whole.HasField("chosen_subject")
    assert whole.regions[0].box.x_max == SIZE[0]
    error = from_status(bad.error)
    assert error is not None
    assert error.reason is Reason.IMAGE_UNREADABLE


async def test_invalid_regions_and_categories_are_refused_with_their_field(
    client: Client,
) -> None:
    image = picture_pb2.ImageContent(content=GOODS)
    outside = geometry_pb2.Box(x_min=5000, y_min=0, x_max=5010, y_max=10)
    error = await refusal(
        client.embedding.DetectSubjects(pb.DetectSubjectsRequest(image=image, region=outside))
    )
    assert error.reason is Reason.REGION_INVALID
    error = await refusal(
        client.embedding.DetectSubjects(pb.DetectSubjectsRequest(image=image, category=99))  # type: ignore[arg-type]
    )
    assert (error.reason, error.fields[0].field) == (Reason.FIELD_INVALID, "category")
    error = await refusal(client.embedding.DetectSubjects(pb.DetectSubjectsRequest()))
    assert error.fields[0].field == "image.content"
    error = await refusal(embed(client, item(subject_detection=True, max_proposed_regions=3)))
    assert error.fields[0].field == "items[0].subject_detection"


@pytest.mark.skipif(not SHARED.exists(), reason=f"{SHARED} holds the street photos")
async def test_an_outfit_has_several_subjects_and_a_category_selects_one(client: Client) -> None:
    content = (SHARED / "street/photos/0119.jpg").read_bytes()
    image = picture_pb2.ImageContent(content=content)
    detected = await client.embedding.DetectSubjects(pb.DetectSubjectsRequest(image=image))
    categories = [subject.category for subject in detected.subjects]
    assert len(categories) > 1
    assert category_pb2.CATEGORY_SHOES in categories
    picked = await embed(
        client, item(content, subject_detection=True, category=category_pb2.CATEGORY_SHOES)
    )
    (result,) = picked.results
    assert result.subjects[result.chosen_subject].category == category_pb2.CATEGORY_SHOES
    assert [subject.box for subject in result.subjects] == [
        subject.box for subject in detected.subjects
    ]
