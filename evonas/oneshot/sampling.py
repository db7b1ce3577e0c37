"""The ways to train the weights of a supernet, which differ in what each step computes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from evonas.core import State
from evonas.oneshot import mixture
from evonas.oneshot.bilevel import entropy, seconds_of_epoch
from evonas.oneshot.gdas import GdasParams, GdasRelaxation
from evonas.oneshot.mixture import Alphas, Mixture
from evonas.oneshot.supernet import SlicedSupernet, Supernet
from evonas.protocols import Setting
from evonas.training.loop import Trainer
from genomes import Genome, SearchSpace

S = TypeVar("S", bound=Supernet | SlicedSupernet)
T = TypeVar("T")

DRAWS = 100  # at most, until a network is within the constraints

log = logging.getLogger("evonas")


class Sampling(Protocol):
    """One way to train the weights of a supernet, an epoch at a time."""

    @property
    def supernet(self) -> Supernet | SlicedSupernet: ...

    def train_epoch(self, progress: float) -> dict[str, float]:
        """Train one epoch.

        Args:
            progress: the progress of the training, 0 in its first epoch and 1 in its last.

        Returns:
            The mean loss, nats, as `train_loss`, and the values that change from epoch to epoch.
        """

    def seconds(self) -> float:
        """Estimate the seconds of an epoch from a few steps; discard the object afterwards."""

    def state_dict(self) -> State: ...

    def load_state_dict(self, state: State) -> None: ...


class Within:
    """Draws networks within the constraints of the search (Guo et al., 2020, sec. 3.4), by drawing
    again; after `DRAWS` draws without success, it takes the nearest, and says so once.

    Args:
        violation: how far outside the constraints a network is, 0 within them; None if there are no
            constraints to keep to.
    """

    def __init__(self, violation: Callable[[Genome], float] | None = None) -> None:
        self.violation = violation
        self._told = False

    def draw(self, draw: Callable[[], T], networks: Callable[[T], Sequence[Genome]]) -> T:
        """Return what `draw` returns, for which all `networks` are within the constraints."""
        nearest = draw()
        if self.violation is None:
            return nearest
        least = sum(map(self.violation, networks(nearest)))
        for _ in range(DRAWS - 1):
            if least == 0:
                return nearest
            other = draw()
            outside = sum(map(self.violation, networks(other)))
            if outside < least:
                nearest, least = other, outside
        if least > 0 and not self._told:
            self._told = True
            log.warning(
                "the supernet is also trained on networks outside the constraints, since %d draws "
                "gave none within them",
                DRAWS,
            )
        return nearest

    def genome(self, space: SearchSpace, rng: np.random.Generator) -> Genome:
        return self.draw(partial(space.sample, rng), lambda genome: [genome])


class Stepwise(Generic[S]):
    """The base of the ways that draw anew for each step; a subclass decides what.

    Args:
        trainer: trains the weights of the supernet.
        epochs: the number of epochs that the learning rate's schedule spans.
        rng: draws what each step computes.
        within: keeps the networks that are drawn within the constraints.
    """

    def __init__(
        self,
        supernet: S,
        trainer: Trainer,
        epochs: int,
        rng: np.random.Generator,
        within: Within | None = None,
    ) -> None:
        self.supernet = supernet
        self.trainer = trainer
        self.epochs = epochs
        self.rng = rng
        self.within = within or Within()

    def train_epoch(self, progress: float, limit: int | None = None) -> dict[str, float]:
        """Train one epoch, or `limit` steps of one; see `Sampling`."""
        trainer = self.trainer
        total = torch.zeros((), device=trainer.data.train.labels.device)
        count = 0
        trainer.network.train()
        for rows in trainer.epoch()[:limit]:
            trainer.begin(trainer.steps / (trainer.epoch_steps * self.epochs))
            losses = self._step(partial(trainer.backward, *trainer.batches.load(rows)), progress)
            trainer.end()
            for loss in losses:
                total += loss
            count += len(losses)
        return {"train_loss": float(total) / count}

    def _step(self, backward: Callable[[], Tensor], progress: float) -> Sequence[Tensor]:
        """Draw networks, let the supernet compute one after the other, and return their losses.

        Args:
            backward: adds the gradients of the current network on the step's batch, and returns its
                mean loss, (), nats.
            progress: see `train_epoch`.
        """
        raise NotImplementedError

    def seconds(self) -> float:
        return seconds_of_epoch(partial(self.train_epoch, 0.0), self.trainer.epoch_steps)

    def state_dict(self) -> State:
        return self.trainer.state_dict()

    def load_state_dict(self, state: State) -> None:
        self.trainer.load_state_dict(state)


class Uniform(Stepwise[Supernet | SlicedSupernet]):
    """Trains the path of a genome drawn at random (single-path one-shot, Guo et al., 2020, sec.
    3.2).
    """

    def _step(self, backward: Callable[[], Tensor], progress: float) -> list[Tensor]:
        self.supernet.take(self.within.genome(self.supernet.space, self.rng))
        return [backward()]


class Fair(Stepwise[Supernet]):
    """Trains as many paths as a gene has choices, with each choice on one of them (strict fairness,
    Chu et al., 2021, algorithm 1). Each step uses the sum of their gradients.

    Since each choice is on a path, large ones too, some paths may have to be outside the
    constraints.
    """

    def _step(self, backward: Callable[[], Tensor], progress: float) -> list[Tensor]:
        losses = []
        for genome in self.within.draw(self.paths, lambda paths: paths):
            self.supernet.take(genome)
            losses.append(backward())
        return losses

    def paths(self) -> list[Genome]:
        """Draw the genomes of a step; genes that choose no op are drawn uniformly."""
        space = self.supernet.space
        names = [gene.name for gene in space.genes]
        genomes = []
        for ops in mixture.fair(_counts(self.supernet), self.rng):
            genes = list(space.sample(self.rng).genes)
            for gene, choice in ops.items():
                genes[names.index(gene)] = choice
            genomes.append(space.genome(genes))
        return genomes


class Dropout(Stepwise[Supernet]):
    """Trains all ops but those dropped at random, with a probability that changes linearly from the
    first epoch to the last (path dropout, Bender et al., 2018, sec. 3.2).

    Where genes choose inputs, as in `darts`, each step draws these too, so that a node has as many
    as in a network. What a step computes is no network, so no constraints apply to it.

    Args:
        keep: the probability that an op is kept, in the first and in the last epoch.
    """

    def __init__(
        self,
        supernet: Supernet,
        trainer: Trainer,
        epochs: int,
        rng: np.random.Generator,
        within: Within | None = None,
        *,
        keep: tuple[float, float],
    ) -> None:
        super().__init__(supernet, trainer, epochs, rng, within)
        self.keep = keep

    def train_epoch(self, progress: float, limit: int | None = None) -> dict[str, float]:
        return {**super().train_epoch(progress, limit), "keep": self._keep(progress)}

    def _step(self, backward: Callable[[], Tensor], progress: float) -> list[Tensor]:
        counts, keep = _counts(self.supernet), self._keep(progress)
        if self.supernet.wires:
            space = self.supernet.space
            live = mixture.path(space, space.sample(self.rng))
            counts = {gene: count for gene, count in counts.items() if gene in live}
        self.supernet.mix(mixture.dropped(counts, keep, self.rng))
        return [backward()]

    def _keep(self, progress: float) -> float:
        first, last = self.keep
        return first + progress * (last - first)


class PathRelaxation(GdasRelaxation):
    """A relaxation whose steps each compute one network, within the constraints.

    Where genes choose inputs, as in `darts`, they are drawn uniformly.
    """

    def __init__(self, params: GdasParams, setting: Setting, within: Within) -> None:
        super().__init__(params, setting, section="evaluator")
        self.within = within

    def _mixture(self, alphas: Alphas) -> Mixture:
        drawn, _ = self.within.draw(partial(self._path, alphas), lambda path: [path[1]])
        return drawn

    def _path(self, alphas: Alphas) -> tuple[Mixture, Genome]:
        ops = super()._mixture(alphas)
        genome = self.space.genome(
            ops[gene.name][0][0]
            if gene.name in ops
            else int(torch.randint(len(gene.choices), (), generator=self.generator))
            for gene in self.space.genes
        )
        if not self.supernet.wires:
            return ops, genome
        live = mixture.path(self.space, genome)
        return {gene: terms for gene, terms in ops.items() if gene in live}, genome


class Learned:
    """Trains one op per gene, drawn with probabilities that are trained in turn with the weights,
    on other images (FBNet, Wu et al., 2019; GDAS, Dong and Yang, 2019). The alphas only decide how
    often an op is trained.
    """

    def __init__(self, relaxation: PathRelaxation) -> None:
        self.relaxation = relaxation
        self.supernet = relaxation.supernet

    def train_epoch(self, progress: float) -> dict[str, float]:
        losses = self.relaxation.train_epoch()
        return {
            "train_loss": losses["train_loss"],
            "temperature": losses["temperature"],
            "entropy": entropy(self.relaxation.probabilities()),
        }

    def seconds(self) -> float:
        return self.relaxation.seconds()

    def state_dict(self) -> State:
        return self.relaxation.state_dict()

    def load_state_dict(self, state: State) -> None:
        self.relaxation.load_state_dict(state)


def _counts(supernet: Supernet) -> dict[str, int]:
    """Count the choices of each gene that chooses an op."""
    return {gene: len(names) for gene, names in supernet.ops.items()}
