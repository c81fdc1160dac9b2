"""Make the Gateway's calibration tables from pictures that are not copies of one another.

    python -m tests.benchmarks.copies.calibrate tables      # writes services/gateway/calibration
    python -m tests.benchmarks.copies.calibrate thresholds  # prints the Markdown of thresholds

How often does ONE comparison of unrelated pictures give a closeness of x or more? (Closeness is
the similarity judged against the query's background; without a background set, the similarity.)
Counted so that it gives the share of queries with a wrong answer; beyond the best tenth of them
the excess is taken as exponential (peaks over threshold: Pickands 1975, shape 0). For copies
whole pictures and proposed regions are counted apart and the table takes the worse of both at each
x, so that it holds for either pass of a search.

`score` is the number of zeros of that rate, as a share of those of an identical picture:
log(rate(x)) / log(rate(1)). It is 0 where chance always gives as much, and 1 for the same pixels.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from imagesearch_services.common.types import ModelVersion
from imagesearch_services.embedding.background import load_backgrounds
from imagesearch_services.gateway.scoring.calibration import (
    BUILT_IN_TABLES,
    Calibration,
    Calibrations,
    closeness,
    rate_of_one,
)
from tests.benchmarks.copies.dataset import (
    CACHE,
    QUALITY,
    all_names,
    data_folder,
    random_source,
    read_rgb,
    split,
)
from tests.benchmarks.copies.placements import PLACEMENTS
from tests.benchmarks.copies.vectors import (
    COPY_MODEL,
    SEMANTIC_MODEL,
    VERSION,
    Embedder,
    Floats,
    embed_files,
)

REGIONS = 24
REGION_QUERIES = 40
"""Strangers whose regions are searched: each as it is, and once pasted or on a screen."""

TAIL_SHARE = 0.1
"""Share of the queries, those with the best wrong answers, that the tail is fitted to."""

MOST_QUERIES = 0.9
"""Where more queries than this get a wrong answer, single comparisons are counted."""

RESOLVED_COUNT = 5
"""A rate is no extrapolation where at least so many queries show it."""

SEMANTIC_OF_KIND = 40
"""Pictures of each kind of garment and each product, at most."""

GRID = np.round(np.concatenate([[-1.0], np.arange(0.0, 1.0001, 0.02)]), 2)
"""Similarities of the rows."""

LOWEST_RATE = 1e-30

SIZES = (1_000, 10_000, 100_000)
RATES = (0.1, 0.01, 0.001)

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Tail:
    """The rate of one comparison, from what whole queries get.

    Comparisons of one query are no independent draws: a query that resembles one stored picture by
    chance resembles its neighbours too. So the rate that counts is the one that gives, over all
    comparisons of a query, the share of queries that were seen to get a wrong answer. Where nearly
    every query gets one, that share tells nothing, and all comparisons are counted instead.
    """

    ascending: Floats
    """All values."""
    best: Floats
    """The best of each query, ascending."""
    comparisons: float
    """Of one query."""

    @classmethod
    def of(cls, values: Floats, of_query: npt.NDArray[np.intp]) -> Tail:
        """Take the values of rows of comparisons, and of which query each row is."""
        queries = np.unique(of_query)
        best = np.array([values[of_query == query].max() for query in queries], np.float32)
        return cls(np.sort(values, axis=None), np.sort(best), values.size / len(queries))

    def rates(self, at: Doubles) -> Doubles:
        above = self.ascending.size - np.searchsorted(self.ascending, at, side="left")
        counted = above / self.ascending.size
        count = max(2, round(TAIL_SHARE * self.best.size))
        start = float(self.best[-count])
        mean_excess = float((self.best[-count:] - start).mean())
        seen = (self.best.size - np.searchsorted(self.best, at, side="left")) / self.best.size
        fitted = (count / self.best.size) * np.exp(-(at - start) / mean_excess)
        wrong = np.where(at < start, seen, fitted)
        of_queries = -np.log1p(-np.minimum(wrong, 1 - 1e-9)) / self.comparisons
        return np.where(wrong > MOST_QUERIES, np.maximum(counted, of_queries), of_queries)

    @property
    def resolved(self) -> float:
        """The lowest rate that the data show."""
        return RESOLVED_COUNT / self.best.size / self.comparisons


def write_table(model: str, tails: Sequence[Tail], about: str, version: str = VERSION) -> Path:
    """Write a model's table: at each similarity the worst rate of all populations."""
    rates = np.max([tail.rates(GRID) for tail in tails], axis=0)
    rates = np.clip(np.minimum.accumulate(rates), LOWEST_RATE, 1.0)
    scores = np.clip(np.abs(np.log(rates) / np.log(rates[-1])), 0.0, 1.0)
    table = {
        "model": model,
        "version": version,
        "about": about,
        "extrapolated_below": float(f"{max(tail.resolved for tail in tails):.2e}"),
        "raw": GRID.tolist(),
        "score": [round(float(score), 4) for score in scores],
        "false_positive_rate": [float(f"{rate:.4e}") for rate in rates],
    }
    Calibration.from_columns(
        raw=table["raw"],
        score=table["score"],
        false_positive_rate=table["false_positive_rate"],
        extrapolated_below=table["extrapolated_below"],
    )
    file = BUILT_IN_TABLES / f"{model}.json"
    file.write_text(json.dumps(table, indent=1) + "\n")
    return file


