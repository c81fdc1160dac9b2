"""ExtractFeatures and VerifyFeatures through a running Embedding service."""

from __future__ import annotations

import grpc.aio
import numpy as np
import pytest
from PIL import Image

from imagesearch.embedding.v1 import embedding_service_pb2 as pb
from imagesearch.type.v1 import geometry_pb2, library_type_pb2, picture_pb2
from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.status import from_rpc_error, from_status
from imagesearch_services.embedding.elements.vocabulary import SPACE
from tests.integration.embedding.harness import Client
from tests.pictures import encoded, photo

DENSE = "dense@2"
ELEMENT = encoded(photo(3, (400, 300)))
PICTURE = encoded(photo(3, (800, 600)))
OTHER = encoded(photo(5, (400, 300)))


def item(content: bytes, *regions: geometry_pb2.Box) -> pb.EmbedImageItem:
    return pb.EmbedImageItem(image=picture_pb2.ImageContent(content=content), regions=regions)


async def extract(
    client: Client, *items: pb.EmbedImageItem, **options: object
) -> list[pb.ExtractFeaturesResult]:
    request = pb.ExtractFeaturesRequest(items=items, **options)
    return list((await client.embedding.ExtractFeatures(request, timeout=60)).results)


async def verify(client: Client, **fields: object) -> pb.VerifyFeaturesResponse:
    return await client.embedding.VerifyFeatures(pb.VerifyFeaturesRequest(**fields), timeout=60)


async def query_features(client: Client, picture: pb.EmbedImageItem) -> bytes:
    (query,) = await extract(client, picture, for_query=True)
    return query.features


def regional_vectors(result: pb.ExtractFeaturesResult) -> np.ndarray:
    return np.stack([np.frombuffer(vector.values, "<f4") for vector in result.vectors])


async def candidates(client: Client) -> list[pb.StoredFeatures]:
    stored = await extract(client, item(OTHER), item(ELEMENT))
    return [
        pb.StoredFeatures(id=name, features=result.features)
        for name, result in zip(("other", "right"), stored, strict=True)
    ]


async def refusal(client: Client, **fields: object) -> ServiceError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await verify(client, **fields)
    return from_rpc_error(caught.value, peer=Reason.EMBEDDING_UNAVAILABLE)


async def test_the_vocabulary_is_listed_for_element_libraries(client: Client) -> None:
    listed = await client.embedding.ListModels(pb.ListModelsRequest(), timeout=10)
    (words,) = [model for model in listed.models if model.space == SPACE]
    assert words.model.role == "words"
    assert words.dimensions == 0
    assert list(words.library_types) == [library_type_pb2.LIBRARY_TYPE_ELEMENT]


async def test_features_are_returned_with_words_and_the_described_box(client: Client) -> None:
    region = geometry_pb2.Box(x_min=-50, y_min=20, x_max=200, y_max=120)
    whole, part = await extract(
        client, item(ELEMENT), item(ELEMENT, region), thumbnail_max_side_px=64
    )
    assert whole.keypoint_count > 50
    assert whole.words.space == SPACE
    assert list(whole.words.indices) == sorted(set(whole.words.indices))
    assert len(whole.words.indices) == len(whole.words.values)
    assert whole.box == geometry_pb2.Box(x_max=400, y_max=300)
    assert part.box == geometry_pb2.Box(y_min=20, x_max=200, y_max=120)
    assert (whole.info.width, whole.info.height) == (400, 300)
    assert whole.thumbnail.startswith(b"\xff\xd8")


async def test_an_invalid_picture_does_not_affect_the_others(client: Client) -> None:
    bad, outside, good = await extract(
        client,
        item(b"no picture"),
        item(ELEMENT, geometry_pb2.Box(x_min=900, x_max=910)),
        item(ELEMENT),
    )
    reasons = [getattr(from_status(result.error), "reason", None) for result in (bad, outside)]
    assert reasons == [Reason.IMAGE_UNREADABLE, Reason.REGION_INVALID]
    assert good.keypoint_count


async def test_the_matching_element_is_found_with_its_corners(client: Client) -> None:
    features = await query_features(client, item(PICTURE))
    answer = await verify(client, query_features=features, candidates=await candidates(client))
    assert answer.elements[0].id == "right"
    corners = [(corner.x, corner.y) for corner in answer.elements[0].instances[0].corners.corners]
    np.testing.assert_allclose(corners, [(0, 0), (800, 0), (800, 600), (0, 600)], atol=4)


