"""What the differentiable methods share: weights and alphas, trained in turn on images apart."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace
from itertools import chain, count
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field, ValidationError
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from evonas import registry
from evonas.core import (
    Candidate,
    Evaluation,
    Params,
    Requirement,
    SearchFailed,
    State,
    UserError,
    derive_seed,
)
from evonas.data.dataset import DataSet
from evonas.oneshot.mixture import Alphas, Mixture
from evonas.oneshot.supernet import Supernet, supernet
from evonas.protocols import Need, Relaxation, Setting
from evonas.strategies.generational import Generational
from evonas.training.batches import Batches, Resident, ResidentData, resident
from evonas.training.loop import Hardware, Trainer, memory_guard, seeded, threads, training_loss
from evonas.training.recipe import Recipe, filled_from
from genomes import Genome, SearchSpace

SHORT = (2, 8)  # steps
SMALL = 1e-3  # the standard deviation of the first alphas (Liu et al., 2019, in their code)


RECIPE = Recipe(lr=0.025, weight_decay=3e-4, clip=5.0)


class BilevelParams(Params):
    """Of the differentiable methods; each adds its own."""

    epochs: Annotated[int, Field(ge=1, le=100_000)] = 50
    """How many epochs the supernet is trained, one a generation. The learning rate's schedule is
    made for so many, and the search ends after them."""
    warm_up: Annotated[int, Field(ge=0, le=100_000)] = 0
    """In how many epochs, from the first, the weights alone are trained, and not the choices."""
    recipe: Annotated[Recipe, filled_from(RECIPE)] = RECIPE
    """How the weights of the supernet are trained; its keys are below, but with `lr` 0.025,
    `weight_decay` 0.0003 and `clip` 5 where they are not given."""
    alpha_lr: Annotated[float, Field(gt=0, le=10)] = 3e-3
    """The learning rate of the choices' alphas. (The papers have 0.0003, for some 20,000 steps.)"""
    alpha_weight_decay: Annotated[float, Field(ge=0, le=10)] = 1e-3
    """How strongly alphas are pulled towards 0."""
    alpha_share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """The share of the training images on which the alphas are trained; the weights are trained on
    the others."""
    max_skips: Annotated[int, Field(ge=0, le=10_000)] | None = None
    """The search ends when the derived genome would have more skip connections than this (DARTS+,
    Liang et al., 2019, where it is one in the normal cell), but not in the warm-up, when alphas are
    noise. Without it, it goes on."""
    proxy: dict[str, int] = Field(default_factory=dict)
    """Settings of the space that the supernet has instead of the networks': `{channels: 8}` makes
    it cheaper than what it is to find."""

    def model_post_init(self, context: object) -> None:
        if self.warm_up >= self.epochs:
            raise Requirement(f"must be less than epochs, {self.epochs}", "warm_up")


