"""The survey's figures: equal to the reference tool's numbers in its own accounting, and its findings in the exact one."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import duckdb
import polars as pl
import pytest
from conftest import ROOT, Run
from polars.testing import assert_frame_equal

import calc

FORMATS = {16: "fp16", 8: "int8", 4: "int4", 2: "int2", 1: "int1"}
GOLDEN = pl.read_parquet(ROOT / "tests/golden/llm_viewer_figures.parquet")
MEMORY = {
    "memory_consumption": "memory_consumption_bytes",
    "memory_consumption_weight": "memory_consumption_weight_bytes",
    "memory_consumption_kv_cache": "memory_consumption_kv_cache_bytes",
    "memory_consumption_tmp_act": "memory_consumption_tmp_act_bytes",
}
IN_FIGURE_7 = dict(
    zip(MEMORY, ("memory_needed_bytes", "weight_memory_bytes", "kv_cache_bytes", "activation_bytes"), strict=True)
)
TOLD = {"ops": "ops", "memory_access": "memory_bytes", "inference_time": "time_s"}


@cache
def figure(n: int) -> pl.DataFrame:
    """Return what the query of a figure gives."""
    from calc.database import connect
    from calc.tables import load

    query = (ROOT / f"sql/survey/figure_{n}.sql").read_text(encoding="utf-8")
    connection: duckdb.DuckDBPyConnection = connect(load(), query=query)
    found: pl.DataFrame = connection.sql(query).pl()
    connection.close()
    return found


@pytest.mark.parametrize("n", [7, 8, 9, 11, 16, 19, 20])
def test_a_figure_equals_the_reference_tool(n: int) -> None:
    """Every point of it, in the paper's own accounting, at 1e-9; and as many points in the exact one."""
    golden = GOLDEN.filter(figure=f"figure_{n:02}").with_columns(
        *(pl.col(c).replace_strict(FORMATS).alias(f) for c, f in (("w_bit", "weight_format"), ("a_bit", "activation_format"), ("kv_bit", "kv_format"))),
        attention=pl.when("use_flashattention").then(pl.lit("flash")).otherwise(pl.lit("eager")),
        batch=pl.col("batch_size"), input_len=pl.col("seq_len"), bandwidth_bytes_per_s=pl.col("bandwidth"),
    )  # fmt: skip
    found = figure(n)
    mine = found.filter(sheet="llm_viewer")
    keys = ["stage", "batch", "input_len", "weight_format", "activation_format", "kv_format", "attention"]
    keys = ["bandwidth_bytes_per_s"] if n == 20 else [k for k in keys if k in mine.columns]
    mine, golden = (
        f.with_columns(pl.col(k).cast(pl.Float64) for k in keys if f[k].dtype.is_numeric()) for f in (mine, golden)
    )
    both = golden.join(mine, on=keys, how="left", suffix="_mine", validate="1:1")
    assert both.height == golden.height == mine.height == found.filter(sheet="exact").height
    columns = TOLD | (IN_FIGURE_7 if n == 7 else {} if n == 20 else MEMORY)
    for theirs, own in columns.items():
        column = f"{own}_mine" if f"{own}_mine" in both.columns else own
        for a, b in both.select(theirs, column).iter_rows():
            assert b == pytest.approx(a, rel=1e-9), (theirs, a, b)


def test_rooflines_show_every_operator() -> None:
    """Figures 5 and 6: no point is above its ceiling; quantized weights move points right, 8-bit units lift the roof."""
    five, six = figure(5), figure(6)
    placed = five.filter(pl.col("attainable_ops_per_s").is_not_null() & pl.col("peak_ops_per_s").is_not_null())
    assert (placed["attainable_ops_per_s"] <= placed["peak_ops_per_s"] * (1 + 1e-12)).all()
    assert set(five["sheet"]) == {"exact", "llm_viewer"} and set(five["stage"]) == {"prefill", "decode"}
    assert five.group_by("sheet", "stage").agg(pl.col("share").sum())["share"].to_list() == pytest.approx([1] * 4)
    for sheet in ("exact", "llm_viewer"):
        q = six.filter(sheet=sheet, stage="decode", operator="q_proj").sort("weight_format", "activation_format")
        by = {(r["weight_format"], r["activation_format"]): r for r in q.iter_rows(named=True)}
        assert by[("int4", "fp16")]["arithmetic_intensity"] > 3.5 * by[("fp16", "fp16")]["arithmetic_intensity"]
        assert by[("int8", "int8")]["peak_ops_per_s"] == pytest.approx(
            2 * by[("fp16", "fp16")]["peak_ops_per_s"], rel=1e-3
        )


