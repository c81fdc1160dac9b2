"""Features of stored elements and of queries, and their binary formats.

Stored elements are compact: quantized keypoints and a 16-byte code for each descriptor. A query is
needed for one search only and keeps its descriptors unquantized, with the noise distance of each.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from imagesearch_services.common.errors import field_error
from imagesearch_services.common.types import Box
from imagesearch_services.embedding.elements.segments import MAX_SEGMENTS
from imagesearch_services.embedding.elements.shapes import SHAPE_BYTES, Shape
from imagesearch_services.embedding.elements.vocabulary import Vocabulary

Floats = npt.NDArray[np.float32]

STORED_MAGIC, QUERY_MAGIC = b"E1", b"Q1"
STORED_HEADER = struct.Struct("<2sHHH")
"""Magic, width, height, number of keypoints."""
QUERY_HEADER = struct.Struct("<2sHHHffff")
"""Magic, width, height, number of keypoints, region (x_min, y_min, x_max, y_max)."""
STORED_KEYPOINT_BYTES = 6
"""Length of a stored keypoint without its code, bytes: point, size and angle."""
QUERY_KEYPOINT_BYTES = 20
"""Length of a query's keypoint without its descriptor, bytes: point, size, angle and noise."""
MAX_KEYPOINTS = 4000
"""Maximum keypoints of a picture."""
MAX_COORDINATE_PX = 65_536
"""Upper bound of the coordinates and sizes of keypoints, in pixels."""
POINT_STEPS = 64
"""Quantization steps of a stored keypoint's position, per pixel."""
SIZE_STEPS = 16
"""Quantization steps of a stored keypoint's size, per octave."""
ANGLE_STEPS = 256 / (2 * np.pi)
"""Quantization steps of a stored keypoint's angle, per radian."""

TRUNCATED = "is truncated or has the wrong length"
"""Description of the error for features of an unexpected length."""


@dataclass(frozen=True, slots=True)
class Keypoints:
    """Positions, sizes and directions of local features, in pixels of the working image."""

    points: Floats
    """Positions (x, y), [n, 2]."""
    sizes: Floats
    """Diameters of the keypoints, [n]."""
    angles: Floats
    """Directions in radians, [n]."""

    def __len__(self) -> int:
        return len(self.points)


@dataclass(frozen=True, slots=True)
class StoredElement:
    """Features of a stored element."""

    width: int
    """Width of the working image, in pixels."""
    height: int
    """Height of the working image, in pixels."""
    keypoints: Keypoints
    codes: npt.NDArray[np.uint8]
    """Product quantization codes of the descriptors, [n, code bytes]."""
    shape: Shape | None = None
    """Shape of an element of two colors, which is found even with few local features."""

    @property
    def feature_count(self) -> int:
        """Number of keypoints and of the shape's rings."""
        return len(self.keypoints) + (len(self.shape.profile) if self.shape else 0)

    def to_bytes(self) -> bytes:
        """Serialize the features, quantized."""
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
        """Deserialize features.

        Args:
            raw: bytes that `to_bytes` wrote.
            code_bytes: length of a descriptor's code, in bytes.
            field: the request field that errors name.

        Raises:
            ServiceError: FIELD_INVALID.
        """
        header, body = raw[: STORED_HEADER.size], raw[STORED_HEADER.size :]
        if len(header) < STORED_HEADER.size or header[:2] != STORED_MAGIC:
            raise field_error(field, "must be features of an element in this version's format")
        _, width, height, count = STORED_HEADER.unpack(header)
        local_bytes = count * (STORED_KEYPOINT_BYTES + code_bytes)
        if len(body) not in {local_bytes, local_bytes + SHAPE_BYTES}:
            raise field_error(field, TRUNCATED)
        _check_picture(width, height, count, field)
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
    """The described region, in pixels of the picture as shown."""
    width: int
    """Width of the working image, in pixels."""
    height: int
    """Height of the working image, in pixels."""
    keypoints: Keypoints
    projected: Floats
    """Projected descriptors, [n, components]."""
    noise: Floats
    """Squared noise distance of each descriptor, beyond which a match is no evidence, [n]."""
    shapes: Sequence[Shape] = ()
    """Uniformly colored shapes, best first."""

    @property
    def feature_count(self) -> int:
        """Number of keypoints and of the shapes' rings."""
        return len(self.keypoints) + sum(len(shape.profile) for shape in self.shapes)

    def inverted(self, vocabulary: Vocabulary) -> QueryFeatures:
        """Return the features of the negative picture."""
        projected = vocabulary.inverted(self.projected)
        points, sizes, angles = self.keypoints.points, self.keypoints.sizes, self.keypoints.angles
        keypoints = Keypoints(points, sizes, angles + np.float32(np.pi))
        return replace(self, keypoints=keypoints, projected=projected)

    def to_bytes(self) -> bytes:
        """Serialize the features, with descriptors as float16."""
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
        """Deserialize features.

        Args:
            raw: bytes that `to_bytes` wrote.
            components: number of components of a projected descriptor.
            field: the request field that errors name.

        Raises:
            ServiceError: FIELD_INVALID.
        """
        header, body = raw[: QUERY_HEADER.size], raw[QUERY_HEADER.size :]
        if len(header) < QUERY_HEADER.size or header[:2] != QUERY_MAGIC:
            raise field_error(field, "must be features of a query in this version's format")
        _, width, height, count, *edges = QUERY_HEADER.unpack(header)
        keypoint_bytes = count * QUERY_KEYPOINT_BYTES
        local_bytes = keypoint_bytes + count * 2 * components
        shape_count, rest = divmod(len(body) - local_bytes, SHAPE_BYTES)
        if rest or not 0 <= shape_count <= MAX_SEGMENTS or not np.isfinite(edges).all():
            raise field_error(field, TRUNCATED)
        numbers = np.frombuffer(body[:keypoint_bytes], "<f4")
        points, sizes, angles, noise = np.split(numbers, [2 * count, 3 * count, 4 * count])
        projected = np.frombuffer(body[keypoint_bytes:local_bytes], "<f2").astype(np.float32)
        if not (np.isfinite(numbers).all() and np.isfinite(projected).all()):
            raise field_error(field, "has NaN or infinity")
        _check_picture(width, height, count, field)
        if (sizes <= 0).any() or np.abs(numbers).max(initial=0) > MAX_COORDINATE_PX:
            raise field_error(
                field,
                f"has a keypoint outside ±{MAX_COORDINATE_PX:,} pixels or of non-positive size",
            )
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


def _check_picture(width: int, height: int, keypoint_count: int, field: str) -> None:
    """Check the size and the number of keypoints in a header.

    Raises:
        ServiceError: FIELD_INVALID.
    """
    if not width or not height or keypoint_count > MAX_KEYPOINTS:
        raise field_error(
            field,
            f"has {width} × {height} pixels and {keypoint_count:,} keypoints; must have at least "
            f"1 × 1 pixels and at most {MAX_KEYPOINTS:,} keypoints",
        )
