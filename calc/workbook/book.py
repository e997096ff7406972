"""A workbook under way: its sheets, formats, and the names of cells with the values that they carry."""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import xlsxwriter
from xlsxwriter.exceptions import FileCreateError
from xlsxwriter.format import Format
from xlsxwriter.utility import xl_rowcol_to_cell
from xlsxwriter.worksheet import Worksheet

from calc.display import SHORT
from calc.formula import Node, is_literal, literal, names
from calc.workbook.formulas import Printer
from calc.workbook.values import Value, value_of

SHEETS = (
    "Inputs", "Serving", "Stages", "Operators", "Calculation", "Sums", "Models", "Hardware", "Formats", "Precisions",
    "Notes",
)  # fmt: skip
MOST_CHARACTERS = 8000
"""Of a formula: a spreadsheet takes 8,192."""
SCALED = '[>=1000000000000]0.000,,,," T";[>=1000000000]0.000,,," G";#,##0.###'
"""Numbers as people read them; what is below a billion is written out."""
NUMBER_FORMATS = {
    "s": "0.000000", "usd": "0.0000", "usd/hour": "0.00", "byte": SCALED, "byte/s": SCALED, "op": SCALED,
    "op/s": SCALED,
    "w": "#,##0.0", "j": "0.000000", "1/s": "#,##0.00", "op/byte": "#,##0.00", "g": "0.000000",
}  # fmt: skip
_LIKE_A_CELL = re.compile(r"[A-Za-z]{1,3}\d+|[rR]\d*([cC]\d*)?|[cC]\d*|TRUE|FALSE", re.IGNORECASE)


@dataclass
class Names:
    """Names in force: what stands for each in a formula, its value, and whether it may be unknown."""

    text: ChainMap[str, str] = field(default_factory=ChainMap)
    value: ChainMap[str, Value] = field(default_factory=ChainMap)
    unsure: ChainMap[str, bool] = field(default_factory=ChainMap)

    def inner(self) -> Names:
        """Return names in which others can be put before these."""
        return Names(self.text.new_child(), self.value.new_child(), self.unsure.new_child())

    def put(self, name: str, text: str, value: Value, unsure: bool = True) -> None:
        """Say what a name stands for."""
        self.text[name], self.value[name], self.unsure[name] = text, value, unsure

    def constant(self, name: str, node: Node) -> None:
        """Say that a name stands for a plain value."""
        self.put(name, PLAIN.formula(node), node.value, node.value is None)  # type: ignore[arg-type]

    def printer(self) -> Printer:
        """Return what prints formulas over these names."""
        return Printer(self.text.__getitem__, self.unsure.__getitem__)


PLAIN = Printer(str, lambda name: True)


class Page(Worksheet):  # type: ignore[misc]  # the library is untyped
    """A sheet whose formulas are written as they are."""

    def _prepare_formula(self, formula: str, expand_future_functions: bool = False) -> str:
        # thirty searches for functions that no formula here has: a third of the time that a workbook takes
        return formula.removeprefix("=")


