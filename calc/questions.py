"""Questions: a grid of scenarios from lists, and a user's frame made ready for the engines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import polars as pl

from calc.axes import axes_of, configurations_of, grid_run, product
from calc.errors import ScenarioError, closest, closest_names
from calc.tables import FORMATS, Tables, spellings

SHORT = {"model": "model_id", "hardware": "hardware_id", "workload": "workload_id"}
IDS = {"model_id": "models", "hardware_id": "hardware"}
ATTENTIONS = ("flash", "eager")
"""Kinds of attention; the first is what an absent value means."""
UNNAMED = ("embedding_format", "head_format")
"""Formats that may be left unnamed: then the sheet says what they are."""
DEGREES = ("tp", "pp", "ep", "cp")
"""Degrees of parallelism; where one is 1, nothing of it occurs."""
SETUP = (*FORMATS, *DEGREES)
"""What is chosen when a model is deployed, whatever is asked of it then."""
Bound = tuple[tuple[str, object], ...]
"""What every question of a group says alike, so that its program is compiled for it: (input, value)."""
USUAL: Bound = (("attention", ATTENTIONS[0]), *((d, 1.0) for d in DEGREES))
"""What a question says that leaves everything out."""
LIMIT = 1e9
ROW, CONFIGURATION, DEVICE = "__row", "__configuration", "__device"
NTH = "__nth_device"
"""A device's place in a grid."""


