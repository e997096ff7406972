"""A program as SQL text: a common table expression per level of cells, in the dialect of an engine.

Never lateral aliases: DuckDB writes them out again at every use. Cells are the same text in every dialect but for the
quotes of names; what differs is how lists and rows of structs are written.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from calc.formula import Node, to_sql
from calc.inputs import fact_columns
from calc.program import LABELS, Column, Program, ResultRow, by_level
from calc.questions import DEVICE, ROW
from calc.tables import FORMATS, Tables


@dataclass(frozen=True)
class Dialect:
    """How an engine writes what SQL leaves open; ``{}`` stands for what it is of."""

    title: str
    quote: str
    text: str
    """The type of text."""
    lists: str
    """A list of ``{0}`` of the type ``{1}``."""
    item: str
    """The item ``{1}``, counted from 1, of the list ``{0}``."""
    struct: str
    """A struct of fields."""
    field: str
    """The field ``{0}`` with the value ``{1}``."""
    rows: str
    """A row for each of the structs."""
    error: str
    """The function that ends a query with a sentence."""
    table: str
    """What stands behind the columns of a new table."""

    def name(self, name: str) -> str:
        """Return a name in quotes."""
        return f"{self.quote}{name}{self.quote}"

    def sql(self, node: Node) -> str:
        """Return a lowered formula as text."""
        return to_sql(node, self.name)

    def type(self, dtype: str) -> str:
        """Return the type of a column of the dictionary."""
        return {"number": "double", "boolean": "boolean", "text": self.text}[dtype]


DUCKDB = Dialect(
    "duckdb", '"', "varchar", "cast([{0}] as {1}[])", "{0}[{1}]", "{{{0}}}", "'{0}': {1}",
    "unnest([\n{0}], recursive := true)", "error", "",
)  # fmt: skip
SPARK = Dialect(
    "spark", "`", "string", "cast(array({0}) as array<{1}>)", "element_at({0}, {1})", "named_struct({0})", "'{0}', {1}",
    "inline(array(\n{0}))", "raise_error", " using parquet",
)  # fmt: skip


def joined_facts(tables: Tables, program: Program, source: str, dialect: Dialect = DUCKDB) -> str:
    """Return the SELECT that gives each question its facts."""
    quoted = dialect.name
    columns = ["q.*"]
    columns += [f"m.{quoted(n)}" for n, _ in fact_columns(tables, "models") if n in program.inputs]
    columns += [f"h.{quoted(n)}" for n, _ in fact_columns(tables, "hardware") if n in program.inputs]
    joins = []
    for role in FORMATS:
        alias = role.partition("_")[0]
        own = [(n, c) for n, c in fact_columns(tables, "formats") if n.startswith(f"{alias}_") and n in program.inputs]
        columns += [f"{quoted(alias)}.{c} as {quoted(n)}" for n, c in own]
        joins.append(f"left join formats as {quoted(alias)} on {quoted(alias)}.format_id = q.{role}")
    return (
        f"select\n  {', '.join(columns)}\nfrom {source} as q\nleft join models as m on m.model_id = q.model_id\n"
        f"left join __devices as h on h.{DEVICE} = q.{DEVICE}\n" + "\n".join(joins)
    )


def program_ctes(program: Program, joined: str, keep: str = "", dialect: Dialect = DUCKDB) -> list[str]:
    """Return the common table expressions of a program; the last, ``answers``, holds ``__row`` and the results.

    ``joined`` is the SELECT of questions with their facts; ``keep`` a column that the answers carry along.
    """
    ctes = [f"facts as ({joined})"]
    last = levels(ctes, "level", "facts", program.columns, dialect)
    kept = [keep] if keep else []
    if program.addends:
        last = _sums(ctes, program, last, dialect)
        last = levels(ctes, "total", last, program.on_sums, dialect)
    if not program.unfolds:
        rows = ",\n".join(_struct(i, r, program.dtypes, dialect) for i, r in enumerate(program.rows))
        every = ", ".join([ROW, *kept, dialect.rows.format(rows)])
        ctes.append(f"every_row as (\nselect {every}\nfrom {last})")
        shown = ", ".join([ROW, *kept, "__nth", *map(dialect.name, program.rows[0].values)])
        ctes.append(f"answers as (select {shown} from every_row where __gate)")
        return ctes
    ctes += _unfolded("row", program.rows, last, [*kept, *map(dialect.name, program.broadcast)], dialect)
    last = levels(ctes, "row", "row_0", program.late, dialect)
    outputs = [f"{_typed(n, program.dtypes[c], dialect)} as {dialect.name(c)}" for c, n in program.outputs.items()]
    shown = ",\n  ".join([ROW, *kept, "__nth", *outputs])
    ctes.append(f"answers as (\nselect {shown}\nfrom {last})")
    return ctes


def _sums(ctes: list[str], program: Program, source: str, dialect: Dialect) -> str:
    """Add the sums over a question's operators and return the table that holds them beside the question."""
    added = program.addends
    if added is None:
        return source
    ctes += _unfolded("addend", added.rows, source, list(map(dialect.name, added.broadcast())), dialect)
    last = levels(ctes, "addend", "addend_0", added.late, dialect)
    # an unknown addend makes the sum unknown, never smaller
    aggregates = {"SUM": "case when count(*) = count({0}) then sum({0}) end", "MAX": "max({0})"}
    sums = [f"{aggregates[f].format(dialect.sql(n))} as {dialect.name(c)}" for c, (f, n) in added.sums.items()]
    ctes.append(f"sums as (\nselect {ROW},\n  " + ",\n  ".join(sums) + f"\nfrom {last} group by {ROW})")
    ctes.append(f"summed as (select * from {source} join sums using ({ROW}))")
    return "summed"


