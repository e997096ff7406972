"""Questions of a table of scenarios, and a grain of a sheet over them, as one SELECT."""

from __future__ import annotations

from functools import lru_cache

import polars as pl

from calc.dialects import DUCKDB, Dialect, joined_facts, program_ctes
from calc.loading import load_sheet
from calc.program import result_scope
from calc.questions import DEVICE, ROW, scenario_columns
from calc.results import compiled, result_columns
from calc.tables import FORMATS, Tables

QUESTIONS = "__questions"
KEYS = {"scenario_row": "bigint", "question_id": "ubigint", "formats_id": "ubigint", "device_id": "varchar"}
"""Which row of the table of scenarios a view's row answers, and what it has in common with others."""
QUESTION = ("input_len", "output_len", "cached_len", "n_images")
"""What a question says of its sequences, beside model and workload."""


def shown_columns(tables: Tables, title: str, by: str) -> dict[str, str]:
    """Return the result columns that a sheet has at a grain, and their types."""
    scope = result_scope(load_sheet(tables, title), by)
    return {c: t for c, t in result_columns(tables, by).items() if scope.find(c) is not None}


@lru_cache(maxsize=64)
def sheet_query(tables: Tables, title: str, by: str, is_asked: bool = False) -> str:
    """Return DuckDB's SELECT of one grain of one sheet over ``query_table(scenario_table)``, self-contained.

    Where it ``is_asked``, the function of the grain (``create_grains``) gives the results, not formulas in SQL: the
    sooner, the fewer scenarios there are.
    """
    found = shown_columns(tables, title, by)
    numbers = [c for c, rule in scenario_columns(tables).items() if rule["dtype"] == "number"]
    cast = ", ".join(f'cast("{c}" as double) as "{c}"' for c in numbers)
    asked = ", ".join(f'"{c}"' for c in QUESTION)
    # numbered before anything is joined: a join keeps no order
    questions = f"""numbered as (
select row_number() over () as __n, t as __asked
from (select * from __scenario_columns union all by name select * from query_table(scenario_table)) as t),
asked as (select * replace ({cast}) from (select __n, __asked, unnest(__asked) from numbered)),
canonical as ({_canonical(tables, DUCKDB, [_clash(tables, [*KEYS, *found])])}),
{QUESTIONS} as (
select * replace ({{
  'scenario_row': {ROW},
  'question_id': hash(model_id, workload_id, {asked}),
  'formats_id': hash(attention, {", ".join(FORMATS)}),
  'device_id': device_id,
  'asked': __asked}} as __asked)
from canonical)"""
    keys = ", ".join(f"__asked.{k}" for k in KEYS)
    results = ", ".join(f'"{c}"' for c in found)
    ctes = ", ".join([questions, *(_asked_ctes(title, by) if is_asked else _ctes(tables, title, by, DUCKDB))])
    return f"with {ctes} select {keys}, unnest(__asked.asked), {results} from answers order by {ROW}, __nth"


def spark_query(tables: Tables, title: str, by: str, dialect: Dialect) -> str:
    """Return Spark's SELECT of one grain of one sheet over its table ``scenarios``: its columns, then the results."""
    columns = ", ".join([*scenario_columns(tables), "workload_id"])
    # rows that say the same may change places, which changes nothing
    questions = f"""asked as (
select *, row_number() over (order by {columns}) as __n, struct(*) as __asked from scenarios),
{QUESTIONS} as ({_canonical(tables, dialect, [])})"""
    results = ", ".join(map(dialect.name, shown_columns(tables, title, by)))
    ctes = ", ".join([questions, *_ctes(tables, title, by, dialect)])
    return f"with {ctes} select __asked.*, {results} from answers order by {ROW}, __nth"


def _ctes(tables: Tables, title: str, by: str, dialect: Dialect) -> list[str]:
    program = compiled(tables, load_sheet(tables, title), by, tuple(shown_columns(tables, title, by)))
    return program_ctes(program, joined_facts(tables, program, QUESTIONS, dialect), "__asked", dialect)


