"""The dashboard: ``streamlit run app.py``. Its pages are in ``calc/ui``."""

from __future__ import annotations

import streamlit as st

from calc.ui import calculator

st.set_page_config(page_title="LLM inference roofline", page_icon="📐", layout="wide")

PAGES = [
    st.Page(
        calculator.page,
        title="Calculator",
        icon=":material/calculate:",
        url_path="calculator",
        default=True,
        help="One model on one device: times, memory, the roofline with every operator, and the formula of every cell.",
    ),
]

st.navigation(PAGES, position="top").run()
