"""The dashboard's further pages, without a browser: what each shows, what each control does, what bad input looks like."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from streamlit.testing.v1 import AppTest

import calc
from calc.calibration.expected import errors_told
from calc.display import link, quantity
from calc.evaluation import answered
from calc.measured import measurements
from calc.stacks import what_helps
from calc.tables import ROOT, load
from calc.ui import curves, survey, warm
from calc.ui.answers import Question
from calc.ui.data_page import merged
from calc.validation import compared

SMALL, SMALLER = "facebook/opt-1.3b", "facebook/opt-125m"


@pytest.fixture(autouse=True)
def no_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the dashboard from building a grid that no test here asks."""
    monkeypatch.setenv("CALC_GRID", "none")


def opened(page: str, **query: str | list[str]) -> AppTest:
    """Open a page at a URL's parameters."""
    at = AppTest.from_string(f"from calc.ui import {page}\n{page}.page()", default_timeout=180)
    for key, value in query.items():
        at.query_params[key] = value
    at.run()
    assert not at.exception
    return at


def set_to(at: AppTest, key: str, value: object) -> AppTest:
    """Change one control."""
    at.get_by_key(key).set_value(value)
    at.run()
    assert not at.exception
    return at


def charts(at: AppTest) -> list[dict[str, Any]]:
    """Return the charts' specifications with their data, as the browser gets them."""
    found = []
    for chart in at.get("vega_lite_chart"):
        spec = json.loads(chart.proto.spec)
        spec["rows"] = [d.data.data for d in chart.proto.datasets]
        found.append(spec)
    return found


def table(at: AppTest, place: int = -1) -> pl.DataFrame:
    """Return one of the tables."""
    return pl.from_pandas(at.dataframe[place].value)


def code(at: AppTest, language: str) -> str:
    """Return what reproduces the page in a language."""
    return next(str(c.value) for c in at.code if c.language == language)


# curves


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("x", "input_len"), ("x", "tp"), ("x", "weight_format"), ("x", "bandwidth_factor"), ("y", "tpot_s"),
        ("y", "stage time_s"), ("most_batch", 64), ("log_x", False), ("log_y", False), ("by", "technique"),
        ("by", "model_id"), ("by", "hardware_id"), ("line_precision", ["w4a16kv16"]), ("model", SMALLER), ("batch", 3),
    ],
)  # fmt: skip
def test_each_control_changes_the_curves(key: str, value: object) -> None:
    """No control is for show; what x says replaces what the sidebar says of it."""
    at = opened("curves", model=SMALL)
    if key == "batch":
        at = set_to(at, "x", "input_len")
    before = charts(at)
    assert before and charts(set_to(at, key, value)) != before


