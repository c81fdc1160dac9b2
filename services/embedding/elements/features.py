"""What is kept of an element and what is looked for in a query, and how both lie in bytes.

Stored elements are small: keypoints in whole steps and 16 bytes of code each. A query lives for one
search: its descriptors stay as they are, with the distance from which on a likeness means nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from imagesearch_services.common.errors import field_error
from imagesearch_services.common.types import Box
from imagesearch_services.embedding.elements.segments import (
    MAX_SEGMENTS,
    flat_picture_mask,
    segments,
)
from imagesearch_services.embedding.elements.shapes import (
    SHAPE_BYTES,
    WORD_WEIGHT,
    WORDS_TRIED,
    Shape,
    shape_of,
)
from imagesearch_services.embedding.elements.vocabulary import Vocabulary
from imagesearch_services.embedding.local_features import (
    ExtractionLimits,
    Grey,
    LocalFeatures,
    extract,
)
from imagesearch_services.embedding.pictures import Picture

Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]

STORED_SIDE_PX = 400
"""Long side that an element is brought to."""
STORED_LIMITS = ExtractionLimits(max_features=250, border_px=24)
QUERY_SIDE_PX = 800
QUERY_LIMITS = ExtractionLimits(max_features=3000, border_px=0)

MAX_ENLARGEMENT = 4.0
"""Small elements are enlarged so far at most: there is nothing more in them."""

FEW_KEYPOINTS = 150
"""Elements with more are looked for as they are; those with fewer also as negatives."""
LEAST_COMMONNESS = 0.03
"""Of a word in a photo: none is rarer than what could be learnt."""
LEAST_EXPECTED = 1.0
"""Of an element's weight in a usual photo: those with few words would match by chance."""

STORED_MAGIC, QUERY_MAGIC = b"E1", b"Q1"
STORED_HEADER = struct.Struct("<2sHHH")
QUERY_HEADER = struct.Struct("<2sHHHffff")
MAX_KEYPOINTS = 4000
"""No picture is described by more."""
FAR_PX = 65_536
"""Nothing of a picture lies so far away, nor is so large."""
POINT_STEPS = 64
"""Of a stored keypoint's place, for each pixel."""
SIZE_STEPS = 16
"""Of a stored keypoint's size, for each doubling."""
ANGLE_STEPS = 256 / (2 * np.pi)


@dataclass(frozen=True, slots=True)
class Bag:
    """A bag of visual words."""

    words: npt.NDArray[np.int64]
    """Ascending without repeats."""
    weights: Floats


@dataclass(frozen=True, slots=True)
class Keypoints:
    """Where features are, in pixels of the working size."""

    points: Floats
    """x and y, [n, 2]."""
    sizes: Floats
    angles: Floats
    """Radians."""

    def __len__(self) -> int:
        return len(self.points)


@dataclass(frozen=True, slots=True)
class StoredElement:
    """Features of a stored element."""

    width: int
    """Of the working size, pixels."""
    height: int
    keypoints: Keypoints
    codes: npt.NDArray[np.uint8]
    """[n, bytes]."""
    shape: Shape | None = None
    """Of an element of two colors, which is found even where it has hardly any features."""

    @property
    def feature_count(self) -> int:
        """How many keypoints and rings of a shape there are."""
        return len(self.keypoints) + (len(self.shape.profile) if self.shape else 0)

    def to_bytes(self) -> bytes:
        points = np.clip(np.rint(self.keypoints.points * POINT_STEPS), 0, 65535).astype("<u2")
        sizes = np.clip(np.rint(np.log2(self.keypoints.sizes) * SIZE_STEPS), 0, 255)
        angles = np.rint(self.keypoints.angles * ANGLE_STEPS).astype(np.int64) % 256
        return b"".join(
            (
                STORED_HEADER.pack(STORED_MAGIC, self.width, self.height, len(self.keypoints)),
                points.tobytes(),
                sizes.astype(np.uint8).tobytes(),
                angles.astype(np.uint8).tobytes(),
                self.codes.tobytes(),
                self.shape.to_bytes() if self.shape else b"",
            )
        )

    @classmethod
    def from_bytes(cls, raw: bytes, code_bytes: int, *, field: str) -> StoredElement:
        """Read features back.

        Raises:
            ServiceError: FIELD_INVALID, naming `field`.
        """
        header, body = raw[: STORED_HEADER.size], raw[STORED_HEADER.size :]
        if len(header) < STORED_HEADER.size or header[:2] != STORED_MAGIC:
            raise field_error(field, "are no features of this version")
        _, width, height, count = STORED_HEADER.unpack(header)
        local_bytes = count * (6 + code_bytes)
        if len(body) not in {local_bytes, local_bytes + SHAPE_BYTES}:
            raise field_error(field, "are cut off")
        if not width or not height or count > MAX_KEYPOINTS:
            raise field_error(field, "are of no picture")
        columns = np.frombuffer(body[:local_bytes], np.uint8)
        points, sizes, angles, codes = np.split(columns, [4 * count, 5 * count, 6 * count])
        return cls(
            width,
            height,
            Keypoints(
                (points.view("<u2").reshape(-1, 2) / POINT_STEPS).astype(np.float32),
                np.exp2(sizes / SIZE_STEPS).astype(np.float32),
                (angles / ANGLE_STEPS).astype(np.float32),
            ),
            codes.reshape(count, code_bytes),
            Shape.from_bytes(body[local_bytes:], field=field) if body[local_bytes:] else None,
        )


