"""The base of the differentiable methods: weights and alphas, trained in turn on other images."""

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
from evonas.eager import Adam
from evonas.markdown import counted
from evonas.oneshot.costs import SIZES, expected_share, op_sizes
from evonas.oneshot.mixture import Alphas, Mixture
from evonas.oneshot.supernet import Supernet, supernet
from evonas.protocols import Need, Relaxation, Setting
from evonas.strategies.generational import Generational
from evonas.training.batches import Batches, Resident, ResidentData, resident
from evonas.training.loop import Trainer, memory_guard, seeded, threads, training_loss
from evonas.training.recipe import Recipe, check_shared, filled_from
from genomes import Genome, SearchSpace

SHORT = (2, 8)  # the steps of the two runs that time an epoch
SMALL = 1e-3  # the standard deviation of the first alphas (Liu et al., 2019, in their code)

RECIPE = Recipe(lr=0.025, weight_decay=3e-4, clip=5.0)


class BilevelParams(Params):
    """Settings that all differentiable methods have."""

    epochs: Annotated[int, Field(ge=1, le=100_000)] = 50
    """How many epochs the supernet is trained, one per generation. The learning rate's schedule
    spans them, and the search ends after them."""
    warm_up: Annotated[int, Field(ge=0, le=100_000)] = 0
    """The number of epochs, from the first, that train only the weights, and not the alphas."""
    recipe: Annotated[Recipe, filled_from(RECIPE)] = RECIPE
    """How the weights of the supernet are trained. Its keys are below; here the default of `lr` is
    0.025, of `weight_decay` 0.0003, and of `clip` 5."""
    alpha_lr: Annotated[float, Field(gt=0, le=10)] = 3e-3
    """The learning rate of the alphas. (The papers have 0.0003, for some 20,000 steps.)"""
    alpha_weight_decay: Annotated[float, Field(ge=0, le=10)] = 1e-3
    """How strongly alphas are pulled towards 0."""
    alpha_share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """The share of the training images on which the alphas are trained; the weights are trained on
    the others."""
    max_skips: Annotated[int, Field(ge=0, le=10_000)] | None = None
    """The search ends when the derived genome would have more skip connections than this (DARTS+,
    Liang et al., 2019, where it is one in the normal cell), except during the warm-up, when alphas
    are noise. Without it, the search never ends for this reason."""
    proxy: dict[str, int] = Field(default_factory=dict)
    """Settings of the space in which the supernet differs from the networks: `{channels: 8}` makes
    it cheaper to train."""
    size_weight: Annotated[float, Field(ge=0, le=1000)] = 0.0
    """How much size counts in the loss of the alphas, if `params` or `flops` is an objective. The
    loss is increased by this times the expected size of all ops (each op's size times its
    probability), as a share of the largest possible. With 0 an objective other than the error
    plays no part in the training; only the tables and the front have it."""

    BEFORE: ClassVar = {"size_weight": 0.0}

    def model_post_init(self, context: object) -> None:
        check_shared(self.recipe)
        if self.warm_up >= self.epochs:
            raise Requirement(f"must be less than epochs, {self.epochs}", "warm_up")


