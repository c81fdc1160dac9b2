"""What the Gateway needs of the other services, in its own words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from imagesearch_services.common.errors import ServiceError
from imagesearch_services.common.types import (
    Box,
    Category,
    ModelVersion,
    SparseVector,
    StepTiming,
    Vector,
)
from imagesearch_services.gateway.filters import Filter
from imagesearch_services.gateway.model import (
    DescribedPicture,
    DetectionAnswer,
    EmbeddedPicture,
    FeaturesHit,
    FoundElement,
    Hit,
    Library,
    NewEntry,
    NewLibrary,
    PictureToEmbed,
    ServedModel,
    StoredImage,
)

Changes = Mapping[str, object]
"""New values by field path; None under `tags.NAME` removes that tag."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """What came of each picture, in order, and where the time went."""

    pictures: Sequence[EmbeddedPicture | ServiceError]
    timings: Sequence[StepTiming]
    detection_models: Sequence[ModelVersion] = ()
    """Those that found subjects, where that was asked for."""


@dataclass(frozen=True, slots=True)
class Described:
    """The features of each picture, in order, and where the time went."""

    pictures: Sequence[DescribedPicture | ServiceError]
    timings: Sequence[StepTiming]


@dataclass(frozen=True, slots=True)
class Verified:
    """The elements that appear in a query, best first, and where the time went."""

    elements: Sequence[FoundElement]
    timings: Sequence[StepTiming]


@dataclass(frozen=True, slots=True)
class CopyEvidence:
    """How well two pictures agree where one lies over the other; all 0 where nothing fits."""

    agreement: float = 0.0
    """Mean correlation of windows, 0 to 1."""
    contrast_share: float = 0.0
    """Of the overlap."""
    bend: float = 0.0
    """How far parts had to be bent to agree, as a share of the overlap's long side."""
    shown_of_first: float = 0.0
    """Share of the first picture that the second shows."""
    shown_of_second: float = 0.0
    """Share of the second picture that the first shows."""
    inlier_count: int = 0
    """Matches of local features that agree on the alignment."""


class Embedding(Protocol):
    """Pixels to vectors."""

    async def list_models(self) -> Sequence[ServedModel]:
        """Models that are served now."""

    async def embed(
        self,
        pictures: Sequence[PictureToEmbed],
        spaces: Sequence[str],
        *,
        thumbnail_max_side_px: int = 0,
    ) -> Embedded:
        """Embed pictures, or parts of them, into every one of the spaces.

        A small picture of each whole one comes with it, unless the size of that is 0.
        """

    async def detect(
        self, content: bytes, region: Box | None, category: Category | None
    ) -> DetectionAnswer:
        """Find and describe the subjects of a picture, or those of one category."""

    async def describe(
        self,
        pictures: Sequence[PictureToEmbed],
        *,
        for_query: bool,
        regional_space: str = "",
        thumbnail_max_side_px: int = 0,
    ) -> Described:
        """Take the local features of pictures, or of a region of each.

        With a space, its dense model describes them, too.
        """

    async def verify(self, query_features: bytes, candidates: Sequence[FeaturesHit]) -> Verified:
        """Say which elements appear in a query; their ids are rows of the candidates."""

    async def check_copies(
        self, pictures: Sequence[bytes], pairs: Sequence[tuple[int, int]]
    ) -> Sequence[CopyEvidence | None]:
        """Lay pairs of small pictures over each other: at most 100 of these, 1,000 of those.

        None where one of the two can't be read.
        """

    async def check(self) -> None:
        """Raise where the service is not well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NearestQuery:
    """A search for the nearest stored images of each vector."""

    library_id: str
    library_uid: str
    vectors: Sequence[Vector]
    filter: Filter | None
    limit: int
    min_similarity: float | None
    distinct_entities: bool
    image_count: int = 0
    """Number of first hits of each vector that come with their images."""
    thumbnail_count: int = 0
    """Number of first hits of each vector that come with their thumbnails too; at most 100 for all
    vectors together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidatesQuery:
    """A search for the stored elements that may appear in a query."""

    library_id: str
    library_uid: str
    by: SparseVector | Sequence[Vector]
    """Those that share most words with it, or are nearest to any of its windows."""
    filter: Filter | None
    limit: int
    limit_per_vector: int
    """Maximum candidates that one vector contributes."""


@dataclass(frozen=True, slots=True)
class LibraryPage:
    libraries: Sequence[Library]
    next_page_token: str


@dataclass(frozen=True, slots=True)
class ImagePage:
    images: Sequence[StoredImage]
    next_page_token: str
    total_count: int


class Catalog(Protocol):
    """Libraries and their entries."""

    async def create_library(self, library: NewLibrary, request_id: str) -> Library: ...

    async def get_library(self, library_id: str) -> Library: ...

    async def list_libraries(self, page_size: int, page_token: str) -> LibraryPage: ...

    async def update_library(
        self, library_id: str, changes: Changes, request_id: str
    ) -> Library: ...

    async def delete_library(self, library_id: str, request_id: str) -> None: ...

    async def put_entries(
        self, library_id: str, library_uid: str, entries: Sequence[NewEntry]
    ) -> Sequence[StoredImage | ServiceError]:
        """Store entries in their order; each succeeds or fails alone."""

    async def get_images(
        self,
        library_id: str,
        *,
        image_ids: Sequence[str] = (),
        uids: Sequence[bytes] = (),
        include_vectors: bool = False,
    ) -> Sequence[StoredImage]:
        """Those that are there, in the order asked."""

    async def list_images(
        self,
        library_id: str,
        images: Filter | None,
        page_size: int,
        page_token: str,
        *,
        include_vectors: bool = False,
    ) -> ImagePage: ...

    async def update_image(
        self, library_id: str, image_id: str, changes: Changes, request_id: str
    ) -> StoredImage: ...

    async def delete_images(
        self,
        library_id: str,
        *,
        image_ids: Sequence[str] = (),
        images: Filter | None = None,
        request_id: str,
    ) -> int:
        """Delete by id, or everything that the filter takes; give how many went."""

    async def get_thumbnails(
        self, library_id: str, image_ids: Sequence[str], *, library_uid: str = ""
    ) -> Sequence[bytes]:
        """Give as many as ids, at most 100; empty where none is kept."""

    async def nearest(self, query: NearestQuery) -> Sequence[Sequence[Hit]]:
        """The hits of each vector, best first."""

    async def candidates(self, query: CandidatesQuery) -> Sequence[bytes]:
        """The uids of the best hits."""

    async def get_features(
        self, library_id: str, uids: Sequence[bytes], *, library_uid: str
    ) -> Sequence[FeaturesHit]:
        """Features of stored elements, in the order asked; those that are gone are left out."""

    async def reject_pairs(
        self, library_id: str, pairs: Sequence[tuple[str, str]], request_id: str
    ) -> int:
        """Remember pairs of image ids that are no duplicates; give how many were new."""

    async def rejected_pairs(
        self, library_id: str, image_ids: Sequence[str]
    ) -> Sequence[tuple[str, str]]:
        """Give the rejected pairs that have one of the images, at most 1,000 of these."""

    async def check(self) -> None:
        """Raise where the service is not well."""
