"""Figures: pure functions from a frame to an Altair chart, one per figure.

``roofline`` is the page's; the others draw what the queries of ``sql/survey`` give.
"""

from __future__ import annotations

import math
from collections.abc import Callable

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
SHEETS = ["llm_viewer", "exact"]
"""The paper's accounting first, then what is physically exact."""
WIDTH, HEIGHT = 320, 240
Chart = alt.Chart | alt.HConcatChart | alt.VConcatChart
SECONDS, BYTES = alt.Axis(format="~s"), alt.Axis(format="~s")
DECADES = alt.Axis(values=[10.0**p for p in range(-1, 5)], format="~g")
WIDE_FIRST = ["fp16", "int8", "int4", "int2", "int1"]


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


def table_1(found: pl.DataFrame) -> Chart:
    """Return the arithmetic intensity of each layer, by stage and bound."""
    told = found.with_columns(pl.col("arithmetic_intensity").cast(pl.Float64))
    base = alt.Chart(told, width=WIDTH, height=HEIGHT, title="Table 1: arithmetic intensity of each layer")
    drawn: Chart = base.mark_point(filled=True, size=80).encode(
        x=alt.X(
            "arithmetic_intensity:Q", title="Arithmetic intensity (OP/B)", scale=alt.Scale(type="log"), axis=DECADES
        ),
        y=alt.Y("layer:N", title=None, sort=found["layer"].unique(maintain_order=True).to_list()),
        color=alt.Color("bound:N", title="Bound"),
        column=alt.Column("stage:N", title=None, sort="descending"),
        row=alt.Row("sheet:N", title=None, sort=SHEETS),
    )
    return drawn


def figure_5(found: pl.DataFrame) -> Chart:
    """Return the roofline of both stages, beside it that of the exact accounting."""
    return _rooflines(found, "Figure 5: roofline in 16 bits", "Part")


def figure_6(found: pl.DataFrame) -> Chart:
    """Return the roofline of a prefill and of a decode step for each choice of formats."""
    formats = pl.format("weights {}, activations {}", "weight_format", "activation_format")
    return _rooflines(found.with_columns(part=formats), "Figure 6: roofline under quantization", "Formats")


def _rooflines(found: pl.DataFrame, title: str, by: str) -> Chart:
    drawn = []
    for sheet in SHEETS:
        mine = found.filter(sheet=sheet)
        # on the diagonal performance over intensity is the bandwidth
        on_it = mine.filter(bound="memory").select(pl.col("memory_bytes") / pl.col("time_s")).max()
        drawn.append(roofline(mine, float(on_it.item()), by).properties(width=460, title=sheet))
    chart = alt.hconcat(*(_bare(c) for c in drawn), title=title)
    whole: Chart = chart.configure_legend(orient="right", symbolStrokeWidth=0)
    return whole


def _bare(chart: alt.LayerChart) -> alt.LayerChart:
    """Return a chart without the settings that only a whole figure may have."""
    bare = chart.copy()
    bare.config = alt.Undefined
    return bare


def figure_7(found: pl.DataFrame) -> Chart:
    """Return memory as stacked bars, for each choice of formats, batch and length."""
    parts = {"weight_memory_bytes": "weights", "kv_cache_bytes": "KV cache", "activation_bytes": "activations"}
    told = _named(found).filter(stage="prefill").rename(parts)
    told = told.with_columns(question=_question())
    bars = told.unpivot(list(parts.values()), index=["sheet", "formats", "question"], variable_name="part")
    base = alt.Chart(bars, width=200, height=200, title="Figure 7: memory by formats")
    drawn: Chart = base.mark_bar().encode(
        x=alt.X("formats:N", title=None, axis=alt.Axis(labelAngle=-40)),
        y=alt.Y("value:Q", title="Bytes", axis=BYTES),
        color=alt.Color("part:N", title="Memory", sort=list(parts.values())),
        column=alt.Column("question:N", title=None),
        row=alt.Row("sheet:N", title=None, sort=SHEETS),
    )
    return drawn


def figure_8(found: pl.DataFrame) -> Chart:
    """Return the time of a decode step by batch, a line for each number of bits."""
    return _lines(
        found,
        "batch",
        "Batch",
        "time_s",
        "Time of a step (s)",
        "weight_format",
        "Figure 8: decode by batch and bits",
        order=WIDE_FIRST,
    )


def figure_9(found: pl.DataFrame) -> Chart:
    """Return the time of a prefill by length, a line for each number of bits."""
    return _lines(
        found,
        "input_len",
        "Tokens",
        "time_s",
        "Time (s)",
        "weight_format",
        "Figure 9: prefill by length and bits",
        order=WIDE_FIRST,
    )


def figure_11(found: pl.DataFrame) -> Chart:
    """Return the time of a decode step by length, a line for each choice of formats."""
    return _lines(
        _named(found),
        "input_len",
        "Tokens",
        "time_s",
        "Time of a step (s)",
        "formats",
        "Figure 11: decode by length and formats",
        log=True,
    )


