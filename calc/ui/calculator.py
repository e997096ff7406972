"""The first page: one question, its headline figures, its roofline, its operators and their formulas."""

from __future__ import annotations

from functools import partial
from typing import Any

import polars as pl
import streamlit as st

from calc import charts
from calc.display import capacity, quantity
from calc.errors import CalcError
from calc.ui import answers
from calc.ui.answers import Place, Question, Word
from calc.ui.formula_bar import formula_bar, go_to
from calc.ui.question import choose
from calc.ui.tables import as_read

HEADLINES = ("ttft_s", "tpot_s", "e2e_s", "output_tokens_per_s", "weight_memory_bytes", "kv_cache_bytes")
"""Figures of the whole answer at the top. What a sheet does not have is left out."""
UTILISATIONS = {"prefill": "mfu", "decode": "mbu"}
"""What a stage should come near to, under what it is bound by."""
OPERATOR_CELLS = (
    "count", "ops", "memory_bytes", "arithmetic_intensity", "compute_format", "peak_ops_per_s", "attainable_ops_per_s",
    "time_s", "bound",
)  # fmt: skip
CELL_OF = {"all_s": "time_s", "share": "time_s", "stage": "time_s", "part": "time_s", "operator": "time_s"}
"""Columns of the table that are no cell of their own, and whose formula they show."""
TABLE_HEIGHT = 430
"""Pixels: a click deep in the table leaves the formula bar in view."""


def page() -> None:
    """Draw the page."""
    try:
        question = choose()
        if question["model_id"] is None or question["hardware_id"] is None:
            st.info("Choose a model and a device in the sidebar.", icon=":material/arrow_back:")
            return
        serving, stages = answers.ask(question, "serving"), answers.ask(question, "stage")
        operators = _with_shares(answers.ask(question, "operator"), stages)
    except CalcError as error:
        st.error(str(error), title="This question has no answer", icon=":material/error:")
        return
    _heading(question, serving)
    _headlines(serving, stages)
    _caveats(serving, stages)
    _roofline(question, operators)
    _operators(question, operators, stages, serving)


def _with_shares(operators: pl.DataFrame, stages: pl.DataFrame) -> pl.DataFrame:
    """Return the operators with the time of all instances and its share of the stage's."""
    total = stages.select("stage", stage_s="time_s")
    return operators.join(total, on="stage", how="left", maintain_order="left").with_columns(
        all_s=pl.col("count") * pl.col("time_s"),
        share=pl.col("count") * pl.col("time_s") / pl.when(pl.col("stage_s") > 0).then(pl.col("stage_s")),
    )


def _heading(question: Question, serving: pl.DataFrame) -> None:
    device = answers.hardware().row(by_predicate=pl.col("hardware_id") == question["hardware_id"], named=True)
    model = answers.models().row(by_predicate=pl.col("model_id") == question["model_id"], named=True)
    count = serving["n_devices"][0] if "n_devices" in serving.columns else 1
    many = f"{count:.0f} × " if count > 1 else ""
    st.header(f"{str(question['model_id']).rpartition('/')[2]} on {many}{device['name']}")
    facts = answers.words("hardware")
    told = [f"{quantity(model['n_parameters'])} parameters"] + [
        f"{facts[c].label.lower()} {shown}"
        for c, shown in (
            ("memory_bandwidth_bytes_per_s", quantity(device["memory_bandwidth_bytes_per_s"], "byte/s")),
            ("memory_capacity_bytes", capacity(device["memory_capacity_bytes"])),
        )
        if device[c] is not None
    ]
    st.caption(" · ".join(told))


def _headlines(serving: pl.DataFrame, stages: pl.DataFrame) -> None:
    words = answers.words("serving")
    with st.grid(4, min_column_width=160, gap=("small", "xsmall")):
        for cell in HEADLINES:
            if cell in serving.columns:
                st.metric(words[cell].label, quantity(serving[cell][0], words[cell].unit), help=words[cell].description)
        for row in stages.iter_rows(named=True):
            _bound(row)


def _bound(row: dict[str, object]) -> None:
    words = answers.words("stages")
    word = words.get(UTILISATIONS.get(str(row["stage"]), ""))
    used = row.get(UTILISATIONS.get(str(row["stage"]), ""))
    st.metric(
        f"{str(row['stage']).capitalize()} is bound by", quantity(row["bound"]),
        f"{used:.1%}" if isinstance(used, float) else None, delta_color="off", delta_arrow="off",
        delta_description=word.label if word and isinstance(used, float) else None,
        help=f"{words['bound'].description}. {word.description if word and isinstance(used, float) else ''}",
    )  # fmt: skip