class Bilevel:
    """A supernet whose weights and alphas are trained in turn, a batch each (Liu et al., 2019,
    algorithm 1).

    The training images are split in two, once and for all. During the search, the batch norms of
    the candidates have no trained scale (appendix A.1), which could undo the effect of an alpha.
    """

    def __init__(self, params: Any, setting: Setting, *, section: str = "strategy") -> None:
        """Build the supernet.

        Args:
            section: the section of the experiment file with `params`, for messages.

        Raises:
            UserError: the space has no supernet, or there are too few images.
        """
        training, space = setting.trained(), setting.space
        hardware = training.hardware
        self.section = section
        self.params = params
        self.space = space
        self.hardware = hardware
        self.epochs = 0  # done
        self._seed = derive_seed(setting.seed, "relaxation", "epoch")
        device = torch.device(hardware.device)
        seeds = [derive_seed(setting.seed, "relaxation", i) for i in range(3)]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeds[0])
            shared = supernet(space, **_smaller(space, training.arguments, params.proxy))
            if not isinstance(shared, Supernet):
                raise UserError(
                    f"{params.name} needs genes that choose ops, and {space.name} has none",
                    hint="use nasbench201, darts, chain, or a space of your own",
                    key="strategy.name",
                )
            _check_places(space, shared)
            self._sizes = _objective_sizes(params, setting, shared)
            self.supernet = hardware.place(shared)
            self.alphas = {
                gene: (SMALL * torch.randn(len(choices))).to(device).requires_grad_()
                for gene, choices in shared.ops.items()
            }
        _freeze_scales(self.supernet)
        self.generator = torch.Generator().manual_seed(seeds[1])
        for_weights, for_alphas = _split_images(
            resident(training.data, device), params.alpha_share, seeds[2]
        )
        self.trainer = Trainer(self.supernet, for_weights, params.recipe, seeds[1], hardware)
        self.batches = Batches(for_alphas, params.recipe, self.generator, hardware.channels_last)
        self.optimizer = Adam(
            list(self.alphas.values()),
            lr=params.alpha_lr,
            betas=(0.5, 0.999),
            weight_decay=params.alpha_weight_decay,
        )

    def train_epoch(self) -> dict[str, float]:
        """Train one epoch of weights and, after the warm-up, of alphas.

        Returns:
            The mean losses of both, nats; that of the alphas is NaN during the warm-up.

        Raises:
            SearchFailed: a loss became NaN or infinite, or memory ran out.
        """
        random_state = seeded(derive_seed(self._seed, self.epochs), self.hardware.device)
        out_of_memory = (
            "the supernet ran out of memory with batches of "
            f"{counted(self.trainer.batch_size, 'image')}; "
            f"start a new run with a smaller {self.section}.recipe.batch_size"
        )
        with memory_guard(out_of_memory), threads(self.hardware.threads), random_state:
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
        """Return the mixture that the supernet computes at a step."""
        raise NotImplementedError

    def _gradient(
        self, images: Tensor, labels: Tensor, train: tuple[Tensor, Tensor], lr: float
    ) -> tuple[Tensor, Sequence[Tensor]]:
        """Return the loss of the alphas on a batch, and its gradient, one tensor per gene.

        Args:
            train: the batch, images and labels, that the weights are trained on next.
            lr: the learning rate of that step.
        """
        loss = self._loss(images, labels, self.alphas) + self._size()
        return loss.detach(), gradient(loss, list(self.alphas.values()))

    def _loss(
        self, images: Tensor, labels: Tensor, alphas: Alphas, *, exact: bool = False
    ) -> Tensor:
        """Return a batch's mean loss, in float32 if `exact`, whatever the hardware's precision."""
        self.supernet.mix(self._mixture(alphas))
        with nullcontext() if exact else self.hardware.autocast():
            return training_loss(self.supernet(images), labels, self.params.recipe)

    def _size(self) -> Tensor | float:
        """Return what the alphas' expected size adds to their loss, nats."""
        return sum(
            (self.params.size_weight * expected_share(each, self.alphas) for each in self._sizes),
            0.0,
        )

    def seconds(self) -> float:
        """Estimate the seconds of an epoch from a few steps; discard the object afterwards."""
        self.epochs = self.params.warm_up  # epochs after the warm-up take longer
        with threads(self.hardware.threads):
            return seconds_of_epoch(self._epoch, self.trainer.epoch_steps)

    def _epoch(self, limit: int | None = None) -> dict[str, float]:
        """Train an epoch, or `limit` steps of one."""
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
                batch = self.batches.load(next(alpha_rows))
                loss, gradients = self._gradient(*batch, (images, labels), trainer.lr)
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
                f"start a new run with a lower {self.section}.recipe.lr"
            )
        return losses


class Relaxed(Generational):
    """A relaxation as a strategy.

    Each generation is an epoch, and asks for the genome that would be derived after it, so that the
    tables show how the true quality of that genome changes.
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
        self.relaxation = type(self).relaxes(params, setting)
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
        settled = self.epochs > max(self.params.warm_up, 1)  # before that, alphas are noise
        if limit is not None and settled and self._skips(genome)[0] > limit:
            self.epochs = self.params.epochs
            return []
        return [Candidate(genome, origin="derived")]

    def _learn(self, evaluations: list[Evaluation]) -> None: ...

    def trace(self) -> dict[str, list[dict[str, Any]]]:
        """Return each choice's probability, the losses, the mean entropy of a gene, nats, and the
        skip connections of the derived genome.
        """
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
        """Count the skip connections of a genome, and all of its live ops."""
        relaxed = self.relaxation.probabilities().keys()
        live = self.space.live(genome)
        chosen = [
            self.space.choice(genome, i)
            for i, gene in enumerate(self.space.genes)
            if live[i] and gene.name in relaxed
        ]
        return sum(choice.startswith(("skip", "identity")) for choice in chosen), len(chosen)

    def _state(self) -> State:
        # A copy, since the search goes on training these tensors.
        return {"epochs": self.epochs, "relaxation": deepcopy(self.relaxation.state_dict())}

    def _restore(self, state: State) -> None:
        self.epochs = state["epochs"]
        self.relaxation.load_state_dict(state["relaxation"])


def seconds_of_epoch(run: Callable[[int], object], steps: int) -> float:
    """Estimate the seconds of an epoch of so many steps, from a line through two short runs.

    Args:
        run: trains a number of steps.
    """
    run(1)  # the first step takes longer than those after it
    few, more = (min(number, steps) for number in SHORT)
    times = []
    for number in (few, more):
        started = time.perf_counter()
        run(number)
        times.append(time.perf_counter() - started)
    if few == more:  # the epoch has no more steps
        return times[1]
    return steps * max(times[1] - times[0], 0.0) / (more - few)


def entropy(probabilities: Mapping[str, Sequence[float]]) -> float:
    """Return the entropy of the choices, the mean over genes, nats."""
    each = [-sum(p * math.log(p) for p in ps if p > 0) for ps in probabilities.values()]
    return sum(each) / len(each)


def gradient(loss: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return the gradient of a loss by tensors, with zeros for those it does not depend on."""
    if not loss.requires_grad:
        return [torch.zeros_like(tensor) for tensor in tensors]
    slopes = torch.autograd.grad(loss, tensors, allow_unused=True)
    return [
        torch.zeros_like(tensor) if slope is None else slope
        for slope, tensor in zip(slopes, tensors, strict=True)
    ]


