"""The facts: ``data/*.csv`` as typed, validated frames.

``data/columns.csv`` is the schema (type, unit, key, range, reference of every column) and ``data/rules.csv`` holds
the rules that span columns, each a sentence with a boolean formula. Loading reports every violation at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import polars as pl

from calc.errors import DataError, closest
from calc.files import read_csv, read_rows
from calc.formula import FormulaError, parse, to_sql

ROOT = Path(__file__).resolve().parent.parent
DTYPES = {"number": pl.Float64, "boolean": pl.Boolean, "text": pl.String}
FORMATS = ("weight_format", "expert_format", "embedding_format", "head_format", "activation_format", "kv_format")
"""What a precision names, and a scenario may name itself."""
DICTIONARY = "columns"
NEEDED = {"models": None, "hardware": None, "workloads": "defaults", "precisions": "w16a16kv16"}
"""Tables without which there is no question, and the row that says what an absent scenario column means."""
_BOOLEANS = {"true": True, "false": False, "": False}


@dataclass(frozen=True)
class Tables:
    """Every table of one data folder: name → frame, in the columns and types of the dictionary."""

    folder: Path
    frames: dict[str, pl.DataFrame]
    dictionary: pl.DataFrame

    def __getitem__(self, table: str) -> pl.DataFrame:
        """Return one table; raises KeyError where there is none of that name."""
        return self.frames[table]

    def columns(self, table: str) -> list[dict[str, object]]:
        """Return the dictionary's rows of one table, view or result, in order."""
        return list(_by_table(self).get(table, []))

    def __hash__(self) -> int:
        """Hash by identity: tables never change once loaded."""
        return id(self)

    def __eq__(self, other: object) -> bool:
        """Compare by identity."""
        return self is other

    def extended(self, table: str, rows: pl.DataFrame | None, where: str = "", first_line: int = 1) -> Tables:
        """Return these tables with a caller's own rows in one of them, checked like a file.

        A row whose key is already there, in whatever case, replaces the one that came with the product, whose aliases
        it takes over where it has none. Columns that the caller leaves out are empty; a missing required one raises
        DataError. Messages call the rows ``where`` and number them from ``first_line``.
        """
        if rows is None:
            return self
        where = where or f"{table} (your rows)"
        schema = self.columns(table)
        known = {str(c["column_name"]) for c in schema}
        violations = [
            f"{where}: column {name!r} is not in data/columns.csv{closest(name, known)}"
            for name in rows.columns
            if name not in known
        ]
        single = [c for c in rows.columns if not (rows[c].dtype.is_nested() or rows[c].dtype in (pl.Binary, pl.Object))]
        violations += [f"{where}, column {c}: holds more than one value a row" for c in rows.columns if c not in single]
        text = rows.select(
            (pl.col(c).cast(pl.String).str.to_lowercase() if rows[c].dtype == pl.Boolean else pl.col(c).cast(pl.String))
            for c in single
            if c in known
        )
        frame = _typed(text, schema, where, violations, first_line)
        _check_keys(frame, schema, where, violations, first_line)
        if violations:
            raise DataError(violations)
        keys = [pl.col(str(c["column_name"])).cast(pl.String).str.to_lowercase() for c in schema if c["is_key"]]
        kept = self.frames[table].join(frame, on=keys, how="anti", maintain_order="left")
        if "aliases" in known:
            frame = frame.join(self.frames[table].select(*keys, before="aliases"), on=keys, how="left")
            frame = frame.with_columns(pl.coalesce("aliases", "before").alias("aliases")).select(kept.columns)
        merged = {**self.frames, table: pl.concat([kept, frame])}

        def place(_: str, index: int) -> str:
            return f"{where}, row {index - kept.height + first_line}"

        _check_references(self.dictionary, {table: merged[table]}, merged, violations, place)
        _check_rules(merged, {table}, violations, place)
        _check_aliases({table: merged[table]}, violations, place)
        if violations:
            raise DataError(violations)
        return replace(self, frames=merged)


