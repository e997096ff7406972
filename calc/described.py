"""What files say of themselves: columns with their units, the formulas and facts behind them, the version.

Frictionless' terms (``datapackage.json``, a resource beside a CSV), and key-value metadata in Parquet.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import polars as pl

from calc.program import GRAINS
from calc.tables import Tables

TYPES = {"number": "number", "boolean": "boolean", "text": "string"}
RESULTS = (*(result for result, _ in GRAINS.values()), "scenarios", "models", "hardware")
"""Tables of the dictionary, those first that say what a column means where several have it."""
TABLE_PROFILE = "tabular-data-resource"


def hash_of(value: object) -> str:
    """Return a hash of what JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def digest(frame: pl.DataFrame) -> str:
    """Return a hash of a frame's names and values."""
    return hashlib.sha256(frame.write_csv().encode()).hexdigest()


def resource(tables: Tables, frame: pl.DataFrame, file: Path, sheet: str = "exact") -> dict[str, Any]:
    """Return the description of a CSV that holds a frame: a Frictionless resource."""
    fields = [_named(tables, c, str(frame.schema[c])) for c in frame.columns]
    return {
        "name": _slug(file.stem), "path": file.name, "profile": TABLE_PROFILE, "format": "csv", "encoding": "utf-8",
        "schema": {"fields": fields, "missingValues": [""]}, "calc": origin(tables, sheet),
    }  # fmt: skip


def metadata(tables: Tables, columns: Sequence[str], sheet: str = "exact") -> dict[str, str]:
    """Return what a Parquet file says of itself: ``units``, ``labels`` and ``calc``, each as JSON."""
    known = {c: words(tables)[c] for c in columns if c in words(tables)}
    units = {c: str(rule["unit"]) for c, rule in known.items() if rule["unit"]}
    labels = {c: str(rule["label"]) for c, rule in known.items()}
    told = {"units": units, "labels": labels, "calc": origin(tables, sheet)}
    return {k: json.dumps(v, ensure_ascii=False) for k, v in told.items()}


def origin(tables: Tables, sheet: str) -> dict[str, str]:
    """Return the version, and hashes of the sheet's formulas and of all facts."""
    from calc import __version__

    return {"version": __version__, "sheet": sheet, **_hashes(tables, sheet)}


@lru_cache(maxsize=16)
def _hashes(tables: Tables, sheet: str) -> dict[str, str]:
    from calc.loading import load_sheet

    facts = hash_of({name: digest(frame) for name, frame in sorted(tables.frames.items())})
    return {"sheet_sha256": hash_of(load_sheet(tables, sheet).rows), "facts_sha256": facts}


@lru_cache(maxsize=16)
def words(tables: Tables) -> dict[str, dict[str, object]]:
    """Return the dictionary's row of each name: the same quantity and unit has the same name everywhere."""
    found: dict[str, dict[str, object]] = {}
    every = [*RESULTS, *(str(t) for t in tables.dictionary["table_name"].unique(maintain_order=True))]
    for table in dict.fromkeys(every):
        for rule in tables.columns(table):
            found.setdefault(str(rule["column_name"]), rule)
    return found


def _named(tables: Tables, column: str, dtype: str) -> dict[str, Any]:
    rule, kind = words(tables).get(column), _of_polars(dtype)
    # a user's own column may bear a name of the dictionary and hold something else
    if rule is None or TYPES[str(rule["dtype"])] != kind:
        return {"name": column, "type": kind}
    return _field(rule)


def _of_polars(dtype: str) -> str:
    kinds = (("Int", "number"), ("UInt", "number"), ("Float", "number"), ("Boolean", "boolean"), ("String", "string"))
    return next((kind for start, kind in kinds if dtype.startswith(start)), "any")


def _field(rule: dict[str, object]) -> dict[str, Any]:
    found: dict[str, Any] = {"name": rule["column_name"], "type": TYPES[str(rule["dtype"])], "title": rule["label"]}
    found |= {"description": rule["description"]} if rule["description"] else {}
    found |= {"unit": rule["unit"]} if rule["unit"] else {}
    return found


def datapackage(tables: Tables) -> dict[str, Any]:
    """Return the description of the fact tables as a Frictionless data package, with keys, ranges and references."""
    from calc import __version__

    titles = {str(r["table_name"]): r for r in tables.dictionary.iter_rows(named=True)}
    return {
        "profile": "data-package", "name": "llm-inference-calculator", "version": __version__,
        "title": "Facts of large language models and of the devices that run them",
        "resources": [_table(tables, table) for table in titles if table in tables.frames],
    }  # fmt: skip


def result_schema(tables: Tables, by: str, sheet: str = "exact") -> dict[str, Any]:
    """Return the JSON Schema of answers as ``--output FILE.json`` writes them: a list of rows of one grain.

    Required is what every answer of the sheet has; a technique may add results, and columns of the reader's own come
    back. An unknown value is null. Raises CalcError for another grain or sheet.
    """
    from calc.evaluation import request

    asked = tables["models"].head(1).select("model_id").with_columns(tables["hardware"]["hardware_id"][:1])
    given = list(request(tables, asked, by, sheet).results)
    table = GRAINS[by][0]
    fields = {str(r["column_name"]): r for t in ("scenarios", table) for r in tables.columns(t)}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema", "title": f"Rows of {table}, sheet {sheet}",
        "type": "array",
        "items": {
            "type": "object", "properties": {name: _property(r) for name, r in fields.items()},
            "required": ["model_id", "hardware_id", *given],
        },
    }  # fmt: skip


def _property(rule: dict[str, object]) -> dict[str, Any]:
    told = {k: v for k, v in _field(rule).items() if k != "name"}
    kind = "integer" if rule["is_integer"] else told["type"]
    limits = {k: rule[k] for k in ("minimum", "maximum") if rule[k] is not None}
    return told | limits | {"type": [kind, "null"]}


def _table(tables: Tables, table: str) -> dict[str, Any]:
    rules = [r for r in tables.columns(table) if r["is_file"]]
    keys = [str(r["column_name"]) for r in rules if r["is_key"]]
    schema: dict[str, Any] = {"fields": [_constrained(r) for r in rules], "missingValues": [""]}
    schema |= {"primaryKey": keys} if keys else {}
    references = [(str(r["column_name"]), str(r["refers_to"])) for r in rules if r["refers_to"]]
    if references:
        schema["foreignKeys"] = [
            {"fields": [column], "reference": {"resource": of.partition(".")[0], "fields": [of.partition(".")[2]]}}
            for column, of in references
        ]
    return {
        "name": table, "path": f"{table}.csv", "profile": TABLE_PROFILE, "format": "csv", "encoding": "utf-8",
        "schema": schema,
    }  # fmt: skip


def _constrained(rule: dict[str, object]) -> dict[str, Any]:
    limits = {k: rule[k] for k in ("minimum", "maximum") if rule[k] is not None}
    limits |= {"required": True} if rule["is_required"] else {}
    return _field(rule) | ({"constraints": limits} if limits else {})


def _slug(text: str) -> str:
    return "".join(c if c.isalnum() and c.isascii() else "-" for c in text.lower()).strip("-") or "answers"
