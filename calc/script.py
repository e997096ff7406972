"""The whole calculator as one SQL script: tables, formulas and views, for a shell without Python."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import polars as pl

import calc
from calc.database import IN_PYTHON, devices_view, statements
from calc.dialects import DUCKDB, SPARK, Dialect
from calc.errors import CalcError
from calc.loading import sheet_names
from calc.program import GRAINS
from calc.questions import DEVICE, scenario_columns
from calc.sheet_queries import spark_query
from calc.tables import Tables, spellings

ROWS = 500
"""Rows of one INSERT."""


def script(tables: Tables, dialect: str = "duckdb") -> Iterator[str]:
    """Return the statements of a script that makes the calculator in an empty database of an engine.

    For DuckDB it has every table, view and macro of ``calc.connect()`` but those that ask techniques, which are
    Python's; for Spark a table ``scenarios``, and views of each grain of each sheet over it. Raises CalcError for
    another dialect.
    """
    written: dict[str, Callable[[Tables], Iterator[str]]] = {"duckdb": _duckdb, "spark": _spark}
    if dialect not in written:
        raise CalcError(f"unknown dialect {dialect!r}; there are {', '.join(written)}")
    yield f"-- The calculator, version {calc.__version__}: every formula, and the facts that it reads."
    yield from written[dialect](tables)


def _duckdb(tables: Tables) -> Iterator[str]:
    model, device = (tables[t].item(0, 0) for t in ("models", "hardware"))
    yield (
        "-- Run: duckdb calculator.db < calculator.sql\n"
        f"-- Then ask: with asked as (select '{model}' as model_id, '{device}' as hardware_id) "
        "from serving_of('asked')\n"
        "-- DuckDB 2.0 plans faster after: set disabled_optimizers = 'projection_placement'"
    )
    for table, frame in tables.frames.items():
        yield from _table(table, frame, _types(tables, table), DUCKDB)
    yield f"{devices_view()};"
    for view, statement in statements(tables):
        if view is None:
            yield f"{statement};"
        elif view not in IN_PYTHON:
            yield f"create view {view} as {statement};"


def _spark(tables: Tables) -> Iterator[str]:
    model, device = (tables[t].item(0, 0) for t in ("models", "hardware"))
    yield (
        "-- Run: spark-sql --driver-memory 6g -i calculator.sql\n"
        f"-- Then ask: insert into scenarios (model_id, hardware_id) values ('{model}', '{device}');\n"
        "--           select * from serving;\n"
        "-- Spark plans such a query for a minute or two, for one row or for millions: keep its answer as a table.\n"
        "create database if not exists calculator;\nuse calculator;\n"
        "-- what is divided by nothing is unknown, not an error; tables of a thousand columns are not compiled as one\n"
        "set spark.sql.ansi.enabled = false;\nset spark.sql.codegen.wholeStage = false;\n"
        "set spark.sql.constraintPropagation.enabled = false;\nset spark.sql.adaptive.enabled = false;"
    )
    for table in ("models", "formats", "precisions"):
        yield from _table(table, tables[table], _types(tables, table, SPARK), SPARK)
    devices = _types(tables, "hardware", SPARK)
    yield from _table("__devices", tables["hardware"].with_row_index(DEVICE), {DEVICE: "int", **devices}, SPARK)
    for table, key in (("models", "model_id"), ("hardware", "hardware_id")):
        named = tables[table].select(key, "aliases").iter_rows()
        known = [(spelled, row[0]) for row in named for spelled in spellings(*row)]
        frame = pl.DataFrame(known, schema=["spelled", key], orient="row")
        yield from _table(f"__{table}_spellings", frame, {"spelled": "string", key: "string"}, SPARK)
    columns = {c: SPARK.type(str(rule["dtype"])) for c, rule in scenario_columns(tables).items()}
    columns["workload_id"] = "string"
    yield from _table("scenarios", pl.DataFrame(schema=list(columns)), columns, SPARK)
    for title in sheet_names(tables):
        for by, (view, _) in GRAINS.items():
            name = view if title == "exact" else f"{title}_{view}"
            # Hive's catalog takes no view of a million characters
            yield f"create or replace temporary view {name} as {spark_query(tables, title, by, SPARK)};"


def _types(tables: Tables, table: str, dialect: Dialect = DUCKDB) -> dict[str, str]:
    return {str(c["column_name"]): dialect.type(str(c["dtype"])) for c in tables.columns(table)}


def _table(table: str, frame: pl.DataFrame, types: dict[str, str], dialect: Dialect) -> Iterator[str]:
    fields = ", ".join(f"{dialect.name(c)} {types[c]}" for c in frame.columns)
    if dialect is SPARK:
        yield f"drop table if exists {table};"
    yield f"create table {dialect.name(table)} ({fields}){dialect.table};"
    for first in range(0, frame.height, ROWS):
        rows = ",\n".join(f"({', '.join(_literal(v) for v in row)})" for row in frame.slice(first, ROWS).iter_rows())
        yield f"insert into {dialect.name(table)} values\n{rows};"


def _literal(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        # the shortest text that is read back as the same, and as a double
        return f"cast({value!r} as double)"
    return "'" + str(value).replace("'", "''") + "'"
