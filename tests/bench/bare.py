"""A bare page, to compare the dashboard with: a slider, one chart, one table and the slider's value as a figure."""

import altair as alt
import polars as pl
import streamlit as st

value = st.slider("Value", 1, 1000, 10, key="value")
st.metric("Square", f"{value * value}")
points = pl.DataFrame({"x": range(50), "y": [value * x for x in range(50)]})
st.altair_chart(alt.Chart(points).mark_line().encode(x="x", y="y"), key="chart")
st.dataframe(points, key="table")
