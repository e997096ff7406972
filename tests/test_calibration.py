"""Calibrations: the regression finds what made the times, errors are those of what was left out, answers keep the bound."""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import openpyxl
import polars as pl
import pytest
from conftest import Run
from polars.testing import assert_frame_equal

import calc
from calc.calibration.applied import ANY, calibrating, fitted_parameters
from calc.calibration.calibrate import calibrate
from calc.calibration.expected import PREDICTED, errors_of_lines, residuals
from calc.calibration.judged import by_metric, held_out, in_use, judge, missed
from calc.errors import CalcError
from calc.evaluation import answered
from calc.grid.build import build
from calc.grid.parts import Plan
from calc.grid.spec import load_spec
from calc.measured import measurements
from calc.report import report
from calc.tables import ROOT, Tables, load
from calc.validation import memory

NAMES = load()["calibrations"]["calibration_id"].unique(maintain_order=True).to_list()
TRUE = {
    "prefill_wide_factor": 1.6, "prefill_attention_factor": 3.0, "prefill_memory_factor": 1.2, "prompt_s": 0.004,
    "decode_weights_factor": 1.25, "decode_cache_factor": 2.0, "decode_matrix_factor": 1.0, "decode_kernel_s": 5e-6,
    "step_s": 1e-3,
}  # fmt: skip
"""What the times of the made-up engine are made of; the other factors are those of the roofline."""


def made_up(tables: Tables, factors: dict[str, float], devices: tuple[str, ...], prefix: str) -> pl.DataFrame:
    """Return measurements whose values the calibrated sheet gives with some factors."""
    models = ("meta-llama/Meta-Llama-3-8B", "Qwen/Qwen3-32B", "meta-llama/Llama-2-7b-hf")
    lengths = [(128, 64), (512, 256), (2048, 128), (4096, 512)]
    axes = calc.scenarios(
        model=list(models), hardware=list(devices), precision=["w16a16kv16", "w8a16kv16"], batch=[1, 2, 8]
    ).collect()
    asked = axes.join(pl.DataFrame(lengths, schema=["input_len", "output_len"], orient="row"), how="cross")
    asked = asked.with_columns(technique=pl.lit(calibrating(tables)), **{p: pl.lit(v) for p, v in factors.items()})
    found = answered(tables, asked, "serving", columns=[*asked.columns, "ttft_s", "tpot_s"])
    rows = found.unpivot(["ttft_s", "tpot_s"], index=[*axes.columns, "input_len", "output_len"], variable_name="metric")
    known = measurements(tables).accepted
    same = {"source": "made up", "engine": "made_up", "n_devices": 1.0, "tp": 1.0, "pp": 1.0, "ep": 1.0,
            "model_as_reported": "made up", "format_as_reported": "made up"}  # fmt: skip
    rows = rows.with_columns(**{c: pl.lit(v) for c, v in same.items()})
    rows = rows.with_columns(measurement_id=pl.format(prefix + "_{}", pl.int_range(pl.len())))
    empty = [pl.lit(None, t).alias(c) for c, t in known.schema.items() if c not in rows.columns]
    return rows.with_columns(empty).select(pl.col(c).cast(t) for c, t in known.schema.items())