def test_what_slow_pages_need_is_made_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then nothing is asked again; a question that has no answer is left for its page to tell."""
    asked = Question((("model_id", SMALL), ("hardware_id", "nvidia_a100_80gb_sxm")))
    version = (str(load().folder), 1, 1)
    monkeypatch.setattr(warm, "SLOW", ("choose_hardware", "survey"))
    warm.make(asked, version)
    monkeypatch.setattr(survey, "connect", None)
    monkeypatch.setattr(survey, "_connected", None)
    assert survey._asked("table_1", (), version).height == 48
    monkeypatch.setattr(warm, "SLOW", ("choose_hardware", "what_helps"))
    warm.make(Question((("model_id", "none such"), ("hardware_id", "a6000"))), version)


def test_curves_are_the_calculators() -> None:
    """What the page gives as Python gives the points that it draws."""
    at = set_to(opened("curves", model=SMALL, most_batch="100"), "y", "tpot_s")
    names: dict[str, Any] = {}
    text = code(at, "python")
    exec(text.replace("calc.evaluate(", "found = calc.evaluate("), names)
    wanted = calc.evaluate(
        calc.scenarios(
            model=SMALL, hardware="a6000", precision=["w16a16kv16", "w8a8kv8", "w4a16kv16"], input_len=2048,
            batch=names["found"]["batch"].unique(maintain_order=True).to_list(),
        ), by="serving",
    ).select("tpot_s").collect()["tpot_s"].sort()  # fmt: skip
    assert names["found"].height == wanted.len() > 60
    assert names["found"]["tpot_s"].sort().to_list() == pytest.approx(wanted.to_list(), rel=1e-12)


def test_both_stages_are_drawn() -> None:
    """A figure of stages has a chart for each."""
    at = set_to(opened("curves", model=SMALL), "y", "stage time_s")
    assert [h.value for h in at.subheader] == ["Time over batch, prefill", "Time over batch, decode"]
    assert len(charts(at)) == 2


def test_crossings_are_where_lines_cross() -> None:
    """By hand: y = x and y = 10 - x cross at 5; in logarithms a power law crosses another where they are equal."""
    lines = pl.DataFrame(
        {"line": ["a"] * 3 + ["b"] * 3, "x": [0.0, 4.0, 10.0] * 2, "y": [0.0, 4.0, 10.0, 10.0, 6.0, 0.0]}
    )
    found = curves.crossed(lines, (False, False), "")
    assert found.select("x", "y").rows() == [(pytest.approx(5), pytest.approx(5))]
    x = [1.0, 10.0, 1000.0]
    powers = pl.DataFrame({"line": ["a"] * 3 + ["b"] * 3, "x": x * 2, "y": [*x, *(100 / v for v in x)]})
    found = curves.crossed(powers.filter(pl.col("x") != 10), (True, True), "")
    assert found.select("x", "y").rows() == [(pytest.approx(10), pytest.approx(10))]


def test_no_line_says_so() -> None:
    """An empty choice, and a question that has no answer."""
    at = set_to(opened("curves", model=SMALL), "line_precision", [])
    assert "at least one precision" in at.info[0].value
    assert "both 0" in opened("curves", input_len="0", output_len="0").error[0].value


# hardware


def test_the_cheapest_deployment_is_the_cheapest() -> None:
    """Of every device, precision, tp and number of replicas: asked again one by one."""
    at = opened(
        "choose_hardware", model=SMALL, users="16", limit_tpot="5", limit_ttft="200", limit_devices="4",
        precisions=["w16a16kv16", "w8a8kv8"], vendors=["NVIDIA"],
    )  # fmt: skip
    rows = []
    devices = calc.hardware().filter(~pl.col("hardware_id").str.contains("/"), kind="gpu", vendor="NVIDIA")
    for tp, dp in [(1, 1), (1, 2), (1, 4), (2, 1), (2, 2), (4, 1)]:
        asked = calc.scenarios(
            model=SMALL, hardware=devices["hardware_id"].to_list(), precision=["w16a16kv16", "w8a8kv8"], tp=tp, dp=dp,
            batch=-(-16 // dp), input_len=2048, output_len=128, technique="chunked_prefill",
        )  # fmt: skip
        rows.append(calc.evaluate(asked, by="serving").collect())
    kept = pl.concat(rows).filter("fits", pl.col("ttft_s") <= 0.2, pl.col("tpot_s") <= 0.005)
    best = kept.drop_nulls("usd_per_million_output_tokens").group_by("hardware_id").agg(pl.col("usd_per_million_output_tokens").min())  # fmt: skip
    wanted = best.join(devices, on="hardware_id").sort("usd_per_million_output_tokens", "name")
    shown = table(at, 0)
    assert shown.height == wanted.height > 3
    assert shown["usd_per_million_output_tokens"].to_list() == pytest.approx(
        wanted["usd_per_million_output_tokens"].to_list(), rel=1e-12
    )
    assert str(wanted["name"][0]) in at.success[0].value


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("limit_ttft", 20), ("limit_tpot", 2), ("limit_usd", 0.05), ("limit_devices", 1), ("users", 4),
        ("input_len", 512), ("output_len", 512), ("precisions", ["w4a16kv16"]), ("kinds", ["tpu"]),
        ("vendors", ["AMD"]), ("technique_serve", []), ("every", True), ("model", SMALLER),
    ],
)  # fmt: skip
def test_each_control_changes_the_choice(key: str, value: object) -> None:
    """Limits, workload and candidates."""
    at = opened("choose_hardware", model=SMALL, users="16", precisions=["w16a16kv16", "w8a8kv8"], limit_usd="5")
    before = table(at, 0)
    assert not table(set_to(at, key, value), 0).equals(before)


def test_a_link_names_the_model_by_an_alias() -> None:
    """A page that is opened by another spelling asks that model, not the first of the list."""
    key, aliases = load()["models"].select("model_id", "aliases").drop_nulls().row(-1)
    alias = aliases.split("|")[0].upper()
    at = opened("choose_hardware", model=alias, users="4")
    assert at.get_by_key("model").value == key


def test_what_is_rejected_says_why() -> None:
    """Limits that nothing keeps leave every device with what it misses."""
    at = opened("choose_hardware", model=SMALL, limit_tpot="1", limit_ttft="1", users="2000", limit_devices="1")
    assert "No deployment that fits" in at.warning[0].value
    lost = table(at, 0)
    assert lost.height > 50 and lost["reason"].str.contains("is above|not known|does not|memory").all()
    at = set_to(at, "kinds", [])
    assert "Choose at least one kind" in at.info[0].value


def test_a_price_gives_a_break_even() -> None:
    """A price of ten times the own cost is beaten at a load; one far below it never."""
    at = opened("choose_hardware", model=SMALL, vendors=["NVIDIA"], api_output="100")
    found = table(at)
    assert found["break_even_requests_per_day"].drop_nulls().min() > 0
    cheap = table(set_to(at, "api_output", 0.0001))
    assert cheap["reason"].str.contains("cheaper at any load").all()


# what helps


def test_techniques_are_ranked_and_added_up() -> None:
    """As the view ranks them; a stack's steps multiply to the whole; what does not apply says why."""
    at = opened("what_helps", model=SMALLER, technique=["awq_w4", "kv_int8"])
    scenario = {
        "model_id": SMALLER, "hardware_id": "nvidia_rtx_a6000", "batch": 1, "input_len": 2048, "output_len": 128,
        "technique": "awq_w4+kv_int8",
    }  # fmt: skip
    wanted = what_helps(load(), scenario)
    shown = table(at, 0)
    ranked = wanted.filter("applies").sort("throughput_rank", "technique", nulls_last=True)
    assert shown["technique"].to_list() == ranked["technique"].to_list()
    assert shown["throughput_change"].to_list() == pytest.approx(ranked["throughput_change"].to_list(), rel=1e-9)
    assert set(table(at, 1)["technique"]) == set(wanted.filter(~pl.col("applies"))["technique"])
    assert table(at, 1)["reason"].null_count() == 0
    assert len(charts(at)) == 1
    now = next(c.value for c in at.caption if c.value.startswith("Now: "))
    assert "time to first token" in now and "USD per million output tokens" in now
    by_memory = table(set_to(at, "rank_by", "memory"), 0)
    assert by_memory["technique"].to_list() != shown["technique"].to_list()
    assert set(table(set_to(at, "groups", ["compression"]), 0)["technique"]) < set(shown["technique"])
    before = charts(at)
    assert charts(set_to(at, "waterfall", "memory_needed_bytes")) != before
    at = set_to(at, "sheet", "llm_viewer")
    assert "choose it in the sidebar" in at.info[0].value


