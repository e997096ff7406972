"""Further models that a question names: a student that answers in its place, a draft whose own answer it rests on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import polars as pl

from calc.formula import Node, is_literal
from calc.inputs import companion_prefix
from calc.questions import CONFIGURATION, ROW, Questions, model_parameters, stack_of
from calc.sheet import Sheet
from calc.tables import DTYPES, Tables

Answered = Callable[[Questions, tuple[str, ...], str], pl.DataFrame]
"""Gives serving figures of questions for a further model that a technique asks, a row each in their order."""


def substituted(questions: Questions, sheets: Mapping[tuple[str, ...], Sheet]) -> Questions:
    """Return questions with the models and formats that their techniques put in the place of those asked for."""
    asked = questions.configurations
    for text in asked["technique"].unique().to_list():
        for column, node in sheets[stack_of(text)].replaced.items():
            its = pl.col("technique").eq_missing(pl.lit(text, pl.String))
            asked = asked.with_columns(pl.when(its).then(_named(node)).otherwise(column).alias(column))
    return replace(questions, configurations=asked)


def _named(node: Node) -> pl.Expr:
    return pl.lit(node.value, pl.String) if is_literal(node) else pl.col(str(node.value))


def accompanied(tables: Tables, questions: Questions, inputs: Iterable[str], answered: Answered) -> Questions:
    """Return questions with the inputs that are facts or figures of a further model, a column each.

    ``draft_tpot_s`` is what the model that ``draft_model_id`` names takes for the same question. Of the other
    techniques it sees what they change of the question and of the device.
    """
    wanted = set(inputs)
    frame: pl.DataFrame | None = None
    figures, facts = (
        {str(c["column_name"]): str(c["dtype"]) for c in tables.columns(t)} for t in ("serving", "models")
    )
    owners = dict(tables["parameters"].select("parameter", "technique_id").iter_rows())
    for parameter in model_parameters(tables):
        prefix = companion_prefix(parameter)
        mine = {n.removeprefix(prefix) for n in wanted if n.startswith(prefix)}
        told, known = tuple(c for c in figures if c in mine), [c for c in facts if c in mine - figures.keys()]
        if not told and not known:
            continue
        its = questions.configurations.with_columns(model_id=parameter)
        frame = questions.pairs().sort(ROW).collect() if frame is None else frame
        of_model = its.join(tables["models"], on="model_id").select(CONFIGURATION, *known)
        found = frame.select(CONFIGURATION).join(of_model, on=CONFIGURATION, maintain_order="left")
        columns = [found[c].alias(f"{prefix}{c}") for c in known]
        if told:
            own = answered(replace(questions, configurations=its), told, owners[parameter])
            columns += [own[c].cast(DTYPES[figures[c]]).alias(f"{prefix}{c}") for c in own.columns]
        frame = frame.with_columns(columns)
    return questions if frame is None else replace(questions, devices=[], places=frame)
