"""Totals of prefill and decode over a million points: this project against a lean loop over the same formulas.

Run ``python tests/bench/grid.py``. Both compute operations, bytes and time of both stages with the exact sheet's
formulas, for dense decoders; their sums are compared before anything is timed. A third rate is that of models of every
architecture, a fourth that of full serving answers over the dense grid. Rounds alternate, so that a noisy machine slows all; the figures are medians, and what counts is the ratio.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from math import inf
from pathlib import Path
from statistics import median

import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import calc

BATCHES = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256, 512]
LENGTHS = [200 * i for i in range(1, 23)]
PRECISIONS = {"w16a16kv16": (16, 16, 16), "w8a8kv8": (8, 8, 8), "w4a16kv16": (4, 16, 16), "w4a16kv4": (4, 16, 4)}
ATTENTIONS = ["flash", "eager"]
ROUNDS = 5
EVERY = 40
"""The loop runs on every so-manieth point: it is a rate that is measured, and the points are alike."""


DENSE = 15
"""Models of the dense grid: those that the loop has formulas for, of which the table has more."""
DEVICES = 26
EVERY_MODEL = 5
"""The grid of every architecture has one in so many models of the table."""


def dense() -> list[str]:
    """Return models of nothing but embedding, plain attention, MLPs and a head."""
    other = (
        "n_moe_layers",
        "n_ssm_layers",
        "n_linear_attention_layers",
        "kv_lora_rank",
        "qk_norm",
        "n_shared_blocks",
        "sliding_window",
        "attention_chunk",
        "embed_dim",
        "n_encoder_layers",
        "n_borrowed_layers",
        "n_mtp_layers",
    )
    flags = ("is_encoder", "has_sub_norms", "has_embed_norm", "has_output_gate", "has_attention_sinks",
             "has_no_final_norm", "has_no_key_bias")  # fmt: skip
    plain = pl.all_horizontal(*(pl.col(c).is_null() for c in other), *(~pl.col(c) for c in flags))
    found = calc.models().filter(plain & (pl.col("n_mixer_norms") == 1) & (pl.col("n_mlp_norms") <= 1))
    return found["model_id"].head(DENSE).to_list()


def grid(models: list[str]) -> pl.LazyFrame:
    """Return the questions: model × device × batch × length × precision × attention."""
    devices = calc.hardware()["hardware_id"].head(DEVICES)
    return calc.scenarios(
        model=models, hardware=devices.to_list(), batch=BATCHES, input_len=LENGTHS,
        precision=list(PRECISIONS), attention=ATTENTIONS,
    )  # fmt: skip


def ours(questions: pl.LazyFrame) -> pl.DataFrame:
    """Return operations, bytes and time of both stages of every question."""
    return calc.evaluate(questions, by="stage").select("stage", "ops", "memory_bytes", "time_s").collect()


ANSWERS = (
    "ttft_s", "tpot_s", "itl_s", "e2e_s", "requests_per_s", "output_tokens_per_s", "output_tokens_per_s_per_device",
    "tokens_per_s_per_user", "weight_memory_bytes", "kv_cache_bytes", "activation_peak_bytes", "memory_needed_bytes",
    "fits", "shortfall_bytes", "max_batch", "max_context", "min_devices", "usd_per_million_output_tokens",
    "usd_per_million_input_tokens", "energy_j_per_token", "mfu", "mbu",
)  # fmt: skip


def answers(questions: pl.LazyFrame) -> pl.DataFrame:
    """Return what serving shows of every question: latency, throughput, memory, cost and energy."""
    return calc.evaluate(questions, by="serving").select(ANSWERS).collect()


def points(questions: pl.DataFrame) -> Iterator[tuple[object, ...]]:
    """Return what the loop needs of each question: facts as plain numbers, peaks chosen beforehand."""
    models = {m["model_id"]: m for m in calc.models().iter_rows(named=True)}
    devices = {d["hardware_id"]: d for d in calc.hardware().iter_rows(named=True)}
    for model, device, batch, length, precision, attention in questions.iter_rows():
        m, d, (w, a, k) = models[model], devices[device], PRECISIONS[precision]
        half = max(d["fp16_ops_per_s"] or 0.0, d["bf16_ops_per_s"] or 0.0, d["fp32_ops_per_s"] or 0.0)
        narrow = max(half, d["int8_ops_per_s"] or 0.0, d["fp8_ops_per_s"] or 0.0) if a == 8 else half
        norm = 4.0 if m["norm_type"] == "rms" else 7.0
        yield (
            m["n_layers"], m["hidden"], m["n_heads"], m["n_kv_heads"], m["head_dim"], m["rotary_dim"], m["intermediate"],
            m["vocab"], m["n_position_rows"] > 0, m["n_norm_vectors"], m["n_mlp_norms"] > 0, m["is_gated_mlp"],
            float(m["has_qkv_bias"]), float(m["has_out_bias"]), float(m["has_mlp_bias"]), float(m["has_head_bias"]), norm,
            float(batch), float(length), w / 8, a / 8, k / 8, attention == "flash",
            narrow, half, d["vector_fp32_ops_per_s"] or inf, d["memory_bandwidth_bytes_per_s"],
        )  # fmt: skip


def loop(rows: list[tuple[object, ...]]) -> list[tuple[float, float, float]]:
    """Return (operations, bytes, time) of prefill, then of decode, for every row: plain Python, locals only."""
    out = []
    for (
        layers, h, H, G, d, rotary, inter, vocab, learned, norm_vectors, two_norms, gated, qkv_bias, out_bias, mlp_bias,
        head_bias, norm, batch, length, w, a, k, flash, P, Pw, V, bw,
    ) in rows:  # fmt: skip
        qc, kc = H * d, G * d
        rot = 3.0 * rotary / d
        for q, past in ((length, 0.0), (1.0, length)):
            T, c = batch * q, past + q
            pairs = q * past + q * (q + 1.0) / 2.0
            norm_ops, norm_bytes = norm * T * h, 2.0 * T * h * a + norm_vectors * h * 2.0
            norm_t = norm_ops / V
            if norm_bytes / bw > norm_t:
                norm_t = norm_bytes / bw
            add_ops, add_bytes = T * h, 3.0 * T * h * a
            add_t = add_ops / V
            if add_bytes / bw > add_t:
                add_t = add_bytes / bw
            # q, then k and v
            m, v = 2.0 * T * h * qc, rot * T * qc
            b = h * qc * w + qkv_bias * qc * 2.0 + T * h * a + T * qc * a
            ops, size = m + v, b
            t = max(m / P, v / V, b / bw)
            m, v = 2.0 * T * h * kc, rot * T * kc
            b = h * kc * w + qkv_bias * kc * 2.0 + T * h * a + T * kc * k
            ops += 2.0 * m + v
            size += 2.0 * b
            t += max(m / P, v / V, b / bw) + max(m / P, b / bw)
            cache = batch * G * c * d * k
            m, v = 2.0 * batch * H * pairs * d, 5.0 * batch * H * pairs
            ops += 2.0 * m + v
            if flash:
                b = 2.0 * T * qc * a + 2.0 * cache
                size += b
                t += max(2.0 * m / P, v / V, b / bw)
            else:
                scores = T * H * c * a
                b = T * qc * a + scores + cache
                size += 2.0 * b + 2.0 * scores
                t += 2.0 * max(m / P, b / bw) + max(v / V, 2.0 * scores / bw)
            m, b = 2.0 * T * qc * h, qc * h * w + out_bias * h * 2.0 + T * qc * a + T * h * a
            ops += m
            size += b
            t += max(m / P, b / bw)
            # mlp
            m, b = 2.0 * T * h * inter, h * inter * w + mlp_bias * inter * 2.0 + T * h * a + T * inter * a
            n = 2.0 if gated else 1.0
            ops += n * m
            size += n * b
            t += n * max(m / P, b / bw)
            v, b = (5.0 if gated else 4.0) * T * inter, (n + 1.0) * T * inter * a
            ops += v
            size += b
            t += max(v / V, b / bw)
            b = h * inter * w + mlp_bias * h * 2.0 + T * h * a + T * inter * a
            ops += m
            size += b
            t += max(m / P, b / bw)
            n = 2.0 if two_norms else 1.0
            ops = layers * (ops + n * norm_ops + 2.0 * add_ops)
            size = layers * (size + n * norm_bytes + 2.0 * add_bytes)
            t = layers * (t + n * norm_t + 2.0 * add_t)
            # embedding
            b = T * h * 2.0 + T * h * a
            size += b
            t += b / bw
            if learned:
                b = T * h * 2.0 + 2.0 * T * h * a
                ops += T * h
                size += b
                t += max(T * h / V, b / bw)
            # head
            v, b = norm * batch * h, 2.0 * batch * h * a + norm_vectors * h * 2.0
            ops += v
            size += b
            t += max(v / V, b / bw)
            m, b = (
                2.0 * batch * h * vocab,
                h * vocab * 2.0 + head_bias * vocab * 2.0 + batch * h * a + batch * vocab * a,
            )
            ops += m
            size += b
            t += max(m / Pw, b / bw)
            v, b = 5.0 * batch * vocab, batch * vocab * a
            ops += v
            size += b
            t += max(v / V, b / bw)
            out.append((ops, size, t))
    return out


def main() -> None:
    """Compare, then time in turns, and print rates and their ratio."""
    questions, every = grid(dense()), grid(calc.models()["model_id"].gather_every(EVERY_MODEL).to_list())
    n_every = every.select(pl.len()).collect().item()
    frame = questions.collect()
    sample = frame.gather_every(EVERY)
    rows = list(points(sample))
    wanted = pl.DataFrame(loop(rows), schema=["ops", "memory_bytes", "time_s"], orient="row")
    found = ours(sample.lazy())
    for column in wanted.columns:
        worst = ((found[column] - wanted[column]).abs() / wanted[column]).max()
        assert worst is not None and worst < 1e-12, (column, worst)
    ours(questions)
    ours(every)
    answers(questions)
    rates: dict[str, list[float]] = {"columns": [], "loop": [], "every": [], "serving": []}
    for _ in range(ROUNDS):
        start = time.perf_counter()
        ours(questions)
        rates["columns"].append(frame.height / (time.perf_counter() - start))
        start = time.perf_counter()
        loop(rows)
        rates["loop"].append(len(rows) / (time.perf_counter() - start))
        start = time.perf_counter()
        ours(every)
        rates["every"].append(n_every / (time.perf_counter() - start))
        start = time.perf_counter()
        answers(questions)
        rates["serving"].append(frame.height / (time.perf_counter() - start))
    print(f"points: {frame.height:,} (loop: every {EVERY}th), both stages, equal to 1e-12")
    for label, each in rates.items():
        print(f"{label:8} median {median(each):12,.0f} points/s   (from {min(each):,.0f} to {max(each):,.0f})")
    shares = [e / c for e, c in zip(rates["every"], rates["columns"], strict=True)]
    print(f"every architecture ({n_every:,} points) runs at {median(shares):.2f} of the dense rate")
    shares = [s / p for s, p in zip(rates["serving"], rates["loop"], strict=True)]
    print(f"{len(ANSWERS)} figures of serving run at {median(shares):.1f} of the loop's rate")
    ratios = [c / p for c, p in zip(rates["columns"], rates["loop"], strict=True)]
    print(f"ratio    median {median(ratios):12.1f}            (from {min(ratios):.1f} to {max(ratios):.1f})")


if __name__ == "__main__":
    main()
