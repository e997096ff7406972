"""What a reader takes along: tables and charts as files, and the question in Python, SQL and the shell."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

import polars as pl
import streamlit as st
from altair.utils.schemapi import disable_debug_mode

from calc.charts import Chart
from calc.described import metadata
from calc.tables import load
from calc.ui.answers import Word
from calc.ui.tables import as_read

# Altair's check of its own specifications takes longer than all else that is drawn: tests do it once for each chart
disable_debug_mode()
SCALE = 2


def section(
    title: str,
    name: str,
    frame: pl.DataFrame | None = None,
    drawn: Chart | None = None,
    help: str | None = None,
    texts: Mapping[str, str] | None = None,
) -> None:
    """Draw a heading, and beside it the files of what stands below: a table, a chart, the question as ``texts``.

    ``name`` is the files'; ``texts`` is by language: python, sql, bash.
    """
    with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="bottom"):
        st.subheader(title, help=help, width="content")
        with st.container(horizontal=True, width="content", gap="xsmall"):
            if frame is not None or drawn is not None:
                _downloads(name, frame, drawn)
            if texts:
                _reproduce(texts)


def draw(drawn: Chart, **more: Any) -> None:
    """Draw a chart; ``more`` goes to ``st.vega_lite_chart``."""
    spec = drawn.to_dict(validate=False)
    # Streamlit takes a Polars frame as it is, and rows by way of pandas
    spec["datasets"] = {n: pl.DataFrame(rows, infer_schema_length=None) for n, rows in spec["datasets"].items()}
    st.vega_lite_chart(spec, **more)


def table(frame: pl.DataFrame, words: Mapping[str, Word], alt: str, shares: Collection[str] = (), **more: Any) -> None:
    """Draw a table in the units in which it is read; ``more`` goes to ``st.dataframe``."""
    view, columns = as_read(frame, words, shares)
    columns |= more.pop("column_config", {})
    st.dataframe(view, hide_index=True, column_config=columns, placeholder="—", alt=alt, **more)


def _downloads(name: str, frame: pl.DataFrame | None, drawn: Chart | None) -> None:
    """Draw the menu of files, each of which is written when it is asked for."""
    files: dict[str, tuple[str, Callable[[], bytes]]] = {}
    if frame is not None:
        rows = f"{frame.height:,} row{'s' if frame.height != 1 else ''}"
        files |= {ending: (f"Table, {ending.upper()}, {rows}", partial(w, frame)) for ending, w in WRITERS.items()}
    if drawn is not None:
        files |= {e: (f"Chart, {e.upper()}", partial(write, drawn)) for e, write in DRAWERS.items()}
    with st.popover("Download", icon=":material/download:", type="tertiary"):
        for ending, (label, write) in files.items():
            st.download_button(
                label, write, f"{name}.{ending}", MIMES[ending], key=f"{name}-{ending}", on_click="ignore",
                width="stretch",
            )  # fmt: skip
        if frame is not None:
            st.caption("Tables have every column, in base units.")


def _reproduce(texts: Mapping[str, str]) -> None:
    with st.popover("Reproduce", icon=":material/code:", type="tertiary", help="Ask the same elsewhere."):
        for language, text in texts.items():
            st.caption({"python": "Python", "sql": "SQL", "bash": "Command line"}[language])
            st.code(text.strip(), language=language, wrap_lines=True)


def _png(drawn: Chart) -> bytes:
    file = io.BytesIO()
    drawn.save(file, format="png", scale_factor=SCALE)
    return file.getvalue()


def _svg(drawn: Chart) -> bytes:
    file = io.StringIO()
    drawn.save(file, format="svg")
    return file.getvalue().encode()


def _csv(frame: pl.DataFrame) -> bytes:
    return frame.write_csv().encode()


def _parquet(frame: pl.DataFrame) -> bytes:
    file = io.BytesIO()
    frame.write_parquet(file, metadata=metadata(load(), frame.columns))
    return file.getvalue()


def _xlsx(frame: pl.DataFrame) -> bytes:
    from calc.workbook.tables import MOST_ROWS, write_table

    file = io.BytesIO()
    write_table(load(), frame.head(MOST_ROWS), file)
    return file.getvalue()


WRITERS: dict[str, Callable[[pl.DataFrame], bytes]] = {"csv": _csv, "parquet": _parquet, "xlsx": _xlsx}
DRAWERS: dict[str, Callable[[Chart], bytes]] = {"png": _png, "svg": _svg}
MIMES = {
    "csv": "text/csv", "parquet": "application/vnd.apache.parquet",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", "png": "image/png",
    "svg": "image/svg+xml",
}  # fmt: skip
