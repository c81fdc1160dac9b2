"""Compares shapes of one color independently of color, position, rotation, size and shear.

Bare logos consist of an outline only, which local features describe poorly. A shape is normalized
by its second moments, so that an affine map leaves only a rotation (Rothe, Süsse and Voss, "The
method of normalization to determine invariants", PAMI 1996), and sampled on rings around its
centroid.

- The words of a shape are computed from the magnitudes of the rings' Fourier coefficients, which
  are rotation invariant. Linear discriminant analysis reduces them to components that distinguish
  icons and are stable under edits; several tables quantize them in different directions. Words of
  shapes are used together with the words of local features.
- The similarity of two shapes is the correlation of their rings at the best rotation. The evidence
  is its excess over the similarity to the nearest landmark (flat parts of photos, and letters),
  since simple shapes such as a V resemble many objects.

The learned parameters are committed; `services/models/elements/shapes.py` learns them.
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
from imagesearch_services.embedding.elements.masks import Segment

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Complexes = npt.NDArray[np.complex64]
Ints = npt.NDArray[np.int64]

FILE = Path(__file__).parent / "shapes.npz"
"""Archive of the learned parameters."""

RADII = np.linspace(0.15, 2.8, 16)
"""Radii of the rings in the normalized frame, where a disc has radius 2."""
DIRECTIONS = 64
"""Number of samples on each ring."""
ORDERS = 16
"""Number of Fourier coefficients of a ring that describe a shape, from the lowest."""
SMOOTHING_PX = 1.5
"""Standard deviation of the blur before sampling, in pixels of the mask."""
MIN_VARIANCE_PX = 1.0
"""Minimum variance of a mask along its minor axis, in square pixels."""
MAX_ELONGATION = 60.0
"""Maximum ratio of the variances along the axes; more elongated masks are lines without a shape."""
LEVELS = 15
"""Highest quantization level of a stored profile, whose samples take four bits."""

FIRST_WORD = 1 << 24
"""Smallest id of a word of shapes; the ids of words of local features are smaller."""
QUERY_WORDS_PER_TABLE = 3
"""Number of nearest words that a query's shape is assigned to in each table."""
WORD_WEIGHT = 0.5
"""Total weight of a stored shape's words; the local words' expected score in a photo is below 1."""
CORRELATION_FLOOR = 0.005
"""Constant added to the distance from a perfect correlation, about the resolution of pixels."""

MAX_NUMBER = 65_536
"""Upper bound of the absolute values of the numbers in a serialized shape."""
NUMBERS = np.dtype("<f4")
"""Type of the numbers in a serialized shape."""
PROFILE_BYTES = len(RADII) * DIRECTIONS // 2
"""Length of a serialized profile, in bytes."""
SHAPE_BYTES = 8 * NUMBERS.itemsize + PROFILE_BYTES
"""Length of a serialized shape, in bytes."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A shape of one color."""

    profile: Floats
    """Share of the color at each sample, 0 to 1, [rings, directions]."""
    center: Doubles
    """Centroid (x, y) in the picture, pixels, [2]."""
    frame: Doubles
    """Linear map from the normalized frame to the picture, relative to the centroid, [2, 2]."""
    noise: float
    """Highest correlation with a landmark; 0 for a query's shape, which does not need it."""
    quality: float
    """Quality of the segment, 0 to 1."""

    def to_bytes(self) -> bytes:
        """Serialize the shape, with four bits per sample of the profile."""
        levels = np.rint(np.clip(self.profile, 0, 1) * LEVELS).astype(np.uint8).ravel()
        numbers = np.array([*self.center, *self.frame.ravel(), self.noise, self.quality], NUMBERS)
        return numbers.tobytes() + (levels[::2] << 4 | levels[1::2]).tobytes()

    @classmethod
    def from_bytes(cls, raw: bytes, *, field: str) -> Shape:
        """Deserialize a shape.

        Args:
            raw: bytes that `to_bytes` wrote.
            field: the request field that errors name.

        Raises:
            ServiceError: FIELD_INVALID.
        """
        numbers = np.frombuffer(raw[:-PROFILE_BYTES], NUMBERS).astype(np.float64)
        packed = np.frombuffer(raw[-PROFILE_BYTES:], np.uint8)
        center, frame, (noise, quality) = numbers[:2], numbers[2:6].reshape(2, 2), numbers[6:]
        is_bounded = np.isfinite(numbers).all() and np.abs(numbers).max() < MAX_NUMBER
        if not is_bounded or abs(np.linalg.det(frame)) < 1 / MAX_NUMBER or not noise < 1:
            raise field_error(
                field,
                f"has an invalid shape: numbers must be finite and within ±{MAX_NUMBER:,}, the "
                "frame invertible and the noise below 1",
            )
        levels = np.stack([packed >> 4, packed & 15], axis=1).reshape(len(RADII), DIRECTIONS)
        return cls((levels / LEVELS).astype(np.float32), center, frame, noise, quality)


