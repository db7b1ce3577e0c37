"""The finals: the best networks are trained again with other seeds, to name a winner."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evonas import files
from evonas.binomial import standard_error
from evonas.core import Budget, Evaluation, Question, SearchFailed, Status
from evonas.experiment import Experiment
from evonas.jobs.posterior import expected
from evonas.loop import Asked, Desk
from evonas.metrics import VAL_ERROR, VAL_TOP5_ERROR
from evonas.pareto import Losses, front_ranks, is_on_front, losses
from evonas.records import tables
from evonas.records.archive import Entry, budget_ranks
from evonas.records.files import weights_left
from evonas.records.guessing import guess
from evonas.records.run import RunFolder
from genomes import Genome

Test = Callable[[Genome, Path], tuple[float, int]]


@dataclass(frozen=True, slots=True)
class Finalist:
    """A network, where the search found it, and its trainings, one per seed."""

    entry: Entry
    questions: tuple[Question, ...]
    repeats: tuple[Evaluation, ...]

    def ok(self) -> list[tuple[Question, Evaluation]]:
        """Return the trainings that ended well."""
        pairs = zip(self.questions, self.repeats, strict=True)
        return [(question, e) for question, e in pairs if e.status is Status.OK]


def run_finals(folder: RunFolder, experiment: Experiment, desk: Desk, test: Test) -> None:
    """Train the finalists, test the winner, and write `finalists.csv`, unless that is done.

    The finalists are the best networks of the search (`best_of`). The winner is the one of which
    the fewest trainings failed and, among such, the one with the best mean of the first objective
    over its new seeds; the search's own training does not count, since the network was selected by
    it. The weights of the winner's best seed, by the validation images, are tested once and kept as
    `weights/winner.safetensors`. Until then, an earlier winner stays as it is.

    Args:
        test: returns the error of saved weights on the test images, and the number of these.

    Raises:
        SearchFailed: the winner's weights are missing, and its training cannot be repeated.
    """
    path = folder.path / "finalists.csv"
    if experiment.finalists.top == 0:
        return
    _write_posterior(folder, experiment, desk)
    finalists = _trained(folder, experiment, desk)  # by the journal, if it has the answers
    ranked = sorted(finalists, key=lambda finalist: _rank(finalist, experiment))
    rows = [_row(finalist, folder, experiment) for finalist in ranked]
    if ranked and ranked[0].ok():
        rows[0]["winner"] = True
    columns, winner = _columns(folder, experiment), folder.weights("winner")
    if _is_whole(folder, rows, columns):
        return
    if ranked and ranked[0].ok():
        question, best = min(
            ranked[0].ok(),
            key=lambda pair: losses([pair[1]], experiment.objectives).tolist(),
        )
        genome = best.candidate.genome
        # Those kept are of these finals if only their table is missing or damaged.
        kept = winner.exists() and not tables.outdated(folder.path)
        weights = winner if kept else weights_left(folder.path, best)
        if weights is None or not weights.exists():  # deleted after earlier finals
            again = desk.evaluate_anew(best.candidate, question.seed)
            weights = weights_left(folder.path, again)
            if weights is None:
                raise SearchFailed(
                    f"the weights of the winner, {genome.text}, are missing, and could not be "
                    f"trained again ({again.status}: {again.message or 'no weights were saved'}); "
                    "resume the run to try again"
                )
        error, images = test(genome, weights)
        rows[0] |= {
            "test_error": error,
            "test_error_se": standard_error(error, images),
            "test_images": images,
        }
        if weights != winner:
            files.copy(weights, winner)
    else:
        files.remove(winner)
    tables.write_table(path, rows, columns)
    files.remove(folder.path / tables.OUTDATED)


def _is_whole(folder: RunFolder, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> bool:
    """Return whether the table is there, undamaged and of these finals, and the winner's weights.

    The test columns, which are not in the rows, must have a value for a winner.
    """
    path = folder.path / "finalists.csv"
    if tables.outdated(folder.path) or not path.exists():
        return False
    try:
        present = tables.read_text(path)
    except ValueError:
        return False
    shared = [name for name in columns if name in present and not name.startswith("test_")]
    expected = tables.as_text(rows, columns)[shared]
    winners = present.get("winner", present.index) == "True"
    tested = present.get("test_error_se", pd.Series("", present.index))[winners].ne("").all()
    weights = folder.weights("winner").exists() or not winners.any()
    return bool(present[shared].equals(expected) and tested and weights)


def best_of(folder: RunFolder, experiment: Experiment, desk: Desk) -> list[Entry]:
    """Return the `finalists.top` best distinct networks of the largest budget, the best first.

    With `best_seed`, the best of those that the search began with follows, unless it is there.

    First come those that are on the front, or would be if their validation error were lower by one
    standard error (the rule of Breiman et al., 1984, sec. 3.4.3), in order of the objectives; which
    of them are best is for the finals to say. If there are too few, the next fronts follow.

    With `by: model`, what a model expects of a network counts instead of what was measured, and its
    standard deviation instead of the standard error.
    """
    rows, values = _measured(folder, experiment)
    model = None
    if experiment.finalists.by == "model":
        model = expected(rows, values, experiment.objectives, folder.space, _exact(desk))
    if model is None:
        near = _near_front(values, _lowered(values, folder, experiment))
    else:
        values = model.means
        near = _near_front(values, values - model.stds)
    behind = np.where(near, -1, front_ranks(values))
    order = np.lexsort((rows["key"].to_numpy(str), *values.T[::-1], behind))
    chosen = rows.iloc[order[: experiment.finalists.top]]
    if experiment.finalists.best_seed:
        seed = _best_seed(folder, experiment)
        chosen = pd.concat([chosen, seed[~seed["key"].isin(chosen["key"])]])
    entries = []
    for row in chosen.to_dict("records"):
        question = Question(row["key"], int(row["seed"]), row["budget"])
        answer = folder.journal.get(question)
        assert answer is not None, "a row's answer is journaled before the row is written"
        genome = folder.space.genome(map(int, row["genes"].split("-")))
        candidate = replace(answer.candidate, genome=genome, origin=row["origin"])
        answer = replace(answer, candidate=candidate)
        entries.append(Entry(question, answer, int(row["generation"]), int(row["index"])))
    return entries


def _best_seed(folder: RunFolder, experiment: Experiment) -> pd.DataFrame:
    """Return the row of the best network that the search began with; none if there is none."""
    rows, values = _measured(folder, experiment, origin="seed")
    return rows.iloc[np.lexsort((rows["key"].to_numpy(str), *values.T[::-1]))[:1]]


def _measured(
    folder: RunFolder, experiment: Experiment, origin: str | None = None
) -> tuple[pd.DataFrame, Losses]:
    """Return a row for each network of the largest budget, and their losses, (n, m), finite.

    Args:
        origin: that of the candidates; None for all.
    """
    rows = tables.read_text(folder.evaluations.path)
    rows = rows[rows["status"] == str(Status.OK)].drop_duplicates(["key", "budget"])
    rows = rows if origin is None else rows[rows["origin"] == origin]
    ranks = budget_ranks(rows["budget"].tolist())
    rows = rows[ranks == ranks.max(initial=0)]
    goals = experiment.objectives
    values = np.column_stack(
        [goal.sign * rows[goal.name].replace("", "nan").astype(np.float64) for goal in goals]
    )
    finite = np.isfinite(values).all(axis=1)
    return rows[finite], values[finite]


def _exact(desk: Desk) -> set[str]:
    """Return the metrics of which a network has the same value each time."""
    return {metric.name for metric in desk.evaluator.metrics if metric.cheap}


def _write_posterior(folder: RunFolder, experiment: Experiment, desk: Desk) -> None:
    """Write `posterior.csv`: what a model expects of each network; if there is none, remove it."""
    path, goals = folder.path / "posterior.csv", experiment.objectives
    rows, values = _measured(folder, experiment)
    model = expected(rows, values, goals, folder.space, _exact(desk))
    if model is None:
        files.remove(path)
        return
    frame = rows[["key", "genome", "genes", "budget"]].assign(**model.columns(goals))
    written: Any = frame.to_dict("records")
    tables.write_table(path, written, list(map(str, frame)))


def _lowered(values: Losses, folder: RunFolder, experiment: Experiment) -> Losses:
    """Return losses with errors lower by the standard error of few images."""
    val, lowered = guess(folder.path, "val"), values.copy()
    for i, goal in enumerate(experiment.objectives):
        if val is not None and goal.name in (VAL_ERROR.name, VAL_TOP5_ERROR.name):
            noise = [standard_error(abs(error), val.images) for error in values[:, i].tolist()]
            lowered[:, i] -= noise
    return lowered


def _near_front(values: Losses, lowered: Losses) -> NDArray[np.bool_]:
    """Return which networks no other dominates, were their losses `lowered`, (n,)."""
    near = np.ones(len(values), dtype=np.bool_)
    for best in np.unique(values[is_on_front(values)], axis=0):
        near &= ~((best <= lowered).all(axis=1) & (best < lowered).any(axis=1))
    return near


def final_questions(
    folder: RunFolder, experiment: Experiment, desk: Desk
) -> list[tuple[Entry, list[Asked]]]:
    """Return the finalists, each with a question per seed."""
    if experiment.finalists.top == 0:
        return []
    budget: Budget | None = experiment.finalists.budget or experiment.budget
    seeds = range(experiment.finalists.seeds)
    questions = []
    for entry in best_of(folder, experiment, desk):
        candidate = replace(entry.evaluation.candidate, origin="finalist", budget=budget)
        questions.append((entry, [desk.question(candidate, "finalist", i) for i in seeds]))
    return questions


def _trained(folder: RunFolder, experiment: Experiment, desk: Desk) -> list[Finalist]:
    questions = final_questions(folder, experiment, desk)
    answers = iter(desk.answer_all([each for _, group in questions for each in group]))
    folder.journal.sync()
    finalists = [
        Finalist(entry, tuple(each.question for each in group), tuple(islice(answers, len(group))))
        for entry, group in questions
    ]
    folder.timings.append(
        tables.timing_row("finalists", question, evaluation, None, None)
        for finalist in finalists
        for question, evaluation in zip(finalist.questions, finalist.repeats, strict=True)
    )
    return finalists


def _rank(finalist: Finalist, experiment: Experiment) -> tuple[int, list[float], str]:
    """Return a sort key: how many trainings failed, then the mean losses of the others.

    A mean over those that survived would favour a network that fails often.
    """
    ok = [e for _, e in finalist.ok()]
    means = losses(ok, experiment.objectives).mean(axis=0).tolist() if ok else []
    return len(finalist.repeats) - len(ok), means, finalist.entry.question.key


def _columns(folder: RunFolder, experiment: Experiment) -> Sequence[str]:
    first = experiment.objectives[0].name
    return (
        *("key", "genome", "genes", "origin", "seeds", "failed"),
        *folder.metrics,
        *(f"{first}_std", f"{first}_by_seed", "winner"),
        *("test_error", "test_error_se", "test_images"),
    )


def _row(finalist: Finalist, folder: RunFolder, experiment: Experiment) -> dict[str, Any]:
    """Return a row with means over the seeds that ended well, and the sample standard deviation."""
    first = experiment.objectives[0].name
    ok = [e for _, e in finalist.ok()]
    by_seed = [e.values[first] for e in ok]
    row: dict[str, Any] = {
        **tables.network_cells(finalist.entry.question, finalist.entry.evaluation, folder.space),
        "origin": finalist.entry.evaluation.candidate.origin,
        "seeds": len(finalist.repeats),
        "failed": len(finalist.repeats) - len(ok),
        f"{first}_by_seed": " ".join(map(repr, by_seed)),
        "winner": False,
    }
    for name in folder.metrics:
        values = [e.values[name] for e in ok if name in e.values]
        if values:
            same = len(set(values)) == 1
            row[name] = values[0] if same else statistics.fmean(values)
    if len(by_seed) > 1:
        row[f"{first}_std"] = statistics.stdev(by_seed)
    return row
