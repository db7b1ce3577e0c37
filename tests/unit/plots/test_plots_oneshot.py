"""Figures of searches by gradient, of a controller and of a supernet, from tables made up."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from PIL import Image

from evonas import plots
from evonas.plots import TRACES, policy
from evonas.plots.style import Drawing, NotYet, styled
from evonas.plots.tables import Tables
from genomes import Darts, NASBench201, SearchSpace
from tests.unit.plots.test_plots import assert_within, texts

CONFIG = "space: {name: nasbench201}\nobjectives:\n- {name: val_error, goal: min}\n"
NAMES = ("probabilities", "relaxation", "controller", "supernet", "rank")
OPS = NASBench201().genes[0].choices


def write(path: Path, header: str, rows: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *rows, ""]))


def write_probabilities(
    folder: Path, genes: Mapping[str, tuple[str, ...]], generations: int
) -> None:
    """Each gene comes to prefer its last choice."""
    rows = []
    for generation in range(generations):
        for gene, choices in genes.items():
            logits = np.linspace(0, 0.2 * generation, len(choices))
            shares = np.exp(logits) / np.exp(logits).sum()
            rows += [
                (generation, gene, choice, share)
                for choice, share in zip(choices, shares.round(6), strict=True)
            ]
    table = pd.DataFrame(rows, columns=["generation", "gene", "choice", "probability"])
    table.to_csv(folder / "probabilities.csv", index=False)


def genes_of(space: SearchSpace) -> dict[str, tuple[str, ...]]:
    return {gene.name: gene.choices for gene in space.genes}


def write_relaxation(folder: Path, generations: int, *, heated: bool = True) -> None:
    header = "generation,epoch,train_loss,alpha_loss,entropy,skips,skip_share,temperature"
    rows = [
        f"{g},{g + 1},{2 - 0.1 * g},{'' if g < 2 else 2.1 - 0.1 * g},{1.6 - 0.1 * g},{g % 3},"
        f"{g % 3 / 6},{10 - g if heated else ''}"
        for g in range(generations)
    ]
    write(folder / "relaxation.csv", header, rows)


def write_controller(folder: Path, generations: int) -> None:
    rows = [
        f"{g},{-0.9 + 0.01 * g},{-0.91 + 0.01 * g},{1.6 - 0.02 * g}" for g in range(generations)
    ]
    write(folder / "controller.csv", "generation,reward,baseline,entropy", rows)


def write_supernet(folder: Path, epochs: int, *, pool: int = 3, more: str = "") -> None:
    header = "epoch,train_loss,pool_error,pool_best,keep,temperature,entropy"
    rows, points = [], []
    for epoch in range(1, epochs + 1):
        errors = [0.9 - 0.02 * epoch - 0.05 * i for i in range(pool)]
        scored = f"{np.mean(errors)},{min(errors)}" if pool else ","
        told = {
            "keep": f"{1 - 0.02 * epoch},,",
            "learned": f",{5 - 0.1 * epoch},{1.6 - 0.01 * epoch}",
        }.get(more, ",,")
        rows.append(f"{epoch},{2.3 - 0.05 * epoch},{scored},{told}")
        points += [f"{epoch},N{i},N{i},0-{i},{error}" for i, error in enumerate(errors)]
    write(folder / "supernet" / "curve.csv", header, rows)
    write(folder / "supernet" / "pool.csv", "epoch,key,genome,genes,val_error", points)


def write_rank(folder: Path) -> None:
    header = "key,genome,genes,params,flops,supernet_error,alone_error,status"
    rows = [
        "A,a,0-0,10,20,0.5,0.04,ok",
        "B,b,0-1,10,20,0.4,0.03,ok",
        "C,c,0-2,10,20,0.4,0.06,ok",
        "D,d,1-0,10,20,0.7,0.09,ok",
        "E,e,1-1,10,20,0.3,,diverged",
    ]
    write(folder / "rank" / "networks.csv", header, rows)
    told = ["kendall_tau,0.55,-0.1,0.9,4,epochs=8", "spearman,0.63,-0.2,1.0,4,epochs=8"]
    write(folder / "rank" / "summary.csv", "statistic,value,low,high,n,budget", told)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A folder with all of these tables, which no one run has."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text(CONFIG)
    write_probabilities(folder, genes_of(NASBench201()), 12)
    write_relaxation(folder, 12)
    write_controller(folder, 12)
    write_supernet(folder, 12, more="learned")
    write_rank(folder)
    return folder


def drawing(run_dir: Path, name: str) -> Drawing:
    with styled():
        return TRACES[name][1](Tables(run_dir))


def values(ax: Axes, label: str) -> list[float]:
    [line] = [line for line in ax.lines if line.get_label() == label]
    return np.asarray(line.get_ydata(), dtype=np.float64).tolist()


def assert_legible(made: Drawing) -> None:
    """Nothing is cut off, over something else that is written, or over data."""
    written = texts(made.figure)
    assert_within(made.figure, written)
    for (text, box), (other, there) in combinations(written, 2):
        assert not box.padded(-0.5).overlaps(there.padded(-0.5)), (text, other)
    legends = [*made.figure.legends, *(a.get_legend() for a in made.figure.axes if a.get_legend())]
    for legend in legends:
        for ax in made.figure.axes:
            assert not legend.get_window_extent().padded(-1).overlaps(ax.bbox), ax.get_ylabel()


def test_every_figure_whose_table_is_there_is_a_png_an_svg_and_a_table(run_dir: Path) -> None:
    drawn = plots.draw(run_dir, only=NAMES)
    assert set(drawn.figures) == set(NAMES)
    assert not drawn.skipped
    held = {path.name for path in drawn.folder.iterdir()}
    assert held == {f"{name}.{kind}" for name in NAMES for kind in ("png", "svg", "csv")}
    for name in NAMES:
        with Image.open(drawn.folder / f"{name}.png") as image:
            assert image.format == "PNG"
            assert image.width >= 3.35 * 300 - 1
            assert np.ptp(np.asarray(image.convert("L"))) > 200  # something is drawn
        assert ET.parse(drawn.folder / f"{name}.svg").getroot().tag.endswith("svg")
        assert len(pd.read_csv(drawn.folder / f"{name}.csv")) > 0


def test_a_figure_without_its_table_is_not_spoken_of(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG)
    write_controller(tmp_path, 2)
    drawn = plots.draw(tmp_path, only=NAMES)
    assert drawn.figures == ("controller",)
    assert not drawn.skipped


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rows", [1, 2, 12, 60])
def test_all_that_is_written_can_be_read(run_dir: Path, name: str, rows: int) -> None:
    write_probabilities(run_dir, genes_of(NASBench201()), rows)
    write_relaxation(run_dir, rows)
    write_controller(run_dir, rows)
    write_supernet(run_dir, rows, more="learned")
    assert_legible(drawing(run_dir, name))


def test_the_genes_of_darts_can_be_read_with_and_without_those_that_choose_inputs(
    run_dir: Path,
) -> None:
    genes = genes_of(Darts())
    ops = {name: choices for name, choices in genes.items() if ">" in name}
    for some, panels in ((ops, 28), (genes, 34)):  # two of 36 have one choice alone
        write_probabilities(run_dir, some, 20)
        made = drawing(run_dir, "probabilities")
        assert_legible(made)
        titles = [ax.get_title() for ax in made.figure.axes]
        assert len(titles) == panels
        assert titles[0] == "normal/0>2"
        assert made.figure.get_figwidth() == 7.0
        assert made.figure.get_figheight() < 6


@pytest.mark.parametrize("count", range(1, 37))
def test_panels_fill_their_rows(count: int) -> None:
    across = policy._across(count)
    assert across <= min(count, 7)
    assert -count % across <= 4


def test_a_panel_has_a_line_a_choice_that_looks_the_same_in_all(run_dir: Path) -> None:
    write_probabilities(run_dir, {"left": ("a", "b", "c"), "right": ("c", "d"), "one": ("a",)}, 3)
    made = drawing(run_dir, "probabilities")
    left, right = made.figure.axes
    assert (left.get_title(), right.get_title()) == ("left", "right")
    even, *lines = left.lines
    assert np.asarray(even.get_ydata()).tolist() == pytest.approx([100 / 3] * 2)
    assert len(lines) == 3
    table = pd.read_csv(run_dir / "probabilities.csv").query("gene == 'left' and choice == 'b'")
    shown = np.asarray(lines[1].get_ydata(), dtype=np.float64)
    assert shown.tolist() == pytest.approx((100 * table["probability"]).tolist())
    looks = {(line.get_color(), str(line.get_linestyle())) for line in lines}
    assert len(looks) == 3
    assert right.lines[1].get_color() == lines[2].get_color()  # c
    [legend] = made.figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b", "c", "d"]
    assert "one" not in set(made.data["gene"])


def test_choices_that_differ_by_little_are_told_apart(run_dir: Path) -> None:
    rows = [f"{g},a,{c},{0.2 + 0.001 * g * i}" for g in range(5) for i, c in enumerate("vwxyz")]
    write(run_dir / "probabilities.csv", "generation,gene,choice,probability", rows)
    [ax] = drawing(run_dir, "probabilities").figure.axes
    low, high = ax.get_ylim()
    assert high - low < 3
    assert low < 20
    assert high > 21.6


def test_of_very_many_genes_the_first_are_drawn_and_of_choices_the_likeliest_named(
    run_dir: Path,
) -> None:
    choices = tuple(f"c{i}" for i in range(40))
    write_probabilities(run_dir, {f"gene{i}": choices for i in range(50)}, 2)
    made = drawing(run_dir, "probabilities")
    assert len(made.figure.axes) == 36
    assert made.data["gene"].nunique() == 36
    [legend] = made.figure.legends
    assert legend.get_title().get_text() == "the first 36 of 50 genes"
    assert [text.get_text() for text in legend.get_texts()] == list(choices[-24:])
    assert_legible(made)


def test_a_long_search_is_drawn_by_some_of_its_generations(run_dir: Path) -> None:
    write_probabilities(run_dir, {"a": ("x", "y")}, 1000)
    found = drawing(run_dir, "probabilities").data["generation"].unique()
    assert len(found) == policy.MOST_POINTS
    assert (found[0], found[-1]) == (0, 999)


def test_losses_entropy_skips_and_temperature_have_a_panel_each(run_dir: Path) -> None:
    made = drawing(run_dir, "relaxation")
    losses, entropy, skips, temperature = made.figure.axes
    assert values(losses, "loss of the weights") == pytest.approx([2 - 0.1 * g for g in range(12)])
    of_choices = values(losses, "loss of the choices")
    assert np.isnan(of_choices[:2]).all()  # the warm-up
    assert of_choices[2] == pytest.approx(1.9)
    assert np.asarray(skips.lines[0].get_ydata()).tolist()[:3] == pytest.approx(
        [0, 100 / 6, 100 / 3]
    )
    assert entropy.get_ylim()[0] == 0
    assert temperature.get_ylabel() == "temperature"
    assert made.data["epoch"].tolist() == list(range(1, 13))


def test_without_a_temperature_or_a_loss_of_choices_they_are_not_drawn(run_dir: Path) -> None:
    write_relaxation(run_dir, 2, heated=False)  # in the warm-up still
    made = drawing(run_dir, "relaxation")
    assert len(made.figure.axes) == 3
    [legend] = made.figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["loss of the weights"]
    assert_legible(made)


def test_the_reward_is_shown_beside_what_it_is_compared_with(run_dir: Path) -> None:
    made = drawing(run_dir, "controller")
    rewards, entropy = made.figure.axes
    assert values(rewards, "mean reward")[:2] == pytest.approx([-0.9, -0.89])
    assert values(rewards, "moving average")[:2] == pytest.approx([-0.91, -0.9])
    assert np.asarray(entropy.lines[0].get_ydata())[0] == 1.6
    assert made.data.columns.tolist() == ["generation", "reward", "baseline", "entropy"]


@pytest.mark.parametrize(
    ("more", "labels"),
    [
        ("", []),
        ("keep", ["probability to\nkeep an op"]),
        ("learned", ["temperature", "entropy of a gene\n(nats, mean)"]),
    ],
)
def test_a_supernet_shows_its_loss_the_scored_networks_and_what_else_it_tells(
    run_dir: Path, more: str, labels: list[str]
) -> None:
    write_supernet(run_dir, 5, more=more)
    made = drawing(run_dir, "supernet")
    loss, errors, *others = made.figure.axes
    assert [ax.get_ylabel() for ax in others] == labels
    assert np.asarray(loss.lines[0].get_ydata())[0] == pytest.approx(2.25)
    points = np.asarray(errors.collections[0].get_offsets())
    assert len(points) == 15
    assert points[0].tolist() == pytest.approx([1, 0.88])
    assert values(errors, "mean")[0] == pytest.approx(0.83)
    assert values(errors, "best of them")[0] == pytest.approx(0.78)
    assert len(made.data) == 15
    assert_legible(made)


def test_a_supernet_without_a_pool_shows_its_loss(run_dir: Path) -> None:
    write_supernet(run_dir, 5, pool=0)
    made = drawing(run_dir, "supernet")
    assert len(made.figure.axes) == 1
    assert made.data["epoch"].tolist() == [1, 2, 3, 4, 5]
    (run_dir / "supernet" / "pool.csv").unlink()  # killed between the two tables
    assert len(drawing(run_dir, "supernet").figure.axes) == 1


def test_rank_shows_what_ended_well_and_tells_the_statistics(run_dir: Path) -> None:
    made = drawing(run_dir, "rank")
    [ax] = made.figure.axes
    points, ring = (np.asarray(c.get_offsets()).tolist() for c in ax.collections)
    assert points == [[0.5, 0.04], [0.4, 0.03], [0.4, 0.06], [0.7, 0.09]]
    assert ring == [[0.4, 0.03]]  # the best by score
    assert ax.get_title(loc="left").splitlines() == [
        "4 networks; 95 % intervals",
        "Kendall's tau 0.55 (-0.10 to 0.90)",
        "Spearman's rho 0.63 (-0.20 to 1.00)",
    ]
    assert "epochs=8" in ax.get_ylabel()
    assert len(made.data) == 5


def test_a_network_far_from_the_others_does_not_hide_how_they_differ(run_dir: Path) -> None:
    header = "key,genome,genes,params,flops,supernet_error,alone_error,status"
    near = [f"N{i},n,0-{i},10,20,{0.17 + i / 1000},{0.13 + i / 1000},ok" for i in range(9)]
    far = ["F,f,1-1,10,20,0.9,0.138,ok"]  # of 1 % in between, in one of both
    write(run_dir / "rank" / "networks.csv", header, near + far)
    [ax] = drawing(run_dir, "rank").figure.axes
    assert ax.get_xlim()[1] < 0.25
    legend = ax.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [
        "1 beyond the axes",
        "best by score",
    ]
    assert len(np.asarray(ax.collections[0].get_offsets())) == 9
    [[x, y]] = np.asarray(ax.collections[1].get_offsets()).tolist()
    assert 0.178 < x < 0.25
    assert y == 0.138


def test_a_statistic_that_is_undefined_says_so(run_dir: Path) -> None:
    told = ["kendall_tau,,,,4,steps=20", "spearman,,,,4,steps=20"]
    write(run_dir / "rank" / "summary.csv", "statistic,value,low,high,n,budget", told)
    [ax] = drawing(run_dir, "rank").figure.axes
    assert ax.get_title(loc="left").count("undefined: all tied") == 2


@pytest.mark.parametrize(
    ("table", "name"),
    [
        ("probabilities", "probabilities"),
        ("relaxation", "relaxation"),
        ("controller", "controller"),
        ("supernet/curve", "supernet"),
        ("rank/networks", "rank"),
        ("rank/summary", "rank"),
    ],
)
def test_what_cannot_be_drawn_yet_says_why(run_dir: Path, table: str, name: str) -> None:
    path = run_dir / f"{table}.csv"
    header = path.read_text().splitlines()[0]
    path.write_text(f"{header}\n")
    with pytest.raises(NotYet, match=rf"{table}\.csv has no rows yet"):
        drawing(run_dir, name)
    path.write_text("a,b\n1,2\n")
    with pytest.raises(NotYet, match=rf"{table}\.csv lacks the column"):
        drawing(run_dir, name)
    path.write_bytes(b"")
    with pytest.raises(NotYet, match=rf"there is no {table}\.csv yet"):
        drawing(run_dir, name)


def test_too_few_networks_or_choices_say_so(run_dir: Path) -> None:
    networks = run_dir / "rank" / "networks.csv"
    networks.write_text("\n".join([*networks.read_text().splitlines()[:3], ""]))
    with pytest.raises(NotYet, match="fewer than 3 networks"):
        drawing(run_dir, "rank")
    write_probabilities(run_dir, {"one": ("a",)}, 3)
    with pytest.raises(NotYet, match="no gene has more than one choice"):
        drawing(run_dir, "probabilities")


@pytest.mark.parametrize("name", NAMES)
def test_a_torn_last_line_is_not_read(run_dir: Path, name: str) -> None:
    before = drawing(run_dir, name).data
    for path in run_dir.rglob("*.csv"):
        with path.open("a") as file:
            file.write("12,0>1,no")
    pd.testing.assert_frame_equal(drawing(run_dir, name).data, before)


def test_a_generation_of_which_some_rows_are_written_is_drawn(run_dir: Path) -> None:
    path = run_dir / "probabilities.csv"
    lines = path.read_text().splitlines()
    path.write_text(
        "\n".join([*lines[:-13], ""])
    )  # of the last generation, three genes and two ops
    made = drawing(run_dir, "probabilities")
    assert len(made.figure.axes) == 6
    assert len(made.data) == 12 * 6 * 5 - 13
    assert_legible(made)


@pytest.mark.parametrize("name", ["relaxation", "controller", "supernet"])
def test_numbers_that_are_missing_leave_a_gap(run_dir: Path, name: str) -> None:
    path = run_dir / f"{TRACES[name][0]}.csv"
    header, *rows = path.read_text().splitlines()
    blank = [
        f"{row.split(',')[0]},{i + 1}{',' * (header.count(',') - 1)}" for i, row in enumerate(rows)
    ]
    path.write_text("\n".join([header, *blank, ""]))
    assert texts(drawing(run_dir, name).figure)


def test_the_names_of_ops_are_as_everywhere_else(run_dir: Path) -> None:
    [legend] = drawing(run_dir, "probabilities").figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["none", "skip", "conv 1x1", "conv 3x3", "avg pool 3x3"]
    assert len(names) == len(OPS)
