"""Phases of connected nodes (Genetic CNN, Xie and Yuille, 2017; NSGA-Net, Lu et al., 2019)."""

from __future__ import annotations

import itertools
import re
from functools import lru_cache

from genomes.genome import Genome
from genomes.space import Edge, Gene, Graph, SearchSpace

SWITCH = ("off", "on")
Bits = tuple[int, ...]


class Macro(SearchSpace):
    """Of each phase: a bit for every pair of nodes, whether the later reads the earlier, and one
    for a skip around the phase.

    A node that reads none reads the phase's input, one that none reads is put out, and one that
    neither reads nor is read is left out. The text form is NSGA-Net's, `1-01-001:0` a phase: for
    the nodes from the second on whether they read each before, then the skip.

    Args:
        phases: how many, 1 or more.
        nodes: of each, from 2 to 6.
    """

    def __init__(self, phases: int = 3, nodes: int = 4) -> None:
        self.phases, self.nodes = phases, nodes
        self.pairs = [(i, j) for j in range(2, nodes + 1) for i in range(1, j)]
        genes = []
        for phase in range(1, phases + 1):
            genes += [Gene(f"{phase}/{i}>{j}", SWITCH) for i, j in self.pairs]
            genes.append(Gene(f"{phase}/skip", SWITCH))
        super().__init__("macro/v1", genes)

    def describe(self, genome: Genome) -> str:
        texts = []
        for bits in self._phases(genome):
            values = iter(bits)
            groups = ["".join(str(next(values)) for _ in range(j)) for j in range(1, self.nodes)]
            texts.append(f"{'-'.join(groups)}:{bits[-1]}")
        return "|".join(texts)

    def parse(self, text: str) -> Genome:
        if ":" not in text or not set(text.strip()) <= set("01-:|"):
            return super().parse(text)
        genome = None
        bits = re.sub(r"[-:|]", "", text.strip())
        if re.fullmatch(r"[01]+", bits) and len(bits) == len(self.genes):
            genome = self.genome(map(int, bits))
        if genome is None or self.describe(genome) != text.strip():
            form = "|".join(["-".join("0" * j for j in range(1, self.nodes)) + ":0"] * self.phases)
            raise ValueError(f"{text!r} is not written {form}, in ones and zeros")
        return genome

    def live(self, genome: Genome) -> tuple[bool, ...]:
        """All, but for a skip around a phase without nodes, which passes its input on anyway."""
        live: list[bool] = []
        for bits in self._phases(genome):
            live += [True] * len(self.pairs) + [any(bits[:-1])]
        return tuple(live)

    def canonical(self, genome: Genome) -> Genome:
        """Of the genomes whose nodes are only numbered differently, the smallest."""
        phases = [_canonical(bits, self.nodes) for bits in self._phases(genome)]
        return Genome(self.name, tuple(itertools.chain(*phases)))

    def largest(self) -> Genome:
        return self.genome([1] * len(self.genes))

    def graph(self, genome: Genome) -> Graph:
        nodes, edges = ["input"], list[Edge]()
        for phase, bits in enumerate(self._phases(genome), 1):
            on = {pair for pair, bit in zip(self.pairs, bits, strict=False) if bit}
            used = sorted({node for pair in on for node in pair})
            source, target = nodes[-1], "output" if phase == self.phases else f"{phase} output"
            names = {node: f"conv {phase}.{node}" for node in used}
            nodes += [*names.values(), target]
            reads, read = {j for _, j in on}, {i for i, _ in on}
            edges += [Edge(source, names[n], "", True) for n in used if n not in reads]
            edges += [Edge(names[i], names[j], "", True) for i, j in sorted(on)]
            edges += [Edge(names[n], target, "", True) for n in used if n not in read]
            if bits[-1] or not used:
                edges.append(Edge(source, target, "skip", True))
        return Graph(tuple(nodes), tuple(edges))

    def _phases(self, genome: Genome) -> list[Bits]:
        size = len(self.pairs) + 1
        return [genome.genes[i : i + size] for i in range(0, len(genome.genes), size)]


@lru_cache(maxsize=100_000)
def _canonical(bits: Bits, nodes: int) -> Bits:
    pairs = [(i, j) for j in range(1, nodes) for i in range(j)]
    on = [pair for pair, bit in zip(pairs, bits, strict=False) if bit]
    best = None
    for places in itertools.permutations(range(nodes)):
        moved = {(places[i], places[j]) for i, j in on}
        if all(i < j for i, j in moved):
            spelling = tuple(int(pair in moved) for pair in pairs)
            best = spelling if best is None else min(best, spelling)
    assert best is not None  # the order as it stands is one
    return (*best, bits[-1] if on else 0)
