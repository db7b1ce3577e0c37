"""Networks in stages (MnasNet, Tan et al., 2019; once-for-all, Cai et al., 2020)."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from genomes.genome import Genome
from genomes.space import Edge, Features, Gene, Graph, SearchSpace, sized

RESOLUTION = 32
STEMS = (4, 6, 8, 10, 12, 16, 20, 24, 32)
BLOCKS = ("conv", "residual", "separable", "inverted")
DEPTHS = (1, 2, 3, 4)
WIDTHS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
KERNELS = (3, 5, 7)
EXPANSIONS = (2, 3, 4, 6)
ACTIVATIONS = ("relu", "hswish")
SQUEEZE = (False, True)
HEADS = (0, 2, 4)

RATIO = 4  # of the channels that squeeze-and-excitation reads to those that it squeezes them to
COARSEST, FINEST = 8, 2  # pixels of the shorter side at the end, at most and at least
GENES = ("block", "depth", "width", "kernel", "expansion", "squeeze", "activation")  # of a stage
INVERTED = "inverted"


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage as a genome has it.

    Attributes:
        stride: of the first of its blocks.
        expansion: how many times as many channels an inverted residual has within; 0 for others.
    """

    block: str
    depth: int
    channels: int
    kernel: int
    stride: int
    expansion: int
    squeeze: bool
    activation: str


