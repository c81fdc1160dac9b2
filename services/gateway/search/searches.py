"""Searches: which way each library type goes, and the later pages of an answer.

whole-image libraries  whole_image_search.py
element libraries      element_search.py
product libraries      product_search.py
what they share        first_page.py
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, replace

from imagesearch_services.common.concurrency import both
from imagesearch_services.common.stopwatch import Stopwatch
from imagesearch_services.common.types import Category, LibraryType
from imagesearch_services.gateway.errors import library_changed
from imagesearch_services.gateway.model import (
    DetectionAnswer,
    Library,
    Match,
    PictureQuery,
    SearchAnswer,
    StoredQuery,
)
from imagesearch_services.gateway.roles import scoring_model
from imagesearch_services.gateway.search.element import ElementSearch
from imagesearch_services.gateway.search.page_tokens import PinnedMatch, PinnedRanking
from imagesearch_services.gateway.search.pipeline import FirstPage, SearchServices
from imagesearch_services.gateway.search.product import ProductSearch
from imagesearch_services.gateway.search.request import SearchRequest
from imagesearch_services.gateway.search.thumbnails import with_thumbnails
from imagesearch_services.gateway.search.whole_image import WholeImageSearch
from imagesearch_services.gateway.tokens import fingerprint, invalid_token

SEARCHES: dict[LibraryType, type[FirstPage]] = {
    LibraryType.WHOLE_IMAGE: WholeImageSearch,
    LibraryType.ELEMENT: ElementSearch,
    LibraryType.PRODUCT: ProductSearch,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Searches(SearchServices):
    """Answers searches."""

    async def search(self, request: SearchRequest) -> SearchAnswer:
        """Answer a search, or a later page of one."""
        if request.page_token:
            answer = await self._later_page(request)
        else:
            answer = await self.libraries.using(
                request.library_id, lambda library: self._first_page(request, library)
            )
        if not request.thumbnail_bytes or not answer.matches:
            return answer
        library = await self.libraries.known(request.library_id)
        return await with_thumbnails(
            self.catalog, library.library_id, library.uid, answer, request.thumbnail_bytes
        )

    async def detect(self, picture: PictureQuery, category: Category | None) -> DetectionAnswer:
        """Find and describe the subjects of a picture, as a product search would see them."""
        return await self.embedding.detect(picture.content, picture.region, category)

    async def _first_page(self, request: SearchRequest, library: Library) -> SearchAnswer:
        return await SEARCHES[library.type](self, request, library).answer()

    async def _later_page(self, request: SearchRequest) -> SearchAnswer:
        """Show what a token pinned; images that were deleted meanwhile are left out."""
        stopwatch = Stopwatch()
        ranking = self.tokens.decode(request.page_token)
        await _check_same_search(ranking, request)
        left = list(ranking.matches)
        with stopwatch.step("fetch"):
            library, matches = await both(
                self.libraries.fetch(request.library_id),
                self._take_page(request, ranking, left),
            )
        if library.uid != ranking.library_uid:
            raise library_changed(library)
        return SearchAnswer(
            matches=matches,
            next_page_token=self.tokens.encode(replace(ranking, matches=left)) if left else "",
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
                    instances=match.instances,
                )
                for match in pinned
                if match.uid in images
            )
        return matches


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
