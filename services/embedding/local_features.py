"""Local features of a picture, and which of them look alike in two pictures.

SIFT (Lowe, "Distinctive image features from scale-invariant keypoints", IJCV 2004) with the square
root of its descriptors (RootSIFT: Arandjelović and Zisserman, "Three things everyone should know to
improve object retrieval", CVPR 2012). Same pixels give the same features in the same order.
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
"""Of a descriptor along each side; each has eight directions."""
DIRECTIONS = 8
DIMENSIONS = BINS * BINS * DIRECTIONS

FROM_EDGE_PX = 0.25
"""OpenCV counts from the middle of the first pixel, and a quarter pixel more, since it doubles
pictures first."""


@dataclass(frozen=True, slots=True)
class ExtractionLimits:
    """How much of a picture is described."""

    max_features: int
    """The strongest are kept."""
    contrast_threshold: float = 0.02
    """Of a keypoint, as OpenCV takes it; lower finds more in faint pictures."""
    edge_threshold: float = 15.0
    """Higher keeps more keypoints that lie on an edge."""
    border_px: int = 16
    """The picture's edge is repeated this far, so that there are keypoints near it."""


@dataclass(frozen=True, slots=True)
class LocalFeatures:
    """Keypoints of a picture and what surrounds them, strongest first."""

    points: Floats
    """x and y, pixels from the picture's edges, [keypoints, 2]."""
    sizes: Floats
    """Diameters, pixels, [keypoints]."""
    angles: Floats
    """Directions in radians, clockwise from the x axis as shown, [keypoints]."""
    descriptors: Floats
    """RootSIFT, unit length, [keypoints, 128]."""

    def __len__(self) -> int:
        return len(self.points)

    def mirrored(self, width: float) -> LocalFeatures:
        """Return the features of the same picture with left and right exchanged.

        Descriptors stand in the direction of their keypoint; mirroring exchanges what lies on its
        two sides and the sense of every angle, so that the picture need not be described again.

        Args:
            width: of the picture, pixels.
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
    """Pairs of features that look alike, best first."""

    first: Ints
    """Rows of the first picture's features, [matches]."""
    second: Ints
    """Rows of the second's, [matches]."""

    def __len__(self) -> int:
        return len(self.first)


def extract(grey: Grey, limits: ExtractionLimits) -> LocalFeatures:
    """Describe a picture by its local features.

    Args:
        grey: uint8 [height, width].
        limits: how much of it.

    Returns:
        At most `limits.max_features`, none for a picture without texture.
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
        return _none()
    keypoints, raw = [keypoints[row] for row in rows], raw[rows]
    rooted = np.sqrt(raw / np.maximum(raw.sum(axis=1, keepdims=True), 1e-9))
    return LocalFeatures(
        np.array([each.pt for each in keypoints], np.float32) + FROM_EDGE_PX - border,
        np.array([each.size for each in keypoints], np.float32),
        np.radians(np.array([each.angle for each in keypoints], np.float32)),
        rooted.astype(np.float32),
    )


def match(
    first: LocalFeatures, second: LocalFeatures, *, max_ratio: float, max_matches: int
) -> Matches:
    """Pair features that are each other's nearest, or much nearer than the next one.

    Repeating patterns have no feature that is much nearer than the next; that each is the other's
    nearest keeps some of them.

    Args:
        first: of one picture.
        second: of the other.
        max_ratio: distance to the nearest over that to the next, at most.
        max_matches: how many pairs, at most.
    """
    if len(first) < 2 or len(second) < 2:  # noqa: PLR2004  # a nearest and a next one
        return Matches(np.empty(0, np.intp), np.empty(0, np.intp))
    cosines = first.descriptors @ second.descriptors.T
    nearest = np.argmax(cosines, axis=1)
    rows = np.arange(len(first))
    best = cosines[rows, nearest]
    is_mutual = np.argmax(cosines, axis=0)[nearest] == rows
    cosines[rows, nearest] = -1.0
    following = cosines.max(axis=1)
    ratios = np.sqrt(np.maximum(1 - best, 0) / np.maximum(1 - following, 1e-9))
    kept = np.flatnonzero(is_mutual | (ratios <= max_ratio))
    order = kept[np.argsort(ratios[kept], kind="stable")][:max_matches]
    return Matches(order, nearest[order])


def _strongest(
    keypoints: Sequence[cv2.KeyPoint], shape: tuple[int, ...], limits: ExtractionLimits
) -> list[int]:
    """Give the keypoints that lie in the picture, strongest first."""
    height, width = shape[:2]
    before = limits.border_px - FROM_EDGE_PX

    def is_inside(point: Sequence[float]) -> bool:
        return 0 <= point[0] - before < width and 0 <= point[1] - before < height

    def strength(row: int) -> tuple[float, ...]:
        # All that tells keypoints apart takes part, so that equal strength leaves no choice open.
        keypoint = keypoints[row]
        return -keypoint.response, *keypoint.pt, keypoint.size, keypoint.angle

    inside = [row for row, each in enumerate(keypoints) if is_inside(each.pt)]
    return sorted(inside, key=strength)[: limits.max_features]


def _none() -> LocalFeatures:
    return LocalFeatures(
        np.empty((0, 2), np.float32),
        np.empty(0, np.float32),
        np.empty(0, np.float32),
        np.empty((0, DIMENSIONS), np.float32),
    )
