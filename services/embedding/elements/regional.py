"""Describes elements, and the windows of a query, by the vectors of a dense model.

One pass of the model over a query yields a vector for each of many windows. The regional similarity
of an element is the similarity of its nearest window. Subtracting the element's similarity to
unrelated windows, as for copies, does not improve the results in combination with local features.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from imagesearch_services.common.errors import field_error
from imagesearch_services.common.types import Box
from imagesearch_services.embedding.inference.models import Model
from imagesearch_services.embedding.inference.registry import ModelRegistry
from imagesearch_services.embedding.inference.windows import Windows
from imagesearch_services.embedding.pictures.picture import Picture
from imagesearch_services.embedding.pictures.preprocess import preprocess

Floats = npt.NDArray[np.float32]

MAGIC = b"R1"
HEADER = struct.Struct("<2sHHI")
"""Magic, number of vectors, number of their components, length of the local features in bytes."""
EDGES = 4
"""Number of edges of a box."""


@dataclass(frozen=True, slots=True)
class Regional:
    """Vectors of an element, or of a query as a whole and of its windows."""

    vectors: Floats
    """Unit vectors, [n, dimensions]."""
    boxes: Floats
    """Boxes of the vectors, in pixels of the picture as shown, [n, 4]: x_min, y_min, x_max, y_max.
    """

    def nearest_window(self, element: Regional) -> NearestWindow:
        """Return the window that is most similar to an element."""
        similarities = self.vectors @ element.vectors[0]
        row = int(similarities.argmax())
        return NearestWindow(float(similarities[row]), row)


class NearestWindow(NamedTuple):
    """The window of a query that is most similar to an element."""

    similarity: float
    """Cosine similarity to the element, -1 to 1."""
    row: int
    """Row of the window in the query's vectors."""


@dataclass(frozen=True, slots=True)
class DenseModel:
    """A dense model that describes elements or queries."""

    model: Model
    windows: Windows | None
    """Windows of a query; None to describe elements."""

    @property
    def input_pixels(self) -> int:
        """Upper bound of the pixels of the model's input."""
        return self.model.input.pixels if self.windows is None else self.windows.max_pixels

    def view(self, picture: Picture, region: Box) -> DenseView:
        """Resize a region to the model's input; a query approximately keeps its aspect ratio."""
        spec = self.model.input if self.windows is None else self.windows.input_for(region)
        return DenseView(self, region, preprocess(picture, [region], spec))


@dataclass(frozen=True, slots=True)
class DenseView:
    """A region, resized to the input of a dense model."""

    dense: DenseModel
    region: Box
    pixels: npt.NDArray[np.uint8]
    """uint8 RGB, [1, height, width, 3]."""


class RegionalDescriber:
    """Runs dense models."""

    def __init__(self, registry: ModelRegistry) -> None:
        self._registry = registry

    def dense(self, space: str, *, for_query: bool) -> DenseModel:
        """Return the dense model of a space.

        Raises:
            ServiceError: MODEL_SERVER_UNAVAILABLE, MODEL_NOT_SERVED, or FIELD_INVALID if the model
                has no windows.
        """
        (model,) = self._registry.resolve([space])
        if model.windows is None:
            raise field_error(
                "regional_space",
                f"must be the space of a dense model; the model of {space} has no windows",
            )
        return DenseModel(model, model.windows if for_query else None)

    async def describe(self, view: DenseView) -> Regional:
        """Run the model on a view.

        Raises:
            ServiceError: see `ModelRegistry.run`.
        """
        model, windows = view.dense.model, view.dense.windows
        outputs = model.outputs_in(await self._registry.run(model, view.pixels))
        vectors, boxes = outputs[model.output_name], [view.region]
        if windows is not None:
            vectors = np.concatenate([vectors, outputs["windows"][0]])
            boxes += windows.boxes(view.region)
        return Regional(vectors, np.array(boxes, np.float32))


def pack_regional(local: bytes, regional: Regional | None) -> bytes:
    """Serialize local and regional features in one blob; vectors are quantized to int8.

    Args:
        local: serialized local features.
        regional: regional features; None: `local` is returned unchanged.
    """
    if regional is None:
        return local
    count, components = regional.vectors.shape
    scales = np.abs(regional.vectors).max(axis=1, keepdims=True) / 127
    rounded = np.rint(regional.vectors / np.maximum(scales, 1e-9)).astype(np.int8)
    header = HEADER.pack(MAGIC, count, components, len(local))
    return b"".join([header, local, regional.boxes.astype("<f4").tobytes(), rounded.tobytes()])


def unpack_regional(raw: bytes, *, field: str) -> tuple[bytes, Regional | None]:
    """Split a blob of `pack_regional` into local and regional features.

    Args:
        raw: the blob.
        field: the request field that errors name.

    Raises:
        ServiceError: FIELD_INVALID.
    """
    if raw[: len(MAGIC)] != MAGIC or len(raw) < HEADER.size:
        return raw, None
    _, count, components, local_bytes = HEADER.unpack_from(raw)
    body = raw[HEADER.size :]
    starts = [local_bytes, local_bytes + 4 * EDGES * count]
    local, box_bytes, rounded = np.split(np.frombuffer(body, np.uint8), starts)
    if not count or not components or rounded.size != count * components:
        raise field_error(field, "is truncated or has the wrong length")
    vectors = rounded.view(np.int8).reshape(count, components).astype(np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    boxes = np.frombuffer(box_bytes.tobytes(), "<f4").reshape(count, EDGES)
    if not (lengths.all() and np.isfinite(boxes).all()):
        raise field_error(field, "has a zero vector, or a box with NaN or infinity")
    return local.tobytes(), Regional(vectors / lengths, boxes)


def nearest_windows(
    query: Regional | None, elements: Sequence[Regional | None]
) -> list[NearestWindow | None]:
    """Return the query's nearest window to each element.

    The window is None for an element without vectors, or with vectors of another model.
    """
    return [
        None
        if query is None or element is None or element.vectors.shape[1] != query.vectors.shape[1]
        else query.nearest_window(element)
        for element in elements
    ]
