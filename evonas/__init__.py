"""evonas: evolutionary neural architecture search that survives being killed."""

from typing import TYPE_CHECKING, Any

from evonas import interrupts

interrupts.leave_at_once()  # if this is the command: before the imports, which take a second

from evonas.core import (
    Budget,
    Candidate,
    Constraint,
    Evaluation,
    Metric,
    Objective,
    Status,
    Stop,
)
from evonas.loop import Desk, evolve
from evonas.own_classes import metric
from evonas.provenance import __version__ as __version__

if TYPE_CHECKING:
    from evonas.api import SearchResult, search
    from evonas.own import space

__all__ = [
    "Budget",
    "Candidate",
    "Constraint",
    "Desk",
    "Evaluation",
    "Metric",
    "Objective",
    "SearchResult",
    "Status",
    "Stop",
    "evolve",
    "metric",
    "search",
    "space",
]


def __dir__() -> list[str]:
    return [*__all__, "__doc__", "__version__"]


def __getattr__(name: str) -> Any:
    """`search` brings pandas along, and `space` torch, which the command does not always need."""
    if name in ("search", "SearchResult"):
        from evonas import api

        return getattr(api, name)
    if name == "space":
        from evonas.own import space

        return space
    raise AttributeError(f"module 'evonas' has no attribute {name!r}")
