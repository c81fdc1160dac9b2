"""The compared pairs: a picture with an edited copy, its nearest non-copy or a random picture.

All pairs come from the data of the copies benchmark. Every second original is for calibration, the
others are for the test. For calibration, the nearest non-copies are searched within the first half
of the stored pictures; for the test, each picture of the second half is paired with its nearest
non-copy among all. No test pair is used in calibration.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from imagesearch_services.models.common.embedder import COPY_MODEL, embed_files
from imagesearch_services.models.common.pictures import CACHE, random_source
from imagesearch_services.models.copies.queries import FOLDER as COPIES_FOLDER
from imagesearch_services.models.copies.queries import Query, prepare

FOLDER = CACHE / "comparison"
NEAREST = "nearest_non_copy"
"""Kind of a pair of a picture and the most similar picture that is not a copy of it."""
RANDOM = "unrelated"
"""Kind of a pair of two random pictures."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two files and their relation."""

    kind: str
    """Name of the edit that made the second from the first, `NEAREST` or `RANDOM`."""
    first: Path
    second: Path
    is_copy: bool


@dataclass(frozen=True, slots=True)
class Pairs:
    """The pairs of calibration or of the test."""

    copies: Sequence[Pair]
    nearest: Sequence[Pair]
    unrelated: Sequence[Pair]

    def __iter__(self) -> Iterator[Pair]:
        yield from self.copies
        yield from self.nearest
        yield from self.unrelated


def choose(data: Path, *, is_test: bool, originals: int, nearest: int, unrelated: int) -> Pairs:
    """Choose the pairs, the same on every run.

    Args:
        data: Folder of the data set.
        is_test: Whether to choose the pairs of the test instead of those of calibration.
        originals: Number of pictures of which all edited copies are used.
        nearest: Number of pictures that are paired with their nearest non-copy.
        unrelated: Number of random pairs.
    """
    parts, folder, queries = prepare(data)
    vectors = embed_files(COPY_MODEL, data, parts.stored, COPIES_FOLDER / "stored-sscd.npz")
    middle = len(parts.stored) // 2
    own = range(middle, len(parts.stored)) if is_test else range(middle)
    others = range(len(parts.stored)) if is_test else own
    similarities = vectors[list(own)] @ vectors[list(others)].T
    similarities[np.arange(len(own)), [others.index(row) for row in own]] = -1.0
    near = similarities.argmax(axis=1)
    used = set(parts.originals[int(is_test) :: 2][:originals])
    source = random_source("unrelated", "test" if is_test else "calibration")
    chosen = [source.sample(own, 2) for _ in range(unrelated)]
    return Pairs(
        copies=[_copy(data, folder, query) for query in queries if query.original in used],
        nearest=[
            Pair(NEAREST, data / parts.stored[row], data / parts.stored[others[near[at]]], False)
            for at, row in list(enumerate(own))[:nearest]
        ],
        unrelated=[
            Pair(RANDOM, data / parts.stored[a], data / parts.stored[b], False) for a, b in chosen
        ],
    )


def _copy(data: Path, folder: Path, query: Query) -> Pair:
    return Pair(query.kind, data / str(query.original), folder / query.file, is_copy=True)
