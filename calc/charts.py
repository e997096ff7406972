"""Figures: pure functions from a frame to an Altair chart, one per figure."""

from __future__ import annotations

import math

import altair as alt
import polars as pl

from calc.display import quantity

QUIET = "#7d8b97"
"""Ceilings and their labels: readable on a light and on a dark page."""
SHARES = [40, 1100]
"""Areas, in square pixels, of operators that take nothing and all of their stage's time."""

TOLD = (
    "Operator", "Part", "Stage", "Count", "Operations", "Memory traffic", "Intensity", "Time", "Share of stage",
    "Bound",
)  # fmt: skip
"""What a point's tooltip says."""


def roofline(operators: pl.DataFrame, bandwidth: float, by: str = "Part") -> alt.LayerChart:
    """Return the log-log roofline: memory and compute ceilings, and a point per operator and stage.

    ``operators`` are rows of the operator grain with ``share``, the part of its stage's time that an operator takes;
    ``bandwidth`` is the device's, in bytes per second; ``by`` is what ``part`` tells apart. Rows without operations
    have no place on the chart.
    """
    placed = operators.filter(pl.col("arithmetic_intensity") > 0, pl.col("attainable_ops_per_s") > 0)
    peaks = ceilings(operators, bandwidth)
    x = [*placed["arithmetic_intensity"], *peaks["ridge"]]
    y = [*placed["attainable_ops_per_s"], *peaks["peak_ops_per_s"]]
    left, right = min(x, default=1) / 2, max(x, default=1) * 4
    low, high = min(y, default=1) / 2, max(y, default=1) * 2
    x_axis = alt.X(
        "arithmetic_intensity:Q", title="Arithmetic intensity (OP/B)",
        scale=alt.Scale(type="log", domain=[left, right], nice=False), axis=_decades(left, right, "~g"),
    )  # fmt: skip
    y_axis = alt.Y(
        "attainable_ops_per_s:Q", title="Attainable (OP/s)",
        scale=alt.Scale(type="log", domain=[low, high], nice=False), axis=_decades(low, high, "~s"),
    )  # fmt: skip

    roof = peaks["ridge"].max()
    slope = [left, float(str(roof)) if roof is not None else right]
    lowest_ridge = float(str(peaks["ridge"].min() or slope[1]))
    beside = lowest_ridge * (slope[0] / lowest_ridge) ** 0.2
    memory = pl.DataFrame({"arithmetic_intensity": slope, "attainable_ops_per_s": [bandwidth * v for v in slope]})
    flat = pl.concat(
        peaks.select("name", pl.lit(v).alias("end") if v else pl.col("ridge").alias("end"), "peak_ops_per_s")
        for v in (None, right)
    ).rename({"end": "arithmetic_intensity", "peak_ops_per_s": "attainable_ops_per_s"})
    named = peaks.select("name", arithmetic_intensity="ridge", attainable_ops_per_s="peak_ops_per_s")
    bandwidth_name = pl.DataFrame(
        {"name": [f"memory {quantity(bandwidth, 'byte/s')}"], "arithmetic_intensity": [beside],
         "attainable_ops_per_s": [bandwidth * beside]}
    )  # fmt: skip

    line = alt.MarkDef("line", color=QUIET, strokeWidth=2, clip=True)
    memory_ceiling = alt.Chart(memory, mark=line).encode(x=x_axis, y=y_axis)
    compute_ceilings = alt.Chart(flat, mark=line).encode(x=x_axis, y=y_axis, detail="name:N")
    ceiling_labels = (
        alt.Chart(named).mark_text(align="right", baseline="bottom", dx=-8, dy=-3, fontSize=12, color=QUIET)
        .encode(x=x_axis, y=y_axis, text="name:N")
    )  # fmt: skip
    # below the diagonal, where a narrow screen leaves more room than between it and the axis
    bandwidth_label = (
        alt.Chart(bandwidth_name).mark_text(align="left", baseline="top", dx=10, dy=4, fontSize=12, color=QUIET)
        .encode(x=x_axis, y=y_axis, text="name:N")
    )  # fmt: skip
    parts = placed["part"].unique(maintain_order=True).to_list()
    stages = placed["stage"].unique(maintain_order=True).to_list()
    points = (
        alt.Chart(_told(placed)).mark_point(filled=True, opacity=0.75, strokeWidth=1, clip=True)
        .encode(
            x=x_axis,
            y=y_axis,
            color=alt.Color("part:N", title=by, scale=alt.Scale(domain=parts), sort=parts),
            shape=alt.Shape("stage:N", title="Stage", sort=stages, legend=alt.Legend(symbolFillColor=QUIET),
                            scale=alt.Scale(domain=stages, range=["circle", "triangle-up", "square"][: len(stages)])),
            size=alt.Size("share:Q", legend=None, scale=alt.Scale(domain=[0, 1], range=SHARES)),
            order=alt.Order("share:Q", sort="descending"),
            tooltip=[alt.Tooltip(f"{c}:N", title=c) for c in TOLD],
        )
    )  # fmt: skip
    layers = [memory_ceiling, compute_ceilings, ceiling_labels, bandwidth_label, points]
    chart = alt.LayerChart(layer=layers, height=400)
    drawn: alt.LayerChart = chart.configure_legend(orient="bottom-right", symbolStrokeWidth=0)
    return drawn


