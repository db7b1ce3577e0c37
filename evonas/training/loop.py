"""The training loop."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from evonas.core import Budget, SearchFailed, State
from evonas.eager import SGD, AdamW
from evonas.training.averaging import Average
from evonas.training.batches import Batches, Resident, ResidentData, arranged, sent
from evonas.training.captured import Captured, hidden, make_capturable
from evonas.training.precision import spare_slow_layers
from evonas.training.recipe import Recipe, lr_factor
from evonas.training.strided import avoid_strided

Network = TypeVar("Network", bound=nn.Module)

CHECK_EVERY = 20  # steps between checks of the loss on the CPU


@dataclass(frozen=True, slots=True)
class Hardware:
    """The settings chosen for the machine, kept so that a resume trains in the same way.

    Attributes:
        device: "cpu" or "cuda".
        precision: "float32", or "bfloat16" for autocast; weights, the statistics of batch norms and
            losses are float32 in any case.
        channels_last: the memory format of images and weights.
    """

    device: str = "cpu"
    precision: str = "float32"
    channels_last: bool = False
    threads: int = 1

    def autocast(self) -> torch.autocast | nullcontext[None]:
        if self.precision == "bfloat16":
            return torch.autocast(self.device, dtype=torch.bfloat16)
        return nullcontext()

    def exact(self) -> Hardware:
        """Return this hardware with float32, in which what a user takes away will run."""
        return replace(self, precision="float32")

    def suited_to(self, network: nn.Module, image_shape: tuple[int, int, int]) -> Hardware:
        """Return this hardware, without `channels_last` if the network cannot take such images.

        A network that calls `view` on its features, instead of `reshape`, cannot.

        Args:
            network: on the CPU; two images are sent through it.
        """
        if not self.channels_last:
            return self
        in_training = [module for module in network.modules() if module.training]
        images = arranged(torch.zeros(2, *image_shape), channels_last=True)
        try:
            with torch.no_grad(), seeded(0, "cpu"):
                network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's types lack it
                network.eval()(images)
        except RuntimeError:  # if it is another mistake, the training will raise it
            network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # as above
            return replace(self, channels_last=False)
        finally:
            for module in in_training:
                module.training = True
        return self

    def place(self, network: Network) -> Network:
        """Moves a network to the device, its weights in the memory format; returns it."""
        network.to(self.device)
        if self.precision == "bfloat16" and self.device == "cpu":
            spare_slow_layers(network)
        if self.channels_last and self.device == "cpu":
            avoid_strided(network)
        if self.channels_last:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's types lack it
        return network


@dataclass(frozen=True, slots=True)
class Training:
    """The outcome of a training.

    Attributes:
        steps, epochs: all of the network's, those of an earlier training that it went on from
            included.
        seconds: the time of this training.
        earlier: the steps of the earlier training.
        state: what a longer training can go on from, in the network's own tensors; None if that
            was not asked for, or if there is more to the training than a state holds.
    """

    diverged: bool
    steps: int
    epochs: float
    seconds: float
    earlier: int = 0
    state: State | None = None


class Trainer:
    """Trains a network in place, step by step.

    Args:
        network: already on the hardware's device.
        seed: determines the order of the batches and the augmentation.
        micro_batch: the images of one forward and backward pass; gradients are added up to those
            of a whole batch before each step. This saves memory and changes only batch norm.
        capture: whether `step` is recorded and replayed, where that can be (`Captured`).
    """

    def __init__(
        self,
        network: nn.Module,
        data: ResidentData,
        recipe: Recipe,
        seed: int,
        hardware: Hardware,
        *,
        micro_batch: int | None = None,
        capture: bool = False,
    ) -> None:
        self.network = network
        self.data = data
        self.recipe = recipe
        self.hardware = hardware
        self.generator = torch.Generator().manual_seed(seed)
        self.batches = Batches(data, recipe, self.generator, hardware.channels_last)
        self.optimizer = optimizer_of(network, recipe)
        self.batch_size = self.batches.size
        self.micro_batch = micro_batch or self.batch_size
        self.epoch_steps = self.batches.steps
        self.steps = 0
        self.lr = recipe.lr
        self.average = Average(network, recipe.ema) if recipe.ema else None
        self.device = data.train.labels.device
        capture &= self.micro_batch >= self.batch_size
        self.captured = Captured(network, self.device) if capture else None
        if capture:
            make_capturable(self.optimizer, self.device)
        network.train()

    def epoch(self) -> tuple[Tensor, ...]:
        """The rows of an epoch's batches, in a new order."""
        return self.batches.epoch()

    def step(self, rows: Tensor, progress: float) -> Tensor:
        """Trains on one batch: forward, backward, and an update of the weights.

        Args:
            progress: the position in the schedule, from 0 to 1.

        Returns:
            (), the mean loss of the batch, nats; the next step may overwrite it.
        """
        self._set_lr(progress)
        drawn = self.batches.draw(rows)
        if self.captured is None:
            loss = self._whole(sent(drawn, self.device))
        else:
            loss = self.captured.run(self._whole, drawn)
        self._count()
        return loss

    def _whole(self, drawn: Tensor) -> Tensor:
        """Runs a step on a batch that `Batches.draw` drew; changes nothing but tensors."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.backward(*self.batches.made(drawn))
        self._update()
        return loss

    def begin(self, progress: float) -> None:
        """Sets the learning rate, and clears the gradients of the step before."""
        self._set_lr(progress)
        self.optimizer.zero_grad(set_to_none=True)

    def _set_lr(self, progress: float) -> None:
        self.lr = self.recipe.lr * lr_factor(self.recipe.schedule, progress, self.recipe.warm_up)
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(self.lr)
            else:
                group["lr"] = self.lr

    def backward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Runs a batch forward and backward, and adds its gradients to those already there.

        Returns:
            (), the mean loss of the batch, nats.
        """
        if len(labels) <= self.micro_batch:
            return self._part(images, labels, 1.0)
        parts = zip(images.split(self.micro_batch), labels.split(self.micro_batch), strict=True)
        losses = [self._part(part, of_part, len(of_part) / len(labels)) for part, of_part in parts]
        return torch.stack(losses).sum()

    def _part(self, images: Tensor, labels: Tensor, share: float) -> Tensor:
        """Runs a part of a batch forward and backward; returns its share of the mean loss."""
        with self.hardware.autocast():
            loss = training_loss(self.network(images), labels, self.recipe)
        loss = loss if share == 1.0 else loss * share
        loss.backward()
        return loss.detach()

    def end(self) -> None:
        """Clips the gradients and updates the weights."""
        self._update()
        self._count()

    def _count(self) -> None:
        """Counts a step. The average is no part of what is recorded, since its weight changes."""
        self.steps += 1
        if self.average is not None:
            self.average.update(self.steps)

    def put_average(self, network: nn.Module) -> None:
        """Gives the network, or a copy of it, the averaged weights, if the recipe averages any."""
        if self.average is not None:
            self.average.put(network)

    def _update(self) -> None:
        if self.recipe.clip is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip)
        self.optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """The state of the training between two steps, but for the rows of the epoch that it is in:
        plain data and tensors."""
        optimizer = self.optimizer.state_dict()
        for group in optimizer["param_groups"]:
            group["lr"] = float(group["lr"])
        state = {
            "network": self.network.state_dict(),
            "optimizer": optimizer,
            "generator": self.generator.get_state(),
            "steps": self.steps,
        }
        return state if self.average is None else {**state, "average": self.average.state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.steps = state["steps"]
        if self.average is not None:
            self.average.load(state["average"])
        if self.captured is not None:  # a recording has the tensors of before
            self.captured = Captured(self.network, self.device)
            make_capturable(self.optimizer, self.device)


def train(
    network: nn.Module,
    data: ResidentData,
    recipe: Recipe,
    budget: Budget,
    seed: int,
    hardware: Hardware,
    *,
    micro_batch: int | None = None,
    capture: bool | None = None,
    since: State | None = None,
    goes_on: bool = False,
) -> Training:
    """Trains a network in place, under a budget; see `Trainer`.

    Args:
        capture: as for `Trainer`; by default, on a GPU.
        since: the state of an earlier training, of the same network, seed and horizon, to go on
            from. The weights become those of one training in one go, bit for bit.
        goes_on: whether a longer training may go on from here, so that the state is returned.

    Returns:
        The outcome. A loss that is NaN or infinite ends the training as diverged. If the recipe
        averages weights, the network has the averaged ones, and the state those of the last step.
    """
    started = time.perf_counter()
    on_gpu = hardware.device == "cuda"
    trainer = Trainer(
        network,
        data,
        recipe,
        seed,
        hardware,
        micro_batch=micro_batch,
        capture=on_gpu if capture is None else capture,
    )
    before = hidden(network)
    left = deque[Tensor]() if since is None else _gone_back(trainer, since)
    earlier = trainer.steps
    # A GPU is waited for once an epoch, unless the clock decides, which must not run ahead of it.
    check_every = trainer.epoch_steps if on_gpu and not budget.seconds else CHECK_EVERY
    last_loss = torch.zeros(())

    def progress() -> float:
        """How much of the budget is spent, in its own unit."""
        if budget.seconds:
            return time.perf_counter() - started
        return trainer.steps / trainer.epoch_steps if budget.epochs else trainer.steps

    while progress() < budget.amount:
        left = left or deque(trainer.epoch())
        last_loss = trainer.step(left.popleft(), progress() / budget.whole)
        if trainer.steps % check_every == 0 and not math.isfinite(last_loss.item()):
            break
    diverged = not math.isfinite(last_loss.item())
    seconds = time.perf_counter() - started
    # What a network keeps elsewhere is not in its state, and without it the rest would be another.
    whole = goes_on and not diverged and hidden(network) == before
    state = _state(trainer, left) if whole else None
    trainer.put_average(network)
    epochs = trainer.steps / trainer.epoch_steps
    return Training(diverged, trainer.steps, epochs, seconds, earlier, state)


def _state(trainer: Trainer, left: deque[Tensor]) -> State:
    """Return the state of a training after any step.

    Args:
        left: the rows of the batches that are left of the epoch.
    """
    on_gpu = trainer.device.type == "cuda"
    return {
        **trainer.state_dict(),
        "left": list(left),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if on_gpu else None,
    }


def _gone_back(trainer: Trainer, state: State) -> deque[Tensor]:
    """Bring a training, and torch's generators, to a state; return the rows left of its epoch."""
    trainer.load_state_dict(state)
    torch.set_rng_state(state["torch"])
    if trainer.device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"])
    return deque(state["left"])


@torch.no_grad()
def measure(
    network: nn.Module,
    part: Resident,
    data: ResidentData,
    hardware: Hardware,
    batch_size: int,
) -> dict[str, float]:
    """Measures error, top-5 error (shares) and mean cross-entropy (nats) on a part of the data."""
    network.eval()
    # Sums of floats, as Python would add them; the device is waited for once, at the end.
    sums = torch.zeros(3, dtype=torch.float64, device=part.labels.device)
    for start in range(0, len(part), batch_size):
        labels = part.labels[start : start + batch_size]
        images = data.normalised(part.images[start : start + batch_size])
        images = arranged(images, hardware.channels_last)
        with hardware.autocast():
            logits: Tensor = network(images)
        logits = logits.float()
        best = logits.topk(min(5, logits.shape[1]), dim=1).indices
        wrong_here = (best[:, 0] != labels).sum()
        wrong_5_here = (best != labels[:, None]).all(dim=1).sum()
        loss_here = cross_entropy(logits, labels, reduction="sum")
        sums += torch.stack([each.double() for each in (wrong_here, wrong_5_here, loss_here)])
    n = len(part)
    wrong, wrong_5, loss = sums.tolist()
    return {"error": wrong / n, "top5_error": wrong_5 / n, "loss": loss / n}


def warm_up() -> None:
    """Do nothing: a worker that is called with this has imported torch, which takes seconds."""


@contextmanager
def seeded(seed: int, device: str) -> Iterator[None]:
    """Seeds torch's global generators within the block, and restores them after it.

    Dropout draws from them, and so may a user's own network.
    """
    gpus = [torch.cuda.current_device()] if device == "cuda" else []
    with torch.random.fork_rng(devices=gpus):
        torch.manual_seed(seed)
        yield


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Sets torch's number of threads within the block, since results depend on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def memory_guard(message: str) -> Iterator[None]:
    """Turns a lack of memory within the block into the end of the search.

    Raises:
        SearchFailed: memory ran out; it says `message`.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is one of the latter
        if not out_of_memory(error):
            raise
        raise SearchFailed(message) from None


def out_of_memory(error: BaseException) -> bool:
    """Whether an error is a lack of memory.

    The CPU's allocator and some CUDA libraries raise a plain RuntimeError, so its text decides.
    """
    signs = ("can't allocate memory", "CUDA error: out of memory", "STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        sign in str(error) for sign in signs
    )


def training_loss(output: Tensor | tuple[Tensor, Tensor], labels: Tensor, recipe: Recipe) -> Tensor:
    """The cross-entropy, in float32, plus that of an auxiliary classifier times its weight.

    Args:
        labels: (n,), or the share of each class, (n, classes).
    """
    if isinstance(output, tuple):
        main, auxiliary = (training_loss(logits, labels, recipe) for logits in output)
        return main + recipe.auxiliary_weight * auxiliary
    return cross_entropy(output.float(), labels, label_smoothing=recipe.label_smoothing)


def optimizer_of(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer; weight decay acts on weights, not on biases and batch norm."""
    weights = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    groups = [
        {"params": weights, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    # On a CPU too, all tensors of a group in one call are faster, and the same to the bit.
    if recipe.optimizer == "adamw":
        return AdamW(groups, lr=recipe.lr, foreach=True)
    nesterov = recipe.momentum > 0
    return SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=nesterov, foreach=True)
