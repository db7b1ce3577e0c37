"""What a run has found, in words and tables: the beginning of its report."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from evonas import files, pareto
from evonas.core import FAILURES, Status
from evonas.markdown import counted, length
from evonas.metrics import COUNTED, RESERVED, TEST_ERROR
from evonas.plots import cost
from evonas.plots.style import NotYet
from evonas.plots.tables import Tables
from evonas.records import results, tables
from evonas.records.files import is_locked
from evonas.records.folder import environment
from evonas.report.grid import NOTHING, Shown


class Fact(NamedTuple):
    """A name, what is to be said of it, and under which conditions it holds."""

    name: str
    text: str
    condition: str = ""


class Test(NamedTuple):
    """A test error, its standard error, and after which training, if not after the finals."""

    error: float
    spread: float
    after: str

    @property
    def text(self) -> str:
        return Shown.of(TEST_ERROR.name, [0, 1]).text(self.error, self.spread)


@dataclass(frozen=True, slots=True)
class Card:
    """A network that the run proposes.

    Attributes:
        score: its best measure, large, such as a test accuracy.
        scored: what the score is.
        command: what exports or trains it; "" if nothing does.
        note: what to know of the command.
    """

    title: str
    key: str
    genome: str
    score: str
    scored: str
    facts: Sequence[Fact]
    command: str
    note: str


class Answer:
    """What the tables of a run say, whether it is running, finished or killed."""

    def __init__(self, of: Tables) -> None:
        self.tables = of
        self.path = of.path
        self.settings = of.settings

    def read(self) -> None:
        """Work everything out now, so that whoever shows it meets no damaged table."""
        for name in ("state", "notes", "cards", "costs"):
            getattr(self, name)

    @property
    def name(self) -> str:
        return str(self.settings.get("name", self.path.name))

    @property
    def subtitle(self) -> str:
        """What was searched, how, and with which seed."""
        names = [_name(self.settings, part) for part in ("data", "space", "strategy")]
        seed = self.settings.get("seed")
        return " · ".join(filter(None, [*names, "" if seed is None else f"seed {seed}"]))

    @property
    def running(self) -> bool:
        """Whether a process holds the folder."""
        return is_locked(self.path)

    @cached_property
    def candidates(self) -> pd.DataFrame | None:
        """One row for each candidate; None while there are none."""
        try:
            return self.tables.candidates
        except NotYet:
            return None

    @cached_property
    def networks(self) -> pd.DataFrame:
        """What is known of front and finalists, by key (`results.networks`); empty before that."""
        if self.candidates is None or not (self.path / "front.csv").exists():
            return pd.DataFrame()
        return results.networks(self.path).set_index("key", drop=False)

    @cached_property
    def finals(self) -> pd.DataFrame:
        try:
            return self.tables.finals
        except NotYet:
            return pd.DataFrame()

    @cached_property
    def shown(self) -> dict[str, Shown]:
        """The metrics of the search by name, objectives first."""
        frame = self.candidates
        if frame is None:
            return {}
        goals = {objective.name: objective.goal for objective in self.tables.objectives}
        known = {*RESERVED, *goals}
        others = [str(name) for name in frame if name not in known and not frame[name].isna().all()]
        return {
            name: Shown.of(name, frame[name].to_numpy(dtype=np.float64), goals.get(name, ""))
            for name in (*goals, *others)
            if name in frame
        }

    @cached_property
    def winner(self) -> str:
        """The key of the winner or, before there is one, of the best so far; "" without any."""
        try:
            return self.tables.winner.key
        except NotYet:
            return ""

    @property
    def won(self) -> bool:
        """Whether the finals have named a winner."""
        try:
            return self.tables.winner.final
        except NotYet:
            return False

    @property
    def word(self) -> str:
        """What the network is that `winner` names."""
        return "winner" if self.won else "best so far" if self.running else "best"

    @cached_property
    def knee(self) -> str:
        """The key of the front's knee; "" if it has none."""
        names = [objective.name for objective in self.tables.objectives]
        if len(names) < 2 or self.networks.empty:
            return ""
        front = self.networks[self.networks["on_front"]]
        signs = [objective.sign for objective in self.tables.objectives]
        losses = front[names].to_numpy(dtype=np.float64) * signs
        if len(front) < 3 or not np.isfinite(losses).all():
            return ""
        return str(front.index[pareto.knee(losses)])

    @cached_property
    def state(self) -> str:
        """Where the run stands, in one sentence."""
        frame = self.candidates
        generations = 0 if frame is None else int(frame["generation"].nunique())
        after = f"after {counted(generations, 'generation')}"
        limit = (self.settings.get("stop") or {}).get("generations")
        of = f" of {limit:,}" if isinstance(limit, int) else ""
        if self.running:
            return f"The run is going on; it has finished {counted(generations, 'generation')}{of}."
        if frame is None:
            return f"No generation is finished yet. To continue: {self._command('resume')}"
        if tables.outdated(self.path):
            return (
                "The finals are those of an earlier stop: the search has gone on since. To hold "
                f"them again: {self._command('resume')}"
            )
        if len(self.finals):
            return f"The run has ended {after}, with its finals."
        if self._holds_finals:
            onward = self._command("resume")
            return f"The run stopped {after}{of}, before its finals. To continue: {onward}"
        if generations == limit:
            return f"The run has ended {after}."
        return f"The run has {counted(generations, 'generation')}{of}."

    @cached_property
    def notes(self) -> list[str]:
        """What a reader must know to judge the numbers."""
        notes = []
        if verdict := self.tables.verdict:
            notes.append(f"{verdict[:1].upper()}{verdict[1:]}.")
        if self.candidates is None:
            return notes
        if not (self.candidates["status"] == str(Status.OK)).any():
            notes.append("No evaluation has succeeded; what failed, and why, is under cost.")
        if not self.settings.get("data"):
            notes.append(
                "Nothing was trained in this run: values come from a table or a formula, so there "
                "are no finals, no test score and no weights."
            )
        elif self.finals.empty or not self.finals["winner"].any():
            why = "the finals have not been held" if self.finals.empty else "all finalists failed"
            if not self._holds_finals:
                why = "this run holds no finals"
            notes.append(
                f"There is no winner, for {why}. The values are those that the search measured, "
                "and the best of many is partly luck; none has a test score."
            )
        elif TEST_ERROR.name not in self.finals:
            notes.append("The winner was not tested: the data have no test part.")
        if self.tables.scored:
            notes.append(f"The search scored its networks {self.tables.scored}.")
        if not environment(self.path).get("deterministic", True):
            notes.append("The run is not reproducible: some rows depend on time or memory limits.")
        return notes

    @cached_property
    def cards(self) -> list[Card]:
        """The winner, or the best so far, and the knee of the front."""
        cards = []
        if self.winner in self.networks.index:
            title = self.word.capitalize()
            if self.knee == self.winner:
                title += ", and the knee of the front"
            cards.append(self._card(title, self.winner, "" if self.won else "best"))
        if self.knee and self.knee != self.winner:
            cards.append(self._card("Knee of the front", self.knee, "knee"))
        return cards

    @cached_property
    def costs(self) -> list[Fact]:
        """What the search has cost."""
        frame = self.candidates
        if frame is None:
            return []
        facts = [
            Fact("evaluations", f"{len(frame):,}"),
            Fact("generations", f"{frame['generation'].nunique():,}"),
            Fact("different networks", f"{frame['key'].nunique():,}"),
        ]
        try:
            timings = self.tables.timings
        except NotYet:
            return facts
        spent = timings[~timings["from_cache"]]
        what = "training" if self.settings.get("data") else "measurement"
        for phase, title in (("search", "search"), ("finalists", "finals")):
            some = spent[spent["phase"] == phase]
            if len(some):
                time = cost.duration(some["seconds"].sum())
                facts.append(Fact(f"worker time, {title}", time, counted(len(some), what)))
        if len(timings) > len(spent):
            facts.append(Fact("taken from a cache", f"{len(timings) - len(spent):,}"))
        failed = int(timings["status"].isin(FAILURES).sum()) if "status" in timings else 0
        facts.append(Fact("faults", f"{failed:,}" if failed else "none"))
        return facts

    def values(self, key: str) -> dict[str, float]:
        """What the search measured of a network, with the largest budget: its last good row."""
        values = dict.fromkeys(self.shown, math.nan)
        frame = self.candidates
        assert frame is not None
        rows = frame[(frame["key"] == key) & (frame["status"] == str(Status.OK))]
        if len(rows):
            values = {name: float(rows[name].iloc[-1]) for name in values}
        if key in self.networks.index:
            row = self.row(key)
            values |= {name: float(row[name]) for name in values if name in row}
        return values

    def row(self, key: str) -> Any:
        """What is known of a network of the front, or a finalist: values by name."""
        return self.networks.loc[key]

    def facts(self, key: str) -> list[Fact]:
        """What finals, a model and full trainings say of a network beyond the search."""
        if key not in self.networks.index:
            return []
        row, first = self.row(key), self.tables.objectives[0].name
        shown = self.shown[first]

        def number(name: str) -> float:
            return float(row.get(name, math.nan))

        facts = []
        if not math.isnan(number(f"finals_{first}")):
            told = shown.text(number(f"finals_{first}"), number(f"finals_{first}_std"))
            facts.append(Fact(f"{shown.label}, finals", told, self._over(key)))
        if not math.isnan(number(f"model_{first}")):
            told = shown.text(number(f"model_{first}"), number(f"model_{first}_std"))
            facts.append(Fact(f"{shown.label}, model", told, "expected from all trainings"))
        facts += [
            Fact("test error", test.text, f"± standard error{test.after}")
            for test in self.tests(key)
        ]
        return facts

    def tests(self, key: str) -> list[Test]:
        """What is known of a network on the test images, from the finals and a full training."""
        if key not in self.networks.index:
            return []
        row, tests = self.row(key), []
        for source in ("finals", "full"):
            error = float(row.get(f"{source}_test_error", math.nan))
            if not math.isnan(error):
                after = ""
                if source == "full":
                    after = f", after a full training{length({'epochs': int(row['full_epochs'])})}"
                tests.append(
                    Test(error, float(row.get(f"{source}_test_error_se", math.nan)), after)
                )
        return tests

    def _card(self, title: str, key: str, word: str) -> Card:
        values, row = self.values(key), self.row(key)
        tests = self.tests(key)
        if not tests:
            score, scored = self._score(key)
        else:
            error, spread, after = tests[0]
            score = f"{100 * (1 - error):.2f} %"
            images = row.get("finals_test_images", math.nan)
            of = "" if after or math.isnan(images) else f", {counted(int(images), 'image')}"
            scored = f"test accuracy ± {100 * spread:.2f} (standard error{of}){after}"
        search = f"in the search{length(self.settings.get('budget'))}"
        sizes = {metric.name for metric in COUNTED}
        facts = [
            Fact(self.shown[name].label, self.shown[name].text(values[name]))
            for name in self.shown
            if name in sizes
        ]
        facts += [
            Fact(self.shown[name].label, self.shown[name].text(values[name]), search)
            for name in self.shown
            if self.shown[name].goal and name not in sizes
        ]
        above = f"± standard error{tests[0].after}" if tests else ""  # it is the score
        facts += [fact for fact in self.facts(key) if fact.condition != above]
        genome, born = self._birth(key)
        facts.append(born)
        return Card(title, key, genome, score, scored, facts, *self._onward(key, word))

    def _score(self, key: str) -> tuple[str, str]:
        """Return the first objective of a network without a test, and what it is.

        It is the mean of the finals where there are any; an error is told as an accuracy.
        """
        first = self.tables.objectives[0].name
        shown, value = self.shown[first], self.values(key)[first]
        of = "as the search measured it"
        final = float(self.row(key).get(f"finals_{first}", math.nan))
        if not math.isnan(final):
            value, of = final, f"in the finals{self._over(key, ', ')}"
        if shown.share and shown.label.endswith("error"):
            return shown.text(1 - value), f"{shown.label.removesuffix('error')}accuracy, {of}"
        return shown.text(value), f"{shown.label}, {of}"

    def _over(self, key: str, before: str = "") -> str:
        """Return over how many seeds the finals have a mean, and how long they trained."""
        seeds = float(self.row(key).get("finals_seeds", math.nan))
        if math.isnan(seeds):
            return ""
        limits = (self.settings.get("finalists") or {}).get("budget")
        return f"{before}mean of {counted(int(seeds), 'seed')}{length(limits)}"

    def _birth(self, key: str) -> tuple[str, Fact]:
        """Return the genome of a network's first evaluation, and when and how it came about."""
        assert self.candidates is not None
        rows = self.candidates[self.candidates["key"] == key]
        if rows.empty:
            return key, Fact("first tried", NOTHING)
        first = rows.iloc[0]
        born = Fact("first tried", f"generation {first['generation'] + 1}", str(first["origin"]))
        return str(first["genome"]), born

    def _onward(self, key: str, word: str) -> tuple[str, str]:
        """Return the command that makes a network usable, and what to know of it."""
        which = f" --genome {word}" if word else ""
        if not self.settings.get("data"):
            draw = self._command("show", f"{which or ' --genome best'} --draw network.svg")
            return draw, "Draws it. Nothing was trained, so there are no weights to export."
        weights = [f"weights/{files.short(key)}.safetensors"]
        weights += [] if word else ["weights/winner.safetensors"]
        if any((self.path / name).exists() for name in weights):
            told = "Exports it as plain PyTorch; add --format onnx for ONNX."
            return self._command("export", which), told
        return (
            self._command("train", which),
            "Trains it in full; this folder has no weights of it to export.",
        )

    def _command(self, command: str, more: str = "") -> str:
        own = environment(self.path).get("plugins", {})
        options = "".join(f" --plugin {shlex.quote(str(file))}" for file in own)
        return f"evonas {command} {shlex.quote(str(self.path))}{more}{options}"

    @property
    def _holds_finals(self) -> bool:
        finalists = self.settings.get("finalists")
        return bool(isinstance(finalists, Mapping) and finalists.get("top"))


def _name(settings: Mapping[str, Any], part: str) -> str:
    section = settings.get(part)
    return str(section.get("name", "")) if isinstance(section, Mapping) else ""


def open_run(path: Path) -> Answer:
    """Read a run folder, finished, running or killed.

    Raises:
        UserError: it is not a run folder.
    """
    return Answer(Tables(path))
