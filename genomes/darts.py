"""The DARTS cells (Liu et al., 2019, sec. 2.1): a normal and a reduction cell of four nodes."""

from __future__ import annotations

import ast
import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from genomes.genome import Genome
from genomes.paths import path_features, paths
from genomes.space import Edge, Features, Gene, Graph, SearchSpace

OPS = (
    *("max_pool_3x3", "avg_pool_3x3", "skip_connect"),
    *("sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5"),
)
CELLS = ("normal", "reduce")
NODES = (2, 3, 4, 5)  # nodes 0 and 1 are the outputs of the two preceding cells
CONCAT = list(NODES)
PAIRS = {node: tuple(itertools.combinations(range(node), 2)) for node in NODES}
WEIGHTLESS = ("max_pool_3x3", "avg_pool_3x3", "skip_connect")

Genes = tuple[int, ...]
Edges = dict[int, tuple[tuple[int, int], tuple[int, int]]]  # for each node, two (source, op number)
# The value of a node: its terms, and how often each is added. A term is an input of the cell (-1 or
# -2), or an op and the sum that it reads; an op with weights also carries its edge, (source, node).
Sum = frozenset[tuple[object, int]]


class Darts(SearchSpace):
    """Two cells of many ops each, for accurate networks on photographs, at the price of long
    trainings. A gene for each node's pair of inputs, and one for each edge's op.

    An edge that no pair chooses is dead. The text form is the `Genotype(...)` of the published
    code, followed by a comment with the ops of dead edges unless each is the first.
    """

    def __init__(self) -> None:
        genes = []
        for cell in CELLS:
            for node in NODES:
                pairs = tuple(f"{i},{j}" for i, j in PAIRS[node])
                genes.append(Gene(f"{cell}/{node}", pairs))
                genes += [Gene(f"{cell}/{source}>{node}", OPS) for source in range(node)]
        super().__init__("darts/v1", genes)

    def describe(self, genome: Genome) -> str:
        cells = ", ".join(
            f"{cell}={[(OPS[op], source) for node in NODES for source, op in edges[node]]}, "
            f"{cell}_concat={CONCAT}"
            for cell, edges in zip(CELLS, map(_edges, _split_cells(genome.genes)), strict=True)
        )
        dead = [
            gene for gene, live in zip(genome.genes, self.live(genome), strict=True) if not live
        ]
        comment = f"  # dead: {'-'.join(map(str, dead))}" if any(dead) else ""
        return f"Genotype({cells}){comment}"

    def parse(self, text: str) -> Genome:
        """Read genes, a key, or a `Genotype(...)` whose cells fit this space.

        Raises:
            ValueError: the text is none of these, or a cell has something that this space lacks.
        """
        if "Genotype" not in text:
            return super().parse(text)
        cells = _genotype(text)
        halves = [_genes(_checked(cell, cells[cell])) for cell in CELLS]
        genes = list(itertools.chain(*halves))
        comment = re.search(r"# dead: ([\d-]+)\s*$", text)
        if comment:
            live = self.live(self.genome(genes))
            places = [i for i, alive in enumerate(live) if not alive]
            values = [int(value) for value in comment.group(1).split("-") if value]
            if len(values) != len(places):
                raise ValueError(f"{len(values)} dead ops; must be {len(places)}, or none")
            for place, value in zip(places, values, strict=True):
                genes[place] = value
        return self.genome(genes)

    def live(self, genome: Genome) -> tuple[bool, ...]:
        """Return whether each gene is live: every pair is, and the ops of the edges in a pair.

        No node is dead, since the output of the cell contains them all.
        """
        flags: list[bool] = []
        for half in _split_cells(genome.genes):
            for node, pair, _ in _nodes(half):
                flags += [True, *(source in PAIRS[node][pair] for source in range(node))]
        return tuple(flags)

    def canonical(self, genome: Genome) -> Genome:
        """Return the smallest of all genomes with the same graphs of live ops.

        Nodes may be reordered, which only permutes the channels of the output. Weightless ops that
        read the same sum are equal, and so may be whole nodes made of them.
        """
        normal, reduction = _split_cells(genome.genes)
        genes = (*_canonical(normal, False), *_canonical(reduction, True))
        return Genome(self.name, genes)

    def features(self, genome: Genome) -> Features:
        """Return the canonical genome's genes, and the paths and op counts of each cell.

        They are as `path_features` has them. Paths lead from either input to the output, and
        are told apart by up to two ops.
        """
        canonical = self.canonical(genome)
        return np.concatenate(
            [SearchSpace.features(self, canonical), *map(_described, _split_cells(canonical.genes))]
        )

    def largest(self) -> Genome:
        ops = OPS.index("sep_conv_5x5")
        return self.genome(0 if gene.choices != OPS else ops for gene in self.genes)

    def strongest(self, weights: Mapping[str, Sequence[float]]) -> Genome:
        """Return the genome with the largest weights (Liu et al., 2019, sec. 2.4).

        A node reads the two inputs whose best ops have the largest weights, and an edge takes its
        best op.
        """
        genes = list(super().strongest(weights).genes)
        for place, gene in enumerate(self.genes):
            if gene.choices != OPS:
                cell, node = gene.name.split("/")
                best = [max(weights[f"{cell}/{source}>{node}"]) for source in range(int(node))]
                two = sorted(np.argsort([-weight for weight in best], kind="stable")[:2].tolist())
                genes[place] = PAIRS[int(node)].index((two[0], two[1]))
        return self.genome(genes)

    def graph(self, genome: Genome) -> Graph:
        """Return both cells side by side, with the chosen edges; all nodes lead to the output."""
        nodes: list[str] = []
        edges: list[Edge] = []
        for cell, half in zip(CELLS, _split_cells(genome.genes), strict=True):
            nodes += [f"{cell} {node}" for node in (0, 1, *NODES, "output")]
            for node, pair in _edges(half).items():
                edges += [Edge(f"{cell} {s}", f"{cell} {node}", OPS[op], True) for s, op in pair]
            edges += [Edge(f"{cell} {node}", f"{cell} output", "", True) for node in NODES]
        inputs = tuple(f"{cell} {node}" for cell in CELLS for node in (0, 1))
        outputs = tuple(f"{cell} output" for cell in CELLS)
        return Graph(tuple(nodes), tuple(edges), inputs, outputs)


