"""Search of product libraries.

    library → find the query's subject and embed it → nearest entries

The query is the main subject of the picture, of the caller's region or of a category. Without
detection it is the region, or the whole picture; the same holds if no subject is detected.
"""

from __future__ import annotations

from imagesearch_services.common.errors import field_error
from imagesearch_services.common.types import ModelVersion
from imagesearch_services.gateway.errors import refuse_relations
from imagesearch_services.gateway.model import PictureToEmbed, Relation
from imagesearch_services.gateway.ports import Embedding
from imagesearch_services.gateway.roles import scoring_model
from imagesearch_services.gateway.search.model import Outcome, Pass, Query, Ranking, SearchRun
from imagesearch_services.gateway.search.pipeline import Pipeline, embedded_picture, picture_of
from imagesearch_services.gateway.search.request import StoredQuery
from imagesearch_services.gateway.subjects import detection_warnings, is_subject_detected


class ProductStrategy:
    """Searches for products that are the subject of a picture, or similar to it."""

    def __init__(self, pipeline: Pipeline, embedding: Embedding) -> None:
        self._pipeline = pipeline
        self._embedding = embedding

    async def search(self, run: SearchRun) -> Outcome:
        """Embed the query's subject and rank the products by similarity to it.

        Raises:
            ServiceError: LIBRARY_TYPE_MISMATCH, FIELD_INVALID, IMAGE_NOT_FOUND, LIBRARY_CHANGED,
                and errors of the picture.
        """
        refuse_relations(run.library, run.request.relations)
        model = scoring_model(run.library, Relation.UNSPECIFIED)
        query = await self._pipeline.with_current_library(run, self._query(run, model))
        threshold = self._pipeline.threshold(run, model, has_default_rate=False)
        subject = Pass([query.vectors[model.space]], [None], threshold)
        hits, is_cut = await self._pipeline.find(run, Relation.UNSPECIFIED, subject, step="query")
        ranking = Ranking(Relation.UNSPECIFIED, threshold, hits, is_cut, is_distinct=True)
        return Outcome(query, [ranking], [model])

    async def _query(self, run: SearchRun, model: ModelVersion) -> Query:
        request = run.request
        if isinstance(request.query, StoredQuery):
            if request.subject_detection:
                raise field_error(
                    "subject_detection",
                    "can't be combined with image_name: stored images have no pixels",
                )
            return await self._pipeline.stored_query(run, request.query)
        query = picture_of(run)
        detect = is_subject_detected(request.subject_detection, query.region)
        subject = PictureToEmbed(
            query.content, query.region, subject_detection=detect, category=request.category
        )
        picture, embedded = await embedded_picture(
            run, self._embedding.embed([subject], [model.space]), step="embed"
        )
        (region,) = picture.regions
        subjects, chosen = picture.subjects, picture.chosen_subject
        if not detect and query.region is not None and region.subject is not None:
            subjects, chosen = [region.subject], 0
        return Query(
            {vector.space: vector for vector in region.vectors},
            region.box,
            picture.info,
            subjects=subjects,
            chosen_subject=chosen,
            detection_models=embedded.detection_models,
            warnings=detection_warnings(picture, request.category) if detect else (),
        )
