"""The training evaluator, with faults for some genomes."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import nn

from evonas.core import Candidate, Evaluation
from evonas.evaluators.train import TrainEvaluator, TrainParams
from evonas.protocols import Setting
from genomes import Genome
from tests.faults import misbehave


class FaultyParams(TrainParams):
    name: Literal["faulty"] = "faulty"  # type: ignore[assignment]
    faults: dict[str, str] = Field(default_factory=dict)  # genes, or every -> fault


class FaultyEvaluator(TrainEvaluator):
    """Trains for real, but for the genomes that have been given a fault."""

    Params = FaultyParams  # type: ignore[assignment]

    def __init__(self, params: FaultyParams, setting: Setting) -> None:
        super().__init__(params, setting)
        self.faults = params.faults

    def fault(self, genome: Genome) -> str:
        return self.faults.get(genome.text, self.faults.get("every", ""))

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        misbehave(self.fault(candidate.genome))
        return super().evaluate(candidate, seed)

    def build(self, genome: Genome) -> nn.Module:
        network = super().build(genome)
        if self.fault(genome) == "nan":
            with torch.no_grad():
                next(network.parameters()).fill_(float("nan"))
        return network
