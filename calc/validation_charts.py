"""Figures of measurements beside predictions: pure functions from a frame to an Altair chart."""

from __future__ import annotations

import altair as alt
import polars as pl

from calc.charts import QUIET, decades
from calc.display import quantities

SHOWN_ENGINES = 7
"""Engines that have a colour of their own; the others share one."""
OTHERS = "others"


def beside(found: pl.DataFrame) -> alt.LayerChart:
    """Return measured times over predicted ones, a point each, with the line on which both are the same.

    ``found`` has the columns of ``measured_vs_predicted``, all of them answered.
    """
    many = found["engine"].value_counts(sort=True)["engine"].head(SHOWN_ENGINES)
    engine = pl.when(pl.col("engine").is_in(many.implode())).then("engine").otherwise(pl.lit(OTHERS))
    points = found.select(
        "time_s", "measured_s", "metric", "roofline_share", "mfu", "mbu", engine=engine,
        told=pl.format("{} on {}", "model_id", "hardware_id"),
        measured=quantities(found["measured_s"], "s"), predicted=quantities(found["time_s"], "s"),
    )  # fmt: skip
    ends = [*points["time_s"], *points["measured_s"]]
    low, high = min(ends, default=1e-3) / 1.5, max(ends, default=1.0) * 1.5
    scale = alt.Scale(type="log", domain=[low, high], nice=False)
    axis = decades(low, high, "~s")
    x = alt.X("time_s:Q", title="At the roofline (s)", scale=scale, axis=axis)
    y = alt.Y("measured_s:Q", title="Measured (s)", scale=scale, axis=axis)
    order = [*many, OTHERS] if found["engine"].n_unique() > SHOWN_ENGINES else [*many]
    dots = alt.Chart(points).mark_circle(size=28, opacity=0.5).encode(
        x=x, y=y,
        color=alt.Color("engine:N", title=None, sort=order, scale=alt.Scale(domain=order),
                        legend=alt.Legend(orient="bottom", columns=2, labelLimit=120)),
        tooltip=[alt.Tooltip("told:N", title="Measured"), alt.Tooltip("metric:N", title="Metric"),
                 alt.Tooltip("engine:N", title="Engine"), alt.Tooltip("measured:N", title="Time"),
                 alt.Tooltip("predicted:N", title="Roofline"),
                 alt.Tooltip("roofline_share:Q", title="Share of the roofline", format=".1%"),
                 alt.Tooltip("mfu:Q", title="MFU", format=".1%"), alt.Tooltip("mbu:Q", title="MBU", format=".1%")],
    )  # fmt: skip
    same = pl.DataFrame({"time_s": [low, high], "measured_s": [low, high]})
    line = alt.Chart(same).mark_line(color=QUIET, strokeDash=[4, 3]).encode(x=x, y=y)
    return alt.LayerChart(layer=[line, dots], height=460)
