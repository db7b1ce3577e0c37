"""The latency of each op on this machine, from which that of a network is summed up."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from evonas.core import Params
from evonas.networks.decode import decode
from evonas.oneshot.mixture import path
from evonas.oneshot.supernet import MixedOp, Supernet
from evonas.training.loop import Hardware
from genomes import Genome, SearchSpace

COLUMNS = ("place", "gene", "choice", "milliseconds")
WARM_UP = 3  # runs that are not counted
BASES = 5  # networks that are timed to find the time outside all ops


class Latency(Params):
    """How the latency of ops is measured."""

    batch: Annotated[int, Field(ge=1, le=65_536)] = 1
    """The number of images at a time."""
    repeats: Annotated[int, Field(ge=1, le=10_000)] = 20
    """How often each op is run; its latency is the median."""


class LatencyTable:
    """The time of each op at each place, and of the parts that all networks have (FBNet, Wu et al.,
    2019, sec. 3.3).

    Attributes:
        rows: the rows of `latency.csv`, in milliseconds; the row without a gene has the time of the
            parts that all networks have.
    """

    def __init__(self, space: SearchSpace, rows: Sequence[Mapping[str, Any]]) -> None:
        self.space = space
        self.rows = list(rows)
        self._base = 0.0
        self._op: dict[tuple[str, str], float] = {}  # over all places of the gene
        for row in self.rows:
            if not row["gene"]:
                self._base = float(row["milliseconds"])
                continue
            key = (str(row["gene"]), str(row["choice"]))
            self._op[key] = self._op.get(key, 0.0) + float(row["milliseconds"])

    def latency(self, genome: Genome) -> float:
        """Sum up the latency of a genome's network, milliseconds: its live ops and the rest."""
        choices = {gene.name: gene.choices for gene in self.space.genes}
        return self._base + sum(
            self._op.get((gene, choices[gene][terms[0][0]]), 0.0)
            for gene, terms in path(self.space, genome).items()
        )


def measure_ops(
    shared: Supernet,
    image_shape: tuple[int, int, int],
    network: Mapping[str, Any],
    settings: Latency,
    hardware: Hardware,
    seed: int,
) -> LatencyTable:
    """Measure the ops of a supernet on its device.

    The time outside all ops (stem, classifier, the joining of ops) is the median, over some random
    networks, of their measured time minus that of their ops.

    Args:
        network: the arguments of the builder.
        seed: draws those networks.
    """
    space = shared.space
    device = torch.device(hardware.device)
    images = torch.zeros(settings.batch, *image_shape, device=device)
    rows: list[dict[str, Any]] = []
    with torch.no_grad():
        for place, (mixed, shape) in inputs(shared, images).items():
            x = torch.zeros(shape, device=device)
            for choice, op in zip(shared.ops[mixed.gene], mixed.ops, strict=True):
                milliseconds = _median(op.eval(), x, settings.repeats, device)
                row = {"place": place, "gene": mixed.gene, "choice": choice}
                rows.append({**row, "milliseconds": round(milliseconds, 6)})
        table, rng = LatencyTable(space, rows), np.random.default_rng(seed)
        rests = []
        for _ in range(BASES):
            genome = space.sample(rng)
            with torch.random.fork_rng(devices=[]):
                decoded = decode(space, genome, **network).to(device).eval()
            whole = _median(decoded, images, settings.repeats, device)
            rests.append(whole - table.latency(genome))
    rest = {"place": "", "gene": "", "choice": ""}
    rest["milliseconds"] = round(max(statistics.median(rests), 0.0), 6)  # type: ignore[assignment]
    return LatencyTable(space, [*rows, rest])


def inputs(shared: Supernet, images: Tensor) -> dict[str, tuple[MixedOp, torch.Size]]:
    """Return each place of the supernet with the shape of its input."""
    inputs: dict[str, tuple[MixedOp, torch.Size]] = {}
    places = shared.mixed_ops()

    def note(place: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _, args: inputs.__setitem__(place, (places[place], args[0].shape))

    hooks = [mixed.register_forward_pre_hook(note(name)) for name, mixed in places.items()]
    try:
        shared.eval()
        shared.mix(
            {gene: [(k, 1.0) for k in range(len(names))] for gene, names in shared.ops.items()}
        )
        shared(images)
    finally:
        for hook in hooks:
            hook.remove()
    return inputs


def _median(module: nn.Module, x: Tensor, repeats: int, device: torch.device) -> float:
    """Return the median time of a forward pass, milliseconds."""
    times = []
    for run in range(WARM_UP + repeats):
        started = time.perf_counter()
        module(x)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if run >= WARM_UP:
            times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times)
