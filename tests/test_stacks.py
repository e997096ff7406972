"""Stacks of techniques: both engines, orders, refusals; and a technique that is nothing but rows."""

from __future__ import annotations

import random
from pathlib import Path

import polars as pl
import pytest
from conftest import ROOT, Run, append

import calc
from calc.check import check
from calc.errors import CalcError
from calc.tables import load

FIGURES = (
    "ttft_s", "tpot_s", "e2e_s", "itl_s", "output_tokens_per_s", "weight_memory_bytes", "kv_cache_bytes", "max_batch",
    "memory_needed_bytes", "usd_per_million_output_tokens", "energy_j_per_token", "mfu",
)  # fmt: skip
POLICIES = {"prefill_first", "chunked_prefill", "disaggregated"}


def cells_of(technique: str) -> set[tuple[str, str, str]]:
    """Return the cells that a technique changes, those of what it includes too."""
    tables = load()
    row = tables["techniques"].row(by_predicate=pl.col("technique_id") == technique, named=True)
    own = tables["patches"].filter(technique_id=technique).select("file", "key", "column").fill_null("").rows()
    included = [cells_of(t) for t in (row["includes"] or "").split("+") if t]
    return set(own).union(*included)


def possible(stack: tuple[str, ...]) -> bool:
    """Tell whether a stack is evaluated rather than refused."""
    try:
        calc.evaluate(calc.scenarios(model="llama-2-7b", hardware="h100", technique="+".join(stack)), by="serving")
    except CalcError:
        return False
    return True


def random_stacks(n: int) -> list[str]:
    """Return stacks of two to four techniques that can be combined, the same at every run."""
    chance, found = random.Random(5), []
    ids = calc.techniques().filter(pl.col("group") != "accounting")["technique_id"].to_list()
    while len(found) < n:
        stack = tuple(chance.sample(ids, chance.randint(2, 4)))
        if possible(stack):
            found.append("+".join(stack))
    return found


def assert_alike(grid: pl.LazyFrame) -> pl.DataFrame:
    """Assert that both engines give the same, and return it."""
    mine, theirs = (
        calc.evaluate(grid, by="serving", engine=e).select(*FIGURES, "reason").collect() for e in ("polars", "duckdb")
    )
    for column in FIGURES:
        for a, b in zip(mine[column], theirs[column], strict=True):
            assert a == b or a == pytest.approx(b, rel=1e-12), column
    assert mine["reason"].equals(theirs["reason"])
    return mine


def test_twenty_random_stacks_are_the_same_in_both_engines() -> None:
    """Up to four techniques each: every figure at 1e-12 and every reason."""
    stacks = random_stacks(20)
    found = assert_alike(calc.scenarios(model="llama-2-7b", hardware="h100", batch=4, technique=stacks))
    assert found["ttft_s"].is_not_null().sum() >= 10


@pytest.mark.slow
@pytest.mark.parametrize("model", ["llama-2-7b", "deepseek-v3", "bert-base-uncased"])
def test_every_technique_is_the_same_in_both_engines(model: str) -> None:
    """Those that name a further model too."""
    ids = calc.techniques()["technique_id"].to_list()
    assert_alike(calc.scenarios(model=model, hardware="h200", batch=4, technique=ids))


def test_order_does_not_matter_where_no_cell_is_shared() -> None:
    """Two techniques without a common cell give the same figures in both orders."""
    pairs = [("awq_w4", "h2o"), ("kv_int8", "speculative_decoding"), ("gqa_conversion", "fp8"), ("lora", "streaming_llm"),
             ("deepspeed_fusion", "prefix_cache"), ("bandwidth_scaling", "medusa")]  # fmt: skip
    for pair in pairs:
        assert not cells_of(pair[0]) & cells_of(pair[1]), pair
    asked = calc.scenarios(
        model="llama-2-7b", hardware="h100", technique=["+".join(o) for p in pairs for o in (p, p[::-1])]
    )
    found = calc.evaluate(asked, by="serving").select(FIGURES).collect()
    rows = found.rows()
    assert rows[::2] == rows[1::2]