def _described(half: Genes) -> Features:
    skip = OPS.index("skip_connect")
    numbers = {op: i for i, op in enumerate(op for op in range(len(OPS)) if op != skip)}
    counts = np.zeros(len(OPS))
    edges: dict[int | str, list[tuple[int | str, int | None]]] = {
        "output": [(node, None) for node in NODES]
    }
    for node, pair in _edges(half).items():
        edges[node] = [(source, numbers.get(op)) for source, op in pair]
        for _, op in pair:
            counts[op] += 1
    return np.concatenate([path_features(paths(edges, "output"), len(numbers), 2), counts])


def _split_cells(genes: Sequence[int]) -> tuple[Genes, Genes]:
    """Return the genes of the normal and of the reduction cell."""
    half = len(genes) // 2
    return tuple(genes[:half]), tuple(genes[half:])


def _nodes(half: Genes) -> list[tuple[int, int, Genes]]:
    """Return each node of a cell, the number of its pair, and the op numbers of its edges."""
    nodes, start = [], 0
    for node in NODES:
        nodes.append((node, half[start], half[start + 1 : start + 1 + node]))
        start += 1 + node
    return nodes


def _edges(half: Genes) -> Edges:
    """Return the two live edges of each node."""
    edges = {}
    for node, number, ops in _nodes(half):
        first, second = PAIRS[node][number]
        edges[node] = ((first, ops[first]), (second, ops[second]))
    return edges


def _genes(edges: Edges) -> Genes:
    """Return the genes of a cell whose dead edges have the first op."""
    genes: list[int] = []
    for node in NODES:
        genes += _node_genes(node, *sorted(edges[node]))
    return tuple(genes)


def _node_genes(node: int, first: tuple[int, int], second: tuple[int, int]) -> Genes:
    ops = [0] * node
    for source, op in (first, second):
        ops[source] = op
    return PAIRS[node].index((first[0], second[0])), *ops


def _genotype(text: str) -> dict[str, list[tuple[str, int]]]:
    """Read the two cells of a `Genotype(...)` without executing any of it."""
    try:
        call: Any = ast.parse(text.strip(), mode="eval").body
        arguments = {keyword.arg: _literal(keyword.value) for keyword in call.keywords}
        cells = {name: [(str(op), int(at)) for op, at in arguments[name]] for name in CELLS}
        concats = {name: [int(node) for node in arguments[f"{name}_concat"]] for name in CELLS}
        is_genotype = call.func.id == "Genotype" and not call.args
    except (SyntaxError, TypeError, ValueError, KeyError, AttributeError):
        is_genotype = False
    if not is_genotype:
        form = "Genotype(normal=[(op, node), ...], normal_concat=..., reduce=[...], ...)"
        raise ValueError(f"{text[:60]!r} is not of the form {form}")
    for name in CELLS:
        nodes = len(cells[name]) // 2
        if len(cells[name]) % 2 or nodes != len(NODES):
            raise ValueError(f"the {name} cell has {nodes} nodes; must be {len(NODES)}")
        if sorted(concats[name]) != CONCAT:
            raise ValueError(f"the {name} cell outputs the nodes {concats[name]}; must be {CONCAT}")
    return cells


