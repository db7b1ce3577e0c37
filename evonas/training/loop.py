"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from evonas.core import Budget
from evonas.training.batches import Resident, ResidentData, augmented
from evonas.training.recipe import Recipe, lr_factor

CHECK_EVERY = 20  # steps between looks at the loss, each of which waits for the device


@dataclass(frozen=True, slots=True)
class Hardware:
    """What the driver has chosen for the machine, so that a resume trains in the same way.

    Attributes:
        device: "cpu" or "cuda".
        precision: "float32", or "bfloat16" for autocast.
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


@dataclass(frozen=True, slots=True)
class Training:
    """How a training went."""

    diverged: bool
    steps: int
    epochs: float
    seconds: float


def train(
    network: nn.Module,
    data: ResidentData,
    recipe: Recipe,
    budget: Budget,
    seed: int,
    hardware: Hardware,
    *,
    micro_batch: int | None = None,
) -> Training:
    """Trains a network in place, under a budget.

    Args:
        network: on the hardware's device already.
        seed: of the batches' order and augmentation.
        micro_batch: forward and backward so many images at a time, adding gradients up to a
            whole batch before each step: less memory, the same step but for batch norm.

    Returns:
        What it took. A loss that is NaN or infinite ends it as diverged.
    """
    started = time.perf_counter()
    generator = torch.Generator().manual_seed(seed)
    optimizer = _optimizer(network, recipe)
    batch_size = min(recipe.batch_size, len(data.train))
    micro_batch = micro_batch or batch_size
    an_epoch = len(data.train) // batch_size  # steps; the last, smaller batch is left out
    horizon = budget.horizon or budget.amount
    flip = data.flippable if recipe.flip is None else recipe.flip
    network.train()

    step = 0
    last_loss = torch.zeros(())

    def progress() -> float:
        """Of the budget, in its own unit."""
        if budget.seconds:
            return time.perf_counter() - started
        return step / an_epoch if budget.epochs else step

    for rows in _batches(len(data.train), batch_size, generator):
        if progress() >= budget.amount:
            break
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * lr_factor(recipe.schedule, progress() / horizon)
        optimizer.zero_grad(set_to_none=True)
        at = rows.to(data.train.labels.device)
        images = augmented(data.normalised(data.train.images[at]), recipe, flip, generator)
        if hardware.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        parts = zip(
            images.split(micro_batch), data.train.labels[at].split(micro_batch), strict=True
        )
        for part, labels in parts:
            with hardware.autocast():
                loss = cross_entropy(network(part), labels, label_smoothing=recipe.label_smoothing)
            (loss * (len(part) / len(rows))).backward()
        optimizer.step()
        last_loss = loss.detach()
        step += 1
        if step % CHECK_EVERY == 0 and not math.isfinite(last_loss.item()):
            break
    diverged = not math.isfinite(last_loss.item())
    return Training(diverged, step, step / an_epoch, time.perf_counter() - started)


@torch.no_grad()
def measure(
    network: nn.Module,
    part: Resident,
    data: ResidentData,
    hardware: Hardware,
    batch_size: int,
) -> dict[str, float]:
    """Error, top-5 error (shares) and mean cross-entropy (nats) on a part of the data."""
    network.eval()
    wrong = wrong_5 = 0
    loss = 0.0
    for start in range(0, len(part), batch_size):
        labels = part.labels[start : start + batch_size]
        images = data.normalised(part.images[start : start + batch_size])
        if hardware.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        with hardware.autocast():
            logits: Tensor = network(images)
        logits = logits.float()
        best = logits.topk(min(5, logits.shape[1]), dim=1).indices
        wrong += int((best[:, 0] != labels).sum())
        wrong_5 += int((best != labels[:, None]).all(dim=1).sum())
        loss += float(cross_entropy(logits, labels, reduction="sum"))
    n = len(part)
    return {"error": wrong / n, "top5_error": wrong_5 / n, "loss": loss / n}


def _batches(n: int, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Rows of one batch after the other, for ever; a new order each epoch."""
    while True:
        order = torch.randperm(n, generator=generator)
        yield from order[: n - n % batch_size].split(batch_size)


def _optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Weight decay is for weights; biases and batch norm go without."""
    weights = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    groups = [
        {"params": weights, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.lr)
    return torch.optim.SGD(
        groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.momentum > 0
    )
