"""Shapes of models: which operators a model has, decided once from its facts.

A sheet holds the operators of every architecture. What a model does not have must cost nothing: models whose facts
decide every condition alike share a program, in which the other operators do not occur.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import polars as pl

from calc.alternatives import NTH_STACK
from calc.expressions import expressions
from calc.formula import FALSE, Node, is_literal, literal
from calc.inputs import companion_prefix, fact_columns
from calc.program import Axis, Compiler, by_level, levelled
from calc.questions import SETUP, Bound, Questions, model_parameters
from calc.sheet import Sheet
from calc.tables import Tables


@lru_cache(maxsize=16)
def input_axes(tables: Tables) -> Mapping[str, Axis]:
    """Return what each input depends on, for the compiler; an input that is not listed belongs to the question."""
    axes = {n: Axis.DEVICE for n, _ in fact_columns(tables, "hardware")}
    axes |= {n: Axis.MODEL for n, _ in fact_columns(tables, "models")}
    for prefix in map(companion_prefix, model_parameters(tables)):
        for table in ("models", "serving"):
            axes |= {f"{prefix}{c['column_name']}": Axis.DEVICE | Axis.QUESTION for c in tables.columns(table)}
    axes[NTH_STACK] = Axis.STACK
    return axes | dict.fromkeys([*(n for n, _ in fact_columns(tables, "formats")), *SETUP], Axis.SETUP)


Place = tuple[str, str]
"""Where a condition stands: the label of its scope, and its name."""
Condition = tuple[Place, Node]
Places = dict[Node, list[Place]]


@dataclass(frozen=True, eq=False)
class Shape:
    """What the facts of some models decide: (label of a scope, condition) → TRUE or FALSE."""

    decided: Mapping[tuple[str, str], Node]


def shaped(
    tables: Tables, sheet: Sheet, bound: Bound, stages: tuple[str, ...], questions: Questions
) -> list[tuple[Shape, Questions]]:
    """Return questions in groups whose models have the same operators in some stages."""
    asked = questions.configurations["model_id"].unique()
    by_model = model_shapes(tables, sheet, bound, stages)
    groups: dict[Shape, list[str]] = {}
    for model in asked.to_list():
        groups.setdefault(by_model[model], []).append(model)
    if len(groups) == 1:
        return [(shape, questions) for shape in groups]
    whole = questions.configurations
    return [
        (shape, replace(questions, configurations=whole.filter(pl.col("model_id").is_in(models))))
        for shape, models in groups.items()
    ]


@lru_cache(maxsize=64)
def shared(shapes: frozenset[Shape]) -> Shape:
    """Return what several shapes decide alike: a program of that answers the models of all."""
    first, *others = (shape.decided for shape in shapes)
    return Shape({place: node for place, node in first.items() if all(o.get(place) == node for o in others)})


@lru_cache(maxsize=256)
def model_shapes(tables: Tables, sheet: Sheet, bound: Bound, stages: tuple[str, ...]) -> Shapes:
    """Return the shapes of models under one sheet, in questions that all say the same."""
    return Shapes(tables, sheet, bound, stages)


class Shapes:
    """The shape of each model, found when it is asked for: first which parts it has, then which operators of those."""

    def __init__(self, tables: Tables, sheet: Sheet, bound: Bound, stages: tuple[str, ...]) -> None:
        self.sheet, self.stages = sheet, stages
        self.models = tables["models"].join(pl.DataFrame({NTH_STACK: range(sheet.n_alternatives)}), how="cross")
        self._axes, self._bound = input_axes(tables), {n: literal(v) for n, v in bound}
        self._found: dict[str, Shape] = {}
        self._by_parts: dict[tuple[object, ...], list[str]] = {}
        self._parts: dict[str, tuple[object, ...]] = {}
        compiler = Compiler(sheet, self._axes, self._bound)
        self._part_places, known = self._sorted(compiler, self._part_conditions(compiler))
        self._known = known
        answers = _answers(self.models, compiler, list(self._part_places))
        for model, row in answers.items():
            self._parts[model] = row
            self._by_parts.setdefault(row, []).append(model)

    def __getitem__(self, model: str) -> Shape:
        """Return the shape of a model."""
        if model not in self._found:
            self._find(self._parts[model])
        return self._found[model]

    def _find(self, parts: tuple[object, ...]) -> None:
        """Decide the operators of every model that has the same parts."""
        decided = self._known | _decisions(parts, self._part_places)
        compiler = Compiler(self.sheet, self._axes, self._bound, decided)
        places, known = self._sorted(compiler, self._operator_conditions(compiler))
        names = self._by_parts[parts]
        models = self.models.filter(pl.col("model_id").is_in(names))
        shapes: dict[tuple[object, ...], Shape] = {}
        for model, row in _answers(models, compiler, list(places)).items():
            if row not in shapes:
                shapes[row] = Shape(decided | known | _decisions(row, places))
            self._found[model] = shapes[row]

    def _sorted(self, compiler: Compiler, conditions: Iterator[Condition]) -> tuple[Places, dict[Place, Node]]:
        """Return the conditions that facts of models decide, with their places, and those that are decided already."""
        places: Places = {}
        known: dict[Place, Node] = {}
        for place, node in conditions:
            if is_literal(node):
                known[place] = node
            elif compiler.axes_of(node) in Axis.MODEL | Axis.STACK:
                places.setdefault(node, []).append(place)
        return places, known

    def _part_conditions(self, compiler: Compiler) -> Iterator[Condition]:
        for stage in self.stages:
            for part in self.sheet.parts:
                scope = self.sheet.part_scope(stage, part)
                yield (scope.label, "part_applies"), compiler.lower(scope, "part_applies")
                if scope.find("stage_applies") is not None:
                    yield (stage, "stage_applies"), compiler.lower(scope, "stage_applies")

    def _operator_conditions(self, compiler: Compiler) -> Iterator[Condition]:
        for stage in self.stages:
            for part in self.sheet.parts:
                if compiler.lower(self.sheet.part_scope(stage, part), "part_applies") == FALSE:
                    continue
                for operator in self.sheet.operators(part.block):
                    scope = self.sheet.operator_scope(stage, part, operator)
                    for condition in ("applies", "runs"):
                        if scope.find(condition) is not None:
                            yield (scope.label, condition), compiler.lower(scope, condition)


def _decisions(row: tuple[object, ...], places: Places) -> dict[Place, Node]:
    decided = zip(row, places.values(), strict=True)
    return {place: literal(bool(v)) for v, places in decided if v is not None for place in places}


def _answers(models: pl.DataFrame, compiler: Compiler, nodes: list[Node]) -> dict[str, tuple[object, ...]]:
    """Return each model's truth of every condition; None where stacks of techniques differ in it."""
    if not nodes:
        return dict.fromkeys(models["model_id"], ())
    wanted = {str(n.value) for n in nodes}
    frame = models.lazy()
    for level in by_level(levelled(compiler.needed(wanted), wanted)):
        frame = frame.with_columns(expressions(level))
    # what is unknown does not apply, as in every CASE
    truths = [pl.col(str(n.value)).fill_null(False).alias(f"{i}") for i, n in enumerate(nodes)]
    found = frame.select("model_id", *truths)
    if models.height > models["model_id"].n_unique():
        same = [pl.when(pl.col(c).n_unique() == 1).then(pl.col(c).first()) for c in map(str, range(len(nodes)))]
        found = found.group_by("model_id", maintain_order=True).agg(same)
    return {row[0]: row[1:] for row in found.collect().iter_rows()}
