"""Sequences spread over devices: norms by sequence parallelism, contexts by context parallelism."""

from __future__ import annotations

import math

import polars as pl
import pytest
from test_engines import both

import calc

MODEL, DEVICE = "meta-llama/Meta-Llama-3-8B", "nvidia_h100_sxm"
NVLINK, NETWORK = 450e9, 50e9
H, HEADS, G, D, INNER = 4096, 32, 8, 128, 14336


def rows(stage: str, **asked: object) -> dict[tuple[str, str], dict[str, float]]:
    """Return an operator's row by part and name."""
    found = calc.analyze(MODEL, DEVICE, **asked).filter(pl.col("stage") == stage)
    return {(r["part"], r["operator"]): r for r in found.iter_rows(named=True)}


def serving(model: str = MODEL, **asked: object) -> dict[str, float]:
    """Return the answer to one question on H100s."""
    return calc.analyze(model, DEVICE, by="serving", **asked).row(0, named=True)


def test_a_context_over_four_devices_by_hand() -> None:
    """Prefill of 8,192 tokens: a quarter of the tokens each, all keys and values pass; decode: a quarter of the cache."""
    n, s = 4, 8192
    prefill, decode = (rows(stage, cp=n, input_len=s) for stage in ("prefill", "decode"))
    attention = ("attention", "fused_attention")
    assert prefill["attention", "q_proj"]["matrix_ops"] == 2 * s / n * H * HEADS * D
    assert prefill["mlp", "up_proj"]["weight_bytes"] == 2 * H * INNER
    assert prefill[attention]["matrix_ops"] == 4 * HEADS * D * (s * (s + 1) / 2) / n
    assert prefill[attention]["kv_read_bytes"] == 2 * G * D * s * 2
    assert prefill[attention]["activation_read_bytes"] == s / n * HEADS * D * 2
    passed = prefill["attention", "kv_pass"]
    assert passed["network_bytes"] == s * 2 * G * D * 2 * (n - 1) / n
    assert math.isclose(passed["time_s"], s * 2 * G * D * 2 * (n - 1) / n / NVLINK, rel_tol=1e-12)
    assert passed["bound"] == "network" and ("attention", "partial_sum") not in prefill
    assert decode["attention", "q_proj"]["matrix_ops"] == 2 * H * HEADS * D
    assert decode[attention]["matrix_ops"] == 4 * HEADS * D * (s + 1) / n
    assert decode[attention]["kv_read_bytes"] == 2 * G * D * (s + 1) / n * 2
    summed = decode["attention", "partial_sum"]
    assert math.isclose(summed["time_s"], 2 * (HEADS * D + HEADS) * 2 * (n - 1) / n / NVLINK, rel_tol=1e-12)
    assert ("attention", "kv_pass") not in decode
    alone, spread = serving(input_len=s), serving(input_len=s, cp=n)
    assert spread["kv_cache_bytes"] == alone["kv_cache_bytes"] / n and spread["n_devices"] == n
    assert spread["weight_memory_bytes"] == alone["weight_memory_bytes"]
    assert spread["kv_bytes_per_token"] == alone["kv_bytes_per_token"] / n
    assert alone["ttft_s"] / n < spread["ttft_s"] < alone["ttft_s"]


def test_contexts_pass_from_server_to_server() -> None:
    """Beside tensor parallelism over all of a server, the next part of the context is in another."""
    inside, across = (rows("prefill", cp=2, tp=tp, input_len=4096)["attention", "kv_pass"] for tp in (4, 8))
    for row, tp, link in ((inside, 4, NVLINK), (across, 8, NETWORK)):
        assert math.isclose(row["time_s"], 4096 * 2 * G * D / tp * 2 / 2 / link, rel_tol=1e-12)


@pytest.mark.parametrize("model", [MODEL, "google/gemma-3-27b-it", "openai/gpt-oss-20b"])
def test_the_closed_form_is_the_sum_of_steps(model: str) -> None:
    """Windows too."""
    asked = {"cp": 4, "tp": 2, "batch": 3, "input_len": 900}
    found = serving(model, output_len=301, **asked)
    steps = pl.DataFrame([{**asked, "input_len": 900 + i} for i in range(300)]).with_columns(
        model_id=pl.lit(model), hardware_id=pl.lit(DEVICE)
    )
    total = calc.evaluate(steps, by="stage").filter(pl.col("stage") == "decode").collect()["time_s"].sum()
    assert math.isclose(found["tpot_s"] * 300, total, rel_tol=1e-9)


@pytest.mark.parametrize(
    "model", ["deepseek-v3", "state-spaces/mamba2-2.7b", "google-t5/t5-base", "Qwen/Qwen3-Next-80B-A3B-Instruct"]
)
def test_what_has_no_plain_context_is_refused(model: str) -> None:
    """Latents, states and encoders: a reason and no number."""
    found = serving(model, cp=2)
    assert found["reason"].startswith("cp needs plain attention in every layer") and found["ttft_s"] is None


def test_the_largest_batch_and_context_fit() -> None:
    """And one more does not."""
    asked = {"cp": 4, "input_len": 100_000, "output_len": 100}
    batch = serving(**asked)["max_batch"]
    assert serving(batch=batch, **asked)["fits"] and not serving(batch=batch + 1, **asked)["fits"]
    assert batch > serving(input_len=100_000, output_len=100)["max_batch"]


def test_norms_and_additions_spread_by_hand() -> None:
    """Eight devices: an eighth of the tokens each; what was summed to all is now scattered, then gathered."""
    plain, spread = (rows("prefill", tp=8, input_len=2048, technique=t) for t in (None, "sequence_parallel"))
    for key in (("attention", "attn_norm"), ("attention", "attn_add"), ("mlp", "mlp_norm"), ("mlp", "mlp_add")):
        assert spread[key]["vector_ops"] == plain[key]["vector_ops"] / 8
    for part, gather, reduce in (
        ("attention", "attn_gather", "attn_all_reduce"),
        ("mlp", "mlp_gather", "mlp_all_reduce"),
    ):
        assert spread[part, gather]["network_bytes"] == 2048 * H * 2 * 7 / 8
        both_ways = spread[part, gather]["time_s"] + spread[part, reduce]["time_s"]
        assert math.isclose(both_ways, plain[part, reduce]["time_s"], rel_tol=1e-12)
    assert spread["attention", "q_proj"]["matrix_ops"] == plain["attention", "q_proj"]["matrix_ops"]
    long = {"tp": 8, "input_len": 8192, "batch": 8}
    usual, less = serving(**long), serving(technique="sequence_parallel", **long)
    assert less["activation_peak_bytes"] < usual["activation_peak_bytes"] and less["ttft_s"] < usual["ttft_s"]
    assert serving(technique="sequence_parallel")["ttft_s"] == serving()["ttft_s"]


def test_engines_agree_on_sequences() -> None:
    """Both ways of spreading, dense and experts, flash and eager."""
    ways = [
        {"tp": 8, "technique": "sequence_parallel"},
        {"cp": 2, "attention": "eager"},
        {"tp": 8, "cp": 2, "technique": "sequence_parallel", "output_len": 1},
    ]
    models = [MODEL, "mistralai/Mixtral-8x7B-v0.1", "google/gemma-3-27b-it", "deepseek-v3"]
    grid = pl.DataFrame([{"model_id": m, "hardware_id": DEVICE, "batch": 4, **w} for m in models for w in ways])
    for by in ("operator", "serving"):
        both(grid, by)
