"""The way of a search through a whole-image library.

    library → embed the query → nearest entries → sure? answer
                                               ↘ not sure: embed its regions → nearest → merge

Regions are searched where the query may hold a stored picture as a part of it (pasted in, on a
screen). The whole and the regions share the false-positive rate between them: the whole spends
`1 - region_rate_share` of it, all regions together the rest, so that the many regions do not
raise the bar for copies of the whole picture.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.gateway.calibration import (
    Calibrations,
    Threshold,
    closeness,
    similarity_of_closeness,
)
from imagesearch_services.gateway.concurrency import both
from imagesearch_services.gateway.filters import Filter, conjunction, not_image
from imagesearch_services.gateway.images import image_not_found
from imagesearch_services.gateway.libraries import (
    LibraryCache,
    refuse_subject_detection,
    require_whole_image,
)
from imagesearch_services.gateway.model import (
    AppliedThreshold,
    Box,
    EmbeddedPicture,
    Hit,
    Library,
    Match,
    ModelVersion,
    PictureInfo,
    PictureQuery,
    PictureToEmbed,
    Relation,
    SearchAnswer,
    StepTiming,
    StoredImage,
    StoredQuery,
    Vector,
)
from imagesearch_services.gateway.names import library_name
from imagesearch_services.gateway.page_tokens import (
    MAX_ITEMS,
    PageTokens,
    PinnedMatch,
    PinnedRanking,
    fingerprint,
    invalid_token,
)
from imagesearch_services.gateway.ports import Catalog, Embedding, NearestQuery
from imagesearch_services.gateway.settings import SearchSettings

ROLES = {Relation.SAME: "copy", Relation.SIMILAR: "semantic"}
"""Which model answers for which relation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRequest:
    """A search, as its caller asked for it."""

    library_id: str
    query: PictureQuery | StoredQuery | None
    """None only beside a page token."""
    filter: Filter | None
    page_size: int
    page_token: str = ""
    relations: tuple[Relation, ...] = ()
    """Those asked for, SAME first; none: SAME."""
    min_score: float | None = None
    max_false_positive_rate: float | None = None
    distinct_entities: bool = False
    subject_detection: bool | None = None
    said: Mapping[str, str] = field(default_factory=dict)
    """Fingerprints of what the caller set, but for the query and relations."""


@dataclass(frozen=True, slots=True)
class _Query:
    """The query's vectors by space, and what is known of it."""

    vectors: Mapping[str, Vector]
    region: Box | None = None
    info: PictureInfo | None = None


@dataclass(frozen=True, slots=True)
class _Pass:
    """Query vectors of one space that are searched under one threshold."""

    vectors: Sequence[Vector]
    boxes: Sequence[Box | None]
    """Which part of the query each vector describes; None: all that is searched."""
    threshold: Threshold


@dataclass(frozen=True, slots=True)
class _Found:
    """A stored image that counts as a match."""

    uid: bytes
    relation: Relation
    similarity: float
    closeness: float
    """The similarity, judged against how close the query vector lies to pictures in general."""
    box: Box | None
    threshold: Threshold

    @property
    def score(self) -> float:
        return self.threshold.calibration.score(self.closeness)

    @property
    def false_positive_rate(self) -> float:
        return self.threshold.false_positive_rate(self.closeness)


@dataclass(frozen=True, slots=True)
class _Ranking:
    """What was found for one relation, best first."""

    relation: Relation
    threshold: Threshold
    found: Sequence[_Found]
    is_cut: bool
    """There may be more."""