@lru_cache(maxsize=64)
def _by_table(tables: Tables) -> dict[str, list[dict[str, object]]]:
    found: dict[str, list[dict[str, object]]] = {}
    for row in tables.dictionary.iter_rows(named=True):
        found.setdefault(row["table_name"], []).append(row)
    return found


def data_folder(data: str | os.PathLike[str] | None = None) -> Path:
    """Return the data folder: the one given, else the environment's CALC_DATA, else the product's own."""
    return Path(data or os.environ.get("CALC_DATA") or ROOT / "data")


def load(data: str | os.PathLike[str] | None = None) -> Tables:
    """Return every table of a data folder, validated; raises DataError with all violations together.

    A folder is read again only after one of its files has changed.
    """
    folder = data_folder(data).resolve()
    tables = _load(folder, _stamp(folder))
    own = os.environ.get("CALC_MODELS")
    return _with_models(tables, Path(own), _changed(Path(own))) if own else tables


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


@lru_cache(maxsize=16)
def _with_models(tables: Tables, path: Path, _stamp: object) -> Tables:
    return tables.extended("models", read_rows(path), path.name, 2 if path.suffix.lower() == ".csv" else 1)


def _stamp(folder: Path) -> tuple[tuple[str, int, int], ...]:
    try:
        found = [(entry.name, entry.stat()) for entry in os.scandir(folder) if entry.name.endswith(".csv")]
    except OSError as error:
        raise DataError(
            [f"{folder}: cannot be read ({error.strerror}); give a folder that holds the tables"]
        ) from error
    return tuple(sorted((name, stat.st_mtime_ns, stat.st_size) for name, stat in found))


@lru_cache(maxsize=16)
def _load(folder: Path, _stamp: object) -> Tables:
    violations: list[str] = []
    dictionary = _dictionary(folder, violations)
    if violations:
        raise DataError(violations)
    frames: dict[str, pl.DataFrame] = {DICTIONARY: dictionary}
    wanted = set(NEEDED) | {"formats", "sources", "techniques", "parameters", "patches", "rules"}
    for (table,), rows in dictionary.filter(pl.col("is_file")).group_by(["table_name"], maintain_order=True):
        if table == DICTIONARY:
            continue
        wanted.discard(str(table))
        where = f"{table}.csv"
        raw = read_csv(folder / where, violations)
        if raw is None:
            continue
        schema = rows.to_dicts()
        if not _check_header(raw, schema, where, violations):
            continue
        frame = _typed(raw, schema, where, violations)
        _check_keys(frame, schema, where, violations)
        frames[str(table)] = frame
    violations += [f"columns.csv: describes no file {t!r}" for t in sorted(wanted)]
    if not violations:
        for table, row in NEEDED.items():
            keys = frames[table].to_series(0).to_list()
            if not keys or (row and row not in keys):
                violations.append(f"{table}.csv: needs {f'a row {row!r}' if row else 'at least one row'}")
        _check_parameters(frames, dictionary, violations)
        _check_references(dictionary, frames, frames, violations)
        _check_rules(frames, set(frames), violations)
        _check_aliases(frames, violations)
    if violations:
        raise DataError(violations)
    return Tables(folder, frames, dictionary)


