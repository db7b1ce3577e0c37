"""The arms of `pays.py`: what they have in common, their searches, and the final trainings."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pays_optuna
from pays_optuna import Measured

from evonas import config, pareto, registry
from evonas.consistency import check_together
from evonas.core import Constraint, SearchFailed, Status
from evonas.data.dataset import DataSet, split
from evonas.experiment import Experiment, ParallelParams
from evonas.files import write_atomic
from evonas.jobs import full_training, search
from evonas.jobs.allotment import Sizes, allot, suited_recipe
from evonas.networks.profile import profile
from evonas.protocols import FitsImages
from evonas.starter_images import GIVEN_UP
from genomes import library

MAX_PARAMS = 100_000
SPACE = {"name": "stages"}
ARMS = ("evonas", "nsga2", "random", "hand_made", "optuna")
# All of them breed, or draw, ten at a time: a search has about 60 trainings.
STRATEGIES: dict[str, dict[str, Any]] = {
    "nsga2": {"name": "nsga2", "population": 10},
    "random": {"name": "random", "population": 10},
}
HERE = {"workers": 1, "threads": 1, "device": "cpu"}


@dataclass(frozen=True, slots=True)
class Plan:
    """What all arms have in common on a data set.

    Attributes:
        source: the data of an experiment.
        subset: how many images the searches use; None for all of the source's.
        recipe, steps: how, and how long, each network of a search is trained.
        seeds: the named networks that evonas begins with.
        seconds: how long it took to find this out, which is part of evonas's time.
    """

    source: dict[str, Any]
    minutes: float
    subset: int | None
    recipe: dict[str, Any]
    steps: int
    seeds: tuple[str, ...]
    seconds: float

    @property
    def hours(self) -> float:
        """The hours of a whole run whose search takes these minutes."""
        return self.minutes / 60 / config.SEARCH_SHARE

    def experiment(self, strategy: dict[str, Any], seed: int, **others: Any) -> Experiment:
        """Return an experiment as `evonas init --images` writes it, without finals."""
        subset = {} if self.subset is None else {"subset": self.subset}
        document = {
            "name": "pays",
            "seed": seed,
            "space": SPACE,
            "data": {**self.source, **subset},
            "strategy": strategy,
            "evaluator": {"name": "train", "recipe": self.recipe},
            "budget": {"steps": self.steps},
            "objectives": [{"name": "val_error"}, {"name": "params"}],
            "constraints": [{"name": "params", "max": MAX_PARAMS}],
            "finalists": {"top": 0},
            "parallel": {**HERE, "timeout": max(GIVEN_UP * 3600 * self.hours, 30.0)},
            **others,
        }
        experiment = config.check(document, Path.cwd(), Experiment)
        check_together(experiment)
        return experiment


def plan(source: dict[str, Any], minutes: float, file: Path) -> Plan:
    """Return the plan of a data set: what `evonas init` would write for its images."""
    if file.exists():
        read = json.loads(file.read_text())
        return Plan(**{**read, "seeds": tuple(read["seeds"])})
    since = time.monotonic()
    data = images(source)
    shape, count = data.image_shape, len(data.train) + len(data.val)
    recipe = suited_recipe(count, min(shape[1:]))
    space = config.component("space", "spaces", SPACE)
    assert isinstance(space, FitsImages)
    allotment = allot(
        space.fitted(shape),
        Sizes(shape, data.classes, len(data.train), len(data.val)),
        recipe,
        [Constraint(name="params", max=MAX_PARAMS)],
        minutes / 60 / config.SEARCH_SHARE,
        since,
        ParallelParams.model_validate(HERE),
    )
    made = Plan(
        source,
        minutes,
        allotment.subset,
        {key: getattr(recipe, key) for key in ("lr", "batch_size", "pad_crop")},
        int(allotment.budget.steps or 0),
        allotment.seeds,
        time.monotonic() - since,
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, json.dumps(asdict(made), indent=2))
    return made


def images(source: dict[str, Any]) -> DataSet:
    """Return the training and validation parts of the data of an experiment."""
    params = config.component("data", "data", source)
    data, _ = split(registry.load("data", source["name"])(params), params)
    return data


def search_by(plan: Plan, arm: str, seed: int, folder: Path, record: Path) -> None:
    """Search, and record what was measured; go on where an earlier call was killed.

    The record has the time and, of each network trained within it, the genome and what it is
    worth. A search ends with the generation in which its time is over; what arrives later does not
    count.
    """
    found = pays_optuna.search if arm == "optuna" else _run
    everything = found(plan, arm, seed, folder)
    limit = float("inf") if arm == "hand_made" else 60 * plan.minutes
    in_time = [each for each in everything if each.seconds <= limit]
    seconds = max((each.seconds for each in in_time), default=0.0)
    content = {"seconds": seconds, "networks": [asdict(each) for each in in_time]}
    write_atomic(record, json.dumps(content, indent=1))


def _run(plan: Plan, arm: str, seed: int, folder: Path) -> list[Measured]:
    """Search by evonas; return the networks measured."""
    since = time.monotonic()
    if (folder / "config.yaml").exists():
        opened = search.resume(folder, since=since)
    else:
        shutil.rmtree(folder, ignore_errors=True)  # of a kill before the run had its settings
        if arm == "evonas":
            strategy = {"name": "auto", "seeds": list(plan.seeds)}
            experiment = plan.experiment(strategy, seed, hours=plan.hours)
            since -= plan.seconds
        elif arm == "hand_made":
            names = hand_made(plan.source)
            strategy = {"name": "nsga2", "population": len(names), "seeds": names}
            experiment = plan.experiment(strategy, seed, stop={"generations": 1})
        else:
            experiment = plan.experiment(STRATEGIES[arm], seed, hours=plan.hours)
        opened = search.start(experiment, folder, since=since)
    with opened as run:
        for _ in run:
            pass
        journal, space = run.folder.journal, run.parts.setting.space
        found = []
        for question in run.folder.archive.asked:
            answer = journal.get(question)
            if answer is not None and answer.status is Status.OK:
                text = space.describe(space.canonical(answer.candidate.genome))
                values = answer.values["val_error"], int(answer.values["params"])
                found.append(Measured(text, *values, journal.arrived(question)))
    return sorted(found, key=lambda each: each.seconds)


def hand_made(source: dict[str, Any]) -> list[str]:
    """Return the named networks of the space in all sizes that are within the limit."""
    data = images(source)
    params = config.component("space", "spaces", SPACE)
    assert isinstance(params, FitsImages)
    space = registry.make_space(params.fitted(data.image_shape))
    found = []
    for published in library.library().values():
        if published.space != space.name:
            continue
        for name in (f"{published.name}@{size}" for size in space.sizes):
            genome = space.canonical(library.read(space, name))
            layers = space.layers(genome, data.image_shape[0], data.classes)
            if sum(layer.weights for layer in layers) <= MAX_PARAMS:
                found.append(name)
    return found


def chosen(networks: list[dict[str, Any]], most: int, reference: float) -> list[dict[str, Any]]:
    """Return networks of the front on validation, at most so many.

    They are taken one by one, each time the one that adds most to the hypervolume of those taken
    so far or, where none adds anything, the one with the least error.

    Args:
        networks: with `genome`, `val_error` and `params`.
        reference: of the error, for the hypervolume.
    """
    # Optuna measures a network twice that it finds again.
    best = sorted(networks, key=lambda each: each["val_error"], reverse=True)
    networks = list({each["genome"]: each for each in best}.values())
    losses = np.array([[each["val_error"], np.log10(each["params"])] for each in networks])
    corner = (reference, np.log10(MAX_PARAMS))
    left = list(np.flatnonzero(pareto.is_on_front(losses))) if len(networks) else []
    taken: list[int] = []
    while left and len(taken) < most:
        gains = [pareto.hypervolume_gain(losses[taken], losses[i], corner) for i in left]
        added = max(zip(gains, left, strict=True), key=lambda pair: (pair[0], -losses[pair[1], 0]))
        taken.append(added[1])
        left.remove(added[1])
    return [networks[i] for i in taken]


def train_finally(
    plan: Plan, genome: str, seed: int, steps: int, folder: Path, record: Path
) -> None:
    """Train a network as `evonas train` does, with all images but those of validation and test.

    The record has its errors on both, its params and the seconds. An unfinished training goes on.
    """
    if (folder / "training.yaml").exists():
        opened = full_training.resume(folder)
    else:
        shutil.rmtree(folder, ignore_errors=True)
        epoch = len(images(plan.source).train) // plan.recipe["batch_size"]
        overrides = [f"epochs={max(round(steps / max(epoch, 1)), 1)}", f"seed={seed}"]
        overrides += ["parallel.threads=1"]
        if "subset" in plan.source:
            overrides.append(f"data.subset={plan.source['subset']}")
        experiment = plan.experiment({"name": "random"}, 0, stop={"evaluations": 1})
        settings = full_training.settings_for(experiment, genome, overrides, Path.cwd())
        opened = full_training.start(settings, folder)
    with opened as training:
        try:
            for _ in training:
                pass
            training.finish()
            val_error = training.curve[-1].val_error
            test_error = float(pd.read_csv(folder / "result.csv")["test_error"].iloc[0])
        except SearchFailed:  # its loss became infinite
            val_error = test_error = 1.0
        params = profile(training.network, training.data.image_shape).params
        seconds = round(sum(training.seconds), 1)
    content = {"params": params, "val_error": val_error, "test_error": test_error}
    content["seconds"] = seconds
    write_atomic(record, json.dumps(content))
    shutil.rmtree(folder)
