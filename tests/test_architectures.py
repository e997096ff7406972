"""One model of each special kind, derived by hand: what a pass computes, reads and keeps."""

from __future__ import annotations

import polars as pl
import pytest

import calc

H100 = "nvidia_h100_sxm"


def operator(
    model: str, name: str, stage: str = "decode", part: str | None = None, **asked: object
) -> dict[str, float]:
    """Return one operator's row."""
    found = calc.analyze(model, H100, **asked).filter(stage=stage, operator=name)
    rows = found.filter(part=part) if part else found
    assert rows.height == 1, rows.select("part", "operator").rows()
    return rows.row(0, named=True)


@pytest.mark.parametrize("batch", [1, 8, 64, 512])
def test_deepseek_reads_the_experts_that_its_tokens_hit(batch: int) -> None:
    """256 experts, 8 per token: 256·(1 − (1 − 8/256)^batch) of them are expected, of 7168 × 2048 each."""
    row = operator("deepseek-ai/DeepSeek-V3", "expert_up_proj", batch=batch)
    expected = 256 * (1 - (248 / 256) ** batch)
    assert row["weight_bytes"] == pytest.approx(2 * expected * 7168 * 2048, rel=1e-12)
    assert row["ops"] == 2 * batch * 8 * 7168 * 2048
    assert row["count"] == 58


def test_deepseek_decodes_absorbed_and_prefills_expanded() -> None:
    """Decode scores 576 latent columns and sums 512; prefill expands to 128 heads of 192 and 128 columns."""
    decode = operator("deepseek-ai/DeepSeek-V3", "fused_attention", batch=2, input_len=1000)
    assert decode["matrix_ops"] == 2 * 2 * 128 * 1001 * (576 + 512)
    assert decode["kv_read_bytes"] == 2 * 2 * 1001 * 576
    prefill = operator("deepseek-ai/DeepSeek-V3", "fused_attention", "prefill", batch=2, input_len=1000)
    assert prefill["matrix_ops"] == 2 * 2 * 128 * (1000 * 1001 / 2) * (192 + 128)
    assert prefill["activation_read_bytes"] == 2 * (2 * 1000 * 128 * 192 + 2 * 1000 * 128 * (192 + 128))
    absorbed = operator("deepseek-ai/DeepSeek-V3", "q_absorb", batch=2)
    assert absorbed["ops"] == 2 * 2 * 128 * 128 * 512 and absorbed["weight_bytes"] == 2 * 128 * 128 * 512
    expanded = operator("deepseek-ai/DeepSeek-V3", "kv_b_proj", "prefill", batch=2, input_len=1000)
    assert expanded["ops"] == 2 * 2 * 1000 * 512 * 128 * 256


def test_deepseek_keeps_one_latent_per_token_and_layer() -> None:
    """61 layers × (512 + 64) elements of 2 bytes."""
    row = calc.analyze("deepseek-ai/DeepSeek-V3", H100, input_len=1000, output_len=24, batch=3, by="serving")
    assert row["kv_bytes_per_token"][0] == 61 * 576 * 2
    assert row["kv_cache_bytes"][0] == 3 * 1024 * 61 * 576 * 2
    assert row["weight_memory_bytes"][0] == 2 * 671_026_404_352


def test_sparse_attention_picks_2048_tokens() -> None:
    """DeepSeek-V3.2: at 10,000 tokens attention reads 2,048 latents, its indexer scores all 10,001."""
    attention = operator("deepseek-ai/DeepSeek-V3.2", "fused_attention", input_len=10_000)
    assert attention["matrix_ops"] == 2 * 128 * 2048 * (576 + 512)
    assert attention["kv_read_bytes"] == 2 * 2048 * 576
    scores = operator("deepseek-ai/DeepSeek-V3.2", "index_scores", input_len=10_000)
    assert scores["matrix_ops"] == 2 * 64 * 10_001 * 128 and scores["kv_read_bytes"] == 2 * 10_001 * 128
    row = calc.analyze("deepseek-ai/DeepSeek-V3.2", H100, by="serving")
    assert row["kv_bytes_per_token"][0] == 61 * (576 + 128) * 2


def test_gemma_3_looks_back_1024_tokens_on_five_layers_of_six() -> None:
    """27b: 62 layers, of which 52 local; 16 key/value heads of 128 columns."""
    asked = {"input_len": 8000, "output_len": 192, "batch": 2}
    local = operator("google/gemma-3-27b-it", "fused_attention", part="attention_local", **asked)
    whole = operator("google/gemma-3-27b-it", "fused_attention", part="attention", **asked)
    assert (local["count"], whole["count"]) == (52, 10)
    assert local["kv_read_bytes"] == 2 * 2 * 2 * 16 * 128 * 1024
    assert whole["kv_read_bytes"] == 2 * 2 * 2 * 16 * 128 * 8001
    assert local["matrix_ops"] == 4 * 2 * 32 * 128 * 1024
    prefill = operator("google/gemma-3-27b-it", "fused_attention", "prefill", "attention_local", **asked)
    pairs = 1024 * 1025 / 2 + (8000 - 1024) * 1024
    assert prefill["matrix_ops"] == 4 * 2 * 32 * 128 * pairs
    held = calc.analyze("google/gemma-3-27b-it", H100, by="serving", **asked)["kv_cache_bytes"][0]
    assert held == 2 * 2 * 2 * 16 * 128 * (52 * 1024 + 10 * 8192)


