"""Invalid input is refused at once with a precise error, and nothing is stored."""

from __future__ import annotations

import io
import zipfile

import grpc
import pytest
from google.protobuf import field_mask_pb2
from PIL import Image

from imagesearch.gateway.v1 import image_pb2, library_pb2, search_pb2
from imagesearch.type.v1 import geometry_pb2, library_type_pb2, picture_pb2, tag_pb2
from imagesearch_services.common.errors import Reason
from tests.e2e.conftest import Stub
from tests.e2e.errors import read, refused
from tests.pictures import encoded, photo, png_header

JPEG = encoded(photo(1))


def image_count(gateway: Stub, library: str) -> int:
    return gateway.GetLibrary(library_pb2.GetLibraryRequest(name=library)).image_count


def zip_archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("picture.jpg", JPEG)
    return buffer.getvalue()


BAD_PICTURES = {
    "no bytes": (b"", Reason.FIELD_REQUIRED),
    "text": (b"this is no picture at all", Reason.IMAGE_UNREADABLE),
    "an archive": (zip_archive(), Reason.IMAGE_UNREADABLE),
    "an SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", Reason.IMAGE_UNREADABLE),
    "half a JPEG": (JPEG[: len(JPEG) // 2], Reason.IMAGE_TRUNCATED),
    "a bomb's header": (png_header(100_000, 100_000), Reason.IMAGE_TOO_LARGE),
    "11 MiB": (JPEG + b"\0" * (11 << 20), Reason.IMAGE_TOO_LARGE),
    "15 pixels": (encoded(Image.new("RGB", (400, 15)), "PNG"), Reason.IMAGE_TOO_SMALL),
}


@pytest.mark.parametrize("name", BAD_PICTURES)
def test_an_invalid_picture_is_refused_with_its_reason_and_not_stored(
    gateway: Stub, library: str, name: str
) -> None:
    content, reason = BAD_PICTURES[name]
    image = picture_pb2.ImageContent(content=content)
    added = refused(gateway.AddImage, image_pb2.AddImageRequest(parent=library, image=image))
    assert added.reason is reason
    searched = refused(
        gateway.SearchImages, search_pb2.SearchImagesRequest(parent=library, image=image)
    )
    assert searched.reason is reason
    assert image_count(gateway, library) == 0


BAD_REGIONS = {
    "without area": (10, 10, 10, 90),
    "inverted": (90, 90, 10, 10),
    "outside": (5000, 5000, 6000, 6000),
    "not a number": (float("nan"), 0, 50, 50),
}


@pytest.mark.parametrize("name", BAD_REGIONS)
def test_a_region_without_pixels_is_refused(gateway: Stub, library: str, name: str) -> None:
    x_min, y_min, x_max, y_max = BAD_REGIONS[name]
    region = geometry_pb2.Box(x_min=x_min, y_min=y_min, x_max=x_max, y_max=y_max)
    image = picture_pb2.ImageContent(content=JPEG)
    for call, request in (
        (gateway.AddImage, image_pb2.AddImageRequest(parent=library, image=image, region=region)),
        (
            gateway.SearchImages,
            search_pb2.SearchImagesRequest(parent=library, image=image, region=region),
        ),
    ):
        assert refused(call, request).reason is Reason.REGION_INVALID
    assert image_count(gateway, library) == 0


BAD_SEARCHES = {
    "no query": (search_pb2.SearchImagesRequest(), Reason.FIELD_REQUIRED),
    "score over one": (search_pb2.SearchImagesRequest(min_score=1.5), Reason.FIELD_INVALID),
    "rate of zero": (
        search_pb2.SearchImagesRequest(max_false_positive_rate=0),
        Reason.FIELD_INVALID,
    ),
    "negative page": (search_pb2.SearchImagesRequest(page_size=-1), Reason.FIELD_INVALID),
    "invented token": (
        search_pb2.SearchImagesRequest(page_token="bm90IG91cnM"),  # noqa: S106
        Reason.PAGE_TOKEN_INVALID,
    ),
    "unknown relation": (search_pb2.SearchImagesRequest(relation=9), Reason.FIELD_INVALID),  # type: ignore[arg-type]
    "subject detection": (
        search_pb2.SearchImagesRequest(subject_detection=True),
        Reason.LIBRARY_TYPE_MISMATCH,
    ),
}


@pytest.mark.parametrize("name", BAD_SEARCHES)
def test_an_invalid_search_is_refused_by_field(gateway: Stub, library: str, name: str) -> None:
    template, reason = BAD_SEARCHES[name]
    request = search_pb2.SearchImagesRequest()
    request.CopyFrom(template)
    request.parent = library
    if name != "no query":
        request.image.content = JPEG
    assert refused(gateway.SearchImages, request).reason is reason


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("tags.price <", 12),
        ('tags.brand = "acme" AND (tags.price < 50', 40),
        ("colour = 3", 0),
        ("width = 'x", 8),
        ("width ~ 3", 6),
    ],
)
def test_an_invalid_filter_is_refused_with_its_position(
    gateway: Stub, library: str, text: str, position: int
) -> None:
    for call, request in (
        (gateway.ListImages, image_pb2.ListImagesRequest(parent=library, filter=text)),
        (
            gateway.SearchImages,
            search_pb2.SearchImagesRequest(
                parent=library, image=picture_pb2.ImageContent(content=JPEG), filter=text
            ),
        ),
        (gateway.DeleteImages, image_pb2.DeleteImagesRequest(parent=library, filter=text)),
    ):
        error = refused(call, request)
        assert error.reason is Reason.FILTER_INVALID
        assert error.metadata["position"] == str(position), text


