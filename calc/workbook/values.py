"""What a formula gives for one question, in Python: the values that a workbook carries beside its formulas."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

from calc.formula import Node

Value = float | str | bool | None
"""What a cell holds; None is unknown."""


def value_of(node: Node, known: Mapping[str, Value]) -> Value:
    """Return the value of a formula; ``known`` has that of each name that it reads. Raises KeyError without one."""
    if node.kind == "name":
        return known[str(node.value)]
    if not node.children:
        return node.value  # type: ignore[return-value]  # a literal's value
    if node.kind == "case":
        for condition, result in zip(node.children[:-1:2], node.children[1:-1:2], strict=True):
            if value_of(condition, known) is True:
                return value_of(result, known)
        return value_of(node.children[-1], known)
    operands = [value_of(child, known) for child in node.children]
    if node.value in _OF_ANY:
        return _OF_ANY[str(node.value)](operands)
    return None if None in operands else _OF_KNOWN[str(node.value)](*operands)


def _extreme(of: Callable[[Iterable[float]], float]) -> Callable[[list[Value]], Value]:
    def found(operands: list[Value]) -> Value:
        some = [float(o) for o in operands if o is not None]
        return of(some) if some else None

    return found


def _and(operands: list[Value]) -> Value:
    return False if False in operands else None if None in operands else True


def _or(operands: list[Value]) -> Value:
    return True if True in operands else None if None in operands else False


def _divided(left: float, right: float) -> Value:
    return left / right if right else None


def _like(text: str, pattern: str) -> bool:
    return text.startswith(pattern[:-1]) if pattern.endswith("%") else text == pattern


_OF_ANY: dict[str, Callable[[list[Value]], Value]] = {
    "AND": _and,
    "OR": _or,
    "COALESCE": lambda o: next((v for v in o if v is not None), None),
    "IS NULL": lambda o: o[0] is None,
    "NULLIF": lambda o: None if o[0] == o[1] else o[0],
    "GREATEST": _extreme(max),
    "LEAST": _extreme(min),
    "CONCAT": lambda o: "".join(str(v) for v in o if v is not None),
}
"""What is told of unknown operands too."""
_OF_KNOWN: dict[str, Callable[..., Value]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": _divided,
    "NEG": lambda a: -a,
    "POW": lambda a, b: float(a) ** float(b),
    "||": lambda a, b: f"{a}{b}",
    "NOT": lambda a: not a,
    "=": lambda a, b: a == b,
    "<>": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "IN": lambda a, *others: a in others,
    "LIKE": _like,
    "ABS": abs,
    "CEIL": lambda a: float(math.ceil(a)),
    "FLOOR": lambda a: float(math.floor(a)),
    "SQRT": math.sqrt,
    "EXP": math.exp,
    "LN": math.log,
    "LOG2": math.log2,
    "LOG10": math.log10,
    "LOWER": lambda a: a.lower(),
    "UPPER": lambda a: a.upper(),
    "LENGTH": lambda a: float(len(a)),
}
