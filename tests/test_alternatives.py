"""Many stacks of techniques at once: one program for all of them answers what one program for each answers."""

from __future__ import annotations

import polars as pl
import pytest

from calc import evaluation
from calc.alternatives import NTH_STACK, joined, structure
from calc.errors import CalcError
from calc.evaluation import answered
from calc.loading import load_sheet
from calc.stacks import LEFT_OUT, what_helps
from calc.tables import load

SERVING = (
    "ttft_s", "tpot_s", "output_tokens_per_s", "memory_needed_bytes", "max_batch", "usd_per_million_output_tokens",
    "energy_j_per_token", "ttft_bound", "tpot_bound", "fits", "reason",
)  # fmt: skip


def _techniques() -> list[str]:
    rows = load()["techniques"].filter(~pl.col("group").is_in(LEFT_OUT))
    found: list[str] = rows["technique_id"].to_list()
    return found


def _is_possible(stack: str) -> bool:
    try:
        load_sheet(load(), "exact", tuple(stack.split("+")))
    except CalcError:
        return False
    return True


def _asked(model: str, stacks: list[str], **said: object) -> pl.DataFrame:
    one = {"model_id": model, "hardware_id": "nvidia_h100_pcie", "batch": 4, "input_len": 900, "output_len": 120}
    return pl.DataFrame([{**one, **said, "technique": s} for s in ["", *stacks]])


def _differ(left: pl.DataFrame, right: pl.DataFrame) -> list[str]:
    """Return the columns in which two results differ by more than rounding."""
    assert left.shape == right.shape and left.columns == right.columns
    found = []
    for name, dtype in left.schema.items():
        if dtype.is_float():
            near = ((left[name] - right[name]).abs() <= 1e-12 * right[name].abs()) | (left[name] == right[name])
            same = (near.fill_null(False) | (left[name].is_null() & right[name].is_null())).all()
        else:
            same = left[name].equals(right[name], null_equal=True)
        if not same:
            found.append(name)
    return found


def _both(monkeypatch: pytest.MonkeyPatch, asked: pl.DataFrame, by: str, columns: tuple[str, ...] | None = None,
          engine: str = "polars") -> tuple[pl.DataFrame, pl.DataFrame]:  # fmt: skip
    """Return what one program for all stacks answers, and what a program for each answers."""
    together = answered(load(), asked, by, columns=columns, engine=engine)
    monkeypatch.setattr(evaluation, "MANY_STACKS", 10**6)
    return together, answered(load(), asked, by, columns=columns, engine=engine)


DEEPSEEK, QWEN = "deepseek-ai/DeepSeek-V3", "Qwen/Qwen3-Next-80B-A3B-Instruct"
ALL = [pytest.param(DEEPSEEK, 1, marks=pytest.mark.slow), pytest.param(QWEN, 1, marks=pytest.mark.slow)]


@pytest.mark.parametrize(("model", "nth"), [(DEEPSEEK, 6), (QWEN, 4), *ALL])
def test_every_technique_together_answers_as_alone(model: str, nth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Serving figures of some techniques, or of all, most of which share a program, on models of many layers."""
    together, alone = _both(monkeypatch, _asked(model, _techniques()[::nth]), "serving", SERVING)
    assert not _differ(together, alone)


@pytest.mark.parametrize("by", ["operator", "stage"])
def test_stacks_of_several_techniques_together_answer_at_every_grain(by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On top of the same technique, with parameters that a question sets and degrees that differ."""
    stacks = [f"kv_int8+{t}" for t in _techniques()[::4] if t not in ("kv_int8", "kv_int4")]
    stacks = [s for s in stacks if _is_possible(s)]
    asked = _asked("mistralai/Mistral-7B-v0.1", stacks, window_len=700)
    asked = pl.concat([asked, asked.with_columns(tp=pl.lit(2))], how="diagonal")
    assert len(stacks) > 15
    together, alone = _both(monkeypatch, asked, by)
    assert not _differ(together, alone)


def test_duckdb_answers_stacks_together_as_polars(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both engines run the program of many stacks."""
    asked = _asked("google/gemma-2-27b", _techniques()[:12])
    duck, alone = _both(monkeypatch, asked, "serving", SERVING, "duckdb")
    assert not _differ(duck, alone)


def test_a_sheet_of_alternatives_has_the_cells_of_each() -> None:
    """Where the stacks differ in a formula, the number of the stack decides; elsewhere nothing is asked."""
    tables = load()
    plain, window, pruned = (load_sheet(tables, "exact", s) for s in ((), ("sliding_window",), ("head_pruning",)))
    assert structure(plain) == structure(window) == structure(pruned)
    found = joined((plain, window, pruned))
    cells = {r["cell"]: r["formula"] for r in found.rows["scenario"]}
    span = next(r["formula"] for r in plain.rows["scenario"] if r["cell"] == "attention_window")
    assert cells["attention_window"] == f"CASE WHEN {NTH_STACK} = 1 THEN LEAST({span}, window_len) ELSE {span} END"
    asked = [r["cell"] for f in ("scenario", "totals", "serving") for r in found.rows[f] if NTH_STACK in r["formula"]]
    patches = tables["patches"].filter(pl.col("technique_id").is_in(["sliding_window", "head_pruning"]))
    assert set(asked) <= set(patches["key"]) | {"degree_reason"}
    assert {"window_len", NTH_STACK} <= found.inputs.keys()


def test_techniques_that_add_operators_are_not_joined() -> None:
    """What lives in memory follows from the operators that there are: those sheets have a program of their own."""
    tables = load()
    assert structure(load_sheet(tables, "exact", ("lora",))) != structure(load_sheet(tables))


def test_what_changes_nothing_ranks_by_name_whatever_program_answers() -> None:
    """Rounding of sums is no change: what helps nothing has a change of exactly 0."""
    asked = {k: v for k, v in _asked("state-spaces/mamba-2.8b-hf", []).row(0, named=True).items() if k != "technique"}
    found = what_helps(load(), asked)
    still = found.filter(pl.col("technique").is_in(["flash_attention", "deepspeed_fusion", "eager_attention"]))
    assert still.filter("applies")["throughput_change"].to_list() == [0.0] * still.filter("applies").height
