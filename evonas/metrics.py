"""The metrics that evonas defines."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from evonas.core import Metric, Mistake

VAL_ERROR = Metric(
    "val_error", "validation error", goal="min", reference=1.0, source="the validation images"
)
VAL_TOP5_ERROR = Metric(
    "val_top5_error",
    "validation top-5 error",
    goal="min",
    reference=1.0,
    source="the validation images",
)
VAL_LOSS = Metric(
    "val_loss", "validation loss", unit="nats", goal="min", source="the validation images"
)
PARAMS = Metric("params", "parameters", goal="min", cheap=True, source="the network")
FLOPS = Metric(
    "flops",
    "FLOPs (multiply-adds)",
    goal="min",
    cheap=True,
    source="the network, for one image of the data's size",
)
PEAK_MEMORY = Metric(
    "peak_memory",
    "peak memory",
    unit="bytes",
    goal="min",
    cheap=True,
    on_demand=True,
    source="the network: weights, and activations needed at once for one image",
)
ZERO_COST = tuple(
    Metric(name, label, goal="max", on_demand=True, source=source)
    for name, label, source in (
        ("nwot", "NASWOT", "how images pass the ReLUs, before training"),
        ("synflow", "SynFlow", "the weights, before training"),
        ("jacov", "Jacobian covariance", "the gradients of images, before training"),
        ("snip", "SNIP", "the weights and their gradients, before training"),
        ("grad_norm", "gradient norm", "the gradients of the weights, before training"),
        ("zen", "Zen-score", "features of noise, with normal weights"),
    )
)
"""Zero-cost proxies (`networks.proxies`): they cost seconds, and are measured if asked for."""
LATENCY = Metric(
    "latency_ms",
    unit="ms",
    goal="min",
    cheap=True,
    timed=True,
    source="a table of the time of each op on this machine",
)
SIMULATED_SECONDS = Metric(
    "simulated_seconds",
    unit="s",
    goal="min",
    cheap=True,
    source="the training time that a table records",
)
SCORED = {"supernet": "with shared weights", "proxy": "before any training"}
"""How evaluators that train no candidate score it, by the evaluator's name."""
TEST_ERROR = Metric("test_error", goal="min", reference=1.0, source="the test images")

VALIDATED = {"error": VAL_ERROR, "top5_error": VAL_TOP5_ERROR, "loss": VAL_LOSS}
"""The metrics of the validation images, by their names in `training.loop.measure`."""
COUNTED = (PARAMS, FLOPS)
ON_DEMAND = (PEAK_MEMORY, *ZERO_COST)
TRAINED = (*VALIDATED.values(), *COUNTED)
"""The metrics of a network that is trained by itself."""

RESERVED = frozenset(
    {
        *("generation", "index", "key", "genome", "genes", "parents", "origin", "budget", "seed"),
        *("status", "cached", "deterministic", "message"),
    }
)
"""The columns that tables of evaluations have beside the metrics."""
RESERVED_IN_RUNS = RESERVED | {
    *("seeds", "failed", "winner", "test_error_se", "test_images"),  # of finalists.csv
    *("rank", "front_from", "on_last_front", "steps_back"),  # of the figures' tables
    *("arm", "by", "x", "hypervolume"),  # of a comparison's
}
"""The columns that any table of a run folder has beside the metrics, or one made from it."""

_BY_NAME = {
    metric.name: metric for metric in (*TRAINED, *ON_DEMAND, LATENCY, SIMULATED_SECONDS, TEST_ERROR)
}


def named(name: str) -> Metric:
    """Return the metric of a name, as a table or a function may measure it."""
    if name in _BY_NAME:
        given = _BY_NAME[name]
        return replace(given, cheap=False, on_demand=False, timed=False, source="")
    return Metric(name, reference=1.0 if name.endswith("_error") else None)


def finals_columns(first: str) -> frozenset[str]:
    """Return the further columns of `finalists.csv`, where `first` is the first objective."""
    return frozenset({f"{first}_std", f"{first}_by_seed", TEST_ERROR.name})


def refused(
    name: str, reserved: Collection[str] = RESERVED_IN_RUNS, others: Collection[str] = ()
) -> Mistake | None:
    """Return why a metric cannot have a name, which is to be a column of tables; None if it can.

    Args:
        others: the names of further metrics.
    """
    hint = "choose another name"
    if not name.isprintable() or not name.strip() or name != name.strip():
        return Mistake(f"{name!r} cannot be the name of a column", hint)
    if name in reserved:
        return Mistake(f"{name} is a column that the tables have already", hint)
    if name in others:
        return Mistake(f"{name} is named twice", hint)
    return None


def label(name: str) -> str:
    """Return a metric's name in figures."""
    return named(name).label or name.replace("_", " ")
