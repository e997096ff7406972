"""The formula bar: a cell's name, formula and numbers, and what it reads, one step at a time."""

from __future__ import annotations

import polars as pl
import streamlit as st

from calc.display import link
from calc.errors import CalcError
from calc.explanation import Explanation
from calc.ui import answers
from calc.ui.answers import Place, Question

CELL, TRAIL = "cell", "trail"
"""Where the session keeps the chosen cell's name (also in the URL) and the steps down its precedents."""
READS = ("Name", "Value", "Meaning", "Formula", "Where")
READS_ROWS, READS_HEIGHT = 5, 213
"""From how many cells on their list scrolls, and its pixels then."""


def go_to(place: Place) -> None:
    """Show a cell: for callbacks, before the bar is drawn."""
    st.session_state[CELL] = str(place)
    st.session_state[TRAIL] = ()


def formula_bar(question: Question, places: list[Place], default: Place | None) -> None:
    """Draw the bar for the chosen cell, or for ``default`` until one is chosen."""
    named = {str(p): p for p in places}
    with st.container(border=True):
        chosen = st.selectbox(
            "Formula of", list(named), index=None, key=CELL, bind="query-params", on_change=_restart,
            placeholder=f"{default} (click a cell of the table for its formula)" if default else "No cell to explain",
            help="stage.part.operator.cell, stage.cell for a total, or a cell of the whole answer. Type to search.",
        )  # fmt: skip
        place = named.get(chosen or "", default)
        if place is None:
            st.info("There is no number to explain yet: choose a model and a device.", icon=":material/info:")
            return
        try:
            found = answers.trace(question, place, len(st.session_state.get(TRAIL, ())) + 1)
        except CalcError as error:
            st.error(str(error), icon=":material/error:")
            return
        _shown(place, found)


def _shown(place: Place, top: Explanation) -> None:
    trail = [top]
    for step in st.session_state.get(TRAIL, ()):
        if step < len(trail[-1].precedents):
            trail.append(trail[-1].precedents[step])
    here = trail[-1]
    if len(trail) > 1:
        with st.container(horizontal=True, gap="xsmall", vertical_alignment="center"):
            for depth, passed in enumerate(trail[:-1]):
                st.button(
                    passed.name, key=f"back-{depth}", type="tertiary", icon=":material/chevron_left:",
                    on_click=_back, args=(depth,),
                )  # fmt: skip
    owner = " of ".join(_plain(n) for n in (place.operator, place.stage) if n)
    where = f" — one {owner}" if place.operator else f" — {owner}" if owner else ""
    st.markdown(f"**{_plain(here.label or here.name)} = {_plain(here.shown())}**{where}")
    st.code(_text(here), language="sql", wrap_lines=True)
    told = [_plain(here.note), _source(here.source), here.file and _plain(f"{here.file}: {here.key}")]
    if any(told):
        st.caption(" · ".join(t for t in told if t))
    if here.precedents:
        _reads(f"reads-{place}-{len(trail)}-{here.name}", here)


def _source(source: str) -> str:
    address = link(source)
    return f"Source: [{_plain(source)}]({address})" if address else f"Source: {_plain(source)}" if source else ""


def _text(here: Explanation) -> str:
    lines = [t for t in dict.fromkeys((here.formula, here.numbers, here.shown())) if t]
    margin = " " * len(here.name)
    return f"{here.name} = " + f"\n{margin} = ".join(lines)


def _reads(key: str, here: Explanation) -> None:
    st.caption(f"It reads {len(here.precedents)} cells; click one to follow it." if len(here.precedents) > 1
               else "It reads one cell; click it to follow it.")  # fmt: skip
    rows = [
        (p.name, p.shown(), p.label or p.note, p.formula, f"{p.file}: {p.key}" if p.file else p.key)
        for p in here.precedents
    ]
    st.dataframe(
        pl.DataFrame(rows, schema=dict.fromkeys(READS, pl.String), orient="row"),
        hide_index=True, key=key, on_select=lambda: _follow(key), selection_mode="single-cell",
        height=READS_HEIGHT if len(rows) > READS_ROWS else "auto", alt=f"Cells that {here.name} reads",
    )  # fmt: skip


def _follow(key: str) -> None:
    cells = st.session_state[key].selection.cells
    if cells:
        st.session_state[TRAIL] = (*st.session_state.get(TRAIL, ()), int(cells[0][0]))


def _back(depth: int) -> None:
    st.session_state[TRAIL] = st.session_state.get(TRAIL, ())[:depth]


def _restart() -> None:
    st.session_state[TRAIL] = ()


def _plain(text: str) -> str:
    """Return text with what Markdown would take for markup escaped."""
    return "".join(f"\\{c}" if c in r"\`*_{}[]<>#$~:" else c for c in text)
