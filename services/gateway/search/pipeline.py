"""What the searches of all library types have in common: the first page of an answer.

Query vectors → nearest entries → those over the threshold, once each → a page, and a token that
pins the rest.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from imagesearch_services.common.errors import ServiceError
from imagesearch_services.common.stopwatch import Stopwatch
from imagesearch_services.common.types import (
    Box,
    ModelVersion,
    PictureInfo,
    Quadrilateral,
    StepTiming,
    Subject,
    Vector,
)
from imagesearch_services.gateway.errors import image_not_found, library_changed
from imagesearch_services.gateway.filters import conjunction, not_image
from imagesearch_services.gateway.library.cache import LibraryCache
from imagesearch_services.gateway.model import (
    AppliedThreshold,
    EmbeddedPicture,
    Hit,
    Library,
    Match,
    PictureToEmbed,
    Relation,
    SearchAnswer,
    StoredImage,
    StoredQuery,
)
from imagesearch_services.gateway.ports import Catalog, Embedded, Embedding, NearestQuery
from imagesearch_services.gateway.scoring.calibration import (
    Calibrations,
    Threshold,
    closeness,
    similarity_of_closeness,
)
from imagesearch_services.gateway.search.page_tokens import (
    MAX_ITEMS,
    PageTokens,
    PinnedMatch,
    PinnedRanking,
)
from imagesearch_services.gateway.search.request import SearchRequest
from imagesearch_services.gateway.settings import SearchSettings
from imagesearch_services.gateway.tokens import fingerprint


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchServices:
    """What a search is made with."""

    embedding: Embedding
    catalog: Catalog
    libraries: LibraryCache
    calibrations: Calibrations
    tokens: PageTokens
    settings: SearchSettings


@dataclass(frozen=True, slots=True)
class Query:
    """The query's vectors by space, and what is known of it."""

    vectors: Mapping[str, Vector]
    region: Box | None = None
    info: PictureInfo | None = None
    subjects: Sequence[Subject] = ()
    chosen_subject: int | None = None
    detection_models: Sequence[ModelVersion] = ()
    warnings: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Pass:
    """Query vectors of one space that are searched under one threshold."""

    vectors: Sequence[Vector]
    boxes: Sequence[Box | None]
    """Which part of the query each vector describes; None: all that is searched."""
    threshold: Threshold


@dataclass(frozen=True, slots=True)
class Found:
    """A stored image that counts as a match."""

    uid: bytes
    relation: Relation
    similarity: float
    closeness: float
    """The similarity, judged against how close the query vector lies to pictures in general."""
    box: Box | None
    threshold: Threshold
    instances: Sequence[Quadrilateral] = ()
    """Where an element appears in the query, best first."""

    @property
    def score(self) -> float:
        return self.threshold.calibration.score(self.closeness)

    @property
    def false_positive_rate(self) -> float:
        return self.threshold.false_positive_rate(self.closeness)


@dataclass(frozen=True, slots=True)
class Ranking:
    """What was found for one relation, best first."""

    relation: Relation
    threshold: Threshold
    found: Sequence[Found]
    is_cut: bool
    """There may be more."""


