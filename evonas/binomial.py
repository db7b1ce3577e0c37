"""What a share of right or wrong answers on some images can be told apart from."""

from __future__ import annotations

import math

LUCK = 0.01  # how often luck alone may pass for more than guessing


def standard_error(share: float, images: int) -> float:
    """Return the standard error of a share, which is above 0 for a share of 0 or 1 too.

    It is half the width of the interval of Wilson (1927, J. Am. Stat. Assoc. 22) for one standard
    deviation; the textbook's sqrt(p (1 - p) / n), which it is for many images, calls a network
    without a mistake on ten images certain.
    """
    low, high = interval(share, images, deviations=1.0)
    return (high - low) / 2


def interval(share: float, images: int, deviations: float = 1.96) -> tuple[float, float]:
    """Return the interval of Wilson (1927) for a share; by default, that of 95 %."""
    z2 = deviations**2 / images
    middle = share + z2 / 2
    half = math.sqrt(share * (1 - share) * z2 + z2**2 / 4)
    return max(0.0, (middle - half) / (1 + z2)), min(1.0, (middle + half) / (1 + z2))


def beats_guessing(error: float, images: int, majority: float, networks: int = 1) -> bool:
    """Return whether an error is too low for a network that does not look at the images.

    Such a network is right with a probability of `majority` at most. If the best of many is
    looked at, one must do better than the luckiest of as many guesses (Šidák, 1967).

    Args:
        error: the share of the images that the network gets wrong.
        majority: the share of the commonest class.
        networks: the number of networks of which this is the best.
    """
    from scipy.special import betainc  # slow to import, and most commands do not come here

    right = round((1 - error) * images)
    if right <= majority * images:
        return False
    lucky = float(betainc(right, images - right + 1, majority))  # P(at least `right`)
    return lucky < -math.expm1(math.log1p(-LUCK) / max(networks, 1))
