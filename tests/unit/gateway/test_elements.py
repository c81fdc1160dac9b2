"""Elements on their way into a library and out of it."""

from __future__ import annotations

import pytest

from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.gateway.elements import (
    MOST_CANDIDATES,
    WORDS_ROLE,
    candidate_count,
    check_words,
)
from imagesearch_services.gateway.model import (
    Box,
    DescribedPicture,
    LibraryType,
    ModelVersion,
    PictureInfo,
    SparseVector,
)
from tests.unit.gateway.fakes import library

PICTURE = DescribedPicture(
    info=PictureInfo(30, 20, size_bytes=1, sha256="", media_type="image/png", sharpness=0.0),
    region=Box(0, 0, 30, 20),
    words=SparseVector("words@2", [], []),
    features=b"",
    keypoint_count=0,
)


def test_words_of_another_version_are_never_mixed_into_a_library() -> None:
    older = library(type=LibraryType.ELEMENT, models=(ModelVersion(WORDS_ROLE, "words", "1"),))
    with pytest.raises(ServiceError, match=r"words@1.*words@2") as caught:
        check_words(older, PICTURE)
    assert caught.value.reason is Reason.MODEL_NOT_SERVED


def test_words_of_the_same_version_are_taken() -> None:
    same = library(type=LibraryType.ELEMENT, models=(ModelVersion(WORDS_ROLE, "words", "2"),))
    check_words(same, PICTURE)


@pytest.mark.parametrize(
    ("stored", "count"), [(0, 100), (1_000, 100), (10_000, 200), (100_000, 300), (10**6, 400)]
)
def test_larger_libraries_have_more_candidates_looked_at(stored: int, count: int) -> None:
    assert candidate_count(100, stored) == count


def test_candidates_are_bounded_however_large_a_library_is() -> None:
    assert candidate_count(100, 10**12) == MOST_CANDIDATES
