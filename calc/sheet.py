"""A sheet: the cells of one folder of ``data/sheets``, with the patches of a stack of techniques applied."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache, cached_property

from calc.errors import SheetError, closest
from calc.formula import Node, literal, name, names, number, parse
from calc.inputs import Input
from calc.patches import GIVEN, INPUTS, KEYS, Row
from calc.scopes import Alias, Aliases, Cell, Definition, Neighbours, Operator, Part, Scope, live_formulas
from calc.tables import FORMATS

AXES = (
    "instances", "rows", "inner", "cols", "pairs", "vector", "operands", "bias", "extra", "read", "held", "ranks",
    "input_on_chip", "output_on_chip",
)  # fmt: skip
QUANTITIES = (
    "matrix_ops", "vector_ops", "weight_elements", "bias_elements", "weight_read_elements", "bias_read_elements",
    "activation_read_elements", "activation_write_elements", "cache_read_elements", "cache_write_elements",
    "cache_elements", "cache_token_elements", "exchange_elements", "exchange_ranks", "host_elements", "host_ops",
    "launches",
)  # fmt: skip
FUSED = {
    "activation_read_elements": "(1 - input_on_chip)",
    "activation_write_elements": "(1 - output_on_chip)",
    "launches": "IF(input_on_chip > 0, 0, 1)",
}
"""What is left of a quantity where a share of the operator's input or output never leaves the chip."""
LIVE = "live_elements"
"""Elements of the activations that are in memory while an operator runs: by the graph that ``inputs`` gives."""
SPANS = ("window_tokens", "chunk_tokens", "cache_tokens")
"""How far a part looks back and how much its cache holds: the cells of a stage read them, so that each has its own."""
REPLACED = ("model_id", *FORMATS)
"""What a technique may name otherwise: the facts of another model or format then take the place of those asked for."""
OWN = ("count", "stored", "operator", "part", "tower", "place", "class", "applies", "runs")
"""What an operator says of itself over a whole answer, as of each stage."""
AXIS_UNITS = dict.fromkeys(AXES, "") | {"vector": "op"}
QUANTITY_UNITS = dict.fromkeys(QUANTITIES, "") | dict.fromkeys(("matrix_ops", "vector_ops", "host_ops"), "op")


