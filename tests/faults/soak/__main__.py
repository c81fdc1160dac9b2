"""Use the suite as many callers do for hours, with outages, and judge whether anything grows.

    python -m tests.faults.soak --minutes 120 --part 20 --folder /tmp/soak

Callers add, replace, update, delete and search images in libraries of three types, in batches and
alone, create and delete libraries, find duplicates, compare, detect, send hostile pictures, and
break off calls. Each checks that what was acknowledged is found and what was deleted is not. In
every second part each process is killed once. A part ends with a check of all images and the
trends of memory, files, maps and threads of each process.

The folder keeps the data, the journal and the results (results.jsonl): the same command goes on
where it was stopped. It starts the suite, or goes on with one that still runs. The exit status is 1
if there were faults or something grew.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from imagesearch.client import AsyncClient, ImageSearchError
from imagesearch_services.runner.suite import Suite, SuiteSettings, free_ports
from tests.faults.soak.caller import Caller
from tests.faults.soak.changes import LIBRARIES, Tally
from tests.faults.soak.journal import Journal
from tests.faults.soak.outages import Outages
from tests.faults.soak.watch import Watch
from tests.triton_server import prepared_models

DEFAULT_PICTURES = Path(__file__).parents[3].parent / "shared" / "data" / "garments"
PICTURES = 400
CALLERS = 4
OUTAGE_SHARE = 1 / 3
"""Part of the time of a part with outages in which they happen; the rest is undisturbed."""
TIMEOUT_S = 60.0


def main() -> int:
    options = _arguments()
    options.folder.mkdir(parents=True, exist_ok=True)
    soak = _Soak(options)
    data_dir = options.folder / "data"
    while soak.parts_done * options.part < options.minutes:
        suite = Suite.load(data_dir)
        if suite is None or not suite.is_alive():
            if suite is not None:
                suite.stop()
            suite = Suite.start(
                SuiteSettings(
                    port=free_ports(1)[0], data_dir=data_dir, models_dir=prepared_models()
                )
            )
        asyncio.run(soak.part(suite))
    suite = Suite.load(data_dir)
    if suite is not None:
        suite.stop()
    return soak.report()


class _Soak:
    """A run in parts, and its results."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._results = options.folder / "results.jsonl"
        self._pictures = _read_pictures(options.pictures)

    @property
    def parts_done(self) -> int:
        return sum(line["kind"] == "part" for line in self._lines())

    async def part(self, suite: Suite) -> None:
        number, seconds = self.parts_done + 1, self._options.part * 60
        journal = Journal(self._options.folder / "journal.jsonl")
        tally, watch = Tally(self._write), Watch(suite, self._write)
        outages = Outages(suite, self._write)
        began_s = time.monotonic()
        async with AsyncClient(suite.target, timeout_s=TIMEOUT_S) as client:
            callers = [
                Caller(
                    name=f"caller{row}",
                    client=client,
                    journal=journal,
                    pictures=self._pictures,
                    outages=outages,
                    tally=tally,
                    chance=random.Random(f"{number} {row}"),  # noqa: S311  # no secret
                )
                for row in range(CALLERS)
            ]
            await _prepare(client, journal)
            await _check_all(callers[0], journal)
            background = [
                asyncio.create_task(watch.run()),
                *(asyncio.create_task(caller.run(self._options.pause_s)) for caller in callers),
            ]
            if number % 2:
                background.append(asyncio.create_task(outages.run(seconds * OUTAGE_SHARE)))
            await _until(background, began_s + seconds)
            await _settle(client, journal)
            await _check_all(callers[0], journal)
        journal.compact()
        journal.close()
        for judgement in watch.judgements():
            self._write({**judgement, "part": number})
        self._write(
            {
                "kind": "part",
                "part": number,
                "minutes": round((time.monotonic() - began_s) / 60, 1),
                "images": len(journal.pictures),
                "calls": dict(tally.calls.most_common()),
                "errors": dict(tally.errors.most_common()),
                "faults": dict(tally.faults),
            }
        )

    def report(self) -> int:
        """Print the results of all parts as tables. Returns the exit status."""
        lines = self._lines()
        parts = [line for line in lines if line["kind"] == "part"]
        trends = [line for line in lines if line["kind"] == "trend"]
        rows = [
            "| part | minutes | calls | images | outages | errors | faults |",
            "|---:|---:|---:|---:|---:|---|---|",
        ]
        outages = 0
        for line in lines:
            outages += line["kind"] == "outage"
            if line["kind"] == "part":
                rows.append(
                    f"| {line['part']} | {line['minutes']} | {sum(line['calls'].values())} "
                    f"| {line['images']} | {outages} | {_counts(line['errors'])} "
                    f"| {_counts(line['faults'])} |"
                )
                outages = 0
        rows += [
            "",
            "| process | quantity | part | minutes | first | last | growth per hour | flat |",
            "|---|---|---:|---:|---:|---:|---:|---|",
        ]
        shown = sorted(trends, key=lambda line: (line["process"], line["quantity"], line["part"]))
        rows += [
            f"| {line['process']} | {line['quantity']} | {line['part']} | {line['minutes']} "
            f"| {line['first']} | {line['last']} | {line['per_hour']:+.1f} "
            f"| {'yes' if line['flat'] else 'NO'} |"
            for line in shown
            if not line["flat"] or line["quantity"] in {"anonymous_mib", "mib"}
        ]
        sys.stdout.write("\n".join(rows) + "\n")
        is_good = all(line["flat"] for line in trends) and not any(line["faults"] for line in parts)
        return 0 if is_good else 1

    def _write(self, result: dict[str, Any]) -> None:
        with self._results.open("a") as file:
            file.write(json.dumps({"time": round(time.time(), 1), **result}) + "\n")
        if result["kind"] not in {"sample", "trend"}:
            sys.stderr.write(json.dumps(result) + "\n")

    def _lines(self) -> list[dict[str, Any]]:
        if not self._results.exists():
            return []
        return [json.loads(line) for line in self._results.read_text().splitlines()]


