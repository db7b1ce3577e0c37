"""A supernet trained once, for all networks of its space, and how one of them is scored with it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, cast

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from evonas.core import Params, Requirement, SearchFailed, State, UserError, derive_seed
from evonas.data.dataset import DataSet
from evonas.networks.decode import decode
from evonas.oneshot import mixture
from evonas.oneshot.bilevel import entropy, seconds_of_epoch
from evonas.oneshot.gdas import GdasParams, GdasRelaxation, Temperature
from evonas.oneshot.supernet import Shared, SlicedSupernet, Supernet, supernet
from evonas.training.batches import ResidentData, resident
from evonas.training.loop import Hardware, Trainer, measure, out_of_memory, seeded, threads
from evonas.training.recipe import Recipe
from genomes import Genome, SearchSpace

Share = Annotated[float, Field(gt=0, le=1)]
CURVE = ("epoch", "train_loss", "pool_error", "pool_best", "keep", "temperature", "entropy")
POOL = ("epoch", "key", "genome", "genes", "val_error")


RECIPE = Recipe(lr=0.05)


class SharedTraining(Params):
    """How a supernet is trained."""

    epochs: Annotated[int, Field(ge=1, le=100_000)] = 50
    """How many epochs the supernet is trained, once, before the search."""
    sampling: Literal["uniform", "fair", "dropout", "learned"] = "uniform"
    """What is trained at each step. `uniform`: the network of a genome drawn at random (SPOS).
    `fair`: as many networks as a gene has choices, with each choice in one of them, where it is
    trained if it is live there (FairNAS). `dropout`: all ops but those dropped at random.
    `learned`: one op a gene, drawn with probabilities that are trained too, on half of the images
    (FBNet, GDAS)."""
    keep: Share = 1.0
    """For `dropout`: the probability that an op is kept in the first epoch; one of each gene always
    is."""
    keep_end: Share = 0.2
    """For `dropout`: the same in the last epoch; in between it changes in a straight line."""
    beta_lr: Annotated[float, Field(gt=0, le=10)] = 3e-3
    """For `learned`: the learning rate of the probabilities' logits."""
    temperature: Temperature = 5.0
    """For `learned`: that of the Gumbel-softmax in the first epoch."""
    temperature_end: Temperature = 0.5
    """For `learned`: the same in the last epoch."""
    recipe: Recipe = RECIPE
    """How the shared weights are trained; its keys are below, but with `lr` 0.05 where it is not
    given."""
    pool: Annotated[int, Field(ge=0, le=10_000)] = 5
    """How many networks, drawn at random, are scored after each epoch of the supernet. They are in
    `supernet/pool.csv`."""
    recalibrate: Annotated[int, Field(ge=0, le=100_000)] = 20
    """On how many batches of training images the statistics of the batch norms are measured anew
    before a network is scored. 0 scores with those of the supernet, which fit no network."""

    @field_validator("recipe", mode="before")
    @classmethod
    def _of_ours(cls, given: Any) -> Any:
        """What is given of it, and our defaults for the rest."""
        return RECIPE.model_dump(exclude_none=True) | given if isinstance(given, dict) else given

    def model_post_init(self, context: object) -> None:
        if self.sampling == "dropout" and self.keep_end > self.keep:
            raise Requirement(f"must be at most keep, {self.keep:g}", "keep_end")


@dataclass
class Told:
    """What a training of a supernet has told so far, a row each."""

    curve: list[dict[str, Any]] = field(default_factory=list)
    pool: list[dict[str, Any]] = field(default_factory=list)