# compare


def test_scenarios_side_by_side() -> None:
    """Each figure is the calculator's, each change is against the first; links reproduce it."""
    at = opened("compare", model=SMALL, model_b=SMALLER, precision_b="w16a16kv16", batch_b="4", many="3")
    shown = table(at)
    a, b = (
        calc.analyze(m, "a6000", batch=n, input_len=2048, by="serving").row(0, named=True)
        for m, n in ((SMALL, 1), (SMALLER, 4))
    )
    row = shown.row(by_predicate=pl.col("figure") == "Time per output token", named=True)
    assert row["B_change"] == pytest.approx(b["tpot_s"] / a["tpot_s"] - 1, rel=1e-12)
    assert {"A", "B", "C", "B_change", "C_change"} < set(shown.columns)
    assert "model_id facebook/opt-1.3b" not in at.caption[-1].value
    fewer = set_to(at, "many", "2")
    assert "C" not in table(fewer).columns
    assert table(set_to(fewer, "hardware_b", "H100 80GB SXM5")).rows() != table(opened("compare", model=SMALL)).rows()
    at = opened("compare", input_len_b="0", output_len_b="0")
    assert "both 0" in at.error[0].value and not charts(at)


def test_own_rows_are_pasted() -> None:
    """With their header, as a spreadsheet copies them; own columns come back; a mistake leaves the rows as they are."""
    at = opened("compare", many="Your own rows")
    assert table(at).height == 1
    at = set_to(
        at,
        "own_pasted",
        f'site\tmodel\thardware\tbatch\tnote\n"O""slo"\t{SMALL}\ta6000\t4\t=1+1\nRom\topt-125m\th100\t\t\n',
    )
    shown = table(at)
    assert shown.select("site", "note").rows() == [('O"slo', "=1+1"), ("Rom", "")]
    wanted = calc.analyze(SMALL, "a6000", batch=4, by="serving").row(0, named=True)
    assert shown["ttft_s"][0] / shown["ttft_s"][1] == pytest.approx(
        wanted["ttft_s"] / calc.analyze(SMALLER, "h100", by="serving")["ttft_s"][0], rel=1e-12
    )
    at = set_to(at, "own_pasted", "model\thardware\tbatch\nopt-125m\ta100\t1,5\n")
    assert "row 2, batch: '1,5' is not a number" in at.error[0].value
    assert table(at)["site"].to_list() == ['O"slo', "Rom"]
    at = set_to(at, "own_pasted", "model,hardware\nno-such,a100\n")
    assert "unknown model 'no-such'" in at.error[0].value


