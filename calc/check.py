"""``calc check``: every rule that the tables and the sheets must keep, all findings together."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import duckdb
import polars as pl

from calc.catalogue import COUNTS, model_facts
from calc.database import sql_view
from calc.engines import check_engines
from calc.errors import CalcError, DataError, closest
from calc.formula import is_literal
from calc.loading import load_sheet, sheet_names
from calc.program import GRAINS, Compiler, result_scope
from calc.questions import model_parameters
from calc.results import compiled, result_columns
from calc.scopes import Alias, Cell, Scope
from calc.shapes import input_axes
from calc.sheet import LIVE, Sheet
from calc.summing import SummingCompiler
from calc.tables import Tables
from calc.units import Units, powers


def check(tables: Tables) -> None:
    """Raise DataError with everything that is wrong in the sheets of a data folder; the tables are checked on load."""
    findings = list(_check_units(tables))
    for title in sheet_names(tables):
        try:
            sheet = load_sheet(tables, title)
        except CalcError as error:
            findings += str(error).splitlines()
            continue
        findings += _check_sheet(tables, sheet)
    if not findings:
        findings += [*_check_techniques(tables), *check_engines(tables)]
    if findings:
        raise DataError(dict.fromkeys(findings))


def check_sheet(tables: Tables, title: str) -> None:
    """Raise DataError with everything that is wrong in one sheet."""
    findings = _check_sheet(tables, load_sheet(tables, title))
    if findings:
        raise DataError(dict.fromkeys(findings))


def _check_units(tables: Tables) -> Iterator[str]:
    """Find units in the dictionary and of parameters that are none."""
    dictionary = tables.dictionary.select("table_name", "column_name", "unit").iter_rows()
    parameters = tables["parameters"].select("technique_id", "parameter", "unit").iter_rows()
    for file, rows in (("columns.csv", dictionary), ("parameters.csv", parameters)):
        for line, (*key, unit) in enumerate(rows, start=2):
            try:
                powers(unit or "")
            except ValueError as error:
                yield f"{file}, row {line}, column unit: {'.'.join(key)}: {error}"


def _check_sheet(tables: Tables, sheet: Sheet, checked: Sheet | None = None) -> list[str]:
    """Return what is wrong in a sheet; cells that it has in common with a sheet that was checked are passed over."""
    known = _known(checked) if checked else frozenset()
    cells = [(scope, cell) for scope, cell in _cells(sheet, checked) if cell not in known]
    findings = [f"{c.file}, cell {c.key}: {reason}" for c, reason in _defined_once(cells)]
    units = Units(sheet)
    seen: set[tuple[str, str]] = set()
    compiler = SummingCompiler(sheet, input_axes(tables))
    for scope, cell in cells:
        if (cell.file, cell.key) in seen:
            continue
        problems = list(_check_cell(compiler, units, scope, cell))
        findings += [f"{cell.file}, cell {cell.key}: {p}" for p in problems if not p.startswith("\0")]
        findings += [p[1:] for p in problems if p.startswith("\0")]
        seen.add((cell.file, cell.key))
    findings += _check_sources(tables, sheet)
    if not findings and checked is None:
        # what a technique changes has been lowered above, cell by cell; its results are the plain sheet's
        findings += _check_results(tables, sheet)
    return findings


@lru_cache(maxsize=4)
def _known(sheet: Sheet) -> frozenset[Cell]:
    return frozenset(cell for _, cell in _cells(sheet))


def _cells(sheet: Sheet, plain: Sheet | None = None) -> Iterator[tuple[Scope, Cell]]:
    """Return every cell of a sheet with its scope; of operators only those that differ from a plain sheet's."""
    scopes: list[Scope | None] = [sheet.scenario_scope()]
    first, part = sheet.stages[0], sheet.parts[0]
    scopes += [sheet.stage_scope(stage, part) for stage in sheet.stages]
    for part in sheet.parts:
        scopes += [sheet.stage_scope(first, part).parent, sheet.part_scope(first, part)]
        for operator in sheet.operators(part.block):
            if plain is None or sheet.shape_rows(operator) != plain.shape_rows(operator):
                scopes.append(sheet.operator_scope(first, part, operator).parent)
    # what follows the shape is the same for every operator
    part = next(p for p in sheet.parts if sheet.operators(p.block))
    some = sheet.operators(part.block)[0]
    scopes += [sheet.operator_scope(first, part, some), sheet.generation_scope(part, some)]
    scopes += [sheet.totals_scope(first), sheet.serving_scope()]
    for scope in scopes:
        if scope is not None:
            yield from ((scope, c) for c in scope.cells.values() if isinstance(c, Cell))
    root = sheet.scenario_scope().parent
    if root is not None:
        yield from ((root, c) for c in root.cells.values() if isinstance(c, Cell))


