"""What the parts of evonas say to each other: records and protocols."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from genomes import Genome, SearchSpace

State = dict[str, Any]  # plain data: numbers, strings, lists, dicts, tensors

log = logging.getLogger("evonas")


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that the user has to change.

    Attributes:
        problem: what is wrong.
        hint: the remedy, or `allowed: ` and the values that are.
        key: where it stands: a key of the experiment file, a command's option, or a file.
    """

    problem: str
    hint: str = ""
    key: str = ""

    def __str__(self) -> str:
        where = f"{self.key}: " if self.key else ""
        return f"{where}{self.problem}" + (f"; {self.hint}" if self.hint else "")


class UserError(Exception):
    """A user error, reported in at most three lines; the command ends with status 2.

    `UserError("unknown key", hint="allowed: name, seed", key="sede")` has one mistake;
    `UserError(*mistakes)` has several.
    """

    MAX_LINES = 3

    def __init__(self, *mistakes: Mistake | str, hint: str = "", key: str = "") -> None:
        self.mistakes = tuple(
            each if isinstance(each, Mistake) else Mistake(each, hint, key) for each in mistakes
        )
        lines = [str(mistake) for mistake in self.mistakes]
        if len(lines) > self.MAX_LINES:
            shown = lines[: self.MAX_LINES - 1]
            lines = [*shown, f"and {len(lines) - len(shown)} more errors"]
        super().__init__("\n".join(lines))

    def within(self, place: str) -> UserError:
        """The same mistakes, each with the place that all of them are in, such as a file."""
        return UserError(
            *(
                replace(mistake, key=f"{place}: {mistake.key}" if mistake.key else place)
                for mistake in self.mistakes
            )
        )


class Requirement(ValueError):
    """What a settings model demands of a field beyond its type, raised while it is checked.

    Args:
        hint: the demand, such as "must be fewer than the population", or `allowed: ` and values.
        field: the name of the field; "" for the model as a whole.
        problem: what is wrong, if the field's value does not say it.
    """

    def __init__(self, hint: str, field: str = "", problem: str = "") -> None:
        self.hint, self.field, self.problem = hint, field, problem
        super().__init__(f"{field}: {hint}" if field else hint)


class SearchFailed(Exception):
    """The run cannot go on; the command ends with status 3."""


