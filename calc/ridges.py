"""Sums of rooflines, found in a program: per configuration a function of the device's ridge points alone.

A sum over operators of ``GREATEST(ops / peak, bytes / bandwidth)`` has operators' sizes that do not depend on the
device, and rates that do not depend on the configuration. Such sums are taken out of the formulas that an engine
evaluates at every point of a grid; ``calc.tiles`` gives them for all devices of a grid at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from calc.folding import replace
from calc.formula import ONE, ZERO, Node, is_literal, name, names
from calc.program import STAGES, Axis, Column, Compiler, Program, ResultRow, levelled, read_by, result_rows, written_in
from calc.tiles import Leaf, Ridge, Term

FEW_MORE = 2
"""Terms that a sum may have more than another whose value it reads."""
LEAST_TERMS = 2
"""A sum of fewer rooflines is computed at every point: that costs less than to leave its formula."""


def ridged_program(compiler: Compiler, by: str, columns: list[str]) -> Program:
    """Return the program that answers as the stage's or the serving program does, its sums of rooflines apart."""
    sheet = compiler.sheet
    scopes = [sheet.totals_scope(s) for s in STAGES] if by == "stage" else [sheet.serving_scope()]
    rows = result_rows(compiler, scopes, columns)
    needed = compiler.needed(read_by(rows))
    found = Extractor(compiler, needed)
    found.rows(rows)
    extractor = Extractor(compiler, needed, [r.terms for r in found.ridges])
    rows = extractor.rows(rows)
    compiler.rewrite(extractor.rewritten)
    hoister = Hoister(compiler, {r.id for r in extractor.ridges})
    rows = [ResultRow(hoister.hoisted(r.gate), {c: hoister.hoisted(n) for c, n in r.values.items()}) for r in rows]
    points = (c for c in compiler.needed(read_by(rows)) if c.where == "point")
    compiler.rewrite({c.id: hoister.hoisted(c.node) for c in points})
    wanted = read_by(rows) | hoister.kept | {n for r in extractor.ridges for n in r.reads()}
    columns_left = levelled(compiler.needed(wanted), wanted)
    at_points = [c for c in columns_left if c.where == "point"]
    rows, kept = written_in(rows, at_points, set())
    columns_left = [c for c in columns_left if c.where != "point" or c in kept]
    return Program(columns_left, rows, [], {c: name(c) for c in rows[0].values}, ridges=extractor.ridges)


class Roofline(NamedTuple):
    """What counts of a roofline, the greater of both sides or one of them, and both sides."""

    side: str
    unit: tuple[Leaf, ...]
    other: tuple[Leaf, ...]


