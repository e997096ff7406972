"""What a workbook is told: the tables of facts, the inputs of one question, and the facts that it looks up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
from xlsxwriter.utility import xl_range_abs

from calc.calibration.expected import COLUMN
from calc.formula import name
from calc.inputs import fact_columns
from calc.questions import ATTENTIONS, UNNAMED, defaults, model_parameters, scenario_columns
from calc.sheet import REPLACED
from calc.tables import FORMATS, NEEDED, Tables
from calc.workbook.book import Book, Names, number_format
from calc.workbook.formulas import quoted
from calc.workbook.values import Value

TABLES = {"models": "Models", "hardware": "Hardware", "formats": "Formats", "precisions": "Precisions"}
FIRST = 2
"""Row of a table's first fact: below the names and the units."""
NONE = "none"
"""What the workbook calls no technique."""
LABEL, VALUE, UNIT, NAME, ABOUT = range(5)
"""Columns of the sheets that have a name in each row."""
ANSWER = 4
"""Column of the sheet *Inputs* where the foremost answers begin."""
TOLD, MEANING = 8, 9
"""Columns of the sheet *Inputs* that say the name of an input and what it is."""
HEADED = 3
"""Rows of the sheet *Inputs* above its first input."""
SCENARIOS = "Scenarios"
PLAIN = (str, bool, int, float, type(None))
USUAL = {"technique": NONE, "attention": ATTENTIONS[0], "precision": NEEDED["precisions"]}
"""What an absent text of a scenario means."""
INPUT = {"bg_color": "#FFF8DC", "align": "left", "border": 1, "border_color": "#B0A060", "locked": False}
HEAD = {"bold": True, "bottom": 1}
TITLE = {"bold": True, "font_size": 14}


@dataclass(frozen=True)
class Table:
    """Where a table of facts stands in the workbook."""

    sheet: str
    frame: pl.DataFrame

    def column(self, wanted: str) -> str:
        """Return the range of a column's facts."""
        at = self.frame.columns.index(wanted)
        return f"{self.sheet}!{xl_range_abs(FIRST, at, FIRST + self.frame.height - 1, at)}"


def write_tables(book: Book, tables: Tables) -> dict[str, Table]:
    """Write the tables of facts; what is unknown is empty."""
    found = {}
    for table, sheet in TABLES.items():
        frame, page = tables[table], book.sheets[sheet]
        about = {str(c["column_name"]): c for c in tables.columns(table)}
        for at, column in enumerate(frame.columns):
            unit, is_text = str(about[column]["unit"] or ""), about[column]["dtype"] == "text"
            book.write(sheet, 0, at, column, book.format(**HEAD))
            page.write_comment(0, at, f"{about[column]['label']}: {about[column]['description']}")
            book.write(sheet, 1, at, unit, book.format(italic=True, font_color="#707070"))
            form = None if is_text else book.format(num_format=number_format(unit, bool(about[column]["is_integer"])))
            for row, value in enumerate(frame[column]):
                if value is not None:
                    book.write(sheet, FIRST + row, at, value, form)
            page.set_column(at, at, 34 if at == 0 else 16 if is_text else 13)
        page.freeze_panes(FIRST, 1)
        page.autofilter(1, 0, FIRST + frame.height - 1, frame.width - 1)
        found[table] = Table(sheet, frame)
    return found