async def test_corners_are_in_picture_pixels_when_the_query_is_a_region(client: Client) -> None:
    region = geometry_pb2.Box(x_min=100, y_min=100, x_max=700, y_max=500)
    features = await query_features(client, item(PICTURE, region))
    answer = await verify(client, query_features=features, candidates=await candidates(client))
    first = answer.elements[0].instances[0].corners.corners[0]
    np.testing.assert_allclose((first.x, first.y), (0, 0), atol=6)


async def test_without_candidates_no_element_is_found(client: Client) -> None:
    features = await query_features(client, item(PICTURE))
    assert not (await verify(client, query_features=features)).elements


async def test_invalid_features_are_refused_with_their_field(client: Client) -> None:
    features = await query_features(client, item(PICTURE))
    good = await candidates(client)
    bad = [*good, pb.StoredFeatures(id="x", features=b"E1 but not really")]
    error = await refusal(client, query_features=features, candidates=bad)
    assert (error.reason, error.fields[0].field) == (Reason.FIELD_INVALID, "candidates[2].features")
    error = await refusal(client, query_features=b"Q1", candidates=good)
    assert (error.reason, error.fields[0].field) == (Reason.FIELD_INVALID, "query_features")
    error = await refusal(client, candidates=good)
    assert (error.reason, error.fields[0].field) == (Reason.FIELD_REQUIRED, "query_features")
    many = [pb.StoredFeatures(id="x")] * 1001
    error = await refusal(client, query_features=features, candidates=many)
    assert (error.reason, error.fields[0].field) == (Reason.FIELD_INVALID, "candidates")


async def test_with_a_dense_model_an_element_has_a_vector_and_a_query_has_one_for_each_window(
    client: Client,
) -> None:
    (plain,) = await extract(client, item(ELEMENT))
    assert not plain.vectors
    element, other = await extract(client, item(ELEMENT), item(OTHER), regional_space=DENSE)
    (query,) = await extract(client, item(PICTURE), for_query=True, regional_space=DENSE)
    assert [len(result.vectors) for result in (element, other, query)] == [1, 1, 126]
    windows = regional_vectors(query)
    np.testing.assert_allclose(np.linalg.norm(windows, axis=1), 1, atol=1e-3)
    similarity, other_similarity = (
        (windows @ regional_vectors(result)[0]).max() for result in (element, other)
    )
    assert similarity > other_similarity + 0.2


async def test_regional_similarity_adds_to_the_evidence(client: Client) -> None:
    (local,) = await extract(client, item(ELEMENT))
    (both,) = await extract(client, item(ELEMENT), regional_space=DENSE)
    (query,) = await extract(client, item(PICTURE), for_query=True, regional_space=DENSE)
    stored = [
        pb.StoredFeatures(id="local", features=local.features),
        pb.StoredFeatures(id="both", features=both.features),
    ]
    answer = await verify(client, query_features=query.features, candidates=stored)
    evidence = {element.id: element.evidence for element in answer.elements}
    assert evidence["both"] > evidence["local"] + 1


async def test_an_element_without_matching_features_is_located_at_the_nearest_window(
    client: Client,
) -> None:
    (element,) = await extract(client, item(OTHER), regional_space=DENSE)
    (query,) = await extract(client, item(PICTURE), for_query=True, regional_space=DENSE)
    stored = [pb.StoredFeatures(id="other", features=element.features)]
    answer = await verify(client, query_features=query.features, candidates=stored)
    (found,) = answer.elements
    assert found.evidence < 1
    (instance,) = found.instances
    assert instance.inlier_count == 0
    for corner in instance.corners.corners:
        assert 0 <= corner.x <= 800
        assert 0 <= corner.y <= 600


@pytest.mark.parametrize(
    ("space", "reason"),
    [("sscd@1", Reason.FIELD_INVALID), ("dense@99", Reason.MODEL_NOT_SERVED)],
)
async def test_a_space_without_windows_is_refused(
    client: Client, space: str, reason: Reason
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await extract(client, item(ELEMENT), regional_space=space)
    assert from_rpc_error(caught.value, peer=Reason.EMBEDDING_UNAVAILABLE).reason is reason


async def test_a_picture_of_fifty_megapixels_is_described(client: Client) -> None:
    large = encoded(photo(3, (800, 500)).resize((10_000, 5_000), Image.Resampling.NEAREST))
    (result,) = await extract(client, item(large), for_query=True)
    assert result.keypoint_count > 50
