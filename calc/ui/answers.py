"""What pages ask the calculator, cached until a file of the data folder changes, and the dictionary's words."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import polars as pl
import streamlit as st

from calc.catalogue import model_facts
from calc.errors import CalcError
from calc.evaluation import answered, request
from calc.explanation import Explanation, explain
from calc.loading import sheet_names
from calc.questions import ATTENTIONS, scenario_columns
from calc.questions import scenarios as grid
from calc.tables import load
from calc.ui import session

Version = tuple[str, int, int]
FRESH_S = 0.5
"""How long what is known of a folder's files is taken to hold: a page asks dozens of times while it is drawn."""
_SEEN: dict[str, tuple[float, Version]] = {}
BUSY = "Computing"
"""What a page says where an answer takes more than half a second."""
Scenario = tuple[tuple[str, str | int | float], ...]


@dataclass(frozen=True)
class Question:
    """One scenario on one sheet: what every figure of a page answers."""

    scenario: Scenario
    sheet: str = "exact"

    def __getitem__(self, column: str) -> str | int | float | None:
        """Return what the scenario says in one column; None where it says nothing."""
        return dict(self.scenario).get(column)

    def but(self, **columns: str | int | float | None) -> Question:
        """Return the question with some columns said otherwise; None says nothing."""
        said = {**dict(self.scenario), **columns}
        return Question(tuple((c, v) for c, v in said.items() if v is not None), self.sheet)

    def told(self) -> dict[str, str | int | float]:
        """Return what the scenario says beyond what an absent column means."""
        return {c: v for c, v in self.scenario if c in ("model_id", "hardware_id") or v != meaning(c)}


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
    unit: str = ""
    description: str = ""


def version() -> Version:
    """Return what changes when a table or a sheet changes: the folder, its newest file's time, its size."""
    folder = str(session.folder())
    seen = _SEEN.get(folder)
    if seen is None or time.monotonic() - seen[0] > FRESH_S:
        stats = [p.stat() for p in Path(folder).rglob("*.csv")]
        newest = max((s.st_mtime_ns for s in stats), default=0)
        seen = _SEEN[folder] = (time.monotonic(), (folder, newest, sum(s.st_size for s in stats)))
    return seen[1]


def words(table: str) -> dict[str, Word]:
    """Return the dictionary's words for the columns of a table or result; of scenarios, for parameters too."""
    return _words(table, version())


@lru_cache(maxsize=64)
def _words(table: str, version: Version) -> dict[str, Word]:
    tables = load(version[0])
    found = {
        str(c["column_name"]): Word(str(c["label"]), str(c["unit"] or ""), str(c["description"] or ""))
        for c in tables.columns(table)
    }
    if table == "scenarios":
        labels = dict(tables["techniques"].select("technique_id", "label").iter_rows())
        for row in tables["parameters"].iter_rows(named=True):
            about = f"{row['parameter']}, of: {labels[row['technique_id']]}"
            found[str(row["parameter"])] = Word(str(row["label"]), str(row["unit"] or ""), about)
    return found


def bounds(column: str) -> tuple[float, float]:
    """Return the least and the greatest value that a scenario column or parameter may have."""
    entry = scenario_columns(session.tables())[column]
    return float(str(entry["minimum"])), float(str(entry["maximum"]))


def meaning(column: str) -> object:
    """Return what an absent column of a scenario means; None where that depends on others."""
    return _meanings(version()).get(column)


@lru_cache(maxsize=8)
def _meanings(version: Version) -> dict[str, object]:
    from calc.questions import defaults

    return {"precision": "w16a16kv16", "attention": ATTENTIONS[0], **defaults(load(version[0]))}


def models() -> pl.DataFrame:
    """Return the models to choose from: those that the session added first."""
    return session.tables()["models"].sort(pl.col("source_id") != "user", maintain_order=True)


def n_parameters(model_id: object) -> float | None:
    """Return how many parameters a model has; None where a fact is missing."""
    return _n_parameters(version()).get(str(model_id))


@lru_cache(maxsize=8)
def _n_parameters(version: Version) -> dict[str, float | None]:
    return dict(model_facts(load(version[0])).select("model_id", "n_parameters").iter_rows())


def hardware() -> pl.DataFrame:
    """Return the devices to choose from."""
    return session.tables()["hardware"]


def device(hardware_id: object) -> dict[str, object]:
    """Return the facts of one device."""
    found = pl.col("hardware_id") == str(hardware_id)
    return hardware().row(by_predicate=found, named=True)


def technique_with(parameter: str) -> list[str]:
    """Return the technique that a parameter belongs to, in a list that is empty where there is none."""
    found: list[str] = session.tables()["parameters"].filter(parameter=parameter)["technique_id"].to_list()
    return found


def sheets() -> list[str]:
    """Return the sheets to choose from, the exact one first."""
    return sheet_names(session.tables())


def ask(question: Question, by: str, columns: tuple[str, ...] = ()) -> pl.DataFrame:
    """Return the answer to a question at one grain: some results, those of them that its sheet has, or all.

    Raises CalcError.
    """
    return _ask(question, by, columns, version())


@st.cache_data(max_entries=512, show_spinner=BUSY)
def _ask(question: Question, by: str, columns: tuple[str, ...], version: Version) -> pl.DataFrame:
    asked = pl.DataFrame([dict(question.scenario)])
    return answered(load(version[0]), asked, by, question.sheet, columns or None)


def results(question: Question, by: str) -> list[str]:
    """Return the results that a question's sheet has at one grain, in the dictionary's order."""
    decides = ("model_id", "hardware_id", "technique")
    return _results(
        Question(tuple((c, v) for c, v in question.scenario if c in decides), question.sheet), by, version()
    )


def can_be_asked(asked: Question | pl.DataFrame) -> bool:
    """Tell whether a question, or every row of some scenarios, has an answer, without asking it."""
    try:
        if isinstance(asked, pl.DataFrame):
            request(session.tables(), asked, "serving")
        else:
            _results(asked, "serving", version())
    except CalcError:
        return False
    return True


@st.cache_data(max_entries=64, show_spinner=False)
def _results(question: Question, by: str, version: Version) -> list[str]:
    asked = pl.DataFrame([dict(question.scenario)])
    return list(request(load(version[0]), asked, by, question.sheet).results)


def ask_many(
    axes: tuple[tuple[str, tuple[object, ...]], ...], by: str, sheet: str = "exact", columns: tuple[str, ...] = ()
) -> pl.DataFrame:
    """Return the answers to every combination of some lists; of the results, those asked. Raises CalcError."""
    return _ask_many(axes, by, sheet, columns, version())


@st.cache_data(max_entries=64, show_spinner=BUSY)
def _ask_many(
    axes: tuple[tuple[str, tuple[object, ...]], ...], by: str, sheet: str, columns: tuple[str, ...], version: Version
) -> pl.DataFrame:
    tables = load(version[0])
    asked = grid(tables, **dict(axes))
    return answered(tables, asked, by, sheet, (*asked.collect_schema().names(), *columns) if columns else None)


def trace(question: Question, place: Place, depth: int) -> Explanation:
    """Return where the number in a cell comes from, with what it reads to a depth; raises CalcError."""
    return _trace(question, place, depth, version())


@st.cache_resource(max_entries=256, show_spinner=BUSY)
def _trace(question: Question, place: Place, depth: int, version: Version) -> Explanation:
    tables = load(version[0])
    asked = dict(question.scenario)
    return explain(tables, place.cell, asked, place.stage, place.part, place.operator, question.sheet, depth)
