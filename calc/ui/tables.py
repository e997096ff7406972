"""Tables as pages show them: the dictionary's words as headers, and one scale per column, which the header names."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import polars as pl
import streamlit as st

from calc.display import SHORT, scaled
from calc.ui.answers import Word

SCALED = {"op", "byte", "s"}
"""Units that a column scales to its greatest value."""


def as_read(
    frame: pl.DataFrame, words: Mapping[str, Word], shares: Collection[str] = ()
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Return a table in the units that it is read in, and its column configuration; the first column stays in view.

    ``shares`` are columns between 0 and 1 that are drawn as bars.
    """
    columns: dict[str, Any] = {}
    for column in frame.columns:
        word = words[column]
        if column in shares:
            columns[column] = st.column_config.ProgressColumn(
                word.label, help=word.description, format="percent", min_value=0.0, max_value=1.0
            )
        elif not frame.schema[column].is_numeric():
            pinned = column == frame.columns[0]
            columns[column] = st.column_config.TextColumn(word.label, help=word.description, pinned=pinned)
        else:
            factor, unit = _scale(frame[column], word.unit)
            frame = frame.with_columns(pl.col(column) / factor)
            label = f"{word.label} ({unit})" if unit else word.label
            columns[column] = st.column_config.NumberColumn(label, help=word.description, format="%.4g")
    return frame, columns


def _scale(values: pl.Series, unit: str) -> tuple[float, str]:
    """Return what to divide a column by so that its greatest value reads well, and the unit that then holds."""
    greatest = values.abs().max()
    if unit not in SCALED or not isinstance(greatest, int | float) or not greatest:
        return 1.0, SHORT.get(unit, unit)
    number, prefix = scaled(float(greatest), unit)
    return greatest / number, prefix + SHORT.get(unit, unit)