class Bilevel:
    """A supernet whose weights and alphas are trained in turn, a batch each (Liu et al., 2019,
    algorithm 1).

    The images are those of the training part, split in two once and for all. Batch norms within the
    candidates have no scale of their own in the search (the same, appendix A.1), since a weight
    could be undone by it.
    """

    def __init__(
        self,
        params: Any,
        *,
        space: SearchSpace,
        network: Mapping[str, Any],
        data: DataSet,
        hardware: Hardware,
        seed: int,
        section: str = "strategy",
    ) -> None:
        """Makes the supernet.

        Args:
            network, seed: as the run has them.
            section: of the YAML that says how it is trained, for messages.

        Raises:
            UserError: the space has no supernet, or there are too few images.
        """
        self.section = section
        self.params = params
        self.space = space
        self.hardware = hardware
        self.epochs = 0  # done
        self._seed = derive_seed(seed, "relaxation", "epoch")
        device = torch.device(hardware.device)
        seeds = [derive_seed(seed, "relaxation", i) for i in range(3)]
        interface = {"in_channels": data.image_shape[0], "classes": data.classes}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeds[0])
            shared = supernet(space, **interface, **_smaller(space, network, params.proxy))
            if not isinstance(shared, Supernet):
                raise UserError(
                    f"strategy.name: {params.name} needs genes that choose ops, which those of "
                    f"{space.name} do not; allowed: nasbench201, darts, chain, or a space of yours"
                )
            _check_places(space, shared)
            self.supernet = hardware.place(shared)
            self.alphas = {
                gene: (SMALL * torch.randn(len(choices))).to(device).requires_grad_()
                for gene, choices in shared.ops.items()
            }
        _freeze_scales(self.supernet)
        self.generator = torch.Generator().manual_seed(seeds[1])
        for_weights, for_alphas = _split_images(
            resident(data, device), params.alpha_share, seeds[2]
        )
        self.trainer = Trainer(self.supernet, for_weights, params.recipe, seeds[1], hardware)
        self.batches = Batches(for_alphas, params.recipe, self.generator, hardware.channels_last)
        self.optimizer = torch.optim.Adam(
            list(self.alphas.values()),
            lr=params.alpha_lr,
            betas=(0.5, 0.999),
            weight_decay=params.alpha_weight_decay,
        )

    def train_epoch(self) -> dict[str, float]:
        """One epoch of weights, and of alphas after the warm-up.

        Returns:
            Mean losses of both, nats; the alphas' is NaN in the warm-up.

        Raises:
            SearchFailed: a loss became NaN or infinite, or memory ran out.
        """
        drawn = seeded(derive_seed(self._seed, self.epochs), self.hardware.device)
        full = (
            f"the supernet ran out of memory at {self.trainer.batch_size} images a batch; "
            f"allowed: a new run with a smaller {self.section}.recipe.batch_size"
        )
        with memory_guard(full), threads(self.hardware.threads), drawn:
            losses = self._epoch()
        self.epochs += 1
        return losses

    def derive(self) -> Genome:
        return self.space.strongest(self.probabilities())

    def probabilities(self) -> dict[str, list[float]]:
        with torch.no_grad():
            return {gene: alpha.softmax(dim=0).tolist() for gene, alpha in self.alphas.items()}

    def state_dict(self) -> State:
        return {
            "epochs": self.epochs,
            "trainer": self.trainer.state_dict(),
            "alphas": {gene: alpha.detach() for gene, alpha in self.alphas.items()},
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: State) -> None:
        self.epochs = state["epochs"]
        self.trainer.load_state_dict(state["trainer"])
        with torch.no_grad():
            for gene, alpha in self.alphas.items():
                alpha.copy_(state["alphas"][gene])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])

    def _mixture(self, alphas: Alphas) -> Mixture:
        """What the supernet computes at a step."""
        raise NotImplementedError

    def _gradient(
        self, images: Tensor, labels: Tensor, train: tuple[Tensor, Tensor], lr: float
    ) -> tuple[Tensor, Sequence[Tensor]]:
        """The alphas' loss on a batch of theirs, and its gradient, one tensor a gene.

        Args:
            train: the batch, images and labels, that the weights are trained on next.
            lr: of that step.
        """
        loss = self._loss(images, labels, self.alphas)
        return loss.detach(), gradient(loss, list(self.alphas.values()))

    def _loss(
        self, images: Tensor, labels: Tensor, alphas: Alphas, *, exact: bool = False
    ) -> Tensor:
        """A batch's mean loss; `exact` is in float32 whatever the hardware's precision."""
        self.supernet.mix(self._mixture(alphas))
        with nullcontext() if exact else self.hardware.autocast():
            return training_loss(self.supernet(images), labels, self.params.recipe)

    def seconds(self) -> float:
        """What an epoch takes, foreseen from a few steps; the search cannot go on after that."""
        self.epochs = self.params.warm_up  # the longer kind
        with threads(self.hardware.threads):
            return seconds_of_epoch(self._epoch, self.trainer.epoch_steps)

    def _epoch(self, limit: int | None = None) -> dict[str, float]:
        """An epoch, or so many steps of one."""
        trainer, params = self.trainer, self.params
        searching = self.epochs >= params.warm_up
        steps = min(trainer.epoch_steps, limit or trainer.epoch_steps)
        device = trainer.data.train.labels.device
        weight_total = torch.zeros((), device=device)
        alpha_total = torch.zeros((), device=device)
        alpha_rows: Iterator[Tensor] = chain.from_iterable(self.batches.epoch() for _ in count())
        self.supernet.train()
        for rows in trainer.epoch()[:steps]:
            trainer.begin(trainer.steps / (trainer.epoch_steps * params.epochs))
            images, labels = trainer.batches.load(rows)
            if searching:
                lr = trainer.optimizer.param_groups[0]["lr"]
                batch = self.batches.load(next(alpha_rows))
                loss, gradients = self._gradient(*batch, (images, labels), lr)
                for alpha, slope in zip(self.alphas.values(), gradients, strict=True):
                    alpha.grad = slope
                self.optimizer.step()
                alpha_total += loss
            fixed = {gene: alpha.detach() for gene, alpha in self.alphas.items()}
            self.supernet.mix(self._mixture(fixed))
            weight_total += trainer.backward(images, labels)
            trainer.end()
        losses = {"train_loss": weight_total.item() / steps}
        losses["alpha_loss"] = alpha_total.item() / steps if searching else math.nan
        if not math.isfinite(losses["train_loss"]) or (
            searching and not math.isfinite(losses["alpha_loss"])
        ):
            raise SearchFailed(
                f"the supernet's loss became NaN or infinite in epoch {self.epochs + 1}; "
                f"allowed: a new run with a lower {self.section}.recipe.lr"
            )
        return losses


