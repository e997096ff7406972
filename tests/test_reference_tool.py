"""The reference tool's own outputs, to 1e-9 on every number, in both engines."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

import calc

GOLDEN = Path(__file__).parent / "golden"
KEYS = ["model_id", "hardware", "batch_size", "seq_len", "w_bit", "a_bit", "kv_bit", "use_flashattention"]
FORMATS = {16: "fp16", 8: "int8", 4: "int4", 2: "int2", 1: "int1"}
NAMES = {
    "ops": "ops", "memory_access": "memory_bytes", "arithmetic_intensity": "arithmetic_intensity",
    "performance": "attainable_ops_per_s", "load_weight": "weight_bytes", "load_act": "activation_read_bytes",
    "store_act": "activation_write_bytes", "load_kv_cache": "kv_read_bytes", "store_kv_cache": "kv_write_bytes",
    "inference_time": "time_s", "memory_consumption": "memory_consumption_bytes",
    "memory_consumption_tmp_act": "memory_consumption_tmp_act_bytes",
    "memory_consumption_weight": "memory_consumption_weight_bytes",
    "memory_consumption_kv_cache": "memory_consumption_kv_cache_bytes",
}  # fmt: skip


def questions(golden: pl.DataFrame) -> pl.DataFrame:
    """Return the scenarios behind golden rows, in the words of this project, beside the tool's own."""
    bits = {
        f"{role}_format": column for role, column in (("weight", "w_bit"), ("activation", "a_bit"), ("kv", "kv_bit"))
    }
    return golden.select(KEYS).unique(maintain_order=True).with_columns(
        pl.concat_str(pl.lit("llm_viewer/"), "hardware").alias("hardware_id"),
        pl.col("batch_size").alias("batch"),
        pl.col("seq_len").alias("input_len"),
        pl.when("use_flashattention").then(pl.lit("flash")).otherwise(pl.lit("eager")).alias("attention"),
        *(pl.col(column).replace_strict(FORMATS).alias(role) for role, column in bits.items()),
    )  # fmt: skip


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
@pytest.mark.parametrize("by", ["operator", "stage"])
def test_every_number_of_the_reference_tool(engine: str, by: str) -> None:
    """All golden rows, no row more, every figure and every bound."""
    name, keys = ("layers", [*KEYS, "stage", "layer"]) if by == "operator" else ("totals", [*KEYS, "stage"])
    golden = pl.read_parquet(GOLDEN / f"llm_viewer_{name}.parquet")
    found = calc.evaluate(questions(golden), by=by, sheet="llm_viewer", engine=engine).collect()
    found = found.rename({"operator": "layer"}, strict=False)
    figures = [c for c in NAMES if c in golden.columns]
    computed = found.select(*keys, *(pl.col(NAMES[c]).alias(f"{c} computed") for c in figures), "bound")
    joined = golden.join(computed, on=keys, how="full", suffix=" computed", nulls_equal=True)
    assert joined.height == golden.height == found.height
    for figure in figures:
        ours, theirs = pl.col(f"{figure} computed"), pl.col(figure)
        close = (ours == theirs) | ((ours - theirs).abs() <= 1e-9 * theirs.abs())
        wrong = joined.filter(~close.fill_null(False))
        assert wrong.is_empty(), f"{figure}: {wrong.select(*keys, figure, f'{figure} computed').head(3).to_dicts()}"
    if by == "operator":
        assert joined.filter(pl.col("bound").ne_missing(pl.col("bound computed"))).is_empty()


def test_old_and_new_names_mean_one_model() -> None:
    """THUDM/chatglm3-6b is zai-org/chatglm3-6b today; case does not matter; ids come back as they were spelled."""
    names = ["THUDM/chatglm3-6b", "zai-org/ChatGLM3-6B"]
    found = calc.evaluate(
        calc.scenarios(model=names, hardware="llm_viewer/nvidia_a6000"), by="stage", sheet="llm_viewer"
    )
    frame = found.collect()
    assert frame["model_id"].unique(maintain_order=True).to_list() == names
    assert frame["time_s"][0] == frame["time_s"][2] is not None


def test_a_device_without_int8_gives_a_reason() -> None:
    """The tool raises for a CPU without INT8; here the row is empty and says why, and its neighbours are not."""
    grid = calc.scenarios(
        model="facebook/opt-125m", hardware=["llm_viewer/intel_13900k", "llm_viewer/nvidia_A100"], precision="w8a8kv8"
    )
    frame = calc.evaluate(grid, by="stage", sheet="llm_viewer").collect()
    assert frame["time_s"].is_null().to_list() == [True, True, False, False]
    assert frame["reason"][0] == "hardware.int8_ops_per_s is unknown"


def test_what_the_tool_does_not_know_is_not_made_up() -> None:
    """The tool has no cached prefix: no time, and a reason."""
    grid = calc.scenarios(model="opt-6.7b", hardware="llm_viewer/nvidia_A100", cached_len=[0, 512])
    frame = calc.evaluate(grid, by="stage", sheet="llm_viewer").collect()
    assert frame["time_s"].is_null().to_list() == [False, False, True, True]
    assert "no cached prefix" in frame["reason"][2]


def test_generation_is_a_decode_at_every_context() -> None:
    """The chat task: prefill at the prompt, then one decode at s = prompt … prompt + answer − 1."""
    one = {"model": "llama-2-7b", "hardware": "llm_viewer/nvidia_V100", "batch": 64, "attention": "eager"}
    whole = calc.evaluate(
        calc.scenarios(**one, input_len=100, output_len=300), by="serving", sheet="llm_viewer"
    ).collect()
    steps = calc.evaluate(
        calc.scenarios(**one, input_len=list(range(100, 400))), by="stage", sheet="llm_viewer"
    ).collect()
    prefill = steps.filter(stage="prefill", input_len=100)["time_s"][0]
    brute = prefill + steps.filter(stage="decode")["time_s"].sum()
    assert whole["e2e_s"][0] == pytest.approx(brute, rel=1e-9)


@pytest.mark.parametrize("model", ["deepseek-ai/DeepSeek-V3", "state-spaces/mamba2-2.7b", "google-t5/t5-base"])
def test_what_the_tool_does_not_know_has_no_figure(model: str) -> None:
    """Its accounting of a dense transformer would be wrong for these: every figure is empty, and the reason says so."""
    found = calc.analyze(model, "a6000", sheet="llm_viewer", by="stage")
    assert found["reason"].str.contains("dense transformers only").all()
    for column in ("ops", "memory_bytes", "time_s", "memory_consumption_bytes"):
        assert found[column].null_count() == found.height, column
