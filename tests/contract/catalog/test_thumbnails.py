"""Thumbnails are stored, replaced and deleted with their entries, on both backends."""

from __future__ import annotations

import re

import pytest

from imagesearch.catalog.v1 import catalog_service_pb2 as pb
from imagesearch_services.common.errors import Reason
from tests.contract.catalog.support import Catalog, make_entry, refused, vector_at, where
from tests.waiting import until

JPEG, OTHER_JPEG = b"\xff\xd8 one \xff\xd9", b"\xff\xd8 another \xff\xd9"

HOSTILE_IDS = ["..", "..\\..\\x", "%2e%2e%2fx", "..\u2044x", ".hidden", "C:x"]

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def blob_names(catalog: Catalog, library_id: str) -> list[str]:
    return await catalog.blob_names((await catalog.library(library_id)).uid)


async def test_a_thumbnail_is_returned_unchanged(catalog: Catalog, library: str) -> None:
    (stored,) = await catalog.store(library, make_entry("a", thumbnail=JPEG))
    assert stored.has_thumbnail
    assert await catalog.thumbnails(library, "a") == [JPEG]


async def test_thumbnails_are_returned_only_if_requested(catalog: Catalog, library: str) -> None:
    (stored,) = await catalog.store(library, make_entry("a", thumbnail=JPEG))
    (read,) = await catalog.get(library, "a", include_vectors=True, include_features=True)
    ((hit,),) = await catalog.query(library, vector_at(0), include_entries=True)
    assert stored.thumbnail == read.thumbnail == hit.entry.thumbnail == b""
    assert read.has_thumbnail


async def test_a_query_returns_the_thumbnails_of_its_first_hits(
    catalog: Catalog, library: str
) -> None:
    await catalog.store(
        library,
        make_entry("a", vector_at(0), thumbnail=JPEG),
        make_entry("b", vector_at(5)),
        make_entry("c", vector_at(10), thumbnail=OTHER_JPEG),
        make_entry("d", vector_at(15), thumbnail=JPEG),
    )
    queries = (vector_at(0), vector_at(20))
    results = await catalog.query(library, *queries, include_entries=True, thumbnail_count=3)
    assert [[hit.entry.thumbnail for hit in hits] for hits in results] == [
        [JPEG, b"", OTHER_JPEG, b""],
        [JPEG, OTHER_JPEG, b"", b""],
    ]


async def test_a_query_returns_the_thumbnail_of_a_replaced_entry(
    catalog: Catalog, library: str
) -> None:
    await catalog.store(library, make_entry("a", thumbnail=JPEG))
    await catalog.store(library, make_entry("a", thumbnail=OTHER_JPEG), allow_overwrite=[True])
    ((hit,),) = await catalog.query(
        library, vector_at(0), include_entries=True, thumbnail_count=1, distinct_entities=True
    )
    assert hit.entry.thumbnail == OTHER_JPEG


async def test_a_query_with_too_many_thumbnails_is_refused(catalog: Catalog, library: str) -> None:
    for count, vectors in ((101, 1), (51, 2), (-1, 1)):
        with refused(Reason.FIELD_INVALID):
            await catalog.query(
                library, *[vector_at(0)] * vectors, include_entries=True, thumbnail_count=count
            )
    with refused(Reason.FIELD_INVALID):
        await catalog.query(library, vector_at(0), thumbnail_count=1)


async def test_thumbnails_are_returned_in_the_requested_order(
    catalog: Catalog, library: str
) -> None:
    await catalog.store(
        library,
        make_entry("a", thumbnail=JPEG),
        make_entry("b", thumbnail=OTHER_JPEG),
        make_entry("none"),
    )
    image_ids = ["b", "none", "nobody", "a", "b"]
    assert await catalog.thumbnails(library, *image_ids) == [OTHER_JPEG, b"", b"", JPEG, OTHER_JPEG]
    assert await catalog.thumbnails(library) == []


async def test_has_thumbnail_is_false_without_a_thumbnail(catalog: Catalog, library: str) -> None:
    (stored,) = await catalog.store(library, make_entry("a"))
    assert not stored.has_thumbnail
    assert await blob_names(catalog, library) == []


async def test_replacing_an_entry_replaces_or_deletes_its_thumbnail(
    catalog: Catalog, library: str
) -> None:
    await catalog.store(library, make_entry("a", thumbnail=JPEG))
    await catalog.store(library, make_entry("a", thumbnail=OTHER_JPEG), allow_overwrite=[True])
    assert await catalog.thumbnails(library, "a") == [OTHER_JPEG]
    assert len(await blob_names(catalog, library)) == 1

    (stored,) = await catalog.store(library, make_entry("a"), allow_overwrite=[True])
    assert not stored.has_thumbnail
    assert await catalog.thumbnails(library, "a") == [b""]
    assert await blob_names(catalog, library) == []


