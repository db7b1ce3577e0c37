"""The metrics that evonas knows by name, each stated once."""

from __future__ import annotations

from dataclasses import replace

from evonas.core import Metric

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
LATENCY = Metric(
    "latency_ms",
    unit="ms",
    goal="min",
    cheap=True,
    timed=True,
    source="a table of what each op takes on this machine",
)
SIMULATED_SECONDS = Metric(
    "simulated_seconds",
    unit="s",
    goal="min",
    cheap=True,
    source="a table's record of how long a training took",
)
TEST_ERROR = Metric("test_error", goal="min", reference=1.0, source="the test images")

VALIDATED = {"error": VAL_ERROR, "top5_error": VAL_TOP5_ERROR, "loss": VAL_LOSS}
"""Metrics by the names that `training.loop.measure` gives them."""
COUNTED = (PARAMS, FLOPS)
TRAINED = (*VALIDATED.values(), *COUNTED)
"""Everything that training a network alone gives."""

_KNOWN = {metric.name: metric for metric in (*TRAINED, LATENCY, SIMULATED_SECONDS, TEST_ERROR)}


def named(name: str) -> Metric:
    """The metric of a name, by whatever means it is measured: in a table, or by a function."""
    if name in _KNOWN:
        return replace(_KNOWN[name], cheap=False, timed=False, source="")
    return Metric(name, reference=1.0 if name.endswith("_error") else None)


def label(name: str) -> str:
    """What figures call a metric."""
    return named(name).label or name.replace("_", " ")
