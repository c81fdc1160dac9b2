"""Adding elements, and the candidates of an element search."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from imagesearch_services.common import roles
from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.types import (
    Box,
    LibraryType,
    ModelVersion,
    PictureInfo,
    SparseVector,
)
from imagesearch_services.gateway.model import DescribedPicture, FeaturesHit
from imagesearch_services.gateway.roles import check_vocabulary
from imagesearch_services.gateway.search.candidates import (
    MAX_CANDIDATES,
    candidate_count,
    load_candidates,
)
from tests.unit.gateway.fakes import library

PICTURE = DescribedPicture(
    info=PictureInfo(30, 20, size_bytes=1, sha256="", media_type="image/png", sharpness=0.0),
    region=Box(0, 0, 30, 20),
    words=SparseVector("words@2", [], []),
    features=b"",
    keypoint_count=0,
)


def test_words_of_another_vocabulary_version_are_refused() -> None:
    older = library(type=LibraryType.ELEMENT, models=(ModelVersion(roles.WORDS, "words", "1"),))
    with pytest.raises(ServiceError, match=r"words@1.*words@2") as caught:
        check_vocabulary(older, PICTURE)
    assert caught.value.reason is Reason.MODEL_NOT_SERVED


def test_words_of_the_same_vocabulary_version_are_accepted() -> None:
    same = library(type=LibraryType.ELEMENT, models=(ModelVersion(roles.WORDS, "words", "2"),))
    check_vocabulary(same, PICTURE)


@pytest.mark.parametrize(
    ("stored", "count"), [(0, 100), (1_000, 100), (10_000, 200), (100_000, 300), (10**6, 400)]
)
def test_larger_libraries_have_more_candidates(stored: int, count: int) -> None:
    assert candidate_count(100, stored) == count


def test_the_number_of_candidates_is_bounded() -> None:
    assert candidate_count(100, 10**12) == MAX_CANDIDATES


async def test_features_are_loaded_once_and_before_the_slowest_query_ends() -> None:
    loads: list[tuple[str, list[bytes]]] = []
    first_is_loaded = asyncio.Event()

    async def quick() -> list[bytes]:
        return [b"a", b"b"]

    async def slow() -> list[bytes]:
        await first_is_loaded.wait()
        return [b"b", b"c"]

    async def nothing_new() -> list[bytes]:
        await first_is_loaded.wait()
        return [b"a"]

    async def load_features(query: str, uids: Sequence[bytes]) -> list[FeaturesHit]:
        loads.append((query, list(uids)))
        first_is_loaded.set()
        return [FeaturesHit(uid, b"blob") for uid in uids]

    queries = {"words": quick(), "windows": slow(), "shapes": nothing_new()}
    found = await asyncio.wait_for(load_candidates(queries, load_features), 10)
    assert [candidate.uid for candidate in found] == [b"a", b"b", b"c"]
    assert loads == [("words", [b"a", b"b"]), ("windows", [b"c"])]
