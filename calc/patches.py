"""Techniques as patches: rows of a sheet that are replaced, added or removed, and inputs that mean something else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

import polars as pl

from calc.errors import CalcError, SheetError, closest
from calc.folding import replace
from calc.formula import name, parse
from calc.tables import Tables

KEYS = {
    "constants": ("name",), "scenario": ("cell",), "stages": ("stage", "cell"), "parts": ("part",),
    "blocks": ("block", "cell"), "bindings": ("part", "cell"), "operators": ("block", "operator"), "kinds": ("kind",),
    "roofline": ("cell",), "totals": ("cell",), "generation": ("cell",), "serving": ("cell",),
}  # fmt: skip
"""The files of a sheet and the fields that identify a row in each; a patch's key is these, joined by dots."""

INPUTS = "inputs"
"""The file of a patch that changes an input: a fact of model or device, or what the scenario says."""
GIVEN = "given_"
"""Before the name of a changed input: what it was."""
TEXTS = (
    "cell", "stage", "part", "block", "operator", "kind", "class", "runs_on", "exchange", "name", "formula", "value",
    "unit", "split", "tower", "place", "inputs", "applies", "label", "note", "source_id", "_added_by",
)  # fmt: skip
"""Fields of an added row that stay empty until a patch fills them; the others are numbers and begin as 0."""
PREVIOUS = "previous"
"""In a patch's formula: what the cell held before."""

FITTED = "calibration"
"""The group of the technique whose parameters are fitted to measurements."""
STEPS = ("past_len", "q_len", "pass_batch", "replica_tokens")
"""Cells of stages that say which steps there are: with others it is another sequence than was measured."""

Row = dict[str, str]


def stack(tables: Tables, techniques: tuple[str, ...]) -> tuple[str, ...]:
    """Return a stack with what each technique includes before it; raises CalcError for one unknown, or there twice."""
    rows = _techniques(tables)
    found: list[str] = []
    for technique in techniques:
        if technique not in rows:
            raise CalcError(f"unknown technique {technique!r}{closest(technique, rows)}; there are {', '.join(rows)}")
        found += [*(rows[technique]["includes"] or "").split("+"), technique]
    found = [t for t in found if t]
    twice = [t for t in found if found.count(t) > 1]
    if twice:
        raise CalcError(f"technique {twice[0]!r} is in the stack {'+'.join(techniques)!r} twice")
    return tuple(found)


@lru_cache(maxsize=16)
def _techniques(tables: Tables) -> Mapping[str, Mapping[str, str]]:
    return {r["technique_id"]: r for r in tables["techniques"].iter_rows(named=True)}


@lru_cache(maxsize=16)
def _patches(tables: Tables) -> Mapping[str, list[Mapping[str, str]]]:
    """Return the patches of each technique."""
    found: dict[str, list[Mapping[str, str]]] = {}
    for patch in tables["patches"].iter_rows(named=True):
        found.setdefault(patch["technique_id"], []).append(patch)
    return found


def apply(tables: Tables, title: str, rows: dict[str, list[Row]], techniques: tuple[str, ...]) -> None:
    """Change a sheet's lists of rows as a stack of techniques says, in order; raises CalcError or SheetError.

    A row that changes becomes another; the others stay those that they were.
    """
    rows[INPUTS] = []
    touched: dict[tuple[str, str, str], str] = {}
    about = _techniques(tables)
    _refuse_unmeasured(tables, title, [t for t in techniques if about[t]["group"] == FITTED], techniques)
    for technique in techniques:
        own = [p for p in _patches(tables).get(technique, []) if p["sheet"] == title]
        if not own:
            raise CalcError(f"technique {technique!r} has no meaning on the sheet {title!r}; use the sheet 'exact'")
        for patch in own:
            _patch(title, rows, patch, touched)
        if about[technique]["needs"]:
            _patch(title, rows, _refusal(about[technique], title), touched)


def _refuse_unmeasured(tables: Tables, title: str, fitted: list[str], techniques: tuple[str, ...]) -> None:
    """Refuse a calibration beside techniques that change how steps follow each other: it was measured without them."""
    if not fitted:
        return
    patches = tables["patches"].filter(sheet=title).select("technique_id", "file", "key")
    own = patches.filter(pl.col("technique_id").is_in(fitted)).select("file", "key").rows()
    for technique, file, key in patches.filter(pl.col("technique_id").is_in(techniques)).iter_rows():
        is_of_steps = file == "generation" or (file == "stages" and key.rpartition(".")[2] in STEPS)
        if technique not in fitted and (is_of_steps or (file, key) in own):
            raise CalcError(f"calibrations were measured without {technique!r}: leave it out, or ask for the ideal")


