"""The result of a check: what is fine, damaged, missing or set aside, per library."""

from __future__ import annotations

import enum
from dataclasses import asdict, dataclass, field, fields
from typing import Any

MAX_LISTED = 20
"""Maximum damaged entries that are listed per library; the count is complete."""


class State(enum.StrEnum):
    """State of a library."""

    OK = "ok"
    REPAIRABLE = "repairable"
    """Not served as it is, or only after a start has restored it; nothing is lost."""
    DAMAGED = "damaged"
    """Data is lost: single entries or the whole library."""
    UNKNOWN = "unknown"
    """A collection that no record names: a start sets it aside."""
    NOT_CHECKED = "not checked"


@dataclass(slots=True, kw_only=True)
class Library:
    """What was found of one library."""

    library: str
    """Library id; empty if nothing names the collection."""
    uid: str
    """Name of the collection."""
    state: State = State.OK
    problems: list[str] = field(default_factory=list)
    repairs: list[str] = field(default_factory=list)
    """What `repair` does, or would do."""
    lost: list[str] = field(default_factory=list)
    """What can't be restored from this data folder."""
    entry_count: int | None = None
    """Number of entries that were read; None: not read."""
    damaged_entry_count: int = 0
    damaged_entries: list[str] = field(default_factory=list)
    """Image ids, or uids where the image id is damaged, at most `MAX_LISTED`."""
    missing_thumbnail_count: int = 0
    """Thumbnails that are missing, empty or damaged."""

    def take(self, other: Library) -> None:
        """Take over what another process has found."""
        for each in fields(self):
            setattr(self, each.name, getattr(other, each.name))

    def add(self, state: State, problem: str, *, repair: str = "", lost: str = "") -> None:
        """Add a problem; the state of the library is the worst one."""
        order = list(State)
        self.state = max(self.state, state, key=order.index)
        self.problems.append(problem)
        self.repairs += [repair] if repair else []
        self.lost += [lost] if lost else []


@dataclass(slots=True, kw_only=True)
class Report:
    """What was found in a data folder."""

    folder: str
    format_version: int
    installation_id: str = ""
    problems: list[str] = field(default_factory=list)
    """Problems of the folder as a whole."""
    repairs: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    libraries: list[Library] = field(default_factory=list)
    quarantined: list[str] = field(default_factory=list)
    """Paths of the collections that were set aside."""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems and all(each.state is State.OK for each in self.libraries)

    def as_json(self) -> dict[str, Any]:
        return {"ok": self.ok, **asdict(self)}

    def lines(self) -> list[str]:
        """Return the report as text."""
        lines = [f"{self.folder}: format {self.format_version}, {self._summary()}"]
        for texts, mark in (
            (self.problems, "problem"),
            (self.repairs, "repair"),
            (self.lost, "lost"),
        ):
            lines += [f"  {mark}: {text}" for text in texts]
        for each in sorted(self.libraries, key=lambda each: (each.library, each.uid)):
            lines += _library_lines(each)
        lines += [f"set aside: {path}" for path in self.quarantined]
        return lines

    def _summary(self) -> str:
        if self.ok:
            return f"{len(self.libraries)} libraries, nothing is wrong"
        wrong = sum(each.state is not State.OK for each in self.libraries)
        return f"{wrong} of {len(self.libraries)} libraries need attention"


def _library_lines(each: Library) -> list[str]:
    count = "" if each.entry_count is None else f", {each.entry_count:,} entries"
    lines = [f"{each.library or '(no name)'}: {each.state}{count} ({each.uid})"]
    for texts, mark in ((each.problems, "problem"), (each.repairs, "repair"), (each.lost, "lost")):
        lines += [f"  {mark}: {text}" for text in texts]
    if each.damaged_entries:
        more = each.damaged_entry_count - len(each.damaged_entries)
        names = ", ".join(each.damaged_entries) + (f" and {more:,} more" if more else "")
        lines.append(f"  damaged entries: {names}")
    return lines
