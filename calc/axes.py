"""Grids of questions: remembered by their axes, or recognised in a frame's rows.

A grid asks every device the same. Knowing that, the work that does not depend on the device is done once.
"""

from __future__ import annotations

import math
from weakref import ref

import polars as pl

_GRIDS: dict[int, tuple[ref[pl.LazyFrame], list[pl.DataFrame]]] = {}
"""The axes of each grid that ``scenarios`` made and that is still alive: its rows need not be built to be answered."""


def product(axes: list[pl.DataFrame]) -> pl.LazyFrame:
    """Return the product of axes, the first varying slowest, and note that it is one."""
    frame = axes[0].lazy()
    for axis in axes[1:]:
        frame = frame.join(axis.lazy(), how="cross", maintain_order="left_right")
    _remember(frame, axes)
    return frame


def _remember(frame: pl.LazyFrame, axes: list[pl.DataFrame]) -> None:
    """Note the axes whose product a frame is, for as long as it lives."""
    key = id(frame)
    _GRIDS[key] = (ref(frame, lambda _: _GRIDS.pop(key, None)), axes)


def axes_of(frame: object) -> list[pl.DataFrame] | None:
    """Return the axes of a frame that was remembered, or None."""
    found = _GRIDS.get(id(frame))
    return found[1] if found is not None and found[0]() is frame else None


def configurations_of(axes: list[pl.DataFrame]) -> tuple[pl.DataFrame, pl.Series, int]:
    """Return a grid's configurations, its devices, and how many rows in a row ask the same device."""
    at = next(i for i, axis in enumerate(axes) if "hardware_id" in axis.columns)
    frame = pl.LazyFrame({"__one": [0]})
    for axis in axes[:at] + axes[at + 1 :]:
        frame = frame.join(axis.lazy(), how="cross", maintain_order="left_right")
    run = math.prod(axis.height for axis in axes[at + 1 :])
    return frame.drop("__one").collect(), axes[at]["hardware_id"], run


def grid_run(asked: pl.DataFrame) -> int:
    """Return how many rows in a row ask the same device, if every device is asked the same; else 0.

    A grid with the device among its axes repeats each run of rows for one device after the other, so every column
    but the device's equals itself a run earlier. Finding that is many times cheaper than looking for distinct rows.
    """
    device = asked["hardware_id"]
    run = _run_length(device)
    each = device.gather_every(run) if run else device
    period = run * each.n_unique()
    if not run or asked.height % period or each.head(period // run).n_unique() * run != period:
        return 0
    place = pl.int_range(pl.len()) % period
    same = [
        (pl.col(c).eq_missing(pl.col(c).shift(run)) | (place < run)).all() for c in asked.columns if c != "hardware_id"
    ]
    same.append(pl.col("hardware_id").eq(pl.col("hardware_id").shift(1)).or_(place % run == 0).all())
    same.append(
        pl.col("hardware_id").eq(pl.col("hardware_id").shift(period)).or_(pl.int_range(pl.len()) < period).all()
    )
    return run if all(asked.select(s.alias(str(i)) for i, s in enumerate(same)).row(0)) else 0


def _run_length(column: pl.Series) -> int:
    seen = 1
    while seen < column.len():
        changed = column.slice(0, 2 * seen) != column[0]
        if changed.any():
            return int(changed.arg_max() or 0)
        seen *= 2
    return column.len()
