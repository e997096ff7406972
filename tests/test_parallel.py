"""Many devices: shares of operators, collectives on their links, memory of each device, degrees that cannot be."""

from __future__ import annotations

import math

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_engines import MODELS, both

import calc

NVLINK = 450e9
NETWORK = 50e9


def rows(stage: str, **asked: object) -> dict[str, dict[str, object]]:
    """Return an operator's row by part and name."""
    found = calc.analyze(**asked).filter(pl.col("stage") == stage)
    return {f"{r['part']}.{r['operator']}": r for r in found.iter_rows(named=True)}


def facts(hardware: str) -> dict[str, float]:
    """Return the rates of a device."""
    row = calc.hardware().filter(pl.col("hardware_id") == hardware).row(0, named=True)
    assert row["scaleup_link_bytes_per_s"] == NVLINK and row["max_scaleup_devices"] == 8
    return {k: float(row[k]) for k in ("bf16_ops_per_s", "vector_fp32_ops_per_s", "memory_bandwidth_bytes_per_s")}


@pytest.mark.parametrize(("stage", "q", "c"), [("prefill", 1024, 1024), ("decode", 1, 1025)])
def test_llama_3_70b_on_eight_h100(stage: str, q: int, c: int) -> None:
    """Every term by hand: batch 8, tensor parallel over one NVLink domain."""
    rate = facts("nvidia_h100_sxm")
    peak, vector, bandwidth = rate.values()
    b, n, h, heads, kv, d, i, v, layers = 8, 8, 8192, 64, 8, 128, 28672, 128256, 80
    t, a, w = b * q, 2, 2

    def linear(m: int, inner: float, cols: float, vector_ops: float = 0.0) -> float:
        moved = inner * cols * w + m * inner * a + m * cols * a
        return max(2 * m * inner * cols / peak, vector_ops / vector, moved / bandwidth)

    def simple(elements: float, ops: float, weights: float = 0.0) -> float:
        return max(ops / vector, (elements * a + weights * w) / bandwidth)

    pairs = q * c - q * (q - 1) / 2
    reduced = 2 * t * h * a * (n - 1) / (n * NVLINK)
    attention_ops = 2 * b * (heads / n) * pairs * 2 * d
    attention_bytes = 2 * t * (heads / n) * d * a + 2 * b * (kv / n) * c * d * a
    layer = {
        "attention.attn_norm": simple(2 * t * h, 4 * t * h, h),
        "attention.q_proj": linear(t, h, heads * d / n, vector_ops=3 * t * heads * d / n),
        "attention.k_proj": linear(t, h, kv * d / n, vector_ops=3 * t * kv * d / n),
        "attention.v_proj": linear(t, h, kv * d / n),
        "attention.fused_attention": max(
            attention_ops / peak, 5 * b * (heads / n) * pairs / vector, attention_bytes / bandwidth
        ),
        "attention.out_proj": linear(t, heads * d / n, h),
        "attention.attn_all_reduce": reduced,
        "attention.attn_add": simple(3 * t * h, t * h),
        "mlp.mlp_norm": simple(2 * t * h, 4 * t * h, h),
        "mlp.gate_proj": linear(t, h, i / n),
        "mlp.up_proj": linear(t, h, i / n),
        "mlp.mlp_act": simple(3 * t * i / n, 5 * t * i / n),
        "mlp.down_proj": linear(t, i / n, h),
        "mlp.mlp_all_reduce": reduced,
        "mlp.mlp_add": simple(3 * t * h, t * h),
    }
    once = {
        "embedding.embedding": 2 * t * h * a / bandwidth,
        "embedding.embedding_all_reduce": reduced,
        "head.final_norm": simple(2 * b * h, 4 * b * h, h),
        "head.lm_head": linear(b, h, v / n),
        "head.logits_all_gather": b * v * a * (n - 1) / (n * NVLINK),
        "head.sampling": simple(b * v, 5 * b * v),
    }
    asked = {"model": "llama-3-70b", "hardware": "nvidia_h100_sxm", "batch": b, "tp": n}
    found = rows(stage, **asked)
    assert set(found) == set(layer) | set(once)
    for name, seconds in (layer | once).items():
        assert found[name]["time_s"] == pytest.approx(seconds, rel=1e-12), name
        assert found[name]["count"] == (layers if name in layer else 1)
    total = layers * sum(layer.values()) + sum(once.values())
    stages = calc.analyze(**asked, by="stage").filter(pl.col("stage") == stage)
    assert stages["time_s"][0] == pytest.approx(total, rel=1e-12)


