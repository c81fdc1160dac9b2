"""Measure the cost of Triton: each model in this process and on Triton, in one run.

    python tests/benchmarks/triton.py [--seconds 5]

Rounds of both sides alternate, so that other load on the machine affects both equally. Reports the
median latency with one client, and the pictures per second with eight clients; in this process, the
clients are threads that share a session.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnxruntime  # type: ignore[import-untyped]
from tritonclient.grpc import InferInput  # type: ignore[import-untyped]
from tritonclient.grpc.aio import InferenceServerClient  # type: ignore[import-untyped]

sys.path.insert(0, str(Path(__file__).parents[2]))

from imagesearch_services.embedding.inference.probe import probe_picture
from tests.triton_server import MODELS_DIR, running_triton

MODELS = {"sscd": 288, "efficientnet_lite2": 260}
CLIENTS = 8
ROUNDS = 5


@dataclass
class Figures:
    latencies_ms: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)

    @property
    def latency_ms(self) -> float:
        return statistics.median(self.latencies_ms)

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)


class InProcess:
    def __init__(self, model: str, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(
            MODELS_DIR / "repository" / model / "1/model.onnx", options
        )

    def run(self, picture: np.ndarray) -> None:
        self.session.run(["embedding"], {"image": picture})

    def measure(self, picture: np.ndarray, seconds: float, figures: Figures) -> None:
        end = time.perf_counter() + seconds
        while (start := time.perf_counter()) < end:
            self.run(picture)
            figures.latencies_ms.append((time.perf_counter() - start) * 1000)

        def client(_: int) -> int:
            done = 0
            while time.perf_counter() < end:
                self.run(picture)
                done += 1
            return done

        end = (start := time.perf_counter()) + seconds
        with ThreadPoolExecutor(CLIENTS) as pool:
            done = sum(pool.map(client, range(CLIENTS)))
        figures.rates.append(done / (time.perf_counter() - start))


class OnTriton:
    def __init__(self, client: InferenceServerClient, model: str) -> None:
        self.client = client
        self.model = model

    async def run(self, picture: np.ndarray) -> None:
        image = InferInput("image", picture.shape, "UINT8")
        image.set_data_from_numpy(picture)
        (await self.client.infer(self.model, [image])).as_numpy("embedding")

    async def measure(self, picture: np.ndarray, seconds: float, figures: Figures) -> None:
        end = time.perf_counter() + seconds
        while (start := time.perf_counter()) < end:
            await self.run(picture)
            figures.latencies_ms.append((time.perf_counter() - start) * 1000)

        async def client() -> int:
            done = 0
            while time.perf_counter() < end:
                await self.run(picture)
                done += 1
            return done

        end = (start := time.perf_counter()) + seconds
        done = sum(await asyncio.gather(*(client() for _ in range(CLIENTS))))
        figures.rates.append(done / (time.perf_counter() - start))


async def measure(address: str, seconds: float, threads: int) -> None:
    async with InferenceServerClient(address) as client:
        for model, size in MODELS.items():
            picture = probe_picture(size, size)[None]
            in_process, on_triton = InProcess(model, threads), OnTriton(client, model)
            bare, served = Figures(), Figures()
            in_process.run(picture)
            await on_triton.run(picture)
            for _ in range(ROUNDS):
                in_process.measure(picture, seconds / ROUNDS, bare)
                await on_triton.measure(picture, seconds / ROUNDS, served)
            print(  # noqa: T201
                f"{model:20} 1 client: {bare.latency_ms:5.1f} ms in process, "
                f"{served.latency_ms:5.1f} ms on Triton "
                f"({served.latency_ms / bare.latency_ms:.2f} ×)   "
                f"{CLIENTS} clients: {bare.rate:5.1f}/s and {served.rate:5.1f}/s "
                f"({served.rate / bare.rate:.2f} ×)"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=5, help="for each figure")
    parser.add_argument("--threads", type=int, default=0, help="in this process; 0: all processors")
    options = parser.parse_args()
    with running_triton() as triton:
        asyncio.run(measure(triton.ports.grpc_address, options.seconds, options.threads))


if __name__ == "__main__":
    main()
