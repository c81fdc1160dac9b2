"""Creating, listing, updating and deleting libraries, on both backends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from imagesearch.catalog.v1 import catalog_service_pb2 as pb
from imagesearch_services.common.errors import Reason
from tests.contract.catalog.support import Catalog, make_entry, refused, vector_at

pytestmark = pytest.mark.asyncio(loop_scope="session")

SPACES = [{"name": "copy@1", "dimensions": 16}, {"name": "words@2", "sparse": True}]


async def test_a_created_library_is_returned_unchanged(catalog: Catalog, new_id: str) -> None:
    created = await catalog.make_library(
        new_id,
        spaces=SPACES,
        models=[{"role": "copy", "name": "sscd", "version": "1"}],
        display_name="Näme",
        description="What it is",
        capacity=7,
        thumbnails_disabled=True,
    )
    assert len(created.uid) == 32
    assert int(created.uid, 16) >= 0
    assert created.create_time.ToNanoseconds() == created.update_time.ToNanoseconds() > 0
    assert (created.models[0].role, created.models[0].name) == ("copy", "sscd")
    assert [(space.name, space.dimensions, space.sparse) for space in created.spaces] == [
        ("copy@1", 16, False),
        ("words@2", 0, True),
    ]
    assert (created.display_name, created.capacity) == ("Näme", 7)
    assert await catalog.library(new_id) == created


async def test_an_existing_library_id_is_refused(catalog: Catalog, library: str) -> None:
    with refused(Reason.LIBRARY_ALREADY_EXISTS) as errors:
        await catalog.make_library(library)
    assert errors[0].metadata == {"library": f"libraries/{library}"}


async def test_concurrent_creations_of_one_id_create_one_library(
    catalog: Catalog, new_id: str
) -> None:
    outcomes = await asyncio.gather(
        *(catalog.make_library(new_id) for _ in range(8)), return_exceptions=True
    )
    made = [outcome for outcome in outcomes if isinstance(outcome, pb.Library)]
    assert len(made) == 1
    assert (await catalog.library(new_id)).uid == made[0].uid


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"library_id": ""}, Reason.FIELD_REQUIRED),
        ({"library_id": "Shop"}, Reason.FIELD_INVALID),
        ({"library_id": "1shop"}, Reason.FIELD_INVALID),
        ({"library_id": "s" * 64}, Reason.FIELD_INVALID),
        ({"library_id": "shop\n"}, Reason.FIELD_INVALID),
        ({"type": 0}, Reason.FIELD_REQUIRED),
        ({"type": 99}, Reason.FIELD_INVALID),
        ({"spaces": []}, Reason.FIELD_REQUIRED),
        ({"spaces": [{"name": "copy", "dimensions": 4}]}, Reason.FIELD_INVALID),
        ({"spaces": [{"name": "copy@1"}]}, Reason.FIELD_INVALID),
        ({"spaces": [{"name": "copy@1", "dimensions": -4}]}, Reason.FIELD_INVALID),
        ({"spaces": [{"name": "w@1", "dimensions": 4, "sparse": True}]}, Reason.FIELD_INVALID),
        ({"spaces": [{"name": "copy@1", "dimensions": 4}] * 2}, Reason.FIELD_INVALID),
        ({"capacity": -1}, Reason.FIELD_INVALID),
    ],
)
async def test_an_invalid_library_is_refused(
    catalog: Catalog, fields: dict[str, Any], reason: Reason
) -> None:
    library = {"library_id": "sound", "type": 1, "spaces": SPACES} | fields
    with refused(reason):
        await catalog.stub.CreateLibrary(pb.CreateLibraryRequest(library=pb.Library(**library)))
    with refused(Reason.LIBRARY_NOT_FOUND):
        await catalog.library("sound")


async def test_a_repeated_creation_returns_the_first_answer(catalog: Catalog, new_id: str) -> None:
    request = pb.CreateLibraryRequest(
        library=pb.Library(library_id=new_id, type=1, spaces=SPACES), request_id=f"make {new_id}"
    )
    first = await catalog.stub.CreateLibrary(request)
    assert await catalog.stub.CreateLibrary(request) == first
    request.library.display_name = "another call"
    with refused(Reason.REQUEST_ID_REUSED):
        await catalog.stub.CreateLibrary(request)
    with refused(Reason.REQUEST_ID_REUSED):
        await catalog.stub.DeleteLibrary(
            pb.DeleteLibraryRequest(library_id=new_id, request_id=request.request_id)
        )


async def test_a_request_id_that_is_too_long_is_refused(catalog: Catalog, library: str) -> None:
    with refused(Reason.FIELD_INVALID):
        await catalog.stub.DeleteLibrary(
            pb.DeleteLibraryRequest(library_id=library, request_id="r" * 129)
        )


async def test_pages_list_every_library_once_in_id_order(catalog: Catalog, new_id: str) -> None:
    made = [f"{new_id}-{letter}" for letter in "cab"]
    for library_id in made:
        await catalog.make_library(library_id)
    listed: list[str] = []
    token = ""
    while True:
        page = await catalog.stub.ListLibraries(
            pb.ListLibrariesRequest(page_size=2, page_token=token)
        )
        assert len(page.libraries) <= 2
        listed += [library.library_id for library in page.libraries]
        token = page.next_page_token
        if not token:
            break
    assert listed == sorted(set(listed))
    assert set(made) <= set(listed)


@pytest.mark.parametrize("token", ["x", "AAAA", "é", "a" * 200])
async def test_an_invalid_page_token_is_refused(catalog: Catalog, token: str) -> None:
    with refused(Reason.PAGE_TOKEN_INVALID):
        await catalog.stub.ListLibraries(pb.ListLibrariesRequest(page_token=token))


async def test_an_update_changes_only_the_fields_of_its_mask(catalog: Catalog, new_id: str) -> None:
    before = await catalog.make_library(new_id, display_name="old", description="kept")
    after = await catalog.stub.UpdateLibrary(
        pb.UpdateLibraryRequest(
            library=pb.Library(library_id=new_id, display_name="new", description="ignored"),
            update_mask=FieldMask(paths=["display_name"]),
        )
    )
    assert (after.display_name, after.description) == ("new", "kept")
    assert after.create_time == before.create_time
    assert after.update_time.ToNanoseconds() > before.update_time.ToNanoseconds()
    assert await catalog.library(new_id) == after


@pytest.mark.parametrize("path", ["uid", "spaces", "type", "entry_count", "nothing", "tag_types"])
async def test_immutable_fields_of_a_library_cannot_be_updated(
    catalog: Catalog, library: str, path: str
) -> None:
    with refused(Reason.FIELD_INVALID):
        await catalog.stub.UpdateLibrary(
            pb.UpdateLibraryRequest(
                library=pb.Library(library_id=library), update_mask=FieldMask(paths=[path])
            )
        )


async def test_new_entries_are_refused_if_the_capacity_is_below_the_count(
    catalog: Catalog, library: str
) -> None:
    await catalog.store(library, *(make_entry(f"image {number}") for number in range(3)))
    await catalog.stub.UpdateLibrary(
        pb.UpdateLibraryRequest(
            library=pb.Library(library_id=library, capacity=2),
            update_mask=FieldMask(paths=["capacity"]),
        )
    )
    (result,) = await catalog.put(library, make_entry("one more"))
    assert "2" in result.error.message
    assert (await catalog.library(library)).entry_count == 3
    # Existing entries may still be replaced.
    await catalog.store(library, make_entry("image 1"), allow_overwrite=[True])


async def test_deleting_a_library_deletes_its_entries(catalog: Catalog, new_id: str) -> None:
    old = await catalog.make_library(new_id)
    await catalog.store(new_id, make_entry("an image"))
    await catalog.stub.DeleteLibrary(pb.DeleteLibraryRequest(library_id=new_id))
    for call in (
        catalog.library(new_id),
        catalog.count(new_id),
        catalog.query(new_id, vector_at(0)),
        catalog.put(new_id, make_entry("another")),
        catalog.delete(new_id, "an image"),
    ):
        with refused(Reason.LIBRARY_NOT_FOUND):
            await call
    new = await catalog.make_library(new_id)
    assert new.uid != old.uid
    assert (await catalog.library(new_id)).entry_count == 0
    assert await catalog.get(new_id, "an image") == []
    with refused(Reason.LIBRARY_CHANGED):
        await catalog.query(new_id, vector_at(0), library_uid=old.uid)
    with refused(Reason.LIBRARY_CHANGED):
        await catalog.put(new_id, make_entry("another"), library_uid=old.uid)


async def test_a_repeated_deletion_succeeds(catalog: Catalog, library: str) -> None:
    request = pb.DeleteLibraryRequest(library_id=library, request_id=f"delete {library}")
    await catalog.stub.DeleteLibrary(request)
    await catalog.stub.DeleteLibrary(request)
    with refused(Reason.LIBRARY_NOT_FOUND):
        await catalog.stub.DeleteLibrary(pb.DeleteLibraryRequest(library_id=library))


async def test_counts_are_current_after_writes(catalog: Catalog, library: str) -> None:
    await catalog.store(library, *(make_entry(f"image {number}") for number in range(5)))
    await catalog.store(library, make_entry("image 0"), allow_overwrite=[True])
    await catalog.delete(library, "image 1", "image 2")
    counts = await catalog.library(library)
    assert counts.entry_count == 3
    assert counts.unindexed_vector_count == 3
