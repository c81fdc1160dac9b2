"""Windows of dense models, and the serialization and comparison of regional descriptors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.types import Box
from imagesearch_services.embedding.elements.regional import (
    Regional,
    nearest_windows,
    pack_regional,
    unpack_regional,
)
from imagesearch_services.embedding.inference.windows import Windows

PARAMETERS = {"windows": "0.5x0.5:4x4,0.25x0.5:8x1", "windows_side_px": "640"}
FIELD = "features"


@pytest.fixture
def windows() -> Windows:
    return Windows.from_parameters(PARAMETERS)


def regional(seed: int, count: int) -> Regional:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(count, 64)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    boxes = rng.uniform(0, 500, (count, 4)).astype(np.float32)
    return Regional(vectors, boxes)


def test_windows_span_the_region_from_edge_to_edge(windows: Windows) -> None:
    boxes = windows.boxes(Box(100, 200, 500, 400))
    assert len(boxes) == windows.count == 24
    assert boxes[0] == (100, 200, 300, 300)
    assert boxes[15] == (300, 300, 500, 400)
    assert boxes[16] == (100, 200, 200, 300)
    assert boxes[23] == (400, 200, 500, 300)


def test_the_input_keeps_the_aspect_ratio_in_whole_steps(windows: Windows) -> None:
    spec = windows.input_for(Box(0, 0, 4000, 3000))
    assert (spec.width, spec.height) == (640, 480)
    spec = windows.input_for(Box(0, 0, 10, 1000))
    assert (spec.width, spec.height) == (64, 640)


@pytest.mark.parametrize("size", [(1, 1), (640, 640), (623, 640), (9000, 31), (3, 4)])
def test_no_input_exceeds_the_maximum_pixels(windows: Windows, size: tuple[float, float]) -> None:
    assert windows.input_for(Box(0, 0, *size)).pixels <= windows.max_pixels


@pytest.mark.parametrize(
    "changes",
    [
        {"windows": ""},
        {"windows": "2x1:3x3"},
        {"windows": "0.5x0.5:0x3"},
        {"windows": "0.5x0.5"},
        {"windows_side_px": "8"},
        {"windows_side_px": "wide"},
    ],
)
def test_malformed_windows_are_refused(changes: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"windows|unpack|invalid literal"):
        Windows.from_parameters(PARAMETERS | changes)


def test_vectors_and_local_features_survive_serialization() -> None:
    before = regional(1, 24)
    local, after = unpack_regional(pack_regional(b"local", before), field=FIELD)
    assert local == b"local"
    assert after is not None
    assert (np.einsum("ij,ij->i", before.vectors, after.vectors) > 0.998).all()
    np.testing.assert_array_equal(after.boxes, before.boxes)


def test_local_features_without_vectors_are_unchanged() -> None:
    assert pack_regional(b"E1 local", None) == b"E1 local"
    assert unpack_regional(b"E1 local", field=FIELD) == (b"E1 local", None)


def test_truncated_vectors_are_refused() -> None:
    raw = pack_regional(b"local", regional(1, 2))
    for length in range(10, len(raw)):
        with pytest.raises(ServiceError, match=FIELD) as caught:
            unpack_regional(raw[:length], field=FIELD)
        assert caught.value.reason is Reason.FIELD_INVALID


def test_zero_vectors_are_refused() -> None:
    zero = replace(regional(1, 1), vectors=np.zeros((1, 64), np.float32))
    with pytest.raises(ServiceError, match="zero vector"):
        unpack_regional(pack_regional(b"", zero), field=FIELD)


def test_an_element_is_compared_with_its_nearest_window() -> None:
    query = regional(1, 24)
    element = replace(regional(2, 1), vectors=query.vectors[7:8])
    first, second = nearest_windows(query, [element, None])
    assert first is not None
    assert first[0] == pytest.approx(1.0)
    assert first[1] == 7
    assert second is None


def test_vectors_of_another_model_are_not_compared() -> None:
    other = replace(regional(1, 1), vectors=np.ones((1, 8), np.float32))
    assert nearest_windows(regional(1, 24), [other]) == [None]
    assert nearest_windows(None, [other]) == [None]
