"""The answers of a batch of questions in Polars: result rows side by side, then one below the other."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

from calc.expressions import expression, expressions
from calc.formula import TRUE, Node, is_literal
from calc.plans import GATE, Known, collected, known, points, unfolded
from calc.program import Program, by_level
from calc.questions import ROW, Questions
from calc.results import Answers, Programs
from calc.tables import DTYPES, Tables

TILE_ROWS = 1 << 19
"""Questions whose results are computed at once: what they rest on is held for so many."""
OPERATORS = 70
"""Rows of operators that a question has, more or less."""
Points = list[tuple[Known, pl.LazyFrame]]
"""Questions of a program, and their rows with what its result rows read."""


def answers(tables: Tables, batch: Questions, programs: Programs) -> Iterator[Answers]:
    """Return the results of a batch in the questions' order, a tile of a grid after the other."""
    told = known(tables, programs)
    # the questions of one group of a grid, or those that came with figures of a further model, are not a grid
    is_grid = batch.is_grid and all(questions.places is None for questions, _ in programs)
    for first, tile in batch.batches(TILE_ROWS) if is_grid else [(0, batch)]:
        configuration = first // max(len(batch.devices), 1)
        mine = [m for k in told if (m := k.of(configuration, tile)).configurations.height]
        found = [(m, points(m, is_whole=len(mine) == 1)) for m in mine]
        rows = _unfolded if mine[0].program.unfolds else _side_by_side
        yield Answers(first, tile.height, *rows(found, tile.height))


def _unfolded(found: Points, height: int) -> tuple[pl.DataFrame, pl.Series]:
    """Unfold each question into its operators and compute the roofline on their rows."""
    rows = collected((_operators(k.program, frame) for k, frame in found), height * OPERATORS)
    whole = pl.concat(rows).sort(ROW, maintain_order=True) if len(rows) > 1 else rows[0]
    return whole.drop(ROW), whole[ROW]


def _operators(program: Program, frame: pl.LazyFrame) -> pl.LazyFrame:
    frame = unfolded(frame.sort(ROW), program, program.broadcast)
    for level in by_level(program.late):
        frame = frame.with_columns(expressions(level))
    return frame.select(ROW, *_values(program.outputs, program))


def _side_by_side(found: Points, height: int) -> tuple[pl.DataFrame, pl.Series | None]:
    """Compute each question's result rows side by side, then put them below each other.

    A question may have fewer rows than others, an encoder has no decode: what is missing is filled, then left out.
    """
    programs = [k.program for k, _ in found]
    n = max(len(p.rows) for p in programs)
    is_even = all(len(p.rows) == n and all(r.gate == TRUE for r in p.rows) for p in programs)
    outputs, dtypes = programs[0].outputs, programs[0].dtypes
    labels = {c: said for c in outputs if (said := _row_labels(programs, c)) is not None}
    computed = [c for c in outputs if c not in labels]
    is_in_order = len(found) == 1 and found[0][0].questions.is_in_order and not programs[0].addends
    row = [] if is_in_order else [ROW]
    wide = collected((f.select(*row, *_wide_values(k.program, n, computed, is_even)) for k, f in found), height)
    whole = wide[0] if is_in_order else pl.concat(wide).sort(ROW)
    nth = pl.int_range(n * whole.height, dtype=pl.UInt32, eager=True).alias("__nth")
    below = pl.DataFrame([nth, *(_below(whole, c, n) for c in computed)])
    if not is_even:
        below = below.filter(_below(whole, GATE, n))
    nth = below["__nth"]
    said = [pl.Series(c, v, dtype=DTYPES[dtypes[c]]).gather(nth % n) for c, v in labels.items()]
    results = below.with_columns(said).select(*outputs)
    if is_even:
        return results, None
    row_of = whole[ROW] if row else pl.int_range(whole.height, dtype=pl.UInt32, eager=True)
    return results, row_of.gather(nth // n)


def _row_labels(programs: list[Program], column: str) -> list[object] | None:
    """Return what a column says in each result row where that is known beforehand and the same for every question."""
    rows = [[r.values[column] for r in p.rows] for p in programs]
    longest = max(rows, key=len)
    if all(map(is_literal, longest)) and all(r == longest[: len(r)] for r in rows):
        return [v.value for v in longest]
    return None


def _below(found: pl.DataFrame, column: str, n: int) -> pl.Series:
    """Return a column of each question's result rows, one below the other."""
    if n == 1:
        return found[f"0 {column}"].alias(column)
    if found[f"0 {column}"].dtype == pl.Float64:
        below = np.stack([found[f"{i} {column}"].to_numpy() for i in range(n)], axis=1).reshape(-1)
        return pl.Series(column, below, nan_to_null=True)
    places = np.arange(n * found.height, dtype=np.uint32).reshape(n, -1).T.reshape(-1)
    return pl.concat([found[f"{i} {column}"].alias(column) for i in range(n)], rechunk=True).gather(pl.Series(places))


def _wide_values(program: Program, n: int, columns: list[str], is_even: bool) -> list[pl.Expr]:
    found = [
        v.alias(f"{i} {v.meta.output_name()}")
        for i, r in enumerate(program.rows)
        for v in _values({c: r.values[c] for c in columns}, program)
    ]
    for i in range(len(program.rows), n):
        found += [pl.lit(None, DTYPES[program.dtypes[c]]).alias(f"{i} {c}") for c in columns]
    if not is_even:
        gates = [expression(r.gate) for r in program.rows] + [pl.lit(False)] * (n - len(program.rows))
        found += [g.alias(f"{i} {GATE}") for i, g in enumerate(gates)]
    return found


def _values(values: dict[str, Node], program: Program) -> list[pl.Expr]:
    return [expression(node).cast(DTYPES[program.dtypes[c]]).alias(c) for c, node in values.items()]
