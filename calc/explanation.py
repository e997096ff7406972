"""Where a number comes from: a cell, its formula with the numbers in it, and the same for what it reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from math import inf

import polars as pl

from calc.calibration.applied import calibrated
from calc.calibration.expected import errors_told
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

    def _repr_markdown_(self) -> str:
        """Show the tree in notebooks."""
        return f"```text\n{self}\n```"


def explain(
    tables: Tables,
    cell: str,
    row: pl.DataFrame | pl.LazyFrame | Mapping[str, object],
    stage: str | None = None,
    part: str | None = None,
    operator: str | None = None,
    sheet: str = "exact",
    depth: float = inf,
) -> Explanation:
    """Return the explanation of one cell for one question; raises CalcError for what is unknown.

    The cells that it reads are explained to a ``depth``, which is how many steps one may follow them. The note of a
    calibrated one says what error is to be expected.
    """
    frame = pl.DataFrame([dict(row)]) if isinstance(row, Mapping) else row.lazy().collect()
    known = calibrated(tables, frame)
    frame = known.scenarios.lazy().collect()
    if frame.height != 1:
        raise CalcError(f"explain takes one question, not {frame.height} rows")
    given = frame.row(0, named=True)
    stage, part, operator = (v or given.get(k) for k, v in (("stage", stage), ("part", part), ("operator", operator)))
    results = {c for by in ("operator", "stage", "serving") for c in result_columns(tables, by)}
    question = frame.select(c for c in frame.columns if c not in results)
    loaded = load_sheet(tables, sheet, stack_of(given.get("technique")))
    explainer = _Explainer(tables, loaded, question)
    found = explainer.explain(explainer.first_of(_places(loaded, stage, part, operator)), cell, depth)
    found.note = "; ".join(t for t in (found.note, errors_told(known.told)) if t)
    return found


def evaluate_cells(tables: Tables, cells: Iterable[Cell], row: Mapping[str, object]) -> dict[str, object]:
    """Return the value of each cell of a reader's own, over those of a question's answer on the exact sheet.

    Raises CalcError for a name that means nothing there.
    """
    asked = calibrated(tables, pl.DataFrame([dict(row)])).scenarios.lazy().collect()
    sheet = load_sheet(tables, "exact", stack_of(asked["technique"][0] if "technique" in asked.columns else None))
    scope = Scope("own", {c.name: c for c in cells}, sheet.serving_scope())
    explainer = _Explainer(tables, sheet, asked)
    return explainer.values_of(scope, list(scope.cells))


def _places(sheet: Sheet, stage: object, part: object, operator: object) -> list[Scope]:
    """Return the places that a question may mean: an operator's name may stand in several parts."""
    if stage is None and operator is None:
        return [sheet.serving_scope()]
    stage = str(stage or "prefill")
    if stage not in sheet.stages:
        raise CalcError(f"unknown stage {stage!r}{closest(stage, sheet.stages)}; there are {', '.join(sheet.stages)}")
    if operator is None:
        return [sheet.totals_scope(stage)]
    found = [(p, o) for p in sheet.parts for o in sheet.operators(p.block) if o.name == operator]
    parts = [p.name for p in sheet.parts]
    if part is not None and part not in parts:
        raise CalcError(f"unknown part {part!r}{closest(str(part), parts)}; there are {', '.join(parts)}")
    if part is not None:
        found = [(p, o) for p, o in found if p.name == part]
    if not found:
        known = sorted({o.name for p in sheet.parts for o in sheet.operators(p.block)})
        raise CalcError(f"unknown operator {operator!r}{closest(str(operator), known)}; there are {', '.join(known)}")
    return [sheet.operator_scope(stage, p, o) for p, o in found]


