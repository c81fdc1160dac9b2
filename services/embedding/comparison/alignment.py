"""Where one picture lies in another, and how well the two agree there.

Local features tell cropped, pasted, turned, mirrored, stretched and skewed copies; small thumbnails
in their eight orientations tell those that have no texture left for features.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from imagesearch_services.embedding import geometric_check
from imagesearch_services.embedding.geometric_check import GeometricRules, Matrix, Size
from imagesearch_services.embedding.local_features import (
    ExtractionLimits,
    LocalFeatures,
    extract,
    match,
)

Pixels = npt.NDArray[np.uint8]
"""RGB [height, width, 3], or grey [height, width]."""
Grey = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

LIMITS = ExtractionLimits(max_features=800)
FAINT_LIMITS = ExtractionLimits(max_features=800, contrast_threshold=0.006)
FEW_FEATURES = 150
"""With fewer a picture is looked at again for faint ones: a plain dress has hardly any others."""
RULES = GeometricRules()
MAX_RATIO = 0.85
MAX_MATCHES = 400

THUMBNAIL_PX = 32
"""Side at which whole pictures are laid over each other in eight orientations."""
MIN_THUMBNAIL_CORRELATION = 0.5
"""Of pictures that are worth a closer look in that orientation."""

AGREEMENT_SIDE_PX = 256
"""Long side at which two aligned pictures are compared."""
MIN_AGREEMENT_SIDE_PX = 24
SMOOTHING_PX = 1.5
"""Standard deviation of the blur before: what a filter or a codec took from one is left out."""
WINDOW_PX = 17
"""Side of the windows whose correlations are counted."""
MIN_CONTRAST = 4.0
"""Standard deviation of the grey levels in a window that can tell anything."""
MIN_OVERLAP = 0.01
"""Share of either picture that the other must show."""

CREDIBLE_AGREEMENT = 0.5
"""Less is what chance gives: nothing more should be told of such an alignment."""

SURE_AGREEMENT = 0.8
SURE_INLIERS = 40
"""With both, no other alignment comes near."""

EXACT_AGREEMENT = 0.98
"""Where it is sure, too, a movement with more freedom has nothing to gain."""
FREEDOM_GAIN = 1.01
"""How many times better a movement with more freedom must fit: it fits anything a little better."""

BEND_SMOOTHING_PX = 8.0
"""Standard deviation over which neighbours bend together."""
MAX_BEND = 0.06
"""How far a part may be bent from its place, as a share of the overlap's long side: as far as paper
warps or a lens distorts; what lies in different places is not moved together."""
MIN_BEND_SIDE_PX = 32
MIN_BEND_AGREEMENT = 0.3
"""Less is no bent copy."""


@dataclass(frozen=True, slots=True)
class View:
    """A picture at working size."""

    pixels: Pixels
    """Grey where colors don't matter, which is faster."""
    grey: Grey
    """uint8 [height, width]."""
    features: LocalFeatures

    @classmethod
    def of(cls, pixels: Pixels) -> View:
        grey = grey_of(pixels)
        features = extract(grey, LIMITS)
        if len(features) < FEW_FEATURES:
            features = extract(grey, FAINT_LIMITS)
        return cls(pixels, grey, features)

    @property
    def size(self) -> Size:
        """Width and height, pixels."""
        return self.grey.shape[1], self.grey.shape[0]


@dataclass(frozen=True, slots=True)
class Overlap:
    """What both pictures show, laid over each other at one size."""

    first: Pixels
    """The first picture moved onto the second."""
    second: Pixels
    """The second picture there."""
    mask: Mask
    """Where both have pixels, [height, width]."""
    to_first: Matrix
    """Homography from the first picture's pixels to these."""
    to_second: Matrix
    """Homography from the second picture's pixels to these."""


