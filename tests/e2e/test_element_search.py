"""Element search through every service: pasted elements are found with their corners."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from PIL import Image

from imagesearch.gateway.v1 import image_pb2, library_pb2, search_pb2
from imagesearch.type.v1 import geometry_pb2, library_type_pb2, picture_pb2
from imagesearch_services.common.errors import Reason
from tests.e2e.conftest import Stub, temporary_library
from tests.e2e.errors import refused
from tests.pictures import encoded, photo

ELEMENTS = (0, 1, 3, 5, 8, 10, 11)
"""Seeds of the photographs that are stored as elements."""
HOST = 9
"""Seed of the photograph that elements are pasted into."""
UNRELATED = (9, 4, 2)
"""Seeds of the photographs without a stored element."""


@pytest.fixture(scope="module")
def stocked(gateway: Stub) -> Iterator[str]:
    for name in temporary_library(gateway, library_type_pb2.LIBRARY_TYPE_ELEMENT):
        for seed in ELEMENTS:
            gateway.AddImage(
                image_pb2.AddImageRequest(
                    parent=name,
                    image_id=f"element-{seed}",
                    entity_id=f"brand-{seed % 2}",
                    image=content(photo(seed, (300, 240))),
                )
            )
        yield name


@pytest.fixture
def empty(gateway: Stub) -> Iterator[str]:
    """The name of an empty element library."""
    yield from temporary_library(gateway, library_type_pb2.LIBRARY_TYPE_ELEMENT)


def content(picture: Image.Image, file_format: str = "JPEG") -> picture_pb2.ImageContent:
    return picture_pb2.ImageContent(content=encoded(picture, file_format))


def search(
    gateway: Stub, library: str, picture: Image.Image, **options: object
) -> search_pb2.SearchImagesResponse:
    request = search_pb2.SearchImagesRequest(parent=library, image=content(picture), **options)  # type: ignore[arg-type]
    return gateway.SearchImages(request)


def scene(*pasted: tuple[int, tuple[int, int], float]) -> tuple[Image.Image, list[np.ndarray]]:
    """Paste elements (seed, center, rotation in degrees); return the scene and their corners."""
    pixels = np.asarray(photo(HOST, (1200, 900))).copy()
    truth = []
    for seed, middle, degrees in pasted:
        element = np.asarray(photo(seed, (300, 240)))
        matrix = cv2.getRotationMatrix2D((150, 120), -degrees, 0.9)
        matrix[:, 2] += np.array(middle) - (150, 120)
        ones = np.full(element.shape[:2], 255, np.uint8)
        warped = cv2.warpAffine(element, matrix, (1200, 900))
        mask = cv2.warpAffine(ones, matrix, (1200, 900)) > 127
        pixels[mask] = warped[mask]
        frame = np.array([(0, 0), (300, 0), (300, 240), (0, 240)], float)
        truth.append(frame @ matrix[:, :2].T + matrix[:, 2])
    return Image.fromarray(pixels), truth


def points(outline: geometry_pb2.Quadrilateral) -> np.ndarray:
    return np.array([(corner.x, corner.y) for corner in outline.corners])


def test_an_element_is_found_with_its_corners(gateway: Stub, stocked: str) -> None:
    picture, (truth,) = scene((3, (400, 400), 30))
    answer = search(gateway, stocked, picture)
    (match,) = answer.matches
    assert match.image.image_id == "element-3"
    np.testing.assert_allclose(points(match.query_corners), truth, atol=12)
    assert match.instances[0] == match.query_corners
    assert match.query_box.x_min == pytest.approx(truth[:, 0].min(), abs=12)
    assert 0 < match.score <= 1
    assert match.false_positive_rate < 0.01
    steps = [step.step for step in answer.timings if ":" not in step.step]
    # Returned matches fetch the whole entry, other candidates only their features.
    assert [steps[0], *steps[-3:]] == ["describe", "verify", "fetch", "total"]
    ways = {"words", "windows", "shapes"}
    assert ways < set(steps[1:-3]) <= ways | {f"{way}_features" for way in ways}


def test_several_elements_in_one_photo_are_found(gateway: Stub, stocked: str) -> None:
    picture, _ = scene((0, (250, 250), -20), (5, (800, 600), 90))
    found = {match.image.image_id for match in search(gateway, stocked, picture).matches}
    assert found == {"element-0", "element-5"}


def test_every_instance_of_an_element_is_returned(gateway: Stub, stocked: str) -> None:
    picture, truth = scene((1, (250, 250), 0), (1, (850, 600), 180))
    (match,) = search(gateway, stocked, picture).matches
    assert match.image.image_id == "element-1"
    assert len(match.instances) == 2
    for true in truth:
        nearest = min(abs(points(outline) - true).max() for outline in match.instances)
        assert nearest < 12


@pytest.mark.parametrize("seed", UNRELATED)
def test_a_photo_without_any_element_has_no_match(gateway: Stub, stocked: str, seed: int) -> None:
    answer = search(gateway, stocked, photo(seed, (900, 700)))
    assert not answer.matches
    assert answer.thresholds[0].false_positive_rate <= 0.01 + 1e-6


def test_a_region_limits_the_search(gateway: Stub, stocked: str) -> None:
    picture, (truth, _) = scene((3, (300, 300), 0), (8, (900, 650), 0))
    region = geometry_pb2.Box(x_min=50, y_min=50, x_max=600, y_max=560)
    answer = search(gateway, stocked, picture, region=region)
    (match,) = answer.matches
    assert match.image.image_id == "element-3"
    np.testing.assert_allclose(points(match.query_corners), truth, atol=12)
    assert answer.searched_region == region


def test_a_region_of_a_picture_is_an_element(gateway: Stub, empty: str) -> None:
    picture, _ = scene((3, (300, 300), 0))
    box = geometry_pb2.Box(x_min=165, y_min=192, x_max=435, y_max=408)
    request = image_pb2.AddImageRequest(parent=empty, image_id="cut", region=box)
    request.image.CopyFrom(content(picture))
    assert gateway.AddImage(request).region == box
    (match,) = search(gateway, empty, photo(3, (800, 640))).matches
    assert match.image.image_id == "cut"


def test_a_plain_color_is_stored_with_a_warning_and_never_found(gateway: Stub, empty: str) -> None:
    plain = content(Image.new("RGB", (200, 100), (180, 20, 20)), "PNG")
    stored = gateway.AddImage(image_pb2.AddImageRequest(parent=empty, image_id="red", image=plain))
    assert "no texture" in stored.warnings[0]
    red = Image.new("RGB", (400, 400), (180, 20, 20))
    assert not search(gateway, empty, red).matches
    assert not search(gateway, empty, photo(3), min_score=0.0).matches


def test_a_bare_glyph_is_found_in_another_color(gateway: Stub, empty: str) -> None:
    ink = np.zeros((240, 240), np.uint8)
    cv2.putText(ink, "R", (40, 200), cv2.FONT_HERSHEY_TRIPLEX, 7, 255, 18, cv2.LINE_AA)
    request = image_pb2.AddImageRequest(parent=empty, image_id="r")
    request.image.CopyFrom(content(Image.fromarray(255 - ink), "PNG"))
    assert not gateway.AddImage(request).warnings
    matrix = cv2.getRotationMatrix2D((120, 120), 25, 0.8)
    matrix[:, 2] += (500, 300)
    alpha = cv2.warpAffine(ink, matrix, (1200, 900))[..., None] / 255
    pixels = np.asarray(photo(HOST, (1200, 900))) * (1 - alpha) + (250, 240, 60) * alpha
    (match,) = search(gateway, empty, Image.fromarray(np.rint(pixels).astype(np.uint8))).matches
    frame = np.array([(0, 0), (240, 0), (240, 240), (0, 240)], float)
    truth = frame @ matrix[:, :2].T + matrix[:, 2]
    np.testing.assert_allclose(points(match.query_corners), truth, atol=12)


def test_a_tiny_element_is_stored(gateway: Stub, empty: str) -> None:
    tiny = content(photo(0, (16, 16)), "PNG")
    gateway.AddImage(image_pb2.AddImageRequest(parent=empty, image_id="tiny", image=tiny))
    search(gateway, empty, photo(3))


def test_the_next_page_has_corners_too(gateway: Stub, stocked: str) -> None:
    picture, _ = scene((0, (250, 250), -20), (5, (800, 600), 90))
    first = search(gateway, stocked, picture, page_size=1)
    assert first.total_found == 2
    second = gateway.SearchImages(
        search_pb2.SearchImagesRequest(
            parent=stocked, page_size=1, page_token=first.next_page_token
        )
    )
    ids = {answer.matches[0].image.image_id for answer in (first, second)}
    assert ids == {"element-0", "element-5"}
    assert len(second.matches[0].query_corners.corners) == 4


def test_filter_and_distinct_entities_apply_to_elements(gateway: Stub, stocked: str) -> None:
    picture, _ = scene((3, (250, 250), 0), (5, (800, 600), 0))
    distinct = search(gateway, stocked, picture, distinct_entities=True)
    assert len(distinct.matches) == 1
    filtered = search(gateway, stocked, picture, filter='entity_id = "brand-0"')
    assert not filtered.matches


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"image_name": "element-3"}, Reason.LIBRARY_TYPE_MISMATCH),
        ({"relation": search_pb2.RELATION_SAME}, Reason.LIBRARY_TYPE_MISMATCH),
        ({"subject_detection": True}, Reason.LIBRARY_TYPE_MISMATCH),
        ({"region": geometry_pb2.Box(x_min=900, x_max=910, y_max=1)}, Reason.REGION_INVALID),
    ],
)
def test_options_of_other_library_types_are_refused_for_elements(
    gateway: Stub, stocked: str, options: dict[str, object], reason: Reason
) -> None:
    if "image_name" in options:
        request = search_pb2.SearchImagesRequest(
            parent=stocked, image_name=f"{stocked}/images/{options['image_name']}"
        )
    else:
        request = search_pb2.SearchImagesRequest(
            parent=stocked,
            image=content(photo(1)),
            **options,  # type: ignore[arg-type]
        )
    assert refused(gateway.SearchImages, request).reason is reason


def test_the_library_lists_its_vocabulary_and_its_model(gateway: Stub, stocked: str) -> None:
    library = gateway.GetLibrary(library_pb2.GetLibraryRequest(name=stocked))
    assert [model.role for model in library.models] == ["words", "element"]
    assert library.image_count == len(ELEMENTS)
