"""Print figures about the structure of the code of a checkout.

    python -m tests.benchmarks.structure [--root FOLDER]

Generated stubs are excluded. Import cycles are reported between modules and between folders.
"""

from __future__ import annotations

import argparse
import ast
import io
import tokenize
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

SOURCES = {"services": "imagesearch_services", "clients/python/imagesearch": "imagesearch"}
"""Folder of each package and its import name."""
DOCUMENTS = ("README.md", "clients", "deploy", "protos", "services", "tests")
"""Page and folders of pages whose words are counted."""


class Size(NamedTuple):
    """Lines of a module or class and its name."""

    lines: int
    name: str


class Lines(NamedTuple):
    """Lines of Python by kind."""

    code: int
    comments: int
    docstrings: int


def modules(root: Path) -> dict[str, Path]:
    """Return the files of our packages by module name."""
    found = {}
    for folder, package in SOURCES.items():
        for path in sorted((root / folder).rglob("*.py")):
            if not path.stem.endswith(("_pb2", "_pb2_grpc")):
                parts = path.relative_to(root / folder).with_suffix("").parts
                name = ".".join((package, *parts)).removesuffix(".__init__")
                found[name] = path
    return found


def imports(name: str, path: Path, known: AbstractSet[str]) -> Iterator[str]:
    """Yield the modules of our packages that a module imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                member = f"{node.module}.{alias.name}"
                target = member if member in known else node.module
                if target in known and target != name:
                    yield target


def cycle(graph: Mapping[str, AbstractSet[str]]) -> list[str]:
    """Return the nodes of a cycle of a graph; empty if the graph is acyclic."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


def folder_graph(graph: Mapping[str, AbstractSet[str]]) -> dict[str, set[str]]:
    """Return the imports between packages of which neither contains the other."""
    folders: dict[str, set[str]] = defaultdict(set)
    for module, targets in graph.items():
        parent = module.rpartition(".")[0]
        for target in targets:
            other = target.rpartition(".")[0]
            if not f"{parent}.".startswith(f"{other}.") and not f"{other}.".startswith(
                f"{parent}."
            ):
                folders[parent].add(other)
    return folders


def classes(path: Path) -> Iterator[Size]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef):
            yield Size((node.end_lineno or node.lineno) - node.lineno + 1, node.name)


def count_lines(path: Path) -> Lines:
    """Count the lines of a module with code, with only a comment, and in docstrings."""
    text = path.read_text(encoding="utf-8")
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            docstrings.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    comments: set[int] = set()
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        rows = range(token.start[0], token.end[0] + 1)
        if token.type == tokenize.COMMENT:
            comments.update(rows)
        elif token.string.strip() and token.type not in {tokenize.NL, tokenize.NEWLINE}:
            code.update(rows)
    return Lines(len(code - docstrings), len(comments - code), len(docstrings))


def total(paths: Iterator[Path]) -> Lines:
    counts = [count_lines(path) for path in paths]
    return Lines(*map(sum, zip(*counts, strict=True)))


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[2])
    root: Path = parser.parse_args().root
    found = modules(root)
    graph = {name: set(imports(name, path, found.keys())) for name, path in found.items()}
    folders = Counter(path.parent.relative_to(root).as_posix() for path in found.values())
    longest = max(Size(len(path.read_text().splitlines()), name) for name, path in found.items())
    largest = max(size for path in found.values() for size in classes(path))
    ours, tests = total(iter(found.values())), total((root / "tests").rglob("*.py"))
    pages = {path for name in DOCUMENTS for path in [root / name, *(root / name).rglob("*.md")]}
    words = sum(len(page.read_text().split()) for page in pages if page.suffix == ".md")
    rows = {
        "modules in the fullest folders": ", ".join(
            f"{folder} {count}" for folder, count in folders.most_common(4)
        ),
        "longest module": f"{longest.name} {longest.lines}",
        "longest class": f"{largest.name} {largest.lines}",
        "modules over 400 lines": sum(
            len(path.read_text().splitlines()) > 400 for path in found.values()
        ),
        "cycle of modules": " → ".join(cycle(graph)) or "none",
        "cycle of folders": " → ".join(cycle(folder_graph(graph))) or "none",
        "lines of code, comments, docstrings": " / ".join(f"{n:,}" for n in ours),
        "lines of test code, comments, docstrings": " / ".join(f"{n:,}" for n in tests),
        "lines of README.md": len((root / "README.md").read_text().splitlines()),
        "words of all pages": f"{words:,}",
    }
    for label, value in rows.items():
        print(f"| {label} | {value} |")  # noqa: T201


if __name__ == "__main__":
    main()