def _unfolded(title: str, rows: list[ResultRow], source: str, carried: list[str], dialect: Dialect) -> list[str]:
    """Return the tables that give one row per question and operator that it has; the last is ``<title>_0``.

    Operators share most of what they say: each distinct value of a field is written, and computed, once per question,
    in a list; a constant table of slots says which of them an operator has.
    """
    fields = {"__gate": [r.gate for r in rows]} | {f: [r.values[f] for r in rows] for f in rows[0].values}
    values, picked, slots = [ROW, *carried], [ROW, *carried, "__nth"], [list(range(len(rows)))]
    for field, nodes in fields.items():
        places = {node: i for i, node in enumerate(dict.fromkeys(nodes), start=1)}
        of = dialect.type(_type_of(field, nodes))
        values.append(f"{dialect.lists.format(', '.join(map(dialect.sql, places)), of)} as {dialect.name(field)}")
        slots.append([places[n] for n in nodes])
        if field != "__gate":
            picked.append(f"{_slot(field, dialect)} as {dialect.name(field)}")
    named = ", ".join(["__nth", *(f"{field}_slot" for field in fields)])
    constant = ",\n".join(f"({', '.join(map(str, row))})" for row in zip(*slots, strict=True))
    found = {
        "values": "select\n  " + ",\n  ".join(values) + f" from {source}",
        "slots": f"select * from (values\n{constant}) as t({named})",
        "0": "select\n  "
        + ",\n  ".join(picked)
        + f" from {title}_values cross join {title}_slots where {_slot('__gate', dialect)}",
    }
    return [f"{title}_{t} as (\n{text})" for t, text in found.items()]


def _slot(field: str, dialect: Dialect) -> str:
    return dialect.item.format(dialect.name(field), f"{field}_slot")


def _type_of(field: str, nodes: Iterable[Node]) -> str:
    if field == "__gate":
        return "boolean"
    return "text" if field in LABELS or any(n.kind == "string" for n in nodes) else "number"


def levels(ctes: list[str], prefix: str, source: str, columns: list[Column], dialect: Dialect = DUCKDB) -> str:
    """Add a common table expression per level of columns and return the last one's name."""
    for level, cells in enumerate(by_level(columns), start=1):
        text = ",\n  ".join(f"{dialect.sql(c.node)} as {dialect.name(c.id)}" for c in cells)
        ctes.append(f"{prefix}_{level} as (\nselect *,\n  {text}\nfrom {source})")
        source = f"{prefix}_{level}"
    return source


def _struct(nth: int, row: ResultRow, dtypes: dict[str, str], dialect: Dialect) -> str:
    values = {"__nth": str(nth), "__gate": dialect.sql(row.gate)}
    values |= {f: _typed(n, dtypes[f], dialect) for f, n in row.values.items()}
    return "  " + dialect.struct.format(", ".join(dialect.field.format(f, v) for f, v in values.items()))


def _typed(node: Node, dtype: str, dialect: Dialect) -> str:
    return f"cast({dialect.sql(node)} as {dialect.type(dtype)})"
