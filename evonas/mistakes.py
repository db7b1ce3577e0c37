"""Pydantic's errors, translated into mistakes in the terms of the experiment file."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import ValidationError

from evonas import plugins
from evonas.core import Mistake, Params, Requirement

NAME_RULE = "up to 64 letters, digits, '.', '_', '-', the first a letter or digit"
DEVICES = "auto, cpu, cuda, cuda:0 or cuda:0,1"
TYPES = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "string_too_short": "text that is not empty",
    "model_type": "a mapping of keys to values",
    "tuple_type": "a list",
    "finite_number": "a finite number",
}
LIMITS = {
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
}
KINDS = {type(None): "nothing", str: "text", list: "a list", bool: "true or false"}


@dataclass(frozen=True, slots=True)
class _Branch:
    """The demand of one branch of a union: `must be` and a phrase, or `allowed: ` and values."""

    problem: str
    demand: str = ""  # "at least 2"
    values: str = ""  # "'roulette' or 'rank'"
    hint: str = ""  # a complete hint, instead of the two above


def explained(
    error: ValidationError,
    model: type[Params],
    section: str,
    example: Callable[[str], str],
) -> list[Mistake]:
    """Return one mistake for each key, such as `strategy.population: is 1; must be at least 2`.

    Args:
        section: the model's place in the file; "" for the whole file.
        example: returns, for a missing key, a phrase that describes its value.
    """
    branches: dict[str, list[_Branch]] = {}
    for each in error.errors(include_url=False):
        if each["type"] in ("callable_type", "default_factory_not_called"):
            continue  # a function is of use from Python alone; the other is told where it is wrong
        where = [part for part in each["loc"] if not _is_branch(part)]
        key = ".".join(filter(None, [section, *map(str, where)])) or "experiment"
        if each["type"] == "value_error":
            requirement = each["ctx"]["error"]
            assert isinstance(requirement, Requirement), "models raise nothing else"
            key = f"{key}.{requirement.field}" if requirement.field else key
            branch = _required(requirement, each["input"], model)
        else:
            branch = _explained(each, model, key, where, example)
        within = any(other.startswith(f"{key}.") for other in branches)
        if each["type"] != "too_short" or not within:
            branches.setdefault(key, []).append(branch)
    return [_joined(printable(key), of_key) for key, of_key in branches.items()]


def shown(value: Any) -> str:
    """Return a value as YAML writes it, shortened to 50 characters."""
    text = _in_yaml(value)
    return text if len(text) <= 50 else f"{text[:47]}..."


def kind_of(document: Any) -> str:
    """Return the kind of a document in words, such as `a list`."""
    return KINDS.get(type(document), f"a {type(document).__name__}")


def printable(text: str) -> str:
    """Return a text with line breaks and terminal escapes spelt out."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _in_yaml(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_in_yaml(inner)}' for key, inner in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_in_yaml, value))}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return "null" if value is None else repr(value)


def _joined(key: str, branches: Sequence[_Branch]) -> Mistake:
    """Return one mistake for the demands of all branches of a union."""
    problem = printable(branches[0].problem)
    hint = next((branch.hint for branch in branches if branch.hint), "")
    if not hint and all(branch.values for branch in branches):
        hint = f"allowed: {', '.join(branch.values for branch in branches)}"
    if not hint:
        demands = [branch.demand or branch.values for branch in branches]
        hint = f"must be {', or '.join(filter(None, demands))}"
    return Mistake(problem, printable(hint), key)


def _required(requirement: Requirement, value: Any, model: type[Params]) -> _Branch:
    """Return the demand of a model's own check."""
    field = requirement.field
    if field:
        default = model.model_fields[field].default if field in model.model_fields else None
        value = value.get(field, default) if isinstance(value, Mapping) else default
    return _Branch(requirement.problem or f"is {shown(value)}", hint=requirement.hint)


def _explained(
    error: Any, model: type[Params], key: str, where: Sequence[int | str], example: Any
) -> _Branch:
    kind, context = error["type"], error.get("ctx", {})
    problem = f"is {shown(error['input'])}"
    if kind == "extra_forbidden":
        fields = sorted(_fields(model, where[:-1]))
        close = difflib.get_close_matches(str(where[-1]), fields, n=1)
        guess = f" (did you mean {close[0]!r}?)" if close else ""
        return _Branch(f"unknown key{guess}", hint=f"allowed: {', '.join(fields)}")
    if kind == "missing":
        return _Branch("is missing", hint=f"give {example(key)}")
    if kind == "literal_error":
        return _Branch(problem, values=context["expected"])
    if kind in LIMITS:
        return _Branch(problem, LIMITS[kind].format(**context))
    if kind == "string_type" and isinstance(error["input"], bool | int | float | None):
        return _Branch(problem, "text, in quotes")
    if kind in TYPES:
        return _Branch(problem, TYPES[kind])
    if kind == "string_pattern_mismatch":
        if context.get("pattern") == plugins.PATTERN:
            return _Branch(problem, "FILE.py:NAME")
        rules = {"parallel.device": DEVICES, "parallel.address": "like tcp://10.0.0.1:8786"}
        return _Branch(problem, rules.get(key, NAME_RULE))
    if kind == "invalid_key":
        return _Branch(
            f"is a key that YAML reads as {shown(where[-1])}",
            hint="must be text, in quotes",
        )
    if kind == "too_short":
        count = context["min_length"]
        return _Branch("is empty", hint=f"give at least {count}")
    if kind == "too_long":
        count = context["max_length"]
        return _Branch("has too many entries", hint=f"give at most {count}")
    return _Branch(problem, hint=error["msg"])


def _is_branch(part: int | str) -> bool:
    """Return whether a location's part is pydantic's name for a branch of a union, not a key."""
    return isinstance(part, str) and (
        part in {"int", "float", "str", "bool"} or "[" in part or part.startswith("constrained-")
    )


def _fields(model: type[Params], where: Sequence[int | str]) -> Sequence[str]:
    """Return the keys allowed at a place below a model."""
    place: Any = model
    for part in where:
        if isinstance(part, str):
            place = _inner_model(place.model_fields[part].annotation)
    return list(place.model_fields)


def _inner_model(annotation: Any) -> Any:
    """Return the model inside an annotation such as `tuple[Objective, ...]`, or None."""
    if isinstance(annotation, type) and issubclass(annotation, Params):
        return annotation
    inner = [_inner_model(argument) for argument in get_args(annotation)]
    return next((model for model in inner if model is not None), None)