def _dictionary(folder: Path, violations: list[str]) -> pl.DataFrame:
    raw = read_csv(folder / f"{DICTIONARY}.csv", violations)
    wanted = {
        "table_name": "text", "column_name": "text", "is_file": "boolean", "dtype": "text", "unit": "text",
        "is_key": "boolean", "is_required": "boolean", "is_integer": "boolean", "minimum": "number",
        "maximum": "number", "refers_to": "text", "label": "text", "description": "text",
    }  # fmt: skip
    if raw is None:
        return pl.DataFrame()
    schema: list[dict[str, object]] = [
        {"column_name": n, "dtype": t, "is_required": n in ("table_name", "column_name", "dtype", "label"),
         "is_integer": False, "minimum": None, "maximum": None, "is_key": False}
        for n, t in wanted.items()
    ]  # fmt: skip
    if not _check_header(raw, schema, f"{DICTIONARY}.csv", violations):
        return pl.DataFrame()
    frame = _typed(raw, schema, f"{DICTIONARY}.csv", violations)
    _check_keys(
        frame, [{"column_name": c, "is_key": True} for c in ("table_name", "column_name")], "columns.csv", violations
    )
    for line, row in enumerate(frame.iter_rows(named=True), start=2):
        if row["dtype"] not in DTYPES:
            violations.append(f"columns.csv, row {line}, column dtype: {row['dtype']!r} is none of {', '.join(DTYPES)}")
        table, _, column = (row["refers_to"] or "").partition(".")
        if table and frame.filter((pl.col("table_name") == table) & (pl.col("column_name") == column)).is_empty():
            violations.append(f"columns.csv, row {line}, column refers_to: there is no {row['refers_to']!r}")
    return frame


def _check_header(raw: pl.DataFrame, schema: list[dict[str, object]], where: str, violations: list[str]) -> bool:
    wanted = [str(c["column_name"]) for c in schema]
    missing = [c for c in wanted if c not in raw.columns]
    extra = [c for c in raw.columns if c not in wanted]
    violations += [f"{where}: column {c!r} is missing" for c in missing]
    violations += [f"{where}: column {c!r} is not in data/columns.csv{closest(c, wanted)}" for c in extra]
    return not missing and not extra


def _typed(
    raw: pl.DataFrame, schema: list[dict[str, object]], where: str, violations: list[str], lines_start: int = 2
) -> pl.DataFrame:
    out: dict[str, pl.Series] = {}
    for column in schema:
        label = str(column["column_name"])
        texts = raw[label].to_list() if label in raw.columns else [None] * raw.height
        dtype = str(column["dtype"])
        values: list[object] = []
        for line, text in enumerate(texts, start=lines_start):
            value, problem = _value((text or "").strip(), column, dtype)
            if problem:
                violations.append(f"{where}, row {line}, column {label}: {text!r} {problem}")
            values.append(value)
        out[label] = pl.Series(label, values, dtype=DTYPES.get(dtype, pl.String))
    return pl.DataFrame(out)


def _value(text: str, column: dict[str, object], dtype: str) -> tuple[object, str | None]:
    if not text and column["is_required"] and dtype != "boolean":
        return None, "is empty, but required"
    if dtype == "boolean":
        value = _BOOLEANS.get(text.lower())
        return value, None if value is not None else "is not true or false"
    if dtype == "text" or not text:
        return text or None, None
    try:
        number = float(text)
    except ValueError:
        return None, "is not a number"
    if number != number or number in (float("inf"), float("-inf")):
        return None, "is not a finite number"
    if column["is_integer"] and number != int(number):
        return None, "is not a whole number"
    low, high = column["minimum"], column["maximum"]
    if low is not None and number < float(str(low)):
        return None, f"is below {low:g}"
    if high is not None and number > float(str(high)):
        return None, f"is above {high:g}"
    return number, None


def _check_keys(
    frame: pl.DataFrame, schema: list[dict[str, object]], where: str, violations: list[str], lines_start: int = 2
) -> None:
    keys = [str(c["column_name"]) for c in schema if c["is_key"]]
    if not keys or frame.is_empty():
        return
    seen: dict[tuple[object, ...], int] = {}
    for line, row in enumerate(frame.select(keys).iter_rows(), start=lines_start):
        for value in row:
            if str(value) != str(value).strip() or not str(value).isprintable():
                violations.append(
                    f"{where}, row {line}, column {', '.join(keys)}: {value!r} has space around it, or a sign that "
                    "cannot be printed"
                )
        folded = tuple(str(v).lower() for v in row)
        if folded in seen:
            violations.append(
                f"{where}, row {line}, column {', '.join(keys)}: {'.'.join(map(str, row))!r} is already in row "
                f"{seen[folded]}"
            )
        seen.setdefault(folded, line)