@dataclass(frozen=True)
class Questions:
    """What the engines read of a user's scenarios.

    A configuration is all of a question but its device: ``configurations`` has one row each (``__configuration``,
    canonical ids, every default filled in, the formats). A row asks one configuration of one device. Where the
    scenarios are a grid, ``run`` configurations repeat for each of ``devices`` (rows of the device table), block
    after block; else ``places`` says which configuration and device each row asks.
    """

    height: int
    configurations: pl.DataFrame
    devices: list[int]
    run: int
    places: pl.DataFrame | None

    def batches(self, rows: int) -> Iterator[tuple[int, Questions]]:
        """Return the questions in consecutive batches of about so many rows, each with its first row."""
        period = self.run * len(self.devices)
        if self.places is None:
            blocks = max(rows // period, 1)
            for first in range(0, self.height // period, blocks):
                mine = self.configurations.slice(first * self.run, blocks * self.run)
                mine = mine.with_columns(pl.col(CONFIGURATION) - first * self.run)
                height = mine.height * len(self.devices)
                yield first * period, Questions(height, mine, self.devices, self.run, None)
            return
        for first in range(0, self.height, rows):
            places = self.places.slice(first, rows).with_columns(pl.col(ROW) - first)
            mine = self.configurations.join(places, on=CONFIGURATION, how="semi")
            yield first, Questions(places.height, mine, self.devices, self.run, places)

    def groups(self) -> list[tuple[tuple[str, ...], Bound, Questions]]:
        """Return each stack of techniques and kind of attention, with the questions that ask it.

        A degree that none of them asks is bound too: its formulas vanish.
        """
        single = (pl.when((pl.col(d) == 1).all()).then(pl.col(d)).alias(d) for d in DEGREES)
        told = self.configurations.select(CONFIGURATION, "technique", "attention", *single)
        keys = told.columns[1:]
        found: dict[tuple[tuple[str, ...], Bound], list[tuple[object, ...]]] = {}
        for row in told.select(keys).unique(maintain_order=True).rows():
            bound = tuple((k, v) for k, v in zip(keys[1:], row[1:], strict=True) if v is not None)
            found.setdefault((stack_of(row[0]), bound), []).append(row)
        if len(found) == 1:
            return [(*key, self) for key in found]
        numbers = pl.DataFrame(
            [(*row, nth) for nth, rows in enumerate(found.values()) for row in rows],
            schema={**told.select(keys).schema, "__group": pl.UInt32}, orient="row",
        )  # fmt: skip
        nth = told.join(numbers, on=keys, how="left", nulls_equal=True, maintain_order="left")["__group"]
        groups = self.configurations.with_columns(nth).partition_by("__group", as_dict=True, include_key=False)
        return [(*key, replace(self, configurations=groups[(i,)])) for i, key in enumerate(found)]

    def pairs(self) -> pl.LazyFrame:
        """Return one row per question: ``__row``, ``__configuration``, ``__device``."""
        own = self.configurations.lazy().select(CONFIGURATION)
        if self.places is not None:
            return self.places.lazy().join(own, on=CONFIGURATION, how="semi")
        device = pl.LazyFrame(
            {DEVICE: self.devices, NTH: range(len(self.devices))}, schema_overrides={DEVICE: pl.UInt32}
        )
        return own.join(device, how="cross").select(self.row(), CONFIGURATION, DEVICE)

    @property
    def is_grid(self) -> bool:
        """Tell whether every configuration is asked of every device."""
        return self.places is None and self.height == self.configurations.height * len(self.devices)

    @property
    def is_in_order(self) -> bool:
        """Tell whether rows are a grid's: all configurations for the first device, then for the second, and so on."""
        return self.places is None and self.run == self.configurations.height

    def rows(self, configurations: pl.Series) -> pl.Series:
        """Return the row of each question of a grid: configurations as they come, for one device after the other."""
        configuration = configurations.to_numpy().astype(np.int64)
        first = configuration // self.run * (self.run * len(self.devices)) + configuration % self.run
        found = np.arange(len(self.devices))[:, None] * self.run + first
        return pl.Series(ROW, found.reshape(-1).astype(np.uint32))

    def row(self) -> pl.Expr:
        """Return the row of a grid that asks ``__configuration`` of its ``__nth_device``."""
        configuration, period = pl.col(CONFIGURATION).cast(pl.Int64), self.run * len(self.devices)
        row = configuration // self.run * period + pl.col(NTH) * self.run + configuration % self.run
        return row.cast(pl.UInt32).alias(ROW)


def scenarios(tables: Tables, **lists: object) -> pl.LazyFrame:
    """Return a grid of questions: the product of all lists, one column each, the first name varying slowest.

    ``model`` and ``hardware`` stand for ``model_id`` and ``hardware_id``; ``workload`` names rows of
    ``workloads.csv``, whose batch and lengths it brings. A single value is a list of one; None in ``technique`` is
    no technique. Raises ScenarioError for a name that is no scenario column.
    """
    known = scenario_columns(tables)
    axes: list[pl.DataFrame] = []
    for given, values in lists.items():
        column = SHORT.get(given, given)
        if column != "workload_id" and column not in known:
            raise ScenarioError(f"{given!r} is no scenario column{closest(given, [*known, *SHORT])}")
        axis = _axis(tables, given, column, values)
        twice = [c for c in axis.columns for other in axes if c in other.columns]
        if twice:
            raise ScenarioError(f"{given}: {twice[0]!r} is given twice; leave one out")
        axes.append(axis)
    return product(axes) if axes else pl.LazyFrame()


def _axis(tables: Tables, given: str, column: str, values: object) -> pl.DataFrame:
    listed = list(values) if isinstance(values, Iterable) and not isinstance(values, str | bytes) else [values]
    if not listed:
        raise ScenarioError(f"{given}: the list is empty; give at least one value")
    if column == "workload_id":
        workloads = tables["workloads"]
        _known("workload", listed, workloads["workload_id"].to_list())
        wanted = pl.DataFrame({column: listed}, schema={column: pl.String})
        return wanted.join(workloads, on=column, how="left", maintain_order="left").select(
            column, *(pl.col(c).cast(pl.Int64) for c in ("batch", "input_len", "output_len", "cached_len"))
        )  # fmt: skip
    if any(isinstance(v, float) for v in listed) and all(type(v) in (int, float, type(None)) for v in listed):
        listed = [v if v is None else float(v) for v in listed]  # type: ignore[arg-type]
    try:
        return pl.DataFrame({column: pl.Series(column, listed, dtype=None if _any(listed) else pl.String)})
    except (TypeError, pl.exceptions.PolarsError) as error:
        raise ScenarioError(f"{given}: the values {listed!r} are not all of one kind") from error


def _any(values: list[object]) -> bool:
    return any(v is not None for v in values)


@lru_cache(maxsize=16)
def scenario_columns(tables: Tables) -> Mapping[str, Mapping[str, object]]:
    """Return what a question may say: the dictionary's scenario columns, then the parameters of techniques."""
    found: dict[str, Mapping[str, object]] = {str(c["column_name"]): c for c in tables.columns("scenarios")}
    for row in tables["parameters"].iter_rows(named=True):
        found[row["parameter"]] = {"dtype": "number" if row["default_model_id"] is None else "text", **row}
    return found


def defaults(tables: Tables) -> dict[str, float]:
    """Return what an absent number of a question means."""
    numbers = [c for c, rule in scenario_columns(tables).items() if rule["dtype"] == "number"]
    return {c: d for c in numbers if (d := _default(tables, c)) is not None}


@lru_cache(maxsize=16)
def model_parameters(tables: Tables) -> Mapping[str, str]:
    """Return the parameters that name a further model, each with the one that an absent value means."""
    named = tables["parameters"].select("parameter", "default_model_id").drop_nulls()
    return dict(named.iter_rows())


def prepare(tables: Tables, frame: pl.DataFrame | pl.LazyFrame, results: Iterable[str]) -> Questions:
    """Return a user's scenarios ready for the engines.

    Raises ScenarioError for an unknown id, format or precision (with the closest names), a size out of range, a
    fraction where a whole number is due, a missing id column, or a user's column that bears a result's name.
    """
    known = scenario_columns(tables)
    columns = frame.collect_schema().names()
    for required in IDS:
        if required not in columns:
            raise ScenarioError(f"the scenarios have no column {required!r}; each row needs a model and a device")
    clash = [c for c in columns if c not in known and (c in set(results) or c.startswith("__"))]
    if clash:
        raise ScenarioError(f"your column {clash[0]!r} bears the name of a result; rename it")
    for column, dtype in frame.collect_schema().items():
        if column in known and (dtype.is_nested() or dtype in (pl.Binary, pl.Object)):
            raise ScenarioError(f"{column}: {dtype} values are not {known[column]['dtype']}s")
    if isinstance(frame, pl.DataFrame) and frame.height == 1:
        asked = frame.select(c for c in columns if c in known)
        return _question(tables, tuple(asked.schema.items()), asked.row(0))
    return _questions(tables, frame)


@lru_cache(maxsize=256)
def _question(tables: Tables, schema: tuple[tuple[str, pl.DataType], ...], row: tuple[object, ...]) -> Questions:
    """Return one scenario ready for the engines; a page asks the same at every grain."""
    return _questions(tables, pl.DataFrame([row], schema=dict(schema), orient="row"))


def _questions(tables: Tables, frame: pl.DataFrame | pl.LazyFrame) -> Questions:
    known = scenario_columns(tables)
    columns = frame.collect_schema().names()
    places = None
    axes = axes_of(frame)
    if axes is not None:
        distinct, named, run = configurations_of(axes)
        devices, height = _devices(tables, named).to_list(), distinct.height * named.len()
    else:
        asked = frame.lazy().select(c for c in columns if c in known).collect()
        if asked["hardware_id"].has_nulls():
            raise ScenarioError("hardware_id: a row names no device")
        height, rest, run = asked.height, asked.drop("hardware_id"), grid_run(asked)
        if run:
            period = run * asked["hardware_id"].gather_every(run).n_unique()
            distinct = rest.filter(pl.int_range(pl.len()) % period < run)
            devices = _devices(tables, asked["hardware_id"].slice(0, period).gather_every(run)).to_list()
        else:
            distinct = rest.unique(maintain_order=True)
            index = distinct.with_row_index(CONFIGURATION)
            index = rest.join(index, on=rest.columns, how="left", nulls_equal=True, maintain_order="left")
            device, devices = _devices(tables, asked["hardware_id"]), []
            places = pl.DataFrame({CONFIGURATION: index[CONFIGURATION], DEVICE: device}).with_row_index(ROW)
    configurations = _canonical(tables, distinct.select(c for c in distinct.columns if c in known), known)
    _check_lengths(configurations)
    return Questions(height, configurations, devices, run, places)


def _canonical(tables: Tables, distinct: pl.DataFrame, known: Mapping[str, Mapping[str, object]]) -> pl.DataFrame:
    made = dict(_absent(tables))
    made |= {c: _numbers(distinct, c, known[c], _default(tables, c)) for c in made if c in distinct.columns}
    made["model_id"] = canonical(tables, distinct, "model_id")
    for column, default in model_parameters(tables).items():
        if column in distinct.columns:
            filled = distinct.select(pl.col(column).cast(pl.String).fill_null(default))
            made[column] = canonical(tables, filled, column)
        else:
            made[column] = pl.lit(default)
    made["attention"] = _choice(distinct, "attention", list(ATTENTIONS), ATTENTIONS[0])
    made |= _formats(tables, distinct)
    named = "technique" in distinct.columns
    made["technique"] = distinct["technique"].cast(pl.String) if named else pl.lit(None, pl.String)
    return distinct.select(**made).with_row_index(CONFIGURATION)


@lru_cache(maxsize=16)
def _absent(tables: Tables) -> Mapping[str, pl.Series | pl.Expr]:
    """Return what the numbers of a question that says nothing mean."""
    return {c: pl.lit(value, pl.Float64).alias(c) for c, value in defaults(tables).items()}


def _devices(tables: Tables, given: pl.Series) -> pl.Series:
    unique = given.cast(pl.String).unique()
    spelled = canonical(tables, unique.to_frame("hardware_id"), "hardware_id").to_list()
    places = {h: i for i, h in enumerate(tables["hardware"]["hardware_id"].to_list())}
    return given.cast(pl.String).replace_strict(unique, [places[h] for h in spelled], return_dtype=pl.UInt32)


def stack_of(text: str | None) -> tuple[str, ...]:
    """Return the techniques that a scenario's ``technique`` names, in order."""
    return tuple(t.strip() for t in (text or "").split("+") if t.strip())


@lru_cache(maxsize=4096)
def _default(tables: Tables, column: str) -> float | None:
    declared = tables["parameters"].filter(pl.col("parameter") == column)
    if declared.height:
        return float(declared["default_value"][0])
    sizes = tables["workloads"].row(by_predicate=pl.col("workload_id") == "defaults", named=True)
    least = scenario_columns(tables)[column].get("minimum")
    return float(sizes.get(column, 1.0 if least is None else float(str(least))))


def _numbers(
    asked: pl.DataFrame, column: str, rule: Mapping[str, object], default: float | None
) -> pl.Series | pl.Expr:
    given = asked[column]
    if given.dtype == pl.Boolean or not (given.dtype.is_numeric() or given.dtype in (pl.String, pl.Null)):
        raise ScenarioError(f"{column}: {given.dtype} values are not numbers")
    values = given.cast(pl.Float64, strict=False)
    if not given.dtype.is_integer() and values.null_count() > given.null_count():
        wrong = given.filter(values.is_null() & given.is_not_null())[0]
        raise ScenarioError(f"{column}: {wrong!r} is not a number")
    low = float(str(rule["minimum"])) if rule["minimum"] is not None else -LIMIT
    high = float(str(rule["maximum"])) if rule["maximum"] is not None else LIMIT
    smallest, largest = values.min(), values.max()
    if not given.dtype.is_integer() and values.is_nan().any():
        raise ScenarioError(f"{column}: NaN is not a number")
    if isinstance(smallest, float) and smallest < low:
        raise ScenarioError(f"{column}: {smallest:g} is below {low:g}")
    if isinstance(largest, float) and largest > high:
        if low == high:
            raise ScenarioError(f"{column}: {largest:g} is not supported by this version; only {high:g} is")
        raise ScenarioError(f"{column}: {largest:g} is above {high:g}")
    if rule["is_integer"] and not given.dtype.is_integer():
        fractions = values.filter(values != values.floor())
        if fractions.len():
            raise ScenarioError(f"{column}: {fractions[0]:g} is not a whole number")
    return values.fill_null(default) if given.null_count() else values


def canonical(tables: Tables, asked: pl.DataFrame, column: str) -> pl.Series:
    """Return a column of ids as the tables spell them; raises ScenarioError for one that is unknown."""
    table = IDS.get(column, "models")
    spelled = _spelled(tables, table)
    given = asked[column].cast(pl.String)
    unique = given.unique().to_list()
    what = "model" if table == "models" else "device"
    if None in unique:
        raise ScenarioError(f"{column}: a row names no {what}")
    unknown = [g for g in unique if g.strip().lower() not in spelled]
    if unknown:
        where = "" if column in IDS else f"{column}: "
        raise ScenarioError(f"{where}unknown {what} {unknown[0]!r}{_nearest(unknown[0], spelled)}")
    canonical = {g: spelled[g.strip().lower()] for g in unique}
    changed = {g: c for g, c in canonical.items() if g != c}
    return given.replace(changed) if changed else given


@lru_cache(maxsize=32)
def _spelled(tables: Tables, table: str) -> Mapping[str, str]:
    rows = tables[table].select(pl.first(), "aliases").iter_rows()
    return {s: row[0] for row in rows for s in spellings(*row)}


def _nearest(given: str, spelled: Mapping[str, str]) -> str:
    """Return "; did you mean …?" with the ids whose spelling, hub and vendor aside, is nearest."""
    short = {s.rpartition("/")[2]: s for s in reversed(list(spelled))}
    near = closest_names(given, [*spelled, *short], n=6)
    ids = list(dict.fromkeys(spelled[short.get(n, n)] for n in near))[:3]
    return f"; did you mean {' or '.join(map(repr, ids))}?" if ids else ""


def _known(what: str, given: Iterable[object], known: list[str]) -> None:
    for value in given:
        if value is not None and value not in known:
            raise ScenarioError(f"unknown {what} {value!r}{closest(str(value), known)}; there are {', '.join(known)}")


def _choice(asked: pl.DataFrame, column: str, known: list[str], default: str) -> pl.Series | pl.Expr:
    if column not in asked.columns:
        return pl.lit(default)
    given = asked[column].cast(pl.String).str.to_lowercase().fill_null(default)
    _known(column, given.unique().to_list(), known)
    return given


@lru_cache(maxsize=16)
def _precisions(tables: Tables) -> tuple[Mapping[str, dict[str, object]], list[str]]:
    rows = {r["precision_id"]: r for r in tables["precisions"].iter_rows(named=True)}
    return rows, tables["formats"]["format_id"].to_list()


def _formats(tables: Tables, asked: pl.DataFrame) -> dict[str, pl.Series | pl.Expr]:
    precisions, formats = _precisions(tables)
    precision = _choice(asked, "precision", list(precisions), "w16a16kv16")
    found: dict[str, pl.Series | pl.Expr] = {}
    for role in FORMATS:
        # experts have the weights' format where nothing says otherwise
        of = {p: r[role] or (None if role in UNNAMED else r["weight_format"]) for p, r in precisions.items()}
        if isinstance(precision, pl.Series):
            named: pl.Series | pl.Expr = precision.replace_strict(list(of), list(of.values()), return_dtype=pl.String)
        else:
            named = pl.lit(of["w16a16kv16"], pl.String)
        if role == "expert_format" and "weight_format" in asked.columns:
            weights = asked["weight_format"].cast(pl.String).str.to_lowercase()
            named = _filled(weights, named)
        if role in asked.columns:
            own = asked[role].cast(pl.String).str.to_lowercase()
            _known("format", own.unique().to_list(), formats)
            named = _filled(own, named)
        found[role] = named
    return found


def _filled(own: pl.Series, named: pl.Series | pl.Expr) -> pl.Series | pl.Expr:
    return own.fill_null(named) if isinstance(named, pl.Series) else pl.lit(own).fill_null(named)


def _check_lengths(points: pl.DataFrame) -> None:
    empty = (points["input_len"] == 0) & (points["output_len"] == 0)
    if empty.any():
        raise ScenarioError("input_len and output_len are both 0 in a row; there is nothing to do")
    cached = points["cached_len"]
    over = (cached > 0) & (cached >= points["input_len"])
    if over.any():
        row = over.arg_max() or 0
        raise ScenarioError(
            f"cached_len {cached[row]:g} leaves no token of input_len {points['input_len'][row]:g} to "
            "compute; cache at most one token less"
        )
