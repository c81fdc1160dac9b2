"""Learns the committed vocabulary of visual words and codes.

    python -m tests.benchmarks.elements.vocabulary
    python -m tests.benchmarks.elements.vocabulary --commonness   # of the words that are there

From photos and icons that the benchmark neither stores nor asks with: garments, groceries on
shelves, and drawn logos and repeats, as they are stored and as they appear in photos. How common
words are in photos is learnt from shelves, garments and streets that neither a query nor a photo
without is made of, nor any distractor.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from imagesearch_services.embedding.elements.features import QUERY_LIMITS, query_bag
from imagesearch_services.embedding.elements.vocabulary import (
    COMMONNESS_STEPS,
    FILE,
    Vocabulary,
)
from imagesearch_services.embedding.local_features import ExtractionLimits, extract
from tests.benchmarks.copies.dataset import all_names, data_folder
from tests.benchmarks.elements import dataset
from tests.benchmarks.elements.dataset import Sources
from tests.benchmarks.elements.distractors import PHOTOS as PHOTOS_DESCRIBED
from tests.benchmarks.elements.distractors import chosen_photos

Floats = npt.NDArray[np.float32]

COMPONENTS = 64
CODE_BYTES = 16
SAMPLES = 160_000
FEATURES_A_PICTURE = 150
PHOTOS = 900
DRAWINGS = 250
USUAL_SIDE_PX = 1000
USUAL_PHOTOS = 220
"""That tell how common words are; half of them streets."""
FIRST_DRAWING = 240
"""Numbers before it are stored by the benchmark, those counted from the end are its strangers."""


def pictures(data: Path) -> Iterator[npt.NDArray[np.uint8]]:
    """Give grey pictures to learn from."""
    names = all_names(data)
    garments = [name for name in names if name.startswith("garments")][540:-120]
    shelves = [name for name in names if name.startswith("grocery/shelf")]
    for row in range(PHOTOS):
        group = shelves if row % 2 else garments
        pixels = dataset.read_pixels(data / group[row // 2 % len(group)])
        side = 400 if row % 3 else 800
        factor = side / max(pixels.shape[:2])
        yield _grey(cv2.resize(pixels, None, fx=factor, fy=factor))
    sources = Sources.split(data, dataset.icon_paths())
    for row in range(DRAWINGS):
        kind = ("logo_tile", "logo_glyph", "repeat", "repeat")[row % 4]
        drawn = dataset.draw_element(kind, sources, FIRST_DRAWING + row // 4)
        yield _grey(drawn.stored)
        photo = dataset.Photo(
            dataset.read_pixels(data / garments[-row - 1]), dataset.random_source("learn", row)
        )
        photo.paste(drawn.pasted)
        yield _grey(photo.pixels)


def usual_photos(data: Path) -> list[str]:
    """Name the photos that tell how common words are."""
    names = all_names(data)
    street, shelves = (
        [name for name in names if name.startswith(kind)] for kind in ("street", "grocery/shelf")
    )
    garments = [name for name in chosen_photos(data)[PHOTOS_DESCRIBED:] if "garments" in name]
    turns = zip(street[:220:2], street[1:220:2], garments, shelves[::7], strict=False)
    return [name for turn in turns for name in turn][:USUAL_PHOTOS]


def commonness(data: Path, vocabulary: Vocabulary) -> npt.NDArray[np.uint8]:
    """Give the root of each word's average weight in the bag of a photo, in steps."""
    sums = np.zeros(vocabulary.word_count)
    for name in usual_photos(data):
        pixels = dataset.read_pixels(data / name)
        factor = USUAL_SIDE_PX / max(pixels.shape[:2])
        grey = _grey(cv2.resize(pixels, None, fx=factor, fy=factor))
        bag = query_bag(vocabulary.project(extract(grey, QUERY_LIMITS).descriptors), vocabulary)
        sums[bag.words] += bag.weights
    steps = np.rint(np.sqrt(sums / USUAL_PHOTOS) * COMMONNESS_STEPS)
    return np.asarray(np.minimum(steps, np.iinfo(np.uint8).max), np.uint8)


