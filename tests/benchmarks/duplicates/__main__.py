"""Measure the precision, recall and time of FindDuplicates at several library sizes.

    python -m tests.benchmarks.duplicates                  # pictures, then synthetic vectors
    python -m tests.benchmarks.duplicates --only pictures
    python -m tests.benchmarks.duplicates --only synthetic

The benchmark starts its own suite. Through the Catalog's contract it stores the first 5,000
pictures of the data set and an edited copy of every fifth picture, with embeddings and thumbnails
that the code of the suite made beforehand. Only FindDuplicates is measured, through the Gateway.
Synthetic vectors have no pictures. They are uniformly distributed in 384 of 512 dimensions, as far
apart as unrelated pictures; every tenth has a copy at a cosine of 0.8.
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
from imagesearch_services.embedding.inference.background import load_backgrounds
from imagesearch_services.models.common.pictures import data_folder
from imagesearch_services.models.near_duplicates.pictures import (
    PictureSet,
    known_duplicates,
    load_pictures,
    stored_pictures,
)
from imagesearch_services.runner.suite import Suite, SuiteSettings, free_ports
from tests.contract.catalog.support import Catalog
from tests.triton_server import prepared_models

SPACE = "sscd@1"
"""Vector space of the copy descriptor."""
DIMENSIONS = 512
INTRINSIC_DIMENSIONS = 384
SYNTHETIC_BACKGROUND = 0.05
"""Background similarity of synthetic vectors."""
COPY_COSINE = 0.8
"""Cosine between a synthetic vector and its copy."""
BATCH = 200
"""Number of entries per PutEntries call."""
INDEXING_THRESHOLD = 20_000
"""The Catalog's default number of unindexed vectors at which it builds an index."""
SIZES = (500, 5000)
SYNTHETIC_SIZES = (500, 5000, 50_000)


@dataclass(frozen=True, slots=True)
class Run:
    """The result of a FindDuplicates call."""

    groups: Sequence[Sequence[str]]
    """Image ids of each group, the image to keep first."""
    duration_s: float
    cpu_s: float
    """Processor time of all processes of the suite, which other load hardly affects."""
    first_group_s: float
    message_count: int
    checked_count: int


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=data_folder(), help="folder of the data set")
    parser.add_argument("--only", choices=("pictures", "synthetic"))
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    parser.add_argument("--vectors", type=int, nargs="*", default=SYNTHETIC_SIZES)
    parser.add_argument("--report", type=Path, help="JSON file to write the groups to")
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
    all_pictures = load_pictures(options.data)
    for size in options.sizes:
        pictures = all_pictures.first(size)
        library = f"pictures-{size}"
        asyncio.run(_store(suite, library, _picture_entries(pictures, options.data)))
        run = _find(suite, library)
        figures = _judge(pictures, run)
        _print({"pictures": size, "copies": len(pictures.copies), **figures})
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
        _print({
            "vectors": size,
            "recall": round(sum(pair in pairs for pair in planted) / len(planted), 4),
            "wrong_groups": len(pairs - set(planted)),
            **_times(run, size),
        })  # fmt: skip


def _find(suite: Suite, library: str) -> Run:
    groups: list[list[str]] = []
    start_s, start_cpu_s = time.monotonic(), _cpu_s(suite)
    first_s = 0.0
    messages: list[FindDuplicatesResponse] = []
    with Client(suite.target, timeout_s=120) as client:
        for message in client.find_duplicates(parent=f"libraries/{library}"):
            messages.append(message)
            if message.HasField("group"):
                first_s = first_s or time.monotonic() - start_s
                groups.append([member.image.image_id for member in message.group.images])
    duration_s = time.monotonic() - start_s
    return Run(
        groups,
        duration_s,
        _cpu_s(suite) - start_cpu_s,
        first_s,
        len(messages),
        messages[-1].checked_count,
    )


