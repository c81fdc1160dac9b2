"""Measure the recall of edited copies, and the share of strangers that are reported as copies.

    python -m tests.benchmarks.copies.run [--limit 400] [--only suite,PDQ,pHash]

Starts a suite with the real Triton and storage engine, stores 2,300 pictures of the data set,
searches with about 4,500 edited copies and 1,600 strangers through the public contract, and prints
a Markdown report. Perceptual hashes answer the same queries.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from imagesearch.client import Client
from imagesearch_services.models.common.pictures import data_folder
from imagesearch_services.models.copies.queries import Query, prepare
from imagesearch_services.runner.suite import Suite, SuiteSettings, free_ports
from tests.benchmarks.copies.engines import SuiteEngine, pdq, phash
from tests.benchmarks.copies.scoring import Engine, Outcome, score, to_markdown
from tests.triton_server import prepared_models

REPORT_INTERVAL = 500
"""Number of queries between progress reports."""
NAMES = ("suite", "PDQ", "pHash")


def main() -> None:
    options = _arguments()
    parts, folder, queries = prepare(options.data, options.limit)
    stored = parts.stored[: options.stored]
    names = [name for name in NAMES if name in options.only.split(",")]
    reports = []
    for name in names:
        with _engine(name) as engine:
            began_s = time.monotonic()
            engine.add((picture, (options.data / picture).read_bytes()) for picture in stored)
            _report(f"{name}: {len(stored)} stored in {time.monotonic() - began_s:.0f} s")
            outcomes = _search_all(
                engine, folder, queries, options.clients if name == "suite" else 1
            )
            _report(f"{name}: {len(outcomes)} queries in {time.monotonic() - began_s:.0f} s")
        reports.append(score(name, outcomes))
        _write_misses(folder / f"misses-{name}.txt", outcomes)
    print(f"{len(stored):,} stored, {len(queries):,} queries\n")  # noqa: T201
    print("\n".join(to_markdown(reports)))  # noqa: T201


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=data_folder(), help="folder of the data set")
    parser.add_argument("--limit", type=int, help="approximate number of queries (default: all)")
    parser.add_argument(
        "--stored",
        type=int,
        help="number of stored pictures (default: all); fewer are easier to search",
    )
    parser.add_argument(
        "--only", default=",".join(NAMES), help="comma-separated names of search engines"
    )
    parser.add_argument("--clients", type=int, default=2, help="number of concurrent queries")
    return parser.parse_args()


@contextmanager
def _engine(name: str) -> Iterator[Engine]:
    if name != "suite":
        yield pdq() if name == "PDQ" else phash()
        return
    with tempfile.TemporaryDirectory(prefix="imagesearch-copies-") as folder:
        suite = Suite.start(
            SuiteSettings(
                port=free_ports(1)[0], data_dir=Path(folder), models_dir=prepared_models()
            )
        )
        try:
            with Client(suite.target, timeout_s=300) as client:
                yield SuiteEngine(client, "copies")
        finally:
            suite.stop()


def _search_all(
    engine: Engine, folder: Path, queries: Sequence[Query], clients: int
) -> list[Outcome]:
    def search(query: Query) -> Outcome:
        return Outcome(query, engine.query((folder / query.file).read_bytes()))

    outcomes = []
    with ThreadPoolExecutor(clients) as threads:
        for outcome in threads.map(search, queries):
            outcomes.append(outcome)
            if len(outcomes) % REPORT_INTERVAL == 0:
                _report(f"{engine.name}: {len(outcomes)} of {len(queries)} queries")
    return outcomes


def _write_misses(file: Path, outcomes: Sequence[Outcome]) -> None:
    """Write the wrongly answered queries to a file."""
    lines = [
        f"{outcome.query.file}\t{outcome.query.original}\t{outcome.first}"
        for outcome in outcomes
        if (outcome.is_answered if outcome.query.is_stranger else not outcome.is_right_first)
    ]
    file.write_text("\n".join(lines) + "\n")


def _report(message: str) -> None:
    print(message, file=sys.stderr, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