def test_the_regression_finds_the_factors_that_made_the_times(data: Path, tmp_path: Path) -> None:
    """From a file of measurements to a calibration of its own, which then gives the times back."""
    tables = load(data)
    told = made_up(tables, TRUE, ("nvidia_a40", "nvidia_rtx_a6000", "nvidia_a10g"), "made")
    told.write_csv(tmp_path / "mine.csv")
    calibrate(tables, str(tmp_path / "mine.csv"), "mine")
    after = load(data)
    found = after["calibrations"].filter(calibration_id="mine")
    assert set(found["architecture"]) == {ANY, "Ampere GA10x"}
    row = found.filter(architecture=ANY).row(0, named=True)
    for parameter in ("decode_weights_factor", "prefill_wide_factor", "prompt_s"):
        assert row[parameter] == pytest.approx(TRUE[parameter], rel=0.1), parameter
    # every one of these models launches 13 kernels a layer and 4 more: only what the overheads add up to can be told
    for layers in (32, 64):
        kernels = 13 * layers + 4
        found_s = row["step_s"] + layers * row["decode_layer_s"] + kernels * row["decode_kernel_s"]
        assert found_s == pytest.approx(TRUE["step_s"] + kernels * TRUE["decode_kernel_s"], rel=0.1)
    # where requests wait for memory the first token is of no use
    assert told.height / 2 < row["n_measurements"] < told.height and row["n_models"] == 3
    asked = calc.scenarios(
        model="meta-llama/Meta-Llama-3-8B", hardware="nvidia_a40", batch=[1, 8], input_len=512, output_len=256
    ).collect()
    again = answered(after, asked.with_columns(calibration=pl.lit("mine")), "serving")
    true = asked.with_columns(technique=pl.lit(calibrating(tables)), **{p: pl.lit(v) for p, v in TRUE.items()})
    wanted = answered(tables, true, "serving", columns=["ttft_s", "tpot_s"])
    for figure in ("ttft_s", "tpot_s"):
        assert again[figure].to_list() == pytest.approx(wanted[figure].to_list(), rel=0.02)
        assert (again[f"{figure}_error"] < 0.05).all()
    assert {r[0] for r in after["calibrations"].select("calibration_id").iter_rows()} == {*NAMES, "mine"}


def test_errors_are_of_fits_without_the_device(data: Path, tmp_path: Path) -> None:
    """A device that takes twice as long as the others: the fit knows it, a fit without its rows does not."""
    tables = load(data)
    usual = made_up(tables, {"decode_weights_factor": 1.2}, ("nvidia_a40", "nvidia_rtx_a6000"), "usual")
    slow = made_up(tables, {"decode_weights_factor": 2.4}, ("nvidia_rtx_4090",), "slow")
    both = pl.concat([usual, slow]).filter(metric="tpot_s")
    both.write_csv(tmp_path / "mine.csv")
    calibrate(tables, str(tmp_path / "mine.csv"), "mine")
    errors = pl.read_csv(data / "measured" / "residuals.csv").filter(calibration_id="mine")
    of = errors.filter(hardware_id="nvidia_rtx_4090")
    assert of["fitted_error"].abs().median() < 0.1  # type: ignore[operator]
    # predicted as the others are: half of the time
    assert of["device_error"].median() == pytest.approx(-0.5, abs=0.1)
    assert errors.filter(hardware_id="nvidia_a40")["model_error"].abs().median() < 0.1  # type: ignore[operator]


@pytest.mark.parametrize("name", NAMES)
def test_no_calibration_is_faster_than_the_bound(name: str) -> None:
    """Whatever was fitted: no stage takes less than its floor, dense or mixture, small batch or large."""
    asked = calc.scenarios(
        model=["meta-llama/Meta-Llama-3-8B", "Qwen/Qwen3-30B-A3B", "deepseek-ai/DeepSeek-V3"],
        hardware=["nvidia_h100_sxm", "nvidia_rtx_4090", "apple_m2_max", "amd_mi300x"], batch=[1, 16, 512],
        precision=["w16a16kv16", "fp8_kv16"], tp=[1, 8], input_len=[16, 4096], calibration=name,
    )  # fmt: skip
    found = answered(load(), asked, "stage", columns=["stage", "time_s", "floor_s"]).drop_nulls()
    assert found.height > 500 and (found["time_s"] >= found["floor_s"] * (1 - 1e-12)).all()


