"""What pages ask the calculator, cached until a file of the data folder changes, and the dictionary's words."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl
import streamlit as st

import calc
from calc.explanation import Explanation
from calc.sheet import sheet_names
from calc.tables import data_folder, load

Version = tuple[str, int, int]


@dataclass(frozen=True)
class Question:
    """One scenario on one sheet: what every figure of a page answers."""

    scenario: tuple[tuple[str, str | int], ...]
    sheet: str

    def __getitem__(self, column: str) -> str | int | None:
        """Return what the scenario says in one column; None where it says nothing."""
        return dict(self.scenario).get(column)


@dataclass(frozen=True)
class Place:
    """A cell: of an operator, of a stage's total, or of the whole answer; ``str`` gives its name in the URL."""

    cell: str
    stage: str | None = None
    part: str | None = None
    operator: str | None = None

    def __str__(self) -> str:
        """Name the cell, outermost first: ``decode.mlp.up_proj.time_s``, ``decode.time_s``, ``ttft_s``."""
        return ".".join(n for n in (self.stage, self.part, self.operator, self.cell) if n)


@dataclass(frozen=True)
class Word:
    """How the dictionary speaks of a column."""

    label: str
    unit: str
    description: str


def version() -> Version:
    """Return what changes when a table or a sheet changes: the folder, its newest file's time, its size."""
    folder = data_folder().resolve()
    stats = [p.stat() for p in folder.rglob("*.csv")]
    return str(folder), max((s.st_mtime_ns for s in stats), default=0), sum(s.st_size for s in stats)


def words(table: str) -> dict[str, Word]:
    """Return the dictionary's words for the columns of a table or result."""
    return {
        str(c["column_name"]): Word(str(c["label"]), str(c["unit"] or ""), str(c["description"] or ""))
        for c in load().columns(table)
    }


def bounds(column: str) -> tuple[int, int]:
    """Return the least and the greatest value that a scenario column may have."""
    entry = next(c for c in load().columns("scenarios") if c["column_name"] == column)
    return int(float(str(entry["minimum"]))), int(float(str(entry["maximum"])))


def models() -> pl.DataFrame:
    """Return the models to choose from."""
    return calc.models()


def hardware() -> pl.DataFrame:
    """Return the devices to choose from."""
    return calc.hardware()


def precisions() -> pl.DataFrame:
    """Return the precisions to choose from."""
    return calc.precisions()


def formats() -> pl.DataFrame:
    """Return the number formats to choose from."""
    return load()["formats"]


def sheets() -> list[str]:
    """Return the sheets to choose from, the exact one first."""
    return sheet_names(load())


def ask(question: Question, by: str) -> pl.DataFrame:
    """Return the answer to a question at one grain; raises CalcError."""
    return _ask(question, by, version())


@st.cache_data(max_entries=512, show_spinner=False)
def _ask(question: Question, by: str, version: Version) -> pl.DataFrame:
    return calc.evaluate(calc.scenarios(None, **dict(question.scenario)), by=by, sheet=question.sheet).collect()


def trace(question: Question, place: Place) -> Explanation:
    """Return where the number in a cell comes from; raises CalcError."""
    return _trace(question, place, version())


@st.cache_data(max_entries=256, show_spinner=False)
def _trace(question: Question, place: Place, version: Version) -> Explanation:
    asked = dict(question.scenario)
    return calc.explain(place.cell, asked, place.stage, place.part, place.operator, question.sheet)