@dataclass(frozen=True)
class ShapeBook:
    """Learned parameters that describe shapes."""

    mean: Floats
    """Mean of the ring magnitudes, [rings × orders]."""
    projection: Floats
    """Projection of the ring magnitudes to components, [rings × orders, components]."""
    tables: Floats
    """Projection that each table quantizes, [tables, components, table components]."""
    books: Floats
    """Cluster centers of each table, [tables, centers, table components]."""
    landmarks: Floats
    """Profiles of the landmarks, [landmarks, rings, directions]."""

    @classmethod
    def load(cls, file: Path = FILE) -> ShapeBook:
        """Read the parameters from a NumPy archive."""
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

    def stored_shape(self, segment: Segment) -> Shape | None:
        """Describe a segment for storage, with its noise; None if it has no shape."""
        shape = shape_of(segment)
        if shape is None:
            return None
        similarities, _ = correlations(spectra(shape.profile[None]), self._landmark_spectra)
        return replace(shape, noise=float(similarities.max()))

    def descriptors(self, profiles: Floats) -> Floats:
        """Return rotation-invariant unit vectors, [n, rings, directions] → [n, components]."""
        reduced = (ring_magnitudes(profiles) - self.mean) @ self.projection
        return np.asarray(reduced / np.linalg.norm(reduced, axis=1, keepdims=True), np.float32)

    def words(self, shapes: Sequence[Shape], count: int) -> tuple[Ints, Floats]:
        """Return the nearest words of shapes in each table.

        Args:
            shapes: shapes to assign words to.
            count: number of words of each shape in each table.

        Returns:
            Words, and their fits: 1 for the nearest word of a shape in a table, less for the other
            words. Both [tables × shapes × count].
        """
        if not shapes:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        descriptors = self.descriptors(np.stack([shape.profile for shape in shapes]))
        words, fits = [], []
        for number, (directions, centers) in enumerate(zip(self.tables, self.books, strict=True)):
            points = descriptors @ directions
            squared = ((points[:, None] - centers[None]) ** 2).sum(axis=2)
            nearest = np.argsort(squared, axis=1, kind="stable")[:, :count]
            distances = np.take_along_axis(squared, nearest, axis=1)
            words.append(FIRST_WORD + number * len(centers) + nearest)
            softness = max(float(np.median(distances[:, 0])), 1e-9)
            fits.append(np.exp((distances[:, :1] - distances) / softness))
        return np.concatenate(words, axis=None), np.concatenate(fits, axis=None).astype(np.float32)


def shape_of(segment: Segment) -> Shape | None:
    """Describe a segment without its noise; None for a line or an empty mask."""
    sampled = sample_rings(segment.mask)
    if sampled is None:
        return None
    profile, center, frame = sampled
    return Shape(
        profile,
        (center + 0.5) / segment.scale + np.array(segment.origin),
        frame / segment.scale,
        0.0,
        segment.quality,
    )


