"""Libraries: making and changing them, and what the Gateway remembers of them for a moment."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from imagesearch_services.common.errors import (
    Reason,
    ServiceError,
)
from imagesearch_services.gateway.calibration import Calibrations
from imagesearch_services.gateway.elements import WORDS_ROLE
from imagesearch_services.gateway.model import (
    Library,
    LibraryFields,
    LibraryType,
    NewLibrary,
    ServedModel,
)
from imagesearch_services.gateway.names import library_name
from imagesearch_services.gateway.ports import Catalog, Changes, Embedding, LibraryPage

Answer = TypeVar("Answer")

ROLES = {
    LibraryType.WHOLE_IMAGE: ("copy", "semantic"),
    LibraryType.ELEMENT: ("words", "element"),
    LibraryType.PRODUCT: ("product",),
}
"""Models that a library needs, by its type."""

SETTABLE = ("display_name", "description", "capacity", "thumbnails_disabled")

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


class Libraries:
    """What a caller can do with libraries."""

    def __init__(
        self,
        embedding: Embedding,
        catalog: Catalog,
        cache: LibraryCache,
        calibrations: Calibrations,
    ) -> None:
        self._embedding = embedding
        self._catalog = catalog
        self._cache = cache
        self._calibrations = calibrations

    async def create(
        self, library_id: str, library_type: LibraryType, fields: LibraryFields, request_id: str
    ) -> Library:
        """Make a library with the models that are served for its type now."""
        models = self._models_for(library_type, await self._embedding.list_models())
        self._cache.forget(library_id)
        return await self._catalog.create_library(
            NewLibrary(library_id=library_id, type=library_type, fields=fields, models=models),
            request_id,
        )

    async def get(self, library_id: str) -> Library:
        return await self._cache.fetch(library_id)

    async def page(self, page_size: int, page_token: str) -> LibraryPage:
        return await self._catalog.list_libraries(page_size, page_token)

    async def update(self, library_id: str, changes: Changes, request_id: str) -> Library:
        if not changes:
            return await self._catalog.get_library(library_id)
        try:
            return await self._catalog.update_library(library_id, changes, request_id)
        finally:
            self._cache.forget(library_id)

    async def delete(self, library_id: str, request_id: str) -> None:
        self._cache.forget(library_id)
        await self._catalog.delete_library(library_id, request_id)

    def _models_for(
        self, library_type: LibraryType, served: Sequence[ServedModel]
    ) -> list[ServedModel]:
        chosen = []
        for role in ROLES[library_type]:
            candidates = [
                one
                for one in served
                if one.model.role == role and library_type in one.library_types
            ]
            if not candidates:
                raise ServiceError(
                    Reason.MODEL_NOT_SERVED,
                    f'no model of the role "{role}" is served for libraries of this type',
                    metadata={"model": role, "version": ""},
                )
            # Of two versions the later one: numbers by value, other names by their letters.
            newest = max(candidates, key=lambda one: _version_order(one.model.version))
            if role != WORDS_ROLE:
                # Words bring candidates and tell no score.
                self._calibrations.of(newest.model)
            chosen.append(newest)
        return chosen


def refuse_subject_detection(library: Library, wanted: bool | None) -> None:
    """Subjects are found for product libraries only."""
    if wanted and library.type is not LibraryType.PRODUCT:
        raise library_type_mismatch(
            library, "subject_detection: only product libraries look for subjects"
        )


def library_type_mismatch(library: Library, message: str) -> ServiceError:
    """Say that a call makes no sense for a library of this type."""
    return ServiceError(
        Reason.LIBRARY_TYPE_MISMATCH,
        message,
        metadata={"library": library_name(library.library_id), "type": library.type.name},
    )


def _version_order(version: str) -> tuple[int, str]:
    return (int(version), "") if version.isdecimal() else (-1, version)
