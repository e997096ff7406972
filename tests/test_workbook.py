"""Live workbooks: a spreadsheet program calculates from the workbook's formulas what the engines give."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import openpyxl
import polars as pl
import pytest
from spreadsheet import PROGRAM, edited, names_of, recalculated, rows_of

import calc
from calc.__main__ import main
from calc.errors import CalcError
from calc.evaluation import answered
from calc.formula import parse
from calc.tables import load
from calc.workbook.book import Book, Names
from calc.workbook.export import export
from calc.workbook.values import value_of

ASKED = {
    "model_id": "meta-llama/Meta-Llama-3.1-8B", "hardware_id": "nvidia_h100_sxm", "batch": 8, "input_len": 2048,
    "output_len": 256,
}  # fmt: skip
STACKS = ("kv_int8", "awq_w4+kv_int8", "chunked_prefill", "sliding_window")
needs_program = pytest.mark.skipif(
    PROGRAM is None, reason="no LibreOffice (soffice) here: apt install libreoffice-calc"
)


@pytest.fixture(scope="module")
def workbook(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a workbook that chooses from four stacks."""
    target = tmp_path_factory.mktemp("workbook") / "base.xlsx"
    export(load(), pl.DataFrame([ASKED]), str(target), STACKS)
    return target


@pytest.fixture(scope="module")
def formulas(workbook: Path) -> openpyxl.Workbook:
    """Return the workbook as another library reads it: its formulas, lists and charts."""
    return openpyxl.load_workbook(workbook)


def _is_same(shown: object, wanted: object) -> bool:
    if isinstance(wanted, float):
        return isinstance(shown, int | float) and abs(shown - wanted) <= 1e-9 * abs(wanted)
    return shown == wanted


def _differences(workbook: Path, scenario: Mapping[str, Any]) -> Iterator[tuple[object, ...]]:
    """Give every figure of a workbook that is not the engine's."""
    said = {c: v for c, v in scenario.items() if (c, v) != ("technique", "none")}
    serving, stages, operators = (
        answered(load(), pl.DataFrame([said]), by).drop(*said) for by in ("serving", "stage", "operator")
    )
    shown = {row[3]: row[1] for row in rows_of(workbook, "Serving")[3:]}
    assert len(serving.columns) > 70
    for column, wanted in serving.row(0, named=True).items():
        if not _is_same(shown[column], wanted):
            yield "serving", column, shown[column], wanted
    labels = {str(c["label"]): str(c["column_name"]) for c in load().columns("stages")}
    for label, *values in (row[:3] for row in rows_of(workbook, "Stages")[2:] if row[0] in labels):
        for stage, value in zip(("prefill", "decode"), values, strict=True):
            found = stages.filter(stage=stage)[labels[label]]
            if not _is_same(value, found[0] if found.len() else None):
                yield stage, label, value, found
    header, *rows = rows_of(workbook, "Operators")
    there = [r for row in rows if (r := dict(zip(header, row, strict=True)))["exists"] is True]
    assert len(there) == operators.height
    for row, wanted_row in zip(there, operators.iter_rows(named=True), strict=True):
        for column, wanted in wanted_row.items():
            if not _is_same(row[column], wanted):
                yield row["stage"], row["part"], row["operator"], column, row[column], wanted


def _recalculated_as_answered(workbook: Path, changes: list[dict[str, Any]], folder: Path) -> None:
    names = names_of(workbook)
    files = [edited(workbook, folder / f"{i}.xlsx", c, names) for i, c in enumerate(changes)]
    for change, file in zip(changes, recalculated(files, folder), strict=True):
        assert (change, list(itertools.islice(_differences(file, {**ASKED, **change}), 8))) == (change, [])


def test_a_workbook_carries_the_right_values_beside_its_formulas(workbook: Path) -> None:
    """Viewers show those until somebody calculates: serving, stages and operators are the engine's."""
    assert not list(_differences(workbook, ASKED))


def test_stacks_that_add_operators_have_formulas_of_their_own(tmp_path: Path) -> None:
    """A stack whose operators are others is another program in the same workbook."""
    target = tmp_path / "medusa.xlsx"
    asked = {**ASKED, "technique": "medusa"}
    export(load(), pl.DataFrame([asked]), str(target), ["kv_int8"])
    assert not list(_differences(target, asked))