def _in_file(table: str, index: int) -> str:
    return f"{table}.csv, row {index + 2}"


def _check_references(
    dictionary: pl.DataFrame,
    checked: dict[str, pl.DataFrame],
    frames: dict[str, pl.DataFrame],
    violations: list[str],
    place: Callable[[str, int], str] = _in_file,
) -> None:
    for row in dictionary.filter(pl.col("refers_to").is_not_null() & pl.col("is_file")).iter_rows(named=True):
        table, column = row["table_name"], row["column_name"]
        target, _, key = row["refers_to"].partition(".")
        if table not in checked or target not in frames:
            continue
        known = set(frames[target][key].to_list())
        for index, value in enumerate(checked[table][column].to_list()):
            if value is not None and value not in known:
                violations.append(
                    f"{place(table, index)}, column {column}: {value!r} is not in {target}.csv{closest(value, known)}"
                )


def _check_rules(
    frames: dict[str, pl.DataFrame],
    checked: set[str],
    violations: list[str],
    place: Callable[[str, int], str] = _in_file,
) -> None:
    for line, rule in enumerate(frames["rules"].iter_rows(named=True), start=2):
        table = rule["table_name"]
        if table not in checked or table not in frames:
            continue
        try:
            kept = frames[table].select(pl.sql_expr(to_sql(parse(rule["formula"]))).alias("kept"))["kept"]
        except (FormulaError, pl.exceptions.PolarsError) as error:
            violations.append(f"rules.csv, row {line}, column formula: {rule['formula']!r}: {error}")
            continue
        if kept.dtype != pl.Boolean:
            violations.append(f"rules.csv, row {line}, column formula: {rule['formula']!r} is not true or false")
            continue
        columns = [c for c in frames[table].columns if c in rule["formula"]]
        for index in (kept == False).arg_true().to_list():  # noqa: E712
            values = ", ".join(f"{c} {frames[table][c][index]}" for c in columns)
            violations.append(f"{place(table, index)}: {rule['rule']}; here {values}")


def _check_parameters(frames: dict[str, pl.DataFrame], dictionary: pl.DataFrame, violations: list[str]) -> None:
    """Find parameters that bear the name of another input: they would change what it means."""
    inputs = dictionary.filter(pl.col("table_name").is_in(["scenarios", "models", "hardware", "formats"]))
    taken = dict.fromkeys(inputs["column_name"], "another input")
    for line, name in enumerate(frames["parameters"]["parameter"].to_list(), start=2):
        if name in taken:
            violations.append(f"parameters.csv, row {line}, column parameter: {name!r} is {taken[name]} already")
        taken.setdefault(name, "a parameter")


def _check_aliases(
    frames: dict[str, pl.DataFrame], violations: list[str], place: Callable[[str, int], str] = _in_file
) -> None:
    for table, key in (("models", "model_id"), ("hardware", "hardware_id")):
        seen: dict[str, str] = {}
        rows = frames[table].select(key, "aliases").iter_rows() if table in frames else ()
        for index, row in enumerate(rows):
            for spelled in spellings(*row):
                if seen.setdefault(spelled, row[0]) != row[0]:
                    column = key if spelled in spellings(row[0], None) else "aliases"
                    violations.append(
                        f"{place(table, index)}, column {column}: {spelled!r} already means {seen[spelled]}"
                    )


def spellings(identifier: str, aliases: str | None) -> list[str]:
    """Return every spelling of an id, lower-case: the id and its aliases (separated by |)."""
    return [s.strip().lower() for s in [identifier, *(aliases or "").split("|")] if s.strip()]
