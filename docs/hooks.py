"""The generated parts of the pages: every key of the experiment file, and every command.

mkdocs calls `on_page_markdown`, so a built site is always current. The pages in the repository
contain the same text; run as a script, this module updates them, and the JSON schema beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
import yaml
from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from evonas import plugins, registry, schema
from evonas.cli import app
from evonas.core import Params
from evonas.data.dataset import DataParams
from evonas.experiment import COMPONENTS, Experiment, TrainingParams

TITLES = {
    "space": "Spaces",
    "data": "Data sets",
    "strategy": "Strategies",
    "evaluator": "Evaluators",
}

# The section of the page that lists a model's keys.
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

# A type in words, singular and plural.
WORDS = {
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("text", "texts"),
    bool: ("`true` or `false`", "`true` or `false`"),
}
COUNTS = {2: "two", 3: "three", 4: "four"}
LARGE = 2**31  # bounds from here on are written as powers of 2
SCHEMA = Path(__file__).parent / "reference" / "experiment.schema.json"
WIDTH = 90  # columns of the commands' help, whatever the terminal


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return a page with its generated parts up to date; mkdocs calls this for each page."""
    return refreshed(markdown)


def refreshed(markdown: str) -> str:
    """Return a page with current text between `<!-- keys -->` and `<!-- /keys -->`, or `commands`.

    Raises:
        ValueError: a marker has no end.
    """
    for name, text in (("keys", keys), ("commands", commands)):
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        if begin in markdown:
            before, _, rest = markdown.partition(begin)
            _, closing, after = rest.partition(end)
            if not closing:
                raise ValueError(f"a page has {begin} without {end}")
            markdown = f"{before}{begin}\n\n{text()}\n\n{end}{after}"
    return markdown


def main() -> None:
    """Update the pages that are out of date, and print their names."""
    for page in sorted(Path(__file__).parent.rglob("*.md")):
        before = page.read_text(encoding="utf-8")
        after = refreshed(before)
        if after != before:
            page.write_text(after, encoding="utf-8")
            print(f"updated {page}")
    if not SCHEMA.exists() or SCHEMA.read_text(encoding="utf-8") != schema_text():
        SCHEMA.write_text(schema_text(), encoding="utf-8")
        print(f"updated {SCHEMA}")


def schema_text() -> str:
    """Return the schema of an experiment, without the names of plug-ins."""
    return schema.text(registry.TABLES.__getitem__)


def keys() -> str:
    """Return every key of the experiment file: a table per section and per component."""
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
    """Return the help of every command, as a terminal shows it."""
    group: Any = typer.main.get_command(app)
    parent = group.context_class(
        group, info_name="evonas", **{**group.context_settings, "terminal_width": WIDTH}
    )
    parts = []
    for name, command in group.commands.items():
        context = command.context_class(command, info_name=name, parent=parent)
        text = "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
        parts.append(f"## evonas {name}\n\n```text\n{text}\n```")
    return "\n\n".join(parts)


def _components(section: str) -> Iterator[str]:
    kind, shared = COMPONENTS[section], set[str]()
    if section == "data":
        shared = set(DataParams.model_fields)
        yield "All of them have these keys:"
        yield _table(DataParams)
    for name in sorted(registry.TABLES[kind]):
        component = registry.load(kind, name)
        described = component.space if section == "space" else component
        about = (described.__doc__ or "").strip().split("\n\n")[0]
        yield f"### {name}"
        if about:
            yield " ".join(about.split())
        yield _table(component.Params, without={"name", *shared})


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
    """Return a field's type and bounds in words, such as "a whole number from 1 to 100"."""
    options = [
        _words(option, field.metadata)
        for option in _options(field.annotation)
        if option is not type(None) and get_origin(option) is not Callable
    ]
    return ", or ".join(options)


def _options(annotation: Any) -> list[Any]:
    is_union = "Union" in type(annotation).__name__ or str(annotation).startswith("typing.Union")
    return list(get_args(annotation)) if is_union else [annotation]


def _words(annotation: Any, metadata: Sequence[Any] = (), *, plural: bool = False) -> str:
    """Return a type in words.

    Args:
        metadata: the constraints that its field adds to it.
    """
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _words(inner[0], [*metadata, *inner[1:]], plural=plural)
    if origin is Literal:
        values = ", ".join(f"`{value}`" for value in inner)
        return values if len(inner) == 1 else f"one of {values}"
    if origin is tuple:
        number = "" if inner[-1] is ... else f"{COUNTS[len(inner)]} "
        items = inner[0] if len(set(inner)) == 1 or inner[-1] is ... else get_args(inner[0])[0]
        return f"{'lists' if plural else 'a list'} of {number}{_words(items, plural=True)}"
    if origin is dict:
        values = _words(inner[1], plural=True)
        return f"{'mappings' if plural else 'a mapping'} of names to {values}"
    if isinstance(annotation, type) and issubclass(annotation, Params):
        return _model_in_words(annotation)
    constraints = [part for item in metadata for part in getattr(item, "metadata", (item,))]
    if any(getattr(part, "pattern", None) == plugins.PATTERN for part in constraints):
        return "`FILE.py:NAME`"
    return WORDS[annotation][plural] + _bounds(annotation, constraints)


def _model_in_words(model: type[Params]) -> str:
    if model in (Params, DataParams):  # the base of several, of which `name` chooses one
        return "`{name: ...}`, see below"
    section = SECTIONS.get(model.__name__)
    keys = " and ".join(f"`{key}`" for key in model.model_fields)
    return f"[{section}](#{section})" if section else f"a mapping with {keys}"


def _bounds(kind: type, constraints: Sequence[Any]) -> str:
    """Return bounds in words, such as " from 1 to 100" or " above 0 and below 1"."""
    low: tuple[str, Any] | None = None
    high: tuple[str, Any] | None = None
    for constraint in constraints:
        match constraint:
            case Ge(ge=bound):
                low = ("of at least", bound)
            case Gt(gt=bound):
                low = ("of at least", bound + 1) if kind is int else ("above", bound)
            case Le(le=bound):
                high = ("at most", bound)
            case Lt(lt=bound):
                high = ("at most", bound - 1) if kind is int else ("below", bound)
    if low and high and (low[0], high[0]) == ("of at least", "at most"):
        return f" from {_number(low[1])} to {_number(high[1])}"
    limits = [f"{words} {_number(bound)}" for words, bound in filter(None, (low, high))]
    return f" {' and '.join(limits)}" if limits else ""


def _number(bound: float) -> str:
    if isinstance(bound, int) and bound >= LARGE - 1:
        power = (bound + 1).bit_length() - 1
        return f"2^{power} - 1" if bound + 1 == 2**power else f"{bound:,}"
    return f"{bound:,.0f}" if float(bound).is_integer() else f"{bound:,}"


def _default(field: FieldInfo) -> str:
    """Return a field's default, as YAML writes it."""
    if field.is_required():
        return "required"
    if field.default_factory_takes_validated_data:
        return "by the others"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, Params):
        chosen = field.annotation is Params  # by its name
        return f"`{{name: {registry.name_of(value)}}}`" if chosen else "the defaults below"
    text = yaml.safe_dump(_plain(value), default_flow_style=True, width=1000)
    return f"`{text.removesuffix(chr(10)).removesuffix('...').strip()}`"


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _models(annotation: Any) -> list[type[Params]]:
    """Return the models inside an annotation, such as `Budget` in `Budget | None`."""
    if isinstance(annotation, type) and issubclass(annotation, Params):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models(inner)]


if __name__ == "__main__":
    main()
