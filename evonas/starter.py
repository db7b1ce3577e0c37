"""The experiment that `evonas init` writes: ready to run, with each key explained."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from evonas import catalogue, plugins, registry, yamlfile
from evonas.core import Params, UserError
from evonas.data.dataset import DataParams, Packaged

MISSING = "PATH/TO/DATA"

TEMPLATE = """\
# What to search, how, and on what data. Estimate the cost, run it, and look at the results:
#   evonas estimate {file}
#   evonas run {file}
#   evonas show results/{run}-seed0
# To resume a run that was killed or interrupted: evonas resume results/{run}-seed0
# To have an editor complete and check this file: evonas schema > experiment.schema.json
# yaml-language-server: $schema=experiment.schema.json
name: {name}
seed: 0                       # another seed gives another search; all else stays the same

# The networks. `evonas list spaces` says what each space is for.
space:
  {space}

# The images. The test part is kept out of the search and measured once, at the end.
data:
  {data}
  val: 0.2                    # share for comparing candidates
  test: 0.2                   # share for testing the winner; unused if the data have a test part
  # subset: 5000              # search on fewer images; the full training uses all

# How the next candidates are found. `auto` picks a strategy by the number of objectives and the
# size of the search; the run's config.yaml says which. `evonas list strategies` lists all of them.
strategy:
  name: auto                  # or genetic, nsga2, random, ... with settings of their own
# warm_start: {{by: [nwot, synflow, jacov], pool: 300}}   # begins with the best of a random pool

# How a candidate is measured: by training from scratch, for as long as the budget allows.
evaluator:
  name: train
  recipe:
    optimizer: sgd            # or adamw, with an lr around 0.002
    lr: 0.1
    weight_decay: 5.0e-4
    schedule: cosine          # or one_cycle, constant
    batch_size: 64
    # pad_crop: auto          # random shifts by up to an eighth of the image; 0 by default
    # label_smoothing: 0.1    # more to try: warm_up, ema, rand_augment, mixup, cutmix
budget:
  epochs: 3                   # or steps, or seconds; enough to tell good from bad, no more

# What is searched for; the first objective decides the winner. `evonas list metrics` lists all.
objectives:
  - {{name: val_error, goal: min}}
  - {{name: params, goal: min}}
# metrics: [my_metrics.py:sparsity]   # functions of your own, which objectives may name
{constraints}

# hours: 1                    # for the whole run; then neither stop nor finalists.budget is needed
stop:
  evaluations: 100            # or generations, seconds, ...; may be raised on resuming
finalists:                    # the best networks, trained again before a winner is named
  top: 3
  seeds: 3
  budget: {{epochs: 10}}

# The winner on all images but the test part: evonas train results/{run}-seed0
training:
  epochs: 30
  # strong: []              # trains it just as the search did. By default, the keys that the
  #                         # recipe leaves open, of label_smoothing, warm_up, ema, pad_crop and
  #                         # mixup, are set to what suits a network trained to the end

parallel:
  workers: auto               # processes: one per core, or one per GPU
  device: auto                # cpu, cuda, or cuda:0,1
  timeout: 3600               # seconds, after which a training is ended
# cache: trainings            # found again by every run that names the same folder
# logging: [tensorboard]      # told of each result as it arrives; also mlflow, wandb, my.py:log
"""


CONSTRAINTS = """\
# constraints:                # networks with more FLOPs than this are not trained
#   - {name: flops, max: 5.0e+6}"""

SMALL: dict[str, dict[str, Any]] = {  # for a first search on a processor
    "chain": {"stages": [[8, 2, 1], [16, 3, 2], [32, 2, 2]], "stem": 8},
    "channels": {"stages": 3, "widths": [4, 8, 12, 16]},
    "darts": {"channels": 4, "cells": 3},
    "macro": {"channels": 8},
    "nasbench201": {"channels": 8, "cells": 1},
    "stages": {},
}


def starter(
    file: Path,
    data: str,
    path: str | None,
    space: str = "nasbench201",
    max_params: int | None = None,
) -> str:
    """Return the text of an experiment on a data set.

    Args:
        file: where it will be written; the run is named after it.
        path: where the data are; None for the data set's own place, or a placeholder to fill in.
        space: the name of a space, or `FILE.py:NAME`, from the working directory.
        max_params: the most parameters that a network may have.

    Raises:
        UserError: there is no such data set or space, the data set takes no path, or the space has
            no networks.
    """
    source = registry.load("data", data)  # an unknown name raises
    params = source.Params
    lines = [f"name: {data}"]
    if path is not None and not Path(path).expanduser().is_absolute():
        path = os.path.relpath(path, file.parent)  # relative to the experiment file
    packaged = isinstance(source, Packaged) and source.packaged
    if path is None and "path" in params.model_fields and not packaged:
        path = MISSING
    if path is not None:
        if "path" not in params.model_fields:
            raise UserError(f"{data} takes no path", hint="leave out --path", key="--path")
        line = f"path: {scalar(path)}"
        hint = "# where the data are, relative to this file"
        lines.append(f"{line:<28}{hint}" if path == MISSING else line)
    lines += _keys(params, {*DataParams.model_fields, "name", "path"}, {})
    constraints = CONSTRAINTS
    if max_params is not None:
        constraints = f"""\
constraints:                  # networks outside a bound are not trained
  - {{name: params, max: {max_params}}}
# - {{name: flops, max: 5.0e+6}}"""
    name = re.sub(r"[^A-Za-z0-9._-]", "-", file.stem).strip("._-") or "experiment"
    return TEMPLATE.format(
        file=file,
        name=scalar(name[:64]),
        run=name[:64],
        data="\n  ".join(lines),
        space="\n  ".join(space_lines(file, space)),
        constraints=constraints,
    )


def space_lines(file: Path, name: str, values: Mapping[str, Any] | None = None) -> list[str]:
    """Return the lines of a space.

    Args:
        values: settings that differ from those for a first search.

    Raises:
        UserError: there is no such space, or it has no networks to train.
    """
    if registry.is_own(name):
        path = os.path.relpath(plugins.anchored(name, Path.cwd()), file.absolute().parent)
        return [f"name: {scalar(path)}", "# and its settings: the other arguments of the function"]
    loaded = registry.space(name)  # an unknown name raises
    if not loaded.has_networks:
        raise UserError(
            f"{name} has no networks to train", hint="choose another space", key="--space"
        )
    purpose = catalogue.purpose("spaces", name).rstrip(".")
    lines = [f"{f'name: {name}':<27} # {purpose[:1].lower()}{purpose[1:]}"]
    return [*lines, *_keys(loaded.Params, {"name"}, {**SMALL.get(name, {}), **(values or {})})]


def _keys(
    params: type[Params], without: Collection[str], values: Mapping[str, Any]
) -> Iterator[str]:
    """Yield a line for each key, with its meaning.

    Args:
        values: those that differ from the defaults.
    """
    for key, field in params.model_fields.items():
        if key in without:
            continue
        value = values.get(key, field.default)
        text = value if isinstance(value, str) else json.dumps(value)
        meaning = " ".join((field.description or "").split()).partition(". ")[0].rstrip(".")
        yield f"{f'{key}: {text}':<27} # {meaning[:1].lower()}{meaning[1:]}"


def scalar(text: str) -> str:
    """Return a text as YAML reads it back, on one line, and in quotes only where needed."""
    try:
        plain = yamlfile.parse(f"key: {text}") == {"key": text}
    except UserError:
        plain = False
    return text if plain else json.dumps(text)
