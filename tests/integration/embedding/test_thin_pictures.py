"""Every RPC works with pictures that are a thousand times as long as they are wide."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from imagesearch.embedding.v1 import embedding_service_pb2 as pb
from imagesearch.type.v1 import picture_pb2
from tests.integration.embedding.harness import Client
from tests.pictures import encoded, photo

SPACES = ["sscd@1", "efficientnet_lite2@1"]
PRODUCT, DENSE = "product@2", "dense@2"
SIZES = [(16, 6000), (6000, 16), (30, 16_000), (65_000, 16)]


def thin(size: tuple[int, int]) -> bytes:
    """Return a textured picture."""
    pixels = np.random.default_rng(0).integers(0, 255, (size[1] // 2, size[0] // 2, 3), np.uint8)
    return encoded(Image.fromarray(np.kron(pixels, np.ones((2, 2, 1), np.uint8))), quality=90)


def image(content: bytes) -> picture_pb2.ImageContent:
    return picture_pb2.ImageContent(content=content)


@pytest.mark.parametrize("size", SIZES, ids=str)
async def test_every_call_works_with_a_thin_picture(client: Client, size: tuple[int, int]) -> None:
    rpc, content = client.embedding, image(thin(size))
    whole = pb.EmbedImageItem(image=content)
    proposed = pb.EmbedImageItem(image=content, max_proposed_regions=24)
    subject = pb.EmbedImageItem(image=content, subject_detection=True)
    for items, spaces in (([whole, proposed], SPACES), ([subject], [PRODUCT])):
        embedded = await rpc.EmbedImages(
            pb.EmbedImagesRequest(items=items, spaces=spaces, thumbnail_max_side_px=320)
        )
        assert embedded.results[0].regions
        assert all(result.thumbnail for result in embedded.results)
    await rpc.DetectSubjects(pb.DetectSubjectsRequest(image=content))
    features = []
    for for_query in (False, True):
        extracted = await rpc.ExtractFeatures(
            pb.ExtractFeaturesRequest(
                items=[whole],
                for_query=for_query,
                thumbnail_max_side_px=0 if for_query else 320,
                regional_space=DENSE,
            )
        )
        (result,) = extracted.results
        assert result.features
        features.append(result.features)
    await rpc.VerifyFeatures(
        pb.VerifyFeaturesRequest(
            query_features=features[1],
            candidates=[pb.StoredFeatures(id="thin", features=features[0])],
        )
    )
    other = image(encoded(photo(1)))
    for first, second in ((content, content), (content, other), (other, content)):
        compared = await rpc.ComparePictures(
            pb.ComparePicturesRequest(image_a=first, image_b=second, include_overlay=True)
        )
        assert compared.measures
    small = image(embedded.results[0].thumbnail)
    await rpc.CheckCopies(
        pb.CheckCopiesRequest(
            images=[small, small, other, image(thin((16, 1000))), image(thin((1000, 16)))],
            pairs=[
                pb.PicturePair(first=first, second=second)
                for first, second in ((0, 1), (0, 2), (2, 3), (3, 4), (4, 2))
            ],
        )
    )
    drawn = await rpc.DrawAnnotations(
        pb.DrawAnnotationsRequest(
            image=content,
            beside=[pb.CaptionedPicture(content=picture.content) for picture in (small, other)],
        )
    )
    assert drawn.content
