"""Crops and resizes regions of a decoded picture to the input of a model."""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from imagesearch_services.common.types import Box
from imagesearch_services.embedding.pictures.picture import Picture

LETTERBOX_COLOR = (124, 116, 104)
"""Color around a letterboxed region: the mean color of ImageNet, which is neutral to the models."""


class Resize(enum.StrEnum):
    """How a region is resized to the model's input."""

    SQUASH = enum.auto()
    """Width and height are scaled to the input independently; the aspect ratio is not kept."""
    LETTERBOX = enum.auto()
    """The aspect ratio is kept; the rest of the input is filled with `LETTERBOX_COLOR`."""


@dataclass(frozen=True, slots=True)
class InputSpec:
    """The input of a model: uint8 RGB pixels, [height, width, 3]."""

    width: int
    height: int
    resize: Resize

    @property
    def pixels(self) -> int:
        return self.width * self.height


def preprocess(picture: Picture, boxes: Sequence[Box], spec: InputSpec) -> npt.NDArray[np.uint8]:
    """Crop and resize regions for a model, antialiased.

    Args:
        picture: decoded picture.
        boxes: regions inside the picture, in pixels of the picture as shown; may be fractional.
        spec: input of the model.

    Returns:
        uint8 RGB, [boxes, height, width, 3].
    """
    inputs = np.empty((len(boxes), spec.height, spec.width, 3), np.uint8)
    for box, target in zip(boxes, inputs, strict=True):
        target[:] = np.asarray(_resized(picture, box, spec))
    return inputs


def _resized(picture: Picture, box: Box, spec: InputSpec) -> Image.Image:
    inner = box.scaled(picture.x_scale, picture.y_scale)
    if spec.resize is Resize.SQUASH:
        return _resize(picture.image, (spec.width, spec.height), inner)
    left, top, width, height = letterboxed(box, spec)
    framed = Image.new("RGB", (spec.width, spec.height), LETTERBOX_COLOR)
    framed.paste(_resize(picture.image, (width, height), inner), (left, top))
    return framed


def letterboxed(box: Box, spec: InputSpec) -> tuple[int, int, int, int]:
    """Return the position of a letterboxed region in the input: left, top, width, height."""
    factor = min(spec.width / box.width, spec.height / box.height)
    width = min(spec.width, max(1, round(box.width * factor)))
    height = min(spec.height, max(1, round(box.height * factor)))
    return (spec.width - width) // 2, (spec.height - height) // 2, width, height


def _resize(image: Image.Image, size: tuple[int, int], box: Box) -> Image.Image:
    left, top = math.floor(box.x_min), math.floor(box.y_min)
    right = min(image.width, math.ceil(box.x_max))
    bottom = min(image.height, math.ceil(box.y_max))
    if (left, top, right, bottom) != (0, 0, *image.size):
        # Crop, because Pillow's filter would read pixels outside the box at its edges.
        image = image.crop((left, top, right, bottom))
    inner = box.moved(-left, -top)
    edges = (
        inner.x_min,
        inner.y_min,
        min(inner.x_max, image.width),
        min(inner.y_max, image.height),
    )
    # The filter widens with the reduction, which prevents aliasing. Averaging whole blocks first
    # (reducing_gap) affects only reductions to a sixth or less, and is faster there.
    return image.resize(size, Image.Resampling.BILINEAR, edges, reducing_gap=3.0)


def harmless_reduction(
    width: int, height: int, boxes: Sequence[Box], specs: Sequence[InputSpec]
) -> float:
    """Return the factor by which a picture's sides may be divided without harming its embeddings.

    Each region keeps at least twice the model's sides, so that the following resize still averages.
    The cosine of SSCD embeddings then changes by .003, as much as with noise of one grey level in a
    tenth of the pixels, and the similarity to edited copies by .0005 on average.

    Args:
        width: width of the picture, in pixels.
        height: height of the picture, in pixels.
        boxes: regions to embed.
        specs: inputs of the models.
    """
    needed_px = 2 * max(max(spec.width, spec.height) for spec in specs)
    shorter_px = min([width, height, *(min(box.width, box.height) for box in boxes)])
    return max(1.0, shorter_px / needed_px)
