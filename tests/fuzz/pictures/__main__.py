"""Fuzz the decoding of pictures.

    python -m tests.fuzz.pictures --inputs 1000000 --folder /tmp/fuzz/pictures

Changes small valid pictures of every format and decodes them in processes that are confined as the
workers of Embedding. Each must end in pixels or in one of the reasons for pictures, without an
exception, a crash or a hang, and within its memory. Failing inputs are made smaller and saved in
the folder; the run goes on. A run that was stopped continues where it was. `--index N` tries one.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from pathlib import Path

from imagesearch_services.embedding.pictures.picture_file import PictureFile
from tests.fuzz.journal import Journal
from tests.fuzz.pictures import shrinking
from tests.fuzz.pictures.mutators import Corpus
from tests.fuzz.pictures.seeds import seeds
from tests.fuzz.pictures.target import Target
from tests.fuzz.pictures.worker import INPUTS_PER_WORKER, Part, input_at, run_part


def main() -> None:
    options = arguments()
    corpus = {name: files for name, files in seeds().items() if name in options.formats}
    if options.index is not None:
        name, content, random_ = input_at(corpus, options.seed, options.index)
        outcome = Target(os.getppid()).try_picture(content, random_)
        sys.stdout.write(f"{name}, {len(content)} bytes: {outcome}\n")
        return
    warm_up(corpus)
    journal = Journal(options.folder, seed=options.seed, formats=sorted(corpus))
    index = journal.next_index()
    while index < options.inputs:
        began_s = time.monotonic()
        end = min(options.inputs, index + INPUTS_PER_WORKER)
        part = run_part(corpus, options.seed, index, end)
        record(journal, corpus, options.seed, part)
        seconds = time.monotonic() - began_s
        journal.add(
            "part",
            next=part.next_index,
            outcomes=part.outcomes,
            seconds=round(seconds, 1),
            peak_mib=part.peak_mib,
        )
        rate = (part.next_index - index) / seconds
        sys.stdout.write(
            f"{part.next_index:,} inputs, {rate:,.0f} /s, worker peak {part.peak_mib} MiB, "
            f"{journal.finding_count()} findings\n"
        )
        sys.stdout.flush()
        index = part.next_index
    report(journal)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1, help="determines all inputs")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/fuzz/pictures"), help="results")  # noqa: S108
    parser.add_argument("--index", type=int, help="try only this input")
    parser.add_argument("--formats", nargs="+", default=list(seeds()), help="formats of the seeds")
    return parser.parse_args()


def warm_up(corpus: Corpus) -> None:
    """Load the libraries that decoders load on first use, so that all workers share them."""
    for files in corpus.values():
        for content in files:
            PictureFile(content).decode()
    gc.collect()
    gc.freeze()


def record(journal: Journal, corpus: Corpus, seed: int, part: Part) -> None:
    for finding in part.findings:
        _, content, _ = input_at(corpus, seed, finding["index"])
        smaller = shrinking.smallest(content, finding["signature"])
        journal.finding(finding["signature"], smaller, finding)


def report(journal: Journal) -> None:
    totals = journal.totals()
    for outcome in sorted(totals):
        sys.stdout.write(f"{outcome:<30} {totals[outcome]:>9,}\n")
    sys.stdout.write(f"{sum(totals.values()):,} inputs, {journal.finding_count()} findings\n")


if __name__ == "__main__":
    main()
