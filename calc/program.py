"""A sheet compiled: every cell that a result needs, named once, in the order in which it can be computed.

Lowering resolves each name in its scope, puts literals in their place, folds what is constant and gives every
distinct formula one column, whoever asks for it: key and value projections of equal shape, or cells that do not
depend on the stage, are computed once. What a cell depends on is known, so that a grid computes it once per
configuration or once per device wherever that is enough.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntFlag
from functools import cached_property, reduce

from calc.errors import CalcError, SheetError, closest
from calc.folding import replace
from calc.formula import AGGREGATES, FALSE, ONE, TRUE, ZERO, Node, adds_up, is_literal, name, names
from calc.scopes import Alias, Cell, Definition, Operator, Part, Scope
from calc.sheet import LIVE, QUANTITIES, Sheet, constant_value
from calc.tiles import Ridge

LABELS = ("stage", "part", "operator", "kind", "class", "runs_on", "exchange")
"""What names an operator's row; the other fields are numbers."""
STAGES = ("prefill", "decode")
"""The stages that results show; a sheet may have more, which only other cells read."""
CONDITIONS = ("part_applies", "applies", "runs", "stage_applies")
"""What decides which rows a model has."""


RARE = ("exchange_elements", "host_elements")
"""Quantities that most programs have nothing of: then the cells that rest on them vanish."""


class Axis(IntFlag):
    """What a value depends on: facts of the device, the setup, facts of the model, anything else of the question.

    A setup is the formats of numbers and the degrees of parallelism: what is chosen when a model is deployed. A stack
    is of techniques, where a sheet has the cells of several.
    """

    DEVICE = 1
    SETUP = 2
    MODEL = 4
    QUESTION = 8
    STACK = 16

    @property
    def table(self) -> str:
        """Return the least table that can hold a value: of setups, configurations, devices (per setup) or points."""
        asks = bool(self & (Axis.MODEL | Axis.QUESTION | Axis.STACK))
        if Axis.DEVICE not in self:
            return "configuration" if asks else "setup"
        return "point" if asks else "device"


_AXES = [Axis(i) for i in range(32)]
_TABLES = [axes.table for axes in _AXES]
"""Of each combination: a sheet's compilation asks hundreds of thousands of times, and flags are slow."""


@dataclass
class Column:
    """A computed column: its formula over inputs and earlier columns, and the level at which it can be computed."""

    id: str
    node: Node
    axes: Axis
    level: int = 0

    @property
    def where(self) -> str:
        """Return the least table that can hold it."""
        return _TABLES[self.axes]


@dataclass
class ResultRow:
    """One row of a result for each question: the condition under which it exists, and its fields."""

    gate: Node
    values: dict[str, Node]


@dataclass(eq=False)
class Addends:
    """What a program adds up: rows per operator, columns computed on them, and what is added or compared of those."""

    rows: list[ResultRow]
    late: list[Column]
    sums: dict[str, tuple[str, Node]]

    def broadcast(self) -> list[str]:
        """Return the columns and inputs of the question that the rows carry along."""
        own = {f for r in self.rows for f in r.values} | {c.id for c in self.late}
        return sorted({n for node in self.after() for n in names(node)} - own)

    def before(self) -> list[Node]:
        """Return what is computed on the question."""
        return [n for r in self.rows for n in (r.gate, *r.values.values())]

    def after(self) -> list[Node]:
        """Return what is computed on the rows."""
        return [c.node for c in self.late] + [node for _, node in self.sums.values()]


