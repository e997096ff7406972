"""Grids on disk: what they hold, what a user may ask of them, and what no interruption can do to them."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import polars as pl
import pytest
from conftest import ROOT, Run, change

import calc
from calc.grid.dataset import Dataset, row_hash, write_aside
from calc.grid.spec import load_spec
from calc.tables import load

SPEC: dict[str, object] = {
    "columns": ["ttft_s", "decode_s", "tpot_s", "e2e_s", "output_tokens_per_s", "fits", "usd_per_million_output_tokens",
                "max_batch", "tpot_bound"],
    "axes": {
        "model": ["llama-2-7b", "opt-125m"],
        "hardware": ["a100", "h100", "rtx-4090"],
        "precision": ["w16a16kv16", "w4a16kv4"],
        "tp": [1, 2],
        "batch": {"from": 1, "to": 64, "factor": 4},
        "input_len": {"from": 500, "to": 1500, "step": 500},
    },
}  # fmt: skip
TOML = """
columns = ["ttft_s", "tpot_s", "fits"]
[axes]
model = ["llama-2-7b", "opt-125m", "bert-base-uncased"]
hardware = ["a100", "h100"]
batch = [1, 8]
"""


def with_axes(**axes: object) -> dict[str, object]:
    """Return the spec with some axes set, or left out where None."""
    kept = {**dict(SPEC["axes"]), **axes}  # type: ignore[call-overload]
    return {**SPEC, "axes": {k: v for k, v in kept.items() if v is not None}}


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a grid of 360 deployments."""
    folder = tmp_path_factory.mktemp("grid") / "g"
    built = calc.build_grid(SPEC, folder)
    assert (built.parts, built.computed, built.rows) == (2, 2, 2 * 3 * 2 * 2 * 4 * 3)
    return folder


@pytest.fixture(scope="module")
def connection(grid: Path) -> duckdb.DuckDBPyConnection:
    """Return a connection to the grid."""
    return calc.connect(grid=grid)


def live() -> pl.DataFrame:
    """Return the same answers from the formulas."""
    asked = calc.scenarios(
        model=["llama-2-7b", "opt-125m"], hardware=["a100", "h100", "rtx-4090"], precision=["w16a16kv16", "w4a16kv4"],
        tp=[1, 2], batch=[1, 4, 16, 64], input_len=[500, 1000, 1500],
    )  # fmt: skip
    return calc.evaluate(asked, by="serving").collect()


def test_a_grid_has_the_answers_and_stores_only_what_does_not_follow(
    grid: Path, connection: duckdb.DuckDBPyConnection
) -> None:
    """The view over a grid gives what the formulas give; stored is less than that."""
    manifest = json.loads((grid / "manifest.json").read_text())
    assert manifest["is_complete"] and manifest["spec"]["axes"]["batch"] == [1, 4, 16, 64]
    # the others follow from these, scenario columns and facts in a few operations
    stored = {"ttft_s", "decode_s", "fits", "tpot_bound"}
    assert set(manifest["stored"]) - {"max_batch"} == stored
    found = connection.sql("from serving").pl()
    names = {"llama-2-7b": "meta-llama/Llama-2-7b-hf", "opt-125m": "facebook/opt-125m"}
    spelled = {"a100": "nvidia_a100_80gb_sxm", "h100": "nvidia_h100_sxm", "rtx-4090": "nvidia_rtx_4090"}
    wanted = live().with_columns(pl.col("model_id").replace(names), pl.col("hardware_id").replace(spelled))
    keys = ["model_id", "hardware_id", "precision", "tp", "batch", "input_len"]
    wanted = wanted.with_columns(pl.col("tp", "batch", "input_len").cast(pl.Float64))
    both = wanted.join(found, on=keys, suffix="_grid", validate="1:1")
    assert both.height == found.height == 288
    for column in SPEC["columns"]:  # type: ignore[attr-defined]
        got, want = both[f"{column}_grid"], both[column]
        assert got.is_null().equals(want.is_null()), column
        equal = (got - want).abs() <= 1e-12 * want.abs() if got.dtype.is_numeric() else got.eq_missing(want)
        assert equal.all(), column
    assert sorted(found["scenario_row"].to_list()) == list(range(1, 289))


