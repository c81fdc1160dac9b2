"""The demo's default pictures: photographs and textures from the scikit-image package."""

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
UNRELATED = (
    "cell.png",
    "coffee.png",
    "horse.png",
    "logo.png",
    "microaneurysms.png",
    "phantom.png",
    "text.png",
)
"""Pictures that are not stored, so that searches with them must find nothing."""

WITHOUT_TEXTURE = ("clock_motion.png", "color.png")
"""Stored pictures that cannot be elements, which are found by their texture."""

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
"""Photographs that each have a main subject; few of the subjects are products."""

STEREO_STORED = "motorcycle_left.png"
STEREO_OTHER = "motorcycle_right.png"
"""The other half of a stereo pair: the same motorcycle at the same moment, seen from the side."""

MAX_SIDE_PX = 1600
"""Maximum long side of an edited picture, in pixels. Larger pictures take ten times as long."""


def data_folder() -> Path:
    """Return the folder of scikit-image's pictures, without importing the package."""
    spec = importlib.util.find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise click.ClickException(
            "the demo's pictures are missing; run pip install 'imagesearch[demo]'"
        )
    return Path(spec.submodule_search_locations[0], "data")


def stored_pictures() -> Found:
    return find_pictures(data_folder() / name for name in STORED)


def elements() -> Found:
    return find_pictures(data_folder() / name for name in STORED if name not in WITHOUT_TEXTURE)


def goods() -> Found:
    return find_pictures(data_folder() / name for name in GOODS)


def unrelated() -> list[Picture]:
    return find_pictures(data_folder() / name for name in UNRELATED).pictures


def open_picture(path: Path) -> Image.Image:
    """Open a picture: upright, in RGB on a white background, scaled down to `MAX_SIDE_PX`."""
    with Image.open(path) as file:
        upright = ImageOps.exif_transpose(file)
        if upright.mode.startswith("I"):
            upright = upright.point(lambda level: level / 256).convert("L")
        rgba = upright.convert("RGBA")
    white = Image.new("RGBA", rgba.size, "white")
    picture = Image.alpha_composite(white, rgba).convert("RGB")
    picture.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX))
    return picture
