"""Every technique against its paper's own definition, by hand on Llama-2-7b (or the model that it is for)."""

from __future__ import annotations

from functools import cache

import polars as pl
import pytest

import calc

H, LAYERS, COLUMNS, VOCAB, HEADS, WIDTH = 4096, 32, 11008, 32000, 32, 128
"""Llama-2-7b."""
ATTENTION, MLP = 4 * H * H, 3 * H * COLUMNS
LINEAR, HEAD, NORMS = LAYERS * (ATTENTION + MLP), H * VOCAB, (2 * LAYERS + 1) * H
PROMPT, ANSWER = 1024, 128
STEPS = ANSWER - 1
PEAK, INT8, BANDWIDTH, LINK = 989.4e12, 1978.9e12, 3.35e12, 64e9
"""Of an H100 (dense)."""
FIXED = 2 * (HEAD + NORMS + H)
"""Bytes of a decode step that quantization leaves alone: head, norms, a row of the embedding."""


@cache
def ask(
    by: str, technique: str | None = None, model: str = "llama-2-7b", hardware: str = "h100", **more: object
) -> pl.DataFrame:
    """Return an answer: 1,024 tokens in, 128 out, unless told otherwise."""
    return calc.analyze(model, hardware, by=by, technique=technique, **more)  # type: ignore[arg-type]


def stage(name: str, technique: str | None = None, **more: object) -> dict[str, float]:
    """Return one stage's totals."""
    return ask("stage", technique, **more).row(by_predicate=pl.col("stage") == name, named=True)


def serving(technique: str | None = None, **more: object) -> dict[str, float]:
    """Return the answer as a whole."""
    return ask("serving", technique, **more).row(0, named=True)


def operator(name: str, stage: str, technique: str | None = None, **more: object) -> dict[str, float]:
    """Return one operator of one instance of its part."""
    found = ask("operator", technique, **more).filter(operator=name, stage=stage)
    return found.row(0, named=True)


def test_the_device_is_the_one_that_is_meant() -> None:
    """The figures above are the device's own."""
    h100 = calc.hardware().row(by_predicate=pl.col("hardware_id") == "nvidia_h100_sxm", named=True)
    assert h100["fp16_ops_per_s"] == pytest.approx(PEAK, rel=1e-3)
    assert h100["int8_ops_per_s"] == pytest.approx(INT8, rel=1e-3)
    assert (h100["memory_bandwidth_bytes_per_s"], h100["host_link_bytes_per_s"]) == (BANDWIDTH, LINK)


BITS = {
    # a scale of 16 bits and a zero point as wide as a weight for every 128
    "gptq_w8": 8 + 24 / 128, "awq_w4": 4 + 20 / 128, "gptq_w3": 3 + 19 / 128, "gptq_w2": 2 + 18 / 128, "binary_w1": 1,
    "fp6_weights": 6, "smoothquant": 8, "w4a4": 4, "wkvquant": 4, "fp8": 8, "fp4": 4, "olive": 4,
    # a scale of 8 bits for every 32, or for every 16
    "mxfp8": 8 + 8 / 32, "mxfp6": 6 + 8 / 32, "mxfp4": 4 + 8 / 32, "nvfp4": 4 + 8 / 16,
    "bitnet": 2, "transformer_engine": 8, "loftq": 4 + 32 / 64, "qlora": 4 + 8 / 64 + 32 / (64 * 256),
    "qa_lora": 4 + 20 / 32,
    "llm_int8": 0.999 * 8 + 0.001 * 16,
    "codebook": 4 + 16 * 16 / 4096,
    "spqr": 3 + (3 + 3) / 16 + 64 / (16 * 16) + 32 * 0.01,
    "pb_llm": 0.1 * 8 + 0.9 * 1 + 1,
    "variable_length": 0.97 * 4 + 0.03 * 16,
    "gobo": 0.999 * 3 + 0.001 * 32,
    "masked_pruning": 16, "unstructured_pruning": 0.5 * 16 + 1, "sparse_units": 0.5 * 16 + 1,
    "sparsity_2_4": (16 + 2) / 2,
}  # fmt: skip
"""Bits per linear weight: element, scales, zero points and indexes as each paper has them."""