def test_the_memory_of_llama_3_70b_on_eight_h100() -> None:
    """An eighth of every matrix, all of every norm; one key/value head each; three streams at the additions."""
    b, n, h, i, layers = 8, 8, 8192, 28672, 80
    found = calc.analyze("llama-3-70b", "nvidia_h100_sxm", batch=b, tp=n, by="serving").row(0, named=True)
    matrices = layers * (2 * h * h + 2 * h * 1024 + 3 * h * i) + 2 * 128256 * h
    assert found["weight_memory_bytes"] == 2 * (matrices / n + (2 * layers + 1) * h)
    assert found["kv_cache_bytes"] == b * (1024 + 128) * 2 * layers * 128 * 2
    mlp_act, up_proj, add = h + 3 * i / n, 2 * h + 2 * i / n, 3 * h
    assert found["activation_peak_bytes"] == b * 1024 * max(mlp_act, up_proj, add) * 2
    assert found["n_devices"] == 8 and found["fits"] is True and found["reason"] is None


@pytest.mark.parametrize(("stage", "q", "c"), [("prefill", 1024, 1024), ("decode", 1, 1025)])
def test_every_term_of_deepseek_v3_on_thirty_two_h200(stage: str, q: int, c: int) -> None:
    """Latents expanded in prefill and absorbed in decode, experts over four nodes, attention by 32 groups of one device."""
    peak, vector, bandwidth = facts("nvidia_h200_sxm").values()
    n, batch, h, heads, rope, nope, latent, low, width = 32, 256, 7168, 128, 64, 128, 512, 1536, 2048
    b, k, experts, vocab, dense = batch / n, 8, 256, 129280, 18432
    t, all_tokens = b * q, batch * q

    def product(m: float, inner: float, cols: float, times: float = 1, vector_ops: float = 0, read: float = 1) -> float:
        moved = 2 * times * (read * inner * cols + m * inner + m * cols)
        return max(2 * times * m * inner * cols / peak, vector_ops / vector, moved / bandwidth)

    def simple(elements: float, ops: float, weights: float = 0.0) -> float:
        return max(ops / vector, 2 * (elements + weights) / bandwidth)

    def norm(rows_: float, cols: float) -> float:
        return simple(2 * rows_ * cols, 4 * rows_ * cols, cols)

    pairs = q * c - q * (q - 1) / 2
    if stage == "prefill":
        keys, values, cached = nope + rope, 128, 0.0
        expanded = b * c * heads * (keys + values)
        own: dict[str, float] = {
            "latent_attention.kv_b_proj": max(
                2 * b * c * latent * heads * 256 / peak,
                2 * (latent * heads * 256 + b * c * (latent + heads * 256)) / bandwidth,
            )
        }
    else:
        keys, values, cached, expanded = latent + rope, latent, b * c * (latent + rope), 0.0
        own = {
            "latent_attention.q_absorb": product(t, nope, latent, heads),
            "latent_attention.v_absorb": product(t, latent, 128, heads),
        }
    attention = own | {
        "latent_attention.attn_norm": norm(t, h),
        "latent_attention.q_a_proj": product(t, h, low),
        "latent_attention.q_a_norm": norm(t, low),
        "latent_attention.q_proj": product(t, low, heads * (nope + rope), vector_ops=3 * t * heads * rope),
        "latent_attention.kv_a_proj": product(t, h, latent + rope, vector_ops=3 * t * rope),
        "latent_attention.kv_a_norm": norm(t, latent),
        "latent_attention.fused_attention": max(
            2 * b * heads * pairs * (keys + values) / peak,
            5 * b * heads * pairs / vector,
            2 * (t * heads * (keys + values) + expanded + cached) / bandwidth,
        ),
        "latent_attention.out_proj": product(t, heads * 128, h),
        "latent_attention.attn_add": simple(3 * t * h, t * h),
    }
    mlp = {
        "mlp.mlp_norm": norm(t, h),
        "mlp.gate_proj": product(t, h, dense),
        "mlp.up_proj": product(t, h, dense),
        "mlp.mlp_act": simple(3 * t * dense, 5 * t * dense),
        "mlp.down_proj": product(t, dense, h),
        "mlp.mlp_add": simple(3 * t * h, t * h),
    }
    routed, read = all_tokens * k / n, experts / n * (1 - (1 - k / experts) ** all_tokens)
    sent = t * min(k, n * (1 - (1 - 1 / n) ** k)) * h * 2
    exchanged = max(sent * 7 / 32 / NVLINK, sent * 24 / 32 / NETWORK)
    moe = {
        "moe.mlp_norm": norm(t, h),
        "moe.router": product(t, h, experts, vector_ops=5 * t * experts),
        "moe.expert_dispatch": exchanged,
        "moe.expert_gate_proj": product(routed, h, width, read=read),
        "moe.expert_up_proj": product(routed, h, width, read=read),
        "moe.expert_act": simple(3 * routed * width, 5 * routed * width),
        "moe.expert_down_proj": product(routed, width, h, read=read),
        "moe.expert_combine": exchanged,
        "moe.expert_sum": simple((k + 1) * t * h, 2 * k * t * h),
        "moe.shared_gate_proj": product(t, h, width),
        "moe.shared_up_proj": product(t, h, width),
        "moe.shared_act": simple(3 * t * width, 5 * t * width),
        "moe.shared_down_proj": product(t, width, h),
        "moe.shared_add": simple(3 * t * h, t * h),
        "moe.mlp_add": simple(3 * t * h, t * h),
    }
    once = {
        "embedding.embedding": 2 * t * h * 2 / bandwidth,
        "head.final_norm": norm(b, h),
        "head.lm_head": product(b, h, vocab),
        "head.sampling": simple(b * vocab, 5 * b * vocab),
    }
    asked = {"model": "deepseek-v3", "hardware": "nvidia_h200_sxm", "batch": batch, "ep": n}
    found = rows(stage, **asked)
    assert set(found) == {*attention, *mlp, *moe, *once}
    total = 0.0
    for count, terms in ((61, attention), (3, mlp), (58, moe), (1, once)):
        for name, seconds in terms.items():
            assert found[name]["time_s"] == pytest.approx(seconds, rel=1e-12), name
            assert found[name]["count"] == count
            total += count * seconds
    stages = calc.analyze(**asked, by="stage").filter(pl.col("stage") == stage)
    assert stages["time_s"][0] == pytest.approx(total, rel=1e-12)


