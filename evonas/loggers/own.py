"""A function of the user's as a logger."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from evonas import plugins
from evonas.loggers import Described, Mark, Record


class OwnLogger:
    """Calls a function with each record, as a plain dict."""

    PACKAGES: ClassVar[tuple[str, ...]] = ()

    def __init__(self, name: str, described: Described, mark: Mark) -> None:
        self.mark = mark
        self._function = plugins.load(name)

    @classmethod
    def named(cls, name: str) -> Any:
        """Return what makes the logger of `FILE.py:NAME`, as the classes of the others do."""
        make: Callable[..., OwnLogger] = partial(cls, name)
        make.PACKAGES = cls.PACKAGES  # type: ignore[attr-defined]
        return make

    def write(self, record: Record) -> None:
        self._function(record.plain())

    def flush(self) -> None:
        pass

    def close(self, *, finished: bool) -> None:
        pass
