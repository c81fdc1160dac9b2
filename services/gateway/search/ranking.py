"""Ranking of hits: sorting, the best hit of each image or entity, and joining rankings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from imagesearch_services.gateway.model import StoredImage
from imagesearch_services.gateway.search.model import RankedHit, Ranking


def best_of_each_image(hits: Iterable[RankedHit]) -> list[RankedHit]:
    """Return the best hit of each image, best first; ties are ordered by uid."""
    ranked = sorted(hits, key=lambda hit: (-hit.closeness, hit.uid))
    return _first_of_each_image(ranked)


def best_of_each_entity(
    hits: Iterable[RankedHit], images: Mapping[bytes, StoredImage]
) -> Iterator[RankedHit]:
    """Yield the first hit of each entity. An image without an entity id is its own entity."""
    seen: set[str] = set()
    for hit in hits:
        image = images.get(hit.uid)
        entity_id = image.fields.entity_id if image else ""
        if not entity_id or entity_id not in seen:
            seen.add(entity_id)
            yield hit


def join(rankings: Sequence[Ranking], max_hits: int) -> tuple[list[RankedHit], bool]:
    """Concatenate rankings; an image in several rankings keeps its first position.

    Returns:
        At most `max_hits` hits, and whether the library may hold more.
    """
    hits = _first_of_each_image(hit for ranking in rankings for hit in ranking.hits)
    is_cut = len(hits) > max_hits or any(ranking.is_cut for ranking in rankings)
    return hits[:max_hits], is_cut


def _first_of_each_image(hits: Iterable[RankedHit]) -> list[RankedHit]:
    first: dict[bytes, RankedHit] = {}
    for hit in hits:
        first.setdefault(hit.uid, hit)
    return list(first.values())
