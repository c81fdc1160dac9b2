"""How well are edited copies found, and how seldom is a stranger taken for one?

    python -m tests.benchmarks.copies.run [--limit 400] [--only suite,PDQ,pHash]

Stores some 3,500 pictures of the data folder in a suite that it starts for itself, with the real
Triton and the real engine, asks for some 4,500 edited copies and 1,600 strangers through the public
contract, and prints a Markdown report. Perceptual hashes answer the same queries.
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
from tests.benchmarks.copies.answerers import SuiteAnswerer, pdq, phash
from tests.benchmarks.copies.scoring import Answerer, Outcome, score, to_markdown
from tests.triton_server import prepared_models

TOLD_EVERY = 500
NAMES = ("suite", "PDQ", "pHash")


def main() -> None:
    options = _arguments()
    parts, folder, queries = prepare(options.data, options.limit)
    stored = parts.stored[: options.stored]
    names = [name for name in NAMES if name in options.only.split(",")]
    reports = []
    for name in names:
        with _answerer(name) as answerer:
            began_s = time.monotonic()
            answerer.add((one, (options.data / one).read_bytes()) for one in stored)
            _tell(f"{name}: {len(stored)} stored in {time.monotonic() - began_s:.0f} s")
            outcomes = _ask(answerer, folder, queries, options.clients if name == "suite" else 1)
            _tell(f"{name}: {len(outcomes)} queries in {time.monotonic() - began_s:.0f} s")
        reports.append(score(name, outcomes))
        _write_misses(folder / f"misses-{name}.txt", outcomes)
    print(f"{len(stored):,} stored, {len(queries):,} queries\n")  # noqa: T201
    print("\n".join(to_markdown(reports)))  # noqa: T201


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=data_folder(), help="folder of the pictures")
    parser.add_argument("--limit", type=int, help="about how many queries; all without it")
    parser.add_argument("--stored", type=int, help="store fewer pictures: easier, but quick")
    parser.add_argument("--only", default=",".join(NAMES), help="answerers, by comma")
    parser.add_argument("--clients", type=int, default=2, help="queries at the same time")
    return parser.parse_args()


@contextmanager
def _answerer(name: str) -> Iterator[Answerer]:
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
                yield SuiteAnswerer(client, "copies")
        finally:
            suite.stop()


def _ask(answerer: Answerer, folder: Path, queries: Sequence[Query], clients: int) -> list[Outcome]:
    def ask(query: Query) -> Outcome:
        return Outcome(query, answerer.query((folder / query.file).read_bytes()))

    outcomes = []
    with ThreadPoolExecutor(clients) as threads:
        for outcome in threads.map(ask, queries):
            outcomes.append(outcome)
            if len(outcomes) % TOLD_EVERY == 0:
                _tell(f"{answerer.name}: {len(outcomes)} of {len(queries)} queries")
    return outcomes


def _write_misses(file: Path, outcomes: Sequence[Outcome]) -> None:
    """Note what went wrong, to be looked at."""
    lines = [
        f"{each.query.file}\t{each.query.original}\t{each.first}"
        for each in outcomes
        if (each.is_answered if each.query.is_stranger else not each.is_right_first)
    ]
    file.write_text("\n".join(lines) + "\n")


def _tell(message: str) -> None:
    print(message, file=sys.stderr, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
