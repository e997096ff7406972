"""Cost, energy and CO2 of an answer, by hand; what is rented and what is bought; what is not known."""

from __future__ import annotations

import math

import polars as pl
import pytest

import calc

H100 = "nvidia_h100_sxm"


def facts(hardware: str) -> dict[str, float]:
    """Return the facts of a device."""
    return calc.hardware().filter(pl.col("hardware_id") == hardware).row(0, named=True)


def answer(**asked: object) -> dict[str, object]:
    """Return the serving figures of Llama-3-8B."""
    return calc.analyze(**{"model": "llama-3-8b", "hardware": H100, "by": "serving"} | asked).row(0, named=True)


@pytest.mark.parametrize("degrees", [{}, {"tp": 4}, {"tp": 2, "pp": 2}])
def test_rent_by_hand(degrees: dict[str, int]) -> None:
    """Hourly price of every device over the tokens of an hour; prefill's share over the prompt's tokens."""
    found = answer(batch=16, **degrees)
    per_second = math.prod(degrees.values()) * facts(H100)["price_usd_per_hour"] / 3600
    assert found["n_devices"] == math.prod(degrees.values())
    tokens = 16 * 128 / found["e2e_s"]
    assert found["usd_per_million_output_tokens"] == pytest.approx(1e6 * per_second / tokens, rel=1e-12)
    prompt = per_second * found["ttft_s"] / (16 * 1024)
    assert found["usd_per_million_input_tokens"] == pytest.approx(1e6 * prompt, rel=1e-12)


def test_owned_and_half_idle_by_hand() -> None:
    """The price over four years and its power at 10 cents; idle hours are paid for by the busy ones."""
    rented, owned = answer(), answer(technique="owned")
    device = facts(H100)
    hourly = device["price_usd"] / (4 * 8766) + device["tdp_w"] / 1000 * 1.55 * 0.1
    ratio = hourly / device["price_usd_per_hour"]
    column = "usd_per_million_output_tokens"
    assert owned[column] == pytest.approx(rented[column] * ratio, rel=1e-12)
    assert answer(technique="utilised", utilisation=0.25)[column] == pytest.approx(4 * rented[column], rel=1e-12)
    assert answer(technique="owned+utilised")[column] == pytest.approx(2 * owned[column], rel=1e-12)


def test_energy_by_hand() -> None:
    """Products in 16 bits, vector work, bytes and idle power, of prefill and of each decode step summed one by one."""
    asked = {"model": "llama-3-8b", "hardware": H100, "batch": 4, "input_len": 100, "output_len": 9}
    found = answer(batch=4, input_len=100, output_len=9)
    device = facts(H100)
    dynamic = 0.0
    for length in range(100, 108):
        stages = calc.analyze(**asked | {"input_len": length}, by="stage")
        for row in stages.iter_rows(named=True):
            if row["stage"] == "decode" or length == 100:
                dynamic += row["matrix_ops"] * 0.75e-12 + row["vector_ops"] * 2.3e-12
                dynamic += row["memory_bytes"] * 3.92e-12 * 8
    idle = device["idle_w"] if device["idle_w"] is not None else 0.15 * device["tdp_w"]
    joules = dynamic + idle * found["e2e_s"]
    assert found["is_power_limited"] is False
    assert found["energy_j_per_token"] == pytest.approx(joules / (4 * 9), rel=1e-9)
    assert found["co2_g_per_token"] == pytest.approx(joules / 36 / 3.6e6 * 473, rel=1e-9)


@pytest.mark.parametrize("model", ["google/gemma-3-27b-it", "meta-llama/Llama-4-Scout-17B-16E-Instruct", "deepseek-v3"])
def test_energy_of_windows_and_chunks_is_the_sum_of_steps(model: str) -> None:
    """The closed form of every span against the steps one by one."""
    asked = {"model": model, "hardware": "nvidia_h200_sxm", "batch": 2}
    start, steps = (8180, 30) if "Scout" in model else (1010, 30)
    found = calc.analyze(**asked, input_len=start, output_len=steps, by="serving").row(0, named=True)
    grid = calc.scenarios(**asked, input_len=list(range(start, start + steps - 1)))
    stages = calc.evaluate(grid, by="stage").collect()
    kept = stages.filter((pl.col("stage") == "decode") | (pl.col("input_len") == start))
    dynamic = kept.select(
        (pl.col("matrix_ops") * 0.75e-12 + pl.col("vector_ops") * 2.3e-12 + pl.col("memory_bytes") * 3.92e-12 * 8).sum()
    ).item()
    device = facts("nvidia_h200_sxm")
    idle = device["idle_w"] if device["idle_w"] is not None else 0.15 * device["tdp_w"]
    joules = min(dynamic + idle * found["e2e_s"], device["tdp_w"] * found["e2e_s"])
    assert found["energy_j_per_token"] == pytest.approx(joules / (2 * steps), rel=1e-9)


