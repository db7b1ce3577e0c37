"""Checks of the arguments of evonas's functions, whose mistakes are told by the argument's name."""

from __future__ import annotations

import inspect
import operator
import reprlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from evonas.core import UserError

MOST = 2**63 - 1


def whole(key: str, value: Any, *, least: int = 0) -> int:
    """Return a whole number as an `int`; NumPy's are taken too.

    Raises:
        UserError: it is none, or out of range.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = -1
    if isinstance(value, bool) or not least <= number <= MOST:
        at_most = f" and at most {MOST}" if number > MOST else ""
        raise refusal(key, value, f"must be a whole number of at least {least}{at_most}")
    return number


def several(key: str, value: Any, example: str) -> list[Any]:
    """Return the items of a list, or of what can be read like one and has an order.

    Args:
        example: a list as it should be.

    Raises:
        UserError: it is one item alone, or no list.
    """
    alone = isinstance(value, str | bytes | Mapping | BaseModel | set | frozenset)
    if alone or not isinstance(value, Iterable):
        raise refusal(key, value, f"must be a list, such as {example}")
    return list(value)


def function(key: str, value: Any, what: str) -> Callable[..., Any]:
    """Return a function that can be called with a genome alone.

    Args:
        what: what it should be, in words.

    Raises:
        UserError: it cannot be called so.
    """
    if not callable(value):
        raise refusal(key, value, f"must be {what}")
    called: Callable[..., Any] = value
    try:
        inspect.signature(value).bind(None)
    except TypeError as error:
        problem = f"cannot be called with a genome alone: {error}"
        raise UserError(problem, hint=f"must be {what}", key=key) from None
    except ValueError:  # a function in C may not tell its arguments
        pass
    return called


def path(key: str, value: Any) -> Path:
    """Return a path that was given as one, or as text.

    Raises:
        UserError: it is neither.
    """
    if not isinstance(value, str | Path) or not str(value):
        raise refusal(key, value, "must be a path")
    return Path(value).expanduser()


def refusal(key: str, value: Any, hint: str) -> UserError:
    """Return the error `key: is VALUE; hint`."""
    return UserError(f"is {shown(value)}", hint=hint, key=key)


def shown(value: Any) -> str:
    """Return a value as Python writes it, on one line of at most 60 characters."""
    text = " ".join(reprlib.repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
