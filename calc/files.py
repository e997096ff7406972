"""Files that people give: tables of text from CSV, rows of a user's own, JSON that cannot hurt."""

from __future__ import annotations

import csv
import io
import json
import re
import stat
from pathlib import Path

import polars as pl

from calc.errors import DataError


def read_bytes(path: Path, largest: int | None = None) -> bytes:
    """Return a regular file's content; raises OSError for what is none, or has more than ``largest`` bytes."""
    status = path.stat()
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise OSError(None, "is no regular file")
    if largest is not None and status.st_size > largest:
        raise OSError(None, f"has {status.st_size:,} bytes, more than such a file can have")
    return path.read_bytes()


def read_given(path: Path, largest: int) -> bytes:
    """Return the content of a file that a user names; raises DataError for what cannot be read."""
    try:
        return read_bytes(path, largest)
    except OSError as error:
        raise DataError([f"{path.name or path}: cannot be read ({error.strerror or error})"]) from error


def read_csv(path: Path, violations: list[str], folder: str = "") -> pl.DataFrame | None:
    """Return a CSV's fields as text, or None after noting why it cannot be read; messages name ``folder`` too."""
    where = f"{folder}{path.name}"
    try:
        content = read_bytes(path)
    except OSError as error:
        violations.append(f"{where}: cannot be read ({error.strerror})")
        return None
    problem = None
    if content.startswith(b"\xef\xbb\xbf"):
        problem = "starts with a byte-order mark; save it as UTF-8 without BOM"
    elif b"\r" in content:
        problem = "has Windows line ends (CRLF); save it with LF line ends"
    if problem is not None:
        violations.append(f"{where}: {problem}")
        return None
    try:
        return parse_csv(content, where)
    except DataError as error:
        violations += error.violations
        return None


def parse_csv(content: bytes, where: str, between: str = ",") -> pl.DataFrame:
    """Return the fields of a CSV as text, as any spreadsheet program saves one; raises DataError, which names it.

    ``between`` is what separates fields.
    """
    try:
        text = content.decode("utf-8-sig")
        if not text.strip():
            raise DataError([f"{where}: is empty; it needs at least its header row"])
        header, *body = csv.reader(io.StringIO(text, newline=""), delimiter=between, strict=True)
    except UnicodeDecodeError as error:
        raise DataError([f"{where}: is not UTF-8 at byte {error.start}; save it as UTF-8"]) from error
    except csv.Error as error:
        raise DataError([f"{where}: is not a CSV file: {error}"]) from error
    if between == "," and len(header) == 1 and (";" in header[0] or "\t" in header[0]):
        raise DataError([f"{where}: its header is one field, {header[0]!r}; save it with commas between the fields"])
    for line, row in enumerate(body, start=2):
        if len(row) != len(header):
            raise DataError([f"{where}, row {line}: has {len(row)} fields, the header has {len(header)}"])
    if len(set(header)) < len(header):
        raise DataError([f"{where}: the header names a column twice"])
    return pl.DataFrame(body, schema=dict.fromkeys(header, pl.String), orient="row")


def csv_text(value: object) -> str:
    """Return a value as a file of the data folder holds it: whole numbers without a point, unknown empty."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def read_rows(path: Path) -> pl.DataFrame:
    """Return a user's rows from a .csv, .json or .parquet file; raises DataError for a file that has none."""
    ending = path.suffix.lower()
    violations: list[str] = []
    frame: pl.DataFrame | None = None
    try:
        if ending == ".csv":
            frame = read_csv(path, violations)
        elif ending == ".json":
            found = read_json(read_bytes(path))
            listed = found if isinstance(found, list) else [found]
            if not listed or not all(isinstance(row, dict) and row for row in listed):
                raise ValueError("it holds no rows: an object each, or a list of them")
            frame = pl.DataFrame(listed, infer_schema_length=None)
        elif ending == ".parquet":
            frame = pl.read_parquet(io.BytesIO(read_bytes(path)))
        else:
            violations.append(f"{path.name}: cannot be read; use .csv, .json or .parquet")
    except (OSError, ValueError, TypeError, pl.exceptions.PolarsError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        violations.append(f"{path.name}: cannot be read ({reason})")
    if violations or frame is None:
        raise DataError(violations or [f"{path.name}: has no rows"])
    return frame


def read_json(content: bytes) -> object:
    """Return what a JSON text holds; a number of many digits becomes a float. Raises ValueError for what is none."""
    try:
        text = content.decode("utf-8-sig")
        found = json.loads(text, parse_int=lambda digits: int(digits) if len(digits) < 18 else float(digits))
        # a lone surrogate can be escaped in JSON, but is no character that could be printed
        if re.search(r"\\u[dD][89a-fA-F]", text):
            json.dumps(found, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 at byte {error.start}") from error
    except UnicodeEncodeError as error:
        raise ValueError("holds half a character, an unpaired surrogate") from error
    except RecursionError as error:
        raise ValueError("nests too deeply") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error}") from error
    return found
