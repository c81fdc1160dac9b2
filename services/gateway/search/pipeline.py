"""Steps that the search strategies of all library types share.

current image count → threshold → nearest hits → images of the hits
"""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine, Iterable, Sequence
from itertools import chain
from typing import Any, TypeVar

from imagesearch_services.common.concurrency import both
from imagesearch_services.common.errors import Reason, ServiceError, unwrap
from imagesearch_services.common.types import ModelVersion, Vector
from imagesearch_services.gateway.errors import image_not_found, library_changed
from imagesearch_services.gateway.library.cache import LibraryCache
from imagesearch_services.gateway.model import EmbeddedPicture, Hit, Relation
from imagesearch_services.gateway.ports import Catalog, Embedded, NearestQuery
from imagesearch_services.gateway.scoring.calibration import (
    Calibrations,
    Threshold,
    closeness,
    similarity_of_closeness,
)
from imagesearch_services.gateway.search.model import Pass, Query, RankedHit, SearchRun
from imagesearch_services.gateway.search.ranking import best_of_each_entity
from imagesearch_services.gateway.search.request import PictureQuery, StoredQuery
from imagesearch_services.gateway.search.token_format import MAX_ITEMS
from imagesearch_services.gateway.settings import SearchSettings

Result = TypeVar("Result")


