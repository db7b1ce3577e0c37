"""The evaluator that trains nothing, and scores networks with their initial weights."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field

from evonas.core import Budget, Candidate, Evaluation, Metric, Params, Status
from evonas.evaluators.train import TrainEvaluator, TrainParams, proxies_asked
from evonas.metrics import COUNTED, ON_DEMAND, ZERO_COST
from evonas.networks.proxies import BATCH, undefined
from evonas.protocols import Need, Setting
from evonas.training import gpu
from evonas.training.loop import out_of_memory, seeded
from genomes import Genome


class ProxyParams(Params):
    name: Literal["proxy"] = "proxy"
    batch_size: Annotated[int, Field(ge=2, le=100_000)] = BATCH
    """The number of training images that a proxy looks at; all, if there are fewer. All networks
    have the same ones."""


class ProxyEvaluator:
    """Scores a network by zero-cost proxies, before any training (Abdelfattah et al., 2021).

    It computes those that an objective or a constraint names, on one batch of training images.

    Args:
        proxies: the proxies to compute instead.
    """

    Params = ProxyParams
    needs: ClassVar[frozenset[Need]] = frozenset({Need.DATA, Need.WORKERS})

    def __init__(
        self, params: ProxyParams, setting: Setting, proxies: Collection[str] | None = None
    ) -> None:
        self.params = params
        self.networks = TrainEvaluator(TrainParams(), setting)
        asked = [metric.name for metric in proxies_asked(setting)] if proxies is None else proxies
        self.proxies = tuple(metric for metric in ZERO_COST if metric.name in asked)
        owns = [own.metric for own in self.networks.training.metrics if own.metric.cheap]
        self.metrics = (*self.proxies, *COUNTED, *self.networks.sizes, *owns)

    @staticmethod
    def metrics_of(params: ProxyParams) -> tuple[Metric, ...]:
        return (*ON_DEMAND, *COUNTED)

    @property
    def fingerprint(self) -> str:
        return self.networks.fingerprint

    def cheap(self, genome: Genome) -> dict[str, float]:
        return self.networks.cheap(genome)

    def most(self) -> dict[str, float]:
        return self.networks.most()

    def effort(self, candidate: Candidate) -> float:
        return self.networks.effort(replace(candidate, budget=Budget(steps=1)))

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        """Score a network; the seed changes nothing, so that all have weights of the same one."""
        networks, genome, hardware = self.networks, candidate.genome, self.networks.hardware
        torch.set_num_threads(hardware.threads)
        if hardware.device == "cuda":
            gpu.take()
        values: dict[str, float] = {}
        names = [metric.name for metric in self.proxies]
        try:
            with seeded(seed, hardware.device):
                values |= networks.profiled(genome, networks.build(genome))
                values |= networks.proxied(genome, names, self.params.batch_size)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            message = f"out of memory at {self.params.batch_size} images at a time"
            status = Status.OUT_OF_MEMORY
            return Evaluation(candidate, values, status, message=message, deterministic=False)
        finally:
            if hardware.device == "cuda":
                gpu.give_back()
        message = undefined(values)
        status = Status.DIVERGED if message else Status.OK
        return Evaluation(candidate, values, status, message=message)
