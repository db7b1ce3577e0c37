"""A user's own operators: given what their arguments are called, and checked before use."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field

from evonas import plugins
from evonas.core import Params, UserError

OwnFunction = Annotated[str, Field(pattern=plugins.PATTERN)] | Callable[..., Any]


class OperatorParams(Params):
    """Settings of which some may name a function of the user's.

    Attributes:
        OPERATORS: the keys of these settings.
    """

    OPERATORS: ClassVar[tuple[str, ...]] = ()

    def anchored(self, folder: Path) -> Self:
        named = {key: getattr(self, key) for key in self.OPERATORS}
        return self.model_copy(
            update={
                key: plugins.anchored(chosen, folder)
                for key, chosen in named.items()
                if isinstance(chosen, str)
            }
        )

    def own_files(self) -> tuple[str, ...]:
        chosen = [getattr(self, key) for key in self.OPERATORS]
        files = [plugins.file_of(each) for each in chosen if isinstance(each, str)]
        return tuple(filter(None, files))


class OwnOperator:
    """A function of the user's, called with what it has arguments for.

    Args:
        key: the setting that names it, such as `crossover`.
        chosen: the function, or `FILE.py:NAME`.
        lists: how many lists it takes first.
        offers: the names of its other arguments, of which it may take some. If it has a single
            other argument of another name, that is `rng`.

    Raises:
        UserError: the file may not be imported, or the function takes other arguments.
    """

    def __init__(
        self, key: str, chosen: str | Callable[..., Any], lists: int, offers: tuple[str, ...]
    ) -> None:
        self.key = f"strategy.{key}"
        self.title = (
            chosen if isinstance(chosen, str) else getattr(chosen, "__name__", repr(chosen))
        )
        self._function = plugins.load(chosen) if isinstance(chosen, str) else chosen
        names = [*inspect.signature(self._function).parameters]
        others = names[lists:]
        self._names = {name: name for name in others}
        if lists and len(others) == 1 and others[0] not in offers:
            self._names = {others[0]: "rng"}
        if len(names) < lists or not {*self._names.values()} <= {*offers}:
            first = {0: "", 1: "a list, and ", 2: "two lists, and "}[lists]
            raise UserError(
                f"{self.title} has the arguments ({', '.join(names)})",
                hint=f"it must take {first}some of {', '.join(offers)}",
                key=self.key,
            )

    def __call__(self, *lists: list[float], **offers: Any) -> Any:
        """Return what the function returns.

        Raises:
            UserError: it raised an exception.
        """
        try:
            return self._function(*lists, **{name: offers[of] for name, of in self._names.items()})
        except Exception as error:  # whatever a user's function may raise
            text = f"{type(error).__name__}: {error}"
            raise UserError(f"{self.title} raised {text}", key=self.key) from error

    def refused(self, result: object, demand: str) -> UserError:
        """Return the error for a result that cannot be used."""
        return UserError(
            f"{self.title} returned {repr(result)[:80]}",
            hint=f"it must return {demand}",
            key=self.key,
        )


def own(key: str, chosen: str | Callable[..., Any], lists: int, *offers: str) -> OwnOperator | None:
    """Return the user's function of a setting; None if it names an operator of evonas."""
    if isinstance(chosen, str) and plugins.file_of(chosen) is None:
        return None
    return OwnOperator(key, chosen, lists, offers)
