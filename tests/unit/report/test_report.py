"""Reports: one file that is whole, harmless and small, whatever the state of the run."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import shutil
import time
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from evonas import pareto
from evonas.cli import app
from evonas.core import UserError
from evonas.plots.inline import inline
from evonas.records.files import lock
from evonas.report import columns, page
from evonas.report.answer import open_run
from evonas.report.compare import Comparison
from evonas.report.grid import NOTHING, Shown
from evonas.report.sheets import Sheets
from genomes import Chain, Darts, Edge, Gene, Graph, Macro, NASBench201, SearchSpace
from tests.helpers import ROOT
from tests.helpers.synthetic import write_run

REFERENCE = ROOT / "results/reference/fashion_mnist"
MARKUP = "</script><script>alert(1)</script><b title='x\" onload=\"'>"
VOID = {"meta", "br", "input", "link", "img", "hr"}


class Elements(HTMLParser):
    """The elements of a page, each closed where it should be."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str]]] = []
        self.texts: dict[str, list[str]] = {}
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attributes}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attributes}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, text: str) -> None:
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(text)
            if self.open[-1] not in ("script", "style"):
                self.words.append(text)

    def named(self, attribute: str) -> list[str]:
        return [attributes[attribute] for _, attributes in self.found if attribute in attributes]

    @property
    def shown(self) -> str:
        """All texts that a reader sees."""
        return " ".join(" ".join(self.words).split())

    @property
    def data(self) -> dict[str, Any]:
        """What the page's script reads."""
        data: dict[str, Any] = json.loads(self.texts["script"][0])
        return data


def made(path: Path, **changes: Any) -> Path:
    """A run folder of some networks of NAS-Bench-201, whose settings have some more keys."""
    options: dict[str, Any] = {"generations": 6, "population": 12, "failing": 0.1}
    known = {"objectives", "finals", "seed", *options}
    options |= {key: changes.pop(key) for key in known & changes.keys()}
    write_run(path, space=NASBench201(), name="nasbench201", **options)
    settings = yaml.safe_load((path / "config.yaml").read_text())
    (path / "config.yaml").write_text(yaml.safe_dump({**settings, **changes}))
    return path


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    """A run on Fashion-MNIST that has its finals, but no weights."""
    return Path(shutil.copytree(REFERENCE / "genetic", tmp_path / "genetic"))


def test_a_page_is_well_formed_and_its_references_lead_somewhere(reference: Path) -> None:
    other = REFERENCE / "random"
    for paths in ([reference], [reference, other]):
        elements = Elements(page.page(paths))
        ids = elements.named("id")
        assert len(ids) == len(set(ids))
        for name in ("aria-labelledby", "for", "aria-describedby"):
            assert set(elements.named(name)) <= set(ids)
        links = elements.named("href")
        assert links
        assert {link.removeprefix("#") for link in links} <= set(ids)
        levels = [int(tag[1]) for tag, _ in elements.found if re.fullmatch("h[1-6]", tag)]
        assert levels[0] == levels.count(1) == 1
        assert all(b - a <= 1 for a, b in pairwise(levels))
        assert all(each.get("aria-label") for tag, each in elements.found if tag == "table")


def test_a_page_loads_nothing_and_allows_no_script_but_its_own(reference: Path) -> None:
    text = page.page([reference])
    elements = Elements(text)
    assert elements.named("src") == []
    assert all(link.startswith("#") for link in elements.named("href"))
    for attribute in ("style", "srcset", "action", "data", "poster", "background"):
        assert elements.named(attribute) == []
    assert not any(name.startswith("on") for _, each in elements.found for name in each)
    [css] = elements.texts["style"]
    assert "url(" not in css
    assert "@import" not in css
    _, script = elements.texts["script"]
    for call in ("fetch(", "XMLHttpRequest", "import(", "innerHTML", "eval(", "WebSocket"):
        assert call not in script
    addresses = set(re.findall(r"https?://[^\s\"'<>\\]+", text))
    assert addresses == {"http://www.w3.org/2000/svg"}
    [policy] = [each["content"] for _, each in elements.found if "http-equiv" in each]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none';")


