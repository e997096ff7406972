"""The survey's tables and figures as charts: pure functions from what the queries of ``sql/survey`` give."""

from __future__ import annotations

from collections.abc import Callable

import altair as alt
import polars as pl

from calc.charts import Chart, roofline

SHEETS = ["llm_viewer", "exact"]
"""The paper's accounting first, then what is physically exact."""
WIDTH, HEIGHT = 320, 240
SECONDS, BYTES = alt.Axis(format="~s"), alt.Axis(format="~s")
DECADES = alt.Axis(values=[10.0**p for p in range(-1, 5)], format="~g")
WIDE_FIRST = ["fp16", "int8", "int4", "int2", "int1"]


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
        xOffset=alt.XOffset("of:N"),
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
