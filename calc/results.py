"""What each grain of a result shows, and the program that computes it."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import NamedTuple

import polars as pl

from calc.errors import CalcError
from calc.formula import literal
from calc.program import GRAINS, Compiler, Program
from calc.questions import Bound, Questions
from calc.ridges import ridged_program
from calc.shapes import Shape, input_axes
from calc.sheet import Sheet
from calc.summing import SummingCompiler
from calc.tables import Tables

Programs = list[tuple[Questions, Program]]
"""The questions of a batch, told apart by what program answers them."""


class Answers(NamedTuple):
    """Result rows of consecutive questions: from the ``first`` on, so many (``height``), in their order."""

    first: int
    height: int
    frame: pl.DataFrame
    rows: pl.Series | None
    """The question of each result row, counted from the first; None where each has as many rows as the others."""

    def is_one_each(self) -> bool:
        """Tell whether each question has one result row."""
        return self.rows is None and self.frame.height == self.height

    def question_of(self) -> pl.Series:
        """Return the question of each result row, counted from the first."""
        if self.rows is not None:
            return self.rows
        return pl.int_range(self.frame.height, eager=True) // (self.frame.height // self.height)


def result_columns(tables: Tables, by: str) -> dict[str, str]:
    """Return the result columns of a grain and their types; raises CalcError for an unknown grain."""
    if by not in GRAINS:
        raise CalcError(f"unknown grain {by!r}; there are {', '.join(GRAINS)}")
    found = {str(c["column_name"]): str(c["dtype"]) for c in tables.columns(GRAINS[by][0])}
    if not found:
        raise CalcError(f"columns.csv: describes no result {GRAINS[by][0]!r}")
    return found


@contextmanager
def uncollected() -> Iterator[None]:
    """Keep Python from looking for garbage: formulas are many small objects that stay, and no cycles.

    That takes a third of the time of compiling them.
    """
    is_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if is_on:
            gc.enable()


@lru_cache(maxsize=2048)
def compiled(
    tables: Tables,
    sheet: Sheet,
    by: str,
    columns: tuple[str, ...],
    bound: Bound = (),
    shape: Shape | None = None,
    form: str = "summed",
) -> Program:
    """Return the program that gives some result columns; raises SheetError for a cell that cannot be.

    Where all questions say the same (``bound``) and all models have the same ``shape``, the operators that they do
    not have vanish from the program. The ``form`` says what becomes of sums over operators: ``summed`` on their
    rows, for few questions; ``wide``, written out, for many; ``ridged``, by ridge points, for grids.
    """
    said = {n: literal(v) for n, v in bound}
    decided = shape.decided if shape else None
    if form == "ridged" and by != "operator":
        program = ridged_program(Compiler(sheet, input_axes(tables), said, decided), by, list(columns))
    elif form == "wide" or by == "operator":
        program = GRAINS[by][1](Compiler(sheet, input_axes(tables), said, decided), list(columns))
    else:
        program = SummingCompiler(sheet, input_axes(tables), said, decided).summed_program(by, list(columns))
    program.dtypes.update(result_columns(tables, by))
    return program
