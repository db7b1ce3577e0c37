"""The names that an experiment file can use, each with what it is for (`evonas list`)."""

from __future__ import annotations

import textwrap
from collections.abc import Callable

from evonas import registry
from evonas.core import UserError
from evonas.metrics import LATENCY, ON_DEMAND, SIMULATED_SECONDS, TRAINED
from genomes import library

KINDS = ("spaces", "strategies", "evaluators", "data", "genomes", "metrics")
OWN = ("FILE.py:NAME", "a definition in a Python file of your own")


def lines(kind: str | None, columns: int | None = None) -> list[str]:
    """Return one line for each name of a kind or, without one, a line of names for each kind.

    Args:
        columns: lines that are longer are broken; by default, none is.

    Raises:
        UserError: there is no such kind.
    """
    if kind is None:
        return _broken([f"{each}: {', '.join(names(each))}" for each in KINDS], 2, columns)
    if kind not in KINDS:
        raise UserError(registry.unknown("kind", kind, list(KINDS)))
    if kind == "genomes":
        cells = library.library().values()
        rows = [(cell.name, f"{cell.space:<14}  {cell.source}") for cell in cells]
    elif kind == "metrics":
        metrics = (*TRAINED, *ON_DEMAND, LATENCY, SIMULATED_SECONDS)
        about = {each.name: f"{each.label or each.unit}, from {each.source}" for each in metrics}
        rows = [(name, about.get(name.partition(" ")[0], "")) for name in names(kind)]
    else:
        rows = [(name, purpose(kind, name)) for name in names(kind)]
    rows += [OWN] if kind != "genomes" else []
    width = max(len(name) for name, _ in rows)
    if columns is not None and width + 2 > columns // 3:  # what each is for stands below its name
        return _broken([part for name, about in rows for part in (name, f"  {about}")], 2, columns)
    return _broken(
        [f"{name:<{width}}  {about}".rstrip() for name, about in rows], width + 2, columns
    )


def _broken(lines: list[str], indent: int, columns: int | None) -> list[str]:
    """Break lines that are longer than a terminal has columns, and indent what follows."""
    if columns is None:
        return lines
    return [
        part
        for line in lines
        for part in ([line] if len(line) <= columns else _parts(line, indent, columns))
    ]


def _parts(line: str, indent: int, columns: int) -> list[str]:
    return textwrap.wrap(
        line,
        max(columns, 2 * indent),
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def names(kind: str) -> list[str]:
    """Return the names of a kind, and for metrics the evaluator that alone measures one."""
    if kind == "genomes":
        return [cell.name for cell in library.library().values()]
    if kind == "metrics":
        names = [*(metric.name for metric in (*TRAINED, *ON_DEMAND)), *registry.names("metrics")]
        names += [f"{LATENCY.name} (evaluator supernet)"]
        return [*names, f"{SIMULATED_SECONDS.name} (evaluator tabular)"]
    return registry.names(kind)


def purpose(kind: str, name: str) -> str:
    """Return the first sentence of what a space, strategy, evaluator or data set says of itself."""
    loaded = registry.load(kind, name)
    described = loaded.space if kind == "spaces" else loaded
    sentence, dot, _ = " ".join((described.__doc__ or "").split()).partition(". ")
    return f"{sentence}{dot}".strip()


def completing(*texts: str, kind: str = "") -> Callable[[str], list[str]]:
    """Return what shells call to complete one of some texts, or of the names of a kind."""

    def complete(incomplete: str) -> list[str]:
        choices = registry.names(kind) if kind else texts
        return [text for text in choices if text.startswith(incomplete)]

    return complete
