"""How to ask again what a page shows: the same question in Python, in SQL and on the command line."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from calc.program import GRAINS

Value = str | int | float
OPTIONS = (
    "batch", "input_len", "output_len", "cached_len", "n_images", "precision", "weight_format", "expert_format",
    "embedding_format", "head_format", "activation_format", "kv_format", "attention", "calibration", "technique",
    "tp", "pp", "ep", "cp", "dp",
)  # fmt: skip
"""Scenario columns that the command line has an option for; others are set by name."""


def texts(scenario: Mapping[str, Value], by: str = "serving", sheet: str = "exact") -> dict[str, str]:
    """Return the question in every language that can ask it: operators under techniques are none of SQL's."""
    languages = (python, bash) if by == "operator" and _is_patched(scenario) else (python, sql, bash)
    return {f.__name__: f(scenario, by, sheet) for f in languages}


def _is_patched(scenario: Mapping[str, Value]) -> bool:
    """Tell whether a question needs more than the views of the sheet itself."""
    return "technique" in scenario or "calibration" in scenario


def python(scenario: Mapping[str, Value], by: str = "serving", sheet: str = "exact") -> str:
    """Return the question as a call of ``calc.analyze``."""
    more = {c: v for c, v in scenario.items() if c not in ("model_id", "hardware_id")}
    more |= {"sheet": sheet} if sheet != "exact" else {}
    about = [repr(scenario["model_id"]), repr(scenario["hardware_id"]), *(f"{c}={v!r}" for c, v in more.items())]
    return f'import calc\n\ncalc.analyze({", ".join(about)}, by="{by}")\n'


def sql(scenario: Mapping[str, Value], by: str = "serving", sheet: str = "exact") -> str:
    """Return the question as a query over ``calc.connect()``, the page SQL or ``python -m calc sql``."""
    fields = ", ".join(f"{literal(v)} as {c}" for c, v in scenario.items())
    asked = f"with asked as (select {fields})\n"
    if _is_patched(scenario):
        answers = f"stage_answers(to_json(a), '{sheet}')" if by == "stage" else "technique_answers(to_json(a), [null])"
        return f"{asked}select unnest({answers}, recursive := true) from asked as a\n"
    view = GRAINS[by][0] if sheet == "exact" else f"{sheet}_{GRAINS[by][0]}"
    return f"{asked}from {view}_of('asked')\n"


def bash(scenario: Mapping[str, Value], by: str = "serving", sheet: str = "exact") -> str:
    """Return the question as a command line."""
    words = ["python", "-m", "calc", "analyze", str(scenario["model_id"]), str(scenario["hardware_id"])]
    for column, value in scenario.items():
        if column in OPTIONS:
            words += [f"--{column.replace('_', '-')}", f"{value}"]
        elif column not in ("model_id", "hardware_id"):
            words += ["--set", f"{column}={value}"]
    words += ["--sheet", sheet] if sheet != "exact" else []
    return f"{shlex.join([*words, '--by', by])}\n"


def literal(value: Value) -> str:
    """Return a value as SQL."""
    return f"'{value.replace(chr(39), chr(39) * 2)}'" if isinstance(value, str) else f"{value}"
