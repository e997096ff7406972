"""``calc check`` rejects what a cell must not be, and says which cell of which file and why."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import append, change

from calc.check import check
from calc.errors import CalcError
from calc.loading import load_sheet
from calc.tables import load

ROOFLINE = "sheets/exact/roofline.csv"


def findings(data: Path) -> str:
    """Return what check says about a data folder."""
    with pytest.raises(CalcError) as caught:
        check(load(data))
    return str(caught.value)


@pytest.mark.parametrize(
    ("row", "cell", "reason"),
    [
        ("extra,ops + no_such_thing,op,L,,definition", "extra", "unknown name 'no_such_thing'"),
        ("extra,ops + memory_byte,op,L,,definition", "extra", "did you mean 'memory_bytes'"),
        ("extra,0.5 * ops,op,L,,definition", "extra", "decimal-point literal 0.5"),
        ("extra,ops * ,op,L,,definition", "extra", "ends too early"),
        ("extra,\"REGEXP_MATCHES(class, 'a')\",,L,,definition", "extra", "not a function that every engine evaluates"),
        ("extra,ops ^ 2,op,L,,definition", "extra", "cannot read '^ 2'"),
        ("extra,(SELECT 1),,L,,definition", "extra", "in '(SELECT 1)'"),
        ("extra,ops / time_s,op,L,,definition", "extra", "does not follow from its inputs"),
        ("extra,ops + memory_bytes,op,L,,definition", "extra", "does not follow from its inputs"),
        ("extra,ops,furlong,L,,definition", "extra", "unknown unit 'furlong'"),
        ("extra,ops > 5,op,L,,definition", "extra", "but is no number"),
        ("extra,LOWER(ops),,L,,definition", "extra", "does not evaluate"),
        ("extra,extra + ops,op,L,,definition", "extra", "is a cycle: extra → extra"),
        ("window,ops,op,L,,definition", "window", "reserved word"),
        ("Extra,ops,op,L,,definition", "Extra", "snake_case"),
        ("fp16,ops,op,L,,definition", "fp16", "address of a spreadsheet cell"),
        ("hidden,ops,op,L,,definition", "hidden", "defined twice"),
        ("tokens,ops,op,L,,definition", "tokens", "defined twice"),
        ("ops,ops,op,L,,definition", "ops", "is defined twice"),
        ("extra,ops,op,L,,no_such_source", "source_id", "is not in sources.csv"),
    ],
)
def test_a_wrong_cell_is_named_with_its_file_and_reason(data: Path, row: str, cell: str, reason: str) -> None:
    """One bad row in the roofline: the message names the file, the cell and what is wrong."""
    append(data / ROOFLINE, row)
    found = findings(data)
    assert ROOFLINE in found and cell in found and reason in found, found


@pytest.mark.parametrize(
    ("file", "old", "new", "reason"),
    [
        (
            "parts",
            "mlp,mlp,text,layers,mlp_layers",
            "mlp,mpl,text,layers,mlp_layers",
            "parts.csv, cell mlp: unknown block 'mpl'; did you mean 'mtp' or 'mlp'",
        ),
        (
            "operators",
            "\nmlp,up_proj,linear,",
            "\nmlp,up_proj,linaer,",
            "operators.csv, cell mlp.up_proj: unknown kind 'linaer'",
        ),
        ("kinds", "norm,norm,vector,", "norm,norm,tensor,", "kinds.csv, cell norm: unknown unit 'tensor'"),
        (
            "kinds",
            "norm,norm,vector,",
            "norm,nrom,vector,",
            "kinds.csv, cell norm: unknown class 'nrom'; did you mean 'norm'",
        ),
        (
            "constants",
            "bits_per_byte,8,",
            "bits_per_byte,eight,",
            "constants.csv, cell bits_per_byte: 'eight' is not a number",
        ),
        (
            "constants",
            "bits_per_byte,8,",
            "bits_per_byte,nan,",
            "constants.csv, cell bits_per_byte: 'nan' is not a number",
        ),
        ("constants", "bits_per_byte,8,", "bits_per_byte,,", "constants.csv, cell bits_per_byte: its value is empty"),
        ("roofline", "ops,matrix_ops + vector_ops,", "ops,,", "roofline.csv, cell ops: its formula is empty"),
        ("stages", "decode,q_len,step_len,", "decoding,q_len,step_len,", "unknown name 'q_len'"),
    ],
)
def test_a_wrong_structure_is_named(data: Path, file: str, old: str, new: str, reason: str) -> None:
    """What refers to nothing, or leaves out what must be said."""
    change(data / f"sheets/exact/{file}.csv", old, new)
    assert reason in findings(data)


def test_a_binding_needs_its_part_and_its_cell(data: Path) -> None:
    """A binding overrides what the block of its part declares."""
    append(data / "sheets/exact/bindings.csv", "mpl,width,hidden,,definition")
    assert "bindings.csv, cell mpl.width: unknown part 'mpl'" in findings(data)
    change(data / "sheets/exact/bindings.csv", "mpl,width", "mlp,widht")
    assert "bindings.csv, cell mlp.widht: block 'mlp' declares no such cell; did you mean 'width'" in findings(data)


def test_a_column_that_no_sheet_has(data: Path) -> None:
    """A misspelled header does not go unread."""
    path = data / "sheets/exact/bindings.csv"
    path.write_text("part,cell,formula,note,source_id,reason\n", encoding="utf-8")
    assert "bindings.csv: there is no column 'reason'" in findings(data)


def test_a_cycle_is_shown_as_its_path(data: Path) -> None:
    """First → second → third → first."""
    for name, reads in (("first", "second"), ("second", "third"), ("third", "first")):
        append(data / "sheets/exact/scenario.csv", f"{name},{reads} + 1,,L,,definition")
    assert "first → second → third → first" in findings(data)


def test_all_findings_come_together(data: Path) -> None:
    """Three mistakes in three files are three lines."""
    append(data / ROOFLINE, "one,nothing_here,,L,,definition")
    append(data / "sheets/exact/scenario.csv", "two,0.1 * batch,,L,,definition")
    append(data / "sheets/llm_viewer/totals.csv", "three,SUM(count * nowhere),,L,,definition")
    found = findings(data)
    assert all(f"cell {name}" in found for name in ("one", "two", "three")), found


def test_a_wrong_unit_in_every_file(data: Path) -> None:
    """The scaling test looks at stages, blocks, shapes, kinds and totals alike."""
    change(data / "sheets/exact/totals.csv", "kv_bytes_per_token,SUM(count * cache_token_elements) * kv_element_bytes / cp,byte",
           "kv_bytes_per_token,SUM(count * cache_token_elements) * kv_element_bytes,s")  # fmt: skip
    change(data / "sheets/exact/kinds.csv", "vector * instances * pairs,0,0,0,0,instances * rows * cols",
           "vector * instances * pairs,0,0,0,0,instances * rows * cols * vector")  # fmt: skip
    change(
        data / "sheets/exact/blocks.csv", "rotary_ops * rotary_dim / head_width", "rotary_ops * rotary_ops / head_width"
    )
    found = findings(data)
    for place in (
        "totals.csv, cell kv_bytes_per_token",
        "kinds.csv, cell softmax",
        "blocks.csv, cell attention.rotary_cost",
    ):
        assert place in found, found


def test_a_unit_that_is_none(data: Path) -> None:
    """The dictionary's own units are checked too."""
    change(data / "columns.csv", "hardware,tdp_w,true,number,w,", "hardware,tdp_w,true,number,horsepower,")
    assert "columns.csv, row" in findings(data) and "unknown unit 'horsepower'" in findings(data)