async def test_of_two_entries_with_the_same_id_the_thumbnail_of_the_last_is_stored(
    catalog: Catalog, library: str
) -> None:
    entries = [make_entry("a", thumbnail=JPEG), make_entry("a", thumbnail=OTHER_JPEG)]
    await catalog.store(library, *entries, allow_overwrite=[True, True])
    assert await catalog.thumbnails(library, "a") == [OTHER_JPEG]
    assert len(await blob_names(catalog, library)) == 1


async def test_a_refused_entry_leaves_no_blob(catalog: Catalog, library: str) -> None:
    await catalog.store(library, make_entry("a", thumbnail=JPEG))
    (result,) = await catalog.put(library, make_entry("a", thumbnail=OTHER_JPEG))
    assert result.HasField("error")
    assert await catalog.thumbnails(library, "a") == [JPEG]
    assert len(await blob_names(catalog, library)) == 1


async def test_a_repeated_put_keeps_the_thumbnail(catalog: Catalog, library: str) -> None:
    for _ in range(2):
        (result,) = await catalog.put(
            library, make_entry("a", thumbnail=JPEG), request_ids=[f"put {library}"]
        )
        assert result.entry.has_thumbnail
        assert not result.warnings
    assert await catalog.thumbnails(library, "a") == [JPEG]
    assert len(await blob_names(catalog, library)) == 1


async def test_an_update_keeps_the_thumbnail(catalog: Catalog, library: str) -> None:
    await catalog.store(library, make_entry("a", thumbnail=JPEG))
    updated = await catalog.update(library, pb.Entry(image_id="a", entity_id="e"), "entity_id")
    assert updated.has_thumbnail
    assert await catalog.thumbnails(library, "a") == [JPEG]


async def test_deleting_entries_deletes_their_blobs(catalog: Catalog, library: str) -> None:
    await catalog.store(
        library,
        *(make_entry(f"{n}", thumbnail=JPEG, tags={"odd": n % 2 == 1}) for n in range(6)),
    )
    assert await catalog.delete(library, "0", "nobody") == 1
    assert await catalog.delete(library, filter=where("tags.odd", "=", True)) == 3
    assert len(await blob_names(catalog, library)) == 2
    assert await catalog.thumbnails(library, "0", "1", "2") == [b"", b"", JPEG]


async def test_deleting_a_library_deletes_its_blobs(catalog: Catalog, library: str) -> None:
    uid = (await catalog.library(library)).uid
    await catalog.store(library, make_entry("a", thumbnail=JPEG))
    assert await catalog.blob_names(uid)
    await catalog.stub.DeleteLibrary(pb.DeleteLibraryRequest(library_id=library))

    async def is_deleted() -> bool:
        return not await catalog.blob_names(uid)

    await until(is_deleted)
    await catalog.make_library(library)
    assert await catalog.thumbnails(library, "a") == [b""]
    with refused(Reason.LIBRARY_CHANGED):
        await catalog.thumbnails(library, "a", library_uid=uid)


async def test_a_library_with_disabled_thumbnails_stores_no_thumbnail(
    catalog: Catalog, new_id: str
) -> None:
    await catalog.make_library(new_id, thumbnails_disabled=True)
    (result,) = await catalog.put(new_id, make_entry("a", thumbnail=JPEG))
    assert not result.entry.has_thumbnail
    assert not result.warnings
    assert await catalog.thumbnails(new_id, "a") == [b""]
    assert await blob_names(catalog, new_id) == []


@pytest.mark.parametrize("image_id", HOSTILE_IDS)
async def test_blob_names_do_not_contain_image_ids(
    catalog: Catalog, library: str, image_id: str
) -> None:
    await catalog.store(library, make_entry(image_id, thumbnail=JPEG))
    assert await catalog.thumbnails(library, image_id) == [JPEG]
    (name,) = await blob_names(catalog, library)
    assert re.fullmatch(r"[0-9a-f]{32}/[0-9a-f]{2}/[0-9a-f]{32}-[0-9a-f]{24}\.jpg", name)


async def test_an_oversized_thumbnail_is_refused(catalog: Catalog, library: str) -> None:
    large = make_entry("a", thumbnail=bytes((1 << 20) + 1))
    (result,) = await catalog.put(library, large)
    assert "thumbnail: must have at most" in result.error.message
    (stored,) = await catalog.store(library, make_entry("a", thumbnail=bytes(1 << 20)))
    assert stored.has_thumbnail


async def test_too_many_thumbnails_are_refused(catalog: Catalog, library: str) -> None:
    with refused(Reason.FIELD_INVALID):
        await catalog.thumbnails(library, *(f"{n}" for n in range(101)))
    with refused(Reason.LIBRARY_NOT_FOUND):
        await catalog.thumbnails("nowhere", "a")


async def test_a_missing_blob_is_not_an_error(catalog: Catalog, library: str) -> None:
    await catalog.store(library, make_entry("a", thumbnail=JPEG))
    await catalog.blobs.delete(await blob_names(catalog, library))
    assert await catalog.thumbnails(library, "a") == [b""]
    ((hit,),) = await catalog.query(library, vector_at(0), include_entries=True, thumbnail_count=1)
    assert hit.entry.thumbnail == b""
    assert await catalog.delete(library, "a") == 1
