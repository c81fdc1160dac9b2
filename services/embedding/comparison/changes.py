"""What became of the pixels that both pictures show: colours, detail, what was laid on them."""

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
"""Mean distance from grey, of levels, in a picture without colours."""
CHROMA_CHANGE = 6.0
"""Mean distance between colours that no change of saturation explains, levels."""
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
OVERLAID_SHARE = (0.003, 0.5)
OVERLAY_EDGE_PX = 5
"""How far from it what lies on a picture changes the smoothed colours."""
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
    mask = cv2.erode(overlap.mask.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    if mask.sum() < 64:  # noqa: PLR2004  # nothing to tell by
        return
    first, second = (
        np.asarray(cv2.cvtColor(each, cv2.COLOR_RGB2YCrCb), np.float32)
        for each in (overlap.first, overlap.second)
    )
    smooth_first, smooth_second = _smooth(first, 2.0), _smooth(second, 2.0)
    gain, shift = _grey_fit(smooth_first[..., 0][mask], smooth_second[..., 0][mask])
    detail = list(_detail_changes(first[..., 0], second[..., 0], mask, gain))
    expected = _expected_luma(first, smooth_first[mask], smooth_second[..., 0][mask])
    is_blurred = any(each.name == "blurred" for each in detail)
    reach_px = VAGUE_REACH_PX if is_blurred or is_bent else 1
    covered = _covered(expected, second[..., 0], reach_px, OVERLAID_LEVELS * max(1.0, gain))
    share = float(covered[mask].mean())
    is_overlaid = OVERLAID_SHARE[0] <= share <= OVERLAID_SHARE[1]
    clear = mask & ~_near(covered, OVERLAY_EDGE_PX) if is_overlaid else mask
    if clear.sum() < mask.sum() / 4:
        clear = mask
    yield from _color_changes(smooth_first[clear], smooth_second[clear], gain, shift)
    yield from detail
    if is_overlaid:
        yield Edit("overlaid", share)


def _smooth(values: Floats, sigma_px: float) -> Floats:
    return np.asarray(cv2.GaussianBlur(values, (0, 0), sigma_px), np.float32)


def _near(places: Mask, reach_px: int) -> Mask:
    around = np.ones((2 * reach_px + 1,) * 2, np.uint8)
    return np.asarray(cv2.dilate(places.astype(np.uint8), around) > 0)


def _covered(expected: Floats, levels: Floats, reach_px: int, least: float) -> Mask:
    """Say where grey levels are at least so far from any that are expected within reach."""
    near = np.ones((2 * reach_px + 1,) * 2, np.uint8)
    expected, levels = _smooth(expected, 1.0), _smooth(levels, 1.0)
    low, high = cv2.erode(expected, near), cv2.dilate(expected, near)
    return (levels < low - least) | (levels > high + least)


def _expected_luma(first: Floats, samples: Floats, luma: Floats) -> Floats:
    """Give the grey levels that the first picture's colours became, [height, width].

    A filter may make reds dark and blues bright: a linear function of all three channels.

    Args:
        first: luma and two differences of colour, [height, width, 3].
        samples: of it, [samples, 3].
        luma: of the second picture at the same places, [samples].
    """
    design = np.column_stack([samples, np.ones(len(samples), np.float32)])
    kept = np.ones(len(samples), bool)
    weights = np.zeros(4, np.float32)
    for _ in range(FITS):
        weights = np.linalg.lstsq(design[kept], luma[kept], rcond=1e-6)[0]
        errors = np.abs(luma - design @ weights)
        kept = errors <= max(4.0, 2 * float(np.median(errors)))
    return np.asarray(np.clip(first @ weights[:3] + weights[3], 0, 255), np.float32)


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
        kept = errors <= max(4.0, 2 * float(np.median(errors)))
    return gain, shift


def _color_changes(first: Floats, second: Floats, gain: float, shift: float) -> Iterator[Edit]:
    """Compare [pixels, 3] in luma and two differences of colour."""
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