@dataclass(frozen=True, slots=True)
class QueryFeatures:
    """Features of a query."""

    region: Box
    """Which part of the picture as shown they describe."""
    width: int
    """Of the working size, pixels."""
    height: int
    keypoints: Keypoints
    projected: Floats
    """Descriptors, [n, components]."""
    noise: Floats
    """Squared distance from which on a likeness means nothing, [n]."""
    shapes: Sequence[Shape] = ()
    """Parts in one color, best first."""

    @property
    def feature_count(self) -> int:
        """As of an element."""
        return len(self.keypoints) + sum(len(shape.profile) for shape in self.shapes)

    def inverted(self, vocabulary: Vocabulary) -> QueryFeatures:
        """Give the features of the negative picture."""
        projected = vocabulary.inverted(self.projected)
        points, sizes, angles = self.keypoints.points, self.keypoints.sizes, self.keypoints.angles
        keypoints = Keypoints(points, sizes, angles + np.float32(np.pi))
        return replace(self, keypoints=keypoints, projected=projected)

    def to_bytes(self) -> bytes:
        header = QUERY_HEADER.pack(
            QUERY_MAGIC, self.width, self.height, len(self.keypoints), *self.region
        )
        columns = (
            self.keypoints.points.astype("<f4"),
            self.keypoints.sizes.astype("<f4"),
            self.keypoints.angles.astype("<f4"),
            self.noise.astype("<f4"),
            self.projected.astype("<f2"),
        )
        shapes = (shape.to_bytes() for shape in self.shapes)
        return b"".join((header, *(column.tobytes() for column in columns), *shapes))

    @classmethod
    def from_bytes(cls, raw: bytes, components: int, *, field: str) -> QueryFeatures:
        """Read features back.

        Raises:
            ServiceError: FIELD_INVALID, naming `field`.
        """
        header, body = raw[: QUERY_HEADER.size], raw[QUERY_HEADER.size :]
        if len(header) < QUERY_HEADER.size or header[:2] != QUERY_MAGIC:
            raise field_error(field, "are no features of a query of this version")
        _, width, height, count, *edges = QUERY_HEADER.unpack(header)
        local_bytes = count * (20 + 2 * components)
        shape_count, rest = divmod(len(body) - local_bytes, SHAPE_BYTES)
        if rest or not 0 <= shape_count <= MAX_SEGMENTS or not np.isfinite(edges).all():
            raise field_error(field, "are cut off")
        numbers = np.frombuffer(body[: 20 * count], "<f4")
        points, sizes, angles, noise = np.split(numbers, [2 * count, 3 * count, 4 * count])
        projected = np.frombuffer(body[20 * count : local_bytes], "<f2").astype(np.float32)
        if not (np.isfinite(numbers).all() and np.isfinite(projected).all()):
            raise field_error(field, "must be finite")
        if (
            count > MAX_KEYPOINTS
            or not width
            or not height
            or (sizes <= 0).any()
            or np.abs(numbers).max(initial=0) > FAR_PX
        ):
            raise field_error(field, "are of no picture")
        return cls(
            Box(*edges),
            width,
            height,
            Keypoints(points.reshape(-1, 2), sizes, angles),
            projected.reshape(count, components),
            noise,
            [
                Shape.from_bytes(body[start : start + SHAPE_BYTES], field=field)
                for start in range(local_bytes, len(body), SHAPE_BYTES)
            ],
        )


@dataclass(frozen=True, slots=True)
class Working:
    """A part of a picture at the size that it is described at."""

    region: Box
    grey: Grey
    rgb: Pixels | None = None
    """Without it no shapes are looked for."""


