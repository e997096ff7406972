"""Numbers as people read them: base units scaled at display, nowhere else."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
SMALL = ((1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))
SHORT = {"op": "OP", "op/s": "OP/s", "byte": "B", "byte/s": "B/s", "op/byte": "OP/B", "w": "W", "j": "J", "usd": "USD",
         "usd/hour": "USD/h", "s/op": "s/OP", "1/s": "/s"}  # fmt: skip


def quantities(values: pl.Series, unit: str = "") -> pl.Series:
    """Return values with their unit, each scaled to a readable size; unknown stays unknown."""
    import polars as pl

    return pl.Series(values.name, [None if v is None else quantity(v, unit) for v in values], dtype=pl.String)


def quantity(value: object, unit: str = "", digits: int = 4) -> str:
    """Return a value with its unit scaled to a readable size: 1.234 ms, 13.5 TOP/s, 6.74 G; unknown is —."""
    if value is None:
        return "—"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, int | float):
        return str(value)
    short = SHORT.get(unit, unit)
    number, prefix = scaled(float(value), unit)
    text = f"{number:.{digits}g}"
    if "e" in text and 1e-4 <= abs(number) < 1e6:
        text = f"{number:.0f}"
    return f"{text} {prefix}{short}".strip()


def inside(label: str) -> str:
    """Return a label as it stands inside a sentence: without capitals, but for abbreviations."""
    return re.sub(r"\b[A-Z](?=[a-z ])", lambda m: m[0].lower(), label)


LINKS = (
    (r"(https://[^\s,;]+)", r"\1"),
    (r"arXiv:(\d{4}\.\d{4,5})", r"https://arxiv.org/abs/\1"),
    (r"github:([\w.-]+/[\w.-]+)@(\w+):([\w./-]+)", r"https://github.com/\1/blob/\2/\3"),
    (r"github:([\w.-]+/[\w.-]+)@(\w+)", r"https://github.com/\1/tree/\2"),
    (r"hf:([\w.-]+/[\w.-]+)", r"https://huggingface.co/\1"),
    (r"\b([\w.-]+/[\w.-]+)@([0-9a-f]{7,40}) ([\w./-]+\.\w+)", r"https://github.com/\1/blob/\2/\3"),
    (r"\b([\w.-]+/[\w.-]+)@([0-9a-f]{7,40})", r"https://github.com/\1/tree/\2"),
)
"""How sources name their places, and the address of each."""


def link(source: str) -> str | None:
    """Return the address of the first place that a source names; None where it names none that has one."""
    for pattern, address in LINKS:
        found = re.search(pattern, source)
        if found:
            return found.expand(address)
    return None


def capacity(value: object) -> str:
    """Return a memory size as vendors count it, in binary gigabytes: 48 GiB."""
    return f"{float(str(value)) / 2**30:.4g} GiB" if value is not None else "—"


def scaled(value: float, unit: str) -> tuple[float, str]:
    """Return a value divided by the greatest decimal prefix that leaves it above one, and that prefix.

    Bare numbers below a million, and units that no one scales (bit, op/byte), are left as they are.
    """
    if unit in ("bit", "op/byte", "bit/byte", "usd/hour", "usd", "1/s") or value == 0:
        return value, ""
    size = abs(value)
    if unit == "" and size < 1e6:
        return value, ""
    for factor, prefix in PREFIXES:
        if size >= factor and unit not in ("s", "s/op"):
            return value / factor, prefix
    if (unit.startswith("s") or unit in ("j", "g")) and size < 1:
        for factor, prefix in SMALL:
            if size >= factor:
                return value / factor, prefix
        return value / 1e-12, "p"
    return value, ""
