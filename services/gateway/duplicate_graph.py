"""Which images may be copies of which: a graph of likenesses, and the parts that hang together."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from imagesearch_services.gateway.calibration import closeness
from imagesearch_services.gateway.copy_check import Likeness
from imagesearch_services.gateway.model import StoredImage

Uid = bytes
Rank = tuple[float | bytes, ...]


class KeepPolicy(enum.IntEnum):
    """Which image of a group to propose to keep; the numbers of the contract."""

    LARGEST = 1
    SHARPEST = 2
    OLDEST = 3


def rank(image: StoredImage, policy: KeepPolicy) -> Rank:
    """Give what images are ordered by, the one to keep first; no two have the same."""
    pixels = float(image.info.width) * image.info.height
    age = image.create_time.timestamp()
    match policy:
        case KeepPolicy.LARGEST:
            return -pixels, -float(image.info.size_bytes), age, image.uid
        case KeepPolicy.SHARPEST:
            return -image.info.sharpness, -pixels, age, image.uid
        case KeepPolicy.OLDEST:
            return age, -pixels, image.uid


@dataclass(slots=True)
class Node:
    """An image, without what is large of it."""

    image_id: str
    rank: Rank
    sha256: str
    has_thumbnail: bool
    background_similarity: float
    near: dict[Uid, float] = field(default_factory=dict)
    """Similarities of the images that its own search found."""

    def likeness_to(self, other: Node, similarity: float) -> Likeness:
        """Judge a similarity against how close the two lie to pictures in general."""
        backgrounds = self.background_similarity, other.background_similarity
        return Likeness(
            similarity,
            closeness(similarity, min(backgrounds)),
            closeness(similarity, max(backgrounds)),
        )

    def is_same_file(self, other: Node) -> bool:
        return bool(self.sha256) and self.sha256 == other.sha256


class Graph:
    """Images and the likenesses between them, whichever of the two found the other."""

    def __init__(self) -> None:
        self.nodes: dict[Uid, Node] = {}
        self._edges: dict[Uid, dict[Uid, float]] = {}

    def connect(self, is_likely: Callable[[Node, Node, float], bool]) -> None:
        """Make the edges out of what each node found, where both ends are known."""
        self._edges = {}
        for uid, node in self.nodes.items():
            known = self._edges.get(uid, {})
            for other_uid, similarity in node.near.items():
                other = self.nodes.get(other_uid)
                if other is None or other_uid in known:
                    continue
                if is_likely(node, other, similarity):
                    self._edges.setdefault(uid, {})[other_uid] = similarity
                    self._edges.setdefault(other_uid, {})[uid] = similarity

    def likenesses(self, uid: Uid) -> Mapping[Uid, float]:
        """Give the similarities of those that an image is connected with."""
        return self._edges.get(uid, {})

    def components(self) -> Iterator[list[Uid]]:
        """Give the parts of two and more that hang together."""
        seen: set[Uid] = set()
        for uid in self._edges:
            if uid not in seen:
                part = reachable(uid, self.likenesses)
                seen.update(part)
                yield part

    def found_from(self, start: Uid) -> set[Uid]:
        """Give all that the searches come to that begin with an image."""
        nodes = self.nodes
        return set(reachable(start, lambda uid: nodes[uid].near if uid in nodes else ()))


def reachable(start: Uid, neighbours: Callable[[Uid], Iterable[Uid]]) -> list[Uid]:
    """Give all that can be come to from a start, itself first."""
    found = {start: None}
    waiting = [start]
    while waiting:
        for uid in neighbours(waiting.pop()):
            if uid not in found:
                found[uid] = None
                waiting.append(uid)
    return list(found)