def test_views_ask_the_grid_as_they_ask_live_answers(connection: duckdb.DuckDBPyConnection) -> None:
    """Views of other grains ask the grid's questions live; one that needs what the grid does not hold says so."""
    asked = (
        "select max(time_share) from bottlenecks where model_id like '%125m' and stage = 'decode' and bound = 'memory'"
    )
    assert 0.5 < connection.sql(asked).fetchall()[0][0] <= 1
    for view in ("memory", "pareto"):
        with pytest.raises(duckdb.Error, match=f"view {view} needs"):
            connection.sql(f"select count(*) from {view}").fetchall()
    with pytest.raises(duckdb.Error, match="view pareto needs"):
        connection.sql("select count(*) from pareto where is_on_throughput_front").fetchall()


def test_every_view_over_a_grid_of_every_column(tmp_path: Path) -> None:
    """Without a list of columns a grid holds all results, and every view gives the rows that it gives live."""
    calc.build_grid({"axes": {"model": "opt-125m", "hardware": ["a100", "h100"], "batch": [1, 64]}}, tmp_path / "g")
    over, plain = calc.connect(grid=tmp_path / "g"), calc.connect()
    plain.execute("delete from scenarios")
    plain.execute(
        "insert into scenarios by name select 'facebook/opt-125m' as model_id, h as hardware_id, b as batch "
        "from (select unnest(['nvidia_a100_80gb_sxm', 'nvidia_h100_sxm']) as h), (select unnest([1, 64]) as b)"
    )
    for grain in ("serving", "stages", "operators"):  # answered once, not again by every view
        plain.execute(f"create table __{grain} as from {grain}")
        plain.execute(f"create or replace view {grain} as from __{grain}")
    views = ["serving", "slo", "best_hardware", "pareto", "memory", "sensitivity", "offload", "break_even",
             "api_break_even", "stages", "bottlenecks"]  # fmt: skip
    for view in views:
        got, want = (c.sql(f"from {view}").pl() for c in (over, plain))
        assert got.columns == want.columns, view
        same = [c for c in got.columns if c not in ("question_id", "formats_id", "scenario_row")]
        texts = [c for c in same if not got[c].dtype.is_numeric()]
        got, want = (f.select(same).sort([*texts, *(c for c in same if c not in texts)]) for f in (got, want))
        for column in same:
            a, b = got[column], want[column]
            if a.dtype.is_numeric():
                close = ((a - b).abs() <= 1e-9 * b.abs()) | (a.is_null() & b.is_null())
                assert close.all(), (view, column)
            else:
                assert a.eq_missing(b).all(), (view, column)


def test_techniques_conditions_and_other_grains(tmp_path: Path) -> None:
    """Stacks, conditions on facts and results, stages and operators."""
    spec = {
        "columns": ["ttft_s", "tpot_s", "output_tokens_per_s", "fits"],
        "where": "fits AND vendor = 'NVIDIA' AND batch <= 16 AND NOT (tp = 2 AND n_heads < 20)",
        "axes": {
            "model": ["llama-2-7b", "opt-125m"], "hardware": ["a100", "mi300x"], "batch": [1, 16, 64], "tp": [1, 2],
            "technique": ["", "speculative_decoding", "prefill_first"],
        },
    }  # fmt: skip
    calc.build_grid(spec, tmp_path / "g")
    found = calc.connect(grid=tmp_path / "g").sql("from serving").pl()
    asked = calc.scenarios(model=["meta-llama/Llama-2-7b-hf", "facebook/opt-125m"], hardware="a100", batch=[1, 16], tp=[1, 2],
                           technique=[None, "speculative_decoding", "prefill_first"])  # fmt: skip
    wanted = calc.evaluate(asked, by="serving").filter("fits").collect()
    wanted = wanted.filter(~((pl.col("tp") == 2) & (pl.col("model_id") == "facebook/opt-125m")))
    assert found.height == wanted.height and set(found["hardware_id"]) == {"nvidia_a100_80gb_sxm"}
    keys = ["model_id", "batch", "tp", "technique"]
    both = wanted.with_columns(pl.col(keys[1:3]).cast(float)).join(
        found, on=keys, suffix="_grid", validate="1:1", nulls_equal=True
    )
    assert both.height == wanted.height
    for column in ("ttft_s", "tpot_s", "output_tokens_per_s"):
        got, want = both[f"{column}_grid"], both[column]
        assert ((got - want).abs() <= 1e-12 * want.abs()).all()
    calc.build_grid(
        {"by": "stage", "axes": {"model": ["opt-125m", "bert-base-uncased"], "hardware": "a100"}}, tmp_path / "s"
    )
    stages = calc.connect(grid=tmp_path / "s").sql("select model_id, stage, time_s from stages order by all").pl()
    assert stages["stage"].to_list() == ["prefill", "decode", "prefill"] or stages.height == 3
    calc.build_grid({"by": "operator", "axes": {"model": "opt-125m", "hardware": "a100"}}, tmp_path / "o")
    operators = calc.connect(grid=tmp_path / "o").sql(
        "select sum(count * time_s) from operators where stage = 'decode'"
    )
    decode = stages.filter(stage="decode")["time_s"][0]
    assert operators.fetchall()[0][0] == pytest.approx(decode, rel=1e-12)


