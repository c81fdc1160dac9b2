"""Embeddings computed in this process, with the decoding and preprocessing of the service."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from imagesearch_services.common.types import Box
from imagesearch_services.embedding.embed.regions import propose_regions
from imagesearch_services.embedding.pictures.picture_file import PictureFile
from imagesearch_services.embedding.pictures.preprocess import InputSpec, Resize, preprocess
from imagesearch_services.models.common.prepared import weights_file

COPY_MODEL = "sscd"
SEMANTIC_MODEL = "efficientnet_lite2"
VERSION = "1"
SPECS = {
    COPY_MODEL: InputSpec(288, 288, Resize.SQUASH),
    SEMANTIC_MODEL: InputSpec(260, 260, Resize.LETTERBOX),
}
BATCH = 5
"""Maximum number of regions per run of the model."""

Floats = npt.NDArray[np.float32]


class Embedder:
    """A model that runs on a single thread, so that other work can run at the same time."""

    def __init__(self, model: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            weights_file(model, VERSION), options, providers=["CPUExecutionProvider"]
        )
        self._input: str = self._session.get_inputs()[0].name
        self._spec = SPECS[model]

    def embed(self, content: bytes) -> Floats:
        """Embed a whole picture; returns a unit vector [D]."""
        (vector,) = self.embed_with_regions(content, 0)
        return np.asarray(vector)

    def embed_with_regions(self, content: bytes, max_regions: int) -> Floats:
        """Embed a picture and its proposed regions; returns unit vectors [1 + regions, D]."""
        picture = PictureFile(content).decode()
        boxes = [Box(0, 0, picture.width, picture.height)]
        if max_regions:
            boxes += [
                region.box for region in propose_regions(np.asarray(picture.image), max_regions)
            ]
        return self.embed_inputs([preprocess(picture, boxes, self._spec)])

    def embed_inputs(self, parts: Sequence[npt.NDArray[np.uint8]]) -> Floats:
        """Embed preprocessed regions, each part [regions, H, W, 3]; returns unit vectors [N, D]."""
        inputs = np.concatenate(parts)
        outputs = [
            self._session.run(None, {self._input: inputs[first : first + BATCH]})[0]
            for first in range(0, len(inputs), BATCH)
        ]
        return unit(np.concatenate(outputs))


def unit(vectors: Floats) -> Floats:
    """Scale rows to unit length."""
    scaled: Floats = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return scaled


def embed_files(model: str, data: Path, names: Sequence[str], cache: Path) -> Floats:
    """Embed whole pictures, or read the vectors of the same pictures from the cache.

    Returns:
        Unit vectors, float32 [names, D].
    """
    if cache.exists():
        with np.load(cache) as cached:
            if cached["names"].tolist() == list(names):
                vectors: Floats = cached["vectors"]
                return vectors
    embedder = Embedder(model)
    vectors = np.stack([embedder.embed((data / name).read_bytes()) for name in names])
    cache.parent.mkdir(parents=True, exist_ok=True)
    np.savez(cache, vectors=vectors, names=np.array(names))
    return vectors
