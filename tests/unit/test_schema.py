"""The JSON schema of an experiment, by which editors complete and check it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from evonas import registry, schema, yamlfile
from evonas.cli import app
from evonas.starter import starter
from tests.helpers import ROOT

FILE = ROOT / "docs" / "reference" / "experiment.schema.json"
EXPERIMENTS = sorted((ROOT / "experiments").glob("*.yaml"))
LINE = "# yaml-language-server: $schema="


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    described = json.loads(FILE.read_text())
    Draft202012Validator.check_schema(described)
    return Draft202012Validator(described)


def test_the_schema_in_the_docs_is_current_and_what_the_command_prints() -> None:
    assert FILE.read_text() == schema.text(registry.TABLES.__getitem__)
    if all(set(registry.names(kind)) == set(registry.TABLES[kind]) for kind in registry.OWN):
        assert CliRunner().invoke(app, ["schema"]).output == FILE.read_text()


def test_every_experiment_names_the_schema_and_is_valid_under_it(
    validator: Draft202012Validator, tmp_path: Path
) -> None:
    for file in EXPERIMENTS:
        [line] = [line for line in file.read_text().splitlines() if line.startswith(LINE)]
        assert (file.parent / line.removeprefix(LINE)).resolve() == FILE, file
        assert [each.message for each in validator.iter_errors(yamlfile.read(file))] == [], file
    begun = tmp_path / "begun.yaml"
    begun.write_text(starter(begun, "digits", None, "nasbench201", None))
    assert LINE in begun.read_text()
    assert list(validator.iter_errors(yamlfile.read(begun))) == []


@pytest.mark.parametrize(
    ("changed", "valid"),
    [
        ({"strategy": {"name": "pso", "particles": 20}}, True),
        ({"strategy": {"name": "pso", "population": 20}}, False),
        ({"strategy": {"name": "halving", "strategy": {"name": "aging", "lag": 2}}}, True),
        ({"strategy": {"name": "halving", "strategy": {"name": "aging", "lags": 2}}}, False),
        ({"strategy": {"particles": 20}}, False),
        ({"strategy": {"name": "mine.py:Mine", "whatever": [1]}}, True),
        ({"data": None}, True),
        ({"seeds": 1}, False),
        ({"stop": {"evaluations": "50k"}, "finalists": {"best_seed": "no"}}, True),
        ({"stop": {"evaluations": "many"}}, False),
        ({"budget": {"epochs": 0}}, False),
    ],
)
def test_the_schema_finds_mistakes_and_takes_what_evonas_takes(
    validator: Draft202012Validator, changed: dict[str, Any], valid: bool
) -> None:
    document = yamlfile.read(ROOT / "experiments" / "quickstart.yaml") | changed
    assert validator.is_valid(document) == valid


def test_hours_may_stand_for_a_stop(validator: Draft202012Validator) -> None:
    document = yamlfile.read(ROOT / "experiments" / "quickstart.yaml")
    del document["stop"]
    assert not validator.is_valid(document)
    assert validator.is_valid({**document, "hours": 1})