def test_a_result_whose_unit_is_not_the_dictionarys(data: Path) -> None:
    """columns.csv and the sheet say the same unit of every result."""
    change(data / "columns.csv", "stages,floor_s,false,number,s", "stages,floor_s,false,number,byte")
    assert "columns.csv says 'byte' for stages.floor_s" in findings(data)


@pytest.mark.parametrize(
    ("patch", "reason"),
    [
        ("sliding_window,exact,scenario,no_cell,formula,replace,1,w", "hits 0 rows"),
        ("sliding_window,exact,scenarios,batch,formula,replace,1,w", "no sheet file 'scenarios'"),
        ("sliding_window,exact,roofline,time_s,formulas,replace,1,w", "no column 'formulas'"),
    ],
)
def test_a_patch_that_hits_nothing(data: Path, patch: str, reason: str) -> None:
    """A technique's patch must hit exactly one row."""
    append(data / "patches.csv", patch)
    with pytest.raises(CalcError, match=reason):
        load_sheet(load(data), "exact", ("sliding_window",))


def test_a_patch_that_leaves_a_broken_sheet(data: Path) -> None:
    """What a technique changes is checked like the sheet itself."""
    append(data / "patches.csv", "sliding_window,exact,roofline,time_s,formula,replace,nothing_here,w")
    assert "unknown name 'nothing_here'" in findings(data)


def test_two_techniques_on_one_cell_must_say_how_they_combine(data: Path) -> None:
    """A second patch of a cell reads ``previous``, or both are named in an error."""
    append(data / "techniques.csv", "other_window,Other,attention,Nothing,,,,longformer")
    append(data / "patches.csv", "other_window,exact,scenario,attention_window,formula,replace,64,w")
    from calc.evaluation import evaluate
    from calc.questions import scenarios

    tables = load(data)
    grid = scenarios(tables, model="llama-2-7b", hardware="a6000", technique="sliding_window+other_window")
    with pytest.raises(
        CalcError, match="'sliding_window' has changed this cell already and 'other_window' does not say"
    ):
        evaluate(tables, grid)
    other = scenarios(
        tables, model="llama-2-7b", hardware="a6000", technique="other_window+sliding_window", input_len=900
    )
    found = evaluate(tables, other).collect().filter(stage="decode", operator="fused_attention")
    assert found["kv_read_bytes"][0] == 2 * 32 * 64 * 128 * 2


def test_patches_add_and_remove_rows(data: Path) -> None:
    """A technique may add an operator, with its shape, and take one away; both engines follow."""
    append(data / "techniques.csv", "bottleneck,Bottleneck,compression,Quality,,,,longformer")
    fields = {"kind": "linear", "instances": "1", "rows": "tokens", "inner": "width", "cols": "8", "applies": "TRUE",
              "bias": "0", "label": "Bottleneck", "source_id": "definition"}  # fmt: skip
    for column, formula in fields.items():
        append(data / "patches.csv", f"bottleneck,exact,operators,mlp.bottleneck,{column},add,{formula},w")
    append(data / "patches.csv", "bottleneck,exact,operators,mlp.mlp_add,,remove,,w")
    from calc.evaluation import evaluate
    from calc.questions import scenarios

    tables = load(data)
    check(tables)
    grid = scenarios(tables, model="llama-2-7b", hardware="a6000", technique=["bottleneck"], input_len=10)
    for engine in ("polars", "duckdb"):
        found = evaluate(tables, grid, engine=engine).collect().filter(stage="prefill")
        assert found.filter(operator="bottleneck")["ops"].to_list() == [2 * 10 * 4096 * 8]
        assert found.filter(operator="mlp_add").is_empty()
