"""Shared by the tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from evonas import cli


@pytest.fixture(autouse=True)
def without_figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs end without drawing, which takes seconds, but for tests marked `figures`."""
    if request.node.get_closest_marker("figures") is None:
        monkeypatch.setattr(cli, "_draw", lambda run_dir, only=(): None)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """One torch thread: small networks gain nothing by more, and threads that wait for a busy
    core can make them twenty times slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