def test_gpt_oss_keeps_its_experts_in_mxfp4() -> None:
    """20b: 19,110,297,600 expert weights at 4.25 bits, 6,635,520 expert biases and all the rest at 16 bits."""
    row = calc.analyze("openai/gpt-oss-20b", H100, precision="mxfp4_experts", by="serving")
    experts = 24 * 32 * 3 * 2880 * 2880
    rest = 20_914_757_184 - experts
    assert row["weight_memory_bytes"][0] == experts * 4.25 / 8 + rest * 2
    one = operator("openai/gpt-oss-20b", "expert_down_proj", precision="mxfp4_experts")
    assert one["weight_bytes"] == pytest.approx(4 * (2880 * 2880 * 4.25 / 8 + 2880 * 2), rel=1e-12)
    assert one["compute_format"] in ("fp16", "bf16")
    plain = operator("openai/gpt-oss-20b", "q_proj", part="attention", precision="mxfp4_experts")
    assert plain["weight_bytes"] == 2 * (2880 * 4096 + 4096)


def test_qwen3_next_keeps_states_beside_a_cache_of_every_fourth_layer() -> None:
    """36 delta-net layers of 32 heads × 128 × 128 and 4 columns of 8,192 channels; 12 layers of 2 heads × 256."""
    asked = {"input_len": 1000, "output_len": 24, "batch": 2}
    row = calc.analyze("Qwen/Qwen3-Next-80B-A3B-Instruct", H100, by="serving", **asked)
    states = 36 * (32 * 128 * 128 + 4 * 8192)
    assert row["kv_cache_bytes"][0] == 2 * 2 * (states + 12 * 2 * 2 * 256 * 1024)
    assert row["kv_bytes_per_token"][0] == 2 * 12 * 2 * 2 * 256
    scan = operator("Qwen/Qwen3-Next-80B-A3B-Instruct", "scan", **asked)
    assert scan["kv_read_bytes"] == scan["kv_write_bytes"] == 2 * 2 * 32 * 128 * 128
    assert scan["vector_ops"] == 6 * 2 * 32 * 128 * 128 and scan["matrix_ops"] == 0
    longer = operator("Qwen/Qwen3-Next-80B-A3B-Instruct", "scan", batch=2, input_len=100_000)
    assert longer["memory_bytes"] == scan["memory_bytes"]
    gated = operator("Qwen/Qwen3-Next-80B-A3B-Instruct", "q_proj", **asked)
    assert gated["ops"] == 2 * 2 * 2048 * (2 * 16 * 256) + 3 * 64 / 256 * 2 * 2 * 16 * 256


def test_jamba_mixes_attention_mamba_and_experts() -> None:
    """32 layers: 4 attention, 28 Mamba of 8,192 columns and 16 states; experts in every second layer."""
    found = calc.analyze("ai21labs/Jamba-v0.1", H100, batch=2)
    counts = dict(found.filter(stage="decode").select("part", "count").unique().iter_rows())
    assert counts == {"embedding": 1, "attention": 4, "mlp": 16, "moe": 16, "mamba_1": 28, "head": 1}
    scan = found.filter(stage="decode", operator="scan").row(0, named=True)
    assert scan["kv_read_bytes"] == 2 * 2 * 8192 * 16
    assert scan["matrix_ops"] == 2 * 2 * 8192 * 16
    held = calc.analyze("ai21labs/Jamba-v0.1", H100, batch=2, input_len=100, output_len=28, by="serving")
    assert held["kv_cache_bytes"][0] == 2 * 2 * (4 * 2 * 8 * 128 * 128 + 28 * 8192 * (16 + 4))


def test_mamba_2_prefills_in_chunks_and_decodes_from_its_state() -> None:
    """2.7b: 80 heads of 64 columns, 128 states, chunks of 256; 1,000 tokens are three chunks and 232 tokens."""
    decode = operator("state-spaces/mamba2-2.7b", "scan", batch=3)
    assert decode["matrix_ops"] == 2 * 3 * 80 * 64 * 128
    assert decode["kv_read_bytes"] == 2 * 3 * 80 * 64 * 128
    prefill = operator("state-spaces/mamba2-2.7b", "scan", "prefill", batch=3, input_len=1000)
    squares = 3 * 256**2 + 232**2
    macs = squares * (128 + 64) + 2 * 1000 * 64 * 128 + 4 * 64 * 128
    assert prefill["matrix_ops"] == 2 * 3 * 80 * macs
    row = calc.analyze("state-spaces/mamba2-2.7b", H100, by="serving", input_len=10**6)
    assert row["kv_bytes_per_token"][0] == 0
    assert row["kv_cache_bytes"][0] == 2 * 64 * (80 * 64 * 128 + 4 * (5120 + 2 * 128))


