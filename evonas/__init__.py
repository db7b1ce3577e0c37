"""evonas: evolutionary neural architecture search that survives being killed."""

from importlib import import_module
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
    from evonas.api import search
    from evonas.api_compare import compare
    from evonas.api_run import run
    from evonas.api_training import training_evaluator
    from evonas.classifier import ImageClassifier
    from evonas.own import space
    from evonas.results import RunResult, SearchResult

__all__ = [
    "Budget",
    "Candidate",
    "Constraint",
    "Desk",
    "Evaluation",
    "ImageClassifier",
    "Metric",
    "Objective",
    "RunResult",
    "SearchResult",
    "Status",
    "Stop",
    "compare",
    "evolve",
    "metric",
    "run",
    "search",
    "space",
    "training_evaluator",
]


def __dir__() -> list[str]:
    return [*__all__, "__doc__", "__version__"]


# Where to find what brings pandas or torch along, which the command does not always need.
LATE = {
    "ImageClassifier": "evonas.classifier",
    "RunResult": "evonas.results",
    "SearchResult": "evonas.results",
    "compare": "evonas.api_compare",
    "run": "evonas.api_run",
    "search": "evonas.api",
    "space": "evonas.own",
    "training_evaluator": "evonas.api_training",
}


def __getattr__(name: str) -> Any:
    if name in LATE:
        return getattr(import_module(LATE[name]), name)
    raise AttributeError(f"module 'evonas' has no attribute {name!r}")
