"""The second page: which device serves a model the cheapest within limits, asked of a grid in SQL."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import duckdb
import streamlit as st

import calc
from calc.display import quantity
from calc.errors import CalcError
from calc.tables import ROOT
from calc.ui import answers
from calc.ui.answers import Version, Word
from calc.ui.tables import as_read

FOLDER = "CALC_GRID"
"""Environment variable: the grid that the page asks; without it the dashboard builds the grid ``demo`` for itself."""
LIMITS = {"ttft_s": 500, "tpot_s": 50}
"""What a first visit accepts, in milliseconds."""
SHOWN = ("usd_per_million_output_tokens", "precision", "tp", "batch", "ttft_s", "tpot_s", "output_tokens_per_s")
QUERY = f"""
select name as device, {", ".join(SHOWN)}
from serving join hardware using (hardware_id)
where fits and model_id = $model_id and input_len = $input_len and ttft_s <= $ttft_s and tpot_s <= $tpot_s
    and usd_per_million_output_tokens is not null
qualify row_number() over (partition by hardware_id order by usd_per_million_output_tokens, tpot_s, scenario_row) = 1
order by usd_per_million_output_tokens, device
"""


def page() -> None:
    """Draw the page."""
    st.header("Cheapest deployment on each device")
    try:
        named = os.environ.get(FOLDER)
        connection = _grid(named or str(_demo()), not named, answers.version())
    except CalcError as error:
        st.error(str(error), title="There is no grid to ask", icon=":material/error:")
        return
    chosen = _choose(connection)
    if chosen is None:
        st.info("This grid has no rows to choose from.")
        return
    start = time.perf_counter()
    found = connection.cursor().sql(QUERY, params=chosen).pl()
    took = quantity(time.perf_counter() - start, "s")
    rows = connection.cursor().sql("select count(*) from scenarios").fetchall()[0][0]
    st.caption(f"{rows:,} deployments, asked in {took}")
    if found.is_empty():
        st.info(
            "No deployment that fits and has a price keeps these limits. Allow more time or ask for shorter inputs."
        )
        return
    words = answers.words("scenarios") | answers.words("serving") | {"device": Word("Device", "", "Name of the device")}
    view, columns = as_read(found, words)
    st.dataframe(
        view, hide_index=True, column_config=columns, placeholder="—", alt="The cheapest deployment on each device"
    )
    with st.expander("The query", icon=":material/database:"):
        st.code(QUERY.strip(), language="sql")
        st.caption("Set its `$` parameters, or write your own: `python -m calc grid demo --out grid`, then "
                   "`python -m calc sql --grid grid \"from serving limit 5\"`.")  # fmt: skip


def start() -> None:
    """Begin to build the grid that the page asks where none is named, beside whatever the dashboard does meanwhile."""
    if not os.environ.get(FOLDER):
        _building(str(_demo()))


@st.cache_resource(show_spinner=False)
def _building(folder: str) -> subprocess.Popen[bytes]:
    """Return the process that builds the grid ``demo``: it takes none of the time in which pages are drawn."""
    command = [sys.executable, "-m", "calc", "grid", "demo", "--out", folder]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@st.cache_resource(max_entries=2, show_spinner="Building the demo grid: some seconds, once")
def _grid(folder: str, is_demo: bool, version: Version) -> duckdb.DuckDBPyConnection:
    """Return a connection over a grid, the page's own once it is built. Raises CalcError."""
    if is_demo:
        _building(folder).wait()
        # nothing is left to build, unless that process failed: then this says why
        calc.build_grid("demo", folder)
    return calc.connect(grid=folder)


def _demo() -> Path:
    """Return the place of the page's own grid: where this user's programs keep what they can make again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llm-calculator" / "demo"


def _choose(connection: duckdb.DuckDBPyConnection) -> dict[str, Any] | None:
    """Draw the inputs and return the query's parameters; None for a grid without rows."""
    words = answers.words("scenarios") | answers.words("serving")
    lists = {
        c: [r[0] for r in connection.cursor().sql(f"select distinct {c} from scenarios order by 1").fetchall()]
        for c in ("model_id", "input_len")
    }
    if not all(lists.values()):
        return None
    found: dict[str, Any] = {}
    with st.grid(4, min_column_width=160, gap=("small", "xsmall")):
        for column, options in lists.items():
            found[column] = st.selectbox(
                words[column].label, options, key=f"grid_{column}", bind="query-params", help=words[column].description,
                format_func=lambda v: f"{v:g}" if isinstance(v, float) else str(v).rpartition("/")[2],
            )  # fmt: skip
        for column, limit in LIMITS.items():
            found[column] = (
                st.number_input(
                    f"{words[column].label}, at most (ms)", min_value=1, value=limit, step=10, key=f"grid_{column}",
                    bind="query-params", help=words[column].description,
                ) / 1e3
            )  # fmt: skip
    return found
