"""The network of the dense descriptor: vectors of a picture and its windows in a single pass."""

from __future__ import annotations

import torch
from torch import nn

TRUNK_CHANNELS = (48, 120, 352)
"""Channels of EfficientNet-Lite2's maps at strides 8, 16 and 32."""
TRUNK_SIZE = 512, 384
"""Height and width for which the trunk is built; all multiples of 32 have the same padding."""
CHANNELS = 320
"""Channels of the joined map."""
POOLED = 448
"""Channels of the map that is pooled."""
DIMENSIONS = 512
"""Components of a vector."""
GEM_POWER = 3
"""Power of the generalized mean."""
SMALLEST = 1e-3
"""Lower bound of the pooled values."""


def _convolution(inputs: int, outputs: int, size: int = 1, *, groups: int = 1, step: int = 1,
                 is_last: bool = False) -> nn.Sequential:  # fmt: skip
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, size, step, size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, *([] if is_last else [nn.ReLU()]))


class Residual(nn.Module):
    """A wide depthwise convolution, then two 1 × 1 convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _convolution(channels, channels, 5, groups=channels, is_last=True),
            _convolution(channels, 2 * channels),
            _convolution(2 * channels, channels, is_last=True),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = x + self.layers(x)
        return result


class Head(nn.Module):
    """Maps at strides 8, 16, 32 → one map at stride 16 → pooled windows → unit vectors."""

    def __init__(self) -> None:
        super().__init__()
        at_8, at_16, at_32 = TRUNK_CHANNELS
        self.from_8 = _convolution(at_8, CHANNELS, 3, step=2, is_last=True)
        self.from_16 = _convolution(at_16, CHANNELS, is_last=True)
        self.from_32 = _convolution(at_32, CHANNELS, is_last=True)
        self.blocks = nn.Sequential(nn.ReLU(), Residual(CHANNELS), nn.ReLU(), Residual(CHANNELS))
        self.out = _convolution(CHANNELS, POOLED)
        self.project = nn.Linear(2 * POOLED, DIMENSIONS)

    def features(self, c8: torch.Tensor, c16: torch.Tensor, c32: torch.Tensor) -> torch.Tensor:
        """Return cubes and values to average, [N, 2 * POOLED, height / 16, width / 16]."""
        x = self.from_8(c8) + self.from_16(c16)
        x = x + nn.functional.interpolate(self.from_32(c32), scale_factor=2.0, mode="bilinear")
        x = self.out(self.blocks(x)).clamp(min=SMALLEST)
        return torch.cat([x * x * x, x], 1)

    def describe(self, averages: torch.Tensor) -> torch.Tensor:
        """Return unit vectors [..., 512] for averages of `features`, [..., 2 * POOLED]."""
        cubes, plain = averages.split(POOLED, -1)
        gem = nn.functional.normalize(cubes ** (1 / GEM_POWER), dim=-1)
        pooled = torch.cat([gem, nn.functional.normalize(plain, dim=-1)], -1)
        return nn.functional.normalize(self.project(pooled), dim=-1)

    def forward(
        self, c8: torch.Tensor, c16: torch.Tensor, c32: torch.Tensor, windows: torch.Tensor
    ) -> torch.Tensor:
        """Return vectors of windows, [N, K, 512].

        Args:
            c8: Maps at stride 8, [N, 48, height / 8, width / 8].
            c16: Maps at stride 16.
            c32: Maps at stride 32.
            windows: x_min, y_min, x_max, y_max from 0 to 1, [N, K, 4].
        """
        maps = self.features(c8, c16, c32)
        with torch.autocast(maps.device.type, enabled=False):
            maps = maps.float()
            columns = coverage(windows[..., 0], windows[..., 2], maps.shape[3])
            rows = coverage(windows[..., 1], windows[..., 3], maps.shape[2])
            across = torch.einsum("nchw,nkw->nchk", maps, columns)
            return self.describe(torch.einsum("nchk,nkh->nkc", across, rows))


def coverage(low: torch.Tensor, high: torch.Tensor, cells: int) -> torch.Tensor:
    """Return the weight of each cell in the average from `low` to `high`, [..., cells]."""
    start = torch.arange(cells, dtype=low.dtype, device=low.device)
    covered = torch.minimum(start + 1, high[..., None] * cells) - torch.maximum(
        start, low[..., None] * cells
    )
    return covered.clamp(min=0) / ((high - low)[..., None] * cells)


LEVELS = ((2 / 3, 2 / 3, 3, 3), (1 / 2, 1 / 2, 4, 4), (3 / 8, 3 / 8, 6, 6), (1 / 4, 1 / 4, 8, 8))
"""Levels of windows: width and height as shares of the picture, number across, number down."""


def boxes() -> list[tuple[float, float, float, float]]:
    """Return the boxes of the windows, the same for every picture, in the order of `windows`.

    Each box is x_min, y_min, x_max, y_max from 0 to 1. The order is level by level, row by row from
    the top, and from left to right. Windows are evenly spaced from edge to edge.
    """
    return [
        (column * (1 - width) / (across - 1), row * (1 - height) / (down - 1),
         column * (1 - width) / (across - 1) + width, row * (1 - height) / (down - 1) + height)
        for width, height, across, down in LEVELS
        for row in range(down)
        for column in range(across)
    ]  # fmt: skip


class Descriptor(nn.Module):
    """Maps of any size → `embedding` [N, 512] of the whole, `windows` [N, len(boxes()), 512].

    The mean vector of windows of photos (`center`) carries no information, so it is subtracted.
    """

    center: torch.Tensor

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head
        self.register_buffer("center", torch.zeros(DIMENSIONS))
        for name, length, count in {
            (f"x{level}", width, across) for level, (width, _, across, _) in enumerate(LEVELS)
        } | {(f"y{level}", height, down) for level, (_, height, _, down) in enumerate(LEVELS)}:
            low = torch.arange(count) * ((1 - length) / (count - 1))
            self.register_buffer(name, torch.stack([low, low + length]))

    def forward(
        self, c8: torch.Tensor, c16: torch.Tensor, c32: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        maps = self.head.features(c8, c16, c32)
        averages = []
        for level in range(len(LEVELS)):
            left, right = getattr(self, f"x{level}")
            top, bottom = getattr(self, f"y{level}")
            columns = coverage(left, right, maps.shape[3])
            rows = coverage(top, bottom, maps.shape[2])
            pooled = rows @ (maps @ columns.T)  # [N, C, down, across]
            averages.append(pooled.flatten(2).transpose(1, 2))
        whole, windows = maps.mean((2, 3)), torch.cat(averages, 1)
        return self._centered(whole), self._centered(windows)

    def _centered(self, averages: torch.Tensor) -> torch.Tensor:
        return nn.functional.normalize(self.head.describe(averages) - self.center, dim=-1)
