"""`evonas train`: one network in full, killed and resumed, with a test score at the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from typer.testing import CliRunner

from evonas import config, plots, yamlfile
from evonas.binomial import standard_error
from evonas.cli import app
from evonas.core import UserError
from evonas.data.dataset import split
from evonas.data.digits import Digits, DigitsParams
from evonas.experiment import TrainingParams
from evonas.jobs import full_training
from evonas.jobs.choice import choose
from evonas.jobs.full_training import FullTraining, resume, settings_for, start
from evonas.networks.decode import decode
from evonas.training.batches import Resident
from evonas.training.loop import measure
from evonas.training.recipe import STRONG, Recipe
from genomes.nasbench201 import NASBench201
from tests.helpers import ROOT

GENOME = "2-1-0-1-0-1"
EXPERIMENT = """
name: trained
space: {name: nasbench201, channels: 4, cells: 1}
data: {name: digits, subset: 300}
strategy: {name: random, population: 4}
evaluator: {name: train, recipe: {lr: 0.1, batch_size: 64, pad_crop: 1}}
budget: {epochs: 1}
objectives: [{name: val_error}, {name: params}]
stop: {generations: 1}
training: {epochs: 4, seed: 5}
"""
ONE_THREAD = ("--set", "parallel.threads=1")


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    path = tmp_path / "trained.yaml"
    path.write_text(EXPERIMENT)
    return path


@pytest.fixture(scope="module")
def whole_training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training of four epochs, in one go."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "trained.yaml").write_text(EXPERIMENT)
    with started(folder / "trained.yaml", folder / "out") as training:
        for _ in training:
            pass
        training.finish()
    return folder / "out"


def started(experiment: Path, out: Path, *overrides: str) -> AbstractContextManager[FullTraining]:
    loaded = config.load(experiment)
    return start(settings_for(loaded, GENOME, [*overrides, "parallel.threads=1"]), out)


def command(*arguments: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return done.exit_code, done.output


def test_the_searchs_training_part_is_trained_on_and_the_score_is_the_weights_own(
    whole_training: Path,
) -> None:
    row = pd.read_csv(whole_training / "result.csv").iloc[0]
    data, test = split(Digits(DigitsParams()), DigitsParams())
    assert row["train_images"] == len(data.train)  # no subset, as in the search
    network = decode(NASBench201(), NASBench201().parse(GENOME), in_channels=1, channels=4, cells=1)
    network.load_state_dict(load_file(whole_training / "weights.safetensors"))
    images = torch.tensor(test.images, dtype=torch.float32)
    with torch.no_grad():
        logits = network.eval()((images - data.mean[0]) / data.std[0])
    wrong = (logits.argmax(1) != torch.tensor(test.labels)).float().mean().item()
    assert row["test_error"] == pytest.approx(wrong, abs=1e-6)
    assert row["test_error_se"] == pytest.approx(standard_error(wrong, len(test)))
    assert wrong < 0.5  # by chance it would be 0.9


def test_the_curve_has_a_row_an_epoch_and_the_loss_falls(whole_training: Path) -> None:
    curve = pd.read_csv(whole_training / "curve.csv")
    assert curve["epoch"].tolist() == [1, 2, 3, 4]
    assert curve["train_loss"].iloc[-1] < curve["train_loss"].iloc[0]
    assert curve["val_error"].iloc[-1] < 0.5
    assert not [column for column in curve if "test" in column]
    assert len(pd.read_csv(whole_training / "timings.csv")) == 4


def test_the_test_part_is_measured_once_at_the_end(
    experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[Resident] = []

    def noting(network: nn.Module, part: Resident, *arguments: Any) -> dict[str, float]:
        measured.append(part)
        return measure(network, part, *arguments)

    monkeypatch.setattr(full_training, "measure", noting)
    with started(experiment, tmp_path / "out", "epochs=2") as training:
        assert all(epoch.val_error is not None for epoch in training)
        assert not any(part is training.test for part in measured)
        training.finish()
        assert [part is training.test for part in measured] == [False, False, True]
        [norm, *_] = (
            each for each in training.network.modules() if isinstance(each, nn.BatchNorm2d)
        )
        assert norm.num_batches_tracked == len(training.data.train) // 64 + 1, "measured anew"


def test_nothing_held_out_all_images_but_the_test_part_are_trained_on(
    experiment: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with started(experiment, out, "epochs=1", "hold_out=false") as training:
        assert [epoch.val_error for epoch in training] == [None]
        training.finish()
    data, _ = split(Digits(DigitsParams()), DigitsParams())
    row = pd.read_csv(out / "result.csv").iloc[0]
    assert row["train_images"] == len(data.train) + len(data.val)
    drawn = plots.draw(out)
    assert (set(drawn.figures), drawn.skipped) == ({"curve"}, {})


def test_killed_after_any_epoch_and_resumed_it_gives_the_same_curve_and_weights(
    experiment: Path, tmp_path: Path, whole_training: Path
) -> None:
    out = tmp_path / "out"
    with started(experiment, out) as training:
        next(iter(training))
    for _ in range(3):
        with resume(out) as training:
            next(iter(training))
    with resume(out) as training:
        assert list(training) == []
        training.finish()
    for name in ("curve.csv", "result.csv", "weights.safetensors"):
        assert (out / name).read_bytes() == (whole_training / name).read_bytes(), name


def test_a_kill_in_the_middle_of_an_epoch_costs_that_epoch_alone(
    experiment: Path, tmp_path: Path, whole_training: Path
) -> None:
    out = tmp_path / "out"
    arguments = ["train", GENOME, "--experiment", str(experiment), "--out", str(out), *ONE_THREAD]
    driver = subprocess.Popen([sys.executable, "-m", "evonas", *arguments], cwd=ROOT)
    curve = out / "curve.csv"
    deadline = time.monotonic() + 120
    while not (curve.exists() and curve.read_bytes().count(b"\n") >= 2):
        assert driver.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    assert not (out / "result.csv").exists()
    status, told = command("resume", out)
    assert (status, "test accuracy" in told) == (0, True)
    assert curve.read_bytes() == (whole_training / "curve.csv").read_bytes()


def test_show_tells_the_score_or_how_far_it_is(
    experiment: Path, tmp_path: Path, whole_training: Path
) -> None:
    status, told = command("show", whole_training)
    assert status == 0
    assert "trained for 4 epochs on 1,079 images" in told
    with started(experiment, tmp_path / "out") as training:
        next(iter(training))
    assert "1 of 4 epochs, val error 0." in command("show", tmp_path / "out")[1]


@pytest.mark.figures
def test_plot_draws_the_learning_curve_as_far_as_it_is(
    experiment: Path, tmp_path: Path, whole_training: Path
) -> None:
    status, told = command("plot", whole_training)
    assert (status, told) == (0, f"{whole_training / 'figures'}: 1 figure\n")
    shown = pd.read_csv(whole_training / "figures" / "curve.csv")
    pd.testing.assert_frame_equal(shown, pd.read_csv(whole_training / "curve.csv"))
    with started(experiment, tmp_path / "out"):
        status, told = command("plot", tmp_path / "out")
    assert (status, "curve: not drawn, since no epoch is finished" in told) == (0, True)


def test_a_network_of_a_run_is_named_by_word_key_genes_text_or_library(
    experiment: Path, tmp_path: Path
) -> None:
    space = NASBench201()

    def chosen(which: str) -> str:
        return choose(tmp_path, which).genome.text

    (tmp_path / "config.yaml").write_text(experiment.read_text())
    with pytest.raises(UserError, match=r"front\.csv is missing or damaged"):
        chosen("best")
    (tmp_path / "front.csv").write_text("key,genes,val_error,params\n")
    for which in ("best", "knee"):
        with pytest.raises(UserError, match="no network on its front yet"):
            chosen(which)
    first, second, third = "1-1-1-1-1-1", "2-2-2-2-2-2", "3-3-3-3-3-3"
    (tmp_path / "front.csv").write_text(
        f"key,genes,val_error,params\ng,{first},0.1,90\ng,{second},0.2,20\ng,{third},0.9,10\n"
    )
    with pytest.raises(UserError, match="no winner yet; choose another network with"):
        chosen("winner")
    (tmp_path / "finalists.csv").write_text(f"key,genes,winner\ng,{third},True\ng,{first},False\n")
    text = space.describe(space.parse(second))
    assert [chosen(which) for which in ("winner", "best", "knee")] == [third, first, second]
    assert [chosen(which) for which in (GENOME, f"g{GENOME}", text)] == [GENOME, GENOME, second]
    assert chosen("nasbench201_resnet") == "3-0-3-1-0-1"
    with pytest.raises(
        UserError, match=r"^--genome winer: .* is not a genome of nasbench.*; or give winner, best"
    ):
        chosen("winer")
    (tmp_path / "finalists.csv").write_text("nonsense\n1\n")
    with pytest.raises(UserError, match=r"finalists\.csv is damaged"):
        chosen("winner")


def test_a_full_training_has_one_network(whole_training: Path) -> None:
    only = choose(whole_training)
    assert only.weights == whole_training / "weights.safetensors"
    for which in ("winner", GENOME, only.key, only.space.describe(only.genome)):
        again = choose(whole_training, which)
        assert (again.key, again.weights) == (only.key, only.weights)
    for which in ("best", "knee", "1-1-1-1-1-1"):
        with pytest.raises(
            UserError, match=f"has a single network, {only.key}; leave out --genome"
        ):
            choose(whole_training, which)


def test_show_and_train_take_the_words_that_export_takes(
    experiment: Path, tmp_path: Path, whole_training: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(experiment.read_text())
    (run / "front.csv").write_text("key,genes,val_error,params\ng,2-4-0-1-0-1,0.1,10\n")
    status, shown = command("show", run, "--genome", "knee")
    assert (status, "2-4-0-1-0-1" in shown, "the sizes of trained" in shown) == (0, True, True)
    status, told = command(
        "train", run, "--genome", "nasbench201_resnet", "--epochs", "1", *ONE_THREAD
    )
    assert status == 0, told
    params = pd.read_csv(next(tmp_path.glob("run-*/result.csv")))["params"][0]
    assert f"{params:,}" in command("show", run, "--genome", "nasbench201_resnet")[1]
    assert "the sizes of trained" in command("show", whole_training, "--genome", "winner")[1]


def test_it_is_trained_on_what_the_search_was_unless_told_otherwise(experiment: Path) -> None:
    parallel = "parallel={device: 'cuda:1', precision: float32, channels_last: false, timeout: 9}"
    loaded = config.load(experiment, [parallel])
    settings = settings_for(loaded, GENOME).parallel
    assert (settings.device, settings.precision, settings.channels_last) == (
        *("cuda:1", "float32"),
        False,
    )
    assert (settings.workers, settings.timeout) == (1, None)


def test_the_folder_is_named_after_the_runs_and_the_key(
    experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(experiment.read_text())
    (run / "front.csv").write_text("key,genes\ng,2-4-0-1-0-1\n")
    monkeypatch.chdir(run)  # whose name is not in what is typed
    status, told = command("train", ".", "--genome", "best", "--epochs", "1", *ONE_THREAD)
    assert status == 0, told
    [out] = [path for path in tmp_path.iterdir() if path.name.startswith("run-")]
    assert out.name == f"run-{pd.read_csv(out / 'result.csv')['key'][0]}"


def test_the_recipe_is_the_searchs_unless_it_has_its_own(experiment: Path) -> None:
    loaded = config.load(experiment)
    settings = settings_for(loaded, GENOME, ["recipe.lr=0.05", "epochs=7"])
    assert (settings.recipe.lr, settings.recipe.pad_crop, settings.epochs) == (0.05, 1, 7)
    own = config.load(experiment, ["training={recipe: {optimizer: adamw}, strong: []}"])
    assert settings_for(own, GENOME).recipe == Recipe(optimizer="adamw")


def test_what_the_recipe_leaves_open_is_set_to_what_suits_a_full_training(
    experiment: Path, tmp_path: Path
) -> None:
    assert TrainingParams.model_validate({"strong": list(STRONG)}).strong == tuple(STRONG)
    loaded = config.load(experiment)
    searched = loaded.evaluator.recipe_alone  # type: ignore[attr-defined]  # evaluator train
    assert (searched.label_smoothing, searched.ema, searched.pad_crop) == (0.0, 0.0, 1)
    strong = {"label_smoothing": 0.1, "warm_up": 0.05, "ema": 0.1}
    found = settings_for(loaded, GENOME).recipe
    assert found == searched.model_copy(update=strong)  # pad_crop is as the search has it
    long = settings_for(loaded, GENOME, ["epochs=100"]).recipe
    assert long == found.model_copy(update={"mixup": 0.2})

    # A run folder has all keys, and says which of them are to be set.
    (tmp_path / "config.yaml").write_text(config.dump(loaded))
    run = config.load_run(tmp_path)
    assert run.training.strong == ("label_smoothing", "warm_up", "ema", "mixup")
    assert settings_for(run, GENOME).recipe == found
    again = config.load(tmp_path / "config.yaml")  # as an experiment
    assert settings_for(again, GENOME).recipe == found


@pytest.mark.parametrize(
    ("changes", "overrides", "expected"),
    [
        (["evaluator.recipe.ema=0.3", "evaluator.recipe.label_smoothing=0.0"], [], (0.3, 0.0, 0.2)),
        (["training.recipe={ema: 0.2, mixup: 0.0}"], [], (0.2, 0.1, 0)),
        ([], ["recipe.ema=0"], (0, 0.1, 0.2)),
        ([], ["recipe={lr: 0.05}"], (0, 0, 0)),
        (["evaluator.recipe.cutmix=1.0"], [], (0.1, 0.1, 0)),
        (["training.strong=[ema]"], [], (0.1, 0, 0)),
        (["training.strong=[]"], [], (0, 0, 0)),
    ],
)
def test_what_is_named_keeps_its_value(
    experiment: Path,
    changes: list[str],
    overrides: list[str],
    expected: tuple[float, float, float],
) -> None:
    loaded = config.load(experiment, ["training.epochs=200", *changes])
    recipe = settings_for(loaded, GENOME, overrides).recipe
    assert (recipe.ema, recipe.label_smoothing, recipe.mixup) == expected


def test_a_schedule_with_a_warm_up_of_its_own_keeps_it(experiment: Path) -> None:
    loaded = config.load(experiment, ["evaluator.recipe.schedule=one_cycle"])
    assert settings_for(loaded, GENOME).recipe.warm_up is None
    assert settings_for(loaded, GENOME, ["recipe.schedule=cosine"]).recipe.warm_up == 0.05


def test_what_is_trained_with_is_in_the_folder_and_an_older_one_goes_on_as_it_began(
    experiment: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with started(experiment, out, "epochs=1") as training:
        trained_with = training.trainer.recipe
    written = yamlfile.read(out / "training.yaml")["recipe"]
    assert (written["ema"], written["warm_up"], written["label_smoothing"]) == (0.1, 0.05, 0.1)
    assert config.load_training(out / "training.yaml").recipe == trained_with
    for name in ("training/training.yaml", "search/config.yaml"):
        old = ROOT / "tests/assets/0.1.0" / name
        if old.name == "config.yaml":
            recipe = settings_for(config.load_run(old.parent), GENOME).recipe
        else:
            recipe = config.load_training(old).recipe
        assert (recipe.ema, recipe.warm_up, recipe.label_smoothing) == (0.0, None, 0.0)
        assert (recipe.mixup, recipe.cutmix, recipe.rand_augment) == (0.0, 0.0, 0)


def test_with_all_that_a_recipe_has_a_resumed_training_is_that_in_one_go(
    experiment: Path, tmp_path: Path
) -> None:
    options = "ema: 0.2, rand_augment: 2, mixup: 0.2, cutmix: 1.0, warm_up: 0.1, pad_crop: auto"
    rest = ("epochs=3", f"recipe={{{options}, label_smoothing: 0.1, cutout: 2}}")
    for name, stops in (("whole", 1), ("parts", 3)):
        with started(experiment, tmp_path / name, *rest) as training:
            epochs = list(training) if stops == 1 else [next(iter(training))]
        for _ in range(stops - 1):
            with resume(tmp_path / name) as training:
                epochs.append(next(iter(training)))
        with resume(tmp_path / name) as training:
            training.finish()
            measured = training.network.state_dict()
        saved = load_file(tmp_path / name / "weights.safetensors")
        assert all(torch.equal(saved[key], measured[key]) for key in saved)
        assert epochs[-1].val_error is not None
    for name in ("curve.csv", "result.csv", "weights.safetensors"):
        whole, parts = (tmp_path / each / name for each in ("whole", "parts"))
        assert whole.read_bytes() == parts.read_bytes(), name


def test_a_loss_that_explodes_ends_it_with_status_3(experiment: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ("train", GENOME, "--experiment", experiment, "--out", out, *ONE_THREAD)
    status, told = command(*arguments, "--set", "recipe.lr=100", "--set", "recipe.weight_decay=10")
    assert status == 3
    assert "the loss became NaN or infinite in epoch" in told


def test_mistakes_are_told_in_a_line(experiment: Path, tmp_path: Path) -> None:
    out, there = tmp_path / "out", tmp_path / "there"
    there.mkdir()
    (there / "file").touch()
    base = ("--experiment", experiment, "--out", out)
    cases: dict[tuple[str | Path, ...], str] = {
        (
            "nonsense",
            *base,
        ): "nonsense: 'nonsense' is not a genome of nasbench201/v1; write 6 genes",
        ("9-1-0-1-0-1", *base): "gene 0>1 of nasbench201/v1 is 9; allowed: 0 to 4",
        (GENOME,): "is no run folder; name a run folder, or add --experiment FILE",
        (GENOME, *base, "--set", "recipe.lr=-1"): "recipe.lr: is -1; must be more than 0",
        (GENOME, *base, "--set", "colour=red"): "colour: unknown key",
        (GENOME, *base, "--genome", "best"): "is a genome already; leave out --genome",
        (GENOME, *base[:3], there): "holds other files",
        (GENOME, *base, "--set", "data={name: mnist}"): "no MNIST",
    }
    for arguments, expected in cases.items():
        status, told = command("train", *arguments)
        assert (status, expected in told, len(told.splitlines()) <= 2) == (2, True, True), told
        assert not out.exists()


def test_a_training_folder_is_gone_on_with_not_begun_again(whole_training: Path) -> None:
    for arguments, expected in (
        (("train", whole_training), "is a full training; continue it: evonas resume"),
        (
            ("resume", whole_training, "--set", "stop.generations=3"),
            "do not apply to a full training",
        ),
    ):
        status, told = command(*arguments)
        assert (status, expected in told) == (2, True), told


def test_other_data_than_it_began_with_are_refused(experiment: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with started(experiment, out) as training:
        next(iter(training))
    path = out / "training.yaml"
    path.write_text(path.read_text().replace("split_seed: 0", "split_seed: 1"))
    with pytest.raises(UserError, match="the data changed since this run started"), resume(out):
        pass


def test_a_damaged_checkpoint_is_named(experiment: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with started(experiment, out) as training:
        next(iter(training))
    (out / "checkpoint.pt").write_bytes(b"nonsense")
    with pytest.raises(UserError, match=r"checkpoint.pt is damaged"), resume(out):
        pass
