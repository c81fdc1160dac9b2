"""Thumbnails through every service, and the suite without its blob store."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from PIL import Image

from imagesearch.gateway.v1 import image_pb2, library_pb2, search_pb2
from imagesearch.type.v1 import geometry_pb2, picture_pb2
from imagesearch_services.common.errors import Reason
from imagesearch_services.runner.suite import Suite
from tests.e2e.conftest import Stub, open_channel, temporary_library
from tests.e2e.errors import refused
from tests.pictures import encoded, photo
from tests.waiting import eventually

SECRET = b"at home in the garden"


def content(seed: int, size: tuple[int, int] = (640, 480)) -> picture_pb2.ImageContent:
    return picture_pb2.ImageContent(content=encoded(photo(seed, size)))


def add(library: str, image_id: str, **fields: object) -> image_pb2.AddImageRequest:
    fields = {"image": content(1)} | fields
    return image_pb2.AddImageRequest(parent=library, image_id=image_id, **fields)


def get(gateway: Stub, library: str, image_id: str) -> bytes:
    request = image_pb2.GetThumbnailRequest(name=f"{library}/images/{image_id}")
    answer = gateway.GetThumbnail(request)
    assert answer.media_type == "image/jpeg"
    return answer.content


def opened(file: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(file))
    assert picture.format == "JPEG"
    return picture


def test_an_added_picture_has_a_thumbnail(gateway: Stub, library: str) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, SECRET.decode()
    file = encoded(photo(1, (900, 600)), "JPEG", exif=exif, comment=SECRET)
    region = geometry_pb2.Box(x_min=0, y_min=0, x_max=200, y_max=200)
    image = picture_pb2.ImageContent(content=file)
    stored = gateway.AddImage(add(library, "turned", image=image, region=region))
    assert not stored.warnings
    small = get(gateway, library, "turned")
    assert opened(small).size == (213, 320)
    assert SECRET in file
    assert SECRET not in small


def test_matches_come_with_their_thumbnails(gateway: Stub, library: str) -> None:
    requests = [add(library, f"{seed}", image=content(seed)) for seed in (1, 2, 3)]
    gateway.BatchAddImages(image_pb2.BatchAddImagesRequest(parent=library, requests=requests))
    search = search_pb2.SearchImagesRequest(
        parent=library,
        image=content(2),
        relation=search_pb2.RELATION_SIMILAR,
        include_thumbnails=True,
        page_size=2,
    )
    first = gateway.SearchImages(search)
    search.page_token = first.next_page_token
    second = gateway.SearchImages(search)
    assert (len(first.matches), len(second.matches)) == (2, 1)
    for match in (*first.matches, *second.matches):
        assert match.thumbnail == get(gateway, library, match.image.image_id)
    assert not first.warnings
    assert "thumbnails" in {timing.step for timing in first.timings}

    batch = search_pb2.BatchSearchImagesRequest(
        parent=library,
        requests=[
            search_pb2.SearchImagesRequest(image=content(2), include_thumbnails=True),
            search_pb2.SearchImagesRequest(image=content(2)),
        ],
    )
    with_, without = (result.response for result in gateway.BatchSearchImages(batch).results)
    assert with_.matches[0].thumbnail == first.matches[0].thumbnail
    assert not without.matches[0].thumbnail


def test_overwriting_an_image_replaces_its_thumbnail(gateway: Stub, library: str) -> None:
    gateway.AddImage(add(library, "a", image=content(1, (640, 480))))
    gateway.AddImage(add(library, "a", image=content(2, (480, 640)), allow_overwrite=True))
    assert opened(get(gateway, library, "a")).size == (240, 320)


def test_an_image_without_a_thumbnail_is_thumbnail_not_found(gateway: Stub, library: str) -> None:
    no_thumbnails = library_pb2.Library(name=library, thumbnails_disabled=True)
    mask = FieldMask(paths=["thumbnails_disabled"])
    gateway.AddImage(add(library, "before"))
    gateway.UpdateLibrary(library_pb2.UpdateLibraryRequest(library=no_thumbnails, update_mask=mask))
    stored = gateway.AddImage(add(library, "after"))
    assert not stored.warnings
    assert get(gateway, library, "before")
    error = refused(
        gateway.GetThumbnail, image_pb2.GetThumbnailRequest(name=f"{library}/images/after")
    )
    assert error.reason is Reason.THUMBNAIL_NOT_FOUND
    assert error.metadata == {"image": f"{library}/images/after"}
    found = gateway.SearchImages(
        search_pb2.SearchImagesRequest(parent=library, image=content(1), include_thumbnails=True)
    )
    assert {match.image.image_id: bool(match.thumbnail) for match in found.matches} == {
        "before": True,
        "after": False,
    }

    no_thumbnails.thumbnails_disabled = False
    gateway.UpdateLibrary(library_pb2.UpdateLibraryRequest(library=no_thumbnails, update_mask=mask))
    gateway.AddImage(add(library, "again"))
    assert get(gateway, library, "again")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", Reason.FIELD_REQUIRED),
        ("{library}", Reason.FIELD_INVALID),
        ("{library}/images/", Reason.FIELD_REQUIRED),
        ("{library}/images/../x", Reason.FIELD_INVALID),
        ("{library}/images/nobody", Reason.IMAGE_NOT_FOUND),
        ("{library}/images/..", Reason.FIELD_INVALID),
        ("libraries/nowhere/images/a", Reason.LIBRARY_NOT_FOUND),
    ],
)
def test_the_thumbnail_of_an_unknown_name_is_refused(
    gateway: Stub, library: str, name: str, reason: Reason
) -> None:
    request = image_pb2.GetThumbnailRequest(name=name.format(library=library))
    assert refused(gateway.GetThumbnail, request).reason is reason


def test_deleting_an_image_deletes_its_thumbnail(suite: Suite, gateway: Stub, library: str) -> None:
    def files() -> set[Path]:
        return set((suite.settings.data_dir / "catalog" / "thumbnails").rglob("*.jpg"))

    before = files()
    gateway.AddImage(add(library, "a"))
    assert len(files() - before) == 1
    gateway.DeleteImage(image_pb2.DeleteImageRequest(name=f"{library}/images/a"))
    assert files() <= before


@pytest.fixture
def calls(fragile_suite: Suite) -> Iterator[Stub]:
    with open_channel(fragile_suite.target) as channel:
        yield Stub(channel)


@pytest.fixture
def stocked(calls: Stub) -> Iterator[str]:
    for name in temporary_library(calls):
        calls.AddImage(add(name, "a"))
        yield name


def test_without_the_blob_store_adding_and_searching_work_with_a_warning(
    fragile_suite: Suite, calls: Stub, stocked: str
) -> None:
    folder = fragile_suite.settings.data_dir / "catalog" / "thumbnails"
    aside = folder.with_name("aside")
    folder.rename(aside)
    folder.write_bytes(b"in the way")
    try:
        stored = calls.AddImage(add(stocked, "b", image=content(2)), timeout=30)
        assert stored.image_id == "b"
        assert "thumbnail was not kept" in stored.warnings[0]
        search = search_pb2.SearchImagesRequest(
            parent=stocked, image=content(1), include_thumbnails=True
        )
        found = calls.SearchImages(search, timeout=30)
        assert [match.image.image_id for match in found.matches] == ["a"]
        assert not found.matches[0].thumbnail
        assert found.warnings[0].startswith("thumbnails: not included")
        name = image_pb2.GetThumbnailRequest(name=f"{stocked}/images/a")
        error = refused(calls.GetThumbnail, name, timeout=30)
        assert error.reason is Reason.BLOB_STORE_UNAVAILABLE
    finally:
        folder.unlink()
        aside.rename(folder)
    assert get(calls, stocked, "a")
    name = image_pb2.GetThumbnailRequest(name=f"{stocked}/images/b")
    assert refused(calls.GetThumbnail, name).reason is Reason.THUMBNAIL_NOT_FOUND


def test_a_killed_catalog_loses_no_thumbnail(
    fragile_suite: Suite, calls: Stub, stocked: str
) -> None:
    before = get(calls, stocked, "a")
    fragile_suite.processes["catalog"].kill()
    fragile_suite.launch("catalog")
    for name in fragile_suite.ORDER:
        fragile_suite.wait_serving(name)
    # The channels between the services reconnect within a second.
    eventually(lambda: get(calls, stocked, "a"))
    assert get(calls, stocked, "a") == before


def test_a_short_deadline_returns_no_partial_answer(gateway: Stub, library: str) -> None:
    gateway.AddImage(add(library, "a"))
    request = image_pb2.GetThumbnailRequest(name=f"{library}/images/a")
    with pytest.raises(grpc.RpcError) as caught:
        gateway.GetThumbnail(request, timeout=0.0001)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED  # type: ignore[attr-defined]
