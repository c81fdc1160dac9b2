"""Steps in threads for a picture whose subject is embedded: find subjects, choose one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from imagesearch_services.common.stopwatch import Stopwatch
from imagesearch_services.common.types import Box
from imagesearch_services.embedding.embed.items import Item
from imagesearch_services.embedding.embed.preparing import (
    ItemFile,
    Plan,
    Prepared,
    make_inputs,
    requested_regions,
)
from imagesearch_services.embedding.inference.models import Model
from imagesearch_services.embedding.inference.stacking import Inputs
from imagesearch_services.embedding.pictures.picture import Picture
from imagesearch_services.embedding.pictures.preprocess import preprocess
from imagesearch_services.embedding.subjects.finding import find_subjects, second_pass_boxes

DRESS_OUTPUT = "dress"
"""Optional output of a parser: log odds that a person in the picture wears a dress, [1]."""

MAX_SUBJECTS = 20
"""Maximum subjects per picture; the most prominent are kept."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A decoded picture whose subjects are not known yet."""

    item: Item
    picture: Picture
    within: Box
    """Region to search."""
    parser_input: Inputs
    """The region, preprocessed for the parser, [1, height, width, 3]."""


@dataclass(frozen=True, slots=True)
class ParsedPart:
    """A part of a picture, and the parser's outputs for it."""

    box: Box
    outputs: Mapping[str, npt.NDArray[np.float32]]
    """Outputs of the parser by name, without the batch dimension."""


def open_for_parser(
    source: ItemFile, picture: Picture, parser: Model, stopwatch: Stopwatch
) -> Opened:
    """Preprocess the region of a picture to search for the parser.

    Raises:
        ServiceError: REGION_INVALID.
    """
    within = requested_regions(source, picture)[0]
    with stopwatch.step("preprocess"):
        parser_input = preprocess(picture, [within], parser.input)
    return Opened(source.item, picture, within, parser_input)


def second_pass_inputs(
    opened: Opened, whole: ParsedPart, parser: Model
) -> tuple[Sequence[Box], Inputs]:
    """Return the parts of the picture for the parser's second pass, and their inputs."""
    boxes = second_pass_boxes(
        whole.box, whole.outputs[parser.output_name], parser.input, parser.stride
    )
    return boxes, preprocess(opened.picture, boxes, parser.input)


def prepare_subjects(
    opened: Opened,
    parts: Sequence[ParsedPart],
    plan: Plan,
    parser: Model,
    stopwatch: Stopwatch,
) -> Prepared:
    """Find subjects in the parser's maps, choose the subject to embed, and make its model inputs.

    Args:
        opened: decoded picture.
        parts: the searched region, then the parts of the second pass.
        plan: models to make inputs for.
        parser: model that computed the maps.
        stopwatch: stopwatch that times the steps.
    """
    picture, category = opened.picture, opened.item.category
    with stopwatch.step("find_subjects"):
        whole, *second_pass = parts
        dress = whole.outputs.get(DRESS_OUTPUT)
        found = find_subjects(
            picture,
            whole.box,
            whole.outputs[parser.output_name],
            parser.input,
            parser.stride,
            second_pass=[(part.box, part.outputs[parser.output_name]) for part in second_pass],
            dress_log_odds=0.0 if dress is None else float(dress[0]),
        )[:MAX_SUBJECTS]
    chosen = None
    if found:
        of_category = (
            row
            for row, subject in enumerate(found)
            if category is not None and subject.garment_category is category
        )
        chosen = next(of_category, 0)
    if plan.are_all_described:
        boxes = [subject.box for subject in found]
    else:
        boxes = [opened.within if chosen is None else found[chosen].box]
    inputs = make_inputs(picture, boxes, plan, stopwatch)
    return Prepared(picture, boxes, [""] * len(boxes), inputs, found, chosen)
