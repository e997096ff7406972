"""What a grid asks: lists and ranges of models, devices and sizes, from a TOML file, a mapping or a frame."""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from calc.calibration.applied import answerable, calibrations_named, is_fitted, with_fitted
from calc.calibration.expected import COLUMN
from calc.errors import CalcError, closest
from calc.expressions import expression
from calc.formula import FormulaError, Node, adds_up, names, parse
from calc.loading import sheet_names
from calc.program import GRAINS
from calc.questions import IDS, SHORT, canonical, scenario_columns, scenarios, stack_of
from calc.results import result_columns
from calc.tables import DTYPES, Tables

KEYS = ("title", "by", "sheet", "columns", "where", "axes")
TABLES = {
    "model_id": "models", "hardware_id": "hardware", "precision": "precisions", "technique": "techniques",
    "workload_id": "workloads",
}  # fmt: skip
"""Axes whose values are rows of a table: they may be ``"all"`` of them, or those for which a condition holds."""
LARGEST = 10**10
"""Questions: so many take a disk of terabytes and hours."""
LONGEST = 10**6
"""Values of one axis."""


@dataclass(frozen=True)
class Spec:
    """A grid: every combination of its axes, or the rows of a frame, for which ``where`` holds.

    ``columns`` are the results that can be asked of it; ``axes`` has the columns in order, ids as the tables spell
    them. Where ``rows`` is a user's frame of scenarios, ``axes`` only has what it names of models, devices and
    techniques.
    """

    title: str
    by: str
    sheet: str
    columns: tuple[str, ...]
    where: Node | None
    axes: dict[str, tuple[object, ...]]
    rows: pl.DataFrame | None = None

    @property
    def n_questions(self) -> int:
        """Return how many questions it asks before ``where`` leaves some out."""
        return self.rows.height if self.rows is not None else math.prod(map(len, self.axes.values()))

    def models(self) -> list[str]:
        """Return the models in order."""
        return [str(m) for m in self.axes["model_id"]]

    def asked(self, tables: Tables) -> dict[str, pl.DataType]:
        """Return the scenario columns of its rows and their types."""
        if self.rows is not None:
            return dict(self.rows.schema)
        first = {c: v[:1] for c, v in self.axes.items()}
        if self.is_calibrated:
            first[COLUMN] = tuple(filter(is_fitted, self.axes[COLUMN]))[:1]
        return dict(answerable(tables, scenarios(tables, **first)).collect_schema())

    @property
    def is_calibrated(self) -> bool:
        """Tell whether some of its questions name a calibration."""
        return any(map(is_fitted, self.axes.get(COLUMN, ())))

    def stacks(self, tables: Tables) -> list[tuple[str, ...]]:
        """Return the techniques that answer its questions, each stack once; calibrations are one of them."""
        asked = self.axes.get("technique", (None,))
        named = [str(t or "") for t in asked]
        if self.rows is None:
            named = [with_fitted(tables, {COLUMN: c}, t) for c in self.axes.get(COLUMN, (None,)) for t in named]
        return list(dict.fromkeys(map(stack_of, named)))

    def described(self) -> dict[str, object]:
        """Return the spec as plain values, the same for equal specs."""
        found: dict[str, object] = {"title": self.title, "by": self.by, "sheet": self.sheet}
        found |= {"columns": list(self.columns), "where": str(self.where) if self.where else None}
        found["axes"] = {c: list(v) for c, v in self.axes.items()}
        if self.rows is not None:
            found["schema"] = {c: _kind(t) for c, t in self.rows.schema.items()}
        return found


def load_spec(tables: Tables, source: object) -> Spec:
    """Return the spec of a TOML file (or the name of one in ``data/grids``), of a mapping, or of a frame of scenarios.

    Raises CalcError for what no grid can be: unknown keys, columns or ids, empty lists, a condition that is none, more
    questions than a disk holds.
    """
    if isinstance(source, Spec):
        return source
    if isinstance(source, pl.DataFrame | pl.LazyFrame):
        return _of_frame(tables, source.lazy().collect())
    if isinstance(source, Mapping):
        return _of_mapping(tables, source, "the spec")
    if isinstance(source, str | os.PathLike):
        path = _path(tables, source)
        try:
            return _of_mapping(tables, tomllib.loads(path.read_text(encoding="utf-8")), str(source))
        except tomllib.TOMLDecodeError as error:
            raise CalcError(f"{source}: is not TOML: {error}") from error
        except (OSError, UnicodeDecodeError) as error:
            raise CalcError(f"{source}: cannot be read ({error})") from error
    raise CalcError(f"a spec is a file, a mapping or a frame, not {type(source).__name__}")


def described_spec(tables: Tables, given: Mapping[str, Any], where: str) -> Spec:
    """Return the spec that a manifest describes; a grid of a frame has its columns without rows."""
    if "schema" in given:
        rows = pl.DataFrame(schema={c: DTYPES[t] for c, t in given["schema"].items()})
        axes = {c: tuple(v) for c, v in given["axes"].items()}
        return Spec(given["title"], given["by"], given["sheet"], tuple(given["columns"]), None, axes, rows)
    return _of_mapping(tables, {k: v for k, v in given.items() if v is not None}, where)