def test_a_calibrated_step_by_hand() -> None:
    """Weights, cache, products and kernels of Llama 3 8B on an RTX A6000, each with its factor."""
    asked = {"model_id": "meta-llama/Meta-Llama-3-8B", "hardware_id": "nvidia_rtx_a6000", "input_len": 1024, "batch": 1}
    row = load()["calibrations"].filter(calibration_id="llama.cpp", architecture="Ampere GA10x").row(0, named=True)
    frame = pl.DataFrame([{**asked, "output_len": 2, "calibration": "llama.cpp"}])
    answer = answered(load(), frame, "stage").filter(stage="decode").row(0, named=True)
    layers, hidden, cached, inner, vocab = 32, 4096, 1024, 14336, 128256
    matrices = layers * (2 * hidden * hidden + 2 * hidden * cached + 3 * hidden * inner) + hidden * vocab
    norms = (2 * layers + 1) * hidden
    # one row of the embedding is looked up: no weights are read
    weights, cache = 2 * (matrices + norms), 1024 * layers * 2 * cached * 2
    products = 2 * matrices + 2 * 2 * layers * 32 * 128 * 1025
    seconds = (
        row["decode_matrix_factor"] * products / 154.8e12
        + (row["decode_weights_factor"] * weights + row["decode_cache_factor"] * cache) / 768e9
        + row["decode_vector_factor"] * answer["vector_ops"] / 38.7e12
        + row["decode_kernel_s"] * answer["n_kernels"]
        + row["decode_layer_s"] * layers
        + row["step_s"]
    )
    assert answer["time_s"] == pytest.approx(seconds, rel=2e-3)


def test_the_expected_error_is_that_of_the_nearest(data: Path) -> None:
    """With twenty residuals that are near and many that are far, the median and nine tenths of the near ones."""
    kept = pl.read_csv(data / "measured" / "residuals.csv", infer_schema_length=None).head(0)
    near, far = np.linspace(0.01, 0.2, 20), np.full(50, 0.9)
    rows = [
        {"calibration_id": "vllm", "measurement_id": f"r{n}", "predicted": "tpot_s", "hardware_id": "nvidia_h100_sxm",
         "architecture": "Hopper", "model_id": "Qwen/Qwen3-32B", "batch": batch, "input_len": 1024, "output_len": 1024,
         "tp": 1, "pp": 1, "ep": 1, "fitted_error": 0.0, "device_error": None, "model_error": -error}
        for n, (batch, error) in enumerate([*((8, e) for e in near), *((512, e) for e in far)])
    ]  # fmt: skip
    pl.DataFrame(rows).select(kept.columns).write_csv(data / "measured" / "residuals.csv")
    asked = {"model_id": "Qwen/Qwen3-32B", "hardware_id": "nvidia_h100_sxm", "input_len": 1024, "output_len": 1024}
    frame = pl.DataFrame([{**asked, "batch": b, "calibration": "vllm"} for b in (8, 512, 1024)])
    found = answered(load(data), frame, "serving")
    assert found["tpot_s_error"].to_list() == [pytest.approx(np.median(near)), pytest.approx(0.9), None]
    assert found["tpot_s_error_p90"][0] == pytest.approx(np.quantile(near, 0.9))
    assert found["ttft_s_error"].is_null().all()
    assert found["calibration_note"].to_list()[1:] == [None, "outside of what was measured: batch 1024 (8 to 512)"]


def test_scenarios_without_one_stay_as_they_are() -> None:
    """Ideal, empty and no calibration give the roofline; rows of both kinds go together."""
    asked = {"model_id": "Qwen/Qwen3-32B", "hardware_id": "nvidia_h100_sxm", "tp": 2}
    frame = pl.DataFrame([{**asked, "calibration": c} for c in ("ideal", "", None, "vllm")])
    mixed = answered(load(), frame, "serving")
    plain = answered(load(), pl.DataFrame([asked]), "serving")
    assert mixed["tpot_s"].to_list()[:3] == [plain["tpot_s"][0]] * 3 and mixed["tpot_s"][3] > plain["tpot_s"][0]
    assert mixed["tpot_s_error"].null_count() == 3
    ideal = answered(load(), frame.head(3), "serving")
    assert "tpot_s_error" not in ideal.columns


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_both_engines_and_the_explanation_agree(engine: str) -> None:
    """A calibrated figure is the same wherever it is asked, and its factors say where they come from."""
    asked = {"model_id": "Qwen/Qwen3-30B-A3B", "hardware_id": "nvidia_h100_sxm", "batch": 32, "calibration": "vllm"}
    found = calc.evaluate(pl.DataFrame([asked]), by="serving", engine=engine).collect()
    told = calc.explain("tpot_s", asked)
    assert found["tpot_s"][0] == pytest.approx(told.value, rel=1e-12)
    row = load()["calibrations"].filter(calibration_id="vllm", architecture="Hopper").row(0, named=True)
    assert f"decode_weights_factor = {row['decode_weights_factor']:.4g}" in str(told)


