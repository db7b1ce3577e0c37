"""Shared by the tests."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

# One thread, here and in the processes that tests start: small networks gain nothing by more, and
# threads that wait for a busy core can make them twenty times slower. Read when torch loads.
os.environ.update(
    OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", GOMP_SPINCOUNT="10000"
)

import torch

from evonas.cli import finishing
from tests.helpers import here


@pytest.fixture(autouse=True)
def without_figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs end without drawing, which takes seconds, but for tests marked `figures`."""
    if request.node.get_closest_marker("figures") is None:
        monkeypatch.setattr(finishing, "draw", lambda run_dir, only=(), *, pdf=False: None)


@pytest.fixture
def no_workers() -> Iterator[None]:
    """Runs train in the test's own process, for a worker takes longer to start than to train."""
    with here.instead_of_workers():
        yield


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Takes back what a test, or a full training within it, has set."""
    yield
    torch.set_num_threads(1)