def test_order_matters_where_a_cell_is_shared() -> None:
    """A prompt of 1,024 tokens and 500 more, then a fifth of both; or a fifth of it, and 500 more."""
    found = {
        s: calc.analyze("llama-2-7b", "h100", technique=s, by="serving")["kv_cache_bytes"].item()
        for s in ("retrieval_augmented+prompt_compression", "prompt_compression+retrieval_augmented")
    }
    a_token = 4 * 32 * 4096
    assert list(found.values()) == [a_token * (305 + 128), a_token * (205 + 500 + 128)]


@pytest.mark.parametrize(
    ("stack", "names"),
    [
        ("awq_w4+gptq_w8", ("awq_w4", "gptq_w8")),
        ("qlora+fp8", ("qlora", "fp8")),
        ("mqa_conversion+mamba_replacement+rwkv_replacement", ("mamba_replacement", "rwkv_replacement")),
        ("flash_attention+eager_attention", ("flash_attention", "eager_attention")),
        ("medusa+eagle", ("medusa", "eagle")),
    ],
)
def test_what_cannot_be_combined_is_refused_by_name(stack: str, names: tuple[str, str]) -> None:
    """The message names both techniques and the cell."""
    with pytest.raises(CalcError) as refused:
        calc.analyze("llama-2-7b", "h100", technique=stack)
    assert all(n in str(refused.value) for n in names)


def test_a_technique_twice_is_refused() -> None:
    """By itself, or through what another includes."""
    for stack in ("h2o+h2o", "lora+qlora"):
        with pytest.raises(CalcError, match="twice"):
            calc.analyze("llama-2-7b", "h100", technique=stack)


def rows_of(data: Path, *techniques: str) -> None:
    """Leave only some techniques in a data folder: a check of all of them takes longer than of one."""
    for file in ("techniques", "parameters", "patches"):
        frame = pl.read_csv(data / f"{file}.csv", infer_schema=False)
        frame.filter(pl.col("technique_id").is_in(techniques)).write_csv(data / f"{file}.csv")


def test_a_technique_is_rows_alone(data: Path) -> None:
    """A new technique with a parameter, a condition, an included one, a changed input, cell and operator."""
    rows_of(data, "kv_int8")
    append(
        data / "techniques.csv",
        "halved,Half of the MLP,sparsity,Quality,kv_int8,n_layers > 30,it needs more than 30 layers,definition",
    )
    append(data / "parameters.csv", "halved,half_share,0.5,,,false,0,1,Share that stays,definition")
    for row in (
        "halved,exact,inputs,intermediate,formula,replace,previous * half_share,Fewer columns",
        "halved,exact,scenario,reserve_bytes,formula,replace,previous + 8 * hidden * half_share * linear_element_bytes,A reserve",
        "halved,exact,operators,mlp.mlp_act,input_on_chip,replace,1,Fused",
    ):
        append(data / "patches.csv", row)
    check(load(data))
    found = calc.analyze("llama-2-7b", "h100", technique="halved", half_share=0.25, by="serving", data=data).row(
        0, named=True
    )
    assert found["weight_memory_bytes"] == 2 * (32 * (4 * 4096**2 + 3 * 4096 * 2752) + 2 * 32000 * 4096 + 65 * 4096)
    assert found["kv_cache_bytes"] == 2 * 32 * 4096 * 1152
    assert found["reserve_bytes"] == 8 * 4096 * 0.25 * 2
    small = calc.analyze("opt-125m", "h100", technique="halved", by="serving", data=data)
    assert small["reason"].item() == "halved: it needs more than 30 layers" and small["ttft_s"].item() is None
    told = calc.explain(
        "intermediate", calc.scenarios(data, model="llama-2-7b", hardware="h100", technique="halved"), data=data
    )
    assert told.value == 5504 and "given_intermediate" in str(told)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("gptq_w8,exact,inputs,hidden_size,formula,replace,1,Wrong", "hidden_size"),
        ("gptq_w8,exact,inputs,kv_format,formula,replace,'int99',Wrong", "int99"),
        ("gptq_w8,exact,inputs,hidden,formula,replace,previous / bits_per_byte,Wrong", "unit"),
    ],
)
def test_wrong_rows_are_found(data: Path, row: str, said: str) -> None:
    """An input that is none, a format that is none, a unit that does not follow."""
    rows_of(data, "gptq_w8")
    append(data / "patches.csv", row)
    with pytest.raises(CalcError, match=said):
        check(load(data))


