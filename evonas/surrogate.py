"""Models that predict a loss from features, with an uncertainty: a Gaussian process, and trees."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize
from threadpoolctl import ThreadpoolController

Array = NDArray[np.float64]

MOST = 1000  # evaluations that a model is fitted to; of more, the best and some of the others
MOST_TUNED = 300  # of these, those on which hyperparameters are chosen
ITERATIONS = 25  # of their choice
RANGE = 3.0  # how far each may be from what is expected, as a logarithm
SILENT = 7.0  # the same, of how little noise there may be: FLOPs, say, have none
JITTER = 1e-8
MOST_WORSE = 0.75  # on a compressed scale: three spreads beyond the middle
TREES = 100


class Posterior(Protocol):
    """What a model believes of k candidates, on the scale of the model (`Scale`).

    Attributes:
        mean: (k,), the expected loss.
        variance: (k,), of the loss that is expected, without the noise of a measurement.
    """

    mean: Array
    variance: Array

    def condition(self, place: int) -> None:
        """Assume that a candidate was measured, with the loss that is expected.

        The means stay; the candidate, and those like it, become less uncertain (Desautels et al.,
        2014, sec. 4.1).
        """


class Surrogate(Protocol):
    """A model of one loss.

    Attributes:
        scale: how the model sees losses.
        noise: the standard deviation of a measurement, as estimated, in the losses' unit.
    """

    scale: Scale
    noise: float

    def fit(self, features: Array, losses: Array, *, middle: float | None = None) -> None:
        """Fit the model to evaluations.

        Args:
            features: (n, d), n of at least 1.
            losses: (n,), finite.
            middle: see `Scale.of`.
        """

    def posterior(self, features: Array) -> Posterior:
        """Return what the model believes of candidates, (k, d)."""

    def predict(self, features: Array) -> tuple[Array, Array]:
        """Return the mean and standard deviation of candidates, (k,) each, in the losses' unit."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Losses as a model sees them: the better half in proportion, the worse half compressed.

    With z = (loss - middle) / spread it is z up to the middle, and z / (1 + z), below 1, beyond it.
    So a network that learnt nothing is bad and no more, and says nothing of how good ones differ.
    Where losses are not compressed, it is z throughout.
    """

    middle: float = 0.0
    spread: float = 1.0
    compressed: bool = True

    @classmethod
    def of(cls, losses: Array, middle: float | None = None, *, compressed: bool = True) -> Scale:
        """Return the scale on which the best of some losses is -1.

        Args:
            middle: the loss from which on losses are compressed; by default, the median of the
                distinct losses, for the best may be there many times.
        """
        middle = float(np.median(np.unique(losses))) if middle is None else middle
        spread = middle - float(losses.min())
        return cls(middle, spread if spread > 0 else float(np.ptp(losses)) or 1.0, compressed)

    def apply(self, losses: Array) -> Array:
        z: Array = (losses - self.middle) / self.spread
        if not self.compressed:
            return z
        worse = np.maximum(z, 0.0)
        return np.where(z > 0, worse / (1 + worse), z)

    def undo(self, mean: Array, std: Array) -> tuple[Array, Array]:
        """Return means and standard deviations in the losses' unit, the latter to first order.

        Of what is far beyond the middle both are bounded: a model knows only that it is bad.
        """
        if not self.compressed:
            return self.middle + self.spread * mean, self.spread * std
        worse = np.clip(mean, 0.0, MOST_WORSE)
        z = np.where(mean > 0, worse / (1 - worse), mean)
        return self.middle + self.spread * z, self.spread * std / (1 - worse) ** 2

    def surprise(self, losses: Array) -> float:
        """Return what the scale adds to the negative log density of losses, but for a constant."""
        return (
            2
            * float(np.log1p(np.maximum(losses - self.middle, 0.0) / self.spread).sum())
            * (self.compressed)
        )


class GaussianProcess:
    """A Gaussian process (Rasmussen and Williams, 2006, algorithm 2.1).

    The kernel is a^2 Matern(5/2, |x - x'| / l) + b^2 x x', the latter for what is linear in the
    features, such as FLOPs in the number of ops; and measurements have noise s. The logarithms of
    a, l, b, s are chosen by marginal likelihood and a weak normal prior around what is usual
    (`_expected`), with L-BFGS of few iterations.

    scikit-learn's is not used: at 50 evaluations its fit takes 20 times as long, most of it in
    checks and copies, and it gives no posterior that can be conditioned on further candidates. All
    runs on one thread, for the last bits of a sum may depend on the number of threads.

    Args:
        hyperparameters: those to begin with.
        linear: the number of features, the last ones, that count in the linear part alone.

    Attributes:
        hyperparameters: the four logarithms; empty before the first choice.
    """

    def __init__(
        self,
        hyperparameters: tuple[float, ...] = (),
        *,
        compressed: bool = True,
        linear: int = 0,
    ) -> None:
        self.hyperparameters = hyperparameters
        self.compressed = compressed
        self.linear = linear
        self.scale = Scale()
        self.noise = 0.0

    def fit(
        self, features: Array, losses: Array, *, middle: float | None = None, tune: bool = True
    ) -> None:
        """Fit the process; at a cost that grows with n^3, for an n of up to 1,000.

        Args:
            tune: whether hyperparameters are chosen anew, from those of before.
        """
        kept = subset(losses, MOST)
        features = features[kept]
        with one_thread():
            if tune or not self.hyperparameters:
                self._tune(features, losses, kept, middle)
            self.scale = Scale.of(losses, middle, compressed=self.compressed)
            targets, self._mean, self._std = _standard(self.scale.apply(losses[kept]))
            self._features = features
            noise = math.exp(self.hyperparameters[3])
            covariance = self._kernel(features, features)
            covariance[np.diag_indices_from(covariance)] += noise**2 + JITTER
            self._factor = cholesky(covariance, lower=True, check_finite=False)
            self._weights = cho_solve((self._factor, True), targets, check_finite=False)
        self._noise = noise * self._std
        self.noise = self._noise * self.scale.spread

    def _tune(
        self, features: Array, losses: Array, kept: NDArray[np.int64], middle: float | None
    ) -> None:
        """Choose the hyperparameters, and whether losses are compressed, by what is likeliest."""
        some = subset(losses[kept], MOST_TUNED)
        features, told = features[some], losses[kept][some]
        found = []
        for compressed in (True, False):
            scale = Scale.of(losses, middle, compressed=compressed)
            targets, _, std = _standard(scale.apply(told))
            surprise, hyperparameters = self._tuned(features, targets)
            surprise += len(told) * math.log(std) + scale.surprise(told)
            found.append((surprise, compressed, hyperparameters))
        _, self.compressed, self.hyperparameters = min(found)

    def posterior(self, features: Array) -> GaussianPosterior:
        with one_thread():
            cross = self._kernel(self._features, features)
            mean = self._mean + self._std * (cross.T @ self._weights)
            explained = self._std * solve_triangular(
                self._factor, cross, lower=True, check_finite=False
            )
        return GaussianPosterior(self, features, mean, explained)

    def predict(self, features: Array) -> tuple[Array, Array]:
        posterior = self.posterior(features)
        return self.scale.undo(posterior.mean, np.sqrt(posterior.variance))

    def _kernel(self, first: Array, second: Array) -> Array:
        amplitude, length, slope, _ = np.exp(self.hyperparameters)
        r = np.sqrt(5.0 * self._squared(first, second)) / length
        matern = amplitude**2 * (1 + r + r * r / 3) * np.exp(-r)
        return np.asarray(matern + slope**2 * (first @ second.T))

    def _squared(self, first: Array, second: Array) -> Array:
        """Return the squared distances of features, (n, k)."""
        count = first.shape[1] - self.linear
        first, second = first[:, :count], second[:, :count]
        lengths = (first * first).sum(axis=1)[:, None] + (second * second).sum(axis=1)
        return np.asarray(np.maximum(lengths - 2 * first @ second.T, 0.0))

    def _tuned(self, features: Array, targets: Array) -> tuple[float, tuple[float, ...]]:
        """Return how badly targets, (n,), are explained at best, and by which hyperparameters."""
        squared = self._squared(features, features)
        expected = _expected(features, squared)
        likelihood = _Likelihood(squared, features @ features.T, targets, expected)
        start = self.hyperparameters or expected
        bounds = [(each - RANGE, each + RANGE) for each in expected]
        bounds[-1] = (expected[-1] - SILENT, expected[-1] + RANGE)
        best = minimize(
            likelihood,
            np.clip(start, *np.transpose(bounds)),
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options={"maxiter": ITERATIONS},
        )
        return float(best.fun), tuple(best.x.tolist())


class GaussianPosterior:
    """A Gaussian process's posterior (`Posterior`)."""

    def __init__(
        self, process: GaussianProcess, features: Array, mean: Array, explained: Array
    ) -> None:
        self._process, self._features, self._explained = process, features, explained
        amplitude, _, slope, _ = np.exp(process.hyperparameters)
        prior = amplitude**2 + slope**2 * (features * features).sum(axis=1)
        self.mean = mean
        self.variance = np.maximum(
            process._std**2 * prior - (explained * explained).sum(axis=0), JITTER
        )

    def condition(self, place: int) -> None:
        with one_thread():
            prior = self._process._kernel(self._features[[place]], self._features)[0]
            explained = self._explained[:, place] @ self._explained
        covariance = self._process._std**2 * prior - explained
        total = max(float(covariance[place]), JITTER) + self._process._noise**2
        step = covariance / math.sqrt(total)
        self._explained = np.vstack([self._explained, step])
        self.variance = np.maximum(self.variance - step * step, JITTER)


class Trees:
    """A random forest (Breiman, 2001), whose trees' variance is the uncertainty (Hutter et al.,
    2011, sec. 4.1); slower than a Gaussian process for a few hundred evaluations, faster for many.
    """

    def __init__(self) -> None:
        self.scale = Scale()
        self.noise = 0.0

    def fit(self, features: Array, losses: Array, *, middle: float | None = None) -> None:
        from sklearn.ensemble import RandomForestRegressor  # slow to import

        self.scale = Scale.of(losses, middle)
        kept = subset(losses, MOST)
        features, z = features[kept], self.scale.apply(losses[kept])
        self._forest = RandomForestRegressor(
            TREES, max_features=1 / 3, bootstrap=True, random_state=0, n_jobs=1
        )
        self._forest.fit(features, z)
        drawn: Any = self._forest.estimators_samples_
        left_out = np.ones((TREES, len(z)), dtype=np.bool_)
        for tree, places in enumerate(drawn):
            left_out[tree, places] = False
        told = self._each(features)
        counts = left_out.sum(axis=0)
        apart = np.where(left_out, told, 0.0).sum(axis=0)[counts > 0] / counts[counts > 0]
        error = float(np.mean((apart - z[counts > 0]) ** 2)) if len(apart) else 0.0
        self._noise = math.sqrt(max(error - float(told.var(axis=0).mean()), JITTER))
        self.noise = self._noise * self.scale.spread

    def posterior(self, features: Array) -> TreesPosterior:
        return TreesPosterior(self._each(features), self._noise)

    def predict(self, features: Array) -> tuple[Array, Array]:
        posterior = self.posterior(features)
        return self.scale.undo(posterior.mean, np.sqrt(posterior.variance))

    def _each(self, features: Array) -> Array:
        """Return what each tree says, (trees, k)."""
        return np.stack([tree.predict(features) for tree in self._forest.estimators_])


class TreesPosterior:
    """A forest's posterior (`Posterior`): its trees, as if drawn from it."""

    def __init__(self, each: Array, noise: float) -> None:
        self.mean = each.mean(axis=0)
        self._apart, self._noise = each - self.mean, noise
        self.variance = np.maximum(self._apart.var(axis=0), JITTER)

    def condition(self, place: int) -> None:
        covariance = self._apart[:, place] @ self._apart / len(self._apart)
        total = float(covariance[place]) + self._noise**2
        self._apart = self._apart - np.outer(self._apart[:, place], covariance / total)
        self.variance = np.maximum(self.variance - covariance**2 / total, JITTER)


def _standard(z: Array) -> tuple[Array, float, float]:
    """Return numbers with mean 0 and variance 1, and what these were."""
    mean, std = float(z.mean()), float(z.std()) or 1.0
    return (z - mean) / std, mean, std


def subset(losses: Array, most: int) -> NDArray[np.int64]:
    """Return the places of evaluations for a model to learn from, in order.

    Of more than `most`, these are the best half of `most`, and of the others, every k-th in the
    order of their losses.
    """
    order = np.argsort(losses, kind="stable")
    if len(order) > most:
        half = most // 2
        others = np.linspace(half, len(order) - 1, most - half).round().astype(np.int64)
        order = order[np.concatenate([np.arange(half), others])]
    return np.sort(order)


def one_thread() -> Any:
    """Return a context within which linear algebra has one thread.

    The last bits of a result may depend on the number of threads, and so would the search.
    """
    return _controller().limit(limits=1, user_api="blas")


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


def _expected(features: Array, squared: Array) -> tuple[float, float, float, float]:
    """Return what hyperparameters usually are: the mean of their prior.

    Both parts of the kernel explain about half of the variance, the length is a little above the
    median distance, and the noise is a fifth of the spread.
    """
    apart = squared[squared > 0]
    length = math.log(math.sqrt(float(np.median(apart)))) if len(apart) else 0.0
    size = math.log(math.sqrt(float((features * features).sum(axis=1).mean())) or 1.0)
    return -0.3, length + 0.5, -0.3 - size, -1.5


class _Likelihood:
    """The negative logarithm of the posterior density of hyperparameters, and its gradient
    (Rasmussen and Williams, 2006, eq. 5.8 and 5.9)."""

    def __init__(
        self, squared: Array, products: Array, targets: Array, expected: tuple[float, ...]
    ) -> None:
        self.distances, self.products, self.targets = np.sqrt(5.0 * squared), products, targets
        self.expected, self.widths = np.array(expected), np.array([0.7, 0.7, 0.7, 1.0])

    def __call__(self, hyperparameters: Array) -> tuple[float, Array]:
        amplitude, length, slope, noise = np.exp(hyperparameters)
        r = self.distances / length
        decay = amplitude**2 * np.exp(-r)
        matern = decay * (1 + r + r * r / 3)
        linear = slope**2 * self.products
        covariance = matern + linear
        covariance[np.diag_indices_from(covariance)] += noise**2 + JITTER
        factor = cholesky(covariance, lower=True, check_finite=False)
        inverse = cho_solve((factor, True), np.eye(len(factor)), check_finite=False)
        weights = inverse @ self.targets
        away = (hyperparameters - self.expected) / self.widths
        value = (
            0.5 * float(self.targets @ weights)
            + float(np.log(np.diag(factor)).sum())
            + 0.5 * float(away @ away)
        )
        rest = inverse - np.outer(weights, weights)
        gradient = np.array(
            [
                np.vdot(rest, matern),
                0.5 * np.vdot(rest, decay * r * r * (1 + r) / 3),
                np.vdot(rest, linear),
                noise**2 * np.trace(rest),
            ]
        )
        return value, gradient + away / self.widths
