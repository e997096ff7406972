"""Models, devices, formats, techniques and formulas as tables with their sources; edit them for this session."""

from __future__ import annotations

from collections.abc import Collection

import polars as pl
import streamlit as st

from calc.display import link, quantity
from calc.errors import CalcError
from calc.evaluation import answered
from calc.files import read_csv
from calc.patches import KEYS
from calc.tables import data_folder, load
from calc.ui import answers, session, share
from calc.ui.answers import Word

TABLES = {
    "models": "Models", "hardware": "Devices", "formats": "Formats", "precisions": "Precisions",
    "techniques": "Techniques", "parameters": "Settings of techniques", "workloads": "Workloads", "sources": "Sources",
}  # fmt: skip
SHEET = "Formulas"
FIRST_FILE = "roofline"
SHOWN_FIRST = {
    "models": (
        "model_id", "family", "n_layers", "hidden", "vocab", "n_heads", "n_kv_heads", "intermediate", "source_id",
    ),
    "hardware": (
        "hardware_id", "name", "vendor", "year", "memory_bandwidth_bytes_per_s", "memory_capacity_bytes",
        "fp16_ops_per_s", "price_usd_per_hour", "source_id",
    ),
}  # fmt: skip
COMPARED = ("ttft_s", "tpot_s", "output_tokens_per_s", "memory_needed_bytes", "usd_per_million_output_tokens")
HEIGHT = 480


def page() -> None:
    """Draw the page."""
    st.header("Data")
    _told()
    chosen = st.pills(
        "Table", [*TABLES.values(), SHEET], default=TABLES["models"], required=True, key="table", bind="query-params",
        label_visibility="collapsed",
    )  # fmt: skip
    try:
        if chosen == SHEET:
            _formulas()
        else:
            _table(next(t for t, label in TABLES.items() if label == chosen))
    except CalcError as error:
        st.error(str(error), title="The data cannot be read", icon=":material/error:")


def _told() -> None:
    """Say what this session has changed, and what came of the last edit."""
    edits = session.edits()
    if edits:
        with st.container(border=True, horizontal=True, vertical_alignment="center"):
            st.markdown(
                f":material/edit: This session has changed: {'; '.join(edits)}. Reload the page to undo it all."
            )
            st.button("Undo all", icon=":material/undo:", on_click=session.reset)
        _difference()
    said = st.session_state.pop("edit_error", None)
    if said:
        lines = said.splitlines()
        st.error("\n\n".join(lines[:12]), title="Nothing was changed: the edit breaks a rule", icon=":material/rule:")


def _difference() -> None:
    """Draw what the session's changes do to a few figures of what the Calculator shows first."""
    asked = pl.DataFrame(
        {"model_id": [answers.models()["model_id"][0]], "hardware_id": answers.hardware()["hardware_id"][:1]}
    )
    with st.expander("The difference that they make", icon=":material/difference:"):
        words = answers.words("serving")
        try:
            before, after = (
                answered(t, asked, "serving", columns=COMPARED).row(0, named=True)
                for t in (load(data_folder()), session.tables())
            )
        except CalcError as error:
            st.info(f"They cannot be compared: {error}")
            return
        rows = [
            (words[c].label, quantity(before[c], words[c].unit, 6), quantity(after[c], words[c].unit, 6),
             after[c] / before[c] - 1 if before[c] and after[c] is not None else None)
            for c in COMPARED
        ]  # fmt: skip
        frame = pl.DataFrame(rows, schema=["Figure", "Before", "Now", "Change"], orient="row")
        columns = {"Change": st.column_config.NumberColumn(format="percent")}
        st.dataframe(frame, hide_index=True, column_config=columns, key="difference", placeholder="—",
                     alt="Figures before and after the session's changes")  # fmt: skip
        st.caption(f"{asked['model_id'][0]} on {asked['hardware_id'][0]}, at the default sizes.")


