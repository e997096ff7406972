"""What scenarios answer under techniques, from inside a query: ``technique_answers`` and ``stage_answers``."""

from __future__ import annotations

import atexit
import json
from collections.abc import Callable, Collection
from functools import partial
from weakref import WeakSet

import duckdb
import polars as pl
import pyarrow as pa

from calc.calibration.applied import with_fitted
from calc.calibration.expected import ERRORS
from calc.dialects import DUCKDB
from calc.errors import CalcError
from calc.evaluation import answered
from calc.loading import load_sheet
from calc.program import GRAINS
from calc.questions import scenario_columns, stack_of
from calc.results import result_columns, uncollected
from calc.tables import DTYPES, ROOT, Tables

STAGE = ("stage", "ops", "memory_bytes", "weight_bytes", "kv_read_bytes", "time_s", "bound", "reason")
"""What ``stage_answers`` says of a stage: columns of ``stages``."""
ANSWER = (
    "ttft_s", "tpot_s", "output_tokens_per_s", "memory_needed_bytes", "fits", "usd_per_million_output_tokens",
    "energy_j_per_token", "ttft_bound", "prefill_ops", "prefill_weight_bytes", "prefill_kv_write_bytes",
    "prefill_memory_bytes", "tpot_bound", "decode_ops", "decode_weight_bytes", "decode_kv_read_bytes",
    "decode_memory_bytes", "reason",
)  # fmt: skip
"""What a scenario answers under each technique: columns of ``serving``."""
LEFT_OUT = ["accounting", "calibration", "money", "memory"]
"""Groups of techniques that help nothing: they count otherwise."""
Answered = dict[str | None, dict[str, object]]
"""What a scenario answers under each technique, and under none."""
AT_ONCE = 60
"""Techniques that are asked at a time, between two reports of what is done: many share a program."""
Answering = Callable[[list[str], list[list[str | None]]], list[list[dict[str, object]]]]
_OPEN: WeakSet[duckdb.DuckDBPyConnection] = WeakSet()


def what_helps(
    tables: Tables,
    scenario: dict[str, object],
    told: Callable[[float], object] = float,
    groups: Collection[str] = (),
    known: Answered | None = None,
) -> pl.DataFrame:
    """Return what every technique would change for one scenario: the view ``what_helps``, a row per technique.

    Of ``groups`` alone where some are named. ``told`` is called with the share that is done; ``known`` has what was
    answered before for this scenario, and then all of it. Raises CalcError for a scenario that cannot be asked.
    """
    asked = pl.DataFrame([scenario])
    answered(tables, asked, "serving", columns=["ttft_s"])
    tried = tables["techniques"].filter(~pl.col("group").is_in(LEFT_OUT))
    tried = tried.filter(pl.col("group").is_in(list(groups))) if groups else tried
    found = {} if known is None else known
    ids = [t for t in (None, *tried["technique_id"]) if t not in found]
    with uncollected():
        for first in range(0, len(ids), AT_ONCE):
            some = ids[first : first + AT_ONCE]
            found |= zip(some, _answers(tables, [json.dumps(scenario)], [some])[0], strict=True)
            told((first + len(some)) / len(ids))
    unsaid = {c: pl.lit(None, DTYPES[str(rule["dtype"])]).alias(c) for c, rule in scenario_columns(tables).items()}
    whole = asked.select(*asked.columns, *(e for c, e in unsaid.items() if c not in asked.columns))
    connection = duckdb.connect()
    connection.register("techniques", tried)
    connection.register("asked", whole)
    connection.execute("create table scenarios as from asked")
    _create(connection, tables, lambda scenarios, lists: [[found[t] for t in some] for some in lists])
    ranked: pl.DataFrame = connection.sql((ROOT / "sql" / "what_helps.sql").read_text(encoding="utf-8")).pl()
    connection.close()
    return ranked


def create_functions(connection: duckdb.DuckDBPyConnection, tables: Tables) -> None:
    """Make ``technique_answers(scenario, techniques)`` and ``stage_answers(scenario, sheet)`` known to a connection.

    ``scenario`` is a row of scenarios as JSON. The first gives a list with a struct for each id of the list
    ``techniques`` (NULL: none), which is added to those that the scenario names: ``technique``, the columns of
    ``ANSWER``; what cannot be asked has a ``reason`` and no figures. The second gives a struct for each stage of the
    scenario with its techniques, the columns of ``STAGE``, and fails where it cannot be asked. Both tell what error is
    to be expected of a calibration: the columns of ``expected_errors``.
    """
    _create(connection, tables, partial(_answers, tables))