def test_operators_stay_with_their_questions(tmp_path: Path) -> None:
    """Two models of as many rows, but not of as many for each question: what one is sorted by is not the other's."""
    models, axes = ["RWKV/rwkv-5-world-3b", "xai-org/grok-1"], {"tp": [1, 2, 4], "ep": [1, 2]}
    calc.build_grid({"by": "operator", "axes": {"model": models, "hardware": ["h100"], **axes}}, tmp_path / "g")
    asked = calc.scenarios(model=models, hardware="nvidia_h100_sxm", **axes)
    keys = ["model_id", "tp", "ep", "stage", "part", "operator"]
    wanted = calc.evaluate(asked, by="operator").select(*keys, "time_s").collect()
    assert wanted["model_id"].value_counts()["count"].n_unique() == 1
    found = calc.connect(grid=tmp_path / "g").sql(f"select {', '.join(keys)}, time_s from operators").pl()
    both = wanted.cast({"tp": float, "ep": float}).join(found, on=keys, how="full", suffix="_grid", validate="1:1")
    assert both.height == wanted.height == found.height
    assert both["time_s"].is_null().equals(both["time_s_grid"].is_null())
    known = both.drop_nulls("time_s")
    assert known.height and ((known["time_s"] - known["time_s_grid"]).abs() <= 1e-12 * known["time_s"]).all()


def test_a_frame_is_a_spec_too(tmp_path: Path) -> None:
    """A frame of scenarios is answered row by row."""
    rows = pl.DataFrame({"model_id": ["opt-125m", "llama-2-7b", "opt-125m"], "hardware_id": ["a100", "h100", "h100"],
                         "batch": [1, 2, 3], "customer": ["x", "y", "z"]})  # fmt: skip
    built = calc.build_grid(rows, tmp_path / "g")
    assert (built.parts, built.rows) == (2, 3)
    found = calc.connect(grid=tmp_path / "g").sql("select batch, ttft_s from serving order by batch").pl()
    wanted = calc.evaluate(rows, by="serving").collect()["ttft_s"]
    assert ((found["ttft_s"] - wanted).abs() <= 1e-12 * wanted).all()


def test_only_what_changed_is_computed_again(tmp_path: Path, data: Path) -> None:
    """Another fact of a model concerns its part alone, another formula all; a grid of others is refused."""
    spec = {**SPEC, "axes": {"model": ["llama-2-7b", "opt-125m", "opt-1.3b"], "hardware": ["a100", "h100"]}}
    assert calc.build_grid(spec, tmp_path / "g", data=data).computed == 3
    assert calc.build_grid(spec, tmp_path / "g", data=data).computed == 0
    model = next(r for r in (data / "models.csv").read_text().splitlines() if r.startswith("facebook/opt-125m,"))
    fields = model.split(",")
    place = (data / "models.csv").read_text().splitlines()[0].split(",").index("n_layers")
    fields[place] = str(int(fields[place]) + 1)
    change(data / "models.csv", model, ",".join(fields))
    with pytest.raises(calc.CalcError, match="facts of models"):
        calc.connect(grid=tmp_path / "g", data=data)
    assert calc.build_grid(spec, tmp_path / "g", data=data).computed == 1
    change(data / "sheets/exact/serving.csv", "ttft_s,prefill_s,s", "ttft_s,prefill_s * 2,s")
    with pytest.raises(calc.CalcError, match="formulas"):
        calc.connect(grid=tmp_path / "g", data=data)
    assert calc.build_grid(spec, tmp_path / "g", data=data).computed == 3
    fewer = {**spec, "axes": {"model": ["opt-125m"], "hardware": ["a100", "h100"]}}
    assert calc.build_grid(fewer, tmp_path / "g", data=data).parts == 1
    assert [p.name for p in (tmp_path / "g").glob("model_id=*")] == ["model_id=facebook%2Fopt-125m"]
    assert calc.connect(grid=tmp_path / "g", data=data).sql("select count(*) from serving").fetchall() == [(2,)]


