"""Detects the edits that changed pixels in an overlap: colors, detail and covered parts."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt

from imagesearch_services.embedding.comparison.edit import Edit
from imagesearch_services.embedding.comparison.overlap import Overlap
from imagesearch_services.embedding.comparison.view import Floats, Mask

GREY_CHROMA = 4.0
"""Maximum mean chroma of a greyscale picture, levels."""
CHROMA_CHANGE = 6.0
"""Minimum mean chroma difference that a change of saturation does not explain, for a picture to
count as recolored, levels."""
SATURATION_FACTOR = 1.4
"""Minimum factor by which saturation must change for a picture to count as recolored."""
SHIFT = 14.0
"""Minimum change of the mean grey level that counts as changed brightness, levels."""
GAIN_FACTOR = 1.3
"""Minimum factor of the contrast that counts as changed brightness."""
BLUR_FACTOR = 0.65
"""Maximum share of the edge detail that remains in a blurred copy."""
DETAIL_FACTOR = 1.8
"""Minimum factor by which noise or sharpening increases fine detail."""
DETAIL_CORRELATION = 0.9
"""Correlation of the fine detail below which added detail is noise, not sharpening."""
OVERLAID_LEVELS = 18.0
"""Minimum difference between a cover and the covered pixels, grey levels."""
OVERLAID_SHARE = (0.002, 0.5)
"""Minimum and maximum covered share of an overlap."""
OVERLAY_EDGE_PX = 6
"""Distance at which a cover, or the surroundings of a pasted picture, still affect smoothed pixels.
"""
EDGE_PX = 2
"""Width of the margin inside the overlap's outline that is ignored, in pixels."""
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of red, green and blue (ITU-R BT.601)."""
SAMPLE_STRIDE = 3
"""Stride of the pixels that the color fit uses."""
BLURRED_REACH_PX = 10
"""Maximum displacement of a grey level in a blurred or bent copy, in pixels."""
FIT_ITERATIONS = 3
"""Iterations of a robust fit; each ignores the outliers of the previous fit."""


def pixel_edits(overlap: Overlap, *, is_bent: bool = False) -> Iterator[Edit]:
    """Yield the edits that changed the pixels of an overlap.

    Args:
        overlap: two aligned pictures.
        is_bent: whether the alignment was refined by displacements, which misplace some pixels.
    """
    mask = _inside(overlap.mask, EDGE_PX)
    if mask.sum() < 64:  # noqa: PLR2004  # too few pixels
        return
    first, second = (
        np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2YCrCb), np.float32)
        for pixels in (overlap.first, overlap.second)
    )
    smooth_first, smooth_second = _smooth(first, 2.0), _smooth(second, 2.0)
    gain, shift = _grey_fit(smooth_first[..., 0][mask], smooth_second[..., 0][mask])
    detail = list(_detail_changes(first[..., 0], second[..., 0], mask, gain))
    is_blurred = any(edit.name == "blurred" for edit in detail)
    reach_px = BLURRED_REACH_PX if is_blurred or is_bent else 1
    expected = _expected_luma(overlap, mask)
    covered = _covered(expected, second[..., 0], reach_px, OVERLAID_LEVELS * max(1.0, gain))
    inside = _inside(overlap.mask, OVERLAY_EDGE_PX)
    share = float(covered[inside].mean()) if inside.any() else 0.0
    is_overlaid = OVERLAID_SHARE[0] <= share <= OVERLAID_SHARE[1]
    clear = mask & ~_dilated(covered, OVERLAY_EDGE_PX) if is_overlaid else mask
    if clear.sum() < mask.sum() / 4:
        clear = mask
    yield from _color_changes(smooth_first[clear], smooth_second[clear], gain, shift)
    yield from detail
    if is_overlaid:
        yield Edit("overlaid", share)


def _inside(mask: Mask, edge_px: int) -> Mask:
    """Erode the mask by this width; the picture's border counts as outside."""
    padded = np.pad(mask.astype(np.uint8), edge_px)
    eroded = cv2.erode(padded, _square(edge_px))
    return np.asarray(eroded[edge_px:-edge_px, edge_px:-edge_px] > 0)


def _dilated(mask: Mask, reach_px: int) -> Mask:
    return np.asarray(cv2.dilate(mask.astype(np.uint8), _square(reach_px)) > 0)


def _square(reach_px: int) -> npt.NDArray[np.uint8]:
    return np.ones((2 * reach_px + 1,) * 2, np.uint8)


def _smooth(values: Floats, sigma_px: float) -> Floats:
    return np.asarray(cv2.GaussianBlur(values, (0, 0), sigma_px), np.float32)


def _covered(expected: Floats, levels: Floats, reach_px: int, min_difference: float) -> Mask:
    """Return the pixels farther than `min_difference` from all expected levels within reach."""
    kernel = _square(reach_px)
    expected, levels = _smooth(expected, 1.0), _smooth(levels, 1.0)
    low, high = cv2.erode(expected, kernel), cv2.dilate(expected, kernel)
    return (levels < low - min_difference) | (levels > high + min_difference)


