"""The first page of a search: joined rankings, a page of matches, a token that pins the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from imagesearch_services.gateway.search.answer import AppliedThreshold, Match, SearchAnswer
from imagesearch_services.gateway.search.model import Outcome, RankedHit, Ranking, SearchRun
from imagesearch_services.gateway.search.page_tokens import PageTokens
from imagesearch_services.gateway.search.pinning import pin
from imagesearch_services.gateway.search.pipeline import Pipeline
from imagesearch_services.gateway.search.ranking import join
from imagesearch_services.gateway.search.token_format import MAX_ITEMS


class FirstPages:
    """Builds the first page of an answer from the outcome of a strategy."""

    def __init__(self, pipeline: Pipeline, tokens: PageTokens) -> None:
        self._pipeline = pipeline
        self._tokens = tokens

    async def answer(self, run: SearchRun, outcome: Outcome) -> SearchAnswer:
        """Return the first page, with a token if there are more pages."""
        query, rankings = outcome.query, outcome.rankings
        hits, is_cut = await self._join(run, rankings)
        page, rest = hits[: run.request.page_size], hits[run.request.page_size :]
        answer = SearchAnswer(
            matches=await self._matches(run, page),
            next_page_token="",
            total_found=len(hits),
            total_is_lower_bound=is_cut,
            searched_region=query.region,
            query_info=query.info,
            models=[*outcome.models, *query.detection_models],
            thresholds=[_applied(ranking) for ranking in rankings],
            timings=[],
            subjects=query.subjects,
            chosen_subject=query.chosen_subject,
            warnings=query.warnings,
            thumbnails=run.thumbnails,
        )
        token = ""
        if rest:
            await self._tokens.prepare()
            token = self._tokens.encode(pin(run, answer, rest))
        return replace(answer, next_page_token=token, timings=run.stopwatch.timings())

    async def _join(
        self, run: SearchRun, rankings: Sequence[Ranking]
    ) -> tuple[list[RankedHit], bool]:
        hits, is_cut = join(rankings, MAX_ITEMS)
        # Each ranking may be distinct by entity while two rankings contain the same entity.
        is_distinct = len(rankings) == 1 and rankings[0].is_distinct
        if run.request.distinct_entities and not is_distinct:
            hits = await self._pipeline.distinct_entities(run, hits)
        return hits, is_cut

    async def _matches(self, run: SearchRun, page: Sequence[RankedHit]) -> list[Match]:
        await self._pipeline.load_images(run, (hit.uid for hit in page))
        return [
            Match(
                image=run.images[hit.uid],
                relation=hit.relation,
                score=hit.score,
                similarity=hit.similarity,
                false_positive_rate=hit.false_positive_rate,
                query_box=hit.box,
                instances=hit.instances,
            )
            for hit in page
            if hit.uid in run.images
        ]


def _applied(ranking: Ranking) -> AppliedThreshold:
    threshold = ranking.threshold
    return AppliedThreshold(
        ranking.relation, threshold.min_score, threshold.applied_rate, threshold.extrapolated
    )
