"""ONNX files: what they say, the scales they take, and what cannot be one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from evonas.core import UserError
from evonas.export.network import export
from tests.unit.export import spaces
from tests.unit.export.conftest import Make


def test_a_file_says_what_it_takes_and_takes_the_usual_scales(
    make: Make, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    network = make(spaces.plain, class_names=("cat", "dog"))
    about = {**network.about, "accuracy": 0.75, "accuracy_on": "test images"}
    [file] = export(replace(network, about=about), "onnx", tmp_path / "x.onnx")
    assert capfd.readouterr() == ("", "")
    session = onnxruntime.InferenceSession(file)
    said = session.get_modelmeta()
    noted = said.custom_metadata_map
    assert json.loads(noted["class_names"]) == ["cat", "dog"]
    assert json.loads(noted["values"]) == [0, 255]
    assert json.loads(noted["image_shape"]) == [1, 8, 8]
    assert json.loads(noted["mean"]) == pytest.approx(about["mean"])
    assert json.loads(noted["accuracy"]) == 0.75
    assert "accuracy: 0.7500 on the test images" in said.description
    images = np.random.default_rng(0).integers(0, 256, (9, 1, 8, 8)).astype(np.float32)
    [expected] = session.run(None, {"images": images})
    [scaled] = session.run(None, {"images": images / 255})
    np.testing.assert_allclose(scaled, expected, rtol=1e-4, atol=1e-4)


def test_code_that_decides_by_values_is_told_in_a_line(
    make: Make, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    network = make(spaces.deciding)
    with pytest.raises(UserError) as raised:
        export(network, "onnx", tmp_path / "x.onnx")
    message = str(raised.value)
    assert "its code decides by the values of a tensor (spaces.py, line " in message
    assert "if x.mean() > 0:" in message
    assert "--format python" in message
    assert "\n" not in message
    assert capfd.readouterr() == ("", "")
    assert not [path for path in tmp_path.iterdir() if "onnx" in path.name]
    export(network, "python", tmp_path / "x.py")  # the way out
