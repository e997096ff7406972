"""The Calculator's inputs beside a figure that needs no calculation: what the inputs take by themselves."""

import sys
from pathlib import Path

import streamlit as st

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from calc.ui.question import choose

with st.sidebar:
    question = choose()
st.metric("Requests", str(question["batch"]))