def test_deepseek_v3_on_thirty_two_h200() -> None:
    """Experts over 32 devices, attention data-parallel: what a device computes, reads, sends and holds."""
    facts("nvidia_h200_sxm")
    n, batch, q, h, experts, k, width, layers = 32, 256, 1, 7168, 256, 8, 2048, 58
    asked = {"model": "deepseek-v3", "hardware": "nvidia_h200_sxm", "batch": batch, "ep": n}
    found = rows("decode", **asked)
    own = batch / n
    assert found["moe.router"]["matrix_ops"] == 2 * own * h * experts
    assert found["latent_attention.kv_a_proj"]["matrix_ops"] == 2 * own * h * 576
    expert = found["moe.expert_up_proj"]
    assert expert["matrix_ops"] == pytest.approx(2 * (batch * q * k / n) * h * width, rel=1e-12)
    read = experts / n * (1 - (1 - k / experts) ** batch)
    assert expert["weight_bytes"] == pytest.approx(read * h * width * 2, rel=1e-12)
    copies = min(k, n * (1 - (1 - 1 / n) ** k))
    sent = own * q * copies * h * 2
    for name in ("expert_dispatch", "expert_combine"):
        row = found[f"moe.{name}"]
        assert row["network_bytes"] == pytest.approx(sent * 31 / 32, rel=1e-12)
        assert row["network_s"] == pytest.approx(max(sent * 7 / 32 / NVLINK, sent * 24 / 32 / NETWORK), rel=1e-12)
        assert row["bound"] == "network" and row["count"] == layers
    serving = calc.analyze(**asked, by="serving").row(0, named=True)
    assert serving["n_devices"] == 32
    assert "scaleout_link_bytes_per_s is unknown" in serving["assumed"]
    total = calc.models().filter(pl.col("model_id") == "deepseek-ai/DeepSeek-V3")["n_parameters"][0]
    routed = layers * experts * 3 * h * width
    assert serving["weight_memory_bytes"] == pytest.approx(2 * (total - routed + routed / n), rel=1e-12)
    assert serving["kv_cache_bytes"] == own * (1024 + 128) * 61 * 576 * 2
    assert serving["kv_bytes_per_token"] == 70_272
    # results on their way back: the stream, its norm for the shared expert, the router's scores, what the experts
    # of this device have written, and what has arrived of its own tokens
    tokens = own * 1024
    alive = tokens * (2 * h + experts) + batch * 1024 * k / n * h + tokens * copies * h
    assert serving["activation_peak_bytes"] == pytest.approx(2 * alive, rel=1e-12)