class Program:
    """What an engine runs.

    First the wide ``columns`` of each question, level by level; then, where there are ``addends``, their sums and
    the columns ``on_sums``; then the question's ``rows``; then, on those rows, the ``late`` columns; at last the
    ``outputs``, result column → what holds it.
    """

    def __init__(
        self,
        columns: list[Column],
        rows: list[ResultRow],
        late: list[Column],
        outputs: dict[str, Node],
        unfolds: bool = False,
        addends: Addends | None = None,
        on_sums: Sequence[Column] = (),
        ridges: Sequence[Ridge] = (),
    ) -> None:
        self.columns, self.rows, self.late, self.outputs = columns, rows, late, outputs
        self.addends, self.on_sums, self.ridges = addends, list(on_sums), list(ridges)
        self.unfolds = unfolds
        """The rows are conditional, and outputs are read off them; else the outputs are the rows' own values."""
        self.dtypes: dict[str, str] = {}
        # a result may bear the name of the input that it shows; only what is unfolded reads fields of rows
        own = {c.id for c in [*columns, *late, *on_sums]} | {f for r in rows for f in r.values if unfolds}
        own |= {r.id for r in ridges}
        early = [c.node for c in [*columns, *on_sums]] + [n for r in rows for n in (r.gate, *r.values.values())]
        after = [c.node for c in late] + list(outputs.values())
        if addends:
            own |= {c.id for c in addends.late} | {f for r in addends.rows for f in r.values} | set(addends.sums)
            early += addends.before() + addends.after()
        self.weighed = {n for r in ridges for n in r.reads()}
        """What sums of rooflines read of configurations and of devices."""
        self.inputs = {n for node in early + after for n in names(node)} | self.weighed
        self.inputs -= own
        """Every name that is read and that no column computes."""
        fields = {f for r in rows for f in r.values}
        self.broadcast = sorted(
            {n for node in after for n in names(node)} - fields - {c.id for c in late} if unfolds else set()
        )
        """Columns and inputs of the question that its rows carry along."""
        points = [c.node for c in columns if c.where == "point"]
        points += [n for r in rows for n in (r.gate, *r.values.values())] + [c.node for c in on_sums]
        points += [name(n) for n in addends.broadcast()] + addends.before() if addends else []
        self.carried = {n for node in points for n in names(node)} | set(self.broadcast)
        self.carried -= {c.id for c in on_sums} | {r.id for r in ridges} | set(addends.sums if addends else ())
        """What is read on the rows of points."""

    def levels(self, where: str) -> list[list[Column]]:
        """Return the wide columns of setups, configurations, devices or points, level by level."""
        return self._levels.get(where, [])

    @cached_property
    def _levels(self) -> dict[str, list[list[Column]]]:
        found: dict[str, list[Column]] = {}
        for column in self.columns:
            found.setdefault(column.where, []).append(column)
        return {where: by_level(columns) for where, columns in found.items()}


def by_level(columns: list[Column]) -> list[list[Column]]:
    """Return columns in groups that can be computed at once, in order."""
    found: dict[int, list[Column]] = {}
    for column in columns:
        found.setdefault(column.level, []).append(column)
    return [found[level] for level in sorted(found)]


