"""``calc measure``: what the memory and the matrix units of this machine reach, by size and format."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime

import polars as pl

from calc.machine.backends import Backend, median_s
from calc.tables import Tables

MIB = 1 << 20
READ_BYTES = (16 * MIB, 64 * MIB, 256 * MIB, 1024 * MIB)
"""Sizes that are read and copied; the rates of the larger half count, which no cache holds."""
SIDES = (512, 1024, 2048, 4096)
BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
LONGEST_S = 2.0
"""No product takes longer, for it runs many times."""
SHARE_OF_MEMORY = 8
"""No array takes more than one part in so many of the memory."""
MEASURED = "measured_"
"""Before the name of a fact: what was measured of it."""
BANDWIDTH = "memory_bandwidth_bytes_per_s"


def measured(of: Backend) -> pl.DataFrame:
    """Return what a machine reaches, a row each: ``what`` (read, copy, matrix), ``format``, ``size`` (bytes moved, or
    the side of square matrices), ``seconds``, and ``rate`` in byte/s or op/s, each the median of many runs.
    """
    rows = [*_bandwidths(of), *_products(of)]
    return pl.DataFrame(rows, schema=["what", "format", "size", "seconds", "rate"], orient="row")


def _bandwidths(of: Backend) -> Iterator[tuple[object, ...]]:
    fmt = "fp32"
    for size in READ_BYTES:
        if size * SHARE_OF_MEMORY > of.memory_bytes:
            continue
        source = of.random((size // BYTES[fmt],), fmt)
        seconds = median_s(lambda source=source: of.read(source), of)  # type: ignore[misc]
        yield "read", fmt, size, seconds, size / seconds
        target = of.random((size // BYTES[fmt],), fmt)
        seconds = median_s(lambda target=target, source=source: of.copy(target, source), of)  # type: ignore[misc]
        yield "copy", fmt, 2 * size, seconds, 2 * size / seconds


def _products(of: Backend) -> Iterator[tuple[object, ...]]:
    for fmt in of.formats:
        for side in SIDES:
            left, right = (of.random((side, side), fmt) for _ in range(2))
            seconds = median_s(lambda left=left, right=right: of.matmul(left, right), of)  # type: ignore[misc]
            yield "matrix", fmt, side, seconds, 2 * side**3 / seconds
            if 8 * seconds > LONGEST_S:
                # a format without units of its own: twice the side would take eight times as long
                break


def rates(found: pl.DataFrame) -> dict[str, float]:
    """Return the measured facts of a device: what memory gives to readers, and the best of each format's products.

    The rate of memory is the median over sizes that no cache holds.
    """
    large = found.filter(what="read").sort("size").tail(len(READ_BYTES) // 2)
    told = {f"{MEASURED}{BANDWIDTH}": float(large["rate"].median() or 0)}  # type: ignore[arg-type]
    best = found.filter(what="matrix").group_by("format").agg(pl.col("rate").max())
    return told | {f"{MEASURED}{fmt}_ops_per_s": float(rate) for fmt, rate in best.sort("format").iter_rows()}


def device_row(tables: Tables, of: Backend, facts: dict[str, float], hardware_id: str | None) -> pl.DataFrame:
    """Return the row of a device with what was measured: one of the table, or this machine as a new one.

    What no datasheet says of a new device is taken to be what was measured, and named uncertain.
    """
    known = tables["hardware"]
    now = {**facts, "measured_on": f"{datetime.now(UTC):%Y-%m-%d}"}
    if hardware_id is not None:
        return known.filter(hardware_id=hardware_id).with_columns(pl.lit(v).alias(c) for c, v in now.items())
    name = re.sub(r"[^a-z0-9]+", "_", of.device.lower()).strip("_") or "this_machine"
    peaks = {c.removeprefix(MEASURED): v for c, v in facts.items()}
    # what is slower than fp32 has no units of its own
    peaks = {c: v for c, v in peaks.items() if c == BANDWIDTH or v >= peaks["fp32_ops_per_s"]}
    peaks["vector_fp32_ops_per_s"] = peaks["fp32_ops_per_s"]
    told = {
        "hardware_id": f"my_{name}", "name": of.device, "vendor": _vendor(of.device),
        "kind": "cpu" if peaks.keys() == {BANDWIDTH, "fp32_ops_per_s", "vector_fp32_ops_per_s"} else "gpu",
        **peaks, "memory_capacity_bytes": float(of.memory_bytes), **now,
        "uncertain_columns": "|".join(sorted(peaks)), "source_id": "user",
        "note": f"Measured by python -m calc measure with {of.name}: no datasheet",
    }  # fmt: skip
    return pl.DataFrame([told])


def _vendor(device: str) -> str:
    vendors = ("AMD", "Intel", "NVIDIA", "Apple", "ARM")
    return next((v for v in vendors if v.lower() in device.lower()), "unknown")
