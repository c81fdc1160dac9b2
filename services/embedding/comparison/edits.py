"""Names the likely edits that made the second picture from the first.

Edits are derived from the alignment (motion) and from the overlap (changed pixels). "cropped" means
that one picture is a part of the other, since it may be unknown which picture came first.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from imagesearch_services.embedding.comparison.alignment import Aligned
from imagesearch_services.embedding.comparison.changes import pixel_edits
from imagesearch_services.embedding.comparison.edit import Edit
from imagesearch_services.embedding.comparison.view import Floats, Mask, View
from imagesearch_services.embedding.features import geometric_check
from imagesearch_services.embedding.features.geometric_check import Matrix, Size

WHOLE_SHARE = 0.95
"""Minimum visible share of a picture that counts as the whole picture, since alignments are not
more accurate."""
EMBEDDED_SHARE = 0.5
"""Share of the second picture below which a copy with flat surroundings is embedded, not framed."""
FLAT_SHARE = 0.6
"""Minimum share of flat pixels in surroundings that are a frame or the band of a caption."""
FLAT_LEVELS = 4
"""Maximum difference of a flat pixel from the most frequent grey level."""
SEAM_STEP = 12.0
"""Minimum step across the outline of a pasted picture, grey levels."""
SEAM_FACTOR = 2.0
"""Minimum ratio of the step across the outline to the steps next to it."""

ROTATION_DEGREES = 2.0
"""Minimum rotation that is reported, and tolerance of quarter turns."""
DISTORTED_ROTATION_DEGREES = 8.0
"""Minimum rotation that is reported for a picture with perspective or bending, which also rotate
parts of it."""
SCALE_CHANGE = 0.03
"""Minimum relative change of scale that is reported."""
ASPECT_CHANGE = 0.05
"""Minimum relative change of the aspect ratio that is reported."""
PERSPECTIVE_CHANGE = 0.06
"""Minimum relative difference of scale between the nearest and the farthest corner that is
reported."""
BEND = 0.012
"""Minimum displacement by the refinement that is reported, as a share of the long side."""


@dataclass(frozen=True, slots=True)
class Motion:
    """Flip, rotation, scale and perspective of a homography."""

    is_flipped_horizontally: bool
    is_flipped_vertically: bool
    rotation_degrees: float
    """Rotation after the flip, degrees clockwise, -180 to 180; exact for quarter turns."""
    scale: float
    """Geometric mean of the scales in two directions."""
    aspect: float
    """Ratio of the scales along the first picture's x axis and y axis."""
    perspective: float
    """Ratio of the scales at the nearest and the farthest corner, minus one."""

    @classmethod
    def of(cls, matrix: Matrix, size: Size) -> Motion:
        """Decompose a homography at the center of a picture."""
        linear = geometric_check.local_affine(matrix, size)
        is_mirrored = np.linalg.det(linear) < 0
        if is_mirrored:
            linear = linear @ np.diag([-1.0, 1.0])
        u, _, vt = np.linalg.svd(linear)
        rotation = u @ vt
        stretch = rotation.T @ linear
        degrees = math.degrees(math.atan2(rotation[1, 0], rotation[0, 0]))
        is_upside_down = is_mirrored and abs(degrees) > 90 + ROTATION_DEGREES
        if is_upside_down:
            degrees -= math.copysign(180, degrees)
        quarter = 90 * round(degrees / 90)
        if abs(degrees - quarter) <= ROTATION_DEGREES:
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
    """Return the edits that explain the difference, motion first; empty for nearly equal pixels.

    Args:
        first: picture.
        second: picture.
        aligned: alignment of the pictures.
        motion: the alignment in pixels of the files.
    """
    return [
        *_motion_edits(first, second, aligned, motion),
        *pixel_edits(aligned.overlap, is_bent=aligned.bend > BEND),
    ]


def _motion_edits(first: View, second: View, aligned: Aligned, motion: Motion) -> Iterator[Edit]:
    if motion.is_flipped_horizontally:
        yield Edit("flipped_horizontally")
    if motion.is_flipped_vertically:
        yield Edit("flipped_vertically")
    has_perspective = motion.perspective > PERSPECTIVE_CHANGE
    is_distorted = has_perspective or aligned.bend > BEND
    min_degrees = DISTORTED_ROTATION_DEGREES if is_distorted else ROTATION_DEGREES
    if motion.rotation_degrees and abs(math.remainder(motion.rotation_degrees, 90)) > min_degrees:
        yield Edit("rotated", motion.rotation_degrees % 360)
    elif quarter := 90 * round(motion.rotation_degrees / 90) % 360:
        yield Edit("rotated", float(quarter))
    yield from _crop_edits(first, second, aligned, is_upright=_is_upright(motion))
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


def _crop_edits(first: View, second: View, aligned: Aligned, *, is_upright: bool) -> Iterator[Edit]:
    """Yield crops of either picture, and edits that surround the first picture in the second."""
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
    """Return whether most pixels outside an outline have nearly the same grey level."""
    outside = np.full(view.grey.shape, 255, np.uint8)
    cv2.fillConvexPoly(outside, np.round(outline).astype(np.int32), 0)
    outside = np.asarray(cv2.erode(outside, np.ones((5, 5), np.uint8)), np.uint8)
    levels = view.grey[outside > 0]
    if levels.size == 0:
        return True
    mode = int(np.bincount(levels, minlength=256).argmax())
    return float((np.abs(levels.astype(np.int16) - mode) <= FLAT_LEVELS).mean()) >= FLAT_SHARE


def _has_seam(view: View, outline: geometric_check.Points) -> bool:
    """Return whether grey levels step across most sides of an outline, more than next to it."""
    center = outline.mean(axis=0)
    steps, nearby_steps = [], []
    for start, end in zip(outline, np.roll(outline, -1, axis=0), strict=True):
        along = start + (end - start) * np.linspace(0.05, 0.95, 60)[:, None]
        inwards = center - along
        inwards /= np.maximum(np.linalg.norm(inwards, axis=1, keepdims=True), 1e-9)
        outer, is_outer = _levels(view, along - 2 * inwards)
        inner, is_inner = _levels(view, along + 2 * inwards)
        deeper, is_deeper = _levels(view, along + 6 * inwards)
        farther, is_farther = _levels(view, along - 6 * inwards)
        is_visible = is_outer & is_inner & is_deeper & is_farther
        if is_visible.mean() > 0.5:  # noqa: PLR2004  # most of the side lies in the picture
            steps.append(float(np.median(np.abs(inner - outer)[is_visible])))
            # A line around the pasted picture may lie on either side of the outline.
            nearby = (np.abs(inner - deeper)[is_visible], np.abs(outer - farther)[is_visible])
            nearby_steps.append(min(float(np.median(levels)) for levels in nearby))
    if not steps:
        return False
    step = sorted(steps)[len(steps) // 4]  # one side of four may border on the same color
    return step > SEAM_STEP and step > SEAM_FACTOR * float(np.median(nearby_steps))


def _levels(view: View, points: geometric_check.Points) -> tuple[Floats, Mask]:
    """Return the grey levels at points, and the mask of the points inside the picture."""
    columns, rows = np.round(points).astype(np.intp).T
    width, height = view.size
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    levels = view.grey[np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)]
    return levels.astype(np.float32), inside
