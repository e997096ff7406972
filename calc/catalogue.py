"""What the exact sheet says of models alone: parameters, cache per token, and the bill that they add up to."""

from __future__ import annotations

from functools import lru_cache

import polars as pl

from calc.errors import CalcError, SheetError
from calc.expressions import expression, expressions
from calc.formula import FALSE, Node, literal, names
from calc.loading import load_sheet
from calc.plans import with_facts
from calc.program import GRAINS, Compiler, by_level, levelled
from calc.questions import USUAL, prepare
from calc.scopes import Scope
from calc.shapes import input_axes, model_shapes
from calc.tables import Tables

COUNTS = (
    "n_parameters", "n_active_parameters", "n_embedding_parameters", "n_head_parameters", "n_vision_parameters",
    "n_mtp_parameters", "kv_bytes_per_token",
)  # fmt: skip
"""What is counted of a model, by the totals of the exact sheet."""
SAID = {n: literal(v) for n, v in USUAL}
"""One device, asked as usual."""
BILL = ("tower", "part", "operator", "count", "stored", "weight_elements", "bias_elements", "cache_token_elements")


@lru_cache(maxsize=16)
def model_facts(tables: Tables) -> pl.DataFrame:
    """Return what the exact sheet counts of each model: ``model_id`` and COUNTS, at 16 bits."""
    sheet = load_sheet(tables)
    missing = [c for c in COUNTS if c not in sheet.totals]
    if missing:
        raise SheetError(sheet.path("totals"), missing[0], "is missing; models are counted with it")
    compiler = Compiler(sheet, input_axes(tables), SAID)
    program = GRAINS["stage"][1](compiler, list(COUNTS))
    facts = _facts(tables, tables["models"]["model_id"].to_list(), program.inputs)
    for level in by_level(program.columns):
        facts = facts.with_columns(expressions(level))
    values = [expression(n).cast(pl.Float64).alias(c) for c, n in program.rows[0].values.items()]
    return facts.select("model_id", *values).collect()


def bill(tables: Tables, model_id: str) -> pl.DataFrame:
    """Return a model's bill: one row per operator of each part, towers and prediction layers included.

    Columns: tower, part, operator, ``count`` (how often a prefill runs it, images aside), ``stored`` (copies in
    memory), ``n_parameters`` of all copies and ``kv_elements_per_token`` of all that run.
    """
    sheet = load_sheet(tables)
    shape = model_shapes(tables, sheet, USUAL, tuple(sheet.stages))[model_id]
    compiler = Compiler(sheet, input_axes(tables), SAID, shape.decided)
    rows: list[dict[str, Node]] = []
    for part in sheet.parts:
        for operator in sheet.operators(part.block):
            scope: Scope = sheet.operator_scope("prefill", part, operator)
            if compiler.lower(scope, "applies") != FALSE:
                rows.append({f: compiler.lower(scope, f) for f in BILL})
    wanted = {n for row in rows for node in row.values() for n in names(node)}
    columns = levelled(compiler.needed(wanted), wanted)
    read = wanted | {n for c in columns for n in names(c.node)}
    facts = _facts(tables, [model_id], read)
    for level in by_level(columns):
        facts = facts.with_columns(expressions(level))
    whole = facts.select(
        pl.concat_list(pl.struct(expression(n).alias(f) for f, n in row.items()) for row in rows).alias("rows")
    ).collect()
    found = whole.explode("rows").unnest("rows")
    return found.select(
        "tower", "part", "operator", "count", "stored",
        n_parameters=pl.col("stored") * (pl.col("weight_elements") + pl.col("bias_elements")),
        kv_elements_per_token=pl.col("count") * pl.col("cache_token_elements"),
    ).filter((pl.col("n_parameters") > 0) | (pl.col("kv_elements_per_token") > 0))  # fmt: skip


def model_row(tables: Tables, model: str) -> dict[str, object]:
    """Return the facts and counts of one model, by id or alias; raises CalcError for an unknown one."""
    asked = pl.DataFrame({"model_id": [model], "hardware_id": [tables["hardware"]["hardware_id"][0]]})
    found = str(prepare(tables, asked, ()).configurations["model_id"][0])
    row = tables["models"].row(by_predicate=pl.col("model_id") == found, named=True)
    counts = model_facts(tables).row(by_predicate=pl.col("model_id") == found, named=True)
    if counts["n_parameters"] is None:
        raise CalcError(f"{found}: its parameters cannot be counted; a fact is missing")
    return {**row, **counts}


def _facts(tables: Tables, models: list[str], inputs: set[str]) -> pl.LazyFrame:
    """Return each model with its facts and formats, as a question of default sizes asks for them."""
    asked = pl.DataFrame({"model_id": models, "hardware_id": tables["hardware"]["hardware_id"][0]})
    return with_facts(tables, prepare(tables, asked, ()).configurations, inputs)
