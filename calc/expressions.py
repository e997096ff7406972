"""Lowered formulas as Polars expressions."""

from __future__ import annotations

from functools import lru_cache

import polars as pl

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
