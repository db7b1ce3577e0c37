"""The documentation: it builds, its commands run as they stand, its settings are valid."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from evonas import config, loggers, registry, search, yamlfile
from evonas.bench import spec as bench
from evonas.cli import app
from evonas.data.idx import STEMS, FashionMnist
from evonas.experiment import COMPONENTS, Experiment
from evonas.records.tables import winner
from evonas.testing import CONTRACTS
from tests.helpers import ROOT

DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.glob("*.md")), ROOT / "README.md"]


def blocks(page: Path, *languages: str) -> list[tuple[str, str]]:
    """The language and text of each block of code in these languages, in order."""
    found = re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [(language, text) for language, text in found if language in languages]


def commands(page: Path) -> list[str]:
    """What a reader would type: lines of `sh`, of `console` after the prompt, and indented ones.

    Those inside a loop of the shell are indented once more.
    """
    lines = re.findall(r"^    (?:\$ )?(evonas .*)$", page.read_text(), re.MULTILINE)
    for language, text in blocks(page, "sh", "console"):
        typed = [line.strip() for line in text.splitlines()]
        lines += typed if language == "sh" else [x[2:] for x in typed if x.startswith("$ ")]
    return lines


def hooks() -> Any:
    """`docs/hooks.py`, which is no package's."""
    spec = importlib.util.spec_from_file_location("hooks", DOCS / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_pages_are_current(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")  # of no account
    made = hooks()
    for page, key in ("experiment", "mutation_rate"), ("commands", "evonas resume"):
        text = (DOCS / "reference" / f"{page}.md").read_text()
        assert key in text
        assert made.refreshed(text) == text, (
            f"docs/reference/{page}.md is not what the code says; run `python docs/hooks.py`, with "
            "the versions of constraints.txt, and commit the page"
        )
    with pytest.raises(ValueError, match="without <!-- /keys -->"):
        made.refreshed("<!-- keys -->")


def test_commands_in_a_loop_of_the_shell_are_checked() -> None:
    typed = commands(DOCS / "compare.md")
    assert sum(line.startswith("evonas run mine.yaml --seed $seed") for line in typed) == 2


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    reference = (tmp_path / "reference" / "experiment" / "index.html").read_text()
    for key in ("mutation_rate", "split_seed", "label_smoothing", "timeout", "reference"):
        assert f"<code>{key}</code>" in reference
    told = (tmp_path / "reference" / "commands" / "index.html").read_text()
    for command in ("run", "resume", "train", "estimate", "init", "plot", "report", "compare"):
        assert f"evonas {command}" in told


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text()
    pages = [str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")]
    assert [page for page in pages if page not in navigation] == []


def test_every_setting_has_a_meaning_in_the_reference() -> None:
    without = []
    todo: list[object] = [Experiment]
    for kind in COMPONENTS.values():
        for component in registry.TABLES[kind]:
            loaded = registry.load(kind, component)
            todo.append(loaded.params if kind == "networks" else loaded.Params)
    assert len(todo) > 10
    while todo:
        model = todo.pop()
        assert isinstance(model, type)
        for name, field in model.model_fields.items():  # type: ignore[attr-defined]
            if name != "name" and not field.description:
                without.append(f"{model.__name__}.{name}")
            inner = [field.annotation, *getattr(field.annotation, "__args__", ())]
            todo += [x for x in inner if isinstance(x, type) and hasattr(x, "model_fields")]
    assert without == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_has_only_options_that_there_are(page: Path) -> None:
    for line in commands(page):
        if line.startswith("evonas "):
            name, *rest = shlex.split(line)[1:]
            help_ = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "200"})
            assert help_.exit_code == 0, line
            for option in (word for word in rest if word.startswith("--")):
                assert option in help_.output, line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_setting_shown_is_valid(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = tmp_path / "data" / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for stem in STEMS:
        (raw / stem).touch()
    monkeypatch.setattr(FashionMnist, "packaged", (str(raw),))
    monkeypatch.setattr(loggers, "check_installed", lambda _: None)  # wandb is not, for tests
    for name in "cat", "dog":
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(5):
            Image.new("RGB", (8, 8)).save(tmp_path / "pictures" / name / f"{i}.png")
    (tmp_path / "my_data.py").touch()
    np.savez(tmp_path / "mine.npz", images=np.zeros((8, 4, 4)), labels=np.arange(8) % 2)
    base = yamlfile.read(ROOT / "experiments" / "quickstart.yaml")
    for _, text in blocks(page, "yaml"):
        experiment, settings = tmp_path / "experiment.yaml", yamlfile.parse(text)
        if "name" not in settings:  # some settings of an experiment
            settings = {**base, **settings}
            if settings["evaluator"]["name"] == "supernet":
                del settings["budget"]  # as the page says
        experiment.write_text(yamlfile.dump(settings))
        (bench.load if "protocol" in settings else config.load)(experiment)


def test_the_readmes_numbers_are_those_of_the_tables() -> None:
    readme = (ROOT / "README.md").read_text()
    reference = ROOT / "results" / "reference" / "fashion_mnist"
    scores = [winner(reference / arm) for arm in ("genetic", "random")]
    scores.append(pd.read_csv(reference / "winner" / "result.csv").iloc[0])
    for score in scores:
        told = f"{score['params']:,} | {1 - score['test_error']:.4f} ± {score['test_error_se']:.4f}"
        assert told in readme
    assert scores[0]["key"] == scores[2]["key"]
    for arm in ("genetic", "random"):
        trained = pd.read_csv(reference / arm / "generations.csv")["trained"].sum()
        assert f"| {trained} | {winner(reference / arm)['params']:,} |" in readme


@pytest.mark.slow
@pytest.mark.figures
def test_the_tutorial_runs_from_its_first_command_to_its_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    quickstart = str(ROOT / "experiments" / "quickstart.yaml")
    assert typed(["run", quickstart, "--out", "results/quickstart"])
    page = DOCS / "tutorial.md"
    for language, text in blocks(page, "sh", "python"):
        if language == "python":
            exec(compile(text, str(page), "exec"), {})
            continue
        for line in text.splitlines():
            if line in ("make quickstart", "source .venv/bin/activate"):
                continue  # done
            words = shlex.split(line)
            assert words[0] == "evonas", line
            assert typed(words[1:]), line
    figures = {path.stem for path in Path("results/mine/figures").glob("*.png")}
    assert {"front", "cell", "objectives"} <= figures
    assert len(pd.read_csv("results/mine/evaluations.csv")) == 100
    error = pd.read_csv("results/mine-winner/result.csv")["test_error"][0]
    assert error < 0.05


def test_the_examples_of_strategies_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    operators, strategy, contracts, evolving = blocks(DOCS / "strategies.md", "python")
    Path("ops.py").write_text(operators[1])
    assert len(operators[1].splitlines()) < 25
    first, second = ([0] * 6, [1] * 6)
    module: dict[str, Any] = {}
    exec(operators[1], module)
    for a, b in zip(*module["biased"](first, second, np.random.default_rng(0)), strict=True):
        assert {a, b} == {0, 1}
    own = {"crossover": "biased", "mutation": "step", "selection": "better_half"}
    found = search(
        "nasbench201",
        evaluate=lambda genome: {"loss": float(sum(genome.genes))},
        objectives=["loss"],
        strategy={"name": "genetic", **{key: f"ops.py:{own[key]}" for key in own}},
        generations=3,
    )
    assert found.evaluations["origin"].str.contains("mutation").any()
    Path("climb.py").write_text(strategy[1])
    names: dict[str, Any] = {}
    exec(contracts[1], names)
    for contract in CONTRACTS:
        names["test_climb_keeps_its_promises"](contract)
    exec(evolving[1], {})
    best = [int(float(line.split()[1])) for line in capsys.readouterr().out.splitlines()]
    assert len(best) == 8
    assert best[-1] > best[0]


def test_the_examples_of_tables_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = DOCS / "tables.md"
    [(_, table)] = blocks(page, "csv")
    Path("cells.csv").write_text(table)
    for (_, text), name in zip(blocks(page, "yaml"), ("cells", "halved", "bench"), strict=True):
        Path(f"{name}.yaml").write_text(text)
    *runs, bench = (line for line in commands(page) if "benchmarks/" not in line)
    assert all(typed(shlex.split(line)[1:]) for line in runs)
    assert typed([*shlex.split(bench)[1:], "--workers", "1"])
    budgets = set(pd.read_csv("results/halved-seed0/evaluations.csv")["budget"])
    assert budgets == {"epochs=10/100", "epochs=100"}
    spent = pd.read_csv("results/cells-seed0/generations.csv")["simulated_seconds"]
    assert 0 < spent.iloc[-1] <= 3600
    told = {path.name for path in Path("results/bench-cells").iterdir()}
    listed = set(re.findall(r"`((?:runs|summary|best|bench|environment)\.\w+)`", page.read_text()))
    assert listed <= told


def typed(words: list[str]) -> bool:
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, f"{words}: {done.output}"
    return True
