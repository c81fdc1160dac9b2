"""Shapes in one color, compared whatever their color, place, turn, size and slant.

Local features say little of bare logos, which are nothing but an outline. A shape is looked at in
the frame where its second moments are those of a circle, so that an affine map leaves only a turn
(Rothe, Süsse and Voss, "The method of normalization to determine invariants", PAMI 1996), on rings
around its middle.

- Its words come from the strengths of the rings' Fourier coefficients, which no turn changes. They
  are reduced to what tells icons apart and stays under edits (linear discriminant analysis), and
  quantised several times in other directions. They stand beside the words of local features.
- Two shapes are as alike as their rings correlate at the best turn. How much better that is than
  any of the landmarks, flat parts of photos and letters, is what counts: many things are like a V.

What is learnt is committed; services/models/elements/shapes.py learns it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from imagesearch_services.common.errors import field_error
from imagesearch_services.embedding.elements.segments import Segment

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Complexes = npt.NDArray[np.complex64]
Ints = npt.NDArray[np.int64]

FILE = Path(__file__).parent / "shapes.npz"

RADII = np.linspace(0.15, 2.8, 16)
"""Of the rings; a disc has 2."""
DIRECTIONS = 64
"""In which each ring is looked at."""
ORDERS = 16
"""Fourier coefficients of a ring that are described."""
SMOOTHING_PX = 1.5
LEAST_VARIANCE_PX = 1.0
MAX_ELONGATION = 60.0
"""Longest over shortest extent, squared: lines have no shape."""
LEVELS = 15
"""Of a stored ring's values."""

FIRST_WORD = 1 << 24
"""Words of local features are below."""
WORDS_TRIED = 3
WORD_WEIGHT = 0.5
"""Of all of a shape's words beside those of its local features, which add up to one."""
CLOSENESS_FLOOR = 0.005
"""Of what is missing to a perfect correlation: no better can be told from pixels."""

NUMBERS = np.dtype("<f4")
PROFILE_BYTES = len(RADII) * DIRECTIONS // 2
SHAPE_BYTES = 8 * NUMBERS.itemsize + PROFILE_BYTES


@dataclass(frozen=True, slots=True)
class Shape:
    """A shape in one color."""

    profile: Floats
    """How much of each place has the color, 0 to 1, [rings, directions]."""
    middle: Doubles
    """In the picture that it was found in, pixels, [2]."""
    frame: Doubles
    """From the rings' frame to that picture, around the middle, [2, 2]."""
    noise: float
    """How alike landmarks are to it at most; 0 of a query's, for which it is not asked."""
    quality: float
    """Of the segment that it was found as, 0 to 1."""

    def to_bytes(self) -> bytes:
        levels = np.rint(np.clip(self.profile, 0, 1) * LEVELS).astype(np.uint8).ravel()
        numbers = np.array([*self.middle, *self.frame.ravel(), self.noise, self.quality], NUMBERS)
        return numbers.tobytes() + (levels[::2] << 4 | levels[1::2]).tobytes()

    @classmethod
    def from_bytes(cls, raw: bytes, *, field: str) -> Shape:
        """Read a shape back.

        Raises:
            ServiceError: FIELD_INVALID, naming `field`.
        """
        numbers = np.frombuffer(raw[:-PROFILE_BYTES], NUMBERS).astype(np.float64)
        packed = np.frombuffer(raw[-PROFILE_BYTES:], np.uint8)
        middle, frame, (noise, quality) = numbers[:2], numbers[2:6].reshape(2, 2), numbers[6:]
        is_sound = np.isfinite(numbers).all() and np.abs(numbers).max() < MAX_NUMBER
        if not is_sound or abs(np.linalg.det(frame)) < 1 / MAX_NUMBER or not noise < 1:
            raise field_error(field, "have an impossible shape")
        levels = np.stack([packed >> 4, packed & 15], axis=1).reshape(len(RADII), DIRECTIONS)
        return cls((levels / LEVELS).astype(np.float32), middle, frame, noise, quality)


MAX_NUMBER = 65_536
"""No place and no size in a picture is further, in pixels."""


@dataclass(frozen=True)
class ShapeBook:
    """What was learnt about shapes."""

    mean: Floats
    """Of descriptions, [rings × orders]."""
    projection: Floats
    """[rings × orders, components]."""
    tables: Floats
    """Directions that each table quantises, [tables, components, table components]."""
    books: Floats
    """Centres, [tables, centres, table components]."""
    landmarks: Floats
    """Profiles, [landmarks, rings, directions]."""

    @classmethod
    def load(cls, file: Path = FILE) -> ShapeBook:
        with np.load(file, allow_pickle=False) as stored:
            return cls(
                stored["mean"].astype(np.float32),
                stored["projection"].astype(np.float32),
                stored["tables"].astype(np.float32),
                stored["books"].astype(np.float32),
                stored["landmarks"].astype(np.float32) / LEVELS,
            )

    @cached_property
    def _landmark_spectra(self) -> Complexes:
        return spectra(self.landmarks)

    def stored(self, segment: Segment) -> Shape | None:
        """Describe a segment that is to be stored, with what landmarks reach."""
        shape = shape_of(segment)
        if shape is None:
            return None
        alike, _ = correlations(spectra(shape.profile[None]), self._landmark_spectra)
        return replace(shape, noise=float(alike.max()))

    def described(self, profiles: Floats) -> Floats:
        """Describe profiles whatever their turn, [n, rings, directions] → [n, components]."""
        reduced = (ring_strengths(profiles) - self.mean) @ self.projection
        return np.asarray(reduced / np.linalg.norm(reduced, axis=1, keepdims=True), np.float32)

    def words(self, shapes: Sequence[Shape], count: int) -> tuple[Ints, Floats]:
        """Find the words of shapes, and how well they fit, 1 for the nearest.

        Returns:
            Both [tables × shapes × count].
        """
        if not shapes:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        described = self.described(np.stack([shape.profile for shape in shapes]))
        words, fits = [], []
        for number, (directions, centres) in enumerate(zip(self.tables, self.books, strict=True)):
            points = described @ directions
            squared = ((points[:, None] - centres[None]) ** 2).sum(axis=2)
            nearest = np.argsort(squared, axis=1, kind="stable")[:, :count]
            misses = np.take_along_axis(squared, nearest, axis=1)
            words.append(FIRST_WORD + number * len(centres) + nearest)
            softness = max(float(np.median(misses[:, 0])), 1e-9)
            fits.append(np.exp((misses[:, :1] - misses) / softness))
        return np.concatenate(words, axis=None), np.concatenate(fits, axis=None).astype(np.float32)


