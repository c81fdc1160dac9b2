"""Packing of bytes into text for the payload of an engine."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagesearch_services.catalog.model import Entry
from imagesearch_services.catalog.packing import pack, unpack
from imagesearch_services.catalog.payloads import entry_from_payload, entry_to_payload

BLOBS = st.binary(max_size=400)


@given(st.lists(st.tuples(BLOBS, st.booleans()), max_size=8))
def test_packed_texts_and_base64_are_read_together(
    blobs: list[tuple[bytes, bool]],
) -> None:
    texts = [
        base64.b64encode(raw).decode("ascii") if is_old else pack(raw) for raw, is_old in blobs
    ]
    assert unpack(texts) == [raw for raw, _ in blobs]


@pytest.mark.parametrize("raw", [b"", b"\0", b"\0" * 9, b"\xff" * 9, b"\xff" * 1000])
def test_extreme_byte_strings_round_trip(raw: bytes) -> None:
    assert unpack([pack(raw)]) == [raw]


def test_large_blobs_take_eleven_json_characters_per_nine_bytes() -> None:
    raws = [np.random.default_rng(seed).bytes(100_001 + seed) for seed in range(3)]
    texts = [pack(raw) for raw in raws]
    assert len(json.dumps(texts[0], ensure_ascii=False)) <= 100_001 * 11 / 9 + 16
    assert unpack(texts) == raws


def test_features_are_read_from_packed_and_base64_payloads() -> None:
    entry = Entry(image_id="a", features=b"\0blob")
    payload = entry_to_payload(entry, "")
    assert entry_from_payload(payload) == entry
    assert entry_from_payload({**payload, "features": "AGJsb2I="}) == entry
