"""Measured figures of models on devices, held beside what the sheet predicts for the same question.

``data/measurements.csv`` has a row per figure, with what was asked in the columns of a scenario;
``data/measured/dropped.csv`` says which groups of its source were left out, and why.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import duckdb
import polars as pl
import pyarrow as pa

from calc.dialects import DUCKDB
from calc.errors import DataError
from calc.evaluation import answered
from calc.files import parse_csv, read_given
from calc.questions import stack_of
from calc.stacks import close_at_exit, listed
from calc.tables import DTYPES, Tables

FILE = Path("measurements.csv")
TABLE = "measurements"
TIMES = (
    "decode_tokens_per_s_per_user", "decode_tokens_per_s", "tpot_s", "ttft_s", "prefill_tokens_per_s",
    "output_tokens_per_s",
)  # fmt: skip
"""Metrics that are times of a model, or rates that say one."""
WEIGHTS = "weight_bytes"
MEMORY = ("peak_memory_bytes", WEIGHTS)
SIZES = (*MEMORY, "kv_cache_tokens", "max_batch")
KERNELS = ("matrix_ops_per_s", "attention_ops_per_s", "memory_bytes_per_s")
"""Metrics of a kernel, not of a model."""
METRICS = (*TIMES, *SIZES, *KERNELS)
JOINING = ("vllm", "vllm_v0", "sglang", "tensorrt_llm", "tensorrt_llm_v0")
"""Engines that compute a prompt as soon as it comes, whatever else is in flight."""
SCENARIO = (
    "model_id", "hardware_id", "precision", "weight_format", "expert_format", "head_format", "activation_format",
    "kv_format", "attention", "technique", "batch", "input_len", "output_len", "tp", "pp", "ep",
)  # fmt: skip
ASKED = ("batch", "input_len", "output_len", "tp", "pp", "ep")
FIGURES = ("ttft_s", "tpot_s", "e2e_s", "max_batch", "fits", "weight_memory_bytes", "memory_needed_bytes", "reason")
OF_STAGES = ("floor_s", "matrix_s", "traffic_s")
"""Of each stage: what nothing can be below, and what its matrix work and its traffic take all devices at their peak."""
LARGEST_BYTES = 100_000_000


class Measured(NamedTuple):
    """Measurements that can be used, and those that cannot with what is wrong with each (``row``, ``problem``)."""

    accepted: pl.DataFrame
    rejected: pl.DataFrame


def measurements(tables: Tables, path: Path | None = None) -> Measured:
    """Return the measurements of a file, the data folder's own where none is given.

    A row that says what cannot be (a value that is no positive number, an unknown id or metric, no size where its
    metric needs one) is rejected, with its row in the file. Raises DataError for a file that is no such table.
    """
    place = path or tables.folder / FILE
    try:
        stamp = place.stat().st_mtime_ns
    except OSError:
        if path is not None:
            raise DataError([f"{path}: cannot be read (no such file)"]) from None
        return Measured(pl.DataFrame(schema=_schema(tables)), pl.DataFrame(schema=_REJECTED))
    return _measurements(tables, place, stamp)


_REJECTED = {"row": pl.Int64, "measurement_id": pl.String, "problem": pl.String}


def _schema(tables: Tables) -> dict[str, pl.DataType]:
    return {str(c["column_name"]): DTYPES[str(c["dtype"])]() for c in tables.columns(TABLE)}


@lru_cache(maxsize=4)
def _measurements(tables: Tables, place: Path, _stamp: int) -> Measured:
    raw = parse_csv(read_given(place, LARGEST_BYTES), place.name)
    schema = _schema(tables)
    wrong = sorted(set(schema) ^ set(raw.columns))
    if wrong:
        raise DataError([f"{place.name}: columns {', '.join(wrong)} are missing, or are none of measurements"])
    text = raw.with_columns(pl.all().str.strip_chars().replace("", None))
    numbers = [c for c, t in schema.items() if t == pl.Float64]
    frame = text.select(
        pl.col(c).cast(pl.Float64, strict=False) if c in numbers else pl.col(c) for c in schema
    ).with_row_index("row", 2)
    told = frame.with_columns(problem=_problem(tables, frame, text, numbers))
    rejected = told.filter(pl.col("problem") != "").select(pl.col("row").cast(pl.Int64), "measurement_id", "problem")
    return Measured(told.filter(pl.col("problem") == "").drop("row", "problem"), rejected)


def _problem(tables: Tables, frame: pl.DataFrame, text: pl.DataFrame, numbers: list[str]) -> pl.Series:
    """Return what is wrong with each row; nothing where it can be used."""
    is_model, is_time = ~pl.col("metric").is_in(KERNELS), pl.col("metric").is_in(TIMES)
    degrees = pl.col("batch", "tp", "pp", "ep")

    def unknown(column: str, table: str, key: str) -> pl.Expr:
        return ~pl.col(column).is_in(tables[table][key].implode()).fill_null(value=False)

    rules = [
        (
            pl.col("measurement_id").is_null() | pl.col("measurement_id").is_duplicated(),
            "its id is missing or another's",
        ),
        (pl.col("source").is_null(), "it names no source"),
        (~pl.col("metric").is_in(METRICS).fill_null(value=False), "its metric is none of those known"),
        (~(pl.col("value").is_finite() & (pl.col("value") > 0)).fill_null(value=False), "its value is not above 0"),
        (unknown("hardware_id", "hardware", "hardware_id"), "its device is unknown"),
        (is_model & unknown("model_id", "models", "model_id"), "its model is unknown"),
        (is_model & unknown("precision", "precisions", "precision_id"), "its precision is unknown"),
        (is_time & pl.any_horizontal(degrees.is_null() | (degrees < 1)), "its batch or a degree is missing or below 1"),
        (
            is_time & ~(pl.col("input_len") + pl.col("output_len") > 0).fill_null(value=False),
            "its lengths are missing or 0",
        ),
    ]
    for column in (c for c in SCENARIO if c.endswith("_format")):
        known = tables["formats"]["format_id"].implode()
        rules.append((~pl.col(column).is_in(known).fill_null(value=True), f"its {column} is unknown"))
    techniques = set(tables["techniques"]["technique_id"])
    stacks = [t for t in frame["technique"].drop_nulls().unique() if not set(stack_of(t)) <= techniques]
    rules.append((pl.col("technique").is_in(stacks).fill_null(value=False), "it names a technique that is unknown"))
    for column in numbers:
        unread = text[column].is_not_null() & frame[column].is_null()
        rules.append((pl.lit(unread), f"its {column} is no number"))
    for column in ("batch", "input_len", "output_len", "tp", "pp", "ep", "n_devices"):
        odd = (pl.col(column) < 0) | (pl.col(column) != pl.col(column).floor())
        rules.append((odd.fill_null(value=False) & is_time, f"its {column} is no whole number"))
    some = [pl.when(condition).then(pl.lit(said)) for condition, said in rules]
    return frame.select(pl.concat_str(some, separator="; ", ignore_nulls=True).fill_null("").alias("problem"))[
        "problem"
    ]


def predictions(tables: Tables, frame: pl.DataFrame) -> pl.DataFrame:
    """Return what the exact sheet predicts for measurements of times and memory, a row each: ``measurement_id``,
    times and memory of the answer, and of both stages (s) the floor, below which nothing can be, and the seconds of
    matrix work and of traffic that all devices have at their peak.

    Requests that have no room in memory wait: no more than fit are taken to be in flight. A row that cannot be asked
    has a ``reason`` and no figures.
    """
    # weights take the same memory whatever is asked of them
    sizes = {c: pl.when(pl.col("metric") == WEIGHTS).then(pl.col(c).fill_null(1)).otherwise(c) for c in ASKED}
    has_lengths = pl.col("input_len") + pl.col("output_len") > 0
    asked = frame.with_columns(**sizes)
    asked = asked.filter(pl.col("metric").is_in([*TIMES, *MEMORY]), has_lengths, pl.col("batch") >= 1)
    joins = (pl.col("metric") == "ttft_s") & pl.col("engine").is_in(JOINING)
    asked = asked.with_columns(batch=pl.when(joins).then(1.0).otherwise("batch")).select("measurement_id", *SCENARIO)
    # many figures were measured of the same question
    asked = asked.with_columns(question=pl.struct(SCENARIO).rank("dense"))
    questions = asked.drop("measurement_id").unique("question", maintain_order=True)
    figures = answered(tables, questions, "serving", columns=("question", "batch", *FIGURES))
    waits = (pl.col("max_batch") >= 1) & (pl.col("batch") > pl.col("max_batch"))
    room = figures.filter(waits).select("question", batch="max_batch")
    fewer = questions.drop("batch").join(room, on="question", maintain_order="left")
    figures = figures.filter(waits.fill_null(value=False).not_()).drop("batch")
    figures = pl.concat([figures, answered(tables, fewer, "serving", columns=("question", *FIGURES))])
    every = pl.concat([questions.join(room, on="question", how="anti"), fewer.select(questions.columns)])
    columns = ("question", "pp", "batch", "stage", "floor_s", "time_s", "mfu", "mbu")
    stages = answered(tables, every, "stage", columns=columns)
    # ranks of a pipeline may all be busy with a part of the batch each
    busy = pl.when(pl.col("stage") == "prefill").then("pp").otherwise(pl.min_horizontal("pp", "batch"))
    named = stages.select(
        "question", "stage", floor_s=pl.col("floor_s") / busy,
        matrix_s=pl.col("mfu") * pl.col("time_s") / pl.col("pp"),
        traffic_s=pl.col("mbu") * pl.col("time_s") / pl.col("pp"),
    ).pivot("stage", index="question", values=list(OF_STAGES))  # fmt: skip
    ordered = {f"{f}_{s}": f"{s}_{f}" for s in ("prefill", "decode") for f in OF_STAGES}
    missing = [pl.lit(None, pl.Float64).alias(c) for c in ordered if c not in named.columns]
    named = named.with_columns(missing).select("question", **{new: old for old, new in ordered.items()})
    found = asked.select("measurement_id", "question").join(figures, on="question", how="left", maintain_order="left")
    return found.join(named, on="question", how="left", maintain_order="left").drop("question")


def create_tables(connection: duckdb.DuckDBPyConnection, tables: Tables) -> None:
    """Create the table ``measurements`` and the view ``predictions``, which is computed when it is read."""
    dtypes = {str(c["column_name"]): str(c["dtype"]) for c in tables.columns("predictions")}

    def measured_predictions(wanted: pa.ChunkedArray) -> pa.Array:
        rows = predictions(tables, measurements(tables).accepted).select(*dtypes).to_dicts()
        return listed([rows] * len(wanted), dtypes)

    connection.register("__frame", measurements(tables).accepted)
    connection.execute(f"create table {TABLE} as from __frame")
    connection.unregister("__frame")
    fields = ", ".join(f"{c} {DUCKDB.type(t)}" for c, t in dtypes.items())
    connection.create_function(
        "measured_predictions", measured_predictions, ["varchar"], f"struct({fields})[]", type="arrow"
    )  # type: ignore[call-overload]
    connection.execute("create view predictions as select unnest(measured_predictions('all'), recursive := true)")
    close_at_exit(connection)