class _Stopwatch:
    """Times of a search's steps."""

    def __init__(self) -> None:
        self._started_s = time.perf_counter()
        self._timings: list[StepTiming] = []

    @contextmanager
    def step(self, name: str) -> Iterator[list[StepTiming]]:
        """Time a step; timings that are put into the list are told as its parts."""
        parts: list[StepTiming] = []
        started_s = time.perf_counter()
        yield parts
        self._timings.append(StepTiming(name, _since_ms(started_s)))
        self._timings += (StepTiming(f"{name}:{part.step}", part.duration_ms) for part in parts)

    def timings(self) -> list[StepTiming]:
        return [*self._timings, StepTiming("total", _since_ms(self._started_s))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Searches:
    """Answers searches."""

    embedding: Embedding
    catalog: Catalog
    libraries: LibraryCache
    calibrations: Calibrations
    tokens: PageTokens
    settings: SearchSettings

    async def search(self, request: SearchRequest) -> SearchAnswer:
        """Answer a search, or a later page of one."""
        if request.page_token:
            return await self._later_page(request)
        return await self.libraries.using(
            request.library_id, lambda library: _FirstPage(self, request, library).answer()
        )

    async def _later_page(self, request: SearchRequest) -> SearchAnswer:
        """Show what a token pinned; images that were deleted meanwhile are left out."""
        stopwatch = _Stopwatch()
        ranking = self.tokens.decode(request.page_token)
        await _check_same_search(ranking, request)
        left = list(ranking.matches)
        with stopwatch.step("fetch"):
            library, matches = await both(
                self.libraries.fetch(request.library_id),
                self._take_page(request, ranking, left),
            )
        if library.uid != ranking.library_uid:
            raise _library_changed(library)
        return SearchAnswer(
            matches=matches,
            next_page_token=self.tokens.encode(replace(ranking, matches=left)) if left else "",
            total_found=ranking.total_found,
            total_is_lower_bound=ranking.total_is_lower_bound,
            searched_region=ranking.searched_region,
            query_info=ranking.query_info,
            models=[_model(library, threshold.relation) for threshold in ranking.thresholds],
            thresholds=ranking.thresholds,
            timings=stopwatch.timings(),
        )

    async def _take_page(
        self, request: SearchRequest, ranking: PinnedRanking, left: list[PinnedMatch]
    ) -> list[Match]:
        """Take the next page off `left`, going on where images are gone until it is full."""
        matches: list[Match] = []
        while left and len(matches) < request.page_size:
            count = request.page_size - len(matches)
            pinned, left[:count] = left[:count], []
            images = {
                image.uid: image
                for image in await self.catalog.get_images(
                    request.library_id, uids=[match.uid for match in pinned]
                )
            }
            matches += (
                Match(
                    image=images[match.uid],
                    relation=match.relation,
                    score=match.score,
                    similarity=match.similarity,
                    false_positive_rate=match.false_positive_rate,
                    query_box=None if match.region is None else ranking.regions[match.region],
                )
                for match in pinned
                if match.uid in images
            )
        return matches


class _FirstPage:
    """One search on its way."""

    def __init__(self, services: Searches, request: SearchRequest, library: Library) -> None:
        self._services = services
        self._settings = services.settings
        self._request = request
        self._library = library
        self._relations = request.relations or (Relation.SAME,)
        self._stopwatch = _Stopwatch()
        self._images: dict[bytes, StoredImage] = {}
        self._filter = request.filter
        if isinstance(request.query, StoredQuery):
            self._filter = conjunction(request.filter, not_image(request.query.image_id))

    async def answer(self) -> SearchAnswer:
        require_whole_image(self._library, "searching")
        refuse_subject_detection(self._library, self._request.subject_detection)
        models = {relation: _model(self._library, relation) for relation in self._relations}
        # The models are known from before; how many images there are is asked meanwhile.
        query, current = await both(
            self._query(models), self._services.libraries.current(self._library.library_id)
        )
        if current.uid != self._library.uid:
            raise _library_changed(self._library)
        self._library = current
        rankings = await self._rankings(query, models)
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
            models=list(models.values()),
            thresholds=thresholds,
            timings=self._stopwatch.timings(),
        )

    async def _query(self, models: Mapping[Relation, ModelVersion]) -> _Query:
        query = self._request.query
        if isinstance(query, StoredQuery):
            return await self._stored_query(query)
        if query is None:
            raise ServiceError(Reason.INTERNAL, "a first page without a query")
        with self._stopwatch.step("embed") as parts:
            picture = await self._embed(
                PictureToEmbed(query.content, query.region),
                [model.space for model in models.values()],
                parts,
            )
        (region,) = picture.regions
        return _Query({one.space: one for one in region.vectors}, region.box, picture.info)

    async def _stored_query(self, query: StoredQuery) -> _Query:
        with self._stopwatch.step("fetch"):
            images = await self._services.catalog.get_images(
                self._library.library_id, image_ids=[query.image_id], include_vectors=True
            )
        if not images:
            raise image_not_found(self._library.library_id, query.image_id)
        return _Query({one.space: one for one in images[0].vectors})

    async def _embed(
        self, picture: PictureToEmbed, spaces: Sequence[str], timings: list[StepTiming]
    ) -> EmbeddedPicture:
        embedded = await self._services.embedding.embed([picture], spaces)
        timings += embedded.timings
        (result,) = embedded.pictures
        if isinstance(result, ServiceError):
            raise result
        return result

    async def _rankings(
        self, query: _Query, models: Mapping[Relation, ModelVersion]
    ) -> Sequence[_Ranking]:
        ranked = [self._ranking(query, *wanted) for wanted in models.items()]
        return await both(*ranked) if len(ranked) > 1 else [await ranked[0]]

    async def _ranking(self, query: _Query, relation: Relation, model: ModelVersion) -> _Ranking:
        """Search the whole query for a relation, and its regions where that is not sure."""
        parts = relation is Relation.SAME and self._may_have_parts
        whole_share = 1 - self._settings.region_rate_share if parts else 1.0
        vector = query.vectors[model.space]
        whole = _Pass([vector], [None], self._threshold(relation, model, 1, whole_share))
        found, is_cut = await self._find(relation, whole, "query")
        if parts and not self._is_sure(found):
            regions = await self._regions(model)
            if regions is not None:
                more, is_more_cut = await self._find(relation, regions, "query_regions")
                found, is_cut = [*found, *more], is_cut or is_more_cut
        return _Ranking(relation, whole.threshold, _best_of_each(found), is_cut)

    @property
    def _may_have_parts(self) -> bool:
        """Whether the query's pixels are here and the caller left it to us where to look."""
        query = self._request.query
        return (
            isinstance(query, PictureQuery)
            and query.region is None
            and self._settings.max_proposed_regions > 0
        )

    def _is_sure(self, found: Sequence[_Found]) -> bool:
        limit = self._settings.sure_false_positive_rate
        size = self._settings.sure_library_size
        return any(
            replace(
                one.threshold, comparisons=max(size, one.threshold.comparisons)
            ).false_positive_rate(one.closeness)
            <= limit
            for one in found
        )

    async def _regions(self, model: ModelVersion) -> _Pass | None:
        """Embed the parts of the query that look like pictures of their own, if there are any."""
        assert isinstance(self._request.query, PictureQuery)  # noqa: S101  # narrows the type
        content = self._request.query.content
        with self._stopwatch.step("embed_regions") as timings:
            picture = await self._embed(
                PictureToEmbed(content, max_proposed_regions=self._settings.max_proposed_regions),
                [model.space],
                timings,
            )
        if not picture.regions:
            return None
        threshold = self._threshold(
            Relation.SAME, model, len(picture.regions), self._settings.region_rate_share
        )
        return _Pass(
            [region.vectors[0] for region in picture.regions],
            [region.box for region in picture.regions],
            threshold,
        )

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

    async def _find(self, relation: Relation, what: _Pass, step: str) -> tuple[list[_Found], bool]:
        """Find what fills a page and one more, or, where there is more than that, all to be pinned.

        Returns:
            The matches, and whether there may be more of them.
        """
        limit = self._request.page_size + 1
        with self._stopwatch.step(step):
            lists = await self._nearest(what, limit, include_images=True)
        full = [row for row, hits in enumerate(lists) if len(hits) >= limit]
        if full:
            rest = _Pass(
                [what.vectors[row] for row in full],
                [what.boxes[row] for row in full],
                what.threshold,
            )
            with self._stopwatch.step(f"{step}_all"):
                deep = await self._nearest(rest, MAX_ITEMS + 1, include_images=False)
            for row, hits in zip(full, deep, strict=True):
                lists[row] = hits
        found = [
            _Found(hit.uid, relation, hit.similarity, _closeness(hit, vector), box, what.threshold)
            for hits, vector, box in zip(lists, what.vectors, what.boxes, strict=True)
            for hit in hits
        ]
        return found, any(len(hits) > MAX_ITEMS for hits in lists)

    async def _nearest(
        self, what: _Pass, limit: int, *, include_images: bool
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
            )
        )
        for hits in lists:
            self._images.update((hit.uid, hit.image) for hit in hits if hit.image is not None)
        if floor is None:
            return list(lists)
        return [
            [hit for hit in hits if _closeness(hit, vector) >= floor]
            for hits, vector in zip(lists, what.vectors, strict=True)
        ]

    async def _joined(self, rankings: Sequence[_Ranking]) -> tuple[list[_Found], bool]:
        """Put the relations one after another, each picture once and each entity if so asked.

        Returns:
            At most as many matches as can be pinned, and whether there may be more.
        """
        best: dict[bytes, _Found] = {}
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

    async def _matches(self, page: Sequence[_Found]) -> list[Match]:
        await self._fetch(one.uid for one in page)
        return [
            Match(
                image=self._images[one.uid],
                relation=one.relation,
                score=one.score,
                similarity=one.similarity,
                false_positive_rate=one.false_positive_rate,
                query_box=one.box,
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
        query: _Query,
        left: Sequence[_Found],
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
                    )
                    for one in left
                ],
            )
        )


