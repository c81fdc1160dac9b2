"""Description of pictures that are added to an element library.

Embedding describes each picture by local features, visual words and the vector of a dense model.
"""

from __future__ import annotations

from collections.abc import Sequence

from imagesearch_services.common.errors import ServiceError
from imagesearch_services.gateway.model import (
    THUMBNAIL_SIDE_PX,
    DescribedPicture,
    Library,
    NewEntry,
    NewImage,
    PictureToEmbed,
)
from imagesearch_services.gateway.ports import Embedding
from imagesearch_services.gateway.roles import check_vocabulary, regional_space

FEW_KEYPOINTS = 12
"""Number of keypoints below which searches rarely find an element."""
NO_TEXTURE = "the element has no texture: it is stored, but no search can find it"
LITTLE_TEXTURE = "the element has little texture: searches will rarely find it"


async def describe(
    embedding: Embedding, library: Library, images: Sequence[NewImage | ServiceError]
) -> list[NewEntry | ServiceError]:
    """Return an entry for each picture, with an error in the place of each invalid picture."""
    pictures = [
        PictureToEmbed(image.content, image.region)
        for image in images
        if isinstance(image, NewImage)
    ]
    if not pictures:
        return [image for image in images if isinstance(image, ServiceError)]
    answer = await embedding.describe(
        pictures,
        for_query=False,
        regional_space=regional_space(library),
        thumbnail_max_side_px=0 if library.fields.thumbnails_disabled else THUMBNAIL_SIDE_PX,
    )
    for picture in answer.pictures:
        if isinstance(picture, DescribedPicture):
            check_vocabulary(library, picture)
    described = iter(answer.pictures)
    return [
        image if isinstance(image, ServiceError) else _entry(image, next(described))
        for image in images
    ]


def _entry(image: NewImage, described: DescribedPicture | ServiceError) -> NewEntry | ServiceError:
    if isinstance(described, ServiceError):
        return described
    return NewEntry(
        image_id=image.image_id,
        fields=image.fields,
        region=described.region,
        info=described.info,
        vectors=described.vectors,
        words=described.words if described.words.indices else None,
        features=described.features,
        thumbnail=described.thumbnail,
        warnings=_warnings(described.keypoint_count),
        allow_overwrite=image.allow_overwrite,
        request_id=image.request_id,
    )


def _warnings(keypoint_count: int) -> Sequence[str]:
    if not keypoint_count:
        return [NO_TEXTURE]
    return [LITTLE_TEXTURE] if keypoint_count < FEW_KEYPOINTS else []
