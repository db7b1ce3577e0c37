"""A report in a browser: it asks for nothing, says nothing is wrong, and can be worked with."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import yaml

from evonas.report import page
from genomes import NASBench201
from tests.helpers import ROOT
from tests.helpers.browser import Page, browser, needs_chromium
from tests.helpers.synthetic import write_run

pytestmark = needs_chromium

REFERENCE = ROOT / "results/reference/fashion_mnist/genetic"
FIGURE = "document.querySelector('[data-front] .plot')"
PINNED = "document.querySelector('[data-front] .details h3').textContent"
ALERTING = "<img src=x onerror=alert(1)><script>document.title='taken'</script>"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def tab(chromium: Page) -> Page:
    chromium.requests.clear()
    chromium.complaints.clear()
    return chromium


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run on Fashion-MNIST, with a winner."""
    return page.write([REFERENCE], tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run with three objectives, of which some evaluations fail."""
    run = tmp_path_factory.mktemp("run") / "three"
    write_run(
        run,
        space=NASBench201(),
        name="nasbench201",
        generations=12,
        population=20,
        objectives=("val_error", "params", "flops"),
        failing=0.1,
    )
    return page.write([run])


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("dark", [False, True])
def test_a_report_asks_for_nothing_and_complains_of_nothing(
    tab: Page, reference: Path, three: Path, width: int, dark: bool
) -> None:
    for file in (reference, three):
        tab.requests.clear()
        tab.open(file, width=width, dark=dark)
        assert tab.requests == [file.as_uri()]
        assert tab.complaints == []
        assert tab.run("document.documentElement.scrollWidth") == width
        assert tab.run("document.querySelectorAll('.plot').length") >= 6
        said = tab.run("document.querySelector('main').innerText")
        assert not {"null", "undefined", "NaN", "Infinity"} & set(re.findall(r"\w+", said))
        background = tab.run("getComputedStyle(document.body).backgroundColor")
        assert (max(map(int, background[4:-1].split(","))) < 60) == dark


def test_no_text_is_wider_than_its_figure(tab: Page, reference: Path, three: Path) -> None:
    outside = """[...document.querySelectorAll('.plot text')].filter(text => {
        const box = text.closest('.plot').getBoundingClientRect();
        const own = text.getBoundingClientRect();
        return own.left < box.left - 1 || own.right > box.right + 1;
    }).map(text => text.textContent)"""
    for file in (reference, three):
        for width in (390, 1440):
            tab.open(file, width=width)
            assert tab.run(outside) == []


def test_pointing_at_a_network_tells_of_it_and_a_click_keeps_it(tab: Page, reference: Path) -> None:
    tab.open(reference)
    tab.run(f"{FIGURE}.scrollIntoView({{block: 'center'}})")
    tab.run("new Promise(done => setTimeout(done, 700))")  # the scrolling is smooth
    assert tab.run("document.getElementById('tip').hidden")
    before = tab.run(PINNED)
    found = False
    left, top, wide, tall = tab.run(
        f"(b => [b.left, b.top, b.width, b.height])({FIGURE}.getBoundingClientRect())"
    )
    for i in range(400):  # until a dot that is not the pinned one is met
        x, y = left + wide * (0.1 + 0.04 * (i % 20)), top + tall * (0.15 + 0.035 * (i // 20))
        tab.move(x, y)
        if tab.run("!document.getElementById('tip').hidden"):
            tab.click(x, y)
            if tab.run(PINNED) != before:
                found = True
                break
    assert found
    tip = tab.run("document.getElementById('tip').textContent")
    assert "generation" in tip
    assert "validation error" in tip
    assert tab.run("document.querySelector('#tip svg') !== null")
    details = tab.run("document.querySelector('[data-front] .details').textContent")
    assert "Parents" in details
    assert "Its row" in details or "rows" in details
    lineage = tab.run("document.querySelector('[data-lineage]').textContent")
    assert tab.run(PINNED) in lineage or "ringed" in lineage
    assert "null" not in tip + details


def test_a_box_zooms_and_a_button_goes_back(tab: Page, reference: Path) -> None:
    tab.open(reference)
    tab.run(f"{FIGURE}.scrollIntoView({{block: 'center'}})")
    tab.run("new Promise(done => setTimeout(done, 700))")
    labels = f"[...{FIGURE}.querySelectorAll('text')].map(text => text.textContent).join()"
    buttons = "[...document.querySelectorAll('[data-front] button')]"
    home = f"{buttons}.find(each => each.textContent === 'Reset zoom')"
    before = tab.run(labels)
    assert tab.run(f"{home}.disabled")
    left, top = tab.run(f"(b => [b.left, b.top])({FIGURE}.getBoundingClientRect())")
    tab.drag((left + 120, top + 120), (left + 300, top + 300))
    assert tab.run(labels) != before
    tab.run(f"{home}.click()")
    assert tab.run(labels) == before


def test_keys_walk_along_the_front_and_keep_a_network(tab: Page, reference: Path) -> None:
    tab.open(reference)
    before = tab.run(PINNED)
    tab.run(f"{FIGURE}.focus()")
    tab.press("ArrowRight")
    tab.press("ArrowRight")
    told = tab.run("document.getElementById('tip').textContent")
    assert "validation error" in told
    tab.press("Enter")
    assert tab.run(PINNED) != before
    labels = f"[...{FIGURE}.querySelectorAll('text')].map(text => text.textContent).join()"
    unzoomed = tab.run(labels)
    tab.press("+")
    assert tab.run(labels) != unzoomed
    tab.press("0")
    assert tab.run(labels) == unzoomed


def test_the_tab_key_reaches_the_main_parts_in_order(tab: Page, reference: Path) -> None:
    tab.open(reference)
    reached = []
    for _ in range(60):
        tab.press("Tab")
        reached.append(
            tab.run(
                "(e => e.closest('section')?.id || e.className || e.id)(document.activeElement)"
            )
        )
    assert reached[0] == "skip"
    sections = list(
        dict.fromkeys(each for each in reached if each in ("answer", "front", "search"))
    )
    assert sections == ["answer", "front", "search"]


def test_generations_play_and_the_axes_can_be_chosen(tab: Page, three: Path) -> None:
    tab.open(three)
    slider = "document.querySelector('[data-dynamics] input[type=range]')"
    tab.run(f"{slider}.value = 3; {slider}.dispatchEvent(new Event('input'))")
    told = tab.run("document.querySelector('[data-dynamics] output').textContent")
    assert told.startswith("generation 3 of 12: 20 candidates")
    play = "document.querySelector('[data-dynamics] button')"
    tab.run(f"{play}.click()")
    tab.run("new Promise(done => setTimeout(done, 1800))")
    assert int(tab.run(f"{slider}.value")) > 3
    axis = "document.querySelectorAll('[data-front] select')[1]"
    tab.run(f"{axis}.value = 2; {axis}.dispatchEvent(new Event('change'))")
    assert "FLOPs" in tab.run(f"{FIGURE}.textContent")
    assert tab.run("document.querySelectorAll('[data-parallel] path').length") > 3


def test_the_evaluations_are_sorted_and_filtered(tab: Page, three: Path) -> None:
    tab.open(three)
    table = "document.querySelector('[data-evaluations] table')"
    heads = f"[...{table}.querySelectorAll('thead th')].map(th => th.textContent)"
    column = tab.run(heads).index("validation error")
    body = f"[...{table}.querySelectorAll('tbody tr')]"
    cells = f"{body}.map(tr => parseFloat(tr.cells[{column}].textContent))"
    head = f"{table}.querySelectorAll('thead button')[{column}]"
    tab.run(f"{head}.click()")
    up = tab.run(cells)
    assert up == sorted(up)
    tab.run(f"{head}.click()")
    down = tab.run(cells)
    assert down == sorted(down, reverse=True)
    assert down[0] > up[-1]
    assert tab.run(f"{head}.parentElement.getAttribute('aria-sort')") == "descending"
    status = "document.querySelector('[data-evaluations] select')"
    tab.run(f"{status}.value = 'crashed'; {status}.dispatchEvent(new Event('change'))")
    rows = tab.run(f"{body}.map(tr => tr.textContent)")
    assert rows
    assert all("crashed" in row for row in rows)


def test_copying_gives_csv(tab: Page, reference: Path) -> None:
    tab.open(reference)
    tab.run(
        "navigator.clipboard.writeText = async text => { window.copied = text; }; "
        "[...document.querySelectorAll('[data-evaluations] button')]"
        ".find(b => b.textContent === 'Copy as CSV').click()"
    )
    header, first, *rest = tab.run("window.copied").splitlines()
    assert header.startswith("generation,index,network,genome,origin,status,validation error")
    assert first.startswith("1,0,g0-3-0-4-0-4,")
    assert len(rest) == 159


def test_the_theme_can_be_switched(tab: Page, reference: Path) -> None:
    tab.open(reference)
    light = tab.run("getComputedStyle(document.body).backgroundColor")
    tab.run("document.getElementById('theme').click()")
    assert tab.run("getComputedStyle(document.body).backgroundColor") != light
    tab.run("document.getElementById('theme').click()")
    assert tab.run("getComputedStyle(document.body).backgroundColor") == light


def test_markup_in_a_runs_texts_does_nothing(tab: Page, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(REFERENCE, run)
    config = run / "config.yaml"
    settings = yaml.safe_load(config.read_text())
    config.write_text(yaml.safe_dump({**settings, "name": ALERTING}))
    winner = pd.read_csv(run / "finalists.csv")["key"].iloc[0]
    for name in ("evaluations", "timings", "front", "fronts", "finalists"):
        table = run / f"{name}.csv"
        table.write_text(table.read_text().replace(winner, f"g{ALERTING}"))
    tab.open(page.write([run], tmp_path / "report.html"))
    assert tab.complaints == []
    assert tab.run("document.title").endswith("evonas")
    assert tab.run("document.querySelectorAll('img').length") == 0
    assert tab.run("document.querySelectorAll('script').length") == 2
    assert "onerror" in tab.run(PINNED)  # as text


def test_a_run_in_which_all_failed_has_a_page(tab: Page, three: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(three.parent, tmp_path / "failed"))
    table = pd.read_csv(run / "evaluations.csv", dtype=str)
    table["status"] = "crashed"
    table[["val_error", "params", "flops"]] = ""
    table.to_csv(run / "evaluations.csv", index=False)
    for name in ("front", "fronts", "finalists"):
        path = run / f"{name}.csv"
        path.write_text(path.read_text().splitlines(keepends=True)[0])
    tab.open(page.write([run]))
    assert tab.complaints == []
    said = tab.run("document.querySelector('main').innerText")
    assert "No evaluation has succeeded" in said
    assert not {"null", "undefined", "NaN"} & set(re.findall(r"\w+", said))


def test_a_comparison_has_its_figures(tab: Page, tmp_path: Path) -> None:
    other = ROOT / "results/reference/fashion_mnist/random"
    tab.open(page.write([REFERENCE, other], tmp_path / "report.html"))
    assert tab.complaints == []
    assert tab.run("document.querySelectorAll('#comparison .plot').length") == 6
    assert tab.run("document.querySelectorAll('[data-front] .plot').length") == 2
