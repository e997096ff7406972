"""A frame as a workbook: a real table with filters, the same in long form for pivots, and what its columns mean."""

from __future__ import annotations

from typing import IO, Any

import polars as pl
import polars.selectors as cs
import xlsxwriter

from calc.described import words
from calc.errors import CalcError
from calc.tables import Tables
from calc.workbook.book import number_format, written

MOST_ROWS, MOST_COLUMNS = 1_048_575, 16_384
"""Of a sheet, below its header."""
MOST_FORMATTED = 100_000
"""Rows up to which cells are coloured by their value: beyond, a spreadsheet takes seconds to draw them."""
OPTIONS = {"strings_to_formulas": False, "strings_to_urls": False, "nan_inf_to_errors": True}
LONG = ("metric", "value", "unit")


def write_table(tables: Tables, frame: pl.DataFrame, target: str | IO[bytes]) -> None:
    """Write a frame as a workbook with the sheets *Table*, *Pivot* (a row per metric) and *Columns*.

    Numbers are in base units. Raises CalcError for what a sheet cannot hold.
    """
    if frame.height > MOST_ROWS or frame.width > MOST_COLUMNS:
        most = f"{MOST_ROWS:,} and {MOST_COLUMNS:,}; take CSV or Parquet, or ask for less"
        raise CalcError(f"{frame.height:,} rows of {frame.width:,} columns: a sheet has at most {most}")
    known = words(tables)
    units = {c: str(known[c]["unit"] or "") if c in known else "" for c in frame.columns}
    told = pl.DataFrame({
        "column": frame.columns, "unit": [units[c] for c in frame.columns],
        **{t: [str(known[c][t] or "") if c in known else "" for c in frame.columns] for t in ("label", "description")},
    })  # fmt: skip
    metrics = [c for c in frame.columns if c in _results(tables) and frame.schema[c].is_numeric()]
    frame = _writable(frame)
    with written(), xlsxwriter.Workbook(target, OPTIONS) as book:
        _put(book, "Table", frame, units, metrics if frame.height <= MOST_FORMATTED else [])
        if metrics and frame.height * len(metrics) <= MOST_ROWS:
            _put(book, "Pivot", _long(frame, metrics, units), {}, [])
        _put(book, "Columns", told, {}, [])


def _results(tables: Tables) -> set[str]:
    return {str(c["column_name"]) for t in ("operators", "stages", "serving") for c in tables.columns(t)}


def _writable(frame: pl.DataFrame) -> pl.DataFrame:
    """Return a frame whose columns a sheet can hold, with names that differ by more than their case."""
    seen: dict[str, int] = {}
    names = {}
    for column in frame.columns:
        n = seen[column.lower()] = seen.get(column.lower(), 0) + 1
        names[column] = column if n == 1 else f"{column} ({n})"
    texts = [
        c for c, t in frame.schema.items() if t.is_nested() or t in (pl.Binary, pl.Object, pl.Categorical, pl.Enum)
    ]
    shown = [pl.Series(c, [None if v is None else str(v) for v in frame[c].to_list()], dtype=pl.String) for c in texts]
    return frame.with_columns(shown).rename(names)


def _long(frame: pl.DataFrame, metrics: list[str], units: dict[str, str]) -> pl.DataFrame:
    """Return a row for each metric of each row."""
    keys = [c for c in frame.columns if c not in metrics and c not in LONG]
    long = frame.with_columns(cs.by_name(metrics).cast(pl.Float64)).unpivot(metrics, index=keys, variable_name="metric")
    return long.with_columns(unit=pl.col("metric").replace_strict(units, default="", return_dtype=pl.String))


def _put(book: Any, sheet: str, frame: pl.DataFrame, units: dict[str, str], coloured: list[str]) -> None:
    """Write a frame as a table on a sheet of its own, metrics coloured by their size."""
    numbers = frame.select(cs.numeric()).columns
    formats: dict[Any, Any] = {c: number_format(units[c]) if units.get(c) else "General" for c in numbers}
    frame.write_excel(
        book, sheet, table_name=sheet, table_style="Table Style Light 9", column_formats=formats, freeze_panes="A2",
        conditional_formats=dict.fromkeys(coloured, "2_color_scale"), autofit=frame.height <= MOST_FORMATTED,
    )  # fmt: skip
