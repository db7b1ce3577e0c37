"""`evonas.ImageClassifier`: scikit-learn's conventions, on real images."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import issparse
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score
from sklearn.utils.estimator_checks import parametrize_with_checks

import evonas
from evonas import ImageClassifier
from evonas.jobs import allotment
from tests.helpers.pictures import folder_of_digits

SPACE = {"name": "nasbench201", "channels": 4, "cells": 1}
BRIEF: dict[str, Any] = {
    "hours": 0.0003,
    "space": SPACE,
    "strategy": {"name": "random", "population": 2},
}
NAMES = np.array(["zero", "one", "two"])


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks are timed and trained no longer than these tests need."""
    monkeypatch.setattr(allotment, "TIMED", 1)
    monkeypatch.setattr(allotment, "MOST_STEPS", 10)
    monkeypatch.setattr(allotment, "EPOCHS", 1)


def digits(each: int = 12) -> tuple[Any, Any]:
    found = load_digits()
    rows = np.concatenate([np.flatnonzero(found.target == label)[:each] for label in range(3)])
    return found.images[rows].astype(np.uint8), NAMES[found.target[rows]]


def fitted(**change: Any) -> ImageClassifier:
    return ImageClassifier(random_state=0, **{**BRIEF, **change}).fit(*digits())


def test_it_finds_a_network_within_the_limit_that_knows_the_classes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(allotment, "LEAST_STEPS", 40)
    images, labels = digits(40)
    classifier = ImageClassifier(max_params=6_000, hours=0.003, space=SPACE, random_state=0)
    threads, drawn = torch.get_num_threads(), torch.get_rng_state()
    assert classifier.fit(images, labels) is classifier
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), drawn)
    assert sum(weights.numel() for weights in classifier.network_.parameters()) <= 6_000
    assert classifier.classes_.tolist() == ["one", "two", "zero"]
    assert (classifier.image_shape_, classifier.n_features_in_) == ((1, 8, 8), 64)
    assert classifier.score(images, labels) > 0.5  # chance is a third
    likely = classifier.predict_proba(images)
    assert likely.shape == (len(images), 3)
    assert np.allclose(likely.sum(axis=1), 1)
    best = classifier.classes_[likely.argmax(axis=1)]
    assert (classifier.predict(images) == best).all()
    assert len(classifier.search_.evaluations) > 0
    assert classifier.genome_


def test_a_fitted_one_is_pickled_with_what_it_found() -> None:
    classifier = fitted()
    again = pickle.loads(pickle.dumps(classifier))
    images = digits()[0]
    assert (again.predict_proba(images) == classifier.predict_proba(images)).all()
    assert repr(again.search_) == repr(classifier.search_)


def test_a_clone_has_the_parameters_and_nothing_else() -> None:
    classifier = fitted(max_flops=10_000_000)
    fresh = clone(classifier)
    assert fresh.get_params() == classifier.get_params()
    assert not hasattr(fresh, "classes_")
    with pytest.raises(NotFittedError):
        fresh.predict(digits()[0])
    assert fresh.set_params(hours=2).hours == 2


def test_it_is_scored_like_any_classifier() -> None:
    scores = cross_val_score(ImageClassifier(**BRIEF), *digits(), cv=2)
    assert ((scores >= 0) & (scores <= 1)).all()


@pytest.mark.parametrize(
    "kind", [Path, *(pytest.param(kind, marks=pytest.mark.slow) for kind in (str, np.str_))]
)
def test_it_takes_paths_of_images(tmp_path: Path, kind: type) -> None:
    folder = folder_of_digits(tmp_path, 2, 12, scale=2)
    paths = sorted(folder.rglob("*.png"))
    labels = [path.parent.name for path in paths]
    classifier = ImageClassifier(**BRIEF).fit([kind(path) for path in paths], labels)
    assert classifier.image_shape_ == (3, 16, 16)
    assert set(classifier.predict(paths[:3])) <= {"digit0", "digit1"}
    with pytest.raises(ValueError, match=r"no\.png is not a file"):
        classifier.predict([tmp_path / "no.png"])
    with pytest.raises(ValueError, match="X is a list of paths; give arrays, as in fit"):
        fitted().predict(paths)


