"""State that a scan keeps from page to page."""

from __future__ import annotations

from imagesearch_services.gateway.duplicates.state import RecentPairs


def pair(number: int) -> tuple[bytes, bytes]:
    return number.to_bytes(16), (number + 1).to_bytes(16)


def test_an_added_pair_is_remembered() -> None:
    pairs = RecentPairs(10)
    pairs.add(pair(1))
    assert pair(1) in pairs
    assert pair(2) not in pairs


def test_at_least_the_last_half_of_the_capacity_is_remembered() -> None:
    pairs = RecentPairs(10)
    for number in range(1000):
        pairs.add(pair(number))
        assert all(pair(recent) in pairs for recent in range(max(0, number - 4), number + 1))


def test_the_oldest_pairs_are_dropped_at_the_capacity() -> None:
    pairs = RecentPairs(10)
    for number in range(1000):
        pairs.add(pair(number))
        assert len(pairs) <= 10
    assert pair(0) not in pairs
