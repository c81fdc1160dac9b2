"""Libraries remembered for a moment, so that a search does not fetch its library first."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from imagesearch_services.common.errors import (
    Reason,
    ServiceError,
)
from imagesearch_services.gateway.model import Library
from imagesearch_services.gateway.ports import Catalog

Answer = TypeVar("Answer")

CURRENT_S = 1.0
"""How old a library's image count may be where scores are calibrated with it."""

KNOWN_S = 60.0
"""How old the rest may be: it never changes under one uid, and the Catalog checks the uid."""


class LibraryCache:
    """What the last call told of a library, so that a search need not wait for it again.

    A library's uid, type and models are fixed, so that old knowledge is good as long as the uid
    is: it goes to the Catalog with every call that relies on it, which answers LIBRARY_CHANGED
    where a library was made anew. The image count does change; it may be `CURRENT_S` old.
    """

    def __init__(self, catalog: Catalog, now_s: Callable[[], float] = time.monotonic) -> None:
        self._catalog = catalog
        self._now_s = now_s
        self._libraries: dict[str, tuple[float, Library]] = {}

    async def current(self, library_id: str) -> Library:
        """Give the library as it was a second ago or later."""
        return self._remembered(library_id, CURRENT_S) or await self.fetch(library_id)

    async def known(self, library_id: str) -> Library:
        """Give what is fixed of the library; its counts may be a minute old."""
        return self._remembered(library_id, KNOWN_S) or await self.fetch(library_id)

    async def fetch(self, library_id: str) -> Library:
        """Give the library as it is now."""
        asked_s = self._now_s()
        try:
            library = await self._catalog.get_library(library_id)
        except ServiceError:
            self.forget(library_id)
            raise
        self._libraries[library_id] = (asked_s, library)
        return library

    def forget(self, library_id: str) -> None:
        self._libraries.pop(library_id, None)

    async def using(self, library_id: str, work: Callable[[Library], Awaitable[Answer]]) -> Answer:
        """Do work that relies on a known library; once more where it was made anew meanwhile."""
        try:
            return await work(await self.known(library_id))
        except ServiceError as error:
            if error.reason not in {Reason.LIBRARY_CHANGED, Reason.LIBRARY_NOT_FOUND}:
                raise
            self.forget(library_id)
            if error.reason is Reason.LIBRARY_NOT_FOUND:
                raise
        return await work(await self.fetch(library_id))

    def _remembered(self, library_id: str, max_age_s: float) -> Library | None:
        told_s, library = self._libraries.get(library_id, (0.0, None))
        return library if library and self._now_s() - told_s < max_age_s else None
