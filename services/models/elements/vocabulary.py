"""Learn the vocabulary of element search: visual words, landmarks, codes, and word frequencies.

    python -m imagesearch_services.models.elements.vocabulary
    python -m imagesearch_services.models.elements.vocabulary --photo-weights-only

Writes `services/embedding/elements/vocabulary.npz`. The words are learned from pictures that the
benchmark neither stores nor uses as queries: garments, groceries on shelves, and drawn logos and
repeating patterns, both as stored and as pasted into photos. The frequency of each word is learned
from photos of shelves, garments and streets that no query, negative or distractor uses.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from imagesearch_services.embedding.elements.bags import query_bag
from imagesearch_services.embedding.elements.description import QUERY_LIMITS
from imagesearch_services.embedding.elements.vocabulary import (
    FILE,
    PHOTO_WEIGHT_STEPS,
    Vocabulary,
)
from imagesearch_services.embedding.features.local_features import ExtractionLimits, extract
from imagesearch_services.models.common.pictures import (
    all_names,
    data_folder,
    random_source,
    read_pixels,
)
from imagesearch_services.models.elements.clustering import k_means
from imagesearch_services.models.elements.photos import Photo
from imagesearch_services.models.elements.sources import (
    Sources,
    draw_element,
    icon_paths,
    unused_photos,
)

Floats = npt.NDArray[np.float32]
Arrays = dict[str, npt.NDArray[np.generic]]

COMPONENTS = 64
"""Number of principal components of a descriptor that are kept."""
CODE_BYTES = 16
"""Length of the code of a descriptor, in bytes."""
CODEWORDS = 256
"""Number of values of each byte of a code."""
CODE_ITERATIONS = 12
"""Number of iterations of k-means for codes."""
SAMPLES = 160_000
"""Number of descriptors that words are learned from."""
CODE_SAMPLES = 60_000
"""Number of descriptors that codes and landmarks are learned from."""
FEATURES_PER_PICTURE = 150
"""Maximum number of descriptors per picture in the sample."""
PHOTOS = 900
"""Number of photos to learn from."""
DRAWINGS = 250
"""Number of drawings to learn from."""
FIRST_DRAWING = 240
"""Number of the first drawing.

