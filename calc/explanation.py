"""Where a number comes from: a cell, its formula with the numbers in it, and the same for what it reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import polars as pl

from calc.companions import accompanied, substituted
from calc.display import quantity
from calc.errors import CalcError, closest
from calc.evaluation import answers
from calc.expressions import expression
from calc.folding import replace
from calc.formula import AGGREGATES, FALSE, Node, literal, name, names, to_text
from calc.inputs import fact_columns
from calc.loading import load_sheet
from calc.patches import GIVEN
from calc.plans import with_device_facts
from calc.program import Column, Compiler, by_level, levelled
from calc.questions import prepare, stack_of
from calc.results import result_columns
from calc.scopes import Alias, Cell, Scope
from calc.shapes import input_axes, model_shapes
from calc.sheet import Sheet
from calc.tables import Tables


@dataclass
class Explanation:
    """A number and its origin.

    ``formula`` is the cell's text, ``numbers`` the same with every name's value in its place; both are empty for a
    fact. ``precedents`` explain what the formula reads. ``file`` and ``key`` say where the cell or fact stands.
    """

    name: str
    value: object
    unit: str = ""
    label: str = ""
    formula: str = ""
    numbers: str = ""
    note: str = ""
    source: str = ""
    file: str = ""
    key: str = ""
    precedents: list[Explanation] = field(default_factory=list)

    def shown(self) -> str:
        """Return the value as a person reads it, with its unit."""
        return quantity(self.value, self.unit)

    def lines(self, depth: int = 0, seen: set[str] | None = None) -> Iterator[str]:
        """Return the explanation as indented lines; what was explained above is not explained again."""
        seen = set() if seen is None else seen
        pad = "  " * depth
        yield f"{pad}{self.name} = {self.shown()}" + (f"   {self.label}" if self.label else "")
        again = self.name + self.file + self.key in seen
        seen.add(self.name + self.file + self.key)
        if self.precedents and not again:
            yield f"{pad}  = {self.formula}"
            if self.formula not in {p.name for p in self.precedents}:
                yield f"{pad}  = {self.numbers}"
        where = f"{self.file}: {self.key}" if self.file else ""
        told = "; ".join(t for t in (where, self.note, self.source) if t)
        if told and not again:
            yield f"{pad}  ({told})"
        for precedent in [] if again else self.precedents:
            yield from precedent.lines(depth + 1, seen)

    def __str__(self) -> str:
        """Give the whole tree as text."""
        return "\n".join(self.lines())


def explain(
    tables: Tables,
    cell: str,
    row: pl.DataFrame | pl.LazyFrame | Mapping[str, object],
    stage: str | None = None,
    part: str | None = None,
    operator: str | None = None,
    sheet: str = "exact",
) -> Explanation:
    """Return the explanation of one cell for one question; raises CalcError for what is unknown."""
    frame = pl.DataFrame([dict(row)]) if isinstance(row, Mapping) else row.lazy().collect()
    if frame.height != 1:
        raise CalcError(f"explain takes one question, not {frame.height} rows")
    given = frame.row(0, named=True)
    stage, part, operator = (v or given.get(k) for k, v in (("stage", stage), ("part", part), ("operator", operator)))
    results = {c for by in ("operator", "stage", "serving") for c in result_columns(tables, by)}
    question = frame.select(c for c in frame.columns if c not in results)
    loaded = load_sheet(tables, sheet, stack_of(given.get("technique")))
    return _Explainer(tables, loaded, question).explain(_place(loaded, stage, part, operator), cell)


def _place(sheet: Sheet, stage: object, part: object, operator: object) -> Scope:
    if stage is None and operator is None:
        return sheet.serving_scope()
    stage = str(stage or "prefill")
    if stage not in sheet.stages:
        raise CalcError(f"unknown stage {stage!r}{closest(stage, sheet.stages)}; there are {', '.join(sheet.stages)}")
    if operator is None:
        return sheet.totals_scope(stage)
    found = [(p, o) for p in sheet.parts for o in sheet.operators(p.block) if o.name == operator]
    parts = [p.name for p in sheet.parts]
    if part is not None and part not in parts:
        raise CalcError(f"unknown part {part!r}{closest(str(part), parts)}; there are {', '.join(parts)}")
    if part is not None:
        found = [(p, o) for p, o in found if p.name == part]
    if not found:
        known = sorted({o.name for p in sheet.parts for o in sheet.operators(p.block)})
        raise CalcError(f"unknown operator {operator!r}{closest(str(operator), known)}; there are {', '.join(known)}")
    return sheet.operator_scope(stage, *found[0])


class _Explainer:
    """Evaluates every cell that a cell rests on, once, for one question."""

    def __init__(self, tables: Tables, sheet: Sheet, question: pl.DataFrame) -> None:
        self.tables, self.sheet, self.question = tables, sheet, question
        self.values: dict[str, object] = {}
        self.made: dict[tuple[Scope, str], Explanation] = {}
        self.facts = _Facts(tables, sheet, question)
        shape = model_shapes(tables, sheet, self.facts.bound, tuple(sheet.stages))[str(self.facts.row["model_id"])]
        self.compiler = Compiler(sheet, input_axes(tables), decided=shape.decided)

    def explain(self, scope: Scope, cell: str) -> Explanation:
        if scope.find(cell) is None:
            raise CalcError(f"unknown cell {cell!r} here{closest(cell, scope.known())}")
        self._evaluate(self._lowered(scope, cell, set()))
        return self._explained(scope, cell)

    def _lowered(self, scope: Scope, cell: str, seen: set[tuple[Scope, str]]) -> list[Node]:
        """Return the lowered node of a cell and of everything that it reads."""
        found = scope.find(cell)
        if found is None or (found[1], cell) in seen:
            return []
        definition, home = found
        seen.add((home, cell))
        nodes = [self.compiler.lower(scope, cell)]
        for inner, read in self._reads(definition, home):
            nodes += self._lowered(inner, read, seen)
        return nodes

    def _reads(self, definition: object, home: Scope) -> list[tuple[Scope, str]]:
        if isinstance(definition, Alias):
            return [(definition.scope, definition.name)]
        if not isinstance(definition, Cell) or definition.file.endswith("constants.csv"):
            return []
        tree = definition.tree()
        outer, terms = _split_sums(tree)
        found = [(home, n) for n in sorted(names(outer), key=definition.formula.find) if not n.startswith("\0")]
        for term in terms:
            for scope in self.compiler.summed_scopes(home):
                if self.compiler.lower(scope, "applies") != FALSE:
                    found += [(scope, n) for n in sorted(names(term), key=definition.formula.find)]
        return found

    def _evaluate(self, nodes: list[Node]) -> None:
        wanted = {n for node in nodes for n in names(node)}
        columns = levelled(self.compiler.needed(wanted), wanted)
        self.values = self.facts.evaluate(columns, wanted)

    def _value(self, scope: Scope, cell: str) -> object:
        node = self.compiler.lower(scope, cell)
        return self.values.get(str(node.value)) if node.kind == "name" else node.value

    def _explained(self, scope: Scope, cell: str) -> Explanation:
        found = scope.find(cell)
        if found is None:
            raise CalcError(f"unknown cell {cell!r}")
        definition, home = found
        if (home, cell) not in self.made:
            self.made[(home, cell)] = self._make(definition, home, cell)
        return self.made[(home, cell)]

    def _make(self, definition: object, home: Scope, cell: str) -> Explanation:
        if isinstance(definition, Alias):
            inner = self._explained(definition.scope, definition.name)
            return inner if cell == definition.name else Explanation(**{**inner.__dict__, "name": cell})
        value = self._value(home, cell)
        if not isinstance(definition, Cell):
            return self.facts.explanation(cell, value)
        made = Explanation(
            cell, value, definition.unit, definition.label, note=definition.note, file=definition.file,
            key=definition.key, source=self.facts.source(definition.source_id),
        )  # fmt: skip
        if definition.file.endswith("constants.csv"):
            return made
        made.formula = definition.formula
        made.precedents = self._precedents(definition, home)
        made.numbers = self._numbers(definition, home)
        return made

    def _precedents(self, cell: Cell, home: Scope) -> list[Explanation]:
        outer, terms = _split_sums(cell.tree())
        read = sorted((n for n in names(outer) if not n.startswith("\0")), key=cell.formula.find)
        found = [self._explained(home, n) for n in read]
        for term in terms:
            for scope in self.compiler.summed_scopes(home):
                if self._value(scope, "applies") is True:
                    found.append(self._term(scope, term, cell.unit))
        return found

    def _term(self, scope: Scope, term: Node, unit: str) -> Explanation:
        inner = [self._explained(scope, n) for n in sorted(names(term), key=to_text(term).find)]
        value = self.facts.number(replace(term, lambda n: literal(self._value(scope, n))))
        numbers = to_text(term, lambda n: _shown(self._value(scope, n)))
        label = str(self._value(scope, "operator"))
        return Explanation(label, value, unit, "", to_text(term), numbers, precedents=inner)

    def _numbers(self, cell: Cell, home: Scope) -> str:
        outer, terms = _split_sums(cell.tree())
        sums = []
        for term in terms:
            each = [
                to_text(term, lambda n, s=scope: _shown(self._value(s, n)))  # type: ignore[misc]
                for scope in self.compiler.summed_scopes(home)
                if self._value(scope, "applies") is True
            ]
            sums.append("(" + " + ".join(each) + ")")
        return to_text(outer, lambda n: sums[int(n[1:])] if n.startswith("\0") else _shown(self._value(home, n)))


def _shown(value: object) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, str):
        return f"'{value}'"
    number = float(str(value))
    return f"{number:.0f}" if number == int(number) and abs(number) < 1e12 else f"{number:.6g}"


def _split_sums(tree: Node) -> tuple[Node, list[Node]]:
    """Return a formula with each ``SUM(…)`` or ``MAX(…)`` replaced by a placeholder name, and their terms."""
    terms: list[Node] = []

    def mark(node: Node) -> Node:
        if node.kind == "call" and node.value in AGGREGATES:
            terms.append(node.children[0])
            return name(f"\0{len(terms) - 1}")
        return Node(node.kind, node.value, tuple(mark(c) for c in node.children)) if node.children else node

    return mark(tree), terms


class _Facts:
    """The facts of one question, and where each stands."""

    def __init__(self, tables: Tables, sheet: Sheet, question: pl.DataFrame) -> None:
        self.tables = tables
        asked = prepare(tables, question, ())
        ((stack, self.bound, _),) = asked.groups()
        asked = accompanied(
            tables,
            substituted(asked, {stack: sheet}),
            sheet.inputs,
            lambda of, columns, own: answers(tables, sheet.name, of, columns, own),
        )
        self.frame = with_device_facts(tables, asked, set(sheet.inputs)).collect()
        self.row = self.frame.row(0, named=True)
        self.inputs = sheet.inputs

    def evaluate(self, columns: list[Column], wanted: set[str]) -> dict[str, object]:
        frame = self.frame.lazy()
        for level in by_level(columns):
            frame = frame.with_columns(expression(c.node).alias(c.id) for c in level)
        return frame.collect().row(0, named=True)

    def number(self, node: Node) -> object:
        return pl.select(expression(node)).item()

    def source(self, source_id: str | None) -> str:
        rows = self.tables["sources"].filter(pl.col("source_id") == (source_id or ""))
        if rows.is_empty():
            return ""
        row = rows.row(0, named=True)
        return ", ".join(t for t in (row["title"], row["locator"]) if t)

    def explanation(self, fact: str, value: object) -> Explanation:
        for table, key in (("models", "model_id"), ("hardware", "hardware_id"), ("scenarios", None), ("formats", None)):
            for given, column in fact_columns(self.tables, table):
                if given == fact:
                    return self._fact(table, key, given, column, value)
        about = self.inputs.get(fact.removeprefix(GIVEN))
        return Explanation(fact, value, about.unit, about.label) if about else Explanation(fact, value)

    def _fact(self, table: str, key: str | None, given: str, column: str, value: object) -> Explanation:
        entry = next(c for c in self.tables.columns(table) if c["column_name"] == column)
        file, where, source = f"{table}.csv", "", ""
        if table == "scenarios":
            file, where = "", "asked"
        elif table == "formats":
            # a precision need not name every format
            named = self.row[given.partition("_")[0] + "_format"]
            where = str(named or "no format named")
            rows = self.tables[table].filter(pl.col("format_id").eq_missing(pl.lit(named, pl.String)))
            source = self.source(rows["source_id"][0] if rows.height else "definition")
        elif key:
            where = str(self.row[key])
            source = self.source(self.tables[table].filter(pl.col(key) == where)["source_id"][0])
        return Explanation(
            given, value, str(entry["unit"] or ""), str(entry["label"]), file=file, key=where, source=source,
            note=str(entry["description"] or ""),
        )  # fmt: skip
