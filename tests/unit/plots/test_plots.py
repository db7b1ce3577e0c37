"""Figures: what they show, beside each as a table, and that they stand whatever the folder."""

from __future__ import annotations

import json
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image
from typer.testing import CliRunner

from evonas import plots, registry
from evonas.cli import app
from evonas.core import Objective, UserError
from evonas.plots import FIGURES
from evonas.plots.ancestry import _scale as colour_ends
from evonas.plots.cell import _drawn, draw_cell
from evonas.plots.style import NotYet, styled
from evonas.plots.tables import Tables
from genomes import (
    Chain,
    Channels,
    Edge,
    Gene,
    Genome,
    Graph,
    Macro,
    NASBench201,
    SearchSpace,
)
from tests.helpers.synthetic import Long, write_run

SPACE = NASBench201()
CONFIG = """
space: {name: nasbench201}
objectives:
- {name: val_error, goal: min, reference: 1.0}
- {name: params, goal: min, reference: 100.0}
"""
# Two genes of three choices; generations of three and of four. The networks are A to F.
EVALUATIONS = """\
generation,index,key,genome,genes,parents,origin,budget,seed,status,cached,deterministic,val_error,params
0,0,A,,0-0,,sampled,,1,ok,False,True,0.5,10
0,1,B,,0-1,,sampled,,2,ok,False,True,0.3,30
0,2,C,,2-2,,sampled,,3,diverged,False,True,,
1,3,D,,0-2,A B,crossover,,4,ok,False,True,0.2,20
1,4,B,,0-1,B,mutation,,2,ok,True,True,0.3,30
1,5,E,,1-2,B,mutation,,5,crashed,False,True,,
1,6,F,,0-2,A C,crossover,,6,ok,False,True,0.6,40
"""
GENERATIONS = """\
generation,evaluations,trained,hits,faults,diverged,out_of_memory,timeout,crashed,infeasible,val_error_best,diversity,distinct,front_size,hypervolume
0,3,3,0,1,1,0,0,0,0,0.3,1.5,3,2,60.0
1,4,3,1,1,0,0,0,1,0,0.2,1.2,4,2,70.0
"""
FRONTS = """\
generation,key,val_error,params
0,B,0.3,30
0,A,0.5,10
1,D,0.2,20
1,A,0.5,10
"""
TIMINGS = """\
phase,generation,index,key,seed,budget,status,attempts,worker,started,seconds,training_seconds,epochs,steps,message
search,0,0,A,1,,ok,1,9,1.0,2.5,2,1,1,
search,0,1,B,2,,ok,1,9,1.0,1.5,1,1,1,
search,0,2,C,3,,diverged,1,9,1.0,1.0,1,1,1,no
search,1,3,D,4,,ok,1,9,1.0,4.0,2,1,1,
search,1,5,E,5,,crashed,1,9,1.0,0.5,0,0,0,no
search,1,6,F,6,,ok,1,9,1.0,8.0,2,1,1,
finalists,,,D,7,,ok,1,9,1.0,9.0,2,1,1,
"""
SPACE_JSON = """
{"genes": [{"name": "left", "choices": ["a", "b", "c"]},
           {"name": "right", "choices": ["a", "b", "c"]}]}
"""


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run written by hand."""
    folder = tmp_path / "run"
    folder.mkdir()
    for name, text in {
        "config.yaml": CONFIG,
        "evaluations.csv": EVALUATIONS,
        "generations.csv": GENERATIONS,
        "fronts.csv": FRONTS,
        "timings.csv": TIMINGS,
        "front.csv": "key,genes\nD,0-2\nA,0-0\n",
        "space.json": SPACE_JSON,
    }.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def long_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("long") / "run"
    write_run(path, space=SPACE, name="nasbench201", generations=25, population=16, failing=0.2)
    return path


@pytest.fixture(scope="module")
def drawn(long_run: Path) -> plots.Drawn:
    return plots.draw(long_run)


@pytest.fixture
def unsaved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes all figures, but renders and writes none, which takes most of the time."""
    monkeypatch.setattr(plots, "save", lambda drawing, folder, name, *, pdf: [])


def figure(run_dir: Path, name: str) -> Figure:
    with styled():
        return FIGURES[name](Tables(run_dir)).figure


def data(run_dir: Path, name: str) -> pd.DataFrame:
    with styled():
        return FIGURES[name](Tables(run_dir)).data


