"""The results of a fuzzing run: JSON lines that a later run continues, and failing inputs."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

FILES_PER_SIGNATURE = 3
"""Maximum inputs that are saved of one kind of failure."""


class Journal:
    """Results in `FOLDER/results.jsonl`, failing inputs beside it, and the process id in `pid`."""

    def __init__(self, folder: Path, **identity: object) -> None:
        """Open or continue a run.

        Args:
            folder: folder of the run.
            identity: what determines the inputs, such as the seed. Exits if the folder holds a run
                with another identity.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._file = folder / "results.jsonl"
        self._signatures: dict[str, int] = {}
        (folder / "pid").write_text(f"{os.getpid()}\n")
        earlier = list(self.lines())
        if not earlier:
            self.add("run", **identity)
        elif {key: earlier[0].get(key) for key in identity} != identity:
            sys.exit(f"{folder} holds the run {earlier[0]}; choose another folder")
        for line in earlier:
            if line["event"] == "finding":
                self._count(line["signature"])

    def lines(self) -> Iterator[dict[str, Any]]:
        """Yield the results so far; a line that was cut off is left out."""
        if not self._file.exists():
            return
        for line in self._file.read_text().splitlines():
            try:
                yield json.loads(line)
            except ValueError:
                continue

    def add(self, event: str, **values: object) -> None:
        """Append a result."""
        line = json.dumps({"event": event, "time": round(time.time(), 1), **values})
        with self._file.open("a") as file:
            file.write(line + "\n")

    def next_index(self) -> int:
        """Return the index of the first input that was not tried."""
        return max((line["next"] for line in self.lines() if line["event"] == "part"), default=0)

    def totals(self) -> dict[str, int]:
        """Return the number of inputs by outcome, over all parts of the run."""
        totals: dict[str, int] = {}
        for line in self.lines():
            for outcome, count in line.get("outcomes", {}).items():
                totals[outcome] = totals.get(outcome, 0) + count
        return totals

    def finding_count(self) -> int:
        return sum(self._signatures.values())

    def finding(self, signature: str, content: bytes, values: Mapping[str, object]) -> None:
        """Record a failure, and save its input unless enough of its kind are saved."""
        number = self._count(signature)
        name = ""
        if number <= FILES_PER_SIGNATURE:
            words = re.sub(r"\W+", "-", signature)[:60]
            name = f"{words}-{number}.bin"
            (self.folder / name).write_bytes(content)
        self.add("finding", **{**values, "signature": signature, "file": name})
        sys.stdout.write(f"finding: {signature} {dict(values)} {name}\n")
        sys.stdout.flush()

    def _count(self, signature: str) -> int:
        self._signatures[signature] = self._signatures.get(signature, 0) + 1
        return self._signatures[signature]