def copy_tails(data: Path) -> Iterator[Tail]:
    """Compare strangers with all stored pictures: whole, then by their regions."""
    parts = split(all_names(data))
    stored = embed_files(COPY_MODEL, data, parts.stored, CACHE / "stored-sscd.npz")
    whole = embed_files(COPY_MODEL, data, parts.calibration, CACHE / "strangers-sscd.npz")
    yield Tail.of(judged(whole, stored), np.arange(len(whole)))
    regions, of_query = _regions(data, parts.calibration)
    values = judged(regions, stored)
    best = [float(values[of_query == query].max()) for query in np.unique(of_query)]
    _tell(f"regions: {len(best)} queries, best of each {np.quantile(best, [0.5, 0.9, 0.99, 1])}")
    yield Tail.of(values, of_query)


def judged(queries: Floats, stored: Floats) -> Floats:
    """Give the closeness of every query to every stored picture, [queries, stored]."""
    background = load_backgrounds()[f"{COPY_MODEL}@{VERSION}"].similarities(queries)[:, None]
    values: Floats = closeness(queries @ stored.T, background)  # type: ignore[arg-type,assignment]
    return values


def semantic_tail(data: Path) -> Tail:
    """Compare pictures of different kinds of garment, and of different products."""
    kept: dict[PurePosixPath, list[str]] = {}
    for name in all_names(data):
        kind = PurePosixPath(name).parent
        if name.startswith(("garments/", "grocery/shelf/")):
            kept.setdefault(kind, []).append(name)
    names = [name for of_kind in kept.values() for name in of_kind[:SEMANTIC_OF_KIND]]
    kinds = np.array([str(PurePosixPath(name).parent) for name in names])
    vectors = embed_files(SEMANTIC_MODEL, data, names, CACHE / "kinds-efficientnet_lite2.npz")
    similarities = vectors @ vectors.T
    alike = np.triu(kinds[:, None] == kinds[None, :], 1)
    _tell(f"of one kind: {np.quantile(similarities[alike], [0.1, 0.5, 0.9])}")
    unlike = np.where(kinds[:, None] != kinds[None, :], similarities, -1.0)
    return Tail.of(unlike, np.arange(len(unlike)))


def thresholds(role: str, model: str, version: str = VERSION) -> Iterator[str]:
    """Write the raw similarities that keep a rate of wrong answers, as Markdown."""
    calibration = Calibrations.load([BUILT_IN_TABLES]).of(ModelVersion(role, model, version))
    yield f"Similarity for `{model}@{version}` (* beyond the data):"
    yield ""
    yield "| stored | " + " | ".join(f"{rate:g} of queries wrong" for rate in RATES) + " |"
    yield "|---:|" + "---:|" * len(RATES)
    for stored in SIZES:
        cells = []
        for rate in RATES:
            one = rate_of_one(rate, stored)
            mark = "*" if calibration.is_extrapolated(one) else ""
            similarity = calibration.similarity_of_rate(one)
            cells.append("any" if similarity is None else f"{similarity:.3f}{mark}")
        yield f"| {stored:,} | {' | '.join(cells)} |"
    yield ""


def _regions(data: Path, names: Sequence[str]) -> tuple[Floats, npt.NDArray[np.intp]]:
    """Embed the regions of strangers; unit vectors [regions, D], and of which query each is."""
    cache = CACHE / f"regions-sscd-{REGION_QUERIES}.npz"
    if not cache.exists():
        embedder = Embedder(COPY_MODEL)
        rows = []
        for content in _region_queries(data, names):
            rows.append(embedder.with_regions(content, REGIONS)[1:])
            _tell(f"regions of {len(rows)} of {2 * REGION_QUERIES} queries")
        of_query = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
        np.savez(cache, vectors=np.concatenate(rows), of_query=of_query)
    with np.load(cache) as kept:
        return kept["vectors"], kept["of_query"]


def _region_queries(data: Path, names: Sequence[str]) -> Iterator[bytes]:
    kinds = list(PLACEMENTS)
    for number, name in enumerate(names[:REGION_QUERIES]):
        yield (data / name).read_bytes()
        kind = kinds[number % len(kinds)]
        host = names[-1 - number]
        source = random_source(f"calibration {kind}", name)
        placed = PLACEMENTS[kind](read_rgb(data / name), source, read_rgb(data / host))
        file = io.BytesIO()
        placed.image.save(file, "JPEG", quality=QUALITY)
        yield file.getvalue()


def _tell(message: str) -> None:
    print(message, file=sys.stderr, flush=True)  # noqa: T201


def _print(lines: Iterable[str]) -> None:
    print("\n".join(lines))  # noqa: T201


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=["tables", "thresholds"])
    parser.add_argument("--data", type=Path, default=data_folder())
    options = parser.parse_args()
    if options.what == "tables":
        write_table(
            COPY_MODEL,
            list(copy_tails(options.data)),
            "different pictures of the same kinds; no two of one place and photographer",
        )
        write_table(
            SEMANTIC_MODEL,
            [semantic_tail(options.data)],
            "pictures of different kinds of garment or of different products",
        )
    for role, model in (("copy", COPY_MODEL), ("semantic", SEMANTIC_MODEL)):
        _print(thresholds(role, model))


if __name__ == "__main__":
    main()
