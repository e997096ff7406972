"""What notebooks see: a result shows itself, its charts and explanations; the example notebook runs; JSON has a schema."""

from __future__ import annotations

import io
import json
from pathlib import Path

import jsonschema
import nbformat
import openpyxl
import polars as pl
import pytest
from conftest import ROOT
from nbclient import NotebookClient

import calc
import calc.result
from calc.__main__ import main
from calc.errors import CalcError

TOUR = ROOT / "data" / "examples" / "tour.ipynb"


@pytest.fixture(scope="module")
def result() -> calc.result.Result:
    """OPT 1.3B on an A100, batch 4."""
    return calc.ask("opt-1.3b", "a100", batch=4, technique="kv_int8")


def test_a_result_is_what_analyze_gives(result: calc.result.Result) -> None:
    """At every grain; a figure by its name."""
    asked = {"batch": 4, "technique": "kv_int8"}
    for by, frame in (("serving", result.serving), ("stage", result.stages)):
        assert frame.equals(calc.analyze("opt-1.3b", "a100", by=by, **asked).select(frame.columns))
    times = result.operators.group_by("stage").agg(pl.col("share").sum())
    assert times["share"].to_list() == pytest.approx([1, 1], rel=1e-9)
    assert result["tpot_s"] == result.serving["tpot_s"][0]
    with pytest.raises(CalcError, match="did you mean 'tpot_s'"):
        result["tpot"]
    assert result.engine("vllm") == calc.engine_command({"model": "opt-1.3b", "hardware": "a100", **asked}, "vllm")
    assert result.explain("tpot_s").value == pytest.approx(result["tpot_s"], rel=1e-12)


def test_a_result_shows_itself(result: calc.result.Result) -> None:
    """As lines and as a table, in units, with the same values; names of the user's are no markup."""
    tpot = f"{result['tpot_s'] * 1e3:.4g} ms"
    assert f"Time per output token: {tpot}" in repr(result)
    assert f"<td>{tpot}</td>" in result._repr_html_()
    assert result.explain("tpot_s")._repr_markdown_().startswith("```text\ntpot_s = ")
    tables = result.tables.extended(
        "models", result.tables["models"].filter(model_id="facebook/opt-1.3b").with_columns(
            model_id=pl.lit("me/<script>"), aliases=pl.lit(None, pl.String)
        )
    )  # fmt: skip
    mine = calc.result.Result(tables, pl.DataFrame({"model_id": ["me/<script>"], "hardware_id": ["a100"]}))
    assert "<script>" not in mine._repr_html_()


def test_charts_of_a_result(result: calc.result.Result) -> None:
    """Valid Vega-Lite that holds the result's own figures."""
    drawn = {n: getattr(result, n)().to_dict() for n in ("roofline", "time", "memory")}
    held = [row["held_bytes"] for rows in drawn["memory"]["datasets"].values() for row in rows if "held_bytes" in row]
    assert sum(held) == pytest.approx(result["memory_needed_bytes"], rel=1e-12)
    points = [row for rows in drawn["roofline"]["datasets"].values() for row in rows if "Operator" in row]
    assert len(points) == result.operators.filter(pl.col("ops") > 0, pl.col("arithmetic_intensity") > 0).height
    (points,) = result.curve("batch", [1, 4], "tpot_s").to_dict()["datasets"].values()
    assert [p["y"] for p in points][1] == result["tpot_s"]
    with pytest.raises(CalcError, match="no scenario column"):
        result.curve("btch", [1])
    with pytest.raises(CalcError, match="no figure"):
        result.curve("batch", [1], "tpot")


def test_unknown_facts_are_said(tmp_path: Path) -> None:
    """A device without a bandwidth has no roofline; a result is of one scenario."""
    known = calc.result.Result(
        calc.ask("opt-1.3b", "a100").tables, pl.DataFrame({"model_id": ["opt-1.3b"], "hardware_id": ["a100"]})
    )
    hardware = known.tables["hardware"]
    bare = hardware.filter(pl.col("memory_bandwidth_bytes_per_s").is_null())
    for device in bare["hardware_id"].head(1):
        with pytest.raises(CalcError, match="bandwidth"):
            calc.ask("opt-1.3b", device).roofline()
    with pytest.raises(CalcError, match="one scenario"):
        calc.ask("opt-1.3b", "a100", batch=[1, 2])


def test_a_result_is_exported(result: calc.result.Result) -> None:
    """As the workbook of the question."""
    target = io.BytesIO()
    result.export(target)
    book = openpyxl.load_workbook(target, read_only=True, data_only=True)
    shown = {row[3].value: row[1].value for row in book["Serving"].iter_rows(max_col=4)}
    assert shown["tpot_s"] == pytest.approx(result["tpot_s"], rel=1e-12)


@pytest.mark.parametrize("sheet", ["exact", "llm_viewer"])
@pytest.mark.parametrize("by", ["operator", "stage", "serving"])
def test_json_keeps_its_schema(by: str, sheet: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What commands write validates, of models of every kind; another type or a missing figure does not."""
    assert main(["schema", "--by", by, "--sheet", sheet]) == 0
    schema = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for model in ("opt-125m", "deepseek-v3", "mamba2-2.7b", "bert-base-uncased"):
        path = tmp_path / "rows.json"
        asked = ["analyze", model, "h100", "--by", by, "--sheet", sheet, "--output", str(path)]
        if main(asked):
            continue  # the paper's accounting does not know every architecture
        rows = json.loads(path.read_text(encoding="utf-8"))
        assert rows and not list(validator.iter_errors(rows))
        figure = next(k for k in schema["items"]["required"] if schema["items"]["properties"][k]["type"][0] == "number")
        assert list(validator.iter_errors([rows[0] | {figure: "many"}]))
        assert list(validator.iter_errors([{k: v for k, v in rows[0].items() if k != figure}]))


def test_units_of_the_schema_are_the_dictionarys(capsys: pytest.CaptureFixture[str]) -> None:
    """Each property says its unit and label; another grain is refused in a line."""
    main(["schema"])
    properties = json.loads(capsys.readouterr().out)["items"]["properties"]
    assert properties["tpot_s"]["unit"] == "s" and properties["weight_memory_bytes"]["unit"] == "byte"
    assert properties["batch"]["type"] == ["integer", "null"] and properties["batch"]["minimum"] == 1
    assert main(["schema", "--by", "token"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_the_example_notebook_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each cell, in a kernel of its own, gives what it is there for; it is kept without outputs."""
    notebook = nbformat.read(TOUR, as_version=4)
    assert not any(c.get("outputs") for c in notebook.cells)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(TOUR.parent)}}).execute()
    shown = {c.source: [o for o in c.outputs if o.output_type != "stream" or o.name == "stdout"]
             for c in notebook.cells if c.cell_type == "code"}  # fmt: skip
    assert all(shown.values())
    charts = [
        s for s in shown if s.startswith("answer.") and s.split("(")[0][7:] in ("roofline", "time", "memory", "curve")
    ]
    assert len(charts) == 4 and all("vegaEmbed" in shown[s][-1]["data"]["text/html"] for s in charts)
    (first,) = [o for s, o in shown.items() if "calc.ask" in s]
    wanted = calc.analyze("llama-3-8b", "h100", batch=16, input_len=2048, output_len=256, by="serving")["tpot_s"][0]
    assert f"{wanted * 1e3:.4g} ms" in first[-1]["data"]["text/html"]