@dataclass(frozen=True, slots=True)
class Aligned:
    """Two pictures aligned."""

    matrix: Matrix
    """Homography from the first picture's pixels to the second's, [3, 3]."""
    inlier_count: int
    """Matches of local features that agree on it; 0 where thumbnails told it."""
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
    """How far parts had to be bent to agree, as a share of the overlap's long side."""

    @property
    def is_credible(self) -> bool:
        """Whether it is more than chance gives any two pictures."""
        return self.agreement >= CREDIBLE_AGREEMENT

    @property
    def is_sure(self) -> bool:
        """Whether no other way to lay the pictures over each other need be tried."""
        return self.agreement >= SURE_AGREEMENT and self.inlier_count >= SURE_INLIERS

    @property
    def is_exact(self) -> bool:
        """Whether it is sure, and leaves nothing that more freedom would explain."""
        return self.is_sure and self.agreement >= EXACT_AGREEMENT


def grey_of(pixels: Pixels) -> Grey:
    """Give the luma of RGB, [height, width, 3] → [height, width]; grey stays as it is."""
    if pixels.ndim == 2:  # noqa: PLR2004
        return pixels
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8)


def align(first: View, second: View, *, side_px: int = AGREEMENT_SIDE_PX) -> Aligned | None:
    """Find how the first picture moved to become the second, or a part or the surroundings of it.

    Args:
        first: picture.
        second: picture.
        side_px: long side at which what both show is compared.

    Returns:
        The alignment under which they agree best; None where none makes sense.
    """
    best: Aligned | None = None
    for candidates in (_of_features, _of_mirrored_features, _of_whole_pictures):
        for matrix, inlier_count in candidates(first, second):
            aligned = _judged(first, second, matrix, inlier_count, side_px)
            if aligned is None:
                continue
            if best is None or _weight(aligned) > FREEDOM_GAIN * _weight(best):
                best = aligned
            if best.is_exact:
                break
        if best is not None and best.is_sure:
            break
    return None if best is None else _unbent(best)


def mirror_matrix(width: float) -> Matrix:
    """Give the homography that exchanges left and right."""
    return np.array([[-1.0, 0.0, width], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])


def _weight(aligned: Aligned) -> float:
    """Order alignments: how well they agree, and over how much that can tell anything."""
    return aligned.agreement * (1 + math.log1p(aligned.inlier_count))


def _of_features(first: View, second: View) -> Iterator[tuple[Matrix, int]]:
    yield from _matched(first, first.features, second)


def _of_mirrored_features(first: View, second: View) -> Iterator[tuple[Matrix, int]]:
    width = first.size[0]
    mirror = mirror_matrix(width)
    for matrix, inlier_count in _matched(first, first.features.mirrored(width), second):
        yield matrix @ mirror, inlier_count


def _matched(first: View, features: LocalFeatures, second: View) -> Iterator[tuple[Matrix, int]]:
    """Give the movements that local features tell, those with the least freedom first."""
    matches = match(features, second.features, max_ratio=MAX_RATIO, max_matches=MAX_MATCHES)
    found = geometric_check.align(
        features,
        second.features,
        matches,
        first_size=first.size,
        second_size=second.size,
        rules=RULES,
    )
    if found is None:
        return
    similar = geometric_check.as_similarity(found, features, second.features, matches, rules=RULES)
    if similar is not None:
        yield similar.matrix, similar.inlier_count
    yield found.matrix, found.inlier_count
    bent = geometric_check.with_perspective(
        found, features, second.features, matches, first_size=first.size, rules=RULES
    )
    if bent is not None:
        yield bent.matrix, bent.inlier_count


def _of_whole_pictures(first: View, second: View) -> Iterator[tuple[Matrix, int]]:
    whole = _whole_picture(first, second)
    if whole is not None:
        yield whole, 0


def _whole_picture(first: View, second: View) -> Matrix | None:
    """Find the orientation in which the whole pictures agree best, at thumbnail size."""
    side = THUMBNAIL_PX
    small = [
        cv2.resize(view.grey, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)
        for view in (first, second)
    ]
    best, best_matrix = MIN_THUMBNAIL_CORRELATION, None
    for matrix, turned in _orientations(small[0]):
        correlation = _correlation(turned, small[1])
        if correlation > best:
            best, best_matrix = correlation, matrix
    if best_matrix is None:
        return None
    shrunk = np.diag([side / first.size[0], side / first.size[1], 1.0])
    grown = np.diag([second.size[0] / side, second.size[1] / side, 1.0])
    return grown @ best_matrix @ shrunk


