"""Questions as views: what fills memory, what to buy more of, who keeps the limits, who is not beaten."""

from __future__ import annotations

import math

import duckdb
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import calc
from calc.evaluation import evaluate
from calc.tables import load

MODELS = ["meta-llama/Meta-Llama-3-8B", "google/gemma-3-27b-it", "mistralai/Mixtral-8x7B-v0.1",
          "deepseek-ai/DeepSeek-V3.2", "meta-llama/Llama-4-Scout-17B-16E-Instruct", "ai21labs/Jamba-v0.1"]  # fmt: skip
DEVICES = ["nvidia_h100_sxm", "nvidia_h200_sxm", "nvidia_a100_80gb_sxm", "nvidia_l40s", "nvidia_b200_sxm"]


@pytest.fixture(scope="module")
def connection() -> duckdb.DuckDBPyConnection:
    """A connection that asks six models of five devices at five batches and two degrees."""
    made = calc.connect()
    made.register(
        "asked", calc.scenarios(model=MODELS, hardware=DEVICES, batch=[1, 4, 16, 64, 256], tp=[1, 8]).collect()
    )
    made.execute("create or replace table scenarios as from asked")
    answered_once(made)
    return made


def answered_once(connection: duckdb.DuckDBPyConnection) -> None:
    """Keep the answers to scenarios that stay as they are: each query over ``serving`` would plan it anew."""
    connection.execute("create table answered as from serving")
    connection.execute("create or replace view serving as from answered")


def test_memory_adds_up(connection: duckdb.DuckDBPyConnection) -> None:
    """Items fill the capacity where it fits, and exceed it by the shortfall where it does not."""
    found = connection.sql(
        "select scenario_row, sum(held_bytes) as held, any_value(memory_capacity_bytes) as capacity, "
        "any_value(shortfall_bytes) as missing, any_value(fits) as fits from memory group by 1"
    ).pl()
    known = found.drop_nulls()
    assert known.height > 200 and known["fits"].n_unique() == 2
    for row in known.iter_rows(named=True):
        assert math.isclose(row["held"], row["capacity"] + row["missing"], rel_tol=1e-12)


def test_limits_reject_with_a_reason(connection: duckdb.DuckDBPyConnection) -> None:
    """Accepted are exactly those that keep every limit; each other row says which it breaks."""
    connection.execute("set variable ttft_s = 0.3")
    connection.execute("set variable tpot_s = 0.02")
    connection.execute("set variable devices = 4")
    found = connection.sql("select l.*, s.fits from slo as l join serving as s using (scenario_row)").pl()
    assert found.height == 300
    for row in found.iter_rows(named=True):
        keeps = row["ttft_s"] is not None and row["ttft_s"] <= 0.3 and row["tpot_s"] <= 0.02
        keeps = keeps and row["fleet_devices"] <= 4 and row["fits"]
        assert row["is_accepted"] is bool(keeps)
        assert (row["reason"] is None) is row["is_accepted"]
        if row["ttft_s"] is not None and row["ttft_s"] > 0.3:
            assert "ttft_s" in row["reason"] and "is above 0.3" in row["reason"]
    best = connection.sql("from best_hardware").pl()
    assert best.filter(pl.col("cost_rank") == 1).height == best.filter("is_accepted")["model_id"].n_unique()
    for (_,), rows in best.filter(pl.col("cost_rank").is_not_null()).group_by("model_id"):
        costs = rows.sort("cost_rank")["usd_per_million_output_tokens"].to_list()
        assert costs == sorted(costs)
    for name in ("ttft_s", "tpot_s", "devices"):
        connection.execute(f"reset variable {name}")


def test_the_front_is_what_nothing_dominates(connection: duckdb.DuckDBPyConnection) -> None:
    """By the definition, pair by pair."""
    found = connection.sql("from pareto").pl()
    fronts = {
        "is_on_throughput_front": lambda r: (r["tokens_per_s_per_user"], r["output_tokens_per_s_per_device"]),
        "is_on_cost_front": lambda r: (-r["e2e_s"], -(r["usd_per_million_output_tokens"] or math.inf)),
    }
    for column, merits in fronts.items():
        for (_,), rows in found.group_by("model_id"):
            every = [(row[column], merits(row)) for row in rows.iter_rows(named=True)]
            for is_front, own in every:
                beaten = any(o != own and o[0] >= own[0] and o[1] >= own[1] for _, o in every)
                if math.isinf(own[1]):
                    assert not is_front
                else:
                    assert is_front is not beaten