@needs_program
def test_libreoffice_calculates_what_the_engines_give_whatever_is_typed(workbook: Path, tmp_path: Path) -> None:
    """Other batches, devices, models, precisions and techniques: dense, MoE, MLA, windows."""
    changes: list[dict[str, Any]] = [
        {"batch": 64, "hardware_id": "amd_mi300x"},
        {"model_id": "Qwen/Qwen3-30B-A3B", "technique": "kv_int8", "input_len": 300},
        {"model_id": "deepseek-ai/DeepSeek-V3", "tp": 8, "precision": "fp8", "technique": "chunked_prefill"},
        {"model_id": "google/gemma-3-27b-it", "technique": "awq_w4+kv_int8", "attention": "eager"},
    ]
    _recalculated_as_answered(workbook, changes, tmp_path)


@needs_program
@pytest.mark.slow
def test_sixty_combinations_calculate_alike(workbook: Path, tmp_path: Path) -> None:
    """Every pair of ten models and six settings of the rest."""
    models = (
        "meta-llama/Llama-2-7b-hf", "Qwen/Qwen3-8B", "mistralai/Mixtral-8x7B-v0.1", "Qwen/Qwen3-235B-A22B",
        "deepseek-ai/DeepSeek-V2-Lite", "deepseek-ai/DeepSeek-V3", "mistralai/Mistral-7B-v0.1", "google/gemma-3-27b-it",
        "nvidia/Nemotron-H-8B-Base-8K", "Qwen/Qwen3-Next-80B-A3B-Instruct",
    )  # fmt: skip
    settings: tuple[dict[str, Any], ...] = (
        {"batch": 1, "input_len": 1, "output_len": 1},
        {"batch": 200, "hardware_id": "nvidia_a100_80gb_sxm", "technique": "kv_int8", "tp": 2},
        {"technique": "awq_w4+kv_int8", "hardware_id": "nvidia_rtx_4090", "input_len": 12000},
        {"technique": "chunked_prefill", "precision": "fp8", "tp": 4, "pp": 2},
        {"technique": "sliding_window", "window_len": 512, "attention": "eager", "hardware_id": "amd_mi300x"},
        {"precision": "w4a16kv8", "weight_format": "nf4", "output_len": 0, "cached_len": 100, "ep": 2},
    )
    changes = [{"model_id": m, **s} for m in models for s in settings]
    for first in range(0, len(changes), 20):
        _recalculated_as_answered(workbook, changes[first : first + 20], tmp_path)


@needs_program
@pytest.mark.slow
def test_stacks_of_every_kind_calculate_alike(tmp_path: Path) -> None:
    """Stacks with a further model, with operators and with stages of their own, chosen inside the file."""
    target = tmp_path / "base.xlsx"
    stacks = [
        "speculative_decoding",
        "lora",
        "distillation",
        "medusa",
        "flash_decoding",
        "q_sparse",
        "early_exit",
        "eagle",
    ]
    export(load(), pl.DataFrame([ASKED]), str(target), stacks)
    changes = [{"technique": s, "model_id": m} for s, m in zip(
        stacks, itertools.cycle(("meta-llama/Meta-Llama-3.1-8B", "Qwen/Qwen3-30B-A3B", "deepseek-ai/DeepSeek-V3"))
    )]  # fmt: skip
    _recalculated_as_answered(target, changes, tmp_path)


@needs_program
def test_a_workbook_of_scenarios_calculates_the_one_that_is_chosen(tmp_path: Path) -> None:
    """Rows of a user's own sheet, with sizes left out, formats, techniques, a text that looks like a formula."""
    target = tmp_path / "rows.xlsx"
    rows = [
        {"site": "=2+3", **ASKED, "technique": None, "weight_format": None, "precision": None},
        {"site": "München", "model_id": "qwen3-30b-a3b", "hardware_id": "a100", "batch": None, "input_len": 800,
         "output_len": None, "technique": "kv_int8", "weight_format": "nf4", "precision": "w4a16kv16"},
        {"site": None, "model_id": "opt-125m", "hardware_id": "rtx-4090", "batch": 3, "input_len": None, "output_len": 7,
         "technique": "", "weight_format": None, "precision": "w8a8kv8"},
    ]  # fmt: skip
    frame = pl.DataFrame(rows, infer_schema_length=None).with_columns(
        ratio=pl.Series([1e-15, float("nan"), float("inf")])
    )
    export(load(), frame, str(target))
    names = names_of(target)
    files = [edited(target, tmp_path / f"{n}.xlsx", {"scenario": n}, names) for n in (2, 3)]
    for row, file in zip(rows[1:], recalculated(files, tmp_path), strict=True):
        said = {c: v for c, v in row.items() if v not in (None, "") and c != "site"}
        assert not list(itertools.islice(_differences(file, said), 8)), row["model_id"]
    listed = rows_of(target, "Scenarios")
    assert [r[0] for r in listed[2:]] == ["=2+3", "München", None]
    wanted = answered(load(), frame, "serving")["ttft_s"].to_list()
    assert [r[listed[1].index("ttft_s")] for r in listed[2:]] == pytest.approx(wanted, rel=1e-12)