async def _check_same_search(ranking: PinnedRanking, request: SearchRequest) -> None:
    """Refuse a token beside fields that say another search than the one that it pins."""
    if ranking.library_id != request.library_id:
        raise invalid_token("it belongs to another library")
    said = dict(request.said)
    if request.relations:
        said["relation"] = fingerprint(request.relations)
    if isinstance(request.query, StoredQuery):
        said["image_name"] = fingerprint(request.query.image_id)
    elif request.query is not None:
        # Ten megabytes take some milliseconds: not on the loop.
        digest = await asyncio.to_thread(hashlib.sha256, request.query.content)
        said["image"] = digest.hexdigest()
    for name, value in said.items():
        if ranking.request.get(name) != value:
            raise invalid_token(f"it belongs to a search with another {name}")


def _closeness(hit: Hit, vector: Vector) -> float:
    return closeness(hit.similarity, vector.background_similarity)


def _lowest_similarity(floor: float, vectors: Iterable[Vector]) -> float:
    """Give the similarity that every hit of these vectors has whose closeness reaches the floor."""
    return min(similarity_of_closeness(floor, one.background_similarity) for one in vectors)


def _best_of_each(found: Iterable[_Found]) -> list[_Found]:
    """Keep the best of each picture, best first; ties in an order that every run gives again."""
    best: dict[bytes, _Found] = {}
    for one in sorted(found, key=lambda one: (-one.closeness, one.uid)):
        best.setdefault(one.uid, one)
    return list(best.values())