class Compiler:
    """Lowers cells of one sheet to columns."""

    def __init__(
        self,
        sheet: Sheet,
        axes: Mapping[str, Axis],
        bound: Mapping[str, Node] | None = None,
        decided: Mapping[tuple[str, str], Node] | None = None,
    ) -> None:
        """Compile for inputs on the given axes; ``bound`` inputs are literals, whose branches are decided now.

        So are ``decided`` conditions, by (label of their scope, name): which operators the models at hand have.
        """
        self.sheet, self.axes, self.bound, self.decided = sheet, axes, bound or {}, decided or {}
        self._columns: dict[Node, Column] = {}
        self._by_id: dict[str, Column] = {}
        self._memo: dict[tuple[Scope, str], Node] = {}
        self._stack: dict[tuple[Scope, str], Cell] = {}
        """Cells that are being lowered, the innermost last."""

    def lower(self, scope: Scope, wanted: str) -> Node:
        """Return the literal, input or column that holds a name's value in a scope; raises SheetError."""
        key = (scope, wanted)
        if key not in self._memo:
            self._memo[key] = self._lower(scope, wanted)
        return self._memo[key]

    def _lower(self, scope: Scope, wanted: str) -> Node:
        found = scope.find(wanted)
        if found is None:
            raise self._unknown(scope, wanted)
        definition, home = found
        if isinstance(definition, Node) and (is_literal(definition) or definition.kind == "name"):
            return self.bound.get(wanted, definition)
        if wanted in CONDITIONS and (home.label, wanted) in self.decided:
            return self.decided[(home.label, wanted)]
        if home is not scope:
            return self.lower(home, wanted)
        if isinstance(definition, Alias):
            return self._lower_alias(definition)
        if isinstance(definition, Node):
            return self.column(self.lower_tree(home, definition), f"{home.label}__{wanted}")
        return self._lower_cell(home, wanted, definition)

    def _lower_alias(self, alias: Alias) -> Node:
        condition = self.lower(alias.scope, alias.condition) if alias.condition else TRUE
        if condition == FALSE:
            return ZERO
        value = self.lower(alias.scope, alias.name)
        if condition == TRUE or value == ZERO:
            return value
        node = replace(Node("case", None, (condition, value, ZERO)), name)
        return self.column(node, f"{alias.scope.label}__{alias.name}_if_applied")

    def _lower_cell(self, home: Scope, wanted: str, cell: Cell) -> Node:
        if (home, wanted) in self._stack:
            path = list(self._stack)
            loop = [n for _, n in path[path.index((home, wanted)) :]] + [wanted]
            raise SheetError(cell.file, cell.key, f"is a cycle: {' → '.join(loop)}")
        if cell.file.endswith("constants.csv"):
            return constant_value(cell)
        self._stack[home, wanted] = cell
        try:
            tree = cell.tree()
            if adds_up(cell.formula):
                lowered = self.lower_tree(home, tree)
            else:
                lowered = replace(tree, lambda n: self.lower(home, n))
            return self.column(lowered, f"{home.label}__{wanted}")
        finally:
            del self._stack[home, wanted]

    def lower_tree(self, scope: Scope, tree: Node) -> Node:
        """Return a formula with every name lowered and every ``SUM(…)`` and ``MAX(…)`` written out over operators."""
        sums: dict[str, Node] = {}
        written = self._summed(scope, tree, sums)
        return replace(written, lambda n: sums[n] if n in sums else self.lower(scope, n))

    def _summed(self, scope: Scope, node: Node, sums: dict[str, Node]) -> Node:
        """Return a formula with a name for each of its sums, which are put into ``sums``."""
        if node.kind == "call" and node.value in AGGREGATES:
            key = f"\0{len(sums)}"
            aggregate = self._sum if node.value == "SUM" else self._greatest
            sums[key] = aggregate(scope, node.children[0])
            return name(key)
        if not node.children:
            return node
        return Node(node.kind, node.value, tuple([self._summed(scope, c, sums) for c in node.children]))

    def _sum(self, scope: Scope, term: Node) -> Node:
        """Return the sum of a term over the operators; what is multiplied by the same count is added up first."""
        inner = [s for s in self.summed_scopes(scope) if self.lower(s, "applies") != FALSE]
        return self._added_up([self.column(self.lower_tree(s, term), f"{s.label}__term") for s in inner], scope)

    def _added_up(self, terms: list[Node], scope: Scope) -> Node:
        """Return the sum of terms, with every factor that several have in common written once."""
        groups: dict[Node, list[Node]] = {}
        for term in terms:
            product = self._product(term)
            groups.setdefault(product.children[0] if product else ONE, []).append(term)
        total = ZERO
        for factor, alike in groups.items():
            if factor == ONE or len(alike) == 1:
                value = reduce(_added, alike)
            else:
                value = self._added_up([p.children[1] for t in alike if (p := self._product(t))], scope)
                value = self.column(value, f"{scope.label}__sum")
                value = replace(Node("call", "*", (factor, value)), name)
            total = _added(total, value)
        return total

    def _product(self, term: Node) -> Node | None:
        """Return the product that a term's column is, or None."""
        column = self._by_id.get(str(term.value)) if term.kind == "name" else None
        return column.node if column and column.node.kind == "call" and column.node.value == "*" else None

    def _greatest(self, scope: Scope, term: Node) -> Node:
        """Return the greatest of a term over the operators, which is at least 0."""
        inner = [s for s in self.summed_scopes(scope) if self.lower(s, "applies") != FALSE]
        terms = dict.fromkeys(self.column(self.lower_tree(s, term), f"{s.label}__term") for s in inner)
        found = [t for t in terms if t != ZERO]
        return replace(Node("call", "GREATEST", (*found, ZERO)), name) if found else ZERO

    def summed_scopes(self, scope: Scope) -> list[Scope]:
        """Return the operators' scopes that a ``SUM(…)`` in a scope adds over: of a stage, or of a whole answer."""
        bill = [(p, o) for p in self.parts() for o in self.sheet.operators(p.block)]
        return [self._summed_scope(scope, p, o) for p, o in bill]

    def a_summed_scope(self, scope: Scope) -> Scope:
        """Return one of the scopes that a ``SUM(…)`` in a scope adds over: names mean the same kind of thing in all."""
        part = next(p for p in self.sheet.parts if self.sheet.operators(p.block))
        return self._summed_scope(scope, part, self.sheet.operators(part.block)[0])

    def _summed_scope(self, scope: Scope, part: Part, operator: Operator) -> Scope:
        stage, _, tail = scope.label.partition("__")
        if tail == "total":
            return self.sheet.operator_scope(stage, part, operator)
        return self.sheet.generation_scope(part, operator)

    def absent(self, stages: Iterable[str]) -> dict[str, Definition]:
        """Return the rare quantities that no operator has anything of in some stages, as nothing."""
        bill = [(s, p, o) for s in stages for p in self.parts() for o in self.sheet.operators(p.block)]
        found: dict[str, Definition] = {}
        for quantity in RARE:
            some = (place for place in bill if self.sheet.has_some(place[2], quantity))
            if all(self.lower(self.sheet.operator_scope(*place), quantity) == ZERO for place in some):
                found[quantity] = ZERO
        return found

    def parts(self) -> list[Part]:
        """Return the parts that the models at hand may have."""
        first = self.sheet.stages[0]
        return [p for p in self.sheet.parts if self.lower(self.sheet.part_scope(first, p), "part_applies") != FALSE]

    def _unknown(self, scope: Scope, wanted: str) -> CalcError:
        reason = f"unknown name {wanted!r}{closest(wanted, scope.known())}"
        if not self._stack:
            return CalcError(reason)
        cell = next(reversed(self._stack.values()))
        return SheetError(cell.file, cell.key, reason)

    def column(self, node: Node, label: str) -> Node:
        """Return the column that holds a lowered formula, made now if it is new; literals and names stand alone."""
        if is_literal(node) or node.kind == "name":
            return node
        if node not in self._columns:
            unique, n = label, 2
            while unique in self._by_id:
                unique, n = f"{label}_{n}", n + 1
            made = Column(unique, node, self.axes_of(node))
            self._columns[node] = self._by_id[unique] = made
        return name(self._columns[node].id)

    def axes_of(self, node: Node) -> Axis:
        """Return what a lowered formula depends on."""
        found = 0
        for read in names(node):
            found |= int(self._axes(read))
        return _AXES[found]

    def _axes(self, read: str) -> Axis:
        return self._by_id[read].axes if read in self._by_id else self.axes.get(read, Axis.QUESTION)

    def rewrite(self, nodes: Mapping[str, Node]) -> None:
        """Give columns other formulas of the same value."""
        for column, node in nodes.items():
            self._by_id[column].node = node

    def needed(self, wanted: set[str]) -> list[Column]:
        """Return the columns that the wanted names rest on, in order."""
        found: dict[str, Column] = {}
        for read in sorted(wanted):
            self._visit(read, found)
        return list(found.values())

    def _visit(self, read: str, found: dict[str, Column]) -> None:
        if read in self._by_id and read not in found:
            for inner in sorted(names(self._by_id[read].node)):
                self._visit(inner, found)
            found[read] = self._by_id[read]


