"""What scenarios answer under techniques, from inside a query: the function ``technique_answers``."""

from __future__ import annotations

import atexit
import json
from weakref import WeakSet

import duckdb
import polars as pl
import pyarrow as pa

from calc.database import SQL_TYPES
from calc.errors import CalcError
from calc.evaluation import evaluate
from calc.loading import load_sheet
from calc.questions import scenario_columns, stack_of
from calc.results import result_columns
from calc.tables import DTYPES, Tables

FUNCTION = "technique_answers"
ANSWER = (
    "ttft_s", "tpot_s", "output_tokens_per_s", "memory_needed_bytes", "fits", "usd_per_million_output_tokens",
    "energy_j_per_token", "ttft_bound", "prefill_ops", "prefill_weight_bytes", "prefill_kv_write_bytes",
    "prefill_memory_bytes", "tpot_bound", "decode_ops", "decode_weight_bytes", "decode_kv_read_bytes",
    "decode_memory_bytes", "reason",
)  # fmt: skip
"""What a scenario answers under each technique: columns of ``serving``."""
_OPEN: WeakSet[duckdb.DuckDBPyConnection] = WeakSet()


def create_function(connection: duckdb.DuckDBPyConnection, tables: Tables) -> None:
    """Make ``technique_answers(scenario, techniques)`` known to a connection.

    ``scenario`` is a row of scenarios as JSON, ``techniques`` a list of ids or NULL; the result is a list with a struct
    for each technique, which is added to those that the scenario names: ``technique``, the columns of ``ANSWER``. What
    cannot be asked has a ``reason`` and no figures.
    """
    dtypes = {c: t for c, t in result_columns(tables, "serving").items() if c in ANSWER}
    of_struct = {"technique": "text"} | {c: dtypes[c] for c in ANSWER}
    arrow = {"text": pa.string(), "number": pa.float64(), "boolean": pa.bool_()}
    struct = pa.struct([(c, arrow[t]) for c, t in of_struct.items()])
    sql = ", ".join(f"{c} {SQL_TYPES[t]}" for c, t in of_struct.items())

    def answers(scenarios: pa.ChunkedArray, techniques: pa.ChunkedArray) -> pa.Array:
        found = _answers(tables, scenarios.to_pylist(), techniques.to_pylist())
        return pa.array(found, type=pa.list_(struct))

    connection.create_function(
        FUNCTION, answers, ["varchar", "varchar[]"], f"struct({sql})[]", type="arrow", null_handling="special"
    )  # type: ignore[call-overload]
    # DuckDB complains at exit of functions that are still known to an open connection
    _OPEN.add(connection)


@atexit.register
def _close() -> None:
    for connection in list(_OPEN):
        connection.close()


def _answers(tables: Tables, scenarios: list[str], techniques: list[list[str | None]]) -> list[list[dict[str, object]]]:
    """Return for each scenario a row per technique, all of them evaluated at once."""
    known = scenario_columns(tables)
    asked: list[dict[str, object]] = []
    for nth, (scenario, ids) in enumerate(zip(scenarios, techniques, strict=True)):
        row = {c: v for c, v in json.loads(scenario).items() if c in known}
        own = row.get("technique") or ""
        for technique in ids:
            stack = "+".join(t for t in (str(own), technique or "") if t)
            reason = _refused(tables, stack)
            asked.append({**row, "technique": stack, "__nth": nth, "__added": technique, "__refused": reason})
    frame = pl.DataFrame(asked, infer_schema_length=None)
    possible = frame.filter(pl.col("__refused").is_null())
    question = possible.select(c for c in frame.columns if c in known)
    answered = evaluate(tables, question, by="serving").select(ANSWER).collect()
    whole = pl.concat(
        [possible.select("__nth", "__added").hstack(answered), _without_figures(tables, frame)], how="diagonal"
    )
    rows = {(r.pop("__nth"), r["__added"]): r for r in whole.iter_rows(named=True)}
    return [[{**rows[(nth, t)], "technique": t} for t in ids] for nth, ids in enumerate(techniques)]


def _refused(tables: Tables, stack: str) -> str | None:
    try:
        load_sheet(tables, "exact", stack_of(stack))
    except CalcError as error:
        return str(error)
    return None


def _without_figures(tables: Tables, frame: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of stacks that cannot be, with their reasons."""
    refused = frame.filter(pl.col("__refused").is_not_null())
    dtypes = result_columns(tables, "serving")
    empty = [pl.lit(None, DTYPES[dtypes[c]]).alias(c) for c in ANSWER if c != "reason"]
    return refused.select("__nth", "__added", pl.col("__refused").cast(pl.String).alias("reason"), *empty)
