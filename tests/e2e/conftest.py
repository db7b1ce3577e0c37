"""Shared by the tests of whole runs."""

from __future__ import annotations

import pytest

from evonas import cli


@pytest.fixture(autouse=True)
def without_figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs end without drawing, which takes seconds, but for tests marked `figures`."""
    if request.node.get_closest_marker("figures") is None:
        monkeypatch.setattr(cli, "_draw", lambda run_dir: None)
