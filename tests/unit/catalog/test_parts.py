"""Page tokens, ids, stored formats, settings, locks and tasks of the Catalog."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagesearch_services.catalog.checks import check_image_id
from imagesearch_services.catalog.model import (
    ENTRY_NAMESPACE,
    Entry,
    Library,
    VectorSpace,
    entry_uid,
)
from imagesearch_services.catalog.paging import make_token, page_size, read_token
from imagesearch_services.catalog.payloads import (
    entry_from_payload,
    entry_to_payload,
    library_from_payload,
    library_to_payload,
    updated_payload,
)
from imagesearch_services.catalog.settings import Settings
from imagesearch_services.catalog.storage import Payload, Search
from imagesearch_services.catalog.tasks import KeyedLocks, ShieldedTasks
from imagesearch_services.catalog.vector_checks import find_not_unit
from imagesearch_services.common.env import SettingsError
from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.types import Category, LibraryType


@given(st.text(max_size=20), st.binary(max_size=64))
def test_a_page_token_round_trips_for_its_own_list_only(scope: str, last: bytes) -> None:
    token = make_token(scope, last)
    assert read_token(scope, token) == last
    with pytest.raises(ServiceError):
        read_token(scope + "x", token)


@given(st.text(min_size=1, max_size=80))
def test_invalid_page_tokens_are_refused(text: str) -> None:
    with pytest.raises(ServiceError) as caught:
        read_token("scope", text)
    assert caught.value.reason is Reason.PAGE_TOKEN_INVALID


def test_page_sizes_are_coerced() -> None:
    assert [page_size(requested) for requested in (0, 1, 1000, 1001)] == [100, 1, 1000, 1000]


@pytest.mark.parametrize("image_id", ["a", "é" * 127, "%2F", " ", "猫.jpg", "a\u200db"])
def test_image_ids_may_be_any_text(image_id: str) -> None:
    check_image_id("image_id", image_id)


@pytest.mark.parametrize("image_id", ["", "é" * 128, "a/b", "\0", "a\x7f", "\x85"])
def test_invalid_image_ids_are_refused(image_id: str) -> None:
    with pytest.raises(ServiceError):
        check_image_id("image_id", image_id)


def test_the_uid_of_an_image_id_never_changes() -> None:
    # Stored entries are found by this value.
    assert entry_uid("image").hex() == "33349eae107d5ecd9a2533d2686edf62"


@given(st.text())
def test_the_uid_of_an_entry_is_a_name_based_uuid(image_id: str) -> None:
    assert entry_uid(image_id) == uuid.uuid5(ENTRY_NAMESPACE, image_id).bytes


def test_find_not_unit_returns_rows_that_are_not_unit_vectors() -> None:
    vectors = np.zeros((6, 4), "<f4")
    vectors[:, 0] = [1, 0, 1.0005, 1.002, np.nan, np.inf]
    assert find_not_unit(vectors) == [1, 3, 4, 5]


def test_unset_fields_are_not_stored() -> None:
    payload = entry_to_payload(Entry(image_id="a", create_time=1.0, update_time=2.0), "")
    assert payload == {"image_id": "a", "create_time": 1.0, "update_time": 2.0}
    assert entry_from_payload(payload) == Entry(image_id="a", create_time=1.0, update_time=2.0)


def test_the_representation_of_settings_hides_the_api_key() -> None:
    settings = Settings.from_env({"IMAGESEARCH_CATALOG_API_KEY": "secret-key"})
    assert settings.api_key == "secret-key"
    assert "secret-key" not in repr(settings)


@pytest.mark.parametrize(
    "variables",
    [
        {"IMAGESEARCH_CATALOG_BACKEND": "other"},
        {"IMAGESEARCH_CATALOG_HNSW_M": "many"},
        {"IMAGESEARCH_CATALOG_HNWS_M": "16"},
    ],
)
def test_invalid_settings_are_refused(variables: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match=next(iter(variables))):
        Settings.from_env(variables)


async def test_keyed_locks_exclude_the_same_key_only_and_are_removed_after_use() -> None:
    locks = KeyedLocks()
    order: list[str] = []
    entered = asyncio.Event()

    async def second() -> None:
        entered.set()
        async with locks.hold("a"):
            order.append("second")

    async with locks.hold("a"):
        task = asyncio.create_task(second())
        await entered.wait()
        async with locks.hold("b"):
            order.append("other key")
        order.append("first")
    await task
    assert order == ["other key", "first", "second"]
    assert not locks._locks


async def test_a_shielded_task_outlives_its_caller() -> None:
    shielded = ShieldedTasks()
    begun, go_on, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        await go_on.wait()
        done.set()

    caller = asyncio.create_task(shielded.run(work()))
    await begun.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    go_on.set()
    await shielded.drain()
    assert done.is_set()


def test_the_breadth_of_a_search_is_at_least_its_limit() -> None:
    search = Search(space="copy@1", vectors=[], limit=48)
    assert search.ef(128) == 128
    assert replace(search, breadth=0.5).ef(128) == 64
    assert replace(search, breadth=0.25).ef(128) == 48


def test_a_library_stored_before_compact_spaces_is_read() -> None:
    space = VectorSpace("copy@1", 512, sparse=False, compact=True)
    library = Library(library_id="shop", uid="1" * 32, type=2, spaces=(space,))
    payload = library_to_payload(library, "ready")
    assert library_from_payload(payload) == library
    older = payload | {"spaces": [["copy@1", 512, False]]}
    assert library_from_payload(older).spaces == (replace(space, compact=False),)


def test_a_library_type_of_a_later_version_is_kept() -> None:
    library = Library(
        library_id="shop", uid="1" * 32, type=LibraryType.PRODUCT, spaces=(VectorSpace("a@1", 4),)
    )
    later = library_to_payload(library, "ready") | {"type": 99}
    read = library_from_payload(later)
    assert read.type == 99
    assert library_to_payload(read, "ready") == later


def stored_entry(**changes: object) -> Payload:
    """Return an entry's payload in the format of earlier releases, with changes."""
    return {
        "image_id": "a",
        "create_time": 1.0,
        "update_time": 2.0,
        "category": 4,
        "tags": {"brand": "acme"},
        "attributes": {"kind": ["tote"], "color": ["red"]},
        "region": [1.0, 2.0, 3.0, 4.0],
        "subject": {
            "box": [1.0, 2.0, 3.0, 4.0],
            "category": 4,
            "score": 0.5,
            "colors": [["red", "#ff0000", 0.75]],
            "attributes": [["kind", "tote", 0.25]],
        },
        **changes,
    }


