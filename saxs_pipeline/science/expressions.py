"""Arithmetic expressions that tie one parameter to others, as lmfit takes them: "0.06 * radius", "sqrt(a**2 + b**2)".

The text is data: it is parsed, and only numbers, names of parameters, + − * / **, parentheses and a few functions are
carried out. Nothing is evaluated by Python.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saxs_pipeline.types import BadInput

_OPERATIONS: Mapping[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_FUNCTIONS: Mapping[str, Callable[[Any], Any]] = {"sqrt": np.sqrt, "exp": np.exp, "log": np.log}
_LONGEST = 200
_ALLOWED = "use numbers, parameters, + - * / **, parentheses, sqrt, exp, log"


class Expression:
    """A parsed expression; `names` are the parameters it uses. Raises BadInput for a text that is none."""

    def __init__(self, text: str) -> None:
        if len(text) > _LONGEST:
            raise BadInput(f"the expression is longer than {_LONGEST} characters; {_ALLOWED}")
        try:
            self._tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise BadInput(f"{text!r} is no expression; {_ALLOWED}") from None
        self.text = text
        names: set[str] = set()
        _check(self._tree, text, names)
        self.names = frozenset(names)

    def __call__(self, values: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """Its value for parameters of shape (n,), complex if one of them is; inf or NaN where it has none."""
        with np.errstate(all="ignore"):
            return np.asarray(_value(self._tree, values))


def _check(node: ast.expr, text: str, names: set[str]) -> None:
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        _check(node.left, text, names)
        _check(node.right, text, names)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        _check(node.operand, text, names)
    elif isinstance(node, ast.Name):
        names.add(node.id)
    elif isinstance(node, ast.Call) and _is_function(node):
        _check(node.args[0], text, names)
    elif not (isinstance(node, ast.Constant) and type(node.value) in (int, float)):
        raise BadInput(f"{ast.unparse(node)!r} is not allowed in {text!r}; {_ALLOWED}")


def _is_function(node: ast.Call) -> bool:
    named = isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS
    return named and len(node.args) == 1 and not node.keywords


def _value(node: ast.expr, values: Mapping[str, NDArray[Any]]) -> Any:
    if isinstance(node, ast.BinOp):
        return _OPERATIONS[type(node.op)](_value(node.left, values), _value(node.right, values))
    if isinstance(node, ast.UnaryOp):
        value = _value(node.operand, values)
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return _FUNCTIONS[node.func.id](_value(node.args[0], values))
    if isinstance(node, ast.Name):
        return values[node.id]
    assert isinstance(node, ast.Constant) and isinstance(node.value, int | float)
    return np.float64(node.value)
