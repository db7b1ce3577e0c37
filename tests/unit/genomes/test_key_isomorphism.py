"""`key` against networkx: equal for isomorphic graphs of live ops, and for no others."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from functools import cache

import networkx as nx
import numpy as np
import pytest

from genomes import Genome, NASBench201

SPACE = NASBench201()
EVERY = [SPACE.genome(genes) for genes in itertools.product(range(5), repeat=6)]
EDGES = {(0, 1): 0, (0, 2): 1, (1, 2): 2, (0, 3): 3, (1, 3): 4, (2, 3): 5}


@cache
def live_graph(genome: Genome) -> nx.DiGraph:
    """The live graph, read off the genome from the output upwards.

    A term of a sum is written out in full: the input, a convolution (its edge, and the sum that it
    reads) or a pooling (the sum alone, so that two of the same sum are the same term). Terms are
    hashable, so they are the graph's nodes; what the output does not need is never written.
    """

    def total(node: int) -> Counter[object]:
        if node == 0:
            return Counter(["input"])
        terms: Counter[object] = Counter()
        for source in range(node):
            op = SPACE.choice(genome, EDGES[source, node])
            read = total(source)
            if op == "skip_connect":
                terms += read
            elif op == "avg_pool_3x3" and read:
                terms[op, frozenset(read.items())] += 1
            elif op != "none" and read:
                terms[op, frozenset(read.items()), (source, node)] += 1
        return terms

    graph = nx.DiGraph()
    graph.add_node("input", kind="input")
    graph.add_node("output", kind="output")

    def add(reader: object, terms: frozenset[tuple[object, int]]) -> None:
        for term, times in terms:
            if isinstance(term, tuple):
                graph.add_node(term, kind=term[0])
                add(term, term[1])
            graph.add_edge(term, reader, times=times)

    add("output", frozenset(total(3).items()))
    return graph


def isomorphic(one: Genome, other: Genome) -> bool:
    return nx.is_isomorphic(
        live_graph(one),
        live_graph(other),
        node_match=lambda a, b: a["kind"] == b["kind"],
        edge_match=lambda a, b: a["times"] == b["times"],
    )


@pytest.fixture(scope="module")
def shared_classes() -> list[list[Genome]]:
    """The official classes with more than one member: most of each share a key, but not all."""
    classes = defaultdict(list)
    for genome in EVERY:
        classes[SPACE.official_class(genome)].append(genome)
    return [members for members in classes.values() if len(members) > 1]


def test_keys_are_equal_just_for_isomorphic_graphs_of_random_pairs(
    shared_classes: list[list[Genome]],
) -> None:
    rng = np.random.default_rng(0)
    equal = 0
    for i in range(3000):
        # Two genomes at random are almost never one network: half of the pairs are of one class.
        pool = shared_classes[rng.integers(len(shared_classes))] if i % 2 else EVERY
        one, other = (pool[j] for j in rng.choice(len(pool), 2, replace=False))
        same = SPACE.key(one) == SPACE.key(other)
        assert same == isomorphic(one, other), (one, other)
        equal += same
    assert 500 < equal < 2500


def test_keys_are_equal_just_for_isomorphic_graphs_inside_official_classes(
    shared_classes: list[list[Genome]],
) -> None:
    rng = np.random.default_rng(1)
    equal = unequal = 0
    for number in rng.choice(len(shared_classes), 200, replace=False):
        for one, other in itertools.combinations(shared_classes[number], 2):
            same = SPACE.key(one) == SPACE.key(other)
            assert same == isomorphic(one, other), (one, other)
            equal += same
            unequal += not same
    assert equal > 100
    assert unequal > 100


@pytest.mark.filterwarnings("ignore:The hashes produced for directed graphs:UserWarning")
def test_the_5260_keys_are_the_isomorphism_classes_of_the_whole_space() -> None:
    """Every genome against the first of its key; then the first ones against one another.

    The Weisfeiler-Lehman hash is equal for isomorphic graphs, so two firsts need comparing only
    where their hashes agree.
    """
    firsts: dict[str, Genome] = {}
    for genome in EVERY:
        first = firsts.setdefault(SPACE.key(genome), genome)
        assert genome == first or isomorphic(genome, first), (genome, first)
    alike = defaultdict(list)
    for first in firsts.values():
        graph = live_graph(first)
        alike[nx.weisfeiler_lehman_graph_hash(graph, "times", "kind")].append(first)
    for group in alike.values():
        for one, other in itertools.combinations(group, 2):
            assert not isomorphic(one, other), (one, other)
