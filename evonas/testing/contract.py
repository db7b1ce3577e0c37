"""What makes a function a contract: broken, it raises AssertionError and nothing else."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import numpy as np

Subject = TypeVar("Subject")


def contract(check: Callable[[Subject], None]) -> Callable[[Subject], None]:
    """Makes a contract of a function: whatever a component raises within it has broken it."""

    @wraps(check)
    def kept(subject: Subject) -> None:
        try:
            check(subject)
        except AssertionError:
            raise
        except Exception as error:  # what a broken component raises may be anything
            raise AssertionError(f"{type(error).__name__}: {error}") from error

    return kept


def global_generators() -> tuple[Any, ...]:
    """The states of the generators that all code of a process shares: Python's and NumPy's."""
    state: Any = np.random.get_state()  # noqa: NPY002  # the global one is what this is about
    return random.getstate(), state[1].tolist(), state[2]
