"""The network of a chain of inverted residuals (Sandler et al., 2018; FBNet, Wu et al., 2019)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from evonas.core import Blueprint, Params, Requirement
from evonas.networks.ops import Classified, InvertedResidual, conv_bn_relu
from evonas.protocols import Pick
from genomes.chain import STAGES, Chain

Count = Annotated[int, Field(ge=1, le=1024)]
Stride = Annotated[int, Field(ge=1, le=2)]
Stage = Annotated[tuple[Count, Count, Stride], Field(strict=False)]
Kernel = Annotated[int, Field(ge=1, le=31)]


class ChainParams(Params):
    name: Literal["chain"] = "chain"
    stages: Annotated[tuple[Stage, ...], Field(min_length=1, max_length=20, strict=False)] = STAGES
    """The stages, each as three numbers: its channels, its layers, and the stride of its first
    layer, 1 or 2. `[[16, 2, 1], [32, 3, 2]]` has five layers."""
    kernels: Annotated[tuple[Kernel, ...], Field(min_length=1, max_length=8, strict=False)] = (3, 5)
    """The kernel sizes that a layer can choose from; odd numbers."""
    expansions: Annotated[tuple[Count, ...], Field(min_length=1, max_length=8, strict=False)] = (
        3,
        6,
    )
    """The expansions that a layer can choose from: how many times as many channels it has inside
    as it reads."""
    skip: bool = True
    """Whether layers that keep size and channels can be skipped."""
    stem: Count = 16
    """How many channels the convolution before the chain has."""

    def model_post_init(self, context: object) -> None:
        if any(kernel % 2 == 0 for kernel in self.kernels):
            raise Requirement("must be odd numbers", "kernels")
        for key in ("kernels", "expansions"):
            if len(set(getattr(self, key))) < len(getattr(self, key)):
                raise Requirement("must name each value once", key)


def chain_network(
    pick: Pick,
    *,
    in_channels: int,
    classes: int,
    stages: tuple[tuple[int, int, int], ...],
    kernels: tuple[int, ...],
    expansions: tuple[int, ...],
    skip: bool,
    stem: int,
) -> nn.Module:
    """Build the stem, the chain and a linear classifier."""
    layers: list[nn.Module] = [conv_bn_relu(in_channels, stem, 3)]
    before = stem
    for number, (channels, count, first) in enumerate(stages, 1):
        for layer in range(1, count + 1):
            stride = first if layer == 1 else 1
            candidates = inverted_residuals(before, channels, stride, kernels, expansions)
            if skip and before == channels and stride == 1:
                candidates["skip"] = nn.Identity
            layers.append(pick(f"{number}.{layer}", candidates))
            before = channels
    return Classified(nn.Sequential(*layers), before, classes)


def inverted_residuals(
    in_channels: int,
    out_channels: int,
    stride: int,
    kernels: tuple[int, ...],
    expansions: tuple[int, ...],
) -> dict[str, object]:
    """Return a factory for each kernel and expansion."""

    def factory(kernel: int, expansion: int) -> object:
        return lambda: InvertedResidual(in_channels, out_channels, kernel, expansion, stride)

    return {f"k{k}e{e}": factory(k, e) for k in kernels for e in expansions}


CHAIN = Blueprint(
    ChainParams,
    Chain,
    chain_network,
    space_keys=("stages", "kernels", "expansions", "skip", "stem"),
)
