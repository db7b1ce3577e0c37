"""The network around DARTS cells (Liu et al., 2019, sec. 3.1 and appendix; NASNet's layout)."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from evonas.core import Blueprint, Params
from evonas.networks.ops import global_pool, relu_conv_bn
from evonas.protocols import Pick
from genomes.darts import NODES, PAIRS, Darts


class DartsParams(Params):
    name: Literal["darts"] = "darts"
    channels: Annotated[int, Field(ge=1, le=1024)] = 16
    """How many channels an op of the first cells has; each of the two reduction cells doubles them.
    (The published networks have 36.)"""
    cells: Annotated[int, Field(ge=1, le=100)] = 8
    """How many cells are stacked. Those at one and two thirds of the depth are reduction cells.
    (The published networks have 20.)"""
    auxiliary: bool = False
    """Whether the training also uses a second classifier, at two thirds of the depth. It is not
    part of what is measured."""


class SepConv(nn.Module):
    """Two depthwise-separable convolutions, the first of which may halve the size."""

    def __init__(self, channels: int, kernel_size: int, stride: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *_separable(channels, kernel_size, stride, dilation=1),
            *_separable(channels, kernel_size, 1, dilation=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out


class FactorizedReduce(nn.Module):
    """Two convolutions, one shifted by a pixel, which halve the size and read both parities."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        half = out_channels // 2
        self.even = nn.Conv2d(in_channels, half, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(in_channels, out_channels - half, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(x)
        moved = functional.pad(x, (-1, 1, -1, 1))  # as large as x, for odd sizes too
        out: Tensor = self.norm(torch.cat([self.even(x), self.odd(moved)], dim=1))
        return out


class Cell(nn.Module):
    """Four nodes, each the sum of two ops; the output is their concatenation.

    Args:
        kind: `normal` or `reduce`.
        before: the channels of the outputs of the last cell but one, and of the last.
        channels: the channels of an op.
        halved: whether the last cell halved the size, so that the output before it is larger.
    """

    def __init__(
        self, pick: Pick, kind: str, before: tuple[int, int], channels: int, *, halved: bool
    ) -> None:
        super().__init__()
        self.pre0 = (
            FactorizedReduce(before[0], channels)
            if halved
            else relu_conv_bn(before[0], channels, 1)
        )
        self.pre1 = relu_conv_bn(before[1], channels, 1)
        self.ops = nn.ModuleDict()
        for node in NODES:
            pick(f"{kind}/{node}", {f"{i},{j}": (i, j) for i, j in PAIRS[node]})
            for source in range(node):
                stride = 2 if kind == "reduce" and source < 2 else 1
                op = pick(f"{kind}/{source}>{node}", candidates(channels, stride))
                if op is not None:
                    self.ops[f"{source}>{node}"] = op

    def forward(self, before: Tensor, last: Tensor) -> Tensor:
        states = [self.pre0(before), self.pre1(last)]
        for node in NODES:
            terms = [
                self.ops[f"{source}>{node}"](states[source])
                for source in range(node)
                if f"{source}>{node}" in self.ops
            ]
            terms = [term for term in terms if term is not None]  # a supernet's edge may be absent
            states.append(sum(terms[1:], terms[0]))
        return torch.cat(states[2:], dim=1)


class Auxiliary(nn.Module):
    """The second classifier of the published networks, made for features of 8x8."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.squeeze = nn.Sequential(
            nn.Conv2d(channels, 128, 1, bias=False), nn.BatchNorm2d(128), nn.ReLU()
        )
        self.features = nn.Sequential(
            nn.Conv2d(128, 768, 2, bias=False), nn.BatchNorm2d(768), nn.ReLU()
        )
        self.classifier = nn.Linear(768, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(x)
        fits = x.shape[2] >= 8 and x.shape[3] >= 8
        pooled = (
            functional.avg_pool2d(x, 5, stride=3, count_include_pad=False)
            if fits
            else functional.interpolate(x, size=(2, 2))  # features smaller than the published
        )
        logits: Tensor = self.classifier(global_pool(self.features(self.squeeze(pooled))))
        return logits


class Network(nn.Module):
    """A stem, cells and a linear classifier; in training, perhaps an auxiliary one as well."""

    def __init__(
        self,
        pick: Pick,
        *,
        in_channels: int,
        classes: int,
        channels: int,
        cells: int,
        auxiliary: bool,
    ) -> None:
        super().__init__()
        before = (3 * channels, 3 * channels)
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, before[1], 3, padding=1, bias=False), nn.BatchNorm2d(before[1])
        )
        self.cells = nn.ModuleList()
        self.auxiliary_at = 2 * cells // 3 if auxiliary else -1
        halved = False
        for number in range(cells):
            reduces = number in (cells // 3, 2 * cells // 3)
            if reduces:
                channels *= 2
            kind = "reduce" if reduces else "normal"
            self.cells.append(Cell(pick, kind, before, channels, halved=halved))
            before, halved = (before[1], len(NODES) * channels), reduces
            if number == self.auxiliary_at:
                self.auxiliary = Auxiliary(before[1], classes)
        self.classifier = nn.Linear(before[1], classes)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return the logits, (n, classes), of images, (n, in_channels, height, width).

        In training, the auxiliary classifier's logits are returned as well.
        """
        before = last = self.stem(images)
        extra = None
        for number, cell in enumerate(self.cells):
            before, last = last, cell(before, last)
            if number == self.auxiliary_at and self.training:
                extra = self.auxiliary(last)
        logits: Tensor = self.classifier(global_pool(last))
        return logits if extra is None else (logits, extra)


def candidates(channels: int, stride: int) -> dict[str, object]:
    """Return a factory for each op; a `stride` of 2 halves the size."""
    return {
        "max_pool_3x3": lambda: nn.MaxPool2d(3, stride=stride, padding=1),
        "avg_pool_3x3": lambda: nn.AvgPool2d(3, stride=stride, padding=1, count_include_pad=False),
        "skip_connect": lambda: (
            nn.Identity() if stride == 1 else FactorizedReduce(channels, channels)
        ),
        "sep_conv_3x3": lambda: SepConv(channels, 3, stride),
        "sep_conv_5x5": lambda: SepConv(channels, 5, stride),
        "dil_conv_3x3": lambda: nn.Sequential(*_separable(channels, 3, stride, dilation=2)),
        "dil_conv_5x5": lambda: nn.Sequential(*_separable(channels, 5, stride, dilation=2)),
    }


def _separable(
    channels: int, kernel_size: int, stride: int, dilation: int
) -> tuple[nn.Module, ...]:
    """Return ReLU, a depthwise convolution, a pointwise one and batch norm."""
    padding = dilation * (kernel_size // 2)
    return (
        nn.ReLU(),
        nn.Conv2d(
            channels, channels, kernel_size, stride, padding,
            dilation=dilation, groups=channels, bias=False,
        ),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels),
    )  # fmt: skip


DARTS = Blueprint(DartsParams, Darts, Network, wired=True)
