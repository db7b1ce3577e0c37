"""A network as a person would write it: the calls that make its layers, with all choices made.

The network is built twice; the second time, the arguments of each layer are noted. A layer is then
written as the call that made it. One that was given the `pick` of a space, or anything else that
cannot be written, is written by its parts: its class is given an `__init__` that takes them.
"""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from evonas.export.source import PLAIN, Source

LINE = 96
REPEATED = 40  # a shorter layer is rather written several times than in a loop
FRESH = frozenset(vars(nn.Module()))  # the attributes of every module

Noted = dict[int, tuple[nn.Module, tuple[Any, ...], dict[str, Any]]]  # by the module's id


class CannotUnfold(Exception):
    """Something in a network cannot be written as an expression; the message names it."""


@dataclass(frozen=True, slots=True)
class Call:
    """An expression with parts, such as a call with its arguments."""

    head: str
    parts: tuple[Expression, ...]
    tail: str = ")"
    separator: str = ","


Expression = str | Call


def unfolded(make: Callable[[], nn.Module], source: Source) -> str:
    """Return the statements, for an `__init__`, that set `self.network` to a network.

    Args:
        make: builds the network, the same each time.
        source: is given the classes that the statements need.

    Raises:
        CannotUnfold: the network cannot be written so.
        UserError: a class that it needs cannot be written out.
    """
    classes = {type(module) for module in make().modules()}
    with _noted(classes) as calls:
        network = make()
    first = _Writer(calls, Source(), frozenset())
    first.of(network)
    shared = frozenset(each for each, count in first.visits.items() if count > 1)
    writer = _Writer(calls, source, shared)
    whole = _prefixed("self.network = ", writer.of(network))
    return "\n".join(_layout(statement) for statement in [*writer.statements, whole])


