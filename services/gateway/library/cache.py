"""Cache of libraries, so that a search need not read its library from the Catalog first."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.gateway.model import Library
from imagesearch_services.gateway.ports import Catalog

Result = TypeVar("Result")

CURRENT_MAX_AGE_S = 1.0
"""Maximum age of the image count that scores are calibrated with, in seconds."""

KNOWN_MAX_AGE_S = 60.0
"""Maximum age of a cached library of which only the immutable fields are used, in seconds."""


class LibraryCache:
    """Cache of libraries by id.

    The uid, type and models of a library are immutable, so cached values are valid as long as the
    library has the same uid. Every call that relies on them sends the uid to the Catalog, which
    fails with LIBRARY_CHANGED if the library was recreated. The image count changes; it is at most
    `CURRENT_MAX_AGE_S` old.
    """

    def __init__(self, catalog: Catalog, now_s: Callable[[], float] = time.monotonic) -> None:
        self._catalog = catalog
        self._now_s = now_s
        self._libraries: dict[str, tuple[float, Library]] = {}

    async def current(self, library_id: str) -> Library:
        """Return the library as it was at most `CURRENT_MAX_AGE_S` ago."""
        return self._cached(library_id, CURRENT_MAX_AGE_S) or await self.fetch(library_id)

    async def known(self, library_id: str) -> Library:
        """Return the library for its immutable fields; counts may be `KNOWN_MAX_AGE_S` old."""
        return self._cached(library_id, KNOWN_MAX_AGE_S) or await self.fetch(library_id)

    async def fetch(self, library_id: str) -> Library:
        """Read the library from the Catalog."""
        requested_s = self._now_s()
        try:
            library = await self._catalog.get_library(library_id)
        except ServiceError:
            self.forget(library_id)
            raise
        self._libraries[library_id] = (requested_s, library)
        return library

    def forget(self, library_id: str) -> None:
        self._libraries.pop(library_id, None)

    async def using(self, library_id: str, work: Callable[[Library], Awaitable[Result]]) -> Result:
        """Run `work` with the cached library; if it was recreated, run it again with the new one.

        Raises:
            ServiceError: errors of the work; LIBRARY_NOT_FOUND.
        """
        try:
            return await work(await self.known(library_id))
        except ServiceError as error:
            if error.reason not in {Reason.LIBRARY_CHANGED, Reason.LIBRARY_NOT_FOUND}:
                raise
            self.forget(library_id)
            if error.reason is Reason.LIBRARY_NOT_FOUND:
                raise
        return await work(await self.fetch(library_id))

    def _cached(self, library_id: str, max_age_s: float) -> Library | None:
        requested_s, library = self._libraries.get(library_id, (0.0, None))
        return library if library and self._now_s() - requested_s < max_age_s else None
