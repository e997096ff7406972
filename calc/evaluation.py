"""Scenarios → operators → stages → serving, in Polars.

The answers are a lazy source: only the columns that a query asks for are compiled and computed, batch by batch. All
arithmetic is the sheet's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from polars.io.plugins import register_io_source

from calc.companions import accompanied, substituted
from calc.errors import CalcError
from calc.expressions import expression, expressions
from calc.formula import TRUE, Node, is_literal
from calc.loading import load_companion_sheet, load_sheet
from calc.plans import GATE, collected, plans, unfolded
from calc.program import STAGES, Program, by_level, result_scope
from calc.questions import ROW, Questions, prepare
from calc.results import Programs, compiled, result_columns
from calc.shapes import shaped
from calc.sheet import Sheet
from calc.tables import DTYPES, Tables

BATCH_ROWS = 1 << 21
UNFOLDED_BATCH_ROWS = 1 << 17
SMALL_ROWS = 1000
OPERATORS = 70
"""Rows of operators that a question has, more or less."""


@dataclass(frozen=True)
class Engine:
    """What answers the questions of a batch, each group by its program."""

    answer: Callable[[Tables, Questions, Programs], tuple[pl.DataFrame, pl.Series | None]]
    """Gives the results in the questions' order, and each result row's question where that is not plain."""
    form_of_grids: str
    """The form of programs over many questions that are a grid."""

    def form(self, questions: Questions) -> str:
        """Return the form of programs that costs the least for so many questions."""
        if questions.height <= SMALL_ROWS:
            return "summed"
        return "wide" if questions.places is not None else self.form_of_grids


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
    chosen = _engine(engine)
    sheets = {stack: load_sheet(tables, sheet, stack) for stack, _, _ in questions.groups()}
    questions = substituted(questions, sheets)
    scope = result_scope(next(iter(sheets.values()), load_sheet(tables, sheet)), by)
    found = {c: DTYPES[t] for c, t in results.items() if scope.find(c) is not None}
    own = {c: t for c, t in scenarios.collect_schema().items() if c not in found}
    if not sheets:
        return pl.LazyFrame(schema={**own, **found})

    def source(
        with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, _batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        # a bare count asks for no column, but a frame without columns has no rows to count
        wanted = [*own, *found] if with_columns is None else with_columns or [next(iter(found))]
        columns = tuple(c for c in found if c in wanted) or tuple(found)[:1]
        keys = [c for c in own if c in wanted]
        asked = scenarios.lazy().select(keys).collect()
        left = n_rows
        for first, batch in questions.batches(UNFOLDED_BATCH_ROWS if by == "operator" else BATCH_ROWS):
            programs = programs_of(tables, sheets, by, columns, batch, chosen.form(batch))
            frame, rows = chosen.answer(tables, batch, with_companions(tables, sheet, programs, chosen))
            if keys:
                mine = asked.slice(first, batch.height)
                if rows is None and frame.height > batch.height:
                    rows = pl.int_range(frame.height, eager=True) // (frame.height // batch.height)
                frame = pl.concat([mine if rows is None else mine[rows], frame], how="horizontal")
            frame = frame.select(wanted)
            if predicate is not None:
                frame = frame.filter(predicate)
            if left is not None:
                frame, left = frame.head(left), left - min(left, frame.height)
            yield frame
            if left == 0:
                return

    return register_io_source(source, schema={**own, **found}, validate_schema=False, is_pure=True)


def programs_of(
    tables: Tables,
    sheets: dict[tuple[str, ...], Sheet],
    by: str,
    columns: tuple[str, ...],
    questions: Questions,
    form: str,
) -> Programs:
    """Return the questions in groups that one program answers, each with its program in a form."""
    found = []
    for stack, bound, mine in questions.groups():
        sheet = sheets[stack].compiled_as
        stages = sheet.stages_read(columns) if by == "serving" else STAGES
        for shape, part in shaped(tables, sheet.shaped_as, bound, stages, mine):
            found.append((part, compiled(tables, sheet, by, columns, bound, shape, form)))
    return found


def with_companions(tables: Tables, sheet: str, programs: Programs, engine: Engine) -> Programs:
    """Return programs with their questions, which hold what they read of further models."""

    def answered(questions: Questions, columns: tuple[str, ...], own: str) -> pl.DataFrame:
        return answers(tables, sheet, questions, columns, own, engine)

    return [(accompanied(tables, asked, program.inputs, answered), program) for asked, program in programs]


def answers(
    tables: Tables,
    sheet: str,
    questions: Questions,
    columns: tuple[str, ...],
    own: str,
    engine: Engine | None = None,
) -> pl.DataFrame:
    """Return serving figures of a further model that the technique ``own`` asks, a row per question in their order."""
    sheets = {stack: load_companion_sheet(tables, sheet, stack, own) for stack, _, _ in questions.groups()}
    scope = load_sheet(tables, sheet).serving_scope()
    known = tuple(c for c in columns if scope.find(c) is not None)
    engine = engine or POLARS
    programs = programs_of(tables, sheets, "serving", known, questions, engine.form(questions))
    return engine.answer(tables, questions, programs)[0]


def _engine(title: str) -> Engine:
    if title == "polars":
        return POLARS
    if title == "duckdb":
        from calc.database import answer as answer_duckdb

        return Engine(answer_duckdb, form_of_grids="wide")
    raise CalcError(f"unknown engine {title!r}; there are polars, duckdb")


def answer(tables: Tables, batch: Questions, programs: Programs) -> tuple[pl.DataFrame, pl.Series | None]:
    """Return the results of a batch in the questions' order, and each result row's question where that is not plain."""
    found = plans(tables, programs)
    if not programs[0][1].unfolds:
        return _wide_rows(found, batch)
    rows = collected((_operator_rows(program, points) for program, points in found), batch.height * OPERATORS)
    whole = pl.concat(rows).sort(ROW, maintain_order=True) if len(rows) > 1 else rows[0]
    return whole.drop(ROW), whole[ROW]


POLARS = Engine(answer, form_of_grids="ridged")


def _operator_rows(program: Program, points: pl.LazyFrame) -> pl.LazyFrame:
    """Unfold each question into its operators and compute the roofline on their rows."""
    frame = unfolded(points.sort(ROW), program, program.broadcast)
    for level in by_level(program.late):
        frame = frame.with_columns(expressions(level))
    return frame.select(ROW, *_values(program.outputs, program))


def _wide_rows(plans: list[tuple[Program, pl.LazyFrame]], batch: Questions) -> tuple[pl.DataFrame, pl.Series | None]:
    """Compute each question's result rows side by side, then put them below each other.

    A question may have fewer rows than others, an encoder has no decode: what is missing is filled, then left out.
    """
    programs = [program for program, _ in plans]
    n = max(len(p.rows) for p in programs)
    is_even = all(len(p.rows) == n and all(r.gate == TRUE for r in p.rows) for p in programs)
    outputs, dtypes = programs[0].outputs, programs[0].dtypes
    labels = {c: said for c in outputs if (said := _row_labels(programs, c)) is not None}
    computed = [c for c in outputs if c not in labels]
    row = [] if batch.is_in_order and len(plans) == 1 and not programs[0].addends else [ROW]
    wide = collected((points.select(*row, *_wide_values(p, n, computed, is_even)) for p, points in plans), batch.height)
    found = pl.concat(wide).sort(ROW) if row else wide[0]
    nth = pl.int_range(n * found.height, dtype=pl.UInt32, eager=True).alias("__nth")
    below = pl.DataFrame([nth, *(_below(found, c, n) for c in computed)])
    if not is_even:
        below = below.filter(_below(found, GATE, n))
    nth = below["__nth"]
    known = [pl.Series(c, v, dtype=DTYPES[dtypes[c]]).gather(nth % n) for c, v in labels.items()]
    if is_even:
        return below.with_columns(known).select(*outputs), None
    row_of = found[ROW] if row else pl.int_range(found.height, dtype=pl.UInt32, eager=True)
    return below.with_columns(known).select(*outputs), row_of.gather(nth // n)


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
