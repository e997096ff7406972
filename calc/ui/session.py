"""What a session changes of the data: a folder of its own, which goes when the session does.

An edit makes a changed copy of the folder in force and loads it; only one that keeps every rule takes its place, so
what the session computes with is always whole. Reloading the page starts a new session, with the product's own data.
"""

from __future__ import annotations

import csv
import shutil
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import polars as pl
import streamlit as st

from calc.catalogue import model_row
from calc.errors import CalcError
from calc.files import csv_text, parse_csv
from calc.tables import Tables, data_folder, load

FOLDER, EDITS = "data_folder", "edits"
"""Where the session keeps its folder and what was changed in it."""
MOST_BYTES, MOST_ROWS = 2_000_000, 5_000
"""Of an uploaded table."""


def folder() -> Path:
    """Return the data folder that this session asks."""
    own = st.session_state.get(FOLDER)
    return Path(own.name) if own else _resolved(data_folder())


@lru_cache(maxsize=8)
def _resolved(path: Path) -> Path:
    return path.resolve()


def tables() -> Tables:
    """Return the tables that this session asks; raises DataError."""
    return load(folder())


def edits() -> list[str]:
    """Return what this session has changed, a sentence each."""
    return list(st.session_state.get(EDITS, []))


def reset() -> None:
    """Go back to the product's own data."""
    st.session_state.pop(FOLDER, None)
    st.session_state.pop(EDITS, None)


def change_table(table: str, frame: pl.DataFrame, told: str) -> None:
    """Put a frame of a table's columns in its place; raises DataError with every rule that it breaks."""
    _change(lambda new: write_csv(frame, new / f"{table}.csv"), told)


def change_cells(sheet: str, file: str, frame: pl.DataFrame, told: str) -> None:
    """Put a file of a sheet in its place; raises DataError with what is wrong with its formulas."""

    def write(new: Path) -> None:
        write_csv(frame, new / "sheets" / sheet / f"{file}.csv")

    _change(write, told, sheet)


def _change(write: Callable[[Path], None], told: str, sheet: str | None = None) -> None:
    new = tempfile.TemporaryDirectory(prefix="calc-session-")
    shutil.copytree(folder(), new.name, dirs_exist_ok=True)
    write(Path(new.name))
    changed = load(new.name)
    if sheet:
        from calc.check import check_sheet

        check_sheet(changed, sheet)
    st.session_state[FOLDER] = new
    st.session_state.setdefault(EDITS, []).append(told)


def write_csv(frame: pl.DataFrame, path: Path) -> None:
    """Write a table as the data folder's files are: numbers without rounding, unknown left empty."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(frame.columns)
        writer.writerows([csv_text(v) for v in row] for row in frame.iter_rows())


def read_upload(content: bytes, name: str) -> pl.DataFrame:
    """Return an uploaded CSV as text; raises CalcError for one that is none, or is larger than a table is."""
    if len(content) > MOST_BYTES:
        raise CalcError(f"{name}: has {len(content):,} bytes; a table may have {MOST_BYTES:,}")
    rows = parse_csv(content, name)
    if rows.height > MOST_ROWS:
        raise CalcError(f"{name}: has {rows.height:,} rows; a table may have {MOST_ROWS:,}")
    return rows


def add_rows(table: str, rows: pl.DataFrame, name: str) -> None:
    """Add rows to a table, or put them in the place of those of the same key; raises DataError."""
    extended = tables().extended(table, rows, name, 2)
    change_table(table, extended[table], f"{table}: {rows.height} rows from {name}")


def import_model(content: bytes, name: str) -> tuple[str, list[str]]:
    """Make a configuration a row of this session's models; return its name and what to tell; raises CalcError."""
    from calc.importers import model_name, parse_config
    from calc.importers.config import import_config

    known = tables()
    config = parse_config(content, name)
    imported = import_config(known, config, model_name(config, name), "user")
    model_id = str(imported.row["model_id"])
    text = {k: [None if v is None else str(v)] for k, v in imported.row.items()}
    add_rows("models", pl.DataFrame(text, schema=dict.fromkeys(text, pl.String)), name)
    told = [f"{model_row(tables(), model_id)['n_parameters']:,.0f} parameters"]
    if imported.assumed:
        assumed = ", ".join(f"{k} {v}" for k, v in imported.assumed.items())
        told.append(f"Assumed, as the model type's class does: {assumed}")
    if imported.precision:
        told.append(f"Its checkpoint is {imported.precision}: choose that precision to see it as it is stored")
    return model_id, told + imported.warnings