def _added(left: Node, right: Node) -> Node:
    return replace(Node("call", "+", (left, right)), name)


def levelled(columns: list[Column], outputs: set[str]) -> list[Column]:
    """Return columns with their levels; a cell that only one other reads is written into its reader."""
    uses: dict[str, int] = {}
    readers: dict[str, Column] = {}
    for column in columns:
        _count(column.node, uses)
        readers |= dict.fromkeys(names(column.node), column)
    inlined: dict[str, Node] = {}
    found: list[Column] = []
    levels: dict[str, int] = {}
    for column in columns:
        node = replace(column.node, lambda n: inlined.get(n, name(n)))
        reader = readers.get(column.id)
        alone = uses.get(column.id) == 1 and column.id not in outputs
        if alone and reader is not None and reader.where == column.where:
            inlined[column.id] = node
            continue
        levels[column.id] = 1 + max((levels.get(n, 0) for n in names(node)), default=0)
        found.append(Column(column.id, node, column.axes, levels[column.id]))
    return found


def written_in(rows: list[ResultRow], columns: list[Column], outputs: set[str]) -> tuple[list[ResultRow], list[Column]]:
    """Return rows and columns with every column that only one field of the rows reads written into that field."""
    uses: dict[str, int] = {}
    for column in columns:
        _count(column.node, uses)
    in_rows: dict[str, int] = {}
    for row in rows:
        for node in (row.gate, *row.values.values()):
            _count(node, in_rows)
    alone = {c.id: c.node for c in columns if in_rows.get(c.id) == 1 and c.id not in uses and c.id not in outputs}

    def written(node: Node) -> Node:
        return replace(node, lambda n: alone.get(n, name(n))) if names(node) & alone.keys() else node

    found = [ResultRow(written(r.gate), {f: written(n) for f, n in r.values.items()}) for r in rows]
    return found, [c for c in columns if c.id not in alone]


