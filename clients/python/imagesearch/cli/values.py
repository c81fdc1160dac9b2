"""Parsers of command-line values."""
# ruff: noqa: PLC0415  # imported by the commands that use it

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from imagesearch.client import Box, Category, LibraryType, PlainTag, Relation

LIBRARY_TYPES = ("whole-image", "element", "product")
RELATIONS = ("same", "similar", "both")
CATEGORIES = (
    "tops",
    "dress",
    "bottoms",
    "bag",
    "shoes",
    "accessories",
    "snack",
    "makeup",
    "bottle",
    "furniture",
    "toy",
    "underwear",
    "digital-device",
    "other",
)

INTEGER = re.compile(r"-?(0|[1-9][0-9]*)")
FLOAT = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
INT64 = range(-(2**63), 2**63)
BOX_SIDES = 4


subject_detection_option = click.option(
    "--subject-detection/--no-subject-detection",
    default=None,
    help="Use the main subject instead of the whole picture or region; product libraries only."
    "  [default: use the subject unless a region is given]",
)


class TagParameter(click.ParamType[tuple[str, "PlainTag"]]):
    """A tag in the format NAME=VALUE."""

    name = "name=value"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, PlainTag]:
        name, separator, text = str(value).partition("=")
        if not name or not separator:
            self.fail(f"{value!r} does not have the format NAME=VALUE", param, ctx)
        return name, parse_tag(text)


class RegionParameter(click.ParamType["Box"]):
    """A box in the format x0,y0,x1,y1, in pixels."""

    name = "x0,y0,x1,y1"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Box:
        from imagesearch.client import Box

        try:
            sides = [float(side) for side in str(value).split(",")]
        except ValueError:
            sides = []
        if len(sides) != BOX_SIDES:
            self.fail(
                f"{value!r} does not have the format x0,y0,x1,y1 (four numbers, in pixels)",
                param,
                ctx,
            )
        return Box(x_min=sides[0], y_min=sides[1], x_max=sides[2], y_max=sides[3])


def parse_tag(text: str) -> PlainTag:
    """Return the value of a tag: true, false and numbers as in JSON, any other text as a string.

    >>> [parse_tag(text) for text in ("true", "7", "7.0", "007", "red", '"7"')]
    [True, 7, 7.0, '007', 'red', '7']
    """
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1]
    if text in {"true", "false"}:
        return text == "true"
    if INTEGER.fullmatch(text) and (number := int(text)) in INT64:
        return number
    if FLOAT.fullmatch(text) and (float(text) not in {float("inf"), float("-inf")}):
        return float(text)
    return text


def library_id(name: str) -> str:
    """Return the library id of "shop" or "libraries/shop"."""
    return name.removeprefix("libraries/")


def library_type(name: str) -> LibraryType.ValueType:
    from imagesearch.client import LibraryType

    return LibraryType.Value(_enum_name("LIBRARY_TYPE", name))


def relation(name: str | None) -> Relation.ValueType:
    from imagesearch.client import Relation

    return Relation.Value(_enum_name("RELATION", name or "unspecified"))


def category(name: str | None) -> Category.ValueType:
    from imagesearch.client import Category

    return Category.Value(_enum_name("CATEGORY", name or "unspecified"))


def _enum_name(prefix: str, name: str) -> str:
    return f"{prefix}_{name.upper().replace('-', '_')}"
