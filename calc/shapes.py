"""Shapes of models: which operators a model has, decided once from its facts.

A sheet holds the operators of every architecture. What a model does not have must cost nothing: models whose facts
decide every condition alike share a program, in which the other operators do not occur.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import polars as pl

from calc.expressions import expressions
from calc.formula import Node, is_literal, literal
from calc.program import CONDITIONS, Axis, Compiler, by_level, levelled
from calc.questions import FORMATS, Questions
from calc.sheet import Sheet, fact_columns
from calc.tables import Tables


def input_axes(tables: Tables) -> dict[str, Axis]:
    """Return what each input depends on, for the compiler; an input that is not listed belongs to the question."""
    axes = {n: Axis.DEVICE for n, _ in fact_columns(tables, "hardware")}
    axes |= {n: Axis.MODEL for n, _ in fact_columns(tables, "models")}
    return axes | dict.fromkeys([*(n for n, _ in fact_columns(tables, "formats")), *FORMATS], Axis.FORMATS)


@dataclass(frozen=True, eq=False)
class Shape:
    """What the facts of some models decide: (label of a scope, condition) → TRUE or FALSE."""

    decided: Mapping[tuple[str, str], Node]


def shaped(tables: Tables, sheet: Sheet, attention: str, questions: Questions) -> list[tuple[Shape, Questions]]:
    """Return questions in groups whose models have the same operators."""
    asked = questions.configurations["model_id"].unique()
    by_model = model_shapes(tables, sheet, attention)
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
def model_shapes(tables: Tables, sheet: Sheet, attention: str) -> dict[str, Shape]:
    """Return the shape of every model."""
    compiler = Compiler(sheet, input_axes(tables), {"attention": literal(attention)})
    places: dict[Node, list[tuple[str, str]]] = {}
    known: dict[tuple[str, str], Node] = {}
    for label, condition, node in _conditions(compiler):
        if is_literal(node):
            known[(label, condition)] = node
        elif compiler.axes_of(node) in Axis.MODEL:
            places.setdefault(node, []).append((label, condition))
    models = tables["models"]
    answers = _answers(models, compiler, list(places))
    shapes: dict[tuple[object, ...], Shape] = {}
    for row in set(answers):
        # what is unknown does not apply, as in every CASE
        found = {place: literal(bool(v)) for v, p in zip(row, places.values(), strict=True) for place in p}
        shapes[row] = Shape(known | found)
    return {model: shapes[row] for model, row in zip(models["model_id"].to_list(), answers, strict=True)}


def _conditions(compiler: Compiler) -> Iterator[tuple[str, str, Node]]:
    sheet = compiler.sheet
    for stage in sheet.stages:
        for part in sheet.parts:
            for operator in sheet.operators(part.block):
                scope = sheet.operator_scope(stage, part, operator)
                for condition in CONDITIONS:
                    label = stage if condition == "stage_applies" else scope.label
                    if scope.find(condition) is not None:
                        yield label, condition, compiler.lower(scope, condition)


def _answers(models: pl.DataFrame, compiler: Compiler, nodes: list[Node]) -> list[tuple[object, ...]]:
    """Return each model's truth of every condition."""
    if not nodes:
        return [()] * models.height
    wanted = {str(n.value) for n in nodes}
    frame = models.lazy()
    for level in by_level(levelled(compiler.needed(wanted), wanted)):
        frame = frame.with_columns(expressions(level))
    return frame.select(sorted(wanted)).select(str(n.value) for n in nodes).collect().rows()
