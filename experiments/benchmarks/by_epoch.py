"""The evaluator `train`, measured after each epoch, and on the test part at the end: for tables."""

from __future__ import annotations

import copy
import math
import time
from typing import Annotated

import torch
from pydantic import Field

from evonas import registry
from evonas.core import Candidate, Cost, Evaluation, Metric, Params, Status
from evonas.data.dataset import split
from evonas.data.digits import DigitsParams
from evonas.metrics import TRAINED
from evonas.protocols import Need, Setting
from evonas.training.batches import Resident, resident
from evonas.training.loop import Trainer, measure, seeded
from evonas.training.norms import renew
from evonas.training.recipe import Recipe


class ByEpochParams(Params):
    name: str = "by_epoch"
    epochs: Annotated[int, Field(ge=1, le=1000)] = 6
    """How long each network is trained: the length of the schedule."""
    recipe: Recipe = Field(default_factory=Recipe)
    """How it is trained."""


class ByEpoch:
    """Trains digits as `train` does with this budget, and tells the values after each epoch.

    `val_loss_3` and `val_error_3` are those after three epochs of the schedule; `val_loss` and
    `val_error` those at its end, as `train` measures them, to the bit.
    """

    Params = ByEpochParams
    needs = frozenset({Need.DATA, Need.WORKERS})

    @staticmethod
    def metrics_of(params: ByEpochParams) -> tuple[Metric, ...]:
        later = [
            Metric(f"val_{kind}_{epoch}", goal="min")
            for epoch in range(1, params.epochs)
            for kind in ("loss", "error")
        ]
        ends = [Metric("test_loss", goal="min"), Metric("test_error", goal="min")]
        return (*TRAINED, *later, *ends)

    def __init__(self, params: ByEpochParams, setting: Setting) -> None:
        self.params, self.space, self.training = params, setting.space, setting.trained()
        inner = registry.evaluator("train")
        self.inner = inner(inner.Params(recipe=params.recipe), setting)
        self.metrics = self.metrics_of(params)
        self.fingerprint = self.training.data.fingerprint

    def cheap(self, genome):
        return self.inner.cheap(genome)

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        hardware, recipe = self.training.hardware, self.params.recipe
        torch.set_num_threads(hardware.threads)
        started = time.perf_counter()
        with seeded(seed, hardware.device):
            data = resident(self.training.data, torch.device(hardware.device))
            network = hardware.place(self.inner.build(candidate.genome))
            trainer = Trainer(network, data, recipe, seed, hardware)
            values = dict(self.cheap(candidate.genome))
            for epoch in range(1, self.params.epochs + 1):
                for rows in trainer.epoch():
                    done = trainer.steps / trainer.epoch_steps
                    loss = trainer.step(rows, done / self.params.epochs)
                if not math.isfinite(loss.item()):
                    return Evaluation(candidate, values, Status.DIVERGED)
                last = epoch == self.params.epochs
                seen = network if last else copy.deepcopy(network)
                renew(seen, data, recipe, trainer.steps, trainer.batch_size, hardware)
                measured = measure(seen, data.val, data, hardware, 4 * trainer.batch_size)
                network.train()
                end = "" if last else f"_{epoch}"
                kinds = ("error", "loss") if end else measured
                values |= {f"val_{kind}{end}": measured[kind] for kind in kinds}
            test = Resident.of(self._test_images(), torch.device(hardware.device))
            tested = measure(network, test, data, hardware, 4 * trainer.batch_size)
        values |= {"test_loss": tested["loss"], "test_error": tested["error"]}
        seconds = time.perf_counter() - started
        cost = Cost(training_seconds=seconds, epochs=self.params.epochs, steps=trainer.steps)
        return Evaluation(candidate, values, cost=cost)

    @staticmethod
    def _test_images():
        return split(registry.load("data", "digits")(DigitsParams()), DigitsParams())[1]
