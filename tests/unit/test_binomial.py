"""What a share of answers is worth."""

from __future__ import annotations

import math

import pytest

from evonas.binomial import beats_guessing, interval, standard_error


def test_a_standard_error_is_the_textbooks_for_many_images_and_never_zero() -> None:
    assert standard_error(0.1, 10_000) == pytest.approx(math.sqrt(0.1 * 0.9 / 10_000), rel=1e-3)
    for share in (0.0, 1.0):
        assert standard_error(share, 10) == pytest.approx(1 / 22)
    assert interval(0.0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)  # Wilson's own formula


@pytest.mark.parametrize(
    ("error", "images", "majority", "networks", "better"),
    [
        (0.90, 360, 0.10, 1, False),
        (0.85, 360, 0.10, 1, True),  # z = 3.2
        (0.85, 360, 0.10, 100, False),  # the luckiest of a hundred
        (0.30, 360, 0.10, 10**6, True),
        (0.09, 1000, 0.91, 1, False),  # nine of ten images are of one class
        (0.02, 1000, 0.91, 1, True),
        (0.0, 2, 0.5, 1, False),  # too few images to tell
        (0.0, 100, 1.0, 1, False),  # a single class
        (1.0, 10, 0.1, 1, False),
    ],
)
def test_luck_is_told_from_skill(
    error: float, images: int, majority: float, networks: int, better: bool
) -> None:
    assert beats_guessing(error, images, majority, networks) is better
