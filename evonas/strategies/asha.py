"""Asynchronous successive halving, around a strategy that asks for one candidate at a time."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from evonas import pareto
from evonas.core import Budget, Candidate, Constraint, Evaluation, Objective, State
from evonas.protocols import Setting, SteadyState
from genomes import Genome

PROMOTED = "promoted"  # the origin of a candidate that comes back with a larger budget
SPARE = 5  # of each rung, how many of the best that have not gone on may yet do so from their state


@dataclass(slots=True)
class Climb:
    """A candidate of the strategy inside, until that is told of it.

    Attributes:
        rung: where it is being trained.
        end: its longest training, if it goes no further.
    """

    candidate: Candidate
    rung: int = 0
    end: Evaluation | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """A training on a rung.

    Attributes:
        late: whether the strategy inside has been told of the candidate already.
    """

    candidate: Candidate
    rung: int
    late: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """An answer on a rung, as far as it decides who goes on.

    What failed may not go on, nor what is infeasible whatever its training. What is so after a
    short one may be feasible after a long one, as by an error, so it goes on after the feasible.

    Attributes:
        standing: what is compared (`pareto.standing`).
    """

    candidate: Candidate
    standing: tuple[float, ...]
    may_go_on: bool

    @classmethod
    def of(
        cls, answer: Evaluation, objectives: Sequence[Objective], constraints: Sequence[Constraint]
    ) -> Result:
        standing = pareto.standing(answer, objectives, constraints)
        may_go_on = standing[0] != pareto.FAILED and answer.cost.attempts > 0
        return cls(answer.candidate, standing, may_go_on)


def best(results: Mapping[str, Result]) -> list[str]:
    """Return the keys of a rung's networks that may go on, the best first; of equals, the first."""
    if not results:
        return []
    ranks = pareto.order(np.array([result.standing for result in results.values()]))
    keys = list(results)
    in_order = [keys[i] for i in np.argsort(ranks, kind="stable").tolist()]
    return [key for key in in_order if results[key].may_go_on]


