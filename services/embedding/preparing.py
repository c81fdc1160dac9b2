"""The work on one picture that threads do: decode it, choose its regions, make them inputs."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from imagesearch_services.common.errors import Reason, field_error
from imagesearch_services.common.types import Box, Color, PictureInfo
from imagesearch_services.embedding.items import Item, Timings
from imagesearch_services.embedding.models import Model
from imagesearch_services.embedding.pictures import Picture, PictureFile
from imagesearch_services.embedding.preprocess import harmless_reduction, preprocess
from imagesearch_services.embedding.regions import propose_regions
from imagesearch_services.embedding.spaces import ModelInput
from imagesearch_services.embedding.stacking import Inputs
from imagesearch_services.embedding.subjects.finding import (
    FoundSubject,
    box_colors,
    find_subjects,
    second_pass_boxes,
    subject_colors,
)
from imagesearch_services.embedding.thumbnails import thumbnail

PROPOSAL_SIDE_PX = 1600
"""Long side that a picture keeps, if it has it, where regions or subjects of it are looked for."""

DRESS_OUTPUT = "dress"
"""Of a parser that tells it: log odds that what is worn is a dress, [1]."""

MAX_SUBJECTS = 20
"""Of one picture; the main ones are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is done with every picture of a call."""

    inputs: Sequence[ModelInput]
    """Models to run on regions."""
    parser: Model | None = None
    """Finds subjects, where they are asked for."""
    are_all_described: bool = False
    """Prepare every subject found, not the one to embed."""
    are_colors_named: bool = False
    thumbnail_max_side_px: int = 0
    """0: none is made."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A picture that is ready for its models."""

    picture: Picture
    boxes: Sequence[Box]
    sources: Sequence[str]
    inputs: Sequence[Inputs]
    """One for each of the plan's, all regions."""
    timings: Timings
    found: Sequence[FoundSubject] = ()
    """Subjects, the main one first."""
    chosen: int | None = None
    """Which of them is the one region; None: nothing was found, or not looked for."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A decoded picture whose subjects are not known yet."""

    picture: Picture
    within: Box
    """Where to look."""
    parser_input: Inputs
    """[1, height, width, 3]."""
    timings: Timings


@dataclass(frozen=True, slots=True)
class Look:
    """What the parser says of a part of a picture."""

    box: Box
    outputs: Mapping[str, npt.NDArray[np.float32]]
    """By name, without the dimension of rows."""


@dataclass(frozen=True, slots=True)
class Described:
    """What the pixels tell without a model."""

    info: PictureInfo
    thumbnail: bytes
    region_colors: Sequence[Sequence[Color]] = field(default_factory=list)
    """Of each region; empty where not asked for, or where subjects were found."""
    subject_colors: Sequence[Sequence[Color]] = field(default_factory=list)
    """Of each subject found."""


def prepare(file: PictureFile, place: str, item: Item, plan: Plan) -> Prepared:
    """Decode a picture, choose its regions and make them inputs.

    `place` stands before the names of the item's fields in errors.
    """
    timings = Timings()
    began_s = time.perf_counter()
    picture = file.decode(_reduction(file, item, plan))
    timings.decode_s = time.perf_counter() - began_s
    boxes = _asked(item, place, picture)
    sources = [""] * len(boxes)
    if item.max_proposed_regions:
        began_s = time.perf_counter()
        boxes, sources = _propose(picture, boxes[0], item.max_proposed_regions)
        timings.propose_regions_s = time.perf_counter() - began_s
    return Prepared(picture, boxes, sources, _inputs(picture, boxes, plan, timings), timings)


def open_for_parser(file: PictureFile, place: str, item: Item, plan: Plan, parser: Model) -> Opened:
    """Decode a picture and make the parser's input of it."""
    timings = Timings()
    began_s = time.perf_counter()
    picture = file.decode(_reduction(file, item, plan))
    timings.decode_s = time.perf_counter() - began_s
    began_s = time.perf_counter()
    within = _asked(item, place, picture)[0]
    parser_input = preprocess(picture, [within], parser.input)
    timings.preprocess_s = time.perf_counter() - began_s
    return Opened(picture, within, parser_input, timings)


def open_closer(opened: Opened, first: Look, parser: Model) -> tuple[Sequence[Box], Inputs]:
    """Make the parser's inputs of what it should look at again, and tell where that is."""
    maps, stride = first.outputs[parser.output_name], int(parser.parameters["stride"])
    boxes = second_pass_boxes(first.box, maps, parser.input, stride)
    return boxes, preprocess(opened.picture, boxes, parser.input)


