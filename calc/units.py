"""The power-of-two test of units, and whether both engines understand a cell.

Scale every input of a formula by a power of its unit, and the result must scale by its own: exact in floating point,
so a mismatch is a wrong unit and nothing else.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache

import duckdb
import polars as pl

from calc.errors import CalcError, closest
from calc.formula import AGGREGATES, Node, names, to_sql
from calc.program import Compiler
from calc.scopes import Alias, Cell, Scope
from calc.sheet import Sheet

IN_SUM = "in_sum__"
SAMPLES = 48
"""Rows of random inputs that a cell is tried on."""
_TRIED: dict[object, list[str]] = {}
"""What trying a formula on its inputs' types and units found: techniques and other data folders share most cells."""


class Units:
    """The power-of-two test: scale every input by a power of its unit, and the result must scale by its own.

    Exact in floating point, so a mismatch is a wrong unit and nothing else. Inputs are random numbers; texts are
    those that the formula compares with.
    """

    def __init__(self, sheet: Sheet) -> None:
        self.inputs = {n: (about.dtype, about.unit) for n, about in sheet.inputs.items()}
        self.compiler = Compiler(sheet, {})
        self.dtypes: dict[tuple[Scope, str], str] = {}
        self.connection = _connection()

    def problems(self, scope: Scope, cell: Cell, tree: Node, expected: str | None) -> Iterator[str]:
        """Return what is wrong with a cell's formula as both engines and its inputs' units see it."""
        tree = _without_sums(tree)
        read = {name: self._about(scope, name) for name in sorted(names(tree))}
        found = self._tried(cell.formula, cell.unit, tree, tuple(read.items()))
        yield from found
        if expected and not found and self._kind_of(tree, read) != expected:
            yield f"gives {self._kind_of(tree, read)}, not a {expected}"

    def _kind_of(self, tree: Node, read: dict[str, tuple[str, str]]) -> str:
        sample = self._samples(read, sorted(_texts(tree)) or ["x"], 0)
        return _kind(sample.select(pl.sql_expr(to_sql(tree)).alias("value"))["value"])

    def _tried(self, formula: str, unit: str, tree: Node, read: tuple[tuple[str, tuple[str, str]], ...]) -> list[str]:
        key = (formula, unit, read)
        if key not in _TRIED:
            _TRIED[key] = list(self._try(formula, unit, tree, dict(read)))
        return _TRIED[key]

    def _try(self, formula: str, unit: str, tree: Node, read: dict[str, tuple[str, str]]) -> Iterator[str]:
        texts = sorted(_texts(tree)) or ["x"]
        plain = self._samples(read, texts, 0)
        try:
            polars = plain.select(pl.sql_expr(to_sql(tree)).alias("value"))["value"]
        except (pl.exceptions.PolarsError, TypeError) as error:
            yield f"Polars does not evaluate {formula!r}: {str(error).splitlines()[0]}"
            return
        try:
            self.connection.register("sample", plain)
            quoted = to_sql(tree, lambda n: f'"{n}"')
            duck = self.connection.sql(f"select {quoted} as value from sample").pl()["value"]
        except duckdb.Error as error:
            yield f"DuckDB does not evaluate {formula!r}: {str(error).splitlines()[0]}"
            return
        if polars.dtype.is_nested() or not (
            polars.dtype.is_numeric() or polars.dtype in (pl.Boolean, pl.String, pl.Null)
        ):
            yield f"gives {polars.dtype}, not a number, a boolean or text"
            return
        if _kind(polars) != _kind(duck):
            yield f"gives {polars.dtype} in Polars and {duck.dtype} in DuckDB"
            return
        if _kind(polars) != "number":
            if unit:
                yield f"has the unit {unit!r}, but is no number"
            return
        yield from self._scaling(unit, tree, read, texts, polars)

    def _scaling(
        self, unit: str, tree: Node, read: dict[str, tuple[str, str]], texts: list[str], plain: pl.Series
    ) -> Iterator[str]:
        try:
            dimensions = sorted({d for _, u in read.values() for d in powers(u)} | set(powers(unit)))
        except ValueError as error:
            yield str(error)
            return
        for dimension in dimensions:
            scaled = self._samples(read, texts, 1, dimension).select(pl.sql_expr(to_sql(tree)).alias("value"))["value"]
            wanted = plain * 4.0 ** powers(unit).get(dimension, 0)
            wrong = ((scaled != wanted) & (plain != 0)).fill_null(False) | (scaled.is_null() != plain.is_null())
            if wrong.any():
                units = ", ".join(
                    f"{n.removeprefix(IN_SUM)} [{u or '1'}]" for n, (t, u) in read.items() if t == "number"
                )
                yield (
                    f"the unit {unit or '1'!r} does not follow from its inputs: {units} "
                    f"(scaling {dimension} by 4 must scale it by {4.0 ** powers(unit).get(dimension, 0):g})"
                )
                return

    def _samples(
        self, read: dict[str, tuple[str, str]], texts: list[str], power: int, dimension: str = ""
    ) -> pl.DataFrame:
        chance = random.Random(0)
        columns: dict[str, pl.Series] = {}
        for name, (dtype, unit) in read.items():
            if dtype == "boolean":
                columns[name] = pl.Series([chance.random() < 0.5 for _ in range(SAMPLES)], dtype=pl.Boolean)
            elif dtype == "text":
                columns[name] = pl.Series([chance.choice([*texts, "other"]) for _ in range(SAMPLES)])
            else:
                factor = 4.0 ** (power * powers(unit).get(dimension, 0)) if dimension else 1.0
                values = [float(chance.randint(1, 64)) * factor for _ in range(SAMPLES)]
                columns[name] = pl.Series(values, dtype=pl.Float64)
        return pl.DataFrame(columns) if columns else pl.DataFrame({"nothing": [None] * SAMPLES})

    def _about(self, scope: Scope, name: str) -> tuple[str, str]:
        """Return (type, unit) of what a name means in a scope."""
        if name.startswith(IN_SUM):
            return self._about(self.compiler.a_summed_scope(scope), name.removeprefix(IN_SUM))
        found = scope.find(name)
        if found is None:
            raise CalcError(f"unknown name {name!r}{closest(name, scope.known())}")
        definition, home = found
        if isinstance(definition, Alias):
            return self._about(definition.scope, definition.name)
        if isinstance(definition, Node):
            if definition.kind == "name" and definition.value in self.inputs:
                return self.inputs[str(definition.value)]
            return {"string": ("text", ""), "number": ("number", "")}.get(definition.kind, ("boolean", ""))
        if (home, name) not in self.dtypes:
            self.dtypes[(home, name)] = self._dtype(home, definition)
        return self.dtypes[(home, name)], definition.unit

    def _dtype(self, scope: Scope, cell: Cell) -> str:
        if cell.file.endswith("constants.csv") or cell.unit:
            return "number"
        tree = _without_sums(cell.tree())
        read = {n: self._about(scope, n) for n in sorted(names(tree))}
        try:
            value = self._samples(read, sorted(_texts(tree)) or ["x"], 0).select(
                pl.sql_expr(to_sql(tree)).alias("value")
            )
        except (pl.exceptions.PolarsError, TypeError):
            return "number"
        return _kind(value["value"])


