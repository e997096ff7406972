"""Polars and DuckDB give the same rows from the same cells, and the rows keep the laws of the roofline."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal, assert_series_equal

import calc

GRAINS = ["operator", "stage", "serving"]
MODELS = [
    "meta-llama/Llama-2-7b-hf", "EleutherAI/gpt-j-6b", "facebook/opt-350m", "mistralai/Mistral-7B-v0.1",
    "google/gemma-3-27b-it", "openai/gpt-oss-20b", "meta-llama/Llama-4-Scout-17B-16E-Instruct",
    "deepseek-ai/DeepSeek-V3.2", "deepseek-ai/DeepSeek-V2-Lite", "tencent/Tencent-Hunyuan-Large",
    "nvidia/NVIDIA-Nemotron-3-Super-120B-A12B", "baidu/ERNIE-4.5-300B-A47B-PT", "ai21labs/Jamba-v0.1",
    "state-spaces/mamba2-2.7b", "google/recurrentgemma-2b", "RWKV/rwkv-5-world-3b", "Qwen/Qwen3-Next-80B-A3B-Instruct",
    "MiniMaxAI/MiniMax-Text-01", "Zyphra/Zamba2-7B", "1bitLLM/bitnet_b1_58-3B", "google-bert/bert-base-uncased",
    "google-t5/t5-base", "openai/whisper-large-v3", "facebook/DiT-XL-2-256", "llava-hf/llava-1.5-7b-hf",
    "Qwen/Qwen3-VL-8B-Instruct", "mistralai/Devstral-Small-2-24B-Instruct-2512", "xai-org/grok-1", "bigscience/bloom",
]  # fmt: skip
"""Together they have every operator of the exact sheet, which a test requires."""
DENSE = MODELS[:3]
DECODERS = ["meta-llama/Llama-2-7b-hf", "facebook/opt-350m", "google/gemma-3-27b-it", "deepseek-ai/DeepSeek-V3.2",
            "nvidia/NVIDIA-Nemotron-3-Super-120B-A12B", "Qwen/Qwen3-Next-80B-A3B-Instruct", "Zyphra/Zamba2-7B"]  # fmt: skip
"""What properties of answers are tried on: decoders of each kind."""
LARGEST_RATE = 1e17
"""What the table of devices allows."""
DEVICES = calc.hardware()["hardware_id"].to_list()
PRECISIONS = calc.precisions()["precision_id"].to_list()


def both(scenarios: pl.DataFrame | pl.LazyFrame, by: str, sheet: str = "exact", **more: object) -> pl.DataFrame:
    """Evaluate in both engines, require equality to 1e-12 on every column, and return the rows."""
    polars = calc.evaluate(scenarios, by=by, sheet=sheet, **more).collect()
    duckdb = calc.evaluate(scenarios, by=by, sheet=sheet, engine="duckdb", **more).collect()
    assert_frame_equal(polars, duckdb, rel_tol=1e-12, abs_tol=0.0, check_exact=False)
    return polars


@pytest.mark.parametrize("sheet", ["exact", "llm_viewer"])
@pytest.mark.parametrize("by", GRAINS)
def test_engines_agree_on_every_model_and_device(by: str, sheet: str) -> None:
    """Every kind of model on every device; the unknown peaks among them give NULL in both."""
    found = both(calc.scenarios(model=MODELS, hardware=DEVICES[::12], n_images=2), by, sheet)
    assert found["model_id"].n_unique() == len(MODELS)
    eager = calc.scenarios(model=["llama-2-7b", "deepseek-ai/DeepSeek-V3.2"], hardware=DEVICES[::3], attention="eager")
    assert both(eager, by, sheet).height >= 2 * len(DEVICES) // 3


def test_the_models_have_every_operator() -> None:
    """What the engines are compared on is the whole sheet."""
    from calc.catalogue import bill
    from calc.loading import load_sheet
    from calc.tables import load

    sheet = load_sheet(load())
    whole = {(p.name, o.name) for p in sheet.parts for o in sheet.operators(p.block)}
    ways = [{}, {"attention": "eager", "tp": 2, "pp": 2}, {"tp": 2, "ep": 2}, {"ep": 2}, {"cp": 2},
            {"tp": 2, "technique": "sequence_parallel"}]  # fmt: skip
    asked = pl.DataFrame([{"model_id": m, "hardware_id": "a6000", "n_images": 1, **w} for m in MODELS for w in ways])
    shown = calc.evaluate(asked, by="operator")
    found = set(shown.select("part", "operator").unique().collect().rows())
    for model in MODELS:
        found |= set(bill(load(), model).select("part", "operator").rows())
    # copies of blocks whose operators other parts show
    shared = {"mtp_latent_attention", "mtp_attention", "mtp_moe", "mtp_mlp", "attention_shared", "attention_borrowed",
              "attention_local", "encoder_mlp", "mlp_shared", "vision_mlp", "deepstack", "encoder_attention"}  # fmt: skip
    assert {m for m in whole - found if m[0] not in shared} <= {("moe", "mlp_post_norm"), ("head", "pooler")}


@pytest.mark.parametrize("sheet", ["exact", "llm_viewer"])
@pytest.mark.parametrize("by", GRAINS)
def test_engines_agree_on_precisions_and_extremes(by: str, sheet: str) -> None:
    """Every precision; smallest and largest sizes; an empty prompt, an empty answer, a cached prefix."""
    both(
        calc.scenarios(model=[*DENSE, "openai/gpt-oss-20b"], hardware=DEVICES[3:15:6], precision=PRECISIONS), by, sheet
    )
    sizes = pl.DataFrame(
        {
            "batch": [1, 10**9, 1, 3, None, 2, 5],
            "input_len": [10**9, 10**9, 0, 1, None, 4097, 5000],
            "output_len": [0, 10**9, 1, 10**9, None, 2, 0],
            "cached_len": [0, 10**9 - 1, 0, 0, None, 4096, 1],
            "precision": ["w4a4kv4", None, "fp8", "w1a16kv16", None, "w2a16kv4", "w32a32kv32"],
            "kv_format": [None, "int2", None, None, None, "fp8", None],
            "attention": ["flash", "eager", None, "eager", None, "flash", "eager"],
        }
    )
    # at a billion tokens what is a power of them may be too large for a number in either engine
    mixed = [*DENSE, "google/gemma-3-27b-it", "meta-llama/Llama-4-Scout-17B-16E-Instruct", "deepseek-ai/DeepSeek-V3.2"]
    frame = sizes.join(pl.DataFrame({"model_id": mixed}), how="cross")
    frame = frame.with_columns(pl.lit("nvidia_h100_sxm").alias("hardware_id"))
    both(frame, by, sheet)


@pytest.mark.parametrize("by", GRAINS)
def test_techniques_work_in_both_engines(by: str) -> None:
    """No technique, each alone, and the stack, in one frame; rows stay in the questions' order."""
    stacks = [None, "sliding_window", "unstructured_pruning", "sliding_window + unstructured_pruning"]
    grid = calc.scenarios(
        model="llama-2-7b", hardware=["a6000", "h100"], technique=stacks, input_len=[100, 9000],
        window_len=[64, 4096], pruned_share=0.75, output_len=300,
    )  # fmt: skip
    found = both(grid, by)
    asked = grid.collect()
    assert_frame_equal(found.select(asked.columns).unique(maintain_order=True), asked.unique(maintain_order=True))


