"""Which results a grid stores, and how its views get the others from those.

Results rest on each other. What follows from stored results, scenario columns and facts in a few operations need not
be stored; the view's formula for it is the sheet's, lowered as for every engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import inf

from calc.formula import Node, is_literal, literal, name, names
from calc.program import GRAINS, Axis, Column, Program, ResultRow, levelled, read_by, result_scope
from calc.questions import Bound
from calc.results import result_columns
from calc.shapes import input_axes
from calc.sheet import Sheet
from calc.summing import SummingCompiler
from calc.tables import Tables

CHEAP = 12
"""Operations: what takes more of them than this is stored."""
STORED = "__stored_"
"""Before the name of a stored result in formulas: a fact may bear the same name."""


@dataclass(frozen=True)
class Derivation:
    """How results follow from stored ones: formulas of ``derived`` over stored results, questions and facts."""

    stored: tuple[str, ...]
    derived: dict[str, Node]
    columns: tuple[Column, ...]

    def program(self, dtypes: dict[str, str]) -> Program:
        """Return the program that gives the derived results of one row of the grid."""
        rows = [ResultRow(Node("boolean", True), self.derived)]
        wanted = read_by(rows)
        program = Program(levelled(list(self.columns), wanted), rows, [], {c: name(c) for c in self.derived})
        program.dtypes.update(dtypes)
        return program


@lru_cache(maxsize=256)
def derivation(tables: Tables, sheet: Sheet, by: str, wanted: tuple[str, ...], bound: Bound = ()) -> Derivation:
    """Return which of the wanted results are stored, and the formulas of the others.

    ``bound`` is what all questions say alike.
    """
    if GRAINS[by][0] != "serving":
        shown = result_scope(sheet, by)
        return Derivation(tuple(c for c in wanted if shown.find(c) is not None), {}, ())
    said = {n: literal(v) for n, v in bound}
    scope, compiler = sheet.serving_scope(), SummingCompiler(sheet, input_axes(tables), said)
    nodes = {c: compiler.lower(scope, c) for c in wanted if scope.find(c) is not None}
    search = _Search(compiler, nodes, result_columns(tables, by))
    stored = tuple(c for c in nodes if search.is_stored(c))
    derived = set(nodes) - set(stored)
    return Derivation(stored, *search.formulas(derived, stored))


class _Search:
    """What each column costs to compute from results, and on which it rests."""

    def __init__(self, compiler: SummingCompiler, nodes: dict[str, Node], dtypes: dict[str, str]) -> None:
        self._nodes, self._dtypes = nodes, dtypes
        self._columns = {c.id: c for c in compiler.needed(read_by([ResultRow(Node("boolean", True), nodes)]))}
        self._sums = set(compiler.sums)
        self._results: dict[str, str] = {}
        self._stored: dict[str, bool] = {}
        for result, node in nodes.items():
            if node.kind == "name" and (str(node.value) in self._columns or str(node.value) in self._sums):
                self._results.setdefault(str(node.value), result)

    def is_stored(self, result: str) -> bool:
        """Tell whether a result does not follow cheaply from others."""
        if result not in self._stored:
            node = self._nodes[result]
            is_twin = node.kind == "name" and self._results.get(str(node.value), result) != result
            # texts are slow to write and seldom asked for; conditions take a bit and are asked for in every query
            most = inf if self._dtypes[result] == "text" else CHEAP
            per_result = inf if self._dtypes[result] == "boolean" else 0.0
            cost = 0.0 if is_twin or is_literal(node) else self._cost(str(node.value), most, per_result, result)
            self._stored[result] = cost > most or cost == inf
        return self._stored[result]

    def _cost(self, column: str, most: float, per_result: float, of: str | None = None) -> float:
        """Return the operations that a column takes on a row of a grid; infinite where it needs a sum."""
        result = self._results.get(column)
        if result is not None and result != of and self.is_stored(result):
            return per_result
        if column in self._sums or column.startswith("row__"):
            return inf
        if column not in self._columns:
            return 0
        node, axes = self._columns[column].node, self._columns[column].axes
        # what depends on the model or on the device alone is computed once for each
        is_of_row = Axis.QUESTION in axes or (Axis.MODEL in axes and axes != Axis.MODEL)
        total: float = _operations(node) if is_of_row else 0
        for read in names(node):
            if total > most:
                break
            total += self._cost(read, most, per_result)
        return total

    def formulas(self, derived: set[str], stored: tuple[str, ...]) -> tuple[dict[str, Node], tuple[Column, ...]]:
        """Return the formulas of derived results, and the columns that they read, over stored results."""
        given = {str(self._nodes[s].value): name(f"{STORED}{s}") for s in stored if self._nodes[s].kind == "name"}
        found = {r: _renamed(n, given) for r, n in self._nodes.items() if r in derived}
        left = {n for node in found.values() for n in names(node)}
        kept: list[Column] = []
        for column in reversed(self._columns.values()):
            if column.id in left and column.id not in given:
                node = _renamed(column.node, given)
                kept.append(Column(column.id, node, column.axes))
                left |= names(node)
        return found, tuple(kept[::-1])


def _operations(node: Node) -> int:
    return bool(node.children) + sum(map(_operations, node.children))


def _renamed(node: Node, given: dict[str, Node]) -> Node:
    if node.kind == "name":
        return given.get(str(node.value), node)
    return Node(node.kind, node.value, tuple(_renamed(c, given) for c in node.children)) if node.children else node
