"""From a name in the YAML to a class: plain tables, loaded when first used."""

from __future__ import annotations

import difflib
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from evonas.core import Builder, UserError
from genomes import SearchSpace

TABLES: dict[str, dict[str, str]] = {
    "spaces": {
        "chain": "genomes.chain:Chain",
        "channels": "genomes.channels:Channels",
        "darts": "genomes.darts:Darts",
        "macro": "genomes.macro:Macro",
        "nasbench201": "genomes.nasbench201:NASBench201",
        "table": "genomes.table:TableSpace",
    },
    "networks": {
        "chain": "evonas.networks.chain:NETWORK",
        "channels": "evonas.networks.channels:NETWORK",
        "darts": "evonas.networks.darts:NETWORK",
        "macro": "evonas.networks.macro:NETWORK",
        "nasbench201": "evonas.networks.nasbench201:NETWORK",
        "table": "evonas.networks.table:NETWORK",
    },
    "strategies": {
        "aging": "evonas.strategies.aging:Aging",
        "controller": "evonas.strategies.controller:Controller",
        "darts": "evonas.oneshot.darts:DartsSearch",
        "exhaustive": "evonas.strategies.exhaustive:Exhaustive",
        "gdas": "evonas.oneshot.gdas:Gdas",
        "genetic": "evonas.strategies.genetic:Genetic",
        "local_search": "evonas.strategies.local_search:LocalSearch",
        "nsga2": "evonas.strategies.nsga2:NSGA2",
        "nsga3": "evonas.strategies.nsga3:NSGA3",
        "pso": "evonas.strategies.pso:PSO",
        "random": "evonas.strategies.random:Random",
    },
    "evaluators": {
        "supernet": "evonas.evaluators.supernet:SupernetEvaluator",
        "tabular": "evonas.evaluators.tabular:Tabular",
        "train": "evonas.evaluators.train:TrainEvaluator",
    },
    "data": {
        "cifar10": "evonas.data.cifar:Cifar10",
        "cifar100": "evonas.data.cifar:Cifar100",
        "digits": "evonas.data.digits:Digits",
        "fashion_mnist": "evonas.data.idx:FashionMnist",
        "image_folder": "evonas.data.image_folder:ImageFolder",
        "mnist": "evonas.data.idx:Mnist",
        "npz": "evonas.data.npz:Npz",
    },
}

# What stands for a Python file of the user's own, `FILE.py:NAME`; none is imported by that.
OWN = {
    "spaces": "evonas.own:load_space",
    "networks": "evonas.own:NETWORK",
    "data": "evonas.own:OwnData",
}

SINGULAR = {
    "spaces": "space",
    "networks": "space",
    "strategies": "strategy",
    "evaluators": "evaluator",
    "data": "data set",
}


@cache
def table(kind: str) -> dict[str, str]:
    """Names and targets of a kind, with those of entry points `evonas.KIND`; ours go first."""
    others = {entry.name: entry.value for entry in entry_points(group=f"evonas.{kind}")}
    return others | TABLES[kind]


def names(kind: str) -> list[str]:
    return sorted(table(kind))


def load(kind: str, name: str) -> Any:
    """The class or object behind a name.

    Raises:
        UserError: no such name.
    """
    target = OWN[kind] if is_own(kind, name) else table(kind).get(name)
    if target is None:
        raise UserError(unknown(SINGULAR[kind], name, names(kind)))
    module, _, attribute = target.partition(":")
    return getattr(import_module(module), attribute)


def make_space(params: Any) -> SearchSpace:
    """The search space that the settings in an experiment's `space` stand for."""
    loaded = load("spaces", params.name)
    if is_own("spaces", params.name):
        own: SearchSpace = loaded(params)
        return own
    builder: Builder = load("networks", params.name)
    space: SearchSpace = loaded(**{key: getattr(params, key) for key in builder.space_keys})
    return space


def builder_of(space: SearchSpace) -> Builder:
    """How the networks of a space are built."""
    own: Builder | None = getattr(space, "builder", None)
    return own or load("networks", space.name.partition("/")[0])


def is_own(kind: str, name: str) -> bool:
    """Whether a name is `FILE.py:NAME`, where that can stand for a component."""
    return kind in OWN and ".py:" in name


def unknown(what: str, name: object, known: list[str]) -> str:
    """`unknown strategy 'pzo'; did you mean 'pso'? known: genetic, pso`."""
    close = difflib.get_close_matches(str(name), known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    shown = str(name) if len(str(name)) <= 60 else f"{str(name)[:57]}..."
    return f"unknown {what} {shown!r}; {hint}known: {', '.join(known)}"
