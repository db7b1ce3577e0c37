"""Model-guided evolution: a model chooses from many offspring those worth an evaluation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field
from scipy.stats import rankdata

from evonas import pareto
from evonas.core import Candidate, Evaluation, Objective, Params, Requirement, State
from evonas.pareto import Array, Losses
from evonas.protocols import Setting
from evonas.strategies import _acquisition as acquisition
from evonas.strategies._history import History
from evonas.strategies.generational import Generational, parse_seeds
from evonas.surrogate import GaussianProcess, Posterior, Surrogate, Trees
from genomes import Genome
from genomes.operators import change_one, reset

PARENTS = 20  # the best so far, which have offspring
CROSSED = 0.5  # the share of offspring with two parents
SAMPLED = 0.2  # the share of the candidates that are drawn at random
ENDS = (
    0.2  # with several objectives, how often one alone is improved, so as to find the front's ends
)
WORTH = 0.002  # unless that promises no more than this share of its range
TUNED = 60  # evaluations up to which hyperparameters are chosen in every generation,
GROWTH = 1.2  # and the factor by which evaluations grow between two later choices
DIGITS = 9  # of a merit's logarithm, and of a correlation: what differs by less is equal


class PredictorParams(Params):
    name: Literal["predictor"] = "predictor"
    initial: Annotated[int, Field(ge=1, le=100_000)] = 10
    """The number of candidates of the first generation, which are drawn at random: there is no
    model yet."""
    seeds: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Genomes that the search begins with, each in place of a random one: as the space writes
    them, as genes, or by a name from `evonas list genomes`. At most `initial`."""
    batch: Annotated[int, Field(ge=1, le=100_000)] = 5
    """The number of candidates of each later generation. The fewer, the more each choice knows; a
    multiple of the number of workers keeps all of them busy."""
    model: Literal["gaussian_process", "trees"] = "gaussian_process"
    """What predicts the objectives: a Gaussian process, or a forest of random `trees`."""
    offspring: Annotated[int, Field(ge=1, le=100_000)] = 1000
    """How many networks the model compares in each generation."""
    random_share: Annotated[float, Field(ge=0, le=1)] = 0.1
    """The share of candidates that are drawn at random whatever the model says, so that a wrong
    model cannot trap the search."""

    @property
    def founders(self) -> int:
        """The number of candidates of the first generation."""
        return self.initial

    def model_post_init(self, context: object) -> None:
        if len(self.seeds) > self.initial:
            raise Requirement("must be at most as many as initial", "seeds")


