"""From a YAML file to a run folder, through the command, on real images."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner, Result

from evonas import config, registry
from evonas.api import search
from evonas.api_training import training_evaluator
from evonas.cli import app
from evonas.core import Status
from evonas.data.dataset import split
from evonas.data.digits import Digits, DigitsParams
from evonas.metrics import TRAINED
from evonas.networks.decode import decode
from evonas.records.tables import evaluation_columns
from evonas.results import RunResult
from genomes import NASBench201
from tests.helpers import ROOT
from tests.helpers.here import instead_of_workers

SPACE = NASBench201()
EXPERIMENT = """
name: tiny
seed: 1
space: {name: nasbench201, channels: 4, cells: 1}
data: {name: digits}
strategy: {name: genetic, population: 6, elites: 2}
evaluator: {name: train, recipe: {lr: 0.1, batch_size: 64}}
budget: {epochs: 1}
objectives: [{name: val_error}, {name: params}]
stop: {generations: 2}
finalists: {top: 2, seeds: 2, budget: {epochs: 2}}
parallel: {workers: 1, timeout: 100}
"""


def evonas(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("experiment") / "tiny.yaml"
    path.write_text(EXPERIMENT)
    return path


@pytest.fixture
def with_faults(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Lets an experiment name an evaluator that fails on purpose."""
    target = "tests.helpers.faulty_training:FaultyEvaluator"
    monkeypatch.setitem(registry.TABLES["evaluators"], "faulty", target)
    registry.table.cache_clear()
    yield
    registry.table.cache_clear()


@pytest.fixture(scope="module")
def run_dir(experiment: Path) -> Path:
    out = experiment.parent / "run"
    result = evonas("run", experiment, "--out", out)
    assert result.exit_code == 0, result.output
    return out


def test_a_run_folder_holds_what_it_should(run_dir: Path) -> None:
    held = {path.name for path in run_dir.iterdir()}
    tables = {f"{name}.csv" for name in ("evaluations", "generations", "fronts", "front")}
    tables |= {"finalists.csv", "posterior.csv", "timings.csv", "split.csv"}
    files = {"config.yaml", "environment.json", "space.json", "journal", "log.txt", "lock"}
    assert held == tables | files | {"checkpoints", "weights", "scratch", "figures"}
    assert not list((run_dir / "scratch").iterdir())


def test_every_table_opens_with_plain_read_csv(run_dir: Path) -> None:
    evaluations = pd.read_csv(run_dir / "evaluations.csv")
    assert tuple(evaluations.columns) == evaluation_columns([metric.name for metric in TRAINED])
    assert len(evaluations) == 12
    assert evaluations["index"].tolist() == list(range(12))
    assert set(evaluations["status"]) == {"ok"}
    assert evaluations["deterministic"].all()
    for row in evaluations.to_dict("records"):
        genome = SPACE.parse(row["genome"])
        assert genome.text == row["genes"]
        assert SPACE.key(genome) == row["key"]
    generations = pd.read_csv(run_dir / "generations.csv")
    assert generations["evaluations"].tolist() == [6, 6]
    best = evaluations.groupby("generation")["val_error"].min()
    assert generations["val_error_best"].tolist() == best.tolist()
    assert generations["hypervolume"].is_monotonic_increasing
    fronts = pd.read_csv(run_dir / "fronts.csv")
    assert generations["front_size"].tolist() == fronts.groupby("generation").size().tolist()
    places = pd.read_csv(run_dir / "split.csv")
    data, test = split(Digits(DigitsParams()), DigitsParams())
    images, _ = Digits(DigitsParams()).load()
    assert places["image"].tolist() == list(range(1797))
    for name, part in (("train", data.train), ("val", data.val), ("test", test)):
        rows = places[places["part"] == name]
        assert rows["label"].tolist() == part.labels.tolist()
        assert (images.images[rows["image"]] == part.images).all()
    timings = pd.read_csv(run_dir / "timings.csv")
    assert timings["phase"].value_counts().to_dict() == {"search": 12, "finalists": 4}
    assert (timings["seconds"] >= timings["training_seconds"]).all()
    assert (timings["training_seconds"] > 0).all()


