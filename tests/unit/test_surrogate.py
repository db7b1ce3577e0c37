"""Models of losses."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, Matern, WhiteKernel

from evonas.surrogate import (
    GaussianProcess,
    Scale,
    Surrogate,
    Trees,
    _expected,
    _Likelihood,
    subset,
)


def data(n: int, noise: float = 0.1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    features = rng.integers(0, 3, size=(n, 6)).astype(float)
    losses = 20 + features @ np.arange(6) + 3 * (features[:, 0] == features[:, 1])
    return features, losses + noise * rng.normal(size=n)


@pytest.mark.parametrize("model", [GaussianProcess(), Trees()], ids=["process", "trees"])
def test_a_model_predicts_what_it_has_not_seen(model: Surrogate) -> None:
    features, losses = data(150)
    model.fit(features[:100], losses[:100])
    mean, std = model.predict(features[100:])
    assert np.corrcoef(mean, losses[100:])[0, 1] > 0.85
    good = losses[100:] < np.median(losses)  # of bad ones it knows only that they are
    off = np.abs(mean - losses[100:])[good] / np.hypot(std, model.noise)[good]
    assert 0.2 < off.mean() < 2


def test_a_process_agrees_with_that_of_scikit_learn() -> None:
    features, losses = data(60)
    model = GaussianProcess()
    model.fit(features, losses)
    a, length, slope, noise = np.exp(model.hyperparameters)
    z = model.scale.apply(losses)
    theirs = GaussianProcessRegressor(
        ConstantKernel(a**2) * Matern(length, nu=2.5)
        + ConstantKernel(slope**2) * DotProduct(1e-9)
        + WhiteKernel(noise**2),
        optimizer=None,
    ).fit(features, (z - z.mean()) / z.std())
    others, _ = data(20, seed=1)
    mean, std = theirs.predict(others, return_std=True)
    ours = model.posterior(others)
    assert np.allclose(ours.mean, z.mean() + z.std() * mean, atol=1e-6)
    assert np.allclose(ours.variance, z.std() ** 2 * (std**2 - noise**2), atol=1e-6)


def test_the_likelihood_has_the_gradient_that_it_says() -> None:
    features, losses = data(30)
    squared = ((features[:, None] - features) ** 2).sum(axis=2)
    targets = (losses - losses.mean()) / losses.std()
    expected = _expected(features, squared)
    likelihood = _Likelihood(squared, features @ features.T, targets, expected)
    at = np.array(expected) + 0.3
    steps = 1e-6 * np.eye(4)
    numeric = [(likelihood(at + s)[0] - likelihood(at - s)[0]) / 2e-6 for s in steps]
    assert np.allclose(likelihood(at)[1], numeric, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model", [GaussianProcess(), Trees()], ids=["process", "trees"])
def test_a_condition_leaves_less_uncertainty_and_the_means(model: Surrogate) -> None:
    features, losses = data(40)
    model.fit(features, losses)
    posterior = model.posterior(data(50, seed=2)[0])
    mean, before = posterior.mean.copy(), posterior.variance.copy()
    posterior.condition(7)
    assert (posterior.mean == mean).all()
    assert (posterior.variance <= before + 1e-12).all()
    assert posterior.variance[7] < before[7]


def test_a_condition_is_a_fit_with_one_evaluation_more() -> None:
    features, losses = data(30)
    others, _ = data(12, seed=3)
    model = GaussianProcess()
    model.fit(features, losses)
    posterior = model.posterior(others)
    for place in (4, 5):
        posterior.condition(place)
    # The variance does not depend on the losses, only on where they were measured.
    longer = GaussianProcess(model.hyperparameters, compressed=model.compressed)
    longer.fit(np.vstack([features, others[[4, 5]]]), np.append(losses, losses[:2]), tune=False)
    scale = (model._std / longer._std) ** 2
    assert np.allclose(posterior.variance, scale * longer.posterior(others).variance, atol=1e-6)


def test_outliers_do_not_change_what_is_said_of_the_good() -> None:
    features, losses = data(60, noise=0.0)
    model, hurt = GaussianProcess(), GaussianProcess()
    model.fit(features, losses)
    worse = losses.copy()
    worse[np.argsort(losses)[-3:]] = [1e3, 1e6, 1e12]
    hurt.fit(features, worse)
    best = np.argsort(losses)[:10]
    assert hurt.compressed
    assert np.corrcoef(hurt.predict(features[best])[0], losses[best])[0, 1] > 0.9
    assert np.abs(hurt.predict(features[best])[0] - losses[best]).max() < 0.1 * np.ptp(losses)


def test_noise_is_told_in_the_unit_of_the_losses() -> None:
    features, _ = data(200)
    losses = features @ np.arange(6) + 0.5 * np.random.default_rng(1).normal(size=200)
    model = GaussianProcess()
    model.fit(features, losses)
    assert 0.3 < model.noise < 0.8
    model.fit(features, 1000 * losses)
    assert 300 < model.noise < 800


def test_what_has_no_noise_is_soon_known_to_a_thousandth() -> None:
    features, _ = data(100)
    losses = features @ np.arange(6)
    model = GaussianProcess()
    model.fit(features[:60], losses[:60])
    mean, std = model.predict(features[60:])
    good = losses[60:] < np.median(losses)
    assert model.noise < 0.002 * losses.std()
    assert std[good].max() < 0.01 * losses.std()
    assert np.abs(mean - losses[60:])[good].max() < 0.01 * losses.std()


@pytest.mark.parametrize("model", [GaussianProcess(), Trees()], ids=["process", "trees"])
def test_equal_losses_and_a_single_one_are_fitted(model: Surrogate) -> None:
    features, _ = data(5)
    for n in (1, 5):
        model.fit(features[:n], np.ones(n))
        mean, std = model.predict(features)
        assert np.allclose(mean, 1.0, atol=0.1)
        assert np.isfinite(std).all()


def test_a_scale_is_undone() -> None:
    losses = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    scale = Scale.of(losses)
    assert scale.apply(losses).tolist() == [-1.0, -0.5, 0.0, 1 / 3, 0.5]
    mean, std = scale.undo(scale.apply(losses), np.full(5, 0.1))
    assert np.allclose(mean, losses)
    assert np.allclose(std, [0.2, 0.2, 0.2, 0.45, 0.8])


def test_of_many_evaluations_the_best_and_some_others_are_learnt_from() -> None:
    losses = np.random.default_rng(0).permutation(100).astype(float)
    kept = subset(losses, 20)
    assert len(set(kept.tolist())) == 20
    assert (np.diff(kept) > 0).all()
    assert sorted(losses[kept])[:11] == [*range(11)]
    assert losses[kept].max() == 99
    assert subset(losses, 100).tolist() == list(range(100))


def test_the_number_of_threads_changes_nothing() -> None:
    from threadpoolctl import threadpool_limits

    features, losses = data(300)
    said = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            model = GaussianProcess()
            model.fit(features, losses)
            said.append([*model.predict(features), model.noise])
    assert all(np.array_equal(a, b) for a, b in zip(*said, strict=True))