class SupernetTraining:
    """Trains a supernet, an epoch at a time, from wherever its state has it stand.

    - `uniform`: single-path one-shot (Guo et al., 2020, sec. 3.2).
    - `fair`: strict fairness (Chu et al., 2021, algorithm 1): the gradients of a step's paths are
      added, then one step is made.
    - `dropout`: path dropout with a probability that changes (Bender et al., 2018, sec. 3.2).
    - `learned`: as `gdas` trains, whose alphas here say how often an op is trained.
    """

    def __init__(
        self,
        params: SharedTraining,
        *,
        space: SearchSpace,
        network: Mapping[str, Any],
        data: DataSet,
        hardware: Hardware,
        seed: int,
    ) -> None:
        self.params = params
        self.space = space
        self.network = {
            "in_channels": data.image_shape[0],
            "classes": data.classes,
            **network,
        }
        self.hardware = hardware
        self.told = Told()
        self._seed = derive_seed(seed, "supernet", "epoch")
        self.rng = np.random.default_rng(derive_seed(seed, "paths"))
        device = torch.device(hardware.device)
        self.data = resident(data, device)
        self._learned: GdasRelaxation | None = None
        if params.sampling == "learned":
            self._learned = GdasRelaxation(
                GdasParams(
                    epochs=params.epochs,
                    recipe=params.recipe,
                    alpha_lr=params.beta_lr,
                    temperature=params.temperature,
                    temperature_end=params.temperature_end,
                ),
                space=space,
                network=network,
                data=data,
                hardware=hardware,
                seed=seed,
                section="evaluator",
            )
            self.supernet: Supernet | SlicedSupernet = self._learned.supernet
            return
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "supernet"))
            self.supernet = supernet(space, **self.network).to(device)
        if params.sampling != "uniform" and not isinstance(self.supernet, Supernet):
            raise UserError(
                f"evaluator.sampling: {params.sampling} needs genes that choose ops, which those "
                f"of {space.name} do not; allowed: uniform"
            )
        if hardware.channels_last:
            self.supernet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's types lack it
        self.trainer = Trainer(
            self.supernet, self.data, params.recipe, derive_seed(seed, "images"), hardware
        )

    @property
    def epochs(self) -> int:
        """How many are done."""
        return len(self.told.curve)

    @property
    def done(self) -> bool:
        return self.epochs >= self.params.epochs

    def epoch(self) -> dict[str, Any]:
        """One epoch, and the scores of some networks after it.

        Returns:
            The epoch's row of the curve.

        Raises:
            SearchFailed: the loss became NaN or infinite, or memory ran out.
        """
        drawn = seeded(derive_seed(self._seed, self.epochs), self.hardware.device)
        with threads(self.hardware.threads), drawn:
            try:
                row = self._learned_epoch() if self._learned else self._epoch()
                pool = self._scored_pool() if math.isfinite(row["train_loss"]) else {}
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                size = self.params.recipe.batch_size
                raise SearchFailed(
                    f"the supernet ran out of memory at {size} images a batch; "
                    "allowed: a new run with a smaller evaluator.recipe.batch_size"
                ) from None
            if not math.isfinite(row["train_loss"]):
                raise SearchFailed(
                    f"the supernet's loss became NaN or infinite in epoch {self.epochs + 1}; "
                    "allowed: a new run with a lower evaluator.recipe.lr"
                )
        row = {"epoch": self.epochs + 1, **row, **pool}
        self.told.curve.append(row)
        return row

    def state_dict(self) -> State:
        training = self._learned.state_dict() if self._learned else self.trainer.state_dict()
        return {
            "training": training,
            "rng": self.rng.bit_generator.state,
            "curve": self.told.curve,
            "pool": self.told.pool,
        }

    def load_state_dict(self, state: State) -> None:
        (self._learned or self.trainer).load_state_dict(state["training"])
        self.rng.bit_generator.state = state["rng"]
        self.told = Told(state["curve"], state["pool"])

    def foreseen(self) -> tuple[float, float]:
        """Seconds that the whole training will take, and the score of a network, from a few steps;
        it cannot be trained after that.
        """
        genome = self.space.canonical(self.space.sample(self.rng))
        with threads(self.hardware.threads):
            epoch = self._learned.seconds() if self._learned else self._seconds()
            self.score(genome)
            started = time.perf_counter()
            for _ in range(3):
                self.score(genome)
            scoring = (time.perf_counter() - started) / 3
        return self.params.epochs * (epoch + self.params.pool * scoring), scoring

    def _seconds(self) -> float:
        return seconds_of_epoch(self._epoch, self.trainer.epoch_steps)

    def _epoch(self, steps: int | None = None) -> dict[str, Any]:
        """An epoch, or so many steps of one."""
        trainer, params = self.trainer, self.params
        share = self.epochs / max(params.epochs - 1, 1)
        keep = params.keep + share * (params.keep_end - params.keep)
        total = torch.zeros((), device=self.data.train.labels.device)
        self.supernet.train()
        batches = trainer.epoch()[:steps]
        for rows in batches:
            trainer.begin(trainer.steps / (trainer.epoch_steps * params.epochs))
            images, labels = trainer.batches.load(rows)
            paths = 0
            for _ in self._paths(keep):
                total += trainer.backward(images, labels)
                paths += 1
            trainer.end()
        row = {"train_loss": float(total) / (len(batches) * paths)}
        return {**row, "keep": keep} if params.sampling == "dropout" else row

    def _paths(self, keep: float) -> Iterator[None]:
        """What is computed in a step, one after the other."""
        shared = self.supernet
        if self.params.sampling == "uniform":
            shared.take(self.space.sample(self.rng))
            yield
            return
        assert isinstance(shared, Supernet)
        choices = {gene: len(names) for gene, names in shared.ops.items()}
        if self.params.sampling == "dropout":
            shared.mix(mixture.dropped(choices, keep, self.rng))
            yield
            return
        names = [gene.name for gene in self.space.genes]
        for chosen in mixture.fair(choices, self.rng):
            genes = list(self.space.sample(self.rng).genes)  # of those that choose no op
            for gene, choice in chosen.items():
                genes[names.index(gene)] = choice
            shared.take(self.space.genome(genes))
            yield

    def _learned_epoch(self) -> dict[str, Any]:
        assert self._learned is not None
        told = self._learned.train_epoch()
        return {
            "train_loss": told["train_loss"],
            "temperature": told["temperature"],
            "entropy": entropy(self._learned.probabilities()),
        }

    def _scored_pool(self) -> dict[str, float]:
        errors = []
        for _ in range(self.params.pool):
            genome = self.space.canonical(self.space.sample(self.rng))
            found = self.score(genome)
            errors.append(found["error"])
            self.told.pool.append(
                {
                    "epoch": self.epochs + 1,
                    "key": self.space.key(genome),
                    "genome": self.space.describe(genome),
                    "genes": genome.text,
                    "val_error": found["error"],
                }
            )
        if not errors:
            return {}
        return {"pool_error": sum(errors) / len(errors), "pool_best": min(errors)}

    def score(self, genome: Genome) -> dict[str, float]:
        made = heir(self.space, self.supernet, genome, self.network)
        return score(made, self.data, self.params, self.hardware)


