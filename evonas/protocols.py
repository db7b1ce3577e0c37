"""What the parts of evonas ask of each other, and the one setting that they are all made with.

A component is a class that a name in the experiment file stands for. The driver asks no more of it
than its protocol here says, and what it asks of some components alone is a protocol of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from evonas.core import (
    Candidate,
    Constraint,
    Evaluation,
    Metric,
    Objective,
    Params,
    State,
)
from genomes import Genome, SearchSpace

if TYPE_CHECKING:  # components that train nothing are loaded without torch
    from evonas.data.dataset import DataSet, Images
    from evonas.training.loop import Hardware


class Need(StrEnum):
    """What a component needs of the experiment around it."""

    DATA = "data"  # images to train on, and a space with networks
    BUDGET = "budget"  # for each candidate
    FINAL_BUDGET = "final_budget"  # for finalists alone, since candidates are not trained
    SUPERNET = "supernet"  # a space whose networks can share their weights
    OPS = "ops"  # a space whose genes choose ops, which a supernet holds side by side
    WORKERS = "workers"  # processes, since an evaluation takes long or may end its process
    GENOMES = "genomes"  # each spelling evaluated by itself, even where the network is the same


class OwnMetric(Protocol):
    """A metric of the user's own, computed by a function."""

    @property
    def metric(self) -> Metric: ...

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules whose code computes it."""

    def measure(self, **known: Any) -> float:
        """Its value, from whichever of `network`, `genome`, `images`, `labels` it takes."""


@dataclass(frozen=True, slots=True)
class TrainingSetting:
    """What networks are built as, and trained on.

    Attributes:
        network: the settings of the space, as its blueprint takes them.
        data: all images but the test part.
        metrics: the user's own.
    """

    network: Mapping[str, Any]
    data: DataSet
    hardware: Hardware
    metrics: tuple[OwnMetric, ...] = ()

    @property
    def arguments(self) -> dict[str, Any]:
        """The settings that networks are built with, those that follow from the data included."""
        return {
            "in_channels": self.data.image_shape[0],
            "classes": self.data.classes,
            **self.network,
        }


@dataclass(frozen=True, slots=True)
class Setting:
    """What a run is about: read and decided once, then given to every component.

    Attributes:
        training: None where nothing is trained, as on a table.
    """

    space: SearchSpace
    objectives: tuple[Objective, ...] = ()
    constraints: tuple[Constraint, ...] = ()
    seed: int = 0
    training: TrainingSetting | None = None

    def trained(self) -> TrainingSetting:
        """What networks are trained on.

        Raises:
            ValueError: nothing is trained; a component that calls this declares `Need.DATA`.
        """
        if self.training is None:
            raise ValueError("a component that trains needs data; declare Need.DATA")
        return self.training


class SpaceClass(Protocol):
    """What `space.name` stands for; `core.Blueprint` is one."""

    @property
    def Params(self) -> type[Params]: ...  # noqa: N802  # a class

    @property
    def shares(self) -> Literal["ops", "slices"] | None: ...

    @property
    def has_networks(self) -> bool:
        """Whether its genomes can be decoded and trained."""

    def make_space(self, params: Any, /) -> SearchSpace:
        """Makes the search space of these settings."""


class Strategy(Protocol):
    """Chooses what to evaluate next. Never prints, plots or touches the disk."""

    def ask(self) -> list[Candidate]:
        """What to evaluate next; empty while results are outstanding; empty with none outstanding
        means finished."""

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Takes the answers to one `ask`, in its order."""

    def state_dict(self) -> State:
        """Everything it needs to continue exactly as it would have."""

    def load_state_dict(self, state: State) -> None:
        """Continues from a state. What was outstanding then is asked again, first and in order."""


class StrategyClass(Protocol):
    """What `strategy.name` stands for: a class, or a function that makes a strategy."""

    Params: type[Params]
    needs: frozenset[Need]

    def __call__(self, params: Any, setting: Setting, /) -> Strategy: ...


@runtime_checkable
class SteadyState(Strategy, Protocol):
    """A strategy that may be asked again before it is told, one candidate after the other.

    Each answer is told alone, in ask order. What it asks depends on how many answers are told,
    never on when.
    """

    @property
    def generation_size(self) -> int:
        """How many consecutive candidates make a generation in the tables."""


