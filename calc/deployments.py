"""Which deployment of a model keeps limits at the least cost: candidates, and the views of ``sql/`` over their answers.

The views read a table ``serving``; here it is what Polars has answered already, so that a page asks in a second what
takes DuckDB much longer to compute by itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import duckdb
import polars as pl

from calc.database import sql_views
from calc.questions import DEGREES
from calc.tables import ROOT

SCENARIO = ("model_id", "hardware_id", "precision", "technique", *DEGREES, "dp", "batch", "input_len", "output_len")
COLUMNS = (
    "ttft_s", "tpot_s", "itl_s", "e2e_s", "requests_per_s", "n_devices", "fleet_devices", "output_tokens_per_s",
    "output_tokens_per_s_per_device", "tokens_per_s_per_user", "usd_per_million_output_tokens", "energy_j_per_token",
    "memory_needed_bytes", "memory_capacity_bytes", "fits", "sequences", "input_tokens", "output_tokens", "reason",
)  # fmt: skip
"""Results that the views and the page read."""


def candidates(
    question: Mapping[str, object],
    devices: Sequence[str],
    precisions: Sequence[str],
    users: int,
    most_devices: int,
    degrees: Sequence[int] = (1, 2, 4, 8),
) -> pl.DataFrame:
    """Return the deployments to ask: every device, precision and tp, and as many replicas as share the users.

    One row each, scenario columns of ``question`` with ``hardware_id``, ``precision``, ``tp``, ``dp`` and ``batch``:
    the users of the fullest replica. None has more than ``most_devices`` devices.
    """
    replicas = [2**p for p in range(math.ceil(math.log2(max(users, 1))) + 1)]
    sizes = [(tp, dp, math.ceil(users / dp)) for tp in degrees for dp in replicas if tp * dp <= most_devices]
    same = {c: v for c, v in question.items() if c not in ("hardware_id", "precision", "tp", "dp", "batch")}
    whole = dict.fromkeys(("tp", "dp", "batch"), pl.Int64)
    axes = (
        pl.DataFrame({"hardware_id": list(devices)}),
        pl.DataFrame({"precision": list(precisions)}),
        pl.DataFrame(sizes, schema=whole, orient="row"),
    )
    rows = pl.DataFrame([same])
    for axis in axes:
        rows = rows.join(axis, how="cross")
    return rows


def over(answered: pl.DataFrame, limits: Mapping[str, float | None]) -> duckdb.DuckDBPyConnection:
    """Return a connection whose views ``slo``, ``best_hardware``, ``pareto``, ``break_even`` read these answers.

    ``answered`` has the scenarios' columns and ``COLUMNS``, all of one model and workload; ``limits`` are the views'
    variables, of which None is none.
    """
    connection = duckdb.connect()
    keys = {
        "scenario_row": pl.int_range(1, pl.len() + 1), "question_id": pl.lit(1), "device_id": pl.col("hardware_id"),
        "formats_id": pl.col("precision").rank("dense") if "precision" in answered.columns else pl.lit(1),
    }  # fmt: skip
    known = set(answered.columns)
    absent = {c: pl.lit(1) for c in (*DEGREES, "dp") if c not in known} | (
        {} if "workload_id" in known else {"workload_id": pl.lit(None, pl.String)}
    )
    connection.register("serving", answered.with_columns(**keys, **absent))
    for name, value in limits.items():
        if value is not None:
            connection.execute(f"set variable {name} = {float(value)!r}")
    views = dict(sql_views(ROOT / "sql"))
    for view in ("slo", "best_hardware", "pareto", "break_even", "api_break_even"):
        connection.execute(f"create view {view} as {views[view]}")
    return connection
