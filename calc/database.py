"""The same answers in DuckDB: tables, views and macros from the same cells.

A program becomes one SELECT with a common table expression per level of cells (never lateral aliases: DuckDB writes
them out again at every use). ``connect`` gives a connection that holds every table of facts, a table ``scenarios``
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

from calc.formula import Node, to_sql
from calc.inputs import fact_columns
from calc.loading import load_sheet, sheet_names
from calc.program import GRAINS, LABELS, Column, Program, ResultRow, by_level, result_scope
from calc.questions import CONFIGURATION, DEVICE, ROW, Questions, scenario_columns
from calc.results import Programs, compiled, result_columns
from calc.tables import FORMATS, ROOT, Tables

if TYPE_CHECKING:
    from calc.grid.views import GridViews

SQL_TYPES = {"number": "double", "boolean": "boolean", "text": "varchar"}
QUESTIONS = "__questions"
KEYS = {"scenario_row": "bigint", "question_id": "ubigint", "formats_id": "ubigint", "device_id": "varchar"}
"""Which row of the table of scenarios a view's row answers, and what it has in common with others."""
LIVE = "__live"
"""A table without rows that has every column of the view that a grid stands for."""
QUESTION = ("input_len", "output_len", "cached_len", "n_images")
"""What a question says of its sequences, beside model and workload."""
SETTINGS: dict[str, str | bool | int | float | list[str]] = {"disabled_optimizers": "projection_placement"}
"""That pass takes seconds for tables of a thousand columns and gains nothing here."""
FUNCTIONS = {"what_helps", "technique_answers", "stage_answers"}
"""What takes a while to make, or rests on such: functions that ask techniques."""
IN_SHORT = """create macro in_short(x) as case
when x >= 1e12 then printf('%.0fT', x / 1e12) when x >= 1e9 then printf('%.0fG', x / 1e9)
when x >= 1e6 then printf('%.0fM', x / 1e6) when x >= 1e3 then printf('%.0fK', x / 1e3) else printf('%.0f', x) end"""
"""How the survey prints a number: 68.7e9 as 69G."""


def answer(tables: Tables, batch: Questions, programs: Programs) -> tuple[pl.DataFrame, pl.Series | None]:
    """Return the results of a batch in the questions' order, and the question's row of each result row."""
    found = pl.concat([_answer(tables, questions, program) for questions, program in programs])
    whole = found.sort(ROW, "__nth") if len(programs) > 1 else found
    return whole.drop(ROW, "__nth"), whole[ROW]


def _answer(tables: Tables, questions: Questions, program: Program) -> pl.DataFrame:
    connection = _facts(tables).cursor()
    asked = questions.pairs().join(questions.configurations.lazy(), on=CONFIGURATION).collect()
    connection.register(QUESTIONS, asked)
    ctes = program_ctes(tables, program, joined_facts(tables, program, QUESTIONS))
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


def joined_facts(tables: Tables, program: Program, source: str) -> str:
    """Return the SELECT that gives each question its facts."""
    columns = ["q.*"]
    columns += [f'm."{n}"' for n, _ in fact_columns(tables, "models") if n in program.inputs]
    columns += [f'h."{n}"' for n, _ in fact_columns(tables, "hardware") if n in program.inputs]
    joins = []
    for role in FORMATS:
        alias = role.partition("_")[0]
        own = [(n, c) for n, c in fact_columns(tables, "formats") if n.startswith(f"{alias}_") and n in program.inputs]
        columns += [f'"{alias}"."{c}" as "{n}"' for n, c in own]
        joins.append(f'left join formats as "{alias}" on "{alias}".format_id = q.{role}')
    return (
        f"select\n  {', '.join(columns)}\nfrom {source} as q\nleft join models as m on m.model_id = q.model_id\n"
        f"left join __devices as h on h.{DEVICE} = q.{DEVICE}\n" + "\n".join(joins)
    )