def heir(
    space: SearchSpace, shared: Shared, genome: Genome, arguments: Mapping[str, Any]
) -> nn.Module:
    """A genome's network with a copy of the weights it inherits; `arguments` are its builder's."""
    with torch.device("meta"):  # no weights are drawn
        made = decode(space, genome, **arguments)
    state = {name: tensor.detach().clone() for name, tensor in shared.inherited(genome).items()}
    made.load_state_dict(state, assign=True)
    return made


def score(
    network: nn.Module, data: ResidentData, params: SharedTraining, hardware: Hardware
) -> dict[str, float]:
    """Error, top-5 error and loss on val of a network with inherited weights.

    The statistics of batch norm, which each network has of its own, are measured anew on training
    images, always the same (Guo et al., 2020, sec. 3.4).
    """
    size = min(params.recipe.batch_size, len(data.train))
    with seeded(0, hardware.device):
        recalibrate(network, data, size, params.recalibrate, hardware)
    return measure(network, data.val, data, hardware, 4 * size)


@torch.no_grad()
def recalibrate(
    network: nn.Module, data: ResidentData, size: int, batches: int, hardware: Hardware
) -> None:
    """Measures the statistics of the batch norms anew, as means over batches of training images."""
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    if not batches or not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all batches
    network.train()
    n = len(data.train)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    for rows in cast("tuple[Tensor, ...]", order[: min(batches * size, n)].split(size)):
        if len(rows) < 2:
            continue
        images = data.normalised(data.train.images[rows.to(data.train.labels.device)])
        if hardware.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        with hardware.autocast():
            network(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