class Predictor(Generational):
    """Model-guided evolution, in the manner of BANANAS (White et al., 2021), for few trainings.

    A model learns from all evaluations so far to predict each objective from the features of a
    network. It compares many offspring of the best so far and some random networks: by expected
    improvement (Jones et al., 1998), with two objectives by the expected gain of hypervolume
    (Emmerich et al., 2011), with more by random scalarisations (Knowles, 2006). The candidates of a
    batch are chosen one by one; each counts as measured, with what is expected of it, when the next
    is chosen, and none has the features of another. Unlike in BANANAS the model is a Gaussian
    process, and what improves is a measurement, with its noise. Infeasible networks count as worse
    than all feasible ones, by their violation, and failed ones as worse still.
    """

    Params = PredictorParams
    TRACES: ClassVar = {
        "predictions": ("key", "objective", "predicted", "uncertainty", "measured"),
        "predictor": ("objective", "rank_correlation", "noise"),
    }

    def __init__(self, params: PredictorParams, setting: Setting) -> None:
        super().__init__(params, setting)
        self.seeds = parse_seeds(self.space, params.seeds)
        self.history = History(self.objectives, self.constraints)
        self.features: list[Array] = []  # of the history's genomes
        self.hyperparameters: list[tuple[float, ...]] = [() for _ in self.objectives]
        self.compressed = [True for _ in self.objectives]
        self.tuned = 0  # the evaluations there were when these were chosen
        self.spelled = len(self.space.spelling(self.space.sample(np.random.default_rng(0))))
        self.predicted: list[Prediction] = []  # of the batch that is out, for each objective
        self._trace: dict[str, list[dict[str, Any]]] = {}

    def trace(self) -> dict[str, list[dict[str, Any]]]:
        """What was predicted for the last generation, beside what was measured."""
        return self._trace

    def _propose(self) -> list[Candidate]:
        if not self.history.genomes:
            return self._founders()
        at_random = self.rng.binomial(self.params.batch, self.params.random_share)
        drawn = [Candidate(self._unseen()) for _ in range(at_random)]
        pool = self._offspring()
        if len(pool) + len(drawn) == 0:  # a space that is used up
            drawn = [Candidate(self._unseen()) for _ in range(self.params.batch)]
        everyone = [*drawn, *pool]
        places = self._chosen(everyone, len(drawn))
        batch = [everyone[place] for place in places]
        for candidate in batch[len(drawn) :]:
            self._is_new(candidate.genome)
        return batch

    def _learn(self, evaluations: list[Evaluation]) -> None:
        losses = pareto.losses(evaluations, self.objectives)
        good = [pareto.tier(each, self.objectives) == pareto.FEASIBLE for each in evaluations]
        keys = [self.space.key(each.candidate.genome) for each in evaluations]
        self._trace = {"predictions": [], "predictor": []}
        for objective, prediction, column in zip(
            self.objectives, self.predicted, losses.T, strict=False
        ):
            measured = np.where(good, column, np.nan)
            rows, row = prediction.beside(measured, objective, keys)
            self._trace["predictions"] += rows
            self._trace["predictor"].append(row)
        self.predicted = []
        self.history.add(evaluations)

    def _founders(self) -> list[Candidate]:
        for seed in self.seeds:
            self._is_new(seed)
        seeds = [Candidate(seed, origin="seed") for seed in self.seeds]
        rest = range(self.params.initial - len(seeds))
        return [*seeds, *(Candidate(self._unseen()) for _ in rest)]

    def _offspring(self) -> list[Candidate]:
        """Networks not asked for yet: children of the best so far, and some drawn at random."""
        parents = [self.history.genomes[place] for place in self.history.best(PARENTS)]
        keys = [self.space.key(parent) for parent in parents]
        found: dict[str, Candidate] = {}
        for _ in range(self.params.offspring):
            if self.rng.random() < SAMPLED:
                candidate = Candidate(self.space.sample(self.rng))
            else:
                candidate = self._child(parents, keys)
            key = self.space.key(candidate.genome)
            if key not in self.seen:
                found.setdefault(key, candidate)
        return list(found.values())

    def _child(self, parents: Sequence[Genome], keys: Sequence[str]) -> Candidate:
        """A child of one parent or two, in which a gene is changed, and perhaps more."""
        choices = self.space.choices
        i, j = self.rng.integers(len(parents), size=2).tolist()
        lineage: tuple[str, ...] = (keys[i],)
        genes, origin = list(parents[i].genes), "mutation"
        if i != j and self.rng.random() < CROSSED:
            swapped = (self.rng.random(len(genes)) < 0.5).tolist()
            other = parents[j].genes
            genes = [b if s else a for a, b, s in zip(genes, other, swapped, strict=True)]
            lineage, origin = (keys[i], keys[j]), "crossover+mutation"
        genes = change_one(reset(genes, choices, 1 / len(genes), self.rng), choices, self.rng)
        return Candidate(Genome(self.space.name, tuple(genes)), lineage, origin)

    def _chosen(self, candidates: Sequence[Candidate], drawn: int) -> list[int]:
        """The places of a batch: the first `drawn` of the candidates, then the most promising."""
        features = np.array([self._features(each.genome) for each in candidates])
        models = self._fitted()
        posteriors = [model.posterior(features) for model in models]
        expected = [
            model.scale.undo(
                posterior.mean,
                np.sqrt(posterior.variance + (model.noise / model.scale.spread) ** 2),
            )
            for model, posterior in zip(models, posteriors, strict=True)
        ]
        history = self.history
        merits = Merits(models, posteriors, history.targets(), history.reference(), self.rng)
        networks = features[:, : features.shape[1] - self.spelled]
        free = np.ones(len(candidates), dtype=np.bool_)
        places: list[int] = []
        while len(places) < self.params.batch and (free.any() or len(places) < drawn):
            place = len(places)
            if place >= drawn:
                place = int(np.where(free, merits.of_all(), -np.inf).argmax())
            places.append(place)
            merits.assume(place)
            free[place] = False
            twins = (networks == networks[place]).all(axis=1)
            if (free & ~twins)[drawn:].any():
                free &= ~twins
            free[:drawn] = False
        self.predicted = [
            Prediction(mean[places], std[places], model.noise)
            for (mean, std), model in zip(expected, models, strict=True)
        ]
        return places

    def _features(self, genome: Genome) -> Array:
        return np.concatenate([self.space.features(genome), self.space.spelling(genome)])

    def _fitted(self) -> list[Surrogate]:
        """A model of each objective."""
        history = self.history
        for genome in history.genomes[len(self.features) :]:
            self.features.append(self._features(genome))
        features, count = np.array(self.features), len(self.features)
        models: list[Surrogate] = []
        tune = count <= TUNED or count >= GROWTH * self.tuned
        self.tuned = count if tune else self.tuned
        pairs = zip(history.targets().T, history.middles(), strict=True)
        for number, (target, middle) in enumerate(pairs):
            if self.params.model == "trees":
                forest = Trees()
                forest.fit(features, target, middle=middle)
                models.append(forest)
                continue
            process = GaussianProcess(
                self.hyperparameters[number],
                compressed=self.compressed[number],
                linear=self.spelled,
            )
            process.fit(features, target, middle=middle, tune=tune)
            self.hyperparameters[number] = process.hyperparameters
            self.compressed[number] = process.compressed
            models.append(process)
        return models

    def _state(self) -> State:
        return {
            "history": self.history.plain(),
            "hyperparameters": [list(each) for each in self.hyperparameters],
            "compressed": list(self.compressed),
            "tuned": self.tuned,
        }

    def _restore(self, state: State) -> None:
        self.history.restore(state["history"], self.space.name)
        self.hyperparameters = [tuple(each) for each in state["hyperparameters"]]
        self.compressed, self.tuned = list(state["compressed"]), state["tuned"]
        self.features, self.predicted = [], []


