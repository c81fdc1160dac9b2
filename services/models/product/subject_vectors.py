"""Vectors of the subjects of pictures, as Embedding returns them; cached between runs."""

from __future__ import annotations

import hashlib
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import grpc
import numpy as np
import numpy.typing as npt

from imagesearch.embedding.v1 import embedding_service_pb2 as pb
from imagesearch.embedding.v1 import embedding_service_pb2_grpc as pb_grpc
from imagesearch_services.models.common.pictures import CACHE
from imagesearch_services.models.common.prepared import prepared_models
from imagesearch_services.runner.suite import HOST, Suite, SuiteSettings, free_ports

MODEL = "product"
VERSION = "2"
SPACE = f"{MODEL}@{VERSION}"
FOLDER = CACHE / "products"
BATCH = 8
"""Number of pictures per call."""
TIMEOUT_S = 300
"""Timeout of a call, in seconds."""
INFER_TIMEOUT_S = 120
"""Timeout of a run of a model, in seconds; longer than the default, so that no call fails on a busy
machine."""

Floats = npt.NDArray[np.float32]


def subject_vectors(data: Path, names: Sequence[str], *, subject_detection: bool = True) -> Floats:
    """Embed the subject of each picture, or the whole picture.

    Args:
        data: Folder of the data set.
        names: Names of pictures, relative to it.
        subject_detection: Whether to embed the main subject instead of the whole picture.

    Returns:
        Unit vectors, float32 [names, D].
    """
    key = hashlib.sha256("\n".join([_models(), str(subject_detection), *names]).encode())
    file = FOLDER / f"subjects-{key.hexdigest()[:16]}.npy"
    if not file.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        np.save(file, _embed(data, names, subject_detection=subject_detection))
    vectors: Floats = np.load(file)
    return vectors


def _models() -> str:
    """Return the hashes of the models that determine the vectors."""
    repository = prepared_models() / "repository"
    files = [
        file
        for model in (MODEL, "subject_parser")
        for file in sorted((repository / model).glob("*/model.onnx"))
    ]
    return " ".join(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)


def _embed(data: Path, names: Sequence[str], *, subject_detection: bool) -> Floats:
    rows: list[Floats] = []
    with tempfile.TemporaryDirectory(prefix="imagesearch-products-") as folder:
        suite = Suite.start(
            SuiteSettings(
                port=free_ports(1)[0],
                data_dir=Path(folder),
                models_dir=prepared_models(),
                environment={"IMAGESEARCH_EMBEDDING_INFER_TIMEOUT_S": str(INFER_TIMEOUT_S)},
            )
        )
        try:
            with grpc.insecure_channel(f"{HOST}:{suite.ports.embedding}") as channel:
                stub = pb_grpc.EmbeddingServiceStub(channel)
                for start in range(0, len(names), BATCH):
                    request = pb.EmbedImagesRequest(spaces=[SPACE])
                    for name in names[start : start + BATCH]:
                        item = request.items.add(subject_detection=subject_detection)
                        item.image.content = (data / name).read_bytes()
                    for result in stub.EmbedImages(request, timeout=TIMEOUT_S).results:
                        (region,) = result.regions
                        rows.append(np.frombuffer(region.vectors[0].values, "<f4"))
                    print(f"{len(rows)} of {len(names)}", end="\r", file=sys.stderr)
        finally:
            suite.stop()
    return np.stack(rows)