def descriptors(data: Path) -> Floats:
    limits = ExtractionLimits(max_features=600, border_px=24)
    rng = np.random.default_rng(0)
    found = []
    for grey in pictures(data):
        several = extract(grey, limits).descriptors
        found.append(rng.permutation(several)[:FEATURES_A_PICTURE])
    together = np.concatenate(found)
    return np.asarray(rng.permutation(together)[:SAMPLES], np.float32)


def k_means(points: Floats, count: int, turns: int, seed: int = 0) -> Floats:
    """Cluster by Lloyd's algorithm; a centre that nothing is nearest to moves to a random point."""
    rng = np.random.default_rng(seed)
    centres = points[rng.choice(len(points), count, replace=False)].copy()
    for _ in range(turns):
        nearest = _nearest(points, centres)
        order = np.argsort(nearest, kind="stable")
        sizes = np.bincount(nearest, minlength=count)
        running = np.concatenate([np.zeros((1, points.shape[1])), points[order].cumsum(axis=0)])
        ends = np.cumsum(sizes)
        sums = running[ends] - running[ends - sizes]
        centres = sums / np.maximum(sizes, 1)[:, None]
        empty = np.flatnonzero(sizes == 0)
        centres[empty] = points[rng.choice(len(points), len(empty))]
    return np.asarray(centres, np.float32)


def _nearest(points: Floats, centres: Floats) -> npt.NDArray[np.int64]:
    norms = np.einsum("ij,ij->i", centres, centres)
    return np.concatenate(
        [
            (norms - 2 * (points[start : start + 512] @ centres.T)).argmin(axis=1)
            for start in range(0, len(points), 512)
        ]
    )


def learn(
    points: Floats, centres: int, landmarks: int, turns: int
) -> dict[str, npt.NDArray[np.generic]]:
    mean = points.mean(axis=0)
    _, vectors = np.linalg.eigh(np.cov((points - mean).T))
    principal = vectors[:, ::-1][:, :COMPONENTS]
    rotation, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(COMPONENTS, COMPONENTS)))
    projection = (principal @ rotation).astype(np.float32)
    projected = (points - mean) @ projection
    books = [
        k_means(np.ascontiguousarray(part), 256, 12)
        for part in np.split(projected[:60_000], CODE_BYTES, axis=1)
    ]
    halves = [
        k_means(np.ascontiguousarray(half), centres, turns)
        for half in np.split(projected, 2, axis=1)
    ]
    marks = k_means(projected[:60_000], landmarks, turns)
    scale = np.abs(marks).max() / 127
    return {
        "mean": mean.astype(np.float32),
        "projection": projection,
        "halves": np.stack(halves).astype(np.float16),
        "landmarks": np.rint(marks / scale).astype(np.int8),
        "landmark_scale": np.float32(scale),
        "codebooks": np.stack(books).astype(np.float16),
    }


def _grey(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--centres", type=int, default=1024, help="of each half of a word")
    parser.add_argument("--landmarks", type=int, default=4096)
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--output", type=Path, default=FILE)
    parser.add_argument("--commonness", action="store_true", help="of the words that are there")
    options = parser.parse_args()
    data = data_folder()
    if not options.commonness:
        points = descriptors(data)
        learnt = learn(points, options.centres, options.landmarks, options.turns)
        learnt["commonness_roots"] = np.zeros(options.centres**2, np.uint8)
        np.savez_compressed(options.output, **learnt)
        print(f"learnt from {len(points)} descriptors: {options.output}")  # noqa: T201
    with np.load(options.output) as stored:
        learnt = dict(stored)
    learnt["commonness_roots"] = commonness(data, Vocabulary.load(options.output))
    np.savez_compressed(options.output, **learnt)


if __name__ == "__main__":
    main()
