"""Networks of a space of one's own are tried out before a search."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn
from typer.testing import CliRunner

from evonas.cli import app
from evonas.core import UserError
from evonas.data.dataset import DataSet, split
from evonas.data.digits import Digits, DigitsParams
from evonas.evaluators.train import TrainEvaluator, TrainParams
from evonas.jobs import machine
from evonas.jobs.parts import Parts, try_out
from evonas.loop import guarded
from evonas.own import OwnSpace
from evonas.protocols import Setting, TrainingSetting
from evonas.training.loop import Hardware


class Here:
    """Workers that are this process."""

    count = 1

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(guarded(*arguments[:3]))
        return future

    def warm(self, function: Callable[..., Any]) -> None: ...

    def renew(self) -> None: ...

    def trace(self, number: int) -> Path:
        return Path()

    def close(self) -> None: ...


class Does(nn.Module):
    """A network that ends in a function; it has one layer, or none."""

    def __init__(self, last: Callable[[Tensor], Any], layer: nn.Module | None) -> None:
        super().__init__()
        self.last, self.layer = last, layer or nn.Identity()

    def forward(self, images: Tensor) -> Any:
        return self.last(self.layer(images.flatten(1)))


def network(last: Callable[[Tensor], Any] = lambda x: x, out: int = 10) -> Callable[[], nn.Module]:
    return lambda: Does(last, nn.Linear(64, out))


def leave(x: Tensor) -> Tensor:
    sys.exit("gone")


def frozen() -> nn.Module:
    return network()().requires_grad_(False)


def two_heads() -> nn.Module:
    made = Does(lambda x: (x, x) if made.training else x, nn.Linear(64, 10))
    return made


@pytest.fixture(scope="module")
def digits() -> DataSet:
    params = DigitsParams(subset=100)
    return split(Digits(params), params)[0]


def tried(data: DataSet, **candidates: Callable[[], nn.Module]) -> None:
    def mine(pick: Any, *, in_channels: int, classes: int) -> nn.Module:
        made: nn.Module = pick("op", candidates)
        return made

    space = OwnSpace(mine, {})
    setting = Setting(space, training=TrainingSetting({}, data, Hardware()))
    try_out(Parts(setting, TrainEvaluator(TrainParams(), setting), None), Here(), None)


HINT = (
    r"; must return logits \(n, 10\) for images \(n, 1, 8, 8\), and have trainable parameters, "
    "whatever is picked$"
)


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (network(out=7), r"returned a tensor of the shape \(2, 7\)"),
        (network(lambda x: x[:, :, None, None]), r"returned a tensor of the shape \(2, 10, 1, 1\)"),
        (network(lambda x: x.mean(0)), r"returned a tensor of the shape \(10,\)"),
        (network(lambda x: x.argmax(1)), r"returned a tensor of the shape \(2,\)"),
        (network(lambda x: x.long()), r"returned numbers of the type torch.int64"),
        (network(lambda x: {"logits": x}), "returned a value of type dict"),
        (network(lambda x: (x, x)), "returned a value of type tuple"),
        (network(lambda x: x.detach()), "returned logits that no trainable parameter has a part"),
        (network(lambda x: x.relu().add_(1).exp().mul_(x)), "raised RuntimeError: one of the vari"),
        (lambda: nn.Linear(32, 10), "raised RuntimeError: mat1 and mat2 shapes cannot"),
        (lambda: Does(lambda x: x[:, :10], None), "has no trainable parameters"),
        (frozen, "has no trainable parameters"),
    ],
)
def test_what_cannot_be_trained_is_told_before_a_search(
    bad: Callable[[], nn.Module], told: str, digits: DataSet
) -> None:
    with pytest.raises(UserError, match=f"^space: mine with op=bad {told}.*{HINT}"):
        tried(digits, good=network(), bad=bad)


def test_what_can_be_trained_is_not_refused(digits: DataSet) -> None:
    before = torch.get_rng_state()
    tried(digits, good=network(), two=two_heads)
    assert torch.equal(torch.get_rng_state(), before)


def test_what_does_not_end_like_a_function_is_a_fault_unless_all_do(
    digits: DataSet, caplog: pytest.LogCaptureFixture
) -> None:
    tried(digits, good=network(), bad=network(leave))
    assert "op=bad crashed: SystemExit: gone" in caplog.text
    with pytest.raises(UserError, match=r"^space: mine with op=bad SystemExit: gone"):
        tried(digits, bad=network(leave))


SPACE = """
from torch import nn


def ten(pick, *, in_channels, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, pick("width", {"4": 4, "8": 8})))
"""
EXPERIMENT = {
    "name": "tried",
    "space": {"name": "mine.py:ten"},
    "data": {"name": "digits", "subset": 100},
    "strategy": {"name": "random", "population": 2},
    "evaluator": {"name": "train"},
    "budget": {"steps": 1},
    "objectives": [{"name": "val_error"}],
    "stop": {"generations": 1},
    "finalists": {"top": 0},
}


def test_a_run_begins_with_it_and_a_mistake_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "workers", lambda *_: Here())
    (tmp_path / "mine.py").write_text(SPACE)
    path, out = tmp_path / "tried.yaml", tmp_path / "run"
    path.write_text(yaml.safe_dump(EXPERIMENT))
    done = CliRunner().invoke(app, ["run", str(path), "--out", str(out)])
    assert done.exit_code == 2, done.output
    assert "mine.py:ten with width=4 returned a tensor of the shape (2, 4); " in done.stderr
    assert not out.exists()


def test_the_smallest_the_largest_and_every_choice_are_tried() -> None:
    def mine(pick: Any, *, in_channels: int, classes: int) -> nn.Module:
        widths = {str(width): width for width in (8, 2, 32, 4)}
        a, b = pick("a", widths), pick("b", widths)
        return nn.Sequential(nn.Linear(in_channels, a), nn.Linear(a, b), nn.Linear(b, classes))

    space = OwnSpace(mine, {})
    smallest, largest, *_ = trials = space.trials()
    assert (smallest.genes, largest.genes) == ((1, 1), (2, 2))
    for gene in (0, 1):
        assert {genome.genes[gene] for genome in trials} == {0, 1, 2, 3}
    assert OwnSpace(mine, {}).trials() == space.trials()
