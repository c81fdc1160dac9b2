"""The pictures of the data set, and the folder of intermediate results."""

from __future__ import annotations

import hashlib
import os
import random
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

Picture: TypeAlias = npt.NDArray[np.uint8]
"""RGB, [height, width, 3]."""

ROOT = Path(__file__).resolve().parents[3]
"""Root of the source tree."""
CACHE = ROOT / ".cache"
"""Intermediate results; safe to delete."""
DATA_VARIABLE = "IMAGESEARCH_BENCHMARK_DATA"
"""Environment variable with the folder of the data set."""
DEFAULT_DATA = ROOT.parent / "shared" / "data"
"""Default folder of the data set."""
PATTERNS = ("garments/*/*.jpg", "grocery/**/*.jpg", "street/photos/*.jpg")
"""Glob patterns of the pictures, relative to the folder of the data set."""


def data_folder() -> Path:
    """Return the folder of the data set, from the environment or the default."""
    return Path(os.environ.get(DATA_VARIABLE, DEFAULT_DATA))


def all_names(data: Path) -> list[str]:
    """Return the names of all pictures, relative to the folder.

    The names are sorted by their hash: the order is random, but the same on every machine.
    """
    names = [
        path.relative_to(data).as_posix() for pattern in PATTERNS for path in data.glob(pattern)
    ]
    return sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())


def read_rgb(path: Path) -> Image.Image:
    """Read a picture in RGB, with its EXIF orientation applied."""
    with Image.open(path) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


def read_pixels(path: Path) -> Picture:
    """Read a picture with OpenCV.

    Raises:
        FileNotFoundError: The file is missing or is not a picture.
    """
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if pixels is None:
        raise FileNotFoundError(path)
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)


def random_source(*names: object) -> random.Random:
    """Return a random number generator that is seeded by names, the same on every machine."""
    return random.Random("/".join(map(str, names)))
