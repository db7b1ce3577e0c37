"""The NAS-Bench-201 cell (Dong and Yang, 2020): four nodes, six edges, one of five ops per edge."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from functools import cache

import numpy as np

from genomes.genome import Genome
from genomes.paths import path_features, paths
from genomes.space import Edge, Features, Gene, Graph, SearchSpace

OPS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))

NONE, SKIP, CONV_1X1, CONV_3X3, POOL = range(5)
INPUT = -1

Terms = tuple[tuple[int, int], ...]  # a sum: (op number or INPUT, how often), sorted
LiveOp = tuple[int, Terms]  # an op and the sum it reads
LiveGraph = tuple[tuple[LiveOp, ...], Terms]  # the live ops, and the sum that is the output

_FEATURES: dict[tuple[int, ...], Features] = {}  # those that this process has computed


class NASBench201(SearchSpace):
    """Small cells of 6 edges, each with one of 5 ops, for a first search or to compare strategies.

    There are 15,625 cells, with 5,260 different graphs of live ops.
    """

    def __init__(self) -> None:
        super().__init__("nasbench201/v1", [Gene(f"{i}>{j}", OPS) for i, j in EDGES])

    def describe(self, genome: Genome) -> str:
        """Return the benchmark's architecture string, `|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`."""
        incoming: dict[int, list[str]] = {1: [], 2: [], 3: []}
        for (source, target), gene in zip(EDGES, genome.genes, strict=True):
            incoming[target].append(f"{OPS[gene]}~{source}")
        return "+".join(f"|{'|'.join(node)}|" for node in incoming.values())

    def parse(self, text: str) -> Genome:
        if "|" not in text:
            return super().parse(text)
        stripped = text.strip()
        words = re.findall(r"([^|~+]+)~(\d)", stripped)
        unknown = sorted({op for op, _ in words} - set(OPS))
        if unknown:
            raise ValueError(f"unknown op {unknown[0]!r}; known: {', '.join(OPS)}")
        genome = None
        if len(words) == len(EDGES):
            genome = self.genome(OPS.index(op) for op, _ in words)
        if genome is None or self.describe(genome) != stripped:
            raise ValueError(f"{text!r} is not of the form |op~0|+|op~0|op~1|+|op~0|op~1|op~2|")
        return genome

    def live(self, genome: Genome) -> tuple[bool, ...]:
        """Return whether each edge carries an op on a path from the input to the output."""
        reached, needed = {0}, {3}
        for (source, target), op in zip(EDGES, genome.genes, strict=True):
            if op != NONE and source in reached:
                reached.add(target)
        for (source, target), op in reversed(list(zip(EDGES, genome.genes, strict=True))):
            if op != NONE and target in needed:
                needed.add(source)
        return tuple(
            op != NONE and source in reached and target in needed
            for (source, target), op in zip(EDGES, genome.genes, strict=True)
        )

    def canonical(self, genome: Genome) -> Genome:
        """Return the genome with the fewest edges, then smallest, of those with its live graph."""
        return Genome(self.name, _canonical_genes()[genome.genes])

    def features(self, genome: Genome) -> Features:
        """Return the canonical genome's genes, its paths (`path_features`) and its op counts."""
        canonical = self.canonical(genome)
        features = _FEATURES.get(canonical.genes)
        if features is None:
            features = _FEATURES[canonical.genes] = self._described(canonical)
        return features.copy()

    def _described(self, canonical: Genome) -> Features:
        edges: dict[int, list[tuple[int, int | None]]] = {1: [], 2: [], 3: []}
        counts = np.zeros(len(OPS) - 1)  # of all ops but none
        for (source, target), op, live in zip(
            EDGES, canonical.genes, self.live(canonical), strict=True
        ):
            if live:
                edges[target].append((source, None if op == SKIP else op - CONV_1X1))
                counts[op - SKIP] += 1
        described = path_features(paths(edges, 3), len(OPS) - CONV_1X1, 3)
        return np.concatenate([SearchSpace.features(self, canonical), described, counts])

    def largest(self) -> Genome:
        return self.genome([CONV_3X3] * len(EDGES))

    def graph(self, genome: Genome) -> Graph:
        edges = tuple(
            Edge(str(source), str(target), OPS[op], live)
            for (source, target), op, live in zip(
                EDGES, genome.genes, self.live(genome), strict=True
            )
            if op != NONE
        )
        return Graph(("0", "1", "2", "3"), edges)

    def official_class(self, genome: Genome) -> str:
        """Return the benchmark's own string form, equal for cells that it considers isomorphic.

        Use it to compare with the literature. As a key it would be both too fine and too coarse: it
        separates `120121` and `110221`, which are equal, but equates `421211`, with two 1x1
        convolutions, and `241411`, which uses one twice.
        """
        nodes = ["0"]
        for target in (1, 2, 3):
            terms = []
            for (source, end), op in zip(EDGES, genome.genes, strict=True):
                if end == target:
                    if op == NONE or nodes[source] == "#":
                        terms.append("#")
                    elif op == SKIP:
                        terms.append(nodes[source])
                    else:
                        terms.append(f"({nodes[source]})@{OPS[op]}")
            nodes.append("+".join(sorted(terms)))
        return nodes[3]


