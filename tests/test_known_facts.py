"""Figures that the field knows by heart, each with where it is said."""

from __future__ import annotations

import polars as pl
import pytest
from conftest import ROOT

import calc
from calc.database import connect
from calc.tables import load


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


def asked(survey: str) -> pl.DataFrame:
    """Return what one of the survey's queries gives."""
    query = (ROOT / "sql" / "survey" / f"{survey}.sql").read_text(encoding="utf-8")
    return connect(load(), query=query).sql(query).pl()


def test_bitnets_table_in_order_and_direction() -> None:
    """Two A100 of 80 GB, 512 tokens: 16 and 176 sequences, 333 and 2,977 tokens/s (arXiv:2402.17764, table 3).

    The printed batches need 149.8 to 150.8 GB for weights and caches and 0.74 to 0.75 GB a sequence, whatever the heads.
    """
    found = asked("bitnet")
    wide, ternary = found.sort("max_batch").iter_rows(named=True)
    assert (wide["weights"], ternary["weights"]) == ("fp16", "ternary")
    assert (wide["paper_max_batch"], ternary["paper_max_batch"]) == (16, 176)
    assert ternary["max_batch"] > 4 * wide["max_batch"]
    assert ternary["output_tokens_per_s"] > wide["output_tokens_per_s"]
    heavy, light = 2 * wide["weight_memory_bytes"], 2 * ternary["weight_memory_bytes"]
    fitting = [
        (c, max((c - heavy) / 17, (c - light) / 177), min((c - heavy) / 16, (c - light) / 176))
        for c in range(int(heavy) + 1, int(172e9), 10_000_000)
    ]
    fitting = [(c, low, high) for c, low, high in fitting if low < high]
    assert 149.7e9 < fitting[0][0] < fitting[-1][0] < 150.8e9
    assert fitting[0][1] > 0.738e9 and fitting[-1][2] < 0.756e9
    all_heads, grouped = (512 * 2 * 80 * heads * 128 for heads in (64, 8))
    assert grouped * 2 < fitting[0][1] < 2 * all_heads
    assert all_heads == 671_088_640  # in 8 bits: what is left is 0.07 GB a sequence
    assert round((160e9 - light) / (160e9 - heavy), 1) == 6.4


def test_the_bound_of_groq() -> None:
    """300 tokens/s/user on Llama-2-70B is half of what chips one after the other could, and a thousandth of all at once."""
    found = asked("groq")
    row = found.filter(pl.col("model_id").str.contains("70b")).row(0, named=True)
    assert row["min_devices"] >= 2 * 68.98e9 / 230e6
    assert row["one_after_the_other_tokens_per_s"] == pytest.approx(80e12 / (2 * 68.7e9), rel=0.02)
    assert 0.4 < row["share_of_one_after_the_other"] < 0.6 and row["share_of_all_at_once"] < 0.001
    spread = answer("llama-2-70b", "groq_lpu_v1", tp=8)
    assert spread["tpot_s"] is None and "scaleup_link_bytes_per_s" in str(spread["reason"])
