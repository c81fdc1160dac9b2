"""Which pairs of pictures are compared: edited copies, and pictures with the nearest that is none.

Everything comes from the data of the copies benchmark. Of its originals every second one
calibrates and the others test; of the stored pictures one half calibrates among itself, and each of
the other half is paired with the nearest of all. So no pair of the test was seen in calibration.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.benchmarks.copies.dataset import CACHE, Query, prepare, random_source
from tests.benchmarks.copies.vectors import COPY_MODEL, embed_files

ROOT_CACHE = CACHE.parent / "comparison"
NEAREST = "nearest_non_copy"
RANDOM = "unrelated"


@dataclass(frozen=True, slots=True)
class Pair:
    """Two files, and what the second is to the first."""

    kind: str
    """The edit, or how the pair was chosen."""
    first: Path
    second: Path
    is_copy: bool


@dataclass(frozen=True, slots=True)
class Pairs:
    """A half of them."""

    copies: Sequence[Pair]
    nearest: Sequence[Pair]
    unrelated: Sequence[Pair]

    def __iter__(self) -> Iterator[Pair]:
        yield from self.copies
        yield from self.nearest
        yield from self.unrelated


def choose(data: Path, *, is_test: bool, originals: int, nearest: int, unrelated: int) -> Pairs:
    """Choose the pairs of one half, the same every time.

    Args:
        data: folder of the pictures.
        is_test: which half.
        originals: pictures whose every edit takes part.
        nearest: pictures that are paired with their nearest.
        unrelated: pictures that are paired with any other.
    """
    parts, folder, queries = prepare(data)
    vectors = embed_files(COPY_MODEL, data, parts.stored, CACHE / "stored-sscd.npz")
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
