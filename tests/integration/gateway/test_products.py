"""Product libraries, with real Embedding, Triton and Catalog."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from imagesearch.gateway.v1 import image_pb2, library_pb2, search_pb2
from imagesearch.type.v1 import (
    category_pb2,
    geometry_pb2,
    library_type_pb2,
    picture_pb2,
    tag_pb2,
)
from imagesearch_services.common.errors import Reason
from tests.e2e.errors import refused
from tests.goods import BLUE, BOX, GREEN, RED, SIZE, blank_picture, carton
from tests.integration.gateway.conftest import Stub, temporary_library
from tests.integration.gateway.pictures import image
from tests.pictures import encoded

PRODUCT = library_type_pb2.LIBRARY_TYPE_PRODUCT
WHOLE = geometry_pb2.Box(x_max=SIZE[0], y_max=SIZE[1])
TOLERANCE_PX = 12
GOODS = {"cola": RED, "milk": BLUE, "tea": GREEN}


def drawn(name: str) -> picture_pb2.ImageContent:
    return picture_pb2.ImageContent(content=encoded(carton(GOODS[name], name)))


BLANK = picture_pb2.ImageContent(content=encoded(blank_picture()))


@pytest.fixture(scope="module")
def shop(gateway: Stub) -> Iterator[str]:
    """Product library with two pictures of each of three cartons. Tests must not change it."""
    with temporary_library(gateway, PRODUCT) as name:
        requests = [
            image_pb2.AddImageRequest(
                image_id=f"{good}-{row}",
                image=picture_pb2.ImageContent(
                    content=encoded(carton(color, good, background=ground))
                ),
                entity_id=good,
                tags={"row": tag_pb2.TagValue(int_value=row)},
                category=category_pb2.CATEGORY_SNACK if good == "tea" else 0,  # type: ignore[arg-type]
            )
            for good, color in GOODS.items()
            for row, ground in enumerate(("#ffffff", "#d8d8d8"))
        ]
        answer = gateway.BatchAddImages(
            image_pb2.BatchAddImagesRequest(parent=name, requests=requests)
        )
        assert answer.added_count == 2 * len(GOODS)
        yield name


@pytest.fixture
def library(gateway: Stub) -> Iterator[str]:
    """Name of an empty product library."""
    with temporary_library(gateway, PRODUCT) as name:
        yield name


def search(gateway: Stub, parent: str, **fields: Any) -> search_pb2.SearchImagesResponse:
    fields.setdefault("image", drawn("cola"))
    answer: search_pb2.SearchImagesResponse = gateway.SearchImages(
        search_pb2.SearchImagesRequest(parent=parent, **fields)
    )
    return answer


def add(gateway: Stub, parent: str, **fields: Any) -> image_pb2.Image:
    fields.setdefault("image", drawn("cola"))
    stored: image_pb2.Image = gateway.AddImage(image_pb2.AddImageRequest(parent=parent, **fields))
    return stored


def ids(answer: search_pb2.SearchImagesResponse) -> list[str]:
    return [match.image.image_id for match in answer.matches]


def is_near(box: geometry_pb2.Box, expected: tuple[float, float, float, float]) -> bool:
    sides = (box.x_min, box.y_min, box.x_max, box.y_max)
    return all(abs(a - b) <= TOLERANCE_PX for a, b in zip(sides, expected, strict=True))


def test_a_product_library_has_the_product_model(gateway: Stub, shop: str) -> None:
    library = gateway.GetLibrary(library_pb2.GetLibraryRequest(name=shop))
    assert [model.role for model in library.models] == ["product"]


def test_the_subject_is_stored_with_its_box_category_and_colors(gateway: Stub, shop: str) -> None:
    stored = gateway.GetImage(image_pb2.GetImageRequest(name=f"{shop}/images/cola-0"))
    assert is_near(stored.region, BOX)
    assert stored.region == stored.subject.box
    assert stored.subject.category == stored.category != category_pb2.CATEGORY_UNSPECIFIED
    assert stored.subject.colors[0].name == "red"
    assert 0.5 < stored.subject.colors[0].share <= 1
    assert 0 < stored.subject.score <= 1
    assert not stored.warnings


def test_the_given_category_overrides_the_detected_one(gateway: Stub, shop: str) -> None:
    stored = gateway.GetImage(image_pb2.GetImageRequest(name=f"{shop}/images/tea-0"))
    assert stored.category == category_pb2.CATEGORY_SNACK


def test_a_search_finds_the_same_product_first_and_returns_the_searched_subject(
    gateway: Stub, shop: str
) -> None:
    answer = search(gateway, shop, image=drawn("milk"))
    assert ids(answer)[:2] == ["milk-0", "milk-1"]
    assert [match.score for match in answer.matches] == sorted(
        (match.score for match in answer.matches), reverse=True
    )
    assert answer.matches[0].relation == search_pb2.RELATION_UNSPECIFIED
    assert answer.matches[0].box == answer.matches[0].image.region
    assert answer.chosen_subject == 0
    assert answer.HasField("chosen_subject")
    assert answer.searched_region == answer.subjects[0].box
    assert is_near(answer.searched_region, BOX)
    assert answer.subjects[0].colors[0].name == "blue"
    assert {model.role for model in answer.models} == {"product", "subjects"}
    assert "embed:find_subjects" in {timing.step for timing in answer.timings}
    assert not answer.warnings


def test_colors_categories_and_tags_filter_a_search(gateway: Stub, shop: str) -> None:
    red = search(gateway, shop, image=drawn("milk"), filter='attributes.color = "red"')
    assert sorted(ids(red)) == ["cola-0", "cola-1"]
    snacks = search(gateway, shop, category=category_pb2.CATEGORY_SNACK)
    assert sorted(ids(snacks)) == ["tea-0", "tea-1"]
    both = search(gateway, shop, filter='attributes.color = "green" AND tags.row = 1')
    assert ids(both) == ["tea-1"]


def test_distinct_entities_return_one_match_per_product(gateway: Stub, shop: str) -> None:
    answer = search(gateway, shop, distinct_entities=True)
    assert sorted(match.image.entity_id for match in answer.matches) == sorted(GOODS)


def test_later_pages_return_the_same_query_subjects(gateway: Stub, shop: str) -> None:
    first = search(gateway, shop, page_size=2)
    page = search_pb2.SearchImagesRequest(parent=shop, page_token=first.next_page_token)
    second = gateway.SearchImages(page)
    assert not set(ids(first)) & set(ids(second))
    assert second.subjects == first.subjects
    assert second.chosen_subject == first.chosen_subject


def test_a_stored_image_searches_with_its_subject(gateway: Stub, shop: str) -> None:
    answer = gateway.SearchImages(
        search_pb2.SearchImagesRequest(parent=shop, image_name=f"{shop}/images/tea-0")
    )
    assert ids(answer)[0] == "tea-1"
    assert "tea-0" not in ids(answer)


def test_a_picture_without_subject_is_searched_as_a_whole_with_a_warning(
    gateway: Stub, shop: str, library: str
) -> None:
    answer = search(gateway, shop, image=BLANK)
    assert answer.matches
    assert not answer.subjects
    assert not answer.HasField("chosen_subject")
    assert answer.searched_region == WHOLE
    assert "no subject" in answer.warnings[0]
    stored = add(gateway, library, image_id="nothing", image=BLANK)
    assert stored.region == WHOLE
    assert not stored.HasField("subject")
    assert "no subject" in stored.warnings[0]
    read = gateway.GetImage(image_pb2.GetImageRequest(name=stored.name))
    assert not read.warnings
    detected = gateway.DetectSubjects(search_pb2.DetectSubjectsRequest(image=BLANK))
    assert not detected.subjects
    assert detected.info.width == SIZE[0]


def test_without_detection_the_whole_picture_is_searched_and_stored(
    gateway: Stub, shop: str, library: str
) -> None:
    answer = search(gateway, shop, subject_detection=False)
    assert answer.searched_region == WHOLE
    assert not answer.warnings
    stored = add(gateway, library, subject_detection=False)
    assert stored.region == WHOLE
    assert stored.category


def test_a_region_is_searched_without_detection(gateway: Stub, shop: str, library: str) -> None:
    part = geometry_pb2.Box(x_min=160, y_min=80, x_max=320, y_max=300)
    answer = search(gateway, shop, region=part)
    assert answer.searched_region == part
    assert [subject.box for subject in answer.subjects] == [part]
    assert answer.chosen_subject == 0
    assert ids(answer)[0].startswith("cola")
    stored = add(gateway, library, region=part)
    assert stored.region == stored.subject.box == part
    assert stored.subject.colors[0].name == "red"


def test_the_subject_is_detected_inside_a_region_on_request(gateway: Stub, shop: str) -> None:
    right = geometry_pb2.Box(x_min=60, y_min=20, x_max=480, y_max=360)
    answer = search(gateway, shop, region=right, subject_detection=True)
    assert is_near(answer.searched_region, BOX)


def test_a_region_is_clipped_to_the_picture_or_rejected_outside_it(
    gateway: Stub, shop: str
) -> None:
    vast = geometry_pb2.Box(x_min=0, y_min=0, x_max=90_000, y_max=90_000)
    assert search(gateway, shop, region=vast).searched_region == WHOLE
    outside = geometry_pb2.Box(x_min=9_000, y_min=0, x_max=9_100, y_max=90)
    request = search_pb2.SearchImagesRequest(parent=shop, image=drawn("cola"), region=outside)
    assert refused(gateway.SearchImages, request).reason is Reason.REGION_INVALID
    described = search_pb2.DetectSubjectsRequest(image=drawn("cola"), region=outside)
    assert refused(gateway.DetectSubjects, described).reason is Reason.REGION_INVALID


def test_a_tiny_region_is_searched(gateway: Stub, shop: str) -> None:
    tiny = geometry_pb2.Box(x_min=200, y_min=100, x_max=202, y_max=101)
    answer = search(gateway, shop, region=tiny)
    assert answer.searched_region == tiny
    looked_for = search(gateway, shop, region=tiny, subject_detection=True)
    assert looked_for.query_info.width == SIZE[0]


def test_an_unknown_category_is_rejected_by_field(gateway: Stub, shop: str) -> None:
    request = search_pb2.SearchImagesRequest(parent=shop, image=BLANK, category=77)  # type: ignore[arg-type]
    error = refused(gateway.SearchImages, request)
    assert (error.reason, error.fields[0].field) == (Reason.FIELD_INVALID, "category")
    described = search_pb2.DetectSubjectsRequest(image=BLANK, category=77)  # type: ignore[arg-type]
    assert refused(gateway.DetectSubjects, described).fields[0].field == "category"


def test_a_category_without_a_subject_returns_a_warning(gateway: Stub, shop: str) -> None:
    answer = search(gateway, shop, category=category_pb2.CATEGORY_UNDERWEAR)
    assert not answer.matches
    assert "UNDERWEAR" in answer.warnings[0]


def test_options_of_other_library_types_are_rejected(gateway: Stub, shop: str) -> None:
    related = search_pb2.SearchImagesRequest(
        parent=shop, image=BLANK, relation=search_pb2.RELATION_SAME
    )
    assert refused(gateway.SearchImages, related).reason is Reason.LIBRARY_TYPE_MISMATCH
    with temporary_library(gateway) as photos:
        request = search_pb2.SearchImagesRequest(parent=photos, image=BLANK, subject_detection=True)
        assert refused(gateway.SearchImages, request).reason is Reason.LIBRARY_TYPE_MISMATCH
        new = image_pb2.AddImageRequest(parent=photos, image=BLANK, subject_detection=True)
        assert refused(gateway.AddImage, new).reason is Reason.LIBRARY_TYPE_MISMATCH


def test_detection_returns_the_subjects_that_a_search_uses(gateway: Stub, shop: str) -> None:
    request = search_pb2.DetectSubjectsRequest(image=drawn("tea"))
    detected = gateway.DetectSubjects(request)
    searched = search(gateway, shop, image=drawn("tea"))
    assert [subject.box for subject in detected.subjects] == [
        subject.box for subject in searched.subjects
    ]
    assert detected.subjects[0].colors[0].name == "green"
    request.category = category_pb2.CATEGORY_UNDERWEAR
    assert not gateway.DetectSubjects(request).subjects


def test_a_photo_of_a_cup_is_searched_by_the_cup(gateway: Stub, shop: str) -> None:
    answer = search(gateway, shop, image=image(3))
    assert len(answer.matches) == 2 * len(GOODS)
    assert answer.query_info.width == 320
