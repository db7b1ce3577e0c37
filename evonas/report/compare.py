"""Runs side by side: by evaluations and by trained epochs, over seeds.

An *arm* is all runs whose settings agree, except for the seed and for what cannot change a
network's values: workers, timeout, cache, where the search stopped, finalists, and the experiment's
name. It takes that name, made unique by what differs. Runs with other objectives, another space or
other data are refused; if budget, recipe or machine differ, a note says so.

The best so far is taken for each objective by itself, so two bests need not belong to one network.
A failed or infeasible evaluation has no value but counts as an evaluation. Epochs are counted as
trained; a training taken from a cache counts as if it had been trained, so that a cache does not
flatter; one that crashed or timed out counts none, since its epochs are unknown. A band runs from
the smallest to the largest value for two to four seeds, and shows the standard error of the mean
for more; mean and band end with the arm's shortest run. Hypervolume is measured anew, from one
reference point for all runs, the worst of those recorded, and given as a share of the box between
that point and the best values of all runs: 1 would be one network that is the best in every
objective.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from evonas import files, markdown
from evonas.core import UserError
from evonas.records.guessing import AT_CHANCE
from evonas.report import attainment
from evonas.report import compare_figures as figures
from evonas.report.arms import Arm, arms_of, differing, load
from evonas.report.curves import ENOUGH_SEEDS, Band, Box, By, Curve, band, curve
from evonas.report.pairwise import Pair, pairs

TITLE = "# evonas compare"
FILES = (
    *("compare.md", "compare.csv", "pairs.csv"),
    *("best.png", "best.svg", "hypervolume.png", "hypervolume.svg"),
    *("attainment.png", "attainment.svg"),
)
Row = Mapping[str, object]  # a cell by its column
Curves = Mapping[By, Sequence[Sequence[Curve]]]  # one for each run, by arm


@dataclass(frozen=True, slots=True)
class Comparison:
    """Arms and their curves, by evaluations and, unless some run has trained no epochs, by epochs.

    Attributes:
        box: where hypervolume is measured; None if it cannot be.
    """

    arms: Sequence[Arm]
    box: Box | None
    curves: Curves

    @classmethod
    def of(cls, paths: Sequence[Path]) -> Comparison:
        """Reads run folders, finished, running or killed.

        Raises:
            UserError: they cannot be compared.
        """
        if len(paths) < 2:
            raise UserError("one run alone cannot be compared", hint="give two run folders or more")
        runs = [load(path) for path in paths]
        arms = arms_of(runs)
        box = Box.around(runs)
        return cls(arms, box, _curves(arms, box))

    def text(self) -> str:
        """The report as Markdown, with which `compare.md` begins."""
        arms, runs = self.arms, sum(len(arm.runs) for arm in self.arms)
        return "\n\n".join(
            [
                f"{TITLE}: {markdown.counted(len(arms), 'arm')}, {markdown.counted(runs, 'run')}",
                _table(self.totals()),
                f"{self.caption}:\n\n{_table(self.at_equal_cost())}",
                *self._pairs_as_text(),
                "\n".join(f"- {note}" for note in self.notes()),
            ]
        )

    def totals(self) -> list[Row]:
        """A row for each arm, at the end of its runs."""
        return _totals(self.arms, self.curves)

    @property
    def caption(self) -> str:
        """What `at_equal_cost` has."""
        name = self.arms[0].runs[0].objectives[0].name
        return f"At equal cost, best {name} and hypervolume"

    def at_equal_cost(self) -> list[Row]:
        """A row for each arm, at the point where the shortest of all runs ends."""
        return _at_equal_cost(self.arms, self.curves)

    def measure(self) -> tuple[str, By, float] | None:
        """What pairs of arms are compared by: the measure, along what, and at which cost.

        With several objectives that is hypervolume, with one its best value. Arms whose trainings
        are of different lengths are compared at equal epochs; None if these are not known.
        """
        runs = [run for arm in self.arms for run in arm.runs]
        by: By = "evaluations"
        if any(run.budgets != runs[0].budgets for run in runs):
            by = "epochs"
            if by not in self.curves:
                return None
        objectives = runs[0].objectives
        name = "hypervolume" if len(objectives) > 1 and self.box else f"best {objectives[0].name}"
        return name, by, min(each.x[-1] for of_arm in self.curves[by] for each in of_arm)

    def pairs(self) -> list[Pair]:
        """Each arm against each later one, where both have two seeds or more."""
        chosen = self.measure()
        if chosen is None:
            return []
        name, by, end = chosen
        objective = self.arms[0].runs[0].objectives[0]
        column, sign = (-1, 1.0) if name == "hypervolume" else (0, -objective.sign)
        return pairs(
            [
                np.array([sign * each.at(np.array([end]))[0, column] for each in of_arm])
                for of_arm in self.curves[by]
            ]
        )

    def _pairs_as_text(self) -> list[str]:
        chosen, compared = self.measure(), self.pairs()
        if chosen is None or not compared:
            return []
        name, by, end = chosen
        rows = [
            {
                "arm": self.arms[pair.one].name,
                "against": self.arms[pair.other].name,
                "better (A)": f"{pair.effect:.2f}",
                "p": f"{pair.p:.3g}",
                "p (Holm)": f"{pair.corrected:.3g}",
            }
            for pair in compared
        ]
        least = min(pair.least for pair in compared)
        few = f" With so few seeds no p is below {least:.2g}." if least > 0.05 else ""
        return [
            f"Pairs, by {name} at {_plain(end)} {by}: A is how likely a run of the arm is better "
            f"than one of the other, and p that of a Mann-Whitney test.{few}\n\n{_table(rows)}"
        ]

    def notes(self) -> list[str]:
        """What a reader must know to judge the tables."""
        return _notes(self)

    def bands(self) -> Mapping[By, Sequence[Band]]:
        """The mean of each arm over its seeds, with a band."""
        return {by: [band(each) for each in of_arms] for by, of_arms in self.curves.items()}

    def write(self, out: Path) -> None:
        """Writes tables and figures, in place of those of an earlier comparison.

        Raises:
            UserError: `out` holds anything but a comparison.
        """
        _check_out(out)
        arms, objectives = self.arms, self.arms[0].runs[0].objectives
        bands = self.bands()
        contents: dict[str, bytes | str] = {}
        contents["compare.md"] = f"{self.text()}\n\n{_appendix(arms, self.box)}\n"
        contents["compare.csv"] = _long(arms, self.curves)
        if compared := self.pairs():
            contents["pairs.csv"] = _pairs_as_csv(arms, compared)
        drawn = figures.best_figure(arms, bands, objectives)
        contents["best.png"], contents["best.svg"] = drawn
        if self.box is not None:
            drawn = figures.hypervolume_figure(arms, bands)
            contents["hypervolume.png"], contents["hypervolume.svg"] = drawn
        if _has_surfaces(arms):
            contents["attainment.png"], contents["attainment.svg"] = attainment.figure(arms)
        for name in FILES:
            if name in contents:
                files.write_atomic(out / name, contents[name])
            else:
                files.remove(out / name)


def _has_surfaces(arms: Sequence[Arm]) -> bool:
    """Whether there are two objectives, and some arm with several seeds that found something."""
    runs = [run for arm in arms for run in arm.runs]
    found = any(np.isfinite(run.losses).all(axis=1).any() for run in runs)
    return len(runs[0].objectives) == 2 and len(runs) > len(arms) and found


def _check_out(out: Path) -> None:
    """Makes the folder, or checks that it holds nothing but a comparison."""
    try:
        files.make_folder(out, named=True)
        names = {entry.name for entry in out.iterdir()}
        mine = not names or files.read(out / "compare.md").startswith(TITLE.encode())
    except OSError:
        mine, names = False, set()
    if not mine or names - {*FILES, *(f".{name}.part" for name in FILES)}:
        hint = "name a new or empty folder with --out"
        raise UserError("is not a folder that compare has made", hint=hint, key=str(out))


def _curves(arms: Sequence[Arm], box: Box | None) -> Curves:
    curves: dict[By, list[list[Curve]]] = {}
    bys: tuple[By, ...] = ("evaluations", "epochs")
    for by in bys:
        of_arms = [[curve(run, box, by) for run in arm.runs] for arm in arms]
        if all(each.x[-1] > 0 for of_arm in of_arms for each in of_arm):
            curves[by] = of_arms
    return curves


def _table(rows: Sequence[Row]) -> str:
    return markdown.table(list(rows[0]), [row.values() for row in rows])


def _totals(arms: Sequence[Arm], curves: Curves) -> list[Row]:
    names = [objective.name for objective in arms[0].runs[0].objectives]
    rows: list[Row] = []
    for arm, of_arm in zip(arms, curves["evaluations"], strict=True):
        runs = arm.runs
        ends = np.array([each.y[-1] for each in of_arm])
        tested = [run.tested for run in runs if run.tested is not None]
        rows.append(
            {
                "arm": arm.name,
                "n": len(runs),
                "evaluations": _mean(len(run.losses) for run in runs),
                "trained": _mean(run.trained for run in runs),
                "epochs": _mean(run.epochs.sum() for run in runs),
                "worker hours": f"{statistics.fmean(run.hours for run in runs):.3g}",
                **{f"best {name}": _mean_and_deviation(ends[:, i]) for i, name in enumerate(names)},
                "hypervolume": _mean_and_deviation(ends[:, -1]),
                "faults": _mean(run.faults for run in runs),
                "test error": _tested(tested, len(runs)),
            }
        )
    return rows


def _at_equal_cost(arms: Sequence[Arm], curves: Curves) -> list[Row]:
    name = arms[0].runs[0].objectives[0].name
    rows: list[dict[str, Any]] = [{"arm": arm.name, "n": len(arm.runs)} for arm in arms]
    for by, of_arms in curves.items():
        end = min(each.x[-1] for of_arm in of_arms for each in of_arm)
        cost = f"{_plain(end)} {by.removesuffix('s') if end == 1 else by}"
        for row, of_arm in zip(rows, of_arms, strict=True):
            values = np.array([each.at(np.array([end]))[0] for each in of_arm])
            row[f"{name}, {cost}"] = _mean_and_deviation(values[:, 0])
            row[f"hypervolume, {cost}"] = _mean_and_deviation(values[:, -1])
    return list(rows)


def _notes(comparison: Comparison) -> list[str]:
    arms = comparison.arms
    notes = [*_notes_on_seeds(arms), *_notes_on_differences(arms)]
    counts = [(arm.name, sum(run.from_cache for run in arm.runs)) for arm in arms]
    shown = ", ".join(f"{count:,} of {name}" for name, count in counts if count)
    if shown:
        notes.append(f"Trainings taken from a cache ({shown}) count, but add no worker hours.")
    if "epochs" not in comparison.curves:
        notes.append("A run has trained no epochs, so there is no comparison by epochs.")
    guessing = [str(run.path) for arm in arms for run in arm.runs if run.at_chance]
    if guessing:
        notes.append(f"The best of these runs is {AT_CHANCE}: {', '.join(guessing)}.")
    if comparison.box is None:
        notes.append("No hypervolume: some objective has no value or reference in any run.")
    notes.append(
        "All values are the search's own measurements, and the best of many is partly luck. A test "
        "error is that of the winner, trained again, on images that the search has not seen."
    )
    notes.append(
        "Counts are means per run, for the search without its finals. ± is the standard deviation "
        "over seeds, for a test error too. Two bests need not belong to one network."
    )
    return notes


def _notes_on_seeds(arms: Sequence[Arm]) -> list[str]:
    single = [arm.name for arm in arms if len(arm.runs) == 1]
    if single:
        where = "every arm" if len(single) == len(arms) else ", ".join(single)
        return [
            f"n=1 in {where}: one seed proves nothing about a strategy; "
            "other seeds may give another order."
        ]
    if any(len(arm.runs) < ENOUGH_SEEDS for arm in arms):
        return [f"Fewer than {ENOUGH_SEEDS} seeds in an arm: a difference of means may be chance."]
    return []


def _notes_on_differences(arms: Sequence[Arm]) -> list[str]:
    """Return how the arms differ in more than their strategy."""
    runs = [run for arm in arms for run in arm.runs]
    notes = []
    budgets = {arm.name: sorted({b for run in arm.runs for b in run.budgets}) for arm in arms}
    if len({budget for each in budgets.values() for budget in each}) > 1:
        shown = "; ".join(f"{name} {', '.join(each) or 'none'}" for name, each in budgets.items())
        notes.append(
            f"Fidelity differs ({shown}): best-so-far values and hypervolumes under different "
            "budgets are not comparable; test errors are, if the winners were trained alike."
        )
    settings = [arm.settings for arm in arms]
    other = [key for key in differing(settings) if not key.startswith("strategy.")]
    if other:
        shown = "; ".join(
            f"{key} {' / '.join(str(each.get(key, '-')) for each in settings)}" for key in other
        )
        notes.append(f"The arms differ in more than their strategy: {shown}.")
    lengths = [(arm.name, [len(run.losses) for run in arm.runs]) for arm in arms]
    unequal = [f"{name} {min(n):,} to {max(n):,}" for name, n in lengths if min(n) < max(n)]
    if unequal:
        notes.append(
            f"The number of evaluations differs between seeds ({'; '.join(unequal)}), as in runs "
            "that were killed or are still running; mean and band end with the shortest."
        )
    tested = [run.config.get("finalists") for run in runs if run.tested is not None]
    if any(each != tested[0] for each in tested):
        notes.append("The finals differ (top, seeds or budget), so test errors are not comparable.")
    machines = [[run.environment.get(key) for key in ("processor", "gpus")] for run in runs]
    if any(machine != machines[0] for machine in machines):
        notes.append("Worker hours come from different machines.")
    return notes


def _appendix(arms: Sequence[Arm], box: Box | None) -> str:
    """The rest of the file: figures, how things are measured, and the runs."""
    objectives = arms[0].runs[0].objectives
    lines = ["![Best so far](best.svg)", ""]
    if box is not None:
        lines += ["![Hypervolume](hypervolume.svg)", ""]
        ends = "; ".join(
            f"{o.name} from {o.sign * reference:g} to {o.sign * best:g}"
            for o, reference, best in zip(objectives, box.reference, box.best, strict=True)
        )
        lines += [f"Hypervolume is a share of the box {ends}.", ""]
    if _has_surfaces(arms):
        lines += ["![What the seeds attain](attainment.svg)", ""]
    for part in (__doc__ or "").split("\n\n")[1:]:
        lines += [" ".join(part.split()), ""]
    lines += ["Runs:", ""]
    for arm in arms:
        lines += [f"- {arm.name}, seed {run.seed}: `{run.path}`" for run in arm.runs]
    return "\n".join(lines)


def _long(arms: Sequence[Arm], curves: Curves) -> str:
    """Every run's curves as CSV, with a row wherever something changes and at the end."""
    names = [objective.name for objective in arms[0].runs[0].objectives]
    frames = []
    for by, of_arms in curves.items():
        for arm, of_arm in zip(arms, of_arms, strict=True):
            for run, each in zip(arm.runs, of_arm, strict=True):
                steps = each.steps()
                frame = pd.DataFrame(steps.y, columns=[*names, "hypervolume"])
                frames.append(frame.assign(arm=arm.name, seed=run.seed, by=by, x=steps.x))
    columns = ["arm", "seed", "by", "x", *names, "hypervolume"]
    text: str = pd.concat(frames).to_csv(index=False, columns=columns, lineterminator="\n")
    return text