def test_what_was_not_measured_is_refused() -> None:
    """An unknown name with the nearest; techniques that change the order of steps; the views, which know no others."""
    asked = {"model_id": "Qwen/Qwen3-32B", "hardware_id": "nvidia_h100_sxm"}
    with pytest.raises(CalcError, match="unknown calibration 'vlm'; did you mean 'vllm'"):
        answered(load(), pl.DataFrame([{**asked, "calibration": "vlm"}]), "serving")
    for technique in ("prefill_first", "speculative_decoding", "launch_overhead", "skeleton_of_thought"):
        with pytest.raises(CalcError, match=f"measured without '{technique}'"):
            answered(load(), pl.DataFrame([{**asked, "calibration": "vllm", "technique": technique}]), "serving")
    connection = calc.connect()
    with pytest.raises(duckdb.Error, match=r"a calibration needs calc\.evaluate, or technique_answers"):
        connection.sql(
            "with asked as (select 'Qwen/Qwen3-32B' as model_id, 'h100' as hardware_id, 'vllm' as calibration) "
            "select tpot_s from serving_of('asked')"
        ).fetchall()
    connection.close()


def test_queries_tell_the_error_to_be_expected() -> None:
    """The way round that the views name gives the same figures and errors as Python."""
    asked = {"model_id": "Qwen/Qwen3-32B", "hardware_id": "nvidia_h100_sxm", "batch": 64, "calibration": "vllm"}
    connection = calc.connect()
    one = {"serving": "technique_answers(to_json(a), [null])", "stage": "stage_answers(to_json(a), 'exact')"}
    for by, function in one.items():
        query = (
            "with a as (select $model_id as model_id, $hardware_id as hardware_id, $batch as batch, "
            f"$calibration as calibration) select unnest({function}, recursive := true) from a"
        )
        row = connection.sql(query, params=asked).pl()
        mine = answered(load(), pl.DataFrame([asked]), by)
        figure = "tpot_s" if by == "serving" else "time_s"
        assert row[figure].to_list() == mine[figure].to_list()
        assert row["tpot_s_error_p90"].to_list() == mine["tpot_s_error_p90"].to_list() != [None] * mine.height
    connection.close()


@pytest.mark.parametrize("by", ["serving", "stage"])
def test_a_grid_with_calibrations_is_what_python_says(by: str, tmp_path: Path) -> None:
    """An axis of calibrations: every row has its own factors and errors; a second build finds all there."""
    axes = {
        "model": ["Qwen/Qwen3-32B", "meta-llama/Meta-Llama-3-8B"], "hardware": ["nvidia_h100_sxm", "nvidia_b200_sxm"],
        "batch": [1, 32], "input_len": [128, 1024], "calibration": ["ideal", "vllm", "sglang"],
    }  # fmt: skip
    where = "batch * input_len <= 4096 AND n_layers > 32"
    spec = load_spec(load(), {"by": by, "axes": axes, "where": where})
    plan = Plan(load(), spec)
    assert build(plan, tmp_path / "g").rows and build(plan, tmp_path / "g").computed == 0
    connection = calc.connect(grid=tmp_path / "g")
    keys = ["model_id", "hardware_id", "batch", "input_len", "calibration"]
    order = [*keys, "stage"] if by == "stage" else keys
    figures = ["tpot_s", "ttft_s", "usd_per_million_output_tokens"] if by == "serving" else ["time_s", "mfu"]
    view = {"serving": "serving", "stage": "stages"}[by]
    got = connection.sql(f"select {', '.join((*order, *figures))} from {view}").pl().sort(order)
    told = connection.sql(f"select {', '.join(keys)}, tpot_s_error, calibration_note from scenarios").pl().sort(keys)
    connection.close()
    asked = calc.scenarios(**axes).collect().filter(model_id="Qwen/Qwen3-32B")
    asked = asked.filter(pl.col("batch") * pl.col("input_len") <= 4096)
    want = answered(load(), asked, by)
    assert got.select(order).equals(want.select(order).sort(order).cast(got.select(order).schema))
    assert_frame_equal(got.select(figures), want.sort(order).select(figures), rel_tol=1e-12)
    errors = want.unique(keys).sort(keys).select("tpot_s_error", "calibration_note")
    assert_frame_equal(told.select(errors.columns), errors)
    assert told["tpot_s_error"].count() and told["calibration_note"].count()