@runtime_checkable
class Traced(Protocol):
    """A strategy that shows more than its candidates, in tables of its own.

    Attributes:
        TRACES: for each table its columns, after `generation`.
    """

    TRACES: Mapping[str, Sequence[str]]

    def trace(self) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """For each table the rows about the generation that it was last told of."""


@runtime_checkable
class TrainsByEpoch(Protocol):
    """A strategy that trains in the driver's process, an epoch for each generation."""

    @property
    def max_generations(self) -> int:
        """How many epochs there are at most."""

    def seconds_per_epoch(self) -> float:
        """An estimate from a few steps; the strategy is of no use afterwards."""


class Relaxation(Protocol):
    """A search by gradient over relaxed choices; `oneshot` adapts it to a strategy."""

    def train_epoch(self) -> Mapping[str, float]:
        """Trains weights and choices for one epoch; returns what to report of it."""

    def derive(self) -> Genome:
        """The genome that it would settle on now."""

    def probabilities(self) -> Mapping[str, Sequence[float]]:
        """For each gene how likely each of its choices is."""

    def seconds(self) -> float:
        """Seconds for an epoch, estimated from a few steps; discard the object afterwards."""

    def state_dict(self) -> State: ...

    def load_state_dict(self, state: State) -> None: ...


class Evaluator(Protocol):
    """Measures a candidate. Knows no strategy."""

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Everything that it measures."""

    @property
    def fingerprint(self) -> str:
        """Names what it measures on, such as the data, so that a resume can tell a change."""

    def cheap(self, genome: Genome) -> Mapping[str, float]:
        """The values of the metrics that are known without training."""

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        """Measures a candidate; an exception counts as a crash of this candidate alone."""


class EvaluatorClass(Protocol):
    """What `evaluator.name` stands for: a class, or a function that makes an evaluator."""

    Params: type[Params]
    needs: frozenset[Need]

    @staticmethod
    def metrics_of(params: Any, /) -> tuple[Metric, ...]:
        """What an evaluator with these settings measures."""

    def __call__(self, params: Any, setting: Setting, /) -> Evaluator: ...


@runtime_checkable
class Prepares(Protocol):
    """An evaluator that has something to do before its first evaluation."""

    def prepare(self, run_dir: Path) -> Iterator[tuple[int, int]]:
        """Prepares, in the driver's process; resumable. Whoever calls it exhausts it.

        Yields:
            How many epochs are done, and how many there are, where that takes long.
        """


@runtime_checkable
class Identified(Protocol):
    """An evaluator whose answers can be found again by another run."""

    def identity(self, candidate: Candidate, seed: int) -> Mapping[str, Any]:
        """All that the answer depends on, as plain data: equal identities, equal answers."""


@runtime_checkable
class Trains(Protocol):
    """An evaluator that trains each finalist and leaves its weights, which can be tested."""

    def test(self, genome: Genome, weights: Path, test: Images) -> Mapping[str, float]:
        """Error, top-5 error and loss of saved weights on images that no search has seen."""


@runtime_checkable
class Bounded(Protocol):
    """An evaluator that knows how large its metrics can become."""

    def most(self) -> Mapping[str, float]:
        """The largest value of each metric that has a known one."""


@runtime_checkable
class Shares(Protocol):
    """An evaluator that trains shared weights once, and scores candidates with them.

    Attributes:
        alone: the evaluator that trains finalists.
    """

    @property
    def alone(self) -> Evaluator: ...

    def seconds(self) -> tuple[float, float]:
        """Seconds to train the shared weights, and to score a candidate, from a few steps."""


class Executor(Protocol):
    """Calls functions in processes, on this machine or on others."""

    count: int

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """The future result of a call. Once a process has died, this and the futures of the calls
        that it took along raise `BrokenProcessPool`, until `renew`."""

    def renew(self) -> None:
        """Replaces processes that have died."""

    def trace(self, number: int) -> Path:
        """The file that exists while evaluation `number` is running."""

    def close(self) -> None:
        """Ends the processes at once."""


class Dispatcher(Protocol):
    """Has candidates evaluated, in this process or in others."""

    def submit(self, candidate: Candidate, seed: int) -> Future[Evaluation]:
        """The future answer to a candidate."""

    def next_done(self) -> Future[Evaluation]:
        """Waits until an answer is there that has not been given out yet, and gives it out."""


Pick = Callable[[str, Mapping[str, Any]], Any]