def _check_cell(compiler: Compiler, units: Units, scope: Scope, cell: Cell) -> Iterator[str]:
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
    if cell.name == LIVE:
        # made of other cells' names by the graph: that it can be lowered is all there is to check
        return
    expected = _expected(cell)
    if is_literal(tree):
        if expected and tree.kind not in (expected, "null"):
            yield f"is {tree}, not a {expected}"
    else:
        yield from units.problems(scope, cell, tree, expected)


def _expected(cell: Cell) -> str | None:
    """Return what a cell must give where its place says so: a number with a unit, a condition, a shape."""
    if cell.name in ("applies", "part_applies", "operator_applies"):
        return "boolean"
    return (
        "number"
        if cell.unit
        or (
            cell.file.endswith(("parts.csv", "operators.csv", "kinds.csv", "totals.csv"))
            and cell.name not in ("bound", "reason")
        )
        else None
    )


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


def _defined_once(cells: list[tuple[Scope, Cell]]) -> Iterator[tuple[Cell, str]]:
    """Find cells whose name another scope in force has already: an operator must not hide its block's cell."""
    for scope, cell in cells:
        parent = scope.parent
        if (
            cell.name not in scope.cells
            or parent is None
            or scope.label.endswith("__total")
            or scope.label in ("serving", "changed")
        ):
            continue
        other = parent.find(cell.name)
        if other is not None:
            where = f"{other[0].file}, cell {other[0].key}" if isinstance(other[0], Cell) else "a fact or an input"
            yield cell, f"is defined twice: {cell.name!r} is {where} already"


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
    """Compile results, and compare the units of their cells with the dictionary's."""
    found = []
    for by in GRAINS:
        table = GRAINS[by][0]
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
            patched = load_sheet(tables, title, (technique,))
            findings = [*_check_replaced(tables, patched)]
            if patched.compiled_as is patched:
                findings += _check_sheet(tables, patched, load_sheet(tables, title))
            found += [f"technique {technique}: {f}" for f in findings]
        except CalcError as error:
            found.append(str(error))
    return found


def _check_replaced(tables: Tables, sheet: Sheet) -> Iterator[str]:
    """Find models and formats that a technique names and that are not there."""
    formats, parameters = tables["formats"]["format_id"].to_list(), model_parameters(tables)
    for column, node in sheet.replaced.items():
        if column == "model_id":
            if node.kind != "name" or node.value not in parameters:
                yield f"patches.csv, cell inputs.{column}: {node} is no parameter that names a model"
        elif node.value not in formats:
            yield f"patches.csv, cell inputs.{column}: {node} is not in formats.csv{closest(str(node.value), formats)}"


def headlines(tables: Tables) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the figures that a reader checks at a glance: ridge points (op/byte) per device, counts per model."""
    found = sql_view(tables, "ridge_points")
    ridges = found.pivot("peak", index="hardware_id", values="ridge_intensity")
    order = [str(c["column_name"]).removesuffix("_ops_per_s") for c in tables.columns("hardware")]
    ridges = tables["hardware"].select("hardware_id").join(ridges, on="hardware_id", how="left", maintain_order="left")
    ridges = ridges.select("hardware_id", *(c for c in order if c in ridges.columns and c != "hardware_id"))
    models = tables["models"].select("model_id", "n_published_parameters").join(
        model_facts(tables), on="model_id", how="left", maintain_order="left"
    )  # fmt: skip
    return ridges, models.select("model_id", "n_parameters", "n_published_parameters", *COUNTS[1:])
