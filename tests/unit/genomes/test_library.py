"""The published cells: what they cost, and wherever a genome is asked for, their names."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner, Result

from evonas import registry
from evonas.cli import app
from evonas.core import Objective, UserError
from evonas.jobs.choice import read
from evonas.networks.decode import decode
from evonas.networks.profile import profile
from evonas.protocols import Setting
from evonas.testing.strategies import by_genes
from genomes import library

CIFAR = (3, 32, 32)
SEARCH = {
    "name": "seeded",
    "space": {"name": "darts", "channels": 2, "cells": 3},
    "data": {"name": "digits", "subset": 100},
    "strategy": {"name": "nsga2", "population": 3, "seeds": ["darts_v2", "pc_darts"]},
    "evaluator": {"name": "train"},
    "budget": {"steps": 1},
    "objectives": [{"name": "val_error"}],
    "stop": {"generations": 1},
    "finalists": {"top": 0},
    "parallel": {"workers": 1},
}


def command(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.mark.parametrize("name", library.library())
def test_every_cell_fits_its_space_and_says_where_it_is_from(name: str) -> None:
    space, genome = library.load(name)
    published = library.library()[name]
    assert space.name == published.space
    assert published.source
    # A network in stages is scaled to small images, so nothing is published of it as it is here.
    assert ("test_error" in published.figures) == (space.name != "stages/v1")
    assert space.parse(space.describe(genome)) == genome
    assert library.read(space, name) == genome


# The first three are what the networks of the published code count (36 channels, 20 cells, without
# the auxiliary classifier): quark0/darts, yuhuixu1993/PC-DARTS and chenxin061/pdarts. The papers
# have, rounded, 3.3M, 3.6M and 3.4M; 3.3M for darts_v1, 3.4M for gdas and 2.8M for snas.
@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("darts_v2", 3_349_342),
        ("pc_darts", 3_634_678),
        ("p_darts", 3_433_798),
        ("darts_v1", 3_169_414),
        ("gdas", 3_368_782),
        ("snas", 2_661_382),
    ],
)
def test_cells_have_as_many_parameters_as_published(name: str, params: int) -> None:
    space, genome = library.load(name)
    network = decode(space, genome, channels=36, cells=20)
    assert profile(network, CIFAR).params == params
    canonical = decode(space, space.canonical(genome), channels=36, cells=20)
    assert profile(canonical, CIFAR) == profile(network, CIFAR)


def test_what_darts_v1_has_less_than_darts_v2_is_a_dilated_convolution_in_each_normal_cell() -> (
    None
):
    """Both have 3.3M in the paper, of which only one can be true."""
    dilated = [9 * c + c * c + 2 * c for c in (36, 72, 144) for _ in range(6)]
    assert sum(dilated) == 179_928 == 3_349_342 - 3_169_414
    space = library.load("darts_v1")[0]
    ops = [
        Counter(
            edge.op for edge in space.graph(library.load(name)[1]).edges if edge.source[0] == "n"
        )
        for name in ("darts_v1", "darts_v2")
    ]
    assert ops[0]["sep_conv_3x3"] == ops[1]["sep_conv_3x3"] == 5
    assert (ops[0]["dil_conv_3x3"], ops[1]["dil_conv_3x3"]) == (0, 1)


def test_the_cells_of_nas_bench_201_are_those_of_the_table() -> None:
    digits = {
        "nasbench201_cifar10": "333132",
        "nasbench201_cifar100": "333133",
        "nasbench201_resnet": "303101",
    }
    for name, expected in digits.items():
        assert "".join(map(str, library.load(name)[1].genes)) == expected


def test_a_cell_is_shown_and_listed_by_its_name() -> None:
    shown = command("show", "darts_v2")
    assert shown.exit_code == 0, shown.output
    assert "darts/v1" in shown.output
    listed = command("list", "genomes").output
    assert all(name in listed and "(20" in listed for name in library.library())


def test_a_published_genotype_is_taken_as_it_is_written(tmp_path: Path) -> None:
    """It is too long for the name of a file, which it might be."""
    space, genome = library.load("pc_darts")
    text = space.describe(genome)
    shown = command("show", text)
    assert shown.exit_code == 0, shown.output
    assert space.key(genome) in shown.output
    path = tmp_path / "seeded.yaml"
    path.write_text(yaml.safe_dump(SEARCH))
    refused = command("train", text, "--experiment", path, "--set", "recipe.lr=-1")
    assert (refused.exit_code, "recipe.lr: is -1" in refused.stderr) == (2, True)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("darts_v3", "no space with its default settings can read it"),
        ("1-2-3", "no space with its default settings can read it"),
        ("16:7:9", "no space with its default settings can read it"),
        ("9-1-0-1-0-1", "gene 0>1 of nasbench201/v1 is 9; allowed: 0 to 4"),
        ("|nor_conv_9x9~0|+|none~0|none~1|", "unknown op 'nor_conv_9x9'"),
        ("k3e6,skip", "chain/v1 has 8 layers, got 2"),
    ],
)
def test_a_space_that_knows_the_form_of_a_text_says_what_is_wrong_with_it(
    text: str, reason: str
) -> None:
    with pytest.raises(UserError) as raised:
        read(text)
    [mistake] = raised.value.mistakes
    assert mistake.problem.startswith(f"{text} is neither a folder nor a genome: {reason}")
    assert "--experiment FILE" in mistake.hint


@pytest.mark.parametrize("strategy", ["aging", "genetic", "nsga2", "nsga3", "pso"])
@pytest.mark.parametrize("encoding", ["genes", "scaled", "logits"])
def test_a_population_begins_with_its_seeds(strategy: str, encoding: str) -> None:
    loaded = registry.load("strategies", strategy)
    space, genome = library.load("darts_v2")
    settings = {"encoding": encoding} if strategy != "aging" else {}
    if strategy == "pso" and encoding == "genes":
        settings = {}
    seeds = ("darts_v2", space.describe(space.largest()))  # type: ignore[arg-type]  # it has one
    params = loaded.Params(seeds=seeds, **settings)
    made = loaded(params, Setting(space, [Objective(name="a")], seed=0))
    asked = made.ask()
    while more := made.ask():
        asked += more
    assert [candidate.genome for candidate in asked[:2]] == [genome, space.largest()]
    assert [candidate.origin for candidate in asked[:3]] == ["seed", "seed", "sampled"]
    again = loaded(loaded.Params(**settings), Setting(space, [Objective(name="a")], seed=0))
    assert again.ask()[0].genome != genome
    if strategy != "aging":
        made.tell([by_genes(candidate) for candidate in asked])
        assert all(candidate.origin != "seed" for candidate in made.ask())


def test_local_search_starts_from_its_seeds_one_after_the_other() -> None:
    loaded = registry.load("strategies", "local_search")
    space, genome = library.load("nasbench201_resnet")
    params = loaded.Params(seeds=("nasbench201_resnet", "0-0-0-0-0-0"))
    made = loaded(params, Setting(space, [Objective(name="a")]))
    starts = []
    for _ in range(40):
        asked = made.ask()
        starts += [c for c in asked if c.origin != "neighbour"]
        made.tell([by_genes(candidate) for candidate in asked])
        state = made.state_dict()
        made = loaded(params, Setting(space, [Objective(name="a")]))
        made.load_state_dict(state)
    assert [c.origin for c in starts[:3]] == ["seed", "seed", "sampled"]
    assert [c.genome for c in starts[:2]] == [genome, space.parse("0-0-0-0-0-0")]


def test_seeds_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    loaded = registry.load("strategies", "nsga2")
    space, _ = library.load("darts_v2")
    for seed, told in (
        ("nasbench201_resnet", "seeds.1: nasbench201_resnet is a genome of nasbench201/v1"),
        ("0-1", "seeds.1: darts/v1 has 36 genes, got 2"),
    ):
        with pytest.raises(UserError, match=told):
            loaded(loaded.Params(seeds=("gdas", seed)), Setting(space, [Objective(name="a")]))
    path = tmp_path / "seeded.yaml"
    strategy = {"name": "nsga2", "population": 2, "seeds": ["gdas", "snas", "darts_v1"]}
    path.write_text(yaml.safe_dump({**SEARCH, "strategy": strategy}))
    refused = command("validate", path)
    assert "strategy.seeds: is ['gdas', 'snas', 'darts_v1']; must be at most" in refused.stderr


@pytest.mark.slow
def test_published_cells_are_searched_from_and_trained(tmp_path: Path) -> None:
    path = tmp_path / "seeded.yaml"
    path.write_text(yaml.safe_dump(SEARCH))
    done = command("run", path, "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output
    evaluations = pd.read_csv(tmp_path / "run" / "evaluations.csv")
    assert evaluations["origin"].tolist() == ["seed", "seed", "sampled"]
    assert evaluations["genome"][0].startswith("Genotype(normal=[('sep_conv_3x3', 0)")
    trained = command(
        "train", "gdas", "--experiment", path, "--epochs", "1", "--out", tmp_path / "trained"
    )
    assert trained.exit_code == 0, trained.output