def test_a_sliding_window_bounds_work_traffic_and_cache() -> None:
    """At 9,000 tokens and a window of 1,000: pairs 1000·8001 + 999·1000/2, reads and cache of 1,000 tokens."""
    row = calc.analyze(
        "llama-2-7b",
        "a6000",
        input_len=9000,
        output_len=100,
        by="operator",
        technique="sliding_window",
        window_len=1000,
    )
    prefill, decode = (
        row.filter(stage=s, operator="fused_attention").row(0, named=True) for s in ("prefill", "decode")
    )
    assert prefill["matrix_ops"] == 4 * 32 * 128 * (1000 * 1001 / 2 + 8000 * 1000)
    assert decode["matrix_ops"] == 4 * 32 * 128 * 1000
    assert decode["kv_read_bytes"] == 2 * 32 * 1000 * 128 * 2
    serving = calc.analyze(
        "llama-2-7b", "a6000", input_len=9000, output_len=100, by="serving", technique="sliding_window", window_len=1000
    )
    assert serving["kv_cache_bytes"][0] == 32 * 2 * 32 * 1000 * 128 * 2


def test_unstructured_pruning_stores_nonzeros_and_a_mask() -> None:
    """A q projection of 4096 × 4096: a quarter of the weights in 16 bits and one bit for each; ops stay dense."""
    pruned = {"technique": "unstructured_pruning", "pruned_share": 0.75}
    dense, sparse = (
        calc.analyze("llama-2-7b", "a6000", **more).filter(stage="decode", operator="q_proj").row(0, named=True)
        for more in ({}, pruned)
    )
    assert sparse["weight_bytes"] == 4096 * 4096 * (2 * 0.25 + 1 / 8)
    assert sparse["ops"] == dense["ops"]
    head = calc.analyze("llama-2-7b", "a6000", **pruned).filter(stage="decode", operator="lm_head")
    assert head["weight_bytes"][0] == 4096 * 32000 * 2


