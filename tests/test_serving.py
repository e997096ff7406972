"""Serving many requests: pieces of prompts beside decodes, prompts first, pools of their own, by brute sums."""

from __future__ import annotations

import math

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_engines import both

import calc

H100 = "nvidia_h100_sxm"
POLICIES = [None, "prefill_first", "chunked_prefill"]
NOTHING = {"matrix_ops": 0.0, "vector_ops": 0.0, "memory_bytes": 0.0, "weight_bytes": 0.0}
LLAMA = "meta-llama/Meta-Llama-3-8B"


def rates(hardware: str = H100) -> tuple[float, float, float]:
    """Return a device's 16-bit peak, vector peak and bandwidth."""
    row = calc.hardware().filter(pl.col("hardware_id") == hardware).row(0, named=True)
    return row["bf16_ops_per_s"], row["vector_fp32_ops_per_s"], row["memory_bandwidth_bytes_per_s"]


def serving(model: str, **asked: object) -> dict[str, float]:
    """Return the answer to one question on an H100."""
    return calc.analyze(model, H100, by="serving", **asked).row(0, named=True)


def operators(model: str, stage: str, **asked: object) -> dict[tuple[str, str], dict[str, float]]:
    """Return an operator's row by part and name."""
    found = calc.analyze(model, H100, by="operator", **asked).filter(pl.col("stage") == stage)
    return {(r["part"], r["operator"]): r for r in found.iter_rows(named=True)}


def pieces(input_len: int, cached_len: int, budget: int) -> list[tuple[int, int]]:
    """Return where each piece of a prompt begins and ends."""
    starts = range(cached_len, input_len, budget)
    return [(s, min(s + budget, input_len)) for s in starts]


@pytest.mark.parametrize("lengths", [(5000, 700, 1024), (300, 0, 1000), (9000, 33, 999)])
@pytest.mark.parametrize(
    "model",
    [LLAMA, "google/gemma-3-27b-it", "openai/gpt-oss-20b", "deepseek-ai/DeepSeek-V3.2", "ai21labs/Jamba-v0.1",
     "state-spaces/mamba2-2.7b", "Qwen/Qwen3-Next-80B-A3B-Instruct", "mistralai/Mistral-7B-v0.1",
     "google/recurrentgemma-2b"],
)  # fmt: skip
def test_the_first_token_of_a_prompt_in_pieces_is_the_sum_over_them(model: str, lengths: tuple[int, int, int]) -> None:
    """Each piece is a prefill behind a cached prefix; the head works once, at the end."""
    input_len, cached_len, budget = lengths
    found = serving(
        model,
        input_len=input_len,
        cached_len=cached_len,
        output_len=9,
        technique="chunked_prefill",
        chunk_budget=budget,
    )
    asked = pl.DataFrame(
        [
            {"model_id": model, "hardware_id": H100, "input_len": end, "cached_len": start, "output_len": 0}
            for start, end in pieces(input_len, cached_len, budget)
        ]
    )
    rows = calc.evaluate(asked, by="operator").filter(pl.col("stage") == "prefill").collect()
    is_head = pl.col("part") == "head"
    total = rows.filter(~is_head | (pl.col("input_len") == input_len)).select(
        (pl.col("count") * pl.col("time_s")).sum()
    )
    assert math.isclose(found["ttft_s"], total.item(), rel_tol=1e-9)