def test_fusion_helps_what_memory_limits() -> None:
    """Figure 15: an addition and a norm save a third and more; a product and its activation next to nothing."""
    for sheet in ("exact", "llm_viewer"):
        saved = dict(
            figure(15).filter(pl.col("saved_share").is_not_null(), sheet=sheet).select("panel", "saved_share").rows()
        )
        assert saved["memory-bound"] > 0.3
        assert saved["memory-bound"] > 2 * saved["compute-bound"]


def test_offloading_with_compute_on_the_device_wins_at_large_batch() -> None:
    """Figure 18: one sequence is faster on the host, hundreds are faster streamed; there is one crossing."""
    for sheet in ("exact", "llm_viewer"):
        rows = figure(18).filter(sheet=sheet).sort("batch")
        streams = (rows["faster"] == "stream to the device").to_list()
        assert not streams[0] and streams[-1] and streams == sorted(streams)


def test_weight_quantization_helps_decode_at_small_batch() -> None:
    """Figure 8: four bits make a single sequence more than three times as fast, 63 at 4,096 tokens hardly at all."""
    eight = figure(8).filter(sheet="exact")

    def gain(batch: int) -> float:
        at = dict(eight.filter(batch=batch).select("weight_format", "time_s").rows())
        return at["fp16"] / at["int4"]

    assert gain(1) > 3 and gain(63) < gain(1) / 2
    wide, narrow = (
        calc.analyze("llama-2-13b", "a6000", by="stage", batch=512, input_len=4096, precision=p)
        .filter(stage="decode")["time_s"]
        .item()
        for p in ("w16a16kv16", "w4a16kv16")
    )
    assert wide / narrow < 1.05


def test_fewer_bits_stop_helping_once_compute_limits() -> None:
    """Figure 9: from four to one bit a short prefill gains, a long one, limited by compute, nothing."""
    nine = figure(9).filter(sheet="exact")

    def gain(length: int) -> float:
        at = dict(nine.filter(input_len=length).select("weight_format", "time_s").rows())
        return at["int4"] / at["int1"]

    assert gain(16) > 1.5
    assert gain(1016) == pytest.approx(1, abs=0.01)


def test_beyond_fifty_thousand_tokens_the_cache_is_most_of_the_traffic() -> None:
    """Figure 11: then quantizing it gains more than anything else."""
    eleven = figure(11).filter(sheet="exact")
    plain = eleven.filter(weight_format="fp16").sort("input_len")
    shares = dict(zip(plain["input_len"], plain["kv_read_bytes"] / plain["memory_bytes"], strict=True))
    assert shares[1000] < 0.1 and shares[50000] > 0.5 and shares[200000] > 0.8
    at = {
        (r["weight_format"], r["kv_format"]): r["time_s"]
        for r in eleven.filter(input_len=200000, activation_format="fp16").iter_rows(named=True)
    }
    weights_alone = at[("fp16", "fp16")] / at[("int4", "fp16")]
    cache_too = at[("int4", "fp16")] / at[("int4", "int4")]
    assert weights_alone < 1.2 and cache_too > 3


def test_flash_attention_saves_decode_what_it_saves_of_traffic() -> None:
    """Figure 16: a decode step is limited by memory, so time falls as traffic does; a prefill's less."""
    sixteen = figure(16).filter(sheet="exact")

    def left(stage: str, column: str, length: int) -> float:
        at = dict(sixteen.filter(stage=stage, batch=1, input_len=length).select("attention", column).rows())
        return float(at["flash"] / at["eager"])

    for length in (1000, 10000, 100000):
        assert left("decode", "time_s", length) == pytest.approx(left("decode", "memory_bytes", length), rel=2e-3)
        assert left("prefill", "time_s", length) > left("prefill", "memory_bytes", length)


