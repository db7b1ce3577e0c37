"""Differentiable architecture search (Liu, Simonyan and Yang, 2019)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from evonas.oneshot.bilevel import Bilevel, BilevelParams, Relaxed, gradient
from evonas.oneshot.mixture import Alphas, Mixture, softmax

EPSILON = 0.01  # the finite difference, before division by the gradient's norm (sec. 2.3)


class DartsSearchParams(BilevelParams):
    name: Literal["darts"] = "darts"
    order: Literal["first", "second"] = "first"
    """The weights for which the gradient of the alphas is computed: the current ones (`first`), or
    those after the next step (`second`), which takes about three times as long."""


class DartsRelaxation(Bilevel):
    """A relaxation that computes all ops of a gene, weighted by softmax(alpha).

    It differs from the paper. The space `darts` has no op `none`; in `nasbench201` it can be
    derived like any other op (as in Dong and Yang, 2020). Batch norm does not follow poolings. The
    step that the second order looks ahead to has no momentum and no weight decay, as in the paper's
    equations. Momentum is Nesterov's.
    """

    def _mixture(self, alphas: Alphas) -> Mixture:
        return softmax(alphas)

    def _gradient(
        self, images: Tensor, labels: Tensor, train: tuple[Tensor, Tensor], lr: float
    ) -> tuple[Tensor, Sequence[Tensor]]:
        if self.params.order == "first":
            return super()._gradient(images, labels, train, lr)
        # In bfloat16, the difference of two losses this close to each other would be lost.
        return unrolled(
            lambda: self._loss(*train, self.alphas, exact=True),
            lambda: self._loss(images, labels, self.alphas, exact=True) + self._size(),
            [p for p in self.supernet.parameters() if p.requires_grad],
            list(self.alphas.values()),
            lr,
        )


class DartsSearch(Relaxed):
    """Weighs all ops of each gene by a softmax of alphas, and trains these by gradient, in turn
    with the shared weights; the strongest ops make the genome (Liu et al., 2019).
    """

    Params = DartsSearchParams
    relaxes = DartsRelaxation


def unrolled(
    train_loss: Callable[[], Tensor],
    alpha_loss: Callable[[], Tensor],
    weights: Sequence[Tensor],
    alphas: Sequence[Tensor],
    xi: float,
) -> tuple[Tensor, list[Tensor]]:
    """Return the gradient of alpha_loss(w - xi dw train_loss(w, a), a) with respect to a (eq. 7).

    Its Hessian-vector product is a central difference (eq. 8). The weights are restored at the end.

    Args:
        train_loss, alpha_loss: return the losses, (), for the current weights and alphas.

    Returns:
        The loss of the alphas after the step, and a gradient for each of `alphas`.
    """
    before = [w.detach().clone() for w in weights]
    step = gradient(train_loss(), weights)
    _move(weights, step, -xi)
    loss = alpha_loss()
    both: list[Any] = gradient(loss, [*alphas, *weights])
    direct, slope = both[: len(alphas)], both[len(alphas) :]
    norm = torch.sqrt(sum((s.double().square().sum() for s in slope), torch.zeros(()).double()))
    if norm > 0:
        epsilon = EPSILON / float(norm)
        sides = []
        for sign in (1, -1):
            _put(weights, before)
            _move(weights, slope, sign * epsilon)
            sides.append(gradient(train_loss(), alphas))
        direct = [
            d - xi * (plus - minus) / (2 * epsilon)
            for d, plus, minus in zip(direct, *sides, strict=True)
        ]
    _put(weights, before)
    return loss.detach(), direct


@torch.no_grad()
def _move(weights: Sequence[Tensor], along: Sequence[Tensor], by: float) -> None:
    for weight, direction in zip(weights, along, strict=True):
        weight.add_(direction, alpha=by)


@torch.no_grad()
def _put(weights: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for weight, value in zip(weights, values, strict=True):
        weight.copy_(value)
