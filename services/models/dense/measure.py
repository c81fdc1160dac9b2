"""Measure the dense descriptor and its teacher on pictures that were not used in training.

    python -m imagesearch_services.models.dense.measure elements --elements 300
    python -m imagesearch_services.models.dense.measure scale
    python -m imagesearch_services.models.dense.measure copies

`elements`: each stored element is embedded whole, each photo by its windows in one pass. `scale`:
the same among 10,000 and 100,000 elements, most of them windows of otherwise unused photos.
`copies`: only whole pictures are embedded, without regions or mirrored queries, so the figures are
lower than those of the suite with the same model.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import onnxruntime

from imagesearch_services.models.common.pictures import all_names, data_folder, read_pixels
from imagesearch_services.models.common.prepared import committed_weights
from imagesearch_services.models.copies import queries as copies
from imagesearch_services.models.dense.pixels import Picture
from imagesearch_services.models.dense.teacher import Teacher
from imagesearch_services.models.elements import dataset as elements
from imagesearch_services.models.elements.sources import KINDS

MODEL = committed_weights("dense", 2)
STEP_PX = 32
"""Divisor of both sides of the input, in pixels."""
WHOLE_PX, PHOTO_PX = 288, 640
"""Side of a whole element and long side of a photo, in pixels."""
BACKGROUND = 50
"""Number of photos without elements that determine the background score of each element."""

SCALES = (10_000, 100_000)
"""Sizes of the larger libraries, in elements."""
UNUSED_FROM = 1200
"""Index of the first garment photo that neither the benchmark nor the training uses."""

Floats = npt.NDArray[np.float32]


class Student:
    """The exported model."""

    def __init__(self, model: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(model, options)

    def whole(self, picture: Picture) -> Floats:
        image = cv2.resize(picture, (WHOLE_PX, WHOLE_PX), interpolation=cv2.INTER_AREA)
        return np.asarray(self.session.run(["embedding"], {"image": image[None]})[0][0])

    def windows(self, picture: Picture) -> Floats:
        """Return the vectors of the whole picture and of its windows, [1 + windows, 512]."""
        image = fitted(picture, PHOTO_PX)
        whole, windows = self.session.run(["embedding", "windows"], {"image": image[None]})
        return np.concatenate([whole, windows[0]])


def fitted(picture: Picture, longer_px: int) -> Picture:
    """Resize to a long side in pixels, with both sides rounded to multiples of 32."""
    factor = longer_px / max(picture.shape[:2])
    height, width = (max(2, round(side * factor / STEP_PX)) * STEP_PX for side in picture.shape[:2])
    interpolation = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, (width, height), interpolation=interpolation))


def measure_elements(student: Student, benchmark: elements.Benchmark) -> None:
    """Print the recall of the benchmark's elements, by kind."""
    stored = np.stack(
        [
            student.whole(read_pixels(benchmark.folder / element.file))
            for element in benchmark.elements
        ]
    )
    row = {element.id: index for index, element in enumerate(benchmark.elements)}

    def best(query: elements.Query) -> Floats:
        vectors = student.windows(read_pixels(benchmark.folder / query.file))
        return np.asarray((vectors @ stored.T).max(0))

    of_negatives = [best(query) for query in benchmark.negatives]
    background = np.mean(of_negatives[:BACKGROUND], 0)
    tops = [float((scores - background).max()) for scores in of_negatives[BACKGROUND:]]
    threshold = float(np.percentile(tops, 99))
    took_ms, ranks, found = [], [], []
    for query in benchmark.queries:
        begin = time.perf_counter()
        scores = best(query) - background
        took_ms.append((time.perf_counter() - begin) * 1000)
        targets = [row[appearance.element] for appearance in query.appearances]
        ranks.append(min(int((scores > scores[index]).sum()) for index in targets))
        found.append(ranks[-1] == 0 and scores.max() > threshold)
    print("| query | n | R@1 | R@10 | found at 1 in 100 |\n|---|---:|---:|---:|---:|")
    kinds = np.array([query.kind for query in benchmark.queries])
    for kind in (*KINDS, "all"):
        chosen = (kinds == kind) | (kind == "all")
        first, ten = (np.array(ranks)[chosen] < limit for limit in (1, 10))
        print(f"| {kind} | {chosen.sum()} | {first.mean():.2f} | {ten.mean():.2f} "
              f"| {np.array(found)[chosen].mean():.2f} |")  # fmt: skip
    print(f"\n{statistics.median(took_ms):.0f} ms per photo on one thread, including reading")