class FirstPage(ABC):
    """One search on its way; each library type has its own `answer`."""

    def __init__(self, services: SearchServices, request: SearchRequest, library: Library) -> None:
        self._services = services
        self._settings = services.settings
        self._request = request
        self._library = library
        self._stopwatch = Stopwatch()
        self._images: dict[bytes, StoredImage] = {}
        self._thumbnails: dict[str, bytes | ServiceError] = {}
        self._filter = request.filter
        if isinstance(request.query, StoredQuery):
            self._filter = conjunction(request.filter, not_image(request.query.image_id))

    @abstractmethod
    async def answer(self) -> SearchAnswer:
        """Search, and show what was found."""

    @property
    def _relations(self) -> tuple[Relation, ...]:
        """Which ones are searched for."""
        return self._request.relations or (Relation.SAME,)

    async def _finish(
        self, query: Query, rankings: Sequence[Ranking], models: Sequence[ModelVersion]
    ) -> SearchAnswer:
        """Show the first page of what was found, and pin the rest."""
        found, is_cut = await self._joined(rankings)
        page, left = found[: self._request.page_size], found[self._request.page_size :]
        matches = await self._matches(page)
        thresholds = [_applied(ranking) for ranking in rankings]
        token = ""
        if left:
            token = self._token(query, left, thresholds, len(found), is_cut)
        return SearchAnswer(
            matches=matches,
            next_page_token=token,
            total_found=len(found),
            total_is_lower_bound=is_cut,
            searched_region=query.region,
            query_info=query.info,
            models=[*models, *query.detection_models],
            thresholds=thresholds,
            timings=self._stopwatch.timings(),
            subjects=query.subjects,
            chosen_subject=query.chosen_subject,
            warnings=query.warnings,
            thumbnails=self._thumbnails,
        )

    def _refresh(self, current: Library) -> None:
        """Take the counts of the library as it is now; refuse one that was made anew."""
        if current.uid != self._library.uid:
            raise library_changed(self._library)
        self._library = current

    async def _stored_query(self, query: StoredQuery) -> Query:
        with self._stopwatch.step("fetch"):
            images = await self._services.catalog.get_images(
                self._library.library_id, image_ids=[query.image_id], include_vectors=True
            )
        if not images:
            raise image_not_found(self._library.library_id, query.image_id)
        return Query({one.space: one for one in images[0].vectors})

    async def _embed(
        self, picture: PictureToEmbed, spaces: Sequence[str], timings: list[StepTiming]
    ) -> tuple[EmbeddedPicture, Embedded]:
        embedded = await self._services.embedding.embed([picture], spaces)
        timings += embedded.timings
        (result,) = embedded.pictures
        if isinstance(result, ServiceError):
            raise result
        return result, embedded

    def _threshold(
        self, relation: Relation, model: ModelVersion, vectors: int, rate_share: float
    ) -> Threshold:
        rate = self._request.max_false_positive_rate
        if rate is None and self._request.min_score is None and relation is Relation.SAME:
            rate = self._settings.default_max_false_positive_rate
        return Threshold.strictest(
            self._services.calibrations.of(model),
            comparisons=max(self._library.image_count, self._settings.min_library_size) * vectors,
            rate_share=rate_share,
            min_score=self._request.min_score,
            max_false_positive_rate=rate,
        )

    async def _find(self, relation: Relation, what: Pass, step: str) -> tuple[list[Found], bool]:
        """Find what fills a page and one more, or, where there is more than that, all to be pinned.

        Returns:
            The matches, and whether there may be more of them.
        """
        limit = self._request.page_size + 1
        with self._stopwatch.step(step):
            lists = await self._nearest(what, limit, include_images=True)
        full = [row for row, hits in enumerate(lists) if len(hits) >= limit]
        if full:
            rest = Pass(
                [what.vectors[row] for row in full],
                [what.boxes[row] for row in full],
                what.threshold,
            )
            with self._stopwatch.step(f"{step}_all"):
                deep = await self._nearest(rest, MAX_ITEMS + 1, include_images=False)
            for row, hits in zip(full, deep, strict=True):
                lists[row] = hits
        found = [
            Found(hit.uid, relation, hit.similarity, _closeness(hit, vector), box, what.threshold)
            for hits, vector, box in zip(lists, what.vectors, what.boxes, strict=True)
            for hit in hits
        ]
        return found, any(len(hits) > MAX_ITEMS for hits in lists)

    async def _nearest(
        self, what: Pass, limit: int, *, include_images: bool
    ) -> list[Sequence[Hit]]:
        floor = what.threshold.min_similarity
        lists = await self._services.catalog.nearest(
            NearestQuery(
                library_id=self._library.library_id,
                library_uid=self._library.uid,
                vectors=what.vectors,
                filter=self._filter,
                limit=limit,
                min_similarity=None if floor is None else _lowest_similarity(floor, what.vectors),
                distinct_entities=self._request.distinct_entities,
                include_images=include_images,
                thumbnail_count=self._thumbnail_count(what) if include_images else 0,
            )
        )
        for hit in chain.from_iterable(lists):
            if hit.image is not None:
                self._images[hit.uid] = hit.image
                if hit.thumbnail is not None:
                    self._thumbnails[hit.image.image_id] = hit.thumbnail
        if floor is None:
            return list(lists)
        return [
            [hit for hit in hits if _closeness(hit, vector) >= floor]
            for hits, vector in zip(lists, what.vectors, strict=True)
        ]

    def _thumbnail_count(self, what: Pass) -> int:
        """Count the small pictures that the first page shows, for the hits to bring along.

        Of several vectors it is open whose hits will be shown: theirs are asked for later.
        """
        return self._request.thumbnail_count if len(what.vectors) == 1 else 0

    async def _joined(self, rankings: Sequence[Ranking]) -> tuple[list[Found], bool]:
        """Put the relations one after another, each picture once and each entity if so asked.

        Returns:
            At most as many matches as can be pinned, and whether there may be more.
        """
        best: dict[bytes, Found] = {}
        for ranking in rankings:
            for one in ranking.found:
                best.setdefault(one.uid, one)
        found = list(best.values())[:MAX_ITEMS]
        is_cut = len(best) > MAX_ITEMS or any(ranking.is_cut for ranking in rankings)
        # Within one list the Catalog saw to it; between several nobody did yet.
        is_one_list = len(rankings) == 1 and all(one.box is None for one in found)
        if not self._request.distinct_entities or is_one_list:
            return found, is_cut
        await self._fetch(one.uid for one in found)
        return list(_one_of_each_entity(found, self._images)), is_cut

    async def _matches(self, page: Sequence[Found]) -> list[Match]:
        await self._fetch(one.uid for one in page)
        return [
            Match(
                image=self._images[one.uid],
                relation=one.relation,
                score=one.score,
                similarity=one.similarity,
                false_positive_rate=one.false_positive_rate,
                query_box=one.box,
                instances=one.instances,
            )
            for one in page
            if one.uid in self._images
        ]

    async def _fetch(self, uids: Iterable[bytes]) -> None:
        """Get the images that are not here yet."""
        missing = [uid for uid in uids if uid not in self._images]
        if missing:
            with self._stopwatch.step("fetch"):
                images = await self._services.catalog.get_images(
                    self._library.library_id, uids=missing
                )
            self._images.update((image.uid, image) for image in images)

    def _token(
        self,
        query: Query,
        left: Sequence[Found],
        thresholds: Sequence[AppliedThreshold],
        total_found: int,
        is_lower_bound: bool,
    ) -> str:
        regions = list(dict.fromkeys(one.box for one in left if one.box is not None))
        rows = {box: row for row, box in enumerate(regions)}
        said = {**self._request.said, "relation": fingerprint(self._relations)}
        if query.info is not None:
            said["image"] = query.info.sha256
        elif isinstance(self._request.query, StoredQuery):
            said["image_name"] = fingerprint(self._request.query.image_id)
        return self._services.tokens.encode(
            PinnedRanking(
                library_id=self._library.library_id,
                library_uid=self._library.uid,
                request=said,
                total_found=total_found,
                total_is_lower_bound=is_lower_bound,
                searched_region=query.region,
                query_info=query.info,
                subjects=query.subjects,
                chosen_subject=query.chosen_subject,
                warnings=query.warnings,
                thresholds=thresholds,
                regions=regions,
                matches=[
                    PinnedMatch(
                        uid=one.uid,
                        relation=one.relation,
                        score=one.score,
                        similarity=one.similarity,
                        false_positive_rate=one.false_positive_rate,
                        region=None if one.box is None else rows[one.box],
                        instances=one.instances,
                    )
                    for one in left
                ],
            )
        )


def _closeness(hit: Hit, vector: Vector) -> float:
    return closeness(hit.similarity, vector.background_similarity)


def _lowest_similarity(floor: float, vectors: Iterable[Vector]) -> float:
    """Give the similarity that every hit of these vectors has whose closeness reaches the floor."""
    return min(similarity_of_closeness(floor, one.background_similarity) for one in vectors)


def best_of_each(found: Iterable[Found]) -> list[Found]:
    """Keep the best of each picture, best first; ties in an order that every run gives again."""
    best: dict[bytes, Found] = {}
    for one in sorted(found, key=lambda one: (-one.closeness, one.uid)):
        best.setdefault(one.uid, one)
    return list(best.values())


def _one_of_each_entity(
    found: Iterable[Found], images: Mapping[bytes, StoredImage]
) -> Iterator[Found]:
    seen: set[str] = set()
    for one in found:
        image = images.get(one.uid)
        entity_id = image.fields.entity_id if image else ""
        if not entity_id or entity_id not in seen:
            seen.add(entity_id)
            yield one


def _applied(ranking: Ranking) -> AppliedThreshold:
    threshold = ranking.threshold
    return AppliedThreshold(
        ranking.relation, threshold.min_score, threshold.applied_rate, threshold.extrapolated
    )
