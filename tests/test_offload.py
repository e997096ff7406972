"""Layers that do not fit: streamed over the host link, or computed beside the host."""

from __future__ import annotations

import math

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_engines import both

import calc

MODEL, DEVICE, HOST = "meta-llama/Meta-Llama-3-70B", "nvidia_rtx_4090", "intel_xeon_8480plus"
LAYER = 2 * (8192 * (8192 + 2 * 1024) + 8192 * 8192 + 3 * 8192 * 28672 + 2 * 8192)
ENDS = 2 * (2 * 128256 * 8192 + 8192)


def device(hardware: str = DEVICE) -> dict[str, float]:
    """Return the facts of a device."""
    return calc.hardware().filter(pl.col("hardware_id") == hardware).row(0, named=True)


def answer(**asked: object) -> dict[str, float]:
    """Return what one question about Llama-3-70B on an RTX 4090 gives."""
    return calc.analyze(MODEL, DEVICE, by="serving", **asked).row(0, named=True)


def test_the_fewest_layers_leave_by_hand() -> None:
    """80 layers of 1.7 GB on 24 GiB: what is missing, in layers, and one more for the room of one on its way."""
    sizes = {"input_len": 1000, "output_len": 101}
    plain, found = answer(**sizes), answer(technique="offload", **sizes)
    missing = 80 * LAYER + ENDS + plain["kv_cache_bytes"] + plain["activation_peak_bytes"] - 24 * 2**30
    layers = math.ceil(missing / LAYER) + 1
    assert plain["host_layers"] == found["host_layers"] == layers and not plain["fits"] and found["fits"]
    assert found["weight_memory_bytes"] == 80 * LAYER + ENDS - (layers - 1) * LAYER
    rows = calc.analyze(MODEL, DEVICE, by="operator", **sizes)
    extra = {"prefill": 0.0, "decode": 0.0}
    for row in rows.filter(pl.col("part").is_in(["attention", "mlp"])).iter_rows(named=True):
        streamed = row["weight_bytes"] / device()["host_link_bytes_per_s"]
        extra[row["stage"]] += layers / 80 * row["count"] * max(streamed - row["time_s"], 0)
    assert math.isclose(found["ttft_s"], plain["ttft_s"] + extra["prefill"], rel_tol=1e-12)
    assert math.isclose(found["tpot_s"], plain["tpot_s"] + extra["decode"], rel_tol=1e-12)
    assert math.isclose(plain["streamed_tpot_s"], found["tpot_s"], rel_tol=1e-12)
    assert found["tpot_s"] > layers * LAYER / device()["host_link_bytes_per_s"]


def test_a_cache_on_the_host_comes_with_every_step() -> None:
    """All of the cache: each step reads its context over the link and writes one token."""
    sizes = {"input_len": 1000, "output_len": 101, "batch": 4}
    found = answer(technique="offload", offloaded_kv_share=1, offloaded_layer_share=1, **sizes)
    none = answer(technique="offload", offloaded_layer_share=1, **sizes)
    assert found["kv_cache_bytes"] == 0 and found["max_batch"] > none["max_batch"]
    link, token = device()["host_link_bytes_per_s"], 4 * 2 * 8 * 128 * 2
    asked = pl.DataFrame(
        [{"model_id": MODEL, "hardware_id": DEVICE, **sizes, "input_len": 1000 + i} for i in range(100)]
    )
    rows = calc.evaluate(asked, by="operator").filter(pl.col("stage") == "decode").collect()
    reads = rows.filter(pl.col("operator") == "fused_attention")
    writes = rows.filter(pl.col("operator").is_in(["k_proj", "v_proj"]))
    step = (80 * (1000.0 + pl.int_range(1, 101, eager=True)) * token / link).sum()
    assert math.isclose((reads["count"] * reads["kv_read_bytes"] / link).sum(), step, rel_tol=1e-12)
    added = step - (reads["count"] * reads["time_s"]).sum()
    lead = writes["kv_write_bytes"] / link - writes["time_s"]
    added += (writes["count"] * lead.clip(lower_bound=0)).sum()
    assert math.isclose(found["tpot_s"] - none["tpot_s"], added / 100, rel_tol=1e-9)


def test_a_drive_is_slower_than_the_link() -> None:
    """At 2 GB/s the 69 layers of a step take a minute."""
    found = answer(technique="offload+ssd")
    assert found["tpot_s"] > found["host_layers"] * LAYER / 2e9
    assert answer(technique="ssd")["tpot_s"] == answer()["tpot_s"]


def test_unknown_links_are_named() -> None:
    """No link, no stream: a reason, and no number."""
    unknown = calc.hardware().filter(
        pl.col("host_link_bytes_per_s").is_null() & pl.col("fp16_ops_per_s").is_not_null()
    )["hardware_id"][0]
    found = calc.analyze("llama-3-8b", unknown, by="serving", technique="offload").row(0, named=True)
    assert found["ttft_s"] is None and "hardware.host_link_bytes_per_s is unknown" in found["reason"]