def test_collectives_on_two_levels() -> None:
    """A sum over 16 devices in two domains of 8: within, then across; the bytes by hand."""
    found = rows("decode", model="meta-llama/Meta-Llama-3.1-405B", hardware="nvidia_h100_sxm", batch=4, tp=16)
    row = found["attention.attn_all_reduce"]
    v = 4 * 16384 * 2
    assert row["network_bytes"] == 2 * v * 15 / 16
    assert row["network_s"] == pytest.approx(2 * v * 7 / (8 * NVLINK) + 2 * (v / 8) * 1 / (2 * NETWORK), rel=1e-12)


@pytest.mark.parametrize(("pp", "layers", "head"), [(7, 9, 129280 * 7168 + 7168), (61, 1, 129280 * 7168 + 7168)])
def test_some_rank_holds_the_heavier_layers(pp: int, layers: int, head: int) -> None:
    """DeepSeek-V3's 58 MoE layers: 257 experts, router and latent attention each; seven ranks cannot all have eight."""
    found = calc.analyze("deepseek-v3", "h200", pp=pp, precision="w16a16kv16", by="serving")["weight_memory_bytes"][0]
    attention = 7168 * 1536 + 1536 + 1536 * 128 * 192 + 7168 * 576 + 512 + 512 * 128 * 256 + 128 * 128 * 7168
    moe = 257 * 3 * 7168 * 2048 + 256 * 7168
    norms = 2 * 7168
    assert found == pytest.approx(2 * (layers * (attention + moe + norms) + head), rel=1e-9)


def test_pipeline_ranks_add_up_and_share_the_layers() -> None:
    """Latency is the sum over ranks and their sends; the fullest rank has CEIL(L / pp) layers and the fuller end."""
    one = calc.analyze("llama-3-70b", "nvidia_h100_sxm", by="stage")
    four = calc.analyze("llama-3-70b", "nvidia_h100_sxm", by="stage", pp=3)
    send = 1024 * 8192 * 2 / NVLINK
    assert four["time_s"][0] == pytest.approx(one["time_s"][0] + 2 * send, rel=1e-12)
    held = calc.analyze("llama-3-70b", "nvidia_h100_sxm", by="serving", pp=3)["weight_memory_bytes"][0]
    layer = 2 * 8192 * 8192 + 2 * 8192 * 1024 + 3 * 8192 * 28672 + 2 * 8192
    assert held == pytest.approx(2 * (27 * layer + 128256 * 8192 + 8192), rel=1e-12)


@pytest.mark.parametrize(
    ("model", "degrees", "reason"),
    [
        ("llama-3-70b", {"tp": 3}, "tp does not divide models.n_heads"),
        ("qwen2-0.5b", {"tp": 4}, "tp does not divide models.n_heads"),
        ("llama-3-70b", {"ep": 2}, "ep needs experts"),
        ("mistralai/Mixtral-8x7B-v0.1", {"ep": 3}, "ep does not divide models.n_experts"),
        ("llama-3-70b", {"pp": 81}, "pp is above models.n_layers"),
        ("deepseek-v3", {"tp": 8, "ep": 4}, None),
        ("deepseek-v3", {"tp": 16, "ep": 32}, None),
        ("deepseek-v3", {"tp": 128, "ep": 32}, None),
        ("llama-3-70b", {"tp": 16}, None),
    ],
)
def test_a_degree_that_does_not_divide_is_refused(model: str, degrees: dict[str, int], reason: str | None) -> None:
    """A reason in the row and no figure, or an answer."""
    found = calc.analyze(model, "nvidia_h100_sxm", by="serving", **degrees).row(0, named=True)
    figures = [found[c] for c in ("ttft_s", "tpot_s", "weight_memory_bytes", "kv_cache_bytes", "fits", "max_batch")]
    if reason is None:
        assert all(f is not None for f in figures)
    else:
        assert reason in found["reason"] and all(f is None for f in figures)
    others = calc.evaluate(
        calc.scenarios(model=[model, "llama-2-7b"], hardware="nvidia_h100_sxm").with_columns(
            pl.Series("tp", [degrees.get("tp", 1), 1])
        ),
        by="serving",
    ).collect()
    assert others["ttft_s"][1] is not None


