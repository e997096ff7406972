"""Scenarios that name a calibration: the calibrated sheet with its factors, and the error that is to be expected."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import polars as pl

from calc.calibration.expected import COLUMN, ERRORS, expected_errors
from calc.errors import CalcError, ScenarioError, closest
from calc.questions import canonical
from calc.tables import Tables

IDEAL = "ideal"
"""What an absent calibration means: the roofline itself."""
ANY = "any"
"""The architecture of factors for devices whose own was not measured."""
TABLE = "calibrations"
CONTINUOUS = "is_continuous"
"""Whether prompts are computed as they come: known of an engine, not fitted."""


class Asked(NamedTuple):
    """Scenarios as the engines are asked, and the columns that come back beside the answers."""

    scenarios: pl.DataFrame | pl.LazyFrame
    told: pl.DataFrame | pl.LazyFrame


def calibrated(tables: Tables, scenarios: pl.DataFrame | pl.LazyFrame) -> Asked:
    """Return scenarios with the technique and the factors of the calibration that each names.

    Told beside them is the relative error to be expected of each figure that was measured (``tpot_s_error`` and
    ``tpot_s_error_p90``: median and 90th percentile of held-out measurements near it), empty outside of what was
    measured; ``calibration_note`` says what lies outside. Scenarios that name none stay as they are. Raises
    ScenarioError for an unknown calibration.
    """
    given = scenarios.collect_schema()
    if COLUMN not in given or not {"model_id", "hardware_id"} <= given.keys():
        return Asked(scenarios, scenarios)
    frame = scenarios.lazy().collect()
    named = calibrations_named(tables, frame[COLUMN])
    if named.null_count() == frame.height:
        return Asked(scenarios, scenarios)
    clash = [c for c in given if c in ERRORS[1:]]
    if clash:
        raise ScenarioError(f"your column {clash[0]!r} bears the name of a result; rename it")
    devices = canonical(tables, frame, "hardware_id").alias("hardware_id").to_frame()
    facts = tables["hardware"].select("hardware_id", "architecture")
    rows = devices.join(facts, on="hardware_id", how="left", maintain_order="left").select(named, "architecture")
    found = rows.join(_factors(tables, rows), on=rows.columns, how="left", nulls_equal=True, maintain_order="left")
    own = pl.repeat(None, frame.height, dtype=pl.String, eager=True)
    own = frame["technique"].cast(pl.String).replace("", None) if "technique" in frame.columns else own
    stack = pl.concat_str(pl.lit(calibrating(tables)), own, separator="+", ignore_nulls=True)
    technique = pl.when(named.is_not_null()).then(stack).otherwise(own).alias("technique")
    factors = [
        pl.coalesce(frame[c].cast(pl.Float64, strict=False), found[c]).alias(c) if c in frame.columns else found[c]
        for c in (*fitted_parameters(tables), CONTINUOUS)
    ]
    told = frame.hstack(expected_errors(tables, frame, rows))
    return Asked(frame.with_columns(technique, *factors), told)


def answerable(tables: Tables, scenarios: pl.DataFrame | pl.LazyFrame) -> pl.DataFrame | pl.LazyFrame:
    """Return scenarios with what is made of a calibration as columns of their own: technique, factors, errors.

    Raises what ``calibrated`` does.
    """
    known = calibrated(tables, scenarios)
    if known.told is scenarios:
        return scenarios
    errors = known.told.lazy().collect().select(ERRORS[1:])
    return known.scenarios.lazy().collect().hstack(errors)


def is_fitted(name: object) -> bool:
    """Tell whether what a scenario says of calibrations is more than the roofline."""
    return name not in (None, "", IDEAL)


def calibrating(tables: Tables) -> str:
    """Return the technique whose parameters a calibration is; raises CalcError where there is none, or several."""
    found = tables["techniques"].filter(group="calibration")["technique_id"].to_list()
    if len(found) != 1:
        raise CalcError("techniques.csv: one technique must be of the group 'calibration'")
    return str(found[0])


def fitted_parameters(tables: Tables) -> tuple[str, ...]:
    """Return the parameters that a regression finds, in the tables' order."""
    own = tables["parameters"].filter(technique_id=calibrating(tables))["parameter"]
    return tuple(p for p in own if p != CONTINUOUS)


def with_fitted(tables: Tables, scenario: Mapping[str, object], stack: str) -> str:
    """Return the techniques of a scenario's row, with the one that calibrates it where it names a calibration."""
    return "+".join(t for t in (calibrating(tables), stack) if t) if is_fitted(scenario.get(COLUMN)) else stack


def calibrations_named(tables: Tables, given: pl.Series) -> pl.Series:
    """Return which calibration each scenario names, nothing for the roofline; raises ScenarioError for an unknown."""
    if given.dtype.is_nested() or given.dtype in (pl.Binary, pl.Object):
        raise ScenarioError(f"{COLUMN}: {given.dtype} values are no names")
    named = given.cast(pl.String).str.strip_chars().replace({"": None, IDEAL: None}).alias(COLUMN)
    known = tables[TABLE]["calibration_id"].unique(maintain_order=True).to_list()
    for name in named.drop_nulls().unique():
        if name not in known:
            there = ", ".join([IDEAL, *known])
            raise ScenarioError(f"unknown calibration {name!r}{closest(name, known)}; there are {there}")
    return named


def _factors(tables: Tables, rows: pl.DataFrame) -> pl.DataFrame:
    """Return the factors of each calibration and architecture that are asked: of all, where it has none of its own."""
    fitted = tables[TABLE]
    have = set(fitted.select("calibration_id", "architecture").iter_rows())
    asked = rows.unique().drop_nulls(COLUMN)
    of = [a if (c, a) in have else ANY for c, a in asked.iter_rows()]
    wanted = asked.with_columns(pl.Series("of", of, dtype=pl.String))
    return wanted.join(fitted, left_on=[COLUMN, "of"], right_on=["calibration_id", "architecture"], how="left").select(
        COLUMN, "architecture", *fitted_parameters(tables), CONTINUOUS
    )