class Extractor:
    """Takes sums of rooflines out of the columns of a compiler."""

    def __init__(self, compiler: Compiler, columns: Sequence[Column], known: Sequence[tuple[Term, ...]] = ()) -> None:
        """Look at columns in order, each after those that it reads.

        Sums of ``known`` terms are there anyway: one that has few more reads them.
        """
        self._compiler = compiler
        self._sums = [frozenset(terms) for terms in known]
        self._columns = {c.id: c for c in columns}
        self.rewritten: dict[str, Node] = {}
        """Columns of points and what they read now."""
        self._known: dict[tuple[frozenset[Term], str], str] = {}
        self.ridges: list[Ridge] = []

    def rows(self, rows: list[ResultRow]) -> list[ResultRow]:
        """Return result rows that read sums instead of their addends."""
        return [ResultRow(self._rewrite(r.gate), {c: self._rewrite(n) for c, n in r.values.items()}) for r in rows]

    def _rewrite(self, node: Node) -> Node:
        """Return a node with every sum of rooflines in it replaced by its name, and so for the columns it reads."""
        if node.kind == "name":
            column = str(node.value)
            if self._is_of_points(column) and column not in self.rewritten:
                self.rewritten[column] = self._rewrite(self._columns[column].node)
            return node
        if node.kind == "call" and node.value in ("+", "*"):
            found = self._summed(node)
            if found is not None:
                return found
        return Node(node.kind, node.value, tuple(map(self._rewrite, node.children))) if node.children else node

    def _summed(self, node: Node) -> Node | None:
        """Return a sum with its rooflines by name, and what is none beside it; None where it has hardly any."""
        by_side: dict[str, list[tuple[Node, Roofline, Node]]] = {}
        rest = ZERO
        for weight, atom in self._addends(node):
            found = self._roofline(atom)
            if found is None:
                rest = _plus(rest, _times(weight, atom))
            else:
                by_side.setdefault(found.side, []).append((weight, found, atom))
        if sum(map(len, by_side.values())) < LEAST_TERMS:
            return None
        rest = self._rewrite(rest)
        for side, addends in by_side.items():
            rest = _plus(self._ridge(side, addends), rest)
        return rest

    def _ridge(self, side: str, addends: list[tuple[Node, Roofline, Node]]) -> Node:
        """Return a sum by name, its common factor before it; what few terms it has more than another beside that."""
        factors = [_factors(weight) for weight, _, _ in addends]
        common = [f for f in factors[0] if all(f in other for other in factors)]
        weights: dict[Roofline, Node] = {}
        atoms: dict[Roofline, Node] = {}
        for own, (_, found, atom) in zip(factors, addends, strict=True):
            weights[found] = _plus(weights.get(found, ZERO), _product(own, common))
            atoms[found] = atom
        terms = {Term(self._at_configuration(w), f.unit, f.other): f for f, w in weights.items()}
        total, rest = frozenset(terms), ZERO
        part = max((s for s in self._sums if s < total and len(s) + FEW_MORE >= len(total)), key=len, default=total)
        for term in (t for t in terms if t not in part):
            rest = _plus(rest, self._rewrite(_times(weights[terms[term]], atoms[terms[term]])))
        key = (part, side)
        if key not in self._known:
            self._known[key] = f"ridge__{len(self.ridges)}"
            self.ridges.append(Ridge(self._known[key], tuple(t for t in terms if t in part), side))
        return _times(_product(common, []), _plus(name(self._known[key]), rest))

    def _addends(self, node: Node) -> list[tuple[Node, Node]]:
        """Return what a sum adds up: the weight, which knows no device, and what is weighted."""
        if node.kind == "name" and self._is_of_points(str(node.value)):
            inner = self._columns[str(node.value)].node
            if inner.kind == "call" and inner.value in ("+", "*"):
                return self._addends(inner)
        if node.kind == "call" and node.value == "+":
            return [a for child in node.children for a in self._addends(child)]
        if node.kind == "call" and node.value == "*":
            for weight, weighted in (node.children, node.children[::-1]):
                if self._is_of_configuration(weight):
                    return [(_times(weight, w), atom) for w, atom in self._addends(weighted)]
        return [(ONE, node)]

    def _roofline(self, atom: Node) -> Roofline | None:
        """Return a node's roofline, or None where it is none."""
        node = self._definition(atom)
        if node.kind == "call" and node.value == "GREATEST" and len(node.children) == 2:
            return self._sides("both", node)
        if node.kind != "case" or len(node.children) != 3:
            return None
        condition, then, otherwise = node.children
        condition = self._definition(condition)
        if condition.kind != "call" or condition.value != ">=":
            return None
        for side, shown, hidden in (("unit", then, otherwise), ("other", otherwise, then)):
            compared = condition.children[0 if side == "unit" else 1]
            if hidden == ZERO and self._definition(shown) == self._definition(compared):
                return self._sides(side, condition)
        return None

    def _sides(self, side: str, node: Node) -> Roofline | None:
        unit, other = map(self._leaves, node.children)
        return Roofline(side, unit, other) if unit and other else None

    def _leaves(self, node: Node) -> tuple[Leaf, ...] | None:
        """Return the times that a side is the greatest of; None where one is no size over a rate."""
        if node == ZERO:
            return (Leaf(ZERO, ONE, divides=False),)
        node = self._definition(node)
        if node.kind != "call":
            return None
        if node.value == "GREATEST":
            sides = [self._leaves(child) for child in node.children]
            if None in sides:
                return None
            found = [leaf for side in sides if side for leaf in side]
            # beside a time, nothing is never the greater
            return tuple(leaf for leaf in found if leaf.size != ZERO) or (found[0],)
        if node.value not in ("*", "/"):
            return None
        size, factor = node.children
        if node.value == "*" and self._is_of_configuration(factor):
            size, factor = factor, size
        if not self._is_of_configuration(size) or not self._is_of_device(factor):
            return None
        return (Leaf(self._at_configuration(size), self._compiler.column(factor, "rate"), node.value == "/"),)

    def _at_configuration(self, node: Node) -> Node:
        return self._compiler.column(node, "size")

    def _definition(self, node: Node) -> Node:
        """Return what a name of a column of points stands for; other nodes as they are."""
        while node.kind == "name" and self._is_of_points(str(node.value)):
            node = self._columns[str(node.value)].node
        return node

    def _is_of_points(self, column: str) -> bool:
        return column in self._columns and self._columns[column].where == "point"

    def _is_of_configuration(self, node: Node) -> bool:
        return not self._compiler.axes_of(node) & Axis.DEVICE

    def _is_of_device(self, node: Node) -> bool:
        return not is_literal(node) and not self._compiler.axes_of(node) & (Axis.MODEL | Axis.QUESTION)


class Hoister:
    """Takes out of formulas at points what does not change from point to point."""

    def __init__(self, compiler: Compiler, at_points: set[str]) -> None:
        """Take columns of points, and ``at_points``, for what changes."""
        self._compiler, self._at_points = compiler, at_points
        self.kept: set[str] = set()
        """Columns of points that are read several times by what is written once."""

    def hoisted(self, node: Node) -> Node:
        """Return a node that reads columns of configurations, or of devices, instead of computing them."""
        if not node.children:
            return node
        if not names(node) & self._at_points:
            axes = self._compiler.axes_of(node)
            asks = bool(axes & (Axis.MODEL | Axis.QUESTION))
            # a column of a device is gathered for each point, which costs as much as one operation
            if Axis.DEVICE not in axes or (not asks and any(c.children for c in node.children)):
                return self._compiler.column(node, "hoisted")
        operands = tuple(map(self.hoisted, node.children))
        if node.value == "NULLIF" and operands[0].children:
            # engines write it as a choice, with what it is about three times
            about = self._compiler.column(operands[0], "nullif")
            self.kept.add(str(about.value))
            operands = (about, *operands[1:])
        return Node(node.kind, node.value, operands)


def _factors(weight: Node) -> list[Node]:
    """Return what a weight is the product of."""
    if weight.kind == "call" and weight.value == "*":
        return [f for child in weight.children for f in _factors(child)]
    return [weight]


def _product(factors: Sequence[Node], but: Sequence[Node]) -> Node:
    """Return the product of factors but for some."""
    left, found = list(but), ONE
    for factor in factors:
        if factor in left:
            left.remove(factor)
        else:
            found = _times(found, factor)
    return found


def _times(weight: Node, node: Node) -> Node:
    return replace(Node("call", "*", (weight, node)), name)


def _plus(left: Node, right: Node) -> Node:
    return replace(Node("call", "+", (left, right)), name)
