"""Candidates of an element search: how many to examine, and loading their features."""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine, Mapping, Sequence
from itertools import chain
from typing import Any

from imagesearch_services.common.concurrency import together
from imagesearch_services.gateway.model import FeaturesHit

MAX_CANDIDATES = 450
"""Maximum candidates per candidate query. The features of more may not fit in one message."""

SMALL_LIBRARY_SIZE = 1000
"""Maximum number of elements of a library that is searched with the base number of candidates."""

MAX_SHARE_PER_WINDOW = 0.16
"""Maximum share of the candidates that one window contributes. The best match of any of 127 windows
is among the first hits of one window."""


def candidate_count(base_count: int, element_count: int) -> int:
    """Return the number of candidates to examine in a library.

    Args:
        base_count: number of candidates in a library of `SMALL_LIBRARY_SIZE` elements or fewer;
            each factor of ten in library size adds the same number.
        element_count: elements of the library.
    """
    tenfolds = math.log10(max(element_count, SMALL_LIBRARY_SIZE) / SMALL_LIBRARY_SIZE)
    return min(round(base_count * (1 + tenfolds)), max(base_count, MAX_CANDIDATES))


async def load_candidates(
    queries: Mapping[str, Coroutine[Any, Any, Sequence[bytes]]],
    load_features: Callable[[str, Sequence[bytes]], Coroutine[Any, Any, Sequence[FeaturesHit]]],
) -> list[FeaturesHit]:
    """Run candidate queries concurrently and load the features of each as soon as it ends.

    The features of a candidate that several queries return are loaded once.

    Args:
        queries: candidate queries by name; each returns uids.
        load_features: loads features; called with the name of the query and its new uids.
    """
    seen: set[bytes] = set()

    async def run(name: str, query: Coroutine[Any, Any, Sequence[bytes]]) -> Sequence[FeaturesHit]:
        uids = [uid for uid in await query if uid not in seen]
        seen.update(uids)
        return await load_features(name, uids) if uids else ()

    lists = await together(run(name, query) for name, query in queries.items())
    return list(chain.from_iterable(lists))
