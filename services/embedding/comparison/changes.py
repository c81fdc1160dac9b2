"""What became of the pixels that both pictures show: colors, detail, what was laid on them."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt

from imagesearch_services.embedding.comparison.alignment import Overlap
from imagesearch_services.embedding.comparison.edit import Edit

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

GREY_CHROMA = 4.0
"""Mean distance from grey, of levels, in a picture without colors."""
CHROMA_CHANGE = 6.0
"""Mean distance between colors that no change of saturation explains, levels."""
SATURATION_FACTOR = 1.4
SHIFT = 14.0
"""Of the mean grey level."""
GAIN_FACTOR = 1.3
BLUR_FACTOR = 0.65
"""Detail of its edges that a blurred copy keeps, at most."""
DETAIL_FACTOR = 1.8
"""Fine detail that noise or sharpening add, at least."""
DETAIL_CORRELATION = 0.9
"""Of the fine detail of both, below which what was added is noise."""
OVERLAID_LEVELS = 18.0
"""Grey levels between what lies on a picture and what it covers."""
OVERLAID_SHARE = (0.002, 0.5)
OVERLAY_EDGE_PX = 6
"""How far from it what lies on a picture changes what is smoothed; and so does what was around a
picture that was pasted."""
EDGE_PX = 2
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Of red, green and blue (ITU-R BT.601)."""
SAMPLED = 3
"""Of so many pixels each first one tells what became of the colors."""
VAGUE_REACH_PX = 10
"""How far from its place a grey level may be in what is blurred or bent."""
FITS = 3
"""Each without what lies far from the one before."""


def changes(overlap: Overlap, *, is_bent: bool = False) -> Iterator[Edit]:
    """Tell what became of the pixels that both show.

    Args:
        overlap: of two aligned pictures.
        is_bent: parts had to be bent to agree, so that some are still off their place.
    """
    mask = _inside(overlap.mask, EDGE_PX)
    if mask.sum() < 64:  # noqa: PLR2004  # nothing to tell by
        return
    first, second = (
        np.asarray(cv2.cvtColor(each, cv2.COLOR_RGB2YCrCb), np.float32)
        for each in (overlap.first, overlap.second)
    )
    smooth_first, smooth_second = _smooth(first, 2.0), _smooth(second, 2.0)
    gain, shift = _grey_fit(smooth_first[..., 0][mask], smooth_second[..., 0][mask])
    detail = list(_detail_changes(first[..., 0], second[..., 0], mask, gain))
    is_blurred = any(each.name == "blurred" for each in detail)
    reach_px = VAGUE_REACH_PX if is_blurred or is_bent else 1
    expected = _expected_luma(overlap, mask)
    covered = _covered(expected, second[..., 0], reach_px, OVERLAID_LEVELS * max(1.0, gain))
    inside = _inside(overlap.mask, OVERLAY_EDGE_PX)
    share = float(covered[inside].mean()) if inside.any() else 0.0
    is_overlaid = OVERLAID_SHARE[0] <= share <= OVERLAID_SHARE[1]
    clear = mask & ~_near(covered, OVERLAY_EDGE_PX) if is_overlaid else mask
    if clear.sum() < mask.sum() / 4:
        clear = mask
    yield from _color_changes(smooth_first[clear], smooth_second[clear], gain, shift)
    yield from detail
    if is_overlaid:
        yield Edit("overlaid", share)


def _inside(mask: Mask, edge_px: int) -> Mask:
    """Give what is farther from the end of what both show than that."""
    padded = np.pad(mask.astype(np.uint8), edge_px)
    eroded = cv2.erode(padded, _square(edge_px))
    return np.asarray(eroded[edge_px:-edge_px, edge_px:-edge_px] > 0)


def _near(places: Mask, reach_px: int) -> Mask:
    return np.asarray(cv2.dilate(places.astype(np.uint8), _square(reach_px)) > 0)


def _square(reach_px: int) -> npt.NDArray[np.uint8]:
    return np.ones((2 * reach_px + 1,) * 2, np.uint8)


def _smooth(values: Floats, sigma_px: float) -> Floats:
    return np.asarray(cv2.GaussianBlur(values, (0, 0), sigma_px), np.float32)


def _covered(expected: Floats, levels: Floats, reach_px: int, least: float) -> Mask:
    """Say where grey levels are at least so far from any that are expected within reach."""
    near = _square(reach_px)
    expected, levels = _smooth(expected, 1.0), _smooth(levels, 1.0)
    low, high = cv2.erode(expected, near), cv2.dilate(expected, near)
    return (levels < low - least) | (levels > high + least)


