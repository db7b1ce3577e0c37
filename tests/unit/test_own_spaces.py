"""Spaces of one's own in which a pick depends on another, and their networks."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from torch import nn

import evonas
from evonas.core import UserError
from evonas.own import OwnSpace
from genomes import Genome, NASBench201


def deep(pick: Any, *, in_channels: int, classes: int, channels: int = 4) -> nn.Module:
    """A layer more for each depth, and a last one that only two choices together ask for."""
    depth = pick("depth", {"1": 1, "2": 2, "3": 3})
    layers: list[nn.Module] = [nn.Conv2d(in_channels, channels, 1)]
    for i in range(depth):
        candidates = {"conv": lambda: nn.Conv2d(channels, channels, 1), "skip": nn.Identity}
        layers.append(pick(f"layer{i}", candidates))
    if pick("act", {"none": False, "some": True}) and depth == 3:
        layers.append(pick("which", {"relu": nn.ReLU, "tanh": nn.Tanh}))
    ends = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)
    return nn.Sequential(*layers, *ends)


def test_a_gene_that_is_not_picked_is_dead_and_changes_no_key() -> None:
    space = OwnSpace(deep, {})
    assert {gene.name for gene in space.genes} == {
        *("depth", "layer0", "layer1", "layer2", "act", "which"),
    }
    names = [gene.name for gene in space.genes]

    def genome(**chosen: int) -> Genome:
        return space.genome(chosen.get(name, 0) for name in names)

    def live(genome: Genome) -> set[str]:
        return {name for name, alive in zip(names, space.live(genome), strict=True) if alive}

    assert live(genome()) == {"depth", "layer0", "act"}
    assert live(genome(depth=2, act=1)) == {*names}
    assert live(genome(depth=1, act=1)) == {"depth", "layer0", "layer1", "act"}
    assert space.key(genome(layer1=1, layer2=1, which=1)) == space.key(genome())
    assert space.key(genome(depth=1, layer1=1)) != space.key(genome(depth=1))
    assert space.named(genome(layer0=1)) == "depth=1, layer0=skip, act=none"
    for one in (genome(), genome(depth=2, which=1), genome(layer2=1)):
        assert space.parse(space.named(one)) == one
    with pytest.raises(ValueError, match="does not name each gene"):
        space.parse("depth=2, layer0=skip, act=none")
    for one in space.trials():
        assert space.canonical(one) == one
        network = space.build(one, in_channels=1, classes=3, channels=2)
        assert network(torch.zeros(2, 1, 8, 8)).shape == (2, 3)
    asked: list[str] = []
    found = evonas.search(
        deep,
        evaluate=lambda genome: asked.append(space.key(genome)) or {"depth": genome.genes[0]},  # type: ignore[func-returns-value]
        objectives=["depth"],
        strategy="random",
        evaluations=40,
    )
    assert len(asked) == len(set(asked)) < found.evaluations["genes"].nunique()


def test_a_conditional_space_can_be_sent_to_another_process() -> None:
    space = OwnSpace(deep, {})
    genome = space.genome([1] * len(space.genes))
    assert pickle.loads(pickle.dumps(space)).key(genome) == space.key(genome)


def test_a_space_builds_the_network_of_a_genome_or_of_its_text() -> None:
    space = OwnSpace(deep, {"channels": 3})
    for one in ("0-1-0-0-0-0", space.parse("0-1-0-0-0-0")):
        assert [type(each) for each in space.build(one, classes=2)][:2] == [nn.Conv2d, nn.Identity]
    cell = NASBench201().build("3-3-3-3-3-3", in_channels=1, channels=4, cells=1)
    assert cell(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_a_marked_function_builds_networks_inside_evaluate_too() -> None:
    marked = evonas.space(deep)

    def evaluate(genome: Genome) -> dict[str, float]:
        network = marked.build(genome, in_channels=1, channels=3)  # type: ignore[attr-defined]
        return {"convs": sum(isinstance(each, nn.Conv2d) for each in network)}

    found = evonas.search(
        {"name": marked, "channels": 3},
        evaluate=evaluate,
        objectives=["convs"],
        strategy={"name": "random", "population": 5},
        generations=1,
    )
    assert found.evaluations["convs"].between(1, 4).all()
    assert set(found.evaluations["status"]) == {"ok"}
    with pytest.raises(UserError, match=r"^space.chanels: unknown key; keys of deep: channels"):
        marked.build("0-0-0-0-0-0", chanels=3)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("genome", "settings", "told"),
    [
        (NASBench201().parse("0-0-0-0-0-0"), {}, "is a genome of nasbench201/v1, not of python"),
        (3, {}, "3 is not a genome; give a Genome, or its text"),
        ("9-0-0-0-0-0", {}, "gene depth of python.deep/own is 9; allowed: 0 to 2"),
        ("0-0-0-0-0-0", {"chanels": 3}, "chanels"),
    ],
)
def test_what_cannot_be_built_is_told(genome: Any, settings: dict[str, int], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        OwnSpace(deep, {}).build(genome, **settings)
