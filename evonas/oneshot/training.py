"""The training of a supernet for all networks of its space, and the scoring of one with it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import nn

from evonas.core import Params, Requirement, SearchFailed, State, UserError, derive_seed
from evonas.networks.decode import decode
from evonas.oneshot.gdas import GdasParams, Temperature
from evonas.oneshot.sampling import (
    Dropout,
    Fair,
    Learned,
    PathRelaxation,
    Sampling,
    Uniform,
    Within,
)
from evonas.oneshot.supernet import Shared, SlicedSupernet, Supernet, supernet
from evonas.protocols import Setting
from evonas.training.batches import ResidentData, resident
from evonas.training.loop import Hardware, Trainer, measure, memory_guard, seeded, threads
from evonas.training.norms import recalibrate
from evonas.training.recipe import Recipe, check_shared, filled_from
from genomes import Genome, SearchSpace

KeepRate = Annotated[float, Field(gt=0, le=1)]
CURVE = ("epoch", "train_loss", "pool_error", "pool_best", "keep", "temperature", "entropy")
POOL = ("epoch", "key", "genome", "genes", "val_error")

RECIPE = Recipe(lr=0.05)
VERSION = 2  # the state's format


class SharedTraining(Params):
    """The settings of a supernet's training."""

    epochs: Annotated[int, Field(ge=1, le=100_000)] = 50
    """How many epochs the supernet is trained, once, before the search."""
    sampling: Literal["uniform", "fair", "dropout", "learned"] = "uniform"
    """What is trained at each step. `uniform`: the network of a genome drawn at random (SPOS).
    `fair`: as many networks as a gene has choices, with each choice in one of them, where it is
    trained if it is live there (FairNAS). `dropout`: all ops but those dropped at random.
    `learned`: one op per gene, drawn with probabilities that are trained too, on half of the images
    (FBNet, GDAS)."""
    keep: KeepRate = 1.0
    """For `dropout`: the probability that an op is kept in the first epoch. At least one op of each
    gene is always kept."""
    keep_end: KeepRate = 0.2
    """For `dropout`: that probability in the last epoch; in between it changes linearly."""
    beta_lr: Annotated[float, Field(gt=0, le=10)] = 3e-3
    """For `learned`: the learning rate of the probabilities' logits."""
    temperature: Temperature = 5.0
    """For `learned`: the temperature of the Gumbel-softmax in the first epoch."""
    temperature_end: Temperature = 0.5
    """For `learned`: that temperature in the last epoch; in between it changes linearly."""
    recipe: Annotated[Recipe, filled_from(RECIPE)] = RECIPE
    """How the shared weights are trained. Its keys are below; here the default of `lr` is 0.05."""
    pool: Annotated[int, Field(ge=0, le=10_000)] = 5
    """How many networks, drawn at random, are scored after each epoch of the supernet. Their scores
    are in `supernet/pool.csv`."""
    recalibrate: Annotated[int, Field(ge=0, le=100_000)] = 20
    """The number of batches of training images on which the statistics of the batch norms are
    measured anew before a network is scored. With 0 a network is scored with those of the supernet,
    which fit no network."""
    within_constraints: bool = True
    """Whether the supernet is trained only on networks within the constraints that are known
    without training. `dropout` can't: it trains no single networks. `fair` can't if it needs a
    choice that no network within them has; then, and if 100 draws give none, it takes the nearest
    networks, and says so. Without it, the supernet also fits other constraints."""

    BEFORE: ClassVar = {"within_constraints": False}

    def model_post_init(self, context: object) -> None:
        check_shared(self.recipe, "remove the key; alone.ema is for networks trained on their own")
        if self.sampling == "dropout" and self.keep_end > self.keep:
            raise Requirement(f"must be at most keep, {self.keep:g}", "keep_end")


@dataclass
class History:
    """The rows of a supernet's tables so far.

    Attributes:
        curve: the rows of `curve.csv`, one per epoch.
        pool: the rows of `pool.csv`, one per scored network.
    """

    curve: list[dict[str, Any]] = field(default_factory=list)
    pool: list[dict[str, Any]] = field(default_factory=list)