def _count(node: Node, uses: dict[str, int]) -> None:
    if node.kind == "name":
        uses[str(node.value)] = uses.get(str(node.value), 0) + 1
    for child in node.children:
        _count(child, uses)


def operator_program(compiler: Compiler, columns: list[str]) -> Program:
    """Return the program whose rows are a question's stages × parts × operators.

    Shapes and quantities are computed side by side for all operators, the roofline once on their rows.
    """
    sheet = compiler.sheet
    fields = (*LABELS, "count", "stored", *QUANTITIES, LIVE)
    known = {**{f: name(f) for f in fields}, **compiler.absent(STAGES)}
    on_rows = Scope("row", {**known, **sheet.roofline}, sheet.scenario_scope())
    outputs = {c: compiler.lower(on_rows, c) for c in columns if on_rows.find(c) is not None}
    direct = {n for o in outputs.values() for n in names(o)}
    late = [c for c in compiler.needed(direct) if c.id.startswith("row__")]
    read = {n for node in [c.node for c in late] + list(outputs.values()) for n in names(node)}
    kept = [f for f in fields if f in read]
    rows = []
    for stage in STAGES:
        for part in sheet.parts:
            if compiler.lower(sheet.part_scope(stage, part), "part_applies") == FALSE:
                continue
            for operator in sheet.operators(part.block):
                scope = sheet.operator_scope(stage, part, operator)
                gate = compiler.lower(scope, "runs")
                if gate != FALSE:
                    # rows that do not run are left out: their fields need no condition of their own
                    rows.append(ResultRow(gate, {f: compiler.lower(scope.ungated(), f) for f in kept}))
    also = read - {c.id for c in late}
    early = [c for c in compiler.needed(read_by(rows) | also) if not c.id.startswith("row__")]
    rows, early = written_in(rows, early, also)
    return Program(levelled(early, read_by(rows) | also), rows, levelled(late, direct), outputs, unfolds=True)


def stage_program(compiler: Compiler, columns: list[str]) -> Program:
    """Return the program whose rows are a question's stages."""
    return _wide_program(compiler, [compiler.sheet.totals_scope(s) for s in STAGES], columns)


def serving_program(compiler: Compiler, columns: list[str]) -> Program:
    """Return the program whose one row is the answer to a question."""
    return _wide_program(compiler, [compiler.sheet.serving_scope()], columns)


def _wide_program(compiler: Compiler, scopes: list[Scope], columns: list[str]) -> Program:
    rows = result_rows(compiler, scopes, columns)
    wanted = read_by(rows)
    return Program(levelled(compiler.needed(wanted), wanted), rows, [], {c: name(c) for c in rows[0].values})


def result_rows(compiler: Compiler, scopes: list[Scope], columns: list[str]) -> list[ResultRow]:
    """Return the result row of each scope that can exist."""
    rows = []
    for scope in scopes:
        gate = compiler.lower(scope, "stage_applies") if scope.find("stage_applies") else TRUE
        if gate != FALSE:
            rows.append(ResultRow(gate, {c: compiler.lower(scope, c) for c in columns if scope.find(c) is not None}))
    return rows


def read_by(rows: list[ResultRow]) -> set[str]:
    """Return every name that rows read."""
    return {n for row in rows for node in (row.gate, *row.values.values()) for n in names(node)}


def result_scope(sheet: Sheet, by: str) -> Scope:
    """Return a scope that knows the names which results of a grain may show."""
    if by == "operator":
        part = sheet.parts[0]
        return sheet.operator_scope(STAGES[0], part, sheet.operators(part.block)[0])
    return sheet.serving_scope() if by == "serving" else sheet.totals_scope(STAGES[0])


GRAINS: dict[str, tuple[str, Callable[[Compiler, list[str]], Program]]] = {
    "operator": ("operators", operator_program),
    "stage": ("stages", stage_program),
    "serving": ("serving", serving_program),
}
"""Grain → the dictionary's name of the result, and what compiles it."""