def test_the_host_may_compute_instead() -> None:
    """Figure 18 of the survey: weights to the device, or the work to the weights; by the times of both devices."""
    connection = calc.connect()
    connection.execute(
        f"create or replace table scenarios as select '{MODEL}' as model_id, "
        f"unnest(['{DEVICE}', '{HOST}']) as hardware_id, 1000 as input_len, 101 as output_len"
    )
    row = connection.sql(f"from offload where hardware_id = '{DEVICE}'").pl().row(0, named=True)
    sizes = {"input_len": 1000, "output_len": 101}
    gpu = answer(**sizes)
    cpu = calc.analyze(MODEL, HOST, by="serving", **sizes).row(0, named=True)
    missing = gpu["memory_needed_bytes"] - 24 * 2**30
    layers = math.ceil(missing / (LAYER + gpu["kv_cache_bytes"] / 80))
    assert row["computed_layers"] == layers and row["streamed_layers"] == gpu["host_layers"]
    crossing = 2 * 8192 * 2 / device()["host_link_bytes_per_s"]
    step = gpu["tpot_s"] + layers / 80 * (cpu["decode_layers_s"] - gpu["decode_layers_s"]) / 100 + crossing
    assert math.isclose(row["computed_tpot_s"], step, rel_tol=1e-12)
    first = gpu["ttft_s"] + layers / 80 * (cpu["prefill_layers_s"] - gpu["prefill_layers_s"]) + 1000 * crossing
    assert math.isclose(row["computed_ttft_s"], first, rel_tol=1e-12)
    assert row["is_computing_faster"] and row["computed_tpot_s"] < row["streamed_tpot_s"]


def test_engines_agree_on_offload() -> None:
    """Experts, latents and windows too."""
    models = [MODEL, "mistralai/Mixtral-8x7B-v0.1", "deepseek-ai/DeepSeek-V3.2", "google/gemma-3-27b-it"]
    grid = calc.scenarios(
        model=models, hardware=[DEVICE, "h100", "google_tpu_v5p"], technique=["offload", "offload+ssd"], batch=[1, 40],
        offloaded_kv_share=[0, 0.5],
    )  # fmt: skip
    both(grid, "serving")


@pytest.mark.parametrize("technique", ["offload"])
@given(st.integers(1, 64), st.integers(1, 8000), st.integers(1, 800), st.floats(0, 1))
@settings(max_examples=6, deadline=None)
def test_more_layers_with_the_host_are_never_faster(
    technique: str, batch: int, input_len: int, output_len: int, share: float
) -> None:
    """What leaves the device makes room and takes time; the largest batch fits and one more does not."""
    sizes = {"input_len": input_len, "output_len": output_len}
    least = answer(technique=technique, batch=batch, **sizes)
    more = answer(technique=technique, batch=batch, offloaded_layer_share=share, **sizes)
    assert more["ttft_s"] >= least["ttft_s"] and more["weight_memory_bytes"] <= least["weight_memory_bytes"]
    assert more["host_layers"] >= least["host_layers"]
    if least["max_batch"]:
        assert answer(technique=technique, batch=least["max_batch"], **sizes)["fits"]
    assert not answer(technique=technique, batch=least["max_batch"] + 1, **sizes)["fits"]


def test_every_figure_knows_of_the_host_link() -> None:
    """Every layer over the link: the longest gap and the rate of prompts are those of the streamed passes."""
    found = calc.analyze("llama-3-8b", "h100", by="serving", technique="offload", offloaded_layer_share=1).row(
        0, named=True
    )
    assert found["tpot_s"] <= found["itl_s"] < 1.01 * found["tpot_s"]
    assert math.isclose(found["prefill_requests_per_s"], 1 / found["ttft_s"], rel_tol=1e-12)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_cache_on_the_host_is_as_large(share: float) -> None:
    """A prompt of 1,024 tokens has 131,072 bytes of cache each wherever they are; what fits grows with the share."""
    asked = {"technique": "offload", "offloaded_kv_share": share, "batch": 4, "input_len": 1024}
    found = calc.analyze("llama-3-8b", DEVICE, by="serving", **asked).row(0, named=True)
    assert found["prompt_kv_bytes"] == 1024 * 131_072
    if share == 1:
        assert found["max_context"] is None
        return
    longest = int(found["max_context"])
    for held, fits in ((longest, True), (longest + 1, False)):
        tried = calc.analyze("llama-3-8b", DEVICE, by="serving", **asked, output_len=held - 1024)
        assert tried["fits"][0] is fits


def test_streaming_layers_does_not_help_a_cache() -> None:
    """698 GB of cache on 24 GiB: and activations beyond it: neither way is possible, and the view says why."""
    connection = calc.connect()
    connection.execute(
        f"create or replace table scenarios as select '{MODEL}' as model_id, h as hardware_id, 256 as batch, "
        f"8192 as input_len, 1 as tp from (values ('{DEVICE}'), ('{HOST}'), ('xeon-8480+')) as t(h) "
        f"union all select '{MODEL}', '{HOST}', 256, 8192, 2"
    )
    found = connection.sql("select * from offload where hardware_id = ?", params=[DEVICE]).pl()
    assert found["host_id"].is_unique().all()
    row = found.row(by_predicate=pl.col("host_id") == HOST, named=True)
    assert row["streamed_tpot_s"] is None and row["streamed_layers"] is None
    assert row["computed_tpot_s"] is None
    assert "leaves cache and activations" in row["reason"] and "whatever layers" in row["reason"]