def test_no_technique_has_its_own_python() -> None:
    """No module names one."""
    ids = calc.techniques()["technique_id"].to_list()
    common = {"fp8", "fp4", "nvfp4", "mxfp4", "mxfp6", "mxfp8", "flash_attention", "codebook", "ternary", "owned"}
    texts = {p: p.read_text(encoding="utf-8") for p in (ROOT / "calc").rglob("*.py")}
    for path, text in texts.items():
        for technique in set(ids) - common:
            assert f'"{technique}"' not in text and f"'{technique}'" not in text, (path, technique)


def test_what_helps_ranks_and_explains() -> None:
    """A small model on an H100: four-bit weights help decode and not prefill; what does not apply says why."""
    connection = calc.connect()
    connection.execute("delete from scenarios")
    connection.execute(
        "insert into scenarios by name select 'llama-2-7b' as model_id, 'h100' as hardware_id, 1 as batch"
    )
    found = {r["technique"]: r for r in connection.sql("from what_helps").pl().iter_rows(named=True)}
    tried = set(calc.techniques().filter(~pl.col("group").is_in(["accounting", "money", "memory"]))["technique_id"])
    assert set(found) == tried
    plain, awq = (
        calc.analyze("llama-2-7b", "h100", by="serving", technique=t).row(0, named=True) for t in (None, "awq_w4")
    )
    row = found["awq_w4"]
    for change, column in (
        ("ttft", "ttft_s"), ("tpot", "tpot_s"), ("throughput", "output_tokens_per_s"), ("memory", "memory_needed_bytes"),
        ("cost", "usd_per_million_output_tokens"), ("energy", "energy_j_per_token"),
    ):  # fmt: skip
        assert row[f"{change}_change"] == pytest.approx(awq[column] / plain[column] - 1, rel=1e-9, abs=1e-12)
    assert row["prefill_why"] == "prefill is compute-bound: fewer weight bytes change nothing"
    assert row["decode_why"] is None and row["tpot_change"] < -0.6
    assert (row["decode_bound_before"], row["decode_bound_after"]) == ("memory", "memory")
    assert found["powerinfer"]["decode_bound_after"] == found["zero_inference"]["decode_bound_after"] == "host"
    assert found["multi_token_prediction"]["applies"] is False
    assert "no layers that predict" in found["multi_token_prediction"]["reason"]
    better = [r for r in found.values() if r["tpot_change"] is not None and r["tpot_change"] < row["tpot_change"]]
    assert row["tpot_rank"] == len(better) + 1
    connection.close()


def test_the_command_refuses_what_it_cannot_rank(run: Run) -> None:
    """A metric that is none, another sheet, a model that is none: one sentence each."""
    for arguments, said in (
        (("llama-2-7b", "h100", "--by", "beauty"), "beauty"),
        (("llama-2-7b", "h100", "--sheet", "llm_viewer"), "llm_viewer"),
        (("llama-2-77b", "h100"), "did you mean"),
        (("llama-2-7b", "h100", "--top", "-3"), "--top -3"),
        (("llama-2-7b", "h100", "--set", "draft_model_id=nothing-like-it"), "draft_model_id: unknown model"),
    ):
        done = run("helps", *arguments)
        assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr
