"""The base-94 encoding of binary payload values."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagesearch_services.catalog.base94 import decode, encode
from imagesearch_services.catalog.model import Entry
from imagesearch_services.catalog.payloads import entry_from_payload, entry_to_payload

BLOBS = st.binary(max_size=400)


@given(st.lists(st.tuples(BLOBS, st.booleans()), max_size=8))
def test_a_mix_of_base_94_and_base64_is_decoded(blobs: list[tuple[bytes, bool]]) -> None:
    texts = [
        base64.b64encode(raw).decode("ascii") if is_base64 else encode(raw)
        for raw, is_base64 in blobs
    ]
    assert decode(texts) == [raw for raw, _ in blobs]


@pytest.mark.parametrize("raw", [b"", b"\0", b"\0" * 9, b"\xff" * 9, b"\xff" * 1000])
def test_groups_of_the_lowest_and_the_highest_value_are_decoded(raw: bytes) -> None:
    assert decode([encode(raw)]) == [raw]


def test_nine_bytes_take_eleven_characters_in_json() -> None:
    raws = [np.random.default_rng(seed).bytes(100_001 + seed) for seed in range(3)]
    texts = [encode(raw) for raw in raws]
    assert len(json.dumps(texts[0], ensure_ascii=False)) <= 100_001 * 11 / 9 + 16
    assert decode(texts) == raws


def test_features_in_base_94_and_in_base64_are_read() -> None:
    entry = Entry(image_id="a", features=b"\0blob")
    payload = entry_to_payload(entry, "")
    assert entry_from_payload(payload) == entry
    assert entry_from_payload({**payload, "features": "AGJsb2I="}) == entry