class SupernetTraining:
    """Trains a supernet, an epoch at a time; it can continue from a saved state."""

    def __init__(
        self,
        params: SharedTraining,
        setting: Setting,
        violation: Callable[[Genome], float] | None = None,
    ) -> None:
        """Build the supernet.

        Args:
            violation: how far a network is outside the constraints to keep to; None if there are
                none.

        Raises:
            UserError: the space has no supernet, or none that can be sampled in this way.
        """
        training = setting.trained()
        self.params = params
        self.space = setting.space
        self.network = training.arguments
        self.hardware = training.hardware
        self.data = resident(training.data, torch.device(training.hardware.device))
        self.history = History()
        self._seed = derive_seed(setting.seed, "supernet", "epoch")
        self.rng = np.random.default_rng(derive_seed(setting.seed, "paths"))
        self.within = Within(violation)
        self.sampling = _sampling(params, setting, self.data, self.rng, self.within)

    @property
    def supernet(self) -> Supernet | SlicedSupernet:
        return self.sampling.supernet

    @property
    def epochs(self) -> int:
        """The number of epochs done."""
        return len(self.history.curve)

    @property
    def done(self) -> bool:
        return self.epochs >= self.params.epochs

    def epoch(self) -> dict[str, Any]:
        """Train one epoch, and score some networks after it.

        Returns:
            The epoch's row of the curve.

        Raises:
            SearchFailed: the loss became NaN or infinite, or memory ran out.
        """
        random_state = seeded(derive_seed(self._seed, self.epochs), self.hardware.device)
        out_of_memory = (
            f"the supernet ran out of memory with batches of {self.params.recipe.batch_size} "
            "images; start a new run with a smaller evaluator.recipe.batch_size"
        )
        with memory_guard(out_of_memory), threads(self.hardware.threads), random_state:
            row = self.sampling.train_epoch(self.epochs / max(self.params.epochs - 1, 1))
            if not math.isfinite(row["train_loss"]):
                raise SearchFailed(
                    f"the supernet's loss became NaN or infinite in epoch {self.epochs + 1}; "
                    "start a new run with a lower evaluator.recipe.lr"
                )
            pool = self._score_pool()
        row = {"epoch": self.epochs + 1, **row, **pool}
        self.history.curve.append(row)
        return row

    def state_dict(self) -> State:
        return {
            "version": VERSION,
            "training": self.sampling.state_dict(),
            "rng": self.rng.bit_generator.state,
            "curve": self.history.curve,
            "pool": self.history.pool,
        }

    def load_state_dict(self, state: State) -> None:
        """Continue from a state.

        Raises:
            UserError: it is of a version that trained something else.
        """
        wired = isinstance(self.supernet, Supernet) and bool(self.supernet.wires)
        many = self.params.sampling in ("dropout", "learned")
        if wired and many and state.get("version", 1) < VERSION:
            raise UserError(
                f"an earlier evonas began its supernet, and trained {self.params.sampling} on all "
                "inputs of a node",
                hint="start a new run",
                key="evaluator.sampling",
            )
        self.sampling.load_state_dict(state["training"])
        self.rng.bit_generator.state = state["rng"]
        self.history = History(state["curve"], state["pool"])

    def foreseen(self) -> tuple[float, float]:
        """Estimate the seconds of the whole training, and of a network's score, from a few steps.

        Discard the object afterwards.
        """
        genome = self.space.canonical(self.space.sample(self.rng))
        with threads(self.hardware.threads):
            epoch = self.sampling.seconds()
            self.score(genome)
            started = time.perf_counter()
            for _ in range(3):
                self.score(genome)
            scoring = (time.perf_counter() - started) / 3
        return self.params.epochs * (epoch + self.params.pool * scoring), scoring

    def score(self, genome: Genome) -> dict[str, float]:
        network = subnet(self.space, self.supernet, genome, self.network)
        return score(network, self.data, self.params, self.hardware)

    def _score_pool(self) -> dict[str, float]:
        """Score networks drawn at random, and return the mean and the lowest of their errors."""
        errors = []
        for _ in range(self.params.pool):
            genome = self.space.canonical(self.within.genome(self.space, self.rng))
            error = self.score(genome)["error"]
            errors.append(error)
            self.history.pool.append(
                {
                    "epoch": self.epochs + 1,
                    "key": self.space.key(genome),
                    "genome": self.space.describe(genome),
                    "genes": genome.text,
                    "val_error": error,
                }
            )
        if not errors:
            return {}
        return {"pool_error": sum(errors) / len(errors), "pool_best": min(errors)}


def subnet(
    space: SearchSpace, shared: Shared, genome: Genome, arguments: Mapping[str, Any]
) -> nn.Module:
    """Build a genome's network, with a copy of the weights that it inherits.

    Args:
        arguments: the arguments of the builder.
    """
    with torch.device("meta"):  # no weights are drawn
        network = decode(space, genome, **arguments)
    state = {name: tensor.detach().clone() for name, tensor in shared.inherited(genome).items()}
    network.load_state_dict(state, assign=True)
    return network


def score(
    network: nn.Module, data: ResidentData, params: SharedTraining, hardware: Hardware
) -> dict[str, float]:
    """Measure error, top-5 error and loss on val of a network with inherited weights.

    The statistics of batch norm, which differ between networks, are first measured anew on training
    images, always the same (Guo et al., 2020, sec. 3.4).
    """
    size = min(params.recipe.batch_size, len(data.train))
    with seeded(0, hardware.device):
        recalibrate(network, data, size, params.recalibrate, hardware)
    return measure(network, data.val, data, hardware, 4 * size)


def _sampling(
    params: SharedTraining,
    setting: Setting,
    images: ResidentData,
    rng: np.random.Generator,
    within: Within,
) -> Sampling:
    """Return the sampling that the settings name, with a fresh supernet."""
    if params.sampling == "learned":
        return Learned(PathRelaxation(_gdas_params(params), setting, within))
    space, training = setting.space, setting.trained()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(setting.seed, "supernet"))
        shared = training.hardware.place(supernet(space, **training.arguments))
    seed = derive_seed(setting.seed, "images")
    trainer = Trainer(shared, images, params.recipe, seed, training.hardware)
    if params.sampling == "uniform":
        return Uniform(shared, trainer, params.epochs, rng, within)
    if not isinstance(shared, Supernet):
        raise UserError(
            f"{params.sampling} does not apply, since {space.name} has no genes that choose ops",
            hint="allowed: uniform",
            key="evaluator.sampling",
        )
    if params.sampling == "fair":
        return Fair(shared, trainer, params.epochs, rng, within)
    keep = (params.keep, params.keep_end)
    return Dropout(shared, trainer, params.epochs, rng, keep=keep)


def _gdas_params(params: SharedTraining) -> GdasParams:
    return GdasParams(
        epochs=params.epochs,
        recipe=params.recipe,
        alpha_lr=params.beta_lr,
        temperature=params.temperature,
        temperature_end=params.temperature_end,
    )
