"""Replacing names in a formula, and folding what is then constant.

Folding is what makes one text serve every operator and stage: a condition on the stage or on an operator's kind is
decided once, when the sheet is compiled, and its branch vanishes from what the engines evaluate.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from calc.formula import FALSE, LITERALS, NULL, ONE, TRUE, ZERO, Node, is_literal, number

Fold = Callable[[tuple[Node, ...]], Node | None]


def replace(node: Node, lookup: Callable[[str], Node]) -> Node:
    """Return the formula with every name replaced by what ``lookup`` gives for it, and constants folded."""
    # this runs a million times for a sheet: what it avoids is worth it
    if node.kind == "name":
        return lookup(node.value)  # type: ignore[arg-type]  # of a name it is a text
    if not node.children:
        return node
    if node.kind == "case":
        return _replace_case(node, lookup)
    return _fold(Node(node.kind, node.value, tuple([replace(child, lookup) for child in node.children])))


def _replace_case(node: Node, lookup: Callable[[str], Node]) -> Node:
    kept: list[Node] = []
    for condition, result in zip(node.children[:-1:2], node.children[1:-1:2], strict=True):
        condition = replace(condition, lookup)
        if condition in (FALSE, NULL):
            continue
        result = replace(result, lookup)
        if condition == TRUE:
            return Node("case", None, (*kept, result)) if kept else result
        kept += [condition, result]
    otherwise = replace(node.children[-1], lookup)
    # branches that all say the same need no condition
    return Node("case", None, (*kept, otherwise)) if any(n != otherwise for n in kept[1::2]) else otherwise


def _fold(node: Node) -> Node:
    """Evaluate what depends on literals alone, and drop what cannot matter (TRUE AND x, x * 0, x + 0)."""
    operands = node.children
    if node.value in _OF_LITERALS and not any(o.kind in LITERALS for o in operands):
        return node
    fold = _FOLDS.get(node.value)
    if fold is not None:
        folded = fold(operands)
        if folded is not None:
            return folded
    return node


def _fold_and(operands: tuple[Node, ...]) -> Node | None:
    left, right = operands
    if FALSE in operands:
        return FALSE
    return right if left == TRUE else left if right == TRUE else None


def _fold_or(operands: tuple[Node, ...]) -> Node | None:
    left, right = operands
    if TRUE in operands:
        return TRUE
    return right if left == FALSE else left if right == FALSE else None


def _fold_times(operands: tuple[Node, ...]) -> Node | None:
    left, right = operands
    if ZERO in operands:
        return ZERO
    if left == ONE:
        return right
    return left if right == ONE else _numeric(lambda a, b: a * b)(operands)


def _fold_plus(operands: tuple[Node, ...]) -> Node | None:
    left, right = operands
    return right if left == ZERO else left if right == ZERO else _numeric(lambda a, b: a + b)(operands)


def _fold_divide(operands: tuple[Node, ...]) -> Node | None:
    left, right = operands
    if right == ONE or (left == ZERO and right != ZERO):
        return left
    return _numeric(lambda a, b: a / b if b else math.nan)(operands)


def _fold_in(operands: tuple[Node, ...]) -> Node | None:
    if not all(node.kind in ("number", "string", "boolean") for node in operands):
        return None
    return TRUE if operands[0] in operands[1:] else FALSE


def _numeric(function: Callable[..., float]) -> Fold:
    def fold(operands: tuple[Node, ...]) -> Node | None:
        if NULL in operands:
            return NULL
        if any(node.kind != "number" for node in operands):
            return None
        value = function(*(node.value for node in operands))
        return number(value) if math.isfinite(value) else None

    return fold


def _fold_equal(operands: tuple[Node, ...]) -> Node | None:
    """Decide a comparison; what is the same by its making is equal, known or not."""
    if operands[0] == operands[1] and operands[0] != NULL:
        return TRUE
    return _compare(lambda a, b: a == b)(operands)


def _compare(function: Callable[[object, object], bool]) -> Fold:
    def fold(operands: tuple[Node, ...]) -> Node | None:
        left, right = operands
        if NULL in operands:
            return NULL
        if left.kind != right.kind or not (is_literal(left) and is_literal(right)):
            return None
        return TRUE if function(left.value, right.value) else FALSE

    return fold


def _extreme(function: Callable[..., float]) -> Fold:
    def fold(operands: tuple[Node, ...]) -> Node | None:
        known = [node for node in operands if node.kind == "number"]
        others = tuple(dict.fromkeys(node for node in operands if not is_literal(node)))
        extreme = (number(function(node.value for node in known)),) if known else ()
        if not others:
            return extreme[0] if extreme else NULL
        if len(others) + len(extreme) == len(operands):
            return None
        kept = (*others, *extreme)
        function_name = "GREATEST" if function is max else "LEAST"
        return kept[0] if len(kept) == 1 else Node("call", function_name, kept)

    return fold


def _fold_coalesce(operands: tuple[Node, ...]) -> Node | None:
    kept = tuple(node for node in operands if node != NULL)
    if not kept:
        return NULL
    if is_literal(kept[0]) or len(kept) == 1:
        return kept[0]
    return Node("call", "COALESCE", kept) if len(kept) < len(operands) else None


_FOLDS: dict[object, Fold] = {
    "AND": _fold_and,
    "OR": _fold_or,
    "NOT": lambda o: {TRUE: FALSE, FALSE: TRUE, NULL: NULL}.get(o[0]),
    "*": _fold_times,
    "+": _fold_plus,
    "-": lambda o: o[0] if o[1] == ZERO else _numeric(lambda a, b: a - b)(o),
    "/": _fold_divide,
    "NEG": _numeric(lambda a: -a),
    "=": _fold_equal,
    "<>": _compare(lambda a, b: a != b),
    "<": _compare(lambda a, b: a < b),  # type: ignore[operator]
    "<=": _compare(lambda a, b: a <= b),  # type: ignore[operator]
    ">": _compare(lambda a, b: a > b),  # type: ignore[operator]
    ">=": _compare(lambda a, b: a >= b),  # type: ignore[operator]
    "IN": _fold_in,
    "IS NULL": lambda o: TRUE if o[0] == NULL else FALSE if is_literal(o[0]) else None,
    "NULLIF": lambda o: None if not (is_literal(o[0]) and is_literal(o[1])) else NULL if o[0] == o[1] else o[0],
    "GREATEST": _extreme(max),
    "LEAST": _extreme(min),
    "COALESCE": _fold_coalesce,
    "FLOOR": _numeric(math.floor),
    "CEIL": _numeric(math.ceil),
}
_OF_LITERALS = frozenset(_FOLDS) - {"=", "GREATEST", "LEAST", "COALESCE"}
"""What can be folded only where an operand is a literal."""
