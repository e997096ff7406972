"""Figures that the field knows by heart, each with where it is said."""

from __future__ import annotations

import polars as pl
import pytest

import calc


def answer(model: str, hardware: str = "nvidia_h100_sxm", **asked: object) -> dict[str, object]:
    """Return the serving figures of a question."""
    return calc.analyze(model, hardware, by="serving", **asked).row(0, named=True)


def test_the_cache_of_llama_2_70b() -> None:
    """327,680 bytes a token: 80 layers, 8 key/value heads of 128, two of them in 16 bits (arXiv:2307.09288, table 1)."""
    assert answer("meta-llama/Llama-2-70b-hf")["kv_bytes_per_token"] == 327_680


def test_the_latent_cache_of_deepseek_v3() -> None:
    """61 layers of 512 + 64 elements in 16 bits (arXiv:2412.19437, section 4.2)."""
    assert answer("deepseek-v3")["kv_bytes_per_token"] == 61 * 576 * 2 == 70_272


def test_the_ridge_of_h100() -> None:
    """295 operations per byte in bf16: 989.5 T op/s over 3.35 TB/s (NVIDIA H100 datasheet, dense)."""
    ridges = calc.connect().sql("from ridge_points where hardware_id = 'nvidia_h100_sxm' and peak = 'bf16'").pl()
    assert round(ridges["ridge_intensity"][0]) == 295


def test_the_weights_of_llama_13b() -> None:
    """26 GB in 16 bits: 13.0e9 parameters (arXiv:2302.13971, table 2)."""
    found = calc.models().filter(pl.col("model_id").str.to_lowercase().str.ends_with("llama-13b"))["model_id"]
    assert answer(found[0])["weight_memory_bytes"] == pytest.approx(26e9, rel=0.005)


def test_the_cache_formula_of_lectures() -> None:
    """2 × precision × layers × heads × head size × length × batch; what they call embedding size is a head's (OPT-30B)."""
    found = answer("facebook/opt-30b", batch=128, input_len=1024, output_len=0)
    assert found["kv_cache_bytes"] == 2 * 2 * 48 * 56 * 128 * 1024 * 128


def test_llama_3_70b_needs_two_h100() -> None:
    """141 GB of weights do not fit in 80 GiB, and fit in two (model card: 70.6e9 parameters)."""
    alone, pair = answer("llama-3-70b"), answer("llama-3-70b", tp=2)
    assert alone["fits"] is False and alone["min_devices"] == 2 and "weights" in str(alone["reason"])
    assert alone["shortfall_bytes"] == alone["memory_needed_bytes"] - 80 * 2**30
    assert pair["fits"] is True and pair["shortfall_bytes"] == 0
