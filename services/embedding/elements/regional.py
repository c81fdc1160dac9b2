"""Regional descriptors: what a dense model makes of an element, and of the windows of a query.

One pass over a query gives a vector for each of many windows; the likeness of an element is that
of the window nearest to it. (Less what unrelated windows give it, as copies are judged, was tried:
no better beside the local features.)
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from imagesearch_services.common.errors import field_error
from imagesearch_services.common.types import Box
from imagesearch_services.embedding.models import Model
from imagesearch_services.embedding.pictures import Picture
from imagesearch_services.embedding.preprocess import preprocess
from imagesearch_services.embedding.registry import ModelRegistry
from imagesearch_services.embedding.windows import Windows

Floats = npt.NDArray[np.float32]

MAGIC = b"R1"
HEADER = struct.Struct("<2sHHI")
"""What it is, how many vectors, their components, how many bytes of local features come first."""
EDGES = 4


@dataclass(frozen=True, slots=True)
class Regional:
    """Vectors of an element, or of a query as a whole and its windows."""

    vectors: Floats
    """Unit length, [n, dimensions]."""
    boxes: Floats
    """What each describes, in the picture as shown: x_min, y_min, x_max, y_max, [n, 4]."""

    def best(self, element: Regional) -> tuple[float, int]:
        """Give the likeness of an element to the nearest of these, and which that is."""
        similarities = self.vectors @ element.vectors[0]
        row = int(similarities.argmax())
        return float(similarities[row]), row


@dataclass(frozen=True, slots=True)
class DenseModel:
    """A dense model, to describe elements or queries with."""

    model: Model
    windows: Windows | None
    """That a query is looked through by; None for elements."""

    @property
    def input_pixels(self) -> int:
        """How many pixels it takes, at most."""
        return self.model.input.pixels if self.windows is None else self.windows.max_pixels

    def view(self, picture: Picture, region: Box) -> DenseView:
        """Bring a region to its size: elements as every model sees pictures, queries by aspect."""
        spec = self.model.input if self.windows is None else self.windows.input_for(region)
        return DenseView(self, region, preprocess(picture, [region], spec))


@dataclass(frozen=True, slots=True)
class DenseView:
    """A region as a dense model looks at it."""

    dense: DenseModel
    region: Box
    pixels: npt.NDArray[np.uint8]
    """RGB, [1, height, width, 3]."""


class RegionalDescriber:
    """Runs dense models."""

    def __init__(self, registry: ModelRegistry) -> None:
        self._registry = registry

    def dense(self, space: str, *, for_query: bool) -> DenseModel:
        """Return the dense model that embeds into a space.

        Raises:
            ServiceError: MODEL_SERVER_UNAVAILABLE, MODEL_NOT_SERVED, or FIELD_INVALID where the
                model has no windows.
        """
        (model,) = self._registry.resolve([space])
        if model.windows is None:
            raise field_error("regional_space", f"{space} is the space of a model without windows")
        return DenseModel(model, model.windows if for_query else None)

    async def describe(self, view: DenseView) -> Regional:
        """Run the model on a view.

        Raises:
            ServiceError: as `ModelRegistry.run`.
        """
        model, windows = view.dense.model, view.dense.windows
        outputs = model.outputs_in(await self._registry.run(model, view.pixels))
        vectors, boxes = outputs[model.output_name], [view.region]
        if windows is not None:
            vectors = np.concatenate([vectors, outputs["windows"][0]])
            boxes += windows.boxes(view.region)
        return Regional(vectors, np.array(boxes, np.float32))


def with_regional(local: bytes, regional: Regional | None) -> bytes:
    """Put local features and regional ones into one blob; vectors as whole numbers of a byte."""
    if regional is None:
        return local
    count, components = regional.vectors.shape
    scales = np.abs(regional.vectors).max(axis=1, keepdims=True) / 127
    rounded = np.rint(regional.vectors / np.maximum(scales, 1e-9)).astype(np.int8)
    header = HEADER.pack(MAGIC, count, components, len(local))
    return b"".join([header, local, regional.boxes.astype("<f4").tobytes(), rounded.tobytes()])


def without_regional(raw: bytes, *, field: str) -> tuple[bytes, Regional | None]:
    """Take the blob apart again.

    Raises:
        ServiceError: FIELD_INVALID, naming `field`.
    """
    if raw[: len(MAGIC)] != MAGIC or len(raw) < HEADER.size:
        return raw, None
    _, count, components, local_bytes = HEADER.unpack_from(raw)
    body = raw[HEADER.size :]
    starts = [local_bytes, local_bytes + 4 * EDGES * count]
    local, rest, rounded = np.split(np.frombuffer(body, np.uint8), starts)
    if not count or not components or rounded.size != count * components:
        raise field_error(field, "are cut off")
    vectors = rounded.view(np.int8).reshape(count, components).astype(np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    boxes = np.frombuffer(rest.tobytes(), "<f4").reshape(count, EDGES)
    if not (lengths.all() and np.isfinite(boxes).all()):
        raise field_error(field, "are of no picture")
    return local.tobytes(), Regional(vectors / lengths, boxes)


def likeness(
    query: Regional | None, elements: Sequence[Regional | None]
) -> list[tuple[float, int] | None]:
    """Compare a query with elements: the likeness and the window of each, where both have vectors.

    Elements that another model described have none.
    """
    return [
        None
        if query is None or one is None or one.vectors.shape[1] != query.vectors.shape[1]
        else query.best(one)
        for one in elements
    ]
