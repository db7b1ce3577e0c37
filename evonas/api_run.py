"""`evonas.run`: a whole run from Python, into its folder."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from evonas import arguments, config, display, plots
from evonas.consistency import check_together
from evonas.experiment import Experiment
from evonas.jobs.search import start
from evonas.results import RunResult

log = logging.getLogger("evonas")


def run(
    experiment: Mapping[str, Any] | Path | str | Experiment,
    *,
    out: Path | str | None = None,
    seed: int | None = None,
    progress: bool = True,
) -> RunResult:
    """Run an experiment from its data to its winner, as `evonas run` does.

    Ctrl-C leaves a folder that `evonas resume` continues.

    Args:
        experiment: the path of an experiment file, or the same as a mapping. Paths in a mapping are
            relative to the working directory.
        out: the run folder; by default, `results/NAME-seedN`. It must be new or empty.
        seed: the seed of the run; by default, as in the experiment.
        progress: whether to show the progress on standard error.

    Returns:
        The tables, the winner, and its network. `evonas.RunResult(out)` returns them later.

    Raises:
        UserError: the experiment has mistakes, the data are missing, or the folder is not new.
        SearchFailed: the last evaluations all failed.
    """
    since = time.monotonic()
    settings = _settings(experiment, seed)
    default = Path("results") / f"{settings.name}-seed{settings.seed}"
    folder = default if out is None else arguments.path("out", out)
    with start(settings, folder, since) as search:
        if progress:
            display.search_shown(search)
        else:
            for _ in search:
                pass
            search.finish()
    try:
        plots.draw(folder)
    except Exception:  # the run is finished and recorded; only its figures are missing
        log.exception("figures")
    return RunResult(folder)


def _settings(experiment: Any, seed: int | None) -> Experiment:
    """Return the experiment, checked, with its seed."""
    if isinstance(experiment, Mapping):
        settings = config.check(_plain(experiment), Path.cwd(), Experiment)
        check_together(settings)
    elif isinstance(experiment, Experiment):
        settings = experiment
    elif isinstance(experiment, str | Path) and str(experiment):
        settings = config.load(Path(experiment).expanduser())
    else:
        hint = "must be a mapping with the keys of an experiment file, or the path of one"
        raise arguments.refusal("experiment", experiment, hint)
    if seed is None:
        return settings
    return settings.model_copy(update={"seed": arguments.whole("seed", seed)})


def _plain(value: Any) -> Any:
    """Return a document with lists, dictionaries and numbers as YAML has them."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(inner) for inner in value]
    if isinstance(value, Path):
        return str(value)
    with suppress(AttributeError, ValueError):  # NumPy's numbers
        return value.item()
    return value
