"""Extracts the local features of a picture, and matches the features of two pictures.

Features are SIFT (Lowe, "Distinctive image features from scale-invariant keypoints", IJCV 2004)
with the square root of the descriptors (RootSIFT: Arandjelović and Zisserman, "Three things
everyone should know to improve object retrieval", CVPR 2012). Extraction is deterministic,
including the order of the features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Grey = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.intp]

BINS = 4
"""Number of spatial bins of a descriptor along each side."""
DIRECTIONS = 8
"""Number of gradient directions in each bin."""
DIMENSIONS = BINS * BINS * DIRECTIONS
"""Number of components of a descriptor."""

FROM_EDGE_PX = 0.25
"""Offset that converts OpenCV's positions to distances from the picture's edge, pixels: 0.5, since
OpenCV counts from the center of the first pixel, minus 0.25, by which OpenCV is off because it
doubles the picture first."""


@dataclass(frozen=True, slots=True)
class ExtractionLimits:
    """Parameters of the extraction of features."""

    max_features: int
    """Maximum features; the strongest are kept."""
    contrast_threshold: float = 0.02
    """Minimum contrast of a keypoint, as OpenCV defines it; low values suit faint pictures."""
    edge_threshold: float = 15.0
    """Edge threshold, as OpenCV defines it; higher values keep more keypoints on edges."""
    border_px: int = 16
    """Width of the replicated border, which allows keypoints near the picture's edge, in pixels."""


@dataclass(frozen=True, slots=True)
class LocalFeatures:
    """Keypoints of a picture and their descriptors, strongest first."""

    points: Floats
    """Positions (x, y), pixels from the picture's edges, [keypoints, 2]."""
    sizes: Floats
    """Diameters, pixels, [keypoints]."""
    angles: Floats
    """Directions in radians, clockwise from the x axis as shown, [keypoints]."""
    descriptors: Floats
    """RootSIFT, unit length, [keypoints, 128]."""

    def __len__(self) -> int:
        return len(self.points)

    def mirrored(self, width: float) -> LocalFeatures:
        """Return the features of the mirrored picture (left and right exchanged).

        Descriptors are relative to the direction of their keypoint. Mirroring exchanges the bins
        on its two sides and reverses all angles, so that no new extraction is necessary.

        Args:
            width: width of the picture, in pixels.
        """
        points = np.column_stack([width - self.points[:, 0], self.points[:, 1]])
        bins = self.descriptors.reshape(-1, BINS, BINS, DIRECTIONS)
        reversed_directions = -np.arange(DIRECTIONS) % DIRECTIONS
        return LocalFeatures(
            points.astype(np.float32),
            self.sizes,
            (np.pi - self.angles).astype(np.float32),
            np.ascontiguousarray(bins[:, ::-1][..., reversed_directions]).reshape(-1, DIMENSIONS),
        )


@dataclass(frozen=True, slots=True)
class Matches:
    """Pairs of similar features, best first."""

    first: Ints
    """Indices of the first picture's features, [matches]."""
    second: Ints
    """Indices of the second picture's features, [matches]."""

    def __len__(self) -> int:
        return len(self.first)


def extract(grey: Grey, limits: ExtractionLimits) -> LocalFeatures:
    """Extract the local features of a picture.

    Args:
        grey: uint8 [height, width].
        limits: parameters of the extraction.

    Returns:
        At most `limits.max_features` features; empty for a picture without texture.
    """
    border = limits.border_px
    padded = cv2.copyMakeBorder(grey, border, border, border, border, cv2.BORDER_REPLICATE)
    sift = cv2.SIFT.create(
        nfeatures=limits.max_features,
        contrastThreshold=limits.contrast_threshold,
        edgeThreshold=limits.edge_threshold,
    )
    keypoints, raw = sift.detectAndCompute(padded, None)
    rows = _strongest(keypoints, grey.shape, limits)
    if not rows:
        return _no_features()
    keypoints, raw = [keypoints[row] for row in rows], raw[rows]
    rooted = np.sqrt(raw / np.maximum(raw.sum(axis=1, keepdims=True), 1e-9))
    return LocalFeatures(
        np.array([keypoint.pt for keypoint in keypoints], np.float32) + FROM_EDGE_PX - border,
        np.array([keypoint.size for keypoint in keypoints], np.float32),
        np.radians(np.array([keypoint.angle for keypoint in keypoints], np.float32)),
        rooted.astype(np.float32),
    )


def match(
    first: LocalFeatures, second: LocalFeatures, *, max_ratio: float, max_matches: int
) -> Matches:
    """Match features that are mutual nearest neighbors or pass the ratio test.

    The ratio test rejects features of repeating patterns; the mutual neighbors keep some of them.

    Args:
        first: features of a picture.
        second: features of another picture.
        max_ratio: maximum ratio of the distances to the nearest and the second nearest feature.
        max_matches: maximum number of matches.
    """
    if len(first) < 2 or len(second) < 2:  # noqa: PLR2004  # the ratio test needs two neighbors
        return Matches(np.empty(0, np.intp), np.empty(0, np.intp))
    cosines = first.descriptors @ second.descriptors.T
    nearest = np.argmax(cosines, axis=1)
    rows = np.arange(len(first))
    best = cosines[rows, nearest]
    is_mutual = np.argmax(cosines, axis=0)[nearest] == rows
    cosines[rows, nearest] = -1.0
    second_best = cosines.max(axis=1)
    ratios = np.sqrt(np.maximum(1 - best, 0) / np.maximum(1 - second_best, 1e-9))
    kept = np.flatnonzero(is_mutual | (ratios <= max_ratio))
    order = kept[np.argsort(ratios[kept], kind="stable")][:max_matches]
    return Matches(order, nearest[order])


def _strongest(
    keypoints: Sequence[cv2.KeyPoint], shape: tuple[int, ...], limits: ExtractionLimits
) -> list[int]:
    """Return the indices of the keypoints inside the picture, strongest first."""
    height, width = shape[:2]
    offset_px = limits.border_px - FROM_EDGE_PX

    def is_inside(point: Sequence[float]) -> bool:
        return 0 <= point[0] - offset_px < width and 0 <= point[1] - offset_px < height

    def strength(row: int) -> tuple[float, ...]:
        # The other properties break ties, so that the order is deterministic.
        keypoint = keypoints[row]
        return -keypoint.response, *keypoint.pt, keypoint.size, keypoint.angle

    inside = [row for row, keypoint in enumerate(keypoints) if is_inside(keypoint.pt)]
    return sorted(inside, key=strength)[: limits.max_features]


def _no_features() -> LocalFeatures:
    return LocalFeatures(
        np.empty((0, 2), np.float32),
        np.empty(0, np.float32),
        np.empty(0, np.float32),
        np.empty((0, DIMENSIONS), np.float32),
    )
