"""How far calibrated predictions are from measurements, by group, and which groups miss what is aimed at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from calc.calibration.applied import ANY, TABLE
from calc.calibration.expected import LEFT_OUT, PREDICTED, residuals
from calc.calibration.regression import design
from calc.files import parse_csv, read_given
from calc.measured import measurements
from calc.output import print_frame
from calc.tables import Tables

AIM_MEDIAN, AIM_P90 = 0.10, 0.30
"""What a group's absolute errors are to keep at the median and at the 90th percentile."""
FEWEST = 5
"""Measurements of a group that is judged."""
WORSE = 1.1
"""A listed group may be worse than its listed figures by so much: fits are not exact."""
LISTED = Path("measured") / "missed.csv"
LARGEST_BYTES = 1_000_000
GROUP = ["predicted", "calibration_id"]


def in_use(tables: Tables, frame: pl.DataFrame) -> pl.DataFrame:
    """Return measurements of engines that are calibrated with the relative ``error`` of the calibrated prediction.

    A row each: those of ``frame`` and ``predicted``, ``calibration_id``.
    """
    known = tables[TABLE]["calibration_id"].unique().implode()
    data = design(tables, frame.filter(pl.col("engine").is_in(known)))
    fitted = {
        (c, a): row for c, a, *row in tables[TABLE].select("calibration_id", "architecture", *data.parameters).rows()
    }
    asked = data.rows.select("engine", "architecture").rows()
    factors = np.array([fitted.get((e, a), fitted[(e, ANY)]) for e, a in asked]).reshape(-1, len(data.parameters))
    return data.rows.with_columns(
        predicted=pl.col("figure").replace_strict(PREDICTED),
        calibration_id="engine",
        error=pl.Series(data.errors(factors), dtype=pl.Float64),
    )


def held_out(tables: Tables) -> pl.DataFrame:
    """Return the product's own measurements with the ``error`` of what was fitted without their model.

    Where nothing would be left without the model, without their device; else the error of the fit.
    """
    by_device, by_model = LEFT_OUT
    return residuals(tables).with_columns(error=pl.coalesce(by_model, by_device, "fitted_error"))


def by_metric(tables: Tables) -> pl.DataFrame:
    """Return what the product's own measurements were predicted with: a row per ``metric``.

    Median and 90th percentile of the relative error of fits to all rows, without the row's device, without it where
    another device of its architecture is left, and without its model; with how many there are of each.
    """
    metrics = measurements(tables).accepted.select("measurement_id", "metric")
    found = residuals(tables).join(metrics, on="measurement_id", how="inner")
    kin = pl.col("hardware_id").n_unique().over("calibration_id", "predicted", "architecture") > 1
    found = found.with_columns(kin_error=pl.when(kin).then("device_error"))
    told = []
    for name, error in {"fitted": "fitted_error", "device out": "device_error", "kin known": "kin_error",
                        "model out": "model_error"}.items():  # fmt: skip
        size = pl.col(error).abs()
        told += [
            size.count().alias(f"{name} n"),
            size.median().alias(f"{name} median"),
            size.quantile(0.9, "linear").alias(f"{name} p90"),
        ]
    return found.group_by("metric").agg(told).sort("metric")


def judge(tables: Tables, found: pl.DataFrame) -> str:
    """Print the errors of each group; return which miss the aim and are not listed with a cause, or nothing."""
    if found.is_empty():
        return ""
    size = pl.col("error").abs()
    groups = found.group_by(GROUP).agg(n=pl.len(), median=size.median(), p90=size.quantile(0.9, "linear")).sort(GROUP)
    groups = groups.join(missed(tables), on=GROUP, how="left", maintain_order="left")
    print("\nRelative error of calibrated predictions and of memory, by group")
    print_frame(groups.select(*GROUP, "n", "median", "p90", aim=_kept()))
    for row in groups.filter(~_kept()).drop_nulls("cause").iter_rows(named=True):
        print(f"  {row['predicted']} of {row['calibration_id']}: {row['cause']}")
    worse = (pl.col("median") > WORSE * pl.col("listed_median")) | (pl.col("p90") > WORSE * pl.col("listed_p90"))
    wrong = groups.filter(~_kept() & (pl.col("cause").is_null() | worse), pl.col("n") >= FEWEST)
    if wrong.is_empty():
        return ""
    told = (f"{p} of {c}: median {m:.1%}, p90 {q:.1%}" for p, c, m, q in wrong.select(*GROUP, "median", "p90").rows())
    return (
        f"{wrong.height} groups are further off than {AIM_MEDIAN:.0%} at the median or {AIM_P90:.0%} at the 90th "
        f"percentile, or than data/{LISTED} says of them:\n" + "\n".join(told)
    )


def _kept() -> pl.Expr:
    return (pl.col("median") <= AIM_MEDIAN) & (pl.col("p90") <= AIM_P90)


def missed(tables: Tables) -> pl.DataFrame:
    """Return the groups that are known to miss the aim: their figures and the ``cause``."""
    place = tables.folder / LISTED
    numbers = ("listed_median", "listed_p90")
    if not place.is_file():
        texts = dict.fromkeys((*GROUP, "cause"), pl.String)
        return pl.DataFrame(schema=texts | dict.fromkeys(numbers, pl.Float64))
    found = parse_csv(read_given(place, LARGEST_BYTES), place.name)
    return found.with_columns(pl.col(numbers).cast(pl.Float64))
