"""Vector spaces of joined models."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from imagesearch_services.embedding.inference.models import Model, read_model
from imagesearch_services.embedding.inference.probe import encode_answer
from imagesearch_services.embedding.inference.spaces import ModelInput, Space
from imagesearch_services.embedding.inference.triton import ModelConfig, Tensor

PARAMETERS = {
    "role": "product",
    "library_types": "PRODUCT",
    "input_name": "image",
    "input_width": "8",
    "input_height": "8",
    "input_layout": "NHWC",
    "resize": "letterbox",
    "output_name": "embedding",
    "dimensions": "3",
    "probe": encode_answer(np.ones(3, np.float32)),
    "probe_min_cosine": "0.98",
}
WEIGHT = 0.3


@pytest.fixture
def model() -> Model:
    return read_model(
        ModelConfig(
            name="product",
            version="2",
            max_batch_size=8,
            inputs={"image": Tensor("TYPE_UINT8", (8, 8, 3))},
            outputs={
                "attributes": Tensor("TYPE_FP32", (4,)),
                "embedding": Tensor("TYPE_FP32", (3,)),
            },
            parameters=PARAMETERS,
        )
    )


def unit(rows: list[list[float]]) -> npt.NDArray[np.float32]:
    vectors = np.array(rows, np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def test_a_joined_space_has_the_dimensions_of_both(model: Model) -> None:
    other = replace(model, name="copy", dimensions=5)
    space = Space(ModelInput(model, 0.05), ModelInput(other, 0.05), WEIGHT)
    assert (space.name, space.dimensions) == ("product@2", 8)
    assert Space(ModelInput(model, 0.05), None, 0.0).dimensions == 3


def test_the_cosine_of_joined_vectors_is_the_weighted_mean_of_both_cosines(model: Model) -> None:
    space = Space(ModelInput(model, 0.0), ModelInput(model, 0.0), WEIGHT)
    own, joined = unit([[1, 2, 3], [3, -1, 2]]), unit([[0, 1, 1], [1, 1, 0]])
    vectors = space.vectors(own, joined)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1])
    expected = (own[0] @ own[1] + WEIGHT * (joined[0] @ joined[1])) / (1 + WEIGHT)
    assert vectors[0] @ vectors[1] == pytest.approx(expected, abs=1e-6)


def test_rows_are_split_into_outputs_with_the_embedding_first(model: Model) -> None:
    assert model.row_length == 7
    outputs = model.outputs_in(np.arange(14, dtype=np.float32).reshape(2, 7))
    assert list(outputs) == ["embedding", "attributes"]
    assert outputs["embedding"].tolist() == [[0, 1, 2], [7, 8, 9]]
    assert outputs["attributes"].shape == (2, 4)