def _pairs_as_csv(arms: Sequence[Arm], compared: Sequence[Pair]) -> str:
    rows = [
        {
            "arm": arms[pair.one].name,
            "against": arms[pair.other].name,
            "n_arm": len(arms[pair.one].runs),
            "n_against": len(arms[pair.other].runs),
            "effect": pair.effect,
            "p": pair.p,
            "p_holm": pair.corrected,
        }
        for pair in compared
    ]
    text: str = pd.DataFrame(rows).to_csv(index=False, lineterminator="\n")
    return text


def _tested(tested: Sequence[float], runs: int) -> str:
    """The test errors of the seeds that have a winner, as text."""
    if not tested:
        return "-"
    of = "" if len(tested) == runs else f" ({len(tested)} of {runs})"
    return f"{_mean_and_deviation(tested)}{of}"


def _mean_and_deviation(values: Iterable[float]) -> str:
    """The mean as text, with the standard deviation if there are several values."""
    numbers = [float(value) for value in values]
    if not all(map(math.isfinite, numbers)):
        return "-"
    mean = statistics.fmean(numbers)
    if len(numbers) == 1:
        return _plain(mean) if abs(mean) >= 1 else f"{mean:.4f}"
    spread = statistics.stdev(numbers)
    digits = 0 if abs(mean) >= 1000 else 2 if abs(mean) >= 10 else 4
    if digits == 4 and spread:  # enough to show the spread
        digits = min(max(digits, -math.floor(math.log10(spread))), 8)
    return f"{mean:,.{digits}f} ± {spread:,.{digits}f}"


def _mean(values: Iterable[float]) -> str:
    return _plain(round(statistics.fmean(map(float, values)), 1))


def _plain(value: float) -> str:
    return f"{int(value):,}" if float(value).is_integer() else f"{value:,.4f}".rstrip("0")
