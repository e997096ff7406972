"""How well a calibration holds for what it was not fitted to: a device left out whole, or a model.

Rows are never left out at random: the same device and model at the next batch would give the answer away.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from calc.calibration.expected import LEFT_OUT, PREDICTED
from calc.calibration.regression import Bounds, Design, fit_engine

FEWEST_LEFT = 10
"""Measurements of the same figure that must be left, for a prediction to rest on anything."""


def residuals(data: Design, within: Bounds) -> pl.DataFrame:
    """Return an engine's measurements with the relative error of the fit (``fitted_error``) and of fits without their
    device or model (``device_error``, ``model_error``; empty where nothing of the sort would be left).

    ``is_known_architecture`` tells whether without its device another of its architecture is left.
    """
    errors = {"fitted_error": data.errors(fit_engine(data, within).factors(data.rows))}
    is_known = np.zeros(data.rows.height, dtype=bool)
    for error, by in LEFT_OUT.items():
        errors[error] = np.full(data.rows.height, np.nan)
        for value in data.rows[by].unique():
            mine = data.rows[by].eq_missing(value)
            out, left = data.only(mine), data.only(~mine)
            if not left.rows.height:
                continue
            enough = out.rows["figure"].is_in(_measured_often(left.rows).implode()).to_numpy()
            found = out.errors(fit_engine(left, within).factors(out.rows))
            errors[error][mine.to_numpy()] = np.where(enough, found, np.nan)
            if error == "device_error":
                kinds = left.rows.select("figure", "architecture").unique().rows()
                is_known[mine.to_numpy()] = [r in kinds for r in out.rows.select("figure", "architecture").rows()]
    told = [pl.Series(c, e).fill_nan(None) for c, e in errors.items()]
    return data.rows.with_columns(
        *told, pl.Series("is_known_architecture", is_known), predicted=pl.col("figure").replace_strict(PREDICTED)
    )


def _measured_often(rows: pl.DataFrame) -> pl.Series:
    counted = rows["figure"].value_counts()
    return counted.filter(pl.col("count") >= FEWEST_LEFT)["figure"]


def summary(found: pl.DataFrame, by: list[str]) -> pl.DataFrame:
    """Return the median and the 90th percentile of absolute errors by some columns, and how many there are of each."""
    told = []
    for name, error in {"fitted": "fitted_error", "device out": "device_error", "model out": "model_error"}.items():
        size = pl.col(error).abs()
        told += [
            pl.col(error).count().alias(f"n {name}"),
            size.median().alias(name),
            size.quantile(0.9, "linear").alias(f"{name} p90"),
        ]
    return found.group_by(by).agg(*told).sort(by)