def measure_scale(student: Student, benchmark: elements.Benchmark) -> None:
    """Print the recall of the benchmark's elements in larger libraries."""
    stored = np.stack(
        [
            student.whole(read_pixels(benchmark.folder / element.file))
            for element in benchmark.elements
        ]
    )
    row = {element.id: index for index, element in enumerate(benchmark.elements)}
    queries = [
        student.windows(read_pixels(benchmark.folder / query.file)) for query in benchmark.queries
    ]
    data = data_folder()
    garments = [name for name in all_names(data) if name.startswith("garments")]
    others: list[Floats] = []
    print("| elements | R@1 | R@10 | R@100 | R@200 |")
    print("|---:|---:|---:|---:|---:|")
    for size in (len(stored), *(size for size in SCALES if size > len(stored))):
        while len(stored) + sum(map(len, others)) < size:
            others.append(student.windows(read_pixels(data / garments[UNUSED_FROM + len(others)])))
        library = np.concatenate([stored, *others])[:size]
        ranks = []
        for query, windows in zip(benchmark.queries, queries, strict=True):
            scores = (windows @ library.T).max(0)
            ranks.append(
                min(
                    int((scores > scores[row[appearance.element]]).sum())
                    for appearance in query.appearances
                )
            )
        shares = " | ".join(f"{np.mean(np.array(ranks) < k):.3f}" for k in (1, 10, 100, 200))
        print(f"| {size:,} | {shares} |", flush=True)


def measure_copies(student: Student, teacher: Teacher, limit: int, count: int) -> None:
    """Print the recall of edited copies of whole pictures, by student and by teacher.

    Args:
        student: The exported model.
        teacher: SSCD.
        limit: Approximate number of queries.
        count: Number of stored pictures.
    """
    data = data_folder()
    parts, folder, queries = copies.prepare(data, limit)
    queries = [query for query in queries if query.box is None]
    queries = [query for query in queries if query.kind != copies.SERIES_STRANGER]
    stored = list(dict.fromkeys([*parts.originals, *parts.stored]))[:count]
    edited = [read_pixels(folder / query.file) for query in queries]
    originals = [read_pixels(data / name) for name in stored]
    print("| edit | n | student first | found | teacher first | found |")
    print("|---|---:|---:|---:|---:|---:|")
    columns = []
    for describe in (
        lambda pictures: np.stack([student.whole(picture) for picture in pictures]),
        teacher,
    ):
        scores = describe(edited) @ describe(originals).T
        is_stranger = np.array([query.is_stranger for query in queries])
        threshold = np.percentile(scores.max(1)[is_stranger], 99)
        right = np.array(
            [
                query.original is not None and stored[int(own.argmax())] == query.original
                for query, own in zip(queries, scores, strict=True)
            ]
        )
        columns += [right, right & (scores.max(1) > threshold)]
    kinds = np.array([query.kind for query in queries])
    edits = [kind for kind in dict.fromkeys(kinds) if not kind.startswith(copies.STRANGER)]
    for kind in (*edits, "all"):
        chosen = np.isin(kinds, edits) if kind == "all" else kinds == kind
        shares = " | ".join(f"{column[chosen].mean():.3f}" for column in columns)
        print(f"| {kind} | {chosen.sum()} | {shares} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("benchmark", choices=["elements", "scale", "copies"])
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument(
        "--limit", type=int, default=500, help="approximate number of queries of `copies`"
    )
    parser.add_argument("--stored", type=int, default=2300)
    parser.add_argument("--elements", type=int, default=1080)
    parser.add_argument("--queries", type=int, default=460)
    parser.add_argument("--negatives", type=int, default=520)
    parser.add_argument("--edition", choices=elements.EDITIONS, default=elements.REPORTED.name)
    options = parser.parse_args()
    student = Student(options.model)
    if options.benchmark == "copies":
        measure_copies(student, Teacher(), options.limit, options.stored)
        return
    benchmark = elements.prepare(
        options.elements,
        options.queries,
        options.negatives,
        edition=elements.EDITIONS[options.edition],
    )
    measure = measure_elements if options.benchmark == "elements" else measure_scale
    measure(student, benchmark)


if __name__ == "__main__":
    main()