def test_an_overlapped_exchange_takes_the_longer_of_both() -> None:
    """The sum over devices runs beside the product that makes its terms: no operator of its own, no time of its own."""
    asked = {"model": "llama-3-70b", "hardware": "nvidia_h100_sxm", "batch": 8, "tp": 8}
    for stage in ("prefill", "decode"):
        apart, beside = rows(stage, **asked), rows(stage, **asked, technique="overlapped_exchange")
        assert set(apart) - set(beside) == {"attention.attn_all_reduce", "mlp.mlp_all_reduce"}
        for product, exchange in (
            ("attention.out_proj", "attention.attn_all_reduce"),
            ("mlp.down_proj", "mlp.mlp_all_reduce"),
        ):
            longer = max(apart[product]["time_s"], apart[exchange]["time_s"])
            assert beside[product]["time_s"] == pytest.approx(longer, rel=1e-12)
            assert beside[product]["network_bytes"] == apart[exchange]["network_bytes"]
    one, same = (answer_of("llama-3-8b", technique=t) for t in (None, "overlapped_exchange"))
    assert one == same


def answer_of(model: str, **asked: object) -> tuple[object, ...]:
    """Return the times of a question on one H100."""
    return calc.analyze(model, "h100", by="serving", **asked).select("ttft_s", "tpot_s", "e2e_s", "fits").row(0)


@pytest.mark.parametrize("technique", [None, "overlapped_exchange"])
@pytest.mark.parametrize(
    ("model", "degrees", "start"),
    [("google/gemma-3-27b-it", {"tp": 4}, 1010), ("deepseek-v3", {"tp": 2, "ep": 16}, 700), ("ai21labs/Jamba-v0.1", {"tp": 8, "pp": 2}, 50),
     ("meta-llama/Llama-4-Scout-17B-16E-Instruct", {"tp": 8}, 8180)],
)  # fmt: skip
def test_the_closed_form_is_the_sum_of_steps(
    model: str, degrees: dict[str, int], start: int, technique: str | None
) -> None:
    """Every decode step of an answer evaluated by itself, exchanges included."""
    asked = {"model": model, "hardware": "nvidia_h200_sxm", "batch": 48, "technique": technique, **degrees}
    found = calc.analyze(**asked, input_len=start, output_len=40, by="serving").row(0, named=True)
    steps = calc.evaluate(calc.scenarios(**asked, input_len=list(range(start, start + 39))), by="stage").collect()
    whole = steps.filter(pl.col("stage") == "decode")["time_s"].sum()
    assert found["tpot_s"] * 39 == pytest.approx(whole, rel=1e-9)


def test_a_device_without_links_says_so() -> None:
    """No link is known: the replica has no time, and the reason names the facts."""
    device = calc.hardware().filter(
        pl.col("scaleup_link_bytes_per_s").is_null() & pl.col("host_link_bytes_per_s").is_null()
        & pl.col("memory_bandwidth_bytes_per_s").is_not_null() & pl.col("fp16_ops_per_s").is_not_null()
    )["hardware_id"][0]  # fmt: skip
    found = calc.analyze("llama-2-7b", device, by="serving", tp=2).row(0, named=True)
    assert found["ttft_s"] is None and "scaleup_link_bytes_per_s" in found["reason"]