class AsynchronousHalving:
    """ASHA (Li et al., 2020, algorithm 2), without a clock.

    Of the n networks on a rung so far, the best n / `factor` (rounded down) go on to the next rung;
    only if there is none does the strategy inside propose another. A candidate that is among them
    when its answer comes goes on at once, and the strategy inside is told of it when it has come as
    far as it goes. One that comes to be among them later goes on too, for the front's sake, but the
    strategy inside, which is told of each candidate once, has been told of it before.

    What is asked depends on the answers in ask order alone: an answer is used only when nothing can
    be asked without it. So the number of workers changes nothing, nor does a search that ends and
    is extended. How many candidates are out is up to the strategy inside, such as `aging.lag`.
    """

    def __init__(
        self, factor: float, setting: Setting, inner: SteadyState, rungs: Sequence[Budget]
    ) -> None:
        self.factor = factor
        self.space = setting.space
        self.objectives = setting.objectives
        self.constraints = setting.constraints
        self.inner = inner
        self.rungs = tuple(rungs)
        below = range(len(self.rungs) - 1)
        self.climbs: deque[Climb] = deque()
        self.results: list[dict[str, Result]] = [{} for _ in below]  # by key, in order
        self.promoted: list[dict[str, None]] = [{} for _ in below]
        self.jobs: deque[Job] = deque()  # to ask for
        self.out: deque[Job] = deque()  # asked for, and not told
        self.waiting: deque[tuple[Job, Evaluation]] = deque()  # told, and not used yet
        self.replay: deque[Job] = deque()  # those of `out` to ask for again after a resume

    @property
    def generation_size(self) -> int:
        return self.inner.generation_size

    def ask(self) -> list[Candidate]:
        if self.replay:
            return [self._asked(self.replay.popleft())]
        while not (job := self._next_job()):
            if not self.waiting:
                return []
            self._use(*self.waiting.popleft())
        self.out.append(job)
        return [self._asked(job)]

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        if len(evaluations) != 1 or len(self.out) == len(self.replay):
            out = len(self.out) - len(self.replay)
            raise ValueError(f"asked for {out}, one at a time; told {len(evaluations)}")
        self.waiting.append((self.out.popleft(), evaluations[0]))

    def pending(self) -> list[Candidate]:
        """Return the trainings that may go on (`protocols.Continues`)."""
        return [
            replace(candidate, budget=self.rungs[rung])
            for candidate, rung in self._pending()
            if 0 <= rung < len(self.results)
        ]

    def state_dict(self) -> State:
        return {
            "inner": self.inner.state_dict(),
            "climbs": [
                {"rung": climb.rung, "end": climb.end and climb.end.to_plain()}
                for climb in self.climbs
            ],
            "results": [[_plain_result(each) for each in rung.values()] for rung in self.results],
            "promoted": [" ".join(rung) for rung in self.promoted],
            "jobs": [_plain_job(job) for job in self.jobs],
            "out": [_plain_job(job) for job in self.out],
            "waiting": [
                {"job": _plain_job(job), "answer": evaluation.to_plain()}
                for job, evaluation in self.waiting
            ],
        }

    def load_state_dict(self, state: State) -> None:
        self.inner.load_state_dict(state["inner"])
        self.climbs = deque()
        for climb in state["climbs"]:
            (candidate,) = self.inner.ask()  # once more
            budgeted = replace(candidate, budget=self.rungs[climb["rung"]])
            plain = climb["end"]
            end = plain and replace(Evaluation.from_plain(plain), candidate=budgeted)
            self.climbs.append(Climb(candidate, climb["rung"], end))
        rungs = [map(_result, rung) for rung in state["results"]]
        self.results = [{self.space.key(r.candidate.genome): r for r in rung} for rung in rungs]
        self.promoted = [dict.fromkeys(rung.split()) for rung in state["promoted"]]
        self.jobs, self.out = deque(map(_job, state["jobs"])), deque(map(_job, state["out"]))
        waiting = ((_job(each["job"]), each["answer"]) for each in state["waiting"])
        self.waiting = deque((job, Evaluation.from_plain(answer)) for job, answer in waiting)
        self.replay = deque(self.out)

    def _next_job(self) -> Job | None:
        if self.jobs:
            return self.jobs.popleft()
        for candidate in self.inner.ask():
            self.climbs.append(Climb(candidate))
            self.jobs.append(Job(candidate, 0))
        return self.jobs.popleft() if self.jobs else None

    def _asked(self, job: Job) -> Candidate:
        budget, origin = self.rungs[job.rung], job.candidate.origin
        after = self.rungs[job.rung - 1] if job.rung else None
        origin = PROMOTED if job.rung else origin
        return replace(job.candidate, origin=origin, budget=budget, after=after)

    def _use(self, job: Job, evaluation: Evaluation) -> None:
        """Take an answer in: promote whom it allows, and tell the strategy inside what it may."""
        key, rung = self.space.key(job.candidate.genome), job.rung
        below = rung < len(self.results)
        if below and key not in self.results[rung]:
            answer = replace(evaluation, candidate=job.candidate)
            self.results[rung][key] = Result.of(answer, self.objectives, self.constraints)
            self._promote(rung, None if job.late else key)
        if not job.late:
            goes_on = below and key in self.promoted[rung]
            self._climb(key, rung, evaluation, goes_on=goes_on)

    def _promote(self, rung: int, climbing: str | None) -> None:
        """Promote whom a new answer on a rung allows.

        Args:
            climbing: the key of the network that the answer is of, if it goes on by itself.
        """
        results, promoted = self.results[rung], self.promoted[rung]
        for key in best(results)[: math.floor(len(results) / self.factor)]:
            if key not in promoted:
                promoted[key] = None
                if key != climbing:
                    self.jobs.append(Job(results[key].candidate, rung + 1, late=True))

    def _climb(self, key: str, rung: int, evaluation: Evaluation, *, goes_on: bool) -> None:
        climb = next(
            climb
            for climb in self.climbs
            if climb.rung == rung
            and climb.end is None
            and self.space.key(climb.candidate.genome) == key
        )
        if goes_on:
            climb.rung += 1
            self.jobs.append(Job(climb.candidate, climb.rung))
            return
        budgeted = replace(climb.candidate, budget=self.rungs[rung])
        climb.end = replace(evaluation, candidate=budgeted)
        while self.climbs and self.climbs[0].end is not None:
            self.inner.tell([self.climbs[0].end])
            self.climbs.popleft()

    def _pending(self) -> Iterator[tuple[Candidate, int]]:
        for job in (*self.jobs, *self.out, *(job for job, _ in self.waiting)):
            yield from ((job.candidate, rung) for rung in (job.rung, job.rung - 1))
        for rung, results in enumerate(self.results):
            left = [key for key in best(results) if key not in self.promoted[rung]]
            yield from ((results[key].candidate, rung) for key in left[:SPARE])


def _plain(candidate: Candidate) -> State:
    return {
        "genome": candidate.genome.to_json(),
        "parents": list(candidate.parents),
        "origin": candidate.origin,
    }


def _candidate(state: State) -> Candidate:
    genome = Genome.from_json(state["genome"])
    return Candidate(genome, tuple(state["parents"]), state["origin"])


def _plain_job(job: Job) -> State:
    return {"candidate": _plain(job.candidate), "rung": job.rung, "late": job.late}


def _job(state: State) -> Job:
    return Job(_candidate(state["candidate"]), state["rung"], state["late"])


def _plain_result(result: Result) -> State:
    return {
        "candidate": _plain(result.candidate),
        "standing": list(result.standing),
        "may_go_on": result.may_go_on,
    }


def _result(state: State) -> Result:
    return Result(_candidate(state["candidate"]), tuple(state["standing"]), state["may_go_on"])
