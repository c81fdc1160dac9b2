"""Which images are copies of which, and what hangs together by them."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from imagesearch_services.gateway.duplicates.copy_check import Likeness
from imagesearch_services.gateway.model import StoredImage
from imagesearch_services.gateway.scoring.calibration import closeness

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
    """One that can be laid over others."""
    background_similarity: float
    near: dict[Uid, float] = field(default_factory=dict)
    """Similarities of the images that its own search found."""
    is_searched: bool = False
    met: dict[Uid, float] = field(default_factory=dict)
    """The same of those that were weighed before."""

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


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of comparing two images."""

    is_copy: bool
    pixels_agree: bool
    """They were laid over each other, or are one file."""
    likeness: Likeness


class Links:
    """Which images hang together (disjoint sets; Tarjan, 1975)."""

    def __init__(self, parents: Mapping[Uid, Uid] | None = None) -> None:
        self._parents = dict(parents or {})

    def copy(self) -> Links:
        return Links(self._parents)

    def root(self, uid: Uid) -> Uid:
        """Give what stands for all that hangs together with an image."""
        while (parent := self._parents.get(uid, uid)) != uid:
            self._parents[uid] = self._parents.get(parent, parent)
            uid = parent
        return uid

    def join(self, a: Uid, b: Uid) -> bool:
        """Let two hang together; tell whether they did not."""
        a, b = self.root(a), self.root(b)
        self._parents[a] = b
        return a != b

    def parts(self) -> list[list[Uid]]:
        """Give what hangs together, two and more, each in the order of the uids."""
        parts: dict[Uid, list[Uid]] = {}
        for uid in {*self._parents, *self._parents.values()}:
            parts.setdefault(self.root(uid), []).append(uid)
        return sorted(sorted(part) for part in parts.values() if len(part) > 1)


@dataclass(slots=True)
class Graph:
    """Images, what was found of their likenesses, and which of these are copies."""

    nodes: dict[Uid, Node] = field(default_factory=dict)
    verdicts: dict[tuple[Uid, Uid], Verdict] = field(default_factory=dict)
    links: Links = field(default_factory=Links)
    """Of copies."""

    def similarity(self, a: Uid, b: Uid) -> float | None:
        """Give what one of two found of the other; None where neither did."""
        similarity = self.nodes[a].near.get(b)
        return self.nodes[b].near.get(a) if similarity is None else similarity


def pair_of(a: Uid, b: Uid) -> tuple[Uid, Uid]:
    """Name a pair, whichever comes first."""
    return (a, b) if a < b else (b, a)