def test_every_text_about_an_answer_tells_its_error() -> None:
    """Notebooks, reports, explanations, engines' lines; of the roofline none."""
    asked = {"model": "Qwen/Qwen3-32B", "hardware": "nvidia_h100_sxm", "batch": 64}
    said = "Calibration vllm: expected error of TTFT ±"
    fitted = calc.ask(**asked, calibration="vllm")
    assert said in repr(fitted) and said in fitted._repr_html_()
    assert "xpected error" not in repr(calc.ask(**asked)) + calc.ask(**asked)._repr_html_()
    for ending in (".md", ".html"):
        assert said in report({**asked, "calibration": "vllm"}, "exact", ending)
    scenario = {"model_id": asked["model"], "hardware_id": asked["hardware"], "batch": 64, "calibration": "vllm"}
    assert said in str(calc.explain("tpot_s", scenario)) and said in calc.engine_command(scenario, "vllm")


def test_the_error_of_a_line_is_over_its_points() -> None:
    """From the least to the greatest; how many points were not measured near."""
    points = pl.DataFrame(
        {"line": ["a"] * 3 + ["b"], "error": [0.1, 0.2, None, None], "error_p90": [0.3, 0.3, None, None]}
    )
    assert errors_of_lines(points) == [
        "a: expected error ±10% to 20% (nine in ten within 30%); 1 of 3 points lie outside of what was measured",
        "b: 1 of 1 points lie outside of what was measured",
    ]


def test_techniques_that_change_what_runs_go_with_it() -> None:
    """Half of the layers under a calibration: what is counted per layer halves, what is counted per step stays."""
    asked = {"model_id": "meta-llama/Meta-Llama-3-8B", "hardware_id": "nvidia_rtx_a6000", "calibration": "llama.cpp"}
    both = pl.DataFrame([{**asked, "technique": t, "kept_depth_share": 0.5} for t in (None, "depth_pruning")])
    whole, half = answered(load(), both, "serving", columns=["tpot_s"])["tpot_s"]
    assert whole / 2 < half < 0.6 * whole


def test_the_command_line(run: Run, tmp_path: Path) -> None:
    """The option with the error to be expected, and a file that is no measurements in one line."""
    asked = ("analyze", "Qwen/Qwen3-32B", "nvidia_h100_sxm", "--calibration", "vllm")
    assert "Calibration vllm: expected error of TTFT ±" in run(*asked, "--by", "serving").stdout
    assert "operators are those of the roofline" in run(*asked, "--by", "operator").stdout
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    refused = run("calibrate", str(tmp_path / "bad.csv"))
    assert refused.returncode and "are missing, or are none of measurements" in refused.stderr
    own = (ROOT / "data" / "measurements.csv").read_text(encoding="utf-8").splitlines()
    (tmp_path / "two.csv").write_text("\n".join(own[:3]) + "\n", encoding="utf-8")
    refused = run("calibrate", str(tmp_path / "two.csv"), "--name", "mine")
    assert refused.returncode and "give at least 10" in refused.stderr
    for name in ("ideal", "a,b", ""):
        refused = run("calibrate", str(tmp_path / "two.csv"), "--name", name)
        assert refused.returncode and f"--name {name!r}" in refused.stderr


def test_every_calibration_says_what_it_rests_on() -> None:
    """A row for all architectures and one for each measured; factors of physics at least 1; every parameter a column."""
    rows = load()["calibrations"]
    assert set(fitted_parameters(load())) <= set(rows.columns)
    for _, own in rows.group_by("calibration_id"):
        assert ANY in own["architecture"].to_list() and (own["n_measurements"] >= 3).all()
        whole = own.filter(architecture=ANY)
        assert whole["n_measurements"][0] >= 30
    told = {f"{p}_{e}" for p in PREDICTED.values() for e in ("error", "error_p90")}
    assert told <= set(rows.columns)
    assert rows.filter(architecture=ANY).select(pl.any_horizontal(pl.col(*told).is_not_null()).all()).item()
    held = residuals(load()).filter(calibration_id="vllm", predicted="tpot_s")["model_error"].abs()
    assert rows.row(by_predicate=(pl.col("calibration_id") == "vllm") & (pl.col("architecture") == ANY), named=True)[
        "tpot_s_error"
    ] == pytest.approx(held.median(), abs=2e-3)
    for column in ("decode_matrix_factor", "decode_weights_factor", "decode_cache_factor", "prefill_wide_factor"):
        assert (rows[column] >= 1).all(), column


