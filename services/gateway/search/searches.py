"""Entry point of all searches: dispatch by library type and page.

first page    strategy of the library type (whole_image, element, product) → first_page
later pages   later_pages
every page    thumbnails, on request
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from imagesearch_services.common.types import Category, LibraryType
from imagesearch_services.gateway.errors import refuse_unknown_type
from imagesearch_services.gateway.library.cache import LibraryCache
from imagesearch_services.gateway.model import DetectionAnswer, Library
from imagesearch_services.gateway.ports import Catalog, Embedding
from imagesearch_services.gateway.scoring.calibration import Calibrations
from imagesearch_services.gateway.search.answer import SearchAnswer
from imagesearch_services.gateway.search.element import ElementStrategy
from imagesearch_services.gateway.search.first_page import FirstPages
from imagesearch_services.gateway.search.later_pages import LaterPages
from imagesearch_services.gateway.search.model import Outcome, SearchRun
from imagesearch_services.gateway.search.page_tokens import PageTokens
from imagesearch_services.gateway.search.pipeline import Pipeline
from imagesearch_services.gateway.search.product import ProductStrategy
from imagesearch_services.gateway.search.request import PictureQuery, SearchRequest
from imagesearch_services.gateway.search.thumbnails import with_thumbnails
from imagesearch_services.gateway.search.whole_image import WholeImageStrategy
from imagesearch_services.gateway.settings import SearchSettings


class Strategy(Protocol):
    """Search of the libraries of one type."""

    async def search(self, run: SearchRun) -> Outcome:
        """Embed the query and rank the stored images."""


class Searches:
    """Answers searches."""

    def __init__(
        self,
        *,
        embedding: Embedding,
        catalog: Catalog,
        libraries: LibraryCache,
        calibrations: Calibrations,
        tokens: PageTokens,
        settings: SearchSettings,
    ) -> None:
        pipeline = Pipeline(
            catalog=catalog,
            libraries=libraries,
            calibrations=calibrations,
            settings=settings,
        )
        self._embedding = embedding
        self._catalog = catalog
        self._libraries = libraries
        self._strategies: Mapping[LibraryType, Strategy] = {
            LibraryType.WHOLE_IMAGE: WholeImageStrategy(pipeline, embedding, settings),
            LibraryType.ELEMENT: ElementStrategy(pipeline, embedding, catalog, settings),
            LibraryType.PRODUCT: ProductStrategy(pipeline, embedding),
        }
        self._first_pages = FirstPages(pipeline, tokens)
        self._later_pages = LaterPages(catalog, libraries, tokens)

    async def search(self, request: SearchRequest) -> SearchAnswer:
        """Return the first page or a later page of a search."""
        if request.page_token:
            answer = await self._later_pages.answer(request)
        else:
            answer = await self._libraries.using(
                request.library_id, lambda library: self._first_page(request, library)
            )
        if not request.thumbnail_bytes or not answer.matches:
            return answer
        library = await self._libraries.known(request.library_id)
        return await with_thumbnails(
            self._catalog, library.library_id, library.uid, answer, request.thumbnail_bytes
        )

    async def detect(self, picture: PictureQuery, category: Category | None) -> DetectionAnswer:
        """Detect the subjects of a picture as a product search does, and describe them."""
        return await self._embedding.detect(picture.content, picture.region, category)

    async def _first_page(self, request: SearchRequest, library: Library) -> SearchAnswer:
        run = SearchRun(request, library)
        outcome = await self._strategies[refuse_unknown_type(library)].search(run)
        return await self._first_pages.answer(run, outcome)
