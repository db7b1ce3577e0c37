"""The network of phases (Genetic CNN, Xie and Yuille, 2017; NSGA-Net, Lu et al., 2019)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from evonas.core import Blueprint, Params
from evonas.networks.ops import Classified, conv_bn_relu
from evonas.protocols import Pick
from genomes.macro import Macro


class MacroParams(Params):
    name: Literal["macro"] = "macro"
    phases: Annotated[int, Field(ge=1, le=10)] = 3
    """How many phases the network has. The size is halved between phases."""
    nodes: Annotated[int, Field(ge=2, le=6)] = 4
    """How many nodes a phase has at most; nodes without connections are left out."""
    channels: Annotated[int, Field(ge=1, le=1024)] = 16
    """How many channels the first phase has; each phase doubles them."""


class Phase(nn.Module):
    """A convolution, followed by nodes, each of which is a convolution of the sum it reads.

    A node is Genetic CNN's: convolution 3x3, batch norm and ReLU of a sum. It is not NSGA-Net's
    (macro_decoder.py of its code), which concatenates what it reads, brings that back to the number
    of channels with a convolution 1x1, and may be dense or pre-activated; there each phase also
    ends in batch norm and ReLU, and one without nodes is left out. So the results published for a
    genome of NSGA-Net are not those of the same bits here.
    """

    def __init__(self, pick: Pick, phase: int, nodes: int, in_channels: int, channels: int) -> None:
        super().__init__()
        switch = {"off": False, "on": True}
        pairs = [(i, j) for j in range(2, nodes + 1) for i in range(1, j)]
        on = [(i, j) for i, j in pairs if pick(f"{phase}/{i}>{j}", switch)]
        used = sorted({node for pair in on for node in pair})
        self.reads = {j: [i for i, k in on if k == j] for j in used}
        self.outputs = [node for node in used if all(i != node for i, _ in on)]
        self.skips = bool(pick(f"{phase}/skip", switch)) or not used
        self.entry = conv_bn_relu(in_channels, channels, 3)
        self.nodes = nn.ModuleDict(
            {str(node): conv_bn_relu(channels, channels, 3) for node in used}
        )

    def forward(self, x: Tensor) -> Tensor:
        start: Tensor = self.entry(x)
        values: dict[int, Tensor] = {}
        for node, sources in self.reads.items():
            terms = [values[source] for source in sources] or [start]
            values[node] = self.nodes[str(node)](sum(terms[1:], terms[0]))
        terms = [values[node] for node in self.outputs] + [start] * self.skips
        return sum(terms[1:], terms[0])


def macro_network(
    pick: Pick,
    *,
    in_channels: int,
    classes: int,
    phases: int,
    nodes: int,
    channels: int,
) -> nn.Module:
    """Build the phases, with max pooling between them, and a linear classifier."""
    parts: list[nn.Module] = []
    before = in_channels
    for phase in range(1, phases + 1):
        if phase > 1:
            parts.append(nn.MaxPool2d(2, ceil_mode=True))  # ceil: a single pixel stays one
        parts.append(Phase(pick, phase, nodes, before, channels))
        before, channels = channels, 2 * channels
    return Classified(nn.Sequential(*parts), before, classes)


MACRO = Blueprint(MacroParams, Macro, macro_network, space_keys=("phases", "nodes"), shares=None)
