"""YAML as plain data: no tags that build objects, no aliases, no key twice."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from evonas.core import UserError

MAX_BYTES = 100_000

# As in YAML 1.2, 1e-3 and 5.0e6 are numbers; YAML 1.1 wants 1.0e-3 and 5.0e+6.
EXPONENT = re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$")


def read(path: Path) -> Any:
    """A YAML file as plain data.

    Raises:
        UserError: what is wrong with it, without the file's name.
    """
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise UserError("is a folder; allowed: a YAML file")
        if size > MAX_BYTES:
            raise UserError(f"is {size:,} bytes; allowed: up to {MAX_BYTES:,}")
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise UserError("no such file; allowed: a YAML file") from None
    except UnicodeDecodeError:
        raise UserError("is not text; allowed: YAML in UTF-8") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot be read: {reason}; allowed: a YAML file") from None
    return parse(text)


def parse(text: str) -> Any:
    """The data of a YAML text.

    Raises:
        UserError: it is not plain YAML.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = error.problem or error.context or "a mistake"
        allowed = "spaces to indent with" if "\\t" in problem else "plain YAML"
        raise UserError(f"{where}{problem}; allowed: {allowed}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{' '.join(str(error).split())}; allowed: plain YAML") from None
    except RecursionError:
        raise UserError("is nested too deeply; allowed: plain YAML") from None
    except Exception:  # PyYAML's constructors raise whatever int(), date() and the like do
        raise UserError(
            "holds a number, a date or a tagged value that makes no sense; allowed: plain YAML"
        ) from None


def dump(data: Any) -> str:
    """YAML that `parse` reads back the same."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def overridden(document: Any, overrides: Sequence[str]) -> Any:
    """The document with `a.b=c` put in for each override; a number names a place in a list.

    Raises:
        UserError: an override that cannot be read, or has no place.
    """
    for override in overrides:
        path, equals, value = override.partition("=")
        parts = path.split(".")
        if not equals or not all(parts):
            raise UserError(f"--set {override}: allowed: key=value, such as stop.generations=20")
        try:
            parsed = parse(value)
        except UserError as error:
            raise UserError(f"--set {override}: {error}") from None
        where = document
        for part in parts[:-1]:
            if isinstance(where, dict) and not isinstance(where.get(part), dict | list):
                where[part] = {}
            where = where[_place(where, part, override)]
        where[_place(where, parts[-1], override)] = parsed
    return document


def _place(where: Any, part: str, override: str) -> str | int:
    """A part of an override's path as a key of a mapping or a place in a list."""
    if isinstance(where, dict):
        return part
    if isinstance(where, list) and part.isdecimal() and int(part) < len(where):
        return int(part)
    keys = f"0 to {len(where) - 1}" if isinstance(where, list) and where else "keys of the file"
    raise UserError(f"--set {override}: there is no {part!r} to set; allowed: {keys}")


class _Loader(yaml.SafeLoader):
    """Safe YAML without aliases, which can blow up, and without a key given twice."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem="an alias (*)", problem_mark=mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    problem = f"key {key.value!r} stands twice"
                    raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes what the loader would take for a number."""


for _each in (_Loader, _Dumper):
    _each.add_implicit_resolver("tag:yaml.org,2002:float", EXPONENT, list("-+.0123456789"))
