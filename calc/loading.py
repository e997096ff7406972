"""The sheets of a data folder: read, patched by a stack of techniques, and checked for structure."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import polars as pl

from calc.errors import CalcError, DataError, closest
from calc.files import read_csv
from calc.inputs import inputs_of
from calc.patches import INPUTS, KEYS, Row, apply, apply_to_question, stack
from calc.sheet import AXES, QUANTITIES, REPLACED, SPANS, Sheet
from calc.tables import Tables

CELL_FIELDS = ("formula", "unit", "label", "note", "source_id")
FIELDS = {
    "constants": ("name", "value", "unit", "label", "note", "source_id"),
    "parts": ("part", "block", "tower", "place", "count", "stored", *SPANS, "applies", "label", "note", "source_id"),
    "bindings": ("part", "cell", "formula", "note", "source_id"),
    "operators": ("block", "operator", "kind", *AXES, "split", "inputs", "applies", "label", "note", "source_id"),
    "kinds": ("kind", "class", "runs_on", "exchange", *QUANTITIES, "label", "note", "source_id"),
}
UNITS = ("matrix", "vector", "both", "network")
"""What a kind may run on."""
CLASSES = (
    "linear", "expert", "router", "embedding", "position", "head", "norm", "attention", "state", "elementwise",
    "collective", "adapter",
)  # fmt: skip
"""What a kind may be: its class picks the format of its weights and of its cache."""
EXCHANGES = ("none", "sum", "gather", "dispatch", "combine", "send", "pass", "merge")
"""What a kind may do with other devices."""
TOWERS = ("text", "vision", "mtp")
"""What a part belongs to: parameters of each are counted apart."""
PLACES = ("first", "layers", "last")
"""Where a part stands in a pipeline: on its first rank, dealt out to all, or on its last."""


def sheet_names(tables: Tables) -> list[str]:
    """Return the names of the sheets in a data folder, ``exact`` first."""
    try:
        found = sorted(p.name for p in (tables.folder / "sheets").iterdir() if p.is_dir())
    except OSError as error:
        raise DataError([f"sheets: cannot be read ({error.strerror})"]) from error
    odd = [f"sheets/{n}: the name must be lower-case snake_case" for n in found if not n.isidentifier()]
    if odd or "exact" not in found:
        raise DataError(odd or ["sheets: there is no sheet 'exact'"])
    return sorted(found, key=lambda n: n != "exact")


def load_sheet(tables: Tables, title: str = "exact", techniques: tuple[str, ...] = ()) -> Sheet:
    """Return a sheet with a stack of techniques applied in order.

    Raises SheetError for a cell that cannot be, ScenarioError-like CalcError for an unknown sheet or technique.
    """
    folder = tables.folder / "sheets" / title
    if not title or not folder.is_dir():
        known = sheet_names(tables)
        raise CalcError(f"unknown sheet {title!r}{closest(title, known)}; there are {', '.join(known)}")
    stamp = tuple((p.name, p.stat().st_mtime_ns) for p in sorted(folder.glob("*.csv")))
    return _load_sheet(tables, title, techniques, stamp)


@lru_cache(maxsize=256)
def _load_sheet(tables: Tables, title: str, techniques: tuple[str, ...], stamp: object) -> Sheet:
    read = _read_rows(tables.folder / "sheets" / title, stamp)
    rows = {f: list(found) for f, found in read.items()}
    techniques = stack(tables, techniques)
    apply(tables, title, rows, techniques)
    found = Sheet(title, rows, inputs_of(tables, techniques))
    if not techniques:
        _check_structure(title, rows, rows)
        return found
    plain = _load_sheet(tables, title, (), stamp)
    if not _changes_cells(tables, title, techniques):
        found.compiled_as = plain
        return found
    known = {id(r) for every in read.values() for r in every}
    _check_structure(title, rows, {f: [r for r in every if id(r) not in known] for f, every in rows.items()})
    if not _changes_conditions(tables, plain, techniques):
        found.shaped_as = plain
    return found


@lru_cache(maxsize=64)
def load_companion_sheet(tables: Tables, title: str, techniques: tuple[str, ...], own: str) -> Sheet:
    """Return the sheet for a further model that one technique of a stack asks.

    It is asked what the others make of the question and of the device: a larger batch, a longer prompt, a faster
    memory. What they change of the model is the first model's own.
    """
    plain = load_sheet(tables, title)
    others = tuple(t for t in stack(tables, techniques) if t != own)
    rows = {f: list(found) for f, found in plain.rows.items()}
    about = {str(c["column_name"]) for table in ("scenarios", "hardware") for c in tables.columns(table)}
    apply_to_question(tables, title, rows, others, about - {*REPLACED})
    return Sheet(title, rows, inputs_of(tables, stack(tables, techniques))) if rows[INPUTS] else plain


def _changes_cells(tables: Tables, title: str, techniques: tuple[str, ...]) -> bool:
    """Tell whether a stack changes more than the models and formats that a question names."""
    its = pl.col("technique_id").is_in(techniques) & (pl.col("sheet") == title)
    named = pl.col("file").eq(INPUTS) & pl.col("key").is_in(REPLACED)
    needs = tables["techniques"].filter(pl.col("technique_id").is_in(techniques))["needs"]
    return tables["patches"].filter(its & ~named).height > 0 or needs.null_count() < needs.len()


def _changes_conditions(tables: Tables, plain: Sheet, techniques: tuple[str, ...]) -> bool:
    """Tell whether a stack changes something that decides which operators a model has."""
    decides = plain.decides()
    its = pl.col("technique_id").is_in(techniques) & (pl.col("sheet") == plain.name)
    for file, key, column in tables["patches"].filter(its).select("file", "key", "column").iter_rows():
        first, _, cell = key.partition(".")
        if (file == "parts" and column in ("count", "applies")) or (file == "operators" and column == "applies"):
            return True
        if (file == "stages" and first not in ("*", *plain.stages)) or (cell or first) in decides:
            return True
    return False


@lru_cache(maxsize=32)
def _read_rows(folder: Path, _stamp: object) -> dict[str, list[Row]]:
    violations: list[str] = []
    rows: dict[str, list[Row]] = {}
    for file, keys in KEYS.items():
        frame = read_csv(folder / f"{file}.csv", violations, f"sheets/{folder.name}/")
        if frame is None:
            continue
        wanted = FIELDS.get(file, (*keys, *CELL_FIELDS))
        where = f"sheets/{folder.name}/{file}.csv"
        violations += [f"{where}: column {c!r} is missing" for c in wanted if c not in frame.columns]
        extra = [c for c in frame.columns if c not in wanted]
        violations += [f"{where}: there is no column {c!r}{closest(c, wanted)}" for c in extra]
        rows[file] = [{k: (v or "").strip() for k, v in r.items()} for r in frame.iter_rows(named=True)]
    if violations:
        raise DataError(violations)
    return rows


def _check_structure(title: str, rows: dict[str, list[Row]], new: dict[str, list[Row]]) -> None:
    """Raise DataError with every row that is named twice, refers to nothing or leaves out what must be said.

    Of the rows that are not ``new`` it is known that they say all.
    """
    found: list[str] = []

    def refuse(file: str, row: Row, reason: str) -> None:
        found.append(f"sheets/{title}/{file}.csv, cell {'.'.join(row[k] for k in KEYS[file])}: {reason}")

    def expect(file: str, column: str, known: Iterable[str], what: str) -> None:
        names = list(dict.fromkeys(known))
        for row in rows[file]:
            if row[column] not in names:
                refuse(file, row, f"unknown {what} {row[column]!r}{closest(row[column], names)}")

    for file, keys in KEYS.items():
        seen: set[tuple[str, ...]] = set()
        for row in rows[file]:
            key = tuple(row[k] for k in keys)
            if key in seen:
                refuse(file, row, "is defined twice")
            seen.add(key)
        for row in new[file]:
            if not all(row[k] for k in keys):
                refuse(file, row, f"its {' and '.join(keys)} must not be empty")
            for column in ("formula", "value", "count", "stored", *SPANS, "applies", *AXES, *QUANTITIES):
                if column in row and not row[column]:
                    refuse(file, row, f"its {column} is empty")
    expect("parts", "block", (r["block"] for r in rows["operators"]), "block")
    expect("bindings", "part", (r["part"] for r in rows["parts"]), "part")
    expect("operators", "kind", (r["kind"] for r in rows["kinds"]), "kind")
    expect("kinds", "runs_on", UNITS, "unit")
    expect("kinds", "class", CLASSES, "class")
    expect("kinds", "exchange", EXCHANGES, "exchange")
    expect("parts", "tower", TOWERS, "tower")
    expect("parts", "place", PLACES, "place")
    for row in rows["operators"]:
        pairs = [pair.split("/") for pair in row["split"].split()]
        if any(len(pair) != 2 or pair[0] not in AXES for pair in pairs) or len({p[0] for p in pairs}) < len(pairs):
            refuse("operators", row, f"its split {row['split']!r} is no list of different axes, each as axis/devices")
    empty = ("parts", "operators", "kinds", "roofline", "totals", "serving")
    found += [f"sheets/{title}/{f}.csv: has no row" for f in empty if not rows[f]]
    stages = {r["stage"] for r in rows["stages"]}
    found += [f"sheets/{title}/stages.csv: has no stage {s!r}" for s in ("prefill", "decode") if s not in stages]
    if found:
        raise DataError(found)
