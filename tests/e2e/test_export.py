"""Networks taken away: the same logits, bit for bit, where there is nothing but torch."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner, Result

from evonas import config, plugins
from evonas.cli import app
from evonas.export import network as export
from evonas.jobs import machine
from evonas.jobs.choice import choose
from evonas.jobs.search import build
from evonas.networks.decode import decode
from evonas.training.batches import resident
from tests.e2e.test_own import CLONE, DATA, SPACE

pytestmark = pytest.mark.usefixtures("no_workers")

SPACES: dict[str, dict[str, Any]] = {
    "nasbench201": {"name": "nasbench201", "channels": 2, "cells": 1},
    "darts": {"name": "darts", "channels": 2, "cells": 3, "auxiliary": True},
    "macro": {"name": "macro", "phases": 2, "channels": 2},
    "chain": {"name": "chain", "stages": [[4, 2, 1], [6, 2, 2]], "stem": 4},
    "channels": {"name": "channels", "stages": 2, "widths": [2, 4], "block": "inverted"},
    "own": {"name": "my_space.py:tiny", "channels": 3},
    "clone": {"name": "clone.py:cells", "channels": 2},
}
EXPERIMENT: dict[str, Any] = {
    "name": "exported",
    "data": {"name": "digits", "subset": 200},
    "strategy": {"name": "random", "population": 2},
    "evaluator": {"name": "train", "recipe": {"batch_size": 32}},
    "budget": {"steps": 4},
    "objectives": [{"name": "val_loss"}, {"name": "params"}],
    "stop": {"generations": 1},
    "finalists": {"top": 1, "seeds": 1},
    "parallel": {"workers": 1},
}
CONSTRAINTS = Path(__file__).resolve().parents[2] / "constraints.txt"
# What evonas brings along and torch does not need; with these out of the way, torch is alone.
BLOCKED = (
    *("evonas", "genomes", "numpy", "pandas", "deap", "matplotlib", "joblib", "pydantic", "typer"),
    *("rich", "sklearn", "scipy", "moocore", "safetensors", "yaml", "PIL"),
)
READER = """
import sys

sys.modules.update(dict.fromkeys({blocked!r}))
import torch
import {name}

network = {name}.EvolvedNetwork.load()
images = torch.load("images.pt", weights_only=True)
with torch.no_grad():
    torch.save(network({name}.normalised(images)), "logits.pt")
