"""What pages ask the calculator, cached until a file of the data folder changes, and the dictionary's words."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl
import streamlit as st

import calc
from calc.catalogue import model_facts, model_row
from calc.evaluation import evaluate
from calc.explanation import Explanation, explain
from calc.importers import model_name, parse_config
from calc.importers.config import import_config
from calc.loading import sheet_names
from calc.tables import Tables, data_folder, load

Version = tuple[str, int, int]
Rows = tuple[tuple[tuple[str, str | None], ...], ...]
"""Rows of models.csv as text, that a cache can tell apart."""


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
    """Return the models to choose from: the session's own first, then the tables'."""
    return _models(own_models(), version())


@st.cache_resource(max_entries=16, show_spinner=False)
def _models(own: Rows, version: Version) -> pl.DataFrame:
    tables = _tables(own, version)
    known = tables["models"].join(model_facts(tables), on="model_id", how="left", maintain_order="left")
    mine = [row[0][1] for row in own]
    return known.sort(~pl.col("model_id").is_in(mine), maintain_order=True) if mine else known


def own_models() -> Rows:
    """Return the rows that this session has imported."""
    return tuple(st.session_state.get("own_models", {}).values())


def import_model(content: bytes, name: str) -> tuple[str, list[str]]:
    """Make a configuration a row of this session; return its name and what to tell the user; raises CalcError."""
    tables = load()
    config = parse_config(content, name)
    imported = import_config(tables, config, model_name(config, name), "user")
    row = tuple((k, None if v is None else str(v)) for k, v in imported.row.items())
    extended = _tables((row,), version())
    counted = model_row(extended, str(imported.row["model_id"]))
    told = [f"{counted['n_parameters']:,.0f} parameters"]
    if imported.assumed:
        assumed = ", ".join(f"{k} {v}" for k, v in imported.assumed.items())
        told.append(f"Assumed, as the model type's class does: {assumed}")
    if imported.precision:
        told.append(f"Its checkpoint is {imported.precision}: choose that precision to see it as it is stored")
    st.session_state.setdefault("own_models", {})[str(imported.row["model_id"])] = row
    return str(imported.row["model_id"]), told + imported.warnings


@st.cache_resource(max_entries=16, show_spinner=False)
def _tables(own: Rows, version: Version) -> Tables:
    tables = load()
    for row in own:
        frame = pl.DataFrame({k: [_flag(v)] for k, v in row}, schema=dict.fromkeys((k for k, _ in row), pl.String))
        tables = tables.extended("models", frame)
    return tables


def _flag(value: str | None) -> str | None:
    return value.lower() if value in ("True", "False") else value


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
    return _ask(question, by, own_models(), version())


@st.cache_data(max_entries=512, show_spinner=False)
def _ask(question: Question, by: str, own: Rows, version: Version) -> pl.DataFrame:
    asked = calc.scenarios(None, **dict(question.scenario))
    return evaluate(_tables(own, version), asked, by, question.sheet).collect()


def trace(question: Question, place: Place) -> Explanation:
    """Return where the number in a cell comes from; raises CalcError."""
    return _trace(question, place, own_models(), version())


@st.cache_data(max_entries=256, show_spinner=False)
def _trace(question: Question, place: Place, own: Rows, version: Version) -> Explanation:
    asked = dict(question.scenario)
    tables = _tables(own, version)
    return explain(tables, place.cell, asked, place.stage, place.part, place.operator, question.sheet)