class Prediction:
    """What was expected of a batch, for one objective.

    Args:
        mean, std: (k,), losses.
        noise: the noise of a measurement.
    """

    def __init__(self, mean: Array, std: Array, noise: float) -> None:
        self.mean, self.std, self.noise = mean, std, noise

    def beside(
        self, measured: Array, objective: Objective, keys: Sequence[str]
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Return a row for each candidate, and one for the batch; measured is NaN of the failed."""
        name, sign = objective.name, objective.sign
        told = np.isfinite(measured)
        rows = [
            {
                "key": key,
                "objective": name,
                "predicted": sign * mean,
                "uncertainty": std,
                "measured": sign * loss if known else None,
            }
            for key, mean, std, loss, known in zip(
                *(keys, self.mean.tolist(), self.std.tolist(), measured.tolist(), told.tolist()),
                strict=True,
            )
        ]
        correlation = rank_correlation(self.mean[told], measured[told])
        row = {"objective": name, "rank_correlation": correlation, "noise": self.noise}
        return rows, row


class Merits:
    """What candidates promise, given those chosen before.

    Args:
        losses: (n, m), of all evaluations.
        reference: (m,), the losses beyond which nothing counts as a gain.
        rng: draws objectives, and the weights of scalarisations.
    """

    def __init__(
        self,
        models: Sequence[Surrogate],
        posteriors: Sequence[Posterior],
        losses: Losses,
        reference: Array,
        rng: np.random.Generator,
    ) -> None:
        self.models, self.posteriors, self.rng = models, posteriors, rng
        best = self._seen(losses.min(axis=0)[None])
        self.reference = self._seen(reference[None])
        self.range = self.reference - best
        self.losses = (self._seen(losses) - self.reference) / self.range
        means = np.column_stack([posterior.mean for posterior in posteriors])
        self.means = (means - self.reference) / self.range
        self.noise = np.array([model.noise / model.scale.spread for model in models])

    def of_all(self) -> Array:
        """Return the merit of each candidate, (k,)."""
        count = len(self.models)
        variances = np.column_stack([posterior.variance for posterior in self.posteriors])
        stds = np.sqrt(variances + self.noise**2) / self.range
        merit = None
        if count == 1:
            merit = self._improvement(0, stds)
        elif self.rng.random() < ENDS:
            merit = self._improvement(int(self.rng.integers(count)), stds)
            merit = merit if merit.max() > math.log(WORTH) else None
        if merit is None and count == 2:
            gain = acquisition.expected_hypervolume_gain(self.means, stds, self.losses, np.zeros(2))
            merit = np.log(np.maximum(gain, 1e-300))
        elif merit is None:
            front = self.losses[pareto.is_on_front(self.losses)]
            low, span = front.min(axis=0), np.ptp(front, axis=0)
            scaled = (self.means - stds - low) / np.where(span > 0, span, 1.0)
            merit = -acquisition.chebyshev(scaled, self.rng.dirichlet(np.ones(count)))
        return np.round(merit, DIGITS)

    def assume(self, place: int) -> None:
        """Assume that a candidate was measured, with what is expected."""
        for posterior in self.posteriors:
            posterior.condition(place)
        if len(self.models) > 1:
            self.losses = np.vstack([self.losses, self.means[place]])

    def _improvement(self, objective: int, stds: Losses) -> Array:
        best = float(self.losses[:, objective].min())
        return acquisition.log_expected_improvement(
            self.means[:, objective], stds[:, objective], best
        )

    def _seen(self, losses: Losses) -> Losses:
        """Return losses as the models see them."""
        columns = zip(self.models, losses.T, strict=True)
        return np.column_stack([model.scale.apply(column) for model, column in columns])


def rank_correlation(first: Array, second: Array) -> float | None:
    """Return Spearman's rank correlation; None if there is none, as of equal numbers."""
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return round(float(np.corrcoef(rankdata(first), rankdata(second))[0, 1]), DIGITS)
