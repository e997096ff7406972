"""Every table and figure of the survey, live: its query, its chart, both accountings, and what it may be asked of."""

from __future__ import annotations

import re
from functools import lru_cache

import duckdb
import polars as pl
import streamlit as st

from calc.database import connect
from calc.errors import CalcError
from calc.survey_charts import CHARTS
from calc.tables import ROOT, load
from calc.ui import answers, share
from calc.ui.answers import Question, Version, Word
from calc.ui.question import device_names

FOLDER = ROOT / "sql" / "survey"
SIZES = ("batch", "input_len")


def page() -> None:
    """Draw the page."""
    st.header("Survey")
    st.caption(
        "Tables and figures of *LLM Inference Unveiled: Survey and Roofline Model Insights* "
        "([arXiv:2402.16363](https://arxiv.org/abs/2402.16363)), as its tool counts (llm_viewer) and exactly."
    )
    known = {_titled(name): name for name in _queries()}
    name = known[st.selectbox("Table or figure", list(known), key="figure", bind="query-params", width=320)]
    text = _queries()[name]
    st.caption(f"{_about(text)[:1].upper()}{_about(text)[1:]}")
    try:
        said = _controls(name, text)
        with st.spinner("Asking", show_time=True):
            found = _asked(name, tuple(said.items()), answers.version())
    except CalcError as error:
        st.error(str(error), title="This question has no answer", icon=":material/error:")
        return
    _drawn(name, text, said, found)


def warm(_question: Question, version: Version) -> None:
    """Make what a first visit waits for: the connection, and the programs of the first table."""
    _asked(next(iter(_queries())), (), version)


@lru_cache(maxsize=1)
def _queries() -> dict[str, str]:
    texts = {p.stem: p.read_text(encoding="utf-8") for p in FOLDER.glob("*.sql")}
    numbered = sorted(
        texts, key=lambda n: (not n.startswith("table"), not n.startswith("figure"), int(re.sub(r"\D", "", n) or 0), n)
    )
    return {n: texts[n] for n in numbered}


def _titled(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _about(text: str) -> str:
    return text.partition("\n")[0].partition(":")[2].strip()


def _variables(text: str) -> dict[str, str]:
    """Return what a query may be told, each with what it means when it is not."""
    header = re.search(r"^-- variables: (.*)$", text, re.MULTILINE)
    pairs = (part.partition(" = ") for part in header.group(1).split(", ")) if header else ()
    return {name: usual for name, _, usual in pairs}


def _controls(name: str, text: str) -> dict[str, str | int]:
    """Draw an input for each variable of a query; return those that are not as in the survey."""
    usual = _variables(text)
    said: dict[str, str | int] = {}
    words = answers.words("scenarios")
    with st.grid(4, min_column_width=190, vertical_alignment="bottom"):
        for column, value in usual.items():
            key = f"{name}_{column}"
            if column in SIZES:
                least, most = (int(v) for v in answers.bounds(column))
                said[column] = st.number_input(
                    words[column].label, least, most, value=int(value), key=key, bind="query-params",
                    help=words[column].description,
                )  # fmt: skip
            elif column == "model_id":
                options = answers.models()["model_id"].to_list()
                said[column] = st.selectbox(
                    words[column].label, options, index=options.index(value), key=key, bind="query-params"
                )
            else:
                ids = device_names()
                shown = {i: n for n, i in ids.items()}
                chosen = st.selectbox(
                    words[column].label, list(ids), index=list(ids).index(shown[value]), key=key, bind="query-params"
                )
                said[column] = ids[chosen]
    return {c: v for c, v in said.items() if str(v) != usual[c]}


@st.cache_data(max_entries=64, show_spinner=False)
def _asked(name: str, said: tuple[tuple[str, str | int], ...], version: Version) -> pl.DataFrame:
    # variables are the cursor's own, so the next question does not find them
    cursor = _connected(version).cursor()
    for column, value in said:
        cursor.execute(f"set variable {column} = ?", [value])
    found: pl.DataFrame = cursor.sql(_queries()[name]).pl()
    cursor.close()
    return found


@st.cache_resource(max_entries=2, show_spinner=False)
def _connected(version: Version) -> duckdb.DuckDBPyConnection:
    """Return a connection with what all queries name."""
    return connect(load(version[0]), query="\n".join(_queries().values()), is_asked=True)


def _drawn(name: str, text: str, said: dict[str, str | int], found: pl.DataFrame) -> None:
    drawn = CHARTS[name](found) if name in CHARTS and found.height else None
    told = "".join(f" --param {c}={v}" for c, v in said.items())
    texts = {"bash": f"python -m calc sql --file sql/survey/{name}.sql{told}", "sql": text}
    share.section(_titled(name), name, found, drawn, texts=texts)
    st.caption("As in the survey." if not said else f"Not as in the survey: {', '.join(said)}.")
    if drawn is not None:
        share.draw(drawn, key=f"survey-{name}", alt=f"{_titled(name)}: {_about(text)}")
    words = answers.words("operators") | answers.words("stages") | answers.words("serving") | answers.words("scenarios")
    missing = {c: Word(c) for c in found.columns if c not in words}
    share.table(found, words | missing, alt=f"Rows of {_titled(name)}", key=f"rows-{name}")
