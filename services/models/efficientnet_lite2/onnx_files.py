"""Export of PyTorch modules to ONNX, quantization to 8 bits, and float16 storage of weights."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from imagesearch_services.models.common.pictures import Picture

OPSET = 18
MIN_HALVED_SIZE = 256
"""Minimum number of values in a tensor that is stored as float16; smaller tensors are biases."""


def to_onnx(
    module: torch.nn.Module,
    inputs: Sequence[torch.Tensor],
    names: Sequence[str],
    outputs: Sequence[str],
    shapes: dict[str, Any],
) -> onnx.ModelProto:
    """Convert a PyTorch module to an ONNX model.

    Args:
        module: The module, in evaluation mode.
        inputs: Example inputs.
        names: Names of the inputs.
        outputs: Names of the outputs.
        shapes: Dynamic dimensions of each input, by name.
    """
    program = torch.onnx.export(
        module,
        tuple(inputs),
        dynamo=True,
        opset_version=OPSET,
        input_names=list(names),
        output_names=list(outputs),
        dynamic_shapes=shapes,
    )
    model = program.model_proto
    for node in model.graph.node:  # the metadata contains paths of this machine
        del node.metadata_props[:]
    return model


def export(
    module: torch.nn.Module, height: int, width: int, outputs: list[str], file: Path
) -> None:
    """Write a module as an ONNX file with the input `image`, uint8 RGB [N, height, width, 3]."""
    file.parent.mkdir(parents=True, exist_ok=True)
    image = torch.zeros(2, height, width, 3, dtype=torch.uint8)
    shapes = {"image": {0: torch.export.Dim("batch")}}
    onnx.save(to_onnx(module.eval(), [image], ["image"], outputs, shapes), file)


class Calibration(CalibrationDataReader):
    """Pictures that set the quantization ranges of the activations."""

    def __init__(self, pictures: Iterable[Picture]) -> None:
        self._pictures = iter(pictures)

    def get_next(self) -> dict[str, Picture] | None:
        picture = next(self._pictures, None)
        return None if picture is None else {"image": picture[None]}


def quantize(
    source: Path,
    target: Path,
    pictures: Iterable[Picture],
    excluded: Callable[[Sequence[onnx.NodeProto]], Sequence[str]],
) -> None:
    """Write a model that computes in 8 bits with explicit quantization (QDQ).

    Args:
        source: A float32 model with the input `image`.
        target: The file to write.
        pictures: Inputs that set the ranges of the activations, [height, width, 3].
        excluded: Function that returns the names of the nodes that stay in floating point.
    """
    with tempfile.TemporaryDirectory() as work:
        prepared = Path(work) / "prepared.onnx"
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        nodes = onnx.load(prepared).graph.node
        quantize_static(
            prepared,
            target,
            Calibration(pictures),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv", "Add", "Clip"],
            nodes_to_exclude=excluded(nodes),
            calibrate_method=CalibrationMethod.MinMax,
        )


def quantize_backbone(
    source: Path, target: Path, pictures: Iterable[Picture], last_block: int
) -> None:
    """Write a model whose backbone computes in 8 bits, with float16 weights elsewhere.

    The stem, the first block and all nodes after `last_block` stay in floating point, because
    quantization costs most accuracy there.

    Args:
        source: A float32 model.
        target: The file to write.
        pictures: Inputs that set the ranges of the activations.
        last_block: Number of the last quantized block of the backbone, from 0.
    """

    def excluded(nodes: Sequence[onnx.NodeProto]) -> Sequence[str]:
        convolutions = convolution_names(nodes)
        names = [node.name for node in nodes]
        # The stem has one convolution, the first block two, every other block three.
        end = names.index(convolutions[3 * (last_block + 1)])
        return sorted({*convolutions[:3], *names[end:]})

    quantize(source, target, pictures, excluded)
    store_weights_as_float16(target, target)


def convolution_names(nodes: Sequence[onnx.NodeProto]) -> list[str]:
    return [node.name for node in nodes if node.op_type == "Conv"]


def is_large(weight: npt.NDArray[Any]) -> bool:
    return weight.size >= MIN_HALVED_SIZE


def store_weights_as_float16(
    source: Path, target: Path, is_halved: Callable[[npt.NDArray[Any]], bool] = is_large
) -> None:
    """Store weights as float16 followed by a Cast, which ONNX Runtime folds when it loads the file.

    Args:
        source: A model with float32 weights.
        target: The file to write; may be `source`.
        is_halved: Function that returns whether a weight is stored as float16.
    """
    model = onnx.load(source)
    graph = model.graph
    for weight in list(graph.initializer):
        array = numpy_helper.to_array(weight)
        if array.dtype != np.float32 or not is_halved(array):
            continue
        half = numpy_helper.from_array(array.astype(np.float16), f"{weight.name}_float16")
        graph.initializer.remove(weight)
        graph.initializer.append(half)
        cast = helper.make_node("Cast", [half.name], [weight.name], to=TensorProto.FLOAT)
        graph.node.insert(0, cast)
    onnx.checker.check_model(model)
    onnx.save(model, target)
