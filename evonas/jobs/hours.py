"""How the hours of a run are divided."""

from __future__ import annotations

import math

from evonas.core import Budget
from evonas.experiment import Finalists

LEAST = 1.0  # seconds of a training of the finals, even if no time is left


def ending(hours: float, beginning: float = 0.0) -> float:
    """Return the time that a run is given after its finals, in seconds.

    The winner is tested then, and figures are drawn, which takes about as long as to begin: both
    are mostly imports.

    Args:
        hours: how long the whole run may take.
        beginning: the seconds that the run took until its search began.
    """
    return min(max(72 * hours, beginning, 5.0), 60.0)


def finals_in_time(
    finalists: Finalists,
    networks: int,
    hours: float,
    spent: float,
    *,
    workers: int,
    usual: float,
    beside: float,
    beginning: float = 0.0,
    timeout: float | None = None,
) -> Finalists:
    """Return finals that end in time: with a budget, and perhaps with fewer seeds.

    The budget is the same for all. In seconds, a machine that has become slower, or a network that
    is slower than others, makes no final longer. There are fewer seeds if each training would be
    shorter than one of the search otherwise.

    Args:
        networks: how many finalists there are.
        hours: how long the whole run may take.
        spent: how much of it is spent, in seconds.
        usual: the seconds of a training in the search.
        beside: the seconds that a training takes beside its steps: to build the network, and to
            measure it.
        beginning: as for `ending`.
        timeout: the seconds after which a training is ended.
    """
    left = 3600 * hours - spent - ending(hours, beginning)
    for seeds in range(finalists.seeds, 0, -1):
        each = left / max(math.ceil(networks * seeds / workers), 1) - beside
        if each >= usual or seeds == 1:
            break
    if timeout is not None:
        each = min(each, 0.9 * timeout - beside)
    budget = Budget(seconds=max(round(each, 1), LEAST))
    return finalists.model_copy(update={"seeds": seeds, "budget": budget})
