"""The sheet *Notes*: what the workbook is, its units, its version, and the sources of its facts."""

from __future__ import annotations

from collections.abc import Sequence

from calc import __version__
from calc.tables import Tables
from calc.workbook.book import Book
from calc.workbook.inputs import HEAD, TITLE

UNITS = (
    ("Base units", "bytes, seconds, operations, USD, joule, watt. T and G behind a number are decimal prefixes."),
    ("Operations", "A multiplication with an addition is two."),
    ("#N/A", "Unknown. What rests on something unknown is unknown too; the row Reason of Serving names it."),
    ("Formulas", "Cells of Calculation, Sums and Operators hold the formulas of the sheet exact; beside them in SQL."),
    ("Rows of Operators", "Those of every architecture; what the chosen model has not is grey and counts nothing."),
)  # fmt: skip


MOST_ERRORS = 20
"""Scenarios whose expected errors are written out."""


def write_notes(book: Book, tables: Tables, stacks: Sequence[str], errors: str = "") -> None:
    """Write the notes; ``errors`` are those to be expected of a calibration, a line for each scenario that differs."""
    page = book.sheets["Notes"]
    book.write("Notes", book.row("Notes"), 0, "Notes", book.format(**TITLE))
    wrapped = book.format(text_wrap=True, valign="top")
    told = [("Version", __version__), *UNITS, ("Exactness", _exactness(errors.splitlines()))]
    told.append(("Techniques", ", ".join(s for s in stacks if s) or "none"))
    for title, text in told:
        row = book.row("Notes")
        book.write("Notes", row, 0, title, book.format(bold=True, valign="top"))
        book.write("Notes", row, 1, text, wrapped)
    row = book.row("Notes")
    book.write("Notes", row + 1, 0, "Sources", book.format(**HEAD))
    book.row("Notes")
    for source in tables["sources"].iter_rows(named=True):
        row = book.row("Notes")
        for at, text in enumerate(list(source.values())[:4]):
            book.write("Notes", row, at, str(text or ""), wrapped)
    page.set_column(0, 0, 26)
    page.set_column(1, 1, 90)
    page.set_column(2, 3, 40)


def _exactness(errors: list[str]) -> str:
    where = "The command `explain` says where each number comes from."
    if not errors:
        return f"A bound: no device is faster. {where}"
    more = [f"and {len(errors) - MOST_ERRORS:,} more"] if len(errors) > MOST_ERRORS else []
    about = f"Times are an engine's as they were measured. {where} What is to be expected of them as exported:"
    return "\n".join([about, *errors[:MOST_ERRORS], *more])
