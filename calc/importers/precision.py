"""The precision that a configuration's ``quantization_config`` stands for."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from calc.errors import CalcError
from calc.tables import Tables

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
    if method == "torchao":
        method = f"torchao/{_torchao_scheme(given)}"
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
            kind = weights.get("type")
            scheme: dict[str, object] = {
                "number_type": kind if isinstance(kind, str) else None,
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
    return [dict.fromkeys(SAID) | {"bits": bits, "group_size": _number(given, "group_size")}]


def _torchao_scheme(given: Mapping[str, object]) -> str:
    """Return the name of torchao's scheme: a text, or the type of the object that newer versions write."""
    said = given.get("quant_type")
    named = said if isinstance(said, str) else _inside(_inside({"quant_type": said}, "quant_type"), "default")
    return str(named if isinstance(named, str) else named.get("_type") or "").lower()


def _inside(holder: object, key: str) -> Mapping[str, object]:
    value = holder.get(key) if isinstance(holder, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def _number(holder: Mapping[str, object], key: str) -> float | None:
    value = holder.get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
