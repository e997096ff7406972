"""The formula language of the sheets: one scalar SQL expression, as a tree.

The language is the part of SQL that Polars, DuckDB, Spark and a spreadsheet evaluate alike. A formula is parsed
once; its names are then replaced and constants folded (``calc.folding``), and the
tree is printed again as SQL text, which is the only thing an engine ever sees.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

FUNCTIONS = {
    "ABS": 1, "CEIL": 1, "FLOOR": 1, "SQRT": 1, "EXP": 1, "LN": 1, "LOG2": 1, "LOG10": 1, "POW": 2, "NULLIF": 2,
    "IF": 3, "LOWER": 1, "UPPER": 1, "LENGTH": 1, "GREATEST": None, "LEAST": None, "COALESCE": None,
    "CONCAT": None, "SUM": 1, "MAX": 1,
}  # fmt: skip
"""Functions that every engine evaluates alike, with their number of arguments (None: one or more).

``SUM`` and ``MAX`` are no column aggregates: they add or compare their argument over the operators of one pass and are
expanded before any engine sees them.
"""
AGGREGATES = ("SUM", "MAX")

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+)|(?P<name>[A-Za-z_]\w*)|(?P<string>'(?:[^']|'')*')"
    r"|(?P<mark><>|!=|<=|>=|\|\||[-+*/(),<>=]))"
)
_KEYWORDS = {
    "AND", "OR", "NOT", "CASE", "WHEN", "THEN", "ELSE", "END", "IN", "IS", "NULL", "TRUE", "FALSE", "LIKE", "BETWEEN",
}  # fmt: skip
_BINDING = {"OR": 1, "AND": 2, "NOT": 3, "=": 4, "<>": 4, "<": 4, "<=": 4, ">": 4, ">=": 4, "IN": 4, "IS": 4,
            "LIKE": 4, "BETWEEN": 4, "||": 5, "+": 6, "-": 6, "*": 7, "/": 7, "NEG": 8}  # fmt: skip


class FormulaError(ValueError):
    """A formula that is not in the language; the message says which part and what to write instead."""


@dataclass(frozen=True, slots=True)
class Node:
    """One node of a formula's tree.

    ``kind`` is number, string, boolean, null, name, call (functions, operators and keywords alike) or case;
    ``value`` the literal, the name or the operator; ``children`` the operands (a case's are condition, result,
    …, and last the ELSE).
    """

    kind: str
    value: object = None
    children: tuple[Node, ...] = ()

    def __eq__(self, other: object) -> bool:
        """Compare as a dataclass does, what differs at a glance first: compiling compares millions of nodes."""
        if self is other:
            return True
        if not isinstance(other, Node) or self.kind != other.kind or self.value != other.value:
            return False
        return self.children == other.children

    def __str__(self) -> str:
        """Give the formula as SQL text."""
        return to_sql(self)


LITERALS = frozenset({"number", "string", "boolean", "null"})
"""Kinds of nodes that are plain values."""
NULL = Node("null")
TRUE = Node("boolean", True)
FALSE = Node("boolean", False)
ZERO = Node("number", 0.0)
ONE = Node("number", 1.0)


def number(value: float) -> Node:
    """Return a number literal's node."""
    return Node("number", float(value))


def name(value: str) -> Node:
    """Return a name's node."""
    return Node("name", value)


def is_literal(node: Node) -> bool:
    """Tell whether a node is a plain value."""
    return node.kind in LITERALS


