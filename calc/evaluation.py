"""Scenarios → operators → stages → serving, in Polars.

The answers are a lazy source: only the columns that a query asks for are compiled and computed, batch by batch. All
arithmetic is the sheet's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any

import polars as pl
from polars.io.plugins import register_io_source

from calc import polars_engine
from calc.alternatives import NTH_STACK, joined, structure
from calc.calibration.applied import calibrated
from calc.companions import accompanied, substituted
from calc.errors import CalcError
from calc.loading import load_companion_sheet, load_sheet
from calc.program import STAGES, result_scope
from calc.questions import CONFIGURATION, Bound, Questions, model_parameters, prepare
from calc.results import Answers, Programs, compiled, result_columns, uncollected
from calc.shapes import Shape, shaped, shared
from calc.sheet import Sheet
from calc.tables import DTYPES, Tables

BATCH_ROWS = 1 << 20
UNFOLDED_BATCH_ROWS = 1 << 17
SUMMED_ROWS = 1 << 14
"""So many questions of a batch at most have their operators as rows, which take memory."""
MANY_STACKS = 6
"""So many stacks of techniques at once are answered by one program, where there are few questions."""
MANY_SHAPES = 5
"""So many shapes of models too, which a program each would take longer to compile than to answer,"""
RARE_ROWS = 4
"""where each is asked so little."""


@dataclass(frozen=True)
class Engine:
    """What answers the questions of a batch, each group by its program."""

    answers: Callable[[Tables, Questions, Programs], Answers]
    """Gives the results in the questions' order."""
    form_of_grids: str
    """The form of programs over many questions that are a grid."""
    few_rows: int = 1000
    """So few questions of one program have their operators as rows, which takes the least to compile."""

    def form(self, questions: Questions, of: Questions) -> str:
        """Return the form of a program that costs the least for some questions ``of`` a batch."""
        if of.height <= SUMMED_ROWS and _height(questions, of) <= self.few_rows:
            return "summed"
        return "wide" if questions.places is not None else self.form_of_grids


@dataclass(frozen=True)
class Request:
    """Scenarios made ready: their questions, what answers them, and which results they have."""

    tables: Tables
    sheet: str
    by: str
    engine: Engine
    questions: Questions
    sheets: dict[tuple[str, ...], Sheet]
    results: dict[str, type[pl.DataType]]
    told: pl.DataFrame | pl.LazyFrame
    """What comes back beside the answers: the scenarios, and what is to be expected of a calibration."""

    def answers(self, columns: tuple[str, ...], rows: int | None = None) -> Iterator[Answers]:
        """Return some results, so many ``rows`` of questions at a time, in order; what they rest on is held for those.

        Only what the results rest on is computed.
        """
        rows = rows or (UNFOLDED_BATCH_ROWS if self.by == "operator" else BATCH_ROWS)
        for first, batch in self.questions.batches(rows):
            programs = programs_of(self.tables, self.sheets, self.by, columns, batch, self.engine)
            programs = with_companions(self.tables, self.sheet, programs, self.engine)
            yield self.engine.answers(self.tables, batch, programs)._replace(first=first)


