"""The precision that a configuration's ``quantization_config`` stands for."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from calc.errors import CalcError
from calc.tables import Tables

BITS = {"fp8": 8, "fbgemm_fp8": 8, "mxfp4": 4, "bitnet": 2}
"""Bits of methods that do not say them."""


def precision_of(tables: Tables, config: Mapping[str, object]) -> tuple[str | None, str | None]:
    """Return the precision of a quantized checkpoint, and a warning where it has none here; (None, None) unquantized.

    Raises CalcError where ``quantization_config`` is no object.
    """
    given = config.get("quantization_config")
    if given is None:
        return None, None
    if not isinstance(given, Mapping):
        raise CalcError(f"quantization_config: must be an object, is {type(given).__name__}")
    method = str(given.get("quant_method") or ("bitsandbytes" if "load_in_4bit" in given else "")).lower()
    bits = _bits(method, given)
    known = tables["config_quantizations"].filter((pl.col("quant_method") == method) & (pl.col("bits") == bits))
    if known.is_empty():
        named = f"{method or 'an unnamed method'}{f' at {bits:g} bits' if bits else ''}"
        return None, f"quantization_config: {named} is not known here; choose a precision yourself"
    return str(known["precision_id"][0]), None


def _bits(method: str, given: Mapping[str, object]) -> float | None:
    if given.get("load_in_4bit") is True:
        return 4
    if given.get("load_in_8bit") is True:
        return 8
    groups = given.get("config_groups")
    if isinstance(groups, Mapping):
        for group in groups.values():
            weights = group.get("weights") if isinstance(group, Mapping) else None
            bits = weights.get("num_bits") if isinstance(weights, Mapping) else None
            if isinstance(bits, int | float):
                return float(bits)
    for key in ("bits", "num_bits", "w_bit", "nbits"):
        bits = given.get(key)
        if isinstance(bits, int | float) and not isinstance(bits, bool):
            return float(bits)
    return BITS.get(method)
