"""The source of a function or class and of what it needs of evonas and the user, as one text."""

from __future__ import annotations

import ast
import builtins
import inspect
import sys
import textwrap
import types
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from evonas import plugins
from evonas.core import UserError
from evonas.provenance import is_installed

PLAIN = (bool, int, float, str, bytes, type(None))


class Source:
    """Definitions in the order in which they need one another, and what they import.

    What is defined in evonas, in genomes or in the user's files is written out; all else is
    imported. Nothing may import evonas itself, except for its decorators, which are left out.
    """

    def __init__(self) -> None:
        self.imports: dict[str, None] = {}
        self.constants: dict[str, str] = {}
        self.definitions: dict[str, str] = {}
        self._seen: dict[str, Any] = {}

    def add(self, thing: Any, *, name: str = "", init: str = "") -> None:
        """Add a function or class, and all that it needs.

        Args:
            name: another name for a class.
            init: the text of another `__init__` for a class; with it, only the first paragraph of
                the class's docstring is kept.

        Raises:
            UserError: it needs something that cannot be written out.
        """
        name = name or thing.__name__
        if name in self._seen:
            if self._seen[name] != (thing, init):
                raise UserError(f"two definitions are named {name}", hint="rename one of them")
            return
        self._seen[name] = (thing, init)
        try:
            text = textwrap.dedent(inspect.getsource(thing))
        except (OSError, TypeError):
            raise UserError(f"{name} has no source to read", hint="define it in a file") from None
        module = _namespace(thing)
        node, source = _parsed(text, module)
        if init:
            node, source = _assembling(node, source, name, init)
        for needed, hint in _names(node):
            if needed in module:
                self._need(needed, module[needed], hint=hint)
        self.definitions[name] = source

    def text(self) -> str:
        """Return imports, constants and definitions, as in a file."""
        top = ["\n".join(_imports(self.imports)), "\n".join(self.constants.values())]
        return "\n\n\n".join(["\n\n".join(filter(None, top)), *self.definitions.values()])

    def need(self, thing: Any) -> None:
        """Add a function or class as `add` does, or its import if others have defined it."""
        self._need(thing.__name__, thing, hint=False)

    def _need(self, name: str, value: Any, *, hint: bool) -> None:
        """Add what a name stands for; what only a type hint names may be left out."""
        if isinstance(value, types.ModuleType):
            if _is_ours(value):
                own = value.__name__.startswith(plugins.PREFIX)
                module = value.__name__.partition(".")[2] if own else value.__name__
                raise UserError(
                    f"{module} is used as a module", hint="import names from it instead"
                )
            package, _, last = value.__name__.rpartition(".")
            plain = f"import {value.__name__}"
            if package and last == name:
                plain = f"from {package} import {name}"
            elif name != value.__name__:
                plain = f"{plain} as {name}"
            self.imports[plain] = None
        elif isinstance(value, type | types.FunctionType) and _is_ours(value):
            if not hint:
                self.add(value)
        elif isinstance(value, type | types.FunctionType | types.BuiltinFunctionType):
            renamed = "" if value.__name__ == name else f" as {name}"
            self.imports[f"from {value.__module__} import {value.__name__}{renamed}"] = None
        elif _is_plain(value):
            self.constants[name] = f"{name} = {value!r}"
        elif not hint:
            raise UserError(f"{name}, a {type(value).__name__}, cannot be written out")


def _namespace(thing: Any) -> dict[str, Any]:
    """Return the names that a definition sees, including those of an enclosing function."""
    if isinstance(thing, types.FunctionType):
        return {**thing.__globals__, **inspect.getclosurevars(thing).nonlocals}
    return vars(sys.modules[thing.__module__])


def _is_ours(thing: Any) -> bool:
    """Return whether it belongs to evonas, to genomes, or to a file that is not installed."""
    name = thing.__name__ if isinstance(thing, types.ModuleType) else thing.__module__
    top = name.partition(".")[0]
    if top in ("evonas", "genomes") or top.startswith(plugins.PREFIX):
        return True
    if isinstance(thing, types.ModuleType) or top in sys.stdlib_module_names:
        return False
    file = getattr(sys.modules.get(name), "__file__", None)
    return file is None or not is_installed(Path(file))


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list | set | frozenset):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(_is_plain(each) for pair in value.items() for each in pair)
    return isinstance(value, PLAIN)


def _names(node: ast.AST) -> Iterator[tuple[str, bool]]:
    """Yield the names that a definition reads, each with whether it is in a type hint."""
    hints = set[int]()
    for each in ast.walk(node):
        for field in ("annotation", "returns"):
            inner = getattr(each, field, None)
            if inner is not None:
                hints |= {id(part) for part in ast.walk(inner)}
    for each in ast.walk(node):
        if not isinstance(each, ast.Name) or not isinstance(each.ctx, ast.Load):
            continue
        if not hasattr(builtins, each.id):
            yield each.id, id(each) in hints


def _parsed(text: str, module: Mapping[str, Any]) -> tuple[ast.stmt, str]:
    """Return a definition, parsed and as text, without evonas's decorators, which only mark it."""
    [node] = ast.parse(text).body
    assert isinstance(node, ast.FunctionDef | ast.ClassDef)
    lines, marks = text.splitlines(), set[int]()
    for decorator in node.decorator_list:
        root: ast.expr = decorator
        while isinstance(root, ast.Attribute | ast.Call):
            root = root.value if isinstance(root, ast.Attribute) else root.func
        value = module.get(root.id) if isinstance(root, ast.Name) else None
        name = getattr(value, "__module__", None) or getattr(value, "__name__", None)
        if str(name).partition(".")[0] == "evonas":
            marks |= set(range(decorator.lineno - 1, decorator.end_lineno or decorator.lineno))
    source = "\n".join(line for i, line in enumerate(lines) if i not in marks).strip()
    [node] = ast.parse(source).body
    return node, source


def _assembling(node: ast.stmt, source: str, name: str, init: str) -> tuple[ast.stmt, str]:
    """Return a class, parsed and as text, with another name and `__init__`."""
    assert isinstance(node, ast.ClassDef)
    first, lines = node.body[0], source.splitlines()
    start = min([first.lineno, *(d.lineno for d in getattr(first, "decorator_list", []))]) - 1
    parts = ["\n".join(lines[:start]).replace(f"class {node.name}", f"class {name}", 1), init]
    docstring = ast.get_docstring(node)
    if docstring is not None:
        paragraph = f'"""{docstring.partition(2 * chr(10))[0]}"""'
        parts.insert(1, f"{textwrap.indent(paragraph, 4 * ' ')}\n")
        start, node.body = first.end_lineno or start, node.body[1:]
    for part in node.body:
        if not (isinstance(part, ast.FunctionDef) and part.name == "__init__"):
            parts.append("\n".join(lines[start : part.end_lineno]))
        start = part.end_lineno or start
    text = "\n".join(parts)
    return ast.parse(text).body[0], text


def _imports(lines: Iterable[str]) -> Iterator[str]:
    """Yield imports of modules first, then those of names, one line per module."""
    names: dict[str, list[str]] = {}
    for line in sorted(lines):
        if line.startswith("import "):
            yield line
        else:
            module, _, name = line.removeprefix("from ").partition(" import ")
            names.setdefault(module, []).append(name)
    yield from (f"from {module} import {', '.join(each)}" for module, each in names.items())