scenario = st.fixed_dictionaries(
    {
        "model": st.sampled_from(DECODERS),
        "hardware": st.sampled_from(DEVICES),
        "batch": st.integers(1, 512),
        "input_len": st.integers(1, 20000),
        "output_len": st.integers(0, 2000),
        "precision": st.sampled_from(PRECISIONS),
        "attention": st.sampled_from(["eager", "flash"]),
    }
)


@settings(max_examples=40, deadline=None)
@given(asked=scenario)
def test_operators_sum_to_stages(asked: dict[str, object]) -> None:
    """A stage is the sum of count × operator, column by column; an empty operator leaves an empty sum."""
    grid = calc.scenarios(**asked)
    operators, stages = (calc.evaluate(grid, by=by).collect() for by in ("operator", "stage"))
    for stage in ("prefill", "decode"):
        mine, total = operators.filter(stage=stage), stages.filter(stage=stage)
        for column in ("matrix_ops", "vector_ops", "ops", "weight_bytes", "kv_read_bytes", "memory_bytes", "time_s"):
            values = mine[column] * mine["count"]
            if values.has_nulls():
                assert total[column][0] is None and total["reason"][0]
            else:
                assert total[column][0] == pytest.approx(values.sum(), rel=1e-12)


@settings(max_examples=15, deadline=None)
@given(asked=scenario, factor=st.floats(1.0, 16.0), rate=st.sampled_from(
    ["memory_bandwidth_bytes_per_s", "fp16_ops_per_s", "int8_ops_per_s", "vector_fp32_ops_per_s", "fp32_ops_per_s"]))  # fmt: skip
def test_more_of_a_resource_is_never_slower(asked: dict[str, object], factor: float, rate: str) -> None:
    """Raising one rate of a device raises no time."""
    mine = calc.hardware().filter(hardware_id=asked["hardware"]).with_columns(pl.lit("mine").alias("hardware_id"))
    mine = mine.with_columns(pl.lit(None, pl.String).alias("aliases"))
    faster = mine.with_columns((pl.col(rate) * factor).clip(upper_bound=LARGEST_RATE), hardware_id=pl.lit("faster"))
    device = pl.concat([mine, faster])
    if not device.select((pl.col("vector_fp32_ops_per_s") <= pl.col("fp16_ops_per_s")).fill_null(True).all()).item():
        return
    if not device.select((pl.col("int8_ops_per_s") <= 8 * pl.col("fp16_ops_per_s")).fill_null(True).all()).item():
        return
    grid = calc.scenarios(**{**asked, "hardware": ["mine", "faster"]})
    for by, columns in (("stage", ["time_s", "floor_s"]), ("serving", ["ttft_s", "tpot_s", "e2e_s"])):
        found = calc.evaluate(grid, by=by, hardware=device).collect()
        half = found.height // 2
        for column in columns:
            slow, fast = found[column].head(half), found[column].tail(half)
            assert ((fast <= slow * (1 + 1e-12)) | slow.is_null()).all()


@settings(max_examples=20, deadline=None)
@given(asked=scenario)
def test_the_floor_is_a_floor(asked: dict[str, object]) -> None:
    """No stage is faster than its floor, and utilisations are shares."""
    found = calc.evaluate(calc.scenarios(**asked), by="stage").collect().filter(pl.col("time_s") > 0)
    assert (found["floor_s"] <= found["time_s"] * (1 + 1e-12)).all()
    assert found.select(((pl.col("mfu") <= 1 + 1e-9) & (pl.col("mbu") <= 1 + 1e-9)).all()).item()


@settings(max_examples=15, deadline=None)
@given(asked=scenario, steps=st.integers(2, 300), start=st.integers(0, 6000))
def test_mean_decode_step_is_the_mean_of_all_steps(asked: dict[str, object], steps: int, start: int) -> None:
    """The closed form against the brute sum over every token, windows included."""
    asked = {**asked, "input_len": max(start, 1), "output_len": steps}
    closed = calc.evaluate(calc.scenarios(**asked), by="serving").collect()["tpot_s"][0]
    contexts = list(range(asked["input_len"], asked["input_len"] + steps - 1))
    brute = calc.evaluate(calc.scenarios(**{**asked, "input_len": contexts}), by="stage").collect()
    times = brute.filter(stage="decode")["time_s"]
    assert (closed is None and times.has_nulls()) or closed == pytest.approx(times.mean(), rel=1e-9)


