"""The strategy `auto`: which one to use, decided by what is searched for, and for how long."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from evonas import registry
from evonas.core import Params, Stop
from evonas.protocols import Need, Setting, Strategy
from evonas.strategies.aging import AgingParams
from evonas.strategies.nsga2 import NSGA2Params
from evonas.strategies.predictor import PredictorParams

MODELLED = 2000  # evaluations up to which a choice of the model's takes less than two seconds


class AutoParams(Params):
    name: Literal["auto"] = "auto"
    seeds: Annotated[tuple[str, ...], Field(max_length=10, strict=False)] = ()
    """Genomes that the search begins with, each in place of a random one: as the space writes
    them, as genes, or by a name from `evonas list genomes`. At most 10."""

    @property
    def founders(self) -> int:
        """The number of candidates of the first generation."""
        return PredictorParams().founders

    def chosen(self, objectives: int, stop: Stop | None = None) -> Params:
        """Return the settings of the strategy that suits a search.

        It is `predictor`, which needs the fewest evaluations; for more of them than 2,000, among
        which its choices would take long, `aging`, or `nsga2` with several objectives.

        Args:
            objectives: how many there are.
            stop: the limits of the search, if they are known.
        """
        evaluations = (stop.evaluations or stop.networks or 0) if stop is not None else 0
        if evaluations <= MODELLED:
            return PredictorParams(seeds=self.seeds)
        return AgingParams(seeds=self.seeds) if objectives == 1 else NSGA2Params(seeds=self.seeds)


class Auto:
    """Picks the strategy and its settings by the number of objectives and the size of the search.

    An experiment's `config.yaml` has the strategy that was picked.
    """

    Params = AutoParams
    needs: ClassVar[frozenset[Need]] = frozenset()

    def __new__(cls, params: AutoParams, setting: Setting) -> Strategy:  # type: ignore[misc]  # it is one of three
        chosen = params.chosen(len(setting.objectives))
        return registry.strategy(registry.name_of(chosen))(chosen, setting)