def test_own_rows_are_uploaded(tmp_path: Path) -> None:
    """A workload's sizes are filled in; each kind of file that the command reads."""
    rows = pl.DataFrame({"model": [SMALLER], "hardware": ["h100"], "workload": ["chat"], "site": ["Bonn"]})
    for ending, write in (("csv", rows.write_csv), ("parquet", rows.write_parquet)):
        write(tmp_path / f"mine.{ending}")
        at = opened("compare", many="Your own rows")
        at = set_to(at, "own_file", (f"mine.{ending}", (tmp_path / f"mine.{ending}").read_bytes(), "text/plain"))
        assert table(at).select("site", "input_len").rows() == [("Bonn", 161.0)]
    at = set_to(at, "own_file", ("mine.xlsx", b"PK", "text/plain"))
    assert "mine.xlsx: is not a workbook" in at.error[0].value and table(at)["site"].to_list() == ["Bonn"]


# validation


def test_measurements_stand_beside_predictions() -> None:
    """Every answered time, by the filters; groups, and what is below the bound with its cause."""
    at = opened("validation")
    shown = {m.label: m.value for m in at.metric}
    assert int(shown["Measurements"]) > 3900 and shown["Below the bound"] == "17"
    assert "17 are below the bound" in [e.label for e in at.expander]
    (drawn,) = charts(at)
    points = [pl.read_ipc_stream(rows).height for rows in drawn["rows"]]
    assert int(shown["Measurements"]) in points
    at = set_to(set_to(at, "metrics", ["prefill_tokens_per_s"]), "of_engine", ["mlx"])
    assert {m.label: m.value for m in at.metric}["Measurements"] == "7"
    assert table(at, 0)["engine"].to_list() == ["mlx"]
    # seven prompts: nothing is said of decoding
    prefills = compared(load(), measurements(load()).accepted.filter(engine="mlx", metric="prefill_tokens_per_s"))
    shown = {m.label: m.value for m in at.metric}
    assert shown["MFU of prefill"] == f"{prefills['mfu'].median():.0%}" and shown["MBU of decode"] == "—"
    assert set(table(at, 1)["predicted"]) == {
        "Time to first token",
        "Time per output token",
        "Output tokens per second",
    }
    at = set_to(at, "by", "Device")
    assert table(at, 0)["hardware_id"].to_list() == ["apple_m4_max"]
    at = set_to(at, "errors_by", "Model")
    assert "Qwen/Qwen3-30B-A3B" in table(at, 1)["model_id"].to_list()
    at = set_to(at, "of_engine", ["neuronx"])
    assert "No measurement is left" in at.info[0].value


