"""The committed model descriptions, as Triton will read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2  # type: ignore[import-untyped]

from imagesearch_services.embedding.probe import decode_answer, probe_answer
from imagesearch_services.models.manifest import read_manifest
from imagesearch_services.models.repository import CONFIGURATIONS, configuration

DEPLOY = Path(__file__).parents[3] / "deploy"
MODELS = [model.name for model in read_manifest(DEPLOY / "models.toml").models]


@pytest.mark.parametrize("model", MODELS)
def test_both_configurations_parse_and_say_the_same_about_the_model(model: str) -> None:
    official, wheel = (
        text_format.Parse(configuration(DEPLOY, model, files), model_config_pb2.ModelConfig())
        for files in CONFIGURATIONS.values()
    )
    assert (official.backend, wheel.backend) == ("onnxruntime", "python")
    assert official.name == wheel.name == model
    assert official.input == wheel.input
    assert official.output == wheel.output
    for key, value in official.parameters.items():
        assert wheel.parameters[key] == value


@pytest.mark.parametrize("model", MODELS)
def test_each_description_says_what_a_caller_must_know(model: str) -> None:
    text = configuration(DEPLOY, model, CONFIGURATIONS["config.pbtxt"])
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    told = {key: value.string_value for key, value in config.parameters.items()}
    assert told["role"] in {"copy", "semantic", "subjects", "product", "element"}
    assert set(told["library_types"].split(",")) <= {"WHOLE_IMAGE", "ELEMENT", "PRODUCT"}
    assert told["resize"] in {"squash", "letterbox"}
    sizes = [int(told["input_height"]), int(told["input_width"]), 3]
    if "windows" in told:  # takes pictures of any size, window by window
        sizes[:2] = [-1, -1]
    assert list(config.input[0].dims) == sizes
    output = next(each for each in config.output if each.name == told["output_name"])
    assert int(told["dimensions"]) == (output.dims[0] if len(output.dims) == 1 else 0)
    answer = np.zeros(list(output.dims), np.float32)
    assert decode_answer(told["probe"]).shape == probe_answer(answer).shape
    assert 0 < float(told["probe_min_cosine"]) < 1


@pytest.mark.parametrize("model", MODELS)
def test_no_queue_policy_is_set_since_it_makes_triton_stall(model: str) -> None:
    for files in CONFIGURATIONS.values():
        text = configuration(DEPLOY, model, files)
        config = text_format.Parse(text, model_config_pb2.ModelConfig())
        assert config.HasField("dynamic_batching")
        assert not config.dynamic_batching.HasField("default_queue_policy")