def _kind(dtype: pl.DataType) -> str:
    return "boolean" if dtype == pl.Boolean else "number" if dtype.is_numeric() else "text"


def _path(tables: Tables, source: str | os.PathLike[str]) -> Path:
    path = Path(source)
    if path.suffix == ".toml" or path.is_file():
        return path
    shipped = sorted(p.stem for p in (tables.folder / "grids").glob("*.toml"))
    if str(source) not in shipped:
        there = f"; there are {', '.join(shipped)}" if shipped else ""
        raise CalcError(f"{str(source)!r} is no file and no grid of data/grids{closest(str(source), shipped)}{there}")
    return tables.folder / "grids" / f"{source}.toml"


def _of_frame(tables: Tables, frame: pl.DataFrame) -> Spec:
    if frame.is_empty():
        raise CalcError("the frame of scenarios has no rows; a grid needs at least one question")
    frame = answerable(tables, frame).lazy().collect()
    for column in IDS:
        if column not in frame.columns:
            raise CalcError(f"the scenarios have no column {column!r}; each row needs a model and a device")
        frame = frame.with_columns(canonical(tables, frame, column).alias(column))
    columns = tuple(result_columns(tables, "serving"))
    named = [c for c in (*IDS, COLUMN, "technique") if c in frame.columns]
    axes = {c: tuple(frame[c].unique(maintain_order=True).to_list()) for c in named}
    return Spec("rows of a frame", "serving", "exact", columns, None, axes, frame)


def _of_mapping(tables: Tables, given: Mapping[str, object], where: str) -> Spec:
    for key in given:
        if key not in KEYS:
            raise CalcError(f"{where}: unknown key {key!r}{closest(key, KEYS)}; there are {', '.join(KEYS)}")
    by, sheet = str(given.get("by", "serving")), str(given.get("sheet", "exact"))
    if by not in GRAINS:
        raise CalcError(f"{where}: unknown grain {by!r} in by{closest(by, GRAINS)}; there are {', '.join(GRAINS)}")
    if sheet not in sheet_names(tables):
        raise CalcError(f"{where}: unknown sheet {sheet!r}; there are {', '.join(sheet_names(tables))}")
    results = result_columns(tables, by)
    columns = _columns(given.get("columns"), results, where)
    axes = _axes(tables, given.get("axes"), where)
    spec = Spec(str(given.get("title", where)), by, sheet, columns, None, axes)
    _check_size(spec, where)
    condition = given.get("where")
    if condition is None:
        return spec
    if not isinstance(condition, str):
        raise CalcError(f'{where}: where is one condition as text, such as where = "tp * 4 <= n_heads"')
    return Spec(spec.title, by, sheet, columns, _condition(tables, spec, condition, f"{where}: where"), axes)


def _columns(given: object, results: Mapping[str, str], where: str) -> tuple[str, ...]:
    if given is None:
        return tuple(results)
    if not isinstance(given, list) or not given:
        raise CalcError(f"{where}: columns is a list of result columns, at least one; leave it out for all")
    for column in given:
        if column not in results:
            raise CalcError(f"{where}: unknown column {column!r} in columns{closest(str(column), results)}")
    return tuple(dict.fromkeys(given))


def _axes(tables: Tables, given: object, where: str) -> dict[str, tuple[object, ...]]:
    if not isinstance(given, Mapping) or not given:
        raise CalcError(f"{where}: has no [axes]; name at least model and hardware")
    known = [*scenario_columns(tables), "workload_id"]
    found: dict[str, tuple[object, ...]] = {}
    for key, values in given.items():
        column = SHORT.get(key, key)
        if column not in known:
            raise CalcError(f"{where}: unknown axis {key!r}{closest(key, [*known, *SHORT])}")
        if column in found:
            raise CalcError(f"{where}: {key} is given twice")
        axis = _values(tables, column, values, f"{where}: {key}")
        if column in IDS:
            axis = canonical(tables, pl.DataFrame({column: list(map(str, axis))}), column).to_list()
        if column == COLUMN:
            calibrations_named(tables, pl.Series(axis, strict=False))
        seen: set[object] = set()
        for value in axis:
            if value in seen:
                raise CalcError(f"{where}: {key} lists {value!r} twice")
            seen.add(value)
        found[column] = tuple(axis)
    for column in IDS:
        if column not in found:
            raise CalcError(
                f"{where}: has no axis {column.removesuffix('_id')!r}; each question needs a model and a device"
            )
    scenarios(tables, **{c: v[:1] for c, v in found.items()})  # two axes that say the same
    return {"model_id": found.pop("model_id"), "hardware_id": found.pop("hardware_id"), **found}


