"""The second shape of a program: rows of operators, and sums over them.

Written out, a sum over operators is a wide formula: fastest for many questions, but the roofline of every operator is
compiled and planned by itself. On rows of operators it is computed once for all. Both come from the same cells.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from calc.formula import FALSE, ZERO, Node, name, names
from calc.program import (
    LABELS,
    STAGES,
    Addends,
    Axis,
    Column,
    Compiler,
    Program,
    ResultRow,
    levelled,
    read_by,
    result_rows,
    written_in,
)
from calc.scopes import Alias, Definition, Scope
from calc.sheet import LIVE, QUANTITIES, SPANS, Sheet


class Shared(NamedTuple):
    """Cells that may be the same for every operator, and what gives them where they are."""

    names: set[str]
    alike: Callable[[str], Node | None]


GATED = ("count", "stored", *QUANTITIES, LIVE)
FIXED = (*LABELS, "tower", "place", *SPANS)
"""Fields of an operator that are the same in every stage."""
HELD = ("weight_elements", "bias_elements")
"""What an operator has in memory, whether it runs or not."""


class RowScope(Scope):
    """The names of a row of operators; what is the same for all of them is the question's and no field of the row."""

    def __init__(self, label: str, cells: Mapping[str, Definition], parent: Scope, shared: Shared) -> None:
        super().__init__(label, cells, parent)
        self._shared, self._found = shared, dict[str, Definition]()

    def own(self, wanted: str) -> Definition | None:
        """Return the definition of a name that is defined here."""
        if wanted in self._shared.names and wanted not in self._found:
            self._found[wanted] = self._shared.alike(wanted) or self.cells[wanted]
        return self._found.get(wanted) or self.cells.get(wanted)


