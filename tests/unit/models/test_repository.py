"""The committed model descriptions as Triton reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2  # type: ignore[import-untyped]

from imagesearch_services.embedding.inference.probe import decode_answer, probe_answer
from imagesearch_services.models.manifest import read_manifest
from imagesearch_services.models.repository import CONFIGURATIONS, configuration

DEPLOY = Path(__file__).parents[3] / "deploy"
MODELS = [model.name for model in read_manifest(DEPLOY / "models.toml").models]


@pytest.mark.parametrize("model", MODELS)
def test_both_configurations_describe_the_model_equally(model: str) -> None:
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
def test_each_description_has_the_parameters_that_callers_need(model: str) -> None:
    text = configuration(DEPLOY, model, CONFIGURATIONS["config.pbtxt"])
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    parameters = {key: value.string_value for key, value in config.parameters.items()}
    assert parameters["role"] in {"copy", "semantic", "subjects", "product", "element"}
    assert set(parameters["library_types"].split(",")) <= {"WHOLE_IMAGE", "ELEMENT", "PRODUCT"}
    assert parameters["resize"] in {"squash", "letterbox"}
    sizes = [int(parameters["input_height"]), int(parameters["input_width"]), 3]
    if "windows" in parameters:  # a dense model takes pictures of any size
        sizes[:2] = [-1, -1]
    assert list(config.input[0].dims) == sizes
    output = next(tensor for tensor in config.output if tensor.name == parameters["output_name"])
    assert int(parameters["dimensions"]) == (output.dims[0] if len(output.dims) == 1 else 0)
    answer = np.zeros(list(output.dims), np.float32)
    assert decode_answer(parameters["probe"]).shape == probe_answer(answer).shape
    assert 0 < float(parameters["probe_min_cosine"]) < 1


@pytest.mark.parametrize("model", MODELS)
def test_no_configuration_sets_a_queue_policy_which_stalls_triton(model: str) -> None:
    for files in CONFIGURATIONS.values():
        text = configuration(DEPLOY, model, files)
        config = text_format.Parse(text, model_config_pb2.ModelConfig())
        assert config.HasField("dynamic_batching")
        assert not config.dynamic_batching.HasField("default_queue_policy")