class Book:
    """A workbook: sheets in order, formats, defined names."""

    def __init__(self, target: Any, sheets: Sequence[str] = SHEETS) -> None:
        self.file = xlsxwriter.Workbook(target, {"strings_to_formulas": False, "strings_to_urls": False})
        self.sheets: dict[str, Worksheet] = {title: self.file.add_worksheet(title, Page) for title in sheets}
        self._formats: dict[tuple[tuple[str, Any], ...], Format] = {}
        self._names: set[str] = set()
        self._next = dict.fromkeys(sheets, 0)

    def format(self, **properties: Any) -> Format:
        """Return a cell format."""
        key = tuple(sorted(properties.items()))
        if key not in self._formats:
            self._formats[key] = self.file.add_format(properties)
        return self._formats[key]

    def name(self, wanted: str, sheet: str, row: int, column: int) -> str:
        """Give a cell a name, which is returned: as wanted where it is free and no cell's address."""
        name = f"{wanted}_" if _LIKE_A_CELL.fullmatch(wanted) else wanted
        base, n = name, 2
        while name.lower() in self._names:
            name, n = f"{base}_{n}", n + 1
        self._names.add(name.lower())
        self.file.define_name(name, f"={sheet}!{xl_rowcol_to_cell(row, column, row_abs=True, col_abs=True)}")
        return name

    def row(self, sheet: str) -> int:
        """Return the next free row of a sheet."""
        self._next[sheet] += 1
        return self._next[sheet] - 1

    def write(self, sheet: str, row: int, column: int, value: Value, form: Format | None = None) -> None:
        """Write a plain value; texts stay texts, whatever they begin with; unknown is an empty cell."""
        page = self.sheets[sheet]
        if value is None:
            page.write_blank(row, column, None, form)
        elif isinstance(value, bool):
            page.write_boolean(row, column, value, form)
        elif isinstance(value, str) or not isfinite(value):
            # a workbook has no number for infinity, nor one for what is none
            page.write_string(row, column, str(value), form)
        else:
            page.write_number(row, column, value, form)

    def unit(self, sheet: str, row: int, column: int, unit: object) -> None:
        """Write a unit as people write it."""
        self.write(sheet, row, column, SHORT.get(str(unit or ""), str(unit or "")), self.format(indent=1))

    def formula(self, sheet: str, row: int, column: int, text: str, value: Value, form: Format | None = None) -> None:
        """Write a formula with the value that it has."""
        if len(text) > MOST_CHARACTERS:
            raise ValueError(f"{sheet}!{xl_rowcol_to_cell(row, column)}: a formula of {len(text)} characters")
        self.sheets[sheet].write_formula(row, column, f"={text}", form, "#N/A" if value is None else value)

    def node(
        self, sheet: str, row: int, column: int, node: Node, names: Names, form: Format | None = None
    ) -> tuple[Value, bool]:
        """Write a formula of the sheet's language; return its value, and whether it may be unknown."""
        value, printer = value_of(node, names.value), names.printer()
        if is_literal(node) and node.value is not None:
            self.write(sheet, row, column, value, form)
        else:
            self.formula(sheet, row, column, printer.formula(node), value, form)
        return value, printer.may_be_unknown(node)

    def close(self) -> None:
        """Finish the file, each sheet made ready to be printed as wide as a page."""
        for title, page in self.sheets.items():
            page.set_landscape()
            page.set_paper(9)
            page.fit_to_pages(1, 0)
            page.set_footer(f"&L{title}&RPage &P of &N")
        with written():
            self.file.close()


@contextmanager
def written() -> Iterator[None]:
    """Raise OSError, as every writer does, where a workbook's file cannot be made."""
    try:
        yield
    except FileCreateError as error:
        raise OSError(None, str(error)) from error


def number_format(unit: str, is_integer: bool = False) -> str:
    """Return how a number with a unit is shown."""
    return NUMBER_FORMATS.get(unit, "#,##0" if is_integer else "#,##0.######")


def reduced(node: Node, constants: Mapping[str, Node]) -> Node:
    """Return a formula with constants in it, less what they decide; what is unknown at run time stays so."""
    if node.kind == "name":
        return constants.get(str(node.value), node)
    if not node.children or not names(node) & constants.keys():
        return node
    if node.kind == "case":
        return _reduced_case(node, constants)
    children = tuple(reduced(child, constants) for child in node.children)
    found = Node(node.kind, node.value, children)
    if all(map(is_literal, children)):
        return literal(value_of(found, {}))
    for value, decides in (("AND", False), ("OR", True)):
        if node.value == value and any(c.kind == "boolean" and c.value is decides for c in children):
            return literal(decides)
    return found


def _reduced_case(node: Node, constants: Mapping[str, Node]) -> Node:
    kept: list[Node] = []
    for condition, result in zip(node.children[:-1:2], node.children[1:-1:2], strict=True):
        condition = reduced(condition, constants)
        if is_literal(condition) and condition.value is not True:
            continue
        result = reduced(result, constants)
        if is_literal(condition):
            return Node("case", None, (*kept, result)) if kept else result
        kept += [condition, result]
    otherwise = reduced(node.children[-1], constants)
    return Node("case", None, (*kept, otherwise)) if kept else otherwise