def _values(tables: Tables, column: str, given: object, where: str) -> list[object]:
    if isinstance(given, Mapping):
        return _rows_for(tables, column, given, where) if set(given) == {"where"} else _range(given, where)
    if given == "all":
        return _rows_of(tables, column, where)["id"].to_list()
    listed = list(given) if isinstance(given, list | tuple) else [given]
    if not listed:
        raise CalcError(f"{where}: the list is empty; give at least one value")
    if any(isinstance(v, list | Mapping) for v in listed):
        raise CalcError(f"{where}: a list of plain values, {{from, to, step}} or {{from, to, factor}}")
    # TOML has no null: an empty text is no technique
    return [None if v == "" and column == "technique" else v for v in listed]


def _rows_of(tables: Tables, column: str, where: str) -> pl.DataFrame:
    if column not in TABLES:
        raise CalcError(f"{where}: only {', '.join(TABLES)} are rows of a table; list the values")
    table = tables[TABLES[column]]
    return table.with_columns(pl.first().alias("id"))


def _rows_for(tables: Tables, column: str, given: Mapping[str, object], where: str) -> list[object]:
    rows = _rows_of(tables, column, where)
    condition = _parsed(str(given["where"]), where)
    found = _chosen(rows, condition, where)["id"].to_list()
    if not found:
        raise CalcError(f"{where}: no row of {TABLES[column]}.csv keeps {given['where']!r}")
    return found


def _range(given: Mapping[str, object], where: str) -> list[object]:
    step = "factor" if "factor" in given else "step"
    wanted = {"from", "to", step}
    numbers = [given.get(k) for k in ("from", "to", step)]
    is_told = all(isinstance(n, int | float) and not isinstance(n, bool) and math.isfinite(n) for n in numbers)
    if set(given) != wanted or not is_told:
        raise CalcError(f"{where}: a range is {{from, to, step}} or {{from, to, factor}}, all numbers")
    low, high, by = (float(str(n)) for n in numbers)
    if (by <= 0) if step == "step" else (by <= 1 or low <= 0):
        raise CalcError(f"{where}: never gets from {low:g} to {high:g} by {step} {by:g}")
    if high < low:
        raise CalcError(f"{where}: {high:g} is below {low:g}")
    n = (high - low) / by if step == "step" else math.log(high / low, by)
    if n >= LONGEST:
        raise CalcError(f"{where}: has {n + 1:,.0f} values; an axis has at most {LONGEST:,}")
    values = [low + by * i if step == "step" else low * by**i for i in range(int(n + 1e-9) + 1)]
    return [int(v) if v == int(v) else v for v in values]


def _check_size(spec: Spec, where: str) -> None:
    if spec.n_questions <= LARGEST:
        return
    longest = sorted(spec.axes.items(), key=lambda a: -len(a[1]))
    sizes = ", ".join(f"{c} ({len(v):,} values)" for c, v in longest[:4] if len(v) > 1)
    raise CalcError(
        f"{where}: asks {spec.n_questions:,} questions, at most {LARGEST:,} are possible; "
        f"shorten the longest axes: {sizes}"
    )


def _parsed(text: str, where: str) -> Node:
    if adds_up(text):
        raise CalcError(f"{where}: SUM and MAX are no part of a condition on one question")
    try:
        return parse(text)
    except FormulaError as error:
        raise CalcError(f"{where}: {error} in {text!r}") from error


def _condition(tables: Tables, spec: Spec, text: str, where: str) -> Node:
    """Return a condition on questions: over scenario columns, facts of models and devices, and results."""
    condition = _parsed(text, where)
    known: dict[str, Any] = {
        **condition_inputs(tables, spec),
        **{c: DTYPES[t] for c, t in result_columns(tables, spec.by).items()},
    }
    absent = sorted(names(condition) & scenario_columns(tables).keys() - known.keys())
    if absent:
        raise CalcError(f"{where}: {absent[0]!r} is no axis of this grid, so all of it says the same; add it to [axes]")
    _chosen(pl.DataFrame([pl.Series(c, [], dtype=t) for c, t in known.items()]), condition, where)
    return condition


def condition_inputs(tables: Tables, spec: Spec) -> dict[str, pl.DataType]:
    """Return what a condition on questions may read beside results, and its types."""
    models, devices = (dict(tables[t].schema) for t in IDS.values())
    facts = {c: t for c, t in {**models, **devices}.items() if not (c in models and c in devices)}
    return {**facts, **spec.asked(tables)}


def _chosen(rows: pl.DataFrame, condition: Node, where: str) -> pl.DataFrame:
    for column in names(condition):
        if column not in rows.columns:
            raise CalcError(f"{where}: unknown name {column!r}{closest(column, rows.columns)}")
    try:
        dtype = rows.lazy().select(expression(condition).alias("is_kept")).collect_schema()["is_kept"]
        kept = rows.filter(expression(condition)) if dtype == pl.Boolean else rows
    except pl.exceptions.PolarsError as error:
        raise CalcError(f"{where}: {str(error).splitlines()[0]}") from error
    if dtype != pl.Boolean:
        raise CalcError(f"{where}: {condition} is no condition; it gives a {dtype}, not true or false")
    return kept
