"""Sheets under several stacks of techniques as one, whose program answers for all of them.

To compile a program costs more than to answer a question with it. Where many stacks are asked few questions, their
cells become alternatives, and which of them holds is one more thing that a question says.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from calc.inputs import Input
from calc.patches import GIVEN, INPUTS, KEYS, Row
from calc.sheet import AXES, QUANTITIES, SPANS, Sheet

NTH_STACK = "nth_stack"
"""Which of the stacks a question asks: an input of a sheet of alternatives."""
FORMULAS = ("formula", "count", "stored", "applies", *SPANS, *AXES, *QUANTITIES)
"""Columns of a sheet's files that hold formulas."""
TOLD = ("unit", "label", "note", "source_id", "_added_by")
"""Columns for readers."""
FIXED = ("constants", "parts", "bindings", "operators", "kinds")
"""Files whose rows are what a program is made of; those of the others are cells, which nobody may read."""


@lru_cache(maxsize=1024)
def structure(sheet: Sheet) -> int:
    """Return a number that is the same for sheets that differ in formulas alone."""
    aside = {*FORMULAS, *TOLD}
    rows = [(f, *((c, v) for c, v in r.items() if c not in aside)) for f in FIXED for r in sheet.rows[f]]
    return hash((sheet.name, *rows))


@lru_cache(maxsize=64)
def joined(sheets: tuple[Sheet, ...]) -> Sheet:
    """Return the sheet whose cells are those of the first of some sheets where NTH_STACK is 0, and so on.

    The sheets must have the same structure.
    """
    rows = {f: [_joined(nth) for nth in _side_by_side(f, sheets)] for f in KEYS}
    rows[INPUTS] = [_joined(nth) for nth in _side_by_side(INPUTS, sheets)]
    inputs = {n: i for s in sheets for n, i in s.inputs.items()}
    inputs[NTH_STACK] = Input("number", "", "Which of the stacks of techniques is asked")
    found = Sheet(sheets[0].name, rows, inputs)
    found.n_alternatives = len(sheets)
    shapes = {s.shaped_as for s in sheets}
    found.shaped_as = shapes.pop() if len(shapes) == 1 else found
    return found


def _side_by_side(file: str, sheets: Sequence[Sheet]) -> list[list[Row]]:
    """Return each row that some of the sheets have, once per sheet; where one has it not, with formulas of nothing."""
    keys = KEYS.get(file, ("cell",))
    every = [{tuple(r[k] for k in keys): r for r in s.rows[file]} for s in sheets]
    places = dict.fromkeys(k for rows in every for k in rows)
    found = []
    for place in places:
        known = next(rows[place] for rows in every if place in rows)
        nothing = f"{GIVEN}{known['cell']}" if file == INPUTS else "NULL"
        absent = {c: nothing if c in FORMULAS else v for c, v in known.items()}
        found.append([rows.get(place, absent) for rows in every])
    return found


def _joined(alike: list[Row]) -> Row:
    """Return rows of the same place as one, with each formula that differs as alternatives."""
    first = alike[0]
    if all(r is first or r == first for r in alike):
        return first
    return {c: _alternatives([r[c] for r in alike]) if c in FORMULAS else v for c, v in first.items()}


def _alternatives(formulas: list[str]) -> str:
    stacks: dict[str, list[int]] = {}
    for nth, formula in enumerate(formulas):
        stacks.setdefault(formula or "0", []).append(nth)
    usual = max(stacks, key=lambda f: len(stacks[f]))
    others = " ".join(
        f"WHEN {' OR '.join(f'{NTH_STACK} = {n}' for n in nth)} THEN {formula}"
        for formula, nth in stacks.items()
        if formula != usual
    )
    return f"CASE {others} ELSE {usual} END" if others else usual
