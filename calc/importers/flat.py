"""The keys of a configuration as plain values: checked, and lists counted by their members."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from calc.errors import CalcError


@dataclass(frozen=True)
class Key:
    """What one key of a configuration may hold: a row of config_keys.csv."""

    key: str
    dtype: str
    is_integer: bool
    minimum: float | None
    maximum: float | None
    members: str | None

    @property
    def shown(self) -> str:
        """The key as its file has it: what is inside an object with a dot."""
        return self.key.replace("__", ".")


def flatten(config: Mapping[str, object], keys: Mapping[str, Key]) -> dict[str, object]:
    """Return the values of known keys; a list becomes ``<key>__n`` and a count per kind of member.

    Raises CalcError that names the key whose value it cannot be.
    """
    found: dict[str, object] = {}
    for name, key in keys.items():
        if config.get(name) is None or key.dtype == "any":
            continue
        value = config[name]
        if key.dtype == "number or auto" and value == "auto":
            continue
        if key.dtype == "list" or (key.dtype == "number or list" and isinstance(value, list | str)):
            found |= _counts(key, value)
        else:
            found[name] = _scalar(key, value)
    return found


def _scalar(key: Key, value: object) -> object:
    if key.dtype == "boolean":
        if not isinstance(value, bool):
            raise CalcError(f"{key.shown}: {short(value)} is not true or false")
        return value
    if key.dtype == "text":
        if not isinstance(value, str):
            raise CalcError(f"{key.shown}: {short(value)} is not text")
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise CalcError(f"{key.shown}: {short(value)} is not a number")
    if not math.isfinite(value):
        raise CalcError(f"{key.shown}: {value} is not a finite number")
    if key.is_integer and value != math.floor(value):
        raise CalcError(f"{key.shown}: {value} is not a whole number")
    if key.minimum is not None and value < key.minimum:
        raise CalcError(f"{key.shown}: {short(value)} is below {key.minimum:g}")
    if key.maximum is not None and value > key.maximum:
        raise CalcError(f"{key.shown}: {short(value)} is above {key.maximum:g}")
    return float(value)


def _counts(key: Key, value: object) -> dict[str, object]:
    members = dict(pair.split("=", 1) for pair in (key.members or "").split("|") if pair)
    if not isinstance(value, list | str):
        raise CalcError(f"{key.shown}: {short(value)} is not a list")
    found: dict[str, object] = {f"{key.key}__n": float(len(value))}
    found |= {f"{key.key}__{name}": 0.0 for name in members.values()}
    for member in value:
        if not members and (isinstance(member, bool) or not isinstance(member, int | float)):
            raise CalcError(f"{key.shown}: {short(member)} is not a number")
        if members and str(member) not in members:
            raise CalcError(f"{key.shown}: unknown kind of layer {short(member)}; there are {', '.join(members)}")
        if members:
            name = f"{key.key}__{members[str(member)]}"
            found[name] = float(str(found[name])) + 1
    if key.dtype == "number or list" and not members:
        if len(set(map(str, value))) > 1:
            raise CalcError(f"{key.shown}: its members differ from layer to layer")
        if value:
            found[f"{key.key}__first"] = _scalar(key, value[0])
    return found


def short(value: object) -> str:
    """Return how a value is written in a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
