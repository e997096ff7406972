"""What a workbook answers: the sheets *Serving*, *Stages* and *Operators*, a chart of the roofline, and *Notes*."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from xlsxwriter.format import Format
from xlsxwriter.utility import xl_range_abs, xl_rowcol_to_cell

from calc.formula import Node, name, number
from calc.program import LABELS, STAGES, Axis, Column, Program, ResultRow
from calc.results import result_columns
from calc.tables import Tables
from calc.workbook.book import Book, Names, number_format
from calc.workbook.compute import GATE, Rows
from calc.workbook.inputs import ABOUT, ANSWER, HEAD, HEADED, LABEL, NAME, TITLE, UNIT, VALUE
from calc.workbook.values import Value, value_of

GROUP = "group_number"
"""Which of the programs answers for the chosen stack."""
ALT = "Attainable performance over arithmetic intensity of the operators of both stages"
FOREMOST = (
    "fits", "ttft_s", "tpot_s", "ttft_bound", "tpot_bound", "output_tokens_per_s", "tokens_per_s_per_user",
    "memory_needed_bytes", "max_batch", "usd_per_million_output_tokens", "energy_j_per_token", "reason",
)  # fmt: skip
"""Results that stand beside the inputs."""
CHART = {"intensity shown": "arithmetic_intensity", "performance shown": "attainable_ops_per_s"}
"""Columns of the sheet *Operators* that the chart shows, and what of: unknown where an operator does not exist."""
PEAK = "peak shown"
ROOF = 6
"""Column of the sheet *Stages* where the chart's ceilings begin."""
BANDWIDTH = "memory_bandwidth_bytes_per_s"
MARKERS = {"prefill": ("diamond", "#1F77B4"), "decode": ("circle", "#D62728")}
Answer = tuple[ResultRow, Names]
"""A result row of each program, and the names in force for it."""


def reserve(book: Book, tables: Tables, shown: Sequence[str]) -> dict[str, tuple[int, str]]:
    """Lay out *Serving*: of each result its row, and the name of its cell, which no other cell may take then."""
    book.write("Serving", book.row("Serving"), LABEL, "Serving", book.format(**TITLE))
    book.write("Serving", book.row("Serving"), LABEL, "#N/A is unknown: the row Reason says why.")
    row = book.row("Serving")
    for at, title in enumerate(("Result", "Value", "Unit", "Name", "What it is")):
        book.write("Serving", row, at, title, book.format(**HEAD))
    found = {}
    for about in tables.columns("serving"):
        column = str(about["column_name"])
        if column not in shown:
            continue
        row = book.row("Serving")
        found[column] = row, book.name(column, "Serving", row, VALUE)
        told = {LABEL: about["label"], NAME: found[column][1], ABOUT: about["description"]}
        for at, text in told.items():
            book.write("Serving", row, at, str(text))
        book.unit("Serving", row, UNIT, about["unit"])
    page = book.sheets["Serving"]
    for at, width in ((LABEL, 38), (VALUE, 20), (UNIT, 9), (NAME, 32), (ABOUT, 90)):
        page.set_column(at, at, width)
    page.freeze_panes(3, 2)
    _grey_unknown(book, "Serving", 3, VALUE, row, VALUE)
    return found


def write_serving(book: Book, tables: Tables, places: Mapping[str, tuple[int, str]], answers: Sequence[Answer]) -> None:
    """Write the serving answer of the chosen stack, and the foremost of it beside the inputs."""
    about = {str(c["column_name"]): c for c in tables.columns("serving")}
    found = {}
    for column, (row, _) in places.items():
        found[column] = _chosen(book, "Serving", row, VALUE, column, answers, _form(book, about[column]))
    for nth, column in enumerate(c for c in FOREMOST if c in places):
        row, rule = HEADED + nth, about[column]
        book.write("Inputs", row, ANSWER, str(rule["label"]))
        book.formula("Inputs", row, ANSWER + 1, places[column][1], found[column], _form(book, rule))
        book.unit("Inputs", row, ANSWER + 2, rule["unit"])
    _grey_unknown(book, "Inputs", HEADED, ANSWER + 1, HEADED + len(FOREMOST), ANSWER + 1)


