"""The records that the parts of evonas exchange, and the base of all settings."""

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

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, model_validator

from evonas import words
from genomes import Genome, SearchSpace

State = dict[str, Any]  # plain data: numbers, strings, lists, dicts, tensors
STATE = ".state"  # the ending of files with states of trainings
WRITTEN = "written"  # the context in which settings of a file that evonas wrote are validated

log = logging.getLogger("evonas")


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that the user has to change.

    Attributes:
        problem: what is wrong.
        hint: the remedy, or `allowed: ` and a list of values.
        key: where the mistake is: a key of the experiment file, a command's option, or a file.
    """

    problem: str
    hint: str = ""
    key: str = ""

    def __str__(self) -> str:
        where = f"{self.key}: " if self.key else ""
        return f"{where}{self.problem}" + (f"; {self.hint}" if self.hint else "")


class UserError(Exception):
    """A user error, reported in a few lines; the command ends with status 2.

    `UserError("unknown key", hint="allowed: name, seed", key="sede")` has one mistake;
    `UserError(*mistakes)` has several.

    Args:
        mistakes: the problem in words, or mistakes.
        hint: the remedy of a problem in words.
        key: where the problem is, or the mistakes that have no key of their own.
        most: how many lines tell the mistakes, at most.
    """

    def __init__(
        self, *mistakes: Mistake | str, hint: str = "", key: str = "", most: int = 3
    ) -> None:
        self.most = most
        self.mistakes = tuple(
            replace(each, key=each.key or key)
            if isinstance(each, Mistake)
            else Mistake(each, hint, key)
            for each in mistakes
        )
        lines = [str(mistake) for mistake in self.mistakes]
        if len(lines) > most:
            shown = lines[: most - 1]
            lines = [*shown, f"and {len(lines) - len(shown)} more errors"]
        super().__init__("\n".join(lines))

    def within(self, place: str) -> UserError:
        """Return the same mistakes with `place`, such as a file, in front of each key."""
        return UserError(
            *(
                replace(mistake, key=f"{place}: {mistake.key}" if mistake.key else place)
                for mistake in self.mistakes
            ),
            most=self.most,
        )


class Requirement(ValueError):
    """A demand on a field beyond its type; a settings model raises it while it is validated.

    Args:
        hint: the demand, such as "must be fewer than the population", or `allowed: ` and values.
        field: the name of the field; "" for the model as a whole.
        problem: what is wrong; by default, the message shows the field's value.
    """

    def __init__(self, hint: str, field: str = "", problem: str = "") -> None:
        self.hint, self.field, self.problem = hint, field, problem
        super().__init__(f"{field}: {hint}" if field else hint)


class SearchFailed(Exception):
    """The run cannot continue; the command ends with status 3."""


class Params(BaseModel):
    """The base of all settings: frozen; unknown keys, NaN and infinity are refused.

    Attributes:
        RENAMED: the present name of each key that was renamed, by its old name, which old files and
            run folders still use. An old name is accepted with a warning, unless the present name
            is there too.
        BEFORE: the value of each key for run folders from before it existed, which must go on as
            they began. A file that evonas wrote has all keys of its version, so it is older than a
            key that is missing.
        PARTS: the kind, as in `registry.TABLES`, of each key that has a component's settings.
    """

    BEFORE: ClassVar[Mapping[str, Any]] = {}
    RENAMED: ClassVar[Mapping[str, str]] = {}
    PARTS: ClassVar[Mapping[str, str]] = {}

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
    def _as_meant(cls, values: Any, info: ValidationInfo) -> Any:
        """Take old names of keys, and values whose meaning is plain (`words.plain`)."""
        if not isinstance(values, dict):
            return values
        renamed = cls.renamed(values)
        for key in values.keys() - renamed.keys():
            _tell_renamed(key, cls.RENAMED[key])
        if info.context == WRITTEN:
            renamed = cls.today(values)
        fields = cls.model_fields
        return {
            key: words.plain(value, fields[key].annotation) if key in fields else value
            for key, value in renamed.items()
        }

    @classmethod
    def renamed(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Settings, unchecked, with the names that their keys have today."""
        old = {key: new for key, new in cls.RENAMED.items() if new not in values}
        return {old.get(key, key): value for key, value in values.items()}

    @classmethod
    def today(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Settings that evonas wrote, unchecked, with all keys that they would have today."""
        return {**cls.BEFORE, **cls.renamed(values)}

    def anchored(self, folder: Path) -> Self:
        """Return a copy with relative paths resolved against `folder`."""
        return self

    def own_files(self) -> tuple[str, ...]:
        """Return the user's Python files that these settings name (`evonas.plugins`)."""
        return ()


class Objective(Params):
    """A metric to improve, and in which direction."""

    name: Annotated[str, Field(min_length=1)]
    """The metric to improve; `evonas list metrics` names all of them."""
    goal: Literal["min", "max"] = "min"
    """`min` to minimise the metric, `max` to maximise it."""
    reference: float | None = None
    """The point from which the hypervolume is measured, in the metric's unit. By default, for a
    metric to minimise: 1 for an error, and the largest network's value for `params` and `flops`; in
    all other cases, the worst value of the first generation."""

    @property
    def sign(self) -> float:
        """The factor between a value and its loss: 1 to minimise, -1 to maximise."""
        return 1.0 if self.goal == "min" else -1.0


class Constraint(Params):
    """Bounds on a metric; a network outside them is infeasible."""

    name: Annotated[str, Field(min_length=1)]
    """The metric to bound; `evonas list metrics` names all of them."""
    min: float | None = None
    """The smallest value allowed. Give this, `max`, or both."""
    max: float | None = None
    """The largest value allowed. Give this, `min`, or both."""

    def model_post_init(self, context: object) -> None:
        if self.min is None and self.max is None:
            raise Requirement("give min, max, or both", problem="has no bound")
        if self.min is not None and self.max is not None and self.min > self.max:
            problem = f"min ({self.min:g}) exceeds max ({self.max:g})"
            raise Requirement("lower min or raise max", problem=problem)

    def violation(self, values: Mapping[str, float]) -> float:
        """Return how far outside the bounds the value is, as a share of the bound.

        It is 0 inside the bounds, and 0 if the value is not known yet. It is infinite for NaN, of
        which nothing says that it is inside.
        """
        value = values.get(self.name)
        if value is None:
            return 0.0
        if math.isnan(value):
            return math.inf
        if self.max is not None and value > self.max:
            return (value - self.max) / (abs(self.max) or 1.0)
        if self.min is not None and value < self.min:
            return (self.min - value) / (abs(self.min) or 1.0)
        return 0.0


def violation(values: Mapping[str, float], constraints: Sequence[Constraint]) -> float:
    """Return the sum of all violations; 0 for a feasible network."""
    return sum(constraint.violation(values) for constraint in constraints)


class Budget(Params):
    """How long a network is trained: exactly one of epochs, steps and seconds.

    A longer budget with the same `horizon` begins with exactly the steps of a shorter one.
    """

    epochs: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """The number of passes over the training images. Give exactly one of `epochs`, `steps` and
    `seconds`."""
    steps: Annotated[int, Field(ge=1, le=100_000_000)] | None = None
    """The number of training steps, each on one batch of images."""
    seconds: Annotated[float, Field(gt=0, le=10_000_000)] | None = None
    """The training time in seconds. How far a training gets in that time depends on the machine, so
    the same file and seed may give different tables."""
    horizon: Annotated[float, Field(gt=0, le=100_000_000)] | None = None
    """The length of the learning rate's schedule, in the budget's unit. By default, the budget,
    which is also the minimum. If it is longer, the training stops in mid-schedule."""

    def model_post_init(self, context: Any) -> None:
        if sum(amount is not None for amount in (self.epochs, self.steps, self.seconds)) != 1:
            raise Requirement("must have exactly one of epochs, steps and seconds")
        if self.horizon is not None and self.horizon < self.amount:
            raise Requirement("must be no shorter than the budget", "horizon")

    @property
    def unit(self) -> Literal["epochs", "steps", "seconds"]:
        """The unit of `amount` and `horizon`."""
        return "epochs" if self.epochs else "steps" if self.steps else "seconds"

    @property
    def amount(self) -> float:
        """The length of the training, in `unit`."""
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
    def whole(self) -> float:
        """The length of the learning rate's schedule, in `unit`."""
        return self.horizon or self.amount

    def goes_on_from(self, earlier: Budget) -> bool:
        """Return whether a training under this budget begins with an earlier one's steps."""
        same = self.unit == earlier.unit and self.whole == earlier.whole
        return same and self.deterministic and earlier.amount < self.amount

    @property
    def deterministic(self) -> bool:
        """Whether a repetition trains for the same number of steps."""
        return self.seconds is None


class Stop(Params):
    """When a search ends; if there are several limits, at the first one reached. A generation that
    has begun is finished."""

    generations: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """The number of generations. Give this, `evaluations`, `networks`, or several of them."""
    evaluations: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    """The number of candidates after which no new generation begins, those included whose network
    was asked for before. The current generation is finished, so there may be a few more."""
    networks: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    """The same, but each network counts once. A search that repeats itself more than 5,000 times in
    a row ends before."""
    simulated_seconds: Annotated[float, Field(gt=0)] | None = None
    """The simulated training time that may be spent, in seconds, as the evaluator `tabular` counts
    it. The search ends before the evaluation that would exceed it."""
    seconds: Annotated[float, Field(gt=0, le=1_000_000_000)] | None = None
    """How long the search may take, in seconds of the clock, over all its resumes; finals come on
    top. After that no new generation begins. Where the search ends depends on the machine then, but
    no row does. A search that repeats itself more than 5,000 times in a row ends before."""
    stagnation: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """How many generations in a row may leave the front's hypervolume as it is before the search
    ends."""

    def model_post_init(self, context: object) -> None:
        if not any(dict(self).values()):
            *most, last = type(self).model_fields
            raise Requirement(f"must have at least one of {', '.join(most)} and {last}")


@dataclass(frozen=True, slots=True)
class Metric:
    """A number that an evaluator measures for a network.

    Attributes:
        name: its column in the tables, and its name in the experiment file.
        label: its name in figures; if empty, `name`.
        unit: its unit; "" for a share or a count.
        goal: which direction is better; "" if that depends on the use.
        cheap: whether it is known without training.
        on_demand: whether it is measured only where an objective or a constraint names it.
        timed: whether it is a measured time, so that a repetition gives another value.
        reference: where the hypervolume is measured from if the metric is minimised; None if the
            values of the search decide.
        source: what it is computed from, in a few words.
    """

    name: str
    label: str = ""
    unit: str = ""
    goal: Literal["min", "max", ""] = ""
    cheap: bool = False
    on_demand: bool = False
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
        """Whether there are no values that can be trusted."""
        return self not in (Status.OK, Status.INFEASIBLE)


FAILURES = tuple(str(status) for status in Status if status.failed)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A network that a strategy asks about.

    Attributes:
        genome: the network.
        parents: the keys of the networks it was bred from.
        origin: how it was created: "sampled", "crossover", "mutation", ...
        budget: how long to train it, if the strategy decides that; None for the run's budget.
        after: the smaller budget, of the same unit and horizon, that the run has trained it under
            before: the training goes on from there. None for one from the beginning. The values
            are the same, to the bit.
    """

    genome: Genome
    parents: tuple[str, ...] = ()
    origin: str = "sampled"
    budget: Budget | None = None
    after: Budget | None = None


@dataclass(frozen=True, slots=True)
class Cost:
    """What an evaluation took. Times are wall-clock times, in seconds."""

    seconds: float = 0.0
    training_seconds: float = 0.0
    epochs: float = 0.0
    steps: int = 0
    started: float = 0.0  # since 1970
    worker: int = 0  # process id
    attempts: int = 1  # 0 if the cheap values sufficed to reject it
    from_cache: bool = False  # from another run, whose epochs and steps these are


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The answer to a candidate.

    Attributes:
        values: the metrics by name. An infeasible candidate may have only those known without
            training; those of a failed one cannot be trusted.
        message: why it failed, or a warning; "" if there is nothing to say.
        deterministic: False if the values depend on time or memory limits.
        weights: the file in the run folder's `scratch/` with the trained weights; "" if there is
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
        """Return plain numbers, strings, lists and dicts, without the lineage and budget."""
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
        """Return the evaluation that `to_plain` wrote."""
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
    """Identifies a training.

    Attributes:
        key: the network's key.
        seed: the training's own seed.
        budget: `Budget.text`; "" if there is none.
    """

    key: str
    seed: int
    budget: str = ""


@dataclass(frozen=True, slots=True)
class Generation:
    """One ask-tell round, or `generation_size` candidates of a steady-state strategy, in ask order.

    Attributes:
        cached: for each evaluation, whether an earlier training of the run answered it.
        simulated_seconds: the simulated time that the run has spent by the generation's end; 0 if
            the evaluator does not count it.
        complete: False if the simulated time ran out within it, which ends the run.
    """

    index: int
    questions: tuple[Question, ...]
    evaluations: tuple[Evaluation, ...]
    cached: tuple[bool, ...]
    simulated_seconds: float = 0.0
    complete: bool = True


def by_name(candidates: Any) -> Mapping[str, Any]:
    """Return the candidates of a `pick` by name; in a list, 12 is called `12`, and a class or a
    function by its own name.
    """
    if isinstance(candidates, Mapping):
        return candidates
    return {str(getattr(each, "__name__", each)): each for each in candidates}


@dataclass(frozen=True, slots=True)
class Blueprint:
    """The meaning of a space's name: its genes, its networks, and the settings of both.

    Attributes:
        Params: the model of the settings, `name`, `channels` and the like.
        space: makes the search space from the settings that `space_keys` names.
        build: `build(pick, *, in_channels, classes, **settings)`, which calls
            `pick(gene, candidates)` at each decision, with what `by_name` reads; None if there is
            nothing to train.
        space_keys: the settings that the space is made from, which are also its attributes.
        shares: what a supernet of the space shares: `ops`, each by all networks that choose it;
            `slices`, the first channels of the largest tensors; None if there is no supernet.
        wired: whether genes that choose no op only determine which ops are live
            (`SearchSpace.live`), so that a supernet can ignore them.
    """

    Params: type[Params]
    space: Callable[..., SearchSpace]
    build: Callable[..., Any] | None
    space_keys: tuple[str, ...] = ()
    shares: Literal["ops", "slices"] | None = "ops"
    wired: bool = False

    @property
    def has_networks(self) -> bool:
        """Whether there are networks to build and train."""
        return self.build is not None

    def make_space(self, params: BaseModel) -> SearchSpace:
        """Return the search space for settings, which are an instance of `Params`."""
        values = dict(params)
        return self.space(**{key: values[key] for key in self.space_keys})

    def settings(self, space: SearchSpace, network: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings for `build`: the space's own, then `network`, then the defaults.

        Raises:
            ValueError: a setting is unknown or out of range (pydantic's error, a ValueError).
        """
        fixed = {key: getattr(space, key) for key in self.space_keys}
        return self.Params(**{**network, **fixed}).model_dump(exclude={"name"})


def weights_name(seed: int, budget: str) -> str:
    """Return the file name of a training's weights, unique in a run: a seed belongs to one key."""
    digest = hashlib.blake2b(f"{seed}/{budget}".encode(), digest_size=8)
    return f"{digest.hexdigest()}.safetensors"


def state_name(seed: int, budget: str) -> str:
    """Return the file name of a training's state, from which a longer one may go on."""
    return Path(weights_name(seed, budget)).with_suffix(STATE).name


def _exact(number: float) -> str:
    return str(int(number)) if number == int(number) else repr(number)


def derive_seed(seed: int, *names: str | int) -> int:
    """Return a 63-bit seed that depends only on the run's seed and the names."""
    text = "/".join(map(str, (seed, *names)))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def finite(values: Mapping[str, float], names: Sequence[str]) -> bool:
    """Return whether all these values are present and finite."""
    return all(math.isfinite(values.get(name, math.nan)) for name in names)


@cache  # warns once, however often a file is read
def _tell_renamed(old: str, new: str) -> None:
    log.warning("the key `%s` is now called `%s`; the old name still works", old, new)
