"""The tables from names in the YAML to classes, which are loaded when first used."""

from __future__ import annotations

import difflib
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Protocol, runtime_checkable

from evonas.core import Blueprint, Mistake, Params, UserError
from evonas.protocols import EvaluatorClass, SpaceClass, StrategyClass
from genomes import SearchSpace

TABLES: dict[str, dict[str, str]] = {
    "spaces": {
        "chain": "evonas.networks.chain:CHAIN",
        "channels": "evonas.networks.channels:CHANNELS",
        "darts": "evonas.networks.darts:DARTS",
        "macro": "evonas.networks.macro:MACRO",
        "nasbench201": "evonas.networks.nasbench201:NASBENCH201",
        "stages": "evonas.networks.stages:STAGES",
        "table": "evonas.networks.table:TABLE",
    },
    "strategies": {
        "aging": "evonas.strategies.aging:Aging",
        "auto": "evonas.strategies.auto:Auto",
        "controller": "evonas.strategies.controller:Controller",
        "darts": "evonas.oneshot.darts:DartsSearch",
        "exhaustive": "evonas.strategies.exhaustive:Exhaustive",
        "gdas": "evonas.oneshot.gdas:Gdas",
        "genetic": "evonas.strategies.genetic:Genetic",
        "halving": "evonas.strategies.halving:Halving",
        "local_search": "evonas.strategies.local_search:LocalSearch",
        "nsga2": "evonas.strategies.nsga2:NSGA2",
        "nsga3": "evonas.strategies.nsga3:NSGA3",
        "predictor": "evonas.strategies.predictor:Predictor",
        "pso": "evonas.strategies.pso:PSO",
        "random": "evonas.strategies.random:Random",
    },
    "evaluators": {
        "proxy": "evonas.evaluators.proxy:ProxyEvaluator",
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
    "metrics": {},
    "loggers": {
        "mlflow": "evonas.loggers.mlflow:MLflow",
        "tensorboard": "evonas.loggers.tensorboard:TensorBoard",
        "wandb": "evonas.loggers.wandb:WandB",
    },
}

# The placeholder for `FILE.py:NAME`, a definition in a user's Python file; it imports no file.
OWN = {
    "spaces": "evonas.own:OwnSpaces",
    "strategies": "evonas.own_classes:OwnStrategy",
    "evaluators": "evonas.own_classes:OwnEvaluator",
    "data": "evonas.own:OwnData",
}

SINGULAR = {
    "spaces": "space",
    "strategies": "strategy",
    "evaluators": "evaluator",
    "data": "data set",
    "metrics": "metric",
    "loggers": "logger",
}

CLASSES: dict[str, type] = {
    "spaces": SpaceClass,
    "strategies": StrategyClass,
    "evaluators": EvaluatorClass,
}


@cache
def table(kind: str) -> dict[str, str]:
    """Return the targets of a kind by name, including the entry points `evonas.KIND`.

    Where a name is in both, the target is evonas's own.
    """
    others = {entry.name: entry.value for entry in entry_points(group=f"evonas.{kind}")}
    return others | TABLES[kind]


def names(kind: str) -> list[str]:
    """Return the names of a kind in alphabetical order."""
    return sorted(table(kind))


def load(kind: str, name: str) -> Any:
    """Return the class or object of a name.

    Raises:
        UserError: there is no such name.
    """
    target = OWN[kind] if is_own(name) else table(kind).get(name)
    if target is None:
        raise UserError(unknown(SINGULAR[kind], name, names(kind)))
    module, _, attribute = target.partition(":")
    loaded = getattr(import_module(module), attribute)
    if kind in CLASSES and not is_own(name):  # else of what it stands for
        check_members(loaded, CLASSES[kind], name)
    return loaded


def check_members(component: object, protocol: type, name: str) -> None:
    """Checks that a component has all that its protocol declares.

    Raises:
        UserError: it lacks a member.
    """
    declared = [*protocol.__annotations__, *vars(protocol)]
    members = [member for member in declared if not member.startswith("_")]
    missing = [member for member in members if not hasattr(component, member)]
    if missing:
        where = f"{protocol.__module__}.{protocol.__name__}"
        raise UserError(
            f"{name} has no {', '.join(missing)}", hint=f"{where} says what it must have"
        )


def space(name: str) -> SpaceClass:
    """Return the space of a name.

    Raises:
        UserError: there is no such name.
    """
    loaded: SpaceClass = load("spaces", name)
    return loaded


def strategy(name: str) -> StrategyClass:
    """Return the strategy of a name; raises as `space` does."""
    loaded: StrategyClass = load("strategies", name)
    return loaded


def evaluator(name: str) -> EvaluatorClass:
    """Return the evaluator of a name; raises as `space` does."""
    loaded: EvaluatorClass = load("evaluators", name)
    return loaded


def make_space(params: Params) -> SearchSpace:
    """Return the search space for the settings in an experiment's `space`."""
    return space(name_of(params)).make_space(params)


def blueprint_of(space: SearchSpace) -> Blueprint:
    """Return the blueprint of a space: the one it carries, or else the one of its name."""
    if isinstance(space, Drawn):
        return space.blueprint
    loaded: Blueprint = load("spaces", space.name.partition("/")[0])
    return loaded


def name_of(params: Params) -> str:
    """Return the `name` in a component's settings."""
    return str(dict(params)["name"])


def is_own(name: str) -> bool:
    """Return whether a name has the form `FILE.py:NAME`."""
    return ".py:" in name


@runtime_checkable
class Drawn(Protocol):
    """A search space that carries its own blueprint, such as one that a function defines."""

    @property
    def blueprint(self) -> Blueprint: ...


def unknown(what: str, name: object, allowed: list[str]) -> Mistake:
    """Return `unknown strategy 'pzo' (did you mean 'pso'?); allowed: genetic, pso`."""
    close = difflib.get_close_matches(str(name), allowed, n=1)
    guess = f" (did you mean {close[0]!r}?)" if close else ""
    shown = str(name) if len(str(name)) <= 60 else f"{str(name)[:57]}..."
    return Mistake(f"unknown {what} {shown!r}{guess}", f"allowed: {', '.join(allowed)}")
