"""The network around a NAS-Bench-201 cell (Dong and Yang, 2020, fig. 1)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from evonas.core import Blueprint, Params
from evonas.networks.ops import Zero, avg_pool_3x3, global_pool, relu_conv_bn
from evonas.protocols import Pick
from genomes.nasbench201 import EDGES, NASBench201


class NASBench201Params(Params):
    name: Literal["nasbench201"] = "nasbench201"
    channels: Annotated[int, Field(ge=1, le=1024)] = 16
    """How many channels the first of the three stages has; the second has twice as many, the third
    four times."""
    cells: Annotated[int, Field(ge=1, le=100)] = 5
    """How many cells each of the three stages has. All cells of a network are alike."""


class Cell(nn.Module):
    """A cell whose nodes sum their live incoming edges; a node without any is absent, not zero."""

    def __init__(self, pick: Pick, channels: int) -> None:
        super().__init__()
        candidates = {
            "none": Zero,
            "skip_connect": nn.Identity,
            "nor_conv_1x1": lambda: relu_conv_bn(channels, channels, 1),
            "nor_conv_3x3": lambda: relu_conv_bn(channels, channels, 3),
            "avg_pool_3x3": avg_pool_3x3,
        }
        picked = {f"{i}>{j}": pick(f"{i}>{j}", candidates) for i, j in EDGES}
        self.edges = nn.ModuleDict({name: op for name, op in picked.items() if op is not None})

    def forward(self, x: Tensor) -> Tensor | None:
        nodes: list[Tensor | None] = [x, None, None, None]
        for source, target in EDGES:
            name, value = f"{source}>{target}", nodes[source]
            if name in self.edges and value is not None:
                term, before = self.edges[name](value), nodes[target]
                if term is not None:  # a supernet's edge may carry nothing
                    nodes[target] = term if before is None else before + term
        return nodes[3]


class Reduction(nn.Module):
    """The residual unit between stages, which halves the size and doubles the channels."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            relu_conv_bn(in_channels, out_channels, 3, stride=2),
            relu_conv_bn(out_channels, out_channels, 3),
        )
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(
                2, stride=2, ceil_mode=True
            ),  # ceil: as large as the convolution's, for odd sizes too
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.main(x) + self.shortcut(x)
        return out


class Network(nn.Module):
    """A stem, three stages of cells with reductions between them, and a linear classifier.

    A cell without a path from input to output passes nothing on; all that remains of such a network
    is the classifier's bias.
    """

    def __init__(
        self, pick: Pick, *, in_channels: int, classes: int, channels: int, cells: int
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        )
        body: list[nn.Module] = []
        for stage in range(3):
            if stage > 0:
                body.append(Reduction(channels, 2 * channels))
                channels *= 2
            body += [Cell(pick, channels) for _ in range(cells)]
        self.body = nn.ModuleList(body)
        self.last = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU())
        self.classifier = nn.Linear(channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, (n, classes), of images, (n, in_channels, height, width)."""
        x: Tensor | None = self.stem(images)
        for part in self.body:
            if x is not None:
                x = part(x)
        nothing = images.new_zeros(images.shape[0], self.classifier.in_features)
        features = nothing if x is None else global_pool(self.last(x))
        logits: Tensor = self.classifier(features)
        return logits


NASBENCH201 = Blueprint(NASBench201Params, NASBench201, Network)
