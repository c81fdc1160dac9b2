"""Types of a library's tags: how a new value fixes, widens or changes the type of its tag."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from imagesearch_services.catalog.errors import too_many_tag_names
from imagesearch_services.catalog.filters import Exists
from imagesearch_services.catalog.library.libraries import Libraries
from imagesearch_services.catalog.model import Entry, FieldType, Library
from imagesearch_services.catalog.storage import Fields, Storage
from imagesearch_services.common.errors import Reason, ServiceError

MAX_SEARCHED_TAGS = 4
"""Maximum tags per call that are searched for entries. Without an index, each search reads the
whole library: .3 s for 100,000 entries."""


class TagTypes:
    """The types of a library's tags, while the entries of one call are added."""

    def __init__(self, library: Library, max_names: int, unused: AbstractSet[str]) -> None:
        """Start with the types of a library.

        Args:
            library: as it is under its write lock.
            max_names: maximum number of tag names in the library.
            unused: tags that no stored entry has; their type may change.
        """
        self._library = library
        self._max_names = max_names
        self._unused = set(unused)
        self.changes: dict[str, FieldType] = {}
        """Types of new tags, and changed types."""

    def add(self, entry: Entry) -> None:
        """Add the tags of an entry, or none of them.

        Raises:
            ServiceError: TAG_TYPE_MISMATCH, TOO_MANY_TAG_NAMES.
        """
        known = {**self._library.tag_types, **self.changes}
        changes = {
            name: self._type_after(name, known.get(name), FieldType.of(value))
            for name, value in entry.tags.items()
        }
        new_names = changes.keys() - known.keys()
        if new_names and len(known) + len(new_names) > self._max_names:
            raise too_many_tag_names(self._library, self._max_names)
        self.changes.update(
            (name, kind) for name, kind in changes.items() if known.get(name) is not kind
        )
        self._unused -= changes.keys()

    def _type_after(self, name: str, expected: FieldType | None, actual: FieldType) -> FieldType:
        if expected is None or name in self._unused:
            return actual
        if (widened := expected.widened(actual)) is not None:
            return widened
        raise ServiceError(
            Reason.TAG_TYPE_MISMATCH,
            f"tag {name} holds {expected.value} values in this library, not {actual.value}",
            metadata={"tag": name, "expected": expected.value, "actual": actual.value},
        )


async def tag_types_for(
    entries: Sequence[Entry], library: Library, libraries: Libraries, storage: Storage
) -> TagTypes:
    """Return the types of the library's tags, prepared for entries to be added.

    Call it under the write lock. Frees the names of unused tags if the limit would be exceeded.
    """
    names = {name for entry in entries for name in entry.tags}
    if len(names | library.tag_types.keys()) > libraries.max_tag_names:
        library = await libraries.free_tag_names(library)
    mismatched = {
        name
        for entry in entries
        for name, value in entry.tags.items()
        if (known := library.tag_types.get(name)) and not known.widened(FieldType.of(value))
    }
    unused = {
        name
        for name in sorted(mismatched)[:MAX_SEARCHED_TAGS]
        if not await storage.scroll(library.uid, Exists(f"tags.{name}"), None, 1, Fields.NONE)
    }
    return TagTypes(library, libraries.max_tag_names, unused)