def _expected_luma(overlap: Overlap, mask: Mask) -> Floats:
    """Predict the luma of the second picture from the first picture's colors, [height, width].

    A filter may make reds dark and blues bright, so each channel is fitted as a linear function of
    all three channels, clipped to the range of levels.
    """
    first, second = overlap.first.astype(np.float32), overlap.second.astype(np.float32)
    samples = _smooth(first, 2.0)[mask][::SAMPLE_STRIDE]
    targets = _smooth(second, 2.0)[mask][::SAMPLE_STRIDE]
    design = np.column_stack([samples, np.ones(len(samples), np.float32)])
    channels = [_linear_fit(design, channel) for channel in targets.T]
    expected = [np.clip(first @ weights[:3] + weights[3], 0, 255) for weights in channels]
    return np.asarray(np.tensordot(LUMA, expected, axes=1), np.float32)


def _linear_fit(design: Floats, values: Floats) -> Floats:
    """Return the weights of a robust least-squares fit, [samples, n] → [n]."""
    kept = np.ones(len(values), bool)
    weights = np.zeros(design.shape[1], np.float32)
    for _ in range(FIT_ITERATIONS):
        weights = np.linalg.lstsq(design[kept], values[kept], rcond=1e-6)[0]
        errors = np.abs(values - design @ weights)
        kept = _inliers(errors)
    return weights


def _grey_fit(first: Floats, second: Floats) -> tuple[float, float]:
    """Return gain and shift of a robust linear fit of grey levels; covered pixels are outliers."""
    kept = np.ones(first.shape, bool)
    gain, shift = 1.0, 0.0
    for _ in range(FIT_ITERATIONS):
        a, b = first[kept], second[kept]
        variance = float(a.var())
        gain = float(((a - a.mean()) * (b - b.mean())).mean() / variance) if variance > 1 else 1.0
        shift = float(b.mean() - gain * a.mean())
        errors = np.abs(second - gain * first - shift)
        kept = _inliers(errors)
    return gain, shift


def _inliers(errors: Floats) -> Mask:
    """Return the mask of the samples with a small residual."""
    return np.asarray(errors <= max(4.0, 2 * float(np.median(errors))))


def _color_changes(first: Floats, second: Floats, gain: float, shift: float) -> Iterator[Edit]:
    """Yield the edits of colors, from smoothed YCrCb pixels, [pixels, 3]."""
    mean_change = gain * float(first[:, 0].mean()) + shift - float(first[:, 0].mean())
    if abs(mean_change) > SHIFT or not 1 / GAIN_FACTOR < gain < GAIN_FACTOR:
        yield Edit("brightness_changed", gain)
    color_first, color_second = first[:, 1:] - 128, second[:, 1:] - 128
    chroma_first, chroma_second = (
        float(np.linalg.norm(color, axis=1).mean()) for color in (color_first, color_second)
    )
    if min(chroma_first, chroma_second) < GREY_CHROMA:
        if max(chroma_first, chroma_second) > 1.5 * GREY_CHROMA:
            yield Edit("greyscale" if chroma_second < chroma_first else "recoloured")
        return
    factor = float((color_first * color_second).sum() / max(float((color_first**2).sum()), 1e-6))
    distance = float(np.linalg.norm(color_second - factor * color_first, axis=1).mean())
    relative = factor / max(abs(gain), 1e-3)
    if distance > CHROMA_CHANGE or not 1 / SATURATION_FACTOR < relative < SATURATION_FACTOR:
        yield Edit("recoloured")


def _detail_changes(first: Floats, second: Floats, mask: Mask, gain: float) -> Iterator[Edit]:
    """Yield the edits that changed detail finer than one pixel: blur, noise or sharpening."""
    a, b = (
        (luma - _smooth(luma, 1.0))[mask] * factor
        for luma, factor in ((first, abs(gain) or 1.0), (second, 1.0))
    )
    edges, flats = (_growth(a, b, quantile) for quantile in (0.9, 0.5))
    length = float(np.sqrt((a * a).sum() * (b * b).sum()))
    correlation = float((a * b).sum()) / length if length > 0 else 1.0
    if edges < BLUR_FACTOR:
        yield Edit("blurred", edges)
    elif flats > DETAIL_FACTOR and correlation < DETAIL_CORRELATION:
        yield Edit("noisy", flats)
    elif edges > DETAIL_FACTOR and correlation >= DETAIL_CORRELATION:
        yield Edit("sharpened", edges)


def _growth(first: Floats, second: Floats, quantile: float) -> float:
    """Return the factor by which a quantile of the detail grows from the first to the second."""
    before, after = (
        float(np.quantile(np.abs(detail), quantile)) + 0.5 for detail in (first, second)
    )
    return after / before
