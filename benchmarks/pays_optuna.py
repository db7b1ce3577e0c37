"""What a person writes today: Optuna's NSGA-II over a space's genes, and a plain training loop.

It has the images, the split, the learning rate, the schedule and the number of steps of evonas's
searches, in float32. It has no cache and no canonical genomes, and does not measure batch norms
anew: a network that two genomes spell is trained twice.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad
from torch.utils.data import DataLoader, Dataset, TensorDataset

from evonas import registry
from evonas.core import derive_seed
from evonas.data.dataset import Images, split
from evonas.networks.decode import decode
from genomes import Genome

if TYPE_CHECKING:
    from pays_arms import Plan


@dataclass(frozen=True, slots=True)
class Measured:
    """A network of a search.

    Attributes:
        genome: the text of its canonical genome.
        seconds: when its result was known, since the search began.
    """

    genome: str
    val_error: float
    params: int
    seconds: float


class Augmented(Dataset[tuple[Tensor, Tensor]]):
    """Images that are shifted and mirrored at random, each time they are read."""

    def __init__(self, images: Tensor, labels: Tensor, shift: int, mirrored: bool) -> None:
        self.images = pad(images, [shift] * 4)
        self.labels = labels
        self.shift = shift
        self.mirrored = mirrored
        self.height, self.width = images.shape[2:]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        down, right = torch.randint(2 * self.shift + 1, (2,)).tolist()
        image = self.images[index, :, down : down + self.height, right : right + self.width]
        if self.mirrored and torch.rand(()) < 0.5:
            image = image.flip(-1)
        return image, self.labels[index]


def search(plan: Plan, arm: str, seed: int, folder: Path) -> list[Measured]:
    """Search until the time is over; return the networks measured.

    A search that was killed begins anew, so nothing is written into the folder.
    """
    since = time.monotonic()
    torch.set_num_threads(1)
    experiment = plan.experiment({"name": "random"}, seed, stop={"evaluations": 1})
    assert experiment.data is not None
    source = registry.load("data", registry.name_of(experiment.data))(experiment.data)
    data, _ = split(source, experiment.data)
    settings = experiment.space.fitted(data.image_shape)  # type: ignore[attr-defined]  # stages has it
    space = registry.make_space(settings)
    train = Augmented(
        *tensors(data.train, data.mean, data.std),
        shift=plan.recipe["pad_crop"],
        mirrored=data.flippable,
    )
    batch = min(plan.recipe["batch_size"], len(train))
    loader = DataLoader(train, batch, shuffle=True, drop_last=True)
    val = DataLoader(TensorDataset(*tensors(data.val, data.mean, data.std)), 4 * batch)
    limit = experiment.constraints[0].max
    assert limit is not None
    found: list[Measured] = []

    def measure(trial: optuna.Trial) -> tuple[float, float]:
        choices = [trial.suggest_categorical(gene.name, gene.choices) for gene in space.genes]
        pairs = zip(space.genes, choices, strict=True)
        genes = tuple(gene.choices.index(str(choice)) for gene, choice in pairs)
        genome = Genome(space.name, genes)
        torch.manual_seed(derive_seed(seed, "optuna", trial.number))
        network = decode(
            space,
            genome,
            in_channels=data.image_shape[0],
            classes=data.classes,
            **settings.model_dump(exclude={"name"}),
        )
        params = sum(weights.numel() for weights in network.parameters())
        trial.set_constraint("params", params - limit)
        if params > limit:
            return 1.0, params  # not worth a training
        fit(network, loader, plan.recipe["lr"], plan.steps)
        val_error = error(network, val)
        text = space.describe(space.canonical(genome))
        found.append(Measured(text, val_error, params, time.monotonic() - since))
        return val_error, params

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.NSGAIISampler(population_size=10, seed=seed)
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
    study.optimize(measure, timeout=60 * plan.minutes - (time.monotonic() - since))
    return found


def tensors(part: Images, mean: tuple[float, ...], std: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """Return the normalised images of a part, and their labels."""
    images = torch.from_numpy(part.images).float()
    shape = (1, -1, 1, 1)
    images = (images - torch.tensor(mean).reshape(shape)) / torch.tensor(std).reshape(shape)
    return images, torch.from_numpy(part.labels)


def fit(
    network: nn.Module, loader: DataLoader[tuple[Tensor, Tensor]], lr: float, steps: int
) -> None:
    """Train a network for a number of steps, with a learning rate that falls as a cosine."""
    optimizer = torch.optim.SGD(
        network.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    network.train()
    done = 0
    while done < steps:
        for images, labels in loader:
            loss = cross_entropy(network(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            done += 1
            if done == steps:
                break


def error(network: nn.Module, loader: DataLoader[tuple[Tensor, ...]]) -> float:
    """Return the share of images that a network classifies wrongly."""
    network.eval()
    wrong = count = 0
    with torch.no_grad():
        for images, labels in loader:
            wrong += int((network(images).argmax(1) != labels).sum())
            count += len(labels)
    return wrong / count
