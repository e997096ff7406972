"""The answers of a batch of questions in Polars: result rows side by side, then one below the other."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import polars as pl

from calc.expressions import expression, expressions
from calc.formula import TRUE, Node, is_literal, number
from calc.plans import GATE, Known, collected, known, points, unfolded
from calc.program import Program, by_level
from calc.questions import ROW, Questions
from calc.results import Answers, Programs
from calc.tables import DTYPES, Tables

FEW = 1000
"""Questions whose results are there before a thread has started."""
OPERATORS = 70
"""Rows of operators that a question has, more or less."""
TEXTS = ("string", "null")
Points = list[tuple[Known, pl.LazyFrame]]
"""Questions of a program, and their rows with what its result rows read."""


def answers(tables: Tables, batch: Questions, programs: Programs) -> Answers:
    """Return the results of a batch in the questions' order."""
    found = [(k, points(k, is_whole=len(programs) == 1)) for k in known(tables, programs)]
    rows = _unfolded if programs[0][1].unfolds else _side_by_side
    return Answers(0, batch.height, *rows(found, batch.height))


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
    labels = {c: told for c in outputs if (told := _row_labels(programs, c)) is not None}
    texts = {c: told for c in outputs if c not in labels and (told := _texts(programs, c)) is not None}
    computed = [c for c in outputs if c not in labels]
    is_in_order = len(found) == 1 and found[0][0].questions.is_in_order and not programs[0].addends
    row = [] if is_in_order else [ROW]
    values = [_wide_values(p, n, computed, texts) + ([] if is_even else _gates(p, n)) for p in programs]
    wide = collected((f.select(*row, *own) for (_, f), own in zip(found, values, strict=True)), height)
    whole = wide[0] if is_in_order else pl.concat(wide).sort(ROW)
    below = _columns(whole, [*texts, *(c for c in computed if c not in texts)], texts, n, height)
    nth = np.tile(np.arange(n, dtype=np.uint32), whole.height if labels else 0)
    below |= {c: pl.Series(c, told, dtype=DTYPES[dtypes[c]]).gather(nth) for c, told in labels.items()}
    results = pl.DataFrame([below[c] for c in outputs])
    if is_even:
        return results, None
    is_there = _below(whole, GATE, n)
    row_of = whole[ROW].to_numpy() if row else np.arange(whole.height, dtype=np.uint32)
    return results.filter(is_there), pl.Series(ROW, np.repeat(row_of, n)).filter(is_there)


def _columns(
    found: pl.DataFrame, columns: list[str], texts: dict[str, list[object]], n: int, height: int
) -> dict[str, pl.Series]:
    """Return columns of the result rows, one below the other; of many questions side by side."""

    def column(title: str) -> pl.Series:
        below = _below(found, title, n)
        return pl.Series(title, texts[title], dtype=pl.String).gather(below) if title in texts else below

    if height <= FEW:
        return {c: column(c) for c in columns}
    with ThreadPoolExecutor(pl.thread_pool_size()) as pool:
        return dict(zip(columns, pool.map(column, columns), strict=True))


def _row_labels(programs: list[Program], column: str) -> list[object] | None:
    """Return what a column says in each result row where that is known beforehand and the same for every question."""
    rows = [[r.values[column] for r in p.rows] for p in programs]
    longest = max(rows, key=len)
    if all(map(is_literal, longest)) and all(r == longest[: len(r)] for r in rows):
        return [v.value for v in longest]
    return None


def _texts(programs: list[Program], column: str) -> list[object] | None:
    """Return the texts that a column may say, None among them; None where they are not known beforehand.

    Engines move a number for each of them in no time, a text in ten times as long.
    """
    if programs[0].dtypes[column] != "text":
        return None
    said = [v for p in programs for r in p.rows for v in _said(r.values[column])]
    return list(dict.fromkeys([None, *(v.value for v in said)])) if all(v.kind in TEXTS for v in said) else None


def _said(node: Node) -> Iterable[Node]:
    """Return what a choice gives."""
    return (*node.children[1:-1:2], node.children[-1]) if node.kind == "case" else [node]


def _numbered(node: Node, texts: list[object]) -> Node:
    """Return a choice of texts as one of their places."""
    if node.kind != "case":
        return number(texts.index(node.value))
    kept = [_numbered(c, texts) if i % 2 else c for i, c in enumerate(node.children[:-1])]
    return Node("case", None, (*kept, _numbered(node.children[-1], texts)))


def _below(found: pl.DataFrame, column: str, n: int) -> pl.Series:
    """Return a column of each question's result rows, one below the other."""
    if n == 1:
        return found[f"0 {column}"].alias(column)
    rows = [found[f"{i} {column}"] for i in range(n)]
    if rows[0].dtype.is_numeric():
        below = np.empty((found.height, n), rows[0].to_physical().head(0).to_numpy().dtype)
        for i, row in enumerate(rows):
            below[:, i] = row.to_numpy()
        return pl.Series(column, below.reshape(-1), nan_to_null=any(row.has_nulls() for row in rows))
    places = np.arange(n * found.height, dtype=np.uint32).reshape(n, -1).T.reshape(-1)
    return pl.concat([row.alias(column) for row in rows], rechunk=True).gather(pl.Series(places))


def _wide_values(program: Program, n: int, columns: list[str], texts: dict[str, list[object]]) -> list[pl.Expr]:
    types = {c: pl.UInt8 if c in texts else DTYPES[program.dtypes[c]] for c in columns}
    found = []
    for i, row in enumerate(program.rows):
        told = {c: _numbered(row.values[c], texts[c]) if c in texts else row.values[c] for c in columns}
        found += [expression(node).cast(types[c]).alias(f"{i} {c}") for c, node in told.items()]
    for i in range(len(program.rows), n):
        found += [pl.lit(0 if c in texts else None, types[c]).alias(f"{i} {c}") for c in columns]
    return found


def _gates(program: Program, n: int) -> list[pl.Expr]:
    gates = [expression(r.gate) for r in program.rows] + [pl.lit(False)] * (n - len(program.rows))
    return [g.alias(f"{i} {GATE}") for i, g in enumerate(gates)]


def _values(values: dict[str, Node], program: Program) -> list[pl.Expr]:
    return [expression(node).cast(DTYPES[program.dtypes[c]]).alias(c) for c, node in values.items()]
