"""The demo's own pictures: photographs and textures that the scikit-image wheel carries."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import click
from PIL import Image, ImageOps

from imagesearch.cli.files import Found, Picture, find_pictures

STORED = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "clock_motion.png",
    "coins.png",
    "color.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "moon.png",
    "motorcycle_left.png",
    "page.png",
    "retina.jpg",
    "rocket.jpg",
)
STRANGERS = (
    "cell.png",
    "coffee.png",
    "horse.png",
    "logo.png",
    "microaneurysms.png",
    "phantom.png",
    "text.png",
)
"""Never stored: searches with them must find nothing."""

PLAIN = ("clock_motion.png", "color.png")
"""Of those: blurred, and all smooth. Elements are found by their texture, and these have none."""

GOODS = (
    "astronaut.png",
    "camera.png",
    "chelsea.png",
    "clock_motion.png",
    "coffee.png",
    "coins.png",
    "motorcycle_left.png",
    "rocket.jpg",
)
"""Photographs of things: few of them are goods that a shop sells, but each has a subject."""

STEREO_STORED = "motorcycle_left.png"
STEREO_OTHER = "motorcycle_right.png"
"""The same motorcycle, photographed from a step aside at the same moment."""

MAX_SIDE_PX = 1600
"""Large pictures are edited at this size: it takes a tenth of the time and is an edit as well."""


def data_folder() -> Path:
    """Find scikit-image's pictures without importing it."""
    spec = importlib.util.find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise click.ClickException(
            "the demo's pictures are missing: pip install 'imagesearch[demo]'"
        )
    return Path(spec.submodule_search_locations[0], "data")


def own_pictures() -> Found:
    return find_pictures(data_folder() / name for name in STORED)


def elements() -> Found:
    return find_pictures(data_folder() / name for name in STORED if name not in PLAIN)


def goods() -> Found:
    return find_pictures(data_folder() / name for name in GOODS)


def strangers() -> list[Picture]:
    return find_pictures(data_folder() / name for name in STRANGERS).pictures


def open_picture(path: Path) -> Image.Image:
    """Open a picture as it is shown: upright, over white, in RGB, not larger than needed."""
    with Image.open(path) as file:
        shown = ImageOps.exif_transpose(file)
        if shown.mode.startswith("I"):
            shown = shown.point(lambda level: level / 256).convert("L")
        colours = shown.convert("RGBA")
    white = Image.new("RGBA", colours.size, "white")
    picture = Image.alpha_composite(white, colours).convert("RGB")
    picture.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX))
    return picture
