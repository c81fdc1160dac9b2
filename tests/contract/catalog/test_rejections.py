"""Rejected pairs are stored until one of their images is deleted or replaced, on both backends."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from imagesearch.catalog.v1 import catalog_service_pb2 as pb
from imagesearch.type.v1 import picture_pb2
from imagesearch_services.catalog import rejections
from imagesearch_services.common.errors import Reason
from tests.contract.catalog.support import Catalog, make_entry, refused

pytestmark = pytest.mark.asyncio(loop_scope="session")

A_B, B_C, C_D = ("a", "b"), ("b", "c"), ("c", "d")


async def add_images(catalog: Catalog, library: str) -> None:
    await catalog.store(library, *(image(image_id) for image_id in "abcd"))


def image(image_id: str, sha256: str = "0" * 64) -> pb.Entry:
    info = picture_pb2.PictureInfo(width=1, height=1, sha256=sha256, media_type="image/png")
    return make_entry(image_id, info=info)


def messages(*pairs: tuple[str, str]) -> list[pb.EntryPair]:
    return [pb.EntryPair(image_id_a=a, image_id_b=b) for a, b in pairs]


async def reject(
    catalog: Catalog, library: str, *pairs: tuple[str, str], request_id: str = ""
) -> int:
    request = pb.RejectPairsRequest(
        library_id=library, pairs=messages(*pairs), request_id=request_id
    )
    return (await catalog.stub.RejectPairs(request)).added_count


async def rejected_pairs(
    catalog: Catalog, library: str, image_ids: str | Sequence[str] = "abcd"
) -> set[frozenset[str]]:
    """Return the rejected pairs that contain any of the images."""
    request = pb.FilterRejectedPairsRequest(library_id=library, image_ids=image_ids)
    answer = await catalog.stub.FilterRejectedPairs(request)
    pairs = [frozenset({pair.image_id_a, pair.image_id_b}) for pair in answer.rejected_pairs]
    assert len(pairs) == len(set(pairs))
    return set(pairs)


def unordered(*pairs: tuple[str, str]) -> set[frozenset[str]]:
    return set(map(frozenset, pairs))


async def test_a_pair_is_stored_once_in_either_order(catalog: Catalog, library: str) -> None:
    await add_images(catalog, library)
    assert await reject(catalog, library, A_B, ("b", "a"), B_C) == 2
    assert await reject(catalog, library, ("c", "b"), C_D) == 1
    assert await rejected_pairs(catalog, library) == unordered(A_B, B_C, C_D)


async def test_rejected_pairs_are_listed_by_image(catalog: Catalog, library: str) -> None:
    await add_images(catalog, library)
    await reject(catalog, library, A_B, B_C, C_D)
    assert await rejected_pairs(catalog, library, ["a", "missing"]) == unordered(A_B)
    assert await rejected_pairs(catalog, library, "bc") == unordered(A_B, B_C, C_D)
    assert await rejected_pairs(catalog, library, "") == set()


async def test_rejected_pairs_are_paged(
    catalog: Catalog, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rejections, "PAGE_PAIRS", 2)
    await add_images(catalog, library)
    pairs = [A_B, B_C, C_D, ("a", "c"), ("b", "d")]
    await reject(catalog, library, *pairs)
    request = pb.FilterRejectedPairsRequest(library_id=library, image_ids="abcd")
    pages = [await catalog.stub.FilterRejectedPairs(request)]
    while pages[-1].next_page_token:
        request.page_token = pages[-1].next_page_token
        pages.append(await catalog.stub.FilterRejectedPairs(request))
    assert [len(page.rejected_pairs) for page in pages] == [2, 2, 1]
    listed = {(pair.image_id_a, pair.image_id_b) for page in pages for pair in page.rejected_pairs}
    assert listed == set(pairs)
    request.image_ids[:] = ["a"]
    request.page_token = pages[0].next_page_token
    with refused(Reason.PAGE_TOKEN_INVALID):
        await catalog.stub.FilterRejectedPairs(request)


async def test_pairs_belong_to_one_library(catalog: Catalog, library: str, new_id: str) -> None:
    await catalog.make_library(new_id)
    for library_id in (library, new_id):
        await add_images(catalog, library_id)
    await reject(catalog, library, A_B)
    assert await rejected_pairs(catalog, new_id) == set()
    assert await rejected_pairs(catalog, library) == unordered(A_B)


async def test_deleting_an_image_deletes_its_pairs_permanently(
    catalog: Catalog, library: str
) -> None:
    await add_images(catalog, library)
    await reject(catalog, library, A_B, B_C, C_D)
    await catalog.delete(library, "a")
    await catalog.store(library, image("a"))
    assert await rejected_pairs(catalog, library) == unordered(B_C, C_D)
    assert await reject(catalog, library, A_B) == 1


async def test_overwriting_an_image_with_another_file_deletes_its_pairs(
    catalog: Catalog, library: str
) -> None:
    await add_images(catalog, library)
    await reject(catalog, library, A_B, C_D)
    await catalog.store(library, image("a", sha256="1" * 64), allow_overwrite=[True])
    await catalog.store(library, image("c"), allow_overwrite=[True])
    assert await rejected_pairs(catalog, library) == unordered(C_D)


async def test_deleting_a_library_deletes_its_pairs(catalog: Catalog, new_id: str) -> None:
    await catalog.make_library(new_id)
    await add_images(catalog, new_id)
    await reject(catalog, new_id, A_B)
    await catalog.stub.DeleteLibrary(pb.DeleteLibraryRequest(library_id=new_id))
    await catalog.make_library(new_id)
    await add_images(catalog, new_id)
    assert await rejected_pairs(catalog, new_id) == set()


async def test_a_repeated_rejection_returns_the_first_answer(
    catalog: Catalog, library: str
) -> None:
    await add_images(catalog, library)
    request_id = f"{library}-once"
    assert await reject(catalog, library, A_B, request_id=request_id) == 1
    assert await reject(catalog, library, A_B, request_id=request_id) == 1
    with refused(Reason.REQUEST_ID_REUSED):
        await reject(catalog, library, B_C, request_id=request_id)
    assert await reject(catalog, library, A_B) == 0


async def test_a_missing_image_fails_the_whole_rejection(catalog: Catalog, library: str) -> None:
    await add_images(catalog, library)
    with refused(Reason.IMAGE_NOT_FOUND) as errors:
        await reject(catalog, library, A_B, ("a", "gone"))
    assert errors[0].metadata["image"] == f"libraries/{library}/images/gone"
    assert await rejected_pairs(catalog, library) == set()


@pytest.mark.parametrize(
    ("pairs", "reason"),
    [
        ([], Reason.FIELD_REQUIRED),
        ([("a", "")], Reason.FIELD_REQUIRED),
        ([("a", "a")], Reason.FIELD_INVALID),
        ([A_B] * 1001, Reason.FIELD_INVALID),
        ([("a", "x/y")], Reason.FIELD_INVALID),
    ],
    ids=["no pair", "missing image id", "same image twice", "too many pairs", "invalid image id"],
)
async def test_invalid_pairs_are_refused(
    catalog: Catalog, library: str, pairs: list[tuple[str, str]], reason: Reason
) -> None:
    await add_images(catalog, library)
    with refused(reason):
        await reject(catalog, library, *pairs)


async def test_pairs_of_an_unknown_library_are_refused(catalog: Catalog) -> None:
    with refused(Reason.LIBRARY_NOT_FOUND):
        await reject(catalog, "nowhere", A_B)
    with refused(Reason.LIBRARY_NOT_FOUND):
        await rejected_pairs(catalog, "nowhere")
