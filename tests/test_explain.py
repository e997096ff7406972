"""Any number explains itself, down to facts with their sources."""

from __future__ import annotations

import polars as pl
import pytest
from conftest import Run

import calc
from calc.explanation import Explanation, explain
from calc.tables import load


def walk(explanation: Explanation) -> list[Explanation]:
    """Return an explanation and everything below it."""
    return [explanation, *(inner for p in explanation.precedents for inner in walk(p))]


@pytest.mark.parametrize("sheet", ["exact", "llm_viewer"])
@pytest.mark.parametrize("stage", ["prefill", "decode"])
def test_every_operator_column_explains_to_the_value_shown(sheet: str, stage: str) -> None:
    """For each numeric cell of every other operator: the explained value is the table's."""
    question = {"model": "llama-2-7b", "hardware": "llm_viewer/nvidia_A6000", "batch": 4, "attention": "eager"}
    table = calc.analyze(**question, sheet=sheet).filter(stage=stage)
    for row in table.gather_every(2).iter_rows(named=True):
        for column in ("ops", "memory_bytes", "kv_read_bytes", "time_s", "bound", "attainable_ops_per_s", "count"):
            found = calc.explain(column, row, sheet=sheet)
            wanted = row[column]
            assert found.value == (pytest.approx(wanted, rel=1e-12) if isinstance(wanted, float) else wanted), column


def test_leaves_are_facts_inputs_and_constants_with_sources() -> None:
    """What has no precedents is a question's input, a named constant, a label or a fact with its source."""
    row = calc.analyze("llama-2-7b", "a6000", by="serving")
    for cell in ("ttft_s", "tpot_s", "weight_memory_bytes"):
        tree = calc.explain(cell, row)
        leaves = [e for e in walk(tree) if not e.precedents]
        facts = [e for e in leaves if e.file in ("models.csv", "hardware.csv", "formats.csv")]
        assert {"hidden", "n_layers"} <= {e.name for e in facts}
        assert all(e.source and e.key for e in facts)
        asked = {e.name for e in leaves if not e.file}
        assert asked <= {"batch", "input_len", "output_len", "cached_len", "n_images", "attention", "tp", "pp", "ep", "cp",
                         "activation_format", "weight_format", "stage", "class", "runs_on", "exchange", "part",
                         "operator", "kind", "block", "tower", "place"}  # fmt: skip


@pytest.mark.parametrize("by", ["stage", "serving"])
def test_totals_explain_to_the_value_shown(by: str) -> None:
    """Stage and serving figures, and that a sum lists its operators."""
    table = calc.analyze("gpt-j-6b", "h100", by=by, precision="w8a8kv8")
    for row in table.iter_rows(named=True):
        columns = (
            ("time_s", "floor_s", "mfu", "bound", "ops")
            if by == "stage"
            else ("ttft_s", "tpot_s", "e2e_s", "kv_cache_bytes")
        )
        for column in columns:
            found = calc.explain(column, row)
            wanted = row[column]
            assert found.value == (pytest.approx(wanted, rel=1e-12) if isinstance(wanted, float) else wanted), column
    if by == "stage":
        total = calc.explain("ops", table[0])
        terms = [p for p in total.precedents if p.formula == "count * ops"]
        assert len(terms) == 15 and sum(t.value for t in terms) == pytest.approx(total.value)


def test_numbers_stand_in_the_formula() -> None:
    """The decode q projection on an A6000: 33,570,816 bytes over 768 GB/s."""
    found = calc.explain(
        "memory_s", {"model_id": "llama-2-7b", "hardware_id": "a6000"}, stage="decode", operator="q_proj"
    )
    assert found.formula == "memory_bytes / memory_bandwidth_bytes_per_s"
    assert found.numbers == "33570816 / 768000000000"
    assert found.value == 33570816 / 768e9 and found.unit == "s"
    assert [p.name for p in found.precedents] == ["memory_bytes", "memory_bandwidth_bytes_per_s"]