def write_stages(book: Book, tables: Tables, answers: Mapping[str, Sequence[Answer]]) -> None:
    """Write the totals of each stage, a column each."""
    book.write("Stages", book.row("Stages"), LABEL, "Stages", book.format(**TITLE))
    row = book.row("Stages")
    for at, title in enumerate(("Result", *map(str.capitalize, STAGES), "Unit", "What it is")):
        book.write("Stages", row, at, title, book.format(**HEAD))
    shown = {c for row, _ in next(iter(answers.values())) for c in row.values}
    last = row
    for about in tables.columns("stages"):
        column = str(about["column_name"])
        if column not in shown or column == "stage":
            continue
        last = book.row("Stages")
        book.write("Stages", last, LABEL, str(about["label"]))
        for at, stage in enumerate(STAGES):
            _chosen(book, "Stages", last, 1 + at, column, answers[stage], _form(book, about), stage)
        book.unit("Stages", last, 3, about["unit"])
        book.write("Stages", last, 4, str(about["description"]))
    page = book.sheets["Stages"]
    for at, width in enumerate((38, 20, 20, 9, 90)):
        page.set_column(at, at, width)
    page.freeze_panes(2, 1)
    _grey_unknown(book, "Stages", 2, 1, last, 2)


def _form(book: Book, about: Mapping[str, object]) -> Format:
    if about["dtype"] != "number":
        return book.format(align="right")
    return book.format(num_format=number_format(str(about["unit"] or ""), bool(about["is_integer"])))


def _chosen(
    book: Book, sheet: str, row: int, at: int, column: str, answers: Sequence[Answer], form: Format, stage: str = ""
) -> Value:
    """Write a result of the program that answers for the chosen stack; return its value."""
    texts: list[str] = []
    values: list[Value] = []
    for result, names in answers:
        node = result.values[column]
        if stage:
            node = Node("case", None, (result.gate, node, Node("null")))
        values.append(value_of(node, names.value))
        texts.append(names.printer().formula(node))
    group = int(float(str(answers[0][1].value[GROUP])))
    text = texts[0] if len(texts) == 1 else f"CHOOSE({answers[0][1].text[GROUP]},{','.join(texts)})"
    book.formula(sheet, row, at, text, values[group - 1], form)
    return values[group - 1]


def write_operators(book: Book, tables: Tables, programs: Sequence[tuple[Program, Names]]) -> None:
    """Write a row per stage and operator of every architecture; those that the model has not are grey."""
    shown = [c for c in result_columns(tables, "operator") if c in programs[0][0].outputs]
    about = {str(c["column_name"]): str(c["unit"] or "") for c in tables.columns("operators")}
    is_one = len(programs) == 1
    plans = [_laid_out(program, shown, None if is_one else nth + 1) for nth, (program, _) in enumerate(programs)]
    inner = dict.fromkeys(i for rows, late in plans for i in (*rows[0].values, *(c.id for c in late)))
    first = [c for c in (*LABELS[:3], *shown) if c in inner]
    titles = list(dict.fromkeys([*first[:3], GATE, *first[3:], *CHART, PEAK, *inner]))
    rows = Rows(book, "Operators", titles, about)
    top = 0
    spans: dict[tuple[int, str], tuple[int, int]] = {}
    for nth, ((_, names), (operators, late)) in enumerate(zip(programs, plans, strict=True)):
        for row in operators:
            mine = rows.write(row, late, names)
            top = top or rows.last
            _charted(rows, mine)
            place = nth, str(mine.value["stage"])
            spans[place] = spans.get(place, (rows.last, 0))[0], rows.last
    page = book.sheets["Operators"]
    page.set_column(0, len(titles), 14)
    page.set_column(2, 2, 26)
    page.set_column(len(first) + 1, len(titles), 14, None, {"level": 1, "hidden": True})
    page.freeze_panes(top, 3)
    page.autofilter(top - 1, 0, rows.last, len(titles) - 1)
    grey = book.format(font_color="#B0B0B0")
    page.conditional_format(
        top, 0, rows.last, len(titles) - 1,
        {"type": "formula", "criteria": f"=NOT({rows.address(top, GATE)})", "format": grey},
    )  # fmt: skip
    _grey_unknown(book, "Operators", top, 0, rows.last, len(titles) - 1)
    _ceilings(book, rows, top, programs[0][1])
    _roofline(book, titles, spans)


def _laid_out(program: Program, shown: Sequence[str], group: int | None) -> tuple[list[ResultRow], list[Column]]:
    """Return a program's rows and what follows in them, where results bear their own names.

    Where several programs answer, rows exist only where the chosen stack is of their ``group``.
    """
    own_names = {*program.rows[0].values, *(c.id for c in program.late)}
    called = {str(n.value): c for c, n in program.outputs.items() if n.value in own_names}

    def own(node: Node) -> Node:
        return _renamed(node, called)

    def gate(node: Node) -> Node:
        return node if group is None else Node("call", "AND", (Node("call", "=", (name(GROUP), number(group))), node))

    rows = [ResultRow(gate(r.gate), {called.get(f, f): own(n) for f, n in r.values.items()}) for r in program.rows]
    late = [Column(called.get(c.id, c.id), own(c.node), c.axes) for c in program.late]
    there = {*rows[0].values, *(c.id for c in late)}
    late += [Column(c, own(program.outputs[c]), Axis.QUESTION) for c in shown if c not in there]
    return rows, late


