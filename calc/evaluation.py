"""Scenarios → operators → stages → serving, in Polars.

The answers are a lazy source: only the columns that a query asks for are compiled and computed, batch by batch. A
question's facts are joined once per configuration (everything but the device); cells that read nothing of the device
are computed there, the others per scenario. All arithmetic is the sheet's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache

import polars as pl
from polars.io.plugins import register_io_source

from calc.errors import CalcError
from calc.formula import Node, is_literal, to_sql
from calc.program import GRAINS, LABELS, Column, Compiler, Program, ResultRow, by_level, result_scope
from calc.questions import CONFIGURATION, DEVICE, FORMATS, ROW, Questions, prepare
from calc.sheet import Sheet, fact_columns, load_sheet
from calc.tables import DTYPES, Tables

BATCH_ROWS = 1 << 20
SMALL_ROWS = 1000
ROLES = {"weight_format": "weight", "activation_format": "activation", "kv_format": "kv"}
Engine = Callable[[Tables, Questions, Program], pl.DataFrame]


def result_columns(tables: Tables, by: str) -> dict[str, str]:
    """Return the result columns of a grain and their types; raises CalcError for an unknown grain."""
    if by not in GRAINS:
        raise CalcError(f"unknown grain {by!r}; there are {', '.join(GRAINS)}")
    return {str(c["column_name"]): str(c["dtype"]) for c in tables.columns(GRAINS[by][0])}


@lru_cache(maxsize=512)
def compiled(tables: Tables, sheet: Sheet, by: str, columns: tuple[str, ...]) -> Program:
    """Return the program that gives some result columns; raises SheetError for a cell that cannot be."""
    program = GRAINS[by][1](Compiler(sheet, {n for n, _ in fact_columns(tables, "hardware")}), list(columns))
    program.dtypes.update(result_columns(tables, by))
    return program


def evaluate(
    tables: Tables,
    scenarios: pl.DataFrame | pl.LazyFrame,
    by: str = "operator",
    sheet: str = "exact",
    engine: str = "polars",
) -> pl.LazyFrame:
    """Return the answers: the scenarios' own columns, then the results, in the scenarios' order.

    Grain and units are the dictionary's (``operators``, ``stages``, ``serving`` in ``data/columns.csv``). Raises
    CalcError and its kinds for what cannot be asked.
    """
    results = result_columns(tables, by)
    questions = prepare(tables, scenarios, results)
    answer = _engine(engine)
    sheets = {stack: load_sheet(tables, sheet, stack) for stack, _ in questions.stacks()}
    scope = result_scope(next(iter(sheets.values()), load_sheet(tables, sheet)), by)
    found = {c: DTYPES[t] for c, t in results.items() if scope.find(c) is not None}
    own = {c: t for c, t in questions.asked.schema.items() if c not in found}
    if not sheets:
        return pl.LazyFrame(schema={**own, **found})
    for loaded in sheets.values():
        compiled(tables, loaded, by, tuple(found))

    def source(
        with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, _batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        wanted = with_columns if with_columns is not None else [*own, *found]
        columns = tuple(c for c in found if c in wanted) or tuple(found)[:1]
        left = n_rows
        for batch in questions.batches(BATCH_ROWS):
            answers = [answer(tables, q, compiled(tables, sheets[s], by, columns)) for s, q in batch.stacks()]
            whole = pl.concat(answers) if len(answers) > 1 else answers[0]
            if len(answers) > 1:
                whole = whole.sort(ROW, maintain_order=True)
            asked = [c for c in own if c in wanted]
            if asked:
                whole = pl.concat([batch.asked.select(asked)[whole[ROW]], whole], how="horizontal")
            frame = whole.select(wanted)
            if predicate is not None:
                frame = frame.filter(predicate)
            if left is not None:
                frame, left = frame.head(left), left - min(left, frame.height)
            yield frame
            if left == 0:
                return

    return register_io_source(source, schema={**own, **found}, validate_schema=False, is_pure=True)


def _engine(title: str) -> Engine:
    if title == "polars":
        return answer
    if title == "duckdb":
        from calc.database import answer as answer_duckdb

        return answer_duckdb
    raise CalcError(f"unknown engine {title!r}; there are polars, duckdb")


def answer(tables: Tables, questions: Questions, program: Program) -> pl.DataFrame:
    """Return ``__row`` and the results, each question's rows together and in order."""
    facts = _with_facts(tables, questions.configurations, program.inputs)
    for level in program.levels(on_hardware=False):
        facts = facts.with_columns(_expressions(level))
    hardware = {n for n, _ in fact_columns(tables, "hardware")}
    facts = facts.select(CONFIGURATION, *(c for c in program.carried if c not in hardware))
    devices = tables["hardware"].lazy().select(*(c for c in program.carried if c in hardware)).with_row_index(DEVICE)
    if questions.places is None:
        nth = pl.LazyFrame({DEVICE: questions.devices}, schema={DEVICE: pl.UInt32}).with_row_index("nth")
        devices = nth.join(devices, on=DEVICE, how="left", maintain_order="left")
        facts = facts.sort(CONFIGURATION)
        frame = devices.join(facts, how="cross", maintain_order="left_right").with_columns(questions.row())
    else:
        frame = questions.pairs().join(facts, on=CONFIGURATION).join(devices, on=DEVICE)
    for level in program.levels(on_hardware=True):
        frame = frame.with_columns(_expressions(level))
    return _operator_rows(frame, program, questions) if program.late else _wide_rows(frame, program, questions)


