"""Make the Gateway's calibration table for the copy descriptor.

    pip install --no-deps augly==1.0.0    # once, with the extra `benchmarks`
    python -m imagesearch_services.models.sscd.calibrate

Writes `services/gateway/scoring/tables/sscd.json` and prints the thresholds. The rates come from
strangers (pictures whose original is not stored) that are compared with all stored pictures. Whole
pictures and proposed regions are counted separately; at each closeness the table has the higher of
both rates, so that it holds for the search by whole pictures and for the search by regions.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from imagesearch_services.embedding.inference.background import load_backgrounds
from imagesearch_services.gateway.scoring.calibration import BUILT_IN_TABLES, closeness
from imagesearch_services.models.common.calibration_table import (
    ComparisonTail,
    Floats,
    thresholds,
    write_table,
)
from imagesearch_services.models.common.embedder import COPY_MODEL, VERSION, Embedder, embed_files
from imagesearch_services.models.common.pictures import (
    CACHE,
    all_names,
    data_folder,
    random_source,
    read_rgb,
)
from imagesearch_services.models.copies.placements import PLACEMENTS
from imagesearch_services.models.copies.split import split

FOLDER = CACHE / "copies"
REGIONS = 24
"""Maximum number of regions per query, as in a search."""
REGION_QUERIES = 40
"""Number of strangers whose regions are searched, each unedited and once in a placement."""
QUALITY = 92
"""JPEG quality of placed strangers."""


def tails(data: Path) -> Iterator[ComparisonTail]:
    """Yield the tails of strangers against all stored pictures: whole pictures, then regions."""
    parts = split(all_names(data))
    stored = embed_files(COPY_MODEL, data, parts.stored, FOLDER / "stored-sscd.npz")
    whole = embed_files(COPY_MODEL, data, parts.calibration, FOLDER / "strangers-sscd.npz")
    yield ComparisonTail.of(judged(whole, stored), np.arange(len(whole)))
    regions, of_query = _regions(data, parts.calibration)
    values = judged(regions, stored)
    best = [float(values[of_query == query].max()) for query in np.unique(of_query)]
    _report(f"regions: {len(best)} queries, best of each {np.quantile(best, [0.5, 0.9, 0.99, 1])}")
    yield ComparisonTail.of(values, of_query)


def judged(queries: Floats, stored: Floats) -> Floats:
    """Return the closeness of every query to every stored picture, [queries, stored]."""
    background = load_backgrounds()[f"{COPY_MODEL}@{VERSION}"].similarities(queries)[:, None]
    values: Floats = closeness(queries @ stored.T, background)  # type: ignore[arg-type,assignment]
    return values


def _regions(data: Path, names: Sequence[str]) -> tuple[Floats, npt.NDArray[np.intp]]:
    """Embed the regions of strangers; returns unit vectors [regions, D] and their queries."""
    cache = FOLDER / f"regions-sscd-{REGION_QUERIES}.npz"
    if not cache.exists():
        embedder = Embedder(COPY_MODEL)
        rows = []
        for content in _region_queries(data, names):
            rows.append(embedder.embed_with_regions(content, REGIONS)[1:])
            _report(f"regions of {len(rows)} of {2 * REGION_QUERIES} queries")
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


def _report(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=data_folder(), help="folder of the data set")
    parser.add_argument("--thresholds-only", action="store_true", help="print, do not calibrate")
    options = parser.parse_args()
    if not options.thresholds_only:
        write_table(
            COPY_MODEL,
            VERSION,
            list(tails(options.data)),
            "different pictures of the same kinds; no two of one place and photographer",
            BUILT_IN_TABLES,
        )
    print("\n".join(thresholds("copy", COPY_MODEL, VERSION)))


if __name__ == "__main__":
    main()