def test_an_unknown_library_is_named(gateway: Stub) -> None:
    image = picture_pb2.ImageContent(content=JPEG)
    for call, request in (
        (gateway.GetLibrary, library_pb2.GetLibraryRequest(name="libraries/nowhere")),
        (gateway.DeleteLibrary, library_pb2.DeleteLibraryRequest(name="libraries/nowhere")),
        (gateway.AddImage, image_pb2.AddImageRequest(parent="libraries/nowhere", image=image)),
        (gateway.ListImages, image_pb2.ListImagesRequest(parent="libraries/nowhere")),
        (
            gateway.SearchImages,
            search_pb2.SearchImagesRequest(parent="libraries/nowhere", image=image),
        ),
    ):
        error = refused(call, request)
        assert error.reason is Reason.LIBRARY_NOT_FOUND
        assert error.metadata["library"] == "libraries/nowhere"


@pytest.mark.parametrize("name", ["", "nowhere", "libraries/", "libraries/Über", "libraries/a/b"])
def test_an_invalid_resource_name_is_refused(gateway: Stub, name: str) -> None:
    error = refused(gateway.GetLibrary, library_pb2.GetLibraryRequest(name=name))
    assert error.reason in {Reason.FIELD_INVALID, Reason.FIELD_REQUIRED}
    assert error.fields[0].field == "name"


def test_creating_an_existing_library_is_refused(gateway: Stub, library: str) -> None:
    error = refused(
        gateway.CreateLibrary,
        library_pb2.CreateLibraryRequest(
            library_id=library.partition("/")[2],
            library=library_pb2.Library(type=library_type_pb2.LIBRARY_TYPE_WHOLE_IMAGE),
        ),
    )
    assert error.reason is Reason.LIBRARY_ALREADY_EXISTS


def test_a_library_needs_a_type(gateway: Stub) -> None:
    error = refused(gateway.CreateLibrary, library_pb2.CreateLibraryRequest(library_id="typeless"))
    assert error.fields[0].field == "library.type"


def test_adding_an_existing_image_needs_allow_overwrite(gateway: Stub, library: str) -> None:
    request = image_pb2.AddImageRequest(
        parent=library, image_id="one", image=picture_pb2.ImageContent(content=JPEG)
    )
    gateway.AddImage(request)
    error = refused(gateway.AddImage, request)
    assert error.reason is Reason.IMAGE_ALREADY_EXISTS
    request.allow_overwrite = True
    request.custom_content = "second"
    assert gateway.AddImage(request).custom_content == "second"
    assert image_count(gateway, library) == 1