The benchmark stores drawings with lower numbers; its foreign elements have negative numbers.
"""
WEIGHT_PHOTOS = 220
"""Number of photos that word weights are measured on; half of them are street photos."""
WEIGHT_SIDE_PX = 1000
"""Long side of these photos, in pixels."""
DISTRACTOR_PHOTOS = 1640
"""Number of unused photos that the benchmark crops distractors from."""


def pictures(data: Path) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield the grayscale pictures to learn from."""
    names = all_names(data)
    garments = [name for name in names if name.startswith("garments")][540:-120]
    shelves = [name for name in names if name.startswith("grocery/shelf")]
    for row in range(PHOTOS):
        group = shelves if row % 2 else garments
        pixels = read_pixels(data / group[row // 2 % len(group)])
        side = 400 if row % 3 else 800
        factor = side / max(pixels.shape[:2])
        yield _gray(cv2.resize(pixels, None, fx=factor, fy=factor))
    sources = Sources.split(data, icon_paths())
    for row in range(DRAWINGS):
        kind = ("logo_tile", "logo_glyph", "repeat", "repeat")[row % 4]
        drawn = draw_element(kind, sources, FIRST_DRAWING + row // 4)
        yield _gray(drawn.stored)
        photo = Photo(read_pixels(data / garments[-row - 1]), random_source("learn", row))
        photo.paste(drawn.pasted)
        yield _gray(photo.pixels)


def weight_photos(data: Path) -> list[str]:
    """Return the names of the photos that word weights are measured on."""
    names = all_names(data)
    street, shelves = (
        [name for name in names if name.startswith(kind)] for kind in ("street", "grocery/shelf")
    )
    garments = [name for name in unused_photos(data)[DISTRACTOR_PHOTOS:] if "garments" in name]
    groups = zip(street[:220:2], street[1:220:2], garments, shelves[::7], strict=False)
    return [name for group in groups for name in group][:WEIGHT_PHOTOS]


def photo_weights(data: Path, vocabulary: Vocabulary) -> npt.NDArray[np.uint8]:
    """Return the square root of the mean weight of each word in a photo, in quantization steps."""
    sums = np.zeros(vocabulary.word_count)
    for name in weight_photos(data):
        pixels = read_pixels(data / name)
        factor = WEIGHT_SIDE_PX / max(pixels.shape[:2])
        gray = _gray(cv2.resize(pixels, None, fx=factor, fy=factor))
        bag = query_bag(vocabulary.project(extract(gray, QUERY_LIMITS).descriptors), vocabulary)
        sums[bag.words] += bag.weights
    steps = np.rint(np.sqrt(sums / WEIGHT_PHOTOS) * PHOTO_WEIGHT_STEPS)
    return np.asarray(np.minimum(steps, np.iinfo(np.uint8).max), np.uint8)


def descriptors(data: Path) -> Floats:
    """Return a sample of the descriptors of all pictures, [SAMPLES, D]."""
    limits = ExtractionLimits(max_features=600, border_px=24)
    rng = np.random.default_rng(0)
    sampled = [
        rng.permutation(extract(gray, limits).descriptors)[:FEATURES_PER_PICTURE]
        for gray in pictures(data)
    ]
    joined = np.concatenate(sampled)
    return np.asarray(rng.permutation(joined)[:SAMPLES], np.float32)


def learn(points: Floats, centers: int, landmarks: int, iterations: int) -> Arrays:
    """Return the arrays of the vocabulary except word frequencies.

    Args:
        points: Descriptors, [N, D].
        centers: Number of cluster centers of each half of a word.
        landmarks: Number of landmarks.
        iterations: Iterations of k-means for words and landmarks.
    """
    mean = points.mean(axis=0)
    _, vectors = np.linalg.eigh(np.cov((points - mean).T))
    principal = vectors[:, ::-1][:, :COMPONENTS]
    rotation, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(COMPONENTS, COMPONENTS)))
    projection = (principal @ rotation).astype(np.float32)
    projected = (points - mean) @ projection
    books = [
        k_means(np.ascontiguousarray(part), CODEWORDS, CODE_ITERATIONS)
        for part in np.split(projected[:CODE_SAMPLES], CODE_BYTES, axis=1)
    ]
    halves = [
        k_means(np.ascontiguousarray(half), centers, iterations)
        for half in np.split(projected, 2, axis=1)
    ]
    marks = k_means(projected[:CODE_SAMPLES], landmarks, iterations)
    scale = np.abs(marks).max() / np.iinfo(np.int8).max
    return {
        "mean": mean.astype(np.float32),
        "projection": projection,
        "halves": np.stack(halves).astype(np.float16),
        "landmarks": np.rint(marks / scale).astype(np.int8),
        "landmark_scale": np.float32(scale),
        "codebooks": np.stack(books).astype(np.float16),
    }


def _gray(pixels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=data_folder(), help="folder of the data set")
    parser.add_argument("--centers", type=int, default=1024, help="for each half of a word")
    parser.add_argument("--landmarks", type=int, default=4096)
    parser.add_argument("--iterations", type=int, default=6, help="iterations of k-means")
    parser.add_argument("--output", type=Path, default=FILE)
    parser.add_argument(
        "--photo-weights-only",
        action="store_true",
        help="keep the words, measure their weights in photos",
    )
    options = parser.parse_args()
    if not options.photo_weights_only:
        points = descriptors(options.data)
        learned = learn(points, options.centers, options.landmarks, options.iterations)
        learned["commonness_roots"] = np.zeros(options.centers**2, np.uint8)
        np.savez_compressed(options.output, **learned)  # type: ignore[arg-type]
        print(f"learned from {len(points)} descriptors: {options.output}")
    with np.load(options.output) as stored:
        learned = dict(stored)
    learned["commonness_roots"] = photo_weights(options.data, Vocabulary.load(options.output))
    np.savez_compressed(options.output, **learned)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
