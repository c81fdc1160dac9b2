from __future__ import annotations

import hashlib

import numpy as np
import pytest

from imagesearch_services.embedding.inference.probe import (
    agreement,
    decode_answer,
    encode_answer,
    probe_answer,
    probe_picture,
)


def test_the_probe_picture_is_the_same_everywhere() -> None:
    digest = hashlib.sha256(probe_picture(288, 200).tobytes()).hexdigest()
    assert digest == "d6a51422980d592d7e7f55e8866ae059f6141d14cf3137639d9782fb5b0a1853"


def test_the_probe_differs_from_its_rotations_mirror_images_and_channel_swaps() -> None:
    probe = probe_picture(64, 64)
    for other in (probe[::-1], probe[:, ::-1], probe[..., ::-1], probe.swapaxes(0, 1)):
        assert (probe != other).any()


def test_a_decoded_answer_equals_the_encoded_embedding() -> None:
    embedding = np.linspace(-3, 5, 512, dtype=np.float32)
    answer = decode_answer(encode_answer(embedding))
    assert answer.shape == (512,)
    assert np.linalg.norm(answer) == pytest.approx(1, abs=1e-3)
    assert agreement(embedding, answer) > 0.9999


def test_maps_are_sampled_and_embeddings_are_kept_whole() -> None:
    maps = np.arange(10 * 64 * 44, dtype=np.float32).reshape(10, 64, 44)
    assert probe_answer(maps).shape == (2012,)
    assert agreement(probe_answer(maps), decode_answer(encode_answer(probe_answer(maps)))) > 0.9999
    assert (probe_answer(maps[0, 0]) == maps[0, 0]).all()


@pytest.mark.parametrize(
    "broken",
    [np.zeros(4, np.float32), np.ones(3, np.float32), np.full(4, np.nan, np.float32)],
)
def test_invalid_embeddings_have_the_lowest_agreement(broken: np.ndarray) -> None:
    assert agreement(broken, np.ones(4, np.float32)) == -1


def test_text_that_is_not_base64_is_refused() -> None:
    with pytest.raises(ValueError, match="base64"):
        decode_answer("not base64!")