def _one_of_each_entity(
    found: Iterable[_Found], images: Mapping[bytes, StoredImage]
) -> Iterator[_Found]:
    seen: set[str] = set()
    for one in found:
        image = images.get(one.uid)
        entity_id = image.fields.entity_id if image else ""
        if not entity_id or entity_id not in seen:
            seen.add(entity_id)
            yield one


def _applied(ranking: _Ranking) -> AppliedThreshold:
    threshold = ranking.threshold
    return AppliedThreshold(
        ranking.relation, threshold.min_score, threshold.applied_rate, threshold.extrapolated
    )


def _model(library: Library, relation: Relation) -> ModelVersion:
    model = library.model(ROLES[relation])
    if model is None:
        raise ServiceError(
            Reason.LIBRARY_TYPE_MISMATCH,
            f"{library_name(library.library_id)} was built without a {ROLES[relation]} model",
            metadata={"library": library_name(library.library_id), "type": library.type.name},
        )
    return model


def _library_changed(library: Library) -> ServiceError:
    name = library_name(library.library_id)
    return ServiceError(
        Reason.LIBRARY_CHANGED, f"{name} was made anew meanwhile", metadata={"library": name}
    )


def _since_ms(started_s: float) -> float:
    return (time.perf_counter() - started_s) * 1e3
