"""A graph of images: their similarities, verdicts on pairs, and connected components of copies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from imagesearch_services.gateway.duplicates.model import (
    EmbeddingEvidence,
    KeepPolicy,
    Uid,
    UidPair,
)
from imagesearch_services.gateway.model import StoredImage
from imagesearch_services.gateway.scoring.calibration import closeness

Rank = tuple[float | bytes, ...]


def rank(image: StoredImage, policy: KeepPolicy) -> Rank:
    """Return the sort key of an image. The image to keep has the lowest key; keys are distinct."""
    pixels = float(image.info.width) * image.info.height
    created = image.create_time.timestamp()
    match policy:
        case KeepPolicy.LARGEST:
            return -pixels, -float(image.info.size_bytes), created, image.uid
        case KeepPolicy.SHARPEST:
            return -image.info.sharpness, -pixels, created, image.uid
        case KeepPolicy.OLDEST:
            return created, -pixels, image.uid


@dataclass(slots=True)
class Node:
    """Metadata of an image, without vectors, and its neighbors."""

    image_id: str
    rank: Rank
    sha256: str
    has_thumbnail: bool
    """Whether the image has a thumbnail that can be aligned with others."""
    background_similarity: float
    neighbors: dict[Uid, float] = field(default_factory=dict)
    """Similarities of the unprocessed images that the search with this image found, by uid."""
    processed_neighbors: dict[Uid, float] = field(default_factory=dict)
    """Similarities of the processed images that the search with this image found, by uid."""
    is_searched: bool = False
    """Whether a search with this image was made."""

    def compare(self, other: Node, similarity: float) -> EmbeddingEvidence:
        """Return the evidence of a similarity, given the background similarities of both images."""
        backgrounds = self.background_similarity, other.background_similarity
        return EmbeddingEvidence(
            similarity,
            closeness(similarity, min(backgrounds)),
            closeness(similarity, max(backgrounds)),
        )

    def is_same_file(self, other: Node) -> bool:
        return bool(self.sha256) and self.sha256 == other.sha256


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of comparing two images."""

    is_copy: bool
    pixels_agree: bool
    """Whether the images are the same file, or their aligned thumbnails agree."""
    evidence: EmbeddingEvidence


class DisjointSets:
    """Disjoint sets of images (Tarjan, 1975)."""

    def __init__(self, parents: Mapping[Uid, Uid] | None = None) -> None:
        self._parents = dict(parents or {})

    def copy(self) -> DisjointSets:
        return DisjointSets(self._parents)

    def root(self, uid: Uid) -> Uid:
        """Return the representative of an image's set."""
        while (parent := self._parents.get(uid, uid)) != uid:
            self._parents[uid] = self._parents.get(parent, parent)
            uid = parent
        return uid

    def union(self, a: Uid, b: Uid) -> bool:
        """Union two sets. Returns whether they were separate."""
        a, b = self.root(a), self.root(b)
        self._parents[a] = b
        return a != b

    def components(self) -> list[list[Uid]]:
        """Return the sets of at least two images, each sorted by uid."""
        components: dict[Uid, list[Uid]] = {}
        for uid in {*self._parents, *self._parents.values()}:
            components.setdefault(self.root(uid), []).append(uid)
        return sorted(sorted(uids) for uids in components.values() if len(uids) > 1)


@dataclass(slots=True)
class ImageGraph:
    """Images as nodes, similarities as edges, and the verdicts on compared pairs."""

    nodes: dict[Uid, Node] = field(default_factory=dict)
    verdicts: dict[UidPair, Verdict] = field(default_factory=dict)
    copies: DisjointSets = field(default_factory=DisjointSets)
    """Connected components of the copies."""

    @property
    def edge_count(self) -> int:
        return sum(len(node.neighbors) for node in self.nodes.values())

    def similarity(self, a: Uid, b: Uid) -> float | None:
        """Return the similarity of two images; None if the search with neither found the other."""
        similarity = self.nodes[a].neighbors.get(b)
        return self.nodes[b].neighbors.get(a) if similarity is None else similarity


def ordered_pair(a: Uid, b: Uid) -> UidPair:
    """Return two uids in ascending order."""
    return (a, b) if a < b else (b, a)
