"""Which edits explain how one picture became the other.

Read off the alignment (where things went) and off the overlap (what became of the pixels). What is
told leads from the first picture to the second; where it can't be known which came first, "cropped"
says that one is a part of the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from imagesearch_services.embedding import geometric_check
from imagesearch_services.embedding.comparison.alignment import Aligned, View
from imagesearch_services.embedding.comparison.changes import changes
from imagesearch_services.embedding.comparison.edit import Edit
from imagesearch_services.embedding.geometric_check import Matrix, Size

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

WHOLE_SHARE = 0.95
"""A picture that shows this share of the other shows all of it: alignment tells no finer."""
EMBEDDED_SHARE = 0.5
"""Where the copy takes less of the picture than this, flat surroundings are no frame."""
FLAT_SHARE = 0.6
"""Of the surroundings, that is flat in a frame or the band of a caption."""
FLAT_LEVELS = 4
"""Grey levels around the commonest one that are flat."""
SEAM_STEP = 12.0
"""Grey levels across the outline of what was pasted, typically."""
SEAM_FACTOR = 2.0
"""How many times that between points as far apart beside it."""

TURN_DEGREES = 2.0
"""Least rotation that is told; and how near to a quarter turn counts as one."""
VAGUE_TURN_DEGREES = 8.0
"""The same where perspective or bending turn parts of a picture anyway."""
SCALE_CHANGE = 0.03
ASPECT_CHANGE = 0.05
PERSPECTIVE_CHANGE = 0.06
"""Of the scale, between the nearest and the farthest corner."""
BEND = 0.012
"""Share of the long side that parts were moved."""


@dataclass(frozen=True, slots=True)
class Motion:
    """What a homography does to a picture, in words."""

    is_flipped_horizontally: bool
    is_flipped_vertically: bool
    rotation_degrees: float
    """Clockwise, after the flip; -180 to 180, quarter turns exactly."""
    scale: float
    aspect: float
    """Scale along the first picture's x axis over that along its y axis."""
    perspective: float
    """Scale at the nearest corner over that at the farthest, less one."""

    @classmethod
    def of(cls, matrix: Matrix, size: Size) -> Motion:
        """Take it apart at the middle of a picture."""
        linear = geometric_check.local_affine(matrix, size)
        is_mirrored = np.linalg.det(linear) < 0
        if is_mirrored:
            linear = linear @ np.diag([-1.0, 1.0])
        left, _, right = np.linalg.svd(linear)
        rotation = left @ right
        stretch = rotation.T @ linear
        degrees = math.degrees(math.atan2(rotation[1, 0], rotation[0, 0]))
        is_upside_down = is_mirrored and abs(degrees) > 90 + TURN_DEGREES
        if is_upside_down:
            degrees -= math.copysign(180, degrees)
        quarter = 90 * round(degrees / 90)
        if abs(degrees - quarter) <= TURN_DEGREES:
            degrees = quarter
        x_scale, y_scale = abs(stretch[0, 0]), abs(stretch[1, 1])
        depths = geometric_check.corners(size) @ matrix[2, :2] + matrix[2, 2]
        return cls(
            is_flipped_horizontally=bool(is_mirrored and not is_upside_down),
            is_flipped_vertically=bool(is_upside_down),
            rotation_degrees=float(degrees),
            scale=float(math.sqrt(abs(np.linalg.det(linear)))),
            aspect=float(x_scale / max(y_scale, 1e-9)),
            perspective=float(depths.max() / max(depths.min(), 1e-9) - 1),
        )


def likely_edits(first: View, second: View, aligned: Aligned, motion: Motion) -> list[Edit]:
    """Tell the edits, what moved first.

    Args:
        first: picture.
        second: picture.
        aligned: how the first became the second.
        motion: of the alignment, in pixels of the files.

    Returns:
        None where the pixels are nearly the same.
    """
    return [
        *_movements(first, second, aligned, motion),
        *changes(aligned.overlap, is_bent=aligned.bend > BEND),
    ]


