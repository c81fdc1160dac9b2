"""Measure what the cage costs: honest pictures decoded by workers, and by threads of the caller.

    python -m tests.benchmarks.decoding --rounds 30

Opens and decodes each picture both ways, in turn, and prints a Markdown table of the median wall
time and of the processor time of all processes together, for each picture.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from imagesearch_services.embedding.cage.cage import Cage
from imagesearch_services.embedding.pictures.picture_file import PictureFile
from tests.pictures import encoded, photograph

Measure = Callable[[], Awaitable[object]]
BATCH = 5
"""Pictures in each measurement of processor time."""


def pictures() -> dict[str, tuple[bytes, float]]:
    """Return the files and the reduction at which each is decoded, by name."""
    photo = photograph("hubble_deep_field.jpg")

    def of(width: int, height: int) -> Image.Image:
        return photo.resize((width, height), Image.Resampling.BICUBIC)

    return {
        "JPEG, 640 × 480": (encoded(of(640, 480), quality=90), 1.0),
        "JPEG, 12 megapixels, whole": (encoded(of(4000, 3000), quality=90), 1.0),
        "JPEG, 12 megapixels, at a quarter": (encoded(of(4000, 3000), quality=90), 4.0),
        "PNG, 2 megapixels": (encoded(of(1600, 1250), "PNG"), 1.0),
        "WebP, 2 megapixels": (encoded(of(1600, 1250), "WEBP"), 1.0),
        "AVIF, 2 megapixels": (encoded(of(1600, 1250), "AVIF", speed=10), 1.0),
    }


async def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what the cage costs.")
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    cage, threads = Cage(workers=2, overload_retry_s=1.0), ThreadPoolExecutor(2)
    say("| picture | threads | cage | processor time: threads | cage |")
    say("|---|---|---|---|---|")
    for name, (content, reduction) in pictures().items():

        async def in_cage(content: bytes = content, reduction: float = reduction) -> None:
            await cage.decode(await cage.open(content), reduction)

        async def in_threads(content: bytes = content, reduction: float = reduction) -> None:
            loop = asyncio.get_running_loop()
            file = await loop.run_in_executor(threads, PictureFile, content)
            await loop.run_in_executor(threads, file.decode, reduction)

        await in_cage()
        wall_ms: dict[Measure, list[float]] = {in_threads: [], in_cage: []}
        cpu_ms: dict[Measure, float] = {in_threads: 0.0, in_cage: 0.0}
        for _ in range(rounds):
            for decode in (in_threads, in_cage):
                began_cpu_s = cpu_s()
                for _ in range(BATCH):
                    began_s = time.perf_counter()
                    await decode()
                    wall_ms[decode].append(1e3 * (time.perf_counter() - began_s))
                cpu_ms[decode] += 1e3 * (cpu_s() - began_cpu_s)
        walls = [f"{statistics.median(times):.1f} ms" for times in wall_ms.values()]
        cpus = [f"{total / rounds / BATCH:.1f} ms" for total in cpu_ms.values()]
        say(f"| {name} | {' | '.join(walls)} | {' | '.join(cpus)} |")
    cage.close()


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def cpu_s() -> float:
    """Return the processor time of this process, its children and their children, in seconds."""
    pids = [os.getpid()]
    for pid in pids:
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            pids += map(int, children.read_text().split())
    return time.process_time() + sum(time.clock_gettime(~pid << 3 | 2) for pid in pids[1:])


if __name__ == "__main__":
    asyncio.run(main())
