"""A row makes a model, a device, a format, an operator or a cell: no line of Python changes."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import ROOT, append, change

import calc
from calc.check import check
from calc.tables import load

MODEL = "lab/Tiny-1B,tiny,llama,10,1024,16,4,64,64,4096,1000,0,,4096,rms,1,2,true,false,false,false,false,false,,definition,"
DEVICE = "lab_chip,chip,Lab chip,Lab,npu,2026,,,2e14,,,,,,1e13,HBM3,1e11,1e12,,,300,,,,,,definition,"
FORMAT = "int5,5-bit integer,5,int8|fp8|half|fp32,true,true,true,false,false,definition,"
PRECISION = "w5a16kv16,5-bit weights,int5,fp16,fp16,definition"


@pytest.fixture
def extended(data: Path) -> Path:
    """Return a copy of the data with one row of each kind added."""
    append(data / "models.csv", MODEL)
    append(data / "hardware.csv", DEVICE)
    append(data / "formats.csv", FORMAT)
    append(data / "precisions.csv", PRECISION)
    append(
        data / "sheets/exact/operators.csv",
        "mlp,post_norm,norm,1,tokens,n_norm_vectors,width,0,norm_cost,0,0,0,0,,down_proj,TRUE,Norm after the MLP,,definition",
    )
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
    for path in [ROOT / "app.py", *(ROOT / "calc").glob("*.py")]:
        code = "\n".join(line for line in path.read_text(encoding="utf-8").splitlines() if "calc.analyze(" not in line)
        body = code.split('"""', 2)[-1].lower().replace("llm_viewer", "")
        assert not [n for n in names if n in body], path


def test_a_fact_changes_the_answer(data: Path) -> None:
    """The same question, with one number of one row changed and read again."""
    before = calc.analyze("llama-2-7b", "a6000", by="stage", data=data)["memory_s"]
    change(data / "hardware.csv", "GDDR6,51539607552,768000000000", "GDDR6,51539607552,1536000000000")
    after = calc.analyze("llama-2-7b", "a6000", by="stage", data=data)["memory_s"]
    assert (before / after).to_list() == pytest.approx([2.0, 2.0])
