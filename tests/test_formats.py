"""Formats: stored bits with their scales, what stays wide, and what a device computes them in."""

from __future__ import annotations

import polars as pl
import pytest

import calc
from calc.tables import load

GIB = 2**30


def bits() -> dict[str, float]:
    """Return the stored bits of every format."""
    return dict(load()["formats"].select("format_id", "bits").iter_rows())


def test_stored_bits_by_hand() -> None:
    """Element, scale and zero point; each sum from its scheme's paper."""
    found = bits()
    assert found["int4_g128"] == 4 + (16 + 4) / 128  # AWQ, GPTQ: a half scale and a packed zero point
    assert found["int4_g128_sym"] == 4 + 16 / 128
    assert found["mxfp4"] == 4 + 8 / 32  # OCP MX: a power of two for 32 values
    assert found["nvfp4"] == 4 + 8 / 16  # an fp8 scale for 16 values
    assert found["fp8_block"] == 8 + 32 / (128 * 128)
    assert found["nf4"] == 4 + 32 / 64
    assert found["nf4_double"] == 4 + 8 / 64 + 32 / (64 * 256)  # QLoRA, section 3: 0.127 bits of constants
    assert found["int2_g32"] == 2 + (16 + 16) / 32


def test_packed_blocks_are_ggml_s() -> None:
    """Block sizes and bytes are those of llama.cpp's own package."""
    constants = pytest.importorskip("gguf.constants")
    known = {kind.name.lower(): sizes for kind, sizes in constants.GGML_QUANT_SIZES.items()}
    packed = load()["formats"].filter(pl.col("block_size").is_not_null())
    assert packed.height >= 20
    for name, size, n_bytes in packed.select("format_id", "block_size", "block_bytes").iter_rows():
        assert known[name] == (size, n_bytes), name
    assert {"q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "q8_0", "q4_0", "iq4_xs"} <= set(packed["format_id"])


@pytest.mark.parametrize(
    ("precision", "gib"),
    [("w32a32kv32", 25.10), ("w16a16kv16", 12.55), ("q8_0", 6.67), ("q6_k", 5.15), ("q5_1", 4.72), ("q4_0", 3.56)],
)
def test_the_size_of_llama_2_7b_is_llama_cpp_s(precision: str, gib: float) -> None:
    """As llama-bench prints it, to its two digits: the head stays in Q6_K, the embedding is quantized."""
    found = calc.analyze("llama-2-7b", "h100", precision=precision, by="serving")["weight_memory_bytes"][0]
    assert found / GIB == pytest.approx(gib, abs=0.0051)


def test_only_what_the_precision_names_is_narrow() -> None:
    """AWQ leaves embedding, head and norms in 16 bits; gpt-oss keeps all but its experts; a tied head is one table."""
    model = calc.models().filter(pl.col("model_id") == "meta-llama/Meta-Llama-3-8B").row(0, named=True)
    wide = 2 * 128256 * 4096 + 65 * 4096
    awq = calc.analyze("llama-3-8b", "h100", precision="w4a16kv16_g128", by="serving")["weight_memory_bytes"][0]
    assert awq == (model["n_parameters"] - wide) * 4.15625 / 8 + wide * 2
    tied = calc.analyze("llama-3.2-1b", "h100", precision="q4_k", by="serving")["weight_memory_bytes"][0]
    table, norms = 128256 * 2048, 33 * 2048
    total = calc.models().filter(pl.col("model_id") == "meta-llama/Llama-3.2-1B")["n_parameters"][0]
    assert tied == (total - table - norms) * 4.5 / 8 + table * 6.5625 / 8 + norms * 2


def computed(precision: str, hardware: str, operator: str) -> tuple[str, str | None]:
    """Return what an operator of a decode step computes in, and what it says of a fallback."""
    found = calc.analyze("llama-3-8b", hardware, precision=precision)
    row = found.filter((pl.col("stage") == "decode") & (pl.col("operator") == operator)).row(0, named=True)
    return row["compute_format"], row["fallback"]


@pytest.mark.parametrize(
    ("precision", "hardware", "operator", "computes", "falls_back"),
    [
        ("fp8_kv16", "h100", "q_proj", "fp8", False),
        ("fp8_kv16", "a100", "q_proj", "fp16", True),
        ("fp8_kv16", "a100", "mlp_act", "fp32", False),
        ("w4a16kv16_g128", "a100", "q_proj", "fp16", False),
        ("w4a16kv16_g128", "h100", "lm_head", "fp16", False),
        ("nvfp4", "b200", "q_proj", "fp4", False),
        ("nvfp4", "h100", "q_proj", "fp8", True),
        ("nvfp4", "a100", "fused_attention", "fp16", True),
        ("w8a8kv8", "v100", "q_proj", "fp16", True),
        ("nf4", "h100", "q_proj", "bf16", False),
        ("q8_0", "h100", "lm_head", "fp16", False),
    ],
)
def test_the_format_that_an_operator_computes_in(
    precision: str, hardware: str, operator: str, computes: str, falls_back: bool
) -> None:
    """The fastest of the device that holds both operands; a column says where that is not the narrowest."""
    found, said = computed(precision, hardware, operator)
    assert found == computes
    assert (said is not None) is falls_back
    assert said is None or said.endswith(f"operands compute in {computes}")