def test_the_command_prints_the_tree(run: Run) -> None:
    """``explain`` on the command line: formula, numbers, value with unit, precedents, facts with sources."""
    done = run("explain", "time_s", "llama-2-7b", "a6000", "--stage", "decode", "--operator", "q_proj")
    assert done.returncode == 0
    for text in ("time_s = 43.71 µs", "= memory_bytes / memory_bandwidth_bytes_per_s", "= 33570816 / 768000000000",
                 "memory_bandwidth_bytes_per_s = 768 GB/s", "(hardware.csv: nvidia_rtx_a6000; Peak; RTX A6000 figures",
                 "hidden = 4096"):  # fmt: skip
        assert text in done.stdout, text


def test_a_technique_shows_in_the_explanation() -> None:
    """A patched cell explains itself with the patched formula and the parameter."""
    row = {"model_id": "llama-2-7b", "hardware_id": "a6000", "technique": "unstructured_pruning", "pruned_share": 0.75}
    found = calc.explain("weight_bytes", row, stage="decode", operator="q_proj")
    cell = next(e for e in walk(found) if e.name == "linear_element_bytes")
    assert "pruned_share" in cell.formula and cell.value == 2 * 0.25 + 1 / 8


def test_unknown_places_are_said() -> None:
    """One question at a time, and names that exist."""
    with pytest.raises(calc.CalcError, match="one question, not 2"):
        calc.explain("time_s", calc.scenarios(model="llama-2-7b", hardware=["a6000", "h100"]))
    with pytest.raises(calc.CalcError, match="did you mean 'ttft_s'"):
        calc.explain("ttft", calc.scenarios(model="llama-2-7b", hardware="a6000"))


def test_a_further_models_figure_is_a_leaf() -> None:
    """What rests on a draft model shows its own answer, with unit and label."""
    question = calc.scenarios(model="llama-2-7b", hardware="h100", technique="speculative_decoding", draft_len=3)
    told = calc.explain("decode_s", question)
    draft = next(p for p in told.precedents if p.name == "draft_tpot_s")
    own = calc.analyze("TinyLlama/TinyLlama-1.1B-Chat-v1.0", "h100", by="serving")
    assert draft.value == own["tpot_s"].item() and draft.unit == "s"
    assert told.value == calc.evaluate(question, by="serving").select("decode_s").collect().item()


def test_an_operator_is_the_one_that_the_model_has() -> None:
    """A name that stands in several parts means the model's own; what it does not have is said, as an error."""
    question = {"model_id": "Qwen/Qwen3-30B-A3B", "hardware_id": "a6000"}
    mine = calc.analyze("Qwen/Qwen3-30B-A3B", "a6000").filter(pl.col("stage") == "decode")
    for operator, part in mine.unique("operator", keep="none").select("operator", "part").iter_rows():
        row = mine.row(by_predicate=pl.col("operator") == operator, named=True)
        found = calc.explain("weight_bytes", question, stage="decode", operator=operator)
        assert found.value == row["weight_bytes"], (operator, part)
    with pytest.raises(calc.CalcError, match=r"mamba2-2\.7b has no operator 'q_proj'"):
        calc.explain("ops", {"model_id": "state-spaces/mamba2-2.7b", "hardware_id": "a6000"}, operator="q_proj")


def test_a_shallow_explanation_is_the_top_of_the_whole() -> None:
    """To a depth of one: the same value, numbers and reads, which can be followed no further."""
    question = {"model_id": "llama-2-7b", "hardware_id": "a6000", "batch": 4}
    for cell, stage, operator in (("tpot_s", None, None), ("time_s", "decode", None), ("time_s", "prefill", "q_proj")):
        whole = explain(load(), cell, question, stage=stage, operator=operator)
        shallow = explain(load(), cell, question, stage=stage, operator=operator, depth=1)
        assert (shallow.value, shallow.numbers) == (whole.value, whole.numbers)
        assert [(p.name, p.value) for p in shallow.precedents] == [(p.name, p.value) for p in whole.precedents]
        assert any(p.precedents for p in whole.precedents)
        assert not any(p.precedents for p in shallow.precedents)
