"""State that a scan keeps from page to page."""

from __future__ import annotations

from collections.abc import Iterable

from imagesearch_services.gateway.duplicates.model import Group, Uid, UidPair


class ProcessedImages:
    """Images whose connected component was split into groups; about 100 bytes per image."""

    def __init__(self) -> None:
        self._keepers: dict[Uid, Uid | None] = {}

    def __contains__(self, uid: object) -> bool:
        return uid in self._keepers

    def add_component(self, uids: Iterable[Uid]) -> None:
        """Add the images of a component, which are in no group yet."""
        self._keepers.update((uid, None) for uid in uids)

    def add_group(self, group: Group) -> None:
        """Add the members of a group."""
        self._keepers.update((member.uid, group[0].uid) for member in group)

    def keeper_of(self, uid: Uid) -> Uid | None:
        """Return the image to keep in the group of an image; None if the image has no group."""
        return self._keepers.get(uid)


class RecentPairs:
    """A bounded set of uid pairs that drops the oldest; about 100 bytes per pair.

    The set has two generations. When the newer generation is full, it replaces the older one. So
    the set holds at least the last `capacity / 2` pairs and at most `capacity` pairs.
    """

    def __init__(self, capacity: int) -> None:
        self._generation_size = max(1, capacity // 2)
        self._newer: set[bytes] = set()
        self._older: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._newer) + len(self._older)

    def __contains__(self, pair: UidPair) -> bool:
        key = _key(pair)
        return key in self._newer or key in self._older

    def add(self, pair: UidPair) -> None:
        """Add a pair; drop old pairs when the set is full."""
        if len(self._newer) >= self._generation_size:
            self._older, self._newer = self._newer, set()
        self._newer.add(_key(pair))


def _key(pair: UidPair) -> bytes:
    """Concatenate the uids, which takes half the memory of a tuple. All have the same length."""
    return pair[0] + pair[1]