def program_ctes(tables: Tables, program: Program, joined: str, keep: str = "") -> list[str]:
    """Return the common table expressions of a program; the last, ``answers``, holds ``__row`` and the results.

    ``joined`` is the SELECT of questions with their facts; ``keep`` a column that the answers carry along.
    """
    ctes = [f"facts as ({joined})"]
    last = levels(ctes, "level", "facts", program.columns)
    kept = f", {keep}" if keep else ""
    if program.addends:
        last = _sums(ctes, program, last)
        last = levels(ctes, "total", last, program.on_sums)
    if not program.unfolds:
        rows = ",\n".join(_struct(i, r, program.dtypes) for i, r in enumerate(program.rows))
        ctes.append(f"every_row as (\nselect {ROW}{kept}, unnest([\n{rows}], recursive := true)\nfrom {last})")
        ctes.append("answers as (select * exclude (__gate) from every_row where __gate)")
        return ctes
    broadcast = [*([keep] if keep else []), *(f'"{c}"' for c in program.broadcast)]
    ctes += _unfolded("row", program.rows, last, broadcast)
    last = levels(ctes, "row", "row_0", program.late)
    outputs = ",\n  ".join(_typed(n, program.dtypes[c]) + f' as "{c}"' for c, n in program.outputs.items())
    ctes.append(f"answers as (\nselect {ROW}{kept}, __nth,\n  {outputs}\nfrom {last})")
    return ctes


def _sums(ctes: list[str], program: Program, source: str) -> str:
    """Add the sums over a question's operators and return the table that holds them beside the question."""
    added = program.addends
    if added is None:
        return source
    ctes += _unfolded("addend", added.rows, source, [f'"{c}"' for c in added.broadcast()])
    last = levels(ctes, "addend", "addend_0", added.late)
    # an unknown addend makes the sum unknown, never smaller
    aggregates = {"SUM": "case when count(*) = count({0}) then sum({0}) end", "MAX": "max({0})"}
    sums = ",\n  ".join(f'{aggregates[f].format(sql(n))} as "{c}"' for c, (f, n) in added.sums.items())
    ctes.append(f"sums as (\nselect {ROW},\n  {sums}\nfrom {last} group by {ROW})")
    ctes.append(f"summed as (select * from {source} join sums using ({ROW}))")
    return "summed"


def _unfolded(title: str, rows: list[ResultRow], source: str, carried: list[str]) -> list[str]:
    """Return the tables that give one row per question and operator that it has; the last is ``<title>_0``.

    Operators share most of what they say: each distinct value of a field is written, and computed, once per question,
    in a list; a constant table of slots says which of them an operator has.
    """
    fields = {"__gate": [r.gate for r in rows]} | {f: [r.values[f] for r in rows] for f in rows[0].values}
    values, slots, picked = [ROW, *carried], [_slots(range(len(rows)), "__nth")], [ROW, *carried, "__nth"]
    for field, nodes in fields.items():
        places = {node: i for i, node in enumerate(dict.fromkeys(nodes), start=1)}
        values.append(f'cast([{", ".join(map(sql, places))}] as {_sql_type(field, nodes)}[]) as "{field}"')
        slots.append(_slots((places[n] for n in nodes), f"{field}_slot"))
        if field != "__gate":
            picked.append(f'"{field}"["{field}_slot"] as "{field}"')
    chosen = f'{title}_values cross join {title}_slots where "__gate"["__gate_slot"]'
    tables = {"values": (values, f" from {source}"), "slots": (slots, ""), "0": (picked, f" from {chosen}")}
    return [f"{title}_{t} as (\nselect\n  " + ",\n  ".join(what) + f"{of})" for t, (what, of) in tables.items()]


def _sql_type(field: str, nodes: list[Node]) -> str:
    if field == "__gate":
        return "boolean"
    return "varchar" if field in LABELS or any(n.kind == "string" for n in nodes) else "double"


def _slots(places: Iterable[int], column: str) -> str:
    return f"unnest(cast('[{','.join(map(str, places))}]' as integer[])) as \"{column}\""


def levels(ctes: list[str], prefix: str, source: str, columns: list[Column]) -> str:
    """Add a common table expression per level of columns and return the last one's name."""
    for level, cells in enumerate(by_level(columns), start=1):
        text = ",\n  ".join(f'{sql(c.node)} as "{c.id}"' for c in cells)
        ctes.append(f"{prefix}_{level} as (\nselect *,\n  {text}\nfrom {source})")
        source = f"{prefix}_{level}"
    return source


def _struct(nth: int, row: ResultRow, dtypes: dict[str, str]) -> str:
    fields = ", ".join(f"'{f}': {_typed(n, dtypes[f])}" for f, n in row.values.items())
    return f"  {{'__nth': {nth}, '__gate': {sql(row.gate)}, {fields}}}"


def _typed(node: Node, dtype: str) -> str:
    return f"cast({sql(node)} as {SQL_TYPES[dtype]})"