def test_the_front_is_what_no_other_network_dominates(run_dir: Path) -> None:
    evaluations = pd.read_csv(run_dir / "evaluations.csv").drop_duplicates("key")
    front = pd.read_csv(run_dir / "front.csv")
    kept = set(front["key"])
    for row in evaluations.itertuples():
        better = evaluations[
            (evaluations.val_error <= row.val_error)
            & (evaluations.params <= row.params)
            & ((evaluations.val_error < row.val_error) | (evaluations.params < row.params))
        ]
        assert (row.key in kept) == better.empty


def test_weights_of_the_front_are_kept_and_no_others(run_dir: Path) -> None:
    front = pd.read_csv(run_dir / "front.csv")
    held = {path.stem for path in (run_dir / "weights").iterdir()}
    assert held == {*front["key"], "winner"}
    for row in front.to_dict("records"):
        network = decode(
            SPACE, SPACE.parse(row["key"][1:]), in_channels=1, classes=10, channels=4, cells=1
        )
        network.load_state_dict(load_file(run_dir / "weights" / f"{row['key']}.safetensors"))
        assert sum(p.numel() for p in network.parameters()) == row["params"]


def test_the_readme_takes_the_winner_away_and_it_scores_what_the_table_says(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "README.md").read_text()
    [line] = re.findall(r"^    (evonas export .*)$", text, re.MULTILINE)
    words = line.replace("results/quickstart", str(run_dir)).split()[1:]
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "winner", raising=False)  # another test's
    assert CliRunner().invoke(app, words).exit_code == 0
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    params = DigitsParams()
    _, test = split(Digits(params), params)
    Image.fromarray(16 * test.images[0, 0].clip(0, 15)).save("digit.png")
    names: dict[str, Any] = {}
    exec(next(block for block in blocks if "predict(" in block), names)
    wrong = np.array(names["predict"](test.images)) != test.labels.astype(str)
    error = wrong.mean()
    finalists = pd.read_csv(run_dir / "finalists.csv")
    assert error == pytest.approx(finalists["test_error"][0])


def test_python_opens_a_run_and_a_search_that_trains_has_its_very_numbers(run_dir: Path) -> None:
    run, settings = RunResult(run_dir), yaml.safe_load(EXPERIMENT)
    assert run.winner is not None
    assert run.best.text == run.winner["genes"] == run.finalists["genes"][0]
    assert f"winner {run.winner['genome']}: test_error {run.winner['test_error']:.4g}" in repr(run)
    assert run.winner["key"] in run._repr_html_()
    saved = load_file(run_dir / "weights" / "winner.safetensors")
    for name, tensor in run.network().state_dict().items():
        assert torch.equal(tensor, saved[name])
    found = search(
        settings["space"],
        evaluate=training_evaluator(
            data=settings["data"],
            budget=settings["budget"],
            recipe=settings["evaluator"]["recipe"],
            device="cpu",
        ),
        objectives=settings["objectives"],
        strategy=settings["strategy"],
        generations=1,
        seed=settings["seed"],
    )
    assert found.evaluations["val_error"].tolist() == run.evaluations["val_error"][:6].tolist()
    assert found.evaluations["key"].tolist() == run.evaluations["key"][:6].tolist()
    pd.testing.assert_frame_equal(found.generations, run.generations[:1])


