"""evonas: evolutionary neural architecture search that survives being killed."""

from evonas.core import Budget, Candidate, Constraint, Evaluation, Objective, Status
from evonas.loop import evolve

__all__ = [
    "Budget",
    "Candidate",
    "Constraint",
    "Evaluation",
    "Objective",
    "Status",
    "evolve",
]
__version__ = "0.1.0"
