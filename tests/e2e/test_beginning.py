"""What a user does first: `evonas init` and `evonas estimate`."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from evonas import config, plugins, registry
from evonas.cli import app
from evonas.core import SearchFailed, UserError
from evonas.experiment import Experiment, own_files
from evonas.jobs import machine
from evonas.jobs.estimate import estimate, first_generations, totals
from evonas.jobs.parts import build, make_strategy
from evonas.starter import starter
from tests.helpers.faults import die


def command(*arguments: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return done.exit_code, done.output


def test_init_writes_an_experiment_that_is_valid_and_named_after_its_file(tmp_path: Path) -> None:
    path = tmp_path / "my search.yaml"
    assert command("init", path)[0] == 0
    assert command("validate", path)[0] == 0
    assert config.load(path).name == "my-search"


@pytest.mark.parametrize("name", ["2024", "2024-01-01", "yes", "null", "1e3", "a: b", "é"])
def test_init_takes_any_name_of_a_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.yaml"
    path.write_text(starter(path, "digits", None))
    assert config.load(path).name


def test_init_names_data_as_seen_from_the_file_it_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("data of mine, " + "long " * 30)
    folder.mkdir()
    np.savez(folder / "x.npz", images=np.zeros((10, 4, 4)), labels=np.arange(10) % 2)
    Path("sub").mkdir()
    status, told = command("init", "sub/x.yaml", "--data", "npz", "--path", folder / "x.npz")
    assert status == 0, told
    assert command("validate", "sub/x.yaml")[0] == 0


def test_init_explains_every_section_that_an_experiment_has(tmp_path: Path) -> None:
    text = starter(tmp_path / "x.yaml", "digits", None)
    keys = set(re.findall(r"^#? ?(\w+):", text, re.MULTILINE))
    assert set(Experiment.model_fields) <= keys


@pytest.mark.parametrize("name", registry.names("data"))
def test_init_knows_which_data_sets_need_a_path(name: str, tmp_path: Path) -> None:
    text = starter(tmp_path / "x.yaml", name, None)
    (tmp_path / "x.yaml").write_text(text)
    with suppress(UserError):
        config.load(tmp_path / "x.yaml")
        return
    with pytest.raises(UserError, match=r"^\S+x.yaml: data: [^\n]*$"):  # nothing else is amiss
        config.load(tmp_path / "x.yaml")


def test_init_has_every_key_of_a_data_set_and_says_what_to_fill_in(tmp_path: Path) -> None:
    text = starter(tmp_path / "x.yaml", "image_folder", None)
    for line in ("path: PATH/TO/DATA", "size: 32 ", "grey: false ", "flippable: true "):
        assert line in text
    status, told = command("init", tmp_path / "y.yaml", "--data", "cifar10")
    assert status == 0
    assert "set data.path" in told
    assert "data.path" not in command("init", tmp_path / "z.yaml")[1]


@pytest.mark.parametrize("space", [*registry.names("spaces"), "my_space.py:tiny"])
def test_init_takes_a_space_and_the_most_parameters(
    space: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    status, told = command("init", "sub/x.yaml", "--space", space, "--max-params", 50_000)
    if space == "table":
        assert (status, "--space: table has no networks to train" in told) == (2, True), told
        return
    assert status == 0, told
    experiment = config.load(Path("sub/x.yaml"))
    assert [(each.name, each.max) for each in experiment.constraints] == [("params", 50_000)]
    file = plugins.file_of(space)
    if file is not None:
        assert own_files(experiment) == [str(tmp_path / file)]
        return
    text = Path("sub/x.yaml").read_text()
    keys = {*type(experiment.space).model_fields} - {"name"}
    assert all(re.search(rf"^  {key}: [^#]+ # \w", text, re.MULTILINE) for key in keys)


@pytest.mark.parametrize("kind", ["spaces", "strategies", "evaluators", "data", "metrics"])
def test_list_says_what_each_name_is_for(kind: str) -> None:
    status, told = command("list", kind)
    entries = [entry.split() for entry in re.split(r"\n(?=\S)", told)]  # other lines go on
    assert (status, {*registry.names(kind)} <= {entry[0] for entry in entries}) == (0, True)
    assert all(len(entry) > 3 for entry in entries), told


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("li", {"list"}),
        ("list sp", {"spaces"}),
        ("init --space ma", {"macro"}),
        ("init --data cif", {"cifar10", "cifar100"}),
        ("export results/x --format o", {"onnx"}),
        ("train results/x --genome b", {"best"}),
        ("run x.yaml --se", {"--seed", "--set"}),
        ("run experiments/qu", set()),  # a file, which the shell completes
    ],
)
def test_shells_complete_commands_options_and_names(words: str, completed: set[str]) -> None:
    asked = {
        "_EVONAS_COMPLETE": "complete_bash",
        "COMP_WORDS": f"evonas {words}",
        "COMP_CWORD": str(len(words.split())),
    }
    done = CliRunner().invoke(app, [], env=asked, prog_name="evonas")
    assert (done.exit_code, set(done.output.split())) == (0, completed)


def test_init_overwrites_nothing_and_tells_mistakes(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("mine")
    for arguments, expected in (
        (("init", path), "already exists; name a new file"),
        (("init", tmp_path / "no" / "x.yaml"), "cannot be written: No such file"),
        (("init", tmp_path / "y.yaml", "--data", "digit"), "did you mean 'digits'?"),
        (("init", tmp_path / "y.yaml", "--space", "chian"), "did you mean 'chain'?"),
        (
            ("init", tmp_path / "y.yaml", "--path", "x"),
            "--path: digits takes no path",
        ),
    ):
        status, told = command(*arguments)
        assert (status, expected in told) == (2, True), told
    assert path.read_text() == "mine"
    assert not (tmp_path / "y.yaml").exists()


EXPERIMENT = """
name: foreseen
space: {name: nasbench201, channels: 4, cells: 1}
data: {name: digits}
strategy: {name: genetic, population: 4, elites: 2}
evaluator: {name: train}
budget: {epochs: 1}
objectives: [{name: val_error}]
stop: {generations: 3, evaluations: 5}
finalists: {top: 1, seeds: 2, budget: {epochs: 3}}
parallel: {workers: 1}
"""


@pytest.mark.slow
def test_an_estimate_counts_the_trainings_and_is_near_what_the_run_then_takes(
    tmp_path: Path,
) -> None:
    path, out = tmp_path / "foreseen.yaml", tmp_path / "run"
    path.write_text(EXPERIMENT)
    foreseen = estimate(config.load(path))
    assert (foreseen.generations, foreseen.trainings) == (2, 8)  # a generation begun is finished
    assert foreseen.final_trainings == 2
    assert 50e6 < foreseen.worker_memory < 5e9
    status, told = command("run", path, "--out", out)
    assert status == 0, told
    seconds = pd.read_csv(out / "timings.csv").groupby("phase")["seconds"].mean()
    for phase, mean in (("search", foreseen.seconds[0]), ("finalists", foreseen.final_seconds)):
        assert seconds[phase] / 5 < mean < 5 * seconds[phase], phase  # timings are noisy


HEIR = """
import subprocess, sys
import numpy
held = numpy.ones(1_200_000_000, numpy.uint8)
told = "from evonas.jobs.estimate import _memory; print(_memory())"
subprocess.run([sys.executable, "-c", told], check=True, close_fds=False, preexec_fn=lambda: None)
"""


@pytest.mark.slow
def test_a_worker_s_memory_is_its_own_and_not_what_its_parent_held() -> None:
    done = subprocess.run([sys.executable, "-c", HEIR], capture_output=True, text=True, check=True)
    assert 50e6 < int(done.stdout) < 1.0e9


@pytest.mark.parametrize(
    ("strategy", "evaluator", "counts"),
    [
        pytest.param("{name: darts, epochs: 4}", "train", (3, 3), marks=pytest.mark.slow),
        pytest.param("{name: gdas, epochs: 2}", "train", (2, 2), marks=pytest.mark.slow),
        pytest.param("{name: random, population: 4}", "supernet", (2, 8), marks=pytest.mark.slow),
    ],
)
def test_an_estimate_counts_what_is_trained_for_all(
    strategy: str, evaluator: str, counts: tuple[int, int], tmp_path: Path
) -> None:
    text = EXPERIMENT.replace(re.findall(r"strategy: (.*)", EXPERIMENT)[0], strategy)
    if evaluator == "supernet":
        text = text.replace("name: train", "name: supernet, epochs: 5, pool: 1")
        text = re.sub(r"^budget: .*\n", "", text, flags=re.MULTILINE)
    text = text.replace("{name: digits", "{subset: 600, name: digits")
    path, out = tmp_path / "foreseen.yaml", tmp_path / "run"
    path.write_text(text)
    foreseen = estimate(config.load(path))
    assert (foreseen.generations, foreseen.trainings) == counts
    assert foreseen.scored == (evaluator == "supernet")
    assert foreseen.shared_seconds > 0
    assert foreseen.search_time > foreseen.shared_seconds
    status, told = command("estimate", path)
    assert status == 0, told
    assert "shared weights: 0:0" in told
    started = time.perf_counter()
    status, told = command("run", path, "--out", out)
    assert status == 0, told
    whole = foreseen.search_time + foreseen.final_time
    assert whole < 5 * (time.perf_counter() - started)  # which has more beside it


@pytest.mark.slow
@pytest.mark.usefixtures("no_workers")
def test_an_estimate_leaves_out_what_the_constraints_do(tmp_path: Path) -> None:
    path = tmp_path / "foreseen.yaml"
    for most, expected in ((1.0e9, 8), (12000, range(1, 8))):
        path.write_text(EXPERIMENT + f"constraints: [{{name: params, max: {most}}}]\n")
        found = estimate(config.load(path)).trainings
        assert found in (expected if isinstance(expected, range) else [expected])
    path.write_text(EXPERIMENT + "constraints: [{name: params, max: 1}]\n")
    with pytest.raises(SearchFailed, match="none of the first 8 candidates meets"):
        estimate(config.load(path))


@pytest.mark.parametrize(
    ("strategy", "sizes", "foreseen"),
    [
        ("{name: aging, population: 4, lag: 1}", {4}, (2, 8)),
        ("{name: pso, particles: 3}", {3}, (2, 6)),
        # One to start from, then all 24 that are one gene away.
        ("{name: local_search}", {1, 24}, (None, 28)),
        ("{name: local_search, improvement: first, batch: 2}", {1, 2}, (None, 6)),
    ],
)
def test_a_rehearsal_shows_how_large_generations_are(
    tmp_path: Path, strategy: str, sizes: set[int], foreseen: tuple[int | None, int]
) -> None:
    path = tmp_path / "foreseen.yaml"
    path.write_text(EXPERIMENT.replace("{name: genetic, population: 4, elites: 2}", strategy))
    experiment = config.load(path)
    parallel = machine.resolve(experiment.parallel)
    parts = build(experiment.model_copy(update={"parallel": parallel}))
    first = first_generations(experiment, parts, make_strategy(experiment, parts.setting))
    assert {len(generation) for generation in first} == sizes
    assert totals(experiment.stop, first) == foreseen


def test_a_worker_that_dies_while_measured_is_told_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "foreseen.yaml"
    path.write_text(EXPERIMENT)
    monkeypatch.setattr("evonas.jobs.estimate._measured", die)
    status, told = command("estimate", path)
    assert (status, "a worker died, possibly out of memory: " in told) == (3, True), told
    assert len(told.splitlines()) == 1


@pytest.mark.usefixtures("no_workers")
def test_estimate_tells_time_and_memory_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "foreseen.yaml").write_text(EXPERIMENT)
    monkeypatch.chdir(tmp_path)
    status, told = command("estimate", "foreseen.yaml")
    assert status == 0, told
    for line in (
        "foreseen: at most 8 trainings in the search (2 generations of 4) and 2 of finalists",
        "for 6 networks, timed for a few steps on 1 worker)",
        "time: about 0:0",
        "memory: about ",
    ):
        assert line in told
    assert [entry.name for entry in tmp_path.iterdir()] == ["foreseen.yaml"]
