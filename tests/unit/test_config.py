"""The experiment file: what is read from it, written back, and told about it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
import yaml

from evonas.config import dump, load
from evonas.core import UserError
from evonas.experiment import Experiment
from evonas.networks.table import TableParams
from evonas.words import plain
from evonas.yamlfile import MAX_BYTES, overridden
from evonas.yamlfile import parse as parse_yaml
from evonas.yamlfile import read as read_yaml

DESIGN = """\
name: digits
seed: 0
space:      {name: nasbench201, channels: 8, cells: 1}
data:       {name: digits}
strategy:   {name: genetic, population: 12, selection: roulette, crossover: uniform,
             mutation_rate: 0.2}
evaluator:  {name: train, recipe: {optimizer: sgd, lr: 0.1, batch_size: 64}}
budget:     {epochs: 3}
objectives: [{name: val_error, goal: min}, {name: params, goal: min}]
constraints: [{name: flops, max: 5.0e+6}]
stop:       {generations: 8}
finalists:  {top: 3, seeds: 3}
parallel:   {workers: 2}
"""


def read(folder: Path, text: str = DESIGN, *overrides: str) -> Experiment:
    file = folder / "experiment.yaml"
    file.write_text(text)
    return load(file, overrides)


def mistakes(folder: Path, text: str = DESIGN, *overrides: str) -> list[str]:
    """What is told about a file, line by line, without the file's name."""
    with pytest.raises(UserError) as caught:
        read(folder, text, *overrides)
    return [
        line.removeprefix(f"{folder}/experiment.yaml: ") for line in str(caught.value).split("\n")
    ]


# Reading and writing back


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param([], id="as it stands"),
        pytest.param(["data={name: npz, path: whole.npz, val: 0.1}"], id="npz"),
        pytest.param(["constraints=[{name: params, min: 1, max: 1e6}]"], id="whole and exponent"),
        pytest.param(["evaluator.recipe.lr=1e-7", "evaluator.recipe.flip=false"], id="recipe"),
        pytest.param(["finalists={top: 0, budget: {seconds: 0.1}}"], id="finalists"),
        pytest.param(["budget={steps: 10, horizon: 20}"], id="horizon"),
        pytest.param(["parallel={workers: auto, device: 'cuda:0,1', timeout: 3}"], id="parallel"),
        pytest.param(["parallel={backend: dask, address: 'tls://a:1'}"], id="cluster"),
        pytest.param(["objectives.0.reference=0.5"], id="reference"),
        pytest.param(["cache=../shared/mine"], id="cache"),
        pytest.param(["seed=9223372036854775807"], id="largest seed"),
        pytest.param(["name='12'"], id="name like an integer"),
        pytest.param(["name='1.5'"], id="name like a float"),
        pytest.param(["name='null'"], id="name like nothing"),
        pytest.param(["name='2026-01-01'"], id="name like a date"),
        pytest.param(["name='1e5'"], id="name like a float with an exponent"),
    ],
)
def test_a_dumped_experiment_reads_back_equal(tmp_path: Path, overrides: list[str]) -> None:
    write_npz(tmp_path / "whole.npz")
    experiment = read(tmp_path, DESIGN, *overrides)
    (tmp_path / "again").mkdir()  # paths are absolute by now
    again = read(tmp_path / "again", dump(experiment))
    assert again == experiment
    assert dump(again) == dump(experiment)


def test_a_dump_names_each_component_first_and_holds_the_defaults(tmp_path: Path) -> None:
    document = yaml.safe_load(dump(read(tmp_path)))
    for section in ("space", "data", "strategy", "evaluator"):
        assert next(iter(document[section])) == "name"
    assert document["strategy"]["elites"] == 6
    assert document["parallel"]["threads"] == 1


