"""The page over a grid, without a browser."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

import calc
from calc.ui import deployments


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    """Build a grid of two models on every device."""
    spec = {
        "columns": ["ttft_s", "tpot_s", "output_tokens_per_s", "fits", "usd_per_million_output_tokens"],
        "axes": {
            "model": ["llama-3-8b", "opt-125m"], "hardware": "all", "batch": [1, 16], "precision": ["w16a16kv16", "w8a8kv8"],
            "input_len": [512, 2048], "output_len": [128], "tp": [1, 2],
        },
    }  # fmt: skip
    calc.build_grid(spec, tmp_path / "grid")
    return tmp_path / "grid"


def opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AppTest:
    """Open the page over a grid."""
    monkeypatch.setenv("CALC_GRID", str(folder))
    at = AppTest.from_string("from calc.ui import deployments\ndeployments.page()", default_timeout=120).run()
    assert not at.exception
    return at


def test_limits_choose(grid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row is the cheapest of its device within the limits; where none is left the page says what to do."""
    at = opened(grid, monkeypatch)
    at.selectbox(key="grid_model_id").select("meta-llama/Meta-Llama-3-8B").run()
    at.number_input(key="grid_ttft_s").set_value(100).run()
    at.number_input(key="grid_tpot_s").set_value(20).run()
    asked = calc.scenarios(model="llama-3-8b", hardware=calc.hardware()["hardware_id"].to_list(), batch=[1, 16],
                           precision=["w16a16kv16", "w8a8kv8"], input_len=512, output_len=128, tp=[1, 2])  # fmt: skip
    answers = (
        calc.evaluate(asked, by="serving")
        .collect()
        .sql(
            "select hardware_id, min(usd_per_million_output_tokens) as usd from self where fits and ttft_s <= 0.1 "
            "and tpot_s <= 0.02 group by 1"
        )
    )
    wanted = answers.join(calc.hardware(), on="hardware_id").drop_nulls("usd").sort("usd", "name").select("name", "usd")
    shown = at.dataframe[0].value[["device", "usd_per_million_output_tokens"]]
    assert [tuple(row) for row in shown.to_numpy()] == [(n, pytest.approx(u, rel=1e-12)) for n, u in wanted.rows()]
    assert len(shown) > 5
    at.number_input(key="grid_ttft_s").set_value(1).run()
    assert not at.dataframe and "Allow more time" in at.info[0].value


def test_what_is_no_grid_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is none, as a sentence."""
    at = opened(tmp_path, monkeypatch)
    assert "is no grid" in at.error[0].value


def test_the_demo_is_built_beside_the_dashboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It begins with the dashboard, by a process of its own; the page waits for it; a named grid needs none."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "llm-calculator" / "demo"
    monkeypatch.setenv("CALC_GRID", "none")
    deployments.start()
    assert not folder.exists()
    monkeypatch.delenv("CALC_GRID")
    deployments.start()
    page = "from calc.ui import deployments\ndeployments.page()"
    at = AppTest.from_string(page, default_timeout=120).run()
    assert not at.exception and not at.error and len(at.dataframe[0].value) > 5
    assert "96,768 deployments" in at.caption[0].value
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["is_complete"] and sum(p["rows"] for p in manifest["parts"]) == 96_768


def test_a_demo_that_cannot_be_built_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that is no folder, as a sentence."""
    monkeypatch.delenv("CALC_GRID", raising=False)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    deployments.start()
    at = AppTest.from_string("from calc.ui import deployments\ndeployments.page()", default_timeout=120).run()
    assert not at.exception and "cannot be written" in at.error[0].value
