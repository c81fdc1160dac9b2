"""Later pages of a search: the matches that a page token pins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from imagesearch_services.common.concurrency import both
from imagesearch_services.common.stopwatch import Stopwatch
from imagesearch_services.gateway.errors import library_changed
from imagesearch_services.gateway.library.cache import LibraryCache
from imagesearch_services.gateway.model import StoredImage
from imagesearch_services.gateway.ports import Catalog
from imagesearch_services.gateway.roles import scoring_model
from imagesearch_services.gateway.search.answer import Match, SearchAnswer
from imagesearch_services.gateway.search.page_tokens import PageTokens
from imagesearch_services.gateway.search.pinned_ranking import PinnedMatch, PinnedRanking
from imagesearch_services.gateway.search.pinning import check_same_search
from imagesearch_services.gateway.search.request import SearchRequest


class LaterPages:
    """Answers requests with a page token."""

    def __init__(self, catalog: Catalog, libraries: LibraryCache, tokens: PageTokens) -> None:
        self._catalog = catalog
        self._libraries = libraries
        self._tokens = tokens

    async def answer(self, request: SearchRequest) -> SearchAnswer:
        """Return the next page; images that were deleted in the meantime are left out.

        Raises:
            ServiceError: PAGE_TOKEN_INVALID, PAGE_TOKEN_EXPIRED, LIBRARY_CHANGED.
        """
        stopwatch = Stopwatch()
        await self._tokens.prepare()
        ranking = self._tokens.decode(request.page_token)
        await check_same_search(ranking, request)
        with stopwatch.step("fetch"):
            library, (matches, rest) = await both(
                self._libraries.fetch(request.library_id), self._page(request, ranking)
            )
        if library.uid != ranking.library_uid:
            raise library_changed(library)
        return SearchAnswer(
            matches=matches,
            next_page_token=self._tokens.encode(replace(ranking, matches=rest)) if rest else "",
            total_found=ranking.total_found,
            total_is_lower_bound=ranking.total_is_lower_bound,
            searched_region=ranking.searched_region,
            query_info=ranking.query_info,
            models=[scoring_model(library, threshold.relation) for threshold in ranking.thresholds],
            thresholds=ranking.thresholds,
            timings=stopwatch.timings(),
            subjects=ranking.subjects,
            chosen_subject=ranking.chosen_subject,
            warnings=ranking.warnings,
            first_rank=ranking.total_found - len(ranking.matches) + 1,
        )

    async def _page(
        self, request: SearchRequest, ranking: PinnedRanking
    ) -> tuple[list[Match], Sequence[PinnedMatch]]:
        """Return a page, filled up with images that still exist, and the matches that follow it."""
        matches: list[Match] = []
        rest = ranking.matches
        while rest and len(matches) < request.page_size:
            count = request.page_size - len(matches)
            pinned, rest = rest[:count], rest[count:]
            images = await self._catalog.get_images(
                request.library_id, uids=[match.uid for match in pinned]
            )
            by_uid = {image.uid: image for image in images}
            matches += (
                _match(match, by_uid[match.uid], ranking) for match in pinned if match.uid in by_uid
            )
        return matches, rest


def _match(pinned: PinnedMatch, image: StoredImage, ranking: PinnedRanking) -> Match:
    return Match(
        image=image,
        relation=pinned.relation,
        score=pinned.score,
        similarity=pinned.similarity,
        false_positive_rate=pinned.false_positive_rate,
        query_box=None if pinned.region is None else ranking.regions[pinned.region],
        instances=pinned.instances,
    )
