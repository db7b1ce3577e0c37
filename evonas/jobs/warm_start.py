"""The pool that a search begins with: random networks, ranked by what is known without training."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import rankdata

from evonas.core import Candidate, Evaluation, Params, SearchFailed, Status, derive_seed
from evonas.evaluators.proxy import ProxyEvaluator, ProxyParams
from evonas.evaluators.tabular import Tabular
from evonas.experiment import WarmStart
from evonas.loop import Answers, Desk
from evonas.protocols import Dispatcher, Evaluator, Seeded, Setting
from genomes import Genome, SearchSpace, library

KNOWN_IN_A_ROW = 1000  # draws of networks that the pool has already, after which it is complete


class Known:
    """An evaluator of what another one knows without evaluating, such as a table."""

    def __init__(self, evaluator: Evaluator) -> None:
        self.evaluator = evaluator
        self.metrics = tuple(metric for metric in evaluator.metrics if metric.cheap)
        self.fingerprint = evaluator.fingerprint

    def cheap(self, genome: Genome) -> Mapping[str, float]:
        return self.evaluator.cheap(genome)

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        if isinstance(self.evaluator, Tabular) and not self.evaluator.has(candidate.genome):
            raise KeyError(f"the table has no row for {candidate.genome.text}")
        return Evaluation(candidate, self.cheap(candidate.genome))


def desk_of_pool(
    evaluator: Evaluator,
    setting: Setting,
    names: Sequence[str],
    dispatched: Callable[[Evaluator], Dispatcher | None],
    answers: Answers | None = None,
) -> Desk:
    """Return a desk that measures some metrics of networks, which need no training.

    Where networks are trained, they are zero-cost proxies; elsewhere, what the evaluator of the
    search knows.

    Args:
        dispatched: makes what has an evaluator's candidates evaluated, where networks are trained.
        answers: those from before a resume, where networks are trained.
    """
    trained = setting.training is not None
    known: Evaluator = Known(evaluator)
    if trained:
        known = ProxyEvaluator(ProxyParams(), setting, names)
    return Desk(
        known,
        setting.space,
        seed=setting.seed,
        constraints=setting.constraints,
        answers=answers if trained else None,
        dispatcher=dispatched(known) if trained else None,
    )


class Pool:
    """Random networks, each once, none of which is among the strategy's own `seeds`.

    Args:
        params: the settings of the strategy.
        desk: what has the networks measured; its seed is the run's.
    """

    def __init__(self, settings: WarmStart, params: Params, space: SearchSpace, desk: Desk) -> None:
        self.settings = settings
        self.params = params
        self.space = space
        self.desk = desk
        given = [space.key(library.read(space, text)) for text in _seeds(params)]
        rng = np.random.default_rng(derive_seed(desk.seed, "warm_start"))
        genomes = drawn(space, settings.pool, rng, given)
        self.asked = [desk.question(Candidate(genome), "warm_start") for genome in genomes]
        self.answers: list[Evaluation] = []

    def __iter__(self) -> Iterator[int]:
        """Measure the networks, and yield how many are done."""
        for asked in self.asked:
            self.desk.put(asked)
        for asked in self.asked:
            self.answers.append(self.desk.wait(asked))
            yield len(self.answers)

    def best(self) -> list[int]:
        """Return the positions of the networks that the search begins with, the best first.

        Raises:
            SearchFailed: none can be ranked.
        """
        ranks = ranked(self.answers, self.settings.by)
        finite = np.flatnonzero(np.isfinite(ranks))
        if not len(finite):
            last = self.answers[-1]
            reason = ": ".join(filter(None, (str(last.status), last.message)))
            raise SearchFailed(
                f"none of the {len(ranks)} networks of the pool can be ranked ({reason}); rank "
                "them by something else in warm_start.by, or leave warm_start out"
            )
        assert isinstance(self.params, Seeded), "checked with the file"
        founders = self.params.founders
        count = max(round(self.settings.share * founders), 1)
        order = finite[np.argsort(ranks[finite], kind="stable")]
        return [int(i) for i in order[: min(count, max(founders - len(_seeds(self.params)), 0))]]

    def seeded(self) -> Params:
        """Return the settings of the strategy, with the best of the pool among its `seeds`."""
        best = [self.answers[i].candidate.genome.text for i in self.best()]
        return self.params.model_copy(update={"seeds": (*_seeds(self.params), *best)})

    def keys(self) -> list[str]:
        """Return the keys of the networks that the search begins with, the best first."""
        return [self.asked[i].question.key for i in self.best()]

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each network: its values, its mean rank, and whether it was chosen."""
        ranks, best = ranked(self.answers, self.settings.by), set(self.best())
        return [
            {
                "key": asked.question.key,
                "genes": answer.candidate.genome.text,
                "status": str(answer.status),
                **{name: answer.values.get(name) for name in self.settings.names},
                "mean_rank": float(rank) if math.isfinite(rank) else None,
                "chosen": i in best,
            }
            for i, (asked, answer, rank) in enumerate(
                zip(self.asked, self.answers, ranks, strict=True)
            )
        ]

    @property
    def columns(self) -> tuple[str, ...]:
        return ("key", "genes", "status", *self.settings.names, "mean_rank", "chosen")


def drawn(
    space: SearchSpace, count: int, rng: np.random.Generator, without: Collection[str] = ()
) -> list[Genome]:
    """Return different networks drawn at random, or fewer if no more turn up.

    Args:
        without: the keys of networks to leave out.
    """
    genomes: dict[str, Genome] = {}
    tries = 0
    while len(genomes) < count and tries < KNOWN_IN_A_ROW:
        genome = space.sample(rng)
        key = space.key(genome)
        tries += 1
        if key not in genomes and key not in without:
            genomes[key], tries = genome, 0
    return list(genomes.values())


def ranked(answers: Sequence[Evaluation], by: Sequence[str]) -> np.ndarray:
    """Return the mean of each network's ranks, (n,), 1 the best; infinite without a value.

    Equal values have the mean of their ranks.

    Args:
        by: the metrics, with a minus sign where less is better.
    """
    means = np.full(len(answers), np.inf)
    table = [
        [
            answer.values.get(name.removeprefix("-"), math.nan) * (1 if name[0] == "-" else -1)
            for name in by
        ]
        for answer in answers
    ]
    values = np.array(table, dtype=np.float64).reshape(len(answers), len(by))
    sound = np.array([answer.status is Status.OK for answer in answers], dtype=np.bool_)
    sound &= np.isfinite(values).all(axis=1)
    if sound.any():
        means[sound] = rankdata(values[sound], axis=0).mean(axis=1)
    return means


def _seeds(params: Params) -> tuple[str, ...]:
    assert isinstance(params, Seeded), "checked with the file"
    return params.seeds