async def _until(tasks: Sequence[asyncio.Task[None]], end_s: float) -> None:
    """Let tasks run until a time, on the monotonic clock; raise the error of a task that fails."""
    try:
        while (left_s := end_s - time.monotonic()) > 0:
            running = [task for task in tasks if not task.done()]
            done, _ = await asyncio.wait(
                running, timeout=left_s, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _prepare(client: AsyncClient, journal: Journal) -> None:
    for library_id, (library_type, _) in LIBRARIES.items():
        with contextlib.suppress(ImageSearchError):
            await client.create_library(library_id=library_id, library_type=library_type)
        await client.get_library(name=f"libraries/{library_id}")
    await _settle(client, journal)


async def _settle(client: AsyncClient, journal: Journal) -> None:
    """Find out what became of the changes that were not answered when the callers stopped."""
    await asyncio.sleep(1)  # a change that is still running ends before it is read
    for image, sent in list(journal.open.items()):
        picture: int | None = None
        with contextlib.suppress(ImageSearchError):
            stored = await client.get_image(name=f"libraries/{image[0]}/images/{image[1]}")
            has_tag = "picture" in stored.tags
            known = stored.tags["picture"].int_value if has_tag else sent
            picture = known if known is not None else journal.pictures.get(image)
        journal.settled(image, picture)


async def _check_all(caller: Caller, journal: Journal) -> None:
    """Check every image: that it exists, and that no other image does."""
    for library in LIBRARIES:
        stored = {
            image.image_id async for image in caller.client.images(parent=f"libraries/{library}")
        }
        expected = {image[1] for image in journal.of_library(library)}
        if missing := expected - stored:
            caller.tally.fault("acknowledged images are missing", images=sorted(missing)[:20])
        if extra := stored - expected:
            caller.tally.fault("deleted images exist", images=sorted(extra)[:20])


def _read_pictures(folder: Path) -> list[bytes]:
    files = sorted(folder.rglob("*.jpg"))
    if len(files) < PICTURES:
        sys.exit(f"{folder} has {len(files)} photos, {PICTURES} are required")
    return [file.read_bytes() for file in files[:: len(files) // PICTURES][:PICTURES]]


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in counts.items()) or "none"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=120, help="duration of the whole run")
    parser.add_argument("--part", type=float, default=20, help="duration of a part, minutes")
    parser.add_argument("--folder", type=Path, required=True, help="data, journal and results")
    parser.add_argument("--pause-s", type=float, default=0.6, help="mean pause between calls")
    parser.add_argument("--pictures", type=Path, default=DEFAULT_PICTURES, help="folder of photos")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
