"""Figures of the dashboard's pages: pure functions from a frame to an Altair chart."""

from __future__ import annotations

import math

import altair as alt
import polars as pl

from calc.display import quantities, quantity

QUIET = "#7d8b97"
"""Ceilings and their labels: readable on a light and on a dark page."""
SHARES = [40, 1100]
"""Areas, in square pixels, of operators that take nothing and all of their stage's time."""

PICK = "picked"
"""Name of the selection that a click makes."""
TOLD = (
    "Operator", "Part", "Stage", "Count", "Operations", "Memory traffic", "Intensity", "Time", "Share of stage",
    "Bound",
)  # fmt: skip
"""What a point's tooltip says."""
PLACED = (pl.col("arithmetic_intensity") > 0) & (pl.col("attainable_ops_per_s") > 0)
"""Operators that have a place on the roofline: they compute, and their time is known."""
PLAIN = ("Bars", "Lines", "Points")
"""Charts of any table."""
Chart = alt.LayerChart | alt.Chart | alt.HConcatChart | alt.VConcatChart


def roofline(operators: pl.DataFrame, bandwidth: float, by: str = "Part", pick: bool = False) -> alt.LayerChart:
    """Return the log-log roofline: memory and compute ceilings, and a point per operator and stage.

    ``operators`` are rows of the operator grain with ``share``, the part of its stage's time that an operator takes;
    ``bandwidth`` is the device's, in bytes per second; ``by`` is what ``part`` tells apart. Rows without operations
    have no place on the chart. With ``pick`` a click selects a point, as ``PICK``.
    """
    placed = operators.filter(PLACED)
    peaks = ceilings(operators, bandwidth)
    reached = [*placed["arithmetic_intensity"], *peaks["ridge"]]
    rates = [*placed["attainable_ops_per_s"], *peaks["peak_ops_per_s"]]
    left, right = min(reached, default=1) / 2, max(reached, default=1) * 4
    low, high = min(rates, default=1) / 2, max(rates, default=1) * 2
    x_axis = alt.X(
        "arithmetic_intensity:Q", title="Arithmetic intensity (OP/B)",
        scale=alt.Scale(type="log", domain=[left, right], nice=False), axis=decades(left, right, "~g"),
    )  # fmt: skip
    y_axis = alt.Y(
        "attainable_ops_per_s:Q", title="Attainable (OP/s)",
        scale=alt.Scale(type="log", domain=[low, high], nice=False), axis=decades(low, high, "~s"),
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
    # axes are every layer's: one says how they are, for each copies all that it says several times over
    x, y = alt.X("arithmetic_intensity:Q"), alt.Y("attainable_ops_per_s:Q")
    memory_ceiling = alt.Chart(memory, mark=line).encode(x=x_axis, y=y_axis)
    compute_ceilings = alt.Chart(flat, mark=line).encode(x=x, y=y, detail=alt.Detail("name:N"))
    ceiling_labels = (
        alt.Chart(named).mark_text(align="right", baseline="bottom", dx=-8, dy=-3, fontSize=12, color=QUIET)
        .encode(x=x, y=y, text=alt.Text("name:N"))
    )  # fmt: skip
    # below the diagonal, where a narrow screen leaves more room than between it and the axis
    bandwidth_label = (
        alt.Chart(bandwidth_name).mark_text(align="left", baseline="top", dx=10, dy=4, fontSize=12, color=QUIET)
        .encode(x=x, y=y, text=alt.Text("name:N"))
    )  # fmt: skip
    parts = placed["part"].unique(maintain_order=True).to_list()
    stages = placed["stage"].unique(maintain_order=True).to_list()
    points = (
        alt.Chart(_told(placed)).mark_point(filled=True, opacity=0.75, strokeWidth=1, clip=True)
        .encode(
            x=x,
            y=y,
            color=alt.Color("part:N", title=by, scale=alt.Scale(domain=parts), sort=parts),
            shape=alt.Shape("stage:N", title="Stage", sort=stages, legend=alt.Legend(symbolFillColor=QUIET),
                            scale=alt.Scale(domain=stages, range=["circle", "triangle-up", "square"][: len(stages)])),
            size=alt.Size("share:Q", legend=None, scale=alt.Scale(domain=[0, 1], range=SHARES)),
            order=alt.Order("share:Q", sort="descending"),
            tooltip=[alt.Tooltip(f"{c}:N", title=c) for c in TOLD],
        )
    )  # fmt: skip
    if pick:
        points = points.add_params(alt.selection_point(name=PICK, fields=["stage", "part", "operator"]))
    layers = [memory_ceiling, compute_ceilings, ceiling_labels, bandwidth_label, points]
    legend = alt.LegendConfig(orient="bottom-right", symbolStrokeWidth=0)
    return alt.LayerChart(layer=layers, height=400, config=alt.Config(legend=legend))


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
    peaks = pl.concat([matrix, own]).group_by("peak_ops_per_s", maintain_order=True).agg(pl.col("unit").str.join(", "))
    return peaks.select(
        pl.format("{} {}", "unit", quantities(peaks["peak_ops_per_s"], "op/s")).alias("name"),
        "peak_ops_per_s",
        (pl.col("peak_ops_per_s") / bandwidth).alias("ridge"),
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


def decades(low: float, high: float, form: str) -> alt.Axis:
    """Return an axis with a line and a number at each power of ten."""
    powers = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
    return alt.Axis(values=[10.0**p for p in powers], format=form, grid=True)


def memory_bar(held: pl.DataFrame, capacity: float) -> alt.LayerChart:
    """Return what fills a device's memory as one stacked bar, with its capacity as a line.

    ``held`` has a row per ``item`` with its ``held_bytes``, in the order in which they are stacked.
    """
    items = held["item"].to_list()
    end = pl.col("held_bytes").cum_sum()
    told = held.with_columns(
        end=end,
        start=end - pl.col("held_bytes"),
        size=quantities(held["held_bytes"], "byte"),
    )
    x = alt.X("start:Q", title=None, axis=alt.Axis(format="~s", tickCount=6), scale=alt.Scale(zero=True))
    bar = alt.Chart(told).mark_bar(height=26).encode(
        x=x, x2=alt.X2("end:Q"), tooltip=[alt.Tooltip("item:N", title="Held by"), alt.Tooltip("size:N", title="Size")],
        color=alt.Color("item:N", title=None, scale=alt.Scale(domain=items), sort=items,
                        legend=alt.Legend(orient="bottom", columns=2, labelLimit=300)),
    )  # fmt: skip
    full = pl.DataFrame({"start": [capacity], "name": [f"capacity {_bytes(capacity)}"]})
    line = alt.Chart(full).mark_tick(thickness=3, size=40, color=QUIET).encode(x=x, tooltip=alt.Tooltip("name:N"))
    named = alt.Chart(full).mark_text(align="right", dx=-6, color=QUIET, fontSize=12)
    text = named.encode(x=x, text=alt.Text("name:N"))
    return alt.LayerChart(layer=[bar, line, text], height=115)


def _bytes(value: float) -> str:
    return quantity(value, "byte")


def time_bars(operators: pl.DataFrame, most: int = 15) -> alt.Chart:
    """Return the operators that take the most of a stage's time, a bar for each stage; a click picks one.

    ``operators`` are rows of the operator grain with ``all_s`` and ``share``.
    """
    timed = operators.filter(pl.col("all_s") > 0)
    named = timed.with_columns(name=pl.format("{} · {}", "operator", "part"), time=quantities(timed["all_s"], "s"))
    largest = named.group_by("name", maintain_order=True).agg(pl.col("share").max())
    order = largest.sort("share", descending=True, maintain_order=True).head(most)["name"].to_list()
    stages = named["stage"].unique(maintain_order=True).to_list()
    shown = named.filter(pl.col("name").is_in(order))
    drawn: alt.Chart = (
        alt.Chart(shown.select("stage", "part", "operator", "name", "bound", "share", "time"))
        .mark_bar(cursor="pointer")
        .encode(
            x=alt.X("share:Q", title="Share of the stage's time", axis=alt.Axis(format="%", tickCount=5)),
            y=alt.Y("name:N", title=None, sort=order, axis=alt.Axis(labelLimit=190)),
            yOffset=alt.YOffset("stage:N", sort=stages),
            color=alt.Color("stage:N", title=None, sort=stages, scale=alt.Scale(domain=stages),
                            legend=alt.Legend(orient="top")),
            tooltip=[alt.Tooltip("operator:N", title="Operator"), alt.Tooltip("part:N", title="Part"),
                     alt.Tooltip("stage:N", title="Stage"), alt.Tooltip("time:N", title="Time"),
                     alt.Tooltip("share:Q", title="Share", format=".2%"), alt.Tooltip("bound:N", title="Bound")],
        )
        .add_params(alt.selection_point(name=PICK, fields=["stage", "part", "operator"]))
        .properties(height=alt.Step(13, **{"for": "offset"}))
    )  # fmt: skip
    return drawn


def curves(
    found: pl.DataFrame, x: str, y: str, titles: tuple[str, str], logs: tuple[bool, bool], crossings: pl.DataFrame
) -> alt.LayerChart:
    """Return one line for each ``line`` of ``found`` over ``x``, with the points where two lines cross.

    ``titles`` and ``logs`` are of x and y; ``crossings`` has columns ``x``, ``y`` and ``told``. Where ``found`` has
    ``low`` and ``high``, the line lies in a band between them.
    """
    order = found["line"].unique(maintain_order=True).to_list()
    axes = [
        kind(f"{column}:Q", title=title, scale=alt.Scale(type="log" if log else "linear", zero=False),
             axis=alt.Axis(format="~s", tickCount=8))
        for kind, column, title, log in zip((alt.X, alt.Y), (x, y), titles, logs, strict=True)
    ]  # fmt: skip
    color = alt.Color(
        "line:N", title=None, sort=order, scale=alt.Scale(domain=order),
        legend=alt.Legend(
            orient="bottom", columns=1 if len(order) > 3 else 0, labelLimit=600, symbolOpacity=1
        ),
    )  # fmt: skip
    lines = alt.Chart(found).mark_line(point=alt.OverlayMarkDef(size=45)).encode(
        x=axes[0], y=axes[1], color=color,
        tooltip=[alt.Tooltip("line:N", title="Line"), alt.Tooltip(f"{x}:Q", title=titles[0], format=",.4~g"),
                 alt.Tooltip("shown:N", title=titles[1])],
    )  # fmt: skip
    marks = alt.Chart(crossings).mark_point(shape="diamond", size=150, filled=True, color=QUIET).encode(
        x=alt.X("x:Q"), y=alt.Y("y:Q"), tooltip=[alt.Tooltip("told:N", title="Crossing")],
    )  # fmt: skip
    layers: list[alt.Chart] = [lines, marks] if crossings.height else [lines]
    if "low" in found.columns:
        band = alt.Chart(found.drop_nulls("low")).mark_area(opacity=0.18)
        layers.insert(0, band.encode(x=axes[0], y=alt.Y("low:Q").title(titles[1]), y2="high:Q", color=color))
    return alt.LayerChart(layer=layers, height=420)


def front(found: pl.DataFrame, x: str, y: str, titles: tuple[str, str], name: str) -> alt.LayerChart:
    """Return configurations as points and those that none beats as a line through their own.

    ``found`` has ``is_on_front``, ``told`` and the column ``name``, by which points on the front are coloured.
    """
    log, axis = alt.Scale(type="log", zero=False), alt.Axis(format="~s", tickCount=6)
    axes = [
        kind(f"{column}:Q", title=title, scale=log, axis=axis)
        for kind, column, title in zip((alt.X, alt.Y), (x, y), titles, strict=True)
    ]  # fmt: skip
    best = found.filter("is_on_front").sort(x)
    order = best[name].unique(maintain_order=True).to_list()
    tooltip = [alt.Tooltip("told:N", title="Deployment"), *(
        alt.Tooltip(f"{c}:Q", title=t, format=".4~g") for c, t in zip((x, y), titles, strict=True)
    )]  # fmt: skip
    others = alt.Chart(found.filter(~pl.col("is_on_front"))).mark_circle(size=18, opacity=0.35, color=QUIET)
    line = alt.Chart(best).mark_line(color=QUIET, strokeWidth=1.5)
    points = alt.Chart(best).mark_point(size=90, filled=True, opacity=1)
    layers = [
        others.encode(x=axes[0], y=axes[1], tooltip=tooltip),
        line.encode(x=axes[0], y=axes[1]),
        points.encode(
            x=axes[0], y=axes[1], tooltip=tooltip,
            color=alt.Color(f"{name}:N", title=None, sort=order, legend=alt.Legend(orient="bottom", labelLimit=400)),
        ),
    ]  # fmt: skip
    return alt.LayerChart(layer=layers, height=420)


def waterfall(steps: pl.DataFrame, title: str) -> alt.LayerChart:
    """Return how a figure changes from step to step: whole bars at both ends, what each step adds or takes between.

    ``steps`` has ``step``, ``start``, ``end``, ``kind`` (whole, better or worse) and ``shown``, in order.
    """
    order = steps["step"].to_list()
    kinds = ["whole", "better", "worse"]
    base = alt.Chart(steps).encode(
        x=alt.X("step:N", title=None, sort=order, axis=alt.Axis(labelAngle=-25, labelLimit=180)),
        tooltip=[alt.Tooltip("step:N", title="Step"), alt.Tooltip("shown:N", title=title)],
    )
    bars = base.mark_bar(size=34).encode(
        y=alt.Y("start:Q", title=title, axis=alt.Axis(format="~s")), y2=alt.Y2("end:Q"),
        color=alt.Color("kind:N", title=None, scale=alt.Scale(domain=kinds, range=[QUIET, "#3f8f4f", "#c2445f"]),
                        legend=alt.Legend(orient="bottom")),
    )  # fmt: skip
    text = base.mark_text(dy=-8, fontSize=12, color=QUIET).encode(y=alt.Y("top:Q"), text=alt.Text("shown:N"))
    return alt.LayerChart(layer=[bars, text], height=380)


def relative(found: pl.DataFrame) -> alt.Chart:
    """Return figures of scenarios as multiples of the first's: ``figure``, ``scenario``, ``times``, ``shown``."""
    order = found["figure"].unique(maintain_order=True).to_list()
    names = found["scenario"].unique(maintain_order=True).to_list()
    drawn: alt.Chart = alt.Chart(found, height=alt.Step(14, **{"for": "offset"})).mark_bar().encode(
        x=alt.X("times:Q", title="Times that of A", axis=alt.Axis(format="~g", tickCount=6)),
        y=alt.Y("figure:N", title=None, sort=order, axis=alt.Axis(labelLimit=230)),
        yOffset=alt.YOffset("scenario:N", sort=names),
        color=alt.Color("scenario:N", title=None, sort=names, scale=alt.Scale(domain=names),
                        legend=alt.Legend(orient="top")),
        tooltip=[alt.Tooltip("scenario:N", title="Scenario"), alt.Tooltip("figure:N", title="Figure"),
                 alt.Tooltip("shown:N", title="Value"), alt.Tooltip("times:Q", title="Times that of A", format=".3~g")],
    )  # fmt: skip
    return drawn


def plain(found: pl.DataFrame, kind: str, x: str, y: str, by: str | None) -> alt.Chart:
    """Return one of the ``PLAIN`` charts of a table, of column ``y`` over ``x``, coloured by ``by``."""

    def typed(column: str) -> str:
        escaped = column.replace("\\", "\\\\").replace(".", "\\.").replace(":", "\\:").replace("[", "\\[")
        return f"{escaped}:{'Q' if found[column].dtype.is_numeric() else 'N'}"

    base = alt.Chart(found, height=380)
    marked = {"Bars": base.mark_bar, "Lines": base.mark_line, "Points": base.mark_circle}[kind]()
    across = f"{typed(x).rpartition(':')[0]}:N" if kind == "Bars" else typed(x)
    drawn: alt.Chart = marked.encode(
        x=alt.X(across, sort=None, title=x), y=alt.Y(typed(y), axis=alt.Axis(format="~s"), title=y),
        color=alt.Color(typed(by), title=by) if by else alt.Undefined,
        tooltip=[alt.Tooltip(typed(c), title=c) for c in found.columns[:8]],
    )  # fmt: skip
    return drawn
