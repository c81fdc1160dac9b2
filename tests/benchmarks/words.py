"""Print a random sample of docstrings, comments, error messages and log events, for review.

    python -m tests.benchmarks.words --seed 1 [--root FOLDER]

Generated stubs and tests are excluded.
"""

from __future__ import annotations

import argparse
import ast
import io
import random
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks.structure import modules

COUNTS = {"docstring": 20, "comment": 20, "error": 10, "log event": 10}
"""Number of texts of each kind in the sample."""
ERRORS = {"ServiceError", "field_error", "missing_field"}
LOG_METHODS = {"debug", "info", "warning", "error", "exception"}
DIRECTIVES = ("# fmt:", "# noqa", "# ruff:", "# type:")
"""Prefixes of comments that configure tools."""


class Text(NamedTuple):
    """A text and its location."""

    kind: str
    place: str
    text: str


def comments(source: str, place: str) -> Iterator[Text]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and not token.string.startswith(DIRECTIVES):
            yield Text("comment", f"{place}:{token.start[0]}", token.string)


def texts(path: Path, root: Path) -> Iterator[Text]:
    """Yield the texts of a module."""
    source = path.read_text(encoding="utf-8")
    place = path.relative_to(root).as_posix()
    yield from comments(source, place)
    for node in ast.walk(ast.parse(source)):
        at = f"{place}:{getattr(node, 'lineno', 1)}"
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            if isinstance(node.value.value, str):
                yield Text("docstring", at, node.value.value)
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name.rpartition(".")[2] in ERRORS:
                yield Text("error", at, ast.unparse(node))
            elif "log" in name and name.rpartition(".")[2] in LOG_METHODS:
                yield Text("log event", at, ast.unparse(node))


def main() -> None:
    """Print the sample."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[2])
    options = parser.parse_args()
    chance = random.Random(options.seed)  # noqa: S311  # a sample, not a secret
    found = [text for path in modules(options.root).values() for text in texts(path, options.root)]
    for kind, count in COUNTS.items():
        candidates = [text for text in found if text.kind == kind]
        print(f"\n## {kind}: {count} of {len(candidates)}")  # noqa: T201
        for text in sorted(chance.sample(candidates, min(count, len(candidates)))):
            print(f"\n{text.place}\n    {text.text}")  # noqa: T201


if __name__ == "__main__":
    main()