def ceilings(operators: pl.DataFrame, bandwidth: float) -> pl.DataFrame:
    """Return the compute ceilings in use: ``name``, ``peak_ops_per_s`` and ``ridge``, the intensity where each begins.

    Equal peaks are one ceiling; the unit that does no matrix operations is named after what it is.
    """
    unit = pl.when(pl.col("matrix_ops") > 0).then(pl.lit("")).otherwise(pl.lit("vector ")) + pl.col("compute_format")
    in_use = (
        operators.filter(pl.col("ops") > 0, pl.col("peak_ops_per_s") > 0)
        .select("peak_ops_per_s", unit=unit)
        .unique()
        .sort("peak_ops_per_s", "unit", descending=[True, False])
    )
    matrix = in_use.filter(~pl.col("unit").str.starts_with("vector "))
    own = in_use.join(matrix.select("peak_ops_per_s").unique(), on="peak_ops_per_s", how="anti", maintain_order="left")
    return (
        pl.concat([matrix, own])
        .group_by("peak_ops_per_s", maintain_order=True)
        .agg(pl.col("unit").str.join(", "))
        .with_columns(rate=pl.col("peak_ops_per_s").map_elements(_rate, return_dtype=pl.String))
        .select(
            pl.format("{} {}", "unit", "rate").alias("name"),
            "peak_ops_per_s",
            (pl.col("peak_ops_per_s") / bandwidth).alias("ridge"),
        )
    )


def _told(placed: pl.DataFrame) -> pl.DataFrame:
    """Return the points with what their tooltips say."""
    rows = [
        (
            r["operator"], r["part"], r["stage"], quantity(r["count"]), quantity(r["ops"], "op"),
            quantity(r["memory_bytes"], "byte"), quantity(r["arithmetic_intensity"], "op/byte"),
            quantity(r["time_s"], "s"), "—" if r["share"] is None else f"{r['share']:.2%}", r["bound"] or "—",
        )
        for r in placed.iter_rows(named=True)
    ]  # fmt: skip
    told = pl.DataFrame(rows, schema=dict.fromkeys(TOLD, pl.String), orient="row")
    shown = ("stage", "part", "operator", "arithmetic_intensity", "attainable_ops_per_s", "share")
    return pl.concat([placed.select(shown).with_columns(pl.col("share").fill_null(0)), told], how="horizontal")


def _decades(low: float, high: float, form: str) -> alt.Axis:
    powers = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
    return alt.Axis(values=[10.0**p for p in powers], format=form, grid=True)


def _rate(value: float) -> str:
    return quantity(value, "op/s")
