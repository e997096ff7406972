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
from calc.ui.question import ASKED, DEVICE
from calc.ui.share import MIMES


def button(has_sidebar: bool) -> None:
    """Draw the button for the question of this page, in its sidebar, or for the one that was asked last, below it."""
    try:
        question: Question = st.session_state.get(ASKED) or _usual()
        if not answers.can_be_asked(question):
            return
    except CalcError:
        # the page says what is wrong with the data
        return
    model = str(question["model_id"]).rpartition("/")[2]
    named = f"{model} on {answers.device(question['hardware_id'])['name']}"
    with st.sidebar if has_sidebar else st.container():
        st.download_button(
            "Live spreadsheet" if has_sidebar else f"Live spreadsheet: {named}",
            partial(workbook, question, answers.version()), f"{model}.xlsx", MIMES["xlsx"],
            key="workbook", icon=":material/calculate:", on_click="ignore",
            width="stretch" if has_sidebar else "content",
            help=f"{named} as a workbook whose cells hold the formulas: change an input, and it calculates. It takes "
            "some seconds.",
        )  # fmt: skip


def workbook(question: Question, version: answers.Version) -> bytes:
    """Return a question's workbook, in which each technique of its stack can be left out from the end on."""
    from calc.workbook.export import MOST_STACKS, export

    stack = stack_of(str(question["technique"] or ""))
    shorter = ["+".join(stack[:n]) for n in range(1, len(stack))]
    target = io.BytesIO()
    export(
        load(version[0]), pl.DataFrame([dict(question.scenario)]), target, shorter[: MOST_STACKS - 1], question.sheet
    )
    return target.getvalue()


def _usual() -> Question:
    devices = answers.hardware()["hardware_id"].to_list()
    device = DEVICE if DEVICE in devices else next(iter(devices), None)
    said = (("model_id", next(iter(answers.models()["model_id"]), None)), ("hardware_id", device))
    return Question(tuple((c, v) for c, v in said if v is not None))
