"""Interfaces of the Embedding service and the Catalog, as the Gateway uses them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
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
"""New values by field path; the value None of `tags.NAME` removes that tag."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """The result of each picture, in order, and the timings of the call."""

    pictures: Sequence[EmbeddedPicture | ServiceError]
    timings: Sequence[StepTiming]
    detection_models: Sequence[ModelVersion] = ()
    """Models that detected subjects, if detection was requested."""


@dataclass(frozen=True, slots=True)
class Described:
    """The features of each picture, in order, and the timings of the call."""

    pictures: Sequence[DescribedPicture | ServiceError]
    timings: Sequence[StepTiming]


@dataclass(frozen=True, slots=True)
class Verified:
    """The elements that appear in a query, best first, and the timings of the call."""

    elements: Sequence[FoundElement]
    timings: Sequence[StepTiming]


@dataclass(frozen=True, slots=True)
class CopyEvidence:
    """How well two pictures agree once they are aligned; all 0 without an alignment."""

    agreement: float = 0.0
    """Mean correlation of windows, 0 to 1."""
    contrast_share: float = 0.0
    """Share of the overlap that has contrast."""
    bend: float = 0.0
    """Largest local displacement after the alignment, as a share of the overlap's long side."""
    shown_of_first: float = 0.0
    """Share of the first picture that the overlap covers."""
    shown_of_second: float = 0.0
    """Share of the second picture that the overlap covers."""
    inlier_count: int = 0
    """Number of local feature matches that agree with the alignment."""


class QueryEmbedding(Protocol):
    """A query picture that is embedded in steps: sent once, and decoded once if possible."""

    async def embed(self, spaces: Sequence[str], *, max_proposed_regions: int = 0) -> Embedded:
        """Embed the whole picture, or up to `max_proposed_regions` regions that look like pictures.

        With `max_proposed_regions` of 0, the whole picture is embedded.
        """


class Embedding(Protocol):
    """The Embedding service: everything that needs pixels."""

    async def list_models(self) -> Sequence[ServedModel]:
        """Return the models that are served now."""

    async def embed(
        self,
        pictures: Sequence[PictureToEmbed],
        spaces: Sequence[str],
        *,
        thumbnail_max_side_px: int = 0,
    ) -> Embedded:
        """Embed pictures, or parts of them, into each of the spaces.

        A thumbnail of each whole picture is returned too, unless its size is 0.
        """

    def open_query(self, content: bytes) -> AbstractAsyncContextManager[QueryEmbedding]:
        """Open a query picture that is embedded in steps; it is sent with the first step."""

    async def detect(
        self, content: bytes, region: Box | None, category: Category | None
    ) -> DetectionAnswer:
        """Detect and describe the subjects of a picture, or its subjects of one category."""

    async def describe(
        self,
        pictures: Sequence[PictureToEmbed],
        *,
        for_query: bool,
        regional_space: str = "",
        thumbnail_max_side_px: int = 0,
    ) -> Described:
        """Extract the local features of pictures, or of a region of each picture.

        With `regional_space`, the dense descriptors of that space are returned too.
        """

    async def verify(self, query_features: bytes, candidates: Sequence[FeaturesHit]) -> Verified:
        """Return the elements that appear in a query; their ids are indices into `candidates`."""

    async def check_copies(
        self, pictures: Sequence[bytes], pairs: Sequence[tuple[int, int]]
    ) -> Sequence[CopyEvidence | None]:
        """Align pairs of thumbnails and measure how well they agree.

        Args:
            pictures: at most 100 thumbnails.
            pairs: at most 1,000 pairs of indices into `pictures`.

        Returns:
            The evidence of each pair; None if one of its pictures is unreadable.
        """

    async def check(self) -> None:
        """Raise if the service is not healthy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NearestQuery:
    """A query for the nearest stored images of each vector."""

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
    """A query for the stored elements that may appear in a picture."""

    library_id: str
    library_uid: str
    descriptors: SparseVector | Sequence[Vector]
    """Visual words of the picture, or descriptors of its windows."""
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
    """The Catalog: libraries and their images."""

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
        """Store entries in order; each succeeds or fails on its own."""

    async def get_images(
        self,
        library_id: str,
        *,
        image_ids: Sequence[str] = (),
        uids: Sequence[bytes] = (),
        include_vectors: bool = False,
    ) -> Sequence[StoredImage]:
        """Return the images that exist, in the order of the request."""

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
        """Delete images by id or by filter. Returns the number of deleted images."""

    async def get_thumbnails(
        self, library_id: str, image_ids: Sequence[str], *, library_uid: str = ""
    ) -> Sequence[bytes]:
        """Return a thumbnail for each of at most 100 ids; empty if the image has no thumbnail."""

    async def nearest(self, query: NearestQuery) -> Sequence[Sequence[Hit]]:
        """Return the hits of each vector, best first."""

    async def candidates(self, query: CandidatesQuery) -> Sequence[bytes]:
        """Return the distinct uids of the best hits, best first."""

    async def get_features(
        self, library_id: str, uids: Sequence[bytes], *, library_uid: str
    ) -> Sequence[FeaturesHit]:
        """Return the features of stored elements in request order, without deleted elements."""

    async def reject_pairs(
        self, library_id: str, pairs: Sequence[tuple[str, str]], request_id: str
    ) -> int:
        """Store pairs of image ids that are not duplicates. Returns the number of new pairs."""

    async def rejected_pairs(
        self, library_id: str, image_ids: Sequence[str]
    ) -> Sequence[tuple[str, str]]:
        """Return the rejected pairs that contain one of at most 1,000 images."""

    async def check(self) -> None:
        """Raise if the service is not healthy."""
