"""What pages take seconds to make on their first visit, made while the first visitor looks at the first page."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from threading import Timer

import streamlit as st
from streamlit import runtime

from calc.errors import CalcError
from calc.ui import answers, grids
from calc.ui.answers import Question, Version
from calc.ui.question import ASKED, usual

SLOW = ("choose_hardware", "what_helps", "survey", "validation")
"""Pages that say what they need (``warm``), and the order in which it is made."""


@st.cache_resource(show_spinner=False)
def start() -> None:
    """Begin soon, once for the server; not where pages are drawn without one."""
    if runtime.exists():
        asked = st.session_state.get(ASKED)
        question = asked if isinstance(asked, Question) else usual()
        later = Timer(grids.QUIET_S, make, [question, answers.version()])
        later.daemon = True
        later.start()


def make(question: Question, version: Version) -> None:
    """Make what each of them needs to answer a question."""
    for page in SLOW:
        # a page says itself what is wrong with its question
        with suppress(CalcError):
            import_module(f"calc.ui.{page}").warm(question, version)
