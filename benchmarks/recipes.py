"""Compares recipes: the accuracy of small networks, trained in full by each of them.

Each training is that of `evonas train`, with the validation part held out: one of three networks of
some 30,000 parameters, a recipe, and a seed. `plain` is the default recipe without mirrored images,
`+NAME` is plain with that one option, `strong` what `evonas train` adds by itself (without mixup),
and `strong+NAME` is that with one more. The table has the accuracy on validation and test images,
the mean over seeds and its standard error, in percent, and how far a recipe is from plain: the mean
difference in test accuracy over pairs with the same network and seed.

Each finished training is a line of `trainings.csv`, which a later call reads, so that only what is
missing is trained; one that was killed goes on from its last epoch.

    python benchmarks/recipes.py [--data '{name: digits}'] [--recipes plain +ema strong] [--seeds 3]
        [--epochs 30] [--images 10000] [--networks chain] [--threads 1] [--out DIR]
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evonas import config, markdown, yamlfile
from evonas.experiment import Experiment
from evonas.jobs.full_training import resume, settings_for, start
from evonas.training.recipe import STRONG

NETWORKS: dict[str, tuple[dict[str, Any], str]] = {
    "chain": (
        {"name": "chain", "stages": [[8, 2, 1], [16, 3, 2], [32, 2, 2]], "stem": 8},
        "k5e6,k3e6,k3e3,k3e3,skip,k5e6,k5e6",
    ),
    "cell": ({"name": "nasbench201", "channels": 5, "cells": 1}, "3-3-3-1-3-2"),
    "resnet": ({"name": "nasbench201", "channels": 7, "cells": 1}, "3-0-3-1-0-1"),
}
PLAIN = {"flip": False}
BY_ITSELF = {key: value for key, value in STRONG.items() if key != "mixup"}
OPTIONS: dict[str, dict[str, Any]] = {
    "warm_up": {"warm_up": 0.05},
    "label_smoothing": {"label_smoothing": 0.1},
    "ema": {"ema": 0.1},
    "crop": {"flip": None, "pad_crop": "auto"},
    "mixup": {"mixup": 0.2},
    "cutmix": {"cutmix": 1.0},
    "rand_augment": {"rand_augment": 2},
}
RECIPES: dict[str, dict[str, Any]] = {
    "plain": PLAIN,
    **{f"+{name}": {**PLAIN, **option} for name, option in OPTIONS.items()},
    "strong": BY_ITSELF,
    **{f"strong+{name}": {**BY_ITSELF, **OPTIONS[name]} for name in ("mixup", "cutmix")},
    "strong+rand_augment": {**BY_ITSELF, **OPTIONS["rand_augment"]},
    "strong+all": {**BY_ITSELF, **OPTIONS["mixup"], **OPTIONS["cutmix"], **OPTIONS["rand_augment"]},
}
KEYS = ["data", "images", "epochs", "seed", "network", "recipe"]
EXPERIMENT: dict[str, Any] = {
    "name": "recipes",
    "strategy": {"name": "random"},
    "evaluator": {"name": "train"},
    "budget": {"epochs": 1},
    "objectives": [{"name": "val_error"}],
    "stop": {"evaluations": 1},
}


def train(row: dict[str, Any], data: dict[str, Any], threads: int, folder: Path) -> dict[str, Any]:
    """Train one network in full; go on where an earlier call was killed."""
    space, genome = NETWORKS[row["network"]]
    document = {**EXPERIMENT, "space": space, "data": data}
    overrides = [
        f"recipe={json.dumps(RECIPES[row['recipe']])}",
        *(f"epochs={row['epochs']}", f"seed={row['seed']}", f"parallel.threads={threads}"),
        *([f"data.subset={row['images']}"] if row["images"] else []),
    ]
    if (folder / "training.yaml").exists():
        opened = resume(folder)
    else:
        experiment = config.check(document, Path.cwd(), Experiment)
        opened = start(settings_for(experiment, genome, overrides, Path.cwd()), folder)
    with opened as training:
        for _ in training:
            pass
        training.finish()
        val_error = training.curve[-1].val_error
    result = pd.read_csv(folder / "result.csv").iloc[0]
    return {
        **row,
        "params": int(result["params"]),
        "val_error": val_error,
        "test_error": float(result["test_error"]),
        "test_loss": float(result["test_loss"]),
        "seconds": float(pd.read_csv(folder / "timings.csv")["seconds"].sum()),
    }


def table(rows: pd.DataFrame) -> str:
    """Markdown with a line for each recipe."""
    networks = [name for name in NETWORKS if name in set(rows["network"])]
    paired = rows.pivot_table("test_error", ["network", "seed"], "recipe")
    header = ["recipe", "seeds"]
    header += [f"{name}, {part}" for name in networks for part in ("val", "test")]
    lines = []
    for recipe in (name for name in RECIPES if name in set(rows["recipe"])):
        of_recipe = rows[rows["recipe"] == recipe]
        cells = [recipe, str(of_recipe["seed"].nunique())]
        for network, part in itertools.product(networks, ("val", "test")):
            errors = of_recipe.loc[of_recipe["network"] == network, f"{part}_error"]
            cells.append(_mean_and_error(100 * (1 - errors.to_numpy()), ".2f"))
        if "plain" in paired:
            gains = 100 * (paired["plain"] - paired[recipe]).dropna()
            cells.append("" if recipe == "plain" else _mean_and_error(gains.to_numpy(), "+.2f"))
        lines.append(cells)
    return markdown.table([*header, *(["more than plain"] if "plain" in paired else [])], lines)


def _mean_and_error(values: NDArray[np.float64], form: str) -> str:
    if not len(values):
        return ""
    error = f" ± {values.std(ddof=1) / len(values) ** 0.5:.2f}" if len(values) > 1 else ""
    return f"{values.mean():{form}}{error}"


def missing(wanted: list[dict[str, Any]], done: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the trainings that are not done yet."""
    there = {tuple(map(str, row)) for row in done[KEYS].itertuples(index=False)}
    return [row for row in wanted if tuple(str(row[key]) for key in KEYS) not in there]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="{name: digits}", help="the data of an experiment, YAML")
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each")
    parser.add_argument("--epochs", type=int, default=30, help="of each training")
    parser.add_argument("--images", type=int, default=0, help="a subset of so many; by default all")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("results/recipes"), help="a folder")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    data = yamlfile.parse(given.data)
    path = given.out / "trainings.csv"
    done = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=KEYS)
    name = "-".join([data["name"], *([Path(data["path"]).stem] if "path" in data else [])])
    about = {"data": name, "images": given.images, "epochs": given.epochs}
    # All recipes and networks of a seed before the next one, so that pairs are there early.
    wanted = [
        {**about, "seed": seed, "network": network, "recipe": recipe}
        for seed, network, recipe in itertools.product(
            range(given.seeds), given.networks, given.recipes
        )
    ]
    for row in missing(wanted, done):
        folder = given.out / "-".join(str(row[key]) for key in KEYS)
        trained = pd.DataFrame([train(row, data, given.threads, folder)])
        trained.to_csv(path, mode="a", header=not path.exists(), index=False)
        shutil.rmtree(folder)
        print(*trained.iloc[0].tolist(), sep="  ", flush=True)
    rows = pd.read_csv(path)
    rows = rows[(rows[list(about)].astype(str) == pd.Series(about).astype(str)).all(axis=1)]
    images = markdown.counted(given.images, "image") if given.images else "all images"
    epochs = markdown.counted(given.epochs, "epoch")
    text = f"{name}, {images}, {epochs}; accuracies in %\n\n{table(rows)}\n"
    (given.out / f"{'-'.join(map(str, about.values()))}.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