def test_the_stored_format_of_entries_is_that_of_earlier_releases() -> None:
    payload = stored_entry()
    entry = entry_from_payload(payload)
    assert entry.category is Category.BAG
    assert entry.subject is not None
    assert entry.subject.category is Category.BAG
    written = entry_to_payload(entry, "")
    assert written == payload
    assert type(written["category"]) is int


def test_a_stored_subject_without_a_box_is_read() -> None:
    subject = {**stored_entry()["subject"], "box": None}
    entry = entry_from_payload(stored_entry(subject=subject))
    assert entry.subject is not None
    assert entry.subject.box == (0, 0, 0, 0)


def test_categories_of_a_later_version_are_read_as_none() -> None:
    subject = {**stored_entry()["subject"], "category": 99}
    entry = entry_from_payload(stored_entry(category=99, subject=subject))
    assert entry.category is None
    assert entry.subject is not None
    assert entry.subject.category is None


def test_an_update_keeps_stored_keys_that_it_does_not_change() -> None:
    stored = stored_entry(category=99, later_key=["anything"], entity_id="shelf")
    entry = replace(entry_from_payload(stored), tags={"n": 1}, entity_id="", update_time=3.0)
    expected = stored | {"tags": {"n": 1}, "update_time": 3.0}
    del expected["entity_id"]
    assert updated_payload(stored, entry, {"tags", "entity_id"}) == expected
