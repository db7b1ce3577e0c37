"""Chains of layers, each an inverted residual or skipped (FBNet, Wu et al., 2019; SPOS)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from genomes.genome import Genome
from genomes.space import Edge, Features, Gene, Graph, SearchSpace, sized

SKIP = "skip"
Stage = tuple[int, int, int]  # channels, layers, and the stride of the first layer
STAGES: tuple[Stage, ...] = ((16, 2, 1), (32, 3, 2), (64, 3, 2))


class Chain(SearchSpace):
    """Chains of inverted residuals, for small and fast networks, as phones and microcontrollers run
    them. A gene for each layer: its kernel and expansion, or a skip.

    Only a layer that keeps size and channels can be skipped. The text form is `k3e6,skip,k5e3`.

    Args:
        stages: for each, its channels, its layers, and the stride of its first layer.
        kernels, expansions: the choices of a layer, in all combinations.
        skip: whether layers can be skipped.
        stem: the number of channels that the first stage reads.
    """

    def __init__(
        self,
        stages: Sequence[Stage] = STAGES,
        kernels: Sequence[int] = (3, 5),
        expansions: Sequence[int] = (3, 6),
        *,
        skip: bool = True,
        stem: int = 16,
    ) -> None:
        self.stages = tuple((channels, layers, stride) for channels, layers, stride in stages)
        self.kernels, self.expansions = tuple(kernels), tuple(expansions)
        self.skip, self.stem = skip, stem
        self.ops = len(self.kernels) * len(self.expansions) + skip
        ops = tuple(f"k{kernel}e{expansion}" for kernel in kernels for expansion in expansions)
        genes, self.skippable = [], list[bool]()
        before = stem
        for number, (channels, layers, stride) in enumerate(self.stages, 1):
            for layer in range(1, layers + 1):
                skippable = skip and channels == before and (stride == 1 or layer > 1)
                self.skippable.append(skippable)
                genes.append(Gene(f"{number}.{layer}", (*ops, SKIP) if skippable else ops))
                before = channels
        super().__init__("chain/v1", genes)

    def describe(self, genome: Genome) -> str:
        return ",".join(self.choice(genome, i) for i in range(len(self.genes)))

    def parse(self, text: str) -> Genome:
        words = text.strip().split(",")
        if not any(word in gene.choices for gene in self.genes for word in words):
            return super().parse(text)
        if len(words) != len(self.genes):
            raise ValueError(f"{self.name} has {len(self.genes)} layers, got {len(words)}")
        for gene, word in zip(self.genes, words, strict=True):
            if word not in gene.choices:
                allowed = ", ".join(gene.choices)
                raise ValueError(f"layer {gene.name} is {word!r}; allowed: {allowed}")
        return self.genome(
            gene.choices.index(word) for gene, word in zip(self.genes, words, strict=True)
        )

    def canonical(self, genome: Genome) -> Genome:
        """Move skipped layers to the end of each run of layers that can all be skipped."""
        genes: list[int] = []
        run: list[int] = []
        skip = len(self.kernels) * len(self.expansions)
        for gene, skippable in zip(genome.genes, self.skippable, strict=True):
            if not skippable:
                genes += sorted(run, key=lambda choice: choice == skip)
                genes.append(gene)
                run = []
            else:
                run.append(gene)
        genes += sorted(run, key=lambda choice: choice == skip)
        return Genome(self.name, tuple(genes))

    def features(self, genome: Genome) -> Features:
        """Return the canonical genome's genes, and how often each stage has each op.

        A network with the same ops in another order is nearly the same.
        """
        canonical = self.canonical(genome)
        counts, start = [], 0
        for _, layers, _ in self.stages:
            counts.append(np.bincount(canonical.genes[start : start + layers], minlength=self.ops))
            start += layers
        return np.concatenate([super().features(genome), *counts])

    def largest(self) -> Genome:
        choice = self.kernels.index(max(self.kernels)) * len(self.expansions)
        choice += self.expansions.index(max(self.expansions))
        return self.genome([choice] * len(self.genes))

    def graph(self, genome: Genome) -> Graph:
        """Return the layers, each between what it reads and what it gives."""
        nodes = ["input", f"stem: {sized(f'{self.stem} channels', 0)}"]
        edges = [Edge(nodes[0], nodes[1], "conv 3x3", True)]
        gene = halved = 0
        for channels, layers, stride in self.stages:
            for layer in range(layers):
                strided = layer == 0 and stride > 1
                halved += strided
                op = self.choice(genome, gene)
                name = f"{self.genes[gene].name}: {sized(f'{channels} channels', halved)}"
                edges.append(Edge(nodes[-1], name, f"{op}, stride 2" if strided else op, True))
                nodes.append(name)
                gene += 1
        edges.append(Edge(nodes[-1], "classes", "mean, linear", True))
        kernel, wide = self.kernels[0], self.expansions[-1]
        op = f"k{kernel}e{wide}: inverted residual, kernel {kernel}x{kernel}"
        note = f"{op}, {wide} times as wide within"
        return Graph((*nodes, "classes"), tuple(edges), note=note)