def prepare_subjects(
    opened: Opened, looks: Sequence[Look], item: Item, plan: Plan, parser: Model
) -> Prepared:
    """Find subjects in the parser's maps, choose among them, and make inputs of the chosen.

    `looks` has the first look first, then closer ones.
    """
    picture, timings = opened.picture, opened.timings
    began_s = time.perf_counter()
    first, *closer = looks
    name = parser.output_name
    dress = first.outputs.get(DRESS_OUTPUT)
    found = find_subjects(
        picture,
        first.box,
        first.outputs[name],
        parser.input,
        int(parser.parameters["stride"]),
        second_pass=[(look.box, look.outputs[name]) for look in closer],
        dress_log_odds=0.0 if dress is None else float(dress[0]),
    )[:MAX_SUBJECTS]
    timings.find_subjects_s += time.perf_counter() - began_s
    chosen = None
    if found:
        of_category = (
            row
            for row, one in enumerate(found)
            if item.category and one.garment_category == item.category
        )
        chosen = next(of_category, 0)
    if plan.are_all_described:
        boxes = [one.box for one in found]
    else:
        boxes = [opened.within if chosen is None else found[chosen].box]
    inputs = _inputs(picture, boxes, plan, timings)
    return Prepared(picture, boxes, [""] * len(boxes), inputs, timings, found, chosen)


def describe(file: PictureFile, prepared: Prepared, plan: Plan) -> Described:
    """Tell of a picture and make its small one."""
    picture = prepared.picture
    small = b""
    if plan.thumbnail_max_side_px:
        small = thumbnail(picture.image, plan.thumbnail_max_side_px)
    if not plan.are_colors_named:
        return Described(file.describe(picture), small)
    if prepared.found:
        subjects = [subject_colors(picture, one) for one in prepared.found]
        return Described(file.describe(picture), small, subject_colors=subjects)
    regions = [box_colors(picture, box) for box in prepared.boxes]
    return Described(file.describe(picture), small, region_colors=regions)


def _inputs(
    picture: Picture, boxes: Sequence[Box], plan: Plan, timings: Timings
) -> Sequence[Inputs]:
    began_s = time.perf_counter()
    inputs = [
        preprocess(
            picture, [_with_margin(box, one.margin, picture) for box in boxes], one.model.input
        )
        for one in plan.inputs
    ]
    timings.preprocess_s += time.perf_counter() - began_s
    return inputs


def _with_margin(box: Box, margin: float, picture: Picture) -> Box:
    if not margin:
        return box
    return box.grown(margin).clipped(picture.width, picture.height) or box


def _reduction(file: PictureFile, item: Item, plan: Plan) -> float:
    """Return by what the sides may be divided while decoding.

    It is not known yet which way up the picture is, so both must do.
    """
    long_side_px = max(file.width, file.height)
    if item.max_proposed_regions or item.subject_detection:
        reduction = long_side_px / PROPOSAL_SIDE_PX
    else:
        specs = [one.model.input for one in plan.inputs]
        reduction = min(
            harmless_reduction(width, height, _inside(item.regions, width, height), specs)
            for width, height in ((file.width, file.height), (file.height, file.width))
        )
    if plan.thumbnail_max_side_px:
        reduction = min(reduction, long_side_px / plan.thumbnail_max_side_px)
    return reduction


def _inside(regions: Sequence[Box], width: int, height: int) -> list[Box]:
    clipped = (region.clipped(width, height) for region in regions)
    return [region for region in clipped if region is not None]


def _asked(item: Item, place: str, picture: Picture) -> list[Box]:
    """Return the regions of an item inside the picture; all of it where there are none."""
    return [
        clipped_region(region, picture, f"{place}regions[{number}]")
        for number, region in enumerate(item.regions)
    ] or [Box(0, 0, picture.width, picture.height)]


def clipped_region(region: Box, picture: Picture, field_name: str) -> Box:
    """Return what of a region lies in a picture.

    Raises:
        ServiceError: REGION_INVALID, where nothing does.
    """
    inside = region.clipped(picture.width, picture.height)
    if inside is None:
        raise field_error(
            field_name,
            f"{region} leaves less than one pixel of the picture of "
            f"{picture.width} × {picture.height}",
            reason=Reason.REGION_INVALID,
        )
    return inside


def _propose(picture: Picture, within: Box, most: int) -> tuple[list[Box], list[str]]:
    """Find regions that look like a picture of their own, best first, and the rules they are by."""
    inner = within.scaled(picture.x_scale, picture.y_scale)
    left, top = math.floor(inner.x_min), math.floor(inner.y_min)
    right = min(picture.image.width, math.ceil(inner.x_max))
    bottom = min(picture.image.height, math.ceil(inner.y_max))
    pixels = np.asarray(picture.image.crop((left, top, right, bottom)))
    boxes: list[Box] = []
    sources: list[str] = []
    for region in propose_regions(pixels, most):
        found = Box(region.x_min, region.y_min, region.x_max, region.y_max).moved(left, top)
        box = found.scaled(1 / picture.x_scale, 1 / picture.y_scale)
        if (inside := box.clipped(picture.width, picture.height)) is not None:
            boxes.append(inside)
            sources.append(region.source)
    return boxes, sources