def test_inputs_and_results_are_names_and_choices_are_lists(workbook: Path, formulas: openpyxl.Workbook) -> None:
    """A user's own formula may say ``=ttft_s*2``; ids, formats and stacks are chosen from lists."""
    names = names_of(workbook)
    # a calibration is its factors there
    told = {str(c["column_name"]) for c in load().columns("scenarios")} - {"calibration"}
    assert told | {"window_len"} <= names.keys()
    results = {str(c["column_name"]) for c in load().columns("serving")} - {
        "scenario_row",
        "question_id",
        "formats_id",
        "device_id",
    }
    assert results <= names.keys()
    assert names["ttft_s"].startswith("Serving!") and names["batch"].startswith("Inputs!")
    lists = {str(v.sqref): v.formula1 for v in formulas["Inputs"].data_validations.dataValidation if v.type == "list"}
    for column in ("model_id", "hardware_id", "precision", "weight_format", "technique", "attention"):
        assert names[column].rpartition("!")[2].replace("$", "") in lists
    assert [row[7] for row in rows_of(workbook, "Calculation")[1:6]] == ["none", *STACKS]
    assert formulas["Stages"]._charts
    assert {p.title for p in formulas.worksheets} >= {
        "Inputs", "Models", "Hardware", "Formats", "Operators", "Stages", "Serving", "Notes",
    }  # fmt: skip


def test_formulas_keep_the_limits_of_a_spreadsheet(formulas: openpyxl.Workbook) -> None:
    """At most 8,192 characters and 64 levels each; no macros and no links to other files."""
    count = 0
    for page in formulas.worksheets:
        for row in page.iter_rows():
            for cell in row:
                if cell.data_type == "f":
                    count += 1
                    deep = itertools.accumulate((c == "(") - (c == ")") for c in cell.value)
                    assert len(cell.value) <= 8192 and max(deep, default=0) <= 64, (page.title, cell.coordinate)
    assert count > 20_000
    assert not formulas._external_links and formulas.vba_archive is None


def test_a_users_text_is_never_a_formula() -> None:
    """Ids that begin like formulas are written as text."""
    tables = load()
    row = (
        tables["models"]
        .filter(model_id="Qwen/Qwen3-8B")
        .with_columns(model_id=pl.lit('=HYPERLINK("http://x")'), note=pl.lit("+1"), aliases=pl.lit("@x"))
    )
    target = io.BytesIO()
    asked = {**ASKED, "model_id": '=HYPERLINK("http://x")'}
    export(tables.extended("models", row), pl.DataFrame([asked]), target)
    book = openpyxl.load_workbook(target)
    assert book["Inputs"]["B4"].value == '=HYPERLINK("http://x")' and book["Inputs"]["B4"].data_type == "s"
    assert not [c for r in book["Models"].iter_rows() for c in r if c.data_type == "f"]


def test_the_papers_accounting_is_a_workbook_too(tmp_path: Path) -> None:
    """The other sheet's formulas give its own figures."""
    target = tmp_path / "paper.xlsx"
    asked = {"model_id": "meta-llama/Llama-2-7b-hf", "hardware_id": "llm_viewer/nvidia_A6000", "input_len": 2048}
    export(load(), pl.DataFrame([asked]), str(target), sheet="llm_viewer")
    wanted = answered(load(), pl.DataFrame([asked]), "stage", "llm_viewer").filter(stage="prefill")
    shown = {row[0]: row[1] for row in rows_of(target, "Stages")}
    assert _is_same(shown["Time"], wanted["time_s"][0]) and _is_same(shown["Operations"], wanted["ops"][0])


