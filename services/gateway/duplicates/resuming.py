"""Excludes the images that earlier calls found from a component, without a record of the calls."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from imagesearch_services.gateway.duplicates.graph import DisjointSets, ImageGraph
from imagesearch_services.gateway.duplicates.model import Uid
from imagesearch_services.gateway.scoring.calibration import Threshold, closeness


def remaining_components(
    graph: ImageGraph, component: Sequence[Uid], began_after: Uid, loose: Threshold
) -> list[list[Uid]]:
    """Return the components that remain of a component after earlier images are removed.

    Earlier calls found all images reachable from the images that they completed. Edges are
    directed: since background similarities differ, a search with A may find B although a search
    with B does not find A.

    Args:
        graph: graph with the verdicts on the pairs of the component.
        component: uids, ascending.
        began_after: uid of the last image that earlier calls completed.
        loose: threshold of neighbors.
    """
    neighbors: dict[Uid, list[Uid]] = {uid: [] for uid in component}
    copies = []
    for a, b in itertools.combinations(component, 2):
        verdict = graph.verdicts.get((a, b))
        if verdict is None or not verdict.is_copy:
            continue
        copies.append((a, b))
        for uid, other in ((a, b), (b, a)):
            background = graph.nodes[uid].background_similarity
            if loose.accepts(closeness(verdict.evidence.similarity, background)):
                neighbors[uid].append(other)
    found = _reachable(neighbors, [uid for uid in component if uid <= began_after])
    remaining = DisjointSets()
    for a, b in copies:
        if a not in found and b not in found:
            remaining.union(a, b)
    return remaining.components()


def _reachable(neighbors: dict[Uid, list[Uid]], starts: Sequence[Uid]) -> set[Uid]:
    """Return the starts that have neighbors, and all images reachable from them."""
    stack = [uid for uid in starts if neighbors[uid]]
    reached = set(stack)
    while stack:
        new = set(neighbors[stack.pop()]) - reached
        reached |= new
        stack += new
    return reached
