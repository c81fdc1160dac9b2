"""Fakes of the Gateway's ports, for behavior that real services do not show on demand."""

# ruff: noqa: ARG002  # the ports define the arguments

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.types import (
    Box,
    LibraryType,
    ModelVersion,
    PictureInfo,
    StepTiming,
    Vector,
)
from imagesearch_services.gateway.filters import Filter
from imagesearch_services.gateway.model import (
    EmbeddedPicture,
    EmbeddedRegion,
    Hit,
    ImageFields,
    Library,
    LibraryFields,
    NewEntry,
    NewLibrary,
    PictureToEmbed,
    ServedModel,
    StoredImage,
)
from imagesearch_services.gateway.ports import (
    Changes,
    Embedded,
    ImagePage,
    LibraryPage,
    NearestQuery,
)
from imagesearch_services.gateway.scoring.calibration import Calibration, Calibrations

COPY = ModelVersion("copy", "copies", "1")
SEMANTIC = ModelVersion("semantic", "meanings", "1")
NOW = datetime(2025, 6, 30, tzinfo=UTC)
WHOLE = Box(0, 0, 100, 80)
INFO = PictureInfo(100, 80, 3, "ab" * 32, "image/png", 1.0)

TABLE = Calibration.from_columns(
    raw=[0.0, 1.0], score=[0.0, 1.0], false_positive_rate=[1.0, 1e-10], extrapolated_below=1e-8
)
"""The score is the similarity, and the false-positive rate 10 ** (-10 × similarity)."""

CALIBRATIONS = Calibrations({COPY.space: TABLE, "copies@2": TABLE, SEMANTIC.space: TABLE})


def library(**changes: object) -> Library:
    default = Library(
        library_id="shop",
        uid="1" * 32,
        type=LibraryType.WHOLE_IMAGE,
        fields=LibraryFields(),
        models=(COPY, SEMANTIC),
        image_count=10,
        unindexed_vector_count=0,
        create_time=NOW,
        update_time=NOW,
    )
    return replace(default, **changes)  # type: ignore[arg-type]


def uid(image_id: str) -> bytes:
    return image_id.encode().ljust(16, b"\0")


def stored(image_id: str, *, entity_id: str = "") -> StoredImage:
    return StoredImage(
        library_id="shop",
        image_id=image_id,
        uid=uid(image_id),
        fields=ImageFields(entity_id=entity_id),
        region=WHOLE,
        info=INFO,
        create_time=NOW,
        update_time=NOW,
    )


@dataclass
class FakeEmbedding:
    """Embeds a picture into its own bytes, so that a test can define its neighbors."""

    proposals: Mapping[Box, bytes] = field(default_factory=dict)
    """Content of each region that it proposes."""
    backgrounds: Mapping[bytes, float] = field(default_factory=dict)
    """Similarity to unrelated pictures, by content."""
    failures: Mapping[bytes, ServiceError] = field(default_factory=dict)
    calls: list[tuple[list[PictureToEmbed], list[str]]] = field(default_factory=list)
    opened_queries: list[bytes] = field(default_factory=list)
    thumbnail_sides: list[int] = field(default_factory=list)
    models: Sequence[ServedModel] = tuple(
        ServedModel(model, 4, frozenset({LibraryType.WHOLE_IMAGE})) for model in (COPY, SEMANTIC)
    )
    before: Callable[[], object] = lambda: None
    """Called at the start of each call of `embed`."""

    async def list_models(self) -> Sequence[ServedModel]:
        return self.models

    async def embed(
        self,
        pictures: Sequence[PictureToEmbed],
        spaces: Sequence[str],
        *,
        thumbnail_max_side_px: int = 0,
    ) -> Embedded:
        self.calls.append((list(pictures), list(spaces)))
        self.before()
        await asyncio.sleep(0)
        self.thumbnail_sides.append(thumbnail_max_side_px)
        outcomes = [self._picture(picture, spaces) for picture in pictures]
        if thumbnail_max_side_px:
            outcomes = [
                outcome
                if isinstance(outcome, ServiceError)
                else replace(outcome, thumbnail=b"thumbnail of " + picture.content)
                for picture, outcome in zip(pictures, outcomes, strict=True)
            ]
        return Embedded(outcomes, [StepTiming("infer", 1.5)])

    @asynccontextmanager
    async def open_query(self, content: bytes) -> AsyncIterator[FakeQueryEmbedding]:
        self.opened_queries.append(content)
        yield FakeQueryEmbedding(self, content)

    def _picture(
        self, picture: PictureToEmbed, spaces: Sequence[str]
    ) -> EmbeddedPicture | ServiceError:
        if picture.content in self.failures:
            return self.failures[picture.content]
        parts: Mapping[Box, bytes] = {picture.region or WHOLE: picture.content}
        if picture.max_proposed_regions:
            parts = self.proposals
        return EmbeddedPicture(
            INFO,
            [
                EmbeddedRegion(
                    box,
                    [
                        Vector(space, content, self.backgrounds.get(content, 0.0))
                        for space in spaces
                    ],
                )
                for box, content in parts.items()
            ],
        )

    async def check(self) -> None: ...


