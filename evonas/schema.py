"""The JSON schema of an experiment, by which editors complete and check the file."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, models_json_schema
from pydantic_core import core_schema

from evonas import catalogue, registry
from evonas.core import Params
from evonas.experiment import COMPONENTS, Experiment
from evonas.words import SHORT, SWITCHES

DIALECT = "https://json-schema.org/draft/2020-12/schema"
OWN = r"\.py:"  # in a name: a definition in a Python file of the user's

Schema = dict[str, Any]


def schema(names: Callable[[str], Collection[str]] = registry.names) -> Schema:
    """Return the JSON schema of an experiment file.

    It knows each key by itself, and not what only several of them together must be
    (`evonas validate`).

    Args:
        names: the names of a kind, as `registry.names` gives them, plug-ins' included.
    """
    loaded = {
        kind: {name: registry.load(kind, name).Params for name in sorted(names(kind))}
        for kind in COMPONENTS.values()
    }
    models = [Experiment, *(model for kind in loaded.values() for model in kind.values())]
    refs, whole = models_json_schema(
        [(model, "validation") for model in dict.fromkeys(models)],
        schema_generator=_Generator,
    )
    defs: Schema = whole["$defs"]
    unions: Schema = {}
    for kind, params in loaded.items():
        for name, model in params.items():
            key = refs[model, "validation"]["$ref"].rpartition("/")[2]
            defs[key]["description"] = catalogue.purpose(kind, name)
            defs[key]["required"] = sorted({"name", *defs[key].get("required", ())})
        options = [refs[model, "validation"] for model in params.values()]
        unions[kind] = {"anyOf": [*options, {"$ref": "#/$defs/own"}]}
    defs["own"] = {
        "description": "A definition in a Python file of your own, with any settings.",
        "properties": {"name": {"type": "string", "pattern": OWN}},
        "required": ["name"],
        "type": "object",
    }
    for params in loaded.values():
        for model in params.values():
            key = refs[model, "validation"]["$ref"].rpartition("/")[2]
            _unite(defs[key], model.PARTS, unions)
    experiment = defs.pop(refs[Experiment, "validation"]["$ref"].rpartition("/")[2])
    _unite(experiment, COMPONENTS, unions)
    experiment["required"].remove("stop")  # which `hours` may stand for
    experiment["anyOf"] = [{"required": ["stop"]}, {"required": ["hours"]}]
    for base in ("Params", "DataParams"):  # of which the unions have the members
        defs.pop(base, None)
    return {"$schema": DIALECT, "title": "An experiment of evonas", **experiment, "$defs": defs}


def text(names: Callable[[str], Collection[str]] = registry.names) -> str:
    """Return the schema as a file has it."""
    return json.dumps(schema(names), indent=1, ensure_ascii=False) + "\n"


def _unite(described: Schema, kinds: Any, unions: Schema) -> None:
    """Let each key with a component's settings have those of any name of its kind."""
    for key, kind in kinds.items():
        entry: Schema = described["properties"][key]
        nullable = [{"type": "null"}] if entry.get("default", ...) is None else []
        described["properties"][key] = {
            "description": entry.get("description", ""),
            "anyOf": [*unions[kind]["anyOf"], *nullable],
        }


class _Generator(GenerateJsonSchema):
    """Describes settings as `Params` takes them, with what `words.plain` reads."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False  # a key is its own title

    def model_schema(self, schema: core_schema.ModelSchema) -> Schema:
        described = super().model_schema(schema)
        model = schema["cls"]
        for entry in (described, *described.get("properties", {}).values()):
            if "description" in entry:
                entry["description"] = " ".join(entry["description"].split())
        if issubclass(model, Params) and "properties" in described:
            for old, new in model.RENAMED.items():
                described["properties"][old] = {
                    **described["properties"][new],
                    "description": f"The old name of {new}.",
                    "deprecated": True,
                }
        return described

    def int_schema(self, schema: core_schema.IntSchema) -> Schema:
        return _short(super().int_schema(schema))

    def float_schema(self, schema: core_schema.FloatSchema) -> Schema:
        return _short(super().float_schema(schema))

    def bool_schema(self, schema: core_schema.BoolSchema) -> Schema:
        return {"enum": [True, False, *SWITCHES]}


def _short(described: Schema) -> Schema:
    """Let a number also be written as `50k`. Bounds are those of numbers, a pattern is of texts."""
    return {**described, "type": [described["type"], "string"], "pattern": f"^{SHORT.pattern}$"}
