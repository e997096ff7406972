"""What would help? Every technique ranked by what it changes here and why; a stack of them, step by step."""

from __future__ import annotations

from functools import partial

import polars as pl
import streamlit as st

from calc import charts, reproduce
from calc.calibration.expected import errors_told
from calc.display import inside, quantity
from calc.errors import CalcError
from calc.questions import stack_of
from calc.stacks import LEFT_OUT, Answered, what_helps
from calc.tables import load
from calc.ui import answers, session, share
from calc.ui.answers import Question, Version, Word
from calc.ui.question import choose

CHANGES = {
    "throughput": "Throughput", "ttft": "Time to first token", "tpot": "Time per output token", "memory": "Memory",
    "cost": "Cost", "energy": "Energy",
}  # fmt: skip
BUSY = "Asking every technique: some seconds, once"
KEPT = 64
"""Questions whose answers are kept."""
GREATER_IS_BETTER = ("throughput", "output_tokens_per_s", "tokens_per_s_per_user", "max_batch")
METRICS = (
    "tpot_s", "ttft_s", "e2e_s", "output_tokens_per_s", "memory_needed_bytes", "usd_per_million_output_tokens",
    "energy_j_per_token", "max_batch",
)  # fmt: skip


def page() -> None:
    """Draw the page."""
    st.header("What helps")
    try:
        with st.sidebar:
            question = choose()
        if question.sheet != "exact":
            st.info("Techniques are weighed on the sheet exact: choose it in the sidebar.", icon=":material/rule:")
            return
        serving = answers.ask(question, "serving")
        _stack(question)
        _ranked(question, serving)
    except CalcError as error:
        st.error(str(error), title="This question has no answer", icon=":material/error:")


def warm(question: Question, version: Version) -> None:
    """Make what a first visit waits for: the programs of every technique, and its answers."""
    what_helps(load(version[0]), dict(question.scenario), known=_kept(question, version))


def _stack(question: Question) -> None:
    """Draw what each technique of the sidebar's stack adds to those before it."""
    stack = stack_of(str(question["technique"] or ""))
    head = st.container()
    words = answers.words("serving")
    metric = st.selectbox(
        "Figure", METRICS, key="waterfall", bind="query-params", format_func=lambda c: words[c].label, width=320
    )
    if not stack:
        with head:
            st.subheader("Your stack")
        st.info("Add techniques in the sidebar to see what each adds to those before it.", icon=":material/stacks:")
        return
    asked = [question.but(technique="+".join(stack[:n]) or None) for n in range(len(stack) + 1)]
    found = pl.concat([answers.ask(q, "serving").select(metric, "fits", "reason") for q in asked])
    found = found.with_columns(step=pl.Series(["as it is", *(f"+ {t}" for t in stack)]))
    missing = found.filter(pl.col(metric).is_null())
    if missing.height:
        with head:
            st.subheader("Your stack")
        st.warning(f"{missing['step'][0]}: {missing['reason'][0] or 'the figure is unknown'}")
        return
    steps = _steps(found["step"].to_list(), found[metric].to_list(), metric, words[metric].unit)
    title = f"{words[metric].label} ({words[metric].unit})" if words[metric].unit else words[metric].label
    drawn = charts.waterfall(steps, title)
    with head:
        share.section("Your stack", "stack", found, drawn, texts=reproduce.texts(question.told()))
    share.draw(drawn, key="stack", alt=f"{title} as each technique of the stack is added")


def _steps(names: list[str], values: list[float], metric: str, unit: str) -> pl.DataFrame:
    """Return the bars of a waterfall: the first figure, what each step changes, the last figure."""
    better = 1 if metric in GREATER_IS_BETTER else -1
    rows: list[tuple[str, float, float, str, str]] = [(names[0], 0.0, values[0], "whole", quantity(values[0], unit))]
    for name, before, after in zip(names[1:], values, values[1:], strict=False):
        kind = "better" if (after - before) * better >= 0 else "worse"
        change = f"{after / before - 1:+.1%}" if before else quantity(after - before, unit)
        rows.append((name, before, after, kind, change))
    rows.append(("with all", 0.0, values[-1], "whole", quantity(values[-1], unit)))
    frame = pl.DataFrame(rows, schema=["step", "start", "end", "kind", "shown"], orient="row")
    return frame.with_columns(top=pl.max_horizontal("start", "end"))