def test_measurements_that_cannot_be_read_are_named(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page says which file and column, as the command line does."""
    table = data / "measurements.csv"
    table.write_text(table.read_text(encoding="utf-8").replace("measurement_id,", "measurement,", 1), encoding="utf-8")
    monkeypatch.setenv("CALC_DATA", str(data))
    at = opened("validation")
    assert "measurements.csv" in at.error[0].value and "measurement_id" in at.error[0].value


def test_a_calibration_is_chosen() -> None:
    """The figures are the engine's, with the error to be expected; a link keeps it; outside of what was measured is said."""
    ideal = opened("calculator", model="Qwen/Qwen3-32B", hardware="h100", tp="2")
    at = set_to(ideal, "calibration", "vllm")
    frame = pl.DataFrame([{"model_id": "Qwen/Qwen3-32B", "hardware_id": "nvidia_h100_sxm", "tp": 2,
                           "input_len": 2048, "calibration": "vllm"}])  # fmt: skip
    wanted = answered(load(), frame, "serving")
    shown = {m.label: m.value for m in at.metric}
    assert shown["Time per output token"] == quantity(wanted["tpot_s"][0], "s")
    assert errors_told(wanted) in [c.value.removeprefix(":material/target: ") for c in at.caption]
    linked = opened("calculator", model="Qwen/Qwen3-32B", hardware="h100", tp="2", calibration="vllm")
    assert {m.label: m.value for m in linked.metric} == shown
    at = set_to(at, "batch", 4096)
    assert any("outside of what was measured: batch 4096" in c.value for c in at.caption)


def test_lines_and_deployments_are_calibrated() -> None:
    """Curves draw a line for each calibration; Choose hardware asks engines as they were measured."""
    at = opened("curves", by="Calibration")
    (drawn,) = charts(at)[:1]
    lines = {
        str(v) for rows in drawn["rows"] for f in [pl.read_ipc_stream(rows)] if "line" in f.columns for v in f["line"]
    }
    assert {"ideal", "llama.cpp"} <= lines
    at = opened("curves", by="Calibration", y="Time per output token")
    assert any("llama.cpp: expected error ±" in c.value and "in the band" in c.value for c in at.caption)
    points = [pl.read_ipc_stream(rows) for rows in charts(at)[0]["rows"]]
    banded = [f.drop_nulls("low") for f in points if "low" in f.columns]
    # what is said of an error is of the time that is measured: half of them lie between
    assert banded and set(banded[0]["line"]) == {"llama.cpp"}
    assert ((banded[0]["y"] / (1 + banded[0]["error"]) - banded[0]["low"]).abs() < 1e-12).all()
    at = opened("what_helps", calibration="vllm")
    assert any("Calibration vllm: " in c.value for c in at.caption)
    at = opened("choose_hardware", calibration_serve="vllm", model="Qwen/Qwen3-32B")
    assert not at.error and {"tpot_s", "tpot_s_error"} <= set(table(at, 0).columns)
    assert any("Calibration vllm: " in c.value for c in at.caption)


# survey


@pytest.mark.parametrize(
    "name", sorted(p.stem for p in (Path(__file__).parent.parent / "sql" / "survey").glob("*.sql"))
)
def test_every_figure_is_drawn(name: str) -> None:
    """As in the survey until a control says otherwise."""
    at = opened("survey", figure=name.replace("_", " ").capitalize())
    assert not at.error and at.dataframe[0].value.shape[0] > 0
    assert at.caption[-1].value == "As in the survey."
    assert bool(charts(at)) == (name not in ("bitnet", "groq"))


def test_a_figure_of_another_model() -> None:
    """Its rows change, and what asks them again says so."""
    at = opened("survey", figure="Table 1")
    before = table(at)
    at = set_to(at, "table_1_model_id", SMALL)
    assert not table(at).equals(before) and "--param model_id=facebook/opt-1.3b" in code(at, "bash")
    assert "Not as in the survey: model_id" in at.caption[-1].value


# sql


def test_queries_and_their_mistakes() -> None:
    """An answer, a mistake as a sentence, a refusal, a chart."""
    at = opened("sql_page", query="select name, year, tdp_w from hardware where vendor = 'AMD' order by name")
    wanted = calc.hardware().filter(vendor="AMD").sort("name").select("name", "year", "tdp_w")
    assert table(at).rows() == wanted.rows()
    assert not charts(at)
    assert charts(set_to(at, "chart_kind", "Bars"))
    at = set_to(at, "query", "select nothing from models")
    assert "nothing" in at.error[0].value and not at.exception
    at = set_to(at, "query", "drop table models")
    assert "DROP is refused" in at.error[0].value
    at = set_to(at, "query", "from models where false")
    assert "No row" in at.info[0].value


def test_the_grid_is_asked_and_the_cookbook_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A saved question over a grid, as the grid answers it."""
    axes = {"model": ["llama-3-8b", "opt-125m"], "hardware": ["a100", "h100"], "batch": [1, 8]}
    calc.build_grid({"axes": axes}, tmp_path / "g")
    monkeypatch.setenv("CALC_GRID", str(tmp_path / "g"))
    at = opened("sql_page", source="Grid", query="select count(*) as n from serving")
    assert table(at)["n"][0] == 8
    monkeypatch.setenv("CALC_GRID", str(tmp_path / "none"))
    at = opened("sql_page", source="Grid")
    assert "no grid" in at.error[0].value
    at = opened("sql_page")
    at.session_state["schema"] = "models"
    at.run()
    assert "n_layers" in set(table(at, 0)["Column"])


# data


def test_every_table_is_shown_with_its_sources() -> None:
    """All rows, and a search that keeps those that hold a text."""
    at = opened("data_page")
    assert table(at).height == calc.models().height
    at = set_to(at, "search_models", "mixtral")
    assert 0 < table(at).height < 10
    for name in ("Devices", "Formats", "Techniques", "Sources", "Formulas"):
        at = set_to(at, "table", name)
        assert table(at).height > 5
    assert link("arXiv:2402.16363") == "https://arxiv.org/abs/2402.16363"


def test_rows_that_a_search_hides_stay_when_others_are_edited() -> None:
    """An edit of what a search shows changes, takes out and adds those rows; every other stays where it was."""
    frame = pl.DataFrame({"a": ["x", "x", "y", "z"], "b": [1, 2, 3, None]})
    places = pl.Series([1, 3], dtype=pl.UInt32)
    edited = pl.DataFrame({"a": ["x", "new", "z"], "b": [20, 5, 9]})[[0, 1]]
    assert merged(frame, places, edited, [1]).rows() == [("x", 1), ("x", 20), ("y", 3), ("new", 5)]
    assert merged(frame, places, frame[places], []).equals(frame)
    assert merged(frame, places, frame[[3]], [0]).rows() == [("x", 1), ("y", 3), ("z", None)]
    parameters = load()["parameters"]
    shown = pl.Series(range(0, parameters.height, 3), dtype=pl.UInt32)
    assert merged(parameters, shown, parameters[shown], []).equals(parameters)


def test_rows_are_added_for_the_session() -> None:
    """A CSV's rows are there for this session alone; what breaks a rule changes nothing and says which."""
    at = opened("data_page", table="Devices")
    known = calc.hardware().row(by_predicate=pl.col("hardware_id") == "nvidia_h100_sxm", named=True)
    header = [c for c in known if known[c] is not None and c != "aliases"]
    row = {**known, "hardware_id": "mine", "name": "My device", "memory_bandwidth_bytes_per_s": 6.7e12}
    content = ",".join(header) + "\n" + ",".join('"' + str(row[c]).replace('"', '""') + '"' for c in header) + "\n"
    at.file_uploader(key="upload_hardware").upload("mine.csv", content.encode(), "text/csv").run()
    assert not at.exception and not at.error, [e.value for e in at.error]
    assert "My device" in table(at)["name"].to_list()
    assert any("hardware: 1 rows from mine.csv" in m.value for m in at.markdown)
    assert "My device" not in calc.hardware()["name"].to_list()
    bad = content.replace("6700000000000.0", "-1")
    at.file_uploader(key="upload_hardware").upload("bad.csv", bad.encode(), "text/csv").run()
    assert "below" in at.error[0].value and "My device" in table(at)["name"].to_list()
    at.file_uploader(key="upload_hardware").upload("no.csv", b"\xff\xfe\x00", "text/csv").run()
    assert "UTF-8" in at.error[0].value
    undo = next(b for b in at.button if b.label == "Undo all")
    undo.click().run()
    assert "My device" not in table(at)["name"].to_list()


def test_formulas_are_edited_for_the_session() -> None:
    """A changed cell changes the figures of this session; one that cannot be is refused with its name."""

    def app() -> None:
        import polars as pl
        import streamlit as st

        from calc.errors import CalcError
        from calc.files import read_csv
        from calc.ui import answers, session
        from calc.ui.answers import Question

        frame = read_csv(session.folder() / "sheets" / "exact" / "roofline.csv", [])
        for formula in ("no_such_cell * 2", "2 * memory_bytes / memory_bandwidth_bytes_per_s"):
            changed = frame.with_columns(
                formula=pl.when(pl.col("cell") == "memory_s").then(pl.lit(formula)).otherwise("formula")
            )
            try:
                session.change_cells("exact", "roofline", changed, f"memory_s = {formula}")
            except CalcError as error:
                st.error(str(error))
        asked = Question((("model_id", "facebook/opt-125m"), ("hardware_id", "nvidia_h100_sxm")))
        st.write(answers.ask(asked, "stage").filter(stage="decode")["time_s"][0])
        st.write(session.edits())

    at = AppTest.from_function(app, default_timeout=120).run()
    assert not at.exception
    assert "no_such_cell" in at.error[0].value and "memory_s" in at.error[0].value
    plain = calc.analyze("opt-125m", "h100", by="stage").filter(stage="decode")["time_s"][0]
    assert float(at.markdown[0].value.strip("`")) == pytest.approx(2 * plain, rel=0.02)
    assert len(json.loads(at.json[0].value)) == 1


# the server


def test_no_python_runs_on_threads_of_polars() -> None:
    """A function that Polars calls waits for the interpreter on one of few threads, on which all sessions wait then.

    Streamlit hands frames to pandas, for which Polars 2.1 keeps the interpreter and waits for those threads: a server
    with several visitors stood still for ever.
    """
    calls = ("map_elements", "map_batches", "map_groups", "register_io_source", "evaluate(")
    root = ROOT / "calc"
    asked = [root / f for f in ("charts.py", "survey_charts.py", "operator_graph.py", "deployments.py", "stacks.py")]
    for file in (*asked, *(root / "ui").glob("*.py")):
        code = re.sub(r"^\s*f?['\"#].*$", "", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
        assert not [c for c in calls if c in code], file


SESSIONS = """
from concurrent.futures import ThreadPoolExecutor
import polars as pl
from calc.charts import memory_bar
from calc.evaluation import answered
from calc.tables import load

held = pl.DataFrame({"item": ["a", "b"], "held_bytes": [1e9, 2e9]})

def session(number):
    for batch in range(1, 6):
        asked = pl.DataFrame([{"model_id": "llama-2-7b", "hardware_id": "a6000", "batch": 100 * number + batch}])
        answered(load(), asked, "stage").to_pandas()
        for _ in range(20):
            memory_bar(held, 8e9)
            held.to_pandas()
    return number

with ThreadPoolExecutor(16) as pool:
    print(*pool.map(session, range(16)))
"""


def test_sessions_at_once_all_get_their_answers() -> None:
    """Sixteen threads ask new questions, hand tables to pandas and draw charts at once, and all come to their end."""
    done = subprocess.run([sys.executable, "-c", SESSIONS], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == [str(n) for n in range(16)]