@pytest.mark.parametrize("technique", BITS)
def test_bits_of_a_weight(technique: str) -> None:
    """A decode step reads every linear weight in so many bits, and the rest in 16; memory holds them so."""
    adapters = 2 * LAYERS * 2 * 16 * 2 * H if technique in ("loftq", "qlora") else 0
    adapters = 2 * LAYERS * 2 * 16 * (H // 32 + H) if technique == "qa_lora" else adapters
    read = LINEAR * BITS[technique] / 8 + FIXED + adapters
    assert stage("decode", technique)["weight_bytes"] == pytest.approx(read, rel=1e-12)
    held = read + 2 * (VOCAB - 1) * H
    assert serving(technique)["weight_memory_bytes"] == pytest.approx(held, rel=1e-12)


@pytest.mark.parametrize(
    ("technique", "bits"), [("kv_int8", 8), ("kv_int4", 4), ("kivi", 2 + 32 / 32), ("wkvquant", 4), ("fp8", 8)]
)
def test_bits_of_the_cache(technique: str, bits: float) -> None:
    """Keys and values of 1,025 positions in so many bits, in traffic and in memory."""
    assert stage("decode", technique)["kv_read_bytes"] == pytest.approx(2 * LAYERS * H * 1025 * bits / 8, rel=1e-12)
    assert serving(technique)["kv_cache_bytes"] == pytest.approx(2 * LAYERS * H * 1152 * bits / 8, rel=1e-12)


def test_narrow_products_use_narrow_units() -> None:
    """8-bit operands double the peak; a thousandth of LLM.int8()'s columns does not; weights alone change nothing."""
    ops = operator("out_proj", "prefill")["matrix_ops"]
    assert ops == 2 * PROMPT * H * H
    assert operator("out_proj", "prefill", "awq_w4")["compute_s"] == pytest.approx(ops / PEAK, rel=1e-3)
    for technique in ("smoothquant", "fp8", "transformer_engine"):
        assert operator("out_proj", "prefill", technique)["compute_s"] == pytest.approx(ops / INT8, rel=1e-3)
    mixed = ops * (0.999 / INT8 + 0.001 / PEAK)
    assert operator("out_proj", "prefill", "llm_int8")["compute_s"] == pytest.approx(mixed, rel=1e-3)


def test_sparse_products() -> None:
    """Zeros are skipped where units can: not in plain storage, all of them in sparse units, two of four on an H100."""
    for technique in ("unstructured_pruning", "masked_pruning"):
        assert operator("out_proj", "prefill", technique)["matrix_ops"] == 2 * PROMPT * H * H
    assert operator("out_proj", "prefill", "sparse_units", pruned_share=0.75)["matrix_ops"] == 2 * PROMPT * H * H / 4
    halved = 2 * PROMPT * H * H / (2 * PEAK)
    assert operator("out_proj", "prefill", "sparsity_2_4")["compute_s"] == pytest.approx(halved, rel=1e-3)
    plain, sparse = (operator("out_proj", "prefill", t, hardware="v100") for t in (None, "sparsity_2_4"))
    assert plain["compute_s"] == sparse["compute_s"]


PARAMETERS = {
    "head_pruning": LAYERS * (ATTENTION / 2 + MLP) + 2 * HEAD + NORMS,
    "width_pruning": LAYERS * (ATTENTION + MLP / 2) + 2 * HEAD + NORMS,
    "matformer": LAYERS * (ATTENTION + MLP / 2) + 2 * HEAD + NORMS,
    "depth_pruning": LINEAR / 2 + 2 * HEAD + (LAYERS + 1) * H,
    # rank 1,024 of 4,096 × 4,096 and of 4,096 × 11,008
    "low_rank": LAYERS * 1024 * (4 * 2 * H + 3 * (H + COLUMNS)) + 2 * HEAD + NORMS,
    "vocabulary_trimming": LINEAR + HEAD + NORMS,
    "factorized_embedding": LINEAR + 2 * (VOCAB * 128 + 128 * H) + NORMS,
    "mqa_conversion": LAYERS * (2 * H * H + 2 * H * WIDTH + MLP) + 2 * HEAD + NORMS,
    "gqa_conversion": LAYERS * (2 * H * H + 2 * H * 8 * WIDTH + MLP) + 2 * HEAD + NORMS,
    "moe_conversion": LINEAR + LAYERS * H * 64 + 2 * HEAD + NORMS,
    # W_in to two inner, B, C and heads; convolution of four taps with a bias; A, D and step per head; norm; out
    "mamba_replacement": LINEAR
    - 16 * ATTENTION
    + 16 * (H * (4 * H + 256 + 128) + 5 * (2 * H + 256) + 3 * 128 + 2 * H + 2 * H * H)
    + 2 * HEAD
    + NORMS,
    # q, k, v, gate and output, and the norm of the output
    "xlstm_replacement": LINEAR + LAYERS * (H * H + H) + 2 * HEAD + NORMS,
}
"""Parameters that are left: each matrix by hand."""


@pytest.mark.parametrize("technique", PARAMETERS)
def test_parameters_that_are_left(technique: str) -> None:
    """Weights in memory are those of the matrices that are left; by default all of them would be trained."""
    assert serving(technique)["n_trainable_parameters"] == PARAMETERS[technique]
    assert serving(technique)["weight_memory_bytes"] == pytest.approx(2 * PARAMETERS[technique], rel=1e-12)


def test_a_student_answers_as_itself() -> None:
    """Distillation is the student's own row."""
    assert (
        serving("distillation", student_model_id="tinyllama/tinyllama-1.1b-chat-v1.0")["tpot_s"]
        == (serving(model="TinyLlama/TinyLlama-1.1B-Chat-v1.0")["tpot_s"])
    )
    found = calc.analyze("llama-2-13b", "h100", by="serving", technique="distillation", student_model_id="llama-2-7b")
    assert found["weight_memory_bytes"].item() == 2 * (LINEAR + 2 * HEAD + NORMS)


def test_early_exit_passes_the_state_on() -> None:
    """CALM: 0.6 of the layers run; the others still make keys and values of the last state; a prefill runs all."""
    read = 2 * LAYERS * (0.6 * (ATTENTION + MLP) + 0.4 * 2 * H * H) + 2 * (HEAD + H * (2 * LAYERS * 0.6 + 1) + H)
    found = stage("decode", "early_exit")
    assert found["weight_bytes"] == pytest.approx(read, rel=1e-12)
    assert found["kv_write_bytes"] == stage("decode")["kv_write_bytes"]
    assert found["kv_read_bytes"] == pytest.approx(0.6 * stage("decode")["kv_read_bytes"])
    assert stage("prefill", "early_exit")["matrix_ops"] == stage("prefill")["matrix_ops"]
    assert serving("early_exit")["kv_cache_bytes"] == serving()["kv_cache_bytes"]


def test_contextual_sparsity() -> None:
    """Deja Vu: a fifth of the heads, a twentieth of the columns, all keys and values, and a predictor of rank 1,024."""
    predictor = 1024 * (H + COLUMNS)
    read = 2 * LAYERS * (0.2 * 2 * H * H + 2 * H * H + 0.05 * MLP + predictor) + FIXED
    assert stage("decode", "contextual_sparsity")["weight_bytes"] == pytest.approx(read, rel=1e-12)
    assert stage("decode", "contextual_sparsity")["kv_read_bytes"] == pytest.approx(0.2 * 2 * 2 * LAYERS * H * 1025)
    # four tokens need 1 - 0.95^4 of the columns between them
    up = operator("up_proj", "decode", "contextual_sparsity", batch=4)
    assert up["weight_bytes"] == pytest.approx(2 * H * COLUMNS * (1 - 0.95**4), rel=1e-12)
    assert up["matrix_ops"] == pytest.approx(2 * 4 * H * COLUMNS * 0.05, rel=1e-12)


def test_hot_and_cold_columns() -> None:
    """PowerInfer: 0.08 of the columns are read on the device, 0.02 by the host at 67.2 GB/s; 0.26 are on the device."""
    up = operator("up_proj", "decode", "powerinfer")
    assert up["weight_bytes"] == pytest.approx(2 * H * COLUMNS * 0.1 * 0.8, rel=1e-12)
    assert up["host_s"] == pytest.approx(2 * H * COLUMNS * 0.1 * 0.2 / 67.2e9, rel=1e-12)
    assert (up["time_s"], up["bound"]) == (up["host_s"], "host")
    found = serving("powerinfer")
    held = 2 * (LAYERS * (ATTENTION + 0.26 * MLP) + 2 * HEAD + NORMS)
    assert found["weight_memory_bytes"] == pytest.approx(held, rel=1e-12)
    extra = LAYERS * 2 * MLP * 0.02 / 67.2e9
    without = serving("powerinfer", host_memory_bytes_per_s=1e13, host_ops_per_s=1e16)["tpot_s"]
    on_device = LAYERS * 2 * MLP * 0.08 / BANDWIDTH
    assert found["tpot_s"] - without == pytest.approx(extra - on_device, rel=0.01)


def test_weights_in_flash() -> None:
    """LLM in a flash: 0.023 of the MLP is loaded for a token at 2.25 GB/s; 0.24 stays in memory."""
    found = serving("llm_in_a_flash")
    assert found["tpot_s"] == pytest.approx(0.023 * 2 * LAYERS * MLP / 2.25e9, rel=0.03)
    assert found["weight_memory_bytes"] == pytest.approx(2 * (LAYERS * (ATTENTION + 0.24 * MLP) + 2 * HEAD + NORMS))


def test_only_the_largest_activations() -> None:
    """Q-Sparse: 0.4 of the rows for one token, 1 - 0.6^4 for four."""
    for batch, share in ((1, 0.4), (4, 1 - 0.6**4)):
        found = operator("down_proj", "decode", "q_sparse", batch=batch)
        assert found["weight_bytes"] == pytest.approx(2 * H * COLUMNS * share, rel=1e-12)
        assert found["matrix_ops"] == pytest.approx(2 * batch * H * COLUMNS * 0.4, rel=1e-12)


def test_an_mlp_cut_into_experts() -> None:
    """MoEfication: a token goes through 13 of 64 groups of 172 columns."""
    up = operator("expert_up_proj", "decode", "moe_conversion")
    assert up["matrix_ops"] == 2 * 13 * H * 172
    assert up["weight_bytes"] == pytest.approx(2 * 13 * H * 172, rel=1e-12)


GEOMETRIC = {"speculative_decoding": (0.8, 4), "self_speculation": (0.9, 6), "retrieval_drafts": (0.6, 8),
             "medusa": (0.6, 4), "eagle": (0.8, 5)}  # fmt: skip
TOKENS = {t: (1 - a ** (n + 1)) / (1 - a) for t, (a, n) in GEOMETRIC.items()} | {
    "big_little_decoding": 5 * 0.9 + 1,
    "jacobi": 8 / 6,
    "lookahead": 1 + (5 - sum((1 - 0.425**i) ** 15 for i in range(1, 5)) - 1) / 3.106,
    "iterative_refinement": STEPS / 10,
}
"""Tokens that a step yields, as each paper expects them."""
ROWS = {"speculative_decoding": 5, "big_little_decoding": 6, "self_speculation": 7, "retrieval_drafts": 9,
        "medusa": 64, "eagle": 26, "lookahead": (15 + 15) * 4, "jacobi": 8, "iterative_refinement": ANSWER}  # fmt: skip
"""Tokens that a step computes."""


@pytest.mark.parametrize("technique", ROWS)
def test_a_step_computes_its_drafts(technique: str) -> None:
    """All drafted tokens pass the model at once: products of each, attention of each to what came before, one read."""
    q, found = ROWS[technique], stage("decode", technique)
    further = 2 * 4 * q * (H * H + HEAD) if technique == "medusa" else 0
    linear, attention = 2 * q * (LINEAR + HEAD), 4 * H * LAYERS * (q * PROMPT + q * (q + 1) / 2)
    assert found["matrix_ops"] == pytest.approx(linear + attention + further, rel=1e-12)
    assert found["kv_read_bytes"] == 2 * 2 * LAYERS * H * (PROMPT + q)
    heads = 2 * 4 * (H * H + HEAD) if technique == "medusa" else 0
    assert found["weight_bytes"] == pytest.approx(2 * LINEAR + FIXED + 2 * (q - 1) * H + heads, rel=1e-12)


@pytest.mark.parametrize("technique", ROWS)
def test_tokens_of_a_step(technique: str) -> None:
    """So many steps make the answer; drafts, where a model makes them, come on top."""
    steps, growth = STEPS / TOKENS[technique], 0 if technique == "iterative_refinement" else TOKENS[technique]
    # memory limits these steps: each reads the context's keys and values once, and the context grows evenly
    verified = steps * (
        stage("decode", technique)["time_s"] + (steps - 1) / 2 * growth * 2 * 2 * LAYERS * H / BANDWIDTH
    )
    little = serving(model="TinyLlama/TinyLlama-1.1B-Chat-v1.0")["tpot_s"]
    drafts = {"speculative_decoding": 4 * little, "big_little_decoding": 5 * little}.get(technique, 0.0)
    if technique == "self_speculation":
        # six single steps through 0.55 of the layers; the head whole
        layers, last = (ask("operator").filter(stage="decode").select(
            (pl.col("count") * pl.col("time_s")).filter(pl.col("part").is_in(["attention", "mlp"]) == is_layer).sum()
        ).item() for is_layer in (True, False))  # fmt: skip
        grown = 2 * 2 * LAYERS * H / BANDWIDTH * (steps - 1) / 2 * growth
        drafts = 6 * (0.55 * (layers + grown) + last)
    if technique == "eagle":
        return
    assert serving(technique)["tpot_s"] * STEPS == pytest.approx(verified + steps * drafts, rel=2e-4)


def test_eagle_drafts_with_a_layer() -> None:
    """Each depth is a pass of one layer and the head over five nodes, after a product of twice the width."""
    steps = STEPS / TOKENS["eagle"]
    layer = 2 * (ATTENTION + MLP) + 2 * 2 * (PROMPT + 5) * H
    a_pass = (layer + 2 * HEAD + 2 * 2 * H * H) / BANDWIDTH
    verified = steps * (
        stage("decode", "eagle")["time_s"] + (steps - 1) / 2 * TOKENS["eagle"] * 4 * LAYERS * H / BANDWIDTH
    )
    found = serving("eagle")
    assert found["tpot_s"] * STEPS == pytest.approx(verified + steps * 5 * a_pass, rel=0.01)
    held = 2 * (LINEAR + 2 * HEAD + NORMS) + 2 * (ATTENTION + MLP + 2 * H) + 2 * 2 * H * H
    assert found["weight_memory_bytes"] == pytest.approx(held, rel=1e-12)


def test_a_draft_model_is_in_memory_too() -> None:
    """Both models' weights and caches; a draft of another vocabulary is refused, an all-accepted one yields γ + 1."""
    both, big = serving("speculative_decoding"), serving()
    small = serving(model="TinyLlama/TinyLlama-1.1B-Chat-v1.0")
    for column in ("weight_memory_bytes", "kv_cache_bytes", "ttft_s", "kv_bytes_per_token"):
        assert both[column] == pytest.approx(big[column] + small[column], rel=1e-12)
    refused = serving("speculative_decoding", draft_model_id="gpt2")
    assert refused["tpot_s"] is None and "same vocabulary" in refused["reason"]
    accepted = serving("speculative_decoding", acceptance=1)["tpot_s"]
    assert serving("retrieval_drafts", retrieved_len=4, retrieval_acceptance=1)["tpot_s"] == pytest.approx(
        accepted - 4 / 5 * small["tpot_s"], rel=1e-9
    )


def test_multi_token_prediction_on_deepseek() -> None:
    """DeepSeek-V3's one further layer: 1.85 tokens a step, its weights in memory, the head twice."""
    found, plain = (serving(t, model="deepseek-v3", hardware="h200") for t in ("multi_token_prediction", None))
    model = calc.models().row(by_predicate=pl.col("model_id") == "deepseek-ai/DeepSeek-V3", named=True)
    assert found["weight_memory_bytes"] - plain["weight_memory_bytes"] == pytest.approx(2 * 11_610_067_968, rel=1e-3)
    assert model["n_mtp_layers"] == 1
    step = stage("decode", "multi_token_prediction", model="deepseek-v3", hardware="h200")
    assert found["tpot_s"] == pytest.approx(step["time_s"] / 1.85, rel=1e-3)
    head = ask("operator", "multi_token_prediction", "deepseek-v3", "h200").filter(operator="lm_head", stage="decode")
    assert head["count"].item() == 2


def test_skeleton_first() -> None:
    """Fifty single steps, then a fifth of what is left in steps of five sequences; five caches of a point each."""
    found = serving("skeleton_of_thought", output_len=301)
    skeleton = serving(input_len=PROMPT + 25, output_len=2)["tpot_s"]
    points = serving(input_len=PROMPT + 50, output_len=51, batch=5)["tpot_s"]
    assert found["tpot_s"] * 300 == pytest.approx(50 * skeleton + 50 * points, rel=1e-3)
    assert found["kv_cache_bytes"] == 5 * 4 * LAYERS * H * (PROMPT + 50 + 251 / 5)


def test_batching_is_a_larger_batch() -> None:
    """Eight sequences for one."""
    assert serving("batching")["output_tokens_per_s"] == serving(batch=8)["output_tokens_per_s"]


def test_caches_that_do_not_grow() -> None:
    """StreamingLLM holds sinks and window however long the context; H2O its share of it; Linformer and Performer a state."""
    a_token = 4 * LAYERS * H
    for length in (2048, 16384):
        assert serving("streaming_llm", input_len=length)["kv_cache_bytes"] == a_token * (4 + 1020)
        assert stage("decode", "streaming_llm", input_len=length)["kv_read_bytes"] == a_token * 1024
        assert serving("h2o", input_len=length)["kv_cache_bytes"] == pytest.approx(a_token * 0.2 * (length + ANSWER))
        assert stage("decode", "h2o", input_len=length)["kv_read_bytes"] == pytest.approx(a_token * 0.2 * (length + 1))
        assert serving("linformer", input_len=length)["kv_cache_bytes"] == a_token * 256
        # features × (head size + … + head size) for each head: half of keys and values of 256 tokens
        assert serving("performer", input_len=length)["kv_cache_bytes"] == a_token * 256 / 2
        for technique, read in (("bigbird", 192 + 128 + 192), ("longformer_pattern", 512 + 1)):
            assert stage("decode", technique, input_len=length)["kv_read_bytes"] == a_token * read
            assert serving(technique, input_len=length)["kv_cache_bytes"] == serving(input_len=length)["kv_cache_bytes"]


def test_attention_that_is_linear_in_length() -> None:
    """Pairs of a prefill: T × rank, T × features, T × pattern at most; H2O needs all of them."""
    t = 8192
    for technique, pairs in (
        ("linformer", t * 256), ("performer", t * 256), ("h2o", t * (t + 1) / 2), ("bigbird", 512 * 513 / 2 + (t - 512) * 512),
        ("streaming_llm", 1024 * 1025 / 2 + (t - 1024) * 1024),
    ):  # fmt: skip
        found = operator("fused_attention", "prefill", technique, input_len=t)
        assert found["matrix_ops"] == pytest.approx(4 * H * pairs, rel=1e-12), technique
    along = operator("key_sequence_proj", "prefill", "linformer", input_len=t)
    assert along["matrix_ops"] == 2 * H * t * 256


def test_a_window_computed_anew() -> None:
    """Each step is a prefill of the window; nothing is read from before, the logits of one position are enough."""
    found, prefill = stage("decode", "window_recomputation", recomputed_window=512), stage("prefill", input_len=512)
    assert found["matrix_ops"] == prefill["matrix_ops"]
    assert found["weight_bytes"] == prefill["weight_bytes"]


def test_flash_and_eager_are_the_scenario_column() -> None:
    """Both may be asked as techniques."""
    for technique in ("flash", "eager"):
        assert serving(f"{technique}_attention")["ttft_s"] == serving(attention=technique)["ttft_s"]


def test_layers_with_a_state() -> None:
    """The caches of RWKV and mLSTM layers do not depend on the context."""
    for technique, state in (
        # two vectors of shifted tokens, and a matrix per head, in 16 bits
        ("rwkv_replacement", 2 * LAYERS * (H / 64 * 64 * 64 + 2 * H)),
        ("xlstm_replacement", 2 * LAYERS * 8 * 512 * 512),
    ):
        for length in (128, 4096):
            assert serving(technique, input_len=length)["kv_cache_bytes"] == state, technique


def test_shorter_and_longer_prompts() -> None:
    """A compressed prompt, a cached one, retrieved passages, learned tokens: the prompt that is left is computed."""
    compressor = serving(model="openai-community/gpt2")["ttft_s"]
    left = serving(input_len=205)
    found = serving("prompt_compression")
    assert found["ttft_s"] == pytest.approx(left["ttft_s"] + compressor, rel=1e-12)
    assert found["tpot_s"] == left["tpot_s"]
    assert serving("prefix_cache")["ttft_s"] == serving(cached_len=512)["ttft_s"]
    assert serving("retrieval_augmented", retrieval_s=0.05)["ttft_s"] == pytest.approx(
        serving(input_len=1524)["ttft_s"] + 0.05
    )
    assert serving("prompt_tuning")["ttft_s"] == serving(input_len=1044)["ttft_s"]


def test_pooled_encoder() -> None:
    """Funnel: three blocks on 1, 1/2 and 1/4 of the positions, attention on their squares."""
    plain, pooled = (
        ask("operator", t, "bert-base-uncased", input_len=512, output_len=0) for t in (None, "funnel_pooling")
    )

    def ops(frame: pl.DataFrame, name: str) -> float:
        return float(
            frame.filter(operator=name, part="encoder_mlp" if "up" in name else "encoder_attention")[
                "matrix_ops"
            ].item()
        )

    assert ops(pooled, "up_proj") == pytest.approx(ops(plain, "up_proj") * (1 + 1 / 2 + 1 / 4) / 3, rel=1e-12)
    assert ops(pooled, "fused_attention") == pytest.approx(
        ops(plain, "fused_attention") * (1 + 1 / 4 + 1 / 16) / 3, rel=1e-12
    )


FUSED = {
    # norm → q, k, v: one write, three reads; norm → gate, up: one and two; product → addition: a write and a read, twice
    "deepspeed_fusion": ((1 + 3) + (1 + 2) + 2 * (1 + 1)) * H,
    # gate and up → activation: two writes, two reads
    "xformers_fusion": 4 * COLUMNS,
    # q, k and v read once, gate and up read once, addition → norm: a read
    "tensorrt_llm_fusion": (2 + 1 + 1) * H + 4 * COLUMNS,
}
"""Elements per token and layer that no longer travel."""


@pytest.mark.parametrize("technique", FUSED)
def test_what_fusion_keeps_on_the_chip(technique: str) -> None:
    """The traffic between fused operators disappears, and nothing else; they are launched as one."""
    for name, tokens in (("prefill", PROMPT), ("decode", 1)):
        plain, fused = stage(name), stage(name, technique)
        assert plain["memory_bytes"] - fused["memory_bytes"] == pytest.approx(2 * LAYERS * tokens * FUSED[technique])
        assert (plain["ops"], plain["weight_bytes"]) == (fused["ops"], fused["weight_bytes"])
    # 13 kernels a layer; embedding, norm, head and sampling
    assert stage("decode")["n_kernels"] == 13 * LAYERS + 4
    less = {"deepspeed_fusion": 7, "xformers_fusion": 1, "tensorrt_llm_fusion": 5}[technique]
    assert stage("decode", technique)["n_kernels"] == (13 - less) * LAYERS + 4


def test_flash_decoding_writes_its_parts() -> None:
    """Eight partial sums and their exponentials' sum, for each head, written and read."""
    found, plain = (operator("fused_attention", "decode", t) for t in ("flash_decoding", None))
    assert found["memory_bytes"] - plain["memory_bytes"] == 2 * 2 * 8 * HEADS * (WIDTH + 1)


def test_launches() -> None:
    """420 kernels of 6.7 µs each in a pass; 0.5 µs in a graph."""
    for technique, each in (("launch_overhead", 6.7e-6), ("cuda_graphs", 0.5e-6)):
        for column in ("ttft_s", "tpot_s", "itl_s"):
            assert serving(technique)[column] - serving()[column] == pytest.approx(420 * each, rel=1e-9)


def test_streamed_weights() -> None:
    """ZeRO-inference streams every layer in every step; FlexGen once for all four batches of a block."""
    loaded = 2 * (LINEAR + 2 * LAYERS * H) / LINK
    assert serving("zero_inference")["tpot_s"] == pytest.approx(loaded, rel=0.01)
    flexgen = serving("flexgen", batch=8, block_batches=16, input_len=128)
    cached = 128 * 4 * LAYERS * H * (128 + 64) / LINK
    assert flexgen["tpot_s"] == pytest.approx(loaded + cached, rel=0.02)
    assert flexgen["kv_cache_bytes"] == 0


def test_degrees_as_techniques() -> None:
    """They are the scenario's columns."""
    assert serving("tensor_parallel", tensor_ways=4)["tpot_s"] == serving(tp=4)["tpot_s"]
    assert serving("pipeline_parallel")["weight_memory_bytes"] == serving(pp=2)["weight_memory_bytes"]
    mixtral = {"model": "mistralai/Mixtral-8x7B-v0.1", "batch": 8}
    assert serving("expert_parallel", **mixtral)["tpot_s"] == serving(ep=2, **mixtral)["tpot_s"]


def test_low_rank_adapters() -> None:
    """LoRA of rank 16 on queries and values: 2·T·r·(in + out) operations, r·(in + out) weights each."""
    found = operator("lora_q", "prefill", "lora")
    assert found["matrix_ops"] == 2 * PROMPT * 16 * (H + H)
    assert found["weight_bytes"] == 2 * 16 * (H + H)
    for flags, elements in (
        ({}, 2 * 2 * H),
        ({"lora_on_key": 1, "lora_on_output": 1, "lora_on_mlp": 1}, 4 * 2 * H + 3 * (H + COLUMNS)),
    ):
        assert serving("lora", lora_rank=8, **flags)["n_trainable_parameters"] == 8 * LAYERS * elements
    merged, plain = serving("lora_merged"), serving()
    assert (merged["ttft_s"], merged["weight_memory_bytes"]) == (plain["ttft_s"], plain["weight_memory_bytes"])
    assert merged["n_trainable_parameters"] == 16 * LAYERS * 2 * 2 * H


def test_many_adapters_in_a_batch() -> None:
    """Of a hundred adapters four sequences read 100·(1 − 0.99⁴) on average; all are in memory."""
    found = operator("lora_q", "decode", "lora", batch=4, n_adapters=100)
    assert found["weight_bytes"] == pytest.approx(2 * 16 * 2 * H * 100 * (1 - 0.99**4), rel=1e-9)
    more = serving("lora", n_adapters=100)["weight_memory_bytes"] - serving()["weight_memory_bytes"]
    assert more == pytest.approx(100 * 2 * 16 * LAYERS * 2 * 2 * H)
    assert serving("lora", n_adapters=100)["n_trainable_parameters"] == 16 * LAYERS * 2 * 2 * H


def test_other_trainable_parameters() -> None:
    """Bottlenecks of 64 with their biases, twenty learned tokens, the biases of OPT-125m, pooled inputs of QA-LoRA."""
    assert serving("bottleneck_adapters")["n_trainable_parameters"] == LAYERS * 2 * (2 * H * 64 + 64 + H)
    assert serving("prompt_tuning")["n_trainable_parameters"] == 20 * H
    opt = 12 * (4 * 768 + 3072 + 768 + 2 * 768) + 768
    assert serving("bitfit", model="opt-125m")["n_trainable_parameters"] == opt
    assert serving("qa_lora")["n_trainable_parameters"] == 16 * LAYERS * 2 * (H // 32 + H)
    for technique in ("qlora", "loftq"):
        assert serving(technique)["n_trainable_parameters"] == serving("lora")["n_trainable_parameters"]


def test_activations_that_stay_on_the_chip() -> None:
    """Spatial dataflow moves weights and cache only."""
    found = stage("decode", "spatial_dataflow")
    assert found["activation_read_bytes"] == found["activation_write_bytes"] == 0
    assert found["memory_bytes"] == found["weight_bytes"] + found["kv_read_bytes"] + found["kv_write_bytes"]


@pytest.mark.parametrize(("technique", "factor", "per_byte"), [("hbm_pim", 4, 0.977), ("aim", 8, 1.953)])
def test_products_in_memory(technique: str, factor: float, per_byte: float) -> None:
    """One row: bytes at the bandwidth inside, or operations at its peak; many rows: outside, as before."""
    found, plain = (operator("up_proj", "decode", t) for t in (technique, None))
    inside = BANDWIDTH * factor
    assert found["memory_s"] == pytest.approx(
        max(plain["memory_bytes"] / inside, plain["matrix_ops"] / (per_byte * inside))
    )
    for name in ("compute_s", "memory_s"):
        assert operator("up_proj", "prefill", technique)[name] == operator("up_proj", "prefill")[name]


def test_weights_that_multiply_in_place() -> None:
    """In-memory compute reads no linear weight and multiplies at the arrays' 63.1 TOPS."""
    found = operator("up_proj", "prefill", "in_memory_compute")
    assert found["weight_bytes"] == 0
    assert found["compute_s"] == pytest.approx(2 * PROMPT * H * COLUMNS / 63.1e12, rel=1e-12)


def test_devices_that_might_be() -> None:
    """Twice the bandwidth halves what memory limits; an A100 with 8-bit units runs the Transformer Engine."""
    assert serving("bandwidth_scaling")["tpot_s"] == pytest.approx(serving()["tpot_s"] / 2, rel=1e-3)
    a100 = {"hardware": "a100"}
    assert "no units" in serving("transformer_engine", **a100)["reason"]
    stacked = operator("out_proj", "prefill", "fp8_units+transformer_engine", **a100)
    assert stacked["compute_s"] == pytest.approx(2 * PROMPT * H * H / (2 * 312e12), rel=1e-3)
    four = operator("out_proj", "prefill", "fp4_units+fp4", **a100)
    assert four["compute_s"] == pytest.approx(2 * PROMPT * H * H / (4 * 312e12), rel=1e-3)


HBM_J = 31.36e-12
"""Energy of a byte from HBM."""


def test_drafts_take_energy_and_bandwidth() -> None:
    """What drafts of the model itself read is in the energy, in mbu and in mfu: memory limits them throughout."""
    plain = serving()
    for technique in ("self_speculation", "eagle", "skeleton_of_thought"):
        found = serving(technique)
        assert found["mbu"] > 0.9 * plain["mbu"], technique
        if technique == "eagle":
            # its trees compute: their operations take as much as half of what traffic takes
            continue
        # as busy with memory as before: per second as much energy of traffic
        assert found["decode_dynamic_j"] / found["decode_s"] == pytest.approx(BANDWIDTH * HBM_J, rel=0.1), technique
    extra = (
        serving("self_speculation")["decode_dynamic_j"]
        - serving("retrieval_drafts", retrieved_len=6, retrieval_acceptance=0.9)["decode_dynamic_j"]
    )
    a_draft = 2 * (0.55 * LAYERS * (ATTENTION + MLP) + HEAD) + 0.55 * 4 * LAYERS * H * (PROMPT + ANSWER / 2)
    each = a_draft * HBM_J + 2 * (0.55 * LINEAR + HEAD) * 0.75e-12
    assert extra == pytest.approx(STEPS / TOKENS["self_speculation"] * 6 * each, rel=0.01)


def test_pieces_of_prompts_and_drafts_beside_them() -> None:
    """Chunked prefill with drafts is hardly faster than the drafts alone: fewer sequences decode beside a piece."""
    for technique in ("self_speculation", "eagle"):
        alone, mixed = (serving(t, batch=64) for t in (technique, f"chunked_prefill+{technique}"))
        assert mixed["tpot_s"] > 0.9 * alone["tpot_s"]


def test_a_skeleton_of_nearly_the_whole_answer() -> None:
    """An answer one token longer than its skeleton is refused, one of two tokens more is not."""
    assert "no longer than its skeleton" in serving("skeleton_of_thought", output_len=51)["reason"]
    assert serving("skeleton_of_thought", output_len=52)["tpot_s"] > 0


def test_what_grouped_heads_share() -> None:
    """Deja Vu on Llama-3-8B: a key/value head is read if any of its four queries is needed; PowerInfer's unions."""
    llama_3 = stage("decode", "contextual_sparsity", model="llama-3-8b")["kv_read_bytes"]
    assert llama_3 == pytest.approx(stage("decode", model="llama-3-8b")["kv_read_bytes"] * (1 - 0.8**4))
    up = operator("up_proj", "decode", "powerinfer", batch=64)
    assert up["weight_bytes"] == pytest.approx(2 * H * COLUMNS * 0.26 * (1 - (1 - 0.08 / 0.26) ** 64))
    assert up["host_bytes"] == pytest.approx(2 * H * COLUMNS * 0.74 * (1 - (1 - 0.02 / 0.74) ** 64))


def test_fusion_follows_the_model() -> None:
    """OPT has no gate that could read the MLP's input for both; Gemma-2 norms between product and addition."""
    opt, fused = (operator("up_proj", "prefill", t, model="opt-6.7b") for t in (None, "tensorrt_llm_fusion"))
    assert fused["activation_read_bytes"] == opt["activation_read_bytes"]
    gemma, fused = (operator("out_proj", "prefill", t, model="google/gemma-2-2b") for t in (None, "deepspeed_fusion"))
    assert fused["activation_write_bytes"] == gemma["activation_write_bytes"] > 0


def test_the_largest_batch_is_one_that_fits() -> None:
    """In sequences that are asked, where a technique makes more of them."""
    for technique in ("batching", "flexgen"):
        largest = serving(technique)["max_batch"]
        assert serving(technique, batch=int(largest))["fits"] and not serving(technique, batch=int(largest) + 1)["fits"]


def test_the_longest_context_is_one_that_fits() -> None:
    """Points of a skeleton, a drafting layer; none where the cache does not grow."""
    for technique in ("skeleton_of_thought", "eagle", "h2o"):
        longest = int(serving(technique)["max_context"])
        more = serving(technique, input_len=longest - ANSWER)["kv_cache_bytes"]
        room = 80 * 2**30 - serving(technique)["weight_memory_bytes"] - serving(technique)["activation_peak_bytes"]
        assert more <= room * 1.001 and more > 0.95 * room, technique
    assert serving("linformer")["max_context"] is None


def test_patterns_bound_local_layers_too() -> None:
    """BigBird's 512 tokens on Mistral-7B, whose layers look back 4,096."""
    found = stage("decode", "bigbird", model="mistral-7b", input_len=6000)["kv_read_bytes"]
    assert found == pytest.approx(stage("decode", model="mistral-7b", input_len=6000)["kv_read_bytes"] * 512 / 4096)


def test_a_further_model_is_asked_the_same_question() -> None:
    """A larger batch, retrieved passages, a compressed prompt and a faster memory are the draft's too."""
    draft = "TinyLlama/TinyLlama-1.1B-Chat-v1.0"
    for technique, asked in (
        ("batching", {"batch": 8}),
        ("retrieval_augmented", {"input_len": 1524}),
        ("prefix_cache", {"cached_len": 512}),
    ):
        both = serving(f"{technique}+speculative_decoding")
        assert both["ttft_s"] == pytest.approx(serving(**asked)["ttft_s"] + serving(model=draft, **asked)["ttft_s"])
        assert serving(f"speculative_decoding+{technique}")["tpot_s"] == both["tpot_s"]
    faster = serving("bandwidth_scaling+speculative_decoding")
    assert faster["tpot_s"] == pytest.approx(serving("speculative_decoding")["tpot_s"] / 2, rel=1e-2)
    compressed = serving("prompt_compression+speculative_decoding")
    parts = [serving(input_len=205), serving(model=draft, input_len=205), serving(model="openai-community/gpt2")]
    assert compressed["ttft_s"] == pytest.approx(sum(p["ttft_s"] for p in parts))
