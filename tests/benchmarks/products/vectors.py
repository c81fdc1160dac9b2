"""Vectors of the subjects of pictures, as the Embedding service gives them, kept between runs."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from imagesearch.embedding.v1 import embedding_service_pb2 as pb
from tests.benchmarks.copies.dataset import ROOT
from tests.integration.embedding.harness import SERVING, running_embedding
from tests.triton_server import prepared_models, running_triton

MODEL = "product"
VERSION = "2"
SPACE = f"{MODEL}@{VERSION}"
CACHE = ROOT / ".cache" / "products"
BATCH = 8

Floats = npt.NDArray[np.float32]


def subject_vectors(data: Path, names: Sequence[str], *, subject_detection: bool = True) -> Floats:
    """Embed the subject of each picture, or the whole of it.

    Args:
        data: the folder of data sets.
        names: of pictures, relative to it.
        subject_detection: find the subject; else embed the whole picture.

    Returns:
        Unit vectors, float32 [names, D].
    """
    told = hashlib.sha256("\n".join([_models(), str(subject_detection), *names]).encode())
    file = CACHE / f"subjects-{told.hexdigest()[:16]}.npy"
    if not file.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        vectors = asyncio.run(_embed(data, names, subject_detection=subject_detection))
        np.save(file, vectors)
    kept: Floats = np.load(file)
    return kept


def _models() -> str:
    """Tell the models of now from those of another day."""
    repository = prepared_models() / "repository"
    files = [
        file
        for model in (MODEL, "subject_parser")
        for file in sorted((repository / model).glob("*/model.onnx"))
    ]
    return " ".join(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)


async def _embed(data: Path, names: Sequence[str], *, subject_detection: bool) -> Floats:
    rows: list[Floats] = []
    with running_triton() as triton:
        # A busy machine shall only take longer.
        async with running_embedding(triton.ports.grpc_address, INFER_TIMEOUT_S="120") as client:
            await client.until(SERVING)
            for start in range(0, len(names), BATCH):
                request = pb.EmbedImagesRequest(spaces=[SPACE])
                for name in names[start : start + BATCH]:
                    request.items.add(
                        image={"content": (data / name).read_bytes()},
                        subject_detection=subject_detection,
                    )
                response = await client.embedding.EmbedImages(request, timeout=300)
                for result in response.results:
                    (region,) = result.regions
                    rows.append(np.frombuffer(region.vectors[0].values, "<f4"))
                print(f"{len(rows)} of {len(names)}", end="\r", file=sys.stderr)  # noqa: T201
    return np.stack(rows)