class Relaxed(Generational):
    """A relaxation as a strategy: a generation is an epoch, and asks for the genome that would be
    derived after it, so that its true quality is seen to move.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({Need.DATA, Need.OPS})
    TRACES: ClassVar = {
        "probabilities": ("gene", "choice", "probability"),
        "relaxation": (
            *("epoch", "train_loss", "alpha_loss", "entropy", "skips", "skip_share"),
            "temperature",
        ),
    }
    relaxes: ClassVar[Callable[..., Relaxation]]

    def __init__(self, params: Any, setting: Setting) -> None:
        super().__init__(params, setting)
        training = setting.trained()
        self.relaxation = type(self).relaxes(
            params,
            space=self.space,
            network=training.network,
            data=training.data,
            hardware=training.hardware,
            seed=setting.seed,
        )
        self.epochs = 0
        self._losses: dict[str, float] = {}

    @property
    def max_generations(self) -> int:
        return int(self.params.epochs)

    def seconds_per_epoch(self) -> float:
        return self.relaxation.seconds()

    def _propose(self) -> list[Candidate]:
        if self.epochs >= self.params.epochs:
            return []
        self._losses = dict(self.relaxation.train_epoch())
        self.epochs += 1
        genome = self.relaxation.derive()
        limit = self.params.max_skips
        settled = self.epochs > max(self.params.warm_up, 1)  # before, alphas are noise
        if limit is not None and settled and self._skips(genome)[0] > limit:
            self.epochs = self.params.epochs
            return []
        return [Candidate(genome, origin="derived")]

    def _learn(self, evaluations: list[Evaluation]) -> None: ...

    def trace(self) -> dict[str, list[dict[str, Any]]]:
        """Each choice's probability; losses, a gene's mean entropy, nats, and the derived skips."""
        probabilities = self.relaxation.probabilities()
        names = {gene.name: gene.choices for gene in self.space.genes}
        skips, ops = self._skips(self.relaxation.derive())
        return {
            "probabilities": [
                {"gene": gene, "choice": choice, "probability": round(p, 6)}
                for gene, ps in probabilities.items()
                for choice, p in zip(names[gene], ps, strict=True)
            ],
            "relaxation": [
                {
                    "epoch": self.epochs,
                    **{name: round(value, 6) for name, value in self._losses.items()},
                    "entropy": round(entropy(probabilities), 6),
                    "skips": skips,
                    "skip_share": round(skips / ops, 6) if ops else 0.0,
                }
            ],
        }

    def _skips(self, genome: Genome) -> tuple[int, int]:
        """How many skip connections a genome has, and how many live ops in all."""
        relaxed = self.relaxation.probabilities().keys()
        live = self.space.live(genome)
        chosen = [
            self.space.choice(genome, i)
            for i, gene in enumerate(self.space.genes)
            if live[i] and gene.name in relaxed
        ]
        return sum(choice.startswith(("skip", "identity")) for choice in chosen), len(chosen)

    def _state(self) -> State:
        # A copy: the search goes on with the tensors that it is made of.
        return {"epochs": self.epochs, "relaxation": deepcopy(self.relaxation.state_dict())}

    def _restore(self, state: State) -> None:
        self.epochs = state["epochs"]
        self.relaxation.load_state_dict(state["relaxation"])


def seconds_of_epoch(run: Callable[[int], object], steps: int) -> float:
    """Of so many steps, from a line through two short runs.

    Args:
        run: makes the number of steps that it is given.
    """
    run(1)  # which takes longer than those after it
    few, more = (min(number, steps) for number in SHORT)
    times = []
    for number in (few, more):
        started = time.perf_counter()
        run(number)
        times.append(time.perf_counter() - started)
    if few == more:  # all there are
        return times[1]
    return steps * max(times[1] - times[0], 0.0) / (more - few)


def entropy(probabilities: Mapping[str, Sequence[float]]) -> float:
    """Of the choices, the mean over genes, nats."""
    each = [-sum(p * math.log(p) for p in ps if p > 0) for ps in probabilities.values()]
    return sum(each) / len(each)


def gradient(loss: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Of a loss with respect to tensors, zeros where it does not depend on one."""
    if not loss.requires_grad:
        return [torch.zeros_like(tensor) for tensor in tensors]
    slopes = torch.autograd.grad(loss, tensors, allow_unused=True)
    return [
        torch.zeros_like(tensor) if slope is None else slope
        for slope, tensor in zip(slopes, tensors, strict=True)
    ]


