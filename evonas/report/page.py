"""The report of one run, or of several side by side: a single file that opens anywhere.

It holds its style sheet, its script and its data, and asks for nothing else; a policy within it
(Content-Security-Policy) has browsers refuse any request, and any script but its own.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup

from evonas import __version__, files
from evonas.core import UserError
from evonas.plots import style
from evonas.records.files import is_locked
from evonas.records.folder import undamaged
from evonas.report import series
from evonas.report.answer import Answer, open_run
from evonas.report.columns import columns, dumps
from evonas.report.compare import Comparison
from evonas.report.sheets import Sheets

NAME = "report.html"
SCRIPT = ("basics", "front", "details", "charts", "lineage", "table", "page")  # in this order
SECONDS = 15  # from one refresh of a watched page to the next
PAUSE = 1.0  # seconds between two looks at the tables of a watched run
PALETTE = ("BLUE", "VERMILION", "GREEN", "ORANGE", "PURPLE", "SKY", "GREY")


def write(paths: Sequence[Path], out: Path | None = None, *, watched: bool = False) -> Path:
    """Write the report of run folders, finished, running or killed.

    Args:
        out: the file; by default `report.html` in the folder of a single run, and here of several.
        watched: whether the page shall refresh itself while a run is going on.

    Returns:
        The file.

    Raises:
        UserError: a path is not a run folder, or the file cannot be written.
    """
    file = file_of(paths, out)
    text = page(paths, watched=watched)
    if file.is_dir():
        raise UserError("is a folder", hint="name a file with --out", key=str(file))
    try:
        files.write_atomic(file, text.encode(errors="replace"))  # half a character, say
    except OSError as error:
        problem = f"cannot be written: {error.strerror}"
        hint = "the folder must exist and be writable; name another file with --out"
        raise UserError(problem, hint=hint, key=str(file)) from None
    return file


def watch(paths: Sequence[Path], out: Path | None = None) -> Iterator[Path]:
    """Write the report anew after each generation, until no run is going on; yield it each time.

    Raises:
        UserError: as `write` does.
    """
    before = None
    while any(is_locked(path) for path in paths):
        now = [_size(path) for path in paths]
        if now != before:
            yield write(paths, out, watched=True)
            before = now
        time.sleep(PAUSE)


def file_of(paths: Sequence[Path], out: Path | None) -> Path:
    """Return the file of a report."""
    return out or (paths[0] / NAME if len(paths) == 1 else Path(NAME))


def page(paths: Sequence[Path], *, watched: bool = False) -> str:
    """Return the report of run folders as HTML.

    Raises:
        UserError: a path is not a run folder.
    """
    answers = [open_run(path) for path in paths]
    several, runs, sheets = len(answers) > 1, [], []
    for answer in answers:
        with undamaged(answer.path):
            answer.read()
            sheets.append(Sheets.of(answer))
            runs.append(columns(answer, brief=several))
    comparison, refusal = _compared(paths) if several else (None, "")
    figures = list(series.compared(comparison)) if comparison is not None else []
    data = {
        "runs": runs,
        "compared": figures,
        "refresh": SECONDS if watched and any(answer.running for answer in answers) else 0,
    }
    style_sheet, script = _asset("report.css"), _script()
    palette = "".join(f"--{name.lower()}:{getattr(style, name)};" for name in PALETTE)
    css = style_sheet.replace("/* palette */", palette)
    environment = Environment(
        loader=DictLoader({NAME: _asset(NAME)}),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(NAME).render(
        answers=answers,
        sheets=sheets,
        comparison=comparison,
        refusal=refusal,
        data=data,
        title=_title(answers),
        json=Markup(dumps(data)),
        css=Markup(css),
        script=Markup(script),
        policy=f"default-src 'none'; style-src {_digest(css)}; script-src {_digest(script)}; "
        "base-uri 'none'; form-action 'none'",
        drawing=_drawing,
        version=__version__,
        now=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _compared(paths: Sequence[Path]) -> tuple[Comparison | None, str]:
    """Return the comparison of runs, or why they cannot be compared."""
    try:
        return Comparison.of(paths), ""
    except UserError as error:
        return None, str(error)


def _size(path: Path) -> tuple[int, ...]:
    """The sizes of the tables that a generation, or the finals, write last."""
    tables = (path / f"{name}.csv" for name in ("timings", "front", "finalists"))
    return tuple(table.stat().st_size if table.exists() else 0 for table in tables)


def _title(answers: Sequence[Answer]) -> str:
    if len(answers) == 1:
        return answers[0].name
    names = list(dict.fromkeys(answer.name for answer in answers))
    return f"{len(answers)} runs: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"


def _drawing(data: dict[str, Any], run: int, key: str) -> Markup:
    """The drawing of a network, which `plots.inline` has escaped."""
    of = data["runs"][run]
    if key not in of.get("keys", ()):
        return Markup()
    return Markup(of["drawings"].get(of["keys"].index(key), ""))


def _asset(name: str) -> str:
    return resources("evonas.report").joinpath(name).read_text(encoding="utf-8")


def _script() -> str:
    """Return the script of the page: its parts in a scope of their own, which they share."""
    parts = "\n".join(_asset(f"script/{part}.js") for part in SCRIPT)
    return f'"use strict";\n(() => {{\n{parts}}})();\n'


def _digest(text: str) -> str:
    """Return what allows exactly this text in a policy."""
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"