def test_what_the_design_writes_is_what_it_gets_without_writing_it(tmp_path: Path) -> None:
    short = """\
name: digits
space: {name: nasbench201, channels: 8, cells: 1}
data: {name: digits}
strategy: {name: genetic, population: 12, mutation_rate: 0.2}
evaluator: {name: train}
budget: {epochs: 3}
objectives: [{name: val_error}, {name: params}]
constraints: [{name: flops, max: 5000000}]
stop: {generations: 8}
parallel: {workers: 2}
"""
    assert read(tmp_path, short) == read(tmp_path, DESIGN)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1e-3", 0.001),
        ("5.0e6", 5_000_000.0),
        ("5.0e+6", 5_000_000.0),
        ("1E5", 100_000.0),
        ("+1e3", 1000.0),
        ("-2.5e-1", -0.25),
        (".5e1", 5.0),
        ("3.e2", 300.0),
    ],
)
def test_a_number_with_an_exponent_is_a_number(text: str, number: float) -> None:
    value = parse_yaml(f"a: {text}")["a"]
    assert isinstance(value, float)
    assert value == number


@pytest.mark.parametrize("text", ["e5", "1e", "1e5x", "v1e5", "1e5.0", "'1e5'", "--1e5"])
def test_text_that_looks_a_little_like_a_number_is_text(text: str) -> None:
    assert parse_yaml(f"a: {text}")["a"] == text.strip("'")


@pytest.mark.parametrize(
    "text", ["no", "Yes", "ON", "off", "1:30", "1:2.5", "190:20:30.15", "010", "00", "2026-01-01"]
)
def test_what_only_yaml_1_1_reads_as_something_else_is_text(text: str) -> None:
    assert yaml.safe_load(text) != text
    assert parse_yaml(f"[{text}, {{{text}: 1}}]") == [text, {text: 1}]


@pytest.mark.parametrize(
    ("written", "choices"),
    [
        ("no, yes", ("no", "yes")),
        ("3, 5, 7", ("3", "5", "7")),
        ("0.25, 1.0, true", ("0.25", "1.0", "true")),
        ("1:30, 010, 50k", ("1:30", "010", "50k")),
    ],
)
def test_choices_are_called_what_is_written(written: str, choices: tuple[str, ...]) -> None:
    genes = parse_yaml(f"{{0: [{written}], off: [{written}]}}")
    assert TableParams(genes=genes).genes == {"0": choices, "off": choices}


@pytest.mark.parametrize(
    ("value", "kind", "meant"),
    [
        ("50k", int, 50_000),
        ("1.5M", int | None, 1_500_000),
        ("2G", float | None, 2_000_000_000),
        ("1.001k", float, 1001),
        ("0.5k", Annotated[int, "a bound"], 500),
        (["1k", "20"], tuple[int, ...], [1000, "20"]),
        ("no", bool, False),
        ("Yes", bool | None, True),
        (["on", "off"], list, [True, False]),
        ("off", Any, False),
        *(("no", kind, "no") for kind in (str, str | None, int, Literal["no"])),
        *(("50k", kind, "50k") for kind in (str, bool, Any, int | str)),
        *((text, float, text) for text in ("1:30", "5 k", "5m", "k", "1e3k", "50%", "\u0663k")),
    ],
)
def test_a_value_is_taken_where_its_meaning_is_plain(value: Any, kind: Any, meant: Any) -> None:
    taken = plain(value, kind)
    assert taken == meant
    assert type(taken) is type(meant)


def test_an_experiment_takes_what_is_plain(tmp_path: Path) -> None:
    overrides = ("evaluator.recipe.flip=no", "stop.evaluations=50k", "constraints.0.max=1.5M")
    experiment = read(tmp_path, DESIGN, *overrides)
    assert experiment.evaluator.model_dump()["recipe"]["flip"] is False
    assert experiment.stop.evaluations == 50_000
    assert experiment.constraints[0].max == 1_500_000
    assert read(tmp_path, dump(experiment)) == experiment


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("parallel.timeout=1:30", "parallel.timeout: is '1:30'; must be a number"),
        ("stop.generations=010", "stop.generations: is '010'; must be a whole number"),
        ("stop.generations=1.0001k", "stop.generations: is 1000.1; must be a whole number"),
        ("name=3", "name: is 3; must be text, in quotes"),
        ("objectives.0.name=true", "objectives.0.name: is true; must be text, in quotes"),
        ("space={name: table, genes: {a: [null, x]}}", "must be text, in quotes"),
    ],
)
def test_what_is_not_plain_is_told(tmp_path: Path, override: str, told: str) -> None:
    (line,) = mistakes(tmp_path, DESIGN, override)
    assert told in line