DEGREES = [{"tp": 2}, {"tp": 4, "ep": 8, "pp": 2}, {"tp": 3, "ep": 3}]
"""Alone, together with experts spread wider than attention, and what divides few models."""
SPREAD = ["google/gemma-3-27b-it", "deepseek-ai/DeepSeek-V3.2", "nvidia/NVIDIA-Nemotron-3-Super-120B-A12B",
          "Qwen/Qwen3-Next-80B-A3B-Instruct", "llava-hf/llava-1.5-7b-hf"]  # fmt: skip


@pytest.mark.parametrize("by", ["operator", "stage", "serving"])
def test_engines_agree_on_degrees(by: str) -> None:
    """Both engines, models of each kind, degrees that are possible and that are not."""
    asked = calc.scenarios(model=SPREAD, hardware=["h100", "nvidia_l4"], n_images=1).collect()
    every = [
        asked.with_columns(pl.lit(v).alias(d) for d, v in (dict.fromkeys(("tp", "pp", "ep"), 1) | of).items())
        for of in DEGREES
    ]
    both(pl.concat(every), by)


@pytest.mark.parametrize("tp", [1, 2, 8])
def test_every_device_holds_the_groups_of_its_heads(tp: int) -> None:
    """Mamba-2 2.7B: 80 heads are split, its one group of B and C (128 channels each) is on every device."""
    found = calc.analyze("state-spaces/mamba2-2.7b", "h100", tp=tp, precision="w16a16kv16")
    in_proj = found.filter(pl.col("operator") == "in_proj", pl.col("stage") == "decode").row(0, named=True)
    columns = (2 * 5120 + 80) / tp + 2 * 128
    assert math.isclose(in_proj["weight_bytes"], 2 * 2560 * columns, rel_tol=1e-12)
    state = found.filter(pl.col("operator") == "convolution", pl.col("stage") == "decode").row(0, named=True)
    assert math.isclose(state["weight_bytes"], 2 * (4 + 1) * (5120 / tp + 2 * 128), rel_tol=1e-12)


def test_an_encoder_sums_its_embedding_and_is_not_piped() -> None:
    """T5-base, 512 tokens on two devices: half of each sum of 512 × 768 values of 16 bits goes out, twice."""
    found = calc.analyze("google-t5/t5-base", "h100", tp=2, input_len=512, precision="w16a16kv16")
    stem = found.filter(pl.col("part") == "encoder_stem", pl.col("operator") == "embedding_all_reduce")
    assert stem["stage"].to_list() == ["prefill"] and stem["network_bytes"][0] == 2 * (512 * 768 * 2) / 2
    refused = calc.analyze("google-t5/t5-base", "h100", pp=2, by="serving").row(0, named=True)
    assert refused["ttft_s"] is None and "encoder" in refused["reason"]


@given(
    model=st.sampled_from(
        [
            "llama-3-70b",
            "mistralai/Mixtral-8x7B-v0.1",
            "deepseek-v3",
            "google/gemma-2-27b",
            "nvidia/NVIDIA-Nemotron-Nano-9B-v2",
        ]
    ),
    tp=st.sampled_from([2, 4, 8]),
    batch=st.sampled_from([1, 3, 64]),
    input_len=st.integers(1, 5000),
)
@settings(max_examples=12, deadline=None)
def test_sharding_conserves_matrix_work_and_weights(model: str, tp: int, batch: int, input_len: int) -> None:
    """Tp devices together multiply as much as one, and hold every matrix once; what is not split is held by each."""
    asked = {"model": model, "hardware": "h100", "batch": batch, "input_len": input_len}
    one, many = (calc.analyze(**asked, tp=n) for n in (1, tp))
    keys = ["stage", "part", "operator"]
    pair = one.join(many, on=keys, suffix="_many")
    assert pair.height == one.height
    spread = pair.filter(pl.col("matrix_ops_many") < pl.col("matrix_ops"))
    assert spread.height >= 6
    for column in ("matrix_ops", "weight_bytes"):
        ratio = spread.filter(pl.col(column) > 0).select((pl.col(column) / pl.col(f"{column}_many")).alias("r"))["r"]
        assert all(math.isclose(r, tp, rel_tol=1e-9) for r in ratio), column