@pytest.mark.parametrize(
    ("model", "batch", "output_len"),
    [(LLAMA, 8, 200), (LLAMA, 64, 30), ("deepseek-ai/DeepSeek-V2-Lite", 16, 100), ("google/gemma-3-27b-it", 5, 40)],
)
def test_a_mixed_step_reads_its_weights_once(model: str, batch: int, output_len: int) -> None:
    """Every mixed step of a prompt, operator by operator: a piece and the mean step of those that decode."""
    input_len, budget = 1500, 400
    peak, vector, bandwidth = rates()
    steps = output_len - 1
    cut = pieces(input_len, 0, budget)
    beside = min(batch - 1, steps / len(cut))
    asked = pl.DataFrame(
        [
            {"model_id": model, "hardware_id": H100, "batch": batch, "input_len": input_len + i, "output_len": 2}
            for i in range(steps)
        ]
    )
    decodes = calc.evaluate(asked, by="operator").filter(pl.col("stage") == "decode").collect()
    mean = {
        (r["part"], r["operator"]): r
        for r in decodes.group_by("part", "operator").agg(pl.col("count", *NOTHING).mean()).iter_rows(named=True)
    }
    facts = calc.models().filter(pl.col("model_id") == model).row(0, named=True)
    total = 0.0
    for nth, (start, end) in enumerate(cut):
        piece = operators(model, "prefill", input_len=end, cached_len=start, output_len=0)
        for key in piece.keys() | mean.keys():  # some operators belong to one stage alone
            row, step = piece.get(key, NOTHING | {"count": 0}), mean.get(key, NOTHING)
            ops, work, moved, weights = (row[c] for c in ("matrix_ops", "vector_ops", "memory_bytes", "weight_bytes"))
            if key[0] == "head" and nth < len(cut) - 1:
                ops = work = moved = weights = 0.0
            share = beside / batch
            both_weights = max(weights, step["weight_bytes"])
            if key[1].startswith("expert_"):
                e, k = facts["n_experts"], facts["n_active_experts"]
                hit = 1 - (1 - k / e) ** (end - start + beside)
                both_weights = weights * hit / (1 - (1 - k / e) ** (end - start))
            elif key[0] == "embedding":
                both_weights = weights + step["weight_bytes"] * share
            moved = moved - weights + (step["memory_bytes"] - step["weight_bytes"]) * share + both_weights
            unit = max((ops + share * step["matrix_ops"]) / peak, (work + share * step["vector_ops"]) / vector)
            total += max(row["count"], step.get("count", 0)) * max(unit, moved / bandwidth)
    found = serving(
        model, batch=batch, input_len=input_len, output_len=output_len, technique="chunked_prefill", chunk_budget=budget
    )
    turns = max(batch - steps / len(cut), 1)
    assert math.isclose(found["ttft_s"], turns * total, rel_tol=1e-9)
    alone = max(1 - (batch - 1) * len(cut) / steps, 0)
    decode = calc.analyze(model, H100, by="serving", batch=batch, input_len=input_len, output_len=output_len)
    whole = batch * total + alone * decode["tpot_s"][0] * steps
    assert math.isclose(found["e2e_s"], whole, rel_tol=1e-9)


def test_prompts_first_by_hand() -> None:
    """Each prompt by itself; within its answer a request waits for the prompts of the seven others."""
    sizes = {"input_len": 2000, "output_len": 101}
    one, eight = serving(LLAMA, **sizes), serving(LLAMA, batch=8, **sizes)
    found = serving(LLAMA, batch=8, technique="prefill_first", **sizes)
    assert found["ttft_s"] == one["ttft_s"]
    assert math.isclose(found["tpot_s"], eight["tpot_s"] + 7 * one["ttft_s"] / 100, rel_tol=1e-12)
    assert math.isclose(found["e2e_s"], 8 * one["ttft_s"] + 100 * eight["tpot_s"], rel_tol=1e-12)
    assert math.isclose(found["itl_s"], eight["itl_s"] + one["ttft_s"], rel_tol=1e-12)
    assert math.isclose(found["requests_per_s"], 8 / found["e2e_s"], rel_tol=1e-12)
    assert eight["itl_s"] > eight["tpot_s"]


def test_pools_of_their_own_by_hand() -> None:
    """Three replicas prefill for two that decode: the cache of 2,000 tokens moves at 50 GB/s, the slower pool decides."""
    sizes = {"input_len": 2000, "output_len": 101}
    one, batch = serving(LLAMA, **sizes), serving(LLAMA, batch=32, **sizes)
    found = serving(LLAMA, batch=32, technique="disaggregated", prefill_replicas=3, decode_replicas=2, **sizes)
    moved = 2000 * 32 * 2 * 8 * 128 * 2
    assert found["prompt_kv_bytes"] == moved
    assert math.isclose(found["kv_transfer_s"], moved / 50e9, rel_tol=1e-12)
    assert math.isclose(found["ttft_s"], one["ttft_s"] + moved / 50e9, rel_tol=1e-12)
    assert math.isclose(found["tpot_s"], batch["tpot_s"], rel_tol=1e-12)
    rate = min(3 / one["ttft_s"], 2 * 32 / (100 * batch["tpot_s"]))
    assert math.isclose(found["requests_per_s"], rate, rel_tol=1e-12)
    assert math.isclose(found["output_tokens_per_s_per_device"], rate * 101 / 5, rel_tol=1e-12)
    price = calc.hardware().filter(pl.col("hardware_id") == H100)["price_usd_per_hour"][0]
    assert math.isclose(found["usd_per_million_output_tokens"], 5 * price / 3600 * 1e6 / (rate * 101), rel_tol=1e-12)