def _orientations(square: Floats) -> Iterator[tuple[Matrix, Floats]]:
    """Give a square picture in its eight orientations, and the homography to each."""
    side = float(len(square))
    quarter = np.array([[0.0, -1.0, side], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])  # clockwise
    mirror = np.array([[-1.0, 0.0, side], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    for matrix, turned in ((np.eye(3), square), (mirror, square[:, ::-1])):
        for _ in range(4):
            yield matrix, turned
            matrix, turned = quarter @ matrix, np.rot90(turned, -1)  # noqa: PLW2901


def _correlation(first: Floats, second: Floats) -> float:
    a, b = first - first.mean(), second - second.mean()
    length = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / length if length > 0 else 0.0


def _judged(
    first: View, second: View, matrix: Matrix, inlier_count: int, side_px: int
) -> Aligned | None:
    shown = geometric_check.visible_shares(matrix, first.size, second.size)
    if min(shown) < MIN_OVERLAP:
        return None
    overlap = lay_over(first, second, matrix, side_px=side_px)
    if overlap is None:
        return None
    agreement, contrast_share = _agreement(overlap)
    return Aligned(
        matrix=matrix,
        inlier_count=inlier_count,
        shown_of_first=shown[0],
        shown_of_second=shown[1],
        overlap=overlap,
        agreement=agreement,
        contrast_share=contrast_share,
    )


def _unbent(aligned: Aligned) -> Aligned:
    """Let neighbouring parts move a little together, where the pictures agree better then.

    Paper that is not flat and lenses bend a picture in ways that no homography follows.
    """
    overlap = aligned.overlap
    height, width = overlap.mask.shape
    if min(height, width) < MIN_BEND_SIDE_PX or aligned.agreement < MIN_BEND_AGREEMENT:
        return aligned
    flow = cv2.GaussianBlur(shifts(overlap), (0, 0), BEND_SMOOTHING_PX)
    most_px = MAX_BEND * max(height, width)
    lengths = np.linalg.norm(flow, axis=2, keepdims=True)
    flow = (flow * np.minimum(1.0, most_px / np.maximum(lengths, 1e-6))).astype(np.float32)
    bent_back = replace(overlap, first=shifted(overlap.first, flow))
    agreement, contrast_share = _agreement(bent_back)
    if agreement <= FREEDOM_GAIN * aligned.agreement:
        return aligned
    bend = float(np.percentile(np.minimum(lengths, most_px), 90)) / max(height, width)
    return replace(
        aligned, overlap=bent_back, agreement=agreement, contrast_share=contrast_share, bend=bend
    )


def shifts(overlap: Overlap) -> Floats:
    """Tell from where in the first picture each pixel of the second comes, [height, width, 2].

    Dense inverse search flow (Kroeger et al., "Fast optical flow using dense inverse search", ECCV
    2016).
    """
    first, second = (
        cv2.GaussianBlur(grey_of(pixels), (0, 0), 1.0) for pixels in (overlap.first, overlap.second)
    )
    searcher = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    flow = searcher.calc(second, first, np.zeros((*overlap.mask.shape, 2), np.float32))
    return np.asarray(cv2.medianBlur(flow, 5), np.float32)


def shifted(pixels: Pixels, flow: Floats) -> Pixels:
    """Take each pixel from as far away as the flow says."""
    height, width = pixels.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    moved = cv2.remap(
        pixels,
        x + flow[..., 0],
        y + flow[..., 1],
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(moved, np.uint8)


def _agreement(overlap: Overlap) -> tuple[float, float]:
    """Give the mean correlation where there is contrast, and the share of the overlap that has."""
    found, has_contrast = correlations(overlap)
    values = np.clip(found[has_contrast], 0.0, 1.0)
    agreement = float(values.mean()) if values.size else 0.0
    return agreement, float(has_contrast.sum() / max(1, overlap.mask.sum()))


def lay_over(first: View, second: View, matrix: Matrix, *, side_px: int) -> Overlap | None:
    """Lay both over each other, no finer than the coarser of them.

    Args:
        first: picture.
        second: picture.
        matrix: homography from the first one's pixels to the second's.
        side_px: long side of what both show, at most.

    Returns:
        What both show; None where that is nothing.
    """
    outline = geometric_check.transform(matrix, geometric_check.corners(first.size))
    left, top = np.maximum(np.floor(outline.min(axis=0)), 0)
    right, bottom = np.minimum(np.ceil(outline.max(axis=0)), second.size)
    width, height = right - left, bottom - top
    if min(width, height) < 2:  # noqa: PLR2004
        return None
    growth = np.sqrt(abs(np.linalg.det(geometric_check.local_affine(matrix, first.size))))
    factor = min(1.0, 1.0 / growth, side_px / max(width, height))
    factor = max(factor, min(1.0, MIN_AGREEMENT_SIDE_PX / min(width, height)))
    size = (max(2, round(width * factor)), max(2, round(height * factor)))
    into = np.diag([size[0] / width, size[1] / height, 1.0]) @ np.array(
        [[1.0, 0.0, -left], [0.0, 1.0, -top], [0.0, 0.0, 1.0]]
    )
    moved_first, first_mask = warped(first.pixels, into @ matrix, size)
    moved_second, second_mask = warped(second.pixels, into, size)
    return Overlap(moved_first, moved_second, first_mask & second_mask, into @ matrix, into)


def warped(pixels: Pixels, matrix: Matrix, size: Size) -> tuple[Pixels, Mask]:
    """Move a picture by a homography, averaging what it shrinks.

    Args:
        pixels: of the picture.
        matrix: from its pixels to those of the result.
        size: width and height of the result.

    Returns:
        The moved picture and where it has pixels.
    """
    height, width = pixels.shape[:2]
    growth = np.sqrt(abs(np.linalg.det(geometric_check.local_affine(matrix, (width, height)))))
    if growth < 1:
        small = (max(2, round(width * growth)), max(2, round(height * growth)))
        pixels = np.asarray(cv2.resize(pixels, small, interpolation=cv2.INTER_AREA), np.uint8)
        matrix = matrix @ np.diag([width / small[0], height / small[1], 1.0])
        width, height = small
    # From pixel edges, in which corners are counted, to the middles of pixels and back.
    half = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]])
    centred = np.linalg.inv(half) @ matrix @ half
    moved = cv2.warpPerspective(
        pixels, centred, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    inside = cv2.warpPerspective(
        np.full((height, width), 255, np.uint8), centred, size, flags=cv2.INTER_NEAREST
    )
    return np.asarray(moved, np.uint8), inside > 0


def correlations(overlap: Overlap) -> tuple[Floats, Mask]:
    """Correlate the grey levels of windows around every pixel.

    Returns:
        Correlations from -1 to 1, and where they tell anything: both [height, width].
    """
    first, second = (
        cv2.GaussianBlur(grey_of(pixels).astype(np.float32), (0, 0), SMOOTHING_PX)
        for pixels in (overlap.first, overlap.second)
    )
    mask = overlap.mask.astype(np.float32)
    weight = np.maximum(_windowed(mask), 1e-6)
    mean_first, mean_second = _windowed(first * mask) / weight, _windowed(second * mask) / weight
    variance_first = _windowed(first * first * mask) / weight - mean_first**2
    variance_second = _windowed(second * second * mask) / weight - mean_second**2
    covariance = _windowed(first * second * mask) / weight - mean_first * mean_second
    high = np.maximum(variance_first, variance_second)
    length = np.sqrt(np.maximum(variance_first, 1e-3) * np.maximum(variance_second, 1e-3))
    found = np.asarray(covariance / length, np.float32)
    return found, overlap.mask & (high >= MIN_CONTRAST**2)


def _windowed(values: Floats) -> Floats:
    return np.asarray(
        cv2.boxFilter(values, cv2.CV_32F, (WINDOW_PX, WINDOW_PX), borderType=cv2.BORDER_REFLECT),
        np.float32,
    )
