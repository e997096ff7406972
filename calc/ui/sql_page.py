"""Ask in SQL: an editor over every table, view and the grid, with the cookbook's questions, a chart and files."""

from __future__ import annotations

import re
import shlex
import time
from pathlib import Path

import polars as pl
import streamlit as st

from calc import charts
from calc.database import sql_views
from calc.errors import CalcError
from calc.sandbox import Found, Limits, Sandbox
from calc.sheet_queries import shown_columns
from calc.tables import ROOT
from calc.ui import answers, grids, session, share
from calc.ui.answers import Word

LIVE, GRID = "Live answers", "Grid"
FIRST = """select name, vendor, year, memory_bandwidth_bytes_per_s, fp16_ops_per_s
from hardware
where year >= 2022
order by memory_bandwidth_bytes_per_s desc nulls last
limit 20"""
MOST_PROCESSES, IDLE_S = 4, 600.0
"""Processes for queries at once, of which the one idle the longest makes place, and how long one is kept idle."""
LIMITS = Limits()


def page() -> None:
    """Draw the page."""
    st.header("SQL")
    saved = _cookbook()
    with st.container(horizontal=True, vertical_alignment="bottom"):
        source = st.segmented_control(
            "Ask", (LIVE, GRID), default=LIVE, required=True, key="source", bind="query-params",
            help="Live answers compute what you ask; the grid has been computed before and answers at once.",
        )  # fmt: skip
        st.menu_button(
            "Saved questions", list(saved), key="saved", icon=":material/menu_book:", on_click=_open, args=(saved,),
            help="The cookbook: questions to a grid.", format_func=lambda n: n.replace("_", " ").capitalize(),
        )  # fmt: skip
    columns = st.columns((3, 1))
    with columns[0]:
        query = st.text_area(
            "Query", value=FIRST, height=240, key="query", bind="query-params", max_chars=20_000,
            help="DuckDB's SQL. SET VARIABLE before it tells views their limits.",
        )  # fmt: skip
        st.button("Run", type="primary", icon=":material/play_arrow:", shortcut="Ctrl+Enter")
        st.caption(
            f"One SELECT (FROM, WITH, EXPLAIN), at most {LIMITS.seconds:g} s and {LIMITS.rows:,} rows; reads the "
            "product's tables and nothing else."
        )
    with columns[1]:
        _schema()
    try:
        grid = grids.folder() if source == GRID else None
        with st.spinner("Asking", show_time=True):
            found = _asked(query, grid)
    except CalcError as error:
        st.error(str(error), title="No answer", icon=":material/error:")
        return
    _result(query, grid, found)


@st.cache_resource
def _cookbook() -> dict[str, str]:
    return {p.stem: p.read_text(encoding="utf-8") for p in sorted((ROOT / "sql" / "cookbook").glob("*.sql"))}


def _open(saved: dict[str, str]) -> None:
    st.session_state["query"] = saved[str(st.session_state["saved"])].strip()
    st.session_state["source"] = GRID


@st.cache_resource
def _sandboxes() -> dict[str, Sandbox]:
    return {}


def _sandbox(grid: Path | None) -> Sandbox:
    """Return this session's process for queries; another's that has been idle the longest may have to go."""
    known = _sandboxes()
    own = st.session_state.setdefault("sandbox", f"{id(st.session_state)}-{len(known)}")
    name = f"{own}-{session.folder()}-{grid}"
    late = time.monotonic() - IDLE_S
    for other in [n for n, s in known.items() if n != name and (n.startswith(own) or s.used < late)]:
        known.pop(other).close()
    while name not in known and len(known) >= MOST_PROCESSES:
        known.pop(min(known, key=lambda n: known[n].used)).close()
    return known.setdefault(name, Sandbox(session.folder(), grid, LIMITS))