class Stages(SearchSpace):
    """Networks in stages, for the best accuracy under a limit of parameters, FLOPs or memory.

    Genes for the stem's width, for where the size is halved and for a wide layer at the end; and
    for each stage its block, depth, width, kernel, expansion, squeeze-and-excitation, activation.

    The text form has a part for the stem, for each stage and for the end:
    `stem8/2 | conv3 x2 w1 | residual3 x1 w2 /2 | inverted5 x3 w4 e6 se hswish /2 | head4`. After
    the block stands its kernel; x is the depth, w the width in multiples of the stem's, e the
    expansion, /2 the stride, and head the width of the last layer in multiples of the last
    stage's; 0 stands for no such layer.

    Args:
        stages: the number of stages, 1 or more.
        resolution: the shorter side of the images in pixels; it says how often the size can be
            halved (`strides`).
        stem: the numbers of channels of the first layer to choose from.
        blocks: the blocks of a stage: `conv`, `residual`, `separable`, `inverted`.
        depths: the numbers of blocks of a stage.
        widths: the channels of a stage, in multiples of the stem's.
        kernels: the sides of the kernels; odd.
        expansions: of inverted residuals.
        squeeze: whether blocks can have squeeze-and-excitation.
        activations: `relu`, `hswish`.
        head: the widths of the last layer, in multiples of the last stage's; 0 for none.
    """

    def __init__(
        self,
        stages: int = 3,
        resolution: int | None = None,
        stem: Sequence[int] = STEMS,
        blocks: Sequence[str] = BLOCKS,
        depths: Sequence[int] = DEPTHS,
        widths: Sequence[float] = WIDTHS,
        kernels: Sequence[int] = KERNELS,
        expansions: Sequence[int] = EXPANSIONS,
        squeeze: Sequence[bool] = SQUEEZE,
        activations: Sequence[str] = ACTIVATIONS,
        head: Sequence[int] = HEADS,
    ) -> None:
        self.stages, self.resolution = stages, resolution or RESOLUTION
        self.stem, self.blocks, self.depths = tuple(stem), tuple(blocks), tuple(depths)
        self.widths, self.kernels = tuple(map(float, widths)), tuple(kernels)
        self.expansions, self.squeeze = tuple(expansions), tuple(squeeze)
        self.activations, self.head = tuple(activations), tuple(head)
        self.strides = stride_patterns(stages, self.resolution)
        of_stage = (
            self.blocks,
            tuple(map(str, self.depths)),
            tuple(f"{width:g}" for width in self.widths),
            tuple(map(str, self.kernels)),
            tuple(map(str, self.expansions)),
            tuple("se" if squeezed else "no" for squeezed in self.squeeze),
            self.activations,
        )
        genes = [
            Gene("stem", tuple(map(str, self.stem))),
            Gene("strides", tuple("/".join(map(str, each)) for each in self.strides)),
            Gene("head", tuple(map(str, self.head))),
        ]
        for stage in range(1, stages + 1):
            named = zip(GENES, of_stage, strict=True)
            genes += [Gene(f"{stage}.{name}", choices) for name, choices in named]
        super().__init__("stages/v1", genes)

    @property
    def sizes(self) -> tuple[str, ...]:
        """The numbers of channels of the stem."""
        return tuple(map(str, sorted(self.stem)))

    def of(self, genome: Genome) -> list[Stage]:
        """Return the stages of a genome."""
        chosen = self._chosen(genome)
        stem, strides = int(chosen["stem"]), self.strides[genome.genes[1]]
        stages = []
        for number in range(1, self.stages + 1):
            block = chosen[f"{number}.block"]
            stages.append(
                Stage(
                    block,
                    int(chosen[f"{number}.depth"]),
                    multiple(stem, float(chosen[f"{number}.width"])),
                    int(chosen[f"{number}.kernel"]),
                    strides[number],
                    int(chosen[f"{number}.expansion"]) if block == INVERTED else 0,
                    chosen[f"{number}.squeeze"] == "se",
                    chosen[f"{number}.activation"],
                )
            )
        return stages

    def describe(self, genome: Genome) -> str:
        chosen, strides = self._chosen(genome), self.strides[genome.genes[1]]
        parts = [f"stem{chosen['stem']}{_over(strides[0])}"]
        for number in range(1, self.stages + 1):
            block, depth, width, kernel, expansion, squeeze, activation = (
                chosen[f"{number}.{name}"] for name in GENES
            )
            dead = block != INVERTED and expansion == str(self.expansions[0])
            words = [f"{block}{kernel}", f"x{depth}", f"w{width}"]
            words += [] if dead else [f"e{expansion}"]
            words += [squeeze] if squeeze == "se" else []
            words += [activation] if activation != "relu" else []
            words += [_over(strides[number])] if strides[number] > 1 else []
            parts.append(" ".join(words))
        return " | ".join([*parts, f"head{chosen['head']}"])

    def parse(self, text: str) -> Genome:
        if "|" not in text or not text.strip().startswith("stem"):
            return super().parse(text)
        parts = [part.split() or [""] for part in text.split("|")]
        if len(parts) != self.stages + 2:
            given = f"{text!r} has stages: {len(parts) - 2}"
            raise ValueError(f"{given}; {self.name} has: {self.stages}")
        chosen = {"stride": "1"} | self._matched(STEM, " ".join(parts[0]))
        chosen |= self._matched(HEAD, " ".join(parts[-1]))
        strides = [chosen.pop("stride")]
        for number, (first, *words) in enumerate(parts[1:-1], 1):
            found = {"expansion": str(self.expansions[0]), "squeeze": "no", "activation": "relu"}
            found |= {"stride": "1"} | self._matched(FIRST, first)
            for word in words:
                found |= self._matched(WORD, word)
            strides.append(found.pop("stride"))
            missing = [name for name in ("depth", "width") if name not in found]
            if missing:
                raise ValueError(f"stage {number} of {text!r} has no {missing[0]}; write {FORM}")
            chosen |= {f"{number}.{name}": value for name, value in found.items()}
        chosen["strides"] = "/".join(strides)
        return self.genome(map(self._index, self.genes, (chosen[gene.name] for gene in self.genes)))

    def nearest(self, text: str, size: str = "") -> Genome:
        """Return the genome nearest to one of the default settings.

        Args:
            size: the number of channels of its first layer, instead of its own.
        """
        default = Stages()
        genome = default.parse(text)
        chosen = default._chosen(genome)
        if default.stages != self.stages:
            raise ValueError(f"it has {default.stages} stages; this space has {self.stages}")
        if size and size not in self.sizes:
            raise ValueError(f"must have one of {', '.join(self.sizes)} after the @")
        chosen["stem"] = size or chosen["stem"]
        alive = default.live(genome)
        return self.genome(
            _nearest(gene, chosen[gene.name]) if live else 0
            for gene, live in zip(self.genes, alive, strict=True)
        )

    def live(self, genome: Genome) -> tuple[bool, ...]:
        """Return whether each gene is live: all but the expansions of blocks that have none."""
        flags = [True] * len(self.genes)
        for number in range(1, self.stages + 1):
            block = self._place(number, "block")
            expansion = self._place(number, "expansion")
            flags[expansion] = self.choice(genome, block) == INVERTED
        return tuple(flags)

    def canonical(self, genome: Genome) -> Genome:
        """Return the genome without dead expansions, and with the first width of those that come to
        the same number of channels.
        """
        genes, stem = list(genome.genes), int(self.choice(genome, 0))
        for place, alive in enumerate(self.live(genome)):
            genes[place] *= alive
        channels = [multiple(stem, width) for width in self.widths]
        for number in range(1, self.stages + 1):
            place = self._place(number, "width")
            genes[place] = channels.index(channels[genes[place]])
        return Genome(self.name, tuple(genes))

    def features(self, genome: Genome) -> Features:
        """Return the canonical genome's genes, and the logarithms of what it is made of.

        They are those of the params and of the FLOPs, of each stage's channels, depth, params and
        final size, all of base 2; for images of three channels in the space's resolution.
        """
        canonical = self.canonical(genome)
        weights, work = np.zeros(self.stages + 2), np.zeros(self.stages + 2)
        for layer in self.layers(canonical):
            weights[layer.part] += layer.weights
            work[layer.part] += layer.work
        stages = self.of(canonical)
        halved = np.cumsum(np.log2(self.strides[canonical.genes[1]]))
        numbers = [
            np.log2([1 + weights.sum(), 1 + work.sum()]),
            np.log2(1 + weights[1:-1]) / 2,
            np.log2([stage.channels for stage in stages]) / 2,
            np.log2([stage.depth for stage in stages]),
            halved,
        ]
        return np.concatenate([super().features(canonical), *numbers])

    def graph(self, genome: Genome) -> Graph:
        """Return the blocks, each between what it reads and what it gives."""
        chosen, strides = self._chosen(genome), self.strides[genome.genes[1]]
        halved = strides[0].bit_length() - 1
        stem = sized(f"{chosen['stem']} channels", halved)
        nodes = ["input", f"stem: {stem}"]
        edges = [Edge(nodes[0], nodes[1], f"conv 3x3{_strided(strides[0])}", True)]
        for number, stage in enumerate(self.of(genome), 1):
            halved += stage.stride.bit_length() - 1
            for i in range(stage.depth):
                op = f"{stage.block} {stage.kernel}x{stage.kernel}"
                op += f" e{stage.expansion}" if stage.expansion else ""
                op += " se" * stage.squeeze + f" {stage.activation}"
                op += _strided(stage.stride) if i == 0 else ""
                name = f"{number}.{i + 1}: {sized(f'{stage.channels} channels', halved)}"
                edges.append(Edge(nodes[-1], name, op, True))
                nodes.append(name)
        if head := int(chosen["head"]):
            channels = f"{head * stage.channels} channels"
            name = f"head: {sized(channels, halved)}"
            edges.append(Edge(nodes[-1], name, "conv 1x1", True))
            nodes.append(name)
        edges.append(Edge(nodes[-1], "classes", "mean, linear", True))
        note = "e6: 6 times as wide within; se: squeeze-and-excitation"
        return Graph((*nodes, "classes"), tuple(edges), note=note)

    def layers(self, genome: Genome, in_channels: int = 3, classes: int = 10) -> Iterator[Layer]:
        """Yield the layers of a genome's network: convolutions with their batch norms, and linear.

        Their weights add up to the network's params.
        """
        chosen, strides = self._chosen(genome), self.strides[genome.genes[1]]
        side = -(-self.resolution // strides[0])
        before = int(chosen["stem"])
        yield _conv(0, in_channels, before, 3, side)
        for part, stage in enumerate(self.of(genome), 1):
            for i in range(stage.depth):
                after = -(-side // stage.stride) if i == 0 else side
                stride = stage.stride if i == 0 else 1
                yield from _block(part, stage, before, stride, side, after)
                before, side = stage.channels, after
        if head := int(chosen["head"]):
            yield _conv(self.stages + 1, before, head * before, 1, side)
            before *= head
        yield Layer(self.stages + 1, (before + 1) * classes, before * classes)

    def _place(self, stage: int, gene: str) -> int:
        return 3 + (stage - 1) * len(GENES) + GENES.index(gene)

    def _chosen(self, genome: Genome) -> dict[str, str]:
        return {gene.name: self.choice(genome, i) for i, gene in enumerate(self.genes)}

    def _matched(self, pattern: str, text: str) -> dict[str, str]:
        found = re.fullmatch(pattern, text)
        if found is None:
            raise ValueError(f"{text!r} is no part of a genome of {self.name}; write {FORM}")
        groups: Mapping[str, str | None] = found.groupdict()
        return {name: value for name, value in groups.items() if value is not None}

    def _index(self, gene: Gene, choice: str) -> int:
        if choice not in gene.choices:
            allowed = ", ".join(gene.choices)
            raise ValueError(f"{gene.name} is {choice}, and {self.name} has {allowed}")
        return gene.choices.index(choice)


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer's part of the network, its parameters, and its multiply-adds for one image.

    Attributes:
        part: 0 for the stem, then the stages from 1, then the end.
    """

    part: int
    weights: int
    work: int


def stride_patterns(stages: int, resolution: int) -> list[tuple[int, ...]]:
    """Return where the size can be halved: the strides of the stem and of each stage.

    At the end, the shorter side has 2 to 8 pixels, if there are enough layers to halve it. The stem
    has stride 2 only if 8 pixels are left, and stride 4 only if 16 are.
    """
    stems = [1] + [2] * (resolution >= 16) + [4] * (resolution >= 64)
    found = []
    for stem, *rest in itertools.product(stems, *[(1, 2)] * stages):
        pattern = (stem, *rest)
        if resolution / np.prod(pattern) > FINEST - 1:
            found.append(pattern)
    small = [each for each in found if resolution / np.prod(each) <= COARSEST]
    most = max(np.prod(each) for each in found)
    return small or [each for each in found if np.prod(each) == most]


def multiple(channels: int, width: float) -> int:
    """Return that many times a number of channels, rounded, at least 1."""
    return max(1, int(channels * width + 0.5))


NUMBER = r"\d+(?:\.\d+)?"
STEM = r"stem(?P<stem>\d+)(?:/(?P<stride>\d))?"
HEAD = r"head(?P<head>\d+)"
FIRST = r"(?P<block>[a-z]+)(?P<kernel>\d+)"
WORD = (
    rf"x(?P<depth>\d+)|w(?P<width>{NUMBER})|e(?P<expansion>\d+)|(?P<squeeze>se)|/(?P<stride>\d)"
    r"|(?P<activation>[a-z]+)"
)
FORM = "stem8 | conv3 x1 w1 | residual3 x2 w2 /2 | inverted5 x2 w4 e6 se hswish /2 | head4"


def _nearest(gene: Gene, choice: str) -> int:
    """Return the place of a choice or, among numbers, of the nearest."""
    if choice in gene.choices:
        return gene.choices.index(choice)
    if not choice[0].isdigit():
        raise ValueError(f"it needs {choice} among the choices of {gene.name}")

    def distance(other: str) -> tuple[float, float]:
        pairs = list(zip(_numbers(choice), _numbers(other), strict=True))
        return sum(abs(one - another) for one, another in pairs), max(_numbers(other))

    return min(range(len(gene.choices)), key=lambda i: distance(gene.choices[i]))


def _numbers(choice: str) -> list[float]:
    return [float(number) for number in choice.split("/")]


def _over(stride: int) -> str:
    return f"/{stride}" if stride > 1 else ""


def _strided(stride: int) -> str:
    return f", stride {stride}" if stride > 1 else ""


def _conv(part: int, before: int, after: int, kernel: int, side: int, groups: int = 1) -> Layer:
    """Return a convolution without bias, and its batch norm."""
    weights = kernel**2 * before * after // groups
    return Layer(part, weights + 2 * after, weights * side**2)


def _block(
    part: int, stage: Stage, before: int, stride: int, side: int, after: int
) -> Iterator[Layer]:
    """Yield the layers of a block, from `side` to `after` pixels."""
    channels, kernel, squeezed = stage.channels, stage.kernel, stage.channels
    if stage.block == "conv":
        yield _conv(part, before, channels, kernel, after)
    elif stage.block == "residual":
        yield _conv(part, before, channels, kernel, after)
        yield _conv(part, channels, channels, kernel, after)
        if stride > 1 or before != channels:
            yield _conv(part, before, channels, 1, after)
    else:
        within = squeezed = before * max(1, stage.expansion)
        if stage.expansion > 1:
            yield _conv(part, before, within, 1, side)
        yield _conv(part, within, within, kernel, after, groups=within)
        yield _conv(part, within, channels, 1, after)
    if stage.squeeze:
        narrow = max(1, squeezed // RATIO)
        weights = 2 * squeezed * narrow
        yield Layer(part, weights + squeezed + narrow, weights)
