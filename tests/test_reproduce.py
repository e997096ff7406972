"""What pages give to take along asks the same question; the graph of operators is that of the sheet."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import calc
from calc import operator_graph, reproduce
from calc.__main__ import main
from calc.loading import load_sheet
from calc.tables import load

SCENARIOS: list[dict[str, Any]] = [
    {"model_id": "facebook/opt-125m", "hardware_id": "nvidia_h100_sxm"},
    {
        "model_id": "facebook/opt-1.3b", "hardware_id": "nvidia_rtx_a6000", "batch": 4, "input_len": 300, "tp": 2,
        "precision": "w8a8kv8", "embedding_format": "fp16", "technique": "awq_w4+vllm_memory",
        "gpu_memory_utilization": 0.8,
    },
]  # fmt: skip


@pytest.mark.parametrize("scenario", SCENARIOS, ids=("plain", "everything"))
@pytest.mark.parametrize("sheet", ["exact", "llm_viewer"])
def test_every_language_asks_the_same(scenario: dict[str, Any], sheet: str, tmp_path: Path) -> None:
    """Python, SQL and the command line give the same times of both stages."""
    if sheet == "llm_viewer" and "technique" in scenario:
        scenario = {c: v for c, v in scenario.items() if c not in ("technique", "gpu_memory_utilization", "tp")}
    wanted = calc.evaluate(pl.DataFrame([scenario]), by="stage", sheet=sheet).select("stage", "time_s").collect()
    texts = reproduce.texts(scenario, "stage", sheet)
    names: dict[str, Any] = {}
    exec(texts["python"].replace("calc.analyze(", "found = calc.analyze("), names)
    assert names["found"].select("stage", "time_s").equals(wanted)
    asked = calc.connect().sql(texts["sql"]).pl().sort("stage", descending=True)
    assert asked["time_s"].to_list() == pytest.approx(wanted["time_s"].to_list(), rel=1e-12)
    words = shlex.split(texts["bash"])
    assert words[:3] == ["python", "-m", "calc"]
    assert main([*words[3:], "--output", str(tmp_path / "found.parquet")]) == 0
    read = pl.read_parquet(tmp_path / "found.parquet")
    assert read["time_s"].to_list() == pytest.approx(wanted["time_s"].to_list(), rel=1e-12)


def test_text_in_sql_stays_text() -> None:
    """A quote in a name cannot end its literal."""
    assert reproduce.literal("o'model'; drop table x") == "'o''model''; drop table x'"


def test_the_graph_is_the_sheets() -> None:
    """Of an MLP with a gate, by hand: the norm reads the stream, both projections the norm, the sum both ends."""
    sheet = load_sheet(load())
    present = ["mlp_norm", "gate_proj", "up_proj", "mlp_act", "down_proj", "mlp_add"]
    links = operator_graph.edges(sheet.operators("mlp"), present)
    assert set(links) == {
        ("stream", "mlp_norm"), ("mlp_norm", "gate_proj"), ("mlp_norm", "up_proj"), ("gate_proj", "mlp_act"),
        ("up_proj", "mlp_act"), ("mlp_act", "down_proj"), ("stream", "mlp_add"), ("down_proj", "mlp_add"),
    }  # fmt: skip
    names = [operator_graph.STREAM, *present]
    depth = operator_graph.layers(names, links)
    assert [depth[n] for n in names] == [0, 1, 2, 2, 3, 4, 5]
    drawn: Any = operator_graph.drawing(names, links, {}, dict.fromkeys(present, "memory"), {})
    assert [n["name"] for n in drawn["series"][0]["data"]] == names
    assert len(drawn["series"][0]["links"]) == len(links)
    ungated = operator_graph.edges(sheet.operators("mlp"), [n for n in present if n not in ("gate_proj", "mlp_norm")])
    assert ("stream", "up_proj") not in ungated and ("up_proj", "mlp_act") in ungated