def _objective_sizes(
    params: BilevelParams, setting: Setting, shared: Supernet
) -> list[Mapping[str, list[int]]]:
    """Return the sizes of the ops in each objective that is a size, if these count in the loss.

    Raises:
        UserError: no objective is a size to minimise.
    """
    if not params.size_weight:
        return []
    names = [each.name for each in setting.objectives if each.name in SIZES and each.goal == "min"]
    if not names:
        raise UserError(
            "has no effect, since no objective minimises params or flops",
            hint="add {name: params} or {name: flops} to the objectives",
            key="strategy.size_weight",
        )
    sizes = op_sizes(shared, setting.trained().data.image_shape)
    return [sizes[name] for name in names]


def _check_places(space: SearchSpace, shared: Supernet) -> None:
    """Check that the supernet has exactly the genes of the space.

    Raises:
        UserError: a proxy changes the genes, or too few cells leave some genes without a place.
    """
    ours = {gene: len(choices) for gene, choices in shared.ops.items()}
    theirs = {gene.name: len(gene.choices) for gene in space.genes if gene.name not in shared.wires}
    differing = sorted(set(ours.items()) ^ set(theirs.items()))
    if differing:
        raise UserError(
            f"the supernet and the space differ in the gene {differing[0][0]}",
            hint="leave the genes as they are in strategy.proxy, and have all cells (3 or more)",
            key="space",
        )


def _smaller(
    space: SearchSpace, arguments: Mapping[str, Any], proxy: Mapping[str, int]
) -> dict[str, Any]:
    """Return the settings of the supernet: those of the networks, overridden by the proxy's.

    Raises:
        UserError: the networks have no such setting, or the genes depend on it.
    """
    blueprint = registry.blueprint_of(space)
    allowed = sorted(blueprint.Params.model_fields.keys() - {"name", *blueprint.space_keys})
    for key in proxy:
        if key not in allowed:
            hint = f"allowed: {', '.join(allowed) or 'none'}"
            raise UserError("unknown key", hint=hint, key=f"strategy.proxy.{key}")
    interface = {key: arguments[key] for key in ("in_channels", "classes")}
    networks = {key: value for key, value in arguments.items() if key not in interface}
    settings = {**networks, **proxy}
    try:
        blueprint.settings(space, settings)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(("strategy.proxy", *map(str, first["loc"])))
        raise UserError(f"is {first['input']!r}", hint=first["msg"], key=key) from None
    return {**interface, **settings}


def _freeze_scales(network: Supernet) -> None:
    for mixed in network.mixed_ops().values():
        for module in mixed.modules():
            if isinstance(module, _BatchNorm):
                for parameter in module.parameters():
                    parameter.requires_grad_(False)


def _split_images(data: ResidentData, share: float, seed: int) -> tuple[ResidentData, ResidentData]:
    """Split the training images in two parts, the second with `share` of them."""
    n = len(data.train)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed % 2**32))
    first = n - round(share * n)
    if min(first, n - first) < 2:
        raise UserError(
            f"a share of {share:g} of {n} training images leaves one part with fewer than 2",
            hint="use more images, or a share closer to 0.5",
            key="strategy.alpha_share",
        )

    def part(rows: Tensor) -> ResidentData:
        at = rows.to(data.train.labels.device)
        return replace(data, train=Resident(data.train.images[at], data.train.labels[at]))

    return part(order[:first]), part(order[first:])
