"""The dashboard: ``streamlit run app.py``. Its pages are in ``calc/ui``, one question each."""

from __future__ import annotations

import streamlit as st

from calc.ui import (
    calculator,
    choose_hardware,
    compare,
    curves,
    data_page,
    grids,
    spreadsheet,
    sql_page,
    survey,
    validation,
    what_helps,
)

# pages whose inputs are in the sidebar
SIDEBARS = ("Calculator", "Curves", "Hardware", "What helps")

st.set_page_config(page_title="LLM inference calculator", page_icon="📐", layout="wide")

PAGES = (
    (
        calculator,
        "Calculator",
        "calculate",
        "What will this model do on this device? Times, memory, roofline, formulas.",
    ),
    (curves, "Curves", "show_chart", "How a figure changes with batch, length, bits, bandwidth or devices."),
    (choose_hardware, "Hardware", "memory", "Which deployment keeps your limits at the least cost."),
    (what_helps, "What helps", "bolt", "Every technique ranked by what it would change, and a stack of them."),
    (compare, "Compare", "compare_arrows", "Whole scenarios side by side, with their differences."),
    (survey, "Survey", "menu_book", "Every table and figure of the survey, live, by both accountings."),
    (validation, "Validation", "fact_check", "Published measurements beside what the roofline says."),
    (sql_page, "SQL", "database", "Ask all tables, views and the grid in SQL."),
    (data_page, "Data", "table_view", "Models, devices, techniques and formulas with their sources; edit them."),
)
chosen = st.navigation(
    [
        st.Page(
            page.page,
            title=title,
            icon=f":material/{icon}:",
            url_path=title.lower().replace(" ", "_"),
            default=page is calculator,
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