def test_devices_overtake_each_other(connection: duckdb.DuckDBPyConnection) -> None:
    """Before the crossing one is cheaper, after it the other; the crossing lies between."""
    found = connection.sql("from break_even").pl()
    assert found.height > 0
    costs = {
        (r["model_id"], r["hardware_id"], r["tp"], r["batch"]): r["usd_per_million_output_tokens"]
        for r in connection.sql("from serving").pl().iter_rows(named=True)
    }
    for row in found.iter_rows(named=True):
        of = [(row["model_id"], row[d], row["tp"]) for d in ("cheaper_before", "cheaper_after")]
        assert costs[(*of[0], row["batch_before"])] < costs[(*of[1], row["batch_before"])]
        assert costs[(*of[0], row["batch_after"])] >= costs[(*of[1], row["batch_after"])]
        assert row["batch_before"] < row["break_even_batch"] <= row["batch_after"]


def test_an_api_by_hand(connection: duckdb.DuckDBPyConnection) -> None:
    """Prices of 0.5 and 1.5 USD per million at 1,024 and 128 tokens: 0.000704 USD a request."""
    assert connection.sql("from api_break_even").pl()["reason"].str.starts_with("set the variable").all()
    connection.execute("set variable api_usd_per_million_input_tokens = 0.5")
    connection.execute("set variable api_usd_per_million_output_tokens = 1.5")
    found = connection.sql(
        "select a.*, s.tp, s.requests_per_s from api_break_even as a join serving as s using (scenario_row) "
        "where a.model_id like '%Llama-3-8B' and a.hardware_id = 'nvidia_h100_sxm' and a.batch = 64 and s.tp = 1"
    ).pl()
    row = found.row(0, named=True)
    price = calc.hardware().filter(pl.col("hardware_id") == "nvidia_h100_sxm")["price_usd_per_hour"][0]
    assert math.isclose(row["api_usd_per_request"], (1024 * 0.5 + 128 * 1.5) / 1e6)
    assert math.isclose(row["break_even_requests_per_day"], 24 * price / row["api_usd_per_request"])
    busy = price / 3600 / (row["api_usd_per_request"] * row["requests_per_s"])
    assert math.isclose(row["break_even_utilisation"], busy)
    for name in ("api_usd_per_million_input_tokens", "api_usd_per_million_output_tokens"):
        connection.execute(f"reset variable {name}")


def test_pools_of_different_devices_by_hand(connection: duckdb.DuckDBPyConnection) -> None:
    """A100 prefill for H100: one prompt's rate, the batch's decode rate, and the slower network in between."""
    model, batch = MODELS[0], 64
    row = connection.sql(
        f"select d.* from disaggregation as d join serving as s using (scenario_row) where d.model_id = '{model}' "
        f"and d.batch = {batch} and s.tp = 1 and d.hardware_id = 'nvidia_h100_sxm' "
        "and d.prefill_hardware_id = 'nvidia_a100_80gb_sxm'"
    ).pl().row(0, named=True)  # fmt: skip
    prefill = calc.analyze(model, "nvidia_a100_80gb_sxm", by="serving")["ttft_s"][0]
    decode = calc.analyze(model, "nvidia_h100_sxm", by="serving", batch=batch)
    rate = batch / decode["decode_s"][0]
    assert math.isclose(row["prefill_replicas_per_decode_replica"], rate * prefill)
    assert math.isclose(row["requests_per_s_per_device"], rate / (1 + rate * prefill))
    links = calc.hardware().filter(pl.col("hardware_id").is_in(["nvidia_h100_sxm", "nvidia_a100_80gb_sxm"]))
    slower = min(v or 50e9 for v in links["scaleout_link_bytes_per_s"])
    assert math.isclose(row["ttft_s"], prefill + 1024 * 32 * 2 * 8 * 128 * 2 / slower)
    assert math.isclose(row["tpot_s"], decode["tpot_s"][0])


COMPUTE = ["fp32_ops_per_s", "tf32_ops_per_s", "fp16_ops_per_s", "bf16_ops_per_s", "fp8_ops_per_s", "int8_ops_per_s",
           "int4_ops_per_s", "fp4_ops_per_s", "vector_fp32_ops_per_s"]  # fmt: skip
LINKS = ["scaleup_link_bytes_per_s", "scaleout_link_bytes_per_s"]
RESOURCES = {"compute": COMPUTE, "bandwidth": ["memory_bandwidth_bytes_per_s"], "link": LINKS}
STEP = 1e-6


