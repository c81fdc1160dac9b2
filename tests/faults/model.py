"""What a Catalog must hold after a fault: the acknowledged state, and what unanswered calls allow.

A call that was not answered may have happened as a whole or not at all. So an entry has a set of
possible states: the last acknowledged one, and those that unanswered calls would have left. Calls
on one entry or library never overlap, so the last answer is the latest state.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace

from imagesearch.catalog.v1 import catalog_service_pb2 as pb
from tests.contract.catalog.support import make_entry, random_units

REVISION_TAG = "revision"
"""Tag of every entry with the number of its state."""


@dataclass(frozen=True)
class EntryState:
    """The content of an entry; all of it follows from two numbers."""

    image_id: str
    revision: int
    """Number of the write; it determines vector, thumbnail and tags."""
    entity_id: str = ""
    """Changed by updates."""

    @property
    def vector(self) -> bytes:
        return random_units(1, seed=self._seed)[0]

    @property
    def thumbnail(self) -> bytes:
        """Between 2 and 18 kB that no other state has."""
        block = hashlib.sha256(f"{self.image_id} {self.revision}".encode()).digest()
        return block * (64 + self._seed % 512)

    def message(self) -> pb.Entry:
        return make_entry(
            self.image_id,
            self.vector,
            thumbnail=self.thumbnail,
            entity_id=self.entity_id,
            tags={REVISION_TAG: self.revision},
            features=self.thumbnail[:100],
        )

    def updated(self, entity_id: str) -> EntryState:
        return replace(self, entity_id=entity_id)

    @property
    def _seed(self) -> int:
        digest = hashlib.sha256(f"{self.image_id}/{self.revision}".encode()).digest()
        return int.from_bytes(digest[:4], "big")


@dataclass
class LibraryModel:
    """The possible states of a library and of its entries; None: absent."""

    library_id: str
    states: set[bool] = field(default_factory=lambda: {False})
    """Whether it exists: one value, or both while a call is unanswered."""
    entries: dict[str, set[EntryState | None]] = field(default_factory=dict)

    @property
    def exists(self) -> bool:
        """Whether it certainly exists."""
        return self.states == {True}

    def current(self, image_id: str) -> EntryState | None:
        """Return the state of an entry without unanswered calls."""
        (state,) = self.entries.get(image_id, {None})
        return state

    def begin(self, image_id: str, state: EntryState | None) -> None:
        """Note that a call starts that would leave this state."""
        self.entries.setdefault(image_id, {None}).add(state)

    def settle(self, image_id: str, state: EntryState | None) -> None:
        """Note that the entry certainly has this state."""
        self.entries[image_id] = {state}

    def begin_existence(self, exists: bool) -> None:
        self.states.add(exists)

    def settle_existence(self, exists: bool) -> None:
        self.states = {exists}
        if not exists:
            self.entries.clear()

    def certain(self) -> list[EntryState]:
        """Return the entries that certainly exist, with their certain state."""
        return [
            state
            for states in self.entries.values()
            for state in states
            if state is not None and len(states) == 1
        ]


@dataclass
class Answered:
    """An acknowledged deletion, whose answer a retry must return."""

    request: pb.DeleteEntriesRequest
    deleted_count: int


@dataclass
class Model:
    """Everything that a Catalog was asked to store."""

    libraries: dict[str, LibraryModel] = field(default_factory=dict)
    unanswered_puts: list[pb.PutEntriesRequest] = field(default_factory=list)
    answered: list[Answered] = field(default_factory=list)
    acknowledged_count: int = 0
    """Number of acknowledged changes of entries and libraries."""

    def library(self, library_id: str) -> LibraryModel:
        return self.libraries.setdefault(library_id, LibraryModel(library_id))
