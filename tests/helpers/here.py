"""Stands in for worker processes, in tests of runs that are about something else.

A process takes seconds to start, most of them to import torch.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

from evonas.evaluators.pool import Workers
from evonas.experiment import ParallelParams
from evonas.jobs import machine

T = TypeVar("T")


class Here(Workers):
    """Calls a function at once, in this process, with what a worker would be sent."""

    def submit(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        future: Future[T] = Future()
        try:
            sent = pickle.loads(pickle.dumps((function, arguments)))
            future.set_result(sent[0](*sent[1]))
        except Exception as error:
            future.set_exception(error)
        return future


@contextmanager
def instead_of_workers() -> Iterator[None]:
    """Let whatever asks the machine for workers train here."""

    def workers(folder: Path, settings: ParallelParams) -> Here:
        return Here(folder, int(settings.workers), threads=settings.threads)

    with mock.patch.object(machine, "workers", workers):
        yield
