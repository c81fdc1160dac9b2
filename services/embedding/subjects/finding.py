"""Where the subjects of a picture are: clothing by the parser's maps, else what stands out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from imagesearch_services.common.types import Box, Category, Color
from imagesearch_services.embedding.pictures import Picture
from imagesearch_services.embedding.preprocess import InputSpec, letterboxed
from imagesearch_services.embedding.subjects.border import stands_out
from imagesearch_services.embedding.subjects.clothing import (
    MIN_SCORES,
    MIN_WORN_SCORES,
    OF_CATEGORY,
    SUBJECT,
    find_clothing,
)
from imagesearch_services.embedding.subjects.colors import (
    Gains,
    light_of,
    name_colors,
)
from imagesearch_services.embedding.subjects.halves import merged, worth_a_look

CLASSES = max(max(classes) for classes in OF_CATEGORY) + 1
"""Of the parser: background, person and those of clothing."""

MIN_SUBJECT_PROBABILITY = 0.5
"""From which a cell belongs to a subject that is no clothing."""
MIN_SUBJECT_AREA = 0.01
"""Smallest such subject, as a share of what was looked at."""
PART_SHARE = 0.1
"""Parts of at least this share of the largest one belong to the subject."""
MAX_DOUBTED_AREA = 0.2
"""Garments that together cover less of the picture may be a detail of a larger thing."""
MIN_WORN_SHARE = 0.3
"""Of that thing; with less of it clothing or person it is no one who is dressed."""
MIN_GARMENTS_SHARE = 0.05
"""Of that thing, too: fur resembles skin and hair, but wears nothing."""
MIN_SHARE_OF_BOX = 0.2
"""Of a box that a person drew, what stands out in it is its subject; less is a mark on it."""
MASK_SIDE_PX = 256
"""Long side of the mask of a subject that is no clothing."""
COLORS_SIDE_PX = 256
"""A picture is no larger where colors are named."""

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Found:
    """A subject before it is described."""

    box: Box
    """Pixels of the picture as shown."""
    clothing: Category | None
    """Category of a garment by the parser; None: something else."""
    score: float
    """How surely there is something, and of that category; 0 to 1."""
    mask: Mask
    """What of the box is the subject, [rows, columns] of any size."""


def look_closer(within: Box, maps: Floats, spec: InputSpec, stride: int) -> list[Box]:
    """Say where the parser should look again, for what is small in `within`.

    Args are those of `find_subjects`.

    Returns:
        Boxes in pixels of the picture as shown; none where nobody is.
    """
    return [_part(within, half) for half in worth_a_look(without_frame(maps, within, spec, stride))]


def find_subjects(
    picture: Picture,
    within: Box,
    maps: Floats,
    spec: InputSpec,
    stride: int,
    *,
    closer: Sequence[tuple[Box, Floats]] = (),
    dress: float = 0.0,
) -> list[Found]:
    """Find garments, or where nobody wears any the one thing that stands out.

    Args:
        picture: decoded.
        within: where was looked, pixels of the picture as shown.
        maps: of the parser for `within`, letterboxed: [maps, height, width].
        spec: what the parser took.
        stride: pixels of the parser's input for each cell of its maps.
        closer: where was looked again (see `look_closer`), and the maps of that.
        dress: how much likelier (log odds) the parser finds that a dress is worn than none.

    Returns:
        The main subject first; none where nothing stands out.
    """
    inside = merged(
        without_frame(maps, within, spec, stride),
        [(_shares(within, box), without_frame(part, box, spec, stride)) for box, part in closer],
    )
    if closer:
        garments = find_clothing(inside[:CLASSES], MIN_WORN_SCORES, dress=dress)
    else:
        garments = find_clothing(inside[:CLASSES], MIN_SCORES)
    thing = None
    worn_area = sum(garment.area for garment in garments)
    if worn_area < MAX_DOUBTED_AREA:
        thing = _thing(cut_out(picture, within, MASK_SIDE_PX), inside[SUBJECT])
    if garments and (thing is None or _is_dressed(thing.mask, worn_area, inside)):
        return [
            Found(
                _part(within, garment.box),
                garment.category,
                min(1.0, garment.score),
                _cut(garment.mask, garment.box),
            )
            for garment in garments
        ]
    if thing is None:
        return []
    mask = thing.mask
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    shares = (
        columns[0] / mask.shape[1],
        rows[0] / mask.shape[0],
        (columns[-1] + 1) / mask.shape[1],
        (rows[-1] + 1) / mask.shape[0],
    )
    return [Found(_part(within, shares), None, thing.score, _cut(mask, shares))]


def colors_of(picture: Picture, found: Found) -> list[Color]:
    """Name the colors of a subject."""
    pixels = cut_out(picture, found.box, COLORS_SIDE_PX)
    height, width = pixels.shape[:2]
    mask = cv2.resize(found.mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    return name_colors(pixels, mask > 0, _light(picture))


def colors_in(picture: Picture, box: Box) -> list[Color]:
    """Name the colors of what a box shows, less a plain background."""
    pixels = cut_out(picture, box, COLORS_SIDE_PX)
    mask = stands_out(pixels)
    if mask is None or mask.mean() < MIN_SHARE_OF_BOX:
        mask = np.ones(pixels.shape[:2], np.bool_)
    return name_colors(pixels, mask, _light(picture))


def _light(picture: Picture) -> Gains:
    whole = Box(0, 0, picture.width, picture.height)
    return light_of(cut_out(picture, whole, COLORS_SIDE_PX))


def cut_out(picture: Picture, box: Box, side_px: int) -> npt.NDArray[np.uint8]:
    """Cut a box out of a picture, with a long side of `side_px` at most."""
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


def without_frame(maps: Floats, within: Box, spec: InputSpec, stride: int) -> Floats:
    """Cut off what the letterbox filled."""
    left, top, width, height = letterboxed(within, spec)
    rows = slice(round(top / stride), max(round(top / stride) + 1, round((top + height) / stride)))
    columns = slice(
        round(left / stride), max(round(left / stride) + 1, round((left + width) / stride))
    )
    return maps[:, rows, columns]


def _is_dressed(mask: Mask, worn_area: float, maps: Floats) -> bool:
    """Say whether what stands out is mostly clothing or person, and wears enough of it."""
    if worn_area < MIN_GARMENTS_SHARE * mask.mean():
        return False
    worn = (maps[:CLASSES].argmax(axis=0) > 0).astype(np.float32)
    smooth = cv2.resize(worn, mask.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return float(smooth[mask].mean()) >= MIN_WORN_SHARE


@dataclass(frozen=True, slots=True)
class _Thing:
    """Something that is no clothing."""

    mask: Mask
    """Over all that was looked at."""
    score: float


def _thing(pixels: npt.NDArray[np.uint8], probabilities: Floats) -> _Thing | None:
    """Find the one subject that is no clothing: by a plain background, else by the parser."""
    mask = stands_out(pixels)
    size = pixels.shape[1::-1] if mask is None else mask.shape[::-1]
    smooth = cv2.resize(probabilities, size, interpolation=cv2.INTER_LINEAR)
    if mask is None:
        mask = _large_parts(smooth > MIN_SUBJECT_PROBABILITY)
        if mask is None:
            return None
    return _Thing(mask, float(np.clip(smooth[mask].mean(), 0.0, 1.0)))


def _large_parts(mask: Mask) -> Mask | None:
    _, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    areas = stats[1:, cv2.CC_STAT_AREA]
    if not len(areas) or areas.max() < MIN_SUBJECT_AREA * mask.size:
        return None
    kept: Mask = np.isin(parts, 1 + np.flatnonzero(areas >= PART_SHARE * areas.max()))
    return kept


def _part(within: Box, shares: tuple[float, float, float, float]) -> Box:
    """Give the box that these shares of a box's sides are."""
    x_min, y_min, x_max, y_max = shares
    return Box(
        within.x_min + x_min * within.width,
        within.y_min + y_min * within.height,
        within.x_min + x_max * within.width,
        within.y_min + y_max * within.height,
    )


def _shares(within: Box, box: Box) -> tuple[float, float, float, float]:
    """Give where in a box another lies, as shares of its sides."""
    return (
        (box.x_min - within.x_min) / within.width,
        (box.y_min - within.y_min) / within.height,
        (box.x_max - within.x_min) / within.width,
        (box.y_max - within.y_min) / within.height,
    )


def _cut(mask: Mask, shares: tuple[float, float, float, float]) -> Mask:
    height, width = mask.shape
    left, top = math.floor(shares[0] * width), math.floor(shares[1] * height)
    right, bottom = math.ceil(shares[2] * width), math.ceil(shares[3] * height)
    return mask[top : max(top + 1, bottom), left : max(left + 1, right)]
