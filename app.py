"""The dashboard: ``streamlit run app.py``. Its pages are in ``calc/ui``."""

from __future__ import annotations

import streamlit as st

from calc.ui import calculator, deployments

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
    st.Page(
        deployments.page,
        title="Deployments",
        icon=":material/table_chart:",
        url_path="deployments",
        help="The cheapest deployment of a model on each device within limits, asked of a grid.",
    ),
]

st.navigation(PAGES, position="top").run()
# once the first page is drawn
deployments.start()
