"""How does a figure change with batch, length, bits, bandwidth or devices? One line per model, device or technique."""

from __future__ import annotations

import math
from itertools import combinations, pairwise

import polars as pl
import streamlit as st

from calc import charts
from calc.calibration.applied import IDEAL
from calc.calibration.expected import COLUMN, ERROR_OF, MEDIAN, P90, errors_of_lines
from calc.display import inside, quantities, quantity
from calc.errors import CalcError
from calc.questions import stack_of
from calc.ui import answers, session, share
from calc.ui.answers import Question, Word
from calc.ui.question import calibrations, choose, device_names

POINTS = 40
FACTOR = "bandwidth_factor"
BITS = ("weight_format", "kv_format")
"""What x may be, besides numbers: formats, in order of their bits."""
FORMATS = ("int1", "int2", "int3", "int4", "fp6", "int8", "fp16", "fp32")
X = ("batch", "input_len", "output_len", "cached_len", "tp", "pp", *BITS, FACTOR)
MOST = {"batch": 256, "input_len": 131072, "output_len": 8192, "cached_len": 131072, "tp": 16, "pp": 16, FACTOR: 8}
DOUBLED = ("tp", "pp")
"""What grows by doubling only."""
SERVING = (
    "ttft_s", "tpot_s", "e2e_s", "output_tokens_per_s", "output_tokens_per_s_per_device", "tokens_per_s_per_user",
    "usd_per_million_output_tokens", "energy_j_per_token", "memory_needed_bytes", "kv_cache_bytes", "mfu", "mbu",
)  # fmt: skip
STAGES = ("time_s", "ops", "memory_bytes", "arithmetic_intensity", "attainable_ops_per_s")
BY = {"model_id": "Model", "hardware_id": "Device", "precision": "Precision", "technique": "Technique",
      "calibration": "Calibration"}  # fmt: skip
LINES = 6


def page() -> None:
    """Draw the page."""
    st.header("Curves")
    try:
        with st.sidebar:
            question = choose()
        x, y, by, values, logs, most = _controls(question)
        if not values:
            st.info(f"Choose at least one {BY[by].lower()} to draw a line for.", icon=":material/show_chart:")
            return
        found = _found(question, x, y, by, values, most, logs[0])
    except CalcError as error:
        st.error(str(error), title="This question has no answer", icon=":material/error:")
        return
    _drawn(question, found, x, y, by, values, logs)


def _controls(question: Question) -> tuple[str, str, str, list[str], tuple[bool, bool], float]:
    words = _words()
    with st.grid(4, min_column_width=190, vertical_alignment="bottom"):
        x = st.selectbox("Over", X, key="x", bind="query-params", format_func=lambda c: words[c].label)
        most = float(
            st.number_input(
                "Up to", min_value=2, value=MOST[x], key=f"most_{x}", bind="query-params", max_value=100_000_000
            ) if x in MOST else 0
        )  # fmt: skip
        y = st.selectbox(
            "Figure", [*SERVING, *(f"stage {c}" for c in STAGES)], key="y", bind="query-params",
            format_func=lambda c: f"{words[c].label}, by stage" if c.startswith("stage ") else words[c].label,
        )  # fmt: skip
        with st.container(horizontal=True):
            logs = tuple(
                st.toggle(f"Log {axis}", value=True, key=f"log_{axis}", bind="query-params") for axis in ("x", "y")
            )
    by = st.segmented_control(
        "A line for each", list(BY), default="precision", required=True, key="by", bind="query-params",
        format_func=lambda c: BY[c],
    )  # fmt: skip
    return x, y, str(by), _lines(question, str(by)), (bool(logs[0]), bool(logs[1])), most


def _lines(question: Question, by: str) -> list[str]:
    """Draw the choice of lines; the question's own is the first of them until others are chosen."""
    tables = session.tables()
    own = str(question[by] or "")
    if by == "model_id":
        options = answers.models()["model_id"].to_list()
    elif by == "hardware_id":
        ids = device_names()
        names = st.multiselect(
            "Devices", list(ids), default=[n for n, i in ids.items() if i == own], key="line_hardware",
            bind="query-params", max_selections=LINES,
        )  # fmt: skip
        return [ids[n] for n in names]
    elif by == "precision":
        options = tables["precisions"]["precision_id"].to_list()
    elif by == "calibration":
        options = calibrations()
    else:
        options = ["none", *tables["techniques"]["technique_id"]]
    default = {
        "precision": [own, "w8a8kv8", "w4a16kv16"],
        "calibration": options[:2],
        "technique": ["none", *tables["techniques"].filter(group="compression")["technique_id"].head(1)],
    }.get(by, [own])
    usual = list(dict.fromkeys(v for v in default if v in options))
    chosen: list[str] = st.multiselect(
        BY[by] + "s" if by != "technique" else "Techniques, each beside those of the sidebar", options, default=usual,
        key=f"line_{by}", bind="query-params", max_selections=LINES,
    )  # fmt: skip
    return chosen


