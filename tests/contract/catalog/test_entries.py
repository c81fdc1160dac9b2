"""Storing, reading, updating, deleting and listing entries, on both backends."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import numpy as np
import pytest

from imagesearch.catalog.v1 import catalog_service_pb2 as pb
from imagesearch.catalog.v1 import filter_pb2
from imagesearch.type.v1 import category_pb2
from imagesearch_services.common.errors import Reason
from imagesearch_services.common.status import from_status
from tests.contract.catalog.support import (
    OTHER_DIMENSIONS,
    OTHER_SPACE,
    SPACE,
    SPACE_DIMENSIONS,
    Catalog,
    all_of,
    has,
    make_entry,
    random_units,
    reason_of,
    refused,
    tag,
    vector_at,
    where,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")


def full_entry() -> pb.Entry:
    return make_entry(
        "folder%2Fcat é.jpg",
        vector_at(30),
        entity_id="cat",
        category=category_pb2.CATEGORY_BAG,
        tags={"brand": "acme", "stock": 2**62 + 1, "price": 7.0, "new": True, "old": False},
        custom_content='{"any": "thing"}\0',
        region={"x_min": 1.5, "y_min": 2, "x_max": 30, "y_max": 40},
        subject={
            "box": {"x_min": 1, "y_min": 2, "x_max": 3, "y_max": 4},
            "category": category_pb2.CATEGORY_DRESS,
            "score": 0.5,
            "colors": [{"name": "red", "hex": "#ff0000", "share": 0.75}],
            "attributes": [{"name": "pattern", "value": "striped", "score": 0.25}],
        },
        info={
            "width": 640,
            "height": 480,
            "size_bytes": 2**40,
            "sha256": "ab" * 32,
            "media_type": "image/jpeg",
            "sharpness": 123.456,
        },
        features=bytes(range(256)),
    )


async def test_a_stored_entry_is_returned_unchanged(catalog: Catalog, library: str) -> None:
    sent = full_entry()
    (stored,) = await catalog.store(library, sent)
    expected = pb.Entry()
    expected.CopyFrom(sent)
    expected.ClearField("vectors")
    expected.ClearField("features")
    expected.uid = stored.uid
    expected.create_time.CopyFrom(stored.create_time)
    expected.update_time.CopyFrom(stored.create_time)
    assert stored == expected
    assert len(stored.uid) == 16
    (read,) = await catalog.get(library, sent.image_id)
    assert read == stored


async def test_vectors_and_features_are_returned_if_requested(
    catalog: Catalog, library: str
) -> None:
    sent = full_entry()
    sent.vectors[0].values = random_units(1)[0]
    await catalog.store(library, sent)
    (read,) = await catalog.get(library, sent.image_id, include_vectors=True, include_features=True)
    assert read.features == sent.features
    assert [vector.space for vector in read.vectors] == [SPACE]
    np.testing.assert_allclose(
        np.frombuffer(read.vectors[0].values, "<f4"),
        np.frombuffer(sent.vectors[0].values, "<f4"),
        atol=1e-6,
    )


async def test_a_minimal_entry_has_only_ids_and_times(catalog: Catalog, library: str) -> None:
    await catalog.store(library, make_entry("bare"))
    (read,) = await catalog.get(library, "bare")
    assert {field.name for field, _ in read.ListFields()} == {
        "image_id",
        "uid",
        "create_time",
        "update_time",
    }


async def test_an_existing_image_id_is_refused(catalog: Catalog, library: str) -> None:
    await catalog.store(library, make_entry("image", vector_at(0)))
    (result,) = await catalog.put(library, make_entry("image", vector_at(90)))
    assert reason_of(result) is Reason.IMAGE_ALREADY_EXISTS
    (hit,) = (await catalog.query(library, vector_at(0)))[0]
    assert hit.similarity == pytest.approx(1)


async def test_overwriting_replaces_everything_but_the_create_time(
    catalog: Catalog, library: str
) -> None:
    (first,) = await catalog.store(library, make_entry("image", entity_id="a", tags={"n": 1}))
    (second,) = await catalog.store(
        library, make_entry("image", vector_at(90), tags={"m": 2}), allow_overwrite=[True]
    )
    assert second.create_time == first.create_time
    assert second.update_time.ToNanoseconds() > first.update_time.ToNanoseconds()
    (read,) = await catalog.get(library, "image")
    assert read == second
    assert not read.entity_id
    assert set(read.tags) == {"m"}
    (hit,) = (await catalog.query(library, vector_at(90)))[0]
    assert hit.similarity == pytest.approx(1)
    assert (await catalog.library(library)).entry_count == 1


async def test_an_item_can_overwrite_an_earlier_item_of_the_same_call(
    catalog: Catalog, library: str
) -> None:
    results = await catalog.put(
        library,
        make_entry("twice", entity_id="first"),
        make_entry("twice", entity_id="refused"),
        make_entry("twice", entity_id="last"),
        allow_overwrite=[False, False, True],
    )
    assert [reason_of(result) for result in results] == [
        None,
        Reason.IMAGE_ALREADY_EXISTS,
        None,
    ]
    (read,) = await catalog.get(library, "twice")
    assert read.entity_id == "last"
    assert await catalog.count(library) == 1


async def test_concurrent_puts_of_one_id_store_one_entry(catalog: Catalog, library: str) -> None:
    outcomes = await asyncio.gather(
        *(catalog.put(library, make_entry("image", entity_id=str(n))) for n in range(8))
    )
    stored = [result.entry for (result,) in outcomes if reason_of(result) is None]
    assert len(stored) == 1
    assert await catalog.get(library, "image") == stored


async def test_a_repeated_put_returns_the_stored_entry(catalog: Catalog, library: str) -> None:
    (first,) = await catalog.store(library, make_entry("image"), request_ids=["r1"])
    (again,) = await catalog.store(library, make_entry("image"), request_ids=["r1"])
    assert again == first
    (other,) = await catalog.put(library, make_entry("image"), request_ids=["r2"])
    assert reason_of(other) is Reason.IMAGE_ALREADY_EXISTS


async def test_items_beyond_the_capacity_are_refused_in_order(
    catalog: Catalog, new_id: str
) -> None:
    await catalog.make_library(new_id, capacity=2)
    results = await catalog.put(new_id, *(make_entry(name) for name in ("a", "b", "c")))
    assert [reason_of(result) for result in results] == [None, None, Reason.LIBRARY_FULL]
    error = from_status(results[2].error)
    assert error is not None
    assert error.metadata == {"library": f"libraries/{new_id}", "capacity": "2"}
    await catalog.delete(new_id, "a")
    await catalog.store(new_id, make_entry("c"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"image_id": ""}, Reason.FIELD_REQUIRED),
        ({"image_id": "é" * 128}, Reason.FIELD_INVALID),
        ({"image_id": "a/b"}, Reason.FIELD_INVALID),
        ({"image_id": "a\nb"}, Reason.FIELD_INVALID),
        ({"entity_id": "e" * 256}, Reason.FIELD_INVALID),
        ({"custom_content": "c" * 4097}, Reason.FIELD_INVALID),
        ({"category": 99}, Reason.FIELD_INVALID),
        ({"subject": {"category": 99}}, Reason.FIELD_INVALID),
        ({"tags": {"1st": tag(1)}}, Reason.FIELD_INVALID),
        ({"tags": {"a-b": tag(1)}}, Reason.FIELD_INVALID),
        ({"tags": {"n": tag("v" * 1025)}}, Reason.FIELD_INVALID),
        ({"tags": {"n": tag(float("nan"))}}, Reason.FIELD_INVALID),
        ({"tags": {f"t{n}": tag(n) for n in range(65)}}, Reason.FIELD_INVALID),
        ({"tags": {"unset": {}}}, Reason.FIELD_REQUIRED),
        ({"region": {"x_min": float("inf")}}, Reason.FIELD_INVALID),
        ({"vectors": []}, Reason.FIELD_INVALID),
        ({"vectors": [{"space": "other@1", "values": vector_at(0)}]}, Reason.FIELD_INVALID),
        ({"vectors": [{"space": SPACE, "values": vector_at(0)[4:]}]}, Reason.FIELD_INVALID),
        ({"vectors": [{"space": SPACE, "values": vector_at(0)}] * 2}, Reason.FIELD_INVALID),
        ({"vectors": [{"space": SPACE, "values": bytes(64)}]}, Reason.FIELD_INVALID),
        (
            {"vectors": [{"space": SPACE, "values": np.full(16, np.nan, "<f4").tobytes()}]},
            Reason.FIELD_INVALID,
        ),
        (
            {"vectors": [{"space": SPACE, "values": np.full(16, 0.2525, "<f4").tobytes()}]},
            Reason.FIELD_INVALID,
        ),
    ],
)
async def test_an_invalid_item_does_not_fail_the_others(
    catalog: Catalog, library: str, change: dict[str, Any], reason: Reason
) -> None:
    bad = pb.Entry(
        **{"image_id": "bad", "vectors": [{"space": SPACE, "values": vector_at(0)}]} | change
    )
    results = await catalog.put(library, make_entry("before"), bad, make_entry("after"))
    assert [reason_of(result) for result in results] == [None, reason, None]
    error = from_status(results[1].error)
    assert error is not None
    assert error.fields[0].field.startswith("entries[1]")
    assert await catalog.find(library) == {"before", "after"}


async def test_an_entry_needs_a_vector_of_each_dense_space(catalog: Catalog, new_id: str) -> None:
    spaces = [
        {"name": SPACE, "dimensions": SPACE_DIMENSIONS},
        {"name": OTHER_SPACE, "dimensions": OTHER_DIMENSIONS},
    ]
    await catalog.make_library(new_id, spaces=spaces)
    whole = make_entry("whole")
    whole.vectors.add(space=OTHER_SPACE, values=random_units(1, OTHER_DIMENSIONS)[0])
    results = await catalog.put(new_id, make_entry("half"), whole)
    assert [reason_of(result) for result in results] == [Reason.FIELD_INVALID, None]


@pytest.mark.parametrize(
    "request_fields",
    [
        {"entries": []},
        {"entries": [make_entry(str(n)) for n in range(1001)]},
        {"entries": [make_entry("a")], "allow_overwrite": [True, False]},
        {"entries": [make_entry("a")], "request_ids": ["r", "s"]},
    ],
    ids=["no entry", "too many entries", "overwrite flags of two", "request ids of two"],
)
async def test_an_invalid_batch_is_refused_as_a_whole(
    catalog: Catalog, library: str, request_fields: dict[str, Any]
) -> None:
    with refused(Reason.FIELD_INVALID):
        await catalog.stub.PutEntries(pb.PutEntriesRequest(library_id=library, **request_fields))
    assert await catalog.count(library) == 0


async def test_the_first_use_of_a_tag_fixes_its_type(catalog: Catalog, library: str) -> None:
    results = await catalog.put(
        library,
        make_entry("float", tags={"price": 1.5}),
        make_entry("flag", tags={"price": True}),
        make_entry("other", tags={"price": "1", "fresh": 1}),
    )
    assert [reason_of(result) for result in results] == [
        None,
        Reason.TAG_TYPE_MISMATCH,
        Reason.TAG_TYPE_MISMATCH,
    ]
    error = from_status(results[1].error)
    assert error is not None
    assert error.metadata == {"tag": "price", "expected": "float", "actual": "boolean"}
    # A refused item does not fix the type of a tag.
    await catalog.store(library, make_entry("free", tags={"fresh": "string"}))


async def test_concurrent_first_uses_of_a_tag_agree_on_a_type(
    catalog: Catalog, library: str
) -> None:
    values: list[str | float | bool] = ["a", 1, True]
    outcomes = await asyncio.gather(
        *(
            catalog.put(library, make_entry(f"{n}", tags={"contested": value}))
            for n, value in enumerate(values * 3)
        )
    )
    stored = [n for n, (result,) in enumerate(outcomes) if reason_of(result) is None]
    assert len(stored) == 3
    assert len({n % 3 for n in stored}) == 1
    assert await catalog.find(library, has("tags.contested")) == {str(n) for n in stored}


async def test_entries_are_returned_in_the_requested_order(catalog: Catalog, library: str) -> None:
    stored = await catalog.store(library, *(make_entry(name) for name in "abcd"))
    uid_of = {entry.image_id: entry.uid for entry in stored}
    read = await catalog.get(library, "c", "gone", "a", uids=[uid_of["d"], uid_of["a"], bytes(16)])
    assert [entry.image_id for entry in read] == ["c", "a", "d", "a"]


async def test_the_uid_of_an_entry_depends_only_on_its_image_id(
    catalog: Catalog, library: str, new_id: str
) -> None:
    await catalog.make_library(new_id)
    (here,) = await catalog.store(library, make_entry("image"))
    (there,) = await catalog.store(new_id, make_entry("image"))
    namespace = uuid.UUID("6f9f0c52-7d0f-5c7e-9a37-0d6c2f6b8a11")
    assert here.uid == there.uid == uuid.uuid5(namespace, "image").bytes


async def test_an_update_changes_only_the_fields_of_its_mask(
    catalog: Catalog, library: str
) -> None:
    sent = full_entry()
    (before,) = await catalog.store(library, sent)
    changes = pb.Entry(
        image_id=sent.image_id,
        entity_id="dog",
        custom_content="ignored",
        tags={"brand": tag("other"), "size": tag(3), "stock": tag(1)},
    )
    after = await catalog.update(
        library, changes, "entity_id", "category", "tags.brand", "tags.size", "tags.old"
    )
    expected = pb.Entry()
    expected.CopyFrom(before)
    expected.entity_id = "dog"
    expected.category = category_pb2.CATEGORY_UNSPECIFIED
    expected.tags["brand"].string_value = "other"
    expected.tags["size"].int_value = 3
    del expected.tags["old"]
    expected.update_time.CopyFrom(after.update_time)
    assert after == expected
    assert after.update_time.ToNanoseconds() > before.update_time.ToNanoseconds()
    (read,) = await catalog.get(library, sent.image_id, include_vectors=True, include_features=True)
    assert read.features == sent.features
    assert len(read.vectors) == 1
    read.ClearField("features")
    read.ClearField("vectors")
    assert read == after
    assert await catalog.find(library, where("tags.size", "=", 3)) == {sent.image_id}
    assert await catalog.find(library, has("category")) == set()


async def test_all_tags_can_be_replaced_at_once(catalog: Catalog, library: str) -> None:
    await catalog.store(library, make_entry("image", tags={"a": 1, "b": 2}))
    changes = pb.Entry(image_id="image", tags={"b": tag(3)})
    assert dict((await catalog.update(library, changes, "tags")).tags) == {"b": tag(3)}
    cleared = await catalog.update(library, pb.Entry(image_id="image"), "tags")
    assert not cleared.tags
    assert await catalog.find(library, has("tags.b")) == set()


async def test_an_invalid_update_is_refused(catalog: Catalog, library: str) -> None:
    await catalog.store(library, make_entry("image", tags={"n": 1}))
    with refused(Reason.IMAGE_NOT_FOUND):
        await catalog.update(library, pb.Entry(image_id="gone"), "entity_id")
    wrong = pb.Entry(image_id="image", tags={"n": tag("text")})
    with refused(Reason.TAG_TYPE_MISMATCH):
        await catalog.update(library, wrong, "tags.n")
    for path in ("image_id", "info", "tags.", "tags.a-b", "entity_id.x", "nothing"):
        with refused(Reason.FIELD_INVALID):
            await catalog.update(library, pb.Entry(image_id="image"), path)
    with refused(Reason.FIELD_REQUIRED):
        await catalog.update(library, pb.Entry(image_id="image"))


async def test_a_repeated_update_returns_the_first_answer(catalog: Catalog, library: str) -> None:
    await catalog.store(library, make_entry("image"))
    changes = pb.Entry(image_id="image", entity_id="a")
    first = await catalog.update(library, changes, "entity_id", request_id=f"u {library}")
    await catalog.update(library, pb.Entry(image_id="image", entity_id="b"), "entity_id")
    again = await catalog.update(library, changes, "entity_id", request_id=f"u {library}")
    assert again == first
    (read,) = await catalog.get(library, "image")
    assert read.entity_id == "b"


async def test_a_deletion_by_ids_counts_only_existing_entries(
    catalog: Catalog, library: str
) -> None:
    await catalog.store(library, *(make_entry(name) for name in "abc"))
    assert await catalog.delete(library, "a", "gone", "b", "a") == 2
    assert await catalog.find(library) == {"c"}
    assert await catalog.nearest(library, vector_at(0)) == ["c"]


async def test_deleting_by_filter_deletes_every_matching_entry(
    catalog: Catalog, library: str
) -> None:
    await catalog.store(
        library, *(make_entry(f"{n}", tags={"n": n, "odd": n % 2 == 1}) for n in range(1000))
    )
    await catalog.store(
        library, *(make_entry(f"{n}", tags={"odd": True}) for n in range(1000, 1700))
    )
    assert await catalog.delete(library, filter=where("tags.odd", "=", True)) == 1200
    assert await catalog.count(library) == 500
    assert await catalog.delete(library, filter=where("tags.never", "=", 1)) == 0
    assert await catalog.delete(library, filter=all_of()) == 500
    assert await catalog.count(library) == 0


async def test_deleting_needs_ids_or_a_filter(catalog: Catalog, library: str) -> None:
    await catalog.store(library, make_entry("a"))
    with refused(Reason.FIELD_INVALID):
        await catalog.delete(library)
    with refused(Reason.FIELD_INVALID):
        await catalog.delete(library, "a", filter=all_of())
    with refused(Reason.FIELD_INVALID):
        await catalog.delete(library, filter=filter_pb2.Filter())
    assert await catalog.count(library) == 1


async def test_a_repeated_deletion_returns_the_first_count(catalog: Catalog, library: str) -> None:
    await catalog.store(library, make_entry("a"))
    assert await catalog.delete(library, "a", request_id=f"d {library}") == 1
    await catalog.store(library, make_entry("a"))
    assert await catalog.delete(library, "a", request_id=f"d {library}") == 1
    assert await catalog.count(library) == 1


async def list_page(
    catalog: Catalog, library: str, token: str = "", **options: Any
) -> pb.ListEntriesResponse:
    options.setdefault("page_size", 7)
    return await catalog.stub.ListEntries(
        pb.ListEntriesRequest(library_id=library, page_token=token, **options)
    )


async def test_pages_list_each_entry_once_during_concurrent_writes(
    catalog: Catalog, library: str
) -> None:
    kept = {f"kept {n}" for n in range(40)}
    to_delete = [f"to delete {n}" for n in range(40)]
    await catalog.store(library, *(make_entry(name) for name in sorted(kept) + to_delete))
    listed: list[pb.Entry] = []
    token = ""
    for turn in range(100):
        page = await list_page(catalog, library, token)
        listed += page.entries
        token = page.next_page_token
        if not token:
            break
        await catalog.store(library, make_entry(f"new {turn}"))
        # Delete the entry that the page token refers to, too.
        deleted = {page.entries[-1].image_id, to_delete[turn]} - kept
        await catalog.delete(library, *deleted)
    names = [entry.image_id for entry in listed]
    assert len(set(names)) == len(names)
    assert kept <= set(names)
    uids = [entry.uid for entry in listed]
    assert uids == sorted(uids)


async def test_a_page_reports_the_exact_total(catalog: Catalog, library: str) -> None:
    await catalog.store(library, *(make_entry(f"{n}", tags={"n": n}) for n in range(20)))
    page = await list_page(catalog, library, filter=where("tags.n", "<", 12))
    assert (page.total_count, len(page.entries)) == (12, 7)
    rest = await list_page(catalog, library, page.next_page_token, filter=where("tags.n", "<", 12))
    assert (rest.total_count, len(rest.entries), rest.next_page_token) == (12, 5, "")


async def test_page_sizes_have_a_default_and_a_maximum(catalog: Catalog, library: str) -> None:
    for start in (0, 1000):
        await catalog.store(library, *(make_entry(f"{start + n}") for n in range(1000)))
    assert len((await list_page(catalog, library, page_size=0)).entries) == 100
    assert len((await list_page(catalog, library, page_size=5000)).entries) == 1000
    with refused(Reason.FIELD_INVALID):
        await list_page(catalog, library, page_size=-1)


async def test_a_page_token_is_valid_only_for_its_library_and_filter(
    catalog: Catalog, library: str, new_id: str
) -> None:
    await catalog.make_library(new_id)
    await catalog.store(library, *(make_entry(f"{n}", tags={"n": n}) for n in range(20)))
    token = (await list_page(catalog, library)).next_page_token
    for other, options in (
        (new_id, {}),
        (library, {"filter": where("tags.n", "<", 12)}),
    ):
        with refused(Reason.PAGE_TOKEN_INVALID):
            await list_page(catalog, other, token, **options)
    altered = ("A" if token[-10] != "A" else "B").join((token[:-10], token[-9:]))
    for bad in (altered, token[:-4], token + "AAAA", "nonsense"):
        with refused(Reason.PAGE_TOKEN_INVALID):
            await list_page(catalog, library, bad)


async def test_listed_entries_have_vectors_if_requested(catalog: Catalog, library: str) -> None:
    await catalog.store(library, make_entry("a", vector_at(20)))
    page = await list_page(catalog, library, include_vectors=True)
    vector = np.frombuffer(page.entries[0].vectors[0].values, "<f4")
    np.testing.assert_allclose(vector, np.frombuffer(vector_at(20), "<f4"), atol=1e-6)
    assert not (await list_page(catalog, library)).entries[0].vectors


async def test_features_can_be_requested_alone(catalog: Catalog, library: str) -> None:
    blobs = {"a": b"\0blob", "b": b"", "c": bytes(range(256)) * 40}
    entries = [make_entry(name, features=blob) for name, blob in blobs.items()]
    uids = {entry.image_id: entry.uid for entry in await catalog.store(library, *entries)}
    request = pb.GetEntriesRequest(
        library_id=library,
        library_uid=(await catalog.library(library)).uid,
        uids=[uids["c"], bytes(16), uids["a"], uids["b"]],
        features_only=True,
    )
    found = (await catalog.stub.GetEntries(request)).entries
    assert list(found) == [pb.Entry(uid=uids[name], features=blobs[name]) for name in "cab"]
    request.include_vectors = True
    with refused(Reason.FIELD_INVALID):
        await catalog.stub.GetEntries(request)


async def test_calls_with_the_uid_of_a_recreated_library_are_refused(
    catalog: Catalog, library: str
) -> None:
    await catalog.store(library, make_entry("a"))
    for features_only in (True, False):
        request = pb.GetEntriesRequest(
            library_id=library,
            library_uid="0" * 32,
            image_ids=["a"],
            features_only=features_only,
        )
        with refused(Reason.LIBRARY_CHANGED):
            await catalog.stub.GetEntries(request)


async def test_a_page_ends_early_if_its_entries_are_large(catalog: Catalog) -> None:
    await catalog.make_library("large")
    tags = {f"tag_{number}": "x" * 1000 for number in range(60)}
    await catalog.store("large", *(make_entry(f"i{number}", tags=tags) for number in range(30)))
    names, token, pages = [], "", 0
    while not pages or token:
        page = await catalog.stub.ListEntries(
            pb.ListEntriesRequest(library_id="large", page_size=30, page_token=token)
        )
        assert page.ByteSize() < 2 << 20
        names += [found.image_id for found in page.entries]
        token, pages = page.next_page_token, pages + 1
    assert pages == 2
    assert sorted(names) == sorted(f"i{number}" for number in range(30))
