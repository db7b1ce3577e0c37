"""The network in stages: plain, residual, separable or inverted residual blocks, each with its own
depth, width, kernel and activation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from evonas.core import Blueprint, Params, Requirement, by_name
from evonas.networks.ops import Classified
from evonas.protocols import Pick
from genomes import stages as space
from genomes.stages import Stages, multiple, stride_patterns

Choices = Field(min_length=1, max_length=20, strict=False)
Count = Annotated[int, Field(ge=1, le=1024)]
Kernel = Annotated[int, Field(ge=1, le=31)]
Width = Annotated[float, Field(gt=0, le=1024)]
BlockName = Literal["conv", "residual", "separable", "inverted"]
ActivationName = Literal["relu", "hswish"]


class StagesParams(Params):
    name: Literal["stages"] = "stages"
    stages: Annotated[int, Field(ge=1, le=8)] = 3
    """How many stages the network has."""
    resolution: Annotated[int, Field(ge=2, le=4096)] | None = None
    """The shorter side of the images, in pixels; without it, the data decide. It says where the
    size may be halved: at the end, 2 to 8 pixels are left."""
    stem: Annotated[tuple[Count, ...], Choices] = space.STEMS
    """The numbers of channels that the first layer can choose from."""
    blocks: Annotated[tuple[BlockName, ...], Choices] = space.BLOCKS  # type: ignore[assignment]
    """The blocks that a stage can choose from: a convolution (`conv`), two of them with a shortcut
    (`residual`), a depthwise and a pointwise one (`separable`), or a pointwise one, a depthwise one
    and again a pointwise one with a shortcut (`inverted`)."""
    depths: Annotated[tuple[Count, ...], Choices] = space.DEPTHS
    """How many blocks a stage can have."""
    widths: Annotated[tuple[Width, ...], Choices] = space.WIDTHS
    """The channels that a stage can have, in multiples of the first layer's."""
    kernels: Annotated[tuple[Kernel, ...], Choices] = space.KERNELS
    """The kernel sizes that a stage can choose from; odd numbers."""
    expansions: Annotated[tuple[Count, ...], Choices] = space.EXPANSIONS
    """The expansions that inverted residuals can choose from: how many times as many channels they
    have inside as they read."""
    squeeze: Annotated[tuple[bool, ...], Choices] = space.SQUEEZE
    """Whether a stage's blocks can do without squeeze-and-excitation (`false`), with it (`true`),
    or choose."""
    activations: Annotated[tuple[ActivationName, ...], Choices] = space.ACTIVATIONS  # type: ignore[assignment]
    """The activations that a stage can choose from."""
    head: Annotated[tuple[Annotated[int, Field(ge=0, le=64)], ...], Choices] = space.HEADS
    """The widths that a last pointwise layer can choose from, in multiples of the last stage's
    channels; 0 stands for none."""

    def model_post_init(self, context: object) -> None:
        if any(kernel % 2 == 0 for kernel in self.kernels):
            raise Requirement("must be odd numbers", "kernels")
        for key in LADDERS:
            if len(set(getattr(self, key))) < len(getattr(self, key)):
                raise Requirement("must name each value once", key)

    @property
    def complete(self) -> bool:
        return self.resolution is not None

    def fitted(self, image_shape: tuple[int, int, int]) -> StagesParams:
        """Return these settings with a resolution: the images', if there is none yet."""
        resolution = self.resolution or max(2, min(image_shape[1:]))
        return self.model_copy(update={"resolution": resolution})


LADDERS = (
    *("stem", "blocks", "depths", "widths", "kernels", "expansions"),
    *("squeeze", "activations", "head"),
)
Activation = Callable[[], nn.Module]
ACTIVATIONS: dict[str, Activation] = {"relu": nn.ReLU, "hswish": nn.Hardswish}


@dataclass(frozen=True, slots=True)
class Block:
    """What a block is built from; only `inverted` uses the expansion."""

    in_channels: int
    out_channels: int
    kernel: int
    stride: int
    activation: Activation
    squeezed: bool
    expansion: int


