"""The width of each stage of a network (the size search of NATS-Bench, Dong et al., 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from genomes.genome import Genome
from genomes.space import Edge, Features, Gene, Graph, OtherSpace, SearchSpace, sized

WIDTHS = (8, 16, 24, 32, 40, 48, 56, 64)


class Channels(SearchSpace):
    """Residual networks of several widths, for how many channels each stage needs. A gene for each
    stage: its number of channels.

    The text form is NATS-Bench's, `16:32:64`.

    Args:
        stages: the number of stages, 2 or more.
        widths: the distinct numbers of channels to choose from.
    """

    def __init__(self, stages: int = 5, widths: Sequence[int] = WIDTHS) -> None:
        self.stages, self.widths = stages, tuple(widths)
        choices = tuple(map(str, widths))
        super().__init__("channels/v1", [Gene(f"stage{i + 1}", choices) for i in range(stages)])

    def describe(self, genome: Genome) -> str:
        return ":".join(self.choice(genome, i) for i in range(len(self.genes)))

    def parse(self, text: str) -> Genome:
        words = text.strip().split(":")
        if len(words) == 1:
            return super().parse(text)
        choices = list(map(str, self.widths))
        if len(words) != self.stages or not set(words) <= set(choices):
            form = f"{self.stages} of {', '.join(choices)}, separated by colons"
            raise OtherSpace(f"{text!r} is not a genome of {self.name}; write {form}")
        return self.genome(choices.index(word) for word in words)

    def features(self, genome: Genome) -> Features:
        """Return the genes, and each stage's share of the largest width, times two."""
        widths = [2 * self.widths[gene] / max(self.widths) for gene in genome.genes]
        return np.concatenate([super().features(genome), widths])

    def largest(self) -> Genome:
        return self.genome([self.widths.index(max(self.widths))] * self.stages)

    def graph(self, genome: Genome) -> Graph:
        """Return the stages, each between what it reads and what it gives."""
        nodes, edges = ["input"], list[Edge]()
        for i, gene in enumerate(self.genes):  # every second stage halves the size
            width = f"{self.choice(genome, i)} channels"
            name = f"{gene.name}: {sized(width, (i + 1) // 2)}"
            op = "conv 3x3, blocks" if i == 0 else "blocks, stride 2" if i % 2 else "blocks"
            edges.append(Edge(nodes[-1], name, op, True))
            nodes.append(name)
        edges.append(Edge(nodes[-1], "classes", "mean, linear", True))
        note = "blocks: how many, and of what kind, is a setting of the space"
        return Graph((*nodes, "classes"), tuple(edges), note=note)
