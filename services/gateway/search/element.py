"""Search of element libraries.

library → describe the query → candidates that share most visual words with it, or are nearest to
one of its windows → their features → verify which candidates appear in the query, and where
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from imagesearch_services.common.errors import unwrap
from imagesearch_services.common.types import (
    Box,
    PictureInfo,
    Quadrilateral,
    SparseVector,
    Vector,
)
from imagesearch_services.gateway.errors import (
    library_type_mismatch,
    refuse_relations,
    refuse_subject_detection,
)
from imagesearch_services.gateway.model import (
    DescribedPicture,
    FeaturesHit,
    FoundElement,
    PictureToEmbed,
    Relation,
)
from imagesearch_services.gateway.ports import CandidatesQuery, Catalog, Embedding
from imagesearch_services.gateway.roles import check_vocabulary, regional_space, scoring_model
from imagesearch_services.gateway.scoring.calibration import Threshold
from imagesearch_services.gateway.search.candidates import (
    MAX_SHARE_PER_WINDOW,
    candidate_count,
    load_candidates,
)
from imagesearch_services.gateway.search.model import Outcome, Query, RankedHit, Ranking, SearchRun
from imagesearch_services.gateway.search.pipeline import Pipeline, picture_of
from imagesearch_services.gateway.search.request import StoredQuery
from imagesearch_services.gateway.settings import SearchSettings


class ElementStrategy:
    """Searches for the elements that appear in a picture."""

    def __init__(
        self, pipeline: Pipeline, embedding: Embedding, catalog: Catalog, settings: SearchSettings
    ) -> None:
        self._pipeline = pipeline
        self._embedding = embedding
        self._catalog = catalog
        self._settings = settings

    async def search(self, run: SearchRun) -> Outcome:
        """Describe the query, collect candidates and rank those that appear in it.

        Raises:
            ServiceError: LIBRARY_TYPE_MISMATCH, MODEL_NOT_SERVED, LIBRARY_CHANGED, and errors of
                the picture.
        """
        _check(run)
        model = scoring_model(run.library, Relation.UNSPECIFIED)
        picture = await self._pipeline.with_current_library(run, self._describe(run))
        candidates = await self._candidates(run, picture)
        threshold = self._pipeline.threshold(run, model, has_default_rate=True)
        hits = await self._verify(run, picture, candidates, threshold)
        if run.request.distinct_entities:
            hits = await self._pipeline.distinct_entities(run, hits)
        ranking = Ranking(Relation.UNSPECIFIED, threshold, hits, is_distinct=True)
        return Outcome(Query({}, picture.region, picture.info), [ranking], [model])

    async def _describe(self, run: SearchRun) -> DescribedPicture:
        query = picture_of(run)
        with run.stopwatch.step("describe") as parts:
            described = await self._embedding.describe(
                [PictureToEmbed(query.content, query.region)],
                for_query=True,
                regional_space=regional_space(run.library),
            )
            parts.extend(described.timings)
        (picture_or_error,) = described.pictures
        picture = unwrap(picture_or_error)
        check_vocabulary(run.library, picture)
        return picture

    async def _candidates(self, run: SearchRun, picture: DescribedPicture) -> Sequence[FeaturesHit]:
        settings, stored_count = self._settings, run.library.image_count
        limits = {
            "words": candidate_count(settings.element_word_candidates, stored_count),
            "windows": candidate_count(settings.element_window_candidates, stored_count),
            "shapes": settings.element_shape_candidates,
        }
        descriptors: dict[str, SparseVector | Sequence[Vector] | None] = {
            "words": picture.words,
            "windows": picture.vectors,
            "shapes": picture.shape_words,
        }
        queries = {
            step: self._nearest(run, by, limits[step], step=step)
            for step, by in descriptors.items()
            if by is not None and (by.indices if isinstance(by, SparseVector) else by)
        }

        async def load_features(step: str, uids: Sequence[bytes]) -> Sequence[FeaturesHit]:
            with run.stopwatch.step(f"{step}_features"):
                return await self._catalog.get_features(
                    run.library.library_id, uids, library_uid=run.library.uid
                )

        return await load_candidates(queries, load_features)

    async def _nearest(
        self, run: SearchRun, descriptors: SparseVector | Sequence[Vector], limit: int, *, step: str
    ) -> Sequence[bytes]:
        with run.stopwatch.step(step):
            return await self._catalog.candidates(
                CandidatesQuery(
                    library_id=run.library.library_id,
                    library_uid=run.library.uid,
                    descriptors=descriptors,
                    filter=run.filter,
                    limit=limit,
                    limit_per_vector=math.ceil(limit * MAX_SHARE_PER_WINDOW),
                )
            )

    async def _verify(
        self,
        run: SearchRun,
        picture: DescribedPicture,
        candidates: Sequence[FeaturesHit],
        threshold: Threshold,
    ) -> list[RankedHit]:
        """Return the candidates that appear in the query and reach the threshold, best first."""
        if not candidates:
            return []
        with run.stopwatch.step("verify") as parts:
            verified = await self._embedding.verify(picture.features, candidates)
            parts.extend(verified.timings)
        floor = threshold.min_similarity
        return [
            _hit(element, candidates[int(element.id)], picture.info, threshold)
            for element in verified.elements
            if floor is None or element.evidence >= floor
        ]


def _check(run: SearchRun) -> None:
    refuse_subject_detection(run.library, run.request.subject_detection)
    refuse_relations(run.library, run.request.relations)
    if isinstance(run.request.query, StoredQuery):
        raise library_type_mismatch(
            run.library,
            "image_name: element libraries are searched with a picture (image); stored elements "
            "have no pixels",
        )


def _hit(
    element: FoundElement, candidate: FeaturesHit, info: PictureInfo, threshold: Threshold
) -> RankedHit:
    return RankedHit(
        uid=candidate.uid,
        relation=Relation.UNSPECIFIED,
        similarity=element.evidence,
        closeness=element.evidence,
        box=_bounding_box(element.instances[0], info) if element.instances else None,
        threshold=threshold,
        instances=element.instances,
    )


def _bounding_box(corners: Quadrilateral, info: PictureInfo) -> Box | None:
    """Return the upright bounding box of an outline, clipped to the picture; None if outside."""
    xs, ys = [x for x, _ in corners], [y for _, y in corners]
    box = Box(
        max(0.0, min(xs)),
        max(0.0, min(ys)),
        min(float(info.width), max(xs)),
        min(float(info.height), max(ys)),
    )
    return box if box.x_min < box.x_max and box.y_min < box.y_max else None