@pytest.mark.parametrize(
    ("model", "policy", "reason"),
    [
        ("google-t5/t5-base", "chunked_prefill", "chunked prefill needs a decoder alone"),
        ("google-bert/bert-base-uncased", "chunked_prefill", "chunked prefill needs a decoder alone"),
        ("meta-llama/Llama-4-Scout-17B-16E-Instruct", "chunked_prefill",
         "chunked prefill is not computed for prompts above models.attention_chunk"),
    ],
)  # fmt: skip
def test_what_cannot_be_cut_is_refused(model: str, policy: str, reason: str) -> None:
    """The row says why and shows no number."""
    found = serving(model, input_len=20_000, technique=policy)
    assert found["reason"] == reason
    assert found["ttft_s"] is None and found["requests_per_s"] is None


@pytest.mark.parametrize("policy", [*POLICIES, "disaggregated"])
def test_engines_agree_on_policies(policy: str | None) -> None:
    """Windows, latents, states and experts; one sequence and many."""
    models = [LLAMA, "google/gemma-3-27b-it", "deepseek-ai/DeepSeek-V3.2", "Qwen/Qwen3-Next-80B-A3B-Instruct"]
    grid = calc.scenarios(
        model=models, hardware=[H100, "a6000"], technique=policy, batch=[1, 40], input_len=[1, 3000], output_len=[1, 90]
    )
    both(grid, "serving")


QUESTIONS = st.fixed_dictionaries(
    {
        "batch": st.integers(1, 300),
        "input_len": st.integers(1, 20_000),
        "output_len": st.integers(2, 2000),
        "technique": st.sampled_from(POLICIES),
        "chunk_budget": st.integers(64, 8192),
        "precision": st.sampled_from(["w16a16kv16", "fp8", "w4a16kv16"]),
    }
)


@given(st.lists(QUESTIONS, min_size=1, max_size=6), st.sampled_from([LLAMA, "mistralai/Mixtral-8x7B-v0.1"]))
@settings(max_examples=6, deadline=None)
def test_answers_keep_littles_law(questions: list[dict[str, object]], model: str) -> None:
    """What is in flight is what comes per second times how long it stays; first token and steps make the whole."""
    asked = pl.DataFrame(questions).with_columns(model_id=pl.lit(model), hardware_id=pl.lit(H100))
    found = calc.evaluate(asked, by="serving").collect()
    for row in found.iter_rows(named=True):
        assert math.isclose(row["requests_per_s"] * row["e2e_s"], row["batch"], rel_tol=1e-12)
        steps = row["output_len"] - 1
        assert math.isclose(row["ttft_s"] + steps * row["tpot_s"], row["e2e_s"], rel_tol=1e-9)
        assert row["itl_s"] >= row["tpot_s"] * (1 - 1e-9) or row["technique"] is not None
        assert 0 < row["mfu"] <= 1 and 0 < row["mbu"] <= 1 + 1e-9
        if row["max_batch"]:
            fits = calc.evaluate(
                pl.DataFrame([row]).select(asked.columns).with_columns(batch=pl.lit(row["max_batch"])), by="serving"
            ).collect()
            assert fits["fits"].all()
            more = fits.select(asked.columns).with_columns(pl.col("batch") + 1)
            assert not calc.evaluate(more, by="serving").collect()["fits"].any()


@pytest.mark.parametrize("policy", ["prefill_first", "chunked_prefill"])
def test_a_request_alone_is_served_alike(policy: str) -> None:
    """With nobody else there is nothing to interfere."""
    sizes = {"input_len": 900, "output_len": 50, "chunk_budget": 1000}
    plain, alone = serving(LLAMA, **sizes), serving(LLAMA, technique=policy, **sizes)
    for column in ("ttft_s", "tpot_s", "itl_s", "e2e_s", "mfu", "mbu", "energy_j_per_token"):
        assert math.isclose(plain[column], alone[column], rel_tol=1e-12), column


