"""The way of a search through a whole-image library.

    library → embed the query → nearest entries → sure? answer
                                               ↘ not sure: embed its regions → nearest → merge

Regions are searched where the query may hold a stored picture as a part of it (pasted in, on a
screen). The whole and the regions share the false-positive rate between them: the whole spends
`1 - region_rate_share` of it, all regions together the rest, so that the many regions do not
raise the bar for copies of the whole picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from imagesearch_services.common.concurrency import both
from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.types import ModelVersion
from imagesearch_services.gateway.errors import refuse_subject_detection
from imagesearch_services.gateway.model import (
    PictureQuery,
    PictureToEmbed,
    Relation,
    SearchAnswer,
    StoredQuery,
)
from imagesearch_services.gateway.roles import scoring_model
from imagesearch_services.gateway.search.pipeline import (
    FirstPage,
    Found,
    Pass,
    Query,
    Ranking,
    best_of_each,
)


class WholeImageSearch(FirstPage):
    """A search for the same picture, or for those that look like it."""

    async def answer(self) -> SearchAnswer:
        refuse_subject_detection(self._library, self._request.subject_detection)
        models = {relation: scoring_model(self._library, relation) for relation in self._relations}
        # The models are known from before; how many images there are is asked meanwhile.
        query, current = await both(
            self._query(models), self._services.libraries.current(self._library.library_id)
        )
        self._refresh(current)
        rankings = await self._rankings(query, models)
        return await self._finish(query, rankings, list(models.values()))

    async def _query(self, models: Mapping[Relation, ModelVersion]) -> Query:
        query = self._request.query
        if isinstance(query, StoredQuery):
            return await self._stored_query(query)
        if query is None:
            raise ServiceError(Reason.INTERNAL, "a first page without a query")
        with self._stopwatch.step("embed") as parts:
            picture, _ = await self._embed(
                PictureToEmbed(query.content, query.region),
                [model.space for model in models.values()],
                parts,
            )
        (region,) = picture.regions
        return Query({one.space: one for one in region.vectors}, region.box, picture.info)

    async def _rankings(
        self, query: Query, models: Mapping[Relation, ModelVersion]
    ) -> Sequence[Ranking]:
        ranked = [self._ranking(query, *wanted) for wanted in models.items()]
        return await both(*ranked) if len(ranked) > 1 else [await ranked[0]]

    async def _ranking(self, query: Query, relation: Relation, model: ModelVersion) -> Ranking:
        """Search the whole query for a relation, and its regions where that is not sure."""
        parts = relation is Relation.SAME and self._may_have_parts
        whole_share = 1 - self._settings.region_rate_share if parts else 1.0
        vector = query.vectors[model.space]
        whole = Pass([vector], [None], self._threshold(relation, model, 1, whole_share))
        found, is_cut = await self._find(relation, whole, "query")
        if parts and not self._is_sure(found):
            regions = await self._regions(model)
            if regions is not None:
                more, is_more_cut = await self._find(relation, regions, "query_regions")
                found, is_cut = [*found, *more], is_cut or is_more_cut
        return Ranking(relation, whole.threshold, best_of_each(found), is_cut)

    @property
    def _may_have_parts(self) -> bool:
        """Whether the query's pixels are here and the caller left it to us where to look."""
        query = self._request.query
        return (
            isinstance(query, PictureQuery)
            and query.region is None
            and self._settings.max_proposed_regions > 0
        )

    def _is_sure(self, found: Sequence[Found]) -> bool:
        limit = self._settings.sure_false_positive_rate
        size = self._settings.sure_library_size
        return any(
            replace(
                one.threshold, comparisons=max(size, one.threshold.comparisons)
            ).false_positive_rate(one.closeness)
            <= limit
            for one in found
        )

    async def _regions(self, model: ModelVersion) -> Pass | None:
        """Embed the parts of the query that look like pictures of their own, if there are any."""
        assert isinstance(self._request.query, PictureQuery)  # noqa: S101  # narrows the type
        content = self._request.query.content
        with self._stopwatch.step("embed_regions") as timings:
            picture, _ = await self._embed(
                PictureToEmbed(content, max_proposed_regions=self._settings.max_proposed_regions),
                [model.space],
                timings,
            )
        if not picture.regions:
            return None
        threshold = self._threshold(
            Relation.SAME, model, len(picture.regions), self._settings.region_rate_share
        )
        return Pass(
            [region.vectors[0] for region in picture.regions],
            [region.box for region in picture.regions],
            threshold,
        )