def _create(connection: duckdb.DuckDBPyConnection, tables: Tables, answers: Answering) -> None:
    serving, stages = result_columns(tables, "serving"), result_columns(tables, "stage")
    errors = {str(c["column_name"]): str(c["dtype"]) for c in tables.columns("expected_errors")}
    answer = {"technique": "text"} | {c: serving[c] for c in ANSWER} | errors
    stage = {c: stages[c] for c in STAGE} | errors

    def technique_answers(scenarios: pa.ChunkedArray, techniques: pa.ChunkedArray) -> pa.Array:
        return listed(answers(scenarios.to_pylist(), techniques.to_pylist()), answer)

    def stage_answers(scenarios: pa.ChunkedArray, sheets: pa.ChunkedArray) -> pa.Array:
        return listed(_rows(tables, "stage", list(stage), scenarios.to_pylist(), sheets.to_pylist()), stage)

    _create_function(connection, technique_answers, "varchar[]", answer)
    _create_function(connection, stage_answers, "varchar", stage)


def create_grains(connection: duckdb.DuckDBPyConnection, tables: Tables) -> None:
    """Make ``__operator(scenario, sheet)``, ``__stage`` and ``__serving`` known to a connection.

    ``scenario`` is a row of scenarios as JSON. Each gives a list with a struct for each row of the scenario's answer,
    with every result column of the grain; those that the sheet does not have are NULL.
    """
    for by in GRAINS:
        _create_function(connection, _grain(tables, by), "varchar", result_columns(tables, by))


def _grain(tables: Tables, by: str) -> Callable[[pa.ChunkedArray, pa.ChunkedArray], pa.Array]:
    """Return the function that answers scenarios at a grain."""
    gives = result_columns(tables, by)

    def rows(scenarios: pa.ChunkedArray, sheets: pa.ChunkedArray) -> pa.Array:
        return listed(_rows(tables, by, list(gives), scenarios.to_pylist(), sheets.to_pylist()), gives)

    rows.__name__ = f"__{by}"
    return rows


def _create_function(
    connection: duckdb.DuckDBPyConnection, function: Callable[..., pa.Array], takes: str, gives: dict[str, str]
) -> None:
    """Make a function of a scenario and something else known to a connection; it gives a list of structs."""
    fields = ", ".join(f'"{c}" {DUCKDB.type(t)}' for c, t in gives.items())
    connection.create_function(
        function.__name__, function, ["varchar", takes], f"struct({fields})[]", type="arrow", null_handling="special"
    )  # type: ignore[call-overload]
    close_at_exit(connection)


def close_at_exit(connection: duckdb.DuckDBPyConnection) -> None:
    """Close a connection in the end: DuckDB complains of functions that are still known to an open one."""
    _OPEN.add(connection)


def listed(rows: list[list[dict[str, object]]], dtypes: dict[str, str]) -> pa.Array:
    """Return lists of rows as an array of lists of structs; ``dtypes`` are the dictionary's."""
    arrow = {"text": pa.string(), "number": pa.float64(), "boolean": pa.bool_()}
    return pa.array(rows, type=pa.list_(pa.struct([(c, arrow[t]) for c, t in dtypes.items()])))


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
            reason = _refused(tables, with_fitted(tables, row, stack))
            asked.append({**row, "technique": stack, "__nth": nth, "__added": technique, "__refused": reason})
    frame = pl.DataFrame(asked, infer_schema_length=None)
    possible = frame.filter(pl.col("__refused").is_null())
    question = possible.select(c for c in frame.columns if c in known)
    figures = answered(tables, question, "serving", columns=(*ANSWER, *ERRORS[1:]))
    whole = pl.concat(
        [possible.select("__nth", "__added").hstack(figures), _without_figures(tables, frame)], how="diagonal"
    )
    rows = {(r.pop("__nth"), r["__added"]): r for r in whole.iter_rows(named=True)}
    return [[{**rows[(nth, t)], "technique": t} for t in ids] for nth, ids in enumerate(techniques)]


def _rows(
    tables: Tables, by: str, columns: list[str], scenarios: list[str], sheets: list[str]
) -> list[list[dict[str, object]]]:
    """Return for each scenario some columns of the rows of its answer under its sheet."""
    known = scenario_columns(tables)
    asked = [{c: v for c, v in json.loads(s).items() if c in known and v is not None} for s in scenarios]
    frame = pl.DataFrame(asked, infer_schema_length=None).with_columns(
        nth=pl.int_range(pl.len()), of_sheet=pl.Series(sheets)
    )
    found: list[list[dict[str, object]]] = [[] for _ in scenarios]
    for (sheet,), questions in frame.group_by("of_sheet", maintain_order=True):
        rows = answered(tables, questions.drop("of_sheet"), by, str(sheet), ("nth", *columns))
        for row in rows.iter_rows(named=True):
            found[row.pop("nth")].append(row)
    return found


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