def _movements(first: View, second: View, aligned: Aligned, motion: Motion) -> Iterator[Edit]:
    if motion.is_flipped_horizontally:
        yield Edit("flipped_horizontally")
    if motion.is_flipped_vertically:
        yield Edit("flipped_vertically")
    has_perspective = motion.perspective > PERSPECTIVE_CHANGE
    least = VAGUE_TURN_DEGREES if has_perspective or aligned.bend > BEND else TURN_DEGREES
    if motion.rotation_degrees and abs(math.remainder(motion.rotation_degrees, 90)) > least:
        yield Edit("rotated", motion.rotation_degrees % 360)
    elif quarter := 90 * round(motion.rotation_degrees / 90) % 360:
        yield Edit("rotated", float(quarter))
    yield from _parts(first, second, aligned, is_upright=_is_upright(motion))
    if has_perspective:
        yield Edit("perspective_changed")
    elif not 1 / (1 + ASPECT_CHANGE) < motion.aspect < 1 + ASPECT_CHANGE:
        yield Edit("aspect_changed", motion.aspect)
    if not 1 / (1 + SCALE_CHANGE) < motion.scale < 1 + SCALE_CHANGE:
        yield Edit("scaled", motion.scale)
    if aligned.bend > BEND:
        yield Edit("warped")


def _is_upright(motion: Motion) -> bool:
    return motion.rotation_degrees % 90 == 0 and motion.perspective <= PERSPECTIVE_CHANGE


def _parts(first: View, second: View, aligned: Aligned, *, is_upright: bool) -> Iterator[Edit]:
    """Tell what was cut off, and what the second picture shows around the first."""
    if aligned.shown_of_first < WHOLE_SHARE:
        yield Edit("cropped", aligned.shown_of_first)
    if aligned.shown_of_second >= WHOLE_SHARE:
        return
    outline = geometric_check.transform(aligned.matrix, geometric_check.corners(first.size))
    if _is_flat_around(second, outline):
        if aligned.shown_of_second < EMBEDDED_SHARE:
            yield Edit("embedded", aligned.shown_of_second)
        elif is_upright:
            yield Edit("framed", 1 - aligned.shown_of_second)
    elif _has_seam(second, outline):
        yield Edit("embedded", aligned.shown_of_second)
    elif aligned.shown_of_first >= WHOLE_SHARE:
        yield Edit("cropped", aligned.shown_of_second)


def _is_flat_around(view: View, outline: geometric_check.Points) -> bool:
    """Say whether a picture is mostly of one grey outside of an outline, as no photo is."""
    around = np.full(view.grey.shape, 255, np.uint8)
    cv2.fillConvexPoly(around, np.round(outline).astype(np.int32), 0)
    around = np.asarray(cv2.erode(around, np.ones((5, 5), np.uint8)), np.uint8)
    outside = view.grey[around > 0]
    if outside.size == 0:
        return True
    commonest = int(np.bincount(outside, minlength=256).argmax())
    return float((np.abs(outside.astype(np.int16) - commonest) <= FLAT_LEVELS).mean()) >= FLAT_SHARE


def _has_seam(view: View, outline: geometric_check.Points) -> bool:
    """Say whether grey levels jump across an outline, on nearly all sides and more than inside."""
    middle = outline.mean(axis=0)
    jumps, usual = [], []
    for start, end in zip(outline, np.roll(outline, -1, axis=0), strict=True):
        along = start + (end - start) * np.linspace(0.05, 0.95, 60)[:, None]
        inwards = middle - along
        inwards /= np.maximum(np.linalg.norm(inwards, axis=1, keepdims=True), 1e-9)
        outer, is_outer = _levels(view, along - 2 * inwards)
        inner, is_inner = _levels(view, along + 2 * inwards)
        deeper, is_deeper = _levels(view, along + 6 * inwards)
        farther, is_farther = _levels(view, along - 6 * inwards)
        seen = is_outer & is_inner & is_deeper & is_farther
        if seen.mean() > 0.5:  # noqa: PLR2004  # a side beyond the picture's edge has no seam
            jumps.append(float(np.median(np.abs(inner - outer)[seen])))
            # A line drawn around what was pasted may lie on either side.
            beside = (np.abs(inner - deeper)[seen], np.abs(outer - farther)[seen])
            usual.append(min(float(np.median(each)) for each in beside))
    if not jumps:
        return False
    jump = sorted(jumps)[len(jumps) // 4]  # one side of four may end on its own color
    return jump > SEAM_STEP and jump > SEAM_FACTOR * float(np.median(usual))


def _levels(view: View, points: geometric_check.Points) -> tuple[Floats, Mask]:
    """Read grey levels, and say which of the points lie in the picture."""
    columns, rows = np.round(points).astype(np.intp).T
    width, height = view.size
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    levels = view.grey[np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)]
    return levels.astype(np.float32), inside
