"""``calc check``: every rule that the tables and the sheets must keep, all findings together."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache, lru_cache

import duckdb
import polars as pl

from calc.database import connect
from calc.errors import CalcError, DataError, closest
from calc.evaluation import MODEL_COUNTS, compiled, model_facts, result_columns
from calc.formula import Node, is_literal, names, to_sql
from calc.program import GRAINS, Compiler, result_scope
from calc.sheet import Alias, Cell, Scope, Sheet, fact_columns, load_sheet, sheet_names
from calc.tables import Tables

IN_SUM = "in_sum__"
SAMPLES = 48
"""Rows of random inputs that a cell is tried on."""


def check(tables: Tables) -> None:
    """Raise DataError with everything that is wrong in the sheets of a data folder; the tables are checked on load."""
    findings: list[str] = []
    for title in sheet_names(tables):
        try:
            sheet = load_sheet(tables, title)
        except CalcError as error:
            findings += str(error).splitlines()
            continue
        findings += _check_sheet(tables, sheet)
    if not findings:
        findings += _check_techniques(tables)
    if findings:
        raise DataError(dict.fromkeys(findings))


def _check_sheet(tables: Tables, sheet: Sheet) -> list[str]:
    findings = [f"{c.file}, cell {c.key}: {reason}" for c, reason in _defined_once(sheet)]
    units = _Units(tables, sheet)
    seen: set[tuple[str, str]] = set()
    compiler = Compiler(sheet, {n for n, _ in fact_columns(tables, "hardware")})
    for scope, cell in _cells(sheet):
        if (cell.file, cell.key) in seen:
            continue
        problems = list(_check_cell(compiler, units, scope, cell))
        findings += [f"{cell.file}, cell {cell.key}: {p}" for p in problems if not p.startswith("\0")]
        findings += [p[1:] for p in problems if p.startswith("\0")]
        seen.add((cell.file, cell.key))
    findings += _check_sources(tables, sheet)
    if not findings:
        findings += _check_results(tables, sheet)
    return findings


def _cells(sheet: Sheet) -> Iterator[tuple[Scope, Cell]]:
    """Return every cell of a sheet with the scope that it is read in."""
    scopes: list[Scope | None] = [sheet.scenario_scope()]
    for stage in sheet.stages:
        scopes.append(sheet.stage_scope(stage))
        for part in sheet.parts:
            scopes.append(sheet.part_scope(stage, part))
            for operator in sheet.operators(part.block):
                outer = sheet.operator_scope(stage, part, operator)
                scopes += [outer.parent, outer]
        scopes.append(sheet.totals_scope(stage))
    scopes += [sheet.generation_scope(p, o) for p in sheet.parts for o in sheet.operators(p.block)]
    scopes.append(sheet.serving_scope())
    for scope in scopes:
        if scope is not None:
            yield from ((scope, c) for c in scope.cells.values() if isinstance(c, Cell))
    root = sheet.scenario_scope().parent
    if root is not None:
        yield from ((root, c) for c in root.cells.values() if isinstance(c, Cell))


def _check_cell(compiler: Compiler, units: _Units, scope: Scope, cell: Cell) -> Iterator[str]:
    bad = _bad_name(cell.name)
    if bad:
        yield bad
    try:
        tree = cell.tree() if not cell.file.endswith("constants.csv") else compiler.lower(scope, cell.name)
        if cell.name in scope.cells:
            compiler.lower(scope, cell.name)
        else:
            compiler.lower_tree(scope, tree)
    except CalcError as error:
        yield f"\0{error}"
        return
    if not is_literal(tree):
        yield from units.problems(scope, cell, tree)


@lru_cache(maxsize=1)
def _reserved() -> frozenset[str]:
    query = "select keyword_name from duckdb_keywords() where keyword_category = 'reserved'"
    return frozenset(row[0] for row in duckdb.connect().execute(query).fetchall())


def _bad_name(name: str) -> str | None:
    if not name.isidentifier() or name != name.lower():
        return f"{name!r} is not lower-case snake_case"
    if name in _reserved():
        return f"{name!r} is a reserved word of DuckDB"
    letters = name.rstrip("0123456789")
    if letters.isalpha() and len(letters) <= 3 and letters != name:
        return f"{name!r} reads as the address of a spreadsheet cell"
    return None


def _defined_once(sheet: Sheet) -> Iterator[tuple[Cell, str]]:
    """Find cells whose name another scope in force has already: an operator must not hide its block's cell."""
    for scope, cell in _cells(sheet):
        parent = scope.parent
        if (
            cell.name not in scope.cells
            or parent is None
            or scope.label.endswith("__total")
            or scope.label == "serving"
        ):
            continue
        other = parent.find(cell.name)
        if other is not None:
            where = f"{other[0].file}, cell {other[0].key}" if isinstance(other[0], Cell) else "a fact or an input"
            yield cell, f"is defined twice: {cell.name!r} is {where} already"