def test_a_group_that_misses_the_aim_is_named_or_fails(data: Path) -> None:
    """The product's own groups are within the aim or listed with a cause; one that gets worse than listed fails."""
    tables = load()
    assert judge(tables, held_out(tables)) == ""
    listed = missed(tables)
    assert (listed["cause"].str.len_chars() > 30).all()
    worse = held_out(tables).with_columns(pl.col("error") * 1.5)
    assert f"tpot_s of {listed.filter(predicted='tpot_s')['calibration_id'][0]}" in judge(tables, worse)
    (data / "measured" / "missed.csv").unlink()
    times = listed.filter(pl.col("predicted") != "peak_memory_bytes").height
    assert times < listed.height and f"{times} groups are further off" in judge(load(data), held_out(load(data)))


def test_memory_that_misses_the_aim_is_named_or_fails(data: Path) -> None:
    """A group of engines whose memory is further off than the aim: with a cause, and without."""
    rows = measurements(load()).accepted.filter(metric="peak_memory_bytes", engine="pytorch")
    off = memory(load(), rows).select(predicted="metric", calibration_id="engine", error="relative_error")
    assert off.height == 6 and judge(load(), off) == ""
    (data / "measured" / "missed.csv").unlink()
    assert "peak_memory_bytes of pytorch: median 15" in judge(load(data), off)


def test_a_users_own_measurements_are_judged(data: Path) -> None:
    """Times that a calibration gives have no error; a tenth more is a tenth."""
    tables = load(data)
    rows = made_up(tables, {"decode_weights_factor": 1.3}, ("nvidia_a40",), "mine").filter(metric="tpot_s")
    engine = rows.with_columns(engine=pl.lit("llama.cpp"))
    asked = engine.select(
        "model_id", "hardware_id", "precision", "batch", "input_len", "output_len", calibration="engine"
    )
    given = answered(tables, asked, "serving", columns=["tpot_s"])["tpot_s"]
    same = in_use(tables, engine.with_columns(value=given))
    assert same["error"].abs().max() < 1e-9  # type: ignore[operator]
    mixed = engine.with_columns(value=given, technique=pl.when(pl.col("batch") == 1).then(pl.lit("prefill_first")))
    assert in_use(tables, mixed)["batch"].unique().sort().to_list() == [2, 8]
    more = in_use(tables, engine.with_columns(value=given / 1.1))
    assert more["error"].to_list() == pytest.approx([0.1] * more.height)