def _renamed(node: Node, called: Mapping[str, str]) -> Node:
    if node.kind == "name":
        return name(called.get(str(node.value), str(node.value)))
    return Node(node.kind, node.value, tuple(_renamed(c, called) for c in node.children)) if node.children else node


def _charted(rows: Rows, mine: Names) -> None:
    for title, column in CHART.items():
        value = mine.value[column] if mine.value[GATE] is True else None
        rows.put(title, f"IF({mine.printer().holds(name(GATE))},{mine.text[column]},NA())", value)
    # a text, which MAX leaves out
    peak = mine.value["peak_ops_per_s"] if mine.value[GATE] is True else None
    text = f'IF({mine.printer().holds(name(GATE))},IFERROR({mine.text["peak_ops_per_s"]},""),"")'
    rows.put(PEAK, text, "" if peak is None else peak)


def _ceilings(book: Book, rows: Rows, top: int, names: Names) -> None:
    """Write the points of the roof: the slope of the memory bandwidth up to the highest peak that is used."""
    peaks = rows.range(PEAK, top)
    bandwidth = names.text[BANDWIDTH]
    known = [float(v) for v in rows.shown[PEAK] if isinstance(v, float)]
    peak, slope = max(known, default=None), names.value[BANDWIDTH]
    ridge = peak / float(slope) if peak and slope else None
    low = 1e-2 * ridge if ridge else None
    cells = (
        (f"{xl_rowcol_to_cell(3, ROOF)}/100", low, f"{xl_rowcol_to_cell(2, ROOF)}*{bandwidth}", peak and peak / 100),
        (f"MAX({peaks})/{bandwidth}", ridge, f"{xl_rowcol_to_cell(3, ROOF)}*{bandwidth}", peak),
        (f"{xl_rowcol_to_cell(3, ROOF)}*100", ridge and ridge * 100, xl_rowcol_to_cell(3, ROOF + 1), peak),
    )
    for at, title in enumerate(("Ceilings (op/byte)", "Ceilings (op/s)")):
        book.write("Stages", 1, ROOF + at, title, book.format(**HEAD))
    for row, (across, x, up, y) in enumerate(cells, 2):
        book.formula("Stages", row, ROOF, across, x, book.format(num_format="#,##0.0"))
        book.formula("Stages", row, ROOF + 1, up, y, book.format(num_format="0.000E+00"))
    book.sheets["Stages"].set_column(ROOF, ROOF + 1, 18)


def _roofline(book: Book, titles: Sequence[str], spans: Mapping[tuple[int, str], tuple[int, int]]) -> None:
    """Draw what each operator may attain over its intensity; only those of the chosen stack have a place."""
    chart = book.file.add_chart({"type": "scatter"})
    x, y = (titles.index(c) for c in CHART)
    for (_, stage), (first, last) in spans.items():
        shape, color = MARKERS[stage]
        chart.add_series({
            "name": stage.capitalize(),
            "categories": f"=Operators!{xl_range_abs(first, x, last, x)}",
            "values": f"=Operators!{xl_range_abs(first, y, last, y)}",
            "marker": {"type": shape, "size": 6, "fill": {"color": color}, "border": {"color": color}},
        })  # fmt: skip
    across, up = (xl_range_abs(2, ROOF + n, 4, ROOF + n) for n in range(2))
    chart.add_series({
        "name": "Ceilings", "categories": f"=Stages!{across}", "values": f"=Stages!{up}", "marker": {"type": "none"},
        "line": {"color": "#7F7F7F", "width": 1.5},
    })  # fmt: skip
    chart.set_legend({"delete_series": list(range(len(STAGES), len(spans)))})
    chart.set_title({"name": "Roofline: attainable performance of each operator"})
    chart.set_x_axis({"name": "Arithmetic intensity (op/byte)", "log_base": 10, "crossing": 0.01, "num_format": "0.##"})
    chart.set_y_axis({"name": "Attainable performance (op/s)", "log_base": 10, "num_format": "0E+0", "crossing": 1})
    chart.set_size({"width": 760, "height": 420})
    book.sheets["Stages"].insert_chart(book.row("Stages") + 1, 0, chart, {"description": ALT})


def _grey_unknown(book: Book, sheet: str, top: int, left: int, bottom: int, right: int) -> None:
    """Show #N/A in grey: it is no mistake."""
    book.sheets[sheet].conditional_format(
        top, left, bottom, right, {"type": "errors", "format": book.format(font_color="#A0A0A0")}
    )
