"""Triton Python-backend model that runs the `model.onnx` of its folder with ONNX Runtime.

`prepare` copies this file into the version folder of every model. Names and types of the tensors
come from the configuration of the model.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils

MAX_DEFAULT_THREADS = 4
"""Maximum threads unless the configuration or the environment sets a number."""


class TritonPythonModel:
    """An instance of a version of a model."""

    def initialize(self, args: dict[str, str]) -> None:
        # This backend passes NumPy 2 arrays as garbage, without any error.
        if not np.__version__.startswith("1."):
            raise pb_utils.TritonModelException(
                f"the Python backend needs NumPy 1, found {np.__version__}"
            )
        config = json.loads(args["model_config"])
        self.input_name = config["input"][0]["name"]
        self.output_names = [output["name"] for output in config["output"]]
        folder = Path(args["model_repository"]) / args["model_version"]
        self.session = onnxruntime.InferenceSession(
            folder / "model.onnx", session_options(config), providers=["CPUExecutionProvider"]
        )
        # The first run allocates memory and selects kernels, so it must not be the run of a caller.
        dtype = pb_utils.triton_string_to_numpy(config["input"][0]["data_type"])
        self.run(np.zeros(warm_up_shape(config), dtype), self.output_names)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer a batch of requests with a single run of the model."""
        arrays = [
            pb_utils.get_input_tensor_by_name(request, self.input_name).as_numpy()
            for request in requests
        ]
        requested = {name for request in requests for name in request.requested_output_names()}
        names = [name for name in self.output_names if name in requested]
        try:
            outputs = self.run(arrays[0] if len(arrays) == 1 else np.concatenate(arrays), names)
        except Exception as error:  # noqa: BLE001 every error is returned to the callers
            failure = pb_utils.TritonError(f"{type(error).__name__}: {error}")
            return [pb_utils.InferenceResponse(error=failure) for _ in requests]
        ends = np.cumsum([len(array) for array in arrays])[:-1]
        parts = {name: np.split(output, ends) for name, output in zip(names, outputs, strict=True)}
        return [
            pb_utils.InferenceResponse(
                [
                    pb_utils.Tensor(name, parts[name][index])
                    for name in names
                    if name in request.requested_output_names()
                ]
            )
            for index, request in enumerate(requests)
        ]

    def run(self, images: np.ndarray, output_names: list[str]) -> list[np.ndarray]:
        return self.session.run(output_names, {self.input_name: images})


def warm_up_shape(config: dict[str, Any]) -> tuple[int, ...]:
    """Return the shape of a picture; variable sides have the size of a whole picture."""
    height, width, channels = (int(size) for size in config["input"][0]["dims"])
    sides = (config["parameters"][f"input_{side}"]["string_value"] for side in ("height", "width"))
    default_height, default_width = map(int, sides)
    return (
        1,
        default_height if height < 0 else height,
        default_width if width < 0 else width,
        channels,
    )


def session_options(config: dict[str, Any]) -> onnxruntime.SessionOptions:
    threads = int(
        os.environ.get("IMAGESEARCH_MODEL_THREADS")
        or config["parameters"]["threads"]["string_value"]
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or min(len(os.sched_getaffinity(0)), MAX_DEFAULT_THREADS)
    # Spinning threads would take processor time from the other models and services.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options
