"""Reads the images of one library, and their neighbors, from the Catalog."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.types import Box, Vector
from imagesearch_services.gateway.duplicates.graph import Node, rank
from imagesearch_services.gateway.duplicates.model import KeepPolicy, ScanLimits, Uid
from imagesearch_services.gateway.errors import library_changed
from imagesearch_services.gateway.filters import Filter
from imagesearch_services.gateway.model import THUMBNAIL_SIDE_PX, Library, StoredImage
from imagesearch_services.gateway.ports import Catalog, ImagePage, NearestQuery
from imagesearch_services.gateway.scoring.calibration import similarity_of_closeness

MAX_IMAGES = 1000
"""Maximum images per call without vectors."""
MAX_IMAGES_WITH_VECTORS = 100
"""Maximum images per call with vectors, and maximum query vectors per search."""
MIN_ALIGNED_PX = 18
"""Minimum shorter side of a thumbnail to be aligned, in pixels; Embedding accepts 16 or more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryReader:
    """Reads the library of a scan."""

    catalog: Catalog
    library: Library
    filter: Filter | None
    space: str
    """Vector space of the copy descriptor."""
    keep: KeepPolicy
    min_closeness: float | None
    """Minimum closeness of a neighbor; None: no minimum."""
    limits: ScanLimits

    async def page(self, page_token: str) -> ImagePage:
        """Read a page of images with vectors.

        Raises:
            ServiceError: LIBRARY_CHANGED.
        """
        try:
            return await self.catalog.list_images(
                self.library.library_id,
                self.filter,
                self.limits.page_images,
                page_token,
                include_vectors=True,
            )
        except ServiceError as error:
            if error.reason is Reason.PAGE_TOKEN_INVALID and page_token:
                # The token was issued for this library id and filter, so only a recreation of the
                # library can have invalidated it.
                raise library_changed(self.library) from error
            raise

    async def images(
        self, uids: Sequence[Uid], *, include_vectors: bool = False
    ) -> list[StoredImage]:
        """Read images, in the order of the uids; deleted images are omitted."""
        step = MAX_IMAGES_WITH_VECTORS if include_vectors else MAX_IMAGES
        images: list[StoredImage] = []
        for start in range(0, len(uids), step):
            images += await self.catalog.get_images(
                self.library.library_id,
                uids=uids[start : start + step],
                include_vectors=include_vectors,
            )
        return images

    async def images_by_id(self, image_ids: Sequence[str]) -> Sequence[StoredImage]:
        """Read at most `MAX_IMAGES` images by id; deleted images are omitted."""
        return await self.catalog.get_images(self.library.library_id, image_ids=image_ids)

    async def nodes(self, uids: Sequence[Uid]) -> dict[Uid, Node]:
        """Read images as nodes, in the order of the uids; deleted images are omitted."""
        images = await self.images(uids, include_vectors=True)
        return {image.uid: self.node(image) for image in images}

    def node(self, image: StoredImage) -> Node:
        """Return the node of an image that was read with its vectors."""
        return Node(
            image_id=image.image_id,
            rank=rank(image, self.keep),
            sha256=image.info.sha256,
            has_thumbnail=image.has_thumbnail and _can_be_aligned(image),
            background_similarity=self._vector(image).background_similarity,
        )

    async def neighbors(self, images: Sequence[StoredImage]) -> list[dict[Uid, float]]:
        """Search for the neighbors of each image, which include the image itself.

        Returns:
            For each image, the similarities of the neighbors that are close enough, by uid.
        """
        vectors = [self._vector(image) for image in images]
        results = await self._search(vectors, self.limits.first_neighbors)
        full = [
            row
            for row, neighbors in enumerate(results)
            if len(neighbors) >= self.limits.first_neighbors
        ]
        if full:
            deeper = await self._search([vectors[row] for row in full], self.limits.max_neighbors)
            for row, neighbors in zip(full, deeper, strict=True):
                results[row] = neighbors
        return results

    async def rejections(self, image_ids: Sequence[str]) -> Mapping[str, set[str]]:
        """Return, for each image id, the ids that the caller rejected as its duplicates."""
        rejections: dict[str, set[str]] = {}
        for start in range(0, len(image_ids), MAX_IMAGES):
            pairs = await self.catalog.rejected_pairs(
                self.library.library_id, image_ids[start : start + MAX_IMAGES]
            )
            for a, b in pairs:
                rejections.setdefault(a, set()).add(b)
                rejections.setdefault(b, set()).add(a)
        return rejections

    async def _search(self, vectors: Sequence[Vector], limit: int) -> list[dict[Uid, float]]:
        floors = [self._min_similarity(vector) for vector in vectors]
        results = await self.catalog.nearest(
            NearestQuery(
                library_id=self.library.library_id,
                library_uid=self.library.uid,
                vectors=vectors,
                filter=self.filter,
                limit=limit,
                min_similarity=min(floors),
                distinct_entities=False,
            )
        )
        return [
            {hit.uid: hit.similarity for hit in hits if hit.similarity >= floor}
            for hits, floor in zip(results, floors, strict=True)
        ]

    def _min_similarity(self, vector: Vector) -> float:
        if self.min_closeness is None:
            return -1.0
        return similarity_of_closeness(self.min_closeness, vector.background_similarity)

    def _vector(self, image: StoredImage) -> Vector:
        return next(vector for vector in image.vectors if vector.space == self.space)


def _can_be_aligned(image: StoredImage) -> bool:
    """Return whether the embedded region is the whole image and the thumbnail is large enough."""
    width, height = image.info.width, image.info.height
    short, long = sorted((width, height))
    is_whole = image.region is None or image.region == Box(0, 0, width, height)
    return is_whole and short * min(1.0, THUMBNAIL_SIDE_PX / max(long, 1)) >= MIN_ALIGNED_PX
