"""The notebook runs as it stands, and shows what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.helpers import ROOT

NOTEBOOK = ROOT / "examples" / "a_run.ipynb"


def shown(notebook: Any) -> list[dict[str, Any]]:
    """What each cell of code shows at its end, by the kind of content."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [
        {kind: text for output in cell.outputs for kind, text in output.get("data", {}).items()}
        for cell in cells
    ]


def test_the_notebook_is_kept_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert not any(shown(notebook))


@pytest.mark.slow
def test_the_notebook_runs_from_its_first_cell_to_its_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    context = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=context).execute()
    _, run, front, _, winner, size, *figures = shown(notebook)
    assert "RunResult" in run["text/html"]
    assert "val_error" in front["text/html"]
    assert "test_error" in winner["text/plain"]
    assert int(size["text/plain"]) > 0
    assert all("image/png" in figure for figure in figures)