@given(
    model=st.sampled_from(MODELS[:20]), tp=st.sampled_from([1, 2, 4]), batch=st.integers(1, 300),
    input_len=st.integers(1, 8000), output_len=st.integers(0, 600), hardware=st.sampled_from(["h100", "h200", "a100", "b200"]),
)  # fmt: skip
@settings(max_examples=12, deadline=None)
def test_the_largest_batch_fits_and_one_more_does_not(
    model: str, tp: int, batch: int, input_len: int, output_len: int, hardware: str
) -> None:
    """Asked at any batch; a model that does not fit at all has none."""
    asked = {"model": model, "hardware": hardware, "tp": tp, "input_len": input_len, "output_len": output_len}
    found = calc.analyze(**asked, batch=batch, by="serving").row(0, named=True)
    if found["fits"] is None:
        assert found["reason"]
        return
    largest = int(found["max_batch"])
    for tried, fits in ((largest, True), (largest + 1, False)):
        if tried >= 1:
            assert calc.analyze(**asked, batch=tried, by="serving")["fits"][0] is fits
    assert found["fits"] is (batch <= largest)


@pytest.mark.parametrize("technique", [None, "prefill_first"])
def test_the_largest_batch_of_groups_is_the_same_whatever_batch_is_asked(technique: str | None) -> None:
    """Eight groups of two devices: a batch that fills them unevenly asks no more of a sequence than one that does."""
    asked = {"model": "deepseek-v3", "hardware": "h200", "tp": 2, "ep": 16, "input_len": 2048, "precision": "fp8"}
    asked["technique"] = technique
    found = calc.analyze(**asked, batch=[1, 7, 8, 9, 100], by="serving")["max_batch"].unique().to_list()
    assert len(found) == 1 and found[0] % 8 == 0
    tried = calc.analyze(**asked, batch=[int(found[0]), int(found[0]) + 8], by="serving")
    assert tried["fits"].to_list() == [True, False]


@pytest.mark.parametrize("batch", [1, 4, 32, 33])
def test_the_mean_device_of_groups(batch: int) -> None:
    """Work follows the sequences: 33 on 32 groups are 33 / 32 of the operations of 32, and take as long as 64."""
    asked = {"model": "deepseek-v3", "hardware": "h200", "ep": 32, "precision": "fp8_block", "by": "serving"}
    full = calc.analyze(**asked, batch=32).row(0, named=True)
    found = calc.analyze(**asked, batch=batch).row(0, named=True)
    share = batch / 32 * full["e2e_s"] / found["e2e_s"]
    assert math.isclose(found["mfu"], full["mfu"] * share, rel_tol=1e-9)
    if batch < 32:
        assert found["energy_j_per_token"] * batch < full["energy_j_per_token"] * 32
        first = calc.analyze(**asked, batch=batch, technique="prefill_first").row(0, named=True)
        pieces = calc.analyze(**asked, batch=batch, technique="chunked_prefill").row(0, named=True)
        assert math.isclose(first["ttft_s"], found["ttft_s"], rel_tol=1e-12)
        assert math.isclose(pieces["ttft_s"], found["ttft_s"], rel_tol=1e-9)


@given(
    model=st.sampled_from(["llama-3-8b", "google/gemma-3-27b-it", "openai/gpt-oss-20b", "ai21labs/Jamba-v0.1", "deepseek-v3",
                           "meta-llama/Llama-4-Scout-17B-16E-Instruct"]),
    batch=st.integers(1, 8), output_len=st.integers(1, 60_000), tp=st.sampled_from([1, 8]),
)  # fmt: skip
@settings(max_examples=10, deadline=None)
def test_the_longest_context_fits_and_one_more_does_not(model: str, batch: int, output_len: int, tp: int) -> None:
    """The answer grows, the prompt and its activations stay as asked; windows hold no more than themselves."""
    asked = {"model": model, "hardware": "h200", "batch": batch, "input_len": 1000, "tp": tp}
    found = calc.analyze(**asked, output_len=output_len, by="serving").row(0, named=True)
    longest = int(found["max_context"])
    if longest > 1000:
        assert calc.analyze(**asked, output_len=longest - 1000, by="serving")["fits"][0] is True
        assert calc.analyze(**asked, output_len=longest - 999, by="serving")["fits"][0] is False