def test_mistakes_are_said_and_leave_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Unknown techniques, too many stacks, another ending, a folder that is not there."""
    target = tmp_path / "x.xlsx"
    for more, said in (
        (["--techniques", "kv_int9"], "kv_int8"), (["--techniques", ",".join("abcdefghi")], "at most 8"),
        (["--output", str(tmp_path / "x.csv")], "use .xlsx"), (["--output", str(tmp_path / "no" / "x.xlsx")], "folder"),
    ):  # fmt: skip
        assert main(["export", "Qwen/Qwen3-8B", "nvidia_h100_sxm", "--output", str(target), *more]) == 2
        assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    for command in ("export", "analyze"):
        # a folder where nothing can be made, not even by root
        assert main([command, "opt-125m", "nvidia_h100_sxm", "--output", "/proc/x.xlsx"]) == 2
        assert "cannot be written" in capsys.readouterr().err
    with pytest.raises(CalcError, match="no scenario column"):
        calc.export({**ASKED, "bach": 1}, io.BytesIO())


@pytest.mark.parametrize(
    ("formula", "values", "wanted"),
    [
        ("a AND b", {"a": False, "b": None}, False), ("a AND b", {"a": True, "b": None}, None),
        ("a OR b", {"a": None, "b": True}, True), ("NOT a", {"a": None}, None),
        ("CASE WHEN a THEN 1 ELSE 2 END", {"a": None}, 2.0), ("GREATEST(a, b)", {"a": None, "b": 3.0}, 3.0),
        ("LEAST(a, b)", {"a": None, "b": None}, None), ("COALESCE(a, b, 7)", {"a": None, "b": None}, 7.0),
        ("a / b", {"a": 1.0, "b": 0.0}, None), ("NULLIF(a, 0)", {"a": 0.0}, None), ("a IN (1, 2)", {"a": 2.0}, True),
        ("CEIL(a) - FLOOR(a)", {"a": -1.5}, 1.0), ("POW(a, b)", {"a": 0.9375, "b": 16384.0}, 0.0),
        ("a || 'x'", {"a": "y"}, "yx"), ("a LIKE 'Amp%'", {"a": "Ampere"}, True), ("-POW(a, 2)", {"a": 3.0}, -9.0),
        ("a - (b - 1)", {"a": 5.0, "b": 2.0}, 4.0), ("a = b", {"a": None, "b": 1.0}, None),
    ],
)  # fmt: skip
def test_a_formula_gives_in_python_what_it_gives_in_sql(formula: str, values: dict[str, Any], wanted: object) -> None:
    """Three truth values, extremes that leave out what is unknown, and no error from zero or from a tiny power."""
    assert value_of(parse(formula), values) == wanted


@needs_program
def test_a_formula_gives_in_a_spreadsheet_what_it_gives_in_python(tmp_path: Path) -> None:
    """Each of the constructs over every mixture of values, those unknown among them."""
    formulas = (
        "a AND b", "a OR b", "NOT (a AND b)", "NOT a OR b", "CASE WHEN a THEN x WHEN b THEN y ELSE 1 END",
        "GREATEST(x, y)", "LEAST(x, y, 3)", "COALESCE(x, y, 7)", "x / y", "NULLIF(x, y)", "x IN (1, 2)", "x IS NULL",
        "CEIL(x) - FLOOR(y)", "POW(x, y)", "-POW(x, 2)", "x - (y - 1)", "x = y OR x > y", "CASE WHEN NOT (a AND b) THEN 1 END",
        "IF(x > y AND NOT b, 'one', 'other')",
    )  # fmt: skip
    values = [
        (a, b, x, y) for a in (True, False, None) for b in (True, None) for x in (2.0, None, 0.0) for y in (1.5, None)
    ]
    target = tmp_path / "values.xlsx"
    book, wanted = Book(str(target)), []
    for row, told in enumerate(values):
        names = Names()
        for at, (name, value) in enumerate(zip("abxy", told, strict=True)):
            cell = f"{chr(65 + at)}{row + 1}"
            book.formula("Inputs", row, at, "NA()" if value is None else str(value).upper(), value)
            names.put(name, cell, value)
        found = [value_of(parse(f), names.value) for f in formulas]
        for at, formula in enumerate(formulas, 4):
            # no value beside the formula: what is compared was calculated
            book.formula("Inputs", row, at, names.printer().formula(parse(formula)), "")
        wanted.append(found)
    book.close()
    shown = rows_of(recalculated([target], tmp_path)[0], "Inputs")
    for told, row, mine in zip(values, shown, wanted, strict=True):
        for formula, value, want in zip(formulas, row[4:], mine, strict=True):
            value = None if value == "#DIV/0!" else value
            assert _is_same(value, float(want) if isinstance(want, int) and not isinstance(want, bool) else want), (
                formula,
                told,
            )