def _asked_ctes(title: str, by: str) -> list[str]:
    rows = f"__{by}(to_json(__asked.asked), '{title}')"
    return [
        f"answered as (select __asked, {ROW}, {rows} as __rows from {QUESTIONS})",
        f"answers as (select __asked, {ROW}, generate_subscripts(__rows, 1) as __nth, "
        "unnest(__rows, recursive := true) from answered)",
    ]


def _canonical(tables: Tables, dialect: Dialect, refusals: list[str]) -> str:
    """Return the SELECT of questions in full, from scenarios ``asked``: nothing is left open, and names are ids."""
    quoted = dialect.name
    defaults = tables["workloads"].row(by_predicate=pl.col("workload_id") == "defaults", named=True)
    parameters = {
        p: v for p, v in tables["parameters"].select("parameter", "default_value").iter_rows() if v is not None
    }
    filled = []
    for column, rule in scenario_columns(tables).items():
        if rule["dtype"] == "number":
            default = defaults.get(column, parameters.get(column, rule["minimum"]))
            filled.append(f"coalesce(s.{quoted(column)}, {float(default)!r}) as {quoted(column)}")
    weights = {"expert_format": ["lower(s.weight_format)", "p.expert_format", "p.weight_format"]}
    chosen = {r: [f"lower(s.{r})", *weights.get(r, [f"p.{r}"])] for r in FORMATS}
    roles = ", ".join(f"coalesce({', '.join(of)}) as {role}" for role, of in chosen.items())
    return f"""
select
  s.__n + {_refused(tables, dialect, refusals)} as {ROW},
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
left join precisions as p on p.precision_id = coalesce(lower(s.precision), 'w16a16kv16')"""


def _clash(tables: Tables, results: list[str]) -> str:
    taken = ", ".join(f"'{c}'" for c in results if c not in scenario_columns(tables))
    clash = f"list_intersect(struct_keys(s.__asked), [{taken}])"
    return f"len({clash}) > 0 then error('your column ' || {clash}[1] || ' bears the name of a result; rename it')"


def _refused(tables: Tables, dialect: Dialect, refusals: list[str]) -> str:
    """Return 0, or an error for a scenario ``s`` that ``calc.evaluate`` refuses too."""
    error, quoted = dialect.error, dialect.name
    elsewhere = " needs calc.evaluate, or technique_answers(to_json(s), [null]): these views know none"
    cases = [
        *refusals,
        f"m.model_id is null then {error}(coalesce('unknown model ' || s.model_id, 'model_id: a row names no model'))",
        f"h.{DEVICE} is null then "
        f"{error}(coalesce('unknown device ' || s.hardware_id, 'hardware_id: a row names no device'))",
        f"p.precision_id is null then {error}('unknown precision ' || s.precision)",
        f"lower(s.attention) not in ('flash', 'eager') then {error}('unknown attention ' || s.attention)",
        f"trim(s.technique) <> '' then {error}('a technique{elsewhere}')",
        f"trim(s.calibration) not in ('', 'ideal') then {error}('a calibration{elsewhere}')",
        "coalesce(s.input_len, 1) = 0 and coalesce(s.output_len, 1) = 0 "
        f"then {error}('input_len and output_len are both 0')",
        "s.cached_len > 0 and s.cached_len >= coalesce(s.input_len, 1024) "
        f"then {error}('cached_len leaves no token to compute')",
    ]
    formats = ", ".join(f"'{f}'" for f in tables["formats"]["format_id"])
    cases += [f"lower(s.{role}) not in ({formats}) then {error}('unknown format ' || s.{role})" for role in FORMATS]
    for column, rule in scenario_columns(tables).items():
        if rule["dtype"] == "number":
            own = f"s.{quoted(column)}"
            wrong = [f"isnan({own})"] + ([f"{own} <> floor({own})"] if rule["is_integer"] else [])
            wrong += [f"{own} < {rule['minimum']}"] if rule["minimum"] is not None else []
            wrong += [f"{own} > {rule['maximum']}"] if rule["maximum"] is not None else []
            cases.append(f"{' or '.join(wrong)} then {error}('{column}: ' || {own} || ' is out of range')")
    return f"case {' '.join(f'when {c}' for c in cases)} else 0 end"