def literal(value: object) -> Node:
    """Return the node of a Python value: number, boolean, text or None (NULL)."""
    if value is None:
        return NULL
    if isinstance(value, bool):
        return TRUE if value else FALSE
    if isinstance(value, int | float):
        return number(value)
    return Node("string", str(value))


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = list(self._tokens())
        self.at = 0

    def _tokens(self) -> Iterator[tuple[str, str]]:
        position = 0
        text = self.text.rstrip()
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None:
                raise FormulaError(f"cannot read {text[position:].strip()[:20]!r}")
            kind = str(match.lastgroup)
            token = match.group(kind)
            if kind == "number" and "." in token:
                raise FormulaError(
                    f"decimal-point literal {token}: engines read it as DECIMAL; write it with an exponent, "
                    f"{_exponent(float(token))}, or name it in constants.csv"
                )
            if kind == "name":
                kind, token = ("word", token.upper()) if token.upper() in _KEYWORDS else (kind, token)
            yield kind, token
            position = match.end()

    def peek(self) -> tuple[str, str]:
        return self.tokens[self.at] if self.at < len(self.tokens) else ("end", "")

    def take(self, *expected: str) -> str:
        token = self.peek()[1]
        if expected and token not in expected:
            raise FormulaError(f"expected {' or '.join(expected)} before {token or 'the end'!r}")
        self.at += 1
        return token

    def accept(self, token: str) -> bool:
        if self.peek()[1] == token and self.peek()[0] in ("word", "mark"):
            self.at += 1
            return True
        return False

    def whole(self) -> Node:
        node = self.expression(0)
        if self.peek()[0] != "end":
            raise FormulaError(f"unexpected {self.peek()[1]!r}")
        return node

    def expression(self, floor: int) -> Node:
        left = self.prefix()
        while True:
            kind, token = self.peek()
            if kind not in ("mark", "word"):
                return left
            if token == "!=":
                token = "<>"
            negated = token == "NOT"
            strength = 4 if negated else _BINDING.get(token, 0)
            if strength <= floor or token == "NEG":
                return left
            self.at += 1
            if negated:
                token = self.take("IN", "LIKE", "BETWEEN")
            node = self.infix(left, token, strength)
            left = Node("call", "NOT", (node,)) if negated else node

    def infix(self, left: Node, token: str, strength: int) -> Node:
        if token == "IS":
            negated = self.accept("NOT")
            self.take("NULL")
            node = Node("call", "IS NULL", (left,))
            return Node("call", "NOT", (node,)) if negated else node
        if token == "IN":
            self.take("(")
            return Node("call", "IN", (left, *self.arguments()))
        if token == "BETWEEN":
            low = self.expression(4)
            self.take("AND")
            high = self.expression(4)
            return Node("call", "AND", (Node("call", ">=", (left, low)), Node("call", "<=", (left, high))))
        return Node("call", token, (left, self.expression(strength)))

    def arguments(self) -> tuple[Node, ...]:
        found = [self.expression(0)]
        while self.take(",", ")") == ",":
            found.append(self.expression(0))
        return tuple(found)

    def prefix(self) -> Node:
        kind, token = self.peek()
        self.at += 1
        if kind == "number":
            return number(float(token))
        if kind == "string":
            return Node("string", token[1:-1].replace("''", "'"))
        if kind == "name":
            return self.call(token) if self.peek() == ("mark", "(") else name(token)
        if token == "(":
            node = self.expression(0)
            self.take(")")
            return node
        if token == "-":
            return Node("call", "NEG", (self.expression(_BINDING["NEG"]),))
        if token == "NOT":
            return Node("call", "NOT", (self.expression(_BINDING["NOT"]),))
        if token == "CASE":
            return self.case()
        constant = {"NULL": NULL, "TRUE": TRUE, "FALSE": FALSE}.get(token)
        if constant is None:
            raise FormulaError(f"unexpected {token!r}" if token else "it ends too early")
        return constant

    def call(self, function: str) -> Node:
        wanted = FUNCTIONS.get(function.upper(), -1)
        if wanted == -1:
            raise FormulaError(
                f"{function}() is not a function that every engine evaluates alike; there are {', '.join(FUNCTIONS)}"
            )
        self.take("(")
        arguments = self.arguments()
        if wanted is not None and len(arguments) != wanted:
            raise FormulaError(f"{function}() takes {wanted} argument(s), not {len(arguments)}")
        if function.upper() == "IF":
            return Node("case", None, arguments)
        return Node("call", function.upper(), arguments)

    def case(self) -> Node:
        found: list[Node] = []
        if self.peek()[1] != "WHEN":
            raise FormulaError("write CASE WHEN condition THEN …, not CASE value WHEN …")
        while self.accept("WHEN"):
            found.append(self.expression(0))
            self.take("THEN")
            found.append(self.expression(0))
        found.append(self.expression(0) if self.accept("ELSE") else NULL)
        self.take("END")
        return Node("case", None, tuple(found))


