"""YAML as plain data: no tags that build objects, no aliases, no duplicate keys."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from evonas import files
from evonas.core import UserError

MAX_BYTES = 100_000
PLAIN = "write plain YAML"

# As in YAML 1.2, 1e-3 and 5.0e6 are numbers; YAML 1.1 requires 1.0e-3 and 5.0e+6.
EXPONENT = re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$")

# What YAML 1.1 reads as true or false, as a number in base 60 or 8, or as a date, is text, as in
# YAML 1.2: a choice called `no`, `1:2` or `010` keeps its name. A setting that needs true or false
# takes the words (`words.plain`).
TEXT = re.compile(
    r"(?i:yes|no|on|off)|[-+]?0[\d_]+|[-+]?\d[\d_]*(:\d+)+(\.[\d_]*)?|\d{4}-\d\d?-\d\d?.*", re.ASCII
)


def read(path: Path) -> Any:
    """Read a YAML file as plain data.

    Raises:
        UserError: the file is not plain YAML; the message does not name it.
    """
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise UserError("is a folder", hint="give the path of a YAML file")
        if not path.is_file():
            raise UserError("is a device or a pipe", hint="give the path of a YAML file")
        if size > MAX_BYTES:
            raise UserError(f"is {size:,} bytes", hint=f"must be at most {MAX_BYTES:,}")
        text = files.read(path, links=True).decode("utf-8")
    except FileNotFoundError:
        raise UserError("does not exist", hint="give the path of a YAML file") from None
    except UnicodeDecodeError:
        raise UserError("is not text", hint="must be YAML in UTF-8") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot be read: {reason}", hint="give a YAML file") from None
    return parse(text)


def flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted keys and their values; an empty list or mapping counts as a value."""
    if isinstance(value, Mapping | list) and value:
        pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
        for name, inner in pairs:
            yield from flat(inner, f"{key}.{name}" if key else str(name))
    else:
        yield key, value


def parse(text: str) -> Any:
    """Return the data of a YAML text.

    Raises:
        UserError: the text is not plain YAML.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = error.problem or error.context or "invalid YAML"
        hint = "indent with spaces" if "\\t" in problem else PLAIN
        raise UserError(f"{where}{problem}", hint=hint) from None
    except yaml.YAMLError as error:
        raise UserError(" ".join(str(error).split()), hint=PLAIN) from None
    except RecursionError:
        raise UserError("is nested too deeply", hint=PLAIN) from None
    except Exception:  # PyYAML's constructors raise what int(), date() and the like raise
        raise UserError("contains an invalid number, date or tagged value", hint=PLAIN) from None


def dump(data: Any) -> str:
    """Return YAML that `parse` reads back the same."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def overridden(document: Any, overrides: Sequence[str]) -> Any:
    """Set each override, `a.b=c`, in the document and return it; a number names a list's item.

    Raises:
        UserError: an override cannot be read, or names no place in the document.
    """
    for override in overrides:
        path, equals, value = override.partition("=")
        parts = path.split(".")
        if not equals or not all(parts):
            raise UserError(
                "is not of the form key=value",
                hint="write it like stop.generations=20",
                key=f"--set {override}",
            )
        try:
            parsed = parse(value)
        except UserError as error:
            key = f"--set {override}"
            raise UserError(*(replace(each, key=key) for each in error.mistakes)) from None
        where = document
        for part in parts[:-1]:
            if isinstance(where, dict) and not isinstance(where.get(part), dict | list):
                where[part] = {}
            where = where[_place(where, part, override)]
        where[_place(where, parts[-1], override)] = parsed
    return document


def _place(where: Any, part: str, override: str) -> str | int:
    """Return a part of an override's path as a key of a mapping or an index of a list."""
    if isinstance(where, dict):
        return part
    if isinstance(where, list) and part.isdecimal() and int(part) < len(where):
        return int(part)
    filled = isinstance(where, list) and where
    hint = f"allowed: 0 to {len(where) - 1}" if filled else "name a key of the file"
    raise UserError(f"there is no {part!r} to set", hint=hint, key=f"--set {override}")


class _Loader(yaml.SafeLoader):
    """Safe YAML without aliases, which can expand without bound, and without duplicate keys."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        if kind is yaml.ScalarNode and implicit[0] and TEXT.fullmatch(value):
            return self.DEFAULT_SCALAR_TAG
        return super().resolve(kind, value, implicit)

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem="aliases (*) are not supported", problem_mark=mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    problem = f"key {key.value!r} is listed twice"
                    raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Safe YAML in which text that the loader would read as a number is quoted."""


for _each in (_Loader, _Dumper):
    _each.add_implicit_resolver("tag:yaml.org,2002:float", EXPONENT, list("-+.0123456789"))