def texts(drawn: Figure) -> list[tuple[str, Bbox]]:
    """All that is written when a figure is drawn, and where."""
    written: list[Text] = []
    draw = Text.draw

    def noted(text: Text, renderer: RendererBase, *rest: object) -> None:
        if text.get_visible() and text.get_text().strip():
            written.append(text)
        draw(text, renderer, *rest)

    with styled(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(Text, "draw", noted)
        canvas = FigureCanvasAgg(drawn)
        canvas.draw()
        renderer = canvas.get_renderer()
        return [(text.get_text(), text.get_window_extent(renderer)) for text in written]


def heading(drawn: Figure) -> str:
    return drawn.legends[0].get_title().get_text()


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ("evaluator: {name: train}\ndata: {name: digits}\n", "trained"),
        ("evaluator: {name: supernet}\ndata: {name: digits}\n", "scored"),
        ("evaluator: {name: proxy}\ndata: {name: digits}\n", "scored"),
        ("evaluator: {name: tabular}\n", "measured"),
    ],
)
def test_costs_are_told_in_words_that_are_true(run_dir: Path, settings: str, word: str) -> None:
    (run_dir / "config.yaml").write_text(CONFIG + settings)
    words = {text for text, _ in texts(figure(run_dir, "cost"))}
    assert words & {"trained", "scored", "measured"} == {word}


def test_every_figure_is_a_png_of_print_quality_an_svg_and_a_table(drawn: plots.Drawn) -> None:
    assert set(drawn.figures) == set(FIGURES)
    assert not drawn.skipped
    held = {path.name for path in drawn.folder.iterdir()}
    assert held == {f"{name}.{kind}" for name in FIGURES for kind in ("png", "svg", "csv")}
    for name in FIGURES:
        with Image.open(drawn.folder / f"{name}.png") as image:
            assert image.format == "PNG"
            assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)
            assert image.width >= 3.35 * 300 - 1
            assert np.ptp(np.asarray(image.convert("L"))) > 200  # something is drawn
        assert ET.parse(drawn.folder / f"{name}.svg").getroot().tag.endswith("svg")
        assert len(pd.read_csv(drawn.folder / f"{name}.csv")) > 0


