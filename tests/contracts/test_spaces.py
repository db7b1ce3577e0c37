"""The contracts of spaces, over everything registered, and over some broken on purpose."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from evonas import registry
from evonas.core import Blueprint, Params
from evonas.networks.ops import Classified
from evonas.own import OwnSpace
from evonas.testing import spaces as contracts
from evonas.testing.spaces import CONTRACTS, Make, maker
from genomes import Gene, Genome, SearchSpace
from genomes.space import Edge, Graph

Contract = Callable[[Make], None]
contract = pytest.mark.parametrize("contract", CONTRACTS, ids=lambda each: each.__name__)

SMALL: dict[str, list[dict[str, Any]]] = {
    "chain": [
        {"stages": [[4, 2, 1], [6, 2, 2]], "kernels": [3, 5], "expansions": [1, 2], "stem": 4},
        {"stages": [[4, 2, 2]], "expansions": [2], "skip": False, "stem": 3},
    ],
    "channels": [
        {"stages": 3, "widths": [2, 4, 6]},
        {"stages": 2, "widths": [2, 3], "blocks": 2, "block": "inverted"},
    ],
    "darts": [{"channels": 2, "cells": 3}],
    "macro": [{"phases": 2, "nodes": 4, "channels": 2}],
    "nasbench201": [{"channels": 2, "cells": 1}],
    "stages": [
        {"stages": 2, "resolution": 8, "stem": [2, 4], "widths": [1, 1.2, 2]},
        {"stages": 1, "resolution": 16, "blocks": ["inverted"], "depths": [2], "stem": [3]},
    ],
    "table": [{"genes": {"a": ["x", "y"], "b": ["x", "y", "z"]}}],
}
MAKES = [
    pytest.param(name, settings, id=f"{name}-{i}")
    for name in registry.names("spaces")
    for i, settings in enumerate(SMALL[name])
]


@contract
@pytest.mark.parametrize(("name", "settings"), MAKES)
def test_every_space_keeps_every_contract(
    name: str, settings: dict[str, Any], contract: Contract
) -> None:
    blueprint = registry.load("spaces", name)
    contract(maker(blueprint, blueprint.Params(**settings)))


class PairParams(Params):
    name: str = "pair"
    channels: int = 4
    length: int = 2


class Pair(SearchSpace):
    """Layers that do not know their order: of two spellings, one is canonical."""

    def __init__(self, length: int) -> None:
        self.length = length
        choices = ("conv1", "conv3")
        super().__init__("pair/v1", [Gene(f"g{i}", choices) for i in range(length)])

    def canonical(self, genome: Genome) -> Genome:
        return self.genome(sorted(genome.genes))

    def largest(self) -> Genome | None:
        return self.genome([1] * self.length)


def pair(pick: Any, *, in_channels: int, classes: int, channels: int, length: int) -> nn.Module:
    def conv(kernel: int) -> Callable[[], nn.Module]:
        return lambda: nn.Conv2d(channels, channels, kernel, padding=kernel // 2)

    ops = {"conv1": conv(1), "conv3": conv(3)}
    layers = [pick(f"g{i}", ops) for i in range(length)]
    body = nn.Sequential(nn.Conv2d(in_channels, channels, 1), *layers)
    return Classified(body, channels, classes)


PAIR = Blueprint(PairParams, Pair, pair, space_keys=("length",))


@contract
def test_a_sound_space_keeps_every_contract(contract: Contract) -> None:
    contract(maker(PAIR, PairParams()))


@contract
def test_a_space_of_a_function_keeps_every_contract(contract: Contract) -> None:
    space = OwnSpace(own, {"channels": 3})
    contract(maker(space.blueprint, space.blueprint.Params()))


def own(pick: Any, *, in_channels: int, classes: int, channels: int = 4) -> nn.Module:
    layers = nn.Sequential(nn.Conv2d(in_channels, channels, 1), pick("act", ACTIVATIONS))
    return Classified(layers, channels, classes)


ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh}


class Twice(Pair):
    def __init__(self, length: int) -> None:
        super().__init__(length)
        self.genes = (self.genes[0],) * length


class Counted(Pair):
    made = 0

    def __init__(self, length: int) -> None:
        super().__init__(length)
        Counted.made += 1
        self.name = f"pair/v{Counted.made}"


class Astray(Pair):
    def sample(self, rng: np.random.Generator) -> Genome:
        return Genome(self.name, (7,) * self.length)


class Lucky(Pair):
    def sample(self, rng: np.random.Generator) -> Genome:
        random.random()
        return super().sample(rng)


class Backwards(Pair):
    def describe(self, genome: Genome) -> str:
        return "-".join(map(str, reversed(genome.genes)))


class Restless(Pair):
    def canonical(self, genome: Genome) -> Genome:
        return self.genome(reversed(genome.genes))


class Lively(Pair):
    """Says of a gene with a say that it is dead."""

    def live(self, genome: Genome) -> tuple[bool, ...]:
        return (False,) + (True,) * (self.length - 1)


class Flags(Pair):
    def live(self, genome: Genome) -> tuple[bool, ...]:
        return (True,)


class Nowhere(Pair):
    def graph(self, genome: Genome) -> Graph:
        return Graph(("input", "output"), (Edge("input", "elsewhere", "conv1", True),))


class Forgetful(Pair):
    """Has another length than its settings say."""

    def __init__(self, length: int) -> None:
        super().__init__(length)
        self.length = 5


class Modest(Pair):
    def largest(self) -> Genome | None:
        return self.genome([0] * self.length)


class Loose(Pair):
    """Takes networks of different sizes for the same."""

    def canonical(self, genome: Genome) -> Genome:
        return self.genome([0] * self.length)

    def live(self, genome: Genome) -> tuple[bool, ...]:
        return (True,) * self.length


def flat(pick: Any, **arguments: Any) -> nn.Module:
    """Takes images of 8x8 pixels alone."""
    network = pair(pick, **arguments)
    channels = arguments["channels"]
    flattened = nn.Linear(64 * channels, arguments["classes"])
    return nn.Sequential(network.body, nn.Flatten(), flattened)  # type: ignore[arg-type]


def drawn(pick: Any, **arguments: Any) -> nn.Module:
    """Draws weights from a generator of its own."""
    network = pair(pick, **arguments)
    with torch.no_grad():
        network.classifier.bias += random.random()  # type: ignore[operator,union-attr]
    return network


class Gated(nn.Module):
    """Computes something else where its op is one of a supernet's."""

    def __init__(self, op: nn.Module) -> None:
        super().__init__()
        self.op = op

    def forward(self, x: torch.Tensor) -> Any:
        return self.op(x) if isinstance(self.op, nn.Conv2d) else 2 * self.op(x)