def _asked(query: str, grid: Path | None) -> Found:
    """Return the answer; a rerun that changes no more than how it is shown does not ask again."""
    asked = (query, str(grid), answers.version())
    last = st.session_state.get("answered")
    if last is None or last[0] != asked:
        last = st.session_state["answered"] = (asked, _sandbox(grid).ask(query))
    found: Found = last[1]
    return found


def _schema() -> None:
    """Draw the tables and views there are, and the columns of the chosen one."""
    tables = session.tables()
    views = [v for v, _ in sql_views(ROOT / "sql")]
    named = ["serving", "stages", "operators", *sorted(tables.frames), *(v for v in sorted(views) if v != "scenarios")]
    chosen = st.selectbox("Schema", named, key="schema", help="Tables and views, and their columns.")
    columns = answers.words(chosen)
    if chosen in ("serving", "stages", "operators"):
        known = answers.words("scenarios") | columns
        grain = {"serving": "serving", "stages": "stage", "operators": "operator"}[chosen]
        shown = [*answers.words("scenarios"), *shown_columns(tables, "exact", grain)]
        columns = {c: known.get(c, Word(c)) for c in shown}
    rows = [(c, w.unit, w.label) for c, w in columns.items()]
    if not rows:
        text = dict(sql_views(ROOT / "sql")).get(chosen, "")
        rows = [(c, "", "") for c in re.findall(r"(?:as |^    )(\w+),?$", text.rpartition("select")[2], re.MULTILINE)]
    st.dataframe(
        pl.DataFrame(rows, schema=["Column", "Unit", "Meaning"], orient="row"), hide_index=True, height=260,
        key="columns", alt=f"Columns of {chosen}",
    )  # fmt: skip


def _result(query: str, grid: Path | None, found: Found) -> None:
    frame = found.frame
    over = f" --grid {grid}" if grid else ""
    drawn = _chart(frame) if frame.height else None
    connected = f'calc.connect(grid="{grid}")' if grid else "calc.connect()"
    texts = {
        "python": f'import calc\n\nconnection = {connected}\nconnection.sql("""\n{query.strip()}\n""").pl()',
        "bash": f"python -m calc sql{over} {shlex.quote(query.strip())}",
    }
    share.section("Answer", "answer", frame, drawn, texts=texts)
    more = f"; there are more than the {LIMITS.rows:,} shown" if found.is_cut else ""
    st.caption(f"{frame.height:,} rows in {found.seconds:.3g} s{more}")
    if frame.is_empty():
        st.info("No row answers this query.")
        return
    if drawn is not None:
        share.draw(drawn, key="answer-chart", alt="Chart of the answer")
    words = answers.words("scenarios") | answers.words("models") | answers.words("hardware")
    help = {c: words[c].description for c in frame.columns if c in words}
    st.dataframe(
        frame, hide_index=True, key="answer-rows", alt="Rows of the answer", placeholder="—",
        column_config={
            c: st.column_config.NumberColumn(c, help=help.get(c), format="%.6g") if frame[c].dtype.is_float()
            else st.column_config.Column(c, help=help.get(c))
            for c in frame.columns
        },
    )  # fmt: skip


def _chart(frame: pl.DataFrame) -> charts.Chart | None:
    """Draw the choice of a chart, and return it: none until one is chosen."""
    numbers = [c for c in frame.columns if frame[c].dtype.is_numeric()]
    plain = [c for c in frame.columns if not frame[c].dtype.is_nested()]
    if not numbers or len(plain) < 2:
        return None
    with st.grid(4, min_column_width=150, vertical_alignment="bottom"):
        kind = st.segmented_control("Chart", charts.PLAIN, key="chart_kind", bind="query-params")
        x = st.selectbox("Across", plain, key="chart_x", bind="query-params")
        others = [c for c in numbers if c != x] or numbers
        y = st.selectbox("Up", others, key="chart_y", bind="query-params")
        by = st.selectbox("Colour", plain, index=None, key="chart_by", bind="query-params", placeholder="None")
    if kind is None:
        return None
    return charts.plain(frame.select(plain), str(kind), x, y, by)
