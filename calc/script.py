"""The whole calculator as one SQL script: tables, formulas and views, for a shell without Python."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

import calc
from calc.database import FUNCTIONS, SQL_TYPES, devices_view, statements
from calc.tables import Tables

ROWS = 500
"""Rows of one INSERT."""


def script(tables: Tables) -> Iterator[str]:
    """Return the statements of a script that makes the calculator in an empty DuckDB database.

    It has every table, view and macro of ``calc.connect()`` but those that ask techniques, which are Python's.
    """
    model, device = (tables[t].item(0, 0) for t in ("models", "hardware"))
    yield (
        f"-- The calculator, version {calc.__version__}: every table, formula and view.\n"
        "-- Run: duckdb calculator.db < calculator.sql\n"
        f"-- Then ask: with asked as (select '{model}' as model_id, '{device}' as hardware_id) "
        "from serving_of('asked')\n"
        "-- DuckDB 2.0 plans faster after: set disabled_optimizers = 'projection_placement'"
    )
    for table, frame in tables.frames.items():
        yield from _table(tables, table, frame)
    yield f"{devices_view()};"
    for view, statement in statements(tables):
        if view is None:
            yield f"{statement};"
        elif view not in FUNCTIONS:
            yield f"create view {view} as {statement};"


def _table(tables: Tables, table: str, frame: pl.DataFrame) -> Iterator[str]:
    types = {str(c["column_name"]): SQL_TYPES[str(c["dtype"])] for c in tables.columns(table)}
    fields = ", ".join(f'"{c}" {types[c]}' for c in frame.columns)
    yield f'create table "{table}" ({fields});'
    for first in range(0, frame.height, ROWS):
        rows = ",\n".join(f"({', '.join(map(_literal, row))})" for row in frame.slice(first, ROWS).iter_rows())
        yield f'insert into "{table}" values\n{rows};'


def _literal(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    # a number as the shortest text that is read back as the same, and as a double
    return f"{value!r}::double" if isinstance(value, float) else "'" + str(value).replace("'", "''") + "'"