@cache
def _connection() -> duckdb.DuckDBPyConnection:
    return duckdb.connect()


def _kind(values: pl.Series) -> str:
    if values.dtype == pl.Boolean:
        return "boolean"
    return "text" if values.dtype == pl.String else "number"


def _without_sums(tree: Node, inside: bool = False) -> Node:
    """Return a formula with ``SUM(x)`` written as ``x``, whose names are marked: a sum has the unit of what it adds."""
    if tree.kind == "name" and inside:
        return Node("name", f"{IN_SUM}{tree.value}")
    if tree.kind == "call" and tree.value in AGGREGATES:
        return _without_sums(tree.children[0], inside=True)
    return (
        Node(tree.kind, tree.value, tuple(_without_sums(c, inside) for c in tree.children)) if tree.children else tree
    )


def _texts(tree: Node) -> set[str]:
    found = {str(tree.value)} if tree.kind == "string" else set()
    for child in tree.children:
        found |= _texts(child)
    return found


DIMENSIONS = {"byte", "bit", "op", "s", "usd", "j", "kw", "hour", "year", "g"}
DERIVED = {"w": {"j": 1, "s": -1}, "kwh": {"kw": 1, "hour": 1}}
"""Units that are made of others."""


@cache
def powers(unit: str) -> dict[str, int]:
    """Return the powers of each base unit in a unit such as ``byte/s``; raises ValueError for an unknown one."""
    found: dict[str, int] = {}
    for place, factor in enumerate(unit.split("/")):
        for symbol in factor.split("*"):
            if symbol in ("", "1"):
                continue
            if symbol not in DIMENSIONS and symbol not in DERIVED:
                known = ", ".join(sorted({*DIMENSIONS, *DERIVED}))
                raise ValueError(f"unknown unit {unit!r}; units are made of {known}")
            for base, power in DERIVED.get(symbol, {symbol: 1}).items():
                found[base] = found.get(base, 0) + (power if place == 0 else -power)
    return found
