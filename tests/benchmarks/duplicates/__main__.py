"""How well are repeats found within a library, and how long does it take as it grows?

    python -m tests.benchmarks.duplicates                  # pictures, then synthetic vectors
    python -m tests.benchmarks.duplicates --only pictures
    python -m tests.benchmarks.duplicates --only synthetic

Starts a suite of its own. The first 5,000 pictures of the data folder and edited copies of every
fifth of them are put through the Catalog's contract with embeddings made beforehand by the suite's
own decoding, preprocessing and model, and with small pictures made by its own code; what is timed
and judged is FindDuplicates, through the Gateway. Synthetic vectors lie evenly in 384 dimensions of
512, as far apart as strangers do; each tenth has a copy at a cosine of 0.8. They have no pictures.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np

from imagesearch.catalog.v1 import catalog_service_pb2 as pb
from imagesearch.client import Client, FindDuplicatesResponse
from imagesearch.type.v1 import library_type_pb2, model_pb2, picture_pb2
from imagesearch_services.embedding.background import load_backgrounds
from imagesearch_services.models.common.pictures import data_folder
from imagesearch_services.runner.suite import Suite, SuiteSettings, free_ports
from tests.benchmarks.duplicates.planted import FOLDER, Pictures, pictures, repeats, thumbnails
from tests.contract.catalog.support import Catalog
from tests.triton_server import prepared_models

SPACE = "sscd@1"
DIMENSIONS = 512
INTRINSIC_DIMENSIONS = 384
SYNTHETIC_BACKGROUND = 0.05
COPY_COSINE = 0.8
BATCH = 200
INDEXING_THRESHOLD = 20_000
"""The Catalog's own, at which it begins to build an index."""
SIZES = (500, 5000)
SYNTHETIC_SIZES = (500, 5000, 50_000)