def live_graph(genes: Sequence[int]) -> LiveGraph:
    """Return the graph of live ops: those the output depends on, each with the sum it reads, and
    the sum that is the output.

    A skip is not an op: it passes its source's sum on. Each convolution is an op of its own, since
    it has its own weights; poolings of the same sum are one op, added as often as they occur.
    """
    ops: list[LiveOp] = []
    sums: list[dict[int, int]] = [{INPUT: 1}, {}, {}, {}]
    pools: dict[Terms, int] = {}
    for (source, target), op in zip(EDGES, genes, strict=True):
        if op == NONE or not sums[source]:
            continue
        if op == SKIP:
            for term, times in sums[source].items():
                sums[target][term] = sums[target].get(term, 0) + times
            continue
        terms = tuple(sorted(sums[source].items()))
        number = pools.get(terms) if op == POOL else None
        if number is None:
            number = len(ops)
            ops.append((op, terms))
            if op == POOL:
                pools[terms] = number
        sums[target][number] = sums[target].get(number, 0) + 1

    live: set[int] = set()
    waiting = [number for number in sums[3] if number != INPUT]
    while waiting:
        number = waiting.pop()
        if number not in live:
            live.add(number)
            waiting += [term for term, _ in ops[number][1] if term != INPUT]
    return _renumbered((tuple(ops), tuple(sums[3].items())), sorted(live))


@cache
def _normal_form(graph: LiveGraph) -> LiveGraph:
    """Return the graph under its smallest numbering, which is equal for isomorphic graphs.

    Ops are numbered by depth and then by shape, the tree of an op and of all that it reads; only
    the order of ops of one shape remains to be tried out.
    """
    ops, _ = graph
    shapes: dict[int, tuple[object, ...]] = {INPUT: ()}
    depths = {INPUT: 0}
    for number, (op, terms) in enumerate(ops):  # a source comes before its reader
        depths[number] = 1 + max(depths[term] for term, _ in terms)
        shapes[number] = (op, tuple(sorted((shapes[term], times) for term, times in terms)))

    def place(number: int) -> tuple[int, tuple[object, ...]]:
        return depths[number], shapes[number]

    groups = [list(g) for _, g in itertools.groupby(sorted(range(len(ops)), key=place), key=place)]
    numberings = itertools.product(*(itertools.permutations(group) for group in groups))
    return min(_renumbered(graph, tuple(itertools.chain(*numbers))) for numbers in numberings)


def _renumbered(graph: LiveGraph, order: Sequence[int]) -> LiveGraph:
    """Return the graph of the ops in `order`, numbered by it."""
    ops, output = graph
    names = {INPUT: INPUT, **{number: i for i, number in enumerate(order)}}

    def renamed(terms: Terms) -> Terms:
        return tuple(sorted((names[term], times) for term, times in terms))

    return tuple((ops[number][0], renamed(ops[number][1])) for number in order), renamed(output)


@cache
def _canonical_genes() -> dict[tuple[int, ...], tuple[int, ...]]:
    """Return the canonical genes of each of the 15,625 genomes, computed once per process."""
    every = itertools.product(range(len(OPS)), repeat=len(EDGES))
    fewest_edges_first = sorted(every, key=lambda genes: (sum(map(bool, genes)), genes))
    first: dict[LiveGraph, tuple[int, ...]] = {}
    return {
        genes: first.setdefault(_normal_form(live_graph(genes)), genes)
        for genes in fewest_edges_first
    }