def test_whole_numbers_stand_where_fractions_may(tmp_path: Path) -> None:
    experiment = read(tmp_path, DESIGN, "constraints.0.max=5000000", "evaluator.recipe.lr=1")
    assert experiment.constraints[0].max == 5_000_000.0
    assert experiment.evaluator.model_dump()["recipe"]["lr"] == 1.0


def test_an_experiment_is_frozen(tmp_path: Path) -> None:
    experiment = read(tmp_path)
    with pytest.raises(ValueError, match="frozen"):
        experiment.seed = 1


# --set


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("seed=3", {"seed": 3}),
        ("stop.generations=9", {"stop": {"generations": 9}}),
        ("stop.evaluations=40", {"stop": {"generations": 8, "evaluations": 40}}),
        ("budget={steps: 5}", {"budget": {"steps": 5}}),
        ("finalists.budget.epochs=4", {"finalists": {"top": 3, "budget": {"epochs": 4}}}),
        ("parallel.timeout=1e1", {"parallel": {"timeout": 10.0}}),
        ("objectives.1.goal=max", {"objectives": ({}, {"name": "params", "goal": "max"})}),
        ("objectives.1={name: flops}", {"objectives": ({"name": "val_error"}, {"name": "flops"})}),
        ("evaluator.recipe.cutout=2", {"evaluator": {"recipe": {"cutout": 2, "lr": 0.1}}}),
        ("constraints=[]", {"constraints": ()}),
    ],
)
def test_set_puts_a_value_in(tmp_path: Path, override: str, expected: dict[str, Any]) -> None:
    assert_holds(read(tmp_path, DESIGN, override).model_dump(), expected)


def test_a_second_equals_sign_belongs_to_the_value() -> None:
    assert overridden({}, ["name=a=b"]) == {"name": "a=b"}


def test_of_two_values_set_the_last_one_counts(tmp_path: Path) -> None:
    assert read(tmp_path, DESIGN, "seed=3", "seed=4").seed == 4


def test_set_makes_a_section_that_is_not_there(tmp_path: Path) -> None:
    without = DESIGN.replace("parallel:   {workers: 2}\n", "")
    assert "parallel" not in without
    assert read(tmp_path, without, "parallel.workers=1").parallel.workers == 1


def test_set_fills_a_section_that_is_empty() -> None:
    assert overridden({"stop": None}, ["stop.generations=3"]) == {"stop": {"generations": 3}}


@pytest.mark.parametrize("override", ["objectives.2.name=flops", "objectives.first=3", "a.b=3"])
def test_set_outside_of_what_is_there_is_told(override: str) -> None:
    with pytest.raises(UserError, match=f"^--set {override}: there is no "):
        overridden({"objectives": [{}, {}], "a": [3]}, [override])


def test_set_may_replace_one_value_by_a_section() -> None:
    assert overridden({"a": 3}, ["a.b.c=4"]) == {"a": {"b": {"c": 4}}}


# Paths


@pytest.mark.parametrize("path", ["whole.npz", "./whole.npz", "../experiments/whole.npz"])
def test_data_are_sought_from_the_folder_of_the_experiment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    folder = tmp_path / "experiments"
    folder.mkdir()
    write_npz(folder / "whole.npz")
    (folder / "npz.yaml").write_text(DESIGN)
    monkeypatch.chdir(tmp_path)
    experiment = load(Path("experiments/npz.yaml"), [f"data={{name: npz, path: {path}}}"])
    assert experiment.data.model_dump()["path"] == str(folder / "whole.npz")


def test_data_beside_the_current_folder_are_not_taken_for_those_of_the_experiment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_npz(tmp_path / "whole.npz")
    folder = tmp_path / "experiments"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    told = mistakes(folder, DESIGN, "data={name: npz, path: whole.npz}")
    assert told[0].startswith(f"data: {folder}/whole.npz is not a file; give ")


