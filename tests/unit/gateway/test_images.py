"""Adding pictures: isolation of errors, order, and concurrent embedding and storing."""

from __future__ import annotations

import pytest

from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.types import Box
from imagesearch_services.gateway.library.cache import LibraryCache
from imagesearch_services.gateway.library.images import Images
from imagesearch_services.gateway.model import ImageFields, NewImage, StoredImage
from imagesearch_services.gateway.settings import AddSettings
from tests.unit.gateway.fakes import COPY, SEMANTIC, FakeCatalog, FakeEmbedding, library

UNREADABLE = ServiceError(Reason.IMAGE_UNREADABLE, "no picture")


def images(embedding: FakeEmbedding, catalog: FakeCatalog, **settings: int) -> Images:
    return Images(embedding, catalog, LibraryCache(catalog), AddSettings(**settings))


def picture(image_id: str, content: bytes = b"good", **changes: object) -> NewImage:
    fields = ImageFields()
    return NewImage(image_id=image_id, content=content, fields=fields, **changes)  # type: ignore[arg-type]


def outcomes(results: list[StoredImage | ServiceError]) -> list[str]:
    return [
        result.reason.value if isinstance(result, ServiceError) else result.image_id
        for result in results
    ]


async def test_a_picture_is_embedded_into_all_spaces_and_stored_with_its_fields() -> None:
    embedding, catalog = FakeEmbedding(), FakeCatalog()
    box = Box(1, 2, 3, 4)
    await images(embedding, catalog).add(
        "shop", picture("a", region=box, allow_overwrite=True, request_id="r")
    )
    assert embedding.calls[0][1] == [COPY.space, SEMANTIC.space]
    ((entry,),) = catalog.puts
    assert (entry.image_id, entry.region, entry.allow_overwrite, entry.request_id) == (
        "a",
        box,
        True,
        "r",
    )
    assert [vector.space for vector in entry.vectors] == [COPY.space, SEMANTIC.space]


async def test_a_batch_is_embedded_in_chunks_and_stored_in_order() -> None:
    embedding, catalog = FakeEmbedding(), FakeCatalog()
    batch = [picture(f"{row}") for row in range(10)]
    results = await images(embedding, catalog, chunk_pictures=4).add_all("shop", batch)
    assert outcomes(results) == [f"{row}" for row in range(10)]
    assert [[entry.image_id for entry in put] for put in catalog.puts] == [
        ["0", "1", "2", "3"],
        ["4", "5", "6", "7"],
        ["8", "9"],
    ]


async def test_the_next_chunk_is_embedded_while_a_chunk_is_stored() -> None:
    embedding, catalog = FakeEmbedding(), FakeCatalog()
    embedded_at_put: list[int] = []
    put_entries = catalog.put_entries

    async def recording(*arguments: object) -> object:
        embedded_at_put.append(len(embedding.calls))
        return await put_entries(*arguments)  # type: ignore[arg-type]

    catalog.put_entries = recording  # type: ignore[assignment,method-assign]
    batch = [picture(f"{row}") for row in range(4)]
    await images(embedding, catalog, chunk_pictures=1, chunks_in_flight=2).add_all("shop", batch)
    assert embedded_at_put[0] == 2
    assert embedded_at_put[-1] == 4


async def test_an_invalid_picture_does_not_fail_the_others() -> None:
    embedding, catalog = FakeEmbedding(failures={b"bad": UNREADABLE}), FakeCatalog()
    batch: list[NewImage | ServiceError] = [
        picture("a"),
        ServiceError(Reason.FIELD_INVALID, "not even tried"),
        picture("b", b"bad"),
        picture("c", subject_detection=True),
        picture("d"),
    ]
    results = await images(embedding, catalog).add_all("shop", batch)
    assert outcomes(results) == [
        "a",
        "FIELD_INVALID",
        "IMAGE_UNREADABLE",
        "LIBRARY_TYPE_MISMATCH",
        "d",
    ]
    assert len(embedding.calls[0][0]) == 3


async def test_a_batch_of_invalid_items_calls_no_service() -> None:
    embedding, catalog = FakeEmbedding(), FakeCatalog()
    error = ServiceError(Reason.FIELD_INVALID, "not even tried")
    assert await images(embedding, catalog).add_all("shop", [error, error]) == [error, error]
    assert not embedding.calls
    assert not catalog.puts


async def test_an_unavailable_service_fails_the_pictures_not_the_batch() -> None:
    embedding, catalog = FakeEmbedding(), FakeCatalog()
    catalog.put_error = ServiceError(Reason.CATALOG_UNAVAILABLE, "gone")
    results = await images(embedding, catalog).add_all("shop", [picture("a"), picture("b")])
    assert outcomes(results) == ["CATALOG_UNAVAILABLE"] * 2


async def test_a_batch_for_an_unknown_library_fails_as_a_whole() -> None:
    with pytest.raises(ServiceError) as caught:
        await images(FakeEmbedding(), FakeCatalog()).add_all("other", [picture("a")])
    assert caught.value.reason is Reason.LIBRARY_NOT_FOUND


async def test_adding_to_a_recreated_library_succeeds() -> None:
    embedding, catalog = FakeEmbedding(), FakeCatalog()
    adding = images(embedding, catalog)
    await adding.add("shop", picture("a"))
    catalog.library = library(uid="2" * 32)
    assert (await adding.add("shop", picture("b"))).image_id == "b"
