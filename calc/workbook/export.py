"""A live workbook: one question, with every formula that answers it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO

import polars as pl

from calc.alternatives import NTH_STACK
from calc.calibration.applied import calibrated
from calc.calibration.expected import COLUMN, errors_told
from calc.errors import CalcError
from calc.evaluation import answered
from calc.inputs import fact_columns
from calc.loading import load_sheet
from calc.patches import stack
from calc.program import STAGES
from calc.questions import canonical, prepare, scenario_columns, stack_of
from calc.results import result_columns
from calc.tables import FORMATS, NEEDED, Tables
from calc.workbook.book import SHEETS, Book, Names
from calc.workbook.compute import write_columns, write_sums
from calc.workbook.inputs import NONE, SCENARIOS, Inputs, Lookups, entry, write_choice, write_tables
from calc.workbook.notes import write_notes
from calc.workbook.programs import Companion, Group, groups_of
from calc.workbook.results import FOREMOST, GROUP, reserve, write_operators, write_serving, write_stages
from calc.workbook.values import Value, value_of

MOST_ROWS = 1_000_000
"""Scenarios that a workbook lists: a sheet has some more rows."""
MOST_STACKS = 8
"""Stacks of techniques that a workbook may choose from, beside none."""


def export(
    tables: Tables,
    scenarios: pl.DataFrame,
    target: str | IO[bytes],
    techniques: Sequence[str] = (),
    sheet: str = "exact",
) -> None:
    """Write a workbook that calculates a scenario, of several the one that is chosen in it.

    ``target`` is a path or a binary file. Its inputs can be changed, its technique to none, to the scenarios' own and
    to those of ``techniques``, each a stack such as ``a+b``. Raises CalcError and its kinds for what cannot be asked.
    """
    known = calibrated(tables, scenarios)
    scenarios, errors = known.scenarios.lazy().collect().drop(COLUMN, strict=False), errors_told(known.told)
    scenario = scenarios.row(0, named=True)
    own = str(scenario.get("technique") or "")
    others = scenarios["technique"].drop_nulls() if "technique" in scenarios.columns else ()
    stacks = list(dict.fromkeys(["", *(s for s in (*others, *techniques) if s)]))
    if len(stacks) > MOST_STACKS + 1:
        raise CalcError(f"{len(stacks) - 1} stacks of techniques: a workbook chooses from at most {MOST_STACKS}")
    listed = _listed(tables, scenarios, sheet) if scenarios.height > 1 else None
    said = _said(tables, scenarios)
    groups = groups_of(tables, [stack_of(s) for s in stacks], sheet)
    book = Book(target, SHEETS if listed is None else (SHEETS[0], SCENARIOS, *SHEETS[1:]))
    places = reserve(book, tables, list(groups[0].answers.rows[0].values))
    lists = write_tables(book, tables)
    inputs = Inputs(book, tables, lists, [s or NONE for s in stacks])
    if listed is not None:
        inputs.list_scenarios(listed)
    inputs.write(said, {c for c, v in scenario.items() if v is not None}, _parameters(tables, stacks))
    names = inputs.names
    replaced = [load_sheet(tables, sheet, stack_of(s)).replaced for s in stacks]
    write_choice(book, [s or NONE for s in stacks], replaced, names)
    _write_group(book, groups, stacks.index(own), names)
    lookups = Lookups(book, tables, lists)
    lookups.facts({n for g in groups for n in g.answers.inputs | g.operators.inputs}, names)
    every = [
        _write_programs(book, lookups, tables, g, nth, stacks.index(own), names) for nth, g in enumerate(groups, 1)
    ]
    write_serving(book, tables, places, [(g.answers.rows[0], n) for g, (n, _) in zip(groups, every, strict=True)])
    told = {
        stage: [(g.answers.rows[1 + nth], n) for g, (n, _) in zip(groups, every, strict=True)]
        for nth, stage in enumerate(STAGES)
    }
    write_stages(book, tables, told)
    write_operators(book, tables, [(g.operators, n) for g, (_, n) in zip(groups, every, strict=True)])
    write_notes(book, tables, stacks, errors)
    book.close()


def _said(tables: Tables, scenarios: pl.DataFrame) -> dict[str, Value]:
    """Return the value of every input of the first scenario, with what is absent filled in."""
    known, first = scenario_columns(tables), scenarios.head(1)
    row = prepare(tables, first, result_columns(tables, "serving")).configurations.row(0, named=True)
    found = {c: row.get(c) for c in known}
    precision = first["precision"][0] if "precision" in first.columns else None
    device = canonical(tables, first, "hardware_id")[0]
    return found | {"hardware_id": device, "precision": precision or NEEDED["precisions"]}


def _listed(tables: Tables, scenarios: pl.DataFrame, sheet: str) -> pl.DataFrame:
    """Return scenarios with ids as the tables spell them, their own columns, and the foremost answers to each."""
    if scenarios.height > MOST_ROWS:
        raise CalcError(
            f"{scenarios.height:,} scenarios: a sheet has at most {MOST_ROWS:,} rows; ask for CSV or Parquet"
        )
    found = answered(tables, scenarios, "serving", sheet, [*scenarios.columns, *FOREMOST])
    ids = {c: canonical(tables, scenarios, c) for c in ("model_id", "hardware_id")}
    texts = [c for c, rule in scenario_columns(tables).items() if rule["dtype"] == "text" and c in found.columns]
    # a text of nothing is no cell left empty
    told = found.with_columns(**ids).with_columns(pl.col(c).cast(pl.String).replace("", None) for c in texts)
    return told.select(*scenarios.columns, *(c for c in FOREMOST if c in found.columns))


def _parameters(tables: Tables, stacks: Sequence[str]) -> list[str]:
    """Return the parameters of the techniques of some stacks."""
    used = {t for s in stacks for t in stack(tables, stack_of(s))}
    rows = tables["parameters"].filter(pl.col("technique_id").is_in(sorted(used)))
    found: list[str] = rows["parameter"].to_list()
    return found


def _write_group(book: Book, groups: Sequence[Group], place: int, names: Names) -> None:
    """Write which of the programs answers for the chosen stack."""
    group_of = {p: nth for nth, group in enumerate(groups, 1) for p in group.nth}
    texts = [str(group_of[p]) for p in sorted(group_of)]
    text = texts[0] if len(groups) == 1 else f"CHOOSE(technique_number,{','.join(texts)})"
    entry(book, GROUP, text, float(group_of[place]), names, "Which of the programs answers for the chosen stack")


def _write_programs(
    book: Book, lookups: Lookups, tables: Tables, group: Group, nth: int, place: int, outer: Names
) -> tuple[Names, Names]:
    """Write what a group computes; return the names in force for its answers and for its operators."""
    prefix = "" if nth == 1 else f"g{nth}_"
    names = outer.inner()
    for column in FORMATS:
        names.put(column, outer.text[f"used_{column}"], outer.value[f"used_{column}"])
    if len(set(group.nth.values())) > 1:
        last = max(group.nth)
        texts = [str(group.nth.get(p, 0)) for p in range(last + 1)]
        text = f"CHOOSE(MIN(technique_number,{last + 1}),{','.join(texts)})"
        entry(book, f"{prefix}{NTH_STACK}", text, float(group.nth.get(place, 0)), names, "Which of a program's stacks")
        names.put(NTH_STACK, f"{prefix}{NTH_STACK}", float(group.nth.get(place, 0)), False)
    for companion in group.companions:
        _write_companion(book, lookups, tables, companion, prefix, names)
    answers, operators = names.inner(), names.inner()
    write_columns(book, group.answers.columns, answers, prefix)
    write_sums(book, group.answers, answers, prefix)
    write_columns(book, group.answers.on_sums, answers, prefix)
    operators.put(GROUP, outer.text[GROUP], outer.value[GROUP], False)
    write_columns(book, group.operators.columns, operators, f"{prefix}o_")
    return answers, operators


def _write_companion(
    book: Book, lookups: Lookups, tables: Tables, companion: Companion, prefix: str, names: Names
) -> None:
    """Write the facts and the figures of a further model; a program reads them under the model's prefix."""
    own, program = names.inner(), companion.program
    read = {*companion.facts, *program.inputs}
    facts = [(n, c) for n, c in fact_columns(tables, "models") if n in read]
    before = f"{prefix}{companion.prefix}"
    lookups.of("models", companion.parameter, facts, own, before)
    for fact, _ in facts:
        told = own.text[f"{before}{fact}"], own.value[f"{before}{fact}"]
        own.put(fact, *told)
        names.put(f"{companion.prefix}{fact}", *told)
    write_columns(book, program.columns, own, f"{before}o_")
    write_sums(book, program, own, f"{before}o_")
    write_columns(book, program.on_sums, own, f"{before}o_")
    for figure in companion.figures:
        node = program.rows[0].values[figure]
        entry(book, f"{before}{figure}", own.printer().formula(node), value_of(node, own.value), names, figure)
        names.put(f"{companion.prefix}{figure}", names.text[f"{before}{figure}"], names.value[f"{before}{figure}"])