class Inputs:
    """The sheet *Inputs*: a cell for everything that a question says, and the stacks that may be chosen."""

    def __init__(self, book: Book, tables: Tables, lists: Mapping[str, Table], stacks: Sequence[str]) -> None:
        self.book, self.tables, self.lists, self.stacks = book, tables, lists, stacks
        self.names = Names()
        self._page = book.sheets["Inputs"]
        self._listed: Table | None = None

    def write(self, said: Mapping[str, Value], given: set[str], parameters: Sequence[str]) -> None:
        """Write a question: ``said`` has every input's value, ``given`` names those that were not left out."""
        self._head()
        self._choose_scenario()
        known = scenario_columns(self.tables)
        own = [str(c["column_name"]) for c in self.tables.columns("scenarios") if c["column_name"] != COLUMN]
        for column in [*own, *parameters]:
            rule = known[column]
            row = self.book.row("Inputs")
            shown = number_format(str(rule.get("unit") or ""), bool(rule["is_integer"]))
            form = self.book.format(**INPUT, num_format=shown)
            self._cell(row, column, said[column], given, form)
            self._describe(row, column, rule)
            self._validate(row, column, rule)
        widths = {LABEL: 26, VALUE: 34, UNIT: 8, ANSWER - 1: 3, ANSWER: 34, ANSWER + 1: 16, ANSWER + 2: 8,
                  TOLD - 1: 3, TOLD: 18, MEANING: 80}  # fmt: skip
        for at, width in widths.items():
            self._page.set_column(at, at, width)
        self._page.freeze_panes(HEADED, 0)

    def list_scenarios(self, frame: pl.DataFrame) -> None:
        """Write scenarios on a sheet of their own; the inputs are then those of the row that is chosen."""
        self._listed = Table(SCENARIOS, frame)
        page = self.book.sheets[SCENARIOS]
        note = "What you gave, and the answers when this was written: Inputs calculates the row that is chosen there."
        for at, column in enumerate(frame.columns):
            self.book.write(SCENARIOS, 0, at, note if not at else None)
            self.book.write(SCENARIOS, 1, at, column, self.book.format(**HEAD))
            for row, value in enumerate(frame[column]):
                self.book.write(SCENARIOS, FIRST + row, at, value if isinstance(value, PLAIN) else str(value))
        page.set_column(0, frame.width - 1, 18)
        page.freeze_panes(FIRST, 0)
        page.autofilter(1, 0, FIRST + frame.height - 1, frame.width - 1)

    def _choose_scenario(self) -> None:
        """Write which scenario is calculated."""
        if self._listed is None:
            return
        row, last = self.book.row("Inputs"), self._listed.frame.height
        self.names.put("scenario", self.book.name("scenario", "Inputs", row, VALUE), 1.0, False)
        self.book.write("Inputs", row, VALUE, 1.0, self.book.format(**INPUT))
        for at, text in ((LABEL, "Scenario"), (TOLD, "scenario"), (MEANING, "Row of the sheet Scenarios, from 1 on")):
            self.book.write("Inputs", row, at, text)
        self._page.data_validation(
            row, VALUE, row, VALUE, {"validate": "integer", "criteria": "between", "minimum": 1, "maximum": last}
        )

    def _head(self) -> None:
        book = self.book
        book.write("Inputs", book.row("Inputs"), LABEL, "LLM inference calculator", book.format(**TITLE))
        about = "Change a yellow cell: everything is calculated again. Answers are on Serving, Stages and Operators."
        book.write("Inputs", book.row("Inputs"), LABEL, about)
        row = book.row("Inputs")
        for at, title in {
            LABEL: "Input", VALUE: "Value", UNIT: "Unit", ANSWER: "Answer", ANSWER + 1: "Value", ANSWER + 2: "Unit",
            TOLD: "Name", MEANING: "What the input is",
        }.items():  # fmt: skip
            book.write("Inputs", row, at, title, book.format(**HEAD))

    def _cell(self, row: int, column: str, value: Value, given: set[str], form: Any) -> None:
        name = self.book.name(column, "Inputs", row, VALUE)
        if column == "technique":
            value = value or NONE
        derived = self._of_precision(column, "weight_format" in given)
        if self._listed is not None and column in self._listed.frame.columns:
            derived = self._of_scenario(column, derived)
        elif column in given:
            derived = None
        if derived is None:
            self.book.write("Inputs", row, VALUE, value, form)
        else:
            self.book.formula("Inputs", row, VALUE, derived, value, form)
        self.names.put(column, name, value, column in UNNAMED)

    def _of_scenario(self, column: str, derived: str | None) -> str:
        """Return how an input follows from the chosen scenario; what that leaves empty is as everywhere."""
        if self._listed is None:
            raise ValueError("there are no scenarios to choose from")
        found = f"INDEX({self._listed.column(column)},scenario)"
        usual = defaults(self.tables).get(column, USUAL.get(column))
        nothing = quoted(str(usual)) if isinstance(usual, str) else "NA()" if usual is None else f"{usual:g}"
        return f"IF(ISBLANK({found}),{derived or nothing},{found})"

    def _of_precision(self, column: str, has_weights: bool) -> str | None:
        """Return how a format follows from the precision, where it does."""
        if column not in FORMATS:
            return None
        if column == "expert_format" and has_weights and self._listed is None:
            return "weight_format"
        table = self.lists["precisions"]
        found = f"INDEX({table.column(column)},MATCH(precision,{table.column('precision_id')},0))"
        otherwise = "NA()" if column in UNNAMED else "weight_format"
        text = f"IF(ISBLANK({found}),{otherwise},{found})"
        if column == "expert_format" and self._listed is not None and "weight_format" in self._listed.frame.columns:
            return f"IF(ISBLANK(INDEX({self._listed.column('weight_format')},scenario)),{text},weight_format)"
        return text

    def _describe(self, row: int, column: str, rule: Mapping[str, object]) -> None:
        book = self.book
        meaning = rule["description"] if "description" in rule else f"A setting of the technique {rule['technique_id']}"
        for at, text in zip((LABEL, TOLD, MEANING), (rule["label"], column, meaning), strict=True):
            book.write("Inputs", row, at, str(text or ""))
        book.unit("Inputs", row, UNIT, rule.get("unit"))

    def _validate(self, row: int, column: str, rule: Mapping[str, object]) -> None:
        source: object = None
        if column in ("model_id", *model_parameters(self.tables)):
            source = f"={self.lists['models'].column('model_id')}"
        elif column == "hardware_id":
            source = f"={self.lists['hardware'].column('hardware_id')}"
        elif column == "precision":
            source = f"={self.lists['precisions'].column('precision_id')}"
        elif column in FORMATS:
            source = f"={self.lists['formats'].column('format_id')}"
        elif column == "attention":
            source = list(ATTENTIONS)
        elif column == "technique":
            source = f"=Calculation!{xl_range_abs(1, STACKS, len(self.stacks), STACKS)}"
        if source is not None:
            self._page.data_validation(row, VALUE, row, VALUE, {"validate": "list", "source": source})
        elif rule["dtype"] == "number":
            low, high = (rule[k] if rule[k] is not None else d for k, d in (("minimum", 0), ("maximum", 1e9)))
            kind = "integer" if rule["is_integer"] and float(str(high)) < 2**31 else "decimal"
            self._page.data_validation(
                row, VALUE, row, VALUE,
                {"validate": kind, "criteria": "between", "minimum": low, "maximum": high,
                 "error_message": f"{column}: from {low} to {high}"},
            )  # fmt: skip


