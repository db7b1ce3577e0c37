"""Every argument of the functions of `evonas` is checked, and what is wrong is told in words."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from torch import nn

import evonas
from evonas.core import Objective, UserError
from genomes import Genome, NASBench201, SearchSpace


def evaluate(genome: Genome) -> dict[str, float]:
    return {"loss": float(sum(genome.genes))}


def tiny(pick: Any, *, in_channels: int, classes: int, channels: int = 2) -> nn.Module:
    """Sums over all pixels, then one of two activations."""
    layers = [nn.Conv2d(in_channels, channels, 1), pick("act", [nn.ReLU, nn.Tanh])]
    ends = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)
    return nn.Sequential(*layers, *ends)


def evaluator(**change: Any) -> Any:
    arguments = {"data": {"name": "digits", "subset": 60}, "budget": {"steps": 1}, **change}
    return evonas.training_evaluator(**arguments)


def search(**change: Any) -> Any:
    arguments = {
        "space": NASBench201(),
        "evaluate": evaluate,
        "objectives": ["loss"],
        "strategy": {"name": "random", "population": 2},
        "generations": 1,
        **change,
    }
    return evonas.search(arguments.pop("space"), **arguments)


def compare(**change: Any) -> Any:
    arguments = {
        "evaluate": evaluate,
        "objectives": ["loss"],
        "strategies": ["random"],
        "generations": 1,
        **change,
    }
    return evonas.compare(NASBench201(), **arguments)


def run(**change: Any) -> Any:
    return evonas.run(**{"experiment": {"name": "x"}, **change})


WRONG: dict[Callable[..., Any], list[tuple[dict[str, Any], str]]] = {
    search: [
        ({"space": None}, "^space: is None; must be a space, a function with @evonas.space"),
        ({"space": 3}, "^space: is 3; must be a space"),
        ({"space": ["nasbench201"]}, r"^space: is \['nasbench201'\]; must be a space"),
        ({"space": NASBench201}, r"must be an object, such as NASBench201\(\)"),
        ({"space": {"channels": 3}}, "^space.name: is missing; allowed: chain"),
        ({"space": {"name": "channels", "max": 3}}, "^space.max: unknown key"),
        ({"space": {"name": tiny, "chanels": 3}}, "^space.chanels: unknown key; keys of tiny"),
        ({"space": functools.partial(tiny, channels=3)}, "^space: is .*written with def"),
        ({"space": lambda pick: pick}, "must be of the form def NAME"),
        ({"evaluate": None}, "^evaluate: is None; must be a function that takes a genome"),
        ({"evaluate": lambda: {}}, "^evaluate: cannot be called with a genome alone: too many"),
        ({"evaluate": evonas.training_evaluator}, "^evaluate: cannot be called with a genome"),
        ({"cheap": 3}, "^cheap: is 3; must be a function that takes a genome"),
        ({"cheap": lambda a, b: {}}, "^cheap: cannot be called with a genome alone: missing"),
        ({"evaluate": evaluator, "cheap": evaluate}, "^cheap: does not apply to a training"),
        ({"objectives": "val"}, "^objectives: is 'val'; must be a list, such as"),
        ({"objectives": None}, "^objectives: is None; must be a list"),
        ({"objectives": {"name": "loss"}}, "^objectives: is {'name': 'loss'}; must be a list"),
        ({"objectives": Objective(name="loss")}, "^objectives: is Objective.*; must be a list"),
        ({"objectives": {"loss"}}, "^objectives: is {'loss'}; must be a list"),
        ({"objectives": ("loss", "max")}, r"^objectives: is \('loss', 'max'\); must be a list"),
        ({"objectives": [3]}, "^objectives.0: is 3; must be a mapping"),
        ({"objectives": [None]}, "^objectives.0: is null; must be a mapping"),
        ({"constraints": None}, "^constraints: is None; must be a list"),
        ({"constraints": {"name": "loss", "max": 1}}, "^constraints: is {.*}; must be a list"),
        ({"constraints": ["loss"]}, "^constraints.0: is 'loss'; must be a mapping"),
        ({"strategy": None}, "NoneType has no ask"),
        ({"strategy": {"population": 3}}, "^strategy.name: is missing"),
        ({"warm_start": 3}, "^warm_start: is 3; must be a mapping"),
        ({"generations": 0}, "^generations: is 0; must be a whole number of at least 1"),
        ({"generations": "3"}, "^generations: is '3'; must be a whole number"),
        ({"generations": 2.5}, "^generations: is 2.5; must be a whole number"),
        ({"evaluations": -1}, "^evaluations: is -1; must be a whole number of at least 1"),
        ({"stagnation": 0}, "^stagnation: is 0; must be a whole number of at least 1"),
        ({"seconds": 0}, "^seconds: is 0; must be more than 0"),
        ({"seed": -1}, "^seed: is -1; must be a whole number of at least 0"),
        ({"seed": None}, "^seed: is None; must be a whole number"),
        ({"seed": 0.5}, "^seed: is 0.5; must be a whole number"),
        ({"seed": True}, "^seed: is True; must be a whole number"),
        ({"seed": 2**70}, "^seed: is 11805.*; must be a whole number of at least 0 and at most"),
    ],
    evaluator: [
        ({"data": None}, "^data: is None; must be a data set's name, a mapping"),
        ({"data": "digit"}, "^data.name: unknown data set 'digit' .did you mean 'digits'"),
        ({"data": {"name": "digits", "vall": 1}}, "^data.vall: unknown key"),
        ({"data": {"name": "npz"}}, "^data"),
        ({"data": (np.zeros((4, 2, 2)),)}, "^data: data has 1 value; must have the arrays"),
        ({"data": {"images": np.zeros((9, 2, 2))}}, "^data: data has 1 value"),
        ({"data": {"images": [], "labels": [], "vall": 1}}, "^data.vall: unknown key"),
        ({"data": (np.zeros((4, 2)), np.zeros(4))}, r"images and labels are \(4, 2\)"),
        ({"budget": 3}, "^budget: is 3; must be a mapping"),
        ({"budget": {}}, "^budget: is {}; must have exactly one of epochs"),
        ({"budget": {"epochs": 0}}, "^budget.epochs: is 0; must be at least 1"),
        ({"budget": None}, "^budget: is null; must be a mapping"),
        ({"recipe": {"lrr": 1}}, "^recipe.lrr: unknown key"),
        ({"recipe": "adamw"}, "^recipe: is 'adamw'; must be a mapping"),
        ({"metrics": "depth"}, "^metrics: is 'depth'; must be a list"),
        ({"metrics": [3]}, "^metrics.0: is 3; must be a function with @evonas.metric"),
        ({"device": "gpu"}, "^parallel.device: is 'gpu'; must be auto, cpu, cuda"),
        ({"workers": 0}, "^workers: is 0; must be a whole number of at least 1"),
    ],
    compare: [
        ({"strategies": "random"}, "^strategies: is 'random'; must be a list"),
        ({"strategies": []}, "^strategies: is empty; give at least 1"),
        ({"strategies": ["random", "random"]}, "^strategies: random is listed twice; give a map"),
        ({"strategies": {"name": "random"}}, "^strategies: is {'name': 'random'}; must be a list"),
        ({"strategies": [object()]}, "^strategies.*; give a name, a class or a mapping"),
        ({"strategies": {"a": "randon"}}, "did you mean 'random'"),
        ({"seeds": 0}, "^seeds: is 0; must be a whole number of at least 1"),
        ({"seeds": "5"}, "^seeds: is '5'; must be a list, such as"),
        ({"seeds": []}, r"^seeds: is \[\]; must be different seeds, at least 1"),
        ({"seeds": [1, 1]}, r"^seeds: is \[1, 1\]; must be different seeds"),
        ({"seeds": [1, -1]}, "^seeds.1: is -1; must be a whole number of at least 0"),
        ({"seed": 1}, "^seed and strategy are set here; give seeds and strategies"),
        ({"objectives": "loss"}, "^objectives: is 'loss'; must be a list"),
        ({"evaluate": 3}, "^evaluate: is 3; must be a function"),
    ],
    run: [
        ({"experiment": None}, "^experiment: is None; must be a mapping with the keys"),
        ({"experiment": ""}, "^experiment: is ''; must be a mapping"),
        ({"experiment": []}, r"^experiment: is \[\]; must be a mapping"),
        ({"experiment": {"nam": "x"}}, "^name: is missing; give the run's name"),
        ({"experiment": "missing.yaml"}, "missing.yaml"),
    ],
}


@pytest.mark.parametrize(
    ("call", "change", "told"),
    [
        pytest.param(call, change, told, id=f"{call.__name__}-{next(iter(change))}-{i}")
        for call, rows in WRONG.items()
        for i, (change, told) in enumerate(rows)
    ],
)
def test_a_mistake_in_an_argument_is_told(
    call: Callable[..., Any], change: dict[str, Any], told: str
) -> None:
    change = {name: value() if value is evaluator else value for name, value in change.items()}
    with pytest.raises(UserError, match=told):
        call(**change)


def test_no_argument_is_forgotten() -> None:
    """Each argument of each function has a mistake above, but for some of `run`."""
    for call, function in (
        (search, evonas.search),
        (evaluator, evonas.training_evaluator),
        (compare, evonas.compare),
    ):
        names = {*inspect.signature(function).parameters} - {"limits"}
        if call is compare:
            names -= {"space"}  # goes to a search
        assert names <= {name for change, _ in WRONG[call] for name in change}


def test_what_numpy_counts_with_is_taken() -> None:
    found = search(generations=np.int64(1), seed=np.uint8(3))
    assert found.evaluations.equals(search(seed=3).evaluations)
    assert len(compare(seeds=np.arange(2)).runs) == 2


def test_a_space_may_be_a_mapping_with_a_function() -> None:
    assert search(space={"name": tiny, "channels": 3}).space.settings == {"channels": 3}
    assert isinstance(search(space={"name": "channels"}).space, SearchSpace)
