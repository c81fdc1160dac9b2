"""The network of the subject parser."""

from __future__ import annotations

import torch
from torch import nn

from imagesearch_services.models.efficientnet_lite2.backbone import (
    FINE_TUNED_FROM_BLOCK,
    Backbone,
    LastStage,
)
from imagesearch_services.models.product.parser_classes import CLASSES, HEIGHT_PX, WIDTH_PX, WORN

CHANNELS = 64
"""Channels of the feature pyramid."""
STRIDE_8_CHANNELS, STRIDE_16_CHANNELS, STRIDE_32_CHANNELS = 48, 120, 352
"""Channels of the backbone's maps."""


class Head(nn.Module):
    """A feature pyramid of depthwise convolutions on maps of stride 8, 16 and 32."""

    def __init__(self, channels: int = CHANNELS) -> None:
        super().__init__()
        self.from_8, self.from_16, self.from_32 = (
            _convolution(count, channels)
            for count in (STRIDE_8_CHANNELS, STRIDE_16_CHANNELS, STRIDE_32_CHANNELS)
        )
        self.context = nn.Sequential(
            nn.Linear(STRIDE_32_CHANNELS, 128), nn.ReLU(), nn.Linear(128, channels)
        )
        self.at_8, self.at_16, self.at_32 = (
            nn.Sequential(_separable(channels), _separable(channels)) for _ in range(3)
        )
        self.drop = nn.Dropout2d(0.1)
        self.out = nn.Conv2d(channels, len(CLASSES) + 1, 1)

    def forward(self, c8: torch.Tensor, c16: torch.Tensor, c32: torch.Tensor) -> torch.Tensor:
        """Return logits of the classes and of saliency, [N, 10, height / 8, width / 8]."""
        x = self.from_32(c32) + self.context(c32.mean((2, 3)))[:, :, None, None]
        x = self.at_32(x) + x
        for lateral, block in (
            (self.from_16(c16), self.at_16),
            (self.from_8(c8), self.at_8),
        ):
            x = lateral + nn.functional.interpolate(x, size=lateral.shape[-2:], mode="bilinear")
            x = block(x) + x
        logits: torch.Tensor = self.out(self.drop(x))
        return logits


class Dress(nn.Module):
    """Distinguishes a dress from a top with trousers or a skirt.

    The features are averages of the maps of stride 16 over four parts of the clothing, from top to
    bottom. These maps come from frozen layers, because trained layers overfit the few photos.
    """

    PARTS = 4

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(self.PARTS * STRIDE_16_CHANNELS, 1)

    def forward(self, c16: torch.Tensor, worn: torch.Tensor) -> torch.Tensor:
        """Return the log odds of a dress, [N, 1].

        Args:
            c16: Maps of stride 16, [N, 120, height, width].
            worn: Probability of tops, dresses and bottoms, [N, 1, height, width].
        """
        return self.linear(self.features(c16, worn))

    def features(self, c16: torch.Tensor, worn: torch.Tensor) -> torch.Tensor:
        rows = worn.sum((1, 3))
        total = rows.sum(1, keepdim=True).clamp(min=1e-3)
        position = self.PARTS * (rows.cumsum(1) - rows / 2) / total
        centers = torch.arange(self.PARTS, device=position.device) + 0.5
        parts = (1 - (position[:, None] - centers[:, None]).abs()).clamp(min=0)
        weights = (parts[..., None] * worn).flatten(2)
        means = weights @ c16.flatten(2).transpose(1, 2)
        return nn.functional.normalize(means, dim=2).flatten(1)


class Parser(nn.Module):
    """uint8 RGB [N, 512, 352, 3] → `maps` [N, 10, 64, 44] and `dress` [N, 1].

    The maps are the probabilities of nine classes, then of saliency; `dress` is log odds.
    """

    def __init__(self, head: Head, last_stage: LastStage, dress: Dress) -> None:
        super().__init__()
        self.backbone = Backbone(HEIGHT_PX, WIDTH_PX)
        blocks = self.backbone.network._blocks  # noqa: SLF001
        for index, block in enumerate(last_stage.blocks, FINE_TUNED_FROM_BLOCK):
            blocks[index] = block
        self.head, self.dress = head, dress

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        c8, c16, c32, _ = self.backbone(image)
        logits = self.head(c8, c16, c32)
        maps = torch.cat([logits[:, :-1].softmax(1), logits[:, -1:].sigmoid()], 1)
        worn = nn.functional.avg_pool2d(maps[:, WORN].sum(1, keepdim=True), 2)
        return maps, self.dress(c16, worn)


def _convolution(inputs: int, outputs: int, size: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, padding=size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def _separable(channels: int) -> nn.Sequential:
    return nn.Sequential(
        _convolution(channels, channels, 5, channels), _convolution(channels, channels)
    )
