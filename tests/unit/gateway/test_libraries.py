"""Libraries: their models and their cache."""

from __future__ import annotations

import pytest

from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.types import LibraryType, ModelVersion
from imagesearch_services.gateway.library.cache import (
    CURRENT_MAX_AGE_S,
    KNOWN_MAX_AGE_S,
    LibraryCache,
)
from imagesearch_services.gateway.library.libraries import Libraries
from imagesearch_services.gateway.model import LibraryFields, ServedModel
from imagesearch_services.gateway.scoring.calibration import Calibrations
from tests.unit.gateway.fakes import (
    CALIBRATIONS,
    COPY,
    SEMANTIC,
    TABLE,
    FakeCatalog,
    FakeEmbedding,
    library,
)

WHOLE_IMAGE = frozenset({LibraryType.WHOLE_IMAGE})


def libraries(
    *served: ServedModel, calibrations: Calibrations = CALIBRATIONS
) -> tuple[Libraries, FakeCatalog]:
    catalog = FakeCatalog()
    embedding = FakeEmbedding(models=served or FakeEmbedding().models)
    return Libraries(embedding, catalog, LibraryCache(catalog), calibrations), catalog


async def create(service: Libraries, library_type: LibraryType = LibraryType.WHOLE_IMAGE) -> None:
    await service.create("shop", library_type, LibraryFields(), "")


async def test_a_library_has_the_models_served_for_its_type() -> None:
    other = ServedModel(ModelVersion("copy", "others", "1"), 4, frozenset({LibraryType.PRODUCT}))
    service, catalog = libraries(other, *FakeEmbedding().models)
    await create(service)
    assert list(catalog.library.models) == [COPY, SEMANTIC]


async def test_a_new_library_has_the_newest_version_of_a_model() -> None:
    served = [
        ServedModel(ModelVersion("copy", "copies", version), 4, WHOLE_IMAGE)
        for version in ("9", "10", "2")
    ]
    tables = {f"copies@{version}": TABLE for version in ("9", "10", "2")}
    service, catalog = libraries(
        *served,
        ServedModel(SEMANTIC, 4, WHOLE_IMAGE),
        calibrations=Calibrations({**tables, SEMANTIC.space: TABLE}),
    )
    await create(service)
    assert catalog.library.models[0].version == "10"


async def test_a_library_is_not_created_without_all_its_models() -> None:
    service, _ = libraries(ServedModel(COPY, 4, WHOLE_IMAGE))
    with pytest.raises(ServiceError, match="semantic") as caught:
        await create(service)
    assert caught.value.reason is Reason.MODEL_NOT_SERVED


async def test_a_library_is_not_created_without_a_calibration() -> None:
    service, _ = libraries(calibrations=Calibrations({COPY.space: TABLE}))
    with pytest.raises(ServiceError, match="meanings@1") as caught:
        await create(service)
    assert caught.value.reason is Reason.MODEL_NOT_SERVED


async def test_counts_are_cached_for_a_second_and_immutable_fields_for_a_minute() -> None:
    catalog, now_s = FakeCatalog(), [0.0]
    cache = LibraryCache(catalog, lambda: now_s[0])
    await cache.known("shop")
    now_s[0] = CURRENT_MAX_AGE_S - 0.01
    await cache.current("shop")
    assert catalog.library_reads == 1
    now_s[0] = CURRENT_MAX_AGE_S
    await cache.current("shop")
    assert catalog.library_reads == 2
    now_s[0] = CURRENT_MAX_AGE_S + KNOWN_MAX_AGE_S - 0.01
    await cache.known("shop")
    assert catalog.library_reads == 2
    now_s[0] = CURRENT_MAX_AGE_S + KNOWN_MAX_AGE_S
    await cache.known("shop")
    assert catalog.library_reads == 3


async def test_a_deleted_library_is_removed_from_the_cache() -> None:
    catalog = FakeCatalog()
    cache = LibraryCache(catalog, lambda: 0.0)
    await cache.known("shop")
    catalog.library = library(library_id="other")

    async def raise_not_found(_: object) -> None:
        raise ServiceError(Reason.LIBRARY_NOT_FOUND, "gone")

    with pytest.raises(ServiceError):
        await cache.using("shop", raise_not_found)
    with pytest.raises(ServiceError) as caught:
        await cache.known("shop")
    assert caught.value.reason is Reason.LIBRARY_NOT_FOUND