def test_utilisation_is_a_share_where_attention_is_narrower_than_the_weights() -> None:
    """16-bit weights and 8-bit activations: attention runs at twice the linear peak, and mfu stays below 1."""
    narrow = {"weight_format": "fp16", "activation_format": "fp8", "kv_format": "fp8", "input_len": 200_000}
    found = calc.evaluate(calc.scenarios(model="llama-2-7b", hardware="h100", **narrow), by="stage").collect()
    assert 0.5 < found["mfu"][0] <= 1


def test_row_order_never_matters() -> None:
    """A shuffled frame, which is no grid, gives the same answer for every row as the grid."""
    grid = calc.scenarios(model=MODELS[:4], hardware=DEVICES[:5], batch=[1, 8], attention=["eager", "flash"]).collect()
    grid = grid.with_row_index("mine")
    straight = calc.evaluate(grid, by="stage").collect()
    shuffled = calc.evaluate(grid.sample(fraction=1, shuffle=True, seed=1), by="stage").collect()
    assert_frame_equal(straight, shuffled.sort("mine", maintain_order=True), check_exact=True)


def test_one_answer_per_row_and_the_users_columns_stay() -> None:
    """Two equal rows stay two; a user's key survives; ids come back as spelled; columns keep their order and type."""
    frame = pl.DataFrame(
        {"my_key": ["b", "a", "a"], "model_id": ["Llama-2-7B"] * 3, "hardware_id": ["A6000"] * 3, "batch": [1, 1, 1]}
    )
    for by, rows in (("serving", 1), ("stage", 2), ("operator", 34)):
        for engine in ("polars", "duckdb"):
            found = calc.evaluate(frame, by=by, engine=engine).collect()
            assert found.columns[:4] == frame.columns
            assert found["my_key"].to_list() == [k for k in ["b", "a", "a"] for _ in range(rows)]
            assert set(found["model_id"]) == {"Llama-2-7B"} and found["batch"].dtype == pl.Int64


def test_only_what_is_asked_is_computed() -> None:
    """Projection, predicate and limit reach into the lazy answers."""
    lazy = calc.evaluate(calc.scenarios(model=DECODERS, hardware=DEVICES), by="stage")
    assert lazy.select("time_s").collect().columns == ["time_s"]
    assert lazy.filter(pl.col("stage") == "decode").select(pl.len()).collect().item() == len(DECODERS) * len(DEVICES)
    assert lazy.head(3).collect().height == 3
    assert lazy.collect(engine="streaming").equals(lazy.collect())


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
@pytest.mark.parametrize("by", GRAINS)
def test_any_choice_of_columns_gives_the_same_rows(by: str, engine: str) -> None:
    """Some columns alone, none at all, and a filter on a column that is not shown."""
    grid = calc.scenarios(
        model=["llama-2-7b", "opt-125m"], hardware=["a40", "v100"], attention=["eager", "flash"], batch=[1, 4]
    )
    lazy = calc.evaluate(grid, by=by, engine=engine)
    whole = lazy.collect()
    assert lazy.select(pl.len()).collect().item() == whole.height
    # every column of the many that serving has is compiled by itself elsewhere, in tests of its figures
    for column in whole.columns[:: 9 if by == "serving" else 3]:
        alone = lazy.select(column).collect().to_series()
        assert_series_equal(alone, whole[column], rel_tol=1e-12)
    some = lazy.filter(pl.col("hardware_id") == "a40", pl.col("batch") == 4).select(whole.columns[-3]).collect()
    assert some.height == whole.filter(hardware_id="a40", batch=4).height


def test_own_rows_join_the_facts() -> None:
    """A caller's device with half the bandwidth doubles a memory-bound time; the product's tables do not change."""
    mine = calc.hardware().filter(hardware_id="nvidia_rtx_a6000").select(
        pl.lit("half").alias("hardware_id"), "name", "vendor", "kind", "source_id", "fp16_ops_per_s",
        "vector_fp32_ops_per_s", pl.col("memory_bandwidth_bytes_per_s") / 2,
    )  # fmt: skip
    grid = calc.scenarios(model="llama-2-7b", hardware=["half", "a6000"])
    found = calc.evaluate(grid, by="stage", hardware=mine).collect().filter(stage="decode")
    assert found["memory_s"][0] == pytest.approx(2 * found["memory_s"][1])
    assert "half" not in calc.hardware()["hardware_id"].to_list()


def test_scaling_laws_of_one_operator() -> None:
    """Twice the batch: twice the operations of a projection, and the same weights."""
    one, two = (calc.analyze("llama-2-7b", "a6000", batch=b).filter(operator="q_proj") for b in (8, 16))
    assert (two["ops"] == 2 * one["ops"]).all() and (two["weight_bytes"] == one["weight_bytes"]).all()
