"""What error is to be expected of a calibrated figure: that of held-out measurements near it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
import polars as pl

from calc.questions import canonical, defaults
from calc.tables import DTYPES, Tables

COLUMN = "calibration"
RESIDUALS = Path("measured") / "residuals.csv"
AT_ONCE = 2000
"""Scenarios whose nearest measurements are looked for at a time: each is held beside all of them."""
NEAREST = 20
"""Held-out measurements that tell the error of a prediction."""
FAR = {"architecture": 3.0, "model_id": 1.0}
"""Doublings of a size that another architecture, or another model, is as far as."""
RANGES = {"batch": "batch", "context": "context", "n_devices": "devices"}
"""What a calibration was measured over, and what people call it."""
SIZES = ("batch", "input_len", "output_len", "tp", "pp", "ep")
NOTE = "calibration_note"
MEDIAN, P90 = "error", "error_p90"
"""After the name of a figure: the errors to be expected of it."""
NAMES = {"ttft_s": "TTFT", "tpot_s": "TPOT", "output_tokens_per_s": "output tokens per second"}
PREDICTED = {"ttft_s": "ttft_s", "tpot_s": "tpot_s", "e2e_s": "output_tokens_per_s"}
"""What a figure is called where its error is told."""
ERRORS = (COLUMN, *(f"{p}_{e}" for p in PREDICTED.values() for e in (MEDIAN, P90)), NOTE)
"""What is told beside the figures of a calibrated answer."""
ERROR_OF = {
    "ttft_s": "ttft_s", "tpot_s": "tpot_s", "tokens_per_s_per_user": "tpot_s", "e2e_s": "output_tokens_per_s",
    "output_tokens_per_s": "output_tokens_per_s", "output_tokens_per_s_per_device": "output_tokens_per_s",
    "usd_per_million_output_tokens": "output_tokens_per_s",
}  # fmt: skip
"""Figures that are a measured one, or go with it, so that its relative error is theirs."""
LEFT_OUT = {"device_error": "hardware_id", "model_error": "shape"}
"""Errors of rows without those of the same device, or the same model, and what tells these."""


def residuals(tables: Tables) -> pl.DataFrame:
    """Return the errors of every calibration's measurements, held out and not, with where each stands."""
    place = tables.folder / RESIDUALS
    try:
        stamp = place.stat().st_mtime_ns
    except OSError:
        return pl.DataFrame(schema=schema(tables))
    return _residuals(tables, place, stamp)


def schema(tables: Tables) -> dict[str, type[pl.DataType]]:
    """Return the columns of residuals and their types."""
    return {str(c["column_name"]): DTYPES[str(c["dtype"])] for c in tables.columns("residuals")}


@lru_cache(maxsize=4)
def _residuals(tables: Tables, place: Path, _stamp: int) -> pl.DataFrame:
    found = pl.read_csv(place, schema=schema(tables))
    sizes = tables["models"].select("model_id", size=_size())
    return found.join(sizes, on="model_id", how="left", maintain_order="left").with_columns(
        context=pl.col("input_len") + pl.col("output_len"), n_devices=pl.col("tp") * pl.col("pp") * pl.col("ep")
    )


def _size() -> pl.Expr:
    """Return what a model's size goes with, where its parameters are not counted."""
    return (pl.col("n_layers") * pl.col("hidden") ** 2).cast(pl.Float64)


