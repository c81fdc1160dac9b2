"""Whole-image search through every service: copies are found, unrelated pictures are not."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator

import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from imagesearch.gateway.v1 import image_pb2, search_pb2
from imagesearch.type.v1 import geometry_pb2, picture_pb2, tag_pb2
from tests.e2e.conftest import Stub, temporary_library
from tests.pictures import encoded, photo

STORED = 12
UNRELATED = 14


@pytest.fixture(scope="module")
def stocked(gateway: Stub) -> Iterator[str]:
    """A library that holds photos 0 to 11."""
    for name in temporary_library(gateway):
        answer = gateway.BatchAddImages(
            image_pb2.BatchAddImagesRequest(
                parent=name,
                requests=[
                    image_pb2.AddImageRequest(
                        image_id=f"photo-{seed}",
                        image=content(photo(seed)),
                        entity_id=f"scene-{seed % 3}",
                        tags={"number": tag_pb2.TagValue(int_value=seed)},
                    )
                    for seed in range(STORED)
                ],
            )
        )
        assert answer.added_count == STORED
        yield name


def content(picture: Image.Image, file_format: str = "JPEG") -> picture_pb2.ImageContent:
    return picture_pb2.ImageContent(content=encoded(picture, file_format))


def search(
    gateway: Stub, library: str, picture: Image.Image, **options: object
) -> search_pb2.SearchImagesResponse:
    return gateway.SearchImages(
        search_pb2.SearchImagesRequest(parent=library, image=content(picture), **options)  # type: ignore[arg-type]
    )


def jpeg_10(picture: Image.Image) -> Image.Image:
    return Image.open(io.BytesIO(encoded(picture, "JPEG", quality=10)))


EDITS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "as it is": lambda picture: picture,
    "mirrored": ImageOps.mirror,
    "blurred": lambda picture: picture.filter(ImageFilter.GaussianBlur(3)),
    "grey": lambda picture: ImageOps.grayscale(picture).convert("RGB"),
    "half the area": lambda picture: picture.crop((40, 30, 270, 200)),
    "brighter": lambda picture: ImageEnhance.Brightness(picture).enhance(1.5),
    "JPEG 10": jpeg_10,
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_copy_finds_its_original(gateway: Stub, stocked: str, edit: str) -> None:
    answer = search(gateway, stocked, EDITS[edit](photo(7)))
    assert answer.matches, edit
    best = answer.matches[0]
    assert best.image.image_id == "photo-7"
    assert best.relation == search_pb2.RELATION_SAME
    assert 0 < best.score <= 1
    assert best.score >= answer.thresholds[0].min_score


def test_an_unrelated_picture_has_no_match(gateway: Stub, stocked: str) -> None:
    answer = search(gateway, stocked, photo(UNRELATED))
    assert not answer.matches
    assert answer.total_found == 0
    assert not answer.total_is_lower_bound


def test_a_pasted_copy_is_found_with_its_bounding_box(gateway: Stub, stocked: str) -> None:
    host = photo(UNRELATED, (1000, 800))
    host.paste(photo(3).resize((400, 300)), (520, 120))
    answer = search(gateway, stocked, host)
    assert [match.image.image_id for match in answer.matches] == ["photo-3"]
    box = answer.matches[0].query_box
    assert overlap(box, (520, 120, 920, 420)) > 0.7


def overlap(box: geometry_pb2.Box, truth: tuple[float, float, float, float]) -> float:
    """Return the intersection over union of two boxes."""
    width = min(box.x_max, truth[2]) - max(box.x_min, truth[0])
    height = min(box.y_max, truth[3]) - max(box.y_min, truth[1])
    common = max(0.0, width) * max(0.0, height)
    areas = (box.x_max - box.x_min) * (box.y_max - box.y_min) + (truth[2] - truth[0]) * (
        truth[3] - truth[1]
    )
    return common / (areas - common)


def test_a_region_limits_the_searched_part(gateway: Stub, stocked: str) -> None:
    pair = Image.new("RGB", (640, 240))
    pair.paste(photo(1), (0, 0))
    pair.paste(photo(2), (320, 0))
    region = geometry_pb2.Box(x_min=320, y_min=0, x_max=9999, y_max=240)
    answer = search(gateway, stocked, pair, region=region)
    assert [match.image.image_id for match in answer.matches] == ["photo-2"]
    assert answer.searched_region.x_max == 640


def test_a_stored_query_image_is_not_among_its_own_matches(gateway: Stub, stocked: str) -> None:
    answer = gateway.SearchImages(
        search_pb2.SearchImagesRequest(
            parent=stocked,
            image_name=f"{stocked}/images/photo-5",
            relation=search_pb2.RELATION_SIMILAR,
            page_size=50,
        )
    )
    assert len(answer.matches) == STORED - 1
    assert "photo-5" not in {match.image.image_id for match in answer.matches}


def test_a_search_for_both_relations_returns_each_image_once(gateway: Stub, stocked: str) -> None:
    answer = search(gateway, stocked, photo(4), relation=search_pb2.RELATION_BOTH, page_size=50)
    ids = [match.image.image_id for match in answer.matches]
    assert sorted(ids) == sorted(f"photo-{seed}" for seed in range(STORED))
    assert ids[0] == "photo-4"
    relations = [match.relation for match in answer.matches]
    assert relations == [search_pb2.RELATION_SAME] + [search_pb2.RELATION_SIMILAR] * (STORED - 1)


def test_consecutive_pages_do_not_repeat_matches(gateway: Stub, stocked: str) -> None:
    listed: list[str] = []
    answer = search(gateway, stocked, photo(0), relation=search_pb2.RELATION_SIMILAR, page_size=5)
    assert answer.total_found == STORED
    while True:
        listed += [match.image.image_id for match in answer.matches]
        if not answer.next_page_token:
            break
        answer = gateway.SearchImages(
            search_pb2.SearchImagesRequest(
                parent=stocked, page_token=answer.next_page_token, page_size=5
            )
        )
    assert len(listed) == len(set(listed)) == STORED


def test_a_filter_narrows_the_search(gateway: Stub, stocked: str) -> None:
    answer = search(
        gateway,
        stocked,
        photo(0),
        relation=search_pb2.RELATION_SIMILAR,
        page_size=50,
        filter='tags.number >= 9 OR entity_id = "scene-1" AND tags.number < 3',
    )
    assert {match.image.image_id for match in answer.matches} == {
        "photo-1",
        "photo-9",
        "photo-10",
        "photo-11",
    }


def test_distinct_entities_returns_one_match_per_entity(gateway: Stub, stocked: str) -> None:
    answer = search(
        gateway,
        stocked,
        photo(0),
        relation=search_pb2.RELATION_SIMILAR,
        page_size=50,
        distinct_entities=True,
    )
    entities = [match.image.entity_id for match in answer.matches]
    assert sorted(entities) == ["scene-0", "scene-1", "scene-2"]


def test_every_step_is_timed(gateway: Stub, stocked: str) -> None:
    answer = search(gateway, stocked, photo(0))
    steps = {timing.step: timing.duration_ms for timing in answer.timings}
    assert {"embed:decode", "embed:infer", "query", "total"} <= set(steps)
    assert all(duration_ms >= 0 for duration_ms in steps.values())
    assert [model.name for model in answer.models] == ["sscd"]


def test_a_batch_of_searches_answers_in_order(gateway: Stub, stocked: str) -> None:
    answer = gateway.BatchSearchImages(
        search_pb2.BatchSearchImagesRequest(
            parent=stocked,
            requests=[
                search_pb2.SearchImagesRequest(image=content(photo(2))),
                search_pb2.SearchImagesRequest(image=picture_pb2.ImageContent(content=b"no")),
                search_pb2.SearchImagesRequest(image=content(photo(8))),
            ],
        )
    )
    first, second, third = answer.results
    assert first.response.matches[0].image.image_id == "photo-2"
    assert second.error.code == 3
    assert third.response.matches[0].image.image_id == "photo-8"
