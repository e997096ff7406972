"""What will this model do on this device? One question, its figures, its roofline, its operators, their formulas."""

from __future__ import annotations

from functools import partial

import polars as pl
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from calc import charts, operator_graph, reproduce
from calc.calibration.expected import ERRORS, errors_told
from calc.display import capacity, inside, quantity
from calc.errors import CalcError
from calc.loading import load_sheet
from calc.questions import stack_of
from calc.result import HELD, held, with_shares
from calc.ui import answers, engine_lines, session, share
from calc.ui.answers import Place, Question, Word
from calc.ui.formula_bar import formula_bar, go_to
from calc.ui.question import choose

HEADLINES = {
    "fits": "Fits", "ttft_s": "Time to first token", "tpot_s": "Time per output token",
    "tokens_per_s_per_user": "Tokens/s per user", "output_tokens_per_s_per_device": "Tokens/s per device",
    "usd_per_million_output_tokens": "Cost of 1 M tokens", "energy_j_per_token": "Energy per token",
    "e2e_s": "Whole answer",
}  # fmt: skip
"""Figures of the whole answer at the top, in few words. What a sheet does not have is left out."""
UTILISATIONS = {"prefill": "mfu", "decode": "mbu"}
"""What a stage should come near to, under what it is bound by."""
SERVING = (
    *HEADLINES, *HELD, "fleet_devices", "memory_needed_bytes", "memory_capacity_bytes", "shortfall_bytes",
    "min_devices", "reason", *ERRORS,
)  # fmt: skip
STAGE = ("stage", "time_s", "bound", *UTILISATIONS.values(), "reason", "assumed")
"""Results that the page reads: the others are not computed."""
VIEWS = ("Roofline", "Time", "Graph")
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
        with st.sidebar:
            question = choose()
        if question["model_id"] is None or question["hardware_id"] is None:
            st.info("Choose a model and a device in the sidebar.", icon=":material/arrow_back:")
            return
        serving = answers.ask(question, "serving", SERVING)
        about = _heading(question, serving)
        # the first figures are there before the others are computed
        with st.grid(5, min_column_width=150, gap=("small", "xsmall")):
            _headlines(serving)
            stages = answers.ask(question, "stage", STAGE)
            for row in stages.iter_rows(named=True):
                _bound(row)
    except CalcError as error:
        st.error(str(error), title="This question has no answer", icon=":material/error:")
        return
    if told := errors_told(serving):
        st.caption(f":material/target: {told}", text_alignment="left")
    _caveats(serving, stages)
    _memory(serving)
    about.caption(_about(question))
    engine_lines.draw(question)
    _operators(question, stages)


def _heading(question: Question, serving: pl.DataFrame) -> DeltaGenerator:
    """Draw what is asked; return the place below for what is told of it."""
    count = serving["fleet_devices"][0] if "fleet_devices" in serving.columns else 1
    many = f"{count:.0f} × " if count and count > 1 else ""
    replicas = f", {question['dp']} replicas" if question["dp"] not in (None, 1) else ""
    name = answers.device(question["hardware_id"])["name"]
    st.header(f"{str(question['model_id']).rpartition('/')[2]} on {many}{name}{replicas}")
    return st.container()


def _about(question: Question) -> str:
    """Return the size of a model and of a device."""
    device, words = answers.device(question["hardware_id"]), answers.words("hardware")
    told = [f"{quantity(answers.n_parameters(question['model_id']))} parameters"] + [
        f"{inside(words[c].label)} {shown}"
        for c, shown in (
            ("memory_bandwidth_bytes_per_s", quantity(device["memory_bandwidth_bytes_per_s"], "byte/s")),
            ("memory_capacity_bytes", capacity(device["memory_capacity_bytes"])),
        )
        if device[c] is not None
    ]
    return " · ".join(told)


def _headlines(serving: pl.DataFrame) -> None:
    words = answers.words("serving")
    for cell, label in HEADLINES.items():
        if cell in serving.columns:
            about = f"{words[cell].label}. {words[cell].description}"
            st.metric(label, quantity(serving[cell][0], words[cell].unit), help=about)


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
    reasons, said = told(stages, "reason"), told(serving, "reason")
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
    assumed = told(stages, "assumed")
    if assumed:
        st.caption(f":material/info: Assumed: {'; '.join(assumed)}")