def _with_facts(tables: Tables, configurations: pl.DataFrame, inputs: set[str]) -> pl.LazyFrame:
    models = [n for n, _ in fact_columns(tables, "models") if n in inputs]
    frame = configurations.lazy().join(tables["models"].lazy().select("model_id", *models), on="model_id", how="left")
    for column in FORMATS:
        own = [(n, c) for n, c in fact_columns(tables, "formats") if n.startswith(ROLES[column] + "_") and n in inputs]
        facts = (
            tables["formats"].lazy().select(pl.col("format_id").alias(column), *(pl.col(c).alias(n) for n, c in own))
        )
        frame = frame.join(facts, on=column, how="left")
    return frame


def with_device_facts(tables: Tables, questions: Questions, inputs: set[str]) -> pl.LazyFrame:
    """Return each question with every fact of its model, its formats and its device."""
    hardware = tables["hardware"].lazy().select("hardware_id", *(n for n, _ in fact_columns(tables, "hardware")))
    frame = questions.pairs().join(_with_facts(tables, questions.configurations, inputs), on=CONFIGURATION)
    return frame.join(hardware.with_row_index(DEVICE), on=DEVICE)


def _expressions(level: list[Column]) -> list[pl.Expr]:
    return [_column(c.node, c.id) for c in level]


@lru_cache(maxsize=65536)
def _column(node: Node, label: str) -> pl.Expr:
    return expression(node).alias(label)


@lru_cache(maxsize=65536)
def expression(node: Node) -> pl.Expr:
    """Return a lowered formula as a Polars expression."""
    return pl.sql_expr(to_sql(node, lambda n: f'"{n}"'))


def _operator_rows(frame: pl.LazyFrame, program: Program, questions: Questions) -> pl.DataFrame:
    """Unfold each question into its operators and compute the roofline on their rows."""
    structs = pl.concat_list(_structs(program)).alias("__rows")
    frame = frame.select(ROW, *program.broadcast, structs).sort(ROW).explode("__rows").unnest("__rows")
    frame = frame.filter(pl.col("__gate"))
    for level in by_level(program.late):
        frame = frame.with_columns(_expressions(level))
    return _collect(frame.select(ROW, *_values(program.outputs, program)), questions)


def _wide_rows(frame: pl.LazyFrame, program: Program, questions: Questions) -> pl.DataFrame:
    """Compute each question's result rows side by side, then put them below each other."""
    constant = {c for c in program.outputs if all(is_literal(r.values[c]) for r in program.rows)}
    wide = [
        v.alias(f"{i} {v.meta.output_name()}")
        for i, r in enumerate(program.rows)
        for v in _values({c: n for c, n in r.values.items() if c not in constant}, program)
    ]
    found = _in_order(_collect(frame.select(ROW, *wide), questions), questions)
    n = len(program.rows)
    interleaved = [
        pl.concat_arr(ROW if c == ROW else f"{i} {c}" for i in range(n)).explode().alias(c)
        for c in (ROW, *(c for c in program.outputs if c not in constant))
    ]
    found = found.select(interleaved)
    each = [
        pl.lit(pl.Series([r.values[c].value for r in program.rows], dtype=DTYPES[program.dtypes[c]]))
        .gather(pl.int_range(pl.len()) % n)
        .alias(c)
        for c in program.outputs
        if c in constant
    ]
    return found.with_columns(each).select(ROW, *program.outputs)


def _in_order(found: pl.DataFrame, questions: Questions) -> pl.DataFrame:
    """Return rows in the questions' order; a grid comes device by device, so that where a row stands is known."""
    if questions.places is None and found.height == questions.asked.height > SMALL_ROWS:
        run, configurations = questions.run, found.height // len(questions.devices)
        row = pl.int_range(found.height)
        place = row % (run * len(questions.devices)) // run * configurations
        place += row // (run * len(questions.devices)) * run + row % run
        ordered = found[pl.select(place.alias("place"))["place"]]
        if ordered[ROW].is_sorted():
            return ordered
    return found.sort(ROW)


def _collect(frame: pl.LazyFrame, questions: Questions) -> pl.DataFrame:
    # planning costs more than a few rows do; streaming keeps the columns of many rows in the processor's cache
    if questions.asked.height <= SMALL_ROWS:
        return frame.collect(optimizations=pl.QueryOptFlags.none())
    return frame.collect(engine="streaming")


@lru_cache(maxsize=256)
def _structs(program: Program) -> list[pl.Expr]:
    return [pl.struct([expression(r.gate).alias("__gate"), *_fields(r)]) for r in program.rows]


def _fields(row: ResultRow) -> list[pl.Expr]:
    return [expression(n).cast(pl.String if f in LABELS else pl.Float64).alias(f) for f, n in row.values.items()]


def _values(values: dict[str, Node], program: Program) -> list[pl.Expr]:
    return [expression(node).cast(DTYPES[program.dtypes[c]]).alias(c) for c, node in values.items()]


MODEL_COUNTS = ("n_parameters", "n_embedding_parameters", "n_head_parameters", "kv_bytes_per_token")


@lru_cache(maxsize=16)
def model_facts(tables: Tables) -> pl.DataFrame:
    """Return what the exact sheet counts of each model: ``model_id`` and MODEL_COUNTS, at 16 bits."""
    compiler = Compiler(load_sheet(tables), {n for n, _ in fact_columns(tables, "hardware")})
    program = GRAINS["stage"][1](compiler, list(MODEL_COUNTS))
    asked = pl.DataFrame(
        {"model_id": tables["models"]["model_id"], "hardware_id": tables["hardware"]["hardware_id"][0]}
    )
    frame = _with_facts(tables, prepare(tables, asked, ()).configurations, program.inputs)
    for level in by_level(program.columns):
        frame = frame.with_columns(_expressions(level))
    values = [expression(n).cast(pl.Float64).alias(c) for c, n in program.rows[0].values.items()]
    return frame.select("model_id", *values).collect()
