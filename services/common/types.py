"""Value types that all services share: the domain side of `imagesearch.type.v1`.

`type_messages` converts them from and to protobuf messages.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

TagValue = str | int | float | bool
"""The value of a tag. `bool` is a subclass of `int`: test for `bool` first."""


class LibraryType(enum.IntEnum):
    """Kind of search in a library; names and numbers of `type.v1.LibraryType`."""

    WHOLE_IMAGE = 1
    ELEMENT = 2
    PRODUCT = 3


class Category(enum.IntEnum):
    """Kind of goods; names and numbers of `type.v1.Category`."""

    TOPS = 1
    DRESS = 2
    BOTTOMS = 3
    BAG = 4
    SHOES = 5
    ACCESSORIES = 6
    SNACK = 7
    MAKEUP = 8
    BOTTLE = 9
    FURNITURE = 10
    TOY = 11
    UNDERWEAR = 12
    DIGITAL_DEVICE = 13
    OTHER = 14


class Box(NamedTuple):
    """An upright rectangle in pixels of the picture as shown: origin top-left, maxima exclusive."""

    x_min: float
    y_min: float
    x_max: float
    y_max: float

    @property
    def width(self) -> float:
        return self.x_max - self.x_min

    @property
    def height(self) -> float:
        return self.y_max - self.y_min

    def clipped(self, width: int, height: int) -> Box | None:
        """Return the part inside a picture of this size; None if less than one pixel remains.

        Nothing remains of an inverted box and of a box with NaN. Infinite edges are clipped to the
        edges of the picture.
        """
        if any(math.isnan(edge) for edge in self):
            return None
        inside = Box(
            min(max(self.x_min, 0.0), width),
            min(max(self.y_min, 0.0), height),
            max(min(self.x_max, width), 0.0),
            max(min(self.y_max, height), 0.0),
        )
        return inside if inside.width >= 1 and inside.height >= 1 else None

    def scaled(self, x_factor: float, y_factor: float) -> Box:
        return Box(
            self.x_min * x_factor,
            self.y_min * y_factor,
            self.x_max * x_factor,
            self.y_max * y_factor,
        )

    def moved(self, x: float, y: float) -> Box:
        return Box(self.x_min + x, self.y_min + y, self.x_max + x, self.y_max + y)

    def grown(self, share: float) -> Box:
        """Return the box with a margin on each side, given as a share of that side's length."""
        x_margin, y_margin = share * self.width, share * self.height
        return Box(
            self.x_min - x_margin,
            self.y_min - y_margin,
            self.x_max + x_margin,
            self.y_max + y_margin,
        )


Quadrilateral = tuple[tuple[float, float], ...]
"""Four corners (x, y) in pixels of the picture as shown.

The outline of a stored picture starts at that picture's top-left corner and goes clockwise.
"""


@dataclass(frozen=True, slots=True)
class Color:
    """A color of a subject."""

    name: str
    """A basic color name, such as "red"."""
    hex: str
    """Mean of the pixels that were assigned to this color, "#rrggbb"."""
    share: float
    """Share of the subject's pixels, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Attribute:
    """A named property of a subject with its confidence, 0 to 1."""

    name: str
    value: str
    score: float


@dataclass(frozen=True, slots=True)
class Subject:
    """A product or another foreground object of a picture."""

    box: Box
    category: Category | None
    score: float
    """Confidence, 0 to 1."""
    colors: Sequence[Color] = ()
    attributes: Sequence[Attribute] = ()


@dataclass(frozen=True, slots=True)
class PictureInfo:
    """Properties of a picture file."""

    width: int
    """Width of the picture as shown, in pixels."""
    height: int
    """Height of the picture as shown, in pixels."""
    size_bytes: int
    sha256: str
    """SHA-256 of the file, 64 lower-case hexadecimal digits."""
    media_type: str
    sharpness: float
    """Variance of the Laplacian of the grayscale picture, scaled to a long side of 512 pixels."""


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A version of a model in a role."""

    role: str
    name: str
    version: str

    @property
    def space(self) -> str:
        """Name of the vector space that the model embeds into."""
        return f"{self.name}@{self.version}"


@dataclass(frozen=True, slots=True)
class Vector:
    """A dense embedding."""

    space: str
    values: bytes
    """Components: IEEE-754 single precision, little-endian."""
    background_similarity: float = 0.0
    """Mean similarity to the nearest vectors of a fixed set of unrelated pictures."""


@dataclass(frozen=True, slots=True)
class SparseVector:
    """A sparse vector: the non-zero components; indices are ascending, without repeats."""

    space: str
    indices: Sequence[int]
    values: Sequence[float]


QUEUE_STEP = "queue"
"""Name of the timing for which a call waited for its turn in Embedding."""


@dataclass(frozen=True, slots=True)
class StepTiming:
    """Duration of one step of a call."""

    step: str
    duration_ms: float
