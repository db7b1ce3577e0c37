"""The protocols between the parts of evonas, and the setting that all components receive.

A component is a class that can be named in the experiment file. The driver uses only the members
in the component's protocol; what it uses of some components alone is a protocol of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from evonas.core import (
    Budget,
    Candidate,
    Constraint,
    Evaluation,
    Metric,
    Objective,
    Params,
    State,
    Stop,
)
from genomes import Genome, SearchSpace

if TYPE_CHECKING:  # components that train nothing are loaded without torch
    from evonas.data.dataset import DataSet, Images
    from evonas.training.loop import Hardware


class Need(StrEnum):
    """A component's requirement on the experiment around it."""

    DATA = "data"  # images to train on, and a space with networks
    BUDGET = "budget"  # a budget for each candidate
    FINAL_BUDGET = "final_budget"  # a budget for finalists alone: candidates are not trained
    SUPERNET = "supernet"  # a space whose networks can share their weights
    OPS = "ops"  # a space whose genes choose ops, which a supernet holds side by side
    WORKERS = "workers"  # processes of its own: an evaluation takes long or may crash its process
    GENOMES = "genomes"  # every genome evaluated, even if another one has the same network


class OwnMetric(Protocol):
    """A user's metric, computed by a function."""

    @property
    def metric(self) -> Metric:
        """Its name and properties."""

    @property
    def modules(self) -> tuple[str, ...]:
        """The names of the modules whose code computes it."""

    def measure(self, **arguments: Any) -> float:
        """Return its value, from those of `network`, `genome`, `images`, `labels` that it takes."""


@dataclass(frozen=True, slots=True)
class TrainingSetting:
    """How networks are built, and what they are trained on.

    Attributes:
        network: the settings of the space, for its blueprint.
        data: all images except the test part.
        metrics: the user's own metrics.
    """

    network: Mapping[str, Any]
    data: DataSet
    hardware: Hardware
    metrics: tuple[OwnMetric, ...] = ()

    @property
    def arguments(self) -> dict[str, Any]:
        """The settings for building a network, including those that follow from the data."""
        return {
            "in_channels": self.data.image_shape[0],
            "classes": self.data.classes,
            **self.network,
        }


@dataclass(frozen=True, slots=True)
class Setting:
    """The setting of a run: determined once, then passed to every component.

    Attributes:
        training: how networks are trained; None if nothing is trained, as on a table.
        budget: the budget of candidates that have none of their own; None if there is none.
    """

    space: SearchSpace
    objectives: tuple[Objective, ...] = ()
    constraints: tuple[Constraint, ...] = ()
    seed: int = 0
    training: TrainingSetting | None = None
    budget: Budget | None = None

    @property
    def named(self) -> frozenset[str]:
        """The metrics that an objective or a constraint names."""
        goals = (objective.name for objective in self.objectives)
        return frozenset((*goals, *(constraint.name for constraint in self.constraints)))

    def trained(self) -> TrainingSetting:
        """Return `training`, which is there for components that declare `Need.DATA`.

        Raises:
            ValueError: nothing is trained.
        """
        if self.training is None:
            raise ValueError("a component that trains needs data; declare Need.DATA")
        return self.training


class SpaceClass(Protocol):
    """The meaning of a `space.name`; `core.Blueprint` is one."""

    @property
    def Params(self) -> type[Params]: ...  # noqa: N802  # a class

    @property
    def shares(self) -> Literal["ops", "slices"] | None:
        """What a supernet of the space shares, as in `core.Blueprint`."""

    @property
    def has_networks(self) -> bool:
        """Whether its genomes can be decoded and trained."""

    def make_space(self, params: Any, /) -> SearchSpace:
        """Return the search space for settings."""


@runtime_checkable
class FitsImages(Protocol):
    """The settings of a space that depends on the size of the images."""

    @property
    def complete(self) -> bool:
        """Whether they leave nothing to the images."""

    def fitted(self, image_shape: tuple[int, int, int]) -> Params:
        """Return the settings for images of this shape; what is set already stays as it is."""