@cache
def parse(text: str) -> Node:
    """Return the tree of a formula; raises FormulaError where the text is not in the language."""
    if not text.strip():
        raise FormulaError("it is empty")
    return _Parser(text).whole()


@cache
def adds_up(text: str) -> bool:
    """Tell whether a formula may add up or compare over operators."""
    return any(a in text.upper() for a in AGGREGATES)


def names(node: Node) -> set[str]:
    """Return the names that a formula reads."""
    found: set[str] = set()
    left = [node]
    while left:
        seen = left.pop()
        if seen.kind == "name":
            found.add(str(seen.value))
        else:
            left += seen.children
    return found


def _exponent(value: float) -> str:
    """Return a number as a literal that every engine reads as DOUBLE (with an exponent, without a point)."""
    text = repr(float(value))
    if "e" in text:
        mantissa, _, exponent = text.partition("e")
        power = int(exponent)
    else:
        mantissa, power = text, 0
    whole, _, fraction = mantissa.partition(".")
    if fraction.strip("0"):
        fraction = fraction.rstrip("0")
        whole, power = whole + fraction, power - len(fraction)
    sign, digits = ("-", whole[1:]) if whole.startswith("-") else ("", whole)
    return f"{sign}{digits.lstrip('0') or '0'}e{power}"


def to_sql(node: Node, render: Callable[[str], str] = str) -> str:
    """Return a formula as SQL text that Polars and DuckDB read alike; ``render`` writes each name."""
    return _print(node, 0, render)


def to_text(node: Node, render: Callable[[str], str] = str) -> str:
    """Return a formula as a person would type it: plain numbers, and IF for a choice of two."""
    return _print(node, 0, render, plain=True)


def _print(node: Node, floor: int, render: Callable[[str], str], plain: bool = False) -> str:
    value = node.value
    if node.kind == "number":
        text = f"{value:.10g}" if plain else _exponent(float(str(value)))
        return f"({text})" if text.startswith("-") else text
    if node.kind == "string":
        return "'" + str(value).replace("'", "''") + "'"
    if node.kind == "boolean":
        return "TRUE" if value else "FALSE"
    if node.kind == "null":
        return "NULL"
    if node.kind == "name":
        return render(str(value))
    if node.kind == "case":
        *branches, otherwise = (_print(child, 0, render, plain) for child in node.children)
        if plain and len(branches) == 2:
            return f"IF({branches[0]}, {branches[1]}, {otherwise})"
        pairs = zip(branches[::2], branches[1::2], strict=True)
        tail = "" if otherwise == "NULL" else f" ELSE {otherwise}"
        return "CASE " + " ".join(f"WHEN {c} THEN {r}" for c, r in pairs) + tail + " END"
    return _print_call(str(value), node.children, floor, render, plain)


def _print_call(value: str, operands: tuple[Node, ...], floor: int, render: Callable[[str], str], plain: bool) -> str:
    def shown(node: Node, least: int) -> str:
        return _print(node, least, render, plain)

    strength = _BINDING.get(value)
    if value == "IS NULL":
        text, strength = f"{shown(operands[0], 4)} IS NULL", 4
    elif value == "NOT" and operands[0].kind == "call" and operands[0].value == "IS NULL":
        text, strength = f"{shown(operands[0].children[0], 4)} IS NOT NULL", 4
    elif value == "IN":
        items = ", ".join(shown(item, 0) for item in operands[1:])
        text = f"{shown(operands[0], 4)} IN ({items})"
    elif value == "NOT":
        text = f"NOT {shown(operands[0], 3)}"
    elif value == "NEG":
        text = f"-{shown(operands[0], 8)}"
    elif strength is not None:
        text = f"{shown(operands[0], strength - 1)} {value} {shown(operands[1], strength)}"
    else:
        return f"{value}({', '.join(shown(item, 0) for item in operands)})"
    return f"({text})" if strength is not None and strength <= floor else text
