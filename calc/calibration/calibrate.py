"""``calc calibrate``: factors and overheads from measurements, kept in ``data/calibrations.csv`` with their errors."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from calc.calibration.applied import ANY, CONTINUOUS, IDEAL, TABLE
from calc.calibration.expected import MEDIAN, P90, PREDICTED, RESIDUALS, schema
from calc.calibration.expected import residuals as stored_residuals
from calc.calibration.held_out import residuals, summary
from calc.calibration.regression import Design, Fitted, bounds, design, fit_engine
from calc.errors import CalcError
from calc.measured import JOINING, measurements
from calc.output import print_frame, replace_table
from calc.tables import Tables
from calc.validation import exceptions

FEWEST, FEWEST_NAMED = 30, 10
"""Measurements of an engine from which it is calibrated; and of all that a name was given to."""
SAME = (
    "engine", "engine_version", "hardware_id", "precision", "attention", "tp", "pp", "ep", "batch", "input_len",
    "output_len", "metric", "value", "shape",
)  # fmt: skip
"""Rows that agree in all of these are one measurement, told twice."""


def calibrate(tables: Tables, file: str | None = None, name: str | None = None) -> None:
    """Fit calibrations to a file of measurements, or the product's own, and keep them in the data folder.

    There is one per engine, or one of them all called ``name``. Prints what is set aside and the errors, of the fit
    and of fits without a device or a model. Raises CalcError where nothing can be fitted.
    """
    if name is not None and (not re.fullmatch(r"[\w.+-]+", name) or name == IDEAL):
        raise CalcError(f"--name {name!r}: letters, digits, dots, dashes and underscores; {IDEAL!r} is the roofline")
    told = measurements(tables, Path(file) if file else None)
    print(f"{told.accepted.height:,} measurements, {told.rejected.height:,} rows rejected")
    data = _usable(tables, design(tables, told.accepted))
    within = bounds(tables, data.parameters)
    rows, found = [], []
    for called, own in _by_name(data, name).items():
        fitted = fit_engine(own, within)
        errors = residuals(own, within).with_columns(calibration_id=pl.lit(called))
        found.append(errors)
        rows += _rows(called, own, fitted, errors, Path(file).name if file else measurements.__name__)
    if not rows:
        raise CalcError(f"no engine has {FEWEST} measurements of times; give more, or a --name for all together")
    every = pl.concat(found)
    _print(every)
    _write(tables, pl.DataFrame(rows, infer_schema_length=None), every)


def _usable(tables: Tables, data: Design) -> Design:
    """Return measurements to fit to, and print how many are set aside and why."""
    known = exceptions(tables)["measurement_id"].implode()
    waits = (pl.col("figure") != "tpot_s") & (pl.col("batch") > pl.col("max_batch"))
    reasons = {
        "known exceptions to the bound": pl.col("measurement_id").is_in(known),
        "more requests than memory holds: the first token waits": waits,
        "told twice": ~pl.struct(SAME).is_first_distinct(),
    }
    kept = data
    for reason, condition in reasons.items():
        aside = kept.rows.select(condition.alias("aside"))["aside"]
        if aside.any():
            print(f"  {aside.sum():,} set aside: {reason}")
        kept = kept.only(~aside)
    return kept


def _by_name(data: Design, name: str | None) -> dict[str, Design]:
    """Return the measurements of each calibration that there will be."""
    if name:
        if data.rows.height < FEWEST_NAMED:
            raise CalcError(f"{data.rows.height} measurements of times can be used: give at least {FEWEST_NAMED}")
        return {name: data}
    counted = data.rows["engine"].value_counts(sort=True)
    few = counted.filter(pl.col("count") < FEWEST)
    if few.height:
        print(f"  {few['count'].sum():,} set aside: fewer than {FEWEST} of {', '.join(few['engine'])}")
    often = counted.filter(pl.col("count") >= FEWEST)["engine"]
    return {str(e): data.only(data.rows["engine"] == e) for e in often}


def _rows(name: str, data: Design, fitted: Fitted, errors: pl.DataFrame, source: str) -> list[dict[str, object]]:
    """Return the rows of a calibration: of all architectures together, then of each."""
    of = {ANY: (data, fitted.together)} | {
        a: (data.only(data.rows["architecture"] == a), factors) for a, factors in sorted(fitted.of.items())
    }
    is_continuous = 2 * data.rows["engine"].is_in(JOINING).sum() > data.rows.height
    return [
        {
            "calibration_id": name, "architecture": architecture,
            **{p: float(f"{f:.4g}") for p, f in zip(data.parameters, factors, strict=True)},
            CONTINUOUS: float(is_continuous), "n_measurements": own.rows.height,
            "n_devices": own.rows["hardware_id"].n_unique(), "n_models": own.rows["shape"].n_unique(),
            **_ranges(own.rows), **_held_out(errors, architecture),
            "fitted_on": f"{datetime.now(UTC):%Y-%m-%d}", "fitted_to": source,
        }
        for architecture, (own, factors) in of.items()
    ]  # fmt: skip


def _held_out(errors: pl.DataFrame, architecture: str) -> dict[str, object]:
    """Return the errors of a calibration's figures, of measurements held out: of all architectures or of one."""
    own = errors if architecture == ANY else errors.filter(architecture=architecture)
    told: dict[str, object] = {}
    for predicted in PREDICTED.values():
        size = own.filter(predicted=predicted).select(pl.coalesce("model_error", "device_error").abs()).to_series()
        for suffix, value in ((MEDIAN, size.median()), (P90, size.quantile(0.9, "linear"))):
            told[f"{predicted}_{suffix}"] = round(float(str(value)), 4) if value is not None else None
    return told


def _ranges(rows: pl.DataFrame) -> dict[str, object]:
    """Return between what a calibration was measured, and its ."""
    context, devices = pl.col("input_len") + pl.col("output_len"), pl.col("tp") * pl.col("pp") * pl.col("ep")
    return rows.select(
        least_batch=pl.col("batch").min(), largest_batch=pl.col("batch").max(),
        shortest_context=context.min(), longest_context=context.max(), most_devices=devices.max(),
    ).row(0, named=True)  # fmt: skip


def _print(found: pl.DataFrame) -> None:
    """Print the errors of the fit and of what was left out."""
    print("\nRelative error of the fit, and of fits without a row's device or model: median and 90th percentile")
    print_frame(summary(found, ["predicted", "calibration_id"]))
    print("\nWithout the device, where another of its architecture was measured")
    print_frame(summary(found.filter("is_known_architecture"), ["predicted"]))
    print("\nAll of them")
    print_frame(summary(found, ["predicted"]))


def _write(tables: Tables, rows: pl.DataFrame, found: pl.DataFrame) -> None:
    """Write calibrations and residuals in place of those of the same names."""
    names = rows["calibration_id"].unique().implode()
    kept = tables[TABLE].filter(~pl.col("calibration_id").is_in(names))
    replace_table(tables.folder / f"{TABLE}.csv", pl.concat([kept, rows.select(kept.columns)], how="vertical_relaxed"))
    place, columns = tables.folder / RESIDUALS, schema(tables)
    errors = [pl.col(c).round_sig_figs(3) if c.endswith("_error") else pl.col(c) for c in columns]
    told = found.select(errors)
    before = stored_residuals(tables).filter(~pl.col("calibration_id").is_in(names)).select(*columns)
    replace_table(place, pl.concat([before, told], how="vertical_relaxed"))
    print(f"\nKept as {', '.join(rows['calibration_id'].unique(maintain_order=True))} in {tables.folder / TABLE}.csv")
