"""What a workbook computes: the programs of its stacks of techniques, over models of every architecture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from calc.alternatives import joined, structure
from calc.inputs import companion_prefix, fact_columns
from calc.loading import load_companion_sheet, load_sheet
from calc.program import GRAINS, LABELS, STAGES, Compiler, Program, result_rows
from calc.questions import model_parameters
from calc.results import result_columns, uncollected
from calc.shapes import input_axes
from calc.sheet import Sheet
from calc.summing import SummingCompiler
from calc.tables import Tables

Stack = tuple[str, ...]


@dataclass(frozen=True)
class Companion:
    """A further model that a technique asks: the parameter that names it, and what answers for it."""

    parameter: str
    facts: tuple[str, ...]
    figures: tuple[str, ...]
    program: Program

    @property
    def prefix(self) -> str:
        """Return what stands before the names of its facts and figures."""
        return companion_prefix(self.parameter)


@dataclass(frozen=True)
class Group:
    """Stacks of techniques whose sheets have the same structure, and the programs that answer for all of them."""

    nth: Mapping[int, int]
    """Of each stack, by its place among the workbook's: what NTH_STACK is for it."""
    answers: Program
    """Sums over operators; its rows are the serving answer, then each stage."""
    operators: Program
    companions: tuple[Companion, ...]


def groups_of(tables: Tables, stacks: Sequence[Stack], title: str = "exact") -> list[Group]:
    """Return the groups of some stacks; raises CalcError and SheetError for a stack that cannot be."""
    further = model_parameters(tables).keys()
    sheets = [load_sheet(tables, title, s) for s in stacks]
    alike: dict[tuple[int, ...], list[int]] = {}
    for place, sheet in enumerate(sheets):
        is_alone = bool(further & sheet.inputs.keys())
        alike.setdefault((-1, place) if is_alone else (structure(sheet),), []).append(place)
    with uncollected():
        return [_group(tables, title, {p: stacks[p] for p in places}) for places in alike.values()]


def _group(tables: Tables, title: str, stacks: Mapping[int, Stack]) -> Group:
    own = {place: load_sheet(tables, title, stack).compiled_as for place, stack in stacks.items()}
    sheets = list(dict.fromkeys(own.values()))
    sheet = joined(tuple(sheets)) if len(sheets) > 1 else sheets[0]
    columns = {by: list(result_columns(tables, by)) for by in GRAINS}
    answers = _answers(tables, sheet, columns["serving"], columns["stage"])
    operators = GRAINS["operator"][1](Compiler(sheet, input_axes(tables)), columns["operator"])
    companions = _companions(tables, title, next(iter(stacks.values())), answers, operators)
    return Group({p: sheets.index(s) for p, s in own.items()}, answers, operators, companions)


def _answers(tables: Tables, sheet: Sheet, serving: list[str], stages: list[str]) -> Program:
    compiler = SummingCompiler(sheet, input_axes(tables))
    rows = result_rows(compiler, [sheet.serving_scope()], serving)
    rows += result_rows(compiler, [sheet.totals_scope(s) for s in STAGES], stages) if stages else []
    return compiler.summed(rows, LABELS)


def _companions(
    tables: Tables, title: str, stack: Stack, answers: Program, operators: Program
) -> tuple[Companion, ...]:
    """Return the further models that programs read something of."""
    owners = dict(tables["parameters"].select("parameter", "technique_id").iter_rows())
    read = answers.inputs | operators.inputs
    found = []
    for parameter in model_parameters(tables):
        prefix = companion_prefix(parameter)
        mine = {n.removeprefix(prefix) for n in read if n.startswith(prefix)}
        figures = tuple(c for c in result_columns(tables, "serving") if c in mine)
        facts = tuple(n for n, _ in fact_columns(tables, "models") if n in mine and n not in figures)
        if mine:
            sheet = load_companion_sheet(tables, title, stack, owners[parameter])
            found.append(Companion(parameter, facts, figures, _answers(tables, sheet, list(figures), [])))
    return tuple(found)
