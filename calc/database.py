"""The same answers in DuckDB: tables, views and macros from the same cells.

``connect`` gives a connection that holds every table of facts, a table ``scenarios``
to fill, the views ``operators``, ``stages`` and ``serving`` over it (with the sheet's name in front for other sheets)
and the macros ``operators_of('table')`` and so on over any table of scenarios.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import polars as pl

from calc.dialects import DUCKDB, joined_facts, program_ctes
from calc.loading import sheet_names
from calc.program import GRAINS, Program
from calc.questions import CONFIGURATION, DEVICE, ROW, Questions, scenario_columns
from calc.results import Answers, Programs
from calc.sheet_queries import KEYS, QUESTIONS, sheet_query, shown_columns
from calc.tables import ROOT, Tables

if TYPE_CHECKING:
    from calc.grid.views import GridViews

LIVE = "__live"
"""A table without rows that has every column of the view that a grid stands for."""
SETTINGS: dict[str, str | bool | int | float | list[str]] = {"disabled_optimizers": "projection_placement"}
"""That pass takes seconds for tables of a thousand columns and gains nothing here."""
FUNCTIONS = {"what_helps", "technique_answers", "stage_answers"}
"""What takes a while to make, or rests on such: functions that ask techniques."""
MEASURED = {"measurements", "predictions", "measured_vs_predicted"}
"""Tables of measurements, and what reads them."""
IN_PYTHON = FUNCTIONS | MEASURED
"""What is made where a query names it, and not at all without Python."""
IN_SHORT = """create macro in_short(x) as case
when x >= 1e12 then printf('%.0fT', x / 1e12) when x >= 1e9 then printf('%.0fG', x / 1e9)
when x >= 1e6 then printf('%.0fM', x / 1e6) when x >= 1e3 then printf('%.0fK', x / 1e3) else printf('%.0f', x) end"""
"""How the survey prints a number: 68.7e9 as 69G."""


def answers(tables: Tables, batch: Questions, programs: Programs) -> Answers:
    """Return the results of a batch in the questions' order."""
    found = pl.concat([_answer(tables, questions, program) for questions, program in programs])
    whole = found.sort(ROW, "__nth") if len(programs) > 1 else found
    return Answers(0, batch.height, whole.drop(ROW, "__nth"), whole[ROW])


def _answer(tables: Tables, questions: Questions, program: Program) -> pl.DataFrame:
    connection = _facts(tables).cursor()
    asked = questions.pairs().join(questions.configurations.lazy(), on=CONFIGURATION).collect()
    connection.register(QUESTIONS, asked)
    ctes = program_ctes(program, joined_facts(tables, program, QUESTIONS))
    found: pl.DataFrame = connection.sql(f"with {', '.join(ctes)} from answers order by {ROW}, __nth").pl()
    connection.close()
    return found.with_columns(pl.col(ROW).cast(pl.UInt32))


@lru_cache(maxsize=16)
def _facts(tables: Tables) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(config=SETTINGS)
    _create_tables(connection, tables)
    return connection


def _create_tables(connection: duckdb.DuckDBPyConnection, tables: Tables) -> None:
    for table, frame in tables.frames.items():
        connection.register("__frame", frame)
        connection.execute(f'create table "{table}" as from __frame')
        connection.unregister("__frame")
    connection.execute(devices_view())


def devices_view() -> str:
    """Return the statement that numbers devices as questions do."""
    return f"create view __devices as select (row_number() over ()) - 1 as {DEVICE}, * from hardware"


def connect(
    tables: Tables, grid: str | os.PathLike[str] | None = None, query: str | None = None, is_asked: bool = False
) -> duckdb.DuckDBPyConnection:
    """Return a connection with every table, the ``scenarios`` to ask, and every view and macro over them.

    For one ``query`` only the views that it names are there, which takes less time. Where it ``is_asked``, Polars
    answers scenarios, not formulas in SQL, which DuckDB takes seconds to bind: for a query of few scenarios.
    """
    from calc.grid.views import GridViews

    views = GridViews(tables, grid) if grid is not None else None
    connection = duckdb.connect(config=SETTINGS)
    _create_tables(connection, tables)
    if query is None or MEASURED & set(re.findall(r"\w+", query.lower())):
        from calc.measured import create_tables

        create_tables(connection, tables)
    if query is None or FUNCTIONS & set(re.findall(r"\w+", query.lower())):
        from calc.stacks import create_functions

        create_functions(connection, tables)
    if is_asked:
        from calc.stacks import create_grains

        create_grains(connection, tables)
    for view, statement in statements(tables, query, views, is_asked):
        if view is None:
            connection.execute(statement)
        else:
            _create_view(connection, view, statement, views)
    return connection