class Strategy(Protocol):
    """Chooses what to evaluate next. Never prints, plots or touches the disk."""

    def ask(self) -> list[Candidate]:
        """Return the candidates to evaluate next.

        Empty while results are outstanding; empty with none outstanding means finished.
        """

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Receive the answers to one `ask`, in the same order."""

    def state_dict(self) -> State:
        """Return everything needed to continue exactly as without an interruption."""

    def load_state_dict(self, state: State) -> None:
        """Continue from a state. Candidates that were outstanding are asked again, first and in
        order."""


class StrategyClass(Protocol):
    """The meaning of a `strategy.name`: a class, or a function that makes a strategy."""

    Params: type[Params]
    needs: frozenset[Need]

    def __call__(self, params: Any, setting: Setting, /) -> Strategy: ...


@runtime_checkable
class SteadyState(Strategy, Protocol):
    """A strategy that asks for one candidate at a time, and may be asked before it is told.

    Each answer is told alone, in ask order. What the strategy asks depends on how many answers it
    was told, never on when.
    """

    @property
    def generation_size(self) -> int:
        """The number of consecutive candidates that make a generation in the tables."""


@runtime_checkable
class Continues(Protocol):
    """A strategy that may ask to go on with a training, under a larger budget."""

    def pending(self) -> Sequence[Candidate]:
        """Return the trainings that may go on, each with the budget that it had or is having.

        Their states are kept; one that is asked to go on and is not among them begins anew.
        """


@runtime_checkable
class HasRungs(Protocol):
    """Settings of a strategy that gives its candidates different budgets."""

    def rungs(self, budget: Budget) -> tuple[Budget, ...]:
        """Return the budgets of candidates, the smallest first; the last one is the run's.

        Raises:
            UserError: that budget cannot be divided.
        """


@runtime_checkable
class HasFidelities(Protocol):
    """Settings of an evaluator that has values for some budgets alone."""

    @property
    def fidelities(self) -> Mapping[str, Any]:
        """What there is of each budget that is shorter than the run's."""

    def check_fidelities(self, rungs: Sequence[Budget], section: str) -> None:
        """Check that there are values for all budgets of a strategy.

        Args:
            section: where the settings are.

        Raises:
            UserError: there are none for one of them.
        """


@runtime_checkable
class Chooses(Protocol):
    """The settings of a strategy that stands for another one, chosen for each search."""

    def chosen(self, objectives: int, stop: Stop | None = None) -> Params:
        """Return the settings of the other one.

        Args:
            objectives: how many objectives the search has.
            stop: its limits, if they are known.
        """


@runtime_checkable
class Seeded(Protocol):
    """The settings of a strategy that takes the networks that it begins with."""

    @property
    def seeds(self) -> tuple[str, ...]:
        """The genomes that it begins with, as text."""

    @property
    def founders(self) -> int:
        """The number of candidates that it begins with, the seeds among them."""


@runtime_checkable
class Traced(Protocol):
    """A strategy that records more than its candidates, in tables of its own.

    Attributes:
        TRACES: the columns of each table, after `generation`.
    """

    TRACES: Mapping[str, Sequence[str]]

    def trace(self) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """Return the rows of each table for the generation that it was last told."""


@runtime_checkable
class TrainsByEpoch(Protocol):
    """A strategy that trains in the driver's process, one epoch per generation."""

    @property
    def max_generations(self) -> int:
        """The largest number of epochs."""

    def seconds_per_epoch(self) -> float:
        """Return the seconds per epoch, estimated from a few steps; discard the strategy
        afterwards."""


class Relaxation(Protocol):
    """A gradient search over relaxed choices; `oneshot` adapts it to a strategy."""

    def train_epoch(self) -> Mapping[str, float]:
        """Train weights and choices for one epoch; return the values to report."""

    def derive(self) -> Genome:
        """Return the genome that it would choose now."""

    def probabilities(self) -> Mapping[str, Sequence[float]]:
        """Return the probability of each choice of each gene."""

    def seconds(self) -> float:
        """Return the seconds per epoch, estimated from a few steps; discard the object
        afterwards."""

    def state_dict(self) -> State: ...

    def load_state_dict(self, state: State) -> None: ...


