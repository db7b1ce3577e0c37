"""The modules that networks are made of."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Zero(nn.Module):
    """The op that returns zeros, for networks built with their dead edges."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


def relu_conv_bn(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1
) -> nn.Sequential:
    """Return ReLU, a convolution without bias and batch norm; stride 1 keeps the size."""
    padding = kernel_size // 2
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False),
        nn.BatchNorm2d(out_channels),
    )


def conv_bn_relu(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Return a convolution without bias, batch norm and ReLU; stride 1 keeps the size."""
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
    """A block wide inside and narrow at both ends, added where they fit (Sandler et al., 2018)."""

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
    """Return the mean over height and width, (n, c), whose gradient is deterministic on CUDA."""
    return x.mean(dim=(2, 3))


class Classified(nn.Module):
    """A body, the mean over height and width, and a linear classifier.

    Args:
        channels: the channels of the body's output, (n, channels, h, w).
    """

    def __init__(self, body: nn.Module, channels: int, classes: int) -> None:
        super().__init__()
        self.body = body
        self.classifier = nn.Linear(channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, (n, classes), of images, (n, in_channels, height, width)."""
        logits: Tensor = self.classifier(global_pool(self.body(images)))
        return logits
