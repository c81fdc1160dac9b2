"""Images, with real Embedding and Catalog."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import field_mask_pb2
from PIL import Image

from imagesearch.gateway.v1 import image_pb2, library_pb2
from imagesearch.type.v1 import category_pb2, geometry_pb2, picture_pb2, tag_pb2
from imagesearch_services.common.errors import Reason
from tests.e2e.errors import read, refused
from tests.integration.gateway.conftest import Stub
from tests.integration.gateway.pictures import image, jpeg
from tests.pictures import encoded, png_header


def add(library: str, image_id: str = "", **fields: Any) -> image_pb2.AddImageRequest:
    return image_pb2.AddImageRequest(
        **{"parent": library, "image_id": image_id, "image": image(1), **fields}
    )


def count(gateway: Stub, library: str) -> int:
    return gateway.GetLibrary(library_pb2.GetLibraryRequest(name=library)).image_count


def get(gateway: Stub, library: str, image_id: str) -> image_pb2.Image:
    return gateway.GetImage(image_pb2.GetImageRequest(name=f"{library}/images/{image_id}"))


def fill(gateway: Stub, library: str, number: int) -> None:
    answer = gateway.BatchAddImages(
        image_pb2.BatchAddImagesRequest(
            parent=library,
            requests=[
                add(
                    library,
                    f"p{row}",
                    image=image(row),
                    entity_id=f"e{row % 2}",
                    tags={"n": tag_pb2.TagValue(int_value=row)},
                )
                for row in range(number)
            ],
        )
    )
    assert answer.added_count == number


def test_an_image_is_stored_with_its_given_and_derived_fields(gateway: Stub, library: str) -> None:
    added = gateway.AddImage(
        add(
            library,
            "eins zwei/ü".replace("/", "%2F"),
            entity_id="thing",
            tags={
                "brand": tag_pb2.TagValue(string_value="acme"),
                "count": tag_pb2.TagValue(int_value=-(2**63)),
                "price": tag_pb2.TagValue(float_value=1.5),
                "new": tag_pb2.TagValue(bool_value=False),
            },
            category=category_pb2.CATEGORY_BAG,
            custom_content="anything é",
            region=geometry_pb2.Box(x_min=-5, y_min=10, x_max=5000, y_max=200),
        )
    )
    assert added.name == f"{library}/images/eins zwei%2Fü"
    assert added.tags["count"].int_value == -(2**63)
    assert added.tags["new"].WhichOneof("kind") == "bool_value"
    assert added.region == geometry_pb2.Box(x_min=0, y_min=10, x_max=320, y_max=200)
    assert (added.info.width, added.info.height) == (320, 240)
    assert (added.info.size_bytes, added.info.media_type) == (len(jpeg(1)), "image/jpeg")
    assert added.category == category_pb2.CATEGORY_BAG
    assert get(gateway, library, added.image_id) == added


def test_a_retry_without_an_image_id_returns_the_same_image(gateway: Stub, library: str) -> None:
    first = gateway.AddImage(add(library, request_id="try"))
    assert gateway.AddImage(add(library, request_id="try")) == first
    other = gateway.AddImage(add(library))
    assert other.image_id != first.image_id
    assert count(gateway, library) == 2


def test_a_retry_with_an_image_id_returns_the_stored_image_and_another_call_fails(
    gateway: Stub, library: str
) -> None:
    first = gateway.AddImage(add(library, "a", request_id="try"))
    assert gateway.AddImage(add(library, "a", request_id="try")) == first
    error = refused(gateway.AddImage, add(library, "a", request_id="another"))
    assert error.reason is Reason.IMAGE_ALREADY_EXISTS
    assert error.metadata == {"image": f"{library}/images/a"}


def test_overwriting_replaces_all_fields_except_the_creation_time(
    gateway: Stub, library: str
) -> None:
    first = gateway.AddImage(add(library, "a", custom_content="old", entity_id="e"))
    second = gateway.AddImage(add(library, "a", image=image(2), allow_overwrite=True))
    assert (second.custom_content, second.entity_id) == ("", "")
    assert second.info.sha256 != first.info.sha256
    assert second.create_time == first.create_time
    assert count(gateway, library) == 1


BAD_PICTURES = {
    "nothing": (b"", Reason.FIELD_REQUIRED),
    "text": (b"no picture", Reason.IMAGE_UNREADABLE),
    "half": (jpeg(1)[:4000], Reason.IMAGE_TRUNCATED),
    "bomb": (png_header(100_000, 100_000), Reason.IMAGE_TOO_LARGE),
    "11 MiB": (jpeg(1) + bytes(11 << 20), Reason.IMAGE_TOO_LARGE),
    "thin": (encoded(Image.new("RGB", (100, 15)), "PNG"), Reason.IMAGE_TOO_SMALL),
}


@pytest.mark.parametrize("name", BAD_PICTURES)
def test_an_invalid_picture_is_rejected_alone_and_in_a_batch(
    gateway: Stub, library: str, name: str
) -> None:
    content, reason = BAD_PICTURES[name]
    bad = picture_pb2.ImageContent(content=content)
    alone = refused(gateway.AddImage, add(library, "bad", image=bad))
    assert alone.reason is reason
    batch = image_pb2.BatchAddImagesRequest(
        parent=library,
        requests=[add("", "one"), add("", "bad", image=bad), add("", "two")],
    )
    answer = gateway.BatchAddImages(batch)
    assert [result.WhichOneof("result") for result in answer.results] == ["image", "error", "image"]
    assert answer.added_count == 2
    in_batch = read(answer.results[1].error)
    assert (in_batch.reason, in_batch.message) == (alone.reason, alone.message)
    assert count(gateway, library) == 2


@pytest.mark.parametrize(
    "corners", [(5, 5, 5, 9), (9, 9, 5, 5), (320, 0, 400, 9), (0, 500, 9, 600)]
)
def test_a_region_outside_the_picture_is_rejected_by_field(
    gateway: Stub, library: str, corners: tuple[float, float, float, float]
) -> None:
    x_min, y_min, x_max, y_max = corners
    region = geometry_pb2.Box(x_min=x_min, y_min=y_min, x_max=x_max, y_max=y_max)
    error = refused(gateway.AddImage, add(library, region=region))
    assert (error.reason, error.fields[0].field) == (Reason.REGION_INVALID, "region")
    assert "items" not in error.message
    assert count(gateway, library) == 0


def test_results_of_a_batch_of_a_hundred_are_in_order_across_chunks(
    gateway: Stub, library: str
) -> None:
    batch = image_pb2.BatchAddImagesRequest(
        parent=library,
        requests=[
            add("", f"{row}", image=image(row % 3), custom_content=f"{row}") for row in range(100)
        ],
    )
    answer = gateway.BatchAddImages(batch)
    assert answer.added_count == 100
    assert [result.image.image_id for result in answer.results] == [f"{row}" for row in range(100)]
    assert [result.image.custom_content for result in answer.results] == [
        f"{row}" for row in range(100)
    ]


def test_the_first_of_two_pictures_with_the_same_id_is_stored(gateway: Stub, library: str) -> None:
    same_chunk = [add("", "a", custom_content="first"), add("", "a", custom_content="second")]
    filler = [add("", f"{row}") for row in range(20)]
    batch = image_pb2.BatchAddImagesRequest(
        parent=library, requests=[*same_chunk, *filler, add("", "a", custom_content="third")]
    )
    answer = gateway.BatchAddImages(batch)
    assert answer.added_count == 21
    for row in (1, 22):
        assert read(answer.results[row].error).reason is Reason.IMAGE_ALREADY_EXISTS
    assert get(gateway, library, "a").custom_content == "first"


def test_a_full_library_rejects_further_images(gateway: Stub, library: str) -> None:
    gateway.UpdateLibrary(
        library_pb2.UpdateLibraryRequest(library=library_pb2.Library(name=library, capacity=2))
    )
    batch = image_pb2.BatchAddImagesRequest(
        parent=library, requests=[add("", f"{row}") for row in range(3)]
    )
    answer = gateway.BatchAddImages(batch)
    assert answer.added_count == 2
    for error in (read(answer.results[2].error), refused(gateway.AddImage, add(library))):
        assert error.reason is Reason.LIBRARY_FULL
        assert error.metadata == {"library": library, "capacity": "2"}


def test_a_tag_keeps_the_type_of_its_first_use(gateway: Stub, library: str) -> None:
    gateway.AddImage(add(library, "a", tags={"size": tag_pb2.TagValue(int_value=3)}))
    error = refused(
        gateway.AddImage, add(library, tags={"size": tag_pb2.TagValue(string_value="x")})
    )
    assert error.reason is Reason.TAG_TYPE_MISMATCH
    assert error.metadata == {"tag": "size", "expected": "integer", "actual": "string"}
    update = image_pb2.UpdateImageRequest(
        image=image_pb2.Image(
            name=f"{library}/images/a", tags={"size": tag_pb2.TagValue(bool_value=True)}
        )
    )
    assert refused(gateway.UpdateImage, update).reason is Reason.TAG_TYPE_MISMATCH
    assert get(gateway, library, "a").tags["size"].int_value == 3


def test_images_are_listed_once_each_in_pages_that_a_filter_narrows(
    gateway: Stub, library: str
) -> None:
    fill(gateway, library, 9)
    for text, expected in (
        ("", {f"p{row}" for row in range(9)}),
        ("tags.n >= 4", {f"p{row}" for row in range(4, 9)}),
        ('entity_id = "e1" OR tags.n = 0', {"p0", "p1", "p3", "p5", "p7"}),
        ("NOT tags.n:* OR width != 320", set()),
        ('create_time > "2000-01-01T00:00:00Z" AND tags.n < 1.5', {"p0", "p1"}),
        ("category = Bag", set()),
    ):
        listed: list[str] = []
        token = ""
        while True:
            page = gateway.ListImages(
                image_pb2.ListImagesRequest(
                    parent=library, filter=text, page_size=2, page_token=token
                )
            )
            assert page.total_size == len(expected)
            listed += [image.image_id for image in page.images]
            token = page.next_page_token
            if not token:
                break
        assert len(listed) == len(expected)
        assert set(listed) == expected, text


def test_an_invalid_list_request_is_rejected(gateway: Stub, library: str) -> None:
    def listed(**fields: Any) -> Any:
        return refused(
            gateway.ListImages, image_pb2.ListImagesRequest(**{"parent": library, **fields})
        )

    error = listed(filter="width = ")
    assert (error.reason, error.metadata) == (Reason.FILTER_INVALID, {"position": "8"})
    assert listed(page_size=-1).fields[0].field == "page_size"
    assert listed(page_token="nonsense").reason is Reason.PAGE_TOKEN_INVALID  # noqa: S106
    assert listed(parent="libraries/none").reason is Reason.LIBRARY_NOT_FOUND
    fill(gateway, library, 3)
    page = gateway.ListImages(image_pb2.ListImagesRequest(parent=library, page_size=2))
    error = listed(filter="tags.n = 1", page_token=page.next_page_token)
    assert error.reason is Reason.PAGE_TOKEN_INVALID


def test_a_filter_with_the_wrong_type_for_a_tag_is_rejected(gateway: Stub, library: str) -> None:
    fill(gateway, library, 1)
    request = image_pb2.ListImagesRequest(parent=library, filter='width > 1 AND tags.n = "a"')
    error = refused(gateway.ListImages, request)
    assert error.reason is Reason.FILTER_INVALID
    assert error.metadata == {"position": "14"}


def update(library: str, *paths: str, **fields: Any) -> image_pb2.UpdateImageRequest:
    return image_pb2.UpdateImageRequest(
        image=image_pb2.Image(name=f"{library}/images/a", **fields),
        update_mask=field_mask_pb2.FieldMask(paths=paths),
    )


def test_an_update_changes_the_fields_of_its_mask(gateway: Stub, library: str) -> None:
    one, two = tag_pb2.TagValue(int_value=1), tag_pb2.TagValue(int_value=2)
    first = gateway.AddImage(
        add(library, "a", tags={"x": one, "y": one}, entity_id="e", custom_content="c")
    )
    after = gateway.UpdateImage(
        update(library, "tags.x", "tags.y", "tags.z", tags={"x": two, "z": two})
    )
    assert dict(after.tags) == {"x": two, "z": two}
    assert (after.entity_id, after.custom_content) == ("e", "c")
    assert after.update_time.ToNanoseconds() > first.update_time.ToNanoseconds()
    after = gateway.UpdateImage(update(library, category=category_pb2.CATEGORY_TOY))
    assert (after.category, after.entity_id) == (category_pb2.CATEGORY_TOY, "e")
    after = gateway.UpdateImage(update(library, "tags", "category", "entity_id"))
    assert (len(after.tags), after.category, after.entity_id) == (0, 0, "")
    assert after.custom_content == "c"
    assert gateway.UpdateImage(update(library)) == after == get(gateway, library, "a")


def test_an_invalid_update_is_rejected(gateway: Stub, library: str) -> None:
    error = refused(gateway.UpdateImage, update(library, custom_content="c"))
    assert error.reason is Reason.IMAGE_NOT_FOUND
    assert error.metadata == {"image": f"{library}/images/a"}
    for path in ("info", "nothing", "tags.1x"):
        error = refused(gateway.UpdateImage, update(library, path))
        assert (error.reason, error.fields[0].field) == (Reason.FIELD_INVALID, "update_mask")


def test_images_are_deleted_by_name_entity_or_filter(gateway: Stub, library: str) -> None:
    fill(gateway, library, 8)

    def delete(**fields: Any) -> int:
        request = image_pb2.DeleteImagesRequest(parent=library, **fields)
        return gateway.DeleteImages(request).deleted_count

    assert delete(names=[f"{library}/images/{name}" for name in ("p0", "p2", "gone")]) == 2
    assert delete(entity_id="e1") == 4
    assert delete(filter="tags.n > 5") == 1
    assert count(gateway, library) == 1
    request = image_pb2.DeleteImageRequest(
        name=f"{library}/images/p4", request_id=f"once in {library}"
    )
    gateway.DeleteImage(request)
    gateway.DeleteImage(request)
    error = refused(gateway.DeleteImage, image_pb2.DeleteImageRequest(name=request.name))
    assert (error.reason, error.metadata) == (Reason.IMAGE_NOT_FOUND, {"image": request.name})
    assert count(gateway, library) == 0


@pytest.mark.parametrize(
    "fields", [{}, {"filter": " "}, {"filter": "("}, {"entity_id": "e", "filter": "width = 1"}]
)
def test_a_deletion_needs_exactly_one_selection(
    gateway: Stub, library: str, fields: dict[str, Any]
) -> None:
    fill(gateway, library, 1)
    refused(gateway.DeleteImages, image_pb2.DeleteImagesRequest(parent=library, **fields))
    assert count(gateway, library) == 1


def test_a_missing_image_is_named_in_the_error(gateway: Stub, library: str) -> None:
    error = refused(gateway.GetImage, image_pb2.GetImageRequest(name=f"{library}/images/a"))
    assert error.reason is Reason.IMAGE_NOT_FOUND
    assert error.metadata == {"image": f"{library}/images/a"}
    error = refused(gateway.GetImage, image_pb2.GetImageRequest(name="libraries/none/images/a"))
    assert error.reason is Reason.LIBRARY_NOT_FOUND
