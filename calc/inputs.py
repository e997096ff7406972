"""What a sheet may read that is no cell: what a question says, facts, parameters of techniques."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from calc.tables import FORMATS, Tables

TEXTS = {
    "family",
    "architecture",
    "memory_type",
    "norm_type",
    "qk_norm",
    "ssm_type",
    "linear_attention_type",
    "attention",
    *FORMATS,
}
"""Text facts that formulas may read; other text is for people."""


@dataclass(frozen=True)
class Input:
    """What a sheet may read that is no cell: its type, unit and label."""

    dtype: str
    unit: str
    label: str


@lru_cache(maxsize=256)
def inputs_of(tables: Tables, techniques: tuple[str, ...] = ()) -> dict[str, Input]:
    """Return what a sheet may read: scenario columns, facts of model, device and formats, parameters of techniques.

    A parameter that names a model, such as ``draft_model_id``, brings that model's facts and its own answer to the
    question: ``draft_vocab``, ``draft_tpot_s``.
    """
    found: dict[str, Input] = {}
    for table in ("scenarios", "models", "hardware", "formats"):
        about = {str(c["column_name"]): c for c in tables.columns(table)}
        found |= {n: _input(about[c]) for n, c in fact_columns(tables, table)}
    for row in tables["parameters"].iter_rows(named=True):
        if row["technique_id"] not in techniques:
            continue
        if row["default_model_id"] is None:
            found[row["parameter"]] = Input("number", row["unit"] or "", row["label"])
            continue
        found[row["parameter"]] = Input("text", "", row["label"])
        prefix = companion_prefix(row["parameter"])
        for table in ("models", "serving"):
            found |= {f"{prefix}{c['column_name']}": _input(c) for c in tables.columns(table)}
    return found


def _input(entry: Mapping[str, object]) -> Input:
    return Input(str(entry["dtype"]), str(entry["unit"] or ""), str(entry["label"]))


def companion_prefix(parameter: str) -> str:
    """Return what stands before the names of a further model's facts and figures: ``draft_`` of ``draft_model_id``."""
    return parameter.removesuffix("model_id")


def fact_columns(tables: Tables, table: str) -> list[tuple[str, str]]:
    """Return (name in the sheets, column of the table) for every fact that sheets may read from a table.

    Keys, labels, notes and sources are for readers, not for formulas. A format's facts bear the role's name:
    ``weight_bits``, ``expert_bits``, ``activation_bits``, ``kv_bits``.
    """
    columns = [
        str(c["column_name"]) for c in tables.columns(table) if c["dtype"] != "text" or c["column_name"] in TEXTS
    ]
    if table == "formats":
        return [(f"{role.removesuffix('_format')}_{c}", c) for role in FORMATS for c in columns]
    return [(c, c) for c in columns]