def _literal(node: ast.expr) -> list[Any]:
    """Read a list or tuple of constants, or `range(2, 6)`."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range":
        return list(range(*map(ast.literal_eval, node.args)))
    return list(ast.literal_eval(node))


def _checked(cell: str, edges: list[tuple[str, int]]) -> Edges:
    by_node: Edges = {}
    for node, pair in zip(NODES, zip(edges[::2], edges[1::2], strict=True), strict=True):
        for op, source in pair:
            if op == "none":
                raise ValueError(f"node {node} of the {cell} cell has a none; this space does not")
            if op not in OPS:
                names = ", ".join(OPS)
                raise ValueError(f"unknown op {op!r} in the {cell} cell; known: {names}")
            if not 0 <= source < node:
                raise ValueError(
                    f"node {node} of the {cell} cell reads {source}; must be a node before it"
                )
        first, second = sorted((source, OPS.index(op)) for op, source in pair)
        if first[0] == second[0]:
            raise ValueError(
                f"node {node} of the {cell} cell has two inputs from node {first[0]}; "
                "must be two different nodes"
            )
        by_node[node] = (first, second)
    return by_node


def sums(half: Genes, *, reduction: bool) -> list[Sum]:
    """Return the value of each of the nodes 0 to 5 of a cell."""
    values: list[Sum] = [frozenset({(-1, 1)}), frozenset({(-2, 1)})]
    for node, edges in _edges(half).items():
        terms: Counter[object] = Counter()
        for source, op in edges:
            _add(terms, values[source], op, _weighted(op, source, reduction), (source, node))
        values.append(frozenset(terms.items()))
    return values


def _weighted(op: int, source: int, reduction: bool) -> bool:
    """Return whether an op has weights.

    A skip from an input of a reduction cell has: it halves the size.
    """
    halving = reduction and source < 2 and OPS[op] == "skip_connect"
    return halving or OPS[op] not in WEIGHTLESS


def _add(terms: Counter[object], read: Sum, op: int, weighted: bool, name: object) -> None:
    if OPS[op] == "skip_connect" and not weighted:
        terms.update(dict(read))
    else:
        terms[(op, read, name if weighted else None)] += 1


@lru_cache(maxsize=100_000)
def _canonical(half: Genes, reduction: bool) -> Genes:
    """Return the smallest genes of a cell with the same sums, found node by node."""
    targets = tuple(sums(half, reduction=reduction)[2:])
    start = (frozenset({(-1, 1)}), frozenset({(-2, 1)}))
    smallest = _smallest(start, targets, frozenset(), reduction)
    assert smallest is not None  # the cell itself is a solution
    return smallest


def _smallest(
    values: tuple[Sum, ...], targets: tuple[Sum, ...], used: frozenset[object], reduction: bool
) -> Genes | None:
    """Return the smallest genes that reach the targets from these values in any order, or None."""
    if not targets:
        return ()
    node = len(values)
    options: list[tuple[Genes, int, frozenset[object]]] = []
    for number, target in enumerate(targets):
        goal = Counter(dict(target))
        edges = [
            (source, op, terms, weighted)
            for source in range(node)
            for op in range(len(OPS))
            for terms, weighted in _contributions(values[source], op, source, goal, used, reduction)
        ]
        for one, two in itertools.combinations(edges, 2):
            distinct = one[0] != two[0] and (one[3] is None or one[3] != two[3])
            if distinct and one[2] + two[2] == goal:
                new = frozenset(term for term in (one[3], two[3]) if term is not None)
                options.append((_node_genes(node, one[:2], two[:2]), number, used | new))
    options.sort(key=lambda option: option[:2])
    for genes, same in itertools.groupby(options, key=lambda option: option[0]):
        rests = [
            _smallest(
                (*values, targets[number]),
                targets[:number] + targets[number + 1 :],
                now_used,
                reduction,
            )
            for _, number, now_used in same
        ]
        complete = [rest for rest in rests if rest is not None]
        if complete:
            return (*genes, *min(complete))
    return None


def _contributions(
    read: Sum,
    op: int,
    source: int,
    goal: Counter[object],
    used: frozenset[object],
    reduction: bool,
) -> list[tuple[Counter[object], object]]:
    """Return what an edge may add towards a goal, each with the weighted term that it then is."""
    if not _weighted(op, source, reduction):
        terms: Counter[object] = Counter()
        _add(terms, read, op, False, None)
        return [(terms, None)] if terms <= goal else []
    return [
        (Counter({term: 1}), term)
        for term in goal
        if isinstance(term, tuple)
        and term[:2] == (op, read)
        and term[2] is not None
        and term not in used
    ]