def told(frame: pl.DataFrame, column: str) -> list[str]:
    """Return what a column of texts says, each once."""
    return list(dict.fromkeys(frame[column].drop_nulls())) if column in frame.columns else []


def _memory(serving: pl.DataFrame) -> None:
    row = serving.row(0, named=True)
    items = held(serving)
    if items.is_empty() or row.get("memory_capacity_bytes") is None:
        return
    words = answers.words("serving")
    drawn = charts.memory_bar(items, row["memory_capacity_bytes"])
    share.section("Memory of one device", "memory", serving, drawn, words["memory_needed_bytes"].description)
    share.draw(drawn, key="memory", alt=f"Held: {', '.join(items['item'])}")


@st.fragment
def _operators(question: Question, stages: pl.DataFrame) -> None:
    """Draw the operators as charts and as a table, and the formula bar of what was clicked in them."""
    operators = with_shares(answers.ask(question, "operator"), stages)
    head = st.container()
    view = str(st.segmented_control(
        "Chart", VIEWS, default=VIEWS[0], required=True, key="view", bind="query-params", label_visibility="collapsed",
    ))  # fmt: skip
    draw = DRAWN[view]
    made = draw(question, operators) if draw else None
    texts = reproduce.texts(question.told(), "operator", question.sheet)
    with head:
        share.section("Operators", "operators", operators, made, texts=texts)
    if view == "Graph":
        _graph(question, operators)
    elif made is None:
        st.info(f"No chart: {'; '.join(told(operators, 'reason')) or 'no operator takes any time'}.")
    else:
        share.draw(made, key=view, alt=ALTS[view], on_select=partial(_picked, view))
        st.caption(f"{ABOUT[view]} {_left_out(operators) if view == 'Roofline' else ''}")
    stage = st.segmented_control(
        "Stage", ["both", *stages["stage"]], default="both", required=True, key="stage", bind="query-params",
        label_visibility="collapsed",
    )  # fmt: skip
    shown = operators if stage in (None, "both") else operators.filter(pl.col("stage") == stage)
    formula_bar(question, _places(question, operators), _longest(shown))
    key = f"operators-{stage}"
    rows = shown.select("stage", "part", "operator").rows()
    share.table(
        _view(shown), _words(), "Operators, their work, traffic, time and bound", shares=("share",), key=key,
        on_select=partial(_clicked, key, rows), selection_mode="single-cell", height=TABLE_HEIGHT,
    )  # fmt: skip


def _roofline(question: Question, operators: pl.DataFrame) -> charts.Chart | None:
    bandwidth = answers.device(question["hardware_id"])["memory_bandwidth_bytes_per_s"]
    if bandwidth is None or operators.filter(charts.PLACED).is_empty():
        return None
    return charts.roofline(operators, float(str(bandwidth)), pick=True)


def _left_out(operators: pl.DataFrame) -> str:
    """Return which operators the roofline cannot place, and why."""
    missing = operators.filter(~charts.PLACED.fill_null(False))
    idle = (pl.col("ops") == 0).fill_null(False)
    reasons = (("they compute nothing", idle), ("their time is unknown", ~idle))
    named = ((why, missing.filter(which)["operator"].unique(maintain_order=True)) for why, which in reasons)
    return " ".join(f"Not shown, as {why}: {', '.join(names)}." for why, names in named if len(names))


def _time(_: Question, operators: pl.DataFrame) -> charts.Chart | None:
    return None if operators.filter(pl.col("all_s") > 0).is_empty() else charts.time_bars(operators)


DRAWN = {"Roofline": _roofline, "Time": _time, "Graph": None}
ALTS = {
    "Roofline": "Roofline with the operators of both stages",
    "Time": "Operators that take the most of each stage's time",
}
ABOUT = {
    "Roofline": "A point is an operator, its area its share of the stage's time; a click shows its formula.",
    "Time": "The fifteen that take the most of a stage, all instances together; a click shows the formula.",
}


