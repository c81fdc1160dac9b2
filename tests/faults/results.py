"""Rounds of a command: each result is appended to a file, so that a command resumes."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

Result = dict[str, Any]


async def run_rounds(
    file: Path, count: int, run_round: Callable[[int], Awaitable[Result]]
) -> list[Result]:
    """Run the rounds that `file` does not hold yet; return the results of all."""
    results = _read(file)
    for number in range(len(results), count):
        result = {"round": number, **await run_round(number)}
        results.append(result)
        with file.open("a", encoding="utf-8") as output:
            output.write(json.dumps(result) + "\n")
        sys.stderr.write(f"{json.dumps(result)}\n")
    return results[:count]


def table(results: list[Result], columns: list[str]) -> str:
    """Return results as a Markdown table."""
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    lines += [
        f"| {' | '.join(str(result.get(column, '')) for column in columns)} |" for result in results
    ]
    return "\n".join(lines)


def _read(file: Path) -> list[Result]:
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