class _Explainer:
    """Evaluates every cell that a cell rests on, once, for one question."""

    def __init__(self, tables: Tables, sheet: Sheet, question: pl.DataFrame) -> None:
        self.tables, self.sheet, self.question = tables, sheet, question
        self.values: dict[str, object] = {}
        self.made: dict[tuple[Scope, str, float], Explanation] = {}
        self.facts = _Facts(tables, sheet, question)
        shape = model_shapes(tables, sheet, self.facts.bound, tuple(sheet.stages))[str(self.facts.row["model_id"])]
        self.compiler = Compiler(sheet, input_axes(tables), decided=shape.decided)

    def first_of(self, places: list[Scope]) -> Scope:
        """Return the first place that the model has; raises CalcError where it has none of them."""
        if len(places) == 1 and places[0].find("applies") is None:
            return places[0]
        found = next((p for p in places if self.compiler.lower(p, "applies") != FALSE), None)
        if found is None:
            operator = self.compiler.lower(places[0], "operator").value
            where = f" in {places[0].label.split('__')[1]!r}" if len(places) == 1 else ""
            raise CalcError(f"{self.facts.row['model_id']} has no operator {operator!r}{where}")
        return found

    def explain(self, scope: Scope, cell: str, depth: float) -> Explanation:
        if scope.find(cell) is None:
            raise CalcError(f"unknown cell {cell!r} here{closest(cell, scope.known())}")
        self._evaluate(self._lowered(scope, cell, depth, {}))
        return self._explained(scope, cell, depth)

    def values_of(self, scope: Scope, cells: Iterable[str]) -> dict[str, object]:
        self._evaluate([self.compiler.lower(scope, c) for c in cells])
        return {c: self._value(scope, c) for c in cells}

    def _lowered(self, scope: Scope, cell: str, depth: float, seen: dict[tuple[Scope, str], float]) -> list[Node]:
        """Return the lowered node of a cell and of everything that it reads, to a depth."""
        found = scope.find(cell)
        if found is None or seen.get((found[1], cell), -1) >= depth:
            return []
        definition, home = found
        seen[(home, cell)] = depth
        nodes = [self.compiler.lower(scope, cell)]
        left = depth if isinstance(definition, Alias) else depth - 1
        for inner, read in self._reads(definition, home) if left >= 0 else []:
            nodes += self._lowered(inner, read, left, seen)
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

    def _explained(self, scope: Scope, cell: str, depth: float) -> Explanation:
        found = scope.find(cell)
        if found is None:
            raise CalcError(f"unknown cell {cell!r}")
        definition, home = found
        if (home, cell, depth) not in self.made:
            self.made[(home, cell, depth)] = self._make(definition, home, cell, depth)
        return self.made[(home, cell, depth)]

    def _make(self, definition: object, home: Scope, cell: str, depth: float) -> Explanation:
        if isinstance(definition, Alias):
            inner = self._explained(definition.scope, definition.name, depth)
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
        if depth > 0:
            made.precedents = self._precedents(definition, home, depth - 1)
            made.numbers = self._numbers(definition, home)
        return made

    def _precedents(self, cell: Cell, home: Scope, depth: float) -> list[Explanation]:
        outer, terms = _split_sums(cell.tree())
        read = sorted((n for n in names(outer) if not n.startswith("\0")), key=cell.formula.find)
        found = [self._explained(home, n, depth) for n in read]
        for term in terms:
            for scope in self.compiler.summed_scopes(home):
                if self._value(scope, "applies") is True:
                    found.append(self._term(scope, term, cell.unit, depth))
        return found

    def _term(self, scope: Scope, term: Node, unit: str, depth: float) -> Explanation:
        read = sorted(names(term), key=to_text(term).find) if depth > 0 else []
        inner = [self._explained(scope, n, depth - 1) for n in read]
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
        return _sources(self.tables).get(source_id or "", "")

    def explanation(self, fact: str, value: object) -> Explanation:
        place = _facts_of(self.tables).get(fact)
        if place is not None:
            return self._fact(*place, value)
        about = self.inputs.get(fact.removeprefix(GIVEN))
        return Explanation(fact, value, about.unit, about.label) if about else Explanation(fact, value)

    def _fact(self, table: str, given: str, entry: Mapping[str, object], value: object) -> Explanation:
        file, where, source = f"{table}.csv", "", ""
        if table == "scenarios":
            file, where = "", "asked"
        elif table == "formats":
            # a precision need not name every format
            named = self.row[given.partition("_")[0] + "_format"]
            where = str(named or "no format named")
            source = self.source(_source_of(self.tables, table).get(str(named), "definition"))
        else:
            where = str(self.row[_key(self.tables, table)])
            source = self.source(_source_of(self.tables, table)[where])
        return Explanation(
            given, value, str(entry["unit"] or ""), str(entry["label"]), file=file, key=where, source=source,
            note=str(entry["description"] or ""),
        )  # fmt: skip


@lru_cache(maxsize=64)
def _sources(tables: Tables) -> dict[str, str]:
    """Return what is said of each source: its title and place."""
    rows = tables["sources"].select("source_id", "title", "locator").iter_rows()
    return {key: ", ".join(t for t in told if t) for key, *told in rows}


@lru_cache(maxsize=64)
def _source_of(tables: Tables, table: str) -> dict[str, str]:
    """Return the source of each row of a table."""
    return dict(tables[table].select(_key(tables, table), "source_id").iter_rows())


def _key(tables: Tables, table: str) -> str:
    return next(str(c["column_name"]) for c in tables.columns(table) if c["is_key"])


@lru_cache(maxsize=64)
def _facts_of(tables: Tables) -> dict[str, tuple[str, str, Mapping[str, object]]]:
    """Return where each fact stands: its table, its name in the sheets, its column's row of the dictionary."""
    found: dict[str, tuple[str, str, Mapping[str, object]]] = {}
    for table in ("models", "hardware", "scenarios", "formats"):
        about = {str(c["column_name"]): c for c in tables.columns(table)}
        for given, column in fact_columns(tables, table):
            found.setdefault(given, (table, given, about[column]))
    return found
