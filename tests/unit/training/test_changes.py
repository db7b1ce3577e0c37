"""The random changes of training images."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from evonas.data.dataset import split
from evonas.data.digits import Digits, DigitsParams
from evonas.training.batches import Batches, resident
from evonas.training.changes import CHANGES, STRONGEST, change_ranges, changed
from evonas.training.recipe import Recipe

UINT8 = (0.0, 255.0)
FLOATS = (-1.0, 2.0)


def images(n: int, channels: int, values: tuple[float, float], side: int = 9) -> Tensor:
    """Images, (n, channels, side, side + 1), of all values; whole numbers, as uint8 are."""
    drawn = torch.rand(n, channels, side, side + 1, generator=generator())
    low, high = values
    scaled = low + (high - low) * drawn
    return scaled.round() if values == UINT8 else scaled


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def by(
    before: Tensor, *names: str, magnitude: float = STRONGEST, sign: int = 1, values: object = UINT8
) -> Tensor:
    """The images after changes of these names, of all images alike."""
    draws = [
        torch.full((len(before),), number)
        for name in names
        for number in (CHANGES.index(name), sign)
    ]
    mean = before.mean(dim=(0, 2, 3), keepdim=True)
    return changed(before, magnitude, values, mean, draws)  # type: ignore[arg-type]  # a pair


@pytest.mark.parametrize("sign", [0, 1])
@pytest.mark.parametrize("values", [UINT8, FLOATS])
@pytest.mark.parametrize("name", CHANGES)
def test_with_magnitude_0_nothing_changes_by_a_bit(
    name: str, values: tuple[float, float], sign: int
) -> None:
    before = images(5, 3, values)
    assert torch.equal(by(before, name, magnitude=0, sign=sign, values=values), before)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("values", [UINT8, FLOATS])
def test_shape_and_range_stay_and_all_but_the_identity_change(
    channels: int, values: tuple[float, float]
) -> None:
    before = images(3, channels, values)
    for name in CHANGES:
        for sign in (0, 1):
            after = by(before, name, name, magnitude=17, sign=sign, values=values)
            assert after.shape == before.shape
            assert after.dtype == torch.float32
            assert after.min() >= values[0] - 1e-4
            assert after.max() <= values[1] + 1e-4
            assert torch.equal(after, before) == (name == "identity"), name


def test_values_change_as_one_would_by_hand() -> None:
    before = torch.tensor([[[[10.0, 200.0], [30.0, 0.0]]]])  # of mean 60

    def changed_to(name: str, expected: list[float], sign: int = 1, magnitude: float = 30) -> None:
        after = by(before, name, magnitude=magnitude, sign=sign)
        by_hand = torch.tensor(expected, dtype=torch.float32)
        torch.testing.assert_close(after.flatten(), by_hand, rtol=1e-5, atol=1e-3)

    changed_to("brightness", [1, 20, 3, 0], sign=0)
    changed_to("brightness", [14.5, 255, 43.5, 0], magnitude=15)
    changed_to("contrast", [55, 74, 57, 54], sign=0)
    changed_to("contrast", [0, 255, 16.5, 0], magnitude=15)
    changed_to("posterize", [0, 192, 16, 0])  # 4 bits of 8 are left
    changed_to("posterize", [8, 200, 28, 0], magnitude=15)  # 6 bits
    changed_to("solarize", [245, 55, 225, 0])  # all but the lowest value
    changed_to("solarize", [10, 55, 30, 0], magnitude=15)


def test_posterizing_keeps_the_upper_bits_of_every_value() -> None:
    before = torch.arange(256.0).view(1, 1, 16, 16)
    for lost, magnitude in ((1, 9), (2, 15), (4, 30)):
        after = by(before, "posterize", magnitude=magnitude).round().int()
        assert torch.equal(after, before.int() & ~(2**lost - 1))


def test_a_shift_moves_the_image_and_fills_up_with_the_mean() -> None:
    before = images(2, 3, UINT8, side=19)  # 20 wide, of which 0.45 is 9
    after = by(before, "translate_x")
    torch.testing.assert_close(after[..., :11], before[..., 9:], rtol=0, atol=1e-3)
    mean = before.mean(dim=(0, 2, 3))[None, :, None, None]
    torch.testing.assert_close(after[..., 11:], mean.expand(2, 3, 19, 9))
    up = by(before.transpose(2, 3).contiguous(), "translate_y", sign=0).transpose(2, 3)
    torch.testing.assert_close(up[..., 9:], before[..., :11], rtol=0, atol=1e-3)


def test_three_rotations_by_30_degrees_are_one_by_90() -> None:
    """They are summed up before the image is resampled, so none blurs it."""
    before = images(2, 1, UINT8, side=9)[..., :9].contiguous()
    after = by(before, "rotate", "rotate", "rotate")
    torch.testing.assert_close(after, before.rot90(1, (2, 3)), rtol=0, atol=0.05)
    back = by(before, "rotate", "rotate", "rotate", sign=0)
    torch.testing.assert_close(back, before.rot90(-1, (2, 3)), rtol=0, atol=0.05)


def test_a_shear_moves_each_row_by_its_distance_from_the_centre() -> None:
    line = torch.zeros(1, 1, 11, 11)
    line[..., 5] = 1.0
    draws = [torch.tensor([CHANGES.index("shear_x")]), torch.tensor([1])]
    after = changed(line, STRONGEST, UINT8, torch.zeros(1, 1, 1, 1), draws)[0, 0]
    middles = (after * torch.arange(11.0)).sum(dim=1)
    torch.testing.assert_close(middles, 5 - 0.3 * (torch.arange(11.0) - 5))


def test_each_image_has_changes_of_its_own() -> None:
    before = images(1, 1, UINT8).expand(200, -1, -1, -1).contiguous()
    drawing = generator()
    drawn = [torch.randint(n, (200,), generator=drawing) for n in change_ranges(1)]
    after = changed(before, 15, UINT8, before.mean(dim=(0, 2, 3), keepdim=True), drawn)
    distinct = {image.numpy().tobytes() for image in after}
    kinds = set(zip(*(each.tolist() for each in drawn), strict=True))
    assert len(kinds) > 12
    # None, posterize and solarize have no direction, and two equal draws are the same change.
    assert 8 <= len(distinct) <= len(kinds)


@pytest.mark.parametrize("floats", [False, True])
def test_batches_are_changed_by_the_seed_alone(floats: bool) -> None:
    params = DigitsParams()
    data = resident(split(Digits(params), params)[0], torch.device("cpu"))
    if floats:
        data = replace(data, train=replace(data.train, images=data.train.images.float()))
    rows, recipe = torch.arange(40), Recipe(rand_augment=2)
    plain, _ = Batches(data, Recipe(), generator(1)).load(rows)
    first, labels = Batches(data, recipe, generator(1)).load(rows)
    again, _ = Batches(data, recipe, generator(1)).load(rows)
    other, _ = Batches(data, recipe, generator(2)).load(rows)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, plain)
    assert torch.equal(labels, data.train.labels[rows])