@given(
    st.sampled_from(MODELS),
    st.integers(1, 2000),
    st.integers(1, 20_000),
    st.integers(2, 3000),
    st.sampled_from([(1, 1), (8, 1), (8, 2), (16, 1)]),
    st.sampled_from([None, "link_latency"]),
)
@settings(max_examples=10, deadline=None)
def test_elasticities_are_what_a_little_more_of_each_resource_gives(
    model: str, batch: int, input_len: int, output_len: int, degrees: tuple[int, int], technique: str | None
) -> None:
    """The closed forms against a device with a millionth more; they sum to -(1 - the share of latencies)."""
    own = calc.hardware().filter(pl.col("hardware_id") == "nvidia_h100_sxm")
    own = own.with_columns(pl.lit(50e9).alias("scaleout_link_bytes_per_s"))
    more = [
        own.with_columns(pl.lit(f"more_{r}").alias("hardware_id"), *(pl.col(c) * (1 + STEP) for c in columns))
        for r, columns in RESOURCES.items()
    ]
    rows = pl.concat([own.with_columns(pl.lit("plain").alias("hardware_id")), *more]).with_columns(aliases=pl.lit(None))
    tables = load().extended("hardware", rows.with_columns(pl.col("aliases").cast(pl.String)))
    tp, pp = degrees
    asked = pl.DataFrame({"hardware_id": ["plain", *(f"more_{r}" for r in RESOURCES)]}).with_columns(
        model_id=pl.lit(model), batch=batch, input_len=input_len, output_len=output_len, tp=tp, pp=pp,
        technique=pl.lit(technique, pl.String), scaleup_hop_s=1e-6, scaleout_hop_s=1e-5,
    )  # fmt: skip
    found = evaluate(tables, asked, by="serving").collect()
    plain = found.row(0, named=True)
    if plain["ttft_s"] is None:
        assert plain["reason"]
        return
    for time, parts in {
        "ttft_s": ("prefill_compute_bound_s", "prefill_memory_bound_s", "prefill_link_bound_s"),
        "decode_s": ("decode_steps_compute_s", "decode_steps_memory_s", "decode_steps_link_s"),
    }.items():
        for nth, part in enumerate(parts, start=1):
            change = (found[time][nth] - plain[time]) / STEP
            # a tie within the step moves an operator from one ceiling to another
            assert math.isclose(change, -plain[part], rel_tol=1e-3, abs_tol=1e-4 * plain[time])
        latency = plain[time] - sum(plain[p] for p in parts)
        if technique is None:
            assert abs(latency) <= 1e-9 * plain[time]
        else:
            assert latency >= -1e-9 * plain[time]


def asked_of(connection: duckdb.DuckDBPyConnection, columns: str, *rows: str) -> None:
    """Fill the table of scenarios with rows."""
    values = ", ".join(f"({r})" for r in rows)
    connection.execute(f"create or replace table scenarios as select * from (values {values}) as t({columns})")


@pytest.fixture(scope="module")
def empty() -> duckdb.DuckDBPyConnection:
    """A connection whose scenarios a test fills."""
    return calc.connect()


def test_rows_are_numbered_as_they_stand(empty: duckdb.DuckDBPyConnection) -> None:
    """Models and devices in no order, two of each alike."""
    asked_of(
        empty, "key, model_id, hardware_id, tp", "1, 'llama-3-8b', 'h100', 1", "2, 'llama-3-70b', 'h100', 16",
        "3, 'llama-3-70b', 'h100', 8", "4, 'deepseek-v3', 'h200', 8", "5, 'meta-llama/Meta-Llama-3-8B', 'rtx-4090', 2",
    )  # fmt: skip
    found = empty.sql("select scenario_row, key, question_id, formats_id from serving order by scenario_row").pl()
    assert found["scenario_row"].to_list() == found["key"].to_list() == [1, 2, 3, 4, 5]
    first, second, third, fourth, last = found["question_id"]
    assert first == last and second == third and len({first, second, fourth}) == 3
    assert found["formats_id"].n_unique() == 1


