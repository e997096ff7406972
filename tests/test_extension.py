"""A row makes a model, a device, a format, an operator or a cell: no line of Python changes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from conftest import ROOT, add_row, append, change

import calc
from calc.check import check
from calc.tables import load

MODEL = {
    "model_id": "lab/Tiny-1B", "aliases": "tiny", "family": "llama", "n_layers": 10, "hidden": 1024, "vocab": 1000,
    "n_position_rows": 0, "context_limit": 4096, "norm_type": "rms", "n_norm_vectors": 1, "n_mixer_norms": 1,
    "n_mlp_norms": 1, "n_heads": 16, "n_kv_heads": 4, "head_dim": 64, "rotary_dim": 64,
    "intermediate": 4096, "is_gated_mlp": "true", "source_id": "definition",
}  # fmt: skip
"""Columns that it leaves out have their defaults: attention and an MLP in every layer, no bias, a head of its own."""
DEVICE = {
    "hardware_id": "lab_chip", "aliases": "chip", "name": "Lab chip", "vendor": "Lab", "kind": "npu", "year": 2026,
    "fp16_ops_per_s": 2e14, "vector_fp32_ops_per_s": 1e13, "memory_type": "HBM3", "memory_capacity_bytes": 1e11,
    "memory_bandwidth_bytes_per_s": 1e12, "tdp_w": 300, "source_id": "definition",
}  # fmt: skip
FORMAT = {
    "format_id": "int5", "label": "5-bit integer", "bits": 5, "element_bits": 5, "on_half": "true",
    "on_fp8": "true", "on_int8": "true", "source_id": "definition",
}  # fmt: skip
PRECISION = {
    "precision_id": "w5a16kv16", "label": "5-bit weights", "weight_format": "int5", "activation_format": "fp16",
    "kv_format": "fp16", "source_id": "definition",
}  # fmt: skip
NORM = {
    "block": "mlp", "operator": "post_norm", "kind": "norm", "instances": 1, "rows": "tokens",
    "inner": "n_norm_vectors", "cols": "width", "pairs": 0, "vector": "norm_cost", "operands": 1, "bias": 0,
    "extra": 0, "read": 0, "held": 0, "ranks": 0, "input_on_chip": 0,
    "output_on_chip": 0, "inputs": "down_proj", "applies": "TRUE", "label": "Norm after the MLP",
    "source_id": "definition",
}  # fmt: skip


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the data with one row of each kind added."""
    data = Path(shutil.copytree(ROOT / "data", tmp_path_factory.mktemp("extended") / "data"))
    add_row(data / "models.csv", **MODEL)
    add_row(data / "hardware.csv", **DEVICE)
    add_row(data / "formats.csv", **FORMAT)
    add_row(data / "precisions.csv", **PRECISION)
    add_row(data / "sheets/exact/operators.csv", **NORM)
    append(
        data / "sheets/exact/roofline.csv",
        'bytes_per_op,"memory_bytes / NULLIF(ops, 0)",byte/op,Bytes per operation,,definition',
    )
    append(
        data / "columns.csv",
        "operators,bytes_per_op,false,number,byte/op,false,false,false,,,,Bytes per operation,Inverse intensity",
    )
    check(load(data))
    return data


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_every_new_row_works_in_both_engines(extended: Path, engine: str) -> None:
    """The new model on the new device in the new precision shows the new operator and the new cell."""
    found = calc.analyze("TINY", "chip", precision="w5a16kv16", engine=engine, data=extended)
    assert found["model_id"].unique().to_list() == ["TINY"]
    row = found.filter(stage="decode", operator="q_proj").row(0, named=True)
    assert row["weight_bytes"] == 1024 * 1024 * 5 / 8
    assert row["ops"] == 2 * 1024 * 1024 + 3 * 1024
    assert row["memory_s"] == pytest.approx(row["memory_bytes"] / 1e12, rel=1e-12)
    assert row["bytes_per_op"] == pytest.approx(row["memory_bytes"] / row["ops"])
    norm = found.filter(stage="decode", operator="post_norm").row(0, named=True)
    assert norm["vector_ops"] == 4 * 1024 and norm["count"] == 10


def test_the_new_model_is_counted(extended: Path) -> None:
    """Parameters follow from the row and the bill, the added norm included."""
    layer = 1024 * 1024 * 2 + 2 * 1024 * 256 + 3 * 1024 * 4096 + 3 * 1024
    found = calc.models(data=extended).filter(model_id="lab/Tiny-1B")
    assert found["n_parameters"][0] == 10 * layer + 2 * 1000 * 1024 + 1024


def test_the_new_rows_are_in_sql(extended: Path) -> None:
    """Tables, views and macros of a connection know them."""
    connection = calc.connect(data=extended)
    assert connection.sql("select count(*) from models where model_id = 'lab/Tiny-1B'").fetchall() == [(1,)]
    query = """
    with question as (select 'tiny' as model_id, 'chip' as hardware_id, 'w5a16kv16' as precision)
    select bytes_per_op from operators_of('question') where stage = 'decode' and operator = 'post_norm'
    """
    assert connection.sql(query).fetchall() == [(pytest.approx((2 * 1024 * 2 + 1024 * 2) / (4 * 1024)),)]


def test_no_model_or_device_is_named_in_code() -> None:
    """Families and devices are rows: the package's code names none of them (a page may open on an example)."""
    names = [m.rpartition("/")[2].lower() for m in calc.models()["model_id"]]
    names += [h.lower() for h in calc.hardware()["hardware_id"]] + ["llama", "mistral", "gptj", "chatglm", "opt-"]
    for path in [ROOT / "app.py", *(ROOT / "calc").glob("*.py"), *(ROOT / "calc" / "grid").glob("*.py")]:
        code = "\n".join(line for line in path.read_text(encoding="utf-8").splitlines() if "calc.analyze(" not in line)
        body = code.split('"""', 2)[-1].lower().replace("llm_viewer", "")
        assert not [n for n in names if n in body], path


def test_a_fact_changes_the_answer(data: Path) -> None:
    """The same question, with one number of one row changed and read again."""
    before = calc.analyze("llama-2-7b", "a6000", by="stage", data=data)["memory_s"]
    change(data / "hardware.csv", "GDDR6,51539607552,768000000000", "GDDR6,51539607552,1536000000000")
    after = calc.analyze("llama-2-7b", "a6000", by="stage", data=data)["memory_s"]
    assert (before / after).to_list() == pytest.approx([2.0, 2.0])
