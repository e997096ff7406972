"""What commands give: tables for people on the terminal, and files."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from calc.errors import CalcError

if TYPE_CHECKING:
    import polars as pl

WRITERS = (".csv", ".parquet", ".json", ".xlsx")


def print_frame(
    frame: pl.DataFrame, units: Mapping[str, str] | None = None, digits: int = 4, exact: Sequence[str] = ()
) -> None:
    """Print a frame as a table for people: numbers scaled with their units, unknown as —."""
    import polars as pl

    from calc.display import quantity

    units = units or {}
    if frame.is_empty() or not frame.columns:
        print(" ".join(frame.columns) or "(nothing)")
        return

    def shown(column: pl.Series) -> list[str]:
        if column.name in exact:
            return ["—" if v is None else f"{v:,.0f}" for v in column]
        if not column.dtype.is_numeric():
            return [quantity(v) for v in column]
        return [quantity(v, units.get(column.name, ""), digits) for v in column]

    texts = pl.DataFrame({c.name: shown(c) for c in frame})
    numbers = [c.name for c in frame if c.dtype.is_numeric()]
    with pl.Config(
        tbl_rows=-1, tbl_cols=-1, tbl_width_chars=1000, fmt_str_lengths=200, tbl_hide_dataframe_shape=True,
        tbl_hide_column_data_types=True, tbl_formatting="NOTHING", tbl_cell_numeric_alignment="RIGHT",
    ):  # fmt: skip
        widths = {c: max([len(c), *(len(t) for t in texts[c])]) for c in texts.columns}
        aligned = texts.select(pl.col(c).str.pad_start(widths[c]) if c in numbers else pl.col(c) for c in texts.columns)
        print(aligned.rename({c: c.rjust(widths[c]) if c in numbers else c for c in aligned.columns}))


def writable(target: str | None, endings: Sequence[str]) -> None:
    """Raise CalcError where a file cannot be written in the format of its ending."""
    if target is None:
        return
    path = Path(target)
    if len(path.name) > 200:
        raise CalcError(f"{target[:60]}…: the file name is too long")
    if path.suffix.lower() not in endings:
        raise CalcError(f"{target}: cannot write {path.suffix or 'a file without an ending'}; use {', '.join(endings)}")
    if not path.parent.is_dir():
        raise CalcError(f"{target}: the folder {path.parent} does not exist")
    if path.is_dir():
        raise CalcError(f"{target}: is a folder")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise CalcError(f"{target}: cannot be written (Permission denied)")


@contextmanager
def aside(target: str) -> Iterator[str]:
    """Give a path beside a file to write to, which takes its place in the end: a file appears whole or not at all."""
    path = Path(target).resolve()
    part = path.with_name(f".{path.name}.part")
    try:
        yield str(part)
        part.replace(path)
    except OSError as error:
        raise CalcError(f"{target}: cannot be written ({error.strerror or error})") from error
    finally:
        part.unlink(missing_ok=True)


def write(frame: pl.DataFrame, target: str, sheet: str = "exact", is_answer: bool = True) -> None:
    """Write a frame to a file in the format of its ending.

    An answer says what its columns mean, their units, and which version of formulas and facts gave them: Parquet in its
    metadata, CSV in a Frictionless resource beside it (``answers.csv``, ``answers.resource.json``).
    """
    import polars as pl

    from calc.described import metadata, resource
    from calc.tables import load
    from calc.workbook.tables import write_table

    ending = Path(target).suffix.lower()
    try:
        with aside(target) as part:
            if ending == ".csv":
                frame.write_csv(part)
            elif ending == ".xlsx":
                write_table(load(), frame, part)
            elif ending == ".parquet":
                frame.write_parquet(part, metadata=metadata(load(), frame.columns, sheet) if is_answer else None)
            else:
                frame.write_json(part)
        if ending == ".csv" and is_answer:
            path = Path(target)
            told = json.dumps(resource(load(), frame, path, sheet), indent=1, ensure_ascii=False)
            write_text(str(path.with_name(f"{path.stem}.resource.json")), told)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        reason = str(error).splitlines()[0]
        raise CalcError(f"{target}: a column has a type that {ending} cannot hold ({reason})") from error


def replace_table(place: Path, frame: pl.DataFrame) -> None:
    """Write a table of the data folder whole, as its files are written, or leave it as it was.

    Raises CalcError where it cannot be written.
    """
    from calc.files import csv_text

    with aside(str(place)) as part, Path(part).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(frame.columns)
        writer.writerows([csv_text(v) for v in row] for row in frame.iter_rows())


def write_text(target: str, text: str) -> None:
    """Write a text to a file."""
    try:
        Path(target).write_text(text, encoding="utf-8")
    except OSError as error:
        raise CalcError(f"{target}: cannot be written ({error.strerror or error})") from error