def test_the_answer_is_what_the_tables_say(reference: Path) -> None:
    winner = pd.read_csv(reference / "finalists.csv").iloc[0]
    shown = Elements(page.page([reference])).shown
    assert f"{100 * (1 - winner['test_error']):.2f} %" in shown
    error, images = 100 * winner["test_error_se"], int(winner["test_images"])
    assert f"test accuracy ± {error:.2f} (standard error, {images:,} images)" in shown
    assert f"{winner['params']:,}" in shown
    assert f"{winner['flops']:,}" in shown
    assert winner["genome"] in shown
    assert "The run has ended after 10 generations, with its finals." in shown
    assert f"evonas train {reference}" in shown  # there are no weights to export
    assert "best of the first generation" in shown
    answer = open_run(reference)
    shown_front = Sheets.of(answer).front
    front = pd.read_csv(reference / "front.csv")
    assert shown_front is not None
    finalists = pd.read_csv(reference / "finalists.csv")["key"]  # some may be beside the front
    keys = [*front["key"], *finalists[~finalists.isin(front["key"])]]
    assert [row[0] for row in shown_front.rows] == [
        f"{key} *" if key == winner["key"] else key for key in keys
    ]
    losses = front[["val_error", "params"]].to_numpy()
    assert answer.knee == front["key"][pareto.knee(losses)]
    (reference / "weights").mkdir()
    (reference / "weights" / "winner.safetensors").touch()
    shown = Elements(page.page([reference])).shown
    assert f"evonas export {reference} Copy" in shown


def test_the_data_of_the_figures_are_those_of_the_tables(reference: Path) -> None:
    [run] = Elements(page.page([reference])).data["runs"]
    table = pd.read_csv(reference / "evaluations.csv")
    assert [run["keys"][i] for i in run["key"]] == table["key"].tolist()
    np.testing.assert_allclose(run["values"]["val_error"], table["val_error"], rtol=1e-6)
    assert [value - 1 for value in run["generation"]] == table["generation"].tolist()
    codes, names = run["texts"]["origin"]["codes"], run["texts"]["origin"]["names"]
    assert [names[code] for code in codes] == table["origin"].tolist()
    last = run["fronts"][-1][1]
    assert [run["keys"][run["key"][row]] for row in last] == pd.read_csv(reference / "front.csv")[
        "key"
    ].tolist()
    assert len(run["drawings"]) == len(run["keys"])
    for drawing in run["drawings"].values():
        ET.fromstring(drawing)


def test_markup_in_names_messages_genomes_and_paths_stays_text(tmp_path: Path) -> None:
    run = made(tmp_path / "a'b <i>", name=MARKUP, seed=3)
    timings = pd.read_csv(run / "timings.csv")
    bad = timings["status"].isin(["crashed", "diverged", "timeout", "out_of_memory"])
    timings["message"] = np.where(bad, MARKUP, "")
    timings.to_csv(run / "timings.csv", index=False)
    for name in ("evaluations", "front", "finalists"):
        frame = pd.read_csv(run / f"{name}.csv", dtype={"genome": str})
        frame["genome"] = MARKUP
        frame.to_csv(run / f"{name}.csv", index=False)
    text = page.page([run])
    elements = Elements(text)
    assert [tag for tag, _ in elements.found].count("script") == 2
    assert not any(tag in ("b", "i") for tag, _ in elements.found)
    assert MARKUP in elements.data["runs"][0]["messages"].values()
    assert elements.data["runs"][0]["texts"]["genome"]["names"] == [MARKUP]
    assert MARKUP not in text
    faults = Sheets.of(open_run(run)).faults
    assert faults is not None
    assert sum(int(row[2].text) for row in faults.rows if not isinstance(row[2], str)) == bad.sum()
    [heading] = elements.texts["h1"]
    assert heading == MARKUP


def test_numbers_that_are_none_are_data_too() -> None:
    values = {"a": np.array([1.5, math.nan, math.inf, -math.inf, 3.0]), "b": math.nan, "c": [True]}
    read = json.loads(columns.dumps(values))
    assert read == {"a": [1.5, None, math.inf, -math.inf, 3], "b": None, "c": [True]}
    assert json.loads(columns.dumps({"k": "</script><!--"})) == {"k": "</script><!--"}
    assert "<" not in columns.dumps({"k": "</script><!--"})
    share, size = Shown.of("val_error", [0.1, 0.2]), Shown.of("params", [1e4, 2e6])
    assert [share.text(each) for each in (0.125, math.nan)] == ["12.50 %", NOTHING]
    assert share.text(0.125, 0.011) == "12.50 ± 1.10 %"
    assert [size.text(each) for each in (30_802.0, math.inf)] == ["30,802", "inf"]


