"""Aligns two pictures: estimates where one lies in the other and how well they agree there.

Local features align cropped, pasted, rotated, mirrored, stretched and skewed copies. Copies without
enough texture for features are aligned by correlating whole thumbnails in eight orientations.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np

from imagesearch_services.embedding.comparison.optical_flow import displaced, flow_of
from imagesearch_services.embedding.comparison.overlap import Overlap, agreement, overlap_of
from imagesearch_services.embedding.comparison.view import Floats, View
from imagesearch_services.embedding.features import geometric_check
from imagesearch_services.embedding.features.geometric_check import GeometricRules, Matrix
from imagesearch_services.embedding.features.local_features import LocalFeatures, match

RULES = GeometricRules()
"""Rules for inliers and plausible transforms."""
MAX_RATIO = 0.85
"""Maximum ratio of the distances to the nearest and the second nearest feature."""
MAX_MATCHES = 400
"""Maximum matches of features that are used."""

THUMBNAIL_PX = 32
"""Side of the square thumbnails that are correlated in eight orientations, in pixels."""
MIN_THUMBNAIL_CORRELATION = 0.5
"""Minimum correlation of two thumbnails for an orientation to become a candidate."""

AGREEMENT_SIDE_PX = 256
"""Maximum long side of the overlap when it is compared, in pixels."""
MIN_OVERLAP = 0.01
"""Minimum share of each picture that the other must show in an alignment."""

CREDIBLE_AGREEMENT = 0.5
"""Minimum agreement of a credible alignment; unrelated pictures stay below it."""

SURE_AGREEMENT = 0.8
"""Minimum agreement of a sure alignment, together with `SURE_INLIERS`."""
SURE_INLIERS = 40
"""Minimum inliers of a sure alignment, after which no other kind of alignment is tried."""

EXACT_AGREEMENT = 0.98
"""Minimum agreement of an exact alignment, which more degrees of freedom would not improve."""
FREEDOM_GAIN = 1.01
"""Factor by which more degrees of freedom must improve the fit to be accepted, since they always
improve it slightly."""

BEND_SMOOTHING_PX = 8.0
"""Standard deviation of the blur that smooths the displacements of the refinement, in pixels."""
MAX_BEND = 0.06
"""Maximum displacement of the non-rigid refinement, as a share of the overlap's long side: enough
for warped paper and lens distortion, too little to move distant parts onto each other."""
MIN_BEND_SIDE_PX = 32
"""Minimum shorter side of an overlap that is refined, in pixels."""
MIN_BEND_AGREEMENT = 0.3
"""Minimum agreement of an alignment that is refined."""


@dataclass(frozen=True, slots=True)
class Aligned:
    """Two aligned pictures."""

    matrix: Matrix
    """Homography from the first picture's pixels to the second's, [3, 3]."""
    inlier_count: int
    """Matches of local features that are inliers; 0 if whole pictures were aligned."""
    shown_of_first: float
    """Share of the first picture's area that the second shows."""
    shown_of_second: float
    """Share of the second picture's area that the first shows."""
    overlap: Overlap
    agreement: float
    """Mean correlation of the windows that have contrast, 0 to 1."""
    contrast_share: float
    """Share of the overlap that has contrast."""
    bend: float = 0.0
    """Displacement by the non-rigid refinement, 90th percentile, as a share of the overlap's long
    side."""

    @property
    def is_credible(self) -> bool:
        """Whether the pictures agree better than unrelated pictures do by chance."""
        return self.agreement >= CREDIBLE_AGREEMENT

    @property
    def is_sure(self) -> bool:
        """Whether no other kind of alignment need be tried."""
        return self.agreement >= SURE_AGREEMENT and self.inlier_count >= SURE_INLIERS

    @property
    def is_exact(self) -> bool:
        """Whether the alignment is sure, and more degrees of freedom would not improve it."""
        return self.is_sure and self.agreement >= EXACT_AGREEMENT


def align(first: View, second: View, *, side_px: int = AGREEMENT_SIDE_PX) -> Aligned | None:
    """Align the first picture with the second, which may show a part or the surroundings of it.

    Args:
        first: picture.
        second: picture.
        side_px: maximum long side of the overlap when it is compared, in pixels.

    Returns:
        The alignment with the best agreement; None if no transformation is plausible.
    """
    best: Aligned | None = None
    for candidates in (_by_features, _by_mirrored_features, _by_whole_pictures):
        for matrix, inlier_count in candidates(first, second):
            aligned = _aligned(first, second, matrix, inlier_count, side_px)
            if aligned is None:
                continue
            if best is None or _weight(aligned) > FREEDOM_GAIN * _weight(best):
                best = aligned
            if best.is_exact:
                break
        if best is not None and best.is_sure:
            break
    return None if best is None else _refined(best)


def mirror_matrix(width: float) -> Matrix:
    """Return the homography that mirrors a picture of this width, exchanging left and right."""
    return np.array([[-1.0, 0.0, width], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])