class SummingCompiler(Compiler):
    """Lowers a ``SUM(…)`` to a column over rows of operators instead of writing it out."""

    def __init__(
        self,
        sheet: Sheet,
        axes: Mapping[str, Axis],
        bound: Mapping[str, Node] | None = None,
        decided: Mapping[tuple[str, str], Node] | None = None,
    ) -> None:
        """Compile as every compiler does."""
        super().__init__(sheet, axes, bound, decided)
        self.sums: dict[str, tuple[str, Node]] = {}
        self._row_scopes: dict[str, Scope] = {}

    def summed_program(self, by: str, columns: list[str]) -> Program:
        """Return the program that answers as the stage's or the serving program does."""
        scopes = [self.sheet.totals_scope(s) for s in STAGES] if by == "stage" else [self.sheet.serving_scope()]
        return self.summed(result_rows(self, scopes, columns))

    def summed(self, rows: list[ResultRow], labels: tuple[str, ...] = ()) -> Program:
        """Return the program of result rows; rows of operators bear some ``labels``, whether they are read or not."""
        if not self.sums:
            return self._unsummed(rows)
        wanted, addends = read_by(rows), {n for _, node in self.sums.values() for n in names(node)}
        late, after = self._split(self.needed(wanted | addends))
        late = levelled(late, addends)
        fields = self._fields()
        used = {n for c in late for n in names(c.node)} | addends | {f"row__{c}" for c in labels}
        added = Addends(self._addend_rows({f: fields[f] for f in fields if f in used}), late, dict(self.sums))
        own = {c.id for c in after} | set(self.sums)
        also = (wanted | set(added.broadcast()) | {n for c in after for n in names(c.node)}) - own
        early = [c for c in self.needed(read_by(added.rows) | also) if c.id not in own]
        added.rows, early = written_in(added.rows, early, also)
        kept = read_by(added.rows) | also
        outputs = {c: name(c) for c in rows[0].values}
        return Program(levelled(early, kept), rows, [], outputs, addends=added, on_sums=levelled(after, wanted))

    def _unsummed(self, rows: list[ResultRow]) -> Program:
        wanted = read_by(rows)
        return Program(levelled(self.needed(wanted), wanted), rows, [], {c: name(c) for c in rows[0].values})

    def _sum(self, scope: Scope, term: Node) -> Node:
        return self._aggregated("SUM", scope, term)

    def _greatest(self, scope: Scope, term: Node) -> Node:
        return self._aggregated("MAX", scope, term)

    def _aggregated(self, function: str, scope: Scope, term: Node) -> Node:
        value = self.column(self.lower_tree(self._row_scope(scope), term), "row__term")
        if value == ZERO:
            return ZERO
        for known, found in self.sums.items():
            if found == (function, value):
                return name(known)
        label = f"sum__{len(self.sums)}"
        self.sums[label] = function, value
        return name(label)

    def _row_scope(self, scope: Scope) -> Scope:
        """Return the scope of a row of operators under a stage's totals, or under the serving answer."""
        stage, _, tail = scope.label.partition("__")
        if tail == "total":
            return self._stage_rows(stage)
        if "generation" not in self._row_scopes:
            every = {s: self._stage_rows(s) for s in self.sheet.stages}
            cells: dict[str, Definition] = {
                f"{s}_{c}": Alias(rows, c)
                for s, rows in every.items()
                for c in ("count", *self.sheet.roofline, *self.sheet.stage_scope(s).cells)
            }
            part = self.sheet.parts[0]
            own = self.sheet.generation_scope(part, self.sheet.operators(part.block)[0])
            cells |= {c: d for c, d in own.cells.items() if c not in cells and not isinstance(d, Alias)}
            self._row_scopes["generation"] = Scope("row__generation", cells, every["decode"])
        return self._row_scopes["generation"]

    def _stage_rows(self, stage: str) -> Scope:
        if stage not in self._row_scopes:
            sheet = self.sheet
            fields: dict[str, Definition] = {f: name(f"row__{f}") for f in FIXED}
            fields |= {f: name(f"row__{stage}__{f}") for f in (*GATED, *sheet.stage_scope(stage).cells)}
            fields |= self.absent([stage])
            shared = Shared({*SPANS, *sheet.stage_scope(stage).cells}, lambda c: self._alike(stage, c))
            cells = {**fields, **sheet.roofline}
            self._row_scopes[stage] = RowScope(f"row__{stage}", cells, sheet.scenario_scope(), shared)
        return self._row_scopes[stage]

    def _alike(self, stage: str, cell: str) -> Node | None:
        """Return what a cell of a stage is where it is the same for every part, however far that looks back."""
        found = {self.lower(self.sheet.stage_scope(stage, part), cell) for part in self.parts()}
        return found.pop() if len(found) == 1 else None

    def _fields(self) -> dict[str, tuple[str, str]]:
        """Return every field that a row of operators may have: its name → stage and name in the operator's scope."""
        found = {f"row__{f}": ("prefill", f) for f in FIXED}
        for stage in self.sheet.stages:
            found |= {f"row__{stage}__{f}": (stage, f) for f in (*GATED, *self.sheet.stage_scope(stage).cells)}
        return found

    def _split(self, columns: list[Column]) -> tuple[list[Column], list[Column]]:
        """Return the columns that are computed on rows of operators, and those that are computed on sums of them."""
        on_rows, on_sums = set(self._fields()), set(self.sums)
        late: list[Column] = []
        after: list[Column] = []
        for column in columns:
            read = names(column.node)
            if read & on_rows:
                on_rows.add(column.id)
                late.append(column)
            elif read & on_sums:
                on_sums.add(column.id)
                after.append(column)
        return late, after

    def _addend_rows(self, fields: dict[str, tuple[str, str]]) -> list[ResultRow]:
        rows: list[ResultRow] = []
        idle: list[ResultRow] = []
        stages = {stage for stage, _ in fields.values()}
        for part in self.parts():
            for operator in self.sheet.operators(part.block):
                scopes = {s: self.sheet.operator_scope(s, part, operator) for s in stages}
                gates = [self.lower(s, "applies") for s in scopes.values()]
                if all(g == FALSE for g in gates):
                    continue
                if all(g == gates[0] for g in gates):
                    # rows that do not apply are left out: their fields need no condition of their own
                    scopes = {s: scope.ungated() for s, scope in scopes.items()}
                values = {f: self._field(scopes[s], c) for f, (s, c) in fields.items()}
                adds = any(v != ZERO for f, v in values.items() if fields[f][1] in (*QUANTITIES, LIVE))
                (rows if adds else idle).append(ResultRow(self._any(gates), values))
        # an empty sum is 0, not unknown: where nothing adds up, a row that adds nothing stays
        return rows or idle[:1]

    def _field(self, scope: Scope, wanted: str) -> Node:
        """Return a field of an operator's row; what never runs has weights and nothing else."""
        if wanted in (*QUANTITIES, LIVE) and wanted not in HELD and self.lower(scope, "count") == ZERO:
            return ZERO
        return self.lower(scope, wanted)

    def _any(self, gates: list[Node]) -> Node:
        gate = gates[0]
        for other in gates[1:]:
            gate = gate if other == gate else self.column(Node("call", "OR", (gate, other)), "row_exists")
        return gate
