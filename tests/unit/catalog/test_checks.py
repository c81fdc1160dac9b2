"""Checks of ids and vectors."""

from __future__ import annotations

import numpy as np
import pytest

from imagesearch_services.catalog.entry.checks import check_image_id
from imagesearch_services.catalog.entry.vector_checks import find_not_unit
from imagesearch_services.common.errors import ServiceError


@pytest.mark.parametrize("image_id", ["a", "é" * 127, "%2F", " ", "猫.jpg", "a\u200db"])
def test_image_ids_may_contain_any_printable_text(image_id: str) -> None:
    check_image_id("image_id", image_id)


@pytest.mark.parametrize("image_id", ["", "é" * 128, "a/b", "\0", "a\x7f", "\x85"])
def test_invalid_image_ids_are_refused(image_id: str) -> None:
    with pytest.raises(ServiceError):
        check_image_id("image_id", image_id)


def test_find_not_unit_returns_rows_that_are_not_unit_vectors() -> None:
    vectors = np.zeros((6, 4), "<f4")
    vectors[:, 0] = [1, 0, 1.0005, 1.002, np.nan, np.inf]
    assert find_not_unit(vectors) == [1, 3, 4, 5]