def _expected_luma(overlap: Overlap, mask: Mask) -> Floats:
    """Give the grey levels that the first picture's colors became, [height, width].

    A filter may make reds dark and blues bright: each channel is a linear function of all three, as
    far as there are levels for it.
    """
    first, second = overlap.first.astype(np.float32), overlap.second.astype(np.float32)
    samples = _smooth(first, 2.0)[mask][::SAMPLED]
    became = _smooth(second, 2.0)[mask][::SAMPLED]
    design = np.column_stack([samples, np.ones(len(samples), np.float32)])
    channels = [_linear_fit(design, each) for each in became.T]
    expected = [np.clip(first @ each[:3] + each[3], 0, 255) for each in channels]
    return np.asarray(np.tensordot(LUMA, expected, axes=1), np.float32)


def _linear_fit(design: Floats, values: Floats) -> Floats:
    """Fit by least squares what most of the samples follow, [samples, n] → [n]."""
    kept = np.ones(len(values), bool)
    weights = np.zeros(design.shape[1], np.float32)
    for _ in range(FITS):
        weights = np.linalg.lstsq(design[kept], values[kept], rcond=1e-6)[0]
        errors = np.abs(values - design @ weights)
        kept = _followed(errors)
    return weights


def _grey_fit(first: Floats, second: Floats) -> tuple[float, float]:
    """Fit grey levels by a line, so that what lies on one of them has no say."""
    kept = np.ones(first.shape, bool)
    gain, shift = 1.0, 0.0
    for _ in range(FITS):
        a, b = first[kept], second[kept]
        variance = float(a.var())
        gain = float(((a - a.mean()) * (b - b.mean())).mean() / variance) if variance > 1 else 1.0
        shift = float(b.mean() - gain * a.mean())
        errors = np.abs(second - gain * first - shift)
        kept = _followed(errors)
    return gain, shift


def _followed(errors: Floats) -> Mask:
    """Say which samples follow a fit, by how many levels they are off: the rest has no say."""
    return np.asarray(errors <= max(4.0, 2 * float(np.median(errors))))


def _color_changes(first: Floats, second: Floats, gain: float, shift: float) -> Iterator[Edit]:
    """Compare [pixels, 3] in luma and two differences of color."""
    moved = gain * float(first[:, 0].mean()) + shift - float(first[:, 0].mean())
    if abs(moved) > SHIFT or not 1 / GAIN_FACTOR < gain < GAIN_FACTOR:
        yield Edit("brightness_changed", gain)
    of_first, of_second = first[:, 1:] - 128, second[:, 1:] - 128
    chroma_first, chroma_second = (
        float(np.linalg.norm(each, axis=1).mean()) for each in (of_first, of_second)
    )
    if min(chroma_first, chroma_second) < GREY_CHROMA:
        if max(chroma_first, chroma_second) > 1.5 * GREY_CHROMA:
            yield Edit("greyscale" if chroma_second < chroma_first else "recoloured")
        return
    factor = float((of_first * of_second).sum() / max(float((of_first**2).sum()), 1e-6))
    distance = float(np.linalg.norm(of_second - factor * of_first, axis=1).mean())
    relative = factor / max(abs(gain), 1e-3)
    if distance > CHROMA_CHANGE or not 1 / SATURATION_FACTOR < relative < SATURATION_FACTOR:
        yield Edit("recoloured")


def _detail_changes(first: Floats, second: Floats, mask: Mask, gain: float) -> Iterator[Edit]:
    """Compare what is finer than the smoothing leaves: on edges, and where there is little."""
    a, b = (
        (each - _smooth(each, 1.0))[mask] * factor
        for each, factor in ((first, abs(gain) or 1.0), (second, 1.0))
    )
    edges, flats = (_growth(a, b, share) for share in (0.9, 0.5))
    length = float(np.sqrt((a * a).sum() * (b * b).sum()))
    correlation = float((a * b).sum()) / length if length > 0 else 1.0
    if edges < BLUR_FACTOR:
        yield Edit("blurred", edges)
    elif flats > DETAIL_FACTOR and correlation < DETAIL_CORRELATION:
        yield Edit("noisy", flats)
    elif edges > DETAIL_FACTOR and correlation >= DETAIL_CORRELATION:
        yield Edit("sharpened", edges)


def _growth(first: Floats, second: Floats, share: float) -> float:
    """Say how many times more detail the second has, at that share of the pixels."""
    amounts = (float(np.quantile(np.abs(each), share)) + 0.5 for each in (second, first))
    return next(amounts) / next(amounts)