def test_drawn_again_they_have_the_same_bytes(
    drawn: plots.Drawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("front", "ancestry", "cost")  # dots and hatches, curves and markers, bars
    monkeypatch.setattr(plots, "FIGURES", {name: FIGURES[name] for name in names})
    before = {path: path.read_bytes() for name in names for path in drawn.folder.glob(f"{name}.*")}
    assert len(before) == 9
    plots.draw(drawn.folder.parent)
    for path, content in before.items():
        assert path.read_bytes() == content, path.name


def test_a_pdf_has_its_fonts_in_it_and_is_drawn_anew_with_the_others(drawn: plots.Drawn) -> None:
    path = drawn.folder / "cost.pdf"
    plots.draw(drawn.folder.parent, ["cost"], pdf=True)
    content = path.read_bytes()
    assert content.startswith(b"%PDF")
    assert b"/FontFile2" in content  # TrueType
    assert b"/Type3" not in content
    path.write_bytes(b"an older one")
    plots.draw(drawn.folder.parent, ["cost"])
    assert path.read_bytes() == content
    path.unlink()


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_is_written_outside_a_figure_or_over_something_else_or_data(
    long_run: Path, name: str
) -> None:
    drawn = figure(long_run, name)
    written = texts(drawn)
    assert_within(drawn, written)
    for i, (text, box) in enumerate(written):
        for other, there in written[i + 1 :]:
            assert not box.padded(-0.5).overlaps(there.padded(-0.5)), (text, other)
    legends = [*drawn.legends, *(ax.get_legend() for ax in drawn.axes if ax.get_legend())]
    assert bool(legends) == (name in ("objectives", "front", "cost", "ancestry"))
    for legend in legends:
        for ax in drawn.axes:
            assert not legend.get_window_extent().overlaps(ax.bbox), ax.get_ylabel()


def assert_within(drawn: Figure, written: list[tuple[str, Bbox]]) -> None:
    assert written
    page = drawn.bbox.padded(1)
    for text, box in written:
        assert page.x0 <= box.x0 < box.x1 <= page.x1, text
        assert page.y0 <= box.y0 < box.y1 <= page.y1, text


def test_the_longest_names_stay_within_the_figure(tmp_path: Path) -> None:
    names = ("val_top5_error", "flops")
    path = tmp_path / "run"
    write_run(path, space=SPACE, name="nasbench201", generations=3, population=6)
    for table in path.iterdir():  # the synthetic tables know no such names
        content = table.read_text().replace("val_error", names[0]).replace("params", names[1])
        table.write_text(content)
    finals = pd.read_csv(path / "finalists.csv").assign(val_top5_error_std=0.1)
    finals.to_csv(path / "finalists.csv", index=False)
    config = yaml.safe_load((path / "config.yaml").read_text())
    limits = [{"name": each, "min": 1e-5, "max": 1.5e9} for each in (*names, "val_error")]
    config |= {"name": "experiment_" * 9 + "$x$", "seed": 2**62, "constraints": limits}
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    for name in ("objectives", "front", "hypervolume"):
        drawn = figure(path, name)
        assert_within(drawn, texts(drawn))


def test_objectives_are_counted_over_what_ended_well(run_dir: Path) -> None:
    found = data(run_dir, "objectives").set_index(["objective", "generation"])
    error = found.loc["val_error"]
    assert error["count"].tolist() == [2, 3]
    assert error["best"].tolist() == [0.3, 0.2]
    assert error["mean"].tolist() == pytest.approx([0.4, 1.1 / 3])
    assert error["p10"].tolist() == pytest.approx([0.32, 0.22])
    assert error["p90"].tolist() == pytest.approx([0.48, 0.54])
    assert error["best_so_far"].tolist() == [0.3, 0.2]
    assert found.loc["params"]["best"].tolist() == [10, 20]
    assert found.loc["params"]["best_so_far"].tolist() == [10, 10]


def test_the_best_of_an_objective_to_maximise_is_the_highest(run_dir: Path) -> None:
    config = run_dir / "config.yaml"
    config.write_text(config.read_text().replace("val_error, goal: min", "val_error, goal: max"))
    found = data(run_dir, "objectives").set_index(["objective", "generation"]).loc["val_error"]
    assert found["best"].tolist() == [0.5, 0.6]
    assert found["best_so_far"].tolist() == [0.5, 0.6]


def test_the_front_says_when_each_network_came_onto_it_and_which_has_won(run_dir: Path) -> None:
    found = data(run_dir, "front").set_index("key")
    assert set(found.index) == {"A", "B", "D", "F"}
    assert found["front_from"].dropna().to_dict() == {"A": 0, "B": 0, "D": 1}
    assert found.index[found["on_last_front"]].tolist() == ["A", "D"]
    assert found.index[found["winner"]].tolist() == ["D"]


def test_the_last_staircase_is_what_the_last_front_dominates(run_dir: Path) -> None:
    (ax, *_) = figure(run_dir, "front").axes
    last = [line for line in ax.lines if line.get_drawstyle() == "steps-post"][-1]
    assert np.asarray(last.get_xdata()).tolist() == [0.2, 0.5]
    assert np.asarray(last.get_ydata()).tolist() == [20, 10]
    assert last.get_drawstyle() == "steps-post"  # along the worse x until y gets better


FINALS = """\
key,genome,genes,seeds,failed,val_error,params,val_error_std,winner,test_error,test_error_se
F,,0-2,3,0,0.05,40,0.01,True,0.1,0.02
D,,0-2,3,0,0.08,20,0.01,False,,
"""


def confirmed(run_dir: Path) -> Path:
    """The run after its finals, with constraints, and its winner trained in full beside it."""
    data = "data: {name: digits}\n"
    run = f"{CONFIG}{data}name: mine\nseed: 7\nbudget: {{epochs: 2}}\n"
    limits = "constraints: [{name: params, max: 35}, {name: flops, max: 9000}]\n"
    (run_dir / "config.yaml").write_text(run + limits)
    (run_dir / "finalists.csv").write_text(FINALS)
    for name, epochs, error, space in (
        *(("run-F", 30, 0.01, "nasbench201"), ("short", 3, 0.9, "nasbench201")),
        ("other", 99, 0.5, "darts"),
    ):
        folder = run_dir.parent / name
        folder.mkdir()
        (folder / "training.yaml").write_text(f"space: {{name: {space}}}\n{data}")
        (folder / "result.csv").write_text(
            f"key,epochs,test_error,test_error_se,test_images\nF,{epochs},{error},0.001,360\n"
        )
    return run_dir


def test_the_front_shows_finals_and_full_training_beside_what_the_search_measured(
    run_dir: Path,
) -> None:
    drawn = figure(confirmed(run_dir), "front")
    found = data(run_dir, "front")
    assert found["key"].is_unique
    found = found.set_index("key")
    assert found.loc["F", ["val_error", "finals_val_error", "finals_val_error_std"]].tolist() == [
        *(0.6, 0.05, 0.01)
    ]
    assert found.loc["F", ["full_epochs", "full_test_error"]].tolist() == [30, 0.01]
    assert found["full_test_error"].notna().sum() == 1
    (ax, *_) = drawn.axes
    marked = {
        str(line.get_marker()): [*zip(*map(list, line.get_data()), strict=True)]
        for line in ax.lines
        if line.get_linestyle() == "None"
    }
    assert sorted(marked["D"]) == [(0.05, 40), (0.08, 20)]
    assert marked["s"] == [(0.01, 40)]
    assert marked["*"] == [(0.05, 40)]  # the star is where the finals put the winner
    assert 35 in [line.get_ydata()[0] for line in ax.lines]  # the constraint on this axis
    written = [text for text, _ in texts(drawn)]
    assert heading(drawn).replace("\xa0", " ").splitlines() == [
        "mine, seed 7",
        "constraints: params ≤ 35; flops ≤ 9k",
        "each dot: one training for 2 epochs, in the search",
    ]
    assert {"finalist, mean of seeds", "winner", "in full, 30 epochs, test"} <= set(written)
    assert_within(drawn, texts(drawn))


def test_a_network_asked_at_two_budgets_is_one_row_of_the_front(run_dir: Path) -> None:
    table = run_dir / "evaluations.csv"
    rows = table.read_text().replace(",,4,ok", ",epochs=2,4,ok").replace(",,1,ok", ",epochs=1,1,ok")
    longer = "1,7,A,,0-0,,sampled,epochs=2,8,ok,False,True,0.4,10\n"
    table.write_text(rows + longer)
    found = data(run_dir, "front").set_index("key")
    assert found["val_error"]["A"] == 0.4
    assert found.index.is_unique


@pytest.mark.parametrize("name", ["objectives", "front", "ancestry", "ops"])
def test_generations_are_counted_from_one_as_on_screen(run_dir: Path, name: str) -> None:
    written = [text for text, _ in texts(figure(run_dir, name))]
    assert {"1", "2"} <= set(written)
    assert name != "front" or "front after generation 2" in written
    assert name not in ("objectives", "ancestry") or "0" not in written


@pytest.mark.parametrize("name", ["objectives", "front"])
def test_a_figure_says_that_the_best_is_no_better_than_guessing(run_dir: Path, name: str) -> None:
    (run_dir / "front.csv").write_text("key,genes,seed,val_error,params\nD,0-2,4,0.2,20\n")
    for majority, told in ((0.5, False), (0.8, True)):
        parts = {"val": {"images": 100, "majority": majority}}
        (run_dir / "environment.json").write_text(json.dumps({"parts": parts}))
        shown = heading(figure(run_dir, name))
        assert ("the best: no better than guessing" in shown) == told


def test_hypervolume_is_told_by_evaluations_too(run_dir: Path) -> None:
    found = data(run_dir, "hypervolume")
    assert found["evaluations"].tolist() == [3, 7]
    assert found["hypervolume"].tolist() == [60, 70]


def test_diversity_counts_networks_never_seen_before(run_dir: Path) -> None:
    found = data(run_dir, "diversity")
    assert found["new"].tolist() == [3, 3]
    assert found["new_share"].tolist() == [1, 0.75]
    assert found["diversity"].tolist() == [1.5, 1.2]
    assert found["distinct"].tolist() == [3, 4]


def test_ops_are_the_shares_of_each_choice(run_dir: Path) -> None:
    found = data(run_dir, "ops").set_index(["first_generation", "gene", "choice"])["share"]
    assert found[0, "left"].tolist() == pytest.approx([2 / 3, 0, 1 / 3])
    assert found[0, "right"].tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3])
    assert found[1, "left"].tolist() == [0.75, 0.25, 0]
    assert found[1, "right"].tolist() == [0, 0.25, 0.75]


