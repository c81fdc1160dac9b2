"""Reading of models from their configuration."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from imagesearch_services.common.types import LibraryType
from imagesearch_services.embedding.inference.models import ModelDescriptionError, read_model
from imagesearch_services.embedding.inference.probe import encode_answer
from imagesearch_services.embedding.inference.triton import ModelConfig, Tensor
from imagesearch_services.embedding.pictures.preprocess import InputSpec, Resize

PARAMETERS = {
    "role": "copy",
    "library_types": "WHOLE_IMAGE,PRODUCT",
    "input_name": "image",
    "input_width": "320",
    "input_height": "240",
    "input_layout": "NHWC",
    "resize": "letterbox",
    "output_name": "embedding",
    "dimensions": "4",
    "probe": encode_answer(np.array([1, 2, 3, 4], np.float32)),
    "probe_min_cosine": "0.98",
}

CONFIG = ModelConfig(
    name="sscd",
    version="3",
    max_batch_size=16,
    inputs={"image": Tensor("TYPE_UINT8", (240, 320, 3))},
    outputs={"embedding": Tensor("TYPE_FP32", (4,))},
    parameters=PARAMETERS,
)


def test_a_model_is_read_from_its_configuration() -> None:
    model = read_model(CONFIG)
    assert model.space == "sscd@3"
    assert model.role == "copy"
    assert model.library_types == (LibraryType.WHOLE_IMAGE, LibraryType.PRODUCT)
    assert model.input == InputSpec(320, 240, Resize.LETTERBOX)
    assert model.dimensions == 4
    assert model.max_batch_size == 16
    assert np.linalg.norm(model.probe) == pytest.approx(1, abs=1e-3)


def test_parameters_define_the_sizes_that_tensors_do_not_specify() -> None:
    read_model(replace(CONFIG, inputs={"image": Tensor("TYPE_UINT8", (-1, -1, 3))}))


def test_a_model_without_dimensions_has_no_space() -> None:
    maps = {"maps": Tensor("TYPE_FP32", (10, 64, 44)), "more": Tensor("TYPE_FP32", (12,))}
    parameters = PARAMETERS | {"role": "subjects", "output_name": "maps", "dimensions": "0"}
    model = read_model(replace(CONFIG, outputs=maps, parameters=parameters | {"stride": "8"}))
    assert model.space == ""
    assert model.outputs == {"maps": (10, 64, 44), "more": (12,)}
    assert model.stride == 8


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_error_names_a_missing_parameter(name: str) -> None:
    parameters = {key: value for key, value in PARAMETERS.items() if key != name}
    with pytest.raises(ModelDescriptionError, match=name):
        read_model(replace(CONFIG, parameters=parameters))


@pytest.mark.parametrize(
    "changes",
    [
        {"resize": "stretch"},
        {"library_types": "EVERYTHING"},
        {"dimensions": "many"},
        {"dimensions": "5"},
        {"input_width": "100"},
        {"input_layout": "NCHW"},
        {"input_name": "pixels"},
        {"probe": "not base64"},
        {"crop_margin": "wide"},
        {"joined_with": "sscd@1"},
        {"categories": "BAG"},
        {"maps": "person", "stride": "eight"},
    ],
)
def test_invalid_parameters_are_refused(changes: dict[str, str]) -> None:
    with pytest.raises(ModelDescriptionError):
        read_model(replace(CONFIG, parameters=PARAMETERS | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"inputs": {"image": Tensor("TYPE_FP32", (240, 320, 3))}},
        {"inputs": {"image": Tensor("TYPE_UINT8", (3, 240, 320))}},
        {"inputs": {}},
        {"outputs": {"embedding": Tensor("TYPE_FP16", (4,))}},
        {"outputs": {"embedding": Tensor("TYPE_FP32", (1, 4))}},
    ],
)
def test_tensors_that_contradict_the_parameters_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ModelDescriptionError):
        read_model(replace(CONFIG, **changes))
