"""`evonas validate` on wrong files: exit status 2 and a line or a few, never a traceback."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from evonas.cli import app

SECONDS = 5.0
RIGHT = """\
name: digits
seed: 0
space:      {name: nasbench201, channels: 8, cells: 1}
data:       {name: digits}
strategy:   {name: genetic, population: 12, selection: roulette}
evaluator:  {name: train, recipe: {optimizer: sgd, lr: 0.1, batch_size: 64}}
budget:     {epochs: 3}
objectives: [{name: val_error, goal: min}, {name: params, goal: max}]
constraints: [{name: flops, max: 5.0e+6}]
stop:       {generations: 8}
finalists:  {top: 3, seeds: 3}
parallel:   {workers: 2}
"""
OBJECTIVES = "[{name: val_error, goal: min}, {name: params, goal: max}]"
LAUGHS = "a: &a [ha, ha]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
    for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)


def changed(old: str, new: str) -> str:
    """The right experiment with one thing made wrong."""
    assert RIGHT.count(old) == 1, f"{old!r} must stand once in RIGHT"
    return RIGHT.replace(old, new)


SHARED = "{name: supernet, epochs: 3}"
SCORED = changed(
    "{name: train, recipe: {optimizer: sgd, lr: 0.1, batch_size: 64}}", SHARED
).replace("budget:     {epochs: 3}\n", "")


def tagged(marker: Path) -> str:
    """An experiment that makes a file, if it is read by a loader that runs code."""
    return changed("seed: 0", f"seed: !!python/object/apply:os.system ['touch {marker}']")


@dataclass(frozen=True)
class Told:
    status: int
    lines: list[str]
    seconds: float


def validate(file: Path, *options: str) -> Told:
    """Seconds are the processor's, since the machine may be busy."""
    started = time.process_time()
    result = CliRunner().invoke(app, ["validate", str(file), *options])
    return Told(result.exit_code, result.stderr.splitlines(), time.process_time() - started)


def validate_in_a_process(file: Path, *options: str) -> Told:
    """As a command of its own."""
    started = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "evonas.cli", "validate", str(file), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = ended.ru_utime - started.ru_utime + ended.ru_stime - started.ru_stime
    return Told(done.returncode, done.stderr.splitlines(), seconds)


