"""Properties of a picture that are computed without a model."""

from __future__ import annotations

import hashlib

import cv2
import numpy as np
from PIL import Image

from imagesearch_services.common.types import PictureInfo
from imagesearch_services.embedding.pictures.picture import Picture

SHARPNESS_SIDE_PX = 512
"""Long side at which sharpness is measured, in pixels."""


def describe_file(content: bytes, media_type: str, picture: Picture) -> PictureInfo:
    """Return the properties of a file and its decoded picture."""
    return PictureInfo(
        width=picture.width,
        height=picture.height,
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        media_type=media_type,
        sharpness=sharpness(picture.image),
    )


def sharpness(image: Image.Image) -> float:
    """Return the variance of the Laplacian (4 neighbors) of the grey picture at 512 px long side.

    Source: Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", ICPR 2000.
    """
    factor = SHARPNESS_SIDE_PX / max(image.size)
    size = (max(3, round(image.width * factor)), max(3, round(image.height * factor)))
    # INTER_AREA averages when it reduces, interpolates when it enlarges, and is faster than Pillow.
    resized = cv2.resize(np.asarray(image.convert("L")), size, interpolation=cv2.INTER_AREA)
    grey = resized.astype(np.int16)
    laplacian = (
        grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * grey[1:-1, 1:-1]
    )
    return float(laplacian.var(dtype=np.float64))