class Evaluator(Protocol):
    """Measures candidates. Knows no strategy."""

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """All metrics that it measures."""

    @property
    def fingerprint(self) -> str:
        """A digest of what it measures on, such as the data, so that a resume detects a change."""

    def cheap(self, genome: Genome) -> Mapping[str, float]:
        """Return the values of the metrics that are known without training."""

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        """Measure a candidate; an exception counts as a crash of this candidate alone."""


class EvaluatorClass(Protocol):
    """The meaning of an `evaluator.name`: a class, or a function that makes an evaluator."""

    Params: type[Params]
    needs: frozenset[Need]

    @staticmethod
    def metrics_of(params: Any, /) -> tuple[Metric, ...]:
        """Return the metrics of an evaluator with these settings."""

    def __call__(self, params: Any, setting: Setting, /) -> Evaluator: ...


@runtime_checkable
class Prepares(Protocol):
    """An evaluator that has work to do before its first evaluation."""

    def prepare(self, run_dir: Path) -> Iterator[tuple[int, int]]:
        """Prepare, in the driver's process; resumable. The caller must exhaust the iterator.

        Yields:
            The number of epochs done and the number of all epochs, if it takes long.
        """


@runtime_checkable
class Identified(Protocol):
    """An evaluator whose answers another run can use."""

    def identity(self, candidate: Candidate, seed: int) -> Mapping[str, Any]:
        """Return everything that the answer depends on, as plain data."""


@runtime_checkable
class Trains(Protocol):
    """An evaluator that trains finalists and saves their weights, which can be tested."""

    def test(self, genome: Genome, weights: Path, test: Images) -> Mapping[str, float]:
        """Return the error, top-5 error and loss of saved weights on the test images."""


@runtime_checkable
class Bounded(Protocol):
    """An evaluator that knows upper bounds of its metrics."""

    def most(self) -> Mapping[str, float]:
        """Return the largest possible value of each metric for which it is known."""


@runtime_checkable
class CheapByBudget(Protocol):
    """An evaluator of which some metric is known without training, but depends on the budget."""

    def cheap_at(self, candidate: Candidate) -> Mapping[str, float]:
        """Return what `cheap` does, for a candidate's budget, less what was done before it
        (`Candidate.after`)."""


@runtime_checkable
class Foresees(Protocol):
    """An evaluator that knows beforehand which candidates take long."""

    def effort(self, candidate: Candidate) -> float:
        """Return how long an evaluation takes, in any unit; 0 if that cannot be known.

        It is asked in the driver's process, so it must run no code of the user's.
        """


@runtime_checkable
class Shares(Protocol):
    """An evaluator that trains shared weights once, and scores candidates with them."""

    @property
    def alone(self) -> Evaluator:
        """The evaluator that trains finalists, each by itself."""

    def seconds(self) -> tuple[float, float]:
        """Return the seconds to train the shared weights, and to score one candidate.

        Both are estimated from a few steps; discard the evaluator afterwards.
        """


class Executor(Protocol):
    """Calls functions in processes of this machine.

    Attributes:
        count: the number of processes.
    """

    count: int

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Call a function in one of the processes, and return the future of its result.

        If a process dies, the futures of all lost calls, and further calls of this method, raise
        `BrokenProcessPool` until `renew` is called.
        """

    def renew(self) -> None:
        """Replace processes that have died."""

    def trace(self, number: int) -> Path:
        """Return the file that exists while evaluation `number` is running."""

    def kill(self) -> None:
        """Kill the processes, whatever they do; what they were doing raises `BrokenProcessPool`."""

    def close(self) -> None:
        """End the processes at once."""


class Dispatcher(Protocol):
    """Has candidates evaluated: in this process, in others, or on other machines."""

    def submit(self, candidate: Candidate, seed: int) -> Future[Evaluation]:
        """Have a candidate evaluated, and return the future of its answer."""

    def next_done(self) -> Future[Evaluation]:
        """Wait for a further answer, and return its future; each is returned once."""


Pick = Callable[[str, Mapping[str, Any]], Any]