def test_decode_of_one_sequence_is_limited_by_memory() -> None:
    """Every operator with a product, of every dense model of the paper, on its device."""
    dense = [
        "llama-2-7b",
        "llama-2-13b",
        "llama-2-70b",
        "opt-125m",
        "opt-6.7b",
        "opt-13b",
        "opt-66b",
        "gpt-j-6b",
        "chatglm3-6b",
    ]
    found = calc.evaluate(
        calc.scenarios(model=dense, hardware="llm_viewer/nvidia_A6000", attention=["eager", "flash"])
    ).collect()
    products = found.filter(pl.col("matrix_ops") > 0, stage="decode")
    assert products["model_id"].n_unique() == len(dense)
    assert set(products["bound"]) == {"memory"}


def test_bandwidth_is_what_decode_needs() -> None:
    """Figure 20: twenty times the bandwidth, twenty times as fast, as long as nothing else limits."""
    for sheet in ("exact", "llm_viewer"):
        times = figure(20).filter(sheet=sheet).sort("bandwidth_bytes_per_s")["time_s"].to_list()
        assert times[0] / times[-1] == pytest.approx(20, rel=0.02)


@pytest.mark.parametrize("name", ["table_1", *(f"figure_{n}" for n in (5, 6, 7, 8, 9, 11, 15, 16, 18, 19, 20))])
def test_every_figure_has_a_chart(name: str) -> None:
    """It is valid Vega-Lite and shows both accountings."""
    from calc.survey_charts import CHARTS

    found = figure(int(name.rpartition("_")[2])) if name != "table_1" else table_1()
    drawn = CHARTS[name](found).to_dict()
    shown = {row["sheet"] for rows in drawn["datasets"].values() for row in rows if "sheet" in row}
    titles = {c.get("title") for c in drawn.get("hconcat", [])}
    assert {"exact", "llm_viewer"} <= shown | titles


@pytest.mark.parametrize("name", ["operators", "stages", "serving", "llm_viewer_operators"])
def test_what_is_asked_of_polars_is_what_formulas_in_sql_give(name: str) -> None:
    """The same columns, types and rows, with the keys that tell questions apart."""
    from calc.database import connect
    from calc.tables import load

    query = (
        "with asked as (select unnest(['meta-llama/Llama-2-7b-hf', 'opt-125m', null]) as model_id, 'a6000' as "
        f"hardware_id, unnest([1, 7, 9]) as batch, 'mine' as own) select * from {name}_of('asked') where own = 'mine'"
    )
    by_both = [connect(load(), query=query, is_asked=asked) for asked in (False, True)]
    for connection in by_both:
        with pytest.raises(duckdb.Error, match="names no model"):
            connection.sql(query).fetchall()
    query = query.replace(", null", ", 'opt-350m'")
    formulas, asked = (connection.sql(query).pl() for connection in by_both)
    assert formulas.height == asked.height > 2
    assert_frame_equal(asked, formulas, rel_tol=1e-12, abs_tol=0)
    for connection in by_both:
        connection.close()


def table_1() -> pl.DataFrame:
    """Return the rows of Table 1."""
    found: pl.DataFrame = calc.connect().sql((ROOT / "sql/survey/table_1.sql").read_text(encoding="utf-8")).pl()
    return found


def test_the_command_writes_a_chart(run: Run, tmp_path: Path) -> None:
    """PNG and SVG that are such; rows as CSV; a figure that is none and an ending that is none are refused."""
    for ending, start in ((".png", b"\x89PNG"), (".svg", b"<svg"), (".csv", b"sheet,")):
        target = tmp_path / f"figure{ending}"
        done = run("figure", "20", "--output", str(target))
        assert done.returncode == 0, done.stderr
        assert target.read_bytes().startswith(start)
    assert "figure_8" in run("figure", "88").stderr
    refused = run("figure", "20", "--output", "figure.gif")
    assert refused.returncode == 2 and ".png" in refused.stderr
