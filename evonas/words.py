"""What people write in a settings file for a number or a choice, where the meaning is plain."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any, Literal, get_args, get_origin

SWITCHES = {"yes": True, "on": True, "no": False, "off": False}  # as in YAML 1.1
FACTORS = {"k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9}
SHORT = re.compile(r"([-+]?\d{1,15}(?:\.\d{1,15})?)([kKMG])", re.ASCII)


def plain(value: Any, annotation: Any) -> Any:
    """Return a value as its setting's type needs it: `no` as False, `50k` as 50,000.

    The items of a list are converted too. A value is left as it is if the type may be text, or if
    it has no plain meaning for the type.

    Args:
        annotation: the type of the setting; `Any` if it is not known, which counts as a type that
            may be true or false.
    """
    if isinstance(value, list):
        return [plain(each, annotation) for each in value]
    kinds = _kinds(annotation)
    if not isinstance(value, str) or str in kinds:
        return value
    short = SHORT.fullmatch(value)
    if short and kinds & {int, float}:
        number = Decimal(short[1]) * FACTORS[short[2]]
        return int(number) if number == int(number) else float(number)
    return SWITCHES.get(value.lower(), value) if kinds & {bool, Any, list, tuple} else value


def as_text(value: Any) -> Any:
    """Return a number, true or false as the text that YAML reads it from; all else unchanged."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


def _kinds(annotation: Any) -> set[Any]:
    """Return the types that a value, or a list's item, may have; a `Literal` counts for none."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return set()
    if origin is Annotated:
        return _kinds(inner[0])
    return set[Any]().union(*map(_kinds, inner)) if inner else {annotation}