class Sheet:
    """The cells of one sheet in one data folder, with techniques applied, and the scopes they live in."""

    def __init__(self, title: str, rows: dict[str, list[Row]], inputs: Mapping[str, Input]) -> None:
        self.name, self.rows, self.inputs = title, rows, inputs
        self.replaced = {r["cell"]: parse(r["formula"]) for r in rows[INPUTS] if r["cell"] in REPLACED}
        """What a question names that a technique names otherwise: its column → a literal or the name of a parameter."""
        self.compiled_as = self
        """The sheet that has the same cells: one program answers for both."""
        self.shaped_as = self
        """The sheet in which each model has the same operators."""
        self.n_alternatives = 1
        """How many stacks of techniques it has the cells of: then NTH_STACK says which of them is asked."""
        self._groups: dict[str, dict[str, list[Row]]] = {}
        self.constants = {r["name"]: r for r in rows["constants"]}
        self.parts = [Part(r["part"], r["block"], r["label"]) for r in rows["parts"]]
        self._rows = {f: {tuple(r[k] for k in KEYS[f]): r for r in rows[f]} for f in ("parts", "operators", "kinds")}
        self.stages = list(dict.fromkeys(r["stage"] for r in rows["stages"] if r["stage"] != "*"))
        self.totals = self._cells("totals")
        self.serving = self._cells("serving")
        self.roofline = self._cells("roofline")
        self._operators: dict[str, list[Operator]] = {}
        for row in rows["operators"]:
            found = Operator(row["operator"], row["block"], row["kind"], row["label"], row["inputs"])
            self._operators.setdefault(row["block"], []).append(found)
        self._root = self._scenario_scope()
        self._stage_scopes: dict[tuple[str, tuple[str, ...]], Scope] = {}
        self._part_scopes: dict[tuple[str, str], Scope] = {}
        self._parts_cells: dict[str, dict[str, Definition]] = {}
        self._operator_scopes: dict[tuple[str, str, str], Scope] = {}
        self._shapes: dict[tuple[str, str], dict[str, Definition]] = {}
        self._neighbour_scopes: dict[tuple[str, str], Scope] = {}
        self._live: dict[str, dict[str, str]] = {}
        self._totals_scopes: dict[str, Scope] = {}
        self._generation_scopes: dict[tuple[str, str], Scope] = {}
        self._serving_scope: Scope | None = None

    def path(self, file: str) -> str:
        """Return the name of one of this sheet's files as messages give it."""
        return f"sheets/{self.name}/{file}.csv"

    def operators(self, block: str) -> list[Operator]:
        """Return the operators of a block, in order."""
        return self._operators.get(block, [])

    def _cells(self, file: str, **where: str) -> dict[str, Cell]:
        rows = self.rows[file]
        if where:
            ((column, value),) = where.items()
            if file not in self._groups:
                self._groups[file] = {}
                for row in rows:
                    self._groups[file].setdefault(row[column], []).append(row)
            rows = self._groups[file].get(value, [])
        return {r["cell"]: self._cell(file, r, "formula", r["cell"]) for r in rows}

    def _cell(self, file: str, row: Row, column: str, cell: str, unit: str | None = None) -> Cell:
        key = ".".join(row[k] for k in KEYS[file])
        if column not in ("formula", "value"):
            key = f"{key}.{column}"
        unit = row.get("unit", "") if unit is None else unit
        label = row.get("label", "")
        if column not in ("formula", "value"):
            label = f"{column.replace('_', ' ').capitalize()} of “{label}”"
        return Cell(self.path(file), key, cell, row[column] or "0", unit, label, row["note"], row["source_id"])

    def _scenario_scope(self) -> Scope:
        constants: dict[str, Definition] = {}
        for row in self.rows["constants"]:
            constants[row["name"]] = self._cell("constants", row, "value", row["name"])
        inputs: dict[str, Definition] = {i: name(i) for i in self.inputs}
        changed = {c.name: c for c in self._changed_inputs()}
        given: dict[str, Definition] = {f"{GIVEN}{i}": name(i) for i in self.inputs} if changed else {}
        asked = Scope("inputs", constants | inputs | given, None)
        return Scope("scenario", self._cells("scenario"), Scope("changed", changed, asked) if changed else asked)

    def _changed_inputs(self) -> Iterable[Cell]:
        for row in self.rows[INPUTS]:
            if row["cell"] in REPLACED:
                continue
            if row["cell"] not in self.inputs:
                raise SheetError(
                    "patches.csv", f"{INPUTS}.{row['cell']}", f"is no input{closest(row['cell'], self.inputs)}"
                )
            about = self.inputs[row["cell"]]
            yield Cell("patches.csv", f"{INPUTS}.{row['cell']}", row["cell"], row["formula"], about.unit, about.label)

    def scenario_scope(self) -> Scope:
        """Return the scope of one question: inputs, facts, constants and the cells derived from them."""
        return self._root

    def stage_scope(self, stage: str, part: Part | None = None) -> Scope:
        """Return the scope of one stage: the question's names, how far a part looks back, and the stage's cells."""
        row = self._rows["parts"][(part.name,)] if part else {}
        key = (stage, tuple(row.get(s, "") for s in SPANS))
        if key not in self._stage_scopes:
            own: dict[str, Definition] = {**self._cells("stages", stage="*"), **self._cells("stages", stage=stage)}
            spans = {s: self._cell("parts", row, s, s, "") for s in SPANS if row}
            parent = Scope(f"{stage}__span", spans, self._root) if spans else self._root
            self._stage_scopes[key] = Scope(stage, own | {"stage": literal(stage)}, parent)
        return self._stage_scopes[key]

    def part_scope(self, stage: str, part: Part) -> Scope:
        """Return the scope of a part in a stage: its block's cells, overridden by the part's own bindings."""
        key = (stage, part.name)
        if key not in self._part_scopes:
            cells = self._part_cells(part)
            self._part_scopes[key] = Scope(f"{stage}__{part.name}", cells, self.stage_scope(stage, part))
        return self._part_scopes[key]

    def _part_cells(self, part: Part) -> dict[str, Definition]:
        """Return the cells of a part, which are the same in every stage."""
        if part.name not in self._parts_cells:
            row = self._rows["parts"][(part.name,)]
            own: dict[str, Definition] = {c: self._cell("parts", row, c, c, "") for c in ("count", "stored")}
            own["part_applies"] = self._cell("parts", row, "applies", "applies", "")
            own |= {"part": literal(part.name), "block": literal(part.block)}
            own |= {"tower": literal(row["tower"]), "place": literal(row["place"])}
            declared = self._cells("blocks", block=part.block)
            for bound in (r for r in self.rows["bindings"] if r["part"] == part.name):
                if bound["cell"] not in declared:
                    raise SheetError(
                        self.path("bindings"),
                        f"{part.name}.{bound['cell']}",
                        f"block {part.block!r} declares no such cell{closest(bound['cell'], declared)}",
                    )
                base = declared[bound["cell"]]
                declared[bound["cell"]] = self._cell("bindings", bound, "formula", base.name, base.unit)
            self._parts_cells[part.name] = own | declared
        return self._parts_cells[part.name]

    def operator_scope(self, stage: str, part: Part, operator: Operator) -> Scope:
        """Return the scope of an operator of a part in a stage: its shape, its kind's quantities, its roofline."""
        key = (stage, part.name, operator.name)
        if key not in self._operator_scopes:
            label = f"{stage}__{part.name}__{operator.name}"
            inner = Scope(label, self._shape(operator), self._neighbours(stage, part))
            # what does not apply counts nothing: decided here once, not again in every cell that reads it
            own: dict[str, Definition] = {q: Alias(inner, q, "applies") for q in (*QUANTITIES, LIVE, "count", "stored")}
            self._operator_scopes[key] = Scope(label, own | self.roofline, inner)
        return self._operator_scopes[key]

    def _shape(self, operator: Operator) -> dict[str, Definition]:
        """Return the cells of an operator that are the same in every part and stage."""
        key = (operator.block, operator.name)
        if key not in self._shapes:
            row, kind = self._rows["operators"][key], self._rows["kinds"][(operator.kind,)]
            shape: dict[str, Definition] = {a: self._axis(row, a) for a in AXES}
            shape["operator_applies"] = self._cell("operators", row, "applies", "applies", "")
            shape["applies"] = parse("part_applies AND operator_applies")
            shape["runs"] = parse("applies AND stage_applies AND count > 0")
            shape |= {q: self._quantity(kind, row, q) for q in QUANTITIES}
            shape |= {c: literal(kind[c]) for c in ("kind", "class", "runs_on", "exchange")}
            shape |= {"operator": literal(operator.name), LIVE: self._live_cell(operator, row)}
            self._shapes[key] = shape
        return self._shapes[key]

    def shape_rows(self, operator: Operator) -> tuple[Row | None, Row | None]:
        """Return the rows that say what shape an operator has: its own and its kind's."""
        return self._rows["operators"].get((operator.block, operator.name)), self._rows["kinds"].get((operator.kind,))

    def _quantity(self, kind: Row, row: Row, quantity: str) -> Cell:
        """Return what a kind says of a quantity, less what stays on the chip between fused operators."""
        cell = self._cell("kinds", kind, quantity, quantity, QUANTITY_UNITS[quantity])
        is_fused = row["input_on_chip"] != "0" or row["output_on_chip"] != "0"
        if quantity not in FUSED or not is_fused or cell.formula == "0":
            return cell
        return replace(cell, formula=f"({cell.formula}) * {FUSED[quantity]}")

    def has_some(self, operator: Operator, quantity: str) -> bool:
        """Tell whether an operator may have something of a quantity, by its kind alone."""
        return self._rows["kinds"][(operator.kind,)][quantity] != "0"

    def _neighbours(self, stage: str, part: Part) -> Scope:
        key = (stage, part.name)
        if key not in self._neighbour_scopes:
            operators = {o.name: o for o in self.operators(part.block)}

            def scope_of(operator: str) -> Scope | None:
                found = operators.get(operator)
                return self.operator_scope(stage, part, found) if found else None

            parent = self.part_scope(stage, part)
            self._neighbour_scopes[key] = Neighbours(parent.label, parent, scope_of)
        return self._neighbour_scopes[key]

    def _live_cell(self, operator: Operator, row: Row) -> Cell:
        """Return the cell of what is in memory while an operator runs.

        A tensor lives from its producer to its last reader; the stream that comes in, to the last that reads it.
        """
        if operator.block not in self._live:
            self._live[operator.block] = live_formulas(self.operators(operator.block))
        formula = self._live[operator.block][operator.name]
        key = f"{operator.block}.{operator.name}.{LIVE}"
        label = f"Live activations of “{operator.label}”"
        return Cell(self.path("operators"), key, LIVE, formula, "", label, "By its inputs", row["source_id"])

    def _axis(self, row: Row, axis: str) -> Cell:
        """Return an axis of an operator's shape: of one device, where ``split`` spreads it over several."""
        cell = self._cell("operators", row, axis, axis, AXIS_UNITS[axis])
        ways = dict(pair.split("/") for pair in row["split"].split()).get(axis)
        return replace(cell, formula=f"({cell.formula}) / {ways}") if ways else cell

    @cache  # noqa: B019 - sheets are few and live as long as the process
    def decides(self) -> frozenset[str]:
        """Return the names that conditions rest on: those of parts, of operators and of stages."""
        cells: dict[str, list[str]] = {}
        for file in (INPUTS, "scenario", "stages", "blocks", "bindings"):
            for row in self.rows[file]:
                cells.setdefault(row["cell"], []).append(row["formula"])
        formulas = [r["applies"] for f in ("parts", "operators") for r in self.rows[f]]
        formulas += [r["count"] for r in self.rows["parts"]] + cells.get("stage_applies", [])
        seen: set[str] = set()
        left = {n for f in formulas for n in names(parse(f))}
        while left:
            seen |= left
            left = {n for c in left for f in cells.get(c, []) for n in names(parse(f))} - seen
        return frozenset(seen)

    def totals_scope(self, stage: str) -> Scope:
        """Return the scope of a stage's totals; their ``SUM(…)`` adds over the operators of that stage."""
        if stage not in self._totals_scopes:
            self._totals_scopes[stage] = Scope(f"{stage}__total", self.totals, self.stage_scope(stage))
        return self._totals_scopes[stage]

    def serving_scope(self) -> Scope:
        """Return the scope of a question's answer: its cells, and ``<stage>_<total>`` for every stage's totals."""
        if self._serving_scope is None:
            totals = {f"{s}_{t}": Alias(self.totals_scope(s), t) for s in self.stages for t in self.totals}
            self._serving_scope = Scope("serving", {**totals, **self.serving}, self._root)
        return self._serving_scope

    @cache  # noqa: B019 - sheets are few and live as long as the process
    def stages_read(self, columns: tuple[str, ...]) -> tuple[str, ...]:
        """Return the stages that columns of the serving answer rest on, by the names in their formulas."""
        cells = self._cells("generation") | self.serving
        left, seen, stages = set(columns), set[str](), {"prefill", "decode"}
        while left:
            seen |= left
            stages |= {s for s in self.stages for n in left if n.startswith(f"{s}_")}
            left = {n for c in left if c in cells for n in names(cells[c].tree())} - seen
        return tuple(s for s in self.stages if s in stages)

    @cached_property
    def _of_stages(self) -> dict[str, tuple[str, str]]:
        """Return ``<stage>_<cell>`` for what an operator has in each stage, and what it has of its own."""
        found = {f"{s}_{c}": (s, c) for s in self.stages for c in ("count", *self.roofline, *self.stage_scope(s).cells)}
        return found | {c: ("decode", c) for c in OWN}

    def generation_scope(self, part: Part, operator: Operator) -> Scope:
        """Return the scope of an operator over a whole answer: ``<stage>_<cell>`` is its cell in that stage."""
        key = (part.name, operator.name)
        if key in self._generation_scopes:
            return self._generation_scopes[key]
        inner = Aliases(
            f"generation__{part.name}__{operator.name}",
            self._cells("generation"),
            self.stage_scope("decode", part),
            self._of_stages,
            lambda stage: self.operator_scope(stage, part, operator),
        )
        self._generation_scopes[key] = inner
        return self._generation_scopes[key]


def constant_value(cell: Cell) -> Node:
    """Return a constant's node; raises SheetError where its value is no number."""
    try:
        value = float(cell.formula)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise SheetError(cell.file, cell.key, f"{cell.formula!r} is not a number")
    return number(value)
