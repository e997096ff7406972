"""The question as what starts a serving engine: a place on pages that settle on one deployment."""

from __future__ import annotations

import streamlit as st

from calc.engines import engine_command
from calc.errors import CalcError
from calc.tables import load
from calc.ui import answers, session
from calc.ui.answers import Question, Version


def draw(question: Question) -> None:
    """Draw the command lines of engines, which are computed when they are looked at; nothing without engines."""
    tables = session.tables()
    if "engines" not in tables.frames or question.sheet != "exact":
        return
    labels = dict(tables["engines"].select("engine_id", "label").iter_rows())
    place = st.expander("Serve it with an engine", icon=":material/terminal:", key="engines", bind="query-params")
    if not place.open:
        return
    with place:
        engine = st.segmented_control(
            "Engine", list(labels), default=next(iter(labels)), required=True, key="engine", bind="query-params",
            format_func=labels.__getitem__, label_visibility="collapsed",
        )  # fmt: skip
        try:
            st.code(_command(question, str(engine), answers.version()), language="bash", wrap_lines=True)
        except CalcError as error:
            st.error(str(error), title="This question has no command", icon=":material/error:")


@st.cache_data(max_entries=64, show_spinner=answers.BUSY)
def _command(question: Question, engine: str, version: Version) -> str:
    return engine_command(load(version[0]), dict(question.scenario), engine)
