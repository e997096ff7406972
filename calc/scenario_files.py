"""Scenarios from files: a user's own sheet of deployments, as CSV, XLSX, Parquet or JSON.

Columns that say something of a scenario are read as that; the others are the user's own and come back as they are.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from calc.errors import DataError, ScenarioError
from calc.files import parse_csv, read_given, read_rows
from calc.questions import SHORT, scenario_columns
from calc.tables import Tables

ENDINGS = (".csv", ".xlsx", ".parquet", ".json")
LARGEST_BYTES = 200_000_000
WORKLOAD = "workload_id"


def read_scenarios(tables: Tables, path: str | Path) -> pl.DataFrame:
    """Return the scenarios of a file, a row each: columns of the dictionary in their types, and the user's own.

    ``model``, ``hardware`` and ``workload`` stand for the ids; a workload fills the sizes that a row leaves empty. Of a
    workbook the first sheet is read. Raises DataError for a file that cannot be read, ScenarioError for a field that
    is no number, named by its row and column.
    """
    return typed(tables, _read(Path(path)), Path(path).name)


def _read(path: Path) -> pl.DataFrame:
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise DataError([f"{path.name}: cannot be read; use {', '.join(ENDINGS)}"])
    if ending in (".parquet", ".json"):
        return read_rows(path)
    content = read_given(path, LARGEST_BYTES)
    return parse_csv(content, path.name) if ending == ".csv" else parse_workbook(path, path.name)


def parse_workbook(path: Path, where: str) -> pl.DataFrame:
    """Return the first sheet of a workbook: its header, and the values of its cells; raises DataError."""
    import openpyxl
    from openpyxl.utils.exceptions import InvalidFileException

    try:
        page = openpyxl.load_workbook(path, read_only=True, data_only=True).worksheets[0]
        header, *body = (list(row) for row in page.iter_rows(values_only=True))
    except ValueError as error:
        raise DataError([f"{where}: its first sheet is empty; it needs at least its header row"]) from error
    except (OSError, KeyError, InvalidFileException, zipfile.BadZipFile) as error:
        raise DataError([f"{where}: is not a workbook that can be read ({error})"]) from error
    while header and header[-1] is None:
        header.pop()
    names = [str(h).strip() if h is not None else "" for h in header]
    if not all(names) or len(set(names)) < len(names):
        raise DataError([f"{where}: the header leaves a column without a name or names one twice"])
    rows = [row[: len(names)] for row in body if any(v is not None for v in row)]
    return pl.DataFrame({n: _column([row[i] for row in rows]) for i, n in enumerate(names)})


def parse_pasted(text: str, where: str) -> pl.DataFrame:
    """Return rows that were copied from a spreadsheet, or from a CSV, as text; raises DataError."""
    header = text.lstrip().partition("\n")[0]
    return parse_csv(text.strip("\r\n").encode(), where, "\t" if "\t" in header else ",")


def _column(values: list[object]) -> pl.Series:
    """Return cells as a column; what is of several kinds becomes text."""
    kinds = {type(v) for v in values if v is not None}
    if kinds <= {int, float}:
        return pl.Series([None if v is None else float(str(v)) for v in values], dtype=pl.Float64)
    if len(kinds) > 1:
        return pl.Series([None if v is None else str(v) for v in values], dtype=pl.String)
    return pl.Series(values)


def typed(tables: Tables, frame: pl.DataFrame, where: str, first_row: int = 2) -> pl.DataFrame:
    """Return rows as scenarios; raises ScenarioError for what is none.

    Messages count from ``first_row``: the header is the first row of a spreadsheet.
    """
    names = [SHORT.get(c.strip(), c.strip()) for c in frame.columns]
    twice = next((n for n in names if names.count(n) > 1), None)
    if twice:
        raise ScenarioError(f"{where}: the header names {twice!r} twice")
    if any("\0" in n for n in names):
        raise ScenarioError(f"{where}: the header has a NUL, a sign that no table can show")
    frame = frame.rename(dict(zip(frame.columns, names, strict=True)))
    if not frame.height:
        raise ScenarioError(f"{where}: has no row below its header")
    known = scenario_columns(tables)
    found = {c: _typed(frame[c], known[c], where, first_row) if c in known else frame[c] for c in frame.columns}
    return _with_workloads(tables, pl.DataFrame(found), where, first_row)


def _typed(values: pl.Series, rule: Mapping[str, object], where: str, first_row: int) -> pl.Series:
    texts = values.cast(pl.String).str.strip_chars().replace("", None)
    if rule["dtype"] != "number":
        return texts
    numbers = values.cast(pl.Float64) if values.dtype.is_numeric() else texts.cast(pl.Float64, strict=False)
    wrong = (texts.is_not_null() & (numbers.is_null() | numbers.is_nan())).arg_true()
    if wrong.len():
        nth = wrong[0] + first_row
        raise ScenarioError(f"{where}, row {nth}, {values.name}: {texts[int(wrong[0])]!r} is not a number")
    return numbers


def _with_workloads(tables: Tables, frame: pl.DataFrame, where: str, first_row: int) -> pl.DataFrame:
    if WORKLOAD not in frame.columns:
        return frame
    workloads = tables["workloads"]
    ids = workloads[WORKLOAD].to_list()
    named = frame[WORKLOAD].cast(pl.String).str.strip_chars().replace("", None)
    unknown = named.is_not_null() & ~named.is_in(ids)
    if unknown.any():
        at = int(unknown.arg_max() or 0)
        raise ScenarioError(
            f"{where}, row {at + first_row}: unknown workload {named[at]!r}; there are {', '.join(ids)}"
        )
    sizes = [c for c in ("batch", "input_len", "output_len", "cached_len") if c in workloads.columns]
    brought = pl.DataFrame({WORKLOAD: named}).join(workloads, on=WORKLOAD, how="left", maintain_order="left")
    filled = {c: frame[c].fill_null(brought[c]) if c in frame.columns else brought[c] for c in sizes}
    return frame.with_columns(named, **filled)
