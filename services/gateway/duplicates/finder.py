"""Finds near-duplicates: checks the request, derives the thresholds and composes the scan."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from imagesearch_services.common import roles
from imagesearch_services.common.types import LibraryType, ModelVersion
from imagesearch_services.gateway.duplicates.copy_check import CopyCheck
from imagesearch_services.gateway.duplicates.emitting import Emitter
from imagesearch_services.gateway.duplicates.grouping import Grouping
from imagesearch_services.gateway.duplicates.judging import PairJudge
from imagesearch_services.gateway.duplicates.library_reader import LibraryReader
from imagesearch_services.gateway.duplicates.model import (
    DuplicatesRequest,
    DuplicatesUpdate,
    ScanLimits,
    Thresholds,
)
from imagesearch_services.gateway.duplicates.scan import Scan
from imagesearch_services.gateway.duplicates.state import ProcessedImages, RecentPairs
from imagesearch_services.gateway.duplicates.tokens import DuplicateTokens, Position
from imagesearch_services.gateway.duplicates.traversal import Traversal
from imagesearch_services.gateway.duplicates.turns import Turns
from imagesearch_services.gateway.errors import library_type_mismatch
from imagesearch_services.gateway.library.cache import LibraryCache
from imagesearch_services.gateway.model import Library
from imagesearch_services.gateway.names import library_name
from imagesearch_services.gateway.ports import Catalog
from imagesearch_services.gateway.scoring.calibration import Calibrations, Threshold
from imagesearch_services.gateway.tokens import invalid_token

LOOSE_RATE_FACTOR = 5.0
"""Factor by which the false-positive rate is higher for pairs whose thumbnails are compared: the
comparison accepts fewer than 1 in 20 of the pairs that embeddings accept by chance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicateFinder:
    """Finds near-duplicates within a library."""

    catalog: Catalog
    check: CopyCheck
    libraries: LibraryCache
    calibrations: Calibrations
    tokens: DuplicateTokens
    turns: Turns
    """Limits the scans that compute at the same time."""
    default_max_false_positive_rate: float
    """Maximum false-positive rate of requests that set no threshold."""
    min_library_size: int
    """Minimum library size, in images, for which thresholds are computed."""
    limits: ScanLimits = field(default_factory=ScanLimits)

    async def reject(
        self, library_id: str, pairs: Sequence[tuple[str, str]], request_id: str
    ) -> int:
        """Store pairs of images that are not duplicates. Returns the number of new pairs."""
        return await self.catalog.reject_pairs(library_id, pairs, request_id)

    async def find(self, request: DuplicatesRequest) -> AsyncGenerator[DuplicatesUpdate, None]:
        """Yield groups and progress. The scan advances only as updates are consumed.

        Raises:
            ServiceError: LIBRARY_NOT_FOUND, LIBRARY_TYPE_MISMATCH, FILTER_INVALID,
                PAGE_TOKEN_INVALID, OVERLOADED; LIBRARY_CHANGED if the library was recreated
                during the scan.
        """
        with self.turns.take() as turn:
            library = await self.libraries.fetch(request.library_id)
            await self.tokens.prepare()
            scan = self._scan(request, library)
            async with aclosing(scan.run()) as updates:
                async for update in updates:
                    turn.pause()
                    yield update
                    await turn.resume()

    def _scan(self, request: DuplicatesRequest, library: Library) -> Scan:
        model = _copy_model(library)
        position = self._position(request, library)
        thresholds = self._thresholds(request, model, position.comparisons)
        reader = LibraryReader(
            catalog=self.catalog,
            library=library,
            filter=request.filter,
            space=model.space,
            keep=request.keep,
            min_closeness=thresholds.loose.min_similarity,
            limits=self.limits,
        )
        judge = PairJudge(
            library=library,
            check=self.check,
            thresholds=thresholds,
            non_copies=RecentPairs(self.limits.remembered_pairs),
        )
        processed = ProcessedImages()
        return Scan(
            reader=reader,
            traversal=Traversal(
                reader=reader, judge=judge, processed=processed, max_edges=self.limits.max_edges
            ),
            grouping=Grouping(
                reader=reader, judge=judge, processed=processed, began_after=position.after
            ),
            emitter=Emitter(
                reader=reader,
                tokens=self.tokens,
                calibration=thresholds.strict.calibration,
                position=position,
            ),
            processed=processed,
        )

    def _position(self, request: DuplicatesRequest, library: Library) -> Position:
        """Return the position at which the scan begins: the start, or that of the page token."""
        if not request.page_token:
            return Position(
                library_uid=library.uid,
                fingerprints=request.fingerprints,
                comparisons=max(library.image_count, self.min_library_size),
            )
        position = self.tokens.decode(request.page_token)
        if position.library_uid != library.uid:
            raise invalid_token("it belongs to another library")
        for name, value in request.fingerprints.items():
            if position.fingerprints.get(name) != value:
                raise invalid_token(f"it belongs to a call with a different {name}")
        return position

    def _thresholds(
        self, request: DuplicatesRequest, model: ModelVersion, comparisons: int
    ) -> Thresholds:
        rate = request.max_false_positive_rate
        if rate is None and request.min_score is None:
            rate = self.default_max_false_positive_rate

        def threshold(factor: float) -> Threshold:
            return Threshold.strictest(
                self.calibrations.of(model),
                comparisons=comparisons,
                rate_share=1.0,
                min_score=request.min_score,
                max_false_positive_rate=None if rate is None else min(1.0, rate * factor),
            )

        return Thresholds(strict=threshold(1.0), loose=threshold(LOOSE_RATE_FACTOR))


def _copy_model(library: Library) -> ModelVersion:
    model = library.model(roles.COPY)
    if library.type is not LibraryType.WHOLE_IMAGE or model is None:
        raise library_type_mismatch(
            library,
            f"{library_name(library.library_id)}: only whole-image libraries have duplicates",
        )
    return model