def sample_rings(mask: Floats) -> tuple[Floats, Doubles, Doubles] | None:
    """Normalize a mask by its second moments and sample it on rings.

    Args:
        mask: share of the color in each pixel, 0 to 1, [height, width].

    Returns:
        The profile [rings, directions], the centroid [2] and the frame [2, 2], both in pixels of
        the mask; None for a line or an empty mask.
    """
    moments = cv2.moments(mask)
    if moments["m00"] <= 0:
        return None
    center = np.array([moments["m10"], moments["m01"]]) / moments["m00"]
    xx, xy, yy = (moments[name] / moments["m00"] for name in ("mu20", "mu11", "mu02"))
    values, vectors = np.linalg.eigh(np.array([(xx, xy), (xy, yy)]))
    if values[0] <= MIN_VARIANCE_PX or values[1] > MAX_ELONGATION * values[0]:
        return None
    frame = vectors @ np.diag(np.sqrt(values)) @ vectors.T
    points = _unit_rings() @ frame.T + center
    smooth = cv2.GaussianBlur(mask, (0, 0), SMOOTHING_PX)
    x, y = (np.ascontiguousarray(points[..., axis], np.float32) for axis in (0, 1))
    profile = cv2.remap(smooth, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return np.asarray(profile, np.float32), center, frame


def _unit_rings() -> Doubles:
    """Return the sample points in the normalized frame, [rings, directions, 2]."""
    angles = np.arange(DIRECTIONS) * 2 * np.pi / DIRECTIONS
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    points: Doubles = RADII[:, None, None] * circle[None]
    return points


def ring_magnitudes(profiles: Floats) -> Floats:
    """Return the square roots of the magnitudes of the rings' Fourier coefficients, normalized.

    Args:
        profiles: [n, rings, directions].

    Returns:
        Unit vectors, [n, rings × orders].
    """
    magnitudes = np.abs(np.fft.rfft(profiles, axis=2))[..., :ORDERS] * np.sqrt(RADII)[:, None]
    flat = np.sqrt(magnitudes.reshape(len(profiles), -1))
    lengths = np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-9)
    return np.asarray(flat / lengths, np.float32)


def spectra(profiles: Floats) -> Complexes:
    """Prepare profiles for `correlations`: normalize to zero mean and unit length, then transform.

    Rings are weighted by their circumference.

    Args:
        profiles: [n, rings, directions].

    Returns:
        [n, rings, frequencies].
    """
    weights = (RADII / (RADII.sum() * DIRECTIONS))[:, None]
    centered = profiles - (profiles * weights).sum(axis=(1, 2), keepdims=True)
    centered = centered * np.sqrt(weights)
    lengths = np.sqrt((centered * centered).sum(axis=(1, 2), keepdims=True))
    return np.fft.rfft(centered / np.maximum(lengths, 1e-9), axis=2).astype(np.complex64)


def correlations(first: Complexes, second: Complexes) -> tuple[Floats, Ints]:
    """Correlate all pairs of profiles at their best rotation.

    Args:
        first: spectra, [n, rings, frequencies].
        second: spectra, [m, rings, frequencies].

    Returns:
        Correlations, and rotations of the second against the first in steps of `DIRECTIONS` per
        turn; both [n, m].
    """
    # The cross-correlation theorem: one matrix product per frequency.
    products = np.conj(first).transpose(2, 0, 1) @ second.transpose(2, 1, 0)
    by_rotation = np.fft.irfft(products.transpose(1, 2, 0), DIRECTIONS, axis=2)
    rotations = by_rotation.argmax(axis=2)
    best = np.take_along_axis(by_rotation, rotations[..., None], 2)[..., 0]
    return best.astype(np.float32), rotations


def compare_shapes(stored: Sequence[Shape], query: Sequence[Shape]) -> tuple[Floats, Ints]:
    """Compare stored shapes with a query's shapes.

    Returns:
        The closeness of each pair, log((1 - correlation with the nearest landmark) / (1 -
        correlation of the pair)); and the rotation of the query's shape against the stored shape,
        in steps of `DIRECTIONS` per turn. Both [stored, query].
    """
    stored_spectra, query_spectra = (
        spectra(np.stack([shape.profile for shape in shapes])) for shapes in (stored, query)
    )
    similarities, rotations = correlations(stored_spectra, query_spectra)
    noise = np.array([[shape.noise] for shape in stored], np.float32)
    return np.log(_distance(noise) / _distance(similarities)), rotations


def shape_transform(stored: Shape, query: Shape, rotation: int) -> Doubles:
    """Return the affine map [2, 3] from the stored picture to the query's.

    Args:
        stored: a shape in the stored picture.
        query: the same shape in the query.
        rotation: rotation of the query's shape against the stored shape, see `compare_shapes`.
    """
    angle = rotation * 2 * np.pi / DIRECTIONS
    cosine, sine = np.cos(angle), np.sin(angle)
    turn = np.array([(cosine, -sine), (sine, cosine)])
    linear = query.frame @ turn @ np.linalg.inv(stored.frame)
    return np.column_stack([linear, query.center - linear @ stored.center])


def _distance(correlations: Floats) -> Floats:
    """Return the distance from a perfect correlation, at least `CORRELATION_FLOOR`."""
    return np.maximum(1 - correlations, 0.0) + np.float32(CORRELATION_FLOOR)
