"""How a format is named, and what is said of an export."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors import safe_open

from evonas.core import UserError
from evonas.export.network import closing, export, form_of, trained
from tests.helpers import ROOT
from tests.unit.export import spaces
from tests.unit.export.conftest import Make


@pytest.mark.parametrize(
    ("named", "out", "form"),
    [
        ("ONNX", None, "onnx"),
        (" .Onnx", None, "onnx"),
        ("py", None, "python"),
        ("Python", None, "python"),
        ("SafeTensors", None, "torch"),
        (None, "x.onnx", "onnx"),
        (None, "x.ONNX", "onnx"),
        (None, "x.safetensors", "torch"),
        (None, "x", "python"),
        (None, None, "python"),
    ],
)
def test_a_format_is_known_by_any_spelling(named: str | None, out: str | None, form: str) -> None:
    assert form_of(named, Path(out) if out else None) == form


def test_an_unknown_format_is_told() -> None:
    with pytest.raises(UserError, match=r"did you mean 'onnx'.*allowed: python, torch, onnx"):
        form_of("onxx", None)


@pytest.mark.parametrize("form", ["python", "torch"])
def test_an_export_closes_with_all_that_a_user_must_know(
    make: Make, tmp_path: Path, form: str
) -> None:
    names = ("cat", "dog\x1b[2J")
    network = make(spaces.plain, shape=(3, 6, 8), class_names=names)
    about = {**network.about, "accuracy": 0.75, "accuracy_on": "test images"}
    network = replace(network, about=about)
    files = export(network, form, tmp_path / f"x.{'py' if form == 'python' else 'safetensors'}")
    said = "\n".join(closing(network, form, files))
    for part in ("3 x 6 x 8", "values 0 to 255", "0 to 1", "classes: cat, dog?[2J"):
        assert part in said
    assert "accuracy: 0.7500 on the test images" in said
    if form == "torch":
        with safe_open(files[0], "pt") as file:
            noted = json.loads(file.metadata()["evonas"])
        assert (noted["accuracy"], noted["class_names"]) == (0.75, [*names])
    else:
        assert "from x import predict" in said


def test_weights_of_earlier_versions_are_described_from_the_data() -> None:
    about = trained(ROOT / "tests/assets/0.1.0/cached").about
    assert about["values"] == [0, 16]
    assert about["class_names"] == [str(digit) for digit in range(10)]
    assert about["accuracy_on"] == "test images"


def test_values_that_are_not_known_are_told(make: Make, tmp_path: Path) -> None:
    network = make(spaces.plain)
    old = replace(network, about={**network.about, "values": None})
    files = export(old, "python", tmp_path / "x.py")
    assert "VALUES = None" in files[0].read_text()
    said = "\n".join(closing(old, "python", files))
    assert "with the values that they have in the data" in said
    assert "predict(images)" in said
