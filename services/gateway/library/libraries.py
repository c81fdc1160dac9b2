"""Creating, reading, changing and deleting libraries."""

from __future__ import annotations

from collections.abc import Sequence

from imagesearch_services.common import roles
from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.types import LibraryType
from imagesearch_services.gateway.library.cache import LibraryCache
from imagesearch_services.gateway.model import Library, LibraryFields, NewLibrary, ServedModel
from imagesearch_services.gateway.ports import Catalog, Changes, Embedding, LibraryPage
from imagesearch_services.gateway.roles import ROLES_BY_LIBRARY_TYPE
from imagesearch_services.gateway.scoring.calibration import Calibrations

SETTABLE = ("display_name", "description", "capacity", "thumbnails_disabled")
"""Fields of a library that a caller can change."""


class Libraries:
    """Operations on libraries."""

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
        """Create a library with the newest served models for its type.

        Raises:
            ServiceError: LIBRARY_ALREADY_EXISTS; MODEL_NOT_SERVED if a model is missing.
        """
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
        for role in ROLES_BY_LIBRARY_TYPE[library_type]:
            candidates = [
                candidate
                for candidate in served
                if candidate.model.role == role and library_type in candidate.library_types
            ]
            if not candidates:
                raise ServiceError(
                    Reason.MODEL_NOT_SERVED,
                    f'no model in the role "{role}" is served for libraries of this type',
                    metadata={"model": role, "version": ""},
                )
            newest = max(candidates, key=lambda candidate: _version_order(candidate.model.version))
            if role != roles.WORDS:
                # Fail now if the model has no calibration table. The vocabulary of visual words
                # needs no table, since words only select candidates.
                self._calibrations.of(newest.model)
            chosen.append(newest)
        return chosen


def _version_order(version: str) -> tuple[int, str]:
    """Return a sort key of a version.

    Numeric versions are ordered by value and follow all others, which are in lexicographic order.
    """
    return (int(version), "") if version.isdecimal() else (-1, version)