def test_many_generations_share_a_column_of_ops(tmp_path: Path) -> None:
    path = tmp_path / "run"
    write_run(path, space=SPACE, name="nasbench201", generations=250, population=4)
    found = data(path, "ops")
    spans = found[["first_generation", "last_generation"]].drop_duplicates()
    assert spans.iloc[:2].to_numpy().tolist() == [[0, 1], [2, 3]]
    assert len(spans) == 125
    genes = pd.read_csv(path / "evaluations.csv").query("2 <= generation <= 3")["genes"]
    skips = (genes.str.split("-").str[0] == "1").mean()
    second = found[(found["first_generation"] == 2) & (found["gene"] == "0>1")]
    assert second.set_index("choice")["share"]["skip_connect"] == pytest.approx(skips)


def test_ancestry_follows_parents_to_their_first_evaluation(run_dir: Path) -> None:
    found = data(run_dir, "ancestry").set_index("key")
    assert found["steps_back"].to_dict() == {"D": 0, "A": 1, "B": 1}
    assert found["generation"].to_dict() == {"D": 1, "A": 0, "B": 0}
    assert found.loc["D", "parents"] == "A B"
    (run_dir / "finalists.csv").write_text("key,genes,winner\nF,0-2,True\nD,0-2,False\n")
    found = data(run_dir, "ancestry").set_index("key")
    assert found["steps_back"].to_dict() == {"F": 0, "A": 1, "C": 1}
    assert np.isnan(found.loc["C", "val_error"])  # it failed, and had a child all the same


