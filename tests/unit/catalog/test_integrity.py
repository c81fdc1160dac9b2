"""Checksums of payloads, features and vectors."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest

from imagesearch_services.catalog.integrity import (
    VECTORS_KEY,
    _is_parsed_exactly,
    damaged_vectors,
    has_intact_features,
    is_intact,
    seal,
    vector_check,
)
from imagesearch_services.catalog.model import VectorSpace
from imagesearch_services.catalog.storage import CHECKSUM_KEY, FEATURES_KEY, UNREADABLE_KEY
from imagesearch_services.common.types import SparseVector

PAYLOAD: dict[str, Any] = {
    "image_id": "a",
    "create_time": 1786634085.115270,
    "tags": {"price": 0.1, "n": 2**62, "on": True},
    "subject": {"box": [0.25, 0.5, 1.0, 0.1234567890125], "colors": [["red", "#f00", 0.3]]},
    FEATURES_KEY: "!0features",
}


def changed(payload: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    return {**payload, key: value}


def test_a_sealed_payload_is_intact_with_and_without_its_features() -> None:
    sealed = seal(PAYLOAD)
    assert is_intact(sealed)
    assert is_intact({key: value for key, value in sealed.items() if key != FEATURES_KEY})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("image_id", "b"),
        ("create_time", 1786634085.115271),
        ("tags", {"price": 0.1000001, "n": 2**62, "on": True}),
        ("tags", {"price": 0.1, "n": 2**62 + 1, "on": True}),
        ("tags", {"price": 0.1, "n": 2**62, "on": 1}),
        ("new", None),
        (FEATURES_KEY, "!0featurea"),
        (FEATURES_KEY, 7),
        (CHECKSUM_KEY, [1, 12, 0]),
        (CHECKSUM_KEY, ["1", 12]),
        ("features_crc", [1, 0]),
        (UNREADABLE_KEY, "why"),
    ],
)
def test_a_change_is_found(key: str, value: Any) -> None:
    assert not is_intact(changed(seal(PAYLOAD), key, value))


def test_features_that_are_read_alone_are_checked() -> None:
    sealed = seal(PAYLOAD)
    alone = {key: sealed[key] for key in (FEATURES_KEY, "features_crc")}
    assert has_intact_features(alone)
    assert not has_intact_features(changed(alone, FEATURES_KEY, "!0featurea"))
    assert not has_intact_features({UNREADABLE_KEY: "why"})


def test_damaged_features_stay_damaged_when_the_entry_is_sealed_again() -> None:
    damaged = changed(seal(PAYLOAD), FEATURES_KEY, "!0featurea")
    assert not is_intact(seal(damaged))


def test_payloads_of_earlier_versions_are_not_damaged_but_those_that_lost_their_checksum() -> None:
    assert is_intact(PAYLOAD)
    sealed = seal(PAYLOAD)
    del sealed[CHECKSUM_KEY]
    assert not is_intact(sealed)
    assert not is_intact(changed(seal(PAYLOAD), CHECKSUM_KEY, [99, "another", "form"]))


def test_a_float_may_change_in_its_last_digit() -> None:
    # The engine's parser of JSON is not exact.
    numbers = random.Random(1)  # noqa: S311
    for _ in range(2000):
        value = numbers.uniform(-1, 1) * 10 ** numbers.randint(-300, 300)
        # Half way between two numbers of 12 digits.
        for number in (value, float(f"{value:.11e}".replace("e", "5e"))):
            if _is_parsed_exactly(number):
                continue
            sealed = seal({"f": [number]})
            for direction in (math.inf, -math.inf):
                assert is_intact(changed(sealed, "f", [math.nextafter(number, direction)])), number


def dense(values: Any) -> bytes:
    return np.asarray(values, "<f4").tobytes()


@pytest.mark.parametrize("compact", [False, True])
@pytest.mark.parametrize("dimensions", [4, 128, 1280])
def test_a_changed_vector_is_found_and_a_quantized_one_is_not(
    dimensions: int, compact: bool
) -> None:
    space = VectorSpace("copy@1", dimensions, compact=compact)
    spaces = {space.name: space}
    noise, least_change = (0.0116, 0.12) if compact else (1e-7, 1e-4)
    random_numbers = np.random.default_rng(0)
    for _ in range(300):
        vector = random_numbers.standard_normal(dimensions)
        payload = {VECTORS_KEY: {space.name: vector_check(space, dense(vector))}}
        unit = vector / np.linalg.norm(vector)
        error = random_numbers.standard_normal(dimensions)
        read = unit + error / np.linalg.norm(error) * noise
        assert damaged_vectors(spaces, payload, {space.name: dense(read)}) == []
        change = random_numbers.standard_normal(dimensions)
        change -= unit * (change @ unit)
        flipped = read + change / np.linalg.norm(change) * least_change
        assert damaged_vectors(spaces, payload, {space.name: dense(flipped)})
        assert damaged_vectors(spaces, payload, {})
        assert damaged_vectors(spaces, payload, {space.name: dense(read * np.nan)})


def test_a_changed_sparse_vector_is_found_and_a_reordered_one_is_not() -> None:
    space = VectorSpace("words@1", 0, sparse=True, compact=True)
    spaces = {space.name: space}
    stored = SparseVector(space.name, (7, 3), (0.1, 65504.0))
    payload = {VECTORS_KEY: {space.name: vector_check(space, stored)}}
    reordered = SparseVector(space.name, (3, 7), (65504.0, 0.1))
    for vector, damaged in (
        (stored, []),
        (reordered, []),
        (SparseVector(space.name, (7, 2), (0.1, 65504.0)), [space.name]),
        (SparseVector(space.name, (7, 3), (0.2, 65504.0)), [space.name]),
    ):
        assert damaged_vectors(spaces, payload, {space.name: vector}) == damaged
