"""How much a candidate promises, from what models expect of it: pure functions, which minimise."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtr

from evonas import pareto
from evonas.pareto import Array, Losses

FAR = -10.0  # standard deviations, beyond which the expected improvement is an asymptote
RHO = 0.05  # the share of the sum in the augmented Chebyshev function (Knowles, 2006)


def log_expected_improvement(mean: Array, std: Array, best: float) -> Array:
    """Return the logarithm of E max(best - Y, 0) for normal Y (Jones et al., 1998, eq. 15).

    The logarithm still tells candidates apart that promise next to nothing (Ament et al., 2023).

    Args:
        mean, std: (k,).

    Returns:
        (k,).
    """
    u = (best - mean) / std
    near = np.maximum(u, FAR)
    density = np.exp(-near * near / 2) / math.sqrt(2 * math.pi)
    far = np.minimum(u, FAR)
    tail = -far * far / 2 - math.log(math.sqrt(2 * math.pi)) - 2 * np.log(-far)
    tail += np.log1p(-3 / far**2)
    gain = np.where(u > FAR, np.log(density + near * ndtr(near)), tail)
    return np.asarray(np.log(std) + gain)


def expected_hypervolume_gain(
    means: Losses, stds: Losses, losses: Losses, reference: Array
) -> Array:
    """Return the expected gain of hypervolume by candidates, exactly, for two objectives.

    The region that is not dominated yet is cut into strips along the first objective; in each, the
    gain is the product of a width and a height, which are independent (Yang et al., 2019, eq. 13).

    Args:
        means, stds: (k, 2), of independent normal distributions.
        losses: (n, 2), all points so far.
        reference: (2,); what is beyond it adds nothing.

    Returns:
        (k,).
    """
    inside = losses[(losses < reference).all(axis=1)]
    front = np.unique(inside[pareto.is_on_front(inside)], axis=0)  # in the first objective's order
    ends = np.append(front[:, 0], reference[0])
    heights = np.concatenate([reference[1:], front[:, 1]])
    below = _expected_below(means[:, :1], stds[:, :1], ends)
    widths = np.diff(below, axis=1, prepend=0.0)
    return np.asarray((widths * _expected_below(means[:, 1:], stds[:, 1:], heights)).sum(axis=1))


def _expected_below(mean: Array, std: Array, ends: Array) -> Array:
    """Return E max(end - Y, 0) for each end, (k, ends)."""
    u = (ends - mean) / std
    return np.asarray(std * (u * ndtr(u) + np.exp(-u * u / 2) / math.sqrt(2 * math.pi)))


def chebyshev(losses: Losses, weights: Array) -> Array:
    """Return the augmented Chebyshev function of losses (Knowles, 2006, eq. 2).

    Args:
        losses: (k, m), scaled so that the front's best are 0 and its worst 1.
        weights: (m,), of sum 1.

    Returns:
        (k,), to minimise.
    """
    weighted = weights * losses
    return np.asarray(weighted.max(axis=1) + RHO * weighted.sum(axis=1))
