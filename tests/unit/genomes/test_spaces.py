"""Every space: text and back, keys, canonical spellings, networks on images of all shapes."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from evonas.networks.decode import decode
from evonas.networks.profile import profile
from genomes import (
    Chain,
    Channels,
    Darts,
    Gene,
    Genome,
    Macro,
    NASBench201,
    SearchSpace,
    Stages,
    TableSpace,
    Verbatim,
)
from genomes.darts import OPS, PAIRS
from genomes.macro import _canonical


@pytest.mark.parametrize(
    ("genes", "told"),
    [
        ([Gene("a", ("x", "y", "x"))], "x is twice among the choices of the gene a"),
        ([Gene("a", ("x",)), Gene("a", ("y",))], "a is twice among the genes"),
        ([Gene("a", ())], "there are no choices of the gene a"),
        ([Gene("", ("x",))], "one of the genes is '', not a name"),
        ([], "there are no genes"),
    ],
)
def test_genes_and_choices_have_names_of_their_own(genes: list[Gene], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        SearchSpace("mine/v1", genes)


SPACES: dict[str, SearchSpace] = {
    "nasbench201": NASBench201(),
    "darts": Darts(),
    "macro": Macro(),
    "macro of two": Macro(phases=2, nodes=2),
    "chain": Chain(),
    "chain of one op": Chain([(8, 3, 1), (8, 2, 1)], [3], [1], stem=8),
    "channels": Channels(),
    "stages": Stages(stem=[4, 6], widths=[1, 1.5, 2]),
    "one stage": Stages(1, 8, [4], blocks=["conv"], expansions=[3]),
}
SMALL = {
    "nasbench201": {"channels": 4, "cells": 1},
    "darts": {"channels": 4, "cells": 3},
    "macro": {"channels": 4},
    "channels": {},
    "chain": {},
    "stages": {},
}
SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32)]
spaces = pytest.mark.parametrize("name", SPACES)


def small(space: SearchSpace) -> dict[str, int]:
    return SMALL[space.name.partition("/")[0]]


def samples(space: SearchSpace, count: int, seed: int = 0) -> list[Genome]:
    rng = np.random.default_rng(seed)
    return [space.sample(rng) for _ in range(count)]


@spaces
@settings(deadline=None)
@given(data=st.data())
def test_a_genome_is_read_back_from_its_text_its_genes_and_its_key(
    name: str, data: st.DataObject
) -> None:
    space = SPACES[name]
    genes = [data.draw(st.integers(0, count - 1)) for count in space.choices]
    genome = space.genome(genes)
    assert space.parse(space.describe(genome)) == genome
    assert space.parse(genome.text) == genome
    canonical = space.canonical(genome)
    assert space.canonical(canonical) == canonical
    assert space.key(genome) == space.key(canonical)
    assert space.parse(space.key(genome)) == canonical


@spaces
@settings(deadline=None)
@given(data=st.data())
def test_a_dead_gene_does_not_change_the_key_and_a_live_op_does(
    name: str, data: st.DataObject
) -> None:
    space = SPACES[name]
    genes = [data.draw(st.integers(0, count - 1)) for count in space.choices]
    place = data.draw(st.integers(0, len(genes) - 1))
    genome = space.genome(genes)
    changed = list(genes)
    changed[place] = data.draw(st.integers(0, space.choices[place] - 1))
    other = space.genome(changed)
    same = space.key(genome) == space.key(other)
    if (not space.live(genome)[place] and not space.live(other)[place]) or changed == list(genes):
        assert same
    elif name in ("darts", "channels"):  # elsewhere another op may spell the same network
        dead_pair = name == "darts" and len(space.genes[place].choices) != len(OPS)
        assert not same or dead_pair


@spaces
@pytest.mark.parametrize("shape", SHAPES)
@settings(deadline=None, derandomize=True, max_examples=8)
@given(data=st.data())
def test_every_genome_trains_on_images_of_every_shape(
    name: str, shape: tuple[int, int, int], data: st.DataObject
) -> None:
    space = SPACES[name]
    drawn = data.draw(st.tuples(*(st.integers(0, count - 1) for count in space.choices)))
    assert_it_trains(space, space.genome(drawn), shape)


@spaces
@pytest.mark.parametrize("shape", SHAPES)
def test_the_first_and_the_largest_genome_train_on_images_of_every_shape(
    name: str, shape: tuple[int, int, int]
) -> None:
    space = SPACES[name]
    largest = space.largest()
    assert (largest is None) == (space.title == "stages")  # where sizes and FLOPs go apart
    for genome in filter(None, (space.genome([0] * len(space.genes)), largest)):
        assert_it_trains(space, genome, shape)


def assert_it_trains(space: SearchSpace, genome: Genome, shape: tuple[int, int, int]) -> None:
    network = decode(space, genome, in_channels=shape[0], **small(space))
    cross_entropy(network(torch.randn(2, *shape)), torch.tensor([1, 2])).backward()
    assert all(p.grad is not None for p in network.parameters() if _used(space, genome))
    found = profile(network, shape)
    assert found.params == sum(p.numel() for p in network.parameters())


@spaces
def test_equal_networks_cost_the_same_and_none_costs_more_than_the_largest(name: str) -> None:
    space = SPACES[name]
    largest = space.largest()
    most = largest and profile(decode(space, largest, **small(space)), (3, 32, 32))
    for genome in samples(space, 6, seed=1):
        costs = [
            profile(decode(space, each, **small(space)), (3, 32, 32))
            for each in (genome, space.canonical(genome))
        ]
        assert costs[0] == costs[1]
        assert most is None or costs[0].params <= most.params
        assert most is None or costs[0].flops <= most.flops


def _used(space: SearchSpace, genome: Genome) -> bool:
    """Whether all that is built is computed: not in a cell of NAS-Bench-201 without a path."""
    return space.name != "nasbench201/v1" or any(space.live(genome))


# DARTS


def cell(edges: Sequence[tuple[int, int, int, int]]) -> tuple[int, ...]:
    """The genes of a cell: for each node its first input and op, and its second."""
    genes: list[int] = []
    for node, (i, a, j, b) in enumerate(edges, 2):
        ops = [0] * node
        ops[i], ops[j] = a, b
        genes += [PAIRS[node].index((i, j)), *ops]
    return tuple(genes)


def live_graph(genes: tuple[int, ...], *, reduction: bool) -> nx.DiGraph:
    """The live graph of a cell, read off node by node; weighted ops are nodes of their own."""
    edges: dict[int, list[tuple[int, str]]] = {}
    at = 0
    for node in range(2, 6):
        pair, ops = genes[at], genes[at + 1 : at + 1 + node]
        at += 1 + node
        edges[node] = [(source, OPS[ops[source]]) for source in PAIRS[node][pair]]

    def total(node: int) -> frozenset[tuple[object, int]]:
        if node < 2:
            return frozenset([((f"input {node}",), 1)])
        terms: Counter[object] = Counter()
        for source, op in edges[node]:
            halves = reduction and source < 2
            if op == "skip_connect" and not halves:
                terms.update(dict(total(source)))
            elif "pool" in op:
                terms[op, total(source)] += 1
            else:
                terms[op, total(source), (source, node)] += 1
        return frozenset(terms.items())

    graph = nx.DiGraph()

    def add(reader: object, terms: Iterable[tuple[object, int]]) -> None:
        for term, times in terms:
            assert isinstance(term, tuple)
            graph.add_node(term, kind=term[0])
            if len(term) > 1:
                add(term, term[1])
            graph.add_edge(term, reader, times=str(times))

    for node in range(2, 6):
        graph.add_node(node, kind="output")
        add(node, total(node))
    return graph


@pytest.mark.parametrize("reduction", [False, True])
@pytest.mark.parametrize("ops", [(0, 2, 3), (1, 2), (0, 3)])
def test_darts_keys_are_equal_just_for_isomorphic_cells(
    ops: tuple[int, ...], reduction: bool
) -> None:
    """Random cells of a few ops, each beside its canonical spelling and some one gene away."""
    space, rng = Darts(), np.random.default_rng(len(ops))
    half, found = len(space.genes) // 2, Counter[bool]()
    others = [0] * half

    def whole(genes: Sequence[int]) -> Genome:
        return space.genome([*others, *genes] if reduction else [*genes, *others])

    for _ in range(60):
        genes = list(space.sample(rng).genes[:half])
        for place, gene in enumerate(space.genes[:half]):
            if gene.choices == OPS:
                genes[place] = int(rng.choice(ops))
        canonical = space.canonical(whole(genes)).genes
        near = [canonical[half:] if reduction else canonical[:half]]
        for _ in range(8):
            changed = list(genes)
            place = int(rng.integers(half))
            pair = space.genes[place].choices != OPS
            changed[place] = int(rng.integers(space.choices[place]) if pair else rng.choice(ops))
            near.append(tuple(changed))
        graph = live_graph(tuple(genes), reduction=reduction)
        for other in near:
            same = nx.is_isomorphic(
                graph,
                live_graph(other, reduction=reduction),
                node_match=lambda x, y: x["kind"] == y["kind"],
                edge_match=lambda x, y: x["times"] == y["times"],
            )
            assert (space.key(whole(genes)) == space.key(whole(other))) == same
            found[same and tuple(other) != tuple(genes)] += 1
    assert found[True] > 50
    assert found[False] > 50


def test_darts_nodes_in_another_order_are_the_same_cell() -> None:
    space = Darts()
    one = cell([(0, 3, 1, 4), (0, 5, 1, 2), (2, 3, 3, 6), (0, 0, 4, 3)])
    two = cell([(0, 5, 1, 2), (0, 3, 1, 4), (2, 6, 3, 3), (0, 0, 4, 3)])
    other = cell([(0, 5, 1, 2), (0, 3, 1, 4), (2, 3, 3, 6), (0, 0, 4, 3)])
    keys = [space.key(space.genome([*genes, *one])) for genes in (one, two, other)]
    assert keys[0] == keys[1]
    assert keys[2] != keys[0]


def test_darts_weightless_nodes_that_are_the_same_may_stand_for_each_other() -> None:
    """Nodes 2 and 3 are equal sums of poolings and skips; what reads them cannot tell."""
    space = Darts()
    one = cell([(0, 0, 1, 2), (0, 0, 1, 2), (0, 3, 2, 3), (1, 3, 2, 3)])
    two = cell([(0, 0, 1, 2), (0, 0, 1, 2), (0, 3, 2, 3), (1, 3, 3, 3)])
    keys = [space.key(space.genome([*genes, *one])) for genes in (one, two)]
    assert keys[0] == keys[1]
    # In a reduction cell a skip of an input has weights of its own, so they are not the same.
    keys = [space.key(space.genome([*one, *genes])) for genes in (one, two)]
    assert keys[0] != keys[1]


GENOTYPE = (
    "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), "
    "('sep_conv_3x3', 1), ('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), "
    "('dil_conv_3x3', 2)], normal_concat=range(2, 6), reduce=[('max_pool_3x3', 0), "
    "('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1), ('max_pool_3x3', 0), "
    "('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], reduce_concat=[2, 3, 4, 5])"
)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("('dil_conv_3x3', 2)]", "('dil_conv_3x3', 0)]", "node 5 .* two inputs from node 0"),
        ("('dil_conv_3x3', 2)]", "('none', 2)]", "node 5 of the normal cell has a none"),
        ("('dil_conv_3x3', 2)]", "('conv_7x7', 2)]", "unknown op 'conv_7x7'"),
        ("('dil_conv_3x3', 2)]", "('dil_conv_3x3', 5)]", "node 5 .* reads 5"),
        ("2)], normal", "2), ('none', 0), ('none', 1)], normal", "normal cell has 5 nodes"),
        ("range(2, 6)", "[4, 5]", r"normal cell outputs the nodes \[4, 5\]"),
        ("normal=", "ordinary=", "is not of the form"),
        ("range(2, 6)", "print(2)", "is not of the form"),
        ("Genotype(", "Genotype(open('x'), ", "is not of the form"),
    ],
)
def test_a_darts_cell_that_does_not_fit_is_refused_by_name(old: str, new: str, told: str) -> None:
    space = Darts()
    space.parse(GENOTYPE)
    with pytest.raises(ValueError, match=told):
        space.parse(GENOTYPE.replace(old, new))


# Macro, chain, channels


def test_macro_phases_are_the_same_just_when_isomorphic() -> None:
    """All 64 phases of four nodes, pair by pair."""
    pairs = [(i, j) for j in range(2, 5) for i in range(1, j)]
    graphs = {}
    for bits in itertools.product((0, 1), repeat=6):
        graph = nx.DiGraph([pair for pair, bit in zip(pairs, bits, strict=True) if bit])
        graphs[*bits, 0] = graph
    for one, two in itertools.combinations(graphs, 2):
        same = nx.is_isomorphic(graphs[one], graphs[two])
        assert (_canonical(one, 4) == _canonical(two, 4)) == same


def test_macro_nodes_that_nothing_connects_are_not_built() -> None:
    space = Macro(phases=1)
    for text, nodes in (("0-00-000:1", 0), ("1-00-000:0", 2), ("1-01-001:0", 4)):
        network = decode(space, space.parse(text), channels=4)
        assert len(network.body[0].nodes) == nodes
    skips = [space.key(space.parse(f"0-00-000:{bit}")) for bit in "01"]
    assert skips[0] == skips[1]  # a phase without nodes passes its input on
    skips = [space.key(space.parse(f"1-00-000:{bit}")) for bit in "01"]
    assert skips[0] != skips[1]


def test_a_skipped_layer_of_a_chain_may_stand_anywhere_in_its_run() -> None:
    space = Chain([(8, 3, 1), (16, 3, 2)], [3, 5], [3], stem=8)
    assert space.skippable == [True, True, True, False, True, True]
    key = space.key(space.parse("k3e3,skip,k5e3,k3e3,skip,k5e3"))
    assert key == space.key(space.parse("skip,k3e3,k5e3,k3e3,k5e3,skip"))
    assert key != space.key(space.parse("skip,k5e3,k3e3,k3e3,k5e3,skip"))
    with pytest.raises(ValueError, match=r"layer 2.1 is 'skip'; allowed: k3e3, k5e3"):
        space.parse("k3e3,skip,k5e3,skip,skip,k5e3")
    network = decode(space, space.parse("skip,skip,skip,k3e3,k5e3,skip"))
    convolutions = [m.kernel_size[0] for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    assert [k for k in convolutions if k > 1] == [3, 3, 5]  # the stem, and two layers


def test_the_stages_of_channels_are_as_wide_as_it_says() -> None:
    space = Channels(stages=3, widths=[4, 6])
    network = decode(space, space.parse("4:6:4"), in_channels=1, block="inverted", blocks=2)
    blocks = [m for m in network.body if type(m).__name__ == "InvertedResidual"]
    assert [m.layers[-1].num_features for m in blocks] == [4, 4, 6, 6, 4, 4]
    with pytest.raises(ValueError, match="write 3 of 4, 6"):
        space.parse("4:8:4")


NAMED = SearchSpace("named/v1", [Gene("width", ("12", "20")), Gene("act", ("ReLU", "GELU"))])


@pytest.mark.parametrize(
    "space", [NAMED, TableSpace({"a": ["x", "y"], "b": ["z"]}), *SPACES.values()]
)
def test_a_genome_is_read_with_the_names_of_its_choices(space: SearchSpace) -> None:
    genome = space.sample(np.random.default_rng(0))
    text = space.named(genome)
    assert space.parse(text) == genome
    assert Verbatim(space).parse(text.replace(", ", ",")) == genome


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("width=13, act=ReLU", "width is '13'; allowed: 12, 20"),
        ("width=12", "does not name each gene of named/v1 once"),
        ("width=12, width=12, act=ReLU", "does not name each gene"),
        ("wide", "write 2 genes: 0-1, or their choices: width=12, ..."),
    ],
)
def test_what_is_wrong_with_names_of_choices_is_told(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        NAMED.parse(text)