def shape_of(segment: Segment) -> Shape | None:
    """Describe a segment, all but its noise, which a query's has no use for; None for a line."""
    ringed = rings(segment.mask)
    if ringed is None:
        return None
    profile, middle, frame = ringed
    return Shape(
        profile,
        (middle + 0.5) / segment.scale + np.array(segment.origin),
        frame / segment.scale,
        0.0,
        segment.quality,
    )


def rings(mask: Floats) -> tuple[Floats, Doubles, Doubles] | None:
    """Look at a mask on rings around its middle.

    Returns:
        The profile, [rings, directions], the middle and the frame; None for lines and for nothing.
    """
    moments = cv2.moments(mask)
    if moments["m00"] <= 0:
        return None
    middle = np.array([moments["m10"], moments["m01"]]) / moments["m00"]
    across, slant, down = (moments[name] / moments["m00"] for name in ("mu20", "mu11", "mu02"))
    values, vectors = np.linalg.eigh(np.array([(across, slant), (slant, down)]))
    if values[0] <= LEAST_VARIANCE_PX or values[1] > MAX_ELONGATION * values[0]:
        return None
    frame = vectors @ np.diag(np.sqrt(values)) @ vectors.T
    places = _unit_rings() @ frame.T + middle
    smooth = cv2.GaussianBlur(mask, (0, 0), SMOOTHING_PX)
    x, y = (np.ascontiguousarray(places[..., axis], np.float32) for axis in (0, 1))
    profile = cv2.remap(smooth, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return np.asarray(profile, np.float32), middle, frame


def _unit_rings() -> Doubles:
    angles = np.arange(DIRECTIONS) * 2 * np.pi / DIRECTIONS
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    places: Doubles = RADII[:, None, None] * circle[None]
    return places


def ring_strengths(profiles: Floats) -> Floats:
    """Give the strengths of Fourier coefficients, unit length, [n, rings × orders]."""
    strengths = np.abs(np.fft.rfft(profiles, axis=2))[..., :ORDERS] * np.sqrt(RADII)[:, None]
    flat = np.sqrt(strengths.reshape(len(profiles), -1))
    lengths = np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-9)
    return np.asarray(flat / lengths, np.float32)


def spectra(profiles: Floats) -> Complexes:
    """Prepare profiles for correlation: less their mean, unit length, by frequency."""
    weights = (RADII / (RADII.sum() * DIRECTIONS))[:, None]
    rest = profiles - (profiles * weights).sum(axis=(1, 2), keepdims=True)
    rest = rest * np.sqrt(weights)
    lengths = np.sqrt((rest * rest).sum(axis=(1, 2), keepdims=True))
    return np.fft.rfft(rest / np.maximum(lengths, 1e-9), axis=2).astype(np.complex64)


def correlations(some: Complexes, others: Complexes) -> tuple[Floats, Ints]:
    """Correlate profiles with others at the best turn.

    Returns:
        Correlations, and turns of the others against the first, in directions; both [n, others].
    """
    # A product of matrices for each frequency.
    first, second = np.conj(some).transpose(2, 0, 1), others.transpose(2, 1, 0)
    by_turn = np.fft.irfft((first @ second).transpose(1, 2, 0), DIRECTIONS, axis=2)
    turns = by_turn.argmax(axis=2)
    best = np.take_along_axis(by_turn, turns[..., None], 2)[..., 0]
    return best.astype(np.float32), turns


def compared(stored: Sequence[Shape], found: Sequence[Shape]) -> tuple[Floats, Ints]:
    """Compare stored shapes with a query's.

    Returns:
        How many times nearer than what landmarks reach each pair is, as a logarithm, and turns of
        the found ones against the stored ones, in directions; both [stored, found].
    """
    one, other = (
        spectra(np.stack([shape.profile for shape in shapes])) for shapes in (stored, found)
    )
    alike, turns = correlations(one, other)
    noise = np.array([[shape.noise] for shape in stored], np.float32)
    return np.log(_missing(noise) / _missing(alike)), turns


def placed(stored: Shape, found: Shape, turn: int) -> Doubles:
    """Give the affine map, [2, 3], that brings a stored picture to where a shape was found."""
    angle = turn * 2 * np.pi / DIRECTIONS
    cosine, sine = np.cos(angle), np.sin(angle)
    rotation = np.array([(cosine, -sine), (sine, cosine)])
    linear = found.frame @ rotation @ np.linalg.inv(stored.frame)
    return np.column_stack([linear, found.middle - linear @ stored.middle])


def _missing(correlations: Floats) -> Floats:
    return np.maximum(1 - correlations, 0.0) + np.float32(CLOSENESS_FLOOR)
