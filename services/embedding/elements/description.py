"""Describes a region of a picture: local features, shapes, and bags of visual words."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from imagesearch_services.common.types import Box
from imagesearch_services.embedding.elements.bags import (
    Bag,
    concatenated,
    element_bag,
    element_shape_bag,
    query_bag,
    query_shape_bag,
)
from imagesearch_services.embedding.elements.features import (
    Keypoints,
    QueryFeatures,
    StoredElement,
)
from imagesearch_services.embedding.elements.masks import two_color_segment
from imagesearch_services.embedding.elements.segments import find_segments
from imagesearch_services.embedding.elements.shapes import Shape, shape_of
from imagesearch_services.embedding.elements.vocabulary import Vocabulary
from imagesearch_services.embedding.features.local_features import (
    ExtractionLimits,
    Grey,
    LocalFeatures,
    extract,
)
from imagesearch_services.embedding.pictures.picture import Picture

Pixels = npt.NDArray[np.uint8]

STORED_SIDE_PX = 400
"""Long side at which stored elements are described, in pixels."""
STORED_LIMITS = ExtractionLimits(max_features=250, border_px=24)
"""Limits of the features of a stored element."""
QUERY_SIDE_PX = 800
"""Long side at which queries are described, in pixels."""
QUERY_LIMITS = ExtractionLimits(max_features=3000, border_px=0)
"""Limits of the features of a query."""

MAX_ENLARGEMENT = 4.0
"""Maximum scale factor of a small region; a higher factor reveals no more detail."""


@dataclass(frozen=True, slots=True)
class WorkingImage:
    """A region of a picture, resized for description."""

    region: Box
    """The region, in pixels of the picture as shown."""
    grey: Grey
    """Grey levels, uint8 [height, width]."""
    rgb: Pixels | None = None
    """Colors, uint8 [height, width, 3]; None: shapes are not searched for."""


def working_image(picture: Picture, region: Box, side_px: int) -> WorkingImage:
    """Crop a region and resize it to a long side of `side_px`, within `MAX_ENLARGEMENT`."""
    inner = region.scaled(picture.x_scale, picture.y_scale)
    left, top = int(inner.x_min), int(inner.y_min)
    right = min(picture.image.width, max(left + 1, round(inner.x_max)))
    bottom = min(picture.image.height, max(top + 1, round(inner.y_max)))
    crop = picture.image.crop((left, top, right, bottom))
    factor = min(side_px / max(crop.size), MAX_ENLARGEMENT)
    size = max(1, round(crop.width * factor)), max(1, round(crop.height * factor))
    interpolation = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    grey, rgb = (
        np.asarray(
            cv2.resize(np.asarray(crop.convert(mode)), size, interpolation=interpolation), np.uint8
        )
        for mode in ("L", "RGB")
    )
    return WorkingImage(region, grey, rgb)


def describe_element(image: WorkingImage, vocabulary: Vocabulary) -> tuple[StoredElement, Bag]:
    """Describe an element for storage.

    Returns:
        Its features, and the words of its features and shape; both are empty for a uniform color.
    """
    local = extract(image.grey, STORED_LIMITS)
    projected = vocabulary.project(local.descriptors)
    height, width = image.grey.shape
    segment = None if image.rgb is None else two_color_segment(image.rgb)
    shape = None if segment is None else vocabulary.shapes.stored_shape(segment)
    element = StoredElement(width, height, _keypoints(local), vocabulary.encode(projected), shape)
    bag = concatenated(element_bag(projected, vocabulary), element_shape_bag(shape, vocabulary))
    return element, bag


def describe_query(image: WorkingImage, vocabulary: Vocabulary) -> tuple[QueryFeatures, Bag, Bag]:
    """Describe a query.

    Returns:
        Its features, its local words, and the words of its shapes.
    """
    query, bag = describe_local_features(image, vocabulary)
    shapes = query_shapes(image)
    return replace(query, shapes=shapes), bag, query_shape_bag(shapes, vocabulary)


def describe_local_features(
    image: WorkingImage, vocabulary: Vocabulary
) -> tuple[QueryFeatures, Bag]:
    """Describe a query by its local features alone; returns its features and its local words."""
    local = extract(image.grey, QUERY_LIMITS)
    projected = vocabulary.project(local.descriptors)
    height, width = image.grey.shape
    query = QueryFeatures(
        image.region,
        width,
        height,
        _keypoints(local),
        projected,
        vocabulary.noise(projected),
    )
    return query, query_bag(projected, vocabulary)


def query_shapes(image: WorkingImage) -> list[Shape]:
    """Find the uniformly colored shapes in a query, best first."""
    segments = [] if image.rgb is None else find_segments(image.rgb)
    return [shape for segment in segments if (shape := shape_of(segment)) is not None]


def _keypoints(local: LocalFeatures) -> Keypoints:
    return Keypoints(local.points, local.sizes, local.angles)
