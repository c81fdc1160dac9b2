"""Samples of what the processes of a suite hold: memory, files, memory maps, threads."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from imagesearch_services.runner.suite import Suite

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Held:
    """What one process holds."""

    pid: int
    rss_mib: float
    """Resident memory, shared pages included."""
    pss_mib: float
    """Proportional memory: a page that n processes share counts as 1/n."""
    anonymous_mib: float
    """The part of it that no file backs: the heap and shared memory. The rest is a cache of files,
    which the kernel drops when memory is scarce."""
    open_files: int
    memory_maps: int
    threads: int

    def as_json(self) -> dict[str, float]:
        return asdict(self)


def sample(suite: Suite) -> dict[str, Held]:
    """Return what each process of the suite and each of their child processes holds.

    Names are those of the suite, children are `parent/1`, `parent/2` by age: `catalog/1` is the
    engine of the Catalog. Processes that end during the sample are left out.
    """
    children = _children()
    held = {}
    for name, process in suite.processes.items():
        pids = [process.pid, *_descendants(process.pid, children)]
        for number, pid in enumerate(pids):
            found = _held(pid)
            if found is not None:
                held[f"{name}/{number}" if number else name] = found
    return held


def folder_mib(folder: Path) -> float:
    """Return the disk space that the files of a folder take."""
    blocks = 0
    for parent, _, files in os.walk(folder):
        for file in files:
            try:
                blocks += os.stat(os.path.join(parent, file)).st_blocks  # noqa: PTH116, PTH118  # fast
            except FileNotFoundError:
                continue
    return blocks * 512 / 2**20


def _held(pid: int) -> Held | None:
    folder = Path(f"/proc/{pid}")
    try:
        rollup = (folder / "smaps_rollup").read_text()
        kib = {line.split()[0]: int(line.split()[1]) for line in rollup.splitlines()[1:]}
        return Held(
            pid=pid,
            rss_mib=int((folder / "statm").read_text().split()[1]) * PAGE_BYTES / 2**20,
            pss_mib=kib["Pss:"] / 2**10,
            anonymous_mib=(kib["Pss_Anon:"] + kib["Pss_Shmem:"]) / 2**10,
            open_files=_count(folder / "fd"),
            memory_maps=(folder / "maps").read_text().count("\n"),
            threads=_count(folder / "task"),
        )
    except OSError:
        return None


def _count(folder: Path) -> int:
    return sum(1 for _ in folder.iterdir())


def _children() -> Mapping[int, list[int]]:
    """Return the child processes of each process, oldest first."""
    children: dict[int, list[int]] = {}
    for pid in sorted(int(file.name) for file in Path("/proc").iterdir() if file.name.isdigit()):
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            continue
        # The name of the program is in parentheses and may contain spaces.
        parent = int(stat[stat.rindex(")") + 2 :].split()[1])
        children.setdefault(parent, []).append(pid)
    return children


def _descendants(pid: int, children: Mapping[int, list[int]]) -> Iterator[int]:
    for child in children.get(pid, []):
        yield child
        yield from _descendants(child, children)
