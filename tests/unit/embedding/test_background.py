"""Background similarity of embeddings."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from imagesearch_services.embedding.inference.background import (
    MAX_SIMILARITY,
    Background,
    load_backgrounds,
)


def unit_rows(seed: int, rows: int) -> npt.NDArray[np.float32]:
    vectors = np.random.default_rng(seed).standard_normal((rows, 32)).astype(np.float32)
    scaled: npt.NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return scaled


def as_bytes(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.int8]:
    scaled: npt.NDArray[np.int8] = np.round(
        vectors * 127 / np.abs(vectors).max(axis=1, keepdims=True)
    ).astype(np.int8)
    return scaled


def test_background_similarity_is_the_mean_over_the_third_to_seventh_nearest_pictures() -> None:
    others, queries = unit_rows(1, 50), unit_rows(2, 3)
    expected = np.sort(queries @ others.T, axis=1)[:, ::-1][:, 2:7].mean(axis=1)
    found = Background(as_bytes(others)).similarities(queries)
    np.testing.assert_allclose(found, expected, atol=0.01)


def test_a_picture_of_the_set_and_its_duplicate_are_skipped() -> None:
    others, query = unit_rows(1, 50), unit_rows(2, 1)
    without = Background(as_bytes(others)).similarities(query)
    within = Background(as_bytes(np.concatenate([others, query, query]))).similarities(query)
    assert within[0] < 0.99
    assert abs(within[0] - without[0]) < 0.2


def test_background_similarity_is_clipped_below_one_and_at_zero() -> None:
    query = unit_rows(2, 1)
    same = Background(as_bytes(np.repeat(query, 20, axis=0))).similarities(query)
    opposite = Background(as_bytes(np.repeat(-query, 20, axis=0))).similarities(query)
    assert same[0] == np.float32(MAX_SIMILARITY)
    assert opposite[0] == 0


def test_the_copy_descriptor_has_a_background_set(tmp_path: Path) -> None:
    assert "sscd@1" in load_backgrounds()
    assert not load_backgrounds(tmp_path)
