"""The experiment for a folder of images: complete, and made to end within some hours."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import joblib

from evonas import config, registry
from evonas.core import Constraint, UserError
from evonas.data.looking import Seen, look
from evonas.experiment import ParallelParams
from evonas.jobs.allotment import Allotment, Sizes, allot, suited_recipe
from evonas.markdown import counted
from evonas.protocols import FitsImages
from evonas.starter import SMALL, scalar, space_lines

DEFAULT_SPACE = "stages"

LARGEST = 64  # pixels: more take a processor too long
SMALLER = 32  # pixels, for photographs if there is little time
LITTLE = 0.5  # hours
PHOTOGRAPHS = 64  # pixels from which on images count as photographs
READING = 0.1  # the share of the hours that reading the images may take
VAL = TEST = 0.2  # shares of the images
GIVEN_UP = 0.5  # the share of the hours after which a training is ended
STEPS = 2000  # of the winner's full training, at least

TEMPLATE = """\
# The best small network for the images in {folder}:
# {summary}.
#   evonas run {file}
# To resume a run that was killed or interrupted: evonas resume {run}
# To have an editor complete and check this file: evonas schema > experiment.schema.json
# yaml-language-server: $schema=experiment.schema.json
name: {name}
seed: {seed}                       # another seed gives another search; all else stays the same
hours: {hours:<20} # for all of it: 60 % for the search, the rest for the finals

# The networks. `evonas list spaces` says what each space is for.
space:
  {space}

# The images. The test part is kept out of the search and measured once, at the end.
data:
  name: image_folder
  path: {path}
  size: {size:<21} # pixels that each image is scaled and cropped to
  grey: {grey:<21} # true reads them without colours
  flippable: {flippable:<16} # false if left and right matter, as for letters and signs
  val: {val:<22} # share for comparing candidates
{data}
# How the next candidates are found. `auto` picks a strategy by the number of objectives and the
# size of the search; the run's config.yaml says which.
strategy:
  name: auto
{seeds}
# How a candidate is measured: by training from scratch, for as long as the budget allows.
evaluator:
  name: train
  recipe:
    lr: {lr}
    batch_size: {batch}
    pad_crop: {pad}               # pixels of random shift
budget:
  steps: {steps:<20} # {seconds}

# What is searched for; the first objective decides the winner. `evonas list metrics` lists all.
objectives:
  - {{name: val_error, goal: min}}
  - {{name: {objective}, goal: min}}
constraints:                  # networks outside a bound are not trained
{constraints}

finalists:                    # the best networks, trained again before a winner is named,
  top: 3                      # for as long as the hours allow
  seeds: 3

# The winner on all images but the test part: evonas train {run}
training:
  epochs: {epochs}

parallel:
  workers: {workers:<18} # processes: one per core, or one per GPU
  timeout: {timeout:<18} # seconds, after which a training is ended
