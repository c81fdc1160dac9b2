"""Steps for one picture that run in threads: choose regions, preprocess, describe."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from imagesearch_services.common.errors import Reason, field_error
from imagesearch_services.common.stopwatch import Stopwatch
from imagesearch_services.common.types import Box, Color, PictureInfo
from imagesearch_services.embedding.embed.items import Item
from imagesearch_services.embedding.embed.regions import propose_regions
from imagesearch_services.embedding.inference.models import Model
from imagesearch_services.embedding.inference.spaces import ModelInput
from imagesearch_services.embedding.inference.stacking import Inputs
from imagesearch_services.embedding.pictures.opened_file import OpenedFile
from imagesearch_services.embedding.pictures.picture import Picture
from imagesearch_services.embedding.pictures.preprocess import harmless_reduction, preprocess
from imagesearch_services.embedding.pictures.thumbnails import thumbnail
from imagesearch_services.embedding.subjects.finding import FoundSubject, box_colors, subject_colors

ANALYSIS_SIDE_PX = 1600
"""Long side at which a JPEG is decoded when regions or subjects are searched for, in pixels;
smaller pictures keep their size."""


@dataclass(frozen=True, slots=True)
class ItemFile:
    """An item whose header was read."""

    item: Item
    file: OpenedFile
    field_prefix: str
    """Prefix of the item's request fields in errors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Work to do on each picture of a call."""

    inputs: Sequence[ModelInput]
    """Models to run on regions."""
    parser: Model | None = None
    """Model that finds subjects, if a picture of the call needs it."""
    are_all_described: bool = False
    """Whether to prepare every subject, not only the subject to embed."""
    are_colors_named: bool = False
    """Whether to name the colors of regions or subjects."""
    thumbnail_max_side_px: int = 0
    """Maximum long side of the thumbnails, in pixels; 0: no thumbnails."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A decoded picture with the inputs of its models."""

    picture: Picture
    boxes: Sequence[Box]
    """Regions to embed."""
    sources: Sequence[str]
    """Name of the rule that proposed each region; empty for a requested region."""
    inputs: Sequence[Inputs]
    """All regions, preprocessed for each of the plan's models."""
    found: Sequence[FoundSubject] = ()
    """Detected subjects, the main subject first."""
    chosen: int | None = None
    """Index of the subject to embed; None if no subject was requested or found."""


@dataclass(frozen=True, slots=True)
class Described:
    """Properties of a picture that are computed without a model."""

    info: PictureInfo
    thumbnail: bytes
    region_colors: Sequence[Sequence[Color]] = field(default_factory=list)
    """Colors of each region; empty if not requested, or if subjects were found."""
    subject_colors: Sequence[Sequence[Color]] = field(default_factory=list)
    """Colors of each subject."""


def prepare(source: ItemFile, picture: Picture, plan: Plan, stopwatch: Stopwatch) -> Prepared:
    """Choose the regions of a picture and make their model inputs.

    Raises:
        ServiceError: REGION_INVALID.
    """
    boxes = requested_regions(source, picture)
    sources = [""] * len(boxes)
    if source.item.max_proposed_regions:
        with stopwatch.step("propose_regions"):
            boxes, sources = _propose(picture, boxes[0], source.item.max_proposed_regions)
    return Prepared(picture, boxes, sources, make_inputs(picture, boxes, plan, stopwatch))


def describe(file: OpenedFile, prepared: Prepared, plan: Plan) -> Described:
    """Measure a picture, name its colors and make its thumbnail."""
    picture = prepared.picture
    jpeg = b""
    if plan.thumbnail_max_side_px:
        jpeg = thumbnail(picture.image, plan.thumbnail_max_side_px)
    if not plan.are_colors_named:
        return Described(file.describe(picture), jpeg)
    if prepared.found:
        subjects = [subject_colors(picture, found) for found in prepared.found]
        return Described(file.describe(picture), jpeg, subject_colors=subjects)
    regions = [box_colors(picture, box) for box in prepared.boxes]
    return Described(file.describe(picture), jpeg, region_colors=regions)


def requested_regions(source: ItemFile, picture: Picture) -> list[Box]:
    """Return the regions of an item, clipped to the picture; the whole picture if it has none.

    Raises:
        ServiceError: REGION_INVALID.
    """
    return [
        clipped_region(region, picture, f"{source.field_prefix}regions[{number}]")
        for number, region in enumerate(source.item.regions)
    ] or [Box(0, 0, picture.width, picture.height)]


def clipped_region(region: Box, picture: Picture, field_name: str) -> Box:
    """Return the part of a region that lies in a picture.

    Raises:
        ServiceError: REGION_INVALID if that part is smaller than a pixel.
    """
    inside = region.clipped(picture.width, picture.height)
    if inside is None:
        edges = f"({region.x_min:g}, {region.y_min:g}, {region.x_max:g}, {region.y_max:g})"
        raise field_error(
            field_name,
            f"{edges} covers less than one pixel of the picture, which has "
            f"{picture.width} × {picture.height} pixels",
            reason=Reason.REGION_INVALID,
        )
    return inside


def make_inputs(
    picture: Picture, boxes: Sequence[Box], plan: Plan, stopwatch: Stopwatch
) -> Sequence[Inputs]:
    """Return the inputs of all regions for each of the plan's models."""
    with stopwatch.step("preprocess"):
        return [
            preprocess(
                picture,
                [_with_margin(box, model_input.margin, picture) for box in boxes],
                model_input.model.input,
            )
            for model_input in plan.inputs
        ]


def _with_margin(box: Box, margin: float, picture: Picture) -> Box:
    if not margin:
        return box
    return box.grown(margin).clipped(picture.width, picture.height) or box


def reduction(source: ItemFile, plan: Plan) -> float:
    """Return the maximum factor by which decoding may divide the sides.

    The factor suits both orientations, since the EXIF orientation is not known yet.
    """
    file, item = source.file, source.item
    long_side_px = max(file.width, file.height)
    if item.max_proposed_regions or item.subject_detection:
        factor = long_side_px / ANALYSIS_SIDE_PX
    else:
        specs = [model_input.model.input for model_input in plan.inputs]
        factor = min(
            harmless_reduction(width, height, _inside(item.regions, width, height), specs)
            for width, height in ((file.width, file.height), (file.height, file.width))
        )
    if plan.thumbnail_max_side_px:
        factor = min(factor, long_side_px / plan.thumbnail_max_side_px)
    return factor


def _inside(regions: Sequence[Box], width: int, height: int) -> list[Box]:
    clipped = (region.clipped(width, height) for region in regions)
    return [region for region in clipped if region is not None]


def _propose(picture: Picture, within: Box, max_regions: int) -> tuple[list[Box], list[str]]:
    """Propose regions that look like an inserted picture, best first.

    Returns:
        The regions in pixels of the picture as shown, and the rule that proposed each.
    """
    inner = within.scaled(picture.x_scale, picture.y_scale)
    left, top = math.floor(inner.x_min), math.floor(inner.y_min)
    right = min(picture.image.width, math.ceil(inner.x_max))
    bottom = min(picture.image.height, math.ceil(inner.y_max))
    pixels = np.asarray(picture.image.crop((left, top, right, bottom)))
    boxes: list[Box] = []
    sources: list[str] = []
    for region in propose_regions(pixels, max_regions):
        box = region.box.moved(left, top).scaled(1 / picture.x_scale, 1 / picture.y_scale)
        if (inside := box.clipped(picture.width, picture.height)) is not None:
            boxes.append(inside)
            sources.append(region.source)
    return boxes, sources
