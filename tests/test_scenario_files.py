"""Scenarios from a user's own files: what is read as a scenario, what comes back, and what is refused by row."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import openpyxl
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import calc
from calc.__main__ import main
from calc.errors import CalcError
from calc.output import write

ROWS = pl.DataFrame({
    "model": ["opt-125m", "llama-3-8b"], "hardware": ["a100", "h100"], "batch": [4.0, None], "input_len": [100.0, 2000.0],
    "technique": [None, "kv_int8"], "site": ["Zürich, \"1\"\nroom 2", "=1+1"], "volume": [1e15, 1e-15],
})  # fmt: skip
TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff"), max_size=20)
NAMES = TEXTS.map(lambda t: f"my {t.strip()}")


def _written(frame: pl.DataFrame, path: Path) -> Path:
    if path.suffix == ".xlsx":
        _workbook(frame, path)
    else:
        write(frame, str(path))
    return path


def _workbook(frame: pl.DataFrame, path: Path) -> None:
    book = openpyxl.Workbook()
    page = book.worksheets[0]
    page.append(frame.columns)
    for row in frame.iter_rows():
        page.append(row)
    for cells in page.iter_rows(min_row=2):
        for cell in cells:
            if isinstance(cell.value, str):
                cell.data_type = "s"
    book.save(path)


@pytest.mark.parametrize("ending", ["csv", "xlsx", "parquet", "json"])
def test_every_kind_of_file_asks_the_same(ending: str, tmp_path: Path) -> None:
    """Names without the id, empty fields, the user's own columns as they were."""
    found = calc.read_scenarios(_written(ROWS, tmp_path / f"rows.{ending}"))
    wanted = calc.evaluate(ROWS.rename({"model": "model_id", "hardware": "hardware_id"}), by="serving").collect()
    shown = calc.evaluate(found, by="serving").collect()
    assert shown["ttft_s"].to_list() == wanted["ttft_s"].to_list()
    assert shown["site"].to_list() == ROWS["site"].to_list()
    assert [float(v) for v in shown["volume"]] == ROWS["volume"].to_list()


@pytest.mark.parametrize("ending", ["csv", "xlsx", "parquet"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=NAMES, texts=st.lists(TEXTS, min_size=2, max_size=2), size=st.floats(1e-15, 1e15), batch=st.integers(1, 10**6)
)
def test_odd_columns_come_back(
    ending: str, name: str, texts: list[str], size: float, batch: int, tmp_path: Path
) -> None:
    """Unicode, commas, quotes and formulas in a user's own columns; sizes as they were."""
    asked = pl.DataFrame({
        "model_id": ["opt-125m", "opt-1.3b"], "hardware_id": ["a100", "h100"], "batch": [batch, 1], name: texts, "size_of_it": [size, -size],
    })  # fmt: skip
    found = calc.read_scenarios(_written(asked, tmp_path / f"odd.{ending}"))
    kept = next(c for c in found.columns if c not in ("model_id", "hardware_id", "batch", "size_of_it"))
    assert kept == name.strip()
    assert [v or "" for v in found[kept]] == texts
    # writers of workbooks give sixteen digits
    near = pytest.approx([size, -size], rel=1e-15 if ending == "xlsx" else 0, abs=0)
    assert [float(v) for v in found["size_of_it"]] == near
    assert found["batch"].to_list() == [batch, 1]


def test_a_workload_fills_the_sizes_that_are_empty(tmp_path: Path) -> None:
    """A size that is said stays."""
    path = tmp_path / "w.csv"
    path.write_text("model,hardware,workload,batch\nopt-125m,a100,chat,7\nopt-125m,a100,chat,\n")
    found = calc.read_scenarios(path)
    assert found["batch"].to_list() == [7, 1]
    assert found["input_len"].to_list() == [161, 161]


def test_dates_and_mixtures_of_a_spreadsheet_come_back(tmp_path: Path) -> None:
    """A column of dates stays one, one of several kinds is text; a formula gives its value."""
    book = openpyxl.Workbook()
    page = book.worksheets[0]
    for row in (("model", "hardware", "when", "note"), ("opt-125m", "a100", datetime(2026, 1, 2), "x"),
                (None, None, None, None), ("opt-1.3b", "h100", None, 3)):  # fmt: skip
        page.append(row)
    book.save(tmp_path / "d.xlsx")
    found = calc.read_scenarios(tmp_path / "d.xlsx")
    assert found["when"].to_list() == [datetime(2026, 1, 2), None]
    assert found["note"].to_list() == ["x", "3"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("model,hardware,batch\nopt-125m,a100,many\n", "row 2, batch: 'many' is not a number"),
        ("model,hardware,batch\nopt-125m,a100,nan\n", "row 2, batch: 'nan' is not a number"),
        ("model,model_id,hardware\na,b,c\n", "'model_id' twice"), ("model,hardware\n", "no row"), ("", "is empty"),
        ("model,hardware,workload\nopt-125m,a100,chess\n", "row 2: unknown workload 'chess'"),
        ("model,hardware\nopt-125m\n", "row 2: has 1 fields"), ("model,batch\nopt-125m,1\n", "no column 'hardware_id'"),
        ("model;hardware\nopt-125m;a100\n", "commas between the fields"),
        ("model,hardware,a\x00b\nopt-125m,a100,1\n", "has a NUL"),
        ("model,hardware\nopt-126m,a100\n", "unknown model 'opt-126m'"),
        ("model,hardware,time_s\nopt-125m,a100,1\n", "bears the name of a result"),
    ],
)  # fmt: skip
def test_mistakes_are_named_by_row_and_column(
    content: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command says what is wrong where, and gives no traceback."""
    path = tmp_path / "bad.csv"
    path.write_text(content)
    assert main(["analyze", "--scenarios", str(path)]) == 2
    assert said in capsys.readouterr().err


def test_files_that_are_none(tmp_path: Path) -> None:
    """No file, another ending, a workbook that is none, an empty one, a header with a hole."""
    (tmp_path / "x.xlsx").write_bytes(b"PK no workbook")
    openpyxl.Workbook().save(tmp_path / "empty.xlsx")
    book = openpyxl.Workbook()
    book.worksheets[0].append(["model", None, "hardware"])
    book.worksheets[0].append(["a", "b", "c"])
    book.save(tmp_path / "hole.xlsx")
    for name in ("no.csv", "x.ods", "x.xlsx", "empty.xlsx", "hole.xlsx", "no.xlsx"):
        with pytest.raises(CalcError, match=name.partition(".")[0]):
            calc.read_scenarios(tmp_path / name)


def test_a_command_asks_a_file_and_keeps_its_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Options are of every row; one that the file says too is refused."""
    path = _written(ROWS, tmp_path / "rows.csv")
    target = tmp_path / "answers.parquet"
    assert (
        main(["analyze", "--scenarios", str(path), "--precision", "fp8", "--by", "serving", "--output", str(target)])
        == 0
    )
    found = pl.read_parquet(target)
    assert found["precision"].to_list() == ["fp8", "fp8"] and found["site"].to_list() == ROWS["site"].to_list()
    assert main(["analyze", "--scenarios", str(path), "--batch", "3"]) == 2
    assert "said twice" in capsys.readouterr().err
    assert main(["analyze"]) == 2