def expected_errors(tables: Tables, frame: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """Return the errors to be expected of scenarios' figures and a note, a row each.

    ``rows`` are the calibration and the device's architecture of each.
    """
    known = defaults(tables)
    sizes = tables["models"].select("model_id", size=_size())
    ids = {c: canonical(tables, frame, c) for c in ("model_id", "hardware_id")}
    asked = rows.with_columns(
        **ids,
        **{
            c: frame[c].cast(pl.Float64, strict=False).fill_null(known[c]) if c in frame.columns else known[c]
            for c in SIZES
        },
    )
    asked = asked.join(sizes, on="model_id", how="left", maintain_order="left").with_columns(
        context=pl.col("input_len") + pl.col("output_len"), n_devices=pl.col("tp") * pl.col("pp") * pl.col("ep")
    )
    distinct = asked.drop_nulls(COLUMN).unique(maintain_order=True)
    parts = [
        _errors(residuals(tables).filter(calibration_id=name), some)
        for (name,), own in distinct.group_by(COLUMN)
        for some in own.iter_slices(AT_ONCE)
    ]
    told = pl.concat(parts, how="diagonal")
    columns = [c for c in told.columns if c not in asked.columns]
    return asked.join(told, on=asked.columns, how="left", nulls_equal=True, maintain_order="left").select(columns)


def _errors(measured: pl.DataFrame, asked: pl.DataFrame) -> pl.DataFrame:
    """Return scenarios of one calibration with the errors of the held-out measurements nearest to each."""
    empty = {f"{p}_{e}": pl.lit(None, pl.Float64) for p in PREDICTED.values() for e in (MEDIAN, P90)}
    if measured.is_empty():
        return asked.with_columns(**empty, **{NOTE: pl.lit(None, pl.String)})
    outside = _outside(measured, asked)
    found = {}
    for predicted in PREDICTED.values():
        own = measured.filter(predicted=predicted)
        median, high = _nearest(own, asked) if own.height else (None, None)
        is_told = pl.lit(outside).is_null()
        for suffix, values in ((MEDIAN, median), (P90, high)):
            told = pl.lit(None, pl.Float64) if values is None else pl.when(is_told).then(pl.lit(values))
            found[f"{predicted}_{suffix}"] = told
    return asked.with_columns(**found, **{NOTE: outside})


def _outside(measured: pl.DataFrame, asked: pl.DataFrame) -> pl.Series:
    """Return what of each scenario lies outside of what was measured; nothing where all lies within."""
    architectures = measured["architecture"].drop_nulls().unique().implode()
    strange = ~pl.col("architecture").is_in(architectures).fill_null(value=False)
    said = [pl.when(strange).then(pl.format("architecture {}", pl.col("architecture").fill_null("unknown")))]
    for column, label in RANGES.items():
        low, high = (float(str(v)) for v in (measured[column].min(), measured[column].max()))
        between = f"{label} {{}} ({low:,.0f} to {high:,.0f})"
        text = pl.format(between, pl.col(column).cast(pl.Int64, strict=False))
        said.append(pl.when(~pl.col(column).is_between(low, high)).then(text))
    whole = pl.concat_str(said, separator="; ", ignore_nulls=True)
    outside = pl.when(whole != "").then(pl.format("outside of what was measured: {}", whole))
    return asked.select(outside.alias(NOTE)).to_series()


def _nearest(measured: pl.DataFrame, asked: pl.DataFrame) -> tuple[pl.Series, pl.Series]:
    """Return the median and the 90th percentile of the errors nearest to each scenario.

    Of a model that was measured on this device count errors without the model, of one measured elsewhere those without
    the device; else the greater of both.
    """
    sizes = ["batch", "context", "n_devices", "size"]
    here, there = (np.log2(np.maximum(f.select(sizes).to_numpy().astype(float), 0) + 1) for f in (asked, measured))
    distance = np.zeros((asked.height, measured.height))
    for place in range(len(sizes)):
        gap = np.abs(here[:, place, None] - there[None, :, place])
        distance += np.nan_to_num(gap, nan=0.0)
    for column, far in FAR.items():
        same = asked[column].to_numpy()[:, None] == measured[column].to_numpy()[None, :]
        distance += np.where(same, 0, far)
    is_device = asked["hardware_id"].is_in(measured["hardware_id"].unique().implode()).to_numpy()
    is_model = asked["model_id"].is_in(measured["model_id"].unique().implode()).to_numpy()
    by_device, by_model = (np.abs(measured[e].cast(pl.Float64).to_numpy()) for e in LEFT_OUT)
    found = np.full((2, asked.height), np.nan)
    for errors, rows in (
        (by_model, is_device),
        (by_device, ~is_device & is_model),
        (np.maximum(by_device, by_model), ~is_device & ~is_model),
    ):
        held_out = ~np.isnan(errors)
        if rows.any() and held_out.any():
            near = np.argsort(distance[np.ix_(rows, held_out)], axis=1, kind="stable")[:, :NEAREST]
            found[:, rows] = np.quantile(errors[held_out][near], (0.5, 0.9), axis=1)
    return pl.Series(found[0]).fill_nan(None), pl.Series(found[1]).fill_nan(None)


def errors_told(answers: pl.DataFrame | pl.LazyFrame) -> str:
    """Return what is to be expected of answers, a line for each that differs; nothing of the roofline itself."""
    if NOTE not in answers.collect_schema():
        return ""
    found = answers.lazy().collect()
    columns = [f"{p}_{e}" for p in PREDICTED.values() for e in (MEDIAN, P90)]
    rows = found.drop_nulls(COLUMN).select(COLUMN, *columns, NOTE).unique(maintain_order=True)
    return "\n".join(f"Calibration {row[COLUMN]}: {_said(row)}" for row in rows.iter_rows(named=True))


def errors_of_lines(found: pl.DataFrame) -> list[str]:
    """Return what is to be expected of each ``line`` of calibrated points, over all of them.

    ``found`` has a row per point with ``error`` and ``error_p90``, empty where it lies outside of what was measured.
    """
    told = []
    for (line,), points in found.group_by("line", maintain_order=True):
        known = points.drop_nulls(MEDIAN)
        outside = points.height - known.height
        ends = [{f"{known[c].quantile(q):.0%}": None for q in (0, 1)} for c in (MEDIAN, P90) if known.height]
        spans = [" to ".join(e) for e in ends]
        said = [f"expected error ±{spans[0]} (nine in ten within {spans[1]})"] if spans else []
        said += [f"{outside} of {points.height} points lie outside of what was measured"] if outside else []
        told.append(f"{line}: {'; '.join(said)}")
    return told


def _said(row: Mapping[str, object]) -> str:
    if row[NOTE]:
        return str(row[NOTE])
    told = []
    for predicted, label in NAMES.items():
        median, high = row[f"{predicted}_{MEDIAN}"], row[f"{predicted}_{P90}"]
        known = f"±{median:.0%} (nine in ten within {high:.0%})" if median is not None else "not measured"
        told.append(f"{label} {known}")
    return "expected error of " + ", ".join(told)