def test_more_devices_need_no_more_memory_each() -> None:
    """Weights, cache and activations of the fullest device never grow with the degree."""
    found = calc.evaluate(calc.scenarios(model=MODELS[:20], hardware="h100", tp=[1, 2, 4, 8]), by="serving").collect()
    for _, rows in found.group_by("model_id"):
        for column in ("weight_memory_bytes", "kv_cache_bytes", "activation_peak_bytes"):
            known = rows.drop_nulls(column).sort("tp")[column]
            assert known.is_sorted(descending=True), (rows["model_id"][0], column)


def serving(model: str, hardware: str, **asked: object) -> dict[str, object]:
    """Return the serving figures of a question."""
    return calc.analyze(model, hardware, by="serving", **asked).row(0, named=True)


def test_one_token_leaves_its_device_whole() -> None:
    """With fewer sequences than groups the busiest device has one, and sends it to as many as any other would."""
    found = rows("decode", model="deepseek-v3", hardware="nvidia_h200_sxm", ep=32, batch=1)
    copies = 32 * (1 - (31 / 32) ** 8)
    assert found["moe.expert_dispatch"]["network_bytes"] == pytest.approx(7168 * 2 * copies * 31 / 32, rel=1e-12)


def test_unknown_memory_is_not_nothing() -> None:
    """A device without a capacity has no shortfall, no batch and no context; nor has a replica that cannot be."""
    device = calc.hardware().filter(
        pl.col("memory_capacity_bytes").is_null() & pl.col("memory_bandwidth_bytes_per_s").is_not_null()
        & pl.col("fp32_ops_per_s").is_not_null()
    )["hardware_id"][0]  # fmt: skip
    for found in (serving("llama-2-7b", device), serving("llama-3-70b", "h100", tp=7)):
        assert [found[c] for c in ("fits", "shortfall_bytes", "max_batch", "max_context")] == [None] * 4
        assert found["reason"]


def test_a_full_window_needs_no_more() -> None:
    """Where every layer has a window, the context is bounded by nothing; sparse attention keeps every latent."""
    assert serving("mistralai/Mistral-7B-v0.1", "h100")["max_context"] is None
    sparse = {"precision": "fp8_block", "tp": 8, "input_len": 4000, "output_len": 100}
    found = serving("deepseek-ai/DeepSeek-V3.2", "nvidia_h200_sxm", **sparse)
    longest = int(found["max_context"])
    for length, fits in ((longest - 4000, True), (longest - 3999, False)):
        assert (
            serving("deepseek-ai/DeepSeek-V3.2", "nvidia_h200_sxm", **sparse | {"output_len": length})["fits"] is fits
        )


def test_sends_cross_domains_as_often_as_they_must() -> None:
    """16 ranks on two servers of 8: fourteen of fifteen sends stay inside."""
    row = rows("prefill", model="llama-3-70b", hardware="nvidia_h100_sxm", pp=16)["pipeline.send"]
    stream = 1024 * 8192 * 2
    assert row["count"] * row["network_s"] == pytest.approx(14 * stream / NVLINK + stream / NETWORK, rel=1e-12)


def test_an_encoder_answers_with_no_tokens() -> None:
    """No output tokens, hence no price and no energy of one; a translator's prompt is what its encoder reads."""
    found = serving("google-bert/bert-base-uncased", "h100", cached_len=512)
    assert found["output_tokens_per_s"] is found["usd_per_million_output_tokens"] is found["energy_j_per_token"] is None
    assert (
        found["usd_per_million_input_tokens"]
        == serving("google-bert/bert-base-uncased", "h100")["usd_per_million_input_tokens"]
    )
    t5 = serving("google-t5/t5-base", "nvidia_h100_sxm", cached_len=512)
    price = calc.hardware().filter(pl.col("hardware_id") == "nvidia_h100_sxm")["price_usd_per_hour"][0]
    assert t5["usd_per_million_input_tokens"] == pytest.approx(1e6 * price / 3600 * t5["ttft_s"] / 1024, rel=1e-12)


def test_one_device_without_links_exchanges_nothing() -> None:
    """Named or not, an overlapped exchange of one device takes no time."""
    times = [serving("llama-2-7b", "apple_m3_max", technique=t)["ttft_s"] for t in (None, "overlapped_exchange")]
    assert times[0] is not None and times[0] == times[1]
