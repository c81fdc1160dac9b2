"""Repeats within a library: who may look for them, from where on, and from which likeness on.

The scan itself is in `duplicate_scan.py`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from imagesearch_services.common import roles
from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.types import LibraryType, ModelVersion
from imagesearch_services.gateway.admission import Admission
from imagesearch_services.gateway.duplicates.copy_check import CopyCheck
from imagesearch_services.gateway.duplicates.scan import (
    DuplicatesNews,
    DuplicatesRequest,
    Scan,
    ScanServices,
)
from imagesearch_services.gateway.duplicates.tokens import DuplicateTokens, Place
from imagesearch_services.gateway.library.cache import LibraryCache
from imagesearch_services.gateway.model import Library
from imagesearch_services.gateway.names import library_name
from imagesearch_services.gateway.ports import Catalog
from imagesearch_services.gateway.scoring.calibration import Calibrations, Threshold
from imagesearch_services.gateway.tokens import invalid_token

RETRY_AFTER_S = 10.0
"""A call takes minutes."""

CHECKED_RATE_GAIN = 5.0
"""How many times the false-positive rate is tried where pictures can be laid over each other: that
lets fewer than one in twenty of those through that embeddings took for copies by chance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicates:
    """Looks for repeats, and remembers what is none."""

    catalog: Catalog
    check: CopyCheck
    libraries: LibraryCache
    calibrations: Calibrations
    tokens: DuplicateTokens
    admission: Admission
    """Of calls that look for repeats."""
    default_max_false_positive_rate: float
    min_library_size: int

    async def reject(
        self, library_id: str, pairs: Sequence[tuple[str, str]], request_id: str
    ) -> int:
        """Remember pairs of image ids that are no duplicates; give how many were new."""
        return await self.catalog.reject_pairs(library_id, pairs, request_id)

    async def find(self, request: DuplicatesRequest) -> AsyncGenerator[DuplicatesNews, None]:
        """Give groups and progress; nothing is done ahead of what is asked for.

        Raises:
            ServiceError: LIBRARY_NOT_FOUND, LIBRARY_TYPE_MISMATCH, FILTER_INVALID,
                PAGE_TOKEN_INVALID, OVERLOADED; LIBRARY_CHANGED where it was made anew meanwhile.
        """
        with self.admission.admit(1):
            async with aclosing(self._find(request)) as news:
                async for one in news:
                    yield one

    async def _find(self, request: DuplicatesRequest) -> AsyncGenerator[DuplicatesNews, None]:
        library = await self.libraries.fetch(request.library_id)
        model = _copy_model(library)
        place = self._place(request, library)
        scan = Scan(
            services=ScanServices(catalog=self.catalog, check=self.check, tokens=self.tokens),
            request=request,
            library=library,
            space=model.space,
            strict=self._threshold(request, model, place.comparisons, 1.0),
            loose=self._threshold(request, model, place.comparisons, CHECKED_RATE_GAIN),
            place=place,
        )
        async with aclosing(scan.run()) as news:
            async for one in news:
                yield one

    def _place(self, request: DuplicatesRequest, library: Library) -> Place:
        if not request.page_token:
            return Place(
                library_uid=library.uid,
                request=request.said,
                comparisons=max(library.image_count, self.min_library_size),
            )
        place = self.tokens.decode(request.page_token)
        if place.library_uid != library.uid:
            raise invalid_token("it belongs to another library")
        for name, value in request.said.items():
            if place.request.get(name) != value:
                raise invalid_token(f"it belongs to a call with another {name}")
        return place

    def _threshold(
        self, request: DuplicatesRequest, model: ModelVersion, comparisons: int, gain: float
    ) -> Threshold:
        rate = request.max_false_positive_rate
        if rate is None and request.min_score is None:
            rate = self.default_max_false_positive_rate
        return Threshold.strictest(
            self.calibrations.of(model),
            comparisons=comparisons,
            rate_share=1.0,
            min_score=request.min_score,
            max_false_positive_rate=None if rate is None else min(1.0, rate * gain),
        )


def _copy_model(library: Library) -> ModelVersion:
    model = library.model(roles.COPY)
    if library.type is LibraryType.WHOLE_IMAGE and model is not None:
        return model
    name = library_name(library.library_id)
    raise ServiceError(
        Reason.LIBRARY_TYPE_MISMATCH,
        f"{name}: duplicates are looked for in whole-image libraries only",
        metadata={"library": name, "type": library.type.name},
    )
