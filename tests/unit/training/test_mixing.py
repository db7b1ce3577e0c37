"""Mixup and CutMix: what becomes of images and labels."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from evonas.data.dataset import split
from evonas.data.digits import Digits, DigitsParams
from evonas.training.batches import Batches, resident
from evonas.training.loop import training_loss
from evonas.training.mixing import PARTS, mixed, mixing
from evonas.training.recipe import Recipe

SHAPE = torch.Size((4, 1, 6, 10))  # more wide than high
LABELS = torch.tensor([0, 1, 2, 2])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images() -> Tensor:
    """Images whose pixels all are the number of the image, from 1."""
    return torch.arange(1.0, 5.0).view(4, 1, 1, 1).expand(SHAPE).clone()


def draws(*where: int) -> list[Tensor]:
    """Each image's partner is the one after it."""
    return [torch.tensor([1, 2, 3, 0]), *(torch.full((4,), each) for each in where)]


def test_mixup_blends_images_and_labels_in_the_same_shares() -> None:
    after, labels = mixed(images(), LABELS, 3, draws(0, 6, 0, 10, 3 * PARTS // 4))
    for image, expected in zip(after, (1.25, 2.25, 3.25, 3.25), strict=True):
        torch.testing.assert_close(image, torch.full_like(image, expected))
    expected = [[0.75, 0.25, 0], [0, 0.75, 0.25], [0, 0, 1], [0.25, 0, 0.75]]
    torch.testing.assert_close(labels, torch.tensor(expected))


def test_cutmix_takes_a_rectangle_and_blends_labels_by_its_area() -> None:
    after, labels = mixed(images(), LABELS, 3, draws(1, 4, 5, 10, 0))
    expected = images()
    expected[:, :, 1:4, 5:10] = images()[[1, 2, 3, 0]][:, :, 1:4, 5:10]
    assert torch.equal(after, expected)
    share = 15 / 60
    torch.testing.assert_close(labels[0], torch.tensor([1 - share, share, 0]))
    torch.testing.assert_close(labels[3], torch.tensor([share, 0, 1 - share]))


def test_an_image_that_keeps_all_of_itself_is_not_changed_by_a_bit() -> None:
    before = torch.randn(SHAPE, generator=generator())
    for where in ((0, 6, 0, 10, PARTS), (2, 2, 0, 10, 0)):
        after, labels = mixed(before, LABELS, 3, draws(*where))
        assert torch.equal(after, before)
        assert labels.argmax(dim=1).tolist() == LABELS.tolist()
        assert set(labels.flatten().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_that_of_both_labels_in_their_shares(smoothing: float) -> None:
    logits = torch.randn(4, 3, generator=generator())
    _, labels = mixed(images(), LABELS, 3, draws(0, 6, 0, 10, PARTS // 4))
    own, others = (
        cross_entropy(logits, each, label_smoothing=smoothing)
        for each in (LABELS, LABELS[[1, 2, 3, 0]])
    )
    loss = training_loss(logits, labels, Recipe(label_smoothing=smoothing))
    torch.testing.assert_close(loss, 0.25 * own + 0.75 * others)
    both = training_loss((logits, logits), labels, Recipe(auxiliary_weight=0.5))
    torch.testing.assert_close(both, 1.5 * training_loss(logits, labels, Recipe()))


def shares(recipe: Recipe, n: int = 3000) -> Tensor:
    """The shares that images keep of themselves, drawn so many times."""
    drawing = generator()
    found = []
    for _ in range(n):
        _, top, bottom, left, right, parts = (
            int(each[0]) for each in mixing(recipe, 2, torch.Size((32, 32)), drawing)
        )
        area = (bottom - top) * (right - left) / 32**2
        found.append(1 - area * (1 - parts / PARTS))
    return torch.tensor(found)


@pytest.mark.parametrize("alpha", [1e-3, 0.2, 1.0, 8.0])
def test_mixups_shares_are_those_of_a_beta_distribution(alpha: float) -> None:
    found = shares(Recipe(mixup=alpha))
    # The mean is 1/2, the variance 1 / (4 (2 alpha + 1)).
    assert float(found.mean()) == pytest.approx(0.5, abs=0.03)
    assert float(found.std()) == pytest.approx(0.5 / math.sqrt(2 * alpha + 1), rel=0.05)
    assert found.min() >= 0
    assert found.max() <= 1


def test_a_rectangle_lies_inside_and_is_cut_off_at_the_border() -> None:
    drawing, areas = generator(), []
    for _ in range(1000):
        _, top, bottom, left, right, parts = (
            int(each[0]) for each in mixing(Recipe(cutmix=1.0), 2, SHAPE, drawing)
        )
        assert 0 <= top <= bottom <= 6
        assert 0 <= left <= right <= 10
        assert parts == 0
        areas.append((bottom - top) * (right - left) / 60)
    assert max(areas) > 0.8
    # Half of what is drawn, but for what lies outside.
    assert 0.2 < sum(areas) / len(areas) < 0.45


def test_with_both_each_batch_has_one_of_the_two() -> None:
    drawing, kinds = generator(), []
    for _ in range(300):
        parts = mixing(Recipe(mixup=1.0, cutmix=1.0), 2, SHAPE, drawing)[-1]
        kinds.append(int(parts[0]) == 0)
    assert 110 < sum(kinds) < 190


def test_the_generator_alone_decides_how_a_batch_is_mixed() -> None:
    recipe = Recipe(mixup=0.2, cutmix=1.0)
    torch.manual_seed(1)
    first = torch.stack(mixing(recipe, 8, SHAPE, generator(4)))
    torch.manual_seed(2)
    assert torch.equal(torch.stack(mixing(recipe, 8, SHAPE, generator(4))), first)
    assert not torch.equal(torch.stack(mixing(recipe, 8, SHAPE, generator(5))), first)


def test_a_batch_has_labels_of_its_own_unless_it_is_mixed() -> None:
    data = resident(split(Digits(DigitsParams()), DigitsParams())[0], torch.device("cpu"))
    rows = torch.arange(30)
    plain, labels = Batches(data, Recipe(), generator()).load(rows)
    assert torch.equal(labels, data.train.labels[rows])
    same, shared = Batches(data, Recipe(mixup=0.5), generator()).load(rows)
    assert shared.shape == (30, 10)
    torch.testing.assert_close(shared.sum(dim=1), torch.ones(30))
    assert not torch.equal(same, plain)


def test_without_the_new_options_nothing_more_is_drawn() -> None:
    data = resident(split(Digits(DigitsParams()), DigitsParams())[0], torch.device("cpu"))
    rows, drawing, by_hand = torch.arange(30), generator(7), generator(7)
    batches = Batches(data, Recipe(pad_crop=2, flip=True, cutout=3), drawing)
    drawn = batches.draw(rows)
    expected = [torch.randint(n, (30,), generator=by_hand) for n in (5, 5, 2, 8, 8)]
    assert torch.equal(drawn, torch.stack([rows, *expected]))
    assert torch.equal(drawing.get_state(), by_hand.get_state())