class Params(BaseModel):
    """Base of all settings: frozen, unknown keys refused, NaN and infinity refused.

    Attributes:
        RENAMED: keys that had another name before, which old files and run folders still have: the
            old name, and the one of today. An old name is taken with a warning, unless today's
            stands beside it.
    """

    RENAMED: ClassVar[Mapping[str, str]] = {}

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        strict=True,
        validate_default=True,
        use_attribute_docstrings=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _taken_by_old_names(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        renamed = cls.renamed(values)
        for key in values.keys() - renamed.keys():
            _tell_renamed(key, cls.RENAMED[key])
        return renamed

    @classmethod
    def renamed(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Settings, unchecked, with the names that their keys have today."""
        old = {key: new for key, new in cls.RENAMED.items() if new not in values}
        return {old.get(key, key): value for key, value in values.items()}

    def anchored(self, folder: Path) -> Self:
        """With paths, which are as seen from `folder`, made absolute."""
        return self

    def own_files(self) -> tuple[str, ...]:
        """The user's Python files that these settings name (`evonas.plugins`)."""
        return ()


class Objective(Params):
    """A named goal. `reference` is the hypervolume's, in the objective's own unit."""

    name: Annotated[str, Field(min_length=1)]
    """The metric that is to be improved; `evonas list metrics` names all of them."""
    goal: Literal["min", "max"] = "min"
    """`min` if less of the metric is better, `max` if more is better."""
    reference: float | None = None
    """Where the hypervolume is measured from, in the metric's unit. Without it, where less is
    better: 1 for an error, the largest network's value for `params` and `flops`. In all other
    cases: the worst value of the first generation."""

    @property
    def sign(self) -> float:
        """The factor between a value and its loss: 1 to minimise, -1 to maximise."""
        return 1.0 if self.goal == "min" else -1.0


class Constraint(Params):
    """Bounds on a metric; outside them a network is infeasible."""

    name: Annotated[str, Field(min_length=1)]
    """The metric that is bounded; `evonas list metrics` names all of them."""
    min: float | None = None
    """The smallest value allowed. Give this, `max`, or both."""
    max: float | None = None
    """The largest value allowed. Give this, `min`, or both."""

    def violation(self, values: Mapping[str, float]) -> float:
        """How far outside the bounds, as a share of the bound; 0 inside or if not known yet."""
        value = values.get(self.name)
        if value is None:
            return 0.0
        if self.max is not None and value > self.max:
            return (value - self.max) / (abs(self.max) or 1.0)
        if self.min is not None and value < self.min:
            return (self.min - value) / (abs(self.min) or 1.0)
        return 0.0


def violation(values: Mapping[str, float], constraints: Sequence[Constraint]) -> float:
    """The sum of all violations; 0 for a feasible network."""
    return sum(constraint.violation(values) for constraint in constraints)


class Budget(Params):
    """How long a network is trained: exactly one of epochs, steps or seconds.

    `horizon` is the length that the learning rate's schedule is laid out for, in the same unit. A
    longer budget of the same horizon begins with the very steps of a shorter one.
    """

    epochs: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """How many passes over the training images. Give exactly one of `epochs`, `steps` and
    `seconds`."""
    steps: Annotated[int, Field(ge=1, le=100_000_000)] | None = None
    """How many training steps, of one batch of images each."""
    seconds: Annotated[float, Field(gt=0, le=10_000_000)] | None = None
    """How many seconds by the clock. What is trained in them depends on the machine, so the same
    file and seed need not give the same tables."""
    horizon: Annotated[float, Field(gt=0, le=100_000_000)] | None = None
    """The length that the learning rate's schedule is made for, in the budget's unit and not below
    the budget. Without it, the budget. If it is longer, the training stops in mid-schedule."""

    def model_post_init(self, context: Any) -> None:
        if sum(amount is not None for amount in (self.epochs, self.steps, self.seconds)) != 1:
            raise Requirement("must have exactly one of epochs, steps and seconds")
        if self.horizon is not None and self.horizon < self.amount:
            raise Requirement("must be no shorter than the budget", "horizon")

    @property
    def unit(self) -> Literal["epochs", "steps", "seconds"]:
        return "epochs" if self.epochs else "steps" if self.steps else "seconds"

    @property
    def amount(self) -> float:
        return self.epochs or self.steps or self.seconds or 0

    @property
    def text(self) -> str:
        """`epochs=3`, or `epochs=3/10` for a schedule of ten."""
        horizon = "" if self.horizon is None else f"/{_exact(self.horizon)}"
        return f"{self.unit}={_exact(self.amount)}{horizon}"

    @classmethod
    def from_text(cls, text: str) -> Self:
        """The budget that has this `text`.

        Raises:
            ValueError: none has (pydantic's error, which is a ValueError).
        """
        length, _, horizon = text.partition("/")
        unit, _, amount = length.partition("=")
        stated = {unit: amount, **({"horizon": horizon} if horizon else {})}
        return cls.model_validate_strings(stated, strict=False)

    @property
    def deterministic(self) -> bool:
        return self.seconds is None


class Stop(Params):
    """When a search ends; with several limits, at the first one reached. A generation that has
    begun is finished."""

    generations: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """How many generations the search has. Give this, `evaluations`, or both."""
    evaluations: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    """No new generation begins once this many candidates have been evaluated. One that has begun
    is finished, so there may be some more."""
    simulated_seconds: Annotated[float, Field(gt=0)] | None = None
    """How many seconds of simulated training may be spent, as the evaluator `tabular` counts them.
    The evaluation that would overspend is not made, and the search ends before it."""

    def model_post_init(self, context: object) -> None:
        if not (self.generations or self.evaluations or self.simulated_seconds):
            raise Requirement(
                "must have generations, evaluations, simulated_seconds, or several of them"
            )


@dataclass(frozen=True, slots=True)
class Metric:
    """A number that an evaluator measures of a network.

    Attributes:
        name: its column in the tables, and its name in the experiment file.
        label: what figures call it; the name if it is empty.
        unit: "" for a share or a count.
        goal: which way is better; "" where that depends on what it is used for.
        cheap: whether it is known without training.
        timed: whether the clock measures it, so that a repetition gives another value.
        reference: where the hypervolume is measured from if less is better; None where the values
            of the search decide.
        source: what it is computed from, in a few words.
    """

    name: str
    label: str = ""
    unit: str = ""
    goal: Literal["min", "max", ""] = ""
    cheap: bool = False
    timed: bool = False
    reference: float | None = None
    source: str = ""


class Status(StrEnum):
    """How an evaluation ended."""

    OK = "ok"
    DIVERGED = "diverged"  # the loss became NaN or infinite
    OUT_OF_MEMORY = "out_of_memory"
    TIMEOUT = "timeout"
    CRASHED = "crashed"  # an exception, or the process died
    INFEASIBLE = "infeasible"  # outside a constraint

    @property
    def failed(self) -> bool:
        return self not in (Status.OK, Status.INFEASIBLE)


FAILURES = tuple(str(status) for status in Status if status.failed)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A question.

    Attributes:
        genome: what to evaluate.
        parents: keys of the networks it comes from.
        origin: how it came about: "sampled", "crossover", "mutation", ...
        budget: set by a strategy that plans fidelities, otherwise the run's.
    """

    genome: Genome
    parents: tuple[str, ...] = ()
    origin: str = "sampled"
    budget: Budget | None = None


@dataclass(frozen=True, slots=True)
class Cost:
    """What an evaluation took. Times are by the wall clock, in seconds."""

    seconds: float = 0.0
    training_seconds: float = 0.0
    epochs: float = 0.0
    steps: int = 0
    started: float = 0.0  # since 1970
    worker: int = 0  # process id
    attempts: int = 1  # 0 where the cheap values were enough to turn it down
    from_cache: bool = False  # another run's training; epochs and steps are that one's


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The answer to a candidate.

    Attributes:
        values: metrics by name; of an infeasible one those known without training, of a failed one
            none that can be trusted.
        deterministic: False where the values depend on time or memory limits.
        weights: the file in the run folder's `scratch/` with the trained weights, "" if there is
            none.
    """

    candidate: Candidate
    values: Mapping[str, float]
    status: Status = Status.OK
    cost: Cost = field(default_factory=Cost)
    message: str = ""
    deterministic: bool = True
    weights: str = ""

    def to_plain(self) -> State:
        """As numbers, strings, lists and dicts; the candidate's lineage and budget are left out."""
        return {
            "genome": self.candidate.genome.to_json(),
            "values": dict(self.values),
            "status": str(self.status),
            "cost": {name: getattr(self.cost, name) for name in Cost.__slots__},
            "message": self.message,
            "deterministic": self.deterministic,
            "weights": self.weights,
        }

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> Evaluation:
        return cls(
            Candidate(Genome.from_json(data["genome"])),
            data["values"],
            Status(data["status"]),
            Cost(**data["cost"]),
            data["message"],
            data["deterministic"],
            data.get("weights", ""),  # a checkpoint of 0.1.0 has none
        )


@dataclass(frozen=True, slots=True)
class Question:
    """What a training is found again by: the network, the seed and the budget."""

    key: str
    seed: int
    budget: str = ""


@dataclass(frozen=True, slots=True)
class Generation:
    """One ask-tell round, or a steady-state strategy's next `generation_size`, in ask order.

    Attributes:
        cached: for each evaluation, whether it was answered by an earlier training of the run.
        simulated_seconds: what the run has spent by its end, where the evaluator counts them.
        complete: False for the last of a run that ran out of simulated seconds within it.
    """

    index: int
    questions: tuple[Question, ...]
    evaluations: tuple[Evaluation, ...]
    cached: tuple[bool, ...]
    simulated_seconds: float = 0.0
    complete: bool = True


@dataclass(frozen=True, slots=True)
class Blueprint:
    """What a space's name stands for: its genes, its networks, and the settings of both.

    Attributes:
        Params: the settings, `channels` and the like, with a `name`.
        space: makes the search space, called with those settings that `space_keys` names.
        build: `build(pick, *, in_channels, classes, **settings)`, which calls
            `pick(gene, candidates)` at each decision; None where there is nothing to train.
        space_keys: the settings that the space is made with, attributes of the space.
        shares: what a supernet of the space shares: `ops`, one for all that choose it; `slices`,
            the first channels of the largest tensors; None where there is no supernet.
        wired: whether genes that choose no op only say which ops are live (`SearchSpace.live`), so
            that a supernet does without them.
    """

    Params: type[Params]
    space: Callable[..., SearchSpace]
    build: Callable[..., Any] | None
    space_keys: tuple[str, ...] = ()
    shares: Literal["ops", "slices"] | None = "ops"
    wired: bool = False

    @property
    def has_networks(self) -> bool:
        return self.build is not None

    def make_space(self, params: BaseModel) -> SearchSpace:
        """Makes the search space of these settings, an instance of `Params`."""
        values = dict(params)
        return self.space(**{key: values[key] for key in self.space_keys})

    def settings(self, space: SearchSpace, network: Mapping[str, Any]) -> dict[str, Any]:
        """The settings that `build` takes: those of the space, then those given, then defaults.

        Raises:
            ValueError: one is unknown or out of range (pydantic's error, which is a ValueError).
        """
        of_space = {key: getattr(space, key) for key in self.space_keys}
        return self.Params(**{**network, **of_space}).model_dump(exclude={"name"})


def weights_name(seed: int, budget: str) -> str:
    """A file name for a training's weights, its own within a run: the seed derives from the key."""
    digest = hashlib.blake2b(f"{seed}/{budget}".encode(), digest_size=8)
    return f"{digest.hexdigest()}.safetensors"


def _exact(number: float) -> str:
    return str(int(number)) if number == int(number) else repr(number)


def derive_seed(seed: int, *names: str | int) -> int:
    """A seed of 63 bits from the run's seed and names, whatever the order or process."""
    text = "/".join(map(str, (seed, *names)))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def finite(values: Mapping[str, float], names: Sequence[str]) -> bool:
    """Whether all these values are there, and numbers."""
    return all(math.isfinite(values.get(name, math.nan)) for name in names)


@cache  # once, however often a file is read
def _tell_renamed(old: str, new: str) -> None:
    log.warning("the key `%s` is now called `%s`; its old name still works", old, new)
