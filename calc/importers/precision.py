"""The precision that a configuration's ``quantization_config`` stands for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeGuard

import polars as pl

from calc.errors import CalcError
from calc.tables import Tables

DEFAULT_GROUPS = {"awq": 128.0, "gptq": 128.0}
"""Weights that share a scale where a configuration leaves it out: the classes' own defaults."""
SAID = ("number_type", "bits", "activation_bits", "group_size", "kv_bits")


def precision_of(tables: Tables, config: Mapping[str, object]) -> tuple[str | None, str | None]:
    """Return the precision of a quantized checkpoint, and a warning where it has none here; (None, None) unquantized.

    What a configuration does not say may be anything; what it says must be what the row of
    ``config_quantizations.csv`` says. Raises CalcError where ``quantization_config`` is no object.
    """
    given = config.get("quantization_config")
    if given is None:
        return None, None
    if not isinstance(given, Mapping):
        raise CalcError(f"quantization_config: must be an object, is {type(given).__name__}")
    method = str(given.get("quant_method") or ("bitsandbytes" if "load_in_4bit" in given else "")).lower()
    if method in ("torchao", "modelopt"):
        method = f"{method}/{_named_scheme(given)}"
    schemes = _schemes(method, given)
    known = tables["config_quantizations"].filter(pl.col("quant_method") == method)
    for column, value in (schemes[0] if len(schemes) == 1 else {}).items():
        if value is not None:
            known = known.filter(pl.col(column).is_null() | (pl.col(column) == pl.lit(value)))
    if len(schemes) != 1 or known["precision_id"].n_unique() != 1:
        told = " and ".join(_told(scheme) for scheme in schemes)
        named = f"{method or 'an unnamed method'}{f' with {told}' if told else ''}"
        return None, f"quantization_config: {named} is not known here; choose a precision yourself"
    return str(known["precision_id"][0]), None


def _told(scheme: Mapping[str, object]) -> str:
    said = [f"{name} {f'{v:g}' if isinstance(v, float) else v}" for name, v in scheme.items() if v is not None]
    return ", ".join(said)


def _schemes(method: str, given: Mapping[str, object]) -> list[dict[str, object]]:
    """Return what a configuration says of its weights, once per way in which groups of layers are quantized."""
    groups = given.get("config_groups")
    if method == "compressed-tensors" and isinstance(groups, Mapping):
        kv_bits = _number(_inside(given, "kv_cache_scheme"), "num_bits") or 16.0
        found: list[dict[str, object]] = []
        for group in groups.values():
            weights, activations = _inside(group, "weights"), _inside(group, "input_activations")
            scheme: dict[str, object] = {
                "number_type": _compressed_type(weights),
                "bits": _number(weights, "num_bits"),
                "activation_bits": _number(activations, "num_bits") or 16.0,
                "group_size": _number(weights, "group_size"),
                "kv_bits": kv_bits,
            }
            found += [scheme] if scheme not in found else []
        return found
    if method == "hqq":
        given = {**given, **_inside(_inside(given, "quant_config"), "weight_quant_params")}
    loaded = 4.0 if given.get("load_in_4bit") is True else 8.0 if given.get("load_in_8bit") is True else None
    bits = loaded or next((b for b in (_number(given, k) for k in ("bits", "num_bits", "w_bit", "nbits")) if b), None)
    said: dict[str, object] = {"bits": bits, "group_size": _number(given, "group_size") or DEFAULT_GROUPS.get(method)}
    if method == "bitsandbytes":
        said["number_type"] = _code_book(given) if bits == 4 else "int"
    if method == "fp8":
        block = given.get("weight_block_size")
        said["number_type"] = "block" if block else "tensor"
        said["group_size"] = math.prod(block) if _are_numbers(block) else None
    return [dict.fromkeys(SAID) | said]


def _compressed_type(weights: Mapping[str, object]) -> str | None:
    kind = weights.get("type")
    if kind == "int":
        return "int" if weights.get("symmetric") is False else "int_sym"
    return kind if isinstance(kind, str) else None


def _code_book(given: Mapping[str, object]) -> str:
    double = "_double" if given.get("bnb_4bit_use_double_quant") is True else ""
    return f"{given.get('bnb_4bit_quant_type') or 'fp4'}{double}"


def _named_scheme(given: Mapping[str, object]) -> str:
    """Return the name of a scheme: a text, or the type of the object that newer versions of torchao write."""
    said = given.get("quant_type", given.get("quant_algo"))
    named = said if isinstance(said, str) else _inside(_inside({"quant_type": said}, "quant_type"), "default")
    return str(named if isinstance(named, str) else named.get("_type") or "").lower()


def _are_numbers(values: object) -> TypeGuard[list[float]]:
    return isinstance(values, list) and all(isinstance(v, int | float) for v in values)


def _inside(holder: object, key: str) -> Mapping[str, object]:
    value = holder.get(key) if isinstance(holder, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def _number(holder: Mapping[str, object], key: str) -> float | None:
    value = holder.get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