def test_different_questions_are_not_compared(empty: duckdb.DuckDBPyConnection) -> None:
    """Rows with a cached prefix change nothing for those without; a default said or not is the same."""
    batches = [1, 2, 8, 64]
    honest = [f"'llama-3-8b', '{h}', {b}, 1024, 0" for h in ("h100", "a100") for b in batches]
    cached = [f"'llama-3-8b', 'h100', {b}, 1024, 1000" for b in batches]
    columns = "model_id, hardware_id, batch, input_len, cached_len"
    shown = "cheaper_before, cheaper_after, round(break_even_batch, 9)"
    asked_of(empty, columns, *honest)
    alone = empty.sql(f"select {shown} from break_even").fetchall()
    spelled = [h.replace("'h100'", "'nvidia_h100_sxm'") if i % 2 else h for i, h in enumerate(honest)]
    asked_of(empty, columns, *spelled, *cached)
    assert alone and empty.sql(f"select {shown} from break_even").fetchall() == alone
    fronts = "select count(distinct question_id) from pareto where is_on_cost_front"
    assert empty.sql(fronts).fetchall() == [(2,)]
    asked_of(
        empty, columns, "'llama-3-8b', 'h100', null, null, null", "'meta-llama/Meta-Llama-3-8B', 'h100', 4, 1024, 0"
    )
    ranks = empty.sql("select cost_rank from best_hardware order by all").fetchall()
    assert ranks == [(1,), (2,)]


def test_a_pool_is_paired_once(empty: duckdb.DuckDBPyConnection) -> None:
    """Other attentions and degrees are other replicas; with wide experts a prompt takes as long as its group needs."""
    asked_of(
        empty, "model_id, hardware_id, attention, cp", "'llama-3-8b', 'h100', 'flash', 1",
        "'llama-3-8b', 'h100', 'flash', 2", "'llama-3-8b', 'h100', 'eager', 1",
    )  # fmt: skip
    pairs = empty.sql("select scenario_row, prefill_hardware_id from disaggregation").pl()
    assert pairs.height == 3 and pairs.is_unique().all()
    asked_of(
        empty, "model_id, hardware_id, ep, batch, precision", "'deepseek-v3', 'h200', 32, 256, 'fp8_block'"
    )  # fmt: skip
    found = calc.analyze(
        "deepseek-v3", "h200", ep=32, batch=256, precision="fp8_block", by="serving", technique="disaggregated"
    ).row(0, named=True)
    [(shown,)] = empty.sql("select ttft_s from disaggregation").fetchall()
    assert math.isclose(shown, found["lone_prompt_s"] + found["prompt_kv_bytes"] / 50e9, rel_tol=1e-12)


def test_views_say_nothing_of_what_is_unknown(empty: duckdb.DuckDBPyConnection) -> None:
    """No matrix peak: no shares of the rest; refused degrees: nothing is free; facts that no model has: the same peak."""
    asked_of(
        empty, "model_id, hardware_id, tp, batch, precision", "'llama-3-8b', 'cerebras_wse3', 1, 1, 'bf16'",
        "'llama-3-8b', 'h100', 3, 1, 'bf16'", "'Qwen/Qwen1.5-MoE-A2.7B', 'h200', 1, 64, 'bf16'",
        "'Qwen/Qwen-72B-Chat', 'h200', 1, 8, 'ternary'",
    )  # fmt: skip
    assert empty.sql("select distinct scenario_row from bottlenecks order by all").fetchall() == [(3,), (4,)]
    free = "select held_bytes from memory where item = 'free' and scenario_row = 2"
    assert empty.sql(free).fetchall() == [(None,)]
    asked = empty.sql("select model_id, hardware_id, tp, batch, precision from scenarios").pl()
    found = calc.evaluate(asked, by="serving").select("activation_peak_bytes", "max_batch").collect()
    shown = empty.sql("select activation_peak_bytes, max_batch from serving order by scenario_row").pl()
    for column in found.columns:
        for ours, theirs in zip(found[column], shown[column], strict=True):
            assert ours == theirs or math.isclose(ours, theirs, rel_tol=1e-12)


def test_what_views_are_given_is_checked(empty: duckdb.DuckDBPyConnection) -> None:
    """Text is a number where it reads as one; a column that would hide a result is refused."""
    asked_of(empty, "model_id, hardware_id, batch", "'llama-3-8b', 'h100', '8'")
    empty.execute("set variable ttft_s = '0.4'")
    assert empty.sql("select batch, reason from slo").fetchall() == [("8", None)]
    empty.execute("reset variable ttft_s")
    asked_of(empty, "model_id, hardware_id, reason", "'llama-3-8b', 'h100', 'mine'")
    with pytest.raises(duckdb.Error, match="your column reason bears the name of a result"):
        empty.sql("from serving").fetchall()
    empty.execute("create or replace table scenarios as select 'llama-3-8b' as model_id, 'h100' as hardware_id")
    empty.execute("set variable api_usd_per_million_output_tokens = -1")
    assert empty.sql("select break_even_requests_per_day, reason from api_break_even").fetchall() == [
        (None, "the price asked is below 0 or no number")
    ]
