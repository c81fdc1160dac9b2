"""The way of a search through an element library.

library → describe the query → elements that share most words with it, or are nearest to any of its
windows → their features → check which of them appear, and where
"""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine, Mapping, Sequence
from itertools import chain
from typing import Any

from imagesearch_services.common.concurrency import both, together
from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.types import (
    Box,
    ModelVersion,
    PictureInfo,
    Quadrilateral,
    SparseVector,
    Vector,
)
from imagesearch_services.gateway.errors import library_type_mismatch, refuse_subject_detection
from imagesearch_services.gateway.library.elements import candidate_count
from imagesearch_services.gateway.model import (
    DescribedPicture,
    FeaturesHit,
    FoundElement,
    PictureToEmbed,
    Relation,
    SearchAnswer,
    StoredQuery,
)
from imagesearch_services.gateway.ports import CandidatesQuery
from imagesearch_services.gateway.roles import check_vocabulary, regional_space, scoring_model
from imagesearch_services.gateway.scoring.calibration import Threshold
from imagesearch_services.gateway.search.pipeline import FirstPage, Found, Query, Ranking

SHARE_OF_ONE_WINDOW = 0.16
"""Of the candidates, those that one window brings at most: what is nearest to any of 127 windows is
among the first of one."""


class ElementSearch(FirstPage):
    """A search for the elements that appear in a picture."""

    async def answer(self) -> SearchAnswer:
        self._check()
        model = scoring_model(self._library, Relation.UNSPECIFIED)
        picture, current = await both(
            self._described(), self._services.libraries.current(self._library.library_id)
        )
        self._refresh(current)
        candidates = await self._candidates(picture)
        threshold = self._element_threshold(model)
        found = await self._appearing(picture, candidates, threshold)
        ranking = Ranking(Relation.UNSPECIFIED, threshold, found, is_cut=False)
        return await self._finish(Query({}, picture.region, picture.info), [ranking], [model])

    @property
    def _relations(self) -> tuple[Relation, ...]:
        return ()

    def _check(self) -> None:
        refuse_subject_detection(self._library, self._request.subject_detection)
        if self._request.relations:
            raise library_type_mismatch(
                self._library, "relation: only whole-image libraries tell relations apart"
            )
        if isinstance(self._request.query, StoredQuery):
            raise library_type_mismatch(
                self._library,
                "image_name: elements are searched for in pictures, and a stored element's "
                "pixels are not kept",
            )

    async def _described(self) -> DescribedPicture:
        query = self._request.query
        if query is None or isinstance(query, StoredQuery):
            raise ServiceError(Reason.INTERNAL, "a first page without a picture")
        with self._stopwatch.step("describe") as parts:
            described = await self._services.embedding.describe(
                [PictureToEmbed(query.content, query.region)],
                for_query=True,
                regional_space=regional_space(self._library),
            )
            parts.extend(described.timings)
        (picture,) = described.pictures
        if isinstance(picture, ServiceError):
            raise picture
        check_vocabulary(self._library, picture)
        return picture

    async def _candidates(self, picture: DescribedPicture) -> Sequence[FeaturesHit]:
        settings, stored = self._settings, self._library.image_count
        limits = {
            "words": candidate_count(settings.element_word_candidates, stored),
            "windows": candidate_count(settings.element_window_candidates, stored),
            "shapes": settings.element_shape_candidates,
        }
        asked: dict[str, SparseVector | Sequence[Vector] | None] = {
            "words": picture.words,
            "windows": picture.vectors,
            "shapes": picture.shape_words,
        }
        ways = {
            step: self._nearest_by(by, step, limits[step])
            for step, by in asked.items()
            if by is not None and (by.indices if isinstance(by, SparseVector) else by)
        }
        return await with_features(ways, self._features)

    async def _features(self, step: str, uids: Sequence[bytes]) -> Sequence[FeaturesHit]:
        with self._stopwatch.step(f"{step}_features"):
            return await self._services.catalog.get_features(
                self._library.library_id, uids, library_uid=self._library.uid
            )

    async def _nearest_by(
        self, by: SparseVector | Sequence[Vector], step: str, limit: int
    ) -> Sequence[bytes]:
        with self._stopwatch.step(step):
            return await self._services.catalog.candidates(
                CandidatesQuery(
                    library_id=self._library.library_id,
                    library_uid=self._library.uid,
                    by=by,
                    filter=self._filter,
                    limit=limit,
                    limit_of_each=math.ceil(limit * SHARE_OF_ONE_WINDOW),
                )
            )

    async def _appearing(
        self, picture: DescribedPicture, candidates: Sequence[FeaturesHit], threshold: Threshold
    ) -> list[Found]:
        """Check the candidates; give those over the threshold, best first."""
        if not candidates:
            return []
        with self._stopwatch.step("verify") as parts:
            verified = await self._services.embedding.verify(picture.features, candidates)
            parts.extend(verified.timings)
        floor = threshold.min_similarity
        found = [
            _found(element, candidates[int(element.id)], picture.info, threshold)
            for element in verified.elements
            if floor is None or element.evidence >= floor
        ]
        if not self._request.distinct_entities:
            return found
        await self._fetch(one.uid for one in found)
        best: dict[str, Found] = {}
        for one in found:
            image = self._images.get(one.uid)
            name = image.fields.entity_id if image else ""
            best.setdefault(f"entity {name}" if name else f"image {one.uid.hex()}", one)
        return list(best.values())

    def _element_threshold(self, model: ModelVersion) -> Threshold:
        rate = self._request.max_false_positive_rate
        if rate is None and self._request.min_score is None:
            rate = self._settings.default_max_false_positive_rate
        return Threshold.strictest(
            self._services.calibrations.of(model),
            comparisons=max(self._library.image_count, self._settings.min_library_size),
            rate_share=1.0,
            min_score=self._request.min_score,
            max_false_positive_rate=rate,
        )


async def with_features(
    ways: Mapping[str, Coroutine[Any, Any, Sequence[bytes]]],
    features: Callable[[str, Sequence[bytes]], Coroutine[Any, Any, Sequence[FeaturesHit]]],
) -> list[FeaturesHit]:
    """Ask in several ways at once; fetch the features of what one finds while others search.

    What two ways find is fetched once.
    """
    taken: set[bytes] = set()

    async def found(name: str, way: Coroutine[Any, Any, Sequence[bytes]]) -> Sequence[FeaturesHit]:
        uids = [uid for uid in await way if uid not in taken]
        taken.update(uids)
        return await features(name, uids) if uids else ()

    lists = await together(found(name, way) for name, way in ways.items())
    return list(chain.from_iterable(lists))


def _found(
    element: FoundElement, candidate: FeaturesHit, info: PictureInfo, threshold: Threshold
) -> Found:
    return Found(
        uid=candidate.uid,
        relation=Relation.UNSPECIFIED,
        similarity=element.evidence,
        closeness=element.evidence,
        box=_around(element.instances[0], info) if element.instances else None,
        threshold=threshold,
        instances=element.instances,
    )


def _around(corners: Quadrilateral, info: PictureInfo) -> Box | None:
    """Give the upright box of an outline, as far as it lies in the picture."""
    across, down = [x for x, _ in corners], [y for _, y in corners]
    box = Box(
        max(0.0, min(across)),
        max(0.0, min(down)),
        min(float(info.width), max(across)),
        min(float(info.height), max(down)),
    )
    return box if box.x_min < box.x_max and box.y_min < box.y_max else None
