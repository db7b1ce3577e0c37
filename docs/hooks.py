"""Puts into the pages what the code says of itself: every key of the YAML, every command.

mkdocs calls `on_page_markdown`, so a built site is always current. The pages hold the same text,
for those who read them elsewhere; run as a script, this writes it there anew.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import typer
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from evonas import registry
from evonas.cli import app
from evonas.config import COMPONENTS, Experiment, TrainingParams
from evonas.core import Params
from evonas.data.dataset import DataParams

TITLES = {
    "space": "Spaces",
    "data": "Data sets",
    "strategy": "Strategies",
    "evaluator": "Evaluators",
}

# Where a model's keys stand in the page.
SECTIONS = {
    "Recipe": "recipe",
    **{
        model.__name__: section
        for section, field in Experiment.model_fields.items()
        if section not in COMPONENTS
        for model in [
            inner
            for inner in (field.annotation, *get_args(field.annotation))
            if isinstance(inner, type) and issubclass(inner, Params)
        ]
    },
}


WIDTH = 90  # of the commands' help, whatever the terminal


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs for each page; what stands between two markers is made anew."""
    return refreshed(markdown)


def refreshed(markdown: str) -> str:
    """A page with current text between `<!-- keys -->` and `<!-- /keys -->`, or `commands`."""
    for name, text in (("keys", keys), ("commands", commands)):
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        if begin in markdown:
            before, _, rest = markdown.partition(begin)
            _, found, after = rest.partition(end)
            if not found:
                raise ValueError(f"{begin} stands in a page without {end}")
            markdown = f"{before}{begin}\n\n{text()}\n\n{end}{after}"
    return markdown


def main() -> None:
    """Writes the pages that are not current, and says which."""
    for page in sorted(Path(__file__).parent.rglob("*.md")):
        before = page.read_text(encoding="utf-8")
        after = refreshed(before)
        if after != before:
            page.write_text(after, encoding="utf-8")
            print(f"{page} is written anew")


def keys() -> str:
    """Every key that an experiment may have: a table a section, one a component."""
    parts = ["## Top level", _table(Experiment)]
    for section, field in Experiment.model_fields.items():
        if section in COMPONENTS:
            parts += [f"## {section}", f"{field.description} {TITLES[section]}, by `name`:"]
            parts += _components(section)
        for model in _models(field.annotation):
            if model.__name__ in SECTIONS:
                parts += [f"## {section}", field.description or "", _table(model)]
    recipe = next(m for f in TrainingParams.model_fields.values() for m in _models(f.annotation))
    parts += ["## recipe", "How a network is trained.", _table(recipe)]
    return "\n\n".join(parts)


def commands() -> str:
    """The help of every command, as a terminal shows it."""
    group: Any = typer.main.get_command(app)
    whole = group.context_class(
        group, info_name="evonas", terminal_width=WIDTH, **group.context_settings
    )
    parts = []
    for name, command in group.commands.items():
        context = command.context_class(command, info_name=name, parent=whole)
        told = "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
        parts.append(f"## evonas {name}\n\n```text\n{told}\n```")
    return "\n\n".join(parts)


def _components(section: str) -> Iterator[str]:
    kind, shared = COMPONENTS[section], set[str]()
    if section == "data":
        shared = set(DataParams.model_fields)
        yield "All of them have these keys."
        yield _table(DataParams)
    for name in sorted(registry.TABLES[kind]):
        loaded = registry.load(kind, name)
        yield f"### {name}"
        if isinstance(loaded, type):  # a space is an object, described by its keys alone
            yield " ".join((loaded.__doc__ or "").strip().split("\n\n")[0].split())
        yield _table(loaded.Params, without={"name", *shared})


def _table(model: type[Params], without: Collection[str] = ()) -> str:
    rows = ["| key | allowed | default | meaning |", "| --- | --- | --- | --- |"]
    fields = {name: f for name, f in model.model_fields.items() if name not in without}
    if not fields:
        return "No keys of its own."
    for name, field in fields.items():
        cells = (f"`{name}`", _allowed(field), _default(field), field.description or "")
        flat = [" ".join(cell.split()).replace("|", "\\|") for cell in cells]
        rows.append(f"| {' | '.join(flat)} |")
    return "\n".join(rows)


def _allowed(field: FieldInfo) -> str:
    """A type and its bounds, in words."""
    annotation: Any = field.annotation
    if annotation is None:
        return ""
    limits = list(field.metadata)
    options = []
    for option in _options(annotation):
        bounds = limits + list(getattr(option, "__metadata__", ()))
        base = get_args(option)[0] if hasattr(option, "__metadata__") else option
        if base is type(None):
            continue
        options.append(_words(base) + _bounds(bounds))
    return " or ".join(options)


def _options(annotation: Any) -> list[Any]:
    is_union = "Union" in type(annotation).__name__ or str(annotation).startswith("typing.Union")
    return list(get_args(annotation)) if is_union else [annotation]


def _words(base: Any) -> str:
    if "Literal" in str(base):
        return ", ".join(f"`{value}`" for value in get_args(base))
    if models := _models(base):
        listed = "a list of " if "tuple" in str(base) else ""
        [model] = models
        section = SECTIONS.get(model.__name__)
        return f"{listed}[{section}](#{section})" if section else "`{name: ...}`, see below"
    origin, inner = get_origin(base), get_args(base)
    if origin is Annotated:
        return _words(inner[0])
    if origin is dict:
        return f"a mapping of {_words(inner[0])} to {_words(inner[1])}"
    if origin is tuple:
        return f"a list of {_words(inner[0])}"
    words = {int: "whole number", float: "number", str: "text", bool: "true or false"}
    return words[base]


def _bounds(metadata: list[Any]) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    found: list[str] = []
    for item in metadata:
        for constraint in [item, *getattr(item, "metadata", ())]:
            for name, sign in signs.items():
                bound = getattr(constraint, name, None)
                if bound is not None:
                    found.append(f"{sign} {bound:,}")
    return f" {', '.join(dict.fromkeys(found))}" if found else ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default
    if value is PydanticUndefined or isinstance(value, Params):
        return "the defaults below"
    if value is None:
        return "none"
    if value == ():
        return "`[]`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _models(annotation: Any) -> list[type[Params]]:
    """The models inside an annotation, such as `Budget` in `Budget | None`."""
    if isinstance(annotation, type) and issubclass(annotation, Params):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models(inner)]


if __name__ == "__main__":
    main()