def _ranked(question: Question, serving: pl.DataFrame) -> None:
    """Draw every technique by what it would change, those that do not apply apart."""
    head = st.container()
    with st.grid(2, min_column_width=260, vertical_alignment="bottom"):
        by = st.selectbox(
            "Rank by", list(CHANGES), key="rank_by", bind="query-params", format_func=lambda c: CHANGES[c]
        )
        groups = _groups()
        chosen = st.multiselect("Groups", groups, key="groups", bind="query-params", placeholder="All")
    found = _answered(question, tuple(chosen), answers.version())
    tried = found.filter("applies").sort(f"{by}_rank", "technique", nulls_last=True)
    with head:
        texts = {
            "bash": reproduce.bash(question.told())
            .replace(" analyze ", " helps ")
            .replace(" --by serving", f" --by {by}")
        }
        share.section("Techniques, one by one", "what_helps", found, texts=texts)
    _now(serving)
    why = pl.concat_str("prefill_why", "decode_why", separator="; ", ignore_nulls=True)
    bounds = [
        pl.format("{} → {}", f"{s}_bound_before", f"{s}_bound_after").alias(f"{s}_bound") for s in ("prefill", "decode")
    ]
    view = tried.select(
        "technique",
        "label",
        *(f"{c}_change" for c in CHANGES),
        *bounds,
        why.replace("", None).alias("why"),
        "not_modelled",
    )
    columns = {
        f"{c}_change": st.column_config.NumberColumn(label, format="percent", help="Change; below 0 is less")
        for c, label in CHANGES.items()
    }
    # a choice is of this stack's rows: the next stack's are others
    key = f"helps-{question['technique'] or ''}"
    share.table(
        view, _words(), alt="Techniques by what they change", key=key, column_config=columns, height=560,
        on_select=partial(_add, key, view["technique"].to_list()), selection_mode="single-row",
    )  # fmt: skip
    st.caption(f"{tried.height} techniques change something or say why not. Choose a row to add it to your stack.")
    rest = found.filter(~pl.col("applies"))
    if rest.height:
        with st.expander(f"{rest.height} that do not apply here", icon=":material/block:"):
            share.table(
                rest.select("technique", "label", "reason"), _words(), alt="Techniques that do not apply", key="rest"
            )


def _now(serving: pl.DataFrame) -> None:
    words = answers.words("serving")
    row = serving.row(0, named=True)
    figures = (
        "output_tokens_per_s",
        "ttft_s",
        "tpot_s",
        "memory_needed_bytes",
        "usd_per_million_output_tokens",
        "energy_j_per_token",
    )
    st.caption("Now: " + " · ".join(f"{inside(words[c].label)} {quantity(row[c], words[c].unit)}" for c in figures))
    if told := errors_told(serving):
        st.caption(f":material/target: {told}")


def _add(key: str, listed: list[str]) -> None:
    for row in st.session_state[key].selection.rows:
        technique = listed[int(row)]
        stack = list(st.session_state.get("technique", []))
        if technique not in stack:
            st.session_state["technique"] = [*stack, technique]


def _groups() -> list[str]:
    groups: list[str] = session.tables()["techniques"]["group"].unique().sort().to_list()
    return [g for g in groups if g not in LEFT_OUT]


def _answered(question: Question, groups: tuple[str, ...], version: Version) -> pl.DataFrame:
    """Return what every technique of some groups would change; what was answered before is not asked again."""
    answered = _kept(question, version)
    bar = st.progress(0.0, BUSY)
    try:
        told = bar.progress
        return what_helps(load(version[0]), dict(question.scenario), lambda d: told(d, BUSY), groups, answered)
    finally:
        bar.empty()


def _kept(question: Question, version: Version) -> Answered:
    """Return where the answers to a question are kept; the oldest go."""
    known = _known()
    answered = known.setdefault((question, version), {})
    while len(known) > KEPT:
        known.pop(next(iter(known)))
    return answered


@st.cache_resource(show_spinner=False)
def _known() -> dict[tuple[Question, Version], Answered]:
    return {}


def _words() -> dict[str, Word]:
    words = answers.words("techniques")
    found = {f"{c}_change": Word(label) for c, label in CHANGES.items()}
    return words | found | {
        "technique": Word("Technique"), "why": Word("Why nothing changes"), "reason": Word("Why not"),
        "prefill_bound": Word("Prefill bound"), "decode_bound": Word("Decode bound"),
        "not_modelled": Word("Not modelled", "", "What these figures leave out"),
    }  # fmt: skip