@pytest.mark.slow
def test_the_page_on_python_runs(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the run of this file in place of the quickstart's, which takes minutes."""

    def run(experiment: str, *, seed: int) -> RunResult:
        assert config.load(ROOT / experiment).name == "quickstart"
        return RunResult(run_dir)

    monkeypatch.setattr("evonas.run", run, raising=False)
    names: dict[str, Any] = {}
    page = (ROOT / "docs" / "python.md").read_text()
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(block, names)
    assert len(names["found"].evaluations) == 8
    assert names["found"].evaluations["status"].eq("ok").all()
    assert names["trained"].evaluations["val_error"].notna().any()
    assert names["comparison"].summary["n"].tolist() == [5, 5]
    assert names["network"](torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_the_readme_searches_from_python(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(next(block for block in blocks if "evonas.search(" in block), names)
    found = names["found"]
    assert len(found.generations) == 8
    assert str(found.best) in capsys.readouterr().out
    assert found.front["convolutions"].iloc[0] == found.evaluations["convolutions"].max()


def test_the_readme_shows_the_quickstart_as_it_is() -> None:
    quickstart = (ROOT / "experiments" / "quickstart.yaml").read_text()
    lines = [line for line in quickstart.splitlines() if not line.startswith("#")]
    assert "\n".join(lines) in (ROOT / "README.md").read_text()


def test_the_winner_is_the_finalist_with_the_best_mean(run_dir: Path) -> None:
    finalists = pd.read_csv(run_dir / "finalists.csv")
    assert len(finalists) == 2
    assert finalists["winner"].tolist() == [True, False]
    assert finalists["val_error"].is_monotonic_increasing
    for row in finalists.to_dict("records"):
        seeds = [float(text) for text in row["val_error_by_seed"].split()]
        assert sum(seeds) / 2 == pytest.approx(row["val_error"])
        assert pd.Series(seeds).std() == pytest.approx(row["val_error_std"])
    error = finalists["test_error"][0]
    assert 0 <= error < 0.5
    assert finalists["test_error_se"][0] == pytest.approx((error * (1 - error) / 359) ** 0.5, 0.02)
    assert pd.isna(finalists["test_error"][1])


def test_the_resolved_config_says_all_and_runs_again(run_dir: Path, experiment: Path) -> None:
    resolved = config.load(run_dir / "config.yaml")
    asked = config.load(experiment)
    assert resolved.strategy == asked.strategy
    assert resolved.parallel.device in ("cpu", "cuda:0", "cuda")
    assert resolved.parallel.precision in ("float32", "bfloat16")
    references = [objective.reference for objective in resolved.objectives]
    network = decode(
        SPACE, SPACE.parse("3-3-3-3-3-3"), in_channels=1, classes=10, channels=4, cells=1
    )
    largest = sum(p.numel() for p in network.parameters())
    assert references == [1.0, largest]


def test_environment_and_space_are_told(run_dir: Path) -> None:
    told = json.loads((run_dir / "environment.json").read_text())
    assert told["packages"]["torch"] == torch.__version__
    assert told["deterministic"] is True
    assert {name: part["images"] for name, part in told["parts"].items()} == {
        "val": 359,
        "test": 359,
    }
    assert told["parts"]["test"]["majority"] == pytest.approx(0.1, abs=0.01)
    space = json.loads((run_dir / "space.json").read_text())
    assert space["size"] == 15625
    assert [gene["name"] for gene in space["genes"]] == [gene.name for gene in SPACE.genes]


def test_checkpoints_are_plain_data(run_dir: Path) -> None:
    for path in (run_dir / "checkpoints").iterdir():
        assert torch.load(path, weights_only=True)["version"] == 1


def test_show_tells_front_winner_cost_and_faults(run_dir: Path) -> None:
    result = evonas("show", run_dir)
    assert result.exit_code == 0
    front = pd.read_csv(run_dir / "front.csv")
    for key in front["key"]:
        assert key in result.output
    for word in ("winner", "test accuracy", "cost: 12 evaluations", "faults: none"):
        assert word in result.output


@pytest.mark.figures
def test_plot_draws_again_what_the_end_of_the_run_has_drawn(run_dir: Path) -> None:
    figures = run_dir / "figures"
    held = {path.name: path.read_bytes() for path in figures.iterdir()}
    assert {"objectives.png", "front.svg", "cost.csv"} <= set(held)
    shutil.rmtree(figures)
    result = evonas("plot", run_dir)
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{figures}: {len(held) // 3} figures")
    assert {path.name: path.read_bytes() for path in figures.iterdir()} == held


@pytest.mark.usefixtures("no_workers")
@pytest.mark.figures
def test_a_run_whose_figures_cannot_be_drawn_is_still_a_run(
    experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: Path, only: object, *, pdf: bool) -> None:
        raise OSError("no room for pictures")

    monkeypatch.setattr("evonas.plots.draw", broken)
    smallest = ("--set", "stop.generations=1", "--set", "finalists.top=0")
    result = evonas("run", experiment, "--out", tmp_path / "run", *smallest)
    assert result.exit_code == 0
    assert "figures: not drawn: OSError: no room for pictures" in result.stderr


def test_a_folder_that_is_there_is_refused_with_the_two_ways_on(
    run_dir: Path, experiment: Path
) -> None:
    result = evonas("run", experiment, "--out", run_dir)
    assert result.exit_code == 2
    assert f"evonas resume {run_dir}" in result.stderr
    assert "--out" in result.stderr


def test_data_that_cannot_be_split_are_the_users_mistake_and_leave_no_folder(
    experiment: Path, tmp_path: Path
) -> None:
    out = tmp_path / "none"
    result = evonas("run", experiment, "--out", out, "--set", "data.val=0.001")
    assert result.exit_code == 2
    assert "choose shares that give each part an image of each class" in result.stderr
    assert not out.exists()


def test_a_folder_in_use_is_refused(run_dir: Path) -> None:
    from evonas.records.files import lock

    held = lock(run_dir)
    result = evonas("resume", run_dir)
    held.close()
    assert result.exit_code == 2
    assert str(os.getpid()) in result.stderr


def test_show_says_that_a_search_is_unfinished_and_how_to_go_on(
    run_dir: Path, tmp_path: Path
) -> None:
    from evonas.records.files import lock

    killed = tmp_path / "killed"
    shutil.copytree(run_dir, killed)
    (killed / "finalists.csv").unlink()
    shown = evonas("show", killed).output
    assert f"stopped after generation 2 of 2; to continue: evonas resume {killed}" in shown
    held = lock(killed)
    assert "still running" in evonas("show", killed).output
    held.close()
    assert "unfinished" not in evonas("show", run_dir).output


@pytest.mark.usefixtures("no_workers")
def test_a_search_in_which_no_network_meets_the_constraints_says_what_they_were(
    experiment: Path, tmp_path: Path
) -> None:
    out = tmp_path / "none"
    strict = ("--set", "constraints=[{name: params, max: 1}]", "--set", "finalists.top=0")
    result = evonas("run", experiment, "--out", out, *strict)
    assert result.exit_code == 0, result.output
    seen = pd.read_csv(out / "evaluations.csv")["params"]
    told = f"satisfies the constraints; params ranged from {seen.min():,.0f} to {seen.max():,.0f}"
    assert told in result.output


@pytest.mark.figures
@pytest.mark.parametrize("command", ["resume", "plot"])
def test_a_folder_that_is_no_runs_is_told_from_one_that_is_not_there(
    command: str, run_dir: Path, tmp_path: Path
) -> None:
    assert "does not exist" in evonas(command, tmp_path / "nowhere").stderr
    assert str(run_dir) in evonas(command, run_dir.parent).stderr


@pytest.mark.parametrize(
    "override", ["strategy.population=8", "seed=2", "budget.epochs=9", "stop.generations=1"]
)
def test_a_resume_cannot_change_the_past(run_dir: Path, override: str) -> None:
    result = evonas("resume", run_dir, "--set", override)
    assert result.exit_code == 2
    assert "stop" in result.stderr


@pytest.mark.usefixtures("no_workers")
def test_other_data_than_the_run_began_with_are_refused(experiment: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {"images": rng.random((60, 8, 8)), "labels": np.arange(60) % 3}
    np.savez(tmp_path / "mine.npz", **arrays)
    out = tmp_path / "run"
    mine = f"data={{name: npz, path: {tmp_path / 'mine.npz'}}}"
    smallest = ("--set", "stop.generations=1", "--set", "finalists.top=0", "--set", mine)
    assert evonas("run", experiment, "--out", out, *smallest).exit_code == 0
    assert "none, since finalists.top is 0" in evonas("show", out).output
    arrays["images"][0, 0, 0] += 1
    np.savez(tmp_path / "mine.npz", **arrays)
    result = evonas("resume", out, "--set", "stop.generations=2")
    assert result.exit_code == 2
    assert "the data changed since this run started" in result.stderr


@pytest.mark.slow
def test_a_longer_run_is_the_same_as_a_short_one_resumed(
    run_dir: Path, experiment: Path, tmp_path: Path
) -> None:
    long = tmp_path / "long"
    with instead_of_workers():  # where it is trained is of no account
        done = evonas("run", experiment, "--out", long, "--set", "stop.generations=3")
        resumed = evonas("resume", run_dir, "--set", "stop.generations=3")
    assert done.exit_code == 0, done.output
    assert resumed.exit_code == 0, resumed.output
    for name in ("evaluations", "generations", "fronts", "front", "finalists"):
        assert (run_dir / f"{name}.csv").read_bytes() == (long / f"{name}.csv").read_bytes()


@pytest.mark.usefixtures("no_workers")
def test_finals_held_again_name_a_winner_with_weights(run_dir: Path) -> None:
    result = evonas("resume", run_dir, "--set", "finalists.top=1")
    assert result.exit_code == 0, result.output
    finalists = pd.read_csv(run_dir / "finalists.csv")
    assert finalists["winner"].tolist() == [True]
    assert (run_dir / "weights" / "winner.safetensors").exists()
    timings = pd.read_csv(run_dir / "timings.csv")
    assert (timings["phase"] == "finalists").sum() == 2
    evonas("resume", run_dir)
    assert len(pd.read_csv(run_dir / "timings.csv")) == len(timings)


@pytest.mark.usefixtures("no_workers")
def test_a_start_that_was_killed_at_once_can_be_started_again(
    experiment: Path, tmp_path: Path
) -> None:
    out = tmp_path / "stub"
    out.mkdir()
    (out / "space.json").write_text("{}")
    smallest = ("--set", "stop.generations=1", "--set", "finalists.top=0")
    assert evonas("run", experiment, "--out", out, *smallest).exit_code == 0
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("years of work")
    result = evonas("run", experiment, "--out", tmp_path / "other")
    assert result.exit_code == 2
    assert "holds other files" in result.stderr


@pytest.mark.usefixtures("with_faults")
def test_each_fault_has_its_own_status_and_harms_no_other(experiment: Path, tmp_path: Path) -> None:
    document = yaml.safe_load(experiment.read_text())
    document["strategy"]["population"] = 8
    document["stop"] = {"generations": 1}
    document["finalists"] = {"top": 0}
    document["parallel"] = {"workers": 1, "timeout": 12}

    def generation_0(name: str, faults: dict[str, str]) -> pd.DataFrame:
        document["evaluator"] |= {"name": "faulty", "faults": faults}
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(document))
        result = evonas("run", path, "--out", tmp_path / name)
        assert result.exit_code == 0, result.output
        return pd.read_csv(tmp_path / name / "evaluations.csv")

    before = set(psutil.Process().children(recursive=True))
    with instead_of_workers():
        clean = generation_0("clean", {})
    assert (clean["status"] == "ok").all()
    canonical = [SPACE.canonical(SPACE.parse(genome)).text for genome in clean["genome"]]
    faults = dict(zip(canonical, ["raises", "exits", "hangs", "nan"], strict=False))
    faulty = generation_0("faulty", faults)

    expected = [Status.CRASHED, Status.CRASHED, Status.TIMEOUT, Status.DIVERGED]
    assert faulty["status"][:4].tolist() == [str(status) for status in expected]
    assert faulty["deterministic"].tolist() == [True, False, False, True] + [True] * 4
    rows = [
        (tmp_path / name / "evaluations.csv").read_text().splitlines()
        for name in ("clean", "faulty")
    ]
    assert rows[0][5:] == rows[1][5:]
    generations = pd.read_csv(tmp_path / "faulty" / "generations.csv")
    counts = generations.loc[0, ["faults", "crashed", "timeout", "diverged"]]
    assert counts.tolist() == [4, 2, 1, 1]
    log = (tmp_path / "faulty" / "log.txt").read_text()
    assert "ZeroDivisionError: no such luck" in log
    shown = evonas("show", tmp_path / "faulty").output
    assert "2 crashed" in shown
    assert "not reproducible: some rows" in shown
    left = set(psutil.Process().children(recursive=True)) - before
    assert not [p for p in left if "resource_tracker" not in " ".join(p.cmdline())]


@pytest.mark.usefixtures("with_faults", "no_workers")
def test_a_run_whose_every_training_fails_ends_with_status_3_and_the_cause(
    experiment: Path, tmp_path: Path
) -> None:
    out = tmp_path / "hopeless"
    hopeless = ("--set", "evaluator={name: faulty, faults: {every: nan}}")
    longer = ("--set", "stop.generations=9")
    result = evonas("run", experiment, "--out", out, *hopeless, *longer)
    assert result.exit_code == 3, result.output
    assert "diverged" in result.stderr
    assert len(pd.read_csv(out / "evaluations.csv")) == 12  # max(population, 10), by generations


def test_ctrl_c_three_times_says_once_how_to_go_on_and_leaves_no_worker(
    experiment: Path, tmp_path: Path
) -> None:
    out = tmp_path / "interrupted"
    command = [sys.executable, "-m", "evonas", "run", str(experiment), "--out", str(out)]
    driver = subprocess.Popen(
        [*command, "--workers", "2", "--set", "stop.generations=50"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell has its background jobs ignore it, which is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    journal = out / "journal"
    while not journal.exists() or journal.read_bytes().count(b"\n") < 8:
        assert driver.poll() is None
        time.sleep(0.05)
    family = psutil.Process(driver.pid).children(recursive=True)
    for _ in range(3):
        os.killpg(driver.pid, signal.SIGINT)  # as a terminal does: the workers get it too
        time.sleep(0.1)
    _, stderr = driver.communicate(timeout=20)
    assert driver.returncode == 130
    kept = journal.read_bytes().count(b"\n")
    assert stderr.endswith(f"interrupted; {kept} results saved. To continue: evonas resume {out}\n")
    assert "Traceback" not in stderr
    _, alive = psutil.wait_procs(family, timeout=5)
    assert not alive
    shown = evonas("show", out)
    assert shown.exit_code == 0
    assert "winner: none yet" in shown.output
    with instead_of_workers():
        few = ("--set", "stop.generations=2", "--set", "finalists.top=0")
        going_on = evonas("resume", out, *few)
    assert going_on.exit_code == 0, going_on.output


def test_show_tells_what_a_genome_is() -> None:
    text = "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|skip_connect~2|"
    by_text, by_genes = evonas("show", text), evonas("show", "3-0-3-1-0-1")
    assert by_text.exit_code == 0
    assert by_text.output == by_genes.output
    assert text in by_text.output
    assert "g0-3-0-1-0-3" in by_text.output  # the same two convolutions in a row, spelt smaller
    assert f"{72656 + 650 + 2 * 243040:,}" in by_text.output


def test_show_counts_a_genome_with_an_experiments_sizes(experiment: Path, run_dir: Path) -> None:
    row = pd.read_csv(run_dir / "front.csv").iloc[0]
    shown = evonas("show", row["key"], "--experiment", experiment).output
    assert f"{row['params']:,}" in shown
    assert f"{row['flops']:,}" in shown
    assert "1x8x8 images" in shown
    assert evonas("show", run_dir, "--experiment", experiment).exit_code == 2


@pytest.mark.parametrize("what", ["nowhere", "1-2-3", "|nor_conv_9x9~0|+|none~0|none~1|"])
def test_show_of_neither_folder_nor_genome_is_the_users_mistake(what: str) -> None:
    result = evonas("show", what)
    assert result.exit_code == 2
    assert what in result.stderr


def test_list_names_what_is_registered() -> None:
    result = evonas("list")
    assert result.exit_code == 0
    assert "strategies: aging, auto, controller, darts, exhaustive, gdas, genetic" in result.output
    for metric in TRAINED:
        assert metric.name in evonas("list", "metrics").output.split()
    assert evonas("list", "strategys").exit_code == 2
