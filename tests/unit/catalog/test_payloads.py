"""Stored formats: uids and payloads, including those of earlier and later releases."""

from __future__ import annotations

import uuid
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from imagesearch_services.catalog.model import (
    ENTRY_NAMESPACE,
    Entry,
    FieldType,
    Library,
    VectorSpace,
    entry_uid,
)
from imagesearch_services.catalog.payloads import (
    entry_from_payload,
    entry_to_payload,
    library_from_payload,
    library_to_payload,
    updated_payload,
)
from imagesearch_services.catalog.storage import Payload
from imagesearch_services.common.types import Category, LibraryType


def test_the_uid_of_an_image_id_never_changes() -> None:
    # Stored entries are looked up by this value.
    assert entry_uid("image").hex() == "33349eae107d5ecd9a2533d2686edf62"


@given(st.text())
def test_the_uid_of_an_entry_is_a_name_based_uuid(image_id: str) -> None:
    assert entry_uid(image_id) == uuid.uuid5(ENTRY_NAMESPACE, image_id).bytes


def test_unset_fields_are_not_stored() -> None:
    payload = entry_to_payload(Entry(image_id="a", create_time=1.0, update_time=2.0), "")
    assert payload == {"image_id": "a", "create_time": 1.0, "update_time": 2.0}
    assert entry_from_payload(payload) == Entry(image_id="a", create_time=1.0, update_time=2.0)


def test_a_library_stored_before_compact_spaces_is_read() -> None:
    space = VectorSpace("copy@1", 512, sparse=False, compact=True)
    library = Library(library_id="shop", uid="1" * 32, type=2, spaces=(space,))
    payload = library_to_payload(library, "ready")
    assert library_from_payload(payload) == library
    older = payload | {"spaces": [["copy@1", 512, False]]}
    assert library_from_payload(older).spaces == (replace(space, compact=False),)


def test_an_unknown_library_type_of_a_later_release_is_kept() -> None:
    library = Library(
        library_id="shop", uid="1" * 32, type=LibraryType.PRODUCT, spaces=(VectorSpace("a@1", 4),)
    )
    later = library_to_payload(library, "ready") | {"type": 99}
    read = library_from_payload(later)
    assert read.type == 99
    assert library_to_payload(read, "ready") == later


def stored_entry(**changes: object) -> Payload:
    """Return the payload of an entry in the format of earlier releases, with changes."""
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


def test_entries_are_read_and_written_in_the_format_of_earlier_releases() -> None:
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


def test_unknown_categories_of_a_later_release_are_read_as_none() -> None:
    subject = {**stored_entry()["subject"], "category": 99}
    entry = entry_from_payload(stored_entry(category=99, subject=subject))
    assert entry.category is None
    assert entry.subject is not None
    assert entry.subject.category is None


def test_an_update_keeps_unknown_stored_keys() -> None:
    stored = stored_entry(category=99, later_key=["anything"], entity_id="shelf")
    entry = replace(entry_from_payload(stored), tags={"n": 1}, entity_id="", update_time=3.0)
    expected = stored | {"tags": {"n": 1}, "update_time": 3.0}
    del expected["entity_id"]
    assert updated_payload(stored, entry, {"tags", "entity_id"}) == expected


def test_every_tag_of_a_library_of_an_earlier_release_is_indexed() -> None:
    library = Library(
        library_id="shop",
        uid="1" * 32,
        type=2,
        spaces=(VectorSpace("copy@1", 512),),
        tag_types={"price": FieldType.INTEGER},
        attribute_names=frozenset({"color"}),
        indexed_fields=frozenset({"tags.price"}),
    )
    payload = library_to_payload(library, "ready")
    assert library_from_payload(payload) == library
    del payload["indexed_fields"]
    assert library_from_payload(payload).indexed_fields == {"tags.price", "attributes.color"}
