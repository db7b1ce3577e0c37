"""Arithmetic on columns, as written in a YAML file: `100 - val12`, `time / 2 + 1.3`."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

from evonas.core import UserError

REMEDY = (
    "use columns, numbers, + - * / ** and parentheses; in the name of a column, write _ for all "
    "that is no letter or digit"
)
OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}


def compute(text: str, columns: Mapping[str, Any]) -> Any:
    """Return the value of a formula, whose columns are numbers or arrays of one shape.

    A text that is a column's name is that column, whatever characters it contains.

    Raises:
        UserError: the text is not a formula, names an unknown column, or cannot be computed.
    """
    if text in columns:
        return columns[text]
    try:
        return _value(_parsed(text).body, columns, text)
    except (ArithmeticError, RecursionError, ValueError) as error:
        raise UserError(f"{text!r} cannot be computed: {error}", hint=REMEDY) from None


def _parsed(text: str) -> ast.Expression:
    try:
        return ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise UserError(f"{text!r} is neither a column nor a formula", hint=REMEDY) from None


def _value(node: ast.AST, columns: Mapping[str, Any], text: str) -> Any:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        value = float(str(node.value))  # integer powers of integers grow without bound
        if not math.isfinite(value):
            raise OverflowError("a number is too large")
        return value
    if isinstance(node, ast.Name):
        if node.id not in columns:
            hint = f"allowed: {', '.join(list(columns)[:30])}"
            raise UserError(f"{text!r} uses the unknown column {node.id!r}", hint=hint)
        return columns[node.id]
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        left, right = (_value(side, columns, text) for side in (node.left, node.right))
        return OPERATORS[type(node.op)](left, right)
    if isinstance(node, ast.UnaryOp) and type(node.op) in OPERATORS:
        return OPERATORS[type(node.op)](_value(node.operand, columns, text))
    raise UserError(f"{text!r} is neither a column nor a formula", hint=REMEDY)