"""


@dataclass(frozen=True, slots=True)
class Starter:
    """An experiment for a folder of images.

    Attributes:
        text: the experiment file.
        summary: what is searched with what, in a line.
    """

    text: str
    summary: str


def for_images(
    file: Path,
    folder: Path,
    limits: Mapping[str, int],
    *,
    hours: float,
    since: float,
    seed: int = 0,
    space: str = DEFAULT_SPACE,
    workers: int | None = None,
    run: Path | None = None,
) -> Starter:
    """Return an experiment on a folder of images, and look at them and at the machine for that.

    Args:
        file: where it will be written.
        limits: the most that a network may have of a metric, by its name.
        since: when the hours begin, by `time.monotonic`.
        space: the name of a space.
        workers: the number of processes; None for as many as the machine has cores or GPUs.
        run: the run folder; by default, `results/NAME-seedN`.

    Raises:
        UserError: the folder does not hold images of two or more classes, or no network is within
            the limits.
    """
    if registry.is_own(space):
        hint = f"evonas init --data image_folder --path {folder} --space {space}"
        raise UserError("cannot be a space of your own with images", hint=hint, key="--space")
    if not registry.space(space).has_networks:
        problem = f"{space} has no networks to train"
        raise UserError(problem, hint="choose another space", key="--space")
    seen = look(folder, seconds=min(0.01 * 3600 * hours, 5.0))
    at_most = _readable(seen, hours)
    images = min(seen.images, at_most or seen.images)
    size = size_for(seen.side, hours)
    recipe = suited_recipe(images, size)
    sizes = _sizes(seen, images, size)
    settings = config.component("space", "spaces", {"name": space, **SMALL.get(space, {})})
    fits = isinstance(settings, FitsImages)
    settings = settings.fitted(sizes.shape) if isinstance(settings, FitsImages) else settings
    constraints = [Constraint(name=name, max=most) for name, most in limits.items()]
    parallel = ParallelParams(workers="auto" if workers is None else workers)
    allotment = allot(settings, sizes, recipe, constraints, hours, since, parallel)
    name = name_of(folder if run is not None else file.with_suffix(""))
    run = run or Path("results") / f"{name}-seed{seed}"
    colours = "grey" if seen.grey else "in colour"
    summary = (
        f"{counted(seen.images, 'image')} of {counted(seen.classes, 'class')}, read {colours} at "
        f"{size}x{size}; a training takes about {allotment.seconds:.2g} s"
    )
    epoch = max(sizes.train // recipe.batch_size, 1)
    text = TEMPLATE.format(
        folder=_plain(str(folder)),
        summary=summary,
        file=_plain(str(file)),
        run=_plain(str(run)),
        name=scalar(name),
        seed=seed,
        hours=f"{hours:g}",
        space="\n  ".join(space_lines(file, space, dict(settings) if fits else None)),
        path=scalar(os.path.relpath(folder.absolute(), file.absolute().parent)),
        size=size,
        grey=str(seen.grey).lower(),
        flippable=str(not seen.grey).lower(),
        val=f"{VAL:g}",
        seeds=_seed_lines(allotment),
        data=_data_lines(seen, at_most, allotment),
        lr=f"{recipe.lr:g}",
        batch=recipe.batch_size,
        pad=recipe.pad_crop,
        steps=allotment.budget.steps,
        seconds=f"about {allotment.seconds:.2g} s on this machine",
        objective=next(iter(limits)),
        constraints="\n".join(f"  - {{name: {n}, max: {most}}}" for n, most in limits.items()),
        epochs=min(max(30, -(-STEPS // epoch)), 1000),
        workers="auto" if workers is None else workers,
        timeout=f"{max(GIVEN_UP * 3600 * hours, 30.0):.0f}",
    )
    return Starter(text, summary)


def limits_of(
    max_params: int | None, max_flops: int | None, max_memory: int | None = None
) -> dict[str, int]:
    """Return the limits that a user gave, by metric.

    Raises:
        UserError: there is none.
    """
    given = {"params": max_params, "flops": max_flops, "peak_memory": max_memory}
    limits = {name: most for name, most in given.items() if most is not None}
    if not limits:
        hint = "say how large a network may be, such as --max-params 50k"
        raise UserError("a limit is missing", hint=hint)
    return limits


def size_for(side: int, hours: float) -> int:
    """Return the size that images are read at: their own, up to what there is time for.

    Args:
        side: the median of their shorter sides, in pixels.
    """
    most = SMALLER if hours < LITTLE and side > PHOTOGRAPHS else LARGEST
    return max(min(side, most), 4)


def _readable(seen: Seen, hours: float) -> int | None:
    """Return how many images there is time to read; None for all of them."""
    most = int(READING * 3600 * hours * joblib.cpu_count() / max(seen.seconds, 1e-6))
    most = max(most, 20 * seen.classes)
    return most if most < seen.images else None


def _sizes(seen: Seen, images: int, size: int) -> Sizes:
    """Return how many images there are in each part, at which size."""
    untested = images * (1 - (seen.tested / seen.images if seen.tested else TEST))
    val = VAL * images if not seen.tested else VAL * untested
    shape = (1 if seen.grey else 3, size, size)
    return Sizes(shape, seen.classes, max(int(untested - val), 1), max(int(val), 1))


def _data_lines(seen: Seen, at_most: int | None, allotment: Allotment) -> str:
    lines = []
    if not seen.tested:
        lines.append(f"  test: {TEST:<21} # share for testing the winner")
    if at_most is not None:
        lines.append(f"  at_most: {at_most:<18} # images: to read all takes too long")
    if allotment.subset is not None:
        lines.append(f"  subset: {allotment.subset:<19} # images of the search: all take too long")
    return "".join(f"{line}\n" for line in lines)


def _seed_lines(allotment: Allotment) -> str:
    if not allotment.seeds:
        return ""
    seeds = "".join(f"\n    - {seed}" for seed in allotment.seeds)
    return f"  seeds:  # within the limits; the best is trained again, beside the winner{seeds}\n"


def name_of(path: Path) -> str:
    """Return the name of a run, after its folder or file."""
    name = re.sub(r"[^A-Za-z0-9._-]", "-", path.resolve().name).strip("._-")
    return name[:64] or "images"


def _plain(text: str) -> str:
    """Return a text that can stand in a comment, on one line."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