def assert_told(told: Told, file: Path, says: Sequence[str]) -> None:
    text = "\n".join(told.lines)
    assert told.status == 2, text
    assert 1 <= len(told.lines) <= 3
    assert "Traceback" not in text
    assert told.seconds < SECONDS
    for line in told.lines:
        if re.fullmatch(r"and \d+ more errors", line):
            assert line is told.lines[2]
            continue
        assert line.removeprefix("evonas: ").startswith(f"{file}: ")
        assert "; " in line  # the problem, then the remedy
    for word in says:
        assert word in text


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the experiment lies, with a few broken data files beside it."""
    (tmp_path / "no_zip.npz").write_bytes(b"these are no arrays")
    images, labels = np.zeros((100, 8, 8), np.uint8), np.arange(100) % 2
    np.savez(tmp_path / "no_labels.npz", images=images)
    np.savez(tmp_path / "whole.npz", images=images, labels=labels)
    whole = (tmp_path / "whole.npz").read_bytes()
    (tmp_path / "damaged.npz").write_bytes(whole[:-30] + whole[-22:])  # its directory is cut
    return tmp_path


WRONG = {
    "unknown key": (
        changed("population", "populaton"),
        ["strategy.populaton: unknown key", "did you mean 'population'?", "mutation_rate"],
    ),
    "unknown key at the top": (f"{RIGHT}sead: 1\n", ["sead: unknown key", "did you mean 'seed'?"]),
    "unknown key deep inside": (
        changed("batch_size", "batchsize"),
        ["evaluator.recipe.batchsize: unknown key", "did you mean 'batch_size'?"],
    ),
    "unknown strategy": (
        changed("genetic", "gentic"),
        ["strategy.name: unknown strategy 'gentic'", "(did you mean 'genetic'?); allowed: aging, "],
    ),
    "unknown data set": (
        changed("data:       {name: digits}", "data: {name: digitz}"),
        ["data.name: unknown data set 'digitz'", "did you mean 'digits'?"],
    ),
    "component without a name": (
        changed("name: nasbench201, ", ""),
        ["space.name: is missing", "nasbench201"],
    ),
    "component as text": (
        changed("{name: nasbench201, channels: 8, cells: 1}", "nasbench201"),
        ["space: is 'nasbench201'", "{name: ..., ...}"],
    ),
    "wrong type": (
        changed("population: 12", "population: twelve"),
        ["strategy.population: is 'twelve'", "a whole number"],
    ),
    "fraction for a whole number": (
        changed("population: 12", "population: 12.5"),
        ["strategy.population: is 12.5", "a whole number"],
    ),
    "true for a number": (
        changed("population: 12", "population: true"),
        ["strategy.population: is true", "a whole number"],
    ),
    "number for text": (changed("name: digits\n", "name: 3\n"), ["name: is 3; must be text"]),
    "out of range": (
        changed("lr: 0.1", "lr: -0.1"),
        ["evaluator.recipe.lr: is -0.1", "more than 0"],
    ),
    "not among the choices": (
        changed("roulette", "lottery"),
        ["strategy.selection: is 'lottery'", "'roulette', 'tournament' or 'rank'"],
    ),
    "NaN": (changed("lr: 0.1", "lr: .nan"), ["evaluator.recipe.lr: is nan", "a finite number"]),
    "infinity": (changed("5.0e+6", ".inf"), ["constraints.0.max: is inf", "a finite number"]),
    "a float too large": (changed("lr: 0.1", "lr: 1e999"), ["evaluator.recipe.lr: is inf"]),
    "misspelt objective": (
        changed("val_error", "val_eror"),
        ["objectives.0.name: unknown metric 'val_eror'", "did you mean 'val_error'?"],
    ),
    "misspelt constraint": (
        changed("flops", "flobs"),
        ["constraints.0.name: unknown metric 'flobs'", "did you mean 'flops'?"],
    ),
    "unknown goal": (
        changed("goal: max", "goal: fewest"),
        ["objectives.1.goal: is 'fewest'", "'min' or 'max'"],
    ),
    "no objective": (changed(OBJECTIVES, "[]"), ["objectives: is empty", "at least 1"]),
    "objectives left out": (
        changed(f"objectives: {OBJECTIVES}\n", ""),
        ["objectives: is missing", "[{name: val_error, goal: min}]"],
    ),
    "objectives as text": (
        changed(OBJECTIVES, "val_error"),
        ["objectives: is 'val_error'", "a list"],
    ),
    "objective twice": (
        changed("name: params", "name: val_error"),
        ["objectives.1.name: val_error is listed twice; list it once"],
    ),
    "negative budget": (changed("epochs: 3", "epochs: -3"), ["budget.epochs: is -3", "at least 1"]),
    "two budget units": (
        changed("epochs: 3", "epochs: 3, steps: 50"),
        ["budget: is {epochs: 3, steps: 50}; must have exactly one of epochs, steps and seconds"],
    ),
    "no budget": (changed("budget:     {epochs: 3}\n", ""), ["budget: is missing", "{epochs: 3}"]),
    "horizon before the end": (
        changed("epochs: 3", "epochs: 3, horizon: 2"),
        ["budget.horizon: is 2; must be no shorter than the budget"],
    ),
    "name that climbs out": (
        changed("name: digits\n", "name: ../digits\n"),
        ["name: is '../digits'", "letters, digits"],
    ),
    "name with a line break": (
        changed("name: digits\n", 'name: "digits\\nand more"\n'),
        ["name: is 'digits\\nand more'"],
    ),
    "population of 10^12": (
        changed("population: 12", "population: 1000000000000"),
        ["strategy.population: is 1000000000000", "at most 100000"],
    ),
    "more elites than members": (
        changed("population: 12", "population: 12, elites: 12"),
        ["strategy.elites: is 12", "fewer than the population"],
    ),
    "channels of 10^9": (
        changed("channels: 8", "channels: 1000000000"),
        ["space.channels: is 1000000000", "at most 1024"],
    ),
    "seed that is too large": (changed("seed: 0", "seed: 1" + "0" * 30), ["seed: is 1000", "less"]),
    "integer of 5,000 digits": (changed("seed: 0", f"seed: {'9' * 5000}"), ["an invalid number"]),
    "no stop": (
        changed("generations: 8", ""),
        [
            "stop: is {}; must have at least one of generations, evaluations, networks, "
            "simulated_seconds, seconds and stagnation"
        ],
    ),
    "stop left out": (
        changed("stop:       {generations: 8}\n", ""),
        ["stop: is missing", "{generations: 8}"],
    ),
    "constraint without bounds": (
        changed(", max: 5.0e+6", ""),
        ["constraints.0: has no bound; give min, max, or both"],
    ),
    "constraint that nothing meets": (
        changed("max: 5.0e+6", "min: 3, max: 2"),
        ["constraints.0: min (3) exceeds max (2); lower min or raise max"],
    ),
    "no workers": (
        changed("workers: 2", "workers: 0"),
        ["parallel.workers: is 0", "at least 1, or 'auto'"],
    ),
    "unknown device": (
        changed("workers: 2", "device: gpu"),
        ["parallel.device: is 'gpu'", "auto, cpu, cuda"],
    ),
    "shares that leave nothing": (
        changed("data:       {name: digits}", "data: {name: digits, val: 0.5, test: 0.5}"),
        ["data: is {name: 'digits', val: 0.5, test: 0.5}; val + test must be below 1"],
    ),
    "missing data": (
        changed("data:       {name: digits}", "data: {name: npz, path: away.npz}"),
        ["away.npz is not a file", "images (n, h, w)"],
    ),
    "folder for data": (
        changed("data:       {name: digits}", "data: {name: npz, path: .}"),
        ["data: ", "is not a file"],
    ),
    "data without labels": (
        changed("data:       {name: digits}", "data: {name: npz, path: no_labels.npz}"),
        ["data: ", "no_labels.npz lacks labels"],
    ),
    "data without a path": (
        changed("data:       {name: digits}", "data: {name: npz}"),
        ["data.path: is missing"],
    ),
    "pictures without a path": (
        changed("data:       {name: digits}", "data: {name: image_folder}"),
        ["data.path: is missing"],
    ),
    "pictures of no size": (
        changed("data:       {name: digits}", "data: {name: image_folder, path: ., size: 0}"),
        ["data.size: is 0; must be at least 4"],
    ),
    "pictures that are away": (
        changed("data:       {name: digits}", "data: {name: image_folder, path: away}"),
        ["data: ", "away is not a folder; give a folder with a sub-folder of images"],
    ),
    "CIFAR-10 without a path": (
        changed("data:       {name: digits}", "data: {name: cifar10}"),
        ["data: no path to CIFAR-10; data.path must be the folder that", "cifar-10-binary.tar.gz"],
    ),
    "CIFAR-100 that is away": (
        changed("data:       {name: digits}", "data: {name: cifar100, path: away}"),
        ["data: no CIFAR-100 in ", "away; data.path must be the folder that"],
    ),
    "not YAML": ("name: [digits\nseed: }\n", ["line 2, column 5", "write plain YAML"]),
    "tab": ("name: digits\n\tseed: 0\n", ["line 2, column 1", "indent with spaces"]),
    "empty": ("", ["holds nothing", "a mapping with the keys name, seed, space"]),
    "comments only": ("# nothing yet\n", ["holds nothing"]),
    "list": ("- name: digits\n- seed: 0\n", ["holds a list", "a mapping with the keys"]),
    "text": ("an experiment\n", ["a mapping with the keys"]),
    "two documents": (f"{RIGHT}---\n{RIGHT}", ["another document", "write plain YAML"]),
    "unknown tag": (changed("seed: 0", "seed: !seed 0"), ["line 2, column 7", "!seed"]),
    "alias": (changed("seed: 0", "seed: &zero 0\nother: *zero"), ["line 3", "aliases (*)"]),
    "billion laughs": (LAUGHS, ["line 2, column 8", "aliases (*)"]),
    "key twice": (f"{RIGHT}seed: 1\n", ["line 13, column 1", "key 'seed' is listed twice"]),
    "key twice deep inside": (
        changed("lr: 0.1", "lr: 0.1, lr: 0.2"),
        ["line 6", "key 'lr' is listed twice"],
    ),
    "number for a key": (f"{RIGHT}3: 4\n", ["3: "]),
    "list for a key": (f"{RIGHT}[1, 2]: 4\n", ["line 13, column 1"]),
    "nested 5,000 deep": (f"name: {'[' * 5000}{']' * 5000}", ["nested too deeply"]),
    "opened 5,000 deep": (f"name: {'[' * 5000}", ["nested too deeply"]),
    "2 MB": (f"# {'x' * 2_000_000}\n{RIGHT}", ["is 2,000,", "bytes; must be at most "]),
    "value of 90,000 letters": (changed("roulette", "r" * 90_000), ["strategy.selection: "]),
    "control characters": (f"{RIGHT}# \x00", ["#x0000", "write plain YAML"]),
    "a supernet's candidates with a budget": (
        changed("{name: train, recipe: {optimizer: sgd, lr: 0.1, batch_size: 64}}", SHARED),
        ["budget: the evaluator supernet does not train candidates; use evaluator.epochs and"],
    ),
    "a supernet's finalists without one": (
        SCORED,
        ["finalists.budget: is missing; give epochs, steps or seconds, such as {epochs: 3}"],
    ),
    "a supernet of a space that has none": (
        SCORED.replace("{name: nasbench201, channels: 8, cells: 1}", "{name: macro}").replace(
            "seeds: 3", "seeds: 3, budget: {epochs: 1}"
        ),
        ["macro has no supernet; allowed: chain, channels, darts, nasbench201, FILE.py:NAME"],
    ),
    "a supernet's trainings from a cache": (
        SCORED.replace("seeds: 3", "seeds: 3, budget: {epochs: 1}") + "cache: there\n",
        ["cache: cannot be used with evaluator supernet, which does not support a"],
    ),
    "a relaxation of channels": (
        changed("{name: genetic, population: 12, selection: roulette}", "{name: gdas}").replace(
            "{name: nasbench201, channels: 8, cells: 1}", "{name: channels}"
        ),
        ["space.name: channels has no ops that gdas can choose from; allowed: chain, darts"],
    ),
    "an order that there is not": (
        changed("{name: genetic, population: 12, selection: roulette}", "{name: darts, order: 2}"),
        ["strategy.order: is 2; allowed: 'first' or 'second'"],
    ),
    "all keys missing": (
        "name: digits\n",
        ["space: is missing; give {name: ..., ...}, where the name is", "and 3 more errors"],
    ),
}


@pytest.mark.parametrize(("text", "says"), WRONG.values(), ids=WRONG)
def test_a_wrong_file_is_told_in_three_lines_at_most(
    folder: Path, text: str, says: list[str]
) -> None:
    file = folder / "wrong.yaml"
    file.write_text(text)
    told = validate(file)
    assert_told(told, file, says)
    assert len("\n".join(told.lines)) < 2000


WRONG_AT_THE_EDGES = {
    "not a boolean": (changed("seed: 0", "seed: !!bool maybe"), []),
    "not an integer": (changed("seed: 0", "seed: !!int ''"), []),
    "not a time": (changed("seed: 0", "seed: !!timestamp soon"), []),
    "not a mapping": ("!!map [a]", []),
    "no such letter": (changed("name: digits\n", 'name: "\\UFFFFFFFF"\n'), []),
    "base 60 beyond all floats": (changed("lr: 0.1", f"lr: 1{':30' * 200}.5"), []),
    "key with line breaks": (f'{RIGHT}"a\\nb": 3\n', ["unknown key"]),
    "data that are no zip": (
        changed("data:       {name: digits}", "data: {name: npz, path: no_zip.npz}"),
        ["data: ", "no_zip.npz is not an .npz file", "numpy.savez"],
    ),
    "data in a damaged zip": (
        changed("data:       {name: digits}", "data: {name: npz, path: damaged.npz}"),
        ["data: ", "damaged.npz"],
    ),
    "path of 5,000 letters": (
        changed("data:       {name: digits}", f"data: {{name: npz, path: {'a' * 5000}}}"),
        ["data"],
    ),
    "path of 5,000 letters to a folder": (
        changed("data:       {name: digits}", f"data: {{name: cifar10, path: {'a' * 5000}}}"),
        ["data.path: File name too long; give a path that can be read"],
    ),
    "path with a zero byte": (
        changed("data:       {name: digits}", 'data: {name: npz, path: "a\\0b"}'),
        ["data"],
    ),
    "path of nobody's": (
        changed("data:       {name: digits}", "data: {name: npz, path: ~nobody-at-all/a.npz}"),
        ["data"],
    ),
}


@pytest.mark.parametrize(("text", "says"), WRONG_AT_THE_EDGES.values(), ids=WRONG_AT_THE_EDGES)
def test_a_file_wrong_at_the_edges_is_told_as_well(
    folder: Path, text: str, says: list[str]
) -> None:
    file = folder / "wrong.yaml"
    file.write_text(text)
    assert_told(validate(file), file, says)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x00\x01\xff\xfe" * 100, id="not UTF-8"),
        pytest.param(b"PK\x03\x04" + bytes(range(128)), id="ASCII and control"),
        pytest.param(RIGHT.encode("utf-16"), id="UTF-16"),
    ],
)
def test_a_binary_file_is_refused(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "binary.yaml"
    file.write_bytes(data)
    assert_told(validate(file), file, ["YAML"])


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    file = tmp_path / "away.yaml"
    assert_told(validate(file), file, ["does not exist", "a YAML file"])


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert_told(validate(tmp_path), tmp_path, ["is a folder", "a YAML file"])


def test_a_tag_that_names_a_command_does_not_run_it(tmp_path: Path) -> None:
    file, marker = tmp_path / "tagged.yaml", tmp_path / "marker"
    file.write_text(tagged(marker))
    assert_told(validate(file), file, ["line 2, column 7", "os.system", "write plain YAML"])
    assert not marker.exists()
    yaml.unsafe_load(file.read_text())
    assert marker.exists()  # the command is one that would have run


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        pytest.param("junk", ["--set junk", "key=value"], id="no equals sign"),
        pytest.param("=3", ["--set =3", "key=value"], id="no key"),
        pytest.param("sead=3", ["sead: unknown key", "'seed'"], id="unknown key"),
        pytest.param("stop.generations=many", ["stop.generations: is 'many'"], id="wrong type"),
        pytest.param("stop.generations=[", ["write plain YAML"], id="not YAML"),
        pytest.param("seed=!!python/name:os.system", ["write plain YAML"], id="tag"),
        pytest.param("name=../up", ["name: is '../up'"], id="name that climbs out"),
        pytest.param("stop=", ["stop: is null"], id="nothing"),
        pytest.param("objectives.5.name=params", ["objectives.5"], id="place"),
    ],
)
def test_junk_in_set_is_told(tmp_path: Path, setting: str, says: list[str]) -> None:
    file = tmp_path / "right.yaml"
    file.write_text(RIGHT)
    assert_told(validate(file, "--set", setting), file, says)


def test_a_wrong_file_is_told_within_five_seconds_by_the_command(tmp_path: Path) -> None:
    text, says = WRONG["billion laughs"]
    file = tmp_path / "wrong.yaml"
    file.write_text(text)
    assert_told(validate_in_a_process(file), file, says)


def test_the_command_does_not_run_what_a_tag_names(tmp_path: Path) -> None:
    file, marker = tmp_path / "tagged.yaml", tmp_path / "marker"
    file.write_text(tagged(marker))
    assert_told(validate_in_a_process(file), file, ["os.system"])
    assert not marker.exists()


def test_a_right_file_is_valid(tmp_path: Path) -> None:
    file = tmp_path / "right.yaml"
    file.write_text(RIGHT)
    result = CliRunner().invoke(app, ["validate", str(file), "--set", "seed=7"])
    assert result.exit_code == 0
    assert result.stderr == ""
    assert result.stdout == f"{file}: valid (digits, seed 7)\n"


def test_every_experiment_that_comes_with_evonas_is_valid() -> None:
    files = sorted((Path(__file__).parents[2] / "experiments").glob("*.yaml"))
    assert files
    for file in files:
        answer = validate(file)
        if answer.status != 0:  # its data are not on this machine, and nothing else is amiss
            [line] = answer.lines
            assert re.search(r"\.yaml: data: no (CIFAR-10|Fashion-MNIST) in ", line), line