def _table(table: str) -> None:
    tables = session.tables()
    frame = tables[table]
    words = answers.words(table)
    share.section(TABLES[table], table, frame)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        wanted = st.text_input(
            "Search", key=f"search_{table}", bind="query-params", type="search", placeholder="Any text in a row",
            width=320,
        )  # fmt: skip
        edit = st.toggle("Edit", key=f"edit_{table}", help="For this session; a reload undoes it.")
        every = st.toggle("Every column", key=f"every_{table}")
    places = _search(frame, wanted)
    columns = [c for c in frame.columns if every or edit or c in SHOWN_FIRST.get(table, frame.columns)]
    if edit:
        _editor(table, frame, places, words)
    else:
        with_links = frame[places].select(columns)
        if "source_id" in columns:
            links = [link(t) if t else None for t in tables["sources"]["locator"]]
            about = tables["sources"].select("source_id", Source="title", Link=pl.Series(links, dtype=pl.String))
            with_links = with_links.join(about, on="source_id", how="left", maintain_order="left").drop("source_id")
        config = {c: st.column_config.Column(words[c].label, help=_help(words[c])) for c in columns if c in words}
        config["Link"] = st.column_config.LinkColumn("Source's place", display_text="open")
        st.dataframe(
            with_links, hide_index=True, height=HEIGHT, column_config=config, key=f"rows-{table}", placeholder="—",
            alt=f"Table of {TABLES[table].lower()}",
        )  # fmt: skip
        st.caption(f"{places.len():,} of {frame.height:,} rows, {len(columns)} of {frame.width} columns; base units.")
    _upload(table)


def _help(word: Word) -> str:
    return f"{word.description} ({word.unit})" if word.unit else word.description


def _search(frame: pl.DataFrame, wanted: str) -> pl.Series:
    """Return the places of the rows that hold a text."""
    if not wanted.strip():
        return pl.int_range(frame.height, eager=True)
    texts = [pl.col(c).str.to_lowercase().str.contains(wanted.strip().lower(), literal=True)
             for c, t in frame.schema.items() if t == pl.String]  # fmt: skip
    return frame.select(pl.any_horizontal(texts).fill_null(value=False).arg_true()).to_series()


def _editor(table: str, frame: pl.DataFrame, places: pl.Series, words: dict[str, Word]) -> None:
    key = f"editor_{table}_{len(session.edits())}"
    shown = frame[places]
    edited = st.data_editor(
        shown, hide_index=True, num_rows="dynamic", height=HEIGHT, key=key,
        column_config={c: st.column_config.Column(words[c].label, help=_help(words[c])) for c in shown.columns},
        alt=f"Table of {TABLES[table].lower()}, to edit",
    )  # fmt: skip
    changed = edited.cast(dict(frame.schema), strict=False)
    if changed.equals(shown):
        st.caption("Change a cell, or add a row below the last; then keep it. Every rule of the table is checked.")
        return
    whole = merged(frame, places, changed, st.session_state[key]["deleted_rows"])
    st.button(
        "Keep for this session", type="primary", icon=":material/check:", on_click=_keep, args=(table, whole),
    )  # fmt: skip


def merged(frame: pl.DataFrame, places: pl.Series, edited: pl.DataFrame, deleted: Collection[int]) -> pl.DataFrame:
    """Return a table with the rows at ``places`` as an editor left them: some ``deleted``, new ones below the others.

    ``deleted`` counts within the rows that were shown, as the editor does. Rows that were not shown stay as they are.
    """
    left = [place for nth, place in enumerate(places.to_list()) if nth not in deleted]
    new = range(frame.height, frame.height + edited.height - len(left))
    rows = edited.insert_column(0, pl.Series("__place", [*left, *new], pl.UInt32))
    others = frame.with_row_index("__place").filter(~pl.col("__place").is_in(places.implode()))
    return pl.concat([others, rows]).sort("__place").drop("__place")


