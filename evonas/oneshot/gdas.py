"""Search by Gumbel-softmax sampling of ops (GDAS, Dong and Yang, 2019)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from evonas.oneshot.bilevel import Bilevel, BilevelParams, Relaxed
from evonas.oneshot.mixture import Alphas, Mixture, gumbel_softmax

Temperature = Annotated[float, Field(gt=0, le=1000)]


class GdasParams(BilevelParams):
    name: Literal["gdas"] = "gdas"
    temperature: Temperature = 10.0
    """tau in the first epoch. The higher it is, the more alike are the gradients of a gene's
    choices."""
    temperature_end: Temperature = 0.1
    """tau in the last epoch; in between it changes linearly."""
    mixing: Literal["hard", "soft"] = "hard"
    """What a step computes. `hard`: the op that is drawn, with weight 1 and the gradient of its
    softmax (straight-through). `soft`: all ops, weighted by that softmax, which takes as long as
    `darts`."""

    BEFORE: ClassVar = {**BilevelParams.BEFORE, "mixing": "hard"}


class GdasRelaxation(Bilevel):
    """A relaxation that draws one op of each gene at each step, and computes no other unless its
    mixing is soft.

    It differs from the published code: the other ops are not in the sum as a constant either, so
    the gradient is that of the drawn op's weight alone.
    """

    @property
    def temperature(self) -> float:
        params = self.params
        share = min(self.epochs / max(params.epochs - 1, 1), 1.0)
        return float(params.temperature + share * (params.temperature_end - params.temperature))

    def train_epoch(self) -> dict[str, float]:
        temperature = self.temperature
        return {**super().train_epoch(), "temperature": temperature}

    def _mixture(self, alphas: Alphas) -> Mixture:
        soft = self.params.mixing == "soft"
        return gumbel_softmax(alphas, self.temperature, self.generator, soft=soft)


class Gdas(Relaxed):
    """Draws one op for each gene at each step, by Gumbel-softmax, and trains what the draw depends
    on by gradient, in turn with the shared weights (Dong and Yang, 2019).
    """

    Params = GdasParams
    relaxes = GdasRelaxation