"""


def command(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(plugins, "_allowed", {})
    for name, text in (("my_space", SPACE), ("my_data", DATA), ("clone", CLONE)):
        (tmp_path / f"{name}.py").write_text(text)
    return tmp_path


def searched(folder: Path, space: str, **changes: Any) -> tuple[Path, Path]:
    path, out = folder / "experiment.yaml", folder / "run"
    path.write_text(yaml.safe_dump({**EXPERIMENT, "space": SPACES[space], **changes}))
    done = command("run", path, "--out", out)
    assert done.exit_code == 0, done.output
    return path, out


@pytest.mark.parametrize(
    "space",
    [
        pytest.param(space, marks=[] if space == "nasbench201" else [pytest.mark.slow])
        for space in SPACES
    ],
)
def test_an_exported_network_gives_the_same_logits_with_torch_alone(
    folder: Path, space: str
) -> None:
    path, out = searched(folder, space)
    file, colon, _ = SPACES[space]["name"].partition(":")
    own = ("--plugin", folder / file) if colon else ()
    done = command("export", out, "--out", folder / "taken.py", *own)
    assert done.exit_code == 0, done.output
    text = (folder / "taken.py").read_text()
    imported = re.findall(r"^(?:import|from) (\w+)", text, re.MULTILINE)  # pictures need Pillow
    assert "torch" in imported
    assert not {*imported} & {*BLOCKED}

    network = export.trained(out, "winner")
    original = decode(network.space, network.genome, **network.about["network"])
    original.load_state_dict(load_file(network.weights))
    experiment = config.load(path)
    experiment = experiment.model_copy(update={"parallel": machine.resolve(experiment.parallel)})
    data = resident(build(experiment).setting.trained().data, torch.device("cpu"))
    images = data.val.images[:20]
    with torch.no_grad():
        expected = original.eval()(data.normalised(images))
    torch.save(images, folder / "images.pt")
    (folder / "reader.py").write_text(READER.format(blocked=BLOCKED, name="taken"))
    done_alone = subprocess.run(
        [sys.executable, "-W", "ignore", "reader.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "", "OMP_NUM_THREADS": "1"},
    )
    assert done_alone.returncode == 0, done_alone.stderr
    assert torch.equal(torch.load(folder / "logits.pt", weights_only=True), expected)

    done = command("export", out, "--format", "onnx", "--out", folder / "taken.onnx", *own)
    assert done.exit_code == 0, done.output
    session = onnxruntime.InferenceSession(folder / "taken.onnx")
    [found] = session.run(None, {"images": images.float().numpy()})
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_an_exported_network_runs_where_only_torch_is_installed(folder: Path) -> None:
    """The environment has what `pip install torch` brings, and nothing else; not even NumPy."""
    _, out = searched(folder, "darts")
    assert command("export", out, "--out", folder / "taken.py").exit_code == 0
    torch.save(torch.randint(0, 256, (5, 1, 8, 8), dtype=torch.uint8), folder / "images.pt")
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "-c", CONSTRAINTS, "torch"]
    subprocess.run(install, check=True)
    listed = [python, "-m", "pip", "list", "--format", "json"]
    packages = json.loads(subprocess.run(listed, check=True, capture_output=True).stdout)
    assert not {package["name"].lower() for package in packages} & {*BLOCKED, "scikit-learn"}
    (folder / "reader.py").write_text(READER.format(blocked=(), name="taken"))
    subprocess.run([python, "reader.py"], cwd=folder, check=True)
    found = torch.load(folder / "logits.pt", weights_only=True)
    (folder / "reader.py").write_text(READER.format(blocked=BLOCKED, name="taken"))
    subprocess.run([sys.executable, "-W", "ignore", "reader.py"], cwd=folder, check=True)
    assert torch.equal(found, torch.load(folder / "logits.pt", weights_only=True))


def test_each_network_of_the_front_and_a_full_training_can_be_taken_away(folder: Path) -> None:
    _, out = searched(folder, "channels", strategy={"name": "random", "population": 4})
    front = pd.read_csv(out / "front.csv")
    for which in ("best", "knee", front["key"].iloc[-1]):
        file = folder / f"{which}.safetensors"
        done = command("export", out, "--genome", which, "--format", "torch", "--out", file)
        assert done.exit_code == 0, done.output
        assert load_file(file)
    assert accuracy(done) == f"{1 - front['val_error'].iloc[-1]:.4f} on the validation images"
    best = export.trained(out, "best")
    assert best.key == front["key"].iloc[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        done = command("export", out)
        assert done.exit_code == 0, done.output
        [winner] = pd.read_csv(out / "finalists.csv")["test_error"]
        assert accuracy(done) == f"{1 - winner:.4f} on the test images"
        stem = export.trained(out, "winner").key.replace("-", "_")
        assert stem.isidentifier()
        assert {path.name for path in Path().glob(f"{stem}.*")} == {f"{stem}.py", f"{stem}.pt"}
    done = command("train", out, "--epochs", "1", "--out", folder / "full")
    assert done.exit_code == 0, done.output
    done = command("export", folder / "full", "--out", folder / "full.py")
    assert done.exit_code == 0, done.output
    [error] = pd.read_csv(folder / "full" / "result.csv")["test_error"]
    assert accuracy(done) == f"{1 - error:.4f} on the test images"
    assert "classes: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9\n" in done.output
    weights = torch.load(folder / "full.pt", weights_only=True)
    trained = load_file(folder / "full" / "weights.safetensors")
    assert all(torch.equal(weights[name], tensor) for name, tensor in trained.items())


def accuracy(done: Result) -> str:
    """What an export says of it at the end."""
    [told] = [line for line in done.output.splitlines() if line.startswith("accuracy: ")]
    return told.removeprefix("accuracy: ")


def test_the_knee_is_the_point_nearest_to_the_corner(folder: Path) -> None:
    _, out = searched(folder, "channels")
    front = pd.DataFrame(
        {"genes": ["1-1", "0-1", "0-0"], "val_loss": [1.0, 1.1, 3.0], "params": [100, 20, 10]}
    )
    front.to_csv(out / "front.csv", index=False)
    assert choose(out, "knee").genome.text == "0-1"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--format", "pickle"), "--format: unknown format 'pickle'; allowed: python, torch, onnx"),
        (("--out", "winner.pt"), "--out winner.pt: does not end in .py, which python needs"),
        (("--genome", "9-9"), "gene stage1 of channels/v1 is 9; allowed: 0 to 1; or give winner"),
    ],
)
def test_mistakes_are_told(folder: Path, words: tuple[str, ...], told: str) -> None:
    _, out = searched(folder, "channels")
    done = command("export", out, *words)
    assert done.exit_code == 2, done.output
    assert told in done.stderr


def test_what_has_nothing_to_take_away_is_told(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no-run does not exist" in command("export", tmp_path / "no-run").stderr
    _, out = searched(folder, "channels")
    monkeypatch.setattr(export, "ONNX", ("onnx", "no_such_runtime"))
    refused = command("export", out, "--format", "onnx", "--out", folder / "x.onnx")
    assert refused.exit_code == 2
    assert "no_such_runtime not installed; run `pip install evonas[onnx]`" in refused.stderr
    for file in (out / "weights").iterdir():
        file.unlink()
    for which in ("winner", "best"):
        refused = command("export", out, "--genome", which)
        assert refused.exit_code == 2
        assert "a search keeps the weights of its front and of its winner" in refused.stderr


def test_a_space_of_ones_own_is_exported_with_its_file_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, out = searched(folder, "own")
    monkeypatch.setattr(plugins, "_allowed", {})
    refused = command("export", out, "--out", folder / "x.py")
    assert (refused.exit_code, "--plugin FILE" in refused.stderr) == (2, True)
    done = command("export", out, "--out", folder / "x.py", "--plugin", folder / "my_space.py")
    assert done.exit_code == 0, done.output
    text = (folder / "x.py").read_text()
    assert "nn.Conv2d(" in text
    assert not any(word in text for word in ("pick", "evonas.space"))
    assert json.loads((out / "environment.json").read_text())["plugins"]
