"""Spaces and data sets of one's own: those of the documentation, and what is wrong with others."""

from __future__ import annotations

import itertools
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from torch import nn
from typer.testing import CliRunner, Result

import evonas
from evonas import plugins
from evonas.cli import app
from evonas.core import UserError
from evonas.networks.decode import decode
from evonas.oneshot.supernet import Supernet
from evonas.own import OwnSpace
from genomes import NASBench201
from tests.e2e.test_docs import DOCS, blocks
from tests.helpers.here import instead_of_workers

SPACE, DATA, METRICS, EVALUATOR, STRATEGY, CONTRACTS, CLONE = (
    text for _, text in blocks(DOCS / "own.md", "python")
)
EXPERIMENT = {
    "name": "own",
    "space": {"name": "my_space.py:tiny", "channels": 4},
    "data": {"name": "my_data.py:even", "first": 300},
    "strategy": {"name": "nsga2", "population": 3},
    "evaluator": {"name": "train"},
    "budget": {"epochs": 1},
    "objectives": [{"name": "val_error"}, {"name": "params"}],
    "stop": {"generations": 2},
    "finalists": {"top": 1, "seeds": 1},
    "parallel": {"workers": 1},
}


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    forget(monkeypatch)
    (tmp_path / "my_space.py").write_text(SPACE)
    (tmp_path / "my_data.py").write_text(DATA)
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(EXPERIMENT))
    return path


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a new process."""
    monkeypatch.setattr(plugins, "_allowed", {})
    plugins._module.cache_clear()
    for name in [name for name in sys.modules if name.startswith("evonas_plugin_")]:
        del sys.modules[name]


def command(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.mark.slow
@pytest.mark.figures
def test_the_space_and_the_data_of_the_documentation_are_searched(
    experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert max(len(text.splitlines()) for text in (SPACE, DATA)) < 30
    # What it calls may be in a file beside.
    imports, conv, space = re.split(r"(?ms)(^def conv.*?)(?=^@evonas)", SPACE)
    (tmp_path / "my_space.py").write_text(f"{imports}from my_parts import conv\n\n\n{space}")
    (tmp_path / "my_parts.py").write_text(f"from torch import nn\n\n\n{conv}")
    out, more = tmp_path / "run", ("--set", "stop.generations=3")
    done = command("run", experiment, "--out", out)
    assert done.exit_code == 0, done.output
    own = "".join(f" --plugin {tmp_path / file}" for file in ("my_space.py", "my_data.py"))
    assert f"To train the winner in full: evonas train {out}{own}\n" in done.output
    evaluations = pd.read_csv(out / "evaluations.csv")
    assert evaluations["genome"].str.match(r"\w+=\w+, ").all()
    assert (evaluations["status"] == "ok").all()
    assert {"ops", "cell", "front"} <= {path.stem for path in (out / "figures").glob("*.png")}
    recorded = json.loads((out / "environment.json").read_text())["plugins"]
    assert {Path(file).name for file in recorded} == {"my_space.py", "my_data.py"}
    assert [*json.loads((out / "environment.json").read_text())["helpers"]] == [
        str(tmp_path / "my_parts.py")
    ]
    shown = command("show", evaluations["genes"][0], "--experiment", experiment)
    assert f"{evaluations['params'][0]:,}" in shown.output
    for file in ("my_space.py", "my_data.py"):
        (tmp_path / file).rename(tmp_path / f"moved_{file}")
    own = [word for file in recorded for word in ("--plugin", moved(file))]
    for words in (("resume", out, *more), ("train", out, "--epochs", "1")):
        forget(monkeypatch)
        refused = command(*words)
        assert (refused.exit_code, "--plugin FILE" in refused.stderr) == (2, True), refused.output
        assert not any(name.startswith("evonas_plugin_") for name in sys.modules)
        with instead_of_workers():
            done = command(*words, *own)
        assert done.exit_code == 0, done.output
    for words in (("show", out), ("plot", out), ("report", out), ("compare", out, out)):
        forget(monkeypatch)
        command(*words)
        assert not any(name.startswith("evonas_plugin_") for name in sys.modules), words


def moved(file: str) -> Path:
    return Path(file).with_name(f"moved_{Path(file).name}")


def test_validate_imports_nothing(experiment: Path, tmp_path: Path) -> None:
    for file in ("my_space.py", "my_data.py"):
        (tmp_path / file).write_text("raise SystemExit('imported')")
    done = command("validate", experiment)
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("space.chanels=3", "space.chanels: unknown key; keys of"),
        ("space.channels=many", "space.channels: is 'many'"),
        ("space.name=my_space.py:huge", "has no function huge"),
        (
            "space.name=my_space.py:conv",
            "must be of the form def NAME(pick, *, in_channels, classes, ...)",
        ),
        ("space.name=none.py:tiny", "none.py: No such file"),
        ("data.frst=3", "data.frst: unknown key; keys of"),
        ("data.name=none.py:even", "none.py does not exist"),
    ],
)
def test_mistakes_are_told_and_leave_no_folder(
    experiment: Path, tmp_path: Path, change: str, told: str
) -> None:
    done = command("run", experiment, "--out", tmp_path / "run", "--set", change)
    assert done.exit_code == 2, done.output
    assert told in done.stderr
    assert not (tmp_path / "run" / "config.yaml").exists()


def drawn(pick: Any, *, in_channels: int, classes: int) -> nn.Module:
    pick(f"gene{next(NUMBERS)}", {"a": 1, "b": 2})
    return nn.Linear(in_channels, classes)


NUMBERS = itertools.count()


def endless(pick: Any, *, in_channels: int, classes: int) -> nn.Module:
    more = 0
    while pick(f"more{more}", {"no": False, "yes": True}):
        more += 1
    return nn.Linear(in_channels, classes)


def wavering(pick: Any, *, in_channels: int, classes: int) -> nn.Module:
    width = pick("width", {"8": 8, "16": 16})
    pick("kernel", {"3": 3} if width == 8 else {"3": 3, "5": 5})
    return nn.Linear(in_channels, classes)


def renamed(pick: Any, *, in_channels: int, classes: int) -> nn.Module:
    pick("op", {"a": 1, "b": 2})
    pick("op", {"a": 1, "c": 2})
    return nn.Linear(in_channels, classes)


def spaced(pick: Any, *, in_channels: int, classes: int) -> nn.Module:
    pick("an op", {"a": 1})
    return nn.Linear(in_channels, classes)


def numbered(pick: Any, *, in_channels: int, classes: int) -> nn.Module:
    pick("op", {3: 1})
    return nn.Linear(in_channels, classes)


def twice(pick: Any, *, in_channels: int, classes: int) -> nn.Module:
    pick("op", [12, "12"])
    return nn.Linear(in_channels, classes)


def tuples(pick: Any, *, in_channels: int, classes: int) -> nn.Module:
    pick("op", [(3, 5), (3, 3)])
    return nn.Linear(in_channels, classes)


def empty(pick: Any, *, in_channels: int, classes: int) -> nn.Module:
    pick("op", [])
    return nn.Linear(in_channels, classes)


def listed(pick: Any, *, in_channels: int, classes: int) -> nn.Module:
    width = pick("width", [12, 20, 32])
    act = pick("act", (nn.ReLU, nn.GELU))
    layers = [nn.Conv2d(in_channels, width, 3), act]
    layers += [nn.Conv2d(width, width, 1) for _ in range(pick("depth", range(3)))]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))


def switches(pick: Any, *, in_channels: int, classes: int) -> nn.Module:
    act = pick("act", [nn.ReLU, nn.GELU])
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(classes), act)


def test_candidates_may_be_a_list_whose_members_name_themselves() -> None:
    space = OwnSpace(listed, {})
    assert [gene.choices for gene in space.genes] == [
        ("12", "20", "32"),
        ("ReLU", "GELU"),
        ("0", "1", "2"),
    ]
    network = decode(space, space.parse("1-1-2"), in_channels=1, classes=3)
    assert network[0].out_channels == 20
    assert isinstance(network[1], nn.GELU)
    assert space.named(space.parse("1-1-2")) == "width=20, act=GELU, depth=2"
    assert network(torch.zeros(2, 1, 8, 8)).shape == (2, 3)
    shared = OwnSpace(switches, {})
    supernet = Supernet(shared, shared.blueprint, {}, in_channels=1, classes=3)
    assert supernet.ops == {"act": ("ReLU", "GELU")}


def idle(pick: Any, *, in_channels: int, classes: int) -> nn.Module:
    return nn.Linear(in_channels, classes)


def broken(pick: Any, *, in_channels: int, classes: int) -> nn.Module:
    if pick("op", {"a": 1, "b": 2}) == 2:
        raise RuntimeError("no b")
    return nn.Linear(in_channels, classes)


def no_network(pick: Any, *, in_channels: int, classes: int) -> Any:
    return pick("op", {"a": 1})


def greedy(pick: Any, *everything: Any, in_channels: int, classes: int) -> nn.Module:
    return nn.Linear(in_channels, classes)


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (wavering, "the candidates of kernel change with width=16: they were 3, and are now 3, 5"),
        (drawn, "drawn picks other genes when it is called again"),
        (endless, "endless has more than 50 genes; its picks must come to an end"),
        (renamed, "the candidates were a, b before, and are now a, c"),
        (spaced, "text without spaces"),
        (numbered, "the candidate's name 3 is invalid"),
        (twice, "two candidates have the same name among 12"),
        (tuples, "must be text without spaces; give a mapping from names to candidates"),
        (empty, "there are no candidates; must be a list of candidates, or a mapping"),
        (idle, "picks nothing"),
        (broken, "raised RuntimeError with op=b: no b ("),
        (no_network, "returned a value of type int; must return a torch.nn.Module"),
        (greedy, "it may have only arguments that can be passed by name"),
        (lambda x: x, "must be of the form def NAME"),
    ],
)
def test_a_function_that_spans_no_space_is_refused_by_name(
    build: Callable[..., Any], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evonas.own.MOST_GENES", 50)
    with pytest.raises(UserError, match="(?s)" + told.replace("(", r"\(").replace("*", r"\*")):
        OwnSpace(build, {})


def test_the_decorator_refuses_what_is_no_space_at_once() -> None:
    with pytest.raises(UserError, match=r"must be of the form def NAME\(pick, \*"):
        evonas.space(lambda network: network)
    with pytest.raises(UserError, match=r"^space.name: is 'x.py:1'; must be FILE.py:NAME"):
        evonas.search("x.py:1", evaluate=lambda genome: {}, objectives=["a"], generations=1)


def test_genes_are_found_by_calling_the_function_and_settings_by_its_defaults() -> None:
    module: dict[str, Any] = {}
    exec(SPACE, module)
    space = OwnSpace(module["tiny"], {"channels": 5})
    assert [gene.name for gene in space.genes] == [f"layer{i}" for i in range(4)]
    assert space.genes[0].choices == ("conv3", "conv5", "skip")
    network = decode(space, space.parse("0-1-2-0"), in_channels=1, classes=3)
    kernels = [m.kernel_size[0] for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert kernels == [3, 3, 5, 3]
    assert network(torch.zeros(2, 1, 8, 8)).shape == (2, 3)
    found = evonas.search(
        module["tiny"],
        evaluate=lambda genome: {"skips": genome.genes.count(2)},
        objectives=[("skips", "max")],
        generations=5,
    )
    assert found.front["skips"].tolist() == [4]


def test_a_clone_of_nas_bench_201_gives_the_same_logits() -> None:
    module: dict[str, Any] = {}
    exec(CLONE, module)
    built_in, clone = NASBench201(), OwnSpace(module["cells"], {"channels": 4})
    assert clone.genes == built_in.genes
    rng, images = np.random.default_rng(0), torch.randn(4, 3, 16, 16)
    for _ in range(10):
        genes = built_in.sample(rng).genes
        networks = []
        for space in (built_in, clone):
            torch.manual_seed(1)
            genome = space.genome(genes)
            networks.append(decode(space, genome, prune=False, channels=4, cells=1))
        for training in (True, False):
            logits = [network.train(training)(images) for network in networks]
            assert torch.equal(*logits)
        assert sum(p.numel() for p in networks[0].parameters()) == sum(
            p.numel() for p in networks[1].parameters()
        )