def request(
    tables: Tables, scenarios: pl.DataFrame | pl.LazyFrame, by: str, sheet: str = "exact", engine: str = "polars"
) -> Request:
    """Return scenarios made ready; raises CalcError and its kinds for what cannot be asked."""
    results = result_columns(tables, by)
    known = calibrated(tables, scenarios)
    questions = prepare(tables, known.scenarios, results)
    chosen = _engine(engine)
    sheets = {stack: load_sheet(tables, sheet, stack) for stack, _, _ in questions.groups()}
    scope = result_scope(next(iter(sheets.values()), load_sheet(tables, sheet)), by)
    found = {c: DTYPES[t] for c, t in results.items() if scope.find(c) is not None}
    return Request(tables, sheet, by, chosen, substituted(questions, sheets), sheets, found, known.told)


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
    asked = request(tables, scenarios, by, sheet, engine)
    schema = _schema(asked)
    if not asked.sheets:
        return pl.LazyFrame(schema=schema)

    def source(
        with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, _batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        # a bare count asks for no column, but a frame without columns has no rows to count
        wanted = list(schema) if with_columns is None else with_columns or [next(iter(asked.results))]
        left = n_rows
        for frame in _frames(asked, wanted):
            if predicate is not None:
                frame = frame.filter(predicate)
            if left is not None:
                frame, left = frame.head(left), left - min(left, frame.height)
            yield frame
            if left == 0:
                return

    return register_io_source(source, schema=schema, validate_schema=False, is_pure=True)


def answered(
    tables: Tables,
    scenarios: pl.DataFrame | pl.LazyFrame,
    by: str = "operator",
    sheet: str = "exact",
    columns: Collection[str] | None = None,
    engine: str = "polars",
) -> pl.DataFrame:
    """Return what ``evaluate`` gives, collected: those of some ``columns`` that there are, in their order, or all.

    All Python runs on the thread that asks, not on those on which Polars runs a lazy source: pages ask this. Polars
    2.1 keeps the interpreter while it hands a frame to pandas, and waits meanwhile for threads that may wait for it.
    """
    asked = request(tables, scenarios, by, sheet, engine)
    schema = _schema(asked)
    wanted = list(schema) if columns is None else [c for c in columns if c in schema]
    found = list(_frames(asked, wanted)) if asked.sheets else []
    return pl.concat(found) if found else pl.DataFrame(schema={c: schema[c] for c in wanted})


def _schema(asked: Request) -> dict[str, Any]:
    """Return the scenarios' own columns, then the results, with their types."""
    own = {c: t for c, t in asked.told.collect_schema().items() if c not in asked.results}
    return {**own, **asked.results}


def _frames(asked: Request, wanted: list[str]) -> Iterator[pl.DataFrame]:
    """Return some columns of scenarios and their results, batch by batch in the scenarios' order."""
    columns = tuple(c for c in asked.results if c in wanted) or tuple(asked.results)[:1]
    keys = [c for c in wanted if c not in asked.results]
    told = asked.told.lazy().select(keys).collect()
    for found in asked.answers(columns):
        frame = found.frame
        if keys:
            mine = told.slice(found.first, found.height)
            mine = mine if found.is_one_each() else mine[found.question_of()]
            frame = pl.concat([mine, frame], how="horizontal")
        yield frame.select(wanted)


def programs_of(
    tables: Tables,
    sheets: dict[tuple[str, ...], Sheet],
    by: str,
    columns: tuple[str, ...],
    questions: Questions,
    engine: Engine,
) -> Programs:
    """Return the questions in groups that one program answers, each with its program in the form that costs least."""
    found = []
    further = model_parameters(tables).keys()
    with uncollected():
        for sheet, bound, mine in _joined_groups(tables, sheets, questions, engine):
            stages = sheet.stages_read(columns) if by == "serving" else STAGES
            for shape, part in _joined_shapes(shaped(tables, sheet.shaped_as, bound, stages, mine), questions, engine):
                form = "summed" if sheet.n_alternatives > 1 else engine.form(part, questions)
                # what is read of a further model comes row by row: ridge points are a grid's
                its = "wide" if form == "ridged" and further & sheet.inputs.keys() else form
                found.append((part, compiled(tables, sheet, by, columns, bound, shape, its)))
    return found


def _joined_groups(
    tables: Tables, sheets: dict[tuple[str, ...], Sheet], questions: Questions, engine: Engine
) -> Iterator[tuple[Sheet, Bound, Questions]]:
    """Return each sheet with what its questions say alike, and those; many stacks asked few questions as one sheet."""
    groups: dict[tuple[Bound, tuple[int, ...]], list[tuple[Sheet, Questions]]] = {}
    further = model_parameters(tables).keys()
    for stack, bound, mine in questions.groups():
        sheet = sheets[stack].compiled_as
        is_alone = engine.form(mine, questions) != "summed" or bool(further & sheet.inputs.keys())
        kind = (id(sheet),) if is_alone else (structure(sheet), sheet.shaped_as is sheet)
        groups.setdefault((bound, kind), []).append((sheet, mine))
    for (bound, _), alike in groups.items():
        if len(alike) < MANY_STACKS:
            yield from ((sheet, bound, mine) for sheet, mine in alike)
            continue
        sheet, mine = _joined(alike)
        yield sheet, (*bound, *_deciding(tables, sheet, mine)), mine


def _joined(alike: list[tuple[Sheet, Questions]]) -> tuple[Sheet, Questions]:
    """Return sheets of the same structure as one, with the questions of all of them."""
    sheets = list(dict.fromkeys(sheet for sheet, _ in alike))
    nth = [mine.configurations.with_columns(pl.lit(float(sheets.index(s))).alias(NTH_STACK)) for s, mine in alike]
    return joined(tuple(sheets)), replace(alike[0][1], configurations=pl.concat(nth))


def _height(questions: Questions, of: Questions) -> float:
    """Return about how many some questions ``of`` a batch are."""
    return of.height * questions.configurations.height / max(of.configurations.height, 1)


def _joined_shapes(
    found: list[tuple[Shape, Questions]], questions: Questions, engine: Engine
) -> list[tuple[Shape, Questions]]:
    """Return questions by their models' shapes, with those together that are asked little of many shapes."""
    rare = {s: q for s, q in found if _height(q, questions) <= RARE_ROWS and engine.form(q, questions) == "summed"}
    if len(rare) < MANY_SHAPES:
        return found
    whole = pl.concat(part.configurations for part in rare.values()).sort(CONFIGURATION)
    together = shared(frozenset(rare)), replace(questions, configurations=whole)
    return [(shape, part) for shape, part in found if shape not in rare] + [together]


def _deciding(tables: Tables, sheet: Sheet, questions: Questions) -> Bound:
    """Return the parameters of techniques that decide which operators there are, where all questions say the same."""
    told = questions.configurations.select(p for p in tables["parameters"]["parameter"] if p in sheet.decides())
    return tuple((c.name, c[0]) for c in told if c.n_unique() == 1)


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
    programs = programs_of(tables, sheets, "serving", known, questions, engine)
    return engine.answers(tables, questions, programs).frame


def _engine(title: str) -> Engine:
    if title == "polars":
        return POLARS
    if title == "duckdb":
        from calc.database import answers as duckdb_answers

        return Engine(duckdb_answers, form_of_grids="wide")
    raise CalcError(f"unknown engine {title!r}; there are polars, duckdb")


POLARS = Engine(polars_engine.answers, form_of_grids="ridged")