def test_an_absolute_path_and_a_home_stay_what_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_npz(tmp_path / "whole.npz")
    folder = tmp_path / "experiments"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read(folder, DESIGN, "cache=mine").cache == str(folder / "mine")
    for path in (f"{tmp_path}/whole.npz", "~/whole.npz"):
        assert read(folder, DESIGN, f"cache={path}").cache == str(tmp_path / "whole.npz")
        experiment = read(folder, DESIGN, f"data={{name: npz, path: {path}}}")
        assert experiment.data.model_dump()["path"] == str(tmp_path / "whole.npz")


# Mistakes


def test_three_mistakes_are_all_told(tmp_path: Path) -> None:
    told = mistakes(tmp_path, DESIGN, "seed=-1", "strategy.population=1", "stop.generations=0")
    assert sorted(told) == [
        "seed: is -1; must be at least 0",
        "stop.generations: is 0; must be at least 1",
        "strategy.population: is 1; must be at least 2",
    ]


def test_of_many_mistakes_two_are_told_and_the_others_counted(tmp_path: Path) -> None:
    overrides = [f"unknown{i}={i}" for i in range(10)]
    told = mistakes(tmp_path, DESIGN, *overrides)
    assert [line.split(":")[0] for line in told] == ["unknown0", "unknown1", "and 8 more errors"]


def test_each_line_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        read(tmp_path, DESIGN, "seed=-1", "strategy.population=1", "stop.generations=0")
    for line in str(caught.value).splitlines():
        assert line.startswith(f"{tmp_path}/experiment.yaml: ")


def test_a_component_with_a_mistake_is_not_told_to_be_missing_too(tmp_path: Path) -> None:
    assert mistakes(tmp_path, DESIGN, "strategy.population=1", "space.cells=0") == [
        "space.cells: is 0; must be at least 1",
        "strategy.population: is 1; must be at least 2",
    ]


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("parallel.workers=0", "parallel.workers: is 0; must be at least 1, or 'auto'"),
        (
            "parallel={backend: dask}",
            "parallel.address: is missing; give the scheduler's address, such as "
            "tcp://10.0.0.1:8786",
        ),
        (
            "parallel.address=tcp://a:1",
            "parallel.address: is not used; add backend: dask, or remove the key",
        ),
        ("parallel.address=a", "parallel.address: is 'a'; must be like tcp://10.0.0.1:8786"),
        (
            "parallel={workers: 2, backend: dask, address: 'tcp://a:1'}",
            "parallel.workers: is 2, but the cluster says how many workers there are; "
            "remove the key",
        ),
        ("parallel.workers=2000", "parallel.workers: is 2000; must be at most 1024, or 'auto'"),
        ("parallel.workers=all", "parallel.workers: is 'all'; must be a whole number, or 'auto'"),
        ("budget=3", "budget: is 3; must be a mapping of keys to values"),
        ("finalists.budget.epochs=0", "finalists.budget.epochs: is 0; must be at least 1"),
        ("parallel.channels_last=2", "parallel.channels_last: is 2; must be true or false"),
    ],
)
def test_a_value_that_may_be_of_several_kinds_is_told_in_one_line_with_all_that_is_allowed(
    tmp_path: Path, override: str, told: str
) -> None:
    assert mistakes(tmp_path, DESIGN, override) == [told]


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("strategy={name: darts, epochs: 2, recipe: {ema: 0.1}}", "strategy.recipe.ema"),
        ("evaluator={name: supernet, recipe: {ema: 0.1}}", "evaluator.recipe.ema"),
    ],
)
def test_an_average_of_shared_weights_is_refused(tmp_path: Path, override: str, key: str) -> None:
    (told,) = mistakes(tmp_path, DESIGN, override)
    assert told.startswith(f"{key}: does not apply to the weights of a supernet; remove the key")


@pytest.mark.parametrize(
    ("override", "allowed"),
    [
        (
            "evaluator.recipe.lrr=1",
            "auxiliary_weight, batch_size, clip, cutmix, cutout, ",
        ),
        ("finalists.budget.epoch=1", "epochs, horizon, seconds, steps"),
        ("objectives.0.weight=1", "goal, name, reference"),
        ("constraints.0.above=1", "max, min, name"),
    ],
)
def test_an_unknown_key_is_told_with_the_keys_of_its_place(
    tmp_path: Path, override: str, allowed: str
) -> None:
    (told,) = mistakes(tmp_path, DESIGN, override)
    assert told.startswith(f"{override.split('=')[0]}: unknown key")
    assert f"; allowed: {allowed}" in told


