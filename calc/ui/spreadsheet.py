"""The question as a live spreadsheet: a button on every page."""

from __future__ import annotations

import io
from functools import partial

import polars as pl
import streamlit as st

from calc.errors import CalcError
from calc.questions import stack_of
from calc.tables import load
from calc.ui import answers
from calc.ui.answers import Question
from calc.ui.question import ASKED, usual
from calc.ui.share import MIMES


def button(has_sidebar: bool) -> None:
    """Draw the button for what this page asks, in its sidebar, or for what was asked last, below it."""
    try:
        asked: Question | pl.DataFrame | None = st.session_state.get(ASKED)
        if asked is None:
            asked = usual()
        if not answers.can_be_asked(asked):
            return
        named, file = _named(asked)
    except CalcError:
        # the page says what is wrong with the data
        return
    with st.sidebar if has_sidebar else st.container():
        st.download_button(
            "Live spreadsheet" if has_sidebar else f"Live spreadsheet: {named}",
            partial(workbook, asked, answers.version()), f"{file}.xlsx", MIMES["xlsx"],
            key="workbook", icon=":material/calculate:", on_click="ignore",
            width="stretch" if has_sidebar else "content",
            help=f"{named} as a workbook whose cells hold the formulas: change an input, and it calculates. It takes "
            "some seconds.",
        )  # fmt: skip


def _named(asked: Question | pl.DataFrame) -> tuple[str, str]:
    """Return what to call a workbook on the page, and its file."""
    if isinstance(asked, pl.DataFrame):
        return f"{asked.height:,} scenario{'s' if asked.height != 1 else ''}", "scenarios"
    model = str(asked["model_id"]).rpartition("/")[2]
    return f"{model} on {answers.device(asked['hardware_id'])['name']}", model


def workbook(asked: Question | pl.DataFrame, version: answers.Version) -> bytes:
    """Return the workbook of a question or of several scenarios.

    In a question's each technique of its stack can be left out from the end on.
    """
    from calc.workbook.export import MOST_STACKS, export

    target = io.BytesIO()
    tables = load(version[0])
    if isinstance(asked, pl.DataFrame):
        export(tables, asked, target)
    else:
        stack = stack_of(str(asked["technique"] or ""))
        shorter = ["+".join(stack[:n]) for n in range(1, len(stack))]
        export(tables, pl.DataFrame([dict(asked.scenario)]), target, shorter[: MOST_STACKS - 1], asked.sheet)
    return target.getvalue()
