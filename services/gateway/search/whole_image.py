"""Search of whole-image libraries.

    library → embed the query → nearest entries → sure? answer
                                               ↘ unsure: embed its regions → nearest → merge

A search by regions finds a stored picture that is only a part of the query (pasted in, on a
screen). The whole query may spend `1 - region_rate_share` of the false-positive rate and all
regions together the rest, so that the many regions do not raise the threshold for copies of the
whole picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from imagesearch_services.common.concurrency import together
from imagesearch_services.common.types import ModelVersion
from imagesearch_services.gateway.errors import refuse_subject_detection
from imagesearch_services.gateway.model import PictureToEmbed, Relation
from imagesearch_services.gateway.ports import Embedding, QueryEmbedding
from imagesearch_services.gateway.roles import scoring_model
from imagesearch_services.gateway.search.model import (
    Outcome,
    Pass,
    Query,
    RankedHit,
    Ranking,
    SearchRun,
)
from imagesearch_services.gateway.search.pipeline import Pipeline, embedded_picture, picture_of
from imagesearch_services.gateway.search.ranking import best_of_each_image
from imagesearch_services.gateway.search.request import PictureQuery, StoredQuery
from imagesearch_services.gateway.settings import SearchSettings


class WholeImageStrategy:
    """Searches for the same picture, or for pictures that look like it."""

    def __init__(self, pipeline: Pipeline, embedding: Embedding, settings: SearchSettings) -> None:
        self._pipeline = pipeline
        self._embedding = embedding
        self._settings = settings

    async def search(self, run: SearchRun) -> Outcome:
        """Embed the query and rank the stored pictures for each relation.

        Raises:
            ServiceError: LIBRARY_TYPE_MISMATCH, IMAGE_NOT_FOUND, LIBRARY_CHANGED, and errors of
                the picture.
        """
        refuse_subject_detection(run.library, run.request.subject_detection)
        models = {
            relation: scoring_model(run.library, relation)
            for relation in run.request.relations or (Relation.SAME,)
        }
        if not (Relation.SAME in models and self._may_have_parts(run)):
            return await self._search(run, models, None)
        async with self._embedding.open_query(picture_of(run).content) as parts:
            return await self._search(run, models, parts)

    async def _search(
        self,
        run: SearchRun,
        models: Mapping[Relation, ModelVersion],
        parts: QueryEmbedding | None,
    ) -> Outcome:
        """Embed the query and search for each relation.

        `parts` embeds the query and then its regions; None if regions are not searched.
        """
        query = await self._pipeline.with_current_library(run, self._query(run, models, parts))
        rankings = await together(
            self._ranking(run, query, relation, model, parts if relation is Relation.SAME else None)
            for relation, model in models.items()
        )
        return Outcome(query, rankings, list(models.values()))

    async def _query(
        self,
        run: SearchRun,
        models: Mapping[Relation, ModelVersion],
        parts: QueryEmbedding | None,
    ) -> Query:
        if isinstance(run.request.query, StoredQuery):
            return await self._pipeline.stored_query(run, run.request.query)
        query = picture_of(run)
        spaces = [model.space for model in models.values()]
        if parts is None:
            whole = PictureToEmbed(query.content, query.region)
            call = self._embedding.embed([whole], spaces)
        else:
            call = parts.embed(spaces)
        picture, _ = await embedded_picture(run, call, step="embed")
        (region,) = picture.regions
        vectors = {vector.space: vector for vector in region.vectors}
        return Query(vectors, region.box, picture.info)

    async def _ranking(
        self,
        run: SearchRun,
        query: Query,
        relation: Relation,
        model: ModelVersion,
        parts: QueryEmbedding | None,
    ) -> Ranking:
        """Search with the whole query, and with its regions unless the whole has a sure match."""
        threshold = self._pipeline.threshold(
            run,
            model,
            has_default_rate=relation is Relation.SAME,
            rate_share=1.0 if parts is None else 1 - self._settings.region_rate_share,
        )
        whole = Pass([query.vectors[model.space]], [None], threshold)
        hits, is_cut = await self._pipeline.find(run, relation, whole, step="query")
        if parts is not None and not self._is_sure(hits):
            regions = await self._regions(run, model, parts)
            if regions is not None:
                more, is_more_cut = await self._pipeline.find(
                    run, relation, regions, step="query_regions"
                )
                hits, is_cut = [*hits, *more], is_cut or is_more_cut
        ranked = best_of_each_image(hits)
        # The Catalog makes entities distinct for each vector, not for all vectors together.
        is_distinct = all(hit.box is None for hit in ranked)
        return Ranking(relation, threshold, ranked, is_cut, is_distinct)

    def _may_have_parts(self, run: SearchRun) -> bool:
        """Return whether regions may be searched: the query is a picture without a region."""
        query = run.request.query
        return (
            isinstance(query, PictureQuery)
            and query.region is None
            and self._settings.max_proposed_regions > 0
        )

    def _is_sure(self, hits: Sequence[RankedHit]) -> bool:
        """Return whether any hit is unlikely to occur by chance even in a large library."""
        limit = self._settings.sure_false_positive_rate
        size = self._settings.sure_library_size
        return any(
            replace(
                hit.threshold, comparisons=max(size, hit.threshold.comparisons)
            ).false_positive_rate(hit.closeness)
            <= limit
            for hit in hits
        )

    async def _regions(
        self, run: SearchRun, model: ModelVersion, parts: QueryEmbedding
    ) -> Pass | None:
        """Embed the parts of the query that look like pictures; None if there are no such parts."""
        call = parts.embed([model.space], max_proposed_regions=self._settings.max_proposed_regions)
        picture, _ = await embedded_picture(run, call, step="embed_regions")
        if not picture.regions:
            return None
        threshold = self._pipeline.threshold(
            run,
            model,
            has_default_rate=True,
            vector_count=len(picture.regions),
            rate_share=self._settings.region_rate_share,
        )
        return Pass(
            [region.vectors[0] for region in picture.regions],
            [region.box for region in picture.regions],
            threshold,
        )
