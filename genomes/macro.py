"""Phases of connected nodes (Genetic CNN, Xie and Yuille, 2017; NSGA-Net, Lu et al., 2019)."""

from __future__ import annotations

import itertools
import re
from functools import lru_cache

import numpy as np

from genomes.genome import Genome
from genomes.paths import path_features, paths
from genomes.space import Edge, Features, Gene, Graph, SearchSpace, sized

SWITCH = ("off", "on")
Bits = tuple[int, ...]


class Macro(SearchSpace):
    """Phases of convolutions, for how layers are best connected, each phase in its own way.

    A bit for each pair of nodes of a phase, and one for a skip around the phase.

    A pair's bit says whether the later node reads the earlier. A node that reads no other reads the
    phase's input, one that no other reads goes to the output, and one that does neither is left
    out. The bits are NSGA-Net's, the networks are not: see `evonas.networks.macro.Phase`. The text
    form is NSGA-Net's, `1-01-001:0` for each phase: the bits of the second node, of
    the third and so on, then the skip.

    Args:
        phases: the number of phases, 1 or more.
        nodes: the number of nodes in each phase, from 2 to 6.
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
            raise ValueError(f"{text!r} is not of the form {form}, in zeros and ones")
        return genome

    def live(self, genome: Genome) -> tuple[bool, ...]:
        """Return whether each gene is live: all but the skip of a phase without nodes.

        Such a phase passes its input on anyway.
        """
        flags: list[bool] = []
        for bits in self._phases(genome):
            flags += [True] * len(self.pairs) + [any(bits[:-1])]
        return tuple(flags)

    def canonical(self, genome: Genome) -> Genome:
        """Return the smallest of the genomes that differ only in the numbering of their nodes."""
        phases = [_canonical(bits, self.nodes) for bits in self._phases(genome)]
        return Genome(self.name, tuple(itertools.chain(*phases)))

    def features(self, genome: Genome) -> Features:
        """Return the canonical genome's genes, and each phase's paths (`path_features`) and nodes.

        A path's length is its number of nodes; the skip is a path without one.
        """
        canonical = self.canonical(genome)
        phases = map(self._described, self._phases(canonical))
        return np.concatenate([SearchSpace.features(self, canonical), *phases])

    def _described(self, bits: Bits) -> Features:
        on = [pair for pair, bit in zip(self.pairs, bits, strict=False) if bit]
        used = {node for pair in on for node in pair}
        edges: dict[int | str, list[tuple[int | str, int | None]]] = {
            node: [(i, 0) for i, j in on if j == node] or [("entry", 0)] for node in used
        }
        edges["end"] = [(node, None) for node in used if node not in {i for i, _ in on}]
        edges["end"] += [("entry", None)] if bits[-1] or not used else []
        return np.append(path_features(paths(edges, "end"), 1, self.nodes), float(len(used)))

    def largest(self) -> Genome:
        return self.genome([1] * len(self.genes))

    def graph(self, genome: Genome) -> Graph:
        nodes, edges = ["input"], list[Edge]()
        for phase, bits in enumerate(self._phases(genome), 1):
            on = {pair for pair, bit in zip(self.pairs, bits, strict=False) if bit}
            used = sorted({node for pair in on for node in pair})
            wide = sized(f"{2 ** (phase - 1)} x channels", phase - 1)
            source = f"{phase} entry: {wide}"
            target = "output" if phase == self.phases else f"{phase} output"
            entry = "conv 3x3" if phase == 1 else "max pool 2x2, conv 3x3"
            edges.append(Edge(nodes[-1], source, entry, True))
            names = {node: f"conv {phase}.{node}" for node in used}
            nodes += [source, *names.values(), target]
            reads, read = {j for _, j in on}, {i for i, _ in on}
            edges += [Edge(source, names[n], "", True) for n in used if n not in reads]
            edges += [Edge(names[i], names[j], "", True) for i, j in sorted(on)]
            edges += [Edge(names[n], target, "", True) for n in used if n not in read]
            if bits[-1] or not used:
                edges.append(Edge(source, target, "skip", True))
        return Graph(tuple(nodes), tuple(edges), note="conv: 3x3, of the sum of what it reads")

    def _phases(self, genome: Genome) -> list[Bits]:
        size = len(self.pairs) + 1
        return [genome.genes[i : i + size] for i in range(0, len(genome.genes), size)]


@lru_cache(maxsize=100_000)
def _canonical(bits: Bits, nodes: int) -> Bits:
    pairs = [(i, j) for j in range(1, nodes) for i in range(j)]
    on = [pair for pair, bit in zip(pairs, bits, strict=False) if bit]
    best = None
    for places in itertools.permutations(range(nodes)):
        edges = {(places[i], places[j]) for i, j in on}
        if all(i < j for i, j in edges):
            renumbered = tuple(int(pair in edges) for pair in pairs)
            best = renumbered if best is None else min(best, renumbered)
    assert best is not None  # the numbering as given is valid
    return (*best, bits[-1] if on else 0)