def test_llava_sees_images_only_where_there_are_some() -> None:
    """576 patches per image become 576 tokens; without an image the tower is neither run nor in memory."""
    text = calc.analyze("llava-hf/llava-1.5-7b-hf", H100, by="serving")
    seen = calc.analyze("llava-hf/llava-1.5-7b-hf", H100, by="serving", n_images=2)
    tower = 303_507_456 + 1024 * 4096 + 4096 + 4096 * 4096 + 4096
    assert seen["weight_memory_bytes"][0] - text["weight_memory_bytes"][0] == 2 * tower
    cache = 32 * 2 * 4096 * 2
    assert seen["kv_cache_bytes"][0] - text["kv_cache_bytes"][0] == 2 * 576 * cache
    q = operator("llava-hf/llava-1.5-7b-hf", "q_proj", "prefill", "vision_attention", n_images=2, batch=3)
    assert q["ops"] == 2 * 3 * 2 * 576 * 1024 * 1024 and q["count"] == 24
    scores = operator("llava-hf/llava-1.5-7b-hf", "fused_attention", "prefill", "vision_attention", n_images=2, batch=3)
    assert scores["matrix_ops"] == 4 * 3 * 2 * 16 * 64 * 576 * 576
    parts = calc.analyze("llava-hf/llava-1.5-7b-hf", H100).filter(stage="prefill")["part"].unique()
    assert not [p for p in parts if p.startswith(("vision", "projector"))]


def test_dit_computes_what_its_paper_counts() -> None:
    """DiT-XL/2 at 256 × 256: 118.64 Gflops by the paper, which counts a multiply-add as one; DiT-XL/4: 29.05."""
    for model, patches, published in (("DiT-XL/2", 256, 118.64e9), ("DiT-XL/4", 64, 29.05e9)):
        found = calc.analyze(model, H100, input_len=patches, by="stage")
        assert found["stage"].to_list() == ["prefill"]
        assert found["matrix_ops"][0] / 2 == pytest.approx(published, rel=2e-3)
        answer = calc.analyze(model, H100, input_len=patches, by="serving")
        assert answer["tpot_s"][0] is None and answer["kv_cache_bytes"][0] == 0
        assert answer["e2e_s"][0] == answer["ttft_s"][0]


def test_llama_4_attends_within_chunks() -> None:
    """Scout: 36 of 48 layers in chunks of 8,192: at 10,000 tokens a step sees 1,809; prefill one chunk and 1,808."""
    step = operator(
        "meta-llama/Llama-4-Scout-17B-16E-Instruct", "fused_attention", part="attention_local", input_len=10_000
    )
    own = 10_000 % 8192 + 1
    assert (step["count"], step["matrix_ops"]) == (36, 4 * 40 * 128 * own)
    assert step["kv_read_bytes"] == 2 * 2 * 8 * 128 * own
    whole = operator(
        "meta-llama/Llama-4-Scout-17B-16E-Instruct", "fused_attention", "prefill", "attention_local", input_len=10_000
    )
    assert whole["matrix_ops"] == 4 * 40 * 128 * (8192 * 8193 / 2 + 1808 * 1809 / 2)


@pytest.mark.parametrize(
    "model",
    ["meta-llama/Llama-4-Scout-17B-16E-Instruct", "google/gemma-3-27b-it", "deepseek-ai/DeepSeek-V3.2",
     "openai/gpt-oss-20b", "Qwen/Qwen3-Next-80B-A3B-Instruct", "google-t5/t5-base", "Zyphra/Zamba2-7B"],
)  # fmt: skip
@pytest.mark.parametrize("lengths", [(8000, 400), (100, 300), (1900, 500)])
def test_the_closed_form_is_the_sum_over_every_token(model: str, lengths: tuple[int, int]) -> None:
    """Windows, chunks, sparse and linear attention: the answer's decode time against each step computed by itself."""
    start, steps = lengths
    answer = calc.analyze(model, H100, input_len=start, output_len=steps, batch=64, by="serving")
    encoder = model.startswith("google-t5")
    frame = pl.DataFrame({
        "model_id": model, "hardware_id": H100, "batch": 64, "output_len": 1,
        "input_len": [start] * (steps - 1) if encoder else [start + i for i in range(steps - 1)],
    })  # fmt: skip
    if encoder:
        pytest.skip("its decoder's context is not the prompt: one step at a time cannot be asked")
    each = calc.evaluate(frame, by="stage").filter(pl.col("stage") == "decode").select(pl.col("time_s").sum()).collect()
    assert answer["tpot_s"][0] * (steps - 1) == pytest.approx(each["time_s"][0], rel=1e-9)
