"""Edits of the pixels in an overlap: colors, detail, covered parts."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt

from imagesearch_services.embedding.comparison.edit import Edit
from imagesearch_services.embedding.comparison.overlap import Overlap
from imagesearch_services.embedding.comparison.view import Floats, Mask

GREY_CHROMA = 4.0
"""Maximum mean chroma of a picture without colors, levels."""
CHROMA_CHANGE = 6.0
"""Mean difference of chroma from which colors have changed other than in saturation, levels."""
SATURATION_FACTOR = 1.4
"""Factor from which saturation has changed."""
SHIFT = 14.0
"""Change of the mean grey level from which brightness has changed, levels."""
GAIN_FACTOR = 1.3
"""Factor of the contrast from which brightness has changed."""
BLUR_FACTOR = 0.65
"""Maximum share of edge detail in a blurred copy."""
DETAIL_FACTOR = 1.8
"""Minimum growth of fine detail by noise or sharpening."""
DETAIL_CORRELATION = 0.9
"""Correlation of the fine detail below which added detail is noise."""
OVERLAID_LEVELS = 18.0
"""Minimum difference between a cover and the covered pixels, grey levels."""
OVERLAID_SHARE = (0.002, 0.5)
"""Range of the covered share of an overlap."""
OVERLAY_EDGE_PX = 6
"""Distance over which a cover, or the surroundings of a pasted picture, affect smoothed pixels."""
EDGE_PX = 2
"""Width of the rim of the overlap that is ignored."""
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of red, green and blue (ITU-R BT.601)."""
SAMPLED = 3
"""Subsampling factor of the pixels that the color fit uses."""
BLURRED_REACH_PX = 10
"""Maximum displacement of a grey level in a blurred or bent copy."""
FITS = 3
"""Iterations of a robust fit; each ignores the outliers of the fit before."""


def pixel_edits(overlap: Overlap, *, is_bent: bool = False) -> Iterator[Edit]:
    """Yield the edits that changed the pixels of an overlap.

    Args:
        overlap: two aligned pictures.
        is_bent: the alignment was refined by displacements, so that some pixels are misplaced.
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
    """Return the mask without a rim of this width."""
    padded = np.pad(mask.astype(np.uint8), edge_px)
    eroded = cv2.erode(padded, _square(edge_px))
    return np.asarray(eroded[edge_px:-edge_px, edge_px:-edge_px] > 0)


def _dilated(mask: Mask, reach_px: int) -> Mask:
    return np.asarray(cv2.dilate(mask.astype(np.uint8), _square(reach_px)) > 0)


def _square(reach_px: int) -> npt.NDArray[np.uint8]:
    return np.ones((2 * reach_px + 1,) * 2, np.uint8)


def _smooth(values: Floats, sigma_px: float) -> Floats:
    return np.asarray(cv2.GaussianBlur(values, (0, 0), sigma_px), np.float32)


def _covered(expected: Floats, levels: Floats, reach_px: int, least: float) -> Mask:
    """Return the pixels that differ by more than `least` from all expected levels within reach."""
    kernel = _square(reach_px)
    expected, levels = _smooth(expected, 1.0), _smooth(levels, 1.0)
    low, high = cv2.erode(expected, kernel), cv2.dilate(expected, kernel)
    return (levels < low - least) | (levels > high + least)


def _expected_luma(overlap: Overlap, mask: Mask) -> Floats:
    """Return the luma that the first picture's colors have in the second, [height, width].

    A filter may make reds dark and blues bright, so each channel is fitted as a linear function of
    all three channels, clipped to the range of levels.
    """
    first, second = overlap.first.astype(np.float32), overlap.second.astype(np.float32)
    samples = _smooth(first, 2.0)[mask][::SAMPLED]
    targets = _smooth(second, 2.0)[mask][::SAMPLED]
    design = np.column_stack([samples, np.ones(len(samples), np.float32)])
    channels = [_linear_fit(design, channel) for channel in targets.T]
    expected = [np.clip(first @ weights[:3] + weights[3], 0, 255) for weights in channels]
    return np.asarray(np.tensordot(LUMA, expected, axes=1), np.float32)


def _linear_fit(design: Floats, values: Floats) -> Floats:
    """Return the weights of a robust least-squares fit, [samples, n] → [n]."""
    kept = np.ones(len(values), bool)
    weights = np.zeros(design.shape[1], np.float32)
    for _ in range(FITS):
        weights = np.linalg.lstsq(design[kept], values[kept], rcond=1e-6)[0]
        errors = np.abs(values - design @ weights)
        kept = _inliers(errors)
    return weights


def _grey_fit(first: Floats, second: Floats) -> tuple[float, float]:
    """Return gain and shift of a robust linear fit of grey levels, which ignores covered pixels."""
    kept = np.ones(first.shape, bool)
    gain, shift = 1.0, 0.0
    for _ in range(FITS):
        a, b = first[kept], second[kept]
        variance = float(a.var())
        gain = float(((a - a.mean()) * (b - b.mean())).mean() / variance) if variance > 1 else 1.0
        shift = float(b.mean() - gain * a.mean())
        errors = np.abs(second - gain * first - shift)
        kept = _inliers(errors)
    return gain, shift


def _inliers(errors: Floats) -> Mask:
    """Return the samples with a small residual."""
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
    """Yield the edits of detail finer than one pixel: at edges, and in flat parts."""
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
    """Return the factor by which detail grows from the first to the second, at a quantile."""
    before, after = (
        float(np.quantile(np.abs(detail), quantile)) + 0.5 for detail in (first, second)
    )
    return after / before