def sql(node: Node) -> str:
    """Return a lowered formula as DuckDB text."""
    return to_sql(node, lambda n: f'"{n}"')


def connect(
    tables: Tables, grid: str | os.PathLike[str] | None = None, query: str | None = None
) -> duckdb.DuckDBPyConnection:
    """Return a connection with every table, the ``scenarios`` to ask, and every view and macro over them.

    For one ``query`` only the views that it names are there, which takes less time.
    """
    from calc.grid.views import GridViews

    views = GridViews(tables, grid) if grid is not None else None
    connection = duckdb.connect(config=SETTINGS)
    _create_tables(connection, tables)
    if query is None or FUNCTIONS & set(re.findall(r"\w+", query.lower())):
        from calc.stacks import create_functions

        create_functions(connection, tables)
    for view, statement in statements(tables, query, views):
        if view is None:
            connection.execute(statement)
        else:
            _create_view(connection, view, statement, views)
    return connection


def statements(
    tables: Tables, query: str | None = None, grid: GridViews | None = None
) -> Iterator[tuple[str | None, str]]:
    """Return what makes ``scenarios``, and the views and macros over it, of the tables: all, or those of a query.

    Each is a statement, or the SELECT of the view that stands before it. Over a grid the scenarios are its questions,
    and the view of its grain has what it holds.
    """
    for table, key in (("models", "model_id"), ("hardware", "hardware_id")):
        yield None, _spellings(table, key)
    yield None, IN_SHORT
    columns = {n: SQL_TYPES[str(c["dtype"])] for n, c in scenario_columns(tables).items()} | {"workload_id": "varchar"}
    yield None, f"create table __scenario_columns ({_fields(columns)})"
    if grid:
        yield None, "set parquet_metadata_cache = true"
        yield None, f"create view {grid.rows_view} as {grid.rows()}"
    views = dict(sql_views(ROOT / "sql"))
    asked = grid.scenarios() if grid else views["scenarios"]
    del views["scenarios"]
    every = f"select * from __scenario_columns union all by name ({asked})"
    yield None, f"create {'view' if grid else 'table'} scenarios as {every}"
    named = _named(query, views)
    grains = {
        view if title == "exact" else f"{title}_{view}": (title, by)
        for title in sheet_names(tables)
        for by, (view, _) in GRAINS.items()
    }
    if query is not None:
        grains = {name: of for name, of in grains.items() if {name, f"{name}_of"} & named}
        views = {view: text for view, text in views.items() if view in named}
    # a view is bound when it is made: over a stand-in for each sheet's formulas that takes no time
    for name, (title, by) in grains.items():
        results = {c: SQL_TYPES[t] for c, t in shown_columns(tables, title, by).items()}
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
        yield None, f"create or replace macro {name}_of(scenario_table) as table {sheet_query(tables, title, by)}"


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


def shown_columns(tables: Tables, title: str, by: str) -> dict[str, str]:
    """Return the result columns that a sheet has at a grain, and their types."""
    scope = result_scope(load_sheet(tables, title), by)
    return {c: t for c, t in result_columns(tables, by).items() if scope.find(c) is not None}


def sql_view(tables: Tables, view: str) -> pl.DataFrame:
    """Return a view of ``sql/`` that reads tables of facts alone."""
    found: pl.DataFrame = _facts(tables).cursor().sql(dict(sql_views(ROOT / "sql"))[view]).pl()
    return found


def _spellings(table: str, key: str) -> str:
    return (
        f"create view __{table}_spellings as select {key}, lower(trim(unnest(list_append("
        f"string_split(coalesce(aliases, ''), '|'), {key})))) as spelled from {table}"
    )


