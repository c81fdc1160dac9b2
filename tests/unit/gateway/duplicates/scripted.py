"""A `DuplicateFinder` on fakes of the Catalog and of Embedding with scripted answers."""

# ruff: noqa: ARG002  # the ports define the arguments

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.types import Vector
from imagesearch_services.gateway.duplicates.copy_check import CopyCheck
from imagesearch_services.gateway.duplicates.copy_classifier import CopyClassifier
from imagesearch_services.gateway.duplicates.finder import DuplicateFinder
from imagesearch_services.gateway.duplicates.model import (
    DuplicatesRequest,
    DuplicatesUpdate,
    KeepPolicy,
    ScanLimits,
)
from imagesearch_services.gateway.duplicates.tokens import DuplicateTokens
from imagesearch_services.gateway.duplicates.turns import Turns
from imagesearch_services.gateway.filters import Filter
from imagesearch_services.gateway.library.cache import LibraryCache
from imagesearch_services.gateway.model import Hit
from imagesearch_services.gateway.ports import CopyEvidence, ImagePage, NearestQuery
from imagesearch_services.gateway.tokens import TokenKey
from tests.unit.gateway.fakes import (
    CALIBRATIONS,
    COPY,
    FakeCatalog,
    FakeEmbedding,
    stored,
)

COPY_SIMILARITY = 0.9


Groups = set[frozenset[str]]


@dataclass
class ScriptedCatalog(FakeCatalog):
    """A library with scripted similarities. The order of the uids is that of the names."""

    similarities: dict[tuple[str, str], float] = field(default_factory=dict)
    """Similarities of the second image in a search with the first image."""
    rejected: set[tuple[str, str]] = field(default_factory=set)
    thumbnails: bool = False
    calls: list[str] = field(default_factory=list)

    def put(self, names: Iterable[str], **changes: Any) -> None:
        for name in names:
            plain = replace(
                stored(name),
                vectors=(Vector(COPY.space, name.encode()),),
                has_thumbnail=self.thumbnails,
                info=replace(stored(name).info, sha256=name),
            )
            self.images[name] = replace(plain, **changes)
        self.library = replace(self.library, image_count=len(self.images))

    def relate(self, *pairs: tuple[str, str], similarity: float = COPY_SIMILARITY) -> None:
        for a, b in pairs:
            self.similarities[a, b] = self.similarities[b, a] = similarity

    async def list_images(
        self,
        library_id: str,
        images: Filter | None,
        page_size: int,
        page_token: str,
        *,
        include_vectors: bool = False,
    ) -> ImagePage:
        self.calls.append("list")
        remaining = [self.images[name] for name in sorted(self.images) if name > page_token]
        page = remaining[:page_size]
        next_page_token = page[-1].image_id if len(remaining) > len(page) else ""
        return ImagePage(page, next_page_token, len(self.images))

    async def nearest(self, query: NearestQuery) -> Sequence[Sequence[Hit]]:
        self.calls.append("nearest")
        if query.library_uid != self.library.uid:
            raise ServiceError(Reason.LIBRARY_CHANGED, "recreated")
        results = []
        for vector in query.vectors:
            name = vector.values.decode()
            neighbors = [
                (-similarity, neighbor)
                for (image, neighbor), similarity in self.similarities.items()
                if image == name
                and neighbor in self.images
                and similarity >= (query.min_similarity or 0)
            ]
            neighbors.append((-1.0, name))
            hits = [Hit(self.images[other].uid, -key) for key, other in sorted(neighbors)]
            results.append(hits[: query.limit])
        return results

    async def rejected_pairs(
        self, library_id: str, image_ids: Sequence[str]
    ) -> Sequence[tuple[str, str]]:
        return [pair for pair in self.rejected if not set(pair).isdisjoint(image_ids)]

    async def get_thumbnails(
        self, library_id: str, image_ids: Sequence[str], *, library_uid: str = ""
    ) -> Sequence[bytes]:
        return [image_id.encode() for image_id in image_ids]


@dataclass
class ScriptedEmbedding(FakeEmbedding):
    """Scripted alignments of thumbnails; by default the pixels of a pair agree."""

    different: set[frozenset[str]] = field(default_factory=set)
    """Pairs whose pixels do not agree."""
    unreadable: str = ""
    """Id of the image whose thumbnail is unreadable; empty: all are readable."""
    checked: list[frozenset[str]] = field(default_factory=list)
    """Pairs whose thumbnails were aligned."""

    async def check_copies(
        self, pictures: Sequence[bytes], pairs: Sequence[tuple[int, int]]
    ) -> Sequence[CopyEvidence | None]:
        names = [frozenset(pictures[row].decode() for row in pair) for pair in pairs]
        self.checked += names
        agreeing = CopyEvidence(
            agreement=0.98, contrast_share=0.5, shown_of_first=1, shown_of_second=1, inlier_count=90
        )
        evidence = {pair: CopyEvidence() for pair in self.different}
        evidence |= {pair: None for pair in names if self.unreadable in pair}
        return [evidence.get(pair, agreeing) for pair in names]


@dataclass
class Bench:
    """A finder on fakes."""

    catalog: ScriptedCatalog = field(default_factory=ScriptedCatalog)
    embedding: ScriptedEmbedding = field(default_factory=ScriptedEmbedding)
    limits: ScanLimits = field(default_factory=ScanLimits)

    def __post_init__(self) -> None:
        self.finder = DuplicateFinder(
            catalog=self.catalog,
            check=CopyCheck(
                catalog=self.catalog, embedding=self.embedding, classifier=CopyClassifier.load()
            ),
            libraries=LibraryCache(self.catalog),
            calibrations=CALIBRATIONS,
            tokens=DuplicateTokens(TokenKey(b"key")),
            turns=Turns(1, retry_after_s=0.5),
            default_max_false_positive_rate=0.01,
            min_library_size=1,
            limits=self.limits,
        )

    async def find(self, **changes: Any) -> list[DuplicatesUpdate]:
        return [update async for update in self.finder.find(request(**changes))]

    async def groups(self, **changes: Any) -> Groups:
        return groups_of(await self.find(**changes))


def request(**changes: Any) -> DuplicatesRequest:
    plain = DuplicatesRequest(
        library_id="shop",
        filter=None,
        min_score=None,
        max_false_positive_rate=None,
        keep=KeepPolicy.LARGEST,
        page_token="",
        fingerprints={},
    )
    return replace(plain, **changes)


def image_ids(update: DuplicatesUpdate) -> list[str]:
    return [member.image.image_id for member in update.group]


def groups_of(updates: Iterable[DuplicatesUpdate]) -> Groups:
    groups = [frozenset(image_ids(update)) for update in updates if update.group]
    assert len(set(groups)) == len(groups)
    return set(groups)


def group(*names: str) -> frozenset[str]:
    return frozenset(names)


async def refusal(bench: Bench, **changes: Any) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await bench.find(**changes)
    return caught.value