def test_a_long_ancestry_says_what_is_left_out(tmp_path: Path) -> None:
    rows = [f"{g},{g},N{g},0-0,{f'N{g - 1}' if g else ''},x,ok,{1 / (g + 1)},1" for g in range(99)]
    header = "generation,index,key,genes,parents,origin,status,val_error,params"
    (tmp_path / "evaluations.csv").write_text("\n".join([header, *rows, ""]))
    (tmp_path / "front.csv").write_text("key,genes\nN98,0-0\n")
    (tmp_path / "config.yaml").write_text(CONFIG)
    found = data(tmp_path, "ancestry")
    assert found["key"].tolist() == [f"N{g}" for g in range(98, 84, -1)]
    (ax, *_) = figure(tmp_path, "ancestry").axes
    assert "85 earlier ancestors left out" in ax.get_title()


@pytest.mark.parametrize(
    ("values", "goal", "ends"),
    [
        ([1.0, 2.0, 3.0], "min", (1.0, 3.0, "neither")),
        ([*range(1, 20), 900.0], "min", (1.0, 18.1, "max")),
        ([*range(2, 21), -900.0], "max", (2.9, 20.0, "min")),
        ([900.0, *range(1, 20)], "max", (1.0, 900.0, "neither")),  # the best is never cut off
        ([], "min", (0.0, 1.0, "neither")),
    ],
)
def test_colours_are_not_spent_on_a_few_that_are_far_worse(
    values: list[float], goal: str, ends: tuple[float, float, str]
) -> None:
    low, high, beyond = colour_ends(
        np.array(values, dtype=np.float64),
        Objective.model_validate({"name": "error", "goal": goal}),
    )
    assert (low, high) == pytest.approx(ends[:2])
    assert beyond == ends[2]


def test_cost_adds_worker_time_and_counts_every_candidate_once(run_dir: Path) -> None:
    found = data(run_dir, "cost")
    assert found["seconds"].tolist() == [5, 12.5]
    assert found["from_cache"].tolist() == [0, 0]
    assert found["diverged"].tolist() == [1, 0]
    assert found["crashed"].tolist() == [0, 1]
    answered = found[["trained", "from_cache", "hits", "infeasible_untrained"]]
    assert answered.to_numpy().tolist() == [[3, 0, 0, 0], [3, 0, 1, 0]]
    assert "finalists 9 s" in figure(run_dir, "cost").get_suptitle()


def test_trainings_from_the_cache_are_shown_apart(run_dir: Path) -> None:
    timings = pd.read_csv(run_dir / "timings.csv")
    timings["from_cache"] = timings["key"].isin(["B", "D"])
    timings.to_csv(run_dir / "timings.csv", index=False)
    found = data(run_dir, "cost")
    assert found["seconds"].tolist() == [3.5, 8.5]
    assert found["from_cache_seconds"].tolist() == [1.5, 4.0]
    assert found["trained"].tolist() == [2, 2]
    assert found["from_cache"].tolist() == [1, 1]


