"""Checking a grid: its files against its manifest, and a sample of its rows against the formulas."""

from __future__ import annotations

import os

import polars as pl

from calc.errors import CalcError
from calc.evaluation import evaluate
from calc.grid.dataset import Dataset, row_hash
from calc.grid.views import GridViews
from calc.tables import DTYPES, Tables

SAMPLE = 2000
"""Rows that are asked again."""
TOLERANCE = 1e-12


def check(tables: Tables, folder: str | os.PathLike[str]) -> str:
    """Return what was checked, as a sentence; raises CalcError that names every part and column that is wrong."""
    views = GridViews(tables, folder)
    dataset = views.dataset
    wrong = [w for part in dataset.parts.values() if (w := _wrong(dataset, part.path))]
    if wrong:
        raise CalcError("\n".join([*wrong, "build the grid again: only these parts are computed"]))
    sampled = _ask_again(tables, views)
    rows = sum(p.rows for p in dataset.parts.values())
    rest = f"; {dataset.missing()}" if dataset.missing() else ""
    return (
        f"{folder}: {len(dataset.parts):,} parts with {rows:,} rows are whole, {sampled:,} rows asked again agree{rest}"
    )


def _wrong(dataset: Dataset, path: str) -> str | None:
    part = dataset.parts[path]
    if not (dataset.folder / path).is_file():
        return f"{path}: is missing"
    if not dataset.is_whole(part):
        return f"{path}: is not what was written: it is truncated or changed"
    frame = pl.read_parquet(dataset.folder / path, hive_partitioning=False)
    if frame.height != part.rows or row_hash(frame) != part.row_hash:
        return f"{path}: its rows are not those of the manifest"
    return None


def _ask_again(tables: Tables, views: GridViews) -> int:
    """Evaluate some rows of every part by themselves, without what a grid has in common, and compare."""
    dataset, each = views.dataset, max(SAMPLE // len(views.dataset.parts), 1)
    found = []
    for path in dataset.parts:
        mine = pl.scan_parquet(dataset.folder / path, hive_partitioning=False)
        height = dataset.parts[path].rows
        if height:
            places = pl.int_range(height, eager=True).sample(min(each, height), seed=0, shuffle=True)
            rows = mine.select(pl.all().gather(places)).collect()
            model = views.model_of(path)
            found.append(rows.insert_column(0, pl.Series("model_id", [model] * rows.height)))
    if not found:
        return 0
    sample = pl.concat([f.with_columns(pl.col(pl.Enum).cast(pl.String)) for f in found], how="diagonal_relaxed")
    stored = [c for c in views.stored if c in sample.columns]
    keys = [c for c in views.labels if c in sample.columns]
    asked = sample.select(views.asked).unique(maintain_order=True)
    answers = evaluate(tables, asked, views.spec.by, views.spec.sheet).select(*views.asked, *stored).collect()
    told = [*views.asked, *keys]
    both = sample.join(answers, on=told, how="left", nulls_equal=True, suffix="__again", maintain_order="left")
    for column in (c for c in stored if c not in keys):
        again = pl.col(f"{column}__again")
        if sample[column].dtype == DTYPES["number"]:
            differs = (pl.col(column) - again).abs() > TOLERANCE * again.abs()
            differs = differs.fill_null(value=False) | (pl.col(column).is_null() != again.is_null())
        else:
            differs = pl.col(column).ne_missing(again)
        bad = both.filter(differs)
        if bad.height:
            row = bad.row(0, named=True)
            where = ", ".join(f"{k} = {row[k]}" for k in views.asked)
            raise CalcError(f"{column} is {row[column]}, asked again {row[f'{column}__again']}, for {where}")
    return sample.height
