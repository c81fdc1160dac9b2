"""The committed models of product search, run as the service runs them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import onnxruntime
from PIL import Image

from imagesearch_services.common.types import Box, Category
from imagesearch_services.embedding.pictures.picture import Picture as Shown
from imagesearch_services.embedding.pictures.preprocess import InputSpec, Resize
from imagesearch_services.embedding.subjects.clothing import (
    MIN_SCORES,
    MIN_SCORES_WITH_PERSON,
    Garment,
    find_garments,
)
from imagesearch_services.embedding.subjects.finding import (
    FoundSubject,
    crop_box,
    find_subjects,
    second_pass_boxes,
    without_letterbox,
)
from imagesearch_services.embedding.subjects.second_pass import Shares, body_halves, merge_maps
from imagesearch_services.models.common.pictures import Picture
from imagesearch_services.models.common.prepared import committed_weights
from imagesearch_services.models.product.garment_kinds import CATEGORY_OF_KIND, KINDS
from imagesearch_services.models.product.parser_classes import (
    CLASSES,
    HEIGHT_PX,
    STRIDE,
    WIDTH_PX,
)
from imagesearch_services.models.product.pictures import crop, letterbox

PARSER, PRODUCT = committed_weights("subject_parser", 2), committed_weights("product", 2)
SPEC = InputSpec(WIDTH_PX, HEIGHT_PX, Resize.LETTERBOX)
PRODUCT_SIDE_PX = 384
CLOTHING_KIND_MIN_SCORE = 0.5
"""Minimum probability of a kind that determines the category of a single garment."""
MAX_PIXELS = 1 << 20
"""Maximum number of pixels in a crop of the second pass; no picture of the data set exceeds it."""

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Models:
    """ONNX Runtime sessions of the parser and of the product model."""

    parser: onnxruntime.InferenceSession
    product: onnxruntime.InferenceSession

    def parse(self, picture: Picture) -> tuple[Array, Array, float]:
        """Run the parser on a picture, and a second time on the halves of a body if it shows one.

        Returns:
            Maps of the first pass, [10, height, width]; merged maps of both passes; log odds of a
            dress.
        """
        first, dress = self._maps(picture)
        halves = body_halves(first)
        parts = [self._maps(cut(picture, half))[0] for half in halves]
        return first, merge_maps(first, list(zip(halves, parts, strict=True))), dress

    def find(self, picture: Picture) -> list[Garment]:
        """Find clothing in the merged maps, without other subjects."""
        first, maps, dress = self.parse(picture)
        return find_as_served(first, maps[: len(CLASSES)], dress)

    def serve(self, picture: Picture) -> list[FoundSubject]:
        """Find subjects as the service does."""
        shown = Shown(Image.fromarray(picture), picture.shape[1], picture.shape[0])
        whole = Box(0, 0, shown.width, shown.height)
        maps, dress = self._run_parser(picture)
        boxes = second_pass_boxes(whole, maps, SPEC, STRIDE)
        parts = [(box, self._run_parser(crop_box(shown, box, MAX_PIXELS))[0]) for box in boxes]
        return find_subjects(
            shown, whole, maps, SPEC, STRIDE, second_pass=parts, dress_log_odds=dress
        )

    def _maps(self, picture: Picture) -> tuple[Array, float]:
        found, dress = self._run_parser(picture)
        box = Box(0, 0, picture.shape[1], picture.shape[0])
        return without_letterbox(found, box, SPEC, STRIDE), dress

    def _run_parser(self, picture: Picture) -> tuple[Array, float]:
        image = letterbox(picture, WIDTH_PX, HEIGHT_PX)
        found, dress = self.parser.run(["maps", "dress"], {"image": image[None]})
        return found[0], float(dress[0, 0])

    def kinds(self, picture: Picture) -> Array:
        """Return the probabilities of KINDS for a crop."""
        image = letterbox(picture, PRODUCT_SIDE_PX, PRODUCT_SIDE_PX)
        found = self.product.run(["attributes"], {"image": image[None]})[0][0]
        return np.asarray(found[: len(KINDS)])

    def named_by_kind(self, picture: Picture, found: list[Garment]) -> list[Garment]:
        """Replace the category of a single garment by that of its kind."""
        if len(found) != 1:
            return found
        kinds = self.kinds(crop(picture, in_pixels(found[0], picture)))
        if kinds.max() < CLOTHING_KIND_MIN_SCORE:
            return found
        return [replace(found[0], category=Category[CATEGORY_OF_KIND[KINDS[int(kinds.argmax())]]])]


def find_as_served(first: Array, maps: Array, dress: float) -> list[Garment]:
    """Find clothing as the service does, with other thresholds if there is a person."""
    if body_halves(first):
        return find_garments(maps, MIN_SCORES_WITH_PERSON, dress_log_odds=dress)
    return find_garments(maps, MIN_SCORES)


def cut(picture: Picture, part: Shares) -> Picture:
    """Crop a part that is given as shares of the sides."""
    height, width = picture.shape[:2]
    return picture[
        math.floor(part[1] * height) : math.ceil(part[3] * height),
        math.floor(part[0] * width) : math.ceil(part[2] * width),
    ]


def in_pixels(subject: Garment, picture: Picture) -> tuple[int, int, int, int]:
    """Return the box of a subject in pixels of the picture."""
    height, width = picture.shape[:2]
    x_min, y_min, x_max, y_max = subject.box
    return round(x_min * width), round(y_min * height), round(x_max * width), round(y_max * height)
