"""The parts that networks are made of."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Zero(nn.Module):
    """The op that carries nothing, for networks built with their dead edges."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


def relu_conv_bn(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1
) -> nn.Sequential:
    """ReLU, convolution without bias, batch norm; the size is kept at stride 1."""
    padding = kernel_size // 2
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False),
        nn.BatchNorm2d(out_channels),
    )


def avg_pool_3x3() -> nn.AvgPool2d:
    return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)


def global_pool(x: Tensor) -> Tensor:
    """The mean over height and width, (n, c). A plain mean has a deterministic gradient on CUDA."""
    return x.mean(dim=(2, 3))