def _cpu_s(suite: Suite) -> float:
    """Return the processor time of the suite's processes and their children, in seconds."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                fields = (folder / "stat").read_text(encoding="ascii").rpartition(")")[2].split()
            except OSError:
                continue  # the process ended
            parents[int(folder.name)] = int(fields[1])
            ticks[int(folder.name)] = sum(map(int, fields[11:15]))
    pids = {process.pid for process in suite.processes.values()}
    while more := {pid for pid, parent in parents.items() if parent in pids} - pids:
        pids |= more
    return sum(ticks.get(pid, 0) for pid in pids) / os.sysconf("SC_CLK_TCK")


def _judge(pictures: PictureSet, run: Run) -> dict[str, Any]:
    """Return recall of the planted copies and precision of the proposals.

    A proposal is an image of a group, other than the image to keep. A proposal that groups known
    duplicates of the data set counts as neither correct nor wrong.
    """
    original = {image_id(copy.name): image_id(copy.original) for copy in pictures.copies}
    known_group = {
        image_id(name): number for number, group in enumerate(known_duplicates()) for name in group
    }
    outcomes: Counter[str] = Counter()
    wrong: list[tuple[str, str]] = []
    for keep, *others in run.groups:
        root = original.get(keep, keep)
        for other in others:
            other_root = original.get(other, other)
            if other_root == root:
                outcomes["correct"] += 1
            elif root in known_group and known_group[root] == known_group.get(other_root):
                outcomes["known_duplicates"] += 1
            else:
                outcomes["wrong"] += 1
                wrong.append((keep, other))
    found = {
        copy
        for group in run.groups
        for copy in group
        if copy in original
        and any(original[copy] in {other, original.get(other)} for other in group if other != copy)
    }
    missed: defaultdict[str, int] = defaultdict(int)
    for copy in pictures.copies:
        missed[copy.kind] += image_id(copy.name) not in found
    for keep, other in wrong:
        sys.stderr.write(f"wrong: {keep} {other}\n")
    return {
        "precision": round(
            outcomes["correct"] / max(1, outcomes["correct"] + outcomes["wrong"]), 4
        ),
        "recall": round(len(found) / len(pictures.copies), 4),
        **outcomes,
        "missed_by_kind": {kind: count for kind, count in sorted(missed.items()) if count},
        **_times(run, len(pictures.names) + len(pictures.copies)),
    }


def _times(run: Run, size: int) -> dict[str, Any]:
    assert run.checked_count == size
    return {
        "duration_s": round(run.duration_s, 2),
        "cpu_s": round(run.cpu_s, 2),
        "cpu_ms_per_image": round(run.cpu_s / size * 1e3, 2),
        "first_group_s": round(run.first_group_s, 2),
        "messages": run.message_count,
    }


async def _store(suite: Suite, library: str, entries: Iterator[pb.Entry]) -> None:
    """Create a library, store the entries, and wait for the index."""
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
        while (  # noqa: ASYNC110  # there is no event to wait for
            await catalog.library(library)
        ).unindexed_vector_count >= INDEXING_THRESHOLD:
            await asyncio.sleep(1)


def image_id(name: str) -> str:
    return name.replace("/", "%2F")


def _picture_entries(pictures: PictureSet, data: Path) -> Iterator[pb.Entry]:
    backgrounds = load_backgrounds()[SPACE].similarities(pictures.vectors)
    for name, picture, vector, background in zip(
        pictures.all_names,
        stored_pictures(pictures, data),
        pictures.vectors,
        backgrounds,
        strict=True,
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
    """Return unit vectors [size, 512]: ten elevenths are independent, the rest are their copies."""
    random = np.random.default_rng(size)
    basis = np.linalg.qr(random.standard_normal((DIMENSIONS, INTRINSIC_DIMENSIONS)))[0].T
    independent = random.standard_normal((size * 10 // 11, INTRINSIC_DIMENSIONS)) @ basis
    independent /= np.linalg.norm(independent, axis=1, keepdims=True)
    copied = independent[: size - len(independent)]
    noise = random.standard_normal(copied.shape)
    noise -= (noise * copied).sum(axis=1, keepdims=True) * copied
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    copies = COPY_COSINE * copied + np.sqrt(1 - COPY_COSINE**2) * noise
    return np.concatenate([independent, copies]).astype("<f4")


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


def _print(figures: dict[str, Any]) -> None:
    print(json.dumps(figures), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