def _values(x: str, most: float, is_log: bool) -> tuple[object, ...]:
    if x in BITS:
        known = session.tables()["formats"]["format_id"].to_list()
        return tuple(f for f in FORMATS if f in known)
    if x in DOUBLED:
        return tuple(2**p for p in range(int(math.log2(most)) + 1))
    if x == FACTOR:
        return tuple(most ** (k / (POINTS - 1) * 2 - 1) for k in range(POINTS))
    least = 1 if x == "batch" else 16
    if is_log:
        steps = (least * (most / least) ** (k / (POINTS - 1)) for k in range(POINTS))
    else:
        steps = (least + (most - least) * k / (POINTS - 1) for k in range(POINTS))
    return tuple(dict.fromkeys(max(1, round(v)) for v in steps))


def _found(question: Question, x: str, y: str, by: str, values: list[str], most: float, is_log: bool) -> pl.DataFrame:
    """Return a row per line, x and, for figures of a stage, stage: ``line``, ``x``, ``y``, ``stage``, ``shown``.

    Of a calibrated figure the errors to be expected, and between what half of the measurements near it lie.
    """
    stage = y.startswith("stage ")
    column = y.removeprefix("stage ")
    base = question.but(**{x: None, by: None})
    stack = stack_of(str(question["technique"] or ""))
    if by == "technique":
        lines: list[object] = ["+".join([*stack, *([v] if v != "none" else [])]) or None for v in values]
    else:
        lines = list(values)
    axes: dict[str, tuple[object, ...]] = {c: (v,) for c, v in base.scenario}
    axes |= {by: tuple(lines), x: _values(x, most, is_log)}
    if x == FACTOR:
        told = (str(t or "") for t in axes.get("technique", ("",)))
        axes["technique"] = tuple("+".join(p for p in (t, *answers.technique_with(FACTOR)) if p) for t in told)
        lines = list(axes["technique"]) if by == "technique" else lines
    predicted = None if stage else ERROR_OF.get(column)
    errors = [f"{predicted}_{e}" for e in (MEDIAN, P90)] if predicted else []
    found = answers.ask_many(
        tuple(axes.items()), "stage" if stage else "serving", question.sheet,
        (*(("stage",) if stage else ()), column, "reason", *errors),
    )  # fmt: skip
    names = dict(zip(lines, (_name(by, v) for v in values), strict=True))
    unit = _words()[y].unit
    at = pl.col(x).replace_strict(_bits(), return_dtype=pl.Float64) if x in BITS else pl.col(x).cast(pl.Float64)
    return found.select(
        line=pl.col(by).replace_strict(names, return_dtype=pl.String),
        x=at, y=pl.col(column), stage=pl.col("stage") if stage else pl.lit(""), reason="reason",
        shown=quantities(found[column], unit),
        **_expected(found, column, errors),
    )  # fmt: skip


def _expected(found: pl.DataFrame, column: str, errors: list[str]) -> dict[str, pl.Expr]:
    """Return what is to be expected of the points of a calibrated figure; nothing of the roofline's."""
    if not errors or errors[0] not in found.columns:
        return {}
    ideal = pl.col(COLUMN).is_in(["", IDEAL]).fill_null(value=True)
    error = pl.col(errors[0])
    return {
        MEDIAN: error, P90: pl.col(errors[1]), "is_calibrated": ~ideal,
        "low": pl.col(column) / (1 + error), "high": pl.col(column) * (1 + error),
    }  # fmt: skip


def _bits() -> dict[str, float]:
    return dict(session.tables()["formats"].select("format_id", "bits").iter_rows())


def _name(by: str, value: str) -> str:
    if by == "hardware_id":
        return next(n for n, i in device_names().items() if i == value)
    return value.rpartition("/")[2] if by == "model_id" else value


