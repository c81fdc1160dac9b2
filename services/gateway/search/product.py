"""The way of a search through a product library.

    library → find the query's subject and embed it → nearest entries

The subject is the main one of the picture, or of a region, or of a category; or a region as it is,
where the caller drew one; or the whole picture, where nothing stands out in it.
"""

from __future__ import annotations

from imagesearch_services.common.concurrency import both
from imagesearch_services.common.errors import Reason, ServiceError, field_error
from imagesearch_services.common.types import ModelVersion
from imagesearch_services.gateway.errors import library_type_mismatch
from imagesearch_services.gateway.model import PictureToEmbed, Relation, SearchAnswer, StoredQuery
from imagesearch_services.gateway.roles import scoring_model
from imagesearch_services.gateway.search.pipeline import FirstPage, Pass, Query, Ranking
from imagesearch_services.gateway.subjects import detection_warnings, is_subject_detected


class ProductSearch(FirstPage):
    """A search for the goods that are the subject of a picture, or like it."""

    async def answer(self) -> SearchAnswer:
        if self._request.relations:
            raise library_type_mismatch(
                self._library, "relation: only whole-image libraries tell relations apart"
            )
        model = scoring_model(self._library, Relation.UNSPECIFIED)
        query, current = await both(
            self._query(model), self._services.libraries.current(self._library.library_id)
        )
        self._refresh(current)
        threshold = self._threshold(Relation.UNSPECIFIED, model, 1, 1.0)
        subject = Pass([query.vectors[model.space]], [None], threshold)
        found, is_cut = await self._find(Relation.UNSPECIFIED, subject, "query")
        ranking = Ranking(Relation.UNSPECIFIED, threshold, found, is_cut)
        return await self._finish(query, [ranking], [model])

    @property
    def _relations(self) -> tuple[Relation, ...]:
        return ()

    async def _query(self, model: ModelVersion) -> Query:
        query = self._request.query
        if isinstance(query, StoredQuery):
            if self._request.subject_detection:
                raise field_error("subject_detection", "a stored image's pixels are not kept")
            return await self._stored_query(query)
        if query is None:
            raise ServiceError(Reason.INTERNAL, "a first page without a query")
        detect = is_subject_detected(self._request.subject_detection, query.region)
        with self._stopwatch.step("embed") as parts:
            picture, embedded = await self._embed(
                PictureToEmbed(
                    query.content,
                    query.region,
                    subject_detection=detect,
                    category=self._request.category,
                ),
                [model.space],
                parts,
            )
        (region,) = picture.regions
        subjects, chosen = picture.subjects, picture.chosen_subject
        if not detect and query.region is not None and region.subject is not None:
            subjects, chosen = [region.subject], 0
        return Query(
            {one.space: one for one in region.vectors},
            region.box,
            picture.info,
            subjects=subjects,
            chosen_subject=chosen,
            detection_models=embedded.detection_models,
            warnings=detection_warnings(picture, self._request.category) if detect else (),
        )