def gated(pick: Any, **arguments: Any) -> nn.Module:
    return pair(lambda gene, ops: Gated(pick(gene, ops)), **arguments)


BROKEN: list[tuple[Any, Contract, str]] = [
    (Twice, contracts.genes_and_choices_are_named_once, "genes are named twice"),
    (Counted, contracts.the_space_is_the_same_every_time, "two spaces differ"),
    (Astray, contracts.a_sample_is_a_genome_of_the_space, "gene g0 of pair/v1 is 7"),
    (Lucky, contracts.a_sample_is_a_genome_of_the_space, "draws from a global generator"),
    (Backwards, contracts.text_is_read_back, "is read as another genome"),
    (Restless, contracts.a_key_names_the_canonical_genome, "has a canonical genome"),
    (Lively, contracts.a_dead_gene_has_no_say, "is dead, but the key depends on it"),
    (Flags, contracts.a_dead_gene_has_no_say, "1 flags, 2 genes"),
    (Nowhere, contracts.a_graph_can_be_drawn, "no node of the drawing: .'elsewhere'"),
    (Forgetful, contracts.settings_are_merged_once, "the settings are not those given"),
    (flat, contracts.networks_take_images_of_any_size, "RuntimeError"),
    (drawn, contracts.a_seed_makes_the_network, "weights are not by the seed"),
    (Loose, contracts.equal_keys_are_equally_large, "its canonical one"),
    (Modest, contracts.no_network_is_larger_than_the_largest, "has more parameters"),
    (gated, contracts.a_path_of_the_supernet_is_the_network, "the path of .* differs"),
]


@pytest.mark.parametrize(("part", "contract", "what"), BROKEN)
def test_a_space_that_breaks_a_contract_is_caught_for_that(
    part: Any, contract: Contract, what: str
) -> None:
    change = {"space": part} if isinstance(part, type) else {"build": part}
    with pytest.raises(AssertionError, match=what):
        contract(maker(replace(PAIR, **change), PairParams()))


def test_every_contract_is_broken_by_one() -> None:
    assert {contract for _, contract, _ in BROKEN} == set(CONTRACTS)
