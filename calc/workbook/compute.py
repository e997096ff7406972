"""The calculation: a program's columns below each other, its operators in rows, and sums over those."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import fsum

from xlsxwriter.utility import xl_range_abs, xl_rowcol_to_cell

from calc.formula import ZERO, Node, is_literal, to_text
from calc.program import Column, Program, ResultRow
from calc.workbook.book import Book, Names, number_format, reduced
from calc.workbook.inputs import ABOUT, HEAD, LABEL, VALUE
from calc.workbook.values import Value, value_of

SHOWN_CHARACTERS = 2000
GATE = "exists"
"""Whether a model has an operator, which then counts."""


def write_columns(book: Book, columns: Iterable[Column], names: Names, prefix: str = "") -> None:
    """Write columns of a program, a row each on *Calculation*; they are names from then on."""
    for column in columns:
        row = book.row("Calculation")
        value, unsure = book.node("Calculation", row, VALUE, column.node, names)
        called = book.name(f"{prefix}{column.id}", "Calculation", row, VALUE)
        book.write("Calculation", row, LABEL, called)
        book.write("Calculation", row, ABOUT, to_text(column.node)[:SHOWN_CHARACTERS])
        names.put(column.id, called, value, unsure)


class Rows:
    """Operators in rows of a sheet: what is told of each, then what follows from it in the same row."""

    def __init__(self, book: Book, sheet: str, titles: Sequence[str], units: Mapping[str, str] | None = None) -> None:
        self.book, self.sheet, self.titles = book, sheet, list(titles)
        self._at = {title: at for at, title in enumerate(titles)}
        self._forms = {t: book.format(num_format=number_format(u)) for t, u in (units or {}).items()}
        self.shown: dict[str, list[Value]] = {}
        """What was put into columns, row by row."""
        head = book.row(sheet)
        for at, title in enumerate(titles):
            book.write(sheet, head, at, title, book.format(**HEAD))

    def write(self, row: ResultRow, late: Iterable[Column], names: Names) -> Names:
        """Write one row; return the names in force in it, its own first."""
        at, mine = self.book.row(self.sheet), names.inner()
        constants: dict[str, Node] = {}
        for field, node in [(GATE, row.gate), *row.values.items(), *((c.id, c.node) for c in late)]:
            node = reduced(node, constants)
            if is_literal(node):
                constants[field] = node
                mine.constant(field, node)
                self.book.write(self.sheet, at, self._at[field], mine.value[field], self._forms.get(field))
                continue
            value, unsure = self.book.node(self.sheet, at, self._at[field], node, mine, self._forms.get(field))
            mine.put(field, self.address(at, field), value, unsure)
        self.last, self.constants = at, constants
        return mine

    def address(self, row: int, title: str) -> str:
        """Return where a column stands in a row."""
        return str(xl_rowcol_to_cell(row, self._at[title], col_abs=True))

    def put(self, title: str, text: str, value: Value) -> None:
        """Write a further formula into the last row."""
        self.book.formula(self.sheet, self.last, self._at[title], text, value, self._forms.get(title))
        self.shown.setdefault(title, []).append(value)

    def range(self, title: str, first: int) -> str:
        """Return a column's range from a row to the last."""
        return f"{self.sheet}!{xl_range_abs(first, self._at[title], self.last, self._at[title])}"


def write_sums(book: Book, program: Program, names: Names, prefix: str = "") -> None:
    """Write a program's operators on *Sums*, and on *Calculation* what is added up or compared over them."""
    if program.addends is None:
        return
    added = program.addends
    terms = {label: (function, node) for label, (function, node) in added.sums.items()}
    rows = Rows(book, "Sums", [GATE, *added.rows[0].values, *(c.id for c in added.late), *terms])
    found: dict[str, list[Value]] = {label: [] for label in terms}
    first = 0
    for row in added.rows:
        mine = rows.write(row, added.late, names)
        first = first or rows.last
        for label, (function, node) in terms.items():
            _write_term(rows, label, function, node, mine, found[label])
    for label, (function, _) in terms.items():
        at = book.row("Calculation")
        value = _aggregated(function, found[label])
        book.formula("Calculation", at, VALUE, f"{function}({rows.range(label, first)})", value)
        called = book.name(f"{prefix}{label}", "Calculation", at, VALUE)
        book.write("Calculation", at, LABEL, called)
        names.put(label, called, value)


def _write_term(rows: Rows, label: str, function: str, node: Node, mine: Names, found: list[Value]) -> None:
    """Write what a row adds; one that does not exist adds nothing, and an unknown addend makes the sum unknown."""
    printer, term = mine.printer(), reduced(node, rows.constants)
    exists = mine.value[GATE] is True
    if function == "SUM":
        value = value_of(term, mine.value) if exists else 0.0
        text, nothing = printer.formula(term), "0"
    else:
        # what is unknown is left out of the greatest, and a spreadsheet leaves out texts
        value = value_of(term, mine.value) if exists else None
        text, nothing = f'IFERROR({printer.formula(term)},"")', '""'
    holds = printer.holds(Node("name", GATE))
    if term == ZERO and function == "SUM":
        rows.book.write(rows.sheet, rows.last, rows.titles.index(label), 0.0)
    else:
        rows.put(label, text if holds == "TRUE" else f"IF({holds},{text},{nothing})",
                 "" if function == "MAX" and value is None else value)  # fmt: skip
    found.append(value)


def _aggregated(function: str, values: list[Value]) -> Value:
    if function == "MAX":
        known = [float(v) for v in values if v is not None]
        return max(known) if known else None
    return None if None in values else fsum(float(v) for v in values if v is not None)
