"""Scenarios of the user's own, pasted from a spreadsheet, from a file or typed, each with its answers."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import polars as pl
import streamlit as st

from calc.errors import CalcError
from calc.evaluation import answered
from calc.scenario_files import ENDINGS, parse_pasted, read_scenarios, typed
from calc.tables import load
from calc.ui import answers, session, share
from calc.ui.answers import Question, Version, Word
from calc.ui.question import ASKED, LARGEST_FILE_MB, usual

ROWS, BROUGHT, TOLD = "own_rows", "own_brought", "own_told"
"""Where a session keeps the rows that the editor starts from, how often they were brought, and what came of it."""
FIRST = {
    "model_id": pl.String, "hardware_id": pl.String, "batch": pl.Float64, "input_len": pl.Float64,
    "output_len": pl.Float64, "precision": pl.String, "technique": pl.String,
}  # fmt: skip
"""Columns that the editor starts with."""
SHOWN = (
    "fits", "ttft_s", "tpot_s", "output_tokens_per_s", "usd_per_million_output_tokens", "energy_j_per_token",
    "memory_needed_bytes", "tpot_bound", "reason",
)  # fmt: skip
REPRODUCED = {
    "python": 'import calc\n\nrows = calc.read_scenarios("scenarios.csv")\ncalc.evaluate(rows, by="serving").collect()',
    "bash": "python -m calc analyze --scenarios scenarios.csv --by serving",
}
MOST_STACKS = 8
"""Stacks of techniques that a workbook may choose from."""
NAME = "The rows"
"""What messages call them."""


def draw() -> None:
    """Draw the rows to edit, and below them the answer to each."""
    rows = _edited()
    if rows.is_empty():
        st.info("Type a row, paste some, or take a file.", icon=":material/table_rows:")
        return
    try:
        found = _answered(rows, answers.version())
    except CalcError as error:
        st.error(str(error), title="These rows have no answer", icon=":material/error:")
        return
    stacks = found["technique"].drop_nulls().n_unique() if "technique" in found.columns else 0
    if stacks <= MOST_STACKS:
        st.session_state[ASKED] = rows
    share.section("Answers", "answers", found, texts=REPRODUCED)
    words = answers.words("scenarios") | answers.words("serving")
    words |= {c: Word(c, "", "A column of your own") for c in found.columns if c not in words}
    shown = found.select(*rows.columns, *(c for c in SHOWN if c in found.columns and c not in rows.columns))
    # a new table for new rows: one that stays keeps its columns' widths
    key = f"own-answers-{rows.hash_rows().sum()}"
    share.table(shown, words, alt="Every row with its answers", key=key)


def _edited() -> pl.DataFrame:
    """Draw the editor and where its rows come from; return those that say something."""
    told = st.session_state.pop(TOLD, None)
    if told:
        st.error(told, title="Nothing was taken", icon=":material/error:")
    start = st.session_state.get(ROWS)
    if start is None:
        start = st.session_state[ROWS] = _first()
    words = answers.words("scenarios")
    edited: pl.DataFrame = st.data_editor(
        start, num_rows="dynamic", hide_index=True, key=f"own-{st.session_state.get(BROUGHT, 0)}",
        column_config={c: st.column_config.Column(words[c].label, help=words[c].description)
                       for c in start.columns if c in words},
        alt="Scenarios, to edit",
    )  # fmt: skip
    with st.expander("Paste with a header, or take a file", icon=":material/content_paste:"):
        st.text_area(
            "Rows of a spreadsheet, the header first", key="own_pasted", on_change=_paste, height=120,
            placeholder="model\thardware\tbatch\tsite\nllama-3-8b\th100\t16\tOslo",
        )  # fmt: skip
        st.file_uploader(
            "A file", type=[e.removeprefix(".") for e in ENDINGS], key="own_file", on_change=_upload,
            max_upload_size=LARGEST_FILE_MB,
        )  # fmt: skip
        st.caption(
            "Any column of a scenario (model, hardware, workload, batch, precision, technique, tp…) is read as that; "
            "others are yours and come back. The rows stay in this session."
        )
    rows = edited.cast(start.schema, strict=False)
    return rows.filter(pl.any_horizontal(pl.all().is_not_null()))


def _first() -> pl.DataFrame:
    """Return the question that was asked last, or the usual one, as a row: editors paste onto rows."""
    asked = st.session_state.get(ASKED)
    said = dict((asked if isinstance(asked, Question) else usual()).scenario)
    return pl.DataFrame({c: [said.get(c)] for c in FIRST}, schema=FIRST)


def _paste() -> None:
    """Put pasted rows in the place of the editor's."""
    text = str(st.session_state["own_pasted"])
    if text.strip():
        _take(lambda: typed(session.tables(), parse_pasted(text, NAME), NAME))


def _upload() -> None:
    """Put a file's rows in the place of the editor's."""
    file = st.session_state["own_file"]
    if file is None:
        return
    with tempfile.TemporaryDirectory(prefix="calc-upload-") as folder:
        path = Path(folder) / Path(file.name).name
        path.write_bytes(file.getvalue())
        _take(lambda: read_scenarios(session.tables(), path))


def _take(read: Callable[[], pl.DataFrame]) -> None:
    try:
        rows = read()
        if rows.height > session.MOST_ROWS:
            raise CalcError(f"{rows.height:,} rows: this page takes at most {session.MOST_ROWS:,}; ask the command")
    except CalcError as error:
        st.session_state[TOLD] = str(error)
        return
    st.session_state[ROWS] = rows
    st.session_state[BROUGHT] = st.session_state.get(BROUGHT, 0) + 1


@st.cache_data(max_entries=16, show_spinner=answers.BUSY)
def _answered(rows: pl.DataFrame, version: Version) -> pl.DataFrame:
    tables = load(version[0])
    return answered(tables, typed(tables, rows, NAME, 1), "serving")