@dataclass(frozen=True, slots=True)
class Run:
    """What one call gave."""

    groups: Sequence[Sequence[str]]
    """Image ids, the one to keep first."""
    duration_s: float
    cpu_s: float
    """Processor time of all processes of the suite: what does not depend on a busy machine."""
    first_group_s: float
    message_count: int
    checked_count: int


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=data_folder(), help="folder of the pictures")
    parser.add_argument("--only", choices=("pictures", "synthetic"))
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    parser.add_argument("--vectors", type=int, nargs="*", default=SYNTHETIC_SIZES)
    parser.add_argument("--report", type=Path, help="write every proposal to this file, as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="imagesearch-duplicates-") as folder:
        suite = Suite.start(
            SuiteSettings(
                port=free_ports(1)[0], data_dir=Path(folder), models_dir=prepared_models()
            )
        )
        try:
            if options.only != "synthetic":
                _measure_pictures(suite, options)
            if options.only != "pictures":
                _measure_synthetic(suite, options.vectors)
        finally:
            suite.stop()


def _measure_pictures(suite: Suite, options: argparse.Namespace) -> None:
    everything = pictures(options.data)
    for size in options.sizes:
        stored = everything.first(size)
        library = f"pictures-{size}"
        asyncio.run(_store(suite, library, _picture_entries(stored, options.data)))
        run = _find(suite, library)
        figures = _judge(stored, run)
        _tell({"pictures": size, "copies": len(stored.copies), **figures})
        if options.report:
            options.report.write_text(json.dumps([list(group) for group in run.groups]))


def _measure_synthetic(suite: Suite, sizes: Sequence[int]) -> None:
    for size in sizes:
        library = f"vectors-{size}"
        vectors = _synthetic(size)
        asyncio.run(_store(suite, library, _vector_entries(vectors)))
        run = _find(suite, library)
        base = size * 10 // 11
        pairs = {frozenset(group) for group in run.groups}
        planted = [frozenset({f"v{row - base}", f"v{row}"}) for row in range(base, size)]
        _tell({
            "vectors": size,
            "recall": round(sum(pair in pairs for pair in planted) / len(planted), 4),
            "wrong_groups": len(pairs - set(planted)),
            **_times(run, size),
        })  # fmt: skip


def _find(suite: Suite, library: str) -> Run:
    groups: list[list[str]] = []
    began_s, began_cpu_s = time.monotonic(), _cpu_s(suite)
    first_s = 0.0
    messages: list[FindDuplicatesResponse] = []
    with Client(suite.target, timeout_s=120) as client:
        for message in client.find_duplicates(parent=f"libraries/{library}"):
            messages.append(message)
            if message.HasField("group"):
                first_s = first_s or time.monotonic() - began_s
                groups.append([member.image.image_id for member in message.group.images])
    duration_s = time.monotonic() - began_s
    return Run(
        groups,
        duration_s,
        _cpu_s(suite) - began_cpu_s,
        first_s,
        len(messages),
        messages[-1].checked_count,
    )


def _cpu_s(suite: Suite) -> float:
    """Add up the processor time of the suite's processes and theirs."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                fields = (folder / "stat").read_text(encoding="ascii").rpartition(")")[2].split()
            except OSError:
                continue  # it ended
            parents[int(folder.name)] = int(fields[1])
            ticks[int(folder.name)] = sum(map(int, fields[11:15]))
    ours = {process.pid for process in suite.processes.values()}
    while more := {pid for pid, parent in parents.items() if parent in ours} - ours:
        ours |= more
    return sum(ticks.get(pid, 0) for pid in ours) / os.sysconf("SC_CLK_TCK")


def _judge(stored: Pictures, run: Run) -> dict[str, Any]:
    """Count planted copies found, and proposals that are none of the same picture.

    A proposal is one image of a group beside the one to keep. One that joins pictures that are
    repeats in the data itself, by the committed list, counts as neither right nor wrong.
    """
    original = {image_id(copy.name): image_id(copy.original) for copy in stored.copies}
    repeat_of = {image_id(name): number for number, group in enumerate(repeats()) for name in group}
    outcomes: Counter[str] = Counter()
    wrong: list[tuple[str, str]] = []
    for keep, *others in run.groups:
        root = original.get(keep, keep)
        for other in others:
            other_root = original.get(other, other)
            if other_root == root:
                outcomes["right"] += 1
            elif root in repeat_of and repeat_of[root] == repeat_of.get(other_root):
                outcomes["repeats_of_the_data"] += 1
            else:
                outcomes["wrong"] += 1
                wrong.append((keep, other))
    found = {
        one
        for group in run.groups
        for one in group
        if one in original
        and any(original[one] in {other, original.get(other)} for other in group if other != one)
    }
    missed: defaultdict[str, int] = defaultdict(int)
    for copy in stored.copies:
        missed[copy.kind] += image_id(copy.name) not in found
    for keep, other in wrong:
        sys.stderr.write(f"wrong: {keep} {other}\n")
    return {
        "precision": round(outcomes["right"] / max(1, outcomes["right"] + outcomes["wrong"]), 4),
        "recall": round(len(found) / len(stored.copies), 4),
        **outcomes,
        "missed_by_kind": {kind: count for kind, count in sorted(missed.items()) if count},
        **_times(run, len(stored.names) + len(stored.copies)),
    }


def _times(run: Run, size: int) -> dict[str, Any]:
    assert run.checked_count == size
    return {
        "duration_s": round(run.duration_s, 2),
        "cpu_s": round(run.cpu_s, 2),
        "cpu_ms_an_image": round(run.cpu_s / size * 1e3, 2),
        "first_group_s": round(run.first_group_s, 2),
        "messages": run.message_count,
    }


async def _store(suite: Suite, library: str, entries: Iterator[pb.Entry]) -> None:
    """Make a library with the one space that is needed, fill it, and wait for its index."""
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    target = f"127.0.0.1:{suite.ports.catalog}"
    async with grpc.aio.insecure_channel(target, options=options) as channel:
        catalog = Catalog(channel)
        name, _, version = SPACE.partition("@")
        await catalog.stub.CreateLibrary(
            pb.CreateLibraryRequest(
                library=pb.Library(
                    library_id=library,
                    type=library_type_pb2.LIBRARY_TYPE_WHOLE_IMAGE,
                    spaces=[pb.VectorSpace(name=SPACE, dimensions=DIMENSIONS)],
                    models=[model_pb2.ModelVersion(role="copy", name=name, version=version)],
                )
            )
        )
        batch: list[pb.Entry] = []
        for entry in entries:
            batch.append(entry)
            if len(batch) == BATCH:
                await catalog.store(library, *batch)
                batch = []
        if batch:
            await catalog.store(library, *batch)
        while (  # noqa: ASYNC110  # nothing tells
            await catalog.library(library)
        ).unindexed_vector_count >= INDEXING_THRESHOLD:
            await asyncio.sleep(1)


def image_id(name: str) -> str:
    return name.replace("/", "%2F")


def _picture_entries(stored: Pictures, data: Path) -> Iterator[pb.Entry]:
    backgrounds = load_backgrounds()[SPACE].similarities(stored.vectors)
    names = [*stored.names, *(copy.name for copy in stored.copies)]
    files = [
        *(data / name for name in stored.names),
        *(FOLDER / copy.name for copy in stored.copies),
    ]
    for name, picture, vector, background in zip(
        names, thumbnails(names, files), stored.vectors, backgrounds, strict=True
    ):
        yield pb.Entry(
            image_id=image_id(name),
            info=picture_pb2.PictureInfo(
                width=picture.width,
                height=picture.height,
                size_bytes=picture.size_bytes,
                sha256=picture.sha256,
                media_type="image/jpeg",
            ),
            thumbnail=picture.thumbnail,
            vectors=[
                model_pb2.Vector(
                    space=SPACE, values=vector.tobytes(), background_similarity=float(background)
                )
            ],
        )


def _synthetic(size: int) -> Any:
    """Return unit vectors [size, 512]: ten elevenths of their own, then copies of the first."""
    random = np.random.default_rng(size)
    basis = np.linalg.qr(random.standard_normal((DIMENSIONS, INTRINSIC_DIMENSIONS)))[0].T
    own = random.standard_normal((size * 10 // 11, INTRINSIC_DIMENSIONS)) @ basis
    own /= np.linalg.norm(own, axis=1, keepdims=True)
    copied = own[: size - len(own)]
    noise = random.standard_normal(copied.shape)
    noise -= (noise * copied).sum(axis=1, keepdims=True) * copied
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    copies = COPY_COSINE * copied + np.sqrt(1 - COPY_COSINE**2) * noise
    return np.concatenate([own, copies]).astype("<f4")


def _vector_entries(vectors: Any) -> Iterator[pb.Entry]:
    for number, vector in enumerate(vectors):
        yield pb.Entry(
            image_id=f"v{number}",
            info=picture_pb2.PictureInfo(width=1, height=1, sha256=f"{number:064x}"),
            vectors=[
                model_pb2.Vector(
                    space=SPACE,
                    values=vector.tobytes(),
                    background_similarity=SYNTHETIC_BACKGROUND,
                )
            ],
        )


def _tell(figures: dict[str, Any]) -> None:
    print(json.dumps(figures), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