def _check_places(space: SearchSpace, shared: Supernet) -> None:
    """Whether the supernet has the genes of the space, all of them and no others.

    Raises:
        UserError: a proxy has changed the genes, or so few cells have no place for some.
    """
    ours = {gene: len(choices) for gene, choices in shared.ops.items()}
    theirs = {gene.name: len(gene.choices) for gene in space.genes if gene.name not in shared.wires}
    differing = sorted(set(ours.items()) ^ set(theirs.items()))
    if differing:
        raise UserError(
            f"space: the supernet and the space differ in the gene {differing[0][0]}; allowed: a "
            "strategy.proxy that leaves the genes as they are, and cells of every kind (3 or more)"
        )


def _smaller(
    space: SearchSpace, network: Mapping[str, Any], proxy: Mapping[str, int]
) -> dict[str, Any]:
    """The settings of the supernet: those of the networks, but for the proxy's.

    Raises:
        UserError: one that the network has not, or that the space's genes depend on.
    """
    blueprint = registry.blueprint_of(space)
    allowed = sorted(blueprint.Params.model_fields.keys() - {"name", *blueprint.space_keys})
    for key in proxy:
        if key not in allowed:
            raise UserError(
                f"strategy.proxy.{key}: unknown key; allowed: {', '.join(allowed) or 'none'}"
            )
    settings = {**network, **proxy}
    try:
        blueprint.settings(space, settings)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise UserError(f"strategy.proxy.{key}: is {first['input']!r}; {first['msg']}") from None
    return settings


def _freeze_scales(network: Supernet) -> None:
    for mixed in network.mixed_ops().values():
        for module in mixed.modules():
            if isinstance(module, _BatchNorm):
                for parameter in module.parameters():
                    parameter.requires_grad_(False)


def _split_images(data: ResidentData, share: float, seed: int) -> tuple[ResidentData, ResidentData]:
    """The training images in two parts, the second with `share` of them."""
    n = len(data.train)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed % 2**32))
    first = n - round(share * n)
    if min(first, n - first) < 2:
        raise UserError(
            f"strategy.alpha_share: {share:g} of {n} training images leaves a part with fewer than "
            "2; allowed: more images, or a share nearer to 0.5"
        )

    def part(rows: Tensor) -> ResidentData:
        at = rows.to(data.train.labels.device)
        return replace(data, train=Resident(data.train.images[at], data.train.labels[at]))

    return part(order[:first]), part(order[first:])