def _weight(aligned: Aligned) -> float:
    """Return the value that ranks alignments: the agreement, weighted by the inliers."""
    return aligned.agreement * (1 + math.log1p(aligned.inlier_count))


def _by_features(first: View, second: View) -> Iterator[tuple[Matrix, int]]:
    yield from _matched(first, first.features, second)


def _by_mirrored_features(first: View, second: View) -> Iterator[tuple[Matrix, int]]:
    width = first.size[0]
    mirror = mirror_matrix(width)
    for matrix, inlier_count in _matched(first, first.features.mirrored(width), second):
        yield matrix @ mirror, inlier_count


def _matched(first: View, features: LocalFeatures, second: View) -> Iterator[tuple[Matrix, int]]:
    """Yield the transforms that fit matches of local features, by ascending degrees of freedom."""
    matches = match(features, second.features, max_ratio=MAX_RATIO, max_matches=MAX_MATCHES)
    affine = geometric_check.align(
        features,
        second.features,
        matches,
        first_size=first.size,
        second_size=second.size,
        rules=RULES,
    )
    if affine is None:
        return
    similarity = geometric_check.as_similarity(
        affine, features, second.features, matches, rules=RULES
    )
    if similarity is not None:
        yield similarity.matrix, similarity.inlier_count
    yield affine.matrix, affine.inlier_count
    homography = geometric_check.with_perspective(
        affine, features, second.features, matches, first_size=first.size, rules=RULES
    )
    if homography is not None:
        yield homography.matrix, homography.inlier_count


def _by_whole_pictures(first: View, second: View) -> Iterator[tuple[Matrix, int]]:
    matrix = _whole_picture_matrix(first, second)
    if matrix is not None:
        yield matrix, 0


def _whole_picture_matrix(first: View, second: View) -> Matrix | None:
    """Return the homography of the orientation in which the whole pictures correlate best."""
    side = THUMBNAIL_PX
    thumbnails = [
        cv2.resize(view.grey, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)
        for view in (first, second)
    ]
    best, best_matrix = MIN_THUMBNAIL_CORRELATION, None
    for matrix, oriented in _orientations(thumbnails[0]):
        correlation = _correlation(oriented, thumbnails[1])
        if correlation > best:
            best, best_matrix = correlation, matrix
    if best_matrix is None:
        return None
    to_thumbnail = np.diag([side / first.size[0], side / first.size[1], 1.0])
    from_thumbnail = np.diag([second.size[0] / side, second.size[1] / side, 1.0])
    return from_thumbnail @ best_matrix @ to_thumbnail


def _orientations(square: Floats) -> Iterator[tuple[Matrix, Floats]]:
    """Yield a square picture in its eight orientations, with the homography to each."""
    side = float(len(square))
    quarter = np.array([[0.0, -1.0, side], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])  # clockwise
    mirror = np.array([[-1.0, 0.0, side], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    for matrix, oriented in ((np.eye(3), square), (mirror, square[:, ::-1])):
        for _ in range(4):
            yield matrix, oriented
            matrix, oriented = quarter @ matrix, np.rot90(oriented, -1)  # noqa: PLW2901


def _correlation(first: Floats, second: Floats) -> float:
    a, b = first - first.mean(), second - second.mean()
    length = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / length if length > 0 else 0.0


def _aligned(
    first: View, second: View, matrix: Matrix, inlier_count: int, side_px: int
) -> Aligned | None:
    shown = geometric_check.visible_shares(matrix, first.size, second.size)
    if min(shown) < MIN_OVERLAP:
        return None
    overlap = overlap_of(first, second, matrix, side_px=side_px)
    if overlap is None:
        return None
    mean, contrast_share = agreement(overlap)
    return Aligned(
        matrix=matrix,
        inlier_count=inlier_count,
        shown_of_first=shown[0],
        shown_of_second=shown[1],
        overlap=overlap,
        agreement=mean,
        contrast_share=contrast_share,
    )


def _refined(aligned: Aligned) -> Aligned:
    """Refine an alignment by small, smooth displacements if that improves the agreement.

    Curved paper and lens distortion bend a picture in ways that no homography describes.
    """
    overlap = aligned.overlap
    height, width = overlap.mask.shape
    if min(height, width) < MIN_BEND_SIDE_PX or aligned.agreement < MIN_BEND_AGREEMENT:
        return aligned
    flow = cv2.GaussianBlur(flow_of(overlap), (0, 0), BEND_SMOOTHING_PX)
    max_px = MAX_BEND * max(height, width)
    lengths = np.linalg.norm(flow, axis=2, keepdims=True)
    flow = (flow * np.minimum(1.0, max_px / np.maximum(lengths, 1e-6))).astype(np.float32)
    refined = replace(overlap, first=displaced(overlap.first, flow))
    mean, contrast_share = agreement(refined)
    if mean <= FREEDOM_GAIN * aligned.agreement:
        return aligned
    bend = float(np.percentile(np.minimum(lengths, max_px), 90)) / max(height, width)
    return replace(
        aligned, overlap=refined, agreement=mean, contrast_share=contrast_share, bend=bend
    )
