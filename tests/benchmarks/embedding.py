"""Measure the latency of a small embedding while the Embedding service has other work.

    python -m tests.benchmarks.embedding --calls 100

Starts Triton and an Embedding service. One client embeds photographs of garments, one at a time,
while other clients keep the service busy with pictures of 48 megapixels, drawings, comparisons, or
checks of thumbnails for copies. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from PIL import Image

from imagesearch.embedding.v1 import embedding_service_pb2 as pb
from imagesearch.embedding.v1 import embedding_service_pb2_grpc as pb_grpc
from imagesearch.type.v1 import geometry_pb2, picture_pb2
from imagesearch_services.embedding.settings import PREFIX
from tests.pictures import encoded, photo
from tests.ports import free_port
from tests.triton_server import running_triton

ROOT = Path(__file__).parents[2]
DEFAULT_PICTURES = ROOT.parent / "shared" / "data" / "garments"
COPY_SPACE = "sscd@1"
PICTURES = 20
"""Number of distinct photographs that are embedded."""
THUMBNAILS = 20
"""Number of thumbnails per check; all pairs are checked."""
RETRY_S = 0.02
"""Delay before a refused call is repeated, in seconds."""
WARM_UP_S = 0.5
"""Duration of the load before the first measured call, in seconds."""

Send = Callable[[], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Load:
    """Calls that keep the service busy."""

    name: str
    clients: int
    send: Send


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--calls", type=int, default=100, help="measured calls for each load")
    parser.add_argument("--pictures", type=Path, default=DEFAULT_PICTURES, help="folder of photos")
    options = parser.parse_args()
    files = sorted(options.pictures.rglob("*.jpg"))
    if len(files) < PICTURES:
        sys.exit(f"{options.pictures} has {len(files)} photos, {PICTURES} are required")
    photos = [file.read_bytes() for file in files[:: len(files) // PICTURES][:PICTURES]]
    with running_triton() as triton:
        asyncio.run(measure(triton.ports.grpc_address, photos, options.calls))


async def measure(triton_target: str, photos: Sequence[bytes], calls: int) -> None:
    """Start an Embedding service, measure the latency under each load, and print the table."""
    port = free_port()
    variables = {f"{PREFIX}PORT": str(port), f"{PREFIX}TRITON_TARGET": triton_target}
    service = subprocess.Popen(  # noqa: ASYNC220  # starts immediately
        [sys.executable, "-m", "imagesearch_services.embedding"],
        env=os.environ | variables,
        stderr=subprocess.DEVNULL,
    )
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = pb_grpc.EmbeddingServiceStub(channel)
            await admitted(lambda: stub.EmbedImages(embedding(photos[0]), wait_for_ready=True))
            print("| load | clients | min ms | p50 ms | p90 ms | max ms |")  # noqa: T201
            print("|---|---:|---:|---:|---:|---:|")  # noqa: T201
            for load in loads(stub, photos):
                durations_ms = sorted(await measured(stub, photos, load, calls))
                figures = (
                    durations_ms[0],
                    statistics.median(durations_ms),
                    durations_ms[int(0.9 * len(durations_ms))],
                    durations_ms[-1],
                )
                cells = " | ".join(f"{figure:.0f}" for figure in figures)
                print(f"| {load.name} | {load.clients} | {cells} |", flush=True)  # noqa: T201
    finally:
        service.terminate()
        service.wait()


def loads(stub: pb_grpc.EmbeddingServiceAsyncStub, photos: Sequence[bytes]) -> list[Load]:
    large = embedding(encoded(Image.new("RGB", (8000, 6000), "teal"), "PNG"))
    box = geometry_pb2.Box(x_min=10, y_min=10, x_max=900, y_max=800)
    drawing = pb.DrawAnnotationsRequest(
        image=content(encoded(photo(0, (2400, 1800)))),
        annotations=[pb.Annotation(box=box, lines=["shoe", "0.98"])] * 5,
    )
    comparison = pb.ComparePicturesRequest(image_a=content(photos[0]), image_b=content(photos[1]))
    pairs = [(first, second) for second in range(THUMBNAILS) for first in range(second)]
    copies = pb.CheckCopiesRequest(
        images=[content(encoded(photo(seed, (320, 240)))) for seed in range(THUMBNAILS)],
        pairs=[pb.PicturePair(first=first, second=second) for first, second in pairs],
    )
    return [
        Load("idle", 0, lambda: stub.EmbedImages(large)),
        Load("pictures of 48 megapixels", 2, lambda: stub.EmbedImages(large)),
        Load("drawings", 4, lambda: stub.DrawAnnotations(drawing)),
        Load("comparisons", 3, lambda: stub.ComparePictures(comparison)),
        Load("checks of 190 pairs", 2, lambda: stub.CheckCopies(copies)),
    ]


async def measured(
    stub: pb_grpc.EmbeddingServiceAsyncStub, photos: Sequence[bytes], load: Load, calls: int
) -> list[float]:
    """Return the durations of embeddings under a load, ms."""
    durations_ms = []
    is_done = asyncio.Event()

    async def keep_busy() -> None:
        while not is_done.is_set():
            await admitted(load.send)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(load.clients):
            tasks.create_task(keep_busy())
        await asyncio.sleep(WARM_UP_S)
        for number in range(calls):
            request = embedding(photos[number % len(photos)])
            started_s = time.perf_counter()
            await admitted(lambda request=request: stub.EmbedImages(request))
            durations_ms.append((time.perf_counter() - started_s) * 1e3)
        is_done.set()
    return durations_ms


async def admitted(send: Send) -> None:
    """Repeat a call until it is admitted and the model serves."""
    while True:
        try:
            await send()
        except grpc.aio.AioRpcError as error:
            if error.code() not in {
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                grpc.StatusCode.UNAVAILABLE,
            }:
                raise
            await asyncio.sleep(RETRY_S)
        else:
            return


def embedding(picture: bytes) -> pb.EmbedImagesRequest:
    item = pb.EmbedImageItem(image=content(picture))
    return pb.EmbedImagesRequest(items=[item], spaces=[COPY_SPACE])


def content(picture: bytes) -> picture_pb2.ImageContent:
    return picture_pb2.ImageContent(content=picture)


if __name__ == "__main__":
    main()