# YAML


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['touch {marker}']",
        "!!python/object/apply:open [{marker}, w]",
        "{{!!python/object/apply:os.system ['touch {marker}']: 1}}",
        "[{{a: !!python/object/new:os.system ['touch {marker}']}}]",
    ],
)
def test_the_loader_builds_no_python_objects(tmp_path: Path, text: str) -> None:
    marker = tmp_path / "marker"
    text = text.format(marker=marker)
    with pytest.raises(UserError, match="could not determine a constructor for the tag"):
        parse_yaml(text)
    assert not marker.exists()
    yaml.unsafe_load(text)
    assert marker.exists()  # this text is one that would have run


@pytest.mark.parametrize("tag", ["name:os.system", "module:os", "tuple", "str", "long", "complex"])
def test_no_tag_of_pythons_is_known(tag: str) -> None:
    with pytest.raises(UserError, match="could not determine a constructor"):
        parse_yaml(f"!!python/{tag} '1'")


def test_the_loader_leaves_those_of_others_alone() -> None:
    parse_yaml("a: 1e5")
    assert yaml.safe_load("a: 1e5") == {"a": "1e5"}
    assert yaml.safe_load("{a: &x 1, b: *x}") == {"a": 1, "b": 1}


def test_equal_keys_of_different_mappings_are_fine() -> None:
    assert parse_yaml("{a: {x: 1}, b: {x: 1}}") == {"a": {"x": 1}, "b": {"x": 1}}


def test_a_file_is_read_with_a_byte_order_mark_and_line_ends_of_windows(tmp_path: Path) -> None:
    file = tmp_path / "windows.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + DESIGN.replace("\n", "\r\n").encode())
    assert load(file) == read(tmp_path)


def test_a_file_at_the_largest_size_is_read_and_one_a_byte_larger_is_not(tmp_path: Path) -> None:
    file = tmp_path / "large.yaml"
    text = "a: 1 #"
    file.write_text(text + "x" * (MAX_BYTES - len(text)))
    assert read_yaml(file) == {"a": 1}
    file.write_text(text + "x" * (MAX_BYTES - len(text) + 1))
    with pytest.raises(
        UserError, match=f"is {MAX_BYTES + 1:,} bytes; must be at most {MAX_BYTES:,}"
    ):
        read_yaml(file)


# Helpers


def write_npz(file: Path) -> None:
    labels = np.arange(40) % 2
    np.savez(file, images=np.zeros((40, 4, 4), np.uint8), labels=labels)


def assert_holds(found: Any, expected: Any) -> None:
    """Whether all that is expected is found, at whatever depth; more may be there."""
    if isinstance(expected, dict):
        for key, value in expected.items():
            assert_holds(found[key], value)
    elif isinstance(expected, tuple):
        assert len(found) == len(expected)
        for item, value in zip(found, expected, strict=True):
            assert_holds(item, value)
    else:
        assert found == expected
        assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("{name: aging, population: 8}", {"lag": 8, "repeats": True}),
        ("{name: aging, population: 8, lag: 2}", {"lag": 2}),
        ("{name: nsga3}", {"inner_divisions": 0}),
        ("{name: nsga2, encoding: scaled}", {"ends": "clip"}),
        ("{name: genetic}", {"ends": "joined", "fitness": "ranked"}),
    ],
)
def test_a_run_begun_before_a_setting_keeps_what_was_done_without_it(
    strategy: str, expected: dict[str, Any], tmp_path: Path
) -> None:
    """And only a run: in an experiment a key that is missing has its default."""
    file = tmp_path / "config.yaml"
    lines = [line for line in DESIGN.splitlines() if "mutation_rate" not in line]
    file.write_text("\n".join(lines).replace(lines[4], f"strategy: {strategy}"))
    found = load(file, written=True).strategy.model_dump()
    assert {name: found[name] for name in expected} == expected
    again = tmp_path / "again.yaml"
    again.write_text(dump(load(file, written=True)))
    assert load(again, written=True).strategy.model_dump() == found
    if "genetic" not in strategy:
        assert load(file).strategy.model_dump() != found
