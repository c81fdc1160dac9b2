"""Finds the subjects of a picture: garments in the parser's maps, otherwise the salient object."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from imagesearch_services.common.types import Box, Category, Color
from imagesearch_services.embedding.pictures.picture import Picture
from imagesearch_services.embedding.pictures.preprocess import InputSpec, letterboxed
from imagesearch_services.embedding.subjects.clothing import (
    CATEGORY_CLASSES,
    MIN_SCORES,
    MIN_SCORES_WITH_PERSON,
    SUBJECT_MAP,
    Garment,
    find_garments,
)
from imagesearch_services.embedding.subjects.colors import Gains, illuminant_gains, name_colors
from imagesearch_services.embedding.subjects.plain_background import foreground_mask
from imagesearch_services.embedding.subjects.second_pass import Shares, body_halves, merge_maps

CLASSES = max(max(classes) for classes in CATEGORY_CLASSES) + 1
"""Number of the parser's classes: background, person and clothing."""

MIN_OBJECT_PROBABILITY = 0.5
"""Saliency above which a cell belongs to an object that is not clothing."""
MIN_OBJECT_AREA = 0.01
"""Minimum area of an object's largest component, as a share of the searched box."""
COMPONENT_SHARE = 0.1
"""Minimum area of a connected component of an object, as a share of the largest component's area.
"""
MAX_DETAIL_AREA = 0.2
"""Total area of garments, as a share of the searched box, below which they may be details of a
larger object, such as prints on a package."""
MIN_WORN_SHARE = 0.3
"""Minimum share of clothing and person among the cells of an object that is a dressed person."""
MIN_GARMENTS_SHARE = 0.05
"""Minimum area of garments on a dressed person, as a share of the object. It excludes animals,
whose fur resembles skin and hair."""
MIN_FOREGROUND_SHARE = 0.2
"""Minimum area of the foreground in a requested box, as a share of the box, for the foreground to
be the subject; a smaller foreground is a mark on the subject."""
MASK_SIDE_PX = 256
"""Maximum long side at which an object that is not clothing is segmented, in pixels."""
COLORS_SIDE_PX = 256
"""Maximum long side of a picture whose colors are named, in pixels."""

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class FoundSubject:
    """A subject before its colors and attributes are known."""

    box: Box
    """Bounding box of the subject, in pixels of the picture as shown."""
    garment_category: Category | None
    """Category of a garment, from the parser; None for other objects."""
    score: float
    """Confidence that the box shows a subject (of that category), 0 to 1."""
    mask: Mask
    """Mask of the subject over the box, at any resolution, [rows, columns]."""


def second_pass_boxes(within: Box, maps: Floats, spec: InputSpec, stride: int) -> list[Box]:
    """Return the boxes for the parser's second pass, in which it processes them enlarged.

    The arguments are those of `find_subjects`.

    Returns:
        Boxes in pixels of the picture as shown; empty if the parser finds no person.
    """
    halves = body_halves(without_letterbox(maps, within, spec, stride))
    return [_absolute_box(within, half) for half in halves]


def find_subjects(
    picture: Picture,
    within: Box,
    maps: Floats,
    spec: InputSpec,
    stride: int,
    *,
    second_pass: Sequence[tuple[Box, Floats]] = (),
    dress_log_odds: float = 0.0,
) -> list[FoundSubject]:
    """Find garments or, if nobody wears any, the most salient object.

    Args:
        picture: decoded picture.
        within: the searched box, in pixels of the picture as shown.
        maps: the parser's maps of `within`, letterboxed, float32 [maps, height, width].
        spec: input of the parser.
        stride: pixels of the parser's input per cell of its maps, along each side.
        second_pass: the boxes of the second pass (see `second_pass_boxes`) and their maps.
        dress_log_odds: log odds that the person wears a dress, from the parser.

    Returns:
        The subjects, the main subject first; empty if there is no salient object.
    """
    merged = merge_maps(
        without_letterbox(maps, within, spec, stride),
        [
            (_relative_box(within, box), without_letterbox(part, box, spec, stride))
            for box, part in second_pass
        ],
    )
    if second_pass:
        garments = find_garments(
            merged[:CLASSES], MIN_SCORES_WITH_PERSON, dress_log_odds=dress_log_odds
        )
    else:
        garments = find_garments(merged[:CLASSES], MIN_SCORES)
    found_object = None
    garments_area = sum(garment.area for garment in garments)
    if garments_area < MAX_DETAIL_AREA:
        found_object = _find_object(crop_box(picture, within, MASK_SIDE_PX), merged[SUBJECT_MAP])
    if found_object is None or (
        garments and _is_dressed_person(found_object.mask, garments_area, merged)
    ):
        return [_garment_subject(within, garment) for garment in garments]
    return [_object_subject(within, found_object)]


def subject_colors(picture: Picture, subject: FoundSubject) -> list[Color]:
    """Name the colors of a subject."""
    pixels = crop_box(picture, subject.box, COLORS_SIDE_PX)
    height, width = pixels.shape[:2]
    mask = cv2.resize(
        subject.mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST
    )
    return name_colors(pixels, mask > 0, _gains(picture))