@pytest.mark.parametrize(("batch", "output_len", "prompts"), [(1, 9, 0), (4, 9, 1), (64, 9, 8), (64, 2, 32)])
def test_the_longest_gap_with_prompts_first_by_hand(batch: int, output_len: int, prompts: int) -> None:
    """In a steady state an answer of n tokens ends every n / batch steps, and its successor's prompt comes at once."""
    asked = {"batch": batch, "output_len": output_len, "input_len": 512}
    found, plain = serving(LLAMA, technique="prefill_first", **asked), serving(LLAMA, **asked)
    assert math.isclose(found["itl_s"], plain["itl_s"] + prompts * found["lone_prompt_s"], rel_tol=1e-12)
    assert found["itl_s"] >= found["tpot_s"] * (1 - 1e-12)


@pytest.mark.parametrize(("input_len", "rest"), [(1024, False), (1025, True), (2047, True)])
def test_the_longest_gap_with_pieces_is_the_longest_step(input_len: int, rest: bool) -> None:
    """One piece is the whole step; a piece of one token more does not halve it."""
    asked = {"batch": 8, "output_len": 256, "input_len": input_len, "chunk_budget": 1024}
    found = serving(LLAMA, technique="chunked_prefill", **asked)
    one = serving(LLAMA, technique="chunked_prefill", **{**asked, "input_len": 1024})
    if rest:
        assert found["itl_s"] < found["ttft_s"] and math.isclose(found["itl_s"], one["itl_s"], rel_tol=0.02)
    else:
        assert math.isclose(found["itl_s"], found["ttft_s"], rel_tol=1e-12)
    alone = serving(LLAMA, technique="chunked_prefill", **{**asked, "output_len": 1})
    assert alone["itl_s"] is None and alone["tpot_s"] is None


@given(
    policy=st.sampled_from([*POLICIES, "offload", "disaggregated"]), batch=st.integers(1, 300), input_len=st.integers(1, 9000),
    output_len=st.integers(2, 900), budget=st.sampled_from([64, 1000, 8192]),
)  # fmt: skip
@settings(max_examples=20, deadline=None)
def test_no_gap_is_shorter_than_the_mean_one(
    policy: str | None, batch: int, input_len: int, output_len: int, budget: int
) -> None:
    """The longest gap between two tokens is at least their mean."""
    asked = {"batch": batch, "input_len": input_len, "output_len": output_len, "chunk_budget": budget}
    found = serving(LLAMA, technique=policy, **asked)
    assert found["itl_s"] >= found["tpot_s"] * (1 - 1e-9)


def test_input_is_paid_where_it_is_computed() -> None:
    """A pool that prefills costs as much per prompt as a replica that prefills first; cached tokens, a decode replica's."""
    asked = {"batch": 64, "input_len": 1024}
    found, first = (serving(LLAMA, technique=t, **asked) for t in ("disaggregated", "prefill_first"))
    hour = calc.hardware().filter(pl.col("hardware_id") == H100)["price_usd_per_hour"][0]
    by_hand = hour / 3600 * found["lone_prompt_s"] / 1024 * 1e6
    assert math.isclose(found["usd_per_million_input_tokens"], by_hand, rel_tol=1e-12)
    assert math.isclose(first["usd_per_million_input_tokens"], by_hand, rel_tol=1e-12)
    assert math.isclose(found["usd_per_million_cached_tokens"], first["usd_per_million_cached_tokens"], rel_tol=1e-12)


def test_what_leaves_nothing_in_memory_has_no_largest_batch() -> None:
    """One image after the other: as many as one likes wait; a prompt of no tokens has no pieces."""
    found = serving("facebook/DiT-XL-2-256", batch=3, technique="prefill_first")
    assert found["fits"] and found["max_batch"] is None
    empty = serving(LLAMA, batch=64, input_len=0, technique="chunked_prefill")
    assert empty["e2e_s"] is None and "prompt" in empty["reason"]


def test_a_mixed_step_waits_once_for_each_hop() -> None:
    """Tensor parallel over eight: 161 sums of 14 hops and a gathering of 7 in each step, with a piece beside it or not."""
    asked = {"tp": 8, "batch": 16, "chunk_budget": 64}
    hops = (161 * 14 + 7) * 1.9e-6
    for policy in (None, "chunked_prefill"):
        late = serving(
            "meta-llama/Meta-Llama-3-70B", technique="+".join(filter(None, [policy, "link_latency"])), **asked
        )
        plain = serving("meta-llama/Meta-Llama-3-70B", technique=policy, **asked)
        assert math.isclose(late["itl_s"] - plain["itl_s"], hops, rel_tol=1e-6)