def _graph(question: Question, operators: pl.DataFrame) -> None:
    parts = operators["part"].unique(maintain_order=True).to_list()
    stages = operators["stage"].unique(maintain_order=True).to_list()
    longest = _longest(operators)
    with st.container(horizontal=True):
        usual = parts.index(longest.part) if longest else 0
        part = st.selectbox("Part", parts, index=usual, key="graph_part", bind="query-params", width=240)
        stage = st.segmented_control(
            "Of", stages, default=stages[-1], required=True, key="graph_stage", bind="query-params"
        )
    mine = operators.filter(part=part, stage=stage)
    sheet = load_sheet(session.tables(), question.sheet, stack_of(str(question["technique"] or "")))
    block = next(p.block for p in sheet.parts if p.name == part)
    links = operator_graph.edges(sheet.operators(block), mine["operator"])
    names = ([operator_graph.STREAM] if any(a == operator_graph.STREAM for a, _ in links) else []) + mine[
        "operator"
    ].to_list()
    shown = {
        r[
            "operator"
        ]: f"{quantity(r['ops'], 'op')} · {quantity(r['memory_bytes'], 'byte')} · {quantity(r['time_s'], 's')}"
        for r in mine.iter_rows(named=True)
    }
    bound = {r["operator"]: r["bound"] or "unknown" for r in mine.iter_rows(named=True)}
    shares = {r["operator"]: r["share"] or 0 for r in mine.iter_rows(named=True)}
    places = [(stage, part, name) for name in names]
    drawn = operator_graph.drawing(names, links, shown, bound, shares)
    st.echarts_chart(
        drawn, height=operator_graph.height(names, links), key="graph",
        on_select=partial(_node, places), alt=f"Operators of {part} and what each reads",
    )  # fmt: skip
    st.caption("An arrow goes from what is written to what reads it; a click on an operator shows its formula.")


def _picked(key: str) -> None:
    found = st.session_state[key].selection.get(charts.PICK)
    if found:
        row = found[-1]
        go_to(Place("time_s", row["stage"], row["part"], row["operator"]))


def _node(places: list[tuple[str, str, str]]) -> None:
    for group in st.session_state["graph"].selection.selected:
        for place in group["data_indices"] if group.get("data_type") != "edge" else ():
            stage, part, name = places[int(place)]
            if name != operator_graph.STREAM:
                go_to(Place("time_s", stage, part, name))


def _clicked(key: str, rows: list[tuple[str, str, str]]) -> None:
    cells = st.session_state[key].selection.cells
    if cells:
        row, column = cells[0]
        stage, part, operator = rows[int(row)]
        go_to(Place(CELL_OF.get(column, column), stage, part, operator))


def _places(question: Question, operators: pl.DataFrame) -> list[Place]:
    """Return every cell that the formula bar can show: of the answer, of the stages, of their operators."""

    def own(by: str) -> list[str]:
        return [c for c in answers.results(question, by) if c not in ("stage", "assumed", "reason")]

    found = [Place(c) for c in own("serving")]
    found += [Place(c, s) for s in operators["stage"].unique(maintain_order=True) for c in own("stage")]
    cells = [c for c in OPERATOR_CELLS if c in operators.columns]
    keys = operators.select("stage", "part", "operator").iter_rows()
    return found + [Place(c, s, p, o) for s, p, o in keys for c in cells]


def _longest(operators: pl.DataFrame) -> Place | None:
    if operators.is_empty():
        return None
    top = operators.sort("all_s", descending=True, nulls_last=True, maintain_order=True).row(0, named=True)
    return Place("time_s", top["stage"], top["part"], top["operator"])


def _words() -> dict[str, Word]:
    return answers.words("operators") | {
        "all_s": Word("Time, all", "s", "Time of all instances"),
        "share": Word("Share", "", "Part of the stage's time"),
    }


def _view(operators: pl.DataFrame) -> pl.DataFrame:
    return operators.select(
        c for c in ("operator", "stage", "part", "all_s", "share", "bound", "count", "time_s", "ops", "memory_bytes",
                    "arithmetic_intensity", "compute_format") if c in operators.columns
    )  # fmt: skip