def _words() -> dict[str, Word]:
    found = answers.words("scenarios") | answers.words("serving")
    found |= {f"stage {c}": word for c, word in answers.words("stages").items()}
    found["weight_format"] = Word("Bits of a weight", "bit")
    found["kv_format"] = Word("Bits of a cached number", "bit")
    found[FACTOR] = Word("Memory bandwidth, times the device's")
    return found


def _drawn(
    question: Question, found: pl.DataFrame, x: str, y: str, by: str, values: list[str], logs: tuple[bool, bool]
) -> None:
    words = _words()
    known = found.drop_nulls("y")
    if logs[1]:
        known = known.filter(pl.col("y") > 0)
    reasons = found.filter(pl.col("y").is_null()).group_by("line", "reason", maintain_order=True).len()
    titles = (words[x].label, f"{words[y].label} ({words[y].unit})" if words[y].unit else words[y].label)
    asked = question.but(**{x: None, by: None}).told()
    code = _python(asked, x, y, by, values, found["x"].unique().sort().to_list())
    stages = known["stage"].unique(maintain_order=True).to_list()
    if known.is_empty():
        st.info("No line can be drawn: " + "; ".join(f"{a}: {b}" for a, b, _ in reasons.iter_rows()))
        return
    for stage in stages:
        mine = known.filter(stage=stage)
        crossings = crossed(mine, logs, words[y].unit)
        drawn = charts.curves(mine, "x", "y", titles, logs, crossings)
        title = f"{words[y].label} over {inside(titles[0])}" + (f", {stage}" if stage else "")
        share.section(title, f"curves-{stage or 'serving'}", mine, drawn, texts={"python": code})
        share.draw(drawn, key=f"curves-{stage}", alt=title)
        for told in crossings["told"]:
            st.caption(f":material/close: {told}")
    for told in errors_of_lines(known.filter("is_calibrated")) if "is_calibrated" in known.columns else ():
        st.caption(f":material/target: {told}. Half of the measurements near lie in the band.")
    for line, reason, n in reasons.iter_rows():
        st.caption(f":material/help: {line}: {n} points are unknown ({reason})")


def crossed(found: pl.DataFrame, logs: tuple[bool, bool], unit: str) -> pl.DataFrame:
    """Return where lines cross between two of their points: ``x``, ``y``, ``told``; as straight lines are drawn."""
    lines = {str(line): rows.sort("x") for (line,), rows in found.group_by("line", maintain_order=True)}
    rows = []
    scales = [(math.log, math.exp) if is_log else (float, float) for is_log in logs]
    for (one, a), (other, b) in combinations(lines.items(), 2):
        both = a.select("x", first="y").join(b.select("x", second="y"), on="x").sort("x")
        points = [
            (scales[0][0](x), scales[1][0](v), scales[1][0](w)) for x, v, w in both.iter_rows() if x > 0 or not logs[0]
        ]
        for (x0, v0, w0), (x1, v1, w1) in pairwise(points):
            # a point that two lines share counts once: for the step that it ends
            if (v0 - w0) * (v1 - w1) < 0 or (v1 == w1 and v0 != w0):
                share_of = (v0 - w0) / ((v0 - w0) - (v1 - w1))
                at, height = scales[0][1](x0 + share_of * (x1 - x0)), scales[1][1](v0 + share_of * (v1 - v0))
                rows.append((at, height, f"{one} and {other} cross at {at:.4g}: {quantity(height, unit)}"))
    schema = {"x": pl.Float64, "y": pl.Float64, "told": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _python(
    asked: dict[str, str | int | float], x: str, y: str, by: str, values: list[str], places: list[float]
) -> str:
    column = y.removeprefix("stage ")
    lists = "".join(f"    {c}={v!r},\n" for c, v in asked.items() if c != by)
    spots = list(FORMATS) if x in BITS else [int(v) if v == int(v) else v for v in places]
    lines = [None if v == "none" else v for v in values]
    scaled = f"    technique={answers.technique_with(x)[0]!r},\n" if x == FACTOR and by != "technique" else ""
    grain = "stage" if y.startswith("stage ") else "serving"
    return (
        f"import calc\n\ngrid = calc.scenarios(\n{lists}{scaled}    {by}={lines!r},\n    {x}={spots!r},\n)\n"
        f'calc.evaluate(grid, by="{grain}").select("{by}", "{x}", "{column}").collect()'
    )
