"""`evonas show --follow`: the live view of a run that goes on in another process."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from evonas import display, yamlfile
from evonas.core import UserError
from evonas.display import Reading
from evonas.live import PAUSE, Panel, size_of
from evonas.markdown import counted
from evonas.records import tables
from evonas.records.files import is_locked
from evonas.records.folder import check_run_folder
from evonas.report.front import number


def follow(path: Path) -> None:
    """Show a run each time that its tables have grown, until no process holds its folder.

    Raises:
        UserError: it is not a run folder.
    """
    check_run_folder(path)
    before = -1
    with display.progress(path.name, "evaluations", reading(path), Panel(path)) as show_now:
        while is_locked(path):
            size = size_of(path)
            if size != before:
                before = size
                show_now()
            time.sleep(PAUSE)
    display.show_run(path)


def reading(path: Path) -> Callable[[], Reading | None]:
    """Return a reader of a run's progress from its tables, read when they have grown."""
    before, last = 0, None

    def look() -> Reading | None:
        nonlocal before, last
        size = size_of(path)
        if size != before:
            with suppress(UserError, OSError, LookupError, TypeError, ValueError):  # half written
                last, before = _reading(path), size
        return last

    return look


def _reading(path: Path) -> Reading | None:
    settings = yamlfile.read(path / "config.yaml")
    generations = tables.read(path / "generations.csv")
    if generations.empty:
        return None
    done, count = int(generations["evaluations"].sum()), len(generations)
    stop, goal = settings["stop"], settings["objectives"][0]
    ends = [stop[name] for name in ("evaluations",) if stop.get(name)]
    if stop.get("generations"):
        ends.append(round(done / count * stop["generations"]))
    best = generations[f"{goal['name']}_best"]
    best = best.min() if goal.get("goal", "min") == "min" else best.max()
    of = f"/{stop['generations']}" if stop.get("generations") else ""
    faults = int(generations["faults"].sum())
    parts = [
        f"generation {count}{of}",
        f"best {goal['name']} {number(best)}",
        *([counted(faults, "fault")] if faults else []),
    ]
    return Reading(done, min(ends, default=None), " · ".join(parts))
