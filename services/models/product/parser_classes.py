"""Classes and input size of the subject parser."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.uint8]

HEIGHT_PX, WIDTH_PX = 512, 352
STRIDE = 8
"""Side of a cell of the maps, in pixels of the input."""
MAP_HEIGHT, MAP_WIDTH = HEIGHT_PX // STRIDE, WIDTH_PX // STRIDE
CLASSES = (
    "background",
    "person",
    "tops",
    "outerwear",
    "dress",
    "bottoms",
    "shoes",
    "bag",
    "accessories",
)
FIRST_CLOTHING = CLASSES.index("tops")
DRESS = CLASSES.index("dress")
WORN = [CLASSES.index(name) for name in ("tops", "dress", "bottoms")]
"""Indices of the classes whose combination on a body is decided jointly."""
IGNORE = 255
"""Label of pixels that are excluded from training."""
CLASS_OF_KIND = {
    "dress": 4,
    "hat": 8,
    "longsleeve": 2,
    "outwear": 3,
    "pants": 5,
    "shirt": 2,
    "shoes": 6,
    "shorts": 5,
    "skirt": 5,
    "t-shirt": 2,
}
"""Index into CLASSES of each folder of garments."""
MAPPING = Path(__file__).with_name("street_classes.json")
"""Labels of the street photos, by class of the parser."""


def street_classes() -> Labels:
    """Return the index into CLASSES, or IGNORE, of each label of the street photos, [256]."""
    table = np.full(256, IGNORE, np.uint8)
    for index, labels in enumerate(json.loads(MAPPING.read_text()).values()):
        table[[int(label) for label in labels]] = index
    return table