def statements(
    tables: Tables, query: str | None = None, grid: GridViews | None = None, is_asked: bool = False
) -> Iterator[tuple[str | None, str]]:
    """Return what makes ``scenarios``, and the views and macros over it, of the tables: all, or those of a query.

    Each is a statement, or the SELECT of the view that stands before it. Over a grid the scenarios are its questions,
    and the view of its grain has what it holds.
    """
    for table, key in (("models", "model_id"), ("hardware", "hardware_id")):
        yield None, _spellings(table, key)
    yield None, IN_SHORT
    columns = {n: DUCKDB.type(str(c["dtype"])) for n, c in scenario_columns(tables).items()}
    columns["workload_id"] = "varchar"
    yield None, f"create table __scenario_columns ({_fields(columns)})"
    if grid:
        yield None, "set parquet_metadata_cache = true"
        yield None, f"create view {grid.rows_view} as {grid.rows()}"
    views = dict(sql_views(ROOT / "sql"))
    asked = grid.scenarios() if grid else views["scenarios"]
    del views["scenarios"]
    named = _named(query, views)
    grains = {
        view if title == "exact" else f"{title}_{view}": (title, by)
        for title in sheet_names(tables)
        for by, (view, _) in GRAINS.items()
    }
    is_read = query is None or bool({"scenarios", *grains} & named)
    every = f"select * from __scenario_columns union all by name ({asked}{'' if is_read else ' limit 0'})"
    yield None, f"create {'view' if grid else 'table'} scenarios as {every}"
    if query is not None:
        grains = {name: of for name, of in grains.items() if {name, f"{name}_of"} & named}
        views = {view: text for view, text in views.items() if view in named}
    # a view is bound when it is made: over a stand-in for each sheet's formulas that takes no time
    for name, (title, by) in grains.items():
        results = {c: DUCKDB.type(t) for c, t in shown_columns(tables, title, by).items()}
        nulls = ", ".join(f'null::{t} as "{c}"' for c, t in {**KEYS, **columns, **results}.items())
        yield None, f"create macro {name}_of(scenario_table) as table select {nulls} where false"
        yield None, f"create view {name} as from {name}_of('scenarios')"
        if grid and grid.name == name:
            # what views read that need more than the grid holds
            yield None, f"create table {LIVE} as from {name}"
            yield from ((None, table) for view in grid.stacks() for table in view.tables())
            yield None, f"create or replace view {name} as {grid.results()}"
    yield from views.items()
    for name, (title, by) in grains.items():
        answers = sheet_query(tables, title, by, is_asked)
        yield None, f"create or replace macro {name}_of(scenario_table) as table {answers}"


def _create_view(connection: duckdb.DuckDBPyConnection, view: str, text: str, grid: GridViews | None) -> None:
    try:
        connection.execute(f"create view {view} as {text}")
    except duckdb.BinderException as error:
        if grid is None:
            raise
        missing = re.search(r'"(\w+)" not found|column named "(\w+)"|column "(\w+)"', str(error))
        column = next((g for g in missing.groups() if g), "a column") if missing else "a column"
        reason = f"view {view} needs {column}, which this grid does not hold: name it in columns and build it again"
        shown = re.sub(rf"\b{grid.name}\b", LIVE, text)
        try:
            schema = connection.sql(f"describe {shown}").fetchall()
        except duckdb.BinderException:
            schema = [("reason", "varchar")]
            reason = f"view {view} asks the table scenarios of live answers: connect without a grid"
        nothing = ", ".join(f"cast(error('{reason}') as {row[1]}) as \"{row[0]}\"" for row in schema)
        connection.execute(f"create view {view} as select {nothing} where error('{reason}') is not null")


def views_named(query: str) -> set[str]:
    """Return the views of ``sql/`` and the answers, of any sheet, that a query asks or that those views ask."""
    views = dict(sql_views(ROOT / "sql"))
    grains = {view for view, _ in GRAINS.values()}
    return {
        word for word in _named(query, views)
        if word in views or word.removesuffix("_of") in grains or word.removesuffix("_of").endswith(tuple(grains))
    }  # fmt: skip


def _named(query: str | None, views: dict[str, str]) -> set[str]:
    """Return every word of a query and of the views that it names, and so on."""
    found: set[str] = set()
    left = set(re.findall(r"\w+", (query or "").lower()))
    while left:
        found |= left
        left = {w for v in left if v in views for w in re.findall(r"\w+", views[v])} - found
    return found


def _fields(columns: dict[str, str]) -> str:
    return ", ".join(f'"{n}" {t}' for n, t in columns.items())


def sql_view(tables: Tables, view: str) -> pl.DataFrame:
    """Return a view of ``sql/`` that reads tables of facts alone."""
    found: pl.DataFrame = _facts(tables).cursor().sql(dict(sql_views(ROOT / "sql"))[view]).pl()
    return found


def _spellings(table: str, key: str) -> str:
    return (
        f"create view __{table}_spellings as select {key}, lower(trim(unnest(list_append("
        f"string_split(coalesce(aliases, ''), '|'), {key})))) as spelled from {table}"
    )


def sql_views(folder: Path) -> Iterable[tuple[str, str]]:
    """Return (name, SELECT) of each file of a folder, each after the views that it reads."""
    texts = {p.stem: p.read_text(encoding="utf-8") for p in sorted(folder.glob("*.sql"))}
    done: set[str] = set()

    def visit(view: str) -> Iterable[tuple[str, str]]:
        if view in done:
            return
        done.add(view)
        header = re.search(r"^-- reads: (.*)$", texts[view], re.MULTILINE)
        for read in header.group(1).split(", ") if header else []:
            if read in texts:
                yield from visit(read)
        yield view, texts[view]

    for view in texts:
        yield from visit(view)