def test_the_readme_shows_the_errors_as_they_are() -> None:
    """Median and 90th percentile by metric, fitted and left out, from the residuals."""
    table = (
        (ROOT / "README.md").read_text(encoding="utf-8").partition("| metric | fitted to all |")[2].partition("\n\n")[0]
    )
    told = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:] if line.startswith("|")
    ]
    labels = {
        "decode, one user": "decode_tokens_per_s_per_user", "TPOT, served": "tpot_s", "TTFT": "ttft_s",
        "decode, a batch (llama-batched-bench)": "decode_tokens_per_s", "prefill": "prefill_tokens_per_s",
        "throughput": "output_tokens_per_s",
    }  # fmt: skip
    rows = {row["metric"]: row for row in by_metric(load()).iter_rows(named=True)}
    assert {labels[row[0]] for row in told} == set(rows)
    for label, *cells in told:
        of = rows[labels[label]]
        wanted = [
            f"{of[f'{k} median']:.1%} · {of[f'{k} p90']:.0%} ({of[f'{k} n']:,})" if of[f"{k} n"] else "–"
            for k in ("fitted", "device out", "kin known", "model out")
        ]
        assert cells == wanted, label


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"calibration": ["vllm"]}, "calibration: List"),
        ({"calibration": 3}, "unknown calibration '3'"),
        ({"calibration": "vllm", "batch": "many"}, "batch: 'many' is not a number"),
        ({"calibration": "vllm", "batch": float("nan")}, "batch: NaN"),
        ({"calibration": "vllm", "batch": -1}, "batch: -1 is below 1"),
        ({"calibration": "vllm", "batch": 1e300}, "batch: 1e\\+300 is above"),
        ({"calibration": "vllm", "tpot_s_error": 1.0}, "'tpot_s_error' bears the name of a result"),
        ({"calibration": "vllm", "technique": "no_such"}, "unknown technique 'no_such'"),
        ({"calibration": "vllm", "hardware_id": "no_such"}, "unknown device 'no_such'"),
        ({"calibration": "vllm", "hardware_id": None}, "names no device"),
        ({"calibration": "vllm", "step_s": -1.0}, "step_s: -1 is below 0"),
    ],
)
def test_bad_scenarios_are_said_in_a_line(row: dict[str, object], said: str) -> None:
    """Whatever stands in a row beside a calibration, the message is the one that it would have without."""
    asked = {"model_id": "Qwen/Qwen3-32B", "hardware_id": "nvidia_h100_sxm", **row}
    with pytest.raises(CalcError, match=said):
        answered(load(), pl.DataFrame([asked]), "serving")


def test_a_grid_of_a_frame_may_be_calibrated(tmp_path: Path) -> None:
    """The files hold what a live question gives; specifications of what was not measured are refused."""
    frame = calc.scenarios(
        model="Qwen/Qwen3-32B", hardware=["nvidia_h100_sxm", "nvidia_rtx_4090"], batch=[1, 8], calibration="vllm"
    ).collect()
    calc.build_grid(frame, tmp_path / "g")
    connection = calc.connect(grid=tmp_path / "g")
    found = connection.sql("select hardware_id, batch, tpot_s from serving order by all").pl()
    connection.close()
    live = answered(load(), frame, "serving", columns=["hardware_id", "batch", "tpot_s"]).sort("hardware_id", "batch")
    assert found["tpot_s"].to_list() == pytest.approx(live["tpot_s"].to_list(), rel=1e-12)
    for more, said in (
        ({"calibration": ["vlm"]}, "unknown calibration 'vlm'"),
        ({"calibration": ["vllm"], "technique": ["speculative_decoding"]}, "measured without 'speculative_decoding'"),
    ):
        with pytest.raises(CalcError, match=said):
            calc.build_grid({"axes": {"model": ["Qwen/Qwen3-32B"], "hardware": ["h100"], **more}}, tmp_path / "h")
    odd = {"sheet": "llm_viewer", "axes": {"model": ["Qwen/Qwen3-32B"], "hardware": ["h100"], "calibration": ["vllm"]}}
    with pytest.raises(CalcError, match="llm_viewer"):
        calc.build_grid(odd, tmp_path / "h")


def test_a_calibrated_workbook_has_the_factors_as_inputs(tmp_path: Path) -> None:
    """Its answers are those of the calibration, and each factor is a name that may be changed."""
    asked = {"model_id": "Qwen/Qwen3-32B", "hardware_id": "nvidia_h100_sxm", "batch": 8, "calibration": "vllm"}
    calc.export(asked, str(tmp_path / "c.xlsx"))
    book = openpyxl.load_workbook(tmp_path / "c.xlsx", data_only=True)

    def value(name: str) -> object:
        sheet, cell = book.defined_names[name].attr_text.replace("$", "").replace("'", "").split("!")
        return book[sheet][cell].value

    live = answered(load(), pl.DataFrame([asked]), "serving").row(0, named=True)
    row = load()["calibrations"].filter(calibration_id="vllm", architecture="Hopper").row(0, named=True)
    assert value("tpot_s") == pytest.approx(live["tpot_s"], rel=1e-9)
    assert value("decode_weights_factor") == row["decode_weights_factor"]
    notes = " ".join(str(cell.value) for cell in book["Notes"]["B"])
    assert "Calibration vllm: expected error of TTFT ±" in notes and "no device is faster" not in notes