def test_infinite_and_missing_values_have_a_page(tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    table = pd.read_csv(run / "evaluations.csv", dtype={"genome": str})
    table["val_loss"] = np.inf
    table.loc[::2, "val_loss"] = np.nan
    table.to_csv(run / "evaluations.csv", index=False)
    [data] = Elements(page.page([run])).data["runs"]
    assert set(map(str, data["values"]["val_loss"])) == {"None", "inf"}


@pytest.mark.parametrize("objectives", [("val_error",), ("val_error", "params", "flops")])
def test_any_number_of_objectives_has_a_page(tmp_path: Path, objectives: tuple[str, ...]) -> None:
    elements = Elements(page.page([made(tmp_path / "run", objectives=objectives)]))
    several = len(objectives) > 1
    assert ("data-parallel" in {k for _, each in elements.found for k in each}) == several
    assert ("Knee of the front" in elements.shown) <= several
    assert elements.data["runs"][0]["objectives"] == len(objectives)


def test_a_run_without_finals_says_so(tmp_path: Path) -> None:
    run = made(
        tmp_path / "run",
        finals=False,
        data={"name": "digits"},
        stop={"generations": 9},
        finalists={"top": 3, "seeds": 2},
    )
    shown = Elements(page.page([run])).shown
    assert "The run stopped after 6 generations of 9, before its finals." in shown
    assert f"To continue: evonas resume {run}" in shown
    assert "There is no winner, for the finals have not been held." in shown
    assert "image size not on record" in shown
    with lock(run):
        shown = Elements(page.page([run])).shown
    assert "The run is going on; it has finished 6 generations of 9." in shown
    assert "Best so far" in shown


def test_a_run_without_a_generation_has_a_page(tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    for table in run.glob("*.csv"):
        table.write_text(table.read_text().splitlines(keepends=True)[0])
    (run / "timings.csv").unlink()
    elements = Elements(page.page([run]))
    assert "No generation is finished yet. To continue: evonas resume" in elements.shown
    assert elements.data["runs"][0]["rows"] == 0


def test_a_run_without_its_space_or_finals_is_told_in_part(tmp_path: Path) -> None:
    run = made(tmp_path / "run", space={"name": "nowhere.py:Mine"})
    (run / "space.json").unlink()
    (run / "timings.csv").unlink()
    [data] = Elements(page.page([run])).data["runs"]
    assert data["drawings"] == {}
    assert data["ops"] is None
    assert data["costs"] == []
    assert data["rows"] == 72


def test_the_data_sheet_counts_images_by_class_and_part(tmp_path: Path) -> None:
    run = made(tmp_path / "run", data={"name": "digits", "split_seed": 4})
    rows = [(i, i % 3, ("train", "train", "val", "test")[i % 4]) for i in range(60)]
    pd.DataFrame(rows, columns=["image", "label", "part"]).to_csv(run / "split.csv", index=False)
    parts = {"val": {"images": 15, "majority": 0.4, "shape": [1, 8, 8]}}
    (run / "environment.json").write_text(json.dumps({"parts": parts, "data": "abc"}))
    sheets = Sheets.of(open_run(run))
    facts = dict(fact[:2] for fact in sheets.data)
    assert facts["image size"] == "8 by 8, 1 channel"
    assert (facts["classes"], facts["images, train"], facts["images, test"]) == ("3", "30", "15")
    assert sheets.classes is not None
    assert [cell if isinstance(cell, str) else cell.text for cell in sheets.classes.rows[0]] == [
        *("class 0", "10", "5", "5"),
    ]


def test_ten_thousand_evaluations_are_small_and_soon_written(tmp_path: Path) -> None:
    objectives = ("val_error", "params", "flops")
    run = made(tmp_path / "run", generations=200, population=50, objectives=objectives)
    begin = time.process_time()
    file = page.write([run])
    assert time.process_time() - begin < 8
    assert file == run / "report.html"
    assert file.stat().st_size < 8e6
    assert Elements(file.read_text()).data["runs"][0]["rows"] == 10_000


def test_of_too_many_evaluations_those_that_matter_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = made(tmp_path / "run", generations=20, population=30)
    monkeypatch.setattr(columns, "MOST_ROWS", 200)
    [data] = Elements(page.page([run])).data["runs"]
    assert (data["rows"], data["of"]) == (200, 600)
    there = {data["keys"][key] for key in data["key"]}
    fronts = pd.read_csv(run / "fronts.csv")
    assert set(fronts["key"]) <= there
    first = pd.read_csv(run / "evaluations.csv").drop_duplicates("key").set_index("key")
    waiting = [data["keys"][data["winner"]]]
    while waiting:  # all ancestors
        parents = str(first["parents"].fillna("")[waiting.pop()]).split()
        assert set(parents) <= there
        waiting += [p for p in parents if first["parents"].fillna("")[p]]


def test_several_runs_are_compared_first(tmp_path: Path) -> None:
    paths = [REFERENCE / "genetic", REFERENCE / "random"]
    file = page.write(paths, tmp_path / "both.html")
    elements = Elements(file.read_text())
    assert elements.named("id").index("comparison") < elements.named("id").index("run1")
    assert "At equal cost, best val_error and hypervolume" in elements.shown
    compared = [line for line in Comparison.of(paths).text().splitlines() if line.startswith("| f")]
    assert len(compared) == 4  # two arms in two tables
    for line in compared:
        assert all(cell.strip() in elements.shown for cell in line.strip("| ").split(" | "))
    titles = [figure["title"] for figure in elements.data["compared"]]
    assert titles[0] == "Best validation error, by evaluations"
    assert len(titles) == 6  # two objectives and hypervolume, by evaluations and by epochs
    assert all(run["rows"] for run in elements.data["runs"])


def test_runs_that_cannot_be_compared_are_told_one_by_one(tmp_path: Path) -> None:
    other = made(tmp_path / "other")
    elements = Elements(page.page([REFERENCE / "genetic", other]))
    assert "The runs cannot be compared:" in elements.shown
    assert len(elements.data["runs"]) == 2


def test_a_watched_page_is_written_after_each_generation_until_the_run_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "PAUSE", 0.01)
    run = made(tmp_path / "run")
    timings = run / "timings.csv"
    lines = timings.read_text().splitlines(keepends=True)
    held = lock(run)
    watching = page.watch([run])
    file = next(watching)
    assert Elements(file.read_text()).data["refresh"] == page.SECONDS
    file.unlink()
    timings.write_text("".join([*lines, lines[-1]]))  # a generation ends
    assert next(watching) == file
    held.close()
    assert list(watching) == []
    page.write([run])
    assert Elements(file.read_text()).data["refresh"] == 0


def test_a_network_is_drawn_as_its_graph_or_as_its_genes() -> None:
    rng = np.random.default_rng(0)
    for space in (NASBench201(), Darts(), Macro(), Chain()):
        for _ in range(3):
            root = ET.fromstring(inline(space, space.sample(rng)))
            assert root.get("role") == "img"
            assert root.get("aria-label", "").startswith("The network's")

    class Odd(SearchSpace):
        def graph(self, genome: object) -> Graph:
            return Graph(("in", "<&>", "out"), (Edge("in", "out", "<op>", True),))

    odd = Odd("odd/v1", [Gene("a", ("<op>",))])
    drawing = inline(odd, odd.genome([0]))
    texts = [each.text for each in ET.fromstring(drawing).iter() if each.text]
    assert "<op>" in texts
    assert "<&>" in texts
    bare = SearchSpace("bare/v1", [Gene(f"g{i}", ("x", "y")) for i in range(60)])
    drawing = inline(bare, bare.genome([1] * 60))
    assert "and 21 more" in drawing
    cell = NASBench201().genome((0, 3, 3, 0, 1, 0))  # node 2 leads nowhere
    assert 'class="e dead"' in inline(NASBench201(), cell)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["{none}"], "{none} does not exist"),
        (["{run}", "--out", "{run}"], "is a folder; name a file with --out"),
        (["{run}", "--out", "{none}/a.html"], "cannot be written"),
        (["{damaged}"], "is damaged"),
    ],
)
def test_mistakes_are_told_in_a_line(tmp_path: Path, arguments: list[str], told: str) -> None:
    places = {name: tmp_path / name for name in ("none", "run", "damaged")}
    made(places["run"])
    made(places["damaged"])
    (places["damaged"] / "front.csv").write_text("key,genes\nA,0\n")
    words = [each.format(**places) for each in arguments]
    done = CliRunner().invoke(app, ["report", *words])
    assert done.exit_code == 2, done.output
    assert told.format(**places) in done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_says_where_the_report_is(tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    out = tmp_path / "mine.html"
    for options in ([], ["--watch"]):
        done = CliRunner().invoke(app, ["report", str(run), "--out", str(out), *options])
        assert done.exit_code == 0, done.output
        assert f"the report is in {out}" in done.stdout
        assert out.exists()
        out.unlink()


def test_a_page_needs_no_user_code(tmp_path: Path) -> None:
    run = made(tmp_path / "run", space={"name": "mine.py:Mine"})
    (run / "mine.py").write_text("raise SystemExit('imported')")
    page.write([run])


def test_other_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "training.yaml").touch()
    with pytest.raises(UserError, match="holds a full training"):
        page.page([tmp_path])
