"""The training pictures of the models of product search, and their preprocessing."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image

from imagesearch_services.models.common.pictures import CACHE, Picture

FOLDER = CACHE / "product"
"""Default folder of intermediate results."""

Box: TypeAlias = tuple[int, int, int, int]
"""x_min, y_min, x_max, y_max in pixels."""

LETTERBOX_COLOR = (124, 116, 104)
"""Fill color around a letterboxed region, as in services/embedding/pictures/preprocess.py."""
CROP_MARGIN = 0.05
"""Margin around a subject, as a share of its sides."""


def read(file: Path) -> Picture:
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))


def crop(picture: Picture, box: Box, margin: float = CROP_MARGIN) -> Picture:
    """Crop a box with a margin, clipped to the picture."""
    height, width = picture.shape[:2]
    x_min, y_min, x_max, y_max = box
    x_margin, y_margin = round((x_max - x_min) * margin), round((y_max - y_min) * margin)
    return picture[
        max(0, y_min - y_margin) : min(height, y_max + y_margin),
        max(0, x_min - x_margin) : min(width, x_max + x_margin),
    ]


def letterbox(
    picture: Picture, width: int, height: int, color: tuple[int, int, int] = LETTERBOX_COLOR
) -> Picture:
    """Resize, keeping the aspect ratio, and center the result in a filled frame."""
    factor = min(width / picture.shape[1], height / picture.shape[0])
    size = (
        min(width, max(1, round(picture.shape[1] * factor))),
        min(height, max(1, round(picture.shape[0] * factor))),
    )
    frame = Image.new("RGB", (width, height), color)
    resized = Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0)
    frame.paste(resized, ((width - size[0]) // 2, (height - size[1]) // 2))
    return np.asarray(frame)


def squash(picture: Picture, width: int, height: int) -> Picture:
    """Resize to a width and a height, without keeping the aspect ratio."""
    return np.asarray(
        Image.fromarray(picture).resize(
            (width, height), Image.Resampling.BILINEAR, reducing_gap=3.0
        )
    )


def catalogue(data: Path) -> list[Path]:
    """Return the catalogue picture of each product; the stem is the name of the product."""
    return sorted((data / "grocery/catalogue").glob("*.jpg"))


def shelf(data: Path) -> list[Path]:
    """Return photos taken in shops; the folder is the name of the product."""
    return sorted((data / "grocery/shelf").glob("*/*"))


def garments(data: Path) -> list[Path]:
    """Return photos of a single garment each; the folder is its kind."""
    return sorted((data / "garments").glob("*/*.jpg"))


def street(data: Path) -> list[Path]:
    """Return photos of people; `labels/N.png` has the class of every pixel of `photos/N.jpg`."""
    return sorted((data / "street/photos").glob("*.jpg"))


def relative(files: Iterable[Path], data: Path) -> list[str]:
    return [file.relative_to(data).as_posix() for file in files]
