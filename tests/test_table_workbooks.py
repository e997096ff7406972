"""Slices of grids and other answers as workbooks: tables with filters, colours, and a long form for pivots."""

from __future__ import annotations

import io
from pathlib import Path

import openpyxl
import polars as pl
import pytest
from spreadsheet import PROGRAM, recalculated, rows_of

import calc
from calc.__main__ import main
from calc.errors import CalcError
from calc.tables import load
from calc.workbook import tables as workbook_tables
from calc.workbook.tables import write_table

SPEC = {
    "by": "serving", "columns": ["ttft_s", "tpot_s", "fits", "output_tokens_per_s"],
    "axes": {"model": ["opt-125m", "llama-3-8b"], "hardware": ["a100", "h100", "l40s"], "batch": [1, 8], "precision": ["w16a16kv16", "fp8"]},
}  # fmt: skip


@pytest.fixture(scope="module")
def slice_of_a_grid(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pl.DataFrame]:
    """Return a workbook of some rows of a grid, and those rows."""
    folder = tmp_path_factory.mktemp("grid")
    calc.build_grid(SPEC, folder / "grid")
    target = folder / "slice.xlsx"
    query = (
        "select model_id, hardware_id, batch, precision, ttft_s, tpot_s, fits, output_tokens_per_s from serving "
        "where batch = 8 order by all"
    )
    assert main(["sql", "--grid", str(folder / "grid"), query, "--output", str(target)]) == 0
    return target, calc.connect(grid=folder / "grid").sql(query).pl()


def test_a_slice_is_a_real_table_with_filters_and_colours(slice_of_a_grid: tuple[Path, pl.DataFrame]) -> None:
    """Rows as the query gave them; numbers coloured by their size; units on a sheet of their own."""
    target, wanted = slice_of_a_grid
    book = openpyxl.load_workbook(target)
    page = book["Table"]
    table = page.tables["Table"]
    assert table.autoFilter is not None and page.freeze_panes == "A2"
    header, *rows = rows_of(target, "Table")
    assert list(header) == wanted.columns and wanted.height == 12
    for shown, row in zip(rows, wanted.iter_rows(), strict=True):
        assert list(shown) == [pytest.approx(v, rel=1e-15) if isinstance(v, float) else v for v in row]
    coloured = {str(c.sqref)[0] for c in page.conditional_formatting}
    assert coloured == {"E", "F", "H"}
    units = {row[0]: row[1] for row in rows_of(target, "Columns")}
    assert units["ttft_s"] == "s" and units["output_tokens_per_s"] == "1/s"


def test_the_long_form_has_a_row_for_every_metric(slice_of_a_grid: tuple[Path, pl.DataFrame]) -> None:
    """Keys, metric, value, unit: what a pivot table is made from."""
    target, wanted = slice_of_a_grid
    header, *rows = rows_of(target, "Pivot")
    assert set(header) == {"model_id", "hardware_id", "batch", "precision", "fits", "metric", "value", "unit"}
    long = pl.DataFrame(rows, schema=list(header), orient="row", infer_schema_length=None)
    assert long.height == 3 * wanted.height
    back = long.pivot("metric", index=["model_id", "hardware_id", "batch", "precision"], values="value")
    both = wanted.join(back, on=["model_id", "hardware_id", "precision"], suffix="_back")
    assert both.height == wanted.height
    for metric in ("ttft_s", "tpot_s", "output_tokens_per_s"):
        assert both[f"{metric}_back"].to_list() == pytest.approx(both[metric].to_list(), rel=1e-15)


@pytest.mark.skipif(PROGRAM is None, reason="no LibreOffice (soffice) here: apt install libreoffice-calc")
def test_a_spreadsheet_program_reads_it(slice_of_a_grid: tuple[Path, pl.DataFrame], tmp_path: Path) -> None:
    """LibreOffice gives every cell back."""
    target, _ = slice_of_a_grid
    again = recalculated([target], tmp_path)[0]
    for sheet in ("Table", "Pivot", "Columns"):
        assert rows_of(again, sheet) == [
            tuple(pytest.approx(v, rel=1e-14) if isinstance(v, float) else v for v in row)
            for row in rows_of(target, sheet)
        ]


def test_odd_names_and_values_are_written_as_they_are() -> None:
    """Names that differ in case alone, lists, texts like formulas, infinities, unknown values, no row at all."""
    frame = pl.DataFrame({
        "a": ["=1+1", "@x"], "A": [1, 2], "list": [[1, 2], []], "size": [float("inf"), None], "ttft_s": [0.5, None],
        "yes": [True, None],
    }, strict=False)  # fmt: skip
    target = io.BytesIO()
    write_table(load(), frame, target)
    page = openpyxl.load_workbook(target)["Table"]
    assert [c.value for c in page[1]] == ["a", "A (2)", "list", "size", "ttft_s", "yes"]
    assert page["A2"].value == "=1+1" and page["A2"].data_type == "s"
    assert page["D3"].value is None and page["E2"].value == 0.5
    empty = io.BytesIO()
    write_table(load(), frame.head(0), empty)
    assert openpyxl.load_workbook(empty)["Table"].max_row <= 2


def test_more_than_a_sheet_holds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its size and what to take instead; a long form that would be too long is left out."""
    with pytest.raises(CalcError, match=r"1,048,576 rows of 1 columns.*CSV or Parquet"):
        write_table(load(), pl.DataFrame({"x": pl.int_range(1_048_576, eager=True)}), io.BytesIO())
    monkeypatch.setattr(workbook_tables, "MOST_ROWS", 3)
    target = io.BytesIO()
    write_table(load(), pl.DataFrame({"ttft_s": [1.0, 2.0], "tpot_s": [1.0, 2.0]}), target)
    assert openpyxl.load_workbook(target).sheetnames == ["Table", "Columns"]