def working(picture: Picture, region: Box, side_px: int) -> Working:
    """Cut a region out of a picture and bring its long side to a length."""
    inner = region.scaled(picture.x_scale, picture.y_scale)
    left, top = int(inner.x_min), int(inner.y_min)
    right = min(picture.image.width, max(left + 1, round(inner.x_max)))
    bottom = min(picture.image.height, max(top + 1, round(inner.y_max)))
    cut = picture.image.crop((left, top, right, bottom))
    factor = min(side_px / max(cut.size), MAX_ENLARGEMENT)
    size = max(1, round(cut.width * factor)), max(1, round(cut.height * factor))
    way = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    grey, rgb = (
        np.asarray(cv2.resize(np.asarray(cut.convert(mode)), size, interpolation=way), np.uint8)
        for mode in ("L", "RGB")
    )
    return Working(region, grey, rgb)


def describe_element(view: Working, vocabulary: Vocabulary) -> tuple[StoredElement, Bag]:
    """Describe an element that is to be stored; one without texture has no features."""
    found = extract(view.grey, STORED_LIMITS)
    projected = vocabulary.project(found.descriptors)
    height, width = view.grey.shape
    flat = None if view.rgb is None else flat_picture_mask(view.rgb)
    shape = None if flat is None else vocabulary.shapes.stored(flat)
    element = StoredElement(width, height, _keypoints(found), vocabulary.encode(projected), shape)
    words, _ = vocabulary.shapes.words([shape] if shape else [], 1)
    weights = np.full(len(words), WORD_WEIGHT / max(len(words), 1), np.float32)
    return element, _joined(stored_bag(projected, vocabulary), Bag(words, weights))


def describe_query(view: Working, vocabulary: Vocabulary) -> tuple[QueryFeatures, Bag, Bag]:
    """Describe a query: its features, its words, and the words of its shapes."""
    query, bag = describe_texture(view, vocabulary)
    shapes = query_shapes(view)
    return replace(query, shapes=shapes), bag, shape_bag(shapes, vocabulary)


def describe_texture(view: Working, vocabulary: Vocabulary) -> tuple[QueryFeatures, Bag]:
    """Describe a query by its local features alone."""
    found = extract(view.grey, QUERY_LIMITS)
    projected = vocabulary.project(found.descriptors)
    height, width = view.grey.shape
    query = QueryFeatures(
        view.region,
        width,
        height,
        _keypoints(found),
        projected,
        vocabulary.noise(projected),
    )
    return query, query_bag(projected, vocabulary)


def query_shapes(view: Working) -> list[Shape]:
    """Find a query's parts in one color."""
    parts = [] if view.rgb is None else segments(view.rgb)
    return [shape for part in parts if (shape := shape_of(part)) is not None]


def shape_bag(shapes: Sequence[Shape], vocabulary: Vocabulary) -> Bag:
    """Give a query's words of shapes, each as well as it fits the shape that it fits best."""
    words, fits = vocabulary.shapes.words(shapes, WORDS_TRIED)
    distinct, rows = np.unique(words, return_inverse=True)
    weights = np.zeros(len(distinct), np.float32)
    np.maximum.at(weights, rows.ravel(), fits)
    return Bag(distinct, weights)


def _joined(local: Bag, further: Bag) -> Bag:
    """Put words beside each other; those of shapes are above all others."""
    return Bag(
        np.concatenate([local.words, further.words]),
        np.concatenate([local.weights, further.weights]),
    )


def stored_bag(projected: Floats, vocabulary: Vocabulary) -> Bag:
    """Give an element's words, each once: repeats say little more."""
    words, _ = vocabulary.words(projected, 1)
    if may_be_inverted(len(projected)):
        inverted, _ = vocabulary.words(vocabulary.inverted(projected), 1)
        words = np.concatenate([words, inverted])
    return weighted(words.ravel(), vocabulary)


def weighted(words: npt.NDArray[np.int64], vocabulary: Vocabulary) -> Bag:
    """Weigh an element's words by how rare they are in photos.

    All are divided by what they add up to in a usual photo, which holds some of everything: else
    elements with many features, or of cloth and noise, would be found in every one.
    """
    distinct = np.unique(words)
    commonness = vocabulary.commonness[distinct]
    rarity = np.log1p(1 / (commonness + LEAST_COMMONNESS))
    expected = float(rarity @ commonness)
    return Bag(distinct, (rarity / (expected + LEAST_EXPECTED)).astype(np.float32))


def may_be_inverted(keypoint_count: int) -> bool:
    """Whether an element is looked for as a negative, too: plain logos come in black and white."""
    return 0 < keypoint_count <= FEW_KEYPOINTS


def query_bag(projected: Floats, vocabulary: Vocabulary) -> Bag:
    """Give a query's words: of repeats each further one counts less."""
    words, _ = vocabulary.words(projected, 1)
    distinct, counts = np.unique(words, return_counts=True)
    return Bag(distinct, np.sqrt(counts).astype(np.float32))


def _keypoints(found: LocalFeatures) -> Keypoints:
    return Keypoints(found.points, found.sizes, found.angles)