def test_the_cell_has_the_edges_of_the_winner(long_run: Path) -> None:
    front = pd.read_csv(long_run / "finalists.csv").query("winner")
    graph = SPACE.graph(SPACE.parse(front["genes"].iloc[0]))
    found = data(long_run, "cell")
    assert found["op"].tolist() == [edge.op for edge in graph.edges]
    assert found["live"].tolist() == [edge.live for edge in graph.edges]


def parts(space: SearchSpace, genome: Genome) -> list[tuple[str, Bbox]]:
    with styled():
        return texts(_drawn(space, genome, space.key(genome)).figure)


def assert_apart(written: list[tuple[str, Bbox]]) -> None:
    for i, (text, box) in enumerate(written):
        for other, there in written[i + 1 :]:
            assert not box.overlaps(there), (text, other)


def test_labels_of_a_cell_never_overlap() -> None:
    rng = np.random.default_rng(0)
    genomes = [SPACE.sample(rng) for _ in range(5)]
    genomes += [SPACE.genome([4] * 6), SPACE.genome([0] * 6), SPACE.genome([0, 0, 3, 0, 0, 2])]
    for genome in genomes:
        written = parts(SPACE, genome)
        ops = [edge.op for edge in SPACE.graph(genome).edges]
        assert len(written) == len(ops) + 5 + (not all(e.live for e in SPACE.graph(genome).edges))
        assert_apart(written)


def test_layers_are_drawn_with_their_widths_strides_and_sizes() -> None:
    chain = Chain(((16, 1, 1), (24, 2, 2), (40, 1, 2)), (3, 5), (3, 6), stem=16)
    written = parts(chain, chain.parse("skip,k5e6,skip,k3e3"))
    assert_apart(written)
    words = [text for text, _ in written]
    for told in (
        *("stem: 16 channels, full size", "1.1: 16 channels, full size"),
        *("2.1: 24 channels, 1/2 size", "2.2: 24 channels, 1/2 size", "k5e6, stride 2"),
        *("3.1: 40 channels, 1/4 size", "k3e3, stride 2", "mean, linear"),
        "k3e6: inverted residual, kernel 3x3, 6 times as wide within",
    ):
        assert told in words, words
    assert words.count("skip") == 2
    channels = Channels(3, (8, 64))
    written = parts(channels, channels.parse("8:64:8"))
    assert_apart(written)
    words = [text for text, _ in written]
    for told in ("stage1: 8 channels, full size", "stage2: 64 channels, 1/2 size"):
        assert told in words
    macro = Macro(2, 2)
    written = parts(macro, macro.genome([0, 1, 1, 0]))
    assert_apart(written)
    words = [text for text, _ in written]
    assert "max pool 2x2, conv 3x3" in words
    assert "2 entry: 2 x channels, 1/2 size" in words


def test_a_space_that_knows_no_layers_is_a_table_of_its_genes() -> None:
    choices = ("conv3", "x" * 60, "$a$")
    for count in (3, 70):
        space = SearchSpace("my.own/1", [Gene(f"layer{i}", choices) for i in range(count)])
        genome = space.genome(i % 3 for i in range(count))
        with styled():
            drawing = _drawn(space, genome, space.key(genome)[:45])
        written = texts(drawing.figure)
        assert_apart(written)
        assert_within(drawing.figure, written)
        words = [text for text, _ in written]
        assert {f"layer{i}" for i in range(count)} <= {*words}
        assert words.count("conv3") == len(range(0, count, 3))
        assert words.count("$a$") == count // 3
        assert not any(word in ("input", "output") for word in words)  # no chain
        assert drawing.data["choice"].tolist() == [choices[i % 3] for i in range(count)]


class Tangle(SearchSpace):
    """Two inputs, every pair of nodes joined, two of them twice: more than ours ever are."""

    def __init__(self) -> None:
        super().__init__("tangle/v1", [Gene("op", ("sep_conv_3x3", "dil_conv_5x5"))])

    def graph(self, genome: Genome) -> Graph:
        nodes = ("c_{k-2}", "c_{k-1}", "0", "1", "2", "3", "out")
        pairs = [(a, b) for i, a in enumerate(nodes) for b in nodes[max(i + 1, 2) :]]
        edges = [Edge(a, b, "sep_conv_3x3", i % 3 > 0) for i, (a, b) in enumerate(pairs)]
        return Graph(nodes, (*edges, Edge("0", "1", "dil_conv_5x5", True)))


def test_labels_of_a_tangle_do_not_overlap_either() -> None:
    space = Tangle()
    assert_apart(parts(space, space.genome([0])))