@pytest.mark.parametrize("image_id", ["a/b", "tab\there", "é" * 128, ".", ".."])
def test_an_invalid_image_id_is_refused(gateway: Stub, library: str, image_id: str) -> None:
    error = refused(
        gateway.AddImage,
        image_pb2.AddImageRequest(
            parent=library, image_id=image_id, image=picture_pb2.ImageContent(content=JPEG)
        ),
    )
    assert error.fields[0].field == "image_id"


def test_custom_content_over_the_limit_is_refused(gateway: Stub, library: str) -> None:
    error = refused(
        gateway.AddImage,
        image_pb2.AddImageRequest(
            parent=library,
            image=picture_pb2.ImageContent(content=JPEG),
            custom_content="é" * 2049,
        ),
    )
    assert error.fields[0].field == "custom_content"


def test_a_full_library_refuses_images(gateway: Stub, library: str) -> None:
    gateway.UpdateLibrary(
        library_pb2.UpdateLibraryRequest(
            library=library_pb2.Library(name=library, capacity=2),
            update_mask=field_mask_pb2.FieldMask(paths=["capacity"]),
        )
    )
    answer = gateway.BatchAddImages(
        image_pb2.BatchAddImagesRequest(
            parent=library,
            requests=[
                image_pb2.AddImageRequest(
                    image_id=f"{seed}", image=picture_pb2.ImageContent(content=encoded(photo(seed)))
                )
                for seed in range(3)
            ],
        )
    )
    assert answer.added_count == 2
    assert read(answer.results[2].error).reason is Reason.LIBRARY_FULL
    assert image_count(gateway, library) == 2


def test_a_tag_of_another_type_is_refused(gateway: Stub, library: str) -> None:
    def add(value: tag_pb2.TagValue) -> image_pb2.AddImageRequest:
        return image_pb2.AddImageRequest(
            parent=library, image=picture_pb2.ImageContent(content=JPEG), tags={"size": value}
        )

    gateway.AddImage(add(tag_pb2.TagValue(int_value=3)))
    error = refused(gateway.AddImage, add(tag_pb2.TagValue(string_value="three")))
    assert error.reason is Reason.TAG_TYPE_MISMATCH
    assert error.metadata["tag"] == "size"


def test_an_invalid_picture_in_a_batch_fails_alone(gateway: Stub, library: str) -> None:
    answer = gateway.BatchAddImages(
        image_pb2.BatchAddImagesRequest(
            parent=library,
            requests=[
                image_pb2.AddImageRequest(
                    image_id="good", image=picture_pb2.ImageContent(content=JPEG)
                ),
                image_pb2.AddImageRequest(
                    image_id="bad", image=picture_pb2.ImageContent(content=b"no picture")
                ),
                image_pb2.AddImageRequest(
                    image_id="good", image=picture_pb2.ImageContent(content=encoded(photo(2)))
                ),
                image_pb2.AddImageRequest(
                    image_id="fine", image=picture_pb2.ImageContent(content=encoded(photo(3)))
                ),
            ],
        )
    )
    assert [result.WhichOneof("result") for result in answer.results] == [
        "image",
        "error",
        "error",
        "image",
    ]
    assert read(answer.results[1].error).reason is Reason.IMAGE_UNREADABLE
    assert read(answer.results[2].error).reason is Reason.IMAGE_ALREADY_EXISTS
    assert image_count(gateway, library) == 2


def test_a_batch_over_the_limit_is_refused(gateway: Stub, library: str) -> None:
    too_many = [image_pb2.AddImageRequest()] * 101
    error = refused(
        gateway.BatchAddImages,
        image_pb2.BatchAddImagesRequest(parent=library, requests=too_many),
    )
    assert error.fields[0].field == "requests"
    error = refused(gateway.BatchAddImages, image_pb2.BatchAddImagesRequest(parent=library))
    assert error.reason is Reason.FIELD_REQUIRED


def test_a_message_over_the_limit_is_refused_by_the_transport(gateway: Stub, library: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        gateway.AddImage(
            image_pb2.AddImageRequest(
                parent=library, image=picture_pb2.ImageContent(content=bytes(33 << 20))
            )
        )
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # type: ignore[attr-defined]
