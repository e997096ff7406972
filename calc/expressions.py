"""Lowered formulas as Polars expressions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache

import polars as pl

from calc.errors import CalcError
from calc.formula import Node, to_sql
from calc.program import Column


def expressions(level: list[Column]) -> list[pl.Expr]:
    """Return the expressions of columns that can be computed side by side."""
    return [_column(c.node, c.id) for c in level]


@lru_cache(maxsize=65536)
def _column(node: Node, label: str) -> pl.Expr:
    return expression(node).alias(label)


@lru_cache(maxsize=65536)
def expression(node: Node) -> pl.Expr:
    """Return a lowered formula as a Polars expression."""
    return pl.sql_expr(to_sql(node, lambda n: f'"{n}"'))


def value_of(formula: Node, given: Mapping[str, pl.Series], label: str) -> object:
    """Return what a formula gives for one row of values; raises CalcError that names what it was computed from."""
    frame = pl.DataFrame(given) if given else pl.DataFrame({"nothing": [None]})
    read = ", ".join(sorted(given))
    try:
        value = frame.select(expression(formula).alias("value"))["value"][0]
    except (pl.exceptions.PolarsError, TypeError) as error:
        raise CalcError(f"{label}: cannot be computed from {read}: {str(error).splitlines()[0]}") from error
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise CalcError(f"{label}: {read} give no finite number")
        return float(value)
    return value
