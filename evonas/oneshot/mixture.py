"""Mixtures, the weights of a supernet's ops: y = sum_k w_k op_k(x), one sum for each gene.

A mixture has, for each gene, the choices that are computed, each with its weight. A choice that is
not in it has weight 0 and is not computed; the output of a gene that is not in it is empty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from genomes import Genome, SearchSpace

Weight = Tensor | float
Mixture = Mapping[str, Sequence[tuple[int, Weight]]]
Alphas = Mapping[str, Tensor]  # (choices,) for each gene


def path(space: SearchSpace, genome: Genome) -> Mixture:
    """Return the mixture of one genome: its live ops with weight 1 (Guo et al., 2020)."""
    live = space.live(genome)
    return {
        gene.name: ((choice, 1.0),)
        for gene, choice, alive in zip(space.genes, genome.genes, live, strict=True)
        if alive
    }


def softmax(alphas: Alphas) -> Mixture:
    """Return the mixture of all ops, w = softmax(alpha) (Liu et al., 2019, eq. 2)."""
    return {gene: tuple(enumerate(alpha.softmax(dim=0))) for gene, alpha in alphas.items()}


def gumbel_softmax(
    alphas: Alphas, temperature: float, generator: torch.Generator, *, soft: bool = False
) -> Mixture:
    """Draw one op per gene, with probability softmax(alpha).

    h = softmax((log p + g) / temperature), with p = softmax(alpha) and g from Gumbel(0, 1); the op
    with the largest h is drawn (Dong and Yang, 2019, eq. 3 and 4). Its weight is 1, with the
    gradient of h. The weights of the other ops are 0, and their gradient is left out, since it
    depends on outputs that are not computed.

    Args:
        soft: mix all ops with the weights h instead (Jang et al., 2017; FBNet, Wu et al., 2019,
            eq. 8), whose gradient is exact; the lower the temperature, the closer to one op.
        generator: on the CPU, so that the draws are the same on any device.
    """
    mixture = {}
    for gene, alpha in alphas.items():
        uniform = torch.rand(alpha.shape, generator=generator, dtype=torch.float64)
        noise = -torch.log(-torch.log(uniform.clamp_min(1e-30))).to(alpha)
        h = ((alpha.log_softmax(dim=0) + noise) / temperature).softmax(dim=0)
        op = int(h.argmax())
        mixture[gene] = tuple(enumerate(h)) if soft else ((op, 1.0 - h[op].detach() + h[op]),)
    return mixture


def dropped(choices: Mapping[str, int], keep: float, rng: np.random.Generator) -> Mixture:
    """Keep each op with probability `keep`, at least one per gene (path dropout, Bender et al.,
    2018).

    The weights of a gene's kept ops add up to 1, so the size of its output does not depend on how
    many are kept.

    Args:
        choices: the number of choices of each gene.
        keep: below 1 / choices, exactly one op is kept.
    """
    mixture = {}
    for gene, count in choices.items():
        kept = rng.random(count) < _independent(max(keep, 1 / count), count)
        if not kept.any():
            kept[rng.integers(count)] = True
        mixture[gene] = tuple((int(k), 1.0 / int(kept.sum())) for k in np.flatnonzero(kept))
    return mixture


def _independent(keep: float, count: int) -> float:
    """Return the probability q to keep each op independently.

    If none is kept, one is drawn, so q + (1 - q)^count / count = keep; this is solved by bisection.
    """
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if middle + (1 - middle) ** count / count < keep else (low, middle)
        )
    return high if keep >= 1 else low


def fair(choices: Mapping[str, int], rng: np.random.Generator) -> list[dict[str, int]]:
    """Draw as many paths as the largest gene has choices, with each op of a gene on equally many
    (FairNAS, Chu et al., 2021, algorithm 1): the ops of each gene in a new order, one per path.

    Genes with fewer choices start a new order when one is used up; then some of their ops are on
    one path more than others.
    """
    most = max(choices.values())
    orders = {}
    for gene, count in choices.items():
        rounds = [rng.permutation(count) for _ in range(-(-most // count))]
        orders[gene] = np.concatenate(rounds)[:most].tolist()
    return [{gene: order[i] for gene, order in orders.items()} for i in range(most)]
