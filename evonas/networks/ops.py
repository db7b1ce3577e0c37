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


def conv_bn_relu(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Convolution without bias, batch norm, ReLU; the size is kept at stride 1."""
    padding = kernel_size // 2
    return nn.Sequential(
        nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False
        ),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )


class Residual(nn.Module):
    """Two 3x3 convolutions beside a shortcut (He et al., 2016, fig. 2)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.main = nn.Sequential(
            conv_bn_relu(in_channels, out_channels, 3, stride),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.shortcut = (
            nn.Identity()
            if stride == 1 and in_channels == out_channels
            else nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.main(x) + self.shortcut(x))


class InvertedResidual(nn.Module):
    """Wide within, narrow at both ends, which are added where they fit (Sandler et al., 2018)."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, expansion: int, stride: int
    ) -> None:
        super().__init__()
        within = in_channels * expansion
        self.adds = stride == 1 and in_channels == out_channels
        expand = [conv_bn_relu(in_channels, within, 1)] if expansion > 1 else []
        self.layers = nn.Sequential(
            *expand,
            conv_bn_relu(within, within, kernel_size, stride, groups=within),
            nn.Conv2d(within, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return x + out if self.adds else out


def avg_pool_3x3() -> nn.AvgPool2d:
    return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)


def global_pool(x: Tensor) -> Tensor:
    """The mean over height and width, (n, c). A plain mean has a deterministic gradient on CUDA."""
    return x.mean(dim=(2, 3))


class Classified(nn.Module):
    """A body, the mean over height and width, and a linear classifier.

    Args:
        channels: of what the body gives, (n, channels, h, w).
    """

    def __init__(self, body: nn.Module, channels: int, classes: int) -> None:
        super().__init__()
        self.body = body
        self.classifier = nn.Linear(channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, (n, classes), of (n, in_channels, height, width)."""
        logits: Tensor = self.classifier(global_pool(self.body(images)))
        return logits