@pytest.mark.parametrize(
    ("kind", "begins"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")]
)
def test_a_genome_is_drawn_into_a_file_by_its_ending(
    tmp_path: Path, kind: str, begins: bytes
) -> None:
    path = tmp_path / f"cell.{kind}"
    draw_cell(SPACE, SPACE.parse("3-1-4-0-4-1"), path)
    before = path.read_bytes()
    assert before.startswith(begins)
    draw_cell(SPACE, SPACE.parse("3-1-4-0-4-1"), path)
    assert path.read_bytes() == before


def test_show_draws_a_genome_but_no_run(tmp_path: Path) -> None:
    path = tmp_path / "cell.svg"
    result = CliRunner().invoke(app, ["show", "3-1-4-0-4-1", "--draw", str(path)])
    assert result.exit_code == 0, result.output
    assert path.exists()
    result = CliRunner().invoke(app, ["show", str(tmp_path), "--draw", str(path)])
    assert result.exit_code == 2
    assert "evonas plot" in result.stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cell.jpg", "cannot be drawn as .jpg; allowed: .png, .svg, .pdf$"),
        ("cell", "has no file name extension; allowed: .png"),
        ("away/cell.png", "No such file or directory; the folder must exist"),
    ],
)
def test_a_genome_that_cannot_be_drawn_there_is_told(
    tmp_path: Path, name: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        draw_cell(SPACE, SPACE.parse("3-1-4-0-4-1"), tmp_path / name)


@pytest.mark.figures
def test_a_folder_that_is_no_run_folder_is_the_users_mistake(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["plot", str(tmp_path)])
    assert result.exit_code == 2
    assert "is not a run folder" in result.stderr
    assert not list(tmp_path.iterdir())
    (tmp_path / "config.yaml").write_text("name: no objectives\n")
    with pytest.raises(UserError, match="objectives"):
        plots.draw(tmp_path)


@pytest.mark.figures
def test_a_folder_without_tables_skips_each_figure_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG)
    result = CliRunner().invoke(app, ["plot", str(tmp_path)])
    assert result.exit_code == 0
    head, *lines = result.stdout.splitlines()
    assert head == f"{tmp_path / 'figures'}: 0 figures"
    assert [line.split(":")[0].strip() for line in lines] == list(FIGURES)
    assert lines.pop(4) == "  ops: not drawn, since space.json is missing or damaged"
    assert all("not drawn, since there is no " in line for line in lines)


def test_a_torn_last_line_is_not_read(run_dir: Path, tmp_path: Path) -> None:
    whole = {name: data(run_dir, name) for name in ("objectives", "hypervolume", "ops", "cost")}
    for name in ("evaluations", "generations", "fronts", "timings"):
        with (run_dir / f"{name}.csv").open("a") as file:
            file.write("2,7,G")
    for name, before in whole.items():
        pd.testing.assert_frame_equal(data(run_dir, name), before)


def test_what_cannot_be_drawn_any_more_leaves_no_old_picture(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots, "FIGURES", {"front": FIGURES["front"]})
    assert "front" in plots.draw(run_dir).figures
    (run_dir / "fronts.csv").unlink()
    drawn = plots.draw(run_dir)
    assert drawn.skipped["front"] == "there is no fronts.csv yet"
    assert not list(drawn.folder.glob("front.*"))


@pytest.mark.usefixtures("unsaved")
def test_one_objective_has_no_front(tmp_path: Path) -> None:
    path = tmp_path / "run"
    write_run(
        path, space=SPACE, name="nasbench201", generations=3, population=6, objectives=["val_error"]
    )
    drawn = plots.draw(path)
    assert drawn.skipped == {"front": "with one objective there is no front"}


def test_three_objectives_are_drawn_in_pairs(tmp_path: Path) -> None:
    path = tmp_path / "run"
    objectives = ("val_error", "params", "flops")
    write_run(
        path, space=SPACE, name="nasbench201", generations=3, population=6, objectives=objectives
    )
    first, second, _ = figure(path, "front").axes
    assert first.get_ylabel() == "parameters"
    assert second.get_ylabel() == "FLOPs (multiply-adds)"
    assert second.get_xlabel() == "validation error (%)"


def test_generation_0_alone_is_drawn(tmp_path: Path) -> None:
    path = tmp_path / "run"
    write_run(path, space=SPACE, name="nasbench201", generations=1, population=6, finals=False)
    drawn = plots.draw(path)
    assert set(drawn.skipped) == {"ancestry"}
    assert "no parents" in drawn.skipped["ancestry"]