@lru_cache(maxsize=64)
def sheet_query(tables: Tables, title: str, by: str) -> str:
    """Return the SELECT of one grain of one sheet over ``query_table(scenario_table)``, self-contained."""
    found = shown_columns(tables, title, by)
    program = compiled(tables, load_sheet(tables, title), by, tuple(found))
    columns = scenario_columns(tables)
    defaults = tables["workloads"].row(by_predicate=pl.col("workload_id") == "defaults", named=True)
    parameters = {
        p: v for p, v in tables["parameters"].select("parameter", "default_value").iter_rows() if v is not None
    }
    filled = []
    for column, rule in columns.items():
        if rule["dtype"] == "number":
            default = defaults.get(column, parameters.get(column, rule["minimum"]))
            filled.append(f'coalesce(s."{column}", {default:g}) as "{column}"')
    weights = {"expert_format": ["lower(s.weight_format)", "p.expert_format", "p.weight_format"]}
    chosen = {r: [f"lower(s.{r})", *weights.get(r, [f"p.{r}"])] for r in FORMATS}
    roles = ", ".join(f"coalesce({', '.join(of)}) as {role}" for role, of in chosen.items())
    numbers = [c for c, rule in columns.items() if rule["dtype"] == "number"]
    cast = ", ".join(f'cast("{c}" as double) as "{c}"' for c in numbers)
    asked = ", ".join(f'"{c}"' for c in QUESTION)
    # numbered before anything is joined: a join keeps no order
    questions = f"""numbered as (
select row_number() over () as __n, t as __asked
from (select * from __scenario_columns union all by name select * from query_table(scenario_table)) as t),
asked as (select * replace ({cast}) from (select __n, __asked, unnest(__asked) from numbered)),
canonical as (
select
  s.__n + {_refusals(tables, [*KEYS, *found])} as {ROW},
  s.__asked,
  s.workload_id,
  m.model_id,
  h.{DEVICE},
  h.hardware_id as device_id,
  {", ".join(filled)},
  coalesce(lower(s.attention), 'flash') as attention,
  {roles}
from asked as s
left join __models_spellings as m on m.spelled = lower(trim(s.model_id))
left join __hardware_spellings as d on d.spelled = lower(trim(s.hardware_id))
left join __devices as h on h.hardware_id = d.hardware_id
left join precisions as p on p.precision_id = coalesce(lower(s.precision), 'w16a16kv16')),
{QUESTIONS} as (
select * replace ({{
  'scenario_row': {ROW},
  'question_id': hash(model_id, workload_id, {asked}),
  'formats_id': hash(attention, {", ".join(FORMATS)}),
  'device_id': device_id,
  'asked': __asked}} as __asked)
from canonical)"""
    ctes = [questions, *program_ctes(tables, program, joined_facts(tables, program, QUESTIONS), "__asked")]
    keys = ", ".join(f"__asked.{k}" for k in KEYS)
    results = ", ".join(f'"{c}"' for c in found)
    return f"with {', '.join(ctes)} select {keys}, unnest(__asked.asked), {results} from answers order by {ROW}, __nth"


def _refusals(tables: Tables, results: list[str]) -> str:
    """Return 0, or an error for a scenario ``s`` that ``calc.evaluate`` refuses too."""
    taken = ", ".join(f"'{c}'" for c in results if c not in scenario_columns(tables))
    clash = f"list_intersect(struct_keys(s.__asked), [{taken}])"
    cases = [
        f"len({clash}) > 0 then error('your column ' || {clash}[1] || ' bears the name of a result; rename it')",
        "m.model_id is null then error(coalesce('unknown model ' || s.model_id, 'model_id: a row names no model'))",
        f"h.{DEVICE} is null then "
        "error(coalesce('unknown device ' || s.hardware_id, 'hardware_id: a row names no device'))",
        "p.precision_id is null then error('unknown precision ' || s.precision)",
        "lower(s.attention) not in ('flash', 'eager') then error('unknown attention ' || s.attention)",
        "trim(s.technique) <> '' then error('a technique needs calc.evaluate: these views know none')",
        "coalesce(s.input_len, 1) = 0 and coalesce(s.output_len, 1) = 0 "
        "then error('input_len and output_len are both 0')",
        "s.cached_len > 0 and s.cached_len >= coalesce(s.input_len, 1024) "
        "then error('cached_len leaves no token to compute')",
    ]
    cases += [
        f"lower(s.{role}) not in (select format_id from formats) then error('unknown format ' || s.{role})"
        for role in FORMATS
    ]
    for column, rule in scenario_columns(tables).items():
        if rule["dtype"] == "number":
            wrong = [f'isnan(s."{column}")'] + ([f's."{column}" <> floor(s."{column}")'] if rule["is_integer"] else [])
            wrong += [f's."{column}" < {rule["minimum"]}'] if rule["minimum"] is not None else []
            wrong += [f's."{column}" > {rule["maximum"]}'] if rule["maximum"] is not None else []
            cases.append(f"{' or '.join(wrong)} then error('{column}: ' || s.\"{column}\" || ' is out of range')")
    return f"case {' '.join(f'when {c}' for c in cases)} else 0 end"


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