@pytest.mark.parametrize(
    "labels", [[3, 5, 9], [-1.0, 0.0, 2.0], [False, True, True], ["b", "a", ""]]
)
def test_it_predicts_the_labels_that_it_was_given(labels: list[Any]) -> None:
    images, names = digits()
    given = np.array(labels)[np.searchsorted(np.sort(NAMES), names)]
    classifier = ImageClassifier(**BRIEF).fit(images, given)
    assert classifier.classes_.tolist() == sorted(set(labels))
    assert classifier.predict(images).dtype == given.dtype


def test_colours_and_floats_are_images_too() -> None:
    images, labels = digits()
    coloured = np.stack([images, 16 - images, images], axis=-1) / np.float64(16)
    classifier = ImageClassifier(**BRIEF).fit(coloured, labels)
    assert classifier.image_shape_ == (3, 8, 8)
    message = r"X has images of \(channels, height, width\) \(1, 8, 8\), but .* \(3, 8, 8\)"
    with pytest.raises(ValueError, match=message):
        classifier.predict(images)


def test_what_it_cannot_fit_is_told_in_a_line() -> None:
    images, labels = digits()
    for given, named, change, expected in (
        (images[0], labels, {}, r"X has the shape \(8, 8\); give arrays"),
        (images[:, 0], labels, {}, r"X has the shape \(36, 8\); give arrays"),
        (images, labels[:-1], {}, "X has 36 images, and y 35 labels"),
        (images, labels[:1].repeat(36), {}, "y has one class, zero; give two or more"),
        (images[:26], labels[:26], {}, "class two has n_samples=2; each class must have"),
        (images / np.nan, labels, {}, "X contains NaN or infinity"),
        (images, labels, {"hours": 0}, "hours is 0; must be a number above 0"),
        (images, labels, {"max_params": 3}, "none of 9 networks .* is within the limits"),
        (images, labels, {"space": "chian"}, "did you mean 'chain'"),
        (images, None, {}, "requires y to be passed, but the target y is None"),
    ):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(allotment, "DRAWN", 9)
            with np.errstate(all="ignore"), pytest.raises(ValueError, match=expected) as caught:
                ImageClassifier(**{**BRIEF, **change}).fit(given, named)
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.slow
def test_the_time_that_the_search_leaves_is_for_the_last_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = {}
    original = evonas.classifier.train  # type: ignore[attr-defined]  # imported above

    def noted(*arguments: Any) -> Any:
        given["budget"] = arguments[3]
        return original(*arguments)

    monkeypatch.setattr("evonas.classifier.train", noted)
    fitted(hours=0.002)
    assert 0 < given["budget"].seconds <= 7.2


class Flat(ImageClassifier):
    """Takes the rows of a matrix for images of one column, as scikit-learn's checks give them."""

    def __init__(
        self,
        hours: float = 0.0001,
        space: Any = None,
        strategy: Any = None,
        random_state: Any = None,
    ) -> None:
        super().__init__(hours=hours, space=space, strategy=strategy, random_state=random_state)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        return tags

    def _images(self, pictures: Any) -> Any:
        rows = pictures if issparse(pictures) else np.asarray(pictures)
        is_matrix = rows.ndim == 2 and not issparse(rows)
        return super()._images(rows[:, :, None] if is_matrix else rows)


FLAT = Flat(space=SPACE, strategy={"name": "random", "population": 2})
FAILS = {
    "check_n_features_in_after_fitting": "the message says which shape images have, not features",
    "check_estimators_empty_data_messages": "the message says which shape X has",
    "check_fit2d_predict1d": "the message says which shape X has",
    "check_fit2d_1feature": "a class has fewer images than a search needs",
}


@pytest.mark.slow
@parametrize_with_checks([FLAT], expected_failed_checks=lambda _: FAILS)  # type: ignore[untyped-decorator]  # scikit-learn has no types
def test_it_does_as_scikit_learn_expects(estimator: Any, check: Any) -> None:
    check(estimator)