_TRIED: dict[object, list[str]] = {}
"""What trying a formula on its inputs' types and units found: techniques and other data folders share most cells."""


class _Units:
    """The power-of-two test: scale every input by a power of its unit, and the result must scale by its own.

    Exact in floating point, so a mismatch is a wrong unit and nothing else. Inputs are random numbers; texts are
    those that the formula compares with.
    """

    def __init__(self, tables: Tables, sheet: Sheet) -> None:
        self.inputs: dict[str, tuple[str, str]] = {}
        for table in ("scenarios", "models", "hardware", "formats"):
            by_name = {str(c["column_name"]): c for c in tables.columns(table)}
            for given, column in fact_columns(tables, table):
                entry = by_name[column]
                self.inputs[given] = (str(entry["dtype"]), str(entry["unit"] or ""))
        for row in tables["parameters"].iter_rows(named=True):
            self.inputs[row["parameter"]] = ("number", row["unit"] or "")
        self.compiler = Compiler(sheet, set())
        self.dtypes: dict[tuple[Scope, str], str] = {}
        self.connection = duckdb.connect()

    def problems(self, scope: Scope, cell: Cell, tree: Node) -> Iterator[str]:
        tree = _without_sums(tree)
        read: dict[str, tuple[str, str]] = {}
        for name in sorted(names(tree)):
            try:
                read[name] = self._about(scope, name)
            except RecursionError:
                return
        yield from self._tried(cell.formula, cell.unit, tree, tuple(read.items()))

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
            dimensions = sorted({d for _, u in read.values() for d in _powers(u)} | set(_powers(unit)))
        except ValueError as error:
            yield str(error)
            return
        for dimension in dimensions:
            scaled = self._samples(read, texts, 1, dimension).select(pl.sql_expr(to_sql(tree)).alias("value"))["value"]
            wanted = plain * 4.0 ** _powers(unit).get(dimension, 0)
            wrong = ((scaled != wanted) & (plain != 0)).fill_null(False) | (scaled.is_null() != plain.is_null())
            if wrong.any():
                units = ", ".join(
                    f"{n.removeprefix(IN_SUM)} [{u or '1'}]" for n, (t, u) in read.items() if t == "number"
                )
                yield (
                    f"the unit {unit or '1'!r} does not follow from its inputs: {units} "
                    f"(scaling {dimension} by 4 must scale it by {4.0 ** _powers(unit).get(dimension, 0):g})"
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
                factor = 4.0 ** (power * _powers(unit).get(dimension, 0)) if dimension else 1.0
                values = [float(chance.randint(1, 64)) * factor for _ in range(SAMPLES)]
                columns[name] = pl.Series(values, dtype=pl.Float64)
        return pl.DataFrame(columns) if columns else pl.DataFrame({"nothing": [None] * SAMPLES})

    def _about(self, scope: Scope, name: str) -> tuple[str, str]:
        """Return (type, unit) of what a name means in a scope."""
        if name.startswith(IN_SUM):
            return self._about(self.compiler.summed_scopes(scope)[0], name.removeprefix(IN_SUM))
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


def _kind(values: pl.Series) -> str:
    if values.dtype == pl.Boolean:
        return "boolean"
    return "text" if values.dtype == pl.String else "number"


def _without_sums(tree: Node, inside: bool = False) -> Node:
    """Return a formula with ``SUM(x)`` written as ``x``, whose names are marked: a sum has the unit of what it adds."""
    if tree.kind == "name" and inside:
        return Node("name", f"{IN_SUM}{tree.value}")
    if tree.kind == "call" and tree.value == "SUM":
        return _without_sums(tree.children[0], inside=True)
    return (
        Node(tree.kind, tree.value, tuple(_without_sums(c, inside) for c in tree.children)) if tree.children else tree
    )


def _texts(tree: Node) -> set[str]:
    found = {str(tree.value)} if tree.kind == "string" else set()
    for child in tree.children:
        found |= _texts(child)
    return found


DIMENSIONS = {"byte", "bit", "op", "s", "usd", "w", "j", "hour"}


@cache
def _powers(unit: str) -> dict[str, int]:
    """Return the powers of each base unit in a unit such as ``byte/s``; raises ValueError for an unknown one."""
    found: dict[str, int] = {}
    for place, factor in enumerate(unit.split("/")):
        for symbol in factor.split("*"):
            if symbol in ("", "1"):
                continue
            if symbol not in DIMENSIONS:
                raise ValueError(f"unknown unit {unit!r}; units are made of {', '.join(sorted(DIMENSIONS))}")
            found[symbol] = found.get(symbol, 0) + (1 if place == 0 else -1)
    return found


def _check_sources(tables: Tables, sheet: Sheet) -> list[str]:
    known = set(tables["sources"]["source_id"].to_list())
    found = []
    for file, rows in sheet.rows.items():
        for line, row in enumerate(rows, start=2):
            if row["source_id"] not in known:
                found.append(
                    f"{sheet.path(file)}, row {line}, column source_id: {row['source_id']!r} is not in sources.csv"
                    f"{closest(row['source_id'], known)}"
                )
    return found


def _check_results(tables: Tables, sheet: Sheet) -> list[str]:
    """Compile every grain, and compare the units of result cells with the dictionary's."""
    found = []
    for by, (table, _) in GRAINS.items():
        scope = result_scope(sheet, by)
        columns = tuple(c for c in result_columns(tables, by) if scope.find(c) is not None)
        try:
            compiled(tables, sheet, by, columns)
        except CalcError as error:
            found.append(str(error))
        for entry in tables.columns(table):
            place = scope.find(str(entry["column_name"]))
            cell = place[0] if place else None
            while isinstance(cell, Alias):
                place = cell.scope.find(cell.name)
                cell = place[0] if place else None
            if isinstance(cell, Cell) and cell.unit != (entry["unit"] or ""):
                found.append(
                    f"{cell.file}, cell {cell.key}: its unit is {cell.unit or '1'!r}, columns.csv says "
                    f"{entry['unit'] or '1'!r} for {table}.{entry['column_name']}"
                )
    return found


def _check_techniques(tables: Tables) -> list[str]:
    found = []
    for technique, title in tables["patches"].select("technique_id", "sheet").unique(maintain_order=True).iter_rows():
        try:
            found += [
                f"technique {technique}: {f}" for f in _check_sheet(tables, load_sheet(tables, title, (technique,)))
            ]
        except CalcError as error:
            found.append(str(error))
    return found


def headlines(tables: Tables) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the figures that a reader checks at a glance: ridge points (op/byte) per device, counts per model."""
    found = connect(tables).sql("from ridge_points").pl()
    ridges = found.pivot("peak", index="hardware_id", values="ridge_intensity")
    order = [str(c["column_name"]).removesuffix("_ops_per_s") for c in tables.columns("hardware")]
    ridges = tables["hardware"].select("hardware_id").join(ridges, on="hardware_id", how="left", maintain_order="left")
    ridges = ridges.select("hardware_id", *(c for c in order if c in ridges.columns and c != "hardware_id"))
    models = tables["models"].select("model_id", "n_published_parameters").join(
        model_facts(tables), on="model_id", how="left", maintain_order="left"
    )  # fmt: skip
    return ridges, models.select("model_id", "n_parameters", "n_published_parameters", *MODEL_COUNTS[1:])