def _keep(table: str, frame: pl.DataFrame) -> None:
    try:
        before = session.tables()[table]
        changed = frame.join(before, on=frame.columns, how="anti", nulls_equal=True).height
        lost = max(0, before.height - frame.height)
        told = f"{TABLES[table].lower()} ({changed} rows" + (f", {lost} fewer" if lost else "") + ")"
        session.change_table(table, frame, told)
    except CalcError as error:
        st.session_state["edit_error"] = str(error)


def _upload(table: str) -> None:
    with st.expander("Add rows from a file", icon=":material/upload_file:"):
        kinds = ["csv", "json"] if table == "models" else ["csv"]
        st.file_uploader(
            "A CSV with this table's columns" + (", or a model's config.json" if table == "models" else ""), type=kinds,
            key=f"upload_{table}", on_change=_add, args=(table,), max_upload_size=2,
            help=f"At most {session.MOST_BYTES:,} bytes and {session.MOST_ROWS:,} rows; a row whose key is known "
            "replaces it. Read here, never executed.",
        )  # fmt: skip
        for text in st.session_state.get("added", []):
            st.caption(text)


def _add(table: str) -> None:
    file = st.session_state[f"upload_{table}"]
    st.session_state["added"] = []
    if file is None:
        return
    try:
        if file.name.endswith(".json"):
            name, told = session.import_model(file.getvalue(), file.name.rpartition(".")[0] or file.name)
            st.session_state["added"] = [f"{name}: {t}" for t in told]
        else:
            rows = session.read_upload(file.getvalue(), file.name)
            session.add_rows(table, rows, file.name)
            st.session_state["added"] = [f"{rows.height} rows added from {file.name}"]
    except CalcError as error:
        st.session_state["edit_error"] = str(error)


def _formulas() -> None:
    """Draw the cells of a sheet, to read and to edit; an edit is checked like the product's own."""
    files = list(KEYS)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        sheet = st.selectbox("Sheet", answers.sheets(), key="sheet_shown", bind="query-params", width=200)
        file = st.selectbox(
            "Cells of", files, index=files.index(FIRST_FILE), key="cells", bind="query-params", width=220
        )
        edit = st.toggle("Edit", key="edit_cells", help="For this session; a reload undoes it.")
    violations: list[str] = []
    frame = read_csv(session.folder() / "sheets" / sheet / f"{file}.csv", violations)
    if frame is None:
        st.info("; ".join(violations) or "There are no such cells.")
        return
    share.section(f"{file.capitalize()} of {sheet}", f"{sheet}-{file}", frame)
    if not edit:
        st.dataframe(frame, hide_index=True, height=HEIGHT, key="formulas", alt=f"Cells of {file}", placeholder="—")
        return
    edited = st.data_editor(
        frame, hide_index=True, num_rows="dynamic", height=HEIGHT, key=f"editor_{sheet}_{file}_{len(session.edits())}",
        alt=f"Cells of {file}, to edit",
    )  # fmt: skip
    if edited.equals(frame):
        st.caption("Change a formula, then keep it: names, units and what it rests on are checked.")
        return
    st.button(
        "Keep for this session", type="primary", icon=":material/check:", on_click=_keep_cells,
        args=(sheet, file, edited, frame),
    )  # fmt: skip


def _keep_cells(sheet: str, file: str, edited: pl.DataFrame, before: pl.DataFrame) -> None:
    try:
        changed = edited.join(before, on=edited.columns, how="anti", nulls_equal=True)
        named = changed.select(pl.concat_str([c for c in KEYS[file] if c in edited.columns], separator="."))
        cells = ", ".join(str(v) for v in named.to_series().to_list()[:5]) or "rows taken out"
        session.change_cells(sheet, file, edited, f"{sheet}/{file} ({cells})")
    except CalcError as error:
        st.session_state["edit_error"] = str(error)
