"""The dashboard: ``streamlit run app.py``. Its pages are in ``calc/ui``, one question each."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module

import streamlit as st

from calc.ui import grids, spreadsheet, warm

# scripts run beside the thread that sends the page's files, which asks for the interpreter hundreds of times: a tenth
# of a millisecond each, not five
sys.setswitchinterval(1e-4)

# pages whose inputs are in the sidebar
SIDEBARS = ("Calculator", "Curves", "Hardware", "What helps")

st.set_page_config(page_title="LLM inference calculator", page_icon="📐", layout="wide")

PAGES = (
    ("calculator", "Calculator", "calculate", "What a model does on a device: times, memory, roofline, formulas."),
    ("curves", "Curves", "show_chart", "How a figure changes with batch, length, bits, bandwidth or devices."),
    ("choose_hardware", "Hardware", "memory", "Which deployment keeps your limits at the least cost."),
    ("what_helps", "What helps", "bolt", "Every technique ranked by what it would change, and a stack of them."),
    ("compare", "Compare", "compare_arrows", "Whole scenarios side by side, with their differences."),
    ("survey", "Survey", "menu_book", "Every table and figure of the survey, live, by both accountings."),
    ("validation", "Validation", "fact_check", "Published measurements beside what the roofline says."),
    ("sql_page", "SQL", "database", "Ask all tables, views and the grid in SQL."),
    ("data_page", "Data", "table_view", "Models, devices, techniques and formulas with their sources; edit them."),
)


def drawn_by(module: str) -> Callable[[], None]:
    """Return what draws a page; its module is imported when the page is first asked for."""
    return lambda: import_module(f"calc.ui.{module}").page()


chosen = st.navigation(
    [
        st.Page(
            drawn_by(page),
            title=title,
            icon=f":material/{icon}:",
            url_path=title.lower().replace(" ", "_"),
            default=page == "calculator",
            help=about,
        )
        for page, title, icon, about in PAGES
    ],
    position="top",
)
chosen.run()
spreadsheet.button(has_sidebar=chosen.title in SIDEBARS)
# once the first page is drawn
grids.start()
warm.start()