def figure_15(found: pl.DataFrame) -> Chart:
    """Return the time of two operators, apart and fused, in both panels."""
    base = alt.Chart(found, width=WIDTH, height=120, title="Figure 15: fusion of two operators")
    drawn: Chart = base.mark_bar().encode(
        y=alt.Y("what:N", title=None, sort=found["what"].unique(maintain_order=True).to_list()),
        x=alt.X("time_s:Q", title="Time (s)", axis=SECONDS),
        color=alt.Color("panel:N", title="First operator"),
        column=alt.Column("sheet:N", title=None, sort=SHEETS),
    )
    return drawn


def figure_16(found: pl.DataFrame) -> Chart:
    """Return time with FlashAttention as a share of that without, by stage, batch and length."""
    keys = ["sheet", "stage", "batch", "input_len"]
    both = found.pivot("attention", index=keys, values=["time_s", "memory_bytes"])
    told = both.select(
        "sheet", "stage",
        _question().alias("question"),
        pl.col("batch"), pl.col("input_len"),
        time=pl.col("time_s_flash") / pl.col("time_s_eager"),
        traffic=pl.col("memory_bytes_flash") / pl.col("memory_bytes_eager"),
    ).sort("batch", "input_len")  # fmt: skip
    bars = told.unpivot(["time", "traffic"], index=["sheet", "stage", "question"], variable_name="of")
    base = alt.Chart(bars, width=WIDTH, height=HEIGHT, title="Figure 16: what FlashAttention leaves")
    drawn: Chart = base.mark_bar().encode(
        x=alt.X(
            "question:N",
            title=None,
            sort=told["question"].unique(maintain_order=True).to_list(),
            axis=alt.Axis(labelAngle=-40),
        ),
        xOffset="of:N",
        y=alt.Y("value:Q", title="Share of the unfused", axis=alt.Axis(format="%")),
        color=alt.Color("of:N", title="Of"),
        column=alt.Column("stage:N", title=None, sort="descending"),
        row=alt.Row("sheet:N", title=None, sort=SHEETS),
    )
    return drawn


def figure_18(found: pl.DataFrame) -> Chart:
    """Return the time of a decode step by batch, streamed to the device or computed on the host."""
    names = {"streamed_s": "streamed to the device", "host_s": "computed on the host"}
    told = found.rename(names).unpivot(
        list(names.values()), index=["sheet", "batch"], variable_name="where", value_name="time_s"
    )
    return _lines(told, "batch", "Batch", "time_s", "Time of a step (s)", "where", "Figure 18: offloading", log=True)


def figure_19(found: pl.DataFrame) -> Chart:
    """Return latency and throughput by batch, a line for each length."""
    told = found.with_columns(length=pl.format("{} tokens", pl.col("input_len").cast(pl.Int64)))
    order = [f"{n:.0f} tokens" for n in sorted(told["input_len"].unique())]
    drawn = [
        _lines(told, "batch", "Batch", y, title, "length", None, order=order)
        for y, title in (("time_s", "Latency of a step (s)"), ("tokens_per_s", "Tokens per second"))
    ]
    return alt.vconcat(*drawn, title="Figure 19: serving by batch and length")


def figure_20(found: pl.DataFrame) -> Chart:
    """Return the time of a decode step by bandwidth."""
    return _lines(
        found,
        "bandwidth_bytes_per_s",
        "Bandwidth (B/s)",
        "time_s",
        "Time of a step (s)",
        None,
        "Figure 20: decode by bandwidth",
    )


def _question() -> pl.Expr:
    return pl.format("batch {}, {} tokens", pl.col("batch").cast(pl.Int64), pl.col("input_len").cast(pl.Int64))


def _named(found: pl.DataFrame) -> pl.DataFrame:
    """Return rows with their formats as one name: W4A16KV4."""
    bits = [pl.col(f"{r}_format").str.extract(r"(\d+)") for r in ("weight", "activation", "kv")]
    return found.with_columns(formats=pl.format("W{}A{}KV{}", *bits))


def _lines(
    found: pl.DataFrame,
    x: str,
    x_title: str,
    y: str,
    y_title: str,
    by: str | None,
    title: str | None,
    log: bool = False,
    order: list[str] | None = None,
) -> alt.Chart:
    scale = alt.Scale(type="log" if log else "linear")
    base = alt.Chart(found, width=WIDTH, height=HEIGHT, title=title or alt.Undefined)
    drawn: alt.Chart = base.mark_line(point=log).encode(
        x=alt.X(f"{x}:Q", title=x_title, scale=scale, axis=alt.Axis(format="~s", tickCount=6)),
        y=alt.Y(f"{y}:Q", title=y_title, scale=scale, axis=SECONDS),
        color=alt.Color(f"{by}:N", title=None, sort=order or alt.Undefined) if by else alt.Undefined,
        column=alt.Column("sheet:N", title=None, sort=SHEETS),
    )
    return drawn


CHARTS: dict[str, Callable[[pl.DataFrame], Chart]] = {
    chart.__name__: chart
    for chart in (
        table_1, figure_5, figure_6, figure_7, figure_8, figure_9, figure_11, figure_15, figure_16, figure_18,
        figure_19, figure_20,
    )
}  # fmt: skip
"""Name of the query and of its chart."""
