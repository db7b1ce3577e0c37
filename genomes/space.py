"""The base class of search spaces, and the records that describe their genomes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genomes.genome import Genome

Features = NDArray[np.float64]  # (d,)


@dataclass(frozen=True, slots=True)
class Gene:
    """One decision: a name and the choices it picks from."""

    name: str
    choices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Edge:
    """An op between two nodes of a drawing; a dead one is not part of the network."""

    source: str
    target: str
    op: str
    live: bool


@dataclass(frozen=True, slots=True)
class Graph:
    """A drawing of a genome; an edge without an op only connects.

    Attributes:
        inputs, outputs: by default the first node is the input and the last the output.
            Unconnected parts are drawn side by side.
        note: a caption, which says how to read the labels.
    """

    nodes: tuple[str, ...]
    edges: tuple[Edge, ...]
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    note: str = ""


def sized(channels: str, halved: int) -> str:
    """Return how a drawing tells a layer's output: its channels, and its share of the size."""
    return f"{channels}, 1/{2**halved} size" if halved else f"{channels}, full size"


class OtherSpace(ValueError):
    """A text that may be a genome of another space: it has no form, or number of genes, of this."""


class SearchSpace:
    """All genomes of one encoding.

    A subclass overrides what it knows better: its text form, which genes are live, and which
    genomes stand for the same network. By default, every genome is a network of its own.
    """

    def __init__(self, name: str, genes: Iterable[Gene]) -> None:
        """Make the space of some genes.

        Raises:
            ValueError: a gene has no choices, or a name is missing or there twice.
        """
        self.name = name
        self.genes = tuple(genes)
        _check_names("genes", [gene.name for gene in self.genes])
        for gene in self.genes:
            _check_names(f"choices of the gene {gene.name}", gene.choices)
        self.choices = tuple(len(gene.choices) for gene in self.genes)  # the number of each gene's

    @property
    def title(self) -> str:
        """What people call the space: its name without the version."""
        return self.name.partition("/")[0]

    @property
    def sizes(self) -> tuple[str, ...]:
        """In which sizes named networks of the space come, smallest first; none by default."""
        return ()

    @property
    def size(self) -> int:
        """The number of genomes, counting equal networks once for each genome."""
        return math.prod(self.choices)

    def genome(self, genes: Iterable[int]) -> Genome:
        """Return the genome with these genes.

        Raises:
            OtherSpace: a gene too many or too few.
            ValueError: one outside its choices.
        """
        values = tuple(int(gene) for gene in genes)
        if len(values) != len(self.genes):
            raise OtherSpace(f"{self.name} has {len(self.genes)} genes, got {len(values)}")
        for gene, value in zip(self.genes, values, strict=True):
            if not 0 <= value < len(gene.choices):
                allowed = f"0 to {len(gene.choices) - 1}"
                raise ValueError(f"gene {gene.name} of {self.name} is {value}; allowed: {allowed}")
        return Genome(self.name, values)

    def sample(self, rng: np.random.Generator) -> Genome:
        """Draw a genome uniformly."""
        draws = zip(rng.random(len(self.genes)).tolist(), self.choices, strict=True)
        return Genome(self.name, tuple(int(draw * count) for draw, count in draws))

    def choice(self, genome: Genome, gene: int) -> str:
        """Return the name of a genome's choice for a gene."""
        return self.genes[gene].choices[genome.genes[gene]]

    def describe(self, genome: Genome) -> str:
        """Return the genome as text that `parse` reads back."""
        return genome.text

    def named(self, genome: Genome) -> str:
        """Return the name of each gene and its choice, `width=12, act=ReLU`; `parse` reads it.

        A dead gene with its first choice is left out.
        """
        genes = enumerate(zip(self.genes, self.live(genome), strict=True))
        named = [(i, gene) for i, (gene, live) in genes if live or genome.genes[i]]
        return ", ".join(f"{gene.name}={self.choice(genome, i)}" for i, gene in named)

    def parse(self, text: str) -> Genome:
        """Read a genome as `describe` or `named` writes it, as genes (`0-3-1`) or as a key
        (`g0-3-1`).

        Raises:
            OtherSpace: the text is none of them.
            ValueError: it is one of them, but with a mistake in it.
        """
        if "=" in text:
            return self._of_names(text)
        parts = text.strip().removeprefix("g").split("-")
        if not all(part.isascii() and part.isdigit() for part in parts):
            example = "-".join(str(i % count) for i, count in enumerate(self.choices))
            count = len(self.genes)
            named = f"{self.genes[0].name}={self.genes[0].choices[0]}"
            more = ", ..." if count > 1 else ""
            raise OtherSpace(
                f"{text!r} is not a genome of {self.name}; write {count} genes: {example}, or "
                f"their choices: {named}{more}"
            )
        return self.genome(int(part) for part in parts)

    def nearest(self, text: str, size: str = "") -> Genome:
        """Return the genome nearest to one that is written for the space's default settings.

        Args:
            text: as `parse` reads it.
            size: one of its sizes, if it comes in several.

        Raises:
            ValueError: it is no genome, the space has nothing like it, or it has no such size.
        """
        if size:
            raise ValueError(f"a genome of {self.name} has no size; leave out @{size}")
        return self.parse(text)

    def build(
        self, genome: Genome | str, *, in_channels: int = 3, classes: int = 10, **settings: Any
    ) -> Any:
        """Return the network of a genome, a torch module with fresh weights.

        It is what `evonas.networks.decode.decode` returns; evonas and torch are loaded only here.

        Args:
            genome: a genome of this space, or its text as `parse` reads it.
            settings: of the network, such as `channels`.

        Raises:
            ValueError: it is no genome of this space, the space has no networks, or a setting is
                unknown or out of range.
        """
        if not isinstance(genome, str | Genome):
            raise ValueError(f"{genome!r} is not a genome; give a Genome, or its text")
        if isinstance(genome, Genome) and genome.space != self.name:
            raise OtherSpace(f"{genome} is a genome of {genome.space}, not of {self.name}")
        chosen = self.parse(genome) if isinstance(genome, str) else self.genome(genome.genes)
        decode = import_module("evonas.networks.decode").decode
        return decode(self, chosen, in_channels=in_channels, classes=classes, **settings)

    def _of_names(self, text: str) -> Genome:
        # A choice may have a comma, as the inputs `0,1` of a node do; what follows one is a name.
        parts = re.split(r"[,\s]+(?=[^,\s=]+=)", text.strip(", "))
        pairs = [part.partition("=") for part in parts]
        chosen = {name: choice for name, _, choice in pairs}
        names = [gene.name for gene in self.genes]
        other = f"{text!r} does not name each gene of {self.name} once: {', '.join(names)}"
        if len(chosen) < len(pairs) or not chosen.keys() <= {*names}:
            raise OtherSpace(other)
        for gene in self.genes:
            if chosen.get(gene.name, gene.choices[0]) not in gene.choices:
                allowed = ", ".join(gene.choices)
                raise ValueError(f"{gene.name} is {chosen[gene.name]!r}; allowed: {allowed}")
        genome = self.genome(
            gene.choices.index(chosen.get(gene.name, gene.choices[0])) for gene in self.genes
        )
        for name, live in zip(names, self.live(genome), strict=True):
            if live and name not in chosen:
                raise OtherSpace(other)
        return genome

    def live(self, genome: Genome) -> tuple[bool, ...]:
        """Return, for each gene, whether its choice changes what the network computes."""
        return (True,) * len(self.genes)

    def canonical(self, genome: Genome) -> Genome:
        """Return the one genome that stands for all genomes of the same network."""
        return genome

    def key(self, genome: Genome) -> str:
        """Return the network's name, without white space, equal for all genomes of the network."""
        return f"g{self.canonical(genome).text}"

    def features(self, genome: Genome) -> Features:
        """Return the network as numbers for a model to learn from, equal for equal networks.

        By default they are the canonical genome's genes, one-hot, halved; all zeros for a dead
        gene. A subclass may add more. Distances between features count, so that what says more of
        a network should vary more: halved genes say less than whole numbers, such as of ops.

        Returns:
            (d,), with the same d for all genomes of the space.
        """
        canonical = self.canonical(genome)
        return self._one_hot(canonical, self.live(canonical))

    def spelling(self, genome: Genome) -> Features:
        """Return what a genome has beside its network, as numbers that may add to a value.

        By default there is nothing, for a network is trained as its canonical genome. On a table,
        it is the dead genes that are not at their first choice, one-hot: a table may count them,
        such as in the FLOPs of an op whose result nothing reads.

        Returns:
            (s,), with the same s for all genomes of the space.
        """
        return np.zeros(0)

    def _one_hot(self, genome: Genome, shown: Sequence[bool]) -> Features:
        """Return half the one-hot code of those genes that are shown."""
        code = np.zeros(sum(self.choices))
        start = 0
        for gene, count, show in zip(genome.genes, self.choices, shown, strict=True):
            code[start + gene] = 0.5 * show
            start += count
        return code

    def largest(self) -> Genome | None:
        """Return a genome with the most parameters and FLOPs of the space, if known."""
        return None

    def strongest(self, weights: Mapping[str, Sequence[float]]) -> Genome:
        """Return the genome of the choices with the largest weights.

        Args:
            weights: the weights of a gene's choices, by its name; other genes take their first.
        """
        return self.genome(
            int(np.argmax(weights[gene.name])) if gene.name in weights else 0 for gene in self.genes
        )

    def graph(self, genome: Genome) -> Graph | None:
        """Return a drawing of the genome; None, the default, if only its genes are known."""
        return None


def _check_names(what: str, names: Sequence[str]) -> None:
    if not names:
        raise ValueError(f"there are no {what}")
    for i, name in enumerate(names):
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"one of the {what} is {name!r}, not a name")
        if name in names[:i]:
            raise ValueError(f"{name} is twice among the {what}")


class Verbatim(SearchSpace):
    """A space in which every genome is a network of its own, for look-ups by genome."""

    def __init__(self, space: SearchSpace) -> None:
        super().__init__(space.name, space.genes)
        self._space = space

    def describe(self, genome: Genome) -> str:
        return self._space.describe(genome)

    def parse(self, text: str) -> Genome:
        return self._space.parse(text)

    def live(self, genome: Genome) -> tuple[bool, ...]:
        return self._space.live(genome)

    def features(self, genome: Genome) -> Features:
        """Return those of the network, so that genomes of one network have the same."""
        return self._space.features(genome)

    def spelling(self, genome: Genome) -> Features:
        dead = [
            gene > 0 and not live
            for gene, live in zip(genome.genes, self.live(genome), strict=True)
        ]
        return self._one_hot(genome, dead)

    def largest(self) -> Genome | None:
        return self._space.largest()

    def graph(self, genome: Genome) -> Graph | None:
        return self._space.graph(genome)