STACKS = 7
"""Column of the sheet *Calculation* that lists the stacks."""


class Lookups:
    """The facts that programs read, each a cell that finds it in its table."""

    def __init__(self, book: Book, tables: Tables, lists: Mapping[str, Table]) -> None:
        self.book, self.tables, self.lists = book, tables, lists
        self._rows = {t: {v: i for i, v in enumerate(tables[t].to_series(0))} for t in TABLES}

    def of(self, table: str, key: str, columns: Sequence[tuple[str, str]], names: Names, prefix: str = "") -> None:
        """Write the facts of the row that ``key`` names: (name in force, column of the table) each."""
        where = self.lists[table]
        label = f"{prefix}{key}_row"
        text = f"MATCH({names.text[key]},{where.column(where.frame.columns[0])},0)"
        place = self._rows[table].get(names.value[key])
        self._write(label, text, None if place is None else place + 1, names, "", f"Row of {table}")
        about = {str(c["column_name"]): c for c in self.tables.columns(table)}
        for fact, column in columns:
            found = f"INDEX({where.column(column)},{names.text[label]})"
            value = None if place is None else where.frame[column][place]
            rule = about[column]
            self._write(f"{prefix}{fact}", f"IF(ISBLANK({found}),NA(),{found})", value, names,
                        str(rule["unit"] or ""), str(rule["label"]))  # fmt: skip

    def _write(self, wanted: str, text: str, value: Value, names: Names, unit: str, label: str) -> None:
        row = self.book.row("Calculation")
        called = self.book.name(wanted, "Calculation", row, VALUE)
        self.book.formula("Calculation", row, VALUE, text, value, self.book.format(num_format=number_format(unit)))
        for at, told in ((LABEL, called), (UNIT, unit), (NAME, label)):
            self.book.write("Calculation", row, at, told)
        names.put(wanted, called, value)

    def facts(self, inputs: set[str], names: Names) -> None:
        """Write every fact of model, device and formats among ``inputs``, of what the stack at hand uses."""
        for table, key in (("models", "used_model_id"), ("hardware", "hardware_id")):
            self.of(table, key, [(n, c) for n, c in fact_columns(self.tables, table) if n in inputs], names)
        every = fact_columns(self.tables, "formats")
        for role in FORMATS:
            own = [(n, c) for n, c in every if n in inputs and n.startswith(role.removesuffix("format"))]
            self.of("formats", f"used_{role}", own, names)


def write_choice(book: Book, stacks: Sequence[str], replaced: Sequence[Mapping[str, Any]], names: Names) -> None:
    """Write which stack is chosen, and the model and formats that it uses in the place of those asked for."""
    for at, title in ((LABEL, "Name"), (VALUE, "Value"), (UNIT, "Unit"), (NAME, "What it is"), (ABOUT, "Formula"),
                      (STACKS, "Stacks of techniques")):  # fmt: skip
        book.write("Calculation", 0, at, title, book.format(**HEAD))
    book.row("Calculation")
    for at, stack in enumerate(stacks):
        book.write("Calculation", 1 + at, STACKS, stack)
    told = xl_range_abs(1, STACKS, len(stacks), STACKS)
    place = stacks.index(str(names.value["technique"]))
    text = f"MATCH({names.text['technique']},Calculation!{told},0)"
    entry(book, "technique_number", text, float(place + 1), names, "Which of the stacks is chosen")
    for column in REPLACED:
        nodes = [r.get(column, name(column)) for r in replaced]
        printer = names.printer()
        texts = [printer.formula(n) if n.kind == "name" else quoted(str(n.value)) for n in nodes]
        chosen = nodes[place]
        value = names.value[str(chosen.value)] if chosen.kind == "name" else chosen.value
        text = texts[0] if len(set(texts)) == 1 else f"CHOOSE(technique_number,{','.join(texts)})"
        entry(book, f"used_{column}", text, value, names, f"{column} with the techniques")


def entry(book: Book, wanted: str, text: str, value: Value, names: Names, label: str) -> None:
    """Write a named cell on *Calculation*."""
    row = book.row("Calculation")
    called = book.name(wanted, "Calculation", row, VALUE)
    book.formula("Calculation", row, VALUE, text, value)
    book.write("Calculation", row, LABEL, called)
    book.write("Calculation", row, NAME, label)
    names.put(wanted, called, value)
