"""The network whose stages are as wide as the genome says (NATS-Bench, Dong et al., 2021)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from evonas.core import Blueprint, Params, Requirement
from evonas.networks.ops import Classified, InvertedResidual, Residual, conv_bn_relu
from evonas.protocols import Pick
from genomes.channels import WIDTHS, Channels

Width = Annotated[int, Field(ge=1, le=4096)]
EXPANSION = 3  # the inverted residuals'


class ChannelsParams(Params):
    name: Literal["channels"] = "channels"
    stages: Annotated[int, Field(ge=2, le=20)] = 5
    """How many stages the network has. The size is halved at the second, the fourth and so on."""
    widths: Annotated[tuple[Width, ...], Field(min_length=1, max_length=100, strict=False)] = WIDTHS
    """The numbers of channels that a stage can choose from."""
    blocks: Annotated[int, Field(ge=1, le=100)] = 1
    """How many blocks a stage has."""
    block: Literal["residual", "inverted"] = "residual"
    """The kind of block: two convolutions (`residual`), or a narrow one, a wide depthwise one and a
    narrow one (`inverted`). What the block reads is added to its output."""

    def model_post_init(self, context: object) -> None:
        if len(set(self.widths)) < len(self.widths):
            raise Requirement("must name each value once", "widths")


def channels_network(
    pick: Pick,
    *,
    in_channels: int,
    classes: int,
    stages: int,
    widths: tuple[int, ...],
    blocks: int,
    block: str,
) -> nn.Module:
    """Build the stem, the stages and a linear classifier."""
    candidates = {str(width): width for width in widths}
    layers: list[nn.Module] = []
    before = in_channels
    for stage in range(1, stages + 1):
        channels = pick(f"stage{stage}", candidates)
        if stage == 1:
            layers.append(conv_bn_relu(in_channels, channels, 3))
            before = channels
        for number in range(blocks):
            stride = 2 if stage % 2 == 0 and number == 0 else 1
            layers.append(
                Residual(before, channels, stride)
                if block == "residual"
                else InvertedResidual(before, channels, 3, EXPANSION, stride)
            )
            before = channels
    return Classified(nn.Sequential(*layers), before, classes)


CHANNELS = Blueprint(
    ChannelsParams,
    Channels,
    channels_network,
    space_keys=("stages", "widths"),
    shares="slices",
)