@dataclass
class FakeQueryEmbedding:
    """Embeds one picture in steps."""

    embedding: FakeEmbedding
    content: bytes

    async def embed(self, spaces: Sequence[str], *, max_proposed_regions: int = 0) -> Embedded:
        picture = PictureToEmbed(self.content, max_proposed_regions=max_proposed_regions)
        return await self.embedding.embed([picture], spaces)


@dataclass
class FakeCatalog:
    """One library, and the similarities of its images to each picture."""

    library: Library = field(default_factory=library)
    similarities: dict[tuple[str, bytes], dict[str, float]] = field(default_factory=dict)
    """Similarity by image id, for each vector space and query content."""
    images: dict[str, StoredImage] = field(default_factory=dict)
    queries: list[NearestQuery] = field(default_factory=list)
    library_reads: int = 0
    puts: list[list[NewEntry]] = field(default_factory=list)
    put_error: ServiceError | None = None
    thumbnails: dict[str, bytes] = field(default_factory=dict)
    thumbnail_error: ServiceError | None = None
    loaded_thumbnails: list[str] = field(default_factory=list)
    """Image ids of GetThumbnails calls."""

    async def get_library(self, library_id: str) -> Library:
        self.library_reads += 1
        if library_id != self.library.library_id:
            raise ServiceError(Reason.LIBRARY_NOT_FOUND, "no such library")
        return self.library

    async def nearest(self, query: NearestQuery) -> Sequence[Sequence[Hit]]:
        self.queries.append(query)
        if query.library_uid != self.library.uid:
            raise ServiceError(Reason.LIBRARY_CHANGED, "recreated")
        return [self._hits(query, vector) for vector in query.vectors]

    def _hits(self, query: NearestQuery, vector: Vector) -> list[Hit]:
        similarities = self.similarities.get((vector.space, vector.values), {})
        floor = -1.0 if query.min_similarity is None else query.min_similarity
        best: dict[str, Hit] = {}
        for image_id, similarity in sorted(similarities.items(), key=lambda item: -item[1]):
            image = self.images.get(image_id) or stored(image_id)
            key = (query.distinct_entities and image.fields.entity_id) or image_id
            if similarity >= floor:
                best.setdefault(key, Hit(image.uid, similarity, image))
        hits = list(best.values())[: query.limit]
        hits[query.image_count :] = [replace(hit, image=None) for hit in hits[query.image_count :]]
        for row, hit in enumerate(hits[: query.thumbnail_count]):
            assert hit.image is not None
            file = self.thumbnails.get(hit.image.image_id, b"")
            hits[row] = replace(hit, thumbnail=self.thumbnail_error or file)
        return hits

    async def get_images(
        self,
        library_id: str,
        *,
        image_ids: Sequence[str] = (),
        uids: Sequence[bytes] = (),
        include_vectors: bool = False,
    ) -> Sequence[StoredImage]:
        by_uid = {image.uid: image for image in self.images.values()}
        return [
            by_uid[image_uid] for image_uid in [*map(uid, image_ids), *uids] if image_uid in by_uid
        ]

    async def put_entries(
        self, library_id: str, library_uid: str, entries: Sequence[NewEntry]
    ) -> Sequence[StoredImage | ServiceError]:
        if self.put_error is not None:
            raise self.put_error
        if library_uid != self.library.uid:
            raise ServiceError(Reason.LIBRARY_CHANGED, "recreated")
        self.puts.append(list(entries))
        for entry in entries:
            self.images[entry.image_id] = stored(entry.image_id)
        return [self.images[entry.image_id] for entry in entries]

    async def get_thumbnails(
        self, library_id: str, image_ids: Sequence[str], *, library_uid: str = ""
    ) -> Sequence[bytes]:
        self.loaded_thumbnails += image_ids
        if self.thumbnail_error is not None:
            raise self.thumbnail_error
        return [self.thumbnails.get(image_id, b"") for image_id in image_ids]

    async def create_library(self, library: NewLibrary, request_id: str) -> Library:
        self.library = replace(
            self.library,
            library_id=library.library_id,
            models=[served.model for served in library.models],
        )
        return self.library

    async def list_libraries(self, page_size: int, page_token: str) -> LibraryPage:
        raise NotImplementedError

    async def update_library(self, library_id: str, changes: Changes, request_id: str) -> Library:
        raise NotImplementedError

    async def delete_library(self, library_id: str, request_id: str) -> None:
        raise NotImplementedError

    async def list_images(
        self, library_id: str, images: Filter | None, page_size: int, page_token: str
    ) -> ImagePage:
        raise NotImplementedError

    async def update_image(
        self, library_id: str, image_id: str, changes: Changes, request_id: str
    ) -> StoredImage:
        raise NotImplementedError

    async def delete_images(
        self,
        library_id: str,
        *,
        image_ids: Sequence[str] = (),
        images: Filter | None = None,
        request_id: str,
    ) -> int:
        raise NotImplementedError

    async def check(self) -> None: ...