def box_colors(picture: Picture, box: Box) -> list[Color]:
    """Name the colors in a box; a plain background is ignored."""
    pixels = crop_box(picture, box, COLORS_SIDE_PX)
    mask = foreground_mask(pixels)
    if mask is None or mask.mean() < MIN_FOREGROUND_SHARE:
        mask = np.ones(pixels.shape[:2], np.bool_)
    return name_colors(pixels, mask, _gains(picture))


def _gains(picture: Picture) -> Gains:
    whole = Box(0, 0, picture.width, picture.height)
    return illuminant_gains(crop_box(picture, whole, COLORS_SIDE_PX))


def crop_box(picture: Picture, box: Box, side_px: int) -> npt.NDArray[np.uint8]:
    """Crop a box, reduced to a long side of at most `side_px`; uint8 RGB, [height, width, 3]."""
    inner = box.scaled(picture.x_scale, picture.y_scale)
    left, top = math.floor(inner.x_min), math.floor(inner.y_min)
    right = max(left + 1, min(picture.image.width, math.ceil(inner.x_max)))
    bottom = max(top + 1, min(picture.image.height, math.ceil(inner.y_max)))
    part = picture.image.crop((left, top, right, bottom))
    factor = side_px / max(part.size)
    if factor < 1:
        size = (max(1, round(part.width * factor)), max(1, round(part.height * factor)))
        part = part.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    return np.asarray(part)


def without_letterbox(maps: Floats, within: Box, spec: InputSpec, stride: int) -> Floats:
    """Crop maps to the cells that show the picture, [maps, rows, columns]."""
    left, top, width, height = letterboxed(within, spec)
    rows = slice(round(top / stride), max(round(top / stride) + 1, round((top + height) / stride)))
    columns = slice(
        round(left / stride), max(round(left / stride) + 1, round((left + width) / stride))
    )
    return maps[:, rows, columns]


def _garment_subject(within: Box, garment: Garment) -> FoundSubject:
    return FoundSubject(
        _absolute_box(within, garment.box),
        garment.category,
        min(1.0, garment.score),
        _crop_mask(garment.mask, garment.box),
    )


def _object_subject(within: Box, found: _Object) -> FoundSubject:
    bounds = _mask_bounds(found.mask)
    mask = _crop_mask(found.mask, bounds)
    return FoundSubject(_absolute_box(within, bounds), None, found.score, mask)


def _is_dressed_person(mask: Mask, garments_area: float, maps: Floats) -> bool:
    """Return whether an object is mostly clothing or person, and wears enough garments."""
    if garments_area < MIN_GARMENTS_SHARE * mask.mean():
        return False
    worn = (maps[:CLASSES].argmax(axis=0) > 0).astype(np.float32)
    worn = cv2.resize(worn, mask.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return float(worn[mask].mean()) >= MIN_WORN_SHARE


@dataclass(frozen=True, slots=True)
class _Object:
    """An object that is not clothing."""

    mask: Mask
    """Mask of the object over the searched box, [rows, columns]."""
    score: float


def _find_object(pixels: npt.NDArray[np.uint8], saliency: Floats) -> _Object | None:
    """Find an object by its plain background, otherwise by the parser's saliency map."""
    mask = foreground_mask(pixels)
    size = pixels.shape[1::-1] if mask is None else mask.shape[::-1]
    enlarged = cv2.resize(saliency, size, interpolation=cv2.INTER_LINEAR)
    if mask is None:
        mask = _large_components(enlarged > MIN_OBJECT_PROBABILITY)
        if mask is None:
            return None
    return _Object(mask, float(np.clip(enlarged[mask].mean(), 0.0, 1.0)))


def _large_components(mask: Mask) -> Mask | None:
    _, components, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    areas = stats[1:, cv2.CC_STAT_AREA]
    if not len(areas) or areas.max() < MIN_OBJECT_AREA * mask.size:
        return None
    kept = 1 + np.flatnonzero(areas >= COMPONENT_SHARE * areas.max())
    large: Mask = np.isin(components, kept)
    return large


def _mask_bounds(mask: Mask) -> Shares:
    """Return the bounding box of a mask, as shares of its sides."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    height, width = mask.shape
    return (
        columns[0] / width,
        rows[0] / height,
        (columns[-1] + 1) / width,
        (rows[-1] + 1) / height,
    )


def _absolute_box(within: Box, shares: Shares) -> Box:
    """Convert shares of a box's sides to pixels of the picture."""
    x_min, y_min, x_max, y_max = shares
    return Box(
        within.x_min + x_min * within.width,
        within.y_min + y_min * within.height,
        within.x_min + x_max * within.width,
        within.y_min + y_max * within.height,
    )


def _relative_box(within: Box, box: Box) -> Shares:
    """Convert a box in pixels of the picture to shares of the sides of `within`."""
    return (
        (box.x_min - within.x_min) / within.width,
        (box.y_min - within.y_min) / within.height,
        (box.x_max - within.x_min) / within.width,
        (box.y_max - within.y_min) / within.height,
    )


def _crop_mask(mask: Mask, shares: Shares) -> Mask:
    height, width = mask.shape
    left, top = math.floor(shares[0] * width), math.floor(shares[1] * height)
    right, bottom = math.ceil(shares[2] * width), math.ceil(shares[3] * height)
    return mask[top : max(top + 1, bottom), left : max(left + 1, right)]