class Pipeline:
    """Steps that a strategy combines into a search."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        libraries: LibraryCache,
        calibrations: Calibrations,
        settings: SearchSettings,
    ) -> None:
        self._catalog = catalog
        self._libraries = libraries
        self._calibrations = calibrations
        self._settings = settings

    async def with_current_library(
        self, run: SearchRun, work: Coroutine[Any, Any, Result]
    ) -> Result:
        """Run work that needs no image count while the library's current count is read.

        Raises:
            ServiceError: LIBRARY_CHANGED if the library was recreated; errors of the work.
        """
        result, current = await both(work, self._libraries.current(run.library.library_id))
        if current.uid != run.library.uid:
            raise library_changed(run.library)
        run.library = current
        return result

    async def stored_query(self, run: SearchRun, query: StoredQuery) -> Query:
        """Read the vectors of a stored image.

        Raises:
            ServiceError: IMAGE_NOT_FOUND.
        """
        with run.stopwatch.step("fetch"):
            images = await self._catalog.get_images(
                run.library.library_id, image_ids=[query.image_id], include_vectors=True
            )
        if not images:
            raise image_not_found(run.library.library_id, query.image_id)
        return Query({vector.space: vector for vector in images[0].vectors})

    def threshold(
        self,
        run: SearchRun,
        model: ModelVersion,
        *,
        has_default_rate: bool,
        vector_count: int = 1,
        rate_share: float = 1.0,
    ) -> Threshold:
        """Return the threshold that follows from the request and the size of the library.

        Args:
            run: the search.
            model: model whose calibration scores the hits.
            has_default_rate: whether to apply the default rate if the request sets no bound.
            vector_count: number of query vectors, each compared with every stored image.
            rate_share: part of the query's false-positive rate that this pass may spend.
        """
        request, settings = run.request, self._settings
        rate = request.max_false_positive_rate
        if rate is None and request.min_score is None and has_default_rate:
            rate = settings.default_max_false_positive_rate
        return Threshold.strictest(
            self._calibrations.of(model),
            comparisons=max(run.library.image_count, settings.min_library_size) * vector_count,
            rate_share=rate_share,
            min_score=request.min_score,
            max_false_positive_rate=rate,
        )

    async def find(
        self, run: SearchRun, relation: Relation, query: Pass, *, step: str
    ) -> tuple[list[RankedHit], bool]:
        """Find the hits that reach the threshold: at most one more than a token can pin.

        Returns:
            The hits by vector, and whether the library may hold more.
        """
        hits_by_vector = await self._hits_to_pin(run, query, step=step)
        ranked = [
            RankedHit(
                hit.uid, relation, hit.similarity, _closeness(hit, vector), box, query.threshold
            )
            for hits, vector, box in zip(hits_by_vector, query.vectors, query.boxes, strict=True)
            for hit in hits
        ]
        return ranked, any(len(hits) > MAX_ITEMS for hits in hits_by_vector)

    async def load_images(self, run: SearchRun, uids: Iterable[bytes]) -> None:
        """Load the images of these uids into the run, except images that it already has."""
        missing = [uid for uid in uids if uid not in run.images]
        if missing:
            with run.stopwatch.step("fetch"):
                images = await self._catalog.get_images(run.library.library_id, uids=missing)
            run.images.update((image.uid, image) for image in images)

    async def distinct_entities(self, run: SearchRun, hits: Sequence[RankedHit]) -> list[RankedHit]:
        """Return the first hit of each entity."""
        await self.load_images(run, (hit.uid for hit in hits))
        return list(best_of_each_entity(hits, run.images))

    async def _hits_to_pin(self, run: SearchRun, query: Pass, *, step: str) -> list[Sequence[Hit]]:
        """Return the hits of each vector, with the images of a page.

        A query for all hits that can be pinned takes twice as long as a query for one page, and
        most searches with a bound have few hits. So all hits are queried at once only if unrelated
        images alone are expected to fill the page. Otherwise one page is queried first, and all
        hits only if that page is full.
        """
        page_size = run.request.page_size
        is_page_full = query.threshold.expected_false_positives(run.library.image_count) > page_size
        if is_page_full:
            with run.stopwatch.step(step):
                return await self._nearest(run, query, MAX_ITEMS + 1, image_count=page_size)
        limit = page_size + 1
        with run.stopwatch.step(step):
            hits_by_vector = await self._nearest(run, query, limit, image_count=limit)
        full = [row for row, hits in enumerate(hits_by_vector) if len(hits) >= limit]
        if full:
            with run.stopwatch.step(f"{step}_all"):
                all_hits = await self._nearest(run, query.part(full), MAX_ITEMS + 1, image_count=0)
            for row, hits in zip(full, all_hits, strict=True):
                hits_by_vector[row] = hits
        return hits_by_vector

    async def _nearest(
        self, run: SearchRun, query: Pass, limit: int, *, image_count: int
    ) -> list[Sequence[Hit]]:
        # With several vectors, the hits to show are known only after merging, so their thumbnails
        # are loaded later.
        has_thumbnails = image_count > 0 and len(query.vectors) == 1
        floor = query.threshold.min_similarity
        hits_by_vector = await self._catalog.nearest(
            NearestQuery(
                library_id=run.library.library_id,
                library_uid=run.library.uid,
                vectors=query.vectors,
                filter=run.filter,
                limit=limit,
                min_similarity=None if floor is None else _lowest_similarity(floor, query.vectors),
                distinct_entities=run.request.distinct_entities,
                image_count=image_count,
                thumbnail_count=run.request.thumbnail_count if has_thumbnails else 0,
            )
        )
        _keep_images(run, chain.from_iterable(hits_by_vector))
        if floor is None:
            return list(hits_by_vector)
        return [
            [hit for hit in hits if _closeness(hit, vector) >= floor]
            for hits, vector in zip(hits_by_vector, query.vectors, strict=True)
        ]


async def embedded_picture(
    run: SearchRun, call: Awaitable[Embedded], *, step: str
) -> tuple[EmbeddedPicture, Embedded]:
    """Await the embedding of one picture as a step of the search.

    Raises:
        ServiceError: the error of the picture; errors of the call.
    """
    with run.stopwatch.step(step) as parts:
        embedded = await call
        parts.extend(embedded.timings)
    (picture,) = embedded.pictures
    return unwrap(picture), embedded


def picture_of(run: SearchRun) -> PictureQuery:
    """Return the picture to search with.

    Raises:
        ServiceError: INTERNAL if the request has no picture, which earlier checks rule out.
    """
    if not isinstance(run.request.query, PictureQuery):
        raise ServiceError(Reason.INTERNAL, "the first page of a search has no picture")
    return run.request.query


def _keep_images(run: SearchRun, hits: Iterable[Hit]) -> None:
    for hit in hits:
        if hit.image is not None:
            run.images[hit.uid] = hit.image
            if hit.thumbnail is not None:
                run.thumbnails[hit.image.image_id] = hit.thumbnail


def _closeness(hit: Hit, vector: Vector) -> float:
    return closeness(hit.similarity, vector.background_similarity)


def _lowest_similarity(floor: float, vectors: Iterable[Vector]) -> float:
    """Return a lower bound of the similarity of all hits whose closeness is at least `floor`."""
    return min(similarity_of_closeness(floor, vector.background_similarity) for vector in vectors)
