"""`evonas.training_evaluator`: `evonas.search` trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

import evonas
from evonas.core import UserError
from evonas.data.dataset import split
from evonas.data.digits import Digits, DigitsParams
from evonas.evaluators import train
from evonas.training.states import read_state
from genomes import Gene, Genome, SearchSpace

DATA = {"name": "digits", "subset": 120}


def tiny(pick: Any, *, in_channels: int, classes: int, channels: int = 2) -> nn.Module:
    layers = [nn.Conv2d(in_channels, channels, 3), pick("act", ACTS), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(36 * channels, classes))


def flat(pick: Any, *, in_channels: int, classes: int) -> nn.Module:
    return nn.Linear(pick("n", [3]), classes)


ACTS = {"relu": nn.ReLU, "tanh": nn.Tanh, "raises": lambda: Raises()}


class Raises(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if len(images) > 2:
            raise RuntimeError("not so many")  # more than before the search
        return images


@evonas.metric(cheap=True)
def depth(network: nn.Module) -> int:
    return len(list(network.children()))


def trained(**change: Any) -> Any:
    arguments = {"data": DATA, "budget": {"steps": 2}, "recipe": {"batch_size": 16}, **change}
    return evonas.training_evaluator(**arguments)


def search(evaluate: Any, space: Any = tiny, **change: Any) -> evonas.SearchResult:
    given = {"objectives": ["val_error"], "strategy": "exhaustive", "generations": 1, **change}
    return evonas.search(space, evaluate=evaluate, **given)


def test_a_search_trains_networks_of_a_function_and_tells_where_one_raised() -> None:
    before = torch.get_num_threads(), torch.random.get_rng_state()
    constraints = [{"name": "params", "max": 10_000}, {"name": "depth", "max": 4}]
    found = search(trained(metrics=[depth]), constraints=constraints)
    rows = found.evaluations.set_index("key")
    assert rows["status"].tolist() == ["ok", "ok", "crashed"]
    assert rows["budget"].tolist() == ["steps=2"] * 3
    assert rows["val_error"][:2].between(0, 1).all()
    assert rows["params"]["g0"] == 2 * 9 + 2 + 72 * 10 + 10
    assert rows["depth"]["g0"] == 4
    place = r"RuntimeError: not so many \(\S*test_api_training.py, line \d+\)"
    assert rows["message"].str.fullmatch(place).tolist() == [False, False, True]
    assert "in forward" in found.tracebacks["g2"]
    assert torch.get_num_threads() == before[0]
    assert torch.equal(torch.random.get_rng_state(), before[1])
    network = found.space.build(found.best, in_channels=1, classes=10)
    assert network(torch.zeros(1, 1, 8, 8)).shape == (1, 10)


@pytest.mark.parametrize("inner", ["random", "aging"])
def test_halving_goes_on_from_states_and_needs_a_budget(
    inner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[bool] = []

    def noted(path: Path) -> Any:
        state = read_state(path)
        found.append(state is not None)
        return state

    monkeypatch.setattr(train, "read_state", noted)
    halving = {"name": "halving", "factor": 2, "strategy": {"name": inner, "population": 3}}
    limits = {"strategy": halving, "generations": None, "evaluations": 7}
    result = search(trained(budget={"steps": 4}), **limits)
    assert {"steps=1/4", "steps=2/4", "steps=4"} >= set(result.evaluations["budget"])
    rows = result.evaluations[~result.evaluations["cached"]]
    assert (rows["origin"] == "promoted").sum() == len(found) > 0
    assert all(found)
    with pytest.raises(UserError, match="budget: is missing"):
        search(lambda genome: {"val_error": 0.5}, **limits)


def test_arrays_are_data_as_the_data_set_with_the_same_images_is() -> None:
    digits = load_digits()
    images, labels = digits.images.astype(np.uint8), digits.target
    named = {"images": images, "labels": labels, "subset": 120}
    for data in ((images, labels), [images, labels], named):
        training = trained(data=data)
        params = DigitsParams(subset=120 if data is named else None)
        expected = split(Digits(params), params)[0]
        assert training.data.fingerprint == expected.fingerprint
        images_in_all = f"{len(expected.train)} training and {len(expected.val)} validation images"
        assert repr(training) == f"<Training: arrays, {images_in_all}, steps=2>"


@pytest.mark.parametrize(
    ("space", "change", "told"),
    [
        (tiny, {"objectives": ["acc"]}, "^objectives: nothing measures acc; allowed: val_error"),
        (
            tiny,
            {"constraints": [{"name": "size", "max": 1}]},
            "^constraints: nothing measures size; allowed: val_error",
        ),
        (
            SearchSpace("mine/v1", [Gene("g", ("a", "b"))]),
            {},
            "^space: mine has no networks to train; give a function that builds them",
        ),
        ({"name": "table", "genes": {"a": ["x"]}}, {}, "^space: table has no networks to train"),
        (flat, {}, "^space: flat with n=3 raised RuntimeError: .* must return logits"),
    ],
)
def test_what_cannot_be_trained_is_told_before_the_search(
    space: Any, change: dict[str, Any], told: str
) -> None:
    with pytest.raises(UserError, match=told):
        search(trained(), space, **change)


def test_a_metric_cannot_have_a_columns_name() -> None:
    def status(genome: Genome) -> float:
        return 0.0

    with pytest.raises(UserError, match=r"^metrics: status is a column"):
        search(trained(metrics=[status]))


@pytest.mark.parametrize("workers", [None, 1])
def test_a_warm_search_ranks_its_pool_by_proxies_where_it_trains(workers: int | None) -> None:
    found = search(
        trained(workers=workers),
        {"name": "nasbench201", "channels": 2, "cells": 1},
        strategy={"name": "genetic", "population": 2, "elites": 1},
        warm_start={"by": ["-params"], "pool": 12, "share": 0.5},
    ).evaluations
    assert found["origin"].tolist() == ["warm_start", "sampled"]
    assert found["params"][0] <= found["params"][1]
    with pytest.raises(UserError, match="unknown metric to rank by 'val_error'; allowed: nwot"):
        search(trained(), warm_start={"by": ["val_error"]}, strategy="genetic")
