"""A picture at working size with its local features."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from imagesearch_services.embedding.features.geometric_check import Size
from imagesearch_services.embedding.features.local_features import (
    ExtractionLimits,
    LocalFeatures,
    extract,
)

Pixels = npt.NDArray[np.uint8]
"""RGB [height, width, 3], or grey [height, width]."""
Grey = npt.NDArray[np.uint8]
"""Grey levels, [height, width]."""
Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

LIMITS = ExtractionLimits(max_features=800)
"""Limits of the features of most pictures."""
FAINT_LIMITS = ExtractionLimits(max_features=800, contrast_threshold=0.006)
"""Limits of the features of pictures with little contrast."""
FEW_FEATURES = 150
"""Number of features below which faint features are extracted, too; a plain dress has hardly any
other features."""


@dataclass(frozen=True, slots=True)
class View:
    """A picture at working size with its local features."""

    pixels: Pixels
    """RGB, or grey levels if colors are not compared, which is faster."""
    grey: Grey
    features: LocalFeatures

    @classmethod
    def of(cls, pixels: Pixels) -> View:
        """Extract the features of a picture."""
        grey = grey_of(pixels)
        features = extract(grey, LIMITS)
        if len(features) < FEW_FEATURES:
            features = extract(grey, FAINT_LIMITS)
        return cls(pixels, grey, features)

    @property
    def size(self) -> Size:
        """Width and height, in pixels."""
        return self.grey.shape[1], self.grey.shape[0]


def grey_of(pixels: Pixels) -> Grey:
    """Convert RGB to luma, [height, width, 3] → [height, width]; return grey levels unchanged."""
    if pixels.ndim == 2:  # noqa: PLR2004
        return pixels
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8)