def test_a_run_that_has_trained_nothing_still_shows_why(run_dir: Path) -> None:
    timings = (run_dir / "timings.csv").read_text().splitlines()[0]
    (run_dir / "timings.csv").write_text(f"{timings}\n")
    found = data(run_dir, "cost")
    assert found["seconds"].tolist() == [0.0, 0.0]
    assert found["crashed"].sum() == 1


@pytest.mark.usefixtures("unsaved")
def test_a_run_whose_every_training_failed_shows_cost_and_ops(run_dir: Path) -> None:
    table = pd.read_csv(run_dir / "evaluations.csv")
    table = table.assign(status="crashed", val_error=np.nan, params=np.nan)
    table.to_csv(run_dir / "evaluations.csv", index=False)
    generations = pd.read_csv(run_dir / "generations.csv")
    generations.assign(hypervolume=np.nan).to_csv(run_dir / "generations.csv", index=False)
    (run_dir / "fronts.csv").write_text("generation,key,val_error,params\n")
    (run_dir / "front.csv").write_text("key,genes\n")
    drawn = plots.draw(run_dir)
    assert drawn.figures == ("diversity", "ops", "cost")
    assert drawn.skipped["objectives"] == "no evaluation has succeeded yet"
    assert drawn.skipped["hypervolume"] == "no reference point is known yet"
    assert "front.csv has no rows yet" in drawn.skipped["cell"]


def test_missing_values_and_infinite_ones_are_not_drawn(run_dir: Path) -> None:
    table = pd.read_csv(run_dir / "evaluations.csv")
    table.loc[0, "val_error"] = np.inf
    table.loc[1, "params"] = np.nan
    table.to_csv(run_dir / "evaluations.csv", index=False)
    found = data(run_dir, "objectives").set_index(["objective", "generation"]).loc["val_error"]
    assert found["count"].tolist() == [0, 3]
    assert np.isnan(found["best"][0])
    for name in ("objectives", "front", "ancestry"):
        assert texts(figure(run_dir, name))  # and those it shows are drawn


@pytest.mark.usefixtures("unsaved")
def test_damaged_tables_skip_their_figures(run_dir: Path) -> None:
    (run_dir / "evaluations.csv").write_text(EVALUATIONS.replace("val_error", "acc"))
    (run_dir / "timings.csv").write_bytes(b"")
    (run_dir / "space.json").write_text("{")
    drawn = plots.draw(run_dir)
    assert drawn.skipped["objectives"] == "evaluations.csv lacks the column val_error"
    assert drawn.skipped["cost"] == "there is no timings.csv yet"
    assert drawn.skipped["ops"] == "space.json is missing or damaged"
    assert drawn.figures == ("hypervolume",)


@pytest.mark.usefixtures("unsaved")
def test_a_space_that_is_not_registered_costs_only_the_cell(run_dir: Path) -> None:
    config = yaml.safe_load(CONFIG) | {"space": {"name": "mine"}}
    (run_dir / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(NotYet, match="unknown space 'mine'"):
        _ = Tables(run_dir).space
    assert set(plots.draw(run_dir).skipped) == {"cell"}


def test_values_that_span_decades_are_on_a_logarithmic_axis(run_dir: Path) -> None:
    assert figure(run_dir, "front").axes[0].get_yscale() == "linear"
    for name in ("evaluations", "fronts"):
        text = (run_dir / f"{name}.csv").read_text()
        (run_dir / f"{name}.csv").write_text(text.replace(",30\n", ",3000000\n"))
    ax = figure(run_dir, "front").axes[0]
    assert ax.get_yscale() == "log"
    assert ax.get_xscale() == "linear"


@pytest.mark.slow
def test_100_000_evaluations_are_drawn_in_30_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry.TABLES["spaces"], "long", "tests.helpers.synthetic:LONG")
    registry.table.cache_clear()
    path = tmp_path / "run"
    write_run(path, space=Long(), name="long", generations=1000, population=100)
    started = time.perf_counter()
    drawn = plots.draw(path)
    seconds = time.perf_counter() - started
    registry.table.cache_clear()
    assert set(drawn.figures) == set(FIGURES)
    assert max(file.stat().st_size for file in drawn.folder.glob("*.svg")) < 2_000_000
    assert seconds < 30
    print(f"drawn in {seconds:.1f} s")