def test_no_more_than_the_design_power() -> None:
    """A long prefill would draw more: the energy is capped, and the row says so."""
    found = answer(batch=16, input_len=4096, output_len=1)
    assert found["is_power_limited"] is True
    assert found["energy_j_per_token"] == pytest.approx(facts(H100)["tdp_w"] * found["e2e_s"] / 16, rel=1e-12)
    every = calc.evaluate(
        calc.scenarios(model="llama-3-8b", hardware=calc.hardware()["hardware_id"].to_list(), batch=64), by="serving"
    )
    known = every.collect().drop_nulls("energy_j_per_token").join(calc.hardware(), on="hardware_id")
    power = known["energy_j_per_token"] * 64 * 128 / known["e2e_s"]
    assert (power <= known["tdp_w"] * (1 + 1e-12)).all() and known.height > 50


def test_unknown_prices_and_energies_are_named() -> None:
    """The figures that rest on them are empty, the others are not."""
    device = calc.hardware().filter(
        pl.col("price_usd_per_hour").is_null() & pl.col("memory_type").str.starts_with("LPDDR")
        & pl.col("memory_bandwidth_bytes_per_s").is_not_null() & pl.col("fp16_ops_per_s").is_not_null()
        & pl.col("tdp_w").is_not_null() & (pl.col("memory_capacity_bytes") > 40e9)
    )["hardware_id"][0]  # fmt: skip
    found = answer(hardware=device)
    assert found["ttft_s"] is not None and found["fits"] is True
    assert found["usd_per_million_output_tokens"] is None and found["energy_j_per_token"] is None
    assert "hardware.price_usd_per_hour is unknown" in found["reason"] and "memory_type" in found["reason"]


def test_reserves_of_runtimes() -> None:
    """VLLM's share, and a fixed amount; what is kept back is not there for sequences."""
    plain, vllm, llama_cpp = answer(), answer(technique="vllm_memory"), answer(technique="llama_cpp_memory")
    assert vllm["reserve_bytes"] == pytest.approx(0.1 * facts(H100)["memory_capacity_bytes"], rel=1e-12)
    assert llama_cpp["reserve_bytes"] == 5e8
    assert vllm["max_batch"] < llama_cpp["max_batch"] <= plain["max_batch"]
    assert vllm["memory_needed_bytes"] == pytest.approx(plain["memory_needed_bytes"] + vllm["reserve_bytes"], rel=1e-12)


def test_memory_that_no_model_needs() -> None:
    """What a process holds: 1,343 MiB that a first tensor takes. A cache kept for 2,048 tokens, however few there are."""
    asked = {"model": "llama-3-8b", "hardware": "h100", "by": "serving", "input_len": 1000, "output_len": 30}
    plain, both = calc.analyze(**asked), calc.analyze(**asked, technique="process_memory+reserved_kv")
    assert both["reserve_bytes"][0] == 1343 * 2**20 and both["kv_cache_bytes"][0] == 2048 * 131_072
    assert both["max_batch"][0] < plain["max_batch"][0] / 1.5 and both["tpot_s"][0] == plain["tpot_s"][0]
    longer = calc.analyze(**{**asked, "input_len": 4000}, technique="reserved_kv")
    assert longer["kv_cache_bytes"][0] == 4030 * 131_072


def test_a_cache_in_blocks() -> None:
    """1,030 tokens take 65 blocks of 16; the longest context is whole blocks."""
    asked = {"model": "llama-3-8b", "hardware": "h100", "by": "serving", "input_len": 1000, "output_len": 30}
    plain, paged = calc.analyze(**asked), calc.analyze(**asked, technique="paged_kv")
    assert plain["kv_cache_bytes"][0] == 1030 * 131_072 and paged["kv_cache_bytes"][0] == 65 * 16 * 131_072
    assert paged["max_context"][0] == plain["max_context"][0] // 16 * 16
    whole = calc.analyze(**asked, technique="paged_kv", block_tokens=1)
    assert whole["kv_cache_bytes"][0] == plain["kv_cache_bytes"][0]
