"""Files of weights of networks whose parts share tensors."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import nn

from evonas.core import Budget, Candidate, Status
from evonas.data.dataset import DataSet, split
from evonas.data.digits import Digits, DigitsParams
from evonas.evaluators.supernet import SupernetEvaluator, SupernetParams
from evonas.evaluators.train import TrainEvaluator, TrainParams
from evonas.export.network import TrainedNetwork, export
from evonas.metrics import VALIDATED
from evonas.networks.decode import decode
from evonas.own import OwnSpace
from evonas.protocols import Setting, TrainingSetting
from evonas.training.loop import Hardware
from evonas.training.recipe import Recipe
from evonas.training.weights import read_weights, save_weights


def repeated(pick: Any, *, in_channels: int, classes: int, channels: int = 4) -> nn.Module:
    def block() -> nn.Module:
        layer = nn.Conv2d(channels, channels, 3, padding=1)
        return nn.Sequential(layer, nn.BatchNorm2d(channels), nn.ReLU())

    op = pick("op", {"block": block, "skip": nn.Identity})
    ends = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)
    return nn.Sequential(nn.Conv2d(in_channels, channels, 3), *[op] * 3, *ends)


class Views(nn.Module):
    """Two layers with the same weights, and a parameter that is a view of another."""

    def __init__(self, in_channels: int, classes: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(16, 16), nn.Linear(16, 16)
        self.second.weight = self.first.weight
        self.part = nn.Parameter(self.first.weight.data[:8])
        self.whole = nn.Parameter(self.first.weight.data)
        self.ends = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten()), nn.Linear(16, classes)
        self.last = self.ends[1]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.second(self.first(self.ends[0](x[:, :1])))
        shared = hidden @ self.whole + (hidden @ self.part.T).sum()
        logits: torch.Tensor = self.last(shared)
        return logits


def views(pick: Any, *, in_channels: int, classes: int) -> nn.Module:
    pick("gene", {"one": 1, "two": 2})
    return Views(in_channels, classes)


@pytest.fixture(scope="module")
def digits() -> DataSet:
    params = DigitsParams(subset=120)
    return split(Digits(params), params)[0]


def setting_of(build: Callable[..., nn.Module], data: DataSet) -> Setting:
    space = OwnSpace(build, {})
    return Setting(space, training=TrainingSetting({}, data, Hardware()))


@pytest.mark.parametrize("build", [repeated, views])
def test_what_is_shared_is_written_once_and_read_back(
    build: Callable[..., nn.Module], digits: DataSet, tmp_path: Path
) -> None:
    setting = setting_of(build, digits)
    evaluator = TrainEvaluator(TrainParams(recipe=Recipe(lr=0.01)), setting)
    list(evaluator.prepare(tmp_path))
    genome = setting.space.genome([0])
    answer = evaluator.evaluate(Candidate(genome, budget=Budget(steps=3)), 0)
    assert answer.status is Status.OK, answer.message
    file = tmp_path / "scratch" / answer.weights
    measured = evaluator.test(genome, file, digits.val)
    assert {VALIDATED[name].name: value for name, value in measured.items()}.items() <= (
        answer.values.items()
    )
    with safe_open(file, "pt") as opened:
        names, about = set(opened.keys()), json.loads(opened.metadata()["evonas"])
    state = decode(setting.space, genome, **setting.trained().arguments).state_dict()
    assert names.isdisjoint(about["tied"])
    assert names | about["tied"].keys() == state.keys() == read_weights(file).keys()
    parameters = {name for name in names if "running" not in name and "tracked" not in name}
    assert len(parameters) == (8 if build is repeated else 7)


def test_a_network_that_shares_nothing_is_written_as_ever(digits: DataSet, tmp_path: Path) -> None:
    network, genome = nn.Linear(2, 2), OwnSpace(repeated, {}).genome([0])
    save_weights(network, genome, {}, digits, tmp_path / "w.safetensors")
    with safe_open(tmp_path / "w.safetensors", "pt") as opened:
        assert "tied" not in json.loads(opened.metadata()["evonas"])
        assert set(opened.keys()) == {"weight", "bias"}


@pytest.mark.parametrize("form", ["python", "torch", pytest.param("onnx", marks=pytest.mark.slow)])
def test_what_is_shared_is_exported(form: str, digits: DataSet, tmp_path: Path) -> None:
    space = OwnSpace(repeated, {})
    arguments = {"in_channels": 1, "classes": 10, "channels": 4}
    network = decode(space, space.genome([0]), **arguments).eval()
    file = tmp_path / "w.safetensors"
    save_weights(network, space.genome([0]), {"channels": 4}, digits, file)
    about = {
        **{"network": arguments, "mean": [0.0], "std": [1.0], "image_shape": [1, 8, 8]},
        **{"values": [0, 1], "class_names": list("0123456789")},
    }
    trained = TrainedNetwork(space, space.genome([0]), file, about)
    ending = {"python": "py", "torch": "safetensors", "onnx": "onnx"}[form]
    out, *weights = export(trained, form, tmp_path / f"taken.{ending}")
    images = torch.rand(2, 1, 8, 8)
    if form == "torch":
        assert read_weights(out).keys() == network.state_dict().keys()
    if form == "python":
        spec = importlib.util.spec_from_file_location("taken", out)
        assert spec
        assert spec.loader
        module: Any = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        assert torch.equal(module.EvolvedNetwork.load()(images), network(images))
        count = sum(each.numel() for each in network.parameters())
        assert f"{count:,} parameters" in out.read_text()
        states = torch.load(weights[0], weights_only=True).values()
        assert len({each.data_ptr() for each in states}) < len(states)


def test_a_supernet_of_shared_parts_is_kept_and_scores(digits: DataSet, tmp_path: Path) -> None:
    setting = setting_of(repeated, digits)
    params = SupernetParams(epochs=1, pool=0, recipe=Recipe(lr=0.01, batch_size=32))
    evaluator = SupernetEvaluator(params, setting)
    list(evaluator.prepare(tmp_path))
    for gene in (0, 1):
        answer = evaluator.evaluate(Candidate(setting.space.genome([gene])), 0)
        assert answer.status is Status.OK, answer.message
