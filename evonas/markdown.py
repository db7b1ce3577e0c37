"""Markdown tables that read as plain text too; counts and budgets in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence


def table(header: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    """Writes a table, all columns as wide as their widest cell.

    The first column is aligned to the left, all others, which are numbers, to the right.

    Raises:
        ValueError: a row has more or fewer cells than the header.
    """
    lines = [list(header), *([str(cell) for cell in row] for row in rows)]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        [cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in enumerate(pairs)]
        for pairs in (list(zip(line, widths, strict=True)) for line in lines)
    ]
    rule = ["-" * (width - bool(i)) + (":" if i else "") for i, width in enumerate(widths)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (text[0], rule, *text[1:]))


def counted(number: float, noun: str) -> str:
    """Return a number and its noun, such as `1 epoch`, `2 classes` or `1,200 images`."""
    plural = f"{noun}es" if noun.endswith(("s", "x", "tch", "sh")) else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def length(budget: Mapping[str, float] | None) -> str:
    """Return ` for 3 epochs`; nothing without a budget."""
    units = ("epochs", "steps", "seconds")
    return "".join(
        f" for {counted(n, unit.removesuffix('s'))}"
        for unit, n in (budget or {}).items()
        if unit in units
    )
