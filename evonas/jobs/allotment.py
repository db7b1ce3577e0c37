"""How long each network of a search is trained, so that the whole run takes some hours."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from evonas import config, registry
from evonas.core import Budget, Candidate, Constraint, Objective, Params, UserError, violation
from evonas.data.dataset import DataSet, Images
from evonas.evaluators.train import TrainEvaluator, TrainParams
from evonas.experiment import ParallelParams
from evonas.jobs import machine
from evonas.jobs.estimate import STEPS, StepTimes, time_steps, time_steps_here
from evonas.protocols import Setting, TrainingSetting
from evonas.training.loop import threads
from evonas.training.recipe import Recipe
from genomes import library

TRAININGS = 60  # that a search should have, if there is time for them
EPOCHS = 30  # a longer training tells little more of a candidate; then there are more of them
LEAST_STEPS = 10
MOST_STEPS = 300  # however many epochs they are
DRAWN = 300  # networks, at most, to find some that meet the constraints
RARE = 0.5  # the share of networks within the limits up to which the search is given some
SEEDS = 10  # that a search begins with, at most
TIMED = 6  # of which as many are timed
MEASURED = 512  # validation images, at most, of a timed training


@dataclass(frozen=True, slots=True)
class Allotment:
    """What each training of a search is given.

    Attributes:
        budget: how long each network is trained.
        subset: how many images the search uses; None for all.
        seconds: how long a training takes, on average.
        seeds: networks within the limits, for the search to begin with: each of the space's named
            networks in its largest size or, in a space without any, some random ones, if most of
            its networks are not within the limits.
    """

    budget: Budget
    subset: int | None
    seconds: float
    seeds: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sizes:
    """The images of a search, as far as its time depends on them.

    Attributes:
        shape: (channels, height, width).
        train, val: the number of training and of validation images.
    """

    shape: tuple[int, int, int]
    classes: int
    train: int
    val: int


def suited_recipe(images: int, side: int) -> Recipe:
    """Return how networks are trained on images of which there are so many, of a size in pixels.

    Of few images, a large batch would make few steps.
    """
    batch = 16 if images < 600 else 32 if images < 2000 else 64
    return Recipe(lr=0.1 if batch >= 64 else 0.05, batch_size=batch, pad_crop=side // 16)


def allot(
    space: Params,
    sizes: Sizes,
    recipe: Recipe,
    constraints: Sequence[Constraint],
    hours: float,
    since: float,
    parallel: ParallelParams,
) -> Allotment:
    """Time some networks of a space on noise, and say how long each may be trained.

    Args:
        since: when the run begins, by `time.monotonic`; what has passed of it is not allotted.

    Raises:
        UserError: none of many networks meets the constraints.
        SearchFailed: no network could be trained.
    """
    resolved = machine.resolve(parallel)
    if resolved.per_device == "auto":
        resolved = resolved.model_copy(update={"per_device": 1})
    setting = Setting(
        registry.make_space(space),
        (Objective(name="val_error"), *(Objective(name=each.name) for each in constraints)),
        tuple(constraints),
        training=TrainingSetting(
            space.model_dump(exclude={"name"}),
            _noise(sizes, recipe),
            machine.hardware(resolved),
        ),
    )
    evaluator = TrainEvaluator(TrainParams(recipe=recipe), setting)
    candidates, drawn = _feasible(evaluator, constraints)
    if resolved.device == "cpu":  # to start workers would take longer than to train
        with threads(resolved.threads):
            times = time_steps_here(evaluator, candidates)
    else:
        times = time_steps(resolved, evaluator, candidates)
    # Reading the images, and starting the workers, takes about as long as this has taken.
    total, passed = 3600 * hours, time.monotonic() - since
    search = max(config.SEARCH_SHARE * total - 2 * passed, 0.2 * total)
    found = allotted(times, sizes, recipe, search * int(resolved.workers) / TRAININGS)
    seeds = _named(evaluator, constraints)
    if not seeds and len(candidates) <= RARE * drawn:
        seeds = [evaluator.space.describe(candidate.genome) for candidate in candidates]
    return replace(found, seeds=tuple(seeds[:SEEDS]))


def allotted(times: StepTimes, sizes: Sizes, recipe: Recipe, each: float) -> Allotment:
    """Return what a training of `each` seconds is given.

    Half of them, at most, are for what is not training: if all validation images took longer, the
    search has fewer images.
    """
    beside = statistics.fmean(times.seconds(None))
    step = statistics.fmean(times.seconds(Budget(steps=1))) - beside
    image = step / (3 * recipe.batch_size)  # a forward pass is a third of a step
    beside += max(sizes.val - MEASURED, 0) * image
    images, subset = sizes.train + sizes.val, None
    if sizes.val > MEASURED and beside > each / 2:
        val = max(sizes.val - int((beside - each / 2) / image), MEASURED)
        subset = round(images * val / sizes.val)
        beside -= (sizes.val - val) * image
    epoch = max(sizes.train * (subset or images) // images // recipe.batch_size, 1)
    affordable = int((each - beside) / step) if step > 0 else MOST_STEPS
    steps = max(min(affordable, max(EPOCHS * epoch, MOST_STEPS)), LEAST_STEPS)
    return Allotment(Budget(steps=steps), subset, beside + steps * step)


def _noise(sizes: Sizes, recipe: Recipe) -> DataSet:
    """Return random images of the sizes of a data set, but no more than timing needs."""
    rng = np.random.default_rng(0)

    def drawn(most: int, least: int) -> Images:
        count = max(min(most, least), sizes.classes)
        pixels = rng.integers(0, 256, (count, *sizes.shape), dtype=np.uint8)
        return Images(pixels, np.arange(count, dtype=np.int64) % sizes.classes)

    channels = sizes.shape[0]
    return DataSet(
        drawn(sizes.train, STEPS[1] * recipe.batch_size),
        drawn(sizes.val, MEASURED),
        sizes.classes,
        (127.5,) * channels,
        (74.0,) * channels,
        flippable=True,
        fingerprint=f"noise, {sizes}, {recipe.batch_size}",  # which caches go by
        class_names=tuple(map(str, range(sizes.classes))),
        values=(0.0, 255.0),
    )


def _named(evaluator: TrainEvaluator, constraints: Sequence[Constraint]) -> list[str]:
    """Return the space's named networks, each in the largest size within the limits."""
    space, found = evaluator.space, list[str]()
    for published in library.library().values():
        if published.space != space.name:
            continue
        name, largest = published.name, None
        for text in [f"{name}@{size}" for size in space.sizes] or [name]:
            try:
                genome = space.canonical(library.read(space, text))
            except ValueError:  # the space's settings leave it out
                break
            if violation(evaluator.cheap(genome), constraints):
                break
            largest = text
        found += [largest] if largest is not None else []
    return found


def _feasible(
    evaluator: TrainEvaluator, constraints: Sequence[Constraint]
) -> tuple[list[Candidate], int]:
    """Return some random networks that meet the constraints, and how many were drawn for them.

    Raises:
        UserError: none does.
    """
    rng, space = np.random.default_rng(0), evaluator.space
    found: list[Candidate] = []
    smallest = {each.name: float("inf") for each in constraints}
    drawn = 0
    while drawn < DRAWN and len(found) < TIMED:
        candidate = Candidate(space.canonical(space.sample(rng)))
        drawn += 1
        values = evaluator.cheap(candidate.genome)
        smallest = {name: min(least, values[name]) for name, least in smallest.items()}
        if not violation(values, constraints) and candidate not in found:
            found.append(candidate)
    if not found:
        told = ", ".join(f"{least:,.0f} {name}" for name, least in smallest.items())
        raise UserError(
            f"none of {DRAWN} networks of {space.name.partition('/')[0]} drawn at random is within "
            f"the limits; the least were {told}",
            hint="raise the limits, or choose another space",
        )
    return found, drawn