class SqueezeExcitation(nn.Module):
    """Scales each channel by what all channels are on average (Hu et al., 2018, sec. 3).

    The gate is a hard sigmoid, as in MobileNetV3 (Howard et al., 2019, sec. 5.3).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = max(1, channels // space.RATIO)
        self.gate = nn.Sequential(
            nn.Conv2d(channels, narrow, 1),
            nn.ReLU(),
            nn.Conv2d(narrow, channels, 1),
            nn.Hardsigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        gate: Tensor = self.gate(x.mean(dim=(2, 3), keepdim=True))  # deterministic on CUDA too
        return x * gate


class Shortcut(nn.Module):
    """A body whose input, or a pointwise convolution of it, is added to its output."""

    def __init__(self, body: nn.Module, around: nn.Module, after: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.around = around
        self.after = after

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.after(self.body(x) + self.around(x))
        return out


def stages_network(
    pick: Pick,
    *,
    in_channels: int,
    classes: int,
    stages: int,
    resolution: int | None,
    stem: tuple[int, ...],
    blocks: tuple[str, ...],
    depths: tuple[int, ...],
    widths: tuple[float, ...],
    kernels: tuple[int, ...],
    expansions: tuple[int, ...],
    squeeze: tuple[bool, ...],
    activations: tuple[str, ...],
    head: tuple[int, ...],
) -> nn.Module:
    """Build the stem, the stages, the last layer if there is one, and a linear classifier."""
    first = pick("stem", by_name(stem))
    patterns = stride_patterns(stages, resolution or space.RESOLUTION)
    strides = pick("strides", {"/".join(map(str, pattern)): pattern for pattern in patterns})
    end = pick("head", by_name(head))
    layers: list[nn.Module] = []
    before = first
    for number, stride in enumerate(strides[1:], 1):
        block = pick(f"{number}.block", by_name(blocks))
        depth = pick(f"{number}.depth", by_name(depths))
        channels = multiple(first, pick(f"{number}.width", {f"{w:g}": w for w in widths}))
        kernel = pick(f"{number}.kernel", by_name(kernels))
        expansion = pick(f"{number}.expansion", by_name(expansions)) or 1
        squeezed = pick(f"{number}.squeeze", {"se" if each else "no": each for each in squeeze})
        activation = ACTIVATIONS[pick(f"{number}.activation", by_name(activations))]
        if number == 1:
            layers += [*normed(in_channels, first, 3, strides[0]), activation()]
        for i in range(depth):
            step = stride if i == 0 else 1
            its = Block(before, channels, kernel, step, activation, squeezed, expansion)
            layers.append(BLOCKS[block](its))
            before = channels
    if end:
        layers += [*normed(before, end * before, 1), activation()]
        before *= end
    return Classified(nn.Sequential(*layers), before, classes)


def normed(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """Return a convolution without bias, and batch norm; stride 1 keeps the size."""
    padding = kernel // 2
    return [
        nn.Conv2d(in_channels, out_channels, kernel, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
    ]


def plain(its: Block) -> nn.Module:
    """Return one convolution (VGG, Simonyan and Zisserman, 2015)."""
    return nn.Sequential(
        *normed(its.in_channels, its.out_channels, its.kernel, its.stride),
        its.activation(),
        *_squeeze(its.squeezed, its.out_channels),
    )


def residual(its: Block) -> nn.Module:
    """Return two convolutions with a shortcut (He et al., 2016, fig. 2)."""
    body = nn.Sequential(
        *normed(its.in_channels, its.out_channels, its.kernel, its.stride),
        its.activation(),
        *normed(its.out_channels, its.out_channels, its.kernel),
        *_squeeze(its.squeezed, its.out_channels),
    )
    same = its.stride == 1 and its.in_channels == its.out_channels
    around = (
        nn.Identity()
        if same
        else nn.Sequential(*normed(its.in_channels, its.out_channels, 1, its.stride))
    )
    return Shortcut(body, around, its.activation())


def separable(its: Block) -> nn.Module:
    """Return a depthwise and a pointwise convolution (MobileNet, Howard et al., 2017, sec. 3.1)."""
    return nn.Sequential(
        *normed(its.in_channels, its.in_channels, its.kernel, its.stride, groups=its.in_channels),
        its.activation(),
        *_squeeze(its.squeezed, its.in_channels),
        *normed(its.in_channels, its.out_channels, 1),
        its.activation(),
    )


def inverted(its: Block) -> nn.Module:
    """Return a block that is wide inside and narrow at both ends, added where they fit (Sandler et
    al., 2018; with squeeze-and-excitation, Howard et al., 2019, fig. 4).
    """
    within = its.expansion * its.in_channels
    widen = [*normed(its.in_channels, within, 1), its.activation()] if its.expansion > 1 else []
    body = nn.Sequential(
        *widen,
        *normed(within, within, its.kernel, its.stride, groups=within),
        its.activation(),
        *_squeeze(its.squeezed, within),
        *normed(within, its.out_channels, 1),
    )
    adds = its.stride == 1 and its.in_channels == its.out_channels
    return Shortcut(body, nn.Identity(), nn.Identity()) if adds else body


BLOCKS: dict[str, Callable[[Block], nn.Module]] = {
    "conv": plain,
    "residual": residual,
    "separable": separable,
    "inverted": inverted,
}


def _squeeze(squeezed: bool, channels: int) -> list[nn.Module]:
    return [SqueezeExcitation(channels)] if squeezed else []


STAGES = Blueprint(
    StagesParams,
    Stages,
    stages_network,
    space_keys=("stages", "resolution", *LADDERS),
    shares=None,
)
