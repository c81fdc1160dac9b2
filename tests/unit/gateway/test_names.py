"""Valid and invalid resource names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.gateway import names

GOOD_LIBRARIES = ["a", "shop", "a-1", "x" * 63, "a--"]
BAD_LIBRARIES = ["1a", "-a", "A", "ä", "a_b", "a/b", "x" * 64, "a\n", " a"]
GOOD_IMAGES = ["1", "a b", "ü", "日本", "a%2Fb", "x" * 255, "é" * 127, "...", "images", ".a"]
BAD_IMAGES = ["a/b", "/", ".", "..", "a\tb", "a\x00", "a\x7f", "a\x85", "x" * 256, "é" * 128]


def refusal(read: object, *arguments: object, **options: object) -> ServiceError:
    assert callable(read)
    with pytest.raises(ServiceError) as caught:
        read(*arguments, **options)
    return caught.value


@pytest.mark.parametrize("library_id", GOOD_LIBRARIES)
def test_the_library_id_is_parsed_from_a_library_name(library_id: str) -> None:
    assert names.check_library_id(library_id, field="library_id") == library_id
    name = names.library_name(library_id)
    assert names.parse_library_name(name, field="name") == library_id


@pytest.mark.parametrize("library_id", BAD_LIBRARIES)
def test_an_invalid_library_id_is_rejected_by_field(library_id: str) -> None:
    error = refusal(names.check_library_id, library_id, field="library_id")
    assert (error.reason, error.fields[0].field) == (Reason.FIELD_INVALID, "library_id")
    error = refusal(names.parse_library_name, f"libraries/{library_id}", field="name")
    assert (error.reason, error.fields[0].field) == (Reason.FIELD_INVALID, "name")


@pytest.mark.parametrize("image_id", GOOD_IMAGES)
def test_both_ids_are_parsed_from_an_image_name(image_id: str) -> None:
    assert names.check_image_id(image_id, field="image_id") == image_id
    name = names.image_name("shop", image_id)
    assert names.parse_image_name(name, field="name") == ("shop", image_id)


@pytest.mark.parametrize("image_id", BAD_IMAGES)
def test_an_invalid_image_id_is_rejected(image_id: str) -> None:
    assert refusal(names.check_image_id, image_id, field="f").reason is Reason.FIELD_INVALID
    name = f"libraries/shop/images/{image_id}"
    assert refusal(names.parse_image_name, name, field="f").reason is Reason.FIELD_INVALID


@pytest.mark.parametrize(
    "name", ["shop", "libraries/shop", "libraries/shop/image/a", "images/a", "libraries//images/a"]
)
def test_an_invalid_image_name_is_rejected(name: str) -> None:
    assert refusal(names.parse_image_name, name, field="f").reason is Reason.FIELD_INVALID


def test_an_empty_name_or_id_is_rejected_as_missing() -> None:
    for read in (
        names.check_library_id,
        names.check_image_id,
        names.parse_library_name,
        names.parse_image_name,
    ):
        assert refusal(read, "", field="f").reason is Reason.FIELD_REQUIRED
    error = refusal(names.parse_image_name, "libraries/shop/images/", field="f")
    assert error.reason is Reason.FIELD_REQUIRED


@given(st.text(max_size=300))
def test_any_text_is_a_valid_image_id_or_rejected(text: str) -> None:
    try:
        names.check_image_id(text, field="f")
    except ServiceError:
        return
    assert names.parse_image_name(names.image_name("a", text), field="f") == ("a", text)


def test_a_generated_image_id_is_the_same_for_the_same_request_id() -> None:
    assert names.make_image_id("") != names.make_image_id("")
    assert names.make_image_id("try-1") == names.make_image_id("try-1")
    assert names.make_image_id("try-1") != names.make_image_id("try-2")
    assert names.check_image_id(names.make_image_id("try-1"), field="f")