def apply_to_question(
    tables: Tables, title: str, rows: dict[str, list[Row]], techniques: tuple[str, ...], inputs: set[str]
) -> None:
    """Change in place what a stack changes of some inputs, and nothing else."""
    rows[INPUTS] = []
    touched: dict[tuple[str, str, str], str] = {}
    for technique in techniques:
        for patch in tables["patches"].filter(technique_id=technique, sheet=title, file=INPUTS).iter_rows(named=True):
            if patch["key"] in inputs:
                _patch(title, rows, patch, touched)


def _refusal(technique: Mapping[str, str], title: str) -> dict[str, str]:
    """Return the patch that says why a technique means nothing for a question."""
    said = f"{technique['technique_id']}: {technique['otherwise']}".replace("'", "''")
    formula = (
        f"CASE WHEN {PREVIOUS} IS NOT NULL THEN {PREVIOUS} "
        f"WHEN NOT COALESCE({technique['needs']}, FALSE) THEN '{said}' END"
    )
    where = {"technique_id": technique["technique_id"], "sheet": title, "file": "scenario", "key": "degree_reason"}
    return {**where, "column": "formula", "action": "replace", "formula": formula}


def _patch(
    title: str, rows: dict[str, list[Row]], patch: Mapping[str, str], touched: dict[tuple[str, str, str], str]
) -> None:
    technique, file, key, column = patch["technique_id"], patch["file"], patch["key"], patch["column"] or ""
    where = f"technique {technique}, {file}.{key}"
    if file == INPUTS:
        _input(rows[INPUTS], key)
    elif file not in KEYS:
        raise SheetError("patches.csv", where, f"there is no sheet file {file!r}{closest(file, [*KEYS, INPUTS])}")
    keys = KEYS.get(file, ("cell",))
    wanted = tuple(key.split(".", len(keys) - 1))
    hits = [i for i, r in enumerate(rows[file]) if tuple([r[k] for k in keys]) == wanted]
    if patch["action"] == "add":
        _add(rows[file], [rows[file][i] for i in hits], patch, where)
        return
    remover = touched.get((file, key, ""))
    if not hits and remover is not None:
        raise SheetError("patches.csv", where, f"{remover!r} has removed this row: the two cannot be combined")
    if len(hits) != 1:
        every = [".".join(r[k] for k in keys) for r in rows[file]]
        raise SheetError("patches.csv", where, f"hits {len(hits)} rows of sheets/{title}, not one{closest(key, every)}")
    formula = patch["formula"] or ""
    first = touched.setdefault((file, key, column), technique)
    reads_previous = bool(re.search(rf"\b{PREVIOUS}\b", formula))
    if first != technique and not reads_previous:
        raise SheetError(
            "patches.csv",
            where,
            f"{first!r} has changed this cell already and {technique!r} does not say how they combine; "
            f"write it over {PREVIOUS!r}",
        )  # fmt: skip
    if patch["action"] == "remove":
        del rows[file][hits[0]]
        return
    row = rows[file][hits[0]]
    if column not in row:
        raise SheetError("patches.csv", where, f"there is no column {column!r}{closest(column, row)}")
    if reads_previous:
        previous = parse(row[column] or "0")
        formula = str(replace(parse(formula), lambda n: previous if n == PREVIOUS else name(n)))
    rows[file][hits[0]] = {**row, column: formula}


def _input(rows: list[Row], key: str) -> None:
    """Add the cell of an input that a technique changes: as long as nothing does, what was given."""
    if not any(r["cell"] == key for r in rows):
        blank = dict.fromkeys(("unit", "label", "note"), "")
        rows.append({"cell": key, "formula": f"{GIVEN}{key}", "source_id": "definition", **blank})


def _add(rows: list[Row], hits: list[Row], patch: Mapping[str, str], where: str) -> None:
    column = patch["column"] or ""
    if not rows or column not in rows[0]:
        raise SheetError("patches.csv", where, f"there is no column {column!r}")
    keys = KEYS[patch["file"]]
    if hits and hits[0].get("_added_by") != patch["technique_id"]:
        raise SheetError("patches.csv", where, "adds a row that is already there")
    if not hits:
        parts = patch["key"].split(".", len(keys) - 1)
        if len(parts) != len(keys):
            raise SheetError("patches.csv", where, f"its key must be {'.'.join(keys)}")
        numbers = {c: "0" for c in rows[0] if c not in TEXTS}
        hits = [
            dict.fromkeys(rows[0], "")
            | numbers
            | dict(zip(keys, parts, strict=True))
            | {"_added_by": patch["technique_id"]}
        ]
        rows.append(hits[0])
    hits[0][column] = patch["formula"] or ""