def _caveats(serving: pl.DataFrame, stages: pl.DataFrame) -> None:
    """Say what is unknown or does not fit; a price that is not known leaves the rest as it is."""
    reasons, said = _told(stages, "reason"), _told(serving, "reason")
    if reasons:
        st.warning("\n\n".join(reasons), title="Some figures are unknown", icon=":material/help:")
    elif "fits" in serving.columns and serving["fits"][0] is False:
        row = serving.row(0, named=True)
        missing = f"{quantity(row['shortfall_bytes'], 'byte')} are missing"
        enough = f"; {row['min_devices']:.0f} devices would hold it all" if row["min_devices"] else ""
        why = f"{said[0][:1].upper()}{said[0][1:]}. {missing}{enough}."
        st.warning(why, title="It does not fit", icon=":material/memory:")
    elif said:
        st.caption(f":material/help: Unknown: {'; '.join(said)}")
    assumed = _told(stages, "assumed")
    if assumed:
        st.caption(f":material/info: Assumed: {'; '.join(assumed)}")


def _told(frame: pl.DataFrame, column: str) -> list[str]:
    """Return what a column of texts says, each once."""
    return list(dict.fromkeys(frame[column].drop_nulls())) if column in frame.columns else []


def _roofline(question: Question, operators: pl.DataFrame) -> None:
    st.subheader("Roofline")
    device = answers.hardware().row(by_predicate=pl.col("hardware_id") == question["hardware_id"], named=True)
    bandwidth = device["memory_bandwidth_bytes_per_s"]
    placed = operators.filter(pl.col("arithmetic_intensity") > 0, pl.col("attainable_ops_per_s") > 0)
    if bandwidth is None or placed.is_empty():
        why = "; ".join(_told(operators, "reason")) or "no operator takes any time"
        st.info(f"No roofline: {why}.")
        return
    chart = charts.roofline(operators, bandwidth)
    st.altair_chart(chart, key="roofline", alt="Roofline with the operators of both stages")
    st.caption(f"A point is an operator; its area is its share of the stage's time. {_left_out(operators, placed)}")


def _left_out(operators: pl.DataFrame, placed: pl.DataFrame) -> str:
    """Return which operators the roofline cannot place, and why."""
    missing = operators.join(placed, on=["stage", "part", "operator"], how="anti", maintain_order="left")
    idle = (pl.col("ops") == 0).fill_null(False)
    told = (("they compute nothing", idle), ("their time is unknown", ~idle))
    named = ((why, missing.filter(which)["operator"].unique(maintain_order=True)) for why, which in told)
    return " ".join(f"Not shown, as {why}: {', '.join(names)}." for why, names in named if len(names))


@st.fragment
def _operators(question: Question, operators: pl.DataFrame, stages: pl.DataFrame, serving: pl.DataFrame) -> None:
    """Draw the table and the formula bar of the cell that was clicked in it."""
    st.subheader("Operators")
    names = stages["stage"].to_list()
    stage = st.segmented_control(
        "Stage", ["both", *names], default="both", required=True, key="stage", bind="query-params",
        label_visibility="collapsed",
    )  # fmt: skip
    shown = operators if stage in (None, "both") else operators.filter(pl.col("stage") == stage)
    formula_bar(question, _places(operators, stages, serving), _longest(shown))
    key = f"operators-{stage}"
    rows = shown.select("stage", "part", "operator").rows()
    view, columns = _view(shown)
    st.dataframe(
        view, hide_index=True, key=key, on_select=partial(_clicked, key, rows), selection_mode="single-cell",
        column_config=columns, placeholder="—", height=TABLE_HEIGHT,
        alt="Operators, their work, traffic, time and bound",
    )  # fmt: skip


def _clicked(key: str, rows: list[tuple[str, str, str]]) -> None:
    cells = st.session_state[key].selection.cells
    if cells:
        row, column = cells[0]
        stage, part, operator = rows[int(row)]
        go_to(Place(CELL_OF.get(column, column), stage, part, operator))


def _places(operators: pl.DataFrame, stages: pl.DataFrame, serving: pl.DataFrame) -> list[Place]:
    """Return every cell that the formula bar can show: of the answer, of the stages, of their operators."""

    def own(frame: pl.DataFrame, table: str) -> list[str]:
        skipped = {"stage", "part", "operator", "assumed", "reason"}
        return [c for c in answers.words(table) if c in frame.columns and c not in skipped]

    found = [Place(c) for c in own(serving, "serving")]
    found += [Place(c, s) for s in stages["stage"] for c in own(stages, "stages")]
    cells = [c for c in OPERATOR_CELLS if c in operators.columns]
    keys = operators.select("stage", "part", "operator").iter_rows()
    return found + [Place(c, s, p, o) for s, p, o in keys for c in cells]


def _longest(operators: pl.DataFrame) -> Place | None:
    if operators.is_empty():
        return None
    top = operators.sort("all_s", descending=True, nulls_last=True, maintain_order=True).row(0, named=True)
    return Place("time_s", top["stage"], top["part"], top["operator"])


def _view(operators: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, Any]]:
    words = answers.words("operators") | {
        "all_s": Word("Time, all", "s", "Time of all instances"),
        "share": Word("Share", "", "Part of the stage's time"),
    }
    shown = [
        c for c in ("operator", "stage", "part", "all_s", "share", "bound", "count", "time_s", "ops", "memory_bytes",
                    "arithmetic_intensity", "compute_format") if c in operators.columns
    ]  # fmt: skip
    return as_read(operators.select(shown), words, shares=("share",))
