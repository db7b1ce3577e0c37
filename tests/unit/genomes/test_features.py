"""Features of networks, for a model to learn from."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

from genomes import (
    Chain,
    Channels,
    Darts,
    Gene,
    Macro,
    NASBench201,
    SearchSpace,
    TableSpace,
    Verbatim,
)
from genomes.paths import path_features, paths

SPACES = [
    Chain(),
    Channels(),
    Darts(),
    Macro(),
    NASBench201(),
    TableSpace({"a": ("x", "y", "z"), "b": ("0", "1")}),
    SearchSpace("lone/v1", [Gene("a", ("x",))]),
]


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_networks_have_features_of_one_length_and_equal_ones_the_same(space: SearchSpace) -> None:
    rng = np.random.default_rng(0)
    by_key = defaultdict(list)
    for _ in range(200):
        genome = space.sample(rng)
        by_key[space.key(genome)].append(space.features(genome))
        assert (
            space.features(space.canonical(genome)).tolist()
            == by_key[space.key(genome)][-1].tolist()
        )
    every = [features for same in by_key.values() for features in same]
    assert {features.shape for features in every} == {every[0].shape}
    assert np.isfinite(every).all()
    for same in by_key.values():
        assert (np.array(same) == same[0]).all()
    firsts = {tuple(same[0].tolist()) for same in by_key.values()}
    assert len(firsts) == len(by_key), "different networks have the same features"


def test_genomes_of_one_network_have_the_same_features_on_a_table() -> None:
    space = NASBench201()
    table = Verbatim(space)
    one, twin = (space.genome(map(int, text)) for text in ("120121", "110221"))
    assert table.key(one) != table.key(twin)
    assert table.features(one).tolist() == table.features(twin).tolist()
    assert space.spelling(one).size == 0


def test_a_spelling_says_which_dead_genes_a_table_may_count() -> None:
    space = NASBench201()
    table = Verbatim(space)
    plain, dead = (space.genome(map(int, text)) for text in ("000300", "030300"))
    assert table.features(plain).tolist() == table.features(dead).tolist()
    assert not table.spelling(plain).any()
    assert np.flatnonzero(table.spelling(dead)).tolist() == [5 + 3]  # the second of six edges


def test_paths_are_counted_by_their_ops_in_order() -> None:
    edges = {"m": [("in", 0)], "out": [("m", 1), ("m", None), ("in", 1), ("in", None)]}
    found = paths(edges, "out")
    assert sorted(found) == [(), (0,), (0, 1), (1,)]
    counts = path_features([*found, (1,)], ops=2, longest=1)
    # No op; the ops 0 and 1 alone; the shortest and the longest path. Two ops are too many.
    assert counts.tolist() == [0.5, 0.5, 0.5 * np.log2(3), 0.0, 2.0]
    assert path_features([], ops=2, longest=1).tolist() == [0.0] * 5