@contextmanager
def _noted(classes: Iterable[type[nn.Module]]) -> Iterator[Noted]:
    """Notes the arguments with which modules of these classes are made within."""
    calls: Noted = {}
    own = {kind: vars(kind).get("__init__") for kind in classes}

    def noting(init: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(init)
        def made(self: nn.Module, *args: Any, **kwargs: Any) -> None:
            calls.setdefault(id(self), (self, args, kwargs))  # a base class comes later
            init(self, *args, **kwargs)

        return made

    wrapped = {kind: noting(kind.__init__) for kind in own}
    try:
        for kind, init in wrapped.items():
            kind.__init__ = init  # type: ignore[method-assign]  # until the end
        yield calls
    finally:
        for kind, before in own.items():
            if before is None:
                del kind.__init__
            else:
                kind.__init__ = before  # type: ignore[method-assign]


class _Writer:
    """Writes modules as expressions.

    Attributes:
        visits: how often each module was written, by its id.
        statements: those that make the modules that are used in several places.
    """

    def __init__(self, calls: Noted, source: Source, shared: frozenset[int]) -> None:
        self.calls, self.source, self.shared = calls, source, shared
        self.visits: dict[int, int] = {}
        self.statements: list[Expression] = []
        self._names: dict[int, str] = {}
        self._variants: dict[type, list[tuple[str, ...]]] = {}

    def of(self, value: Any) -> Expression:
        """Return the expression of a module, or of what a module is given."""
        if isinstance(value, nn.Module):
            return self._module(value)
        if type(value) is torch.Size:
            return repr(tuple(value))
        if type(value) in PLAIN or isinstance(value, torch.dtype):
            return repr(value)
        if type(value) in (list, tuple):
            ends = ("[", "]") if type(value) is list else ("(", ",)" if len(value) == 1 else ")")
            return Call(ends[0], tuple(map(self.of, value)), ends[1])
        if type(value) is dict:
            return self._mapping("{", value, "}")
        called = getattr(value, "__name__", "")
        for name, module in (("torch", torch), ("nn", nn), ("nn.functional", nn.functional)):
            if called and getattr(module, called, None) is value:
                return f"{name}.{called}"
        if inspect.isclass(value) or inspect.isfunction(value):
            if "<" in value.__qualname__:
                raise CannotUnfold(f"{value.__qualname__} has no name of its own")
            self.source.need(value)
            return value.__name__
        raise CannotUnfold(f"a {type(value).__name__} cannot be written")

    def _module(self, module: nn.Module) -> Expression:
        self.visits[id(module)] = self.visits.get(id(module), 0) + 1
        if id(module) not in self.shared:
            return self._made(module)
        if id(module) not in self._names:
            expression = self._made(module)
            name = f"shared{len(self._names) + 1}"
            self._names[id(module)] = name
            self.statements.append(_prefixed(f"{name} = ", expression))
        return self._names[id(module)]

    def _made(self, module: nn.Module) -> Expression:
        kind, children = type(module), module._modules
        if kind is nn.ModuleDict:
            return self._mapping("nn.ModuleDict({", children, "})")
        if kind is nn.Sequential and [*children] != [*map(str, range(len(children)))]:
            self.source.imports["from collections import OrderedDict"] = None
            return self._mapping("nn.Sequential(OrderedDict({", children, "}))")
        if kind in (nn.Sequential, nn.ModuleList):
            parts = tuple(_repeats(map(self.of, children.values())))
            ends = ("", "") if kind is nn.Sequential else ("[", "]")
            return Call(f"nn.{kind.__name__}({ends[0]}", parts, f"{ends[1]})")
        visits = dict(self.visits)
        try:
            return self._called(module)
        except CannotUnfold:
            if kind.__module__.startswith("torch."):
                raise
            self.visits = visits
            return self._assembled(module)

    def _called(self, module: nn.Module) -> Expression:
        """Return the call that made a module, without arguments that are as by default."""
        kind = type(module)
        _, args, kwargs = self.calls[id(module)]
        signature = inspect.signature(kind.__init__)
        bound = signature.bind(module, *args, **kwargs)
        parts: list[Expression] = []
        for name, value in [*bound.arguments.items()][1:]:
            parameter = signature.parameters[name]
            if parameter.kind is parameter.VAR_POSITIONAL:
                parts += map(self.of, value)
            elif parameter.kind is parameter.VAR_KEYWORD:
                parts += [_prefixed(f"{key}=", self.of(each)) for key, each in value.items()]
            elif parameter.default is parameter.empty and parameter.kind is not (
                parameter.KEYWORD_ONLY
            ):
                parts.append(self.of(value))
            elif value is not parameter.default and not _same(value, parameter.default):
                parts.append(_prefixed(f"{name}=", self.of(value)))
        if getattr(nn, kind.__name__, None) is kind:
            return Call(f"nn.{kind.__name__}(", tuple(parts))
        free = set(getattr(inspect.unwrap(kind.__init__), "__code__", _called.__code__).co_freevars)
        if free - {"__class__"}:
            raise CannotUnfold(f"{kind.__name__} is defined within a function")
        self.source.need(kind)
        return Call(f"{kind.__name__}(", tuple(parts))

    def _assembled(self, module: nn.Module) -> Expression:
        """Return a call that gives a module all its parts, for its class with another `__init__`.

        Classes whose instances have other parts are named apart.
        """
        kind = type(module)
        plain = {name: value for name, value in vars(module).items() if name not in FRESH}
        parts = {name: self.of(value) for name, value in (plain | module._modules).items()}
        for name, weight in module._parameters.items():
            parts[name] = "None" if weight is None else f"nn.Parameter({_zeros(weight)})"
        if module._non_persistent_buffers_set:
            raise CannotUnfold(f"{kind.__name__} has values that are not among its weights")
        buffers = [name for name, value in module._buffers.items() if value is not None]
        for name, value in module._buffers.items():
            parts[name] = "None" if value is None else _zeros(value)
        variants = self._variants.setdefault(kind, [])
        if tuple(parts) not in variants:
            variants.append(tuple(parts))
        number = variants.index(tuple(parts)) + 1
        name = kind.__name__ if number == 1 else f"{kind.__name__}{number}"
        self.source.add(kind, name=name, init=_init(kind, parts, buffers))
        return Call(
            f"{name}(", tuple(_prefixed(f"{part}=", value) for part, value in parts.items())
        )

    def _mapping(self, head: str, values: Mapping[Any, Any], tail: str) -> Expression:
        parts = (_prefixed(f"{_quoted(key)}: ", self.of(each)) for key, each in values.items())
        return Call(head, tuple(parts), tail)


def _called() -> None:
    """Has no free variables, like an `__init__` that is not written in Python."""


def _init(kind: type, parts: Mapping[str, Expression], buffers: Iterable[str]) -> str:
    """Return the text of an `__init__` that takes the parts of a module."""
    base = "super().__init__()" if kind.__bases__ == (nn.Module,) else "nn.Module.__init__(self)"
    lines = [
        f"    def __init__(self, {', '.join(f'{name}: Any' for name in parts)}) -> None:",
        f"        {base}",
        *(
            f'        self.register_buffer("{name}", {name})'
            if name in buffers
            else f"        self.{name} = {name}"
            for name in parts
        ),
    ]
    if len(lines[0]) > LINE:
        arguments = ("self", *(f"{name}: Any" for name in parts))
        lines[:1] = [
            "    def __init__(",
            *(f"        {each}," for each in arguments),
            "    ) -> None:",
        ]
    return "\n".join(lines)


def _zeros(tensor: torch.Tensor) -> str:
    kind = "" if tensor.dtype is torch.float32 else f", dtype={tensor.dtype}"
    return f"torch.zeros({tuple(tensor.shape)}{kind})"


def _same(value: object, other: object) -> bool:
    return type(value) is type(other) and type(value) in PLAIN and value == other


def _quoted(key: object) -> str:
    return f'"{key}"' if isinstance(key, str) and repr(key) == f"'{key}'" else repr(key)


def _repeats(parts: Iterable[Expression]) -> Iterator[Expression]:
    """Yield the parts, and those that follow on equal ones as a loop."""
    for _, group in itertools.groupby(parts, key=_flat):
        same = list(group)
        if len(same) > 1 and isinstance(same[0], Call) and len(_flat(same[0])) > REPEATED:
            yield Call("*(", (same[0], f"for _ in range({len(same)})"), ")", "")
        else:
            yield from same


def _prefixed(prefix: str, expression: Expression) -> Expression:
    if isinstance(expression, str):
        return prefix + expression
    return Call(prefix + expression.head, expression.parts, expression.tail, expression.separator)


def _flat(expression: Expression) -> str:
    if isinstance(expression, str):
        return expression
    inner = f"{expression.separator} ".join(map(_flat, expression.parts))
    return f"{expression.head}{inner}{expression.tail}"


def _layout(expression: Expression, indent: int = 8) -> str:
    """Return an expression on one line, or with a line for each part if that is too long."""
    flat = " " * indent + _flat(expression)
    if isinstance(expression, str) or not expression.parts or len(flat) <= LINE:
        return flat
    inner = " " * (indent + 4) + ", ".join(map(_flat, expression.parts))
    if all(isinstance(part, str) for part in expression.parts) and len(inner) < LINE:
        lines = [f"{inner},"]
    else:
        lines = [_layout(part, indent + 4) + expression.separator for part in expression.parts]
    tail = expression.tail.removeprefix(",")
    return "\n".join([" " * indent + expression.head, *lines, " " * indent + tail])