def test_damage_is_found_and_mended(tmp_path: Path, run: Run, grid: Path) -> None:
    """A truncated, changed, missing or wrong part is named, and computed again."""
    shutil.copytree(grid, tmp_path / "g")
    folder = str(tmp_path / "g")
    assert "are whole" in run("grid", "--out", folder, "--check").stdout
    whole = row_hashes(tmp_path / "g")
    one, other = sorted((tmp_path / "g").glob("*/*.parquet"))
    os.truncate(one, one.stat().st_size - 7)
    content = bytearray(other.read_bytes())
    content[len(content) // 2] ^= 1
    other.write_bytes(content)
    said = run("grid", "--out", folder, "--check")
    assert said.returncode == 2 and said.stderr.count("truncated or changed") == 2
    said = run("sql", "--grid", folder, "select sum(ttft_s) from serving")
    assert said.returncode == 2 and "is damaged: build the grid again" in said.stderr
    assert calc.build_grid(SPEC, folder).computed == 2
    assert row_hashes(tmp_path / "g") == whole
    one.unlink()
    assert "is missing" in run("grid", "--out", folder, "--check").stderr
    assert calc.build_grid(SPEC, folder).computed == 1
    # a manifest of rows that are not the formulas'
    dataset = Dataset(folder).read()
    path = next(iter(dataset.parts))
    frame = pl.read_parquet(tmp_path / "g" / path, hive_partitioning=False)
    dataset.place(
        *write_aside(tmp_path / "g", path, dataset.parts[path].hash, frame.with_columns(pl.col("ttft_s") * 1.001))
    )
    dataset.save()
    said = run("grid", "--out", folder, "--check")
    assert said.returncode == 2 and "asked again" in said.stderr


def test_files_are_in_order() -> None:
    """By every column, whatever its type and range: as a sort has it, equal rows as they come."""
    from calc.grid.parts import _order

    some = random.Random(5)
    n = 2000
    keys = pl.DataFrame(
        {
            "input_len": [some.choice([1, 7, 10**9, None]) for _ in range(n)],
            "hardware_id": pl.Series([some.choice("cab") for _ in range(n)], dtype=pl.Enum(["c", "a", "b"])),
            "technique": [some.choice(["b", None, "a"]) for _ in range(n)],
            "share": [some.choice([0.5, -1.0, None]) for _ in range(n)],
            **{f"many_{i}": [some.randrange(-(10**15), 10**15) for _ in range(n)] for i in range(4)},
            "empty": pl.Series([None] * n, dtype=pl.Int32),
        }
    )
    for frame in (keys, keys.select("input_len", "technique", "hardware_id"), keys.select("empty"), keys.clear()):
        wanted = frame.with_row_index("place").sort(frame.columns, maintain_order=True)["place"]
        assert _order(frame).to_list() == wanted.to_list()


def test_row_hashes_know_rows_not_their_order() -> None:
    """The hash of rows is that of their set, up to the last bits."""
    frame = pl.DataFrame({"a": [1.0, 2.0, None], "b": ["x", None, "y"]})
    assert row_hash(frame) == row_hash(frame.reverse()) == row_hash(frame.select("b", "a"))
    assert row_hash(frame) == row_hash(frame.with_columns(pl.col("a") * (1 + 1e-15)))
    assert row_hash(frame) == row_hash(frame.with_columns(pl.col("b").cast(pl.Categorical)))
    others = [
        frame.with_columns(pl.col("a") * (1 + 1e-4)), frame.with_columns(pl.col("a").reverse()),
        frame.head(2), frame.fill_null("z"), frame.fill_null(0.0), frame.rename({"a": "c"}),
    ]  # fmt: skip
    assert len({row_hash(f) for f in [frame, *others]}) == 7


def row_hashes(folder: Path) -> dict[str, str]:
    """Return the row hash of each part."""
    return {p.path: p.row_hash for p in Dataset(folder).read().parts.values()}


def building(spec: Path, out: Path) -> subprocess.Popen[bytes]:
    """Start a build as a process of its own."""
    call = [sys.executable, "-m", "calc", "grid", str(spec), "--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(call, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def check_kills(tmp_path: Path, n: int) -> None:
    """Kill builds at random moments, go on, and compare with a build that nothing disturbed."""
    spec = tmp_path / "spec.toml"
    models = load(None)["models"]["model_id"].gather_every(9).to_list()
    text = f'columns = ["ttft_s", "tpot_s", "fits"]\n[axes]\nmodel = {json.dumps(models)}\n'
    spec.write_text(text + 'hardware = "all"\nbatch = [1, 2, 4, 8]\ninput_len = [100, 1000, 2000]\n')
    start = time.monotonic()
    calc.build_grid(spec, tmp_path / "whole")
    lasted = time.monotonic() - start + 1
    rng, out, killed = random.Random(3), tmp_path / "killed", 0
    for _ in range(n):
        process = building(spec, out)
        try:
            process.wait(timeout=rng.uniform(0.5, lasted / 2))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += 1
        if (out / "manifest.json").exists():
            # what the manifest names reads rightly at any moment
            dataset = Dataset(out).read()
            assert all(dataset.is_whole(p) for p in dataset.parts.values())
    assert killed
    calc.build_grid(spec, out)
    assert row_hashes(out) == row_hashes(tmp_path / "whole")
    left = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    assert left == {".lock", "manifest.json", *row_hashes(out)}


def test_killed_builds_go_on(tmp_path: Path) -> None:
    """A few kills."""
    check_kills(tmp_path, 3)


@pytest.mark.slow
def test_thirty_killed_builds_go_on(tmp_path: Path) -> None:
    """Thirty kills."""
    check_kills(tmp_path, 30)


def test_an_interrupted_build_leaves_what_is_complete(tmp_path: Path, run: Run) -> None:
    """Ctrl-C leaves a dataset that can be asked; a second build beside the first is refused."""
    spec = tmp_path / "spec.toml"
    models = load(None)["models"]["model_id"].to_list()
    spec.write_text(f'columns = ["ttft_s"]\n[axes]\nmodel = {json.dumps(models)}\nhardware = "all"\n')
    process = building(spec, tmp_path / "g")
    while not (tmp_path / "g" / "manifest.json").exists() or not Dataset(tmp_path / "g").read().parts:
        time.sleep(0.05)
    # the second into the same folder is refused
    said = subprocess.run([*process.args], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})  # type: ignore[misc]
    assert said.returncode == 2 and "another build is at work" in said.stderr
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    dataset = Dataset(tmp_path / "g").read()
    assert not dataset.about["is_complete"] and 0 < len(dataset.parts) < len(models)
    with pytest.warns(UserWarning, match=f"not complete: {len(dataset.parts)} of {len(models)} parts"):
        connection = calc.connect(grid=tmp_path / "g")
    rows = connection.sql("select count(*) from serving").fetchall()[0][0]
    said = run("sql", "--grid", str(tmp_path / "g"), "select count(*) as n from serving")
    assert said.returncode == 0 and "is not complete" in said.stderr
    assert rows == sum(p.rows for p in dataset.parts.values())


def test_targets_that_cannot_be_written(tmp_path: Path, run: Run) -> None:
    """Folders of others, files and places without permission are refused in a sentence."""
    spec = tmp_path / "spec.toml"
    spec.write_text(TOML)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("dear")
    said = run("grid", str(spec), "--out", str(tmp_path / "other"))
    assert said.returncode == 2 and "holds other files" in said.stderr and "letter.txt" in said.stderr
    (tmp_path / "file").write_text("")
    said = run("grid", str(spec), "--out", str(tmp_path / "file"))
    assert said.returncode == 2 and "cannot be written" in said.stderr
    said = run("grid", str(spec), "--out", "/proc/grid")
    assert said.returncode == 2 and "cannot be written" in said.stderr


def test_a_full_disk(tmp_path: Path, run: Run) -> None:
    """A full disk is said, and what is complete stays."""
    full = tmp_path / "full"
    full.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=192k", "tmpfs", str(full)], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        spec = tmp_path / "spec.toml"
        spec.write_text(
            TOML.replace('hardware = ["a100", "h100"]', 'hardware = "all"').replace(
                "[1, 8]", "{from = 1, to = 60, step = 1}"
            )
        )
        said = run("grid", str(spec), "--out", str(full / "g"))
        assert said.returncode == 2 and "the disk is full" in said.stderr and "Traceback" not in said.stderr
        dataset = Dataset(full / "g").read()
        assert all(dataset.is_whole(p) for p in dataset.parts.values())
        assert not list((full / "g").rglob("*.aside"))
    finally:
        subprocess.run(["umount", str(full)], check=True)


WRONG = {
    "unknown key": ({**SPEC, "colums": []}, "unknown key 'colums'; did you mean 'columns'"),
    "unknown grain": ({**SPEC, "by": "row"}, "unknown grain 'row'"),
    "unknown sheet": ({**SPEC, "sheet": "rough"}, "unknown sheet 'rough'"),
    "unknown column": ({**SPEC, "columns": ["ttft"]}, "unknown column 'ttft' in columns; did you mean 'ttft_s'"),
    "no columns": ({**SPEC, "columns": []}, "columns is a list of result columns, at least one"),
    "no axes": ({"columns": ["ttft_s"]}, "has no .axes."),
    "no device": (with_axes(hardware=None), "has no axis 'hardware'"),
    "unknown axis": (with_axes(bach=[1]), "unknown axis 'bach'; did you mean 'batch'"),
    "unknown model": (with_axes(model=["lama-2-7b"]), "unknown model 'lama-2-7b'"),
    "empty list": (with_axes(batch=[]), "batch: the list is empty"),
    "twice": (with_axes(batch=[1, 2, 1]), "batch lists 1 twice"),
    "the same device twice": (with_axes(hardware=["a100", "A100"]), "lists 'nvidia_a100_80gb_sxm' twice"),
    "nested": (with_axes(batch=[[1, 2]]), "a list of plain values"),
    "all of no table": (with_axes(batch="all"), "rows of a table; list the values"),
    "endless range": (with_axes(batch={"from": 1, "to": 9, "step": 0}), "never gets from 1 to 9 by step 0"),
    "shrinking range": (with_axes(batch={"from": 1, "to": 9, "factor": 0.5}), "never gets"),
    "backward range": (with_axes(batch={"from": 9, "to": 1, "step": 1}), "1 is below 9"),
    "half a range": (with_axes(batch={"from": 9, "step": 1}), "a range is"),
    "a range of no number": (with_axes(batch={"from": 1, "to": math.nan, "step": 1}), "a range is"),
    "a range beyond all": (with_axes(batch={"from": 1, "to": 10**9, "step": 1}), "has 1,000,000,000 values"),
    "wrong kind": (with_axes(batch=["many"]), "'many' is not a number"),
    "out of range": (with_axes(batch=[0]), "0 is below 1"),
    "unknown technique": (with_axes(technique=["magic"]), "unknown technique 'magic'"),
    "two axes that say the same": (with_axes(workload=["chat"]), "'batch' is given twice"),
    "no row keeps": (with_axes(hardware={"where": "year > 3000"}), "no row of hardware.csv keeps"),
    "no condition": ({**SPEC, "where": "batch + 1"}, "is no condition; it gives a"),
    "where without its axis": ({**SPEC, "where": "pp > 1"}, "'pp' is no axis of this grid, so all of it says the same"),
    "where with a typo": ({**SPEC, "where": "bach > 1"}, "unknown name 'bach'; did you mean 'batch'"),
    "where that sums": ({**SPEC, "where": "SUM(batch) > 1"}, "SUM and MAX are no part"),
    "where that is no formula": ({**SPEC, "where": "batch >"}, "where"),
    "where that keeps nothing": ({**SPEC, "where": "batch > 1000"}, "no question keeps where"),
    "too many": (
        with_axes(batch={"from": 1, "to": 900000, "step": 1}, input_len={"from": 1, "to": 900000, "step": 1}),
        "at most 10,000,000,000 are possible; shorten the longest axes: batch .900,000 values., input_len",
    ),
    "too long an axis": (with_axes(batch={"from": 1, "to": 1e9, "step": 1}), "an axis has at most 1,000,000"),
    "no spec": (7, "a spec is a file, a mapping or a frame"),
    "an empty frame": (pl.DataFrame({"model_id": [], "hardware_id": []}), "has no rows"),
    "a frame without devices": (pl.DataFrame({"model_id": ["opt-125m"]}), "have no column 'hardware_id'"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_specs_that_are_none(case: str, tmp_path: Path) -> None:
    """What no grid can be is refused, with what is wrong and what to write instead."""
    spec, message = WRONG[case]
    with pytest.raises(calc.CalcError, match=message):
        calc.build_grid(spec, tmp_path / "g")
    assert not list(tmp_path.rglob("*.parquet"))


def test_commands_say_what_is_wrong(tmp_path: Path, run: Run, grid: Path) -> None:
    """So are grids of other versions, and folders that are none."""
    (tmp_path / "bad.toml").write_text("columns = [")
    (tmp_path / "empty").mkdir()
    shutil.copytree(grid, tmp_path / "other")
    manifest = json.loads((grid / "manifest.json").read_text())
    (tmp_path / "other" / "manifest.json").write_text(json.dumps({**manifest, "format": 99}))
    shutil.copytree(grid, tmp_path / "older")
    older = {**manifest, "versions": {**manifest["versions"], "calc": "0.0.1"}}
    (tmp_path / "older" / "manifest.json").write_text(json.dumps(older))
    shutil.copytree(grid, tmp_path / "broken")
    (tmp_path / "broken" / "manifest.json").write_text("{")
    for arguments, message in (
        (["grid", "bad.toml", "--out", "g"], "bad.toml: cannot be read"),
        (["grid", str(tmp_path / "bad.toml"), "--out", "g"], "is not TOML"),
        (["grid", "demmo", "--out", "g"], "no grid of data/grids; did you mean 'demo'"),
        (["grid", "--out", "g"], "grid needs a spec"),
        (["grid", "demo", "--out", "g", "--engine", "dask"], "unknown engine 'dask'"),
        (["grid", "demo", "--out", "g", "--master", "local"], "add --engine spark"),
        (["grid", "--out", str(tmp_path / "empty"), "--check"], "is no grid: it has no manifest.json"),
        (["sql", "--grid", "nowhere", "select 1"], "is no grid"),
        (["sql", "--grid", str(tmp_path / "other"), "select 1"], "is a grid of format 99"),
        (["sql", "--grid", str(tmp_path / "older"), "select 1"], "calc 0.0.1, now"),
        (["sql", "--grid", str(tmp_path / "broken"), "select 1"], "cannot be read as a manifest"),
        (["sql", "--grid", str(grid), "select nothing from serving"], "the query fails"),
        (["sql", "--grid", str(grid), "from memory"], "which this grid does not hold"),
    ):
        said = run(*arguments)
        assert said.returncode == 2 and message in said.stderr, (arguments, said.stderr)


def test_shipped_grids_are_of_the_sizes_that_they_promise() -> None:
    """A demo of about a hundred thousand, a catalogue of everything, a hundred million."""
    tables = load(None)
    sizes = {g: load_spec(tables, g).n_questions for g in ("demo", "catalogue", "full")}
    assert 50_000 <= sizes["demo"] <= 200_000
    assert sizes["full"] >= 100_000_000
    assert sizes["catalogue"] % (tables["models"].height * tables["hardware"].height) == 0


def test_sql_over_a_grid_from_the_command_line(run: Run, grid: Path) -> None:
    """``sql --grid`` asks a grid, with parameters."""
    said = run("sql", "--grid", str(grid), "--file", str(ROOT / "sql" / "ridge_points.sql"))
    assert said.returncode == 0
    query = "select count(*) as n from serving where ttft_s < $ttft_s and fits"
    fast, slow = (run("sql", "--grid", str(grid), query, "--param", f"ttft_s={s}").stdout.split() for s in (0.02, 1e9))
    assert 0 < int(fast[1]) < int(slow[1]) <= 288
