"""What users get wrong: one clear message each, exit code 2, no traceback, nothing written."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path

import duckdb
import polars as pl
import pytest
from conftest import Run, append, change

import calc

CONNECTION = calc.connect()
GOOD = ("llama-2-7b", "a6000")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("lama-2-7b", "a6000"), "unknown model 'lama-2-7b'; did you mean 'meta-llama/Llama-2-7b-hf'"),
        (("llama-2-7b", "h1oo"), "unknown device 'h1oo'; did you mean 'nvidia_h100_sxm'"),
        ((*GOOD, "--batch", "0"), "batch: 0 is below 1"),
        ((*GOOD, "--batch", "-3"), "batch: -3 is below 1"),
        ((*GOOD, "--batch", "1.5"), "batch: 1.5 is not a whole number"),
        ((*GOOD, "--batch", "many"), "batch: 'many' is not a number"),
        ((*GOOD, "--batch", "nan"), "batch: NaN is not a number"),
        ((*GOOD, "--batch", "inf"), "batch: inf is above 1e+09"),
        ((*GOOD, "--batch", "1000000001"), "batch: 1e+09 is above 1e+09"),
        ((*GOOD, "--input-len", "-1"), "input_len: -1 is below 0"),
        ((*GOOD, "--output-len", "-1"), "output_len: -1 is below 0"),
        ((*GOOD, "--input-len", "2e9"), "input_len: 2e+09 is above 1e+09"),
        ((*GOOD, "--input-len", "0", "--output-len", "0"), "input_len and output_len are both 0"),
        ((*GOOD, "--input-len", "10", "--cached-len", "10"), "cached_len 10 leaves no token of input_len 10"),
        ((*GOOD, "--precision", "w5a5"), "unknown precision 'w5a5'; there are w32a32kv32, w16a16kv16"),
        ((*GOOD, "--kv-format", "int5"), "unknown format 'int5'; did you mean"),
        ((*GOOD, "--attention", "slow"), "unknown attention 'slow'; there are flash, eager"),
        ((*GOOD, "--technique", "magic"), "unknown technique 'magic'"),
        ((*GOOD, "--set", "pruned_share"), "'pruned_share' is not NAME=VALUE"),
        ((*GOOD, "--set", "pruned_shares=0.5"), "'pruned_shares' is no scenario column; did you mean 'pruned_share'"),
        ((*GOOD, "--set", "pruned_share=1.5"), "pruned_share: 1.5 is above 1"),
        ((*GOOD, "--set", "chunk_budget=1.5"), "chunk_budget: 1.5 is not a whole number"),
        (
            (*GOOD, "--technique", "overlapped_exchange+sequence_parallel"),
            "'overlapped_exchange' has removed this row: the two cannot be combined",
        ),
        ((*GOOD, "--tp", "0"), "tp: 0 is below 1"),
        ((*GOOD, "--ep", "1.5"), "ep: 1.5 is not a whole number"),
        ((*GOOD, "--sheet", "exakt"), "unknown sheet 'exakt'; did you mean 'exact'"),
        ((*GOOD, "--by", "layer"), "unknown grain 'layer'; there are operator, stage, serving"),
        ((*GOOD, "--engine", "spark"), "unknown engine 'spark'; there are polars, duckdb"),
        ((*GOOD, "--output", "x.doc"), "x.doc: cannot write .doc; use .csv, .parquet, .json"),
        ((*GOOD, "--output", "no/such/folder/x.csv"), "the folder no/such/folder does not exist"),
        ((*GOOD, "--report", "x.pdf"), "x.pdf: cannot write .pdf; use .md, .html"),
    ],
)
def test_a_wrong_question(run: Run, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    """The message says what is wrong and what is near; stderr alone; nothing on disk."""
    done = run("analyze", *arguments)
    assert done.returncode == 2
    assert message in done.stderr and "Traceback" not in done.stderr
    assert done.stdout == "" and not list((tmp_path / "cwd").iterdir())


def test_the_real_process(process: Run, tmp_path: Path) -> None:
    """The same through a process of its own: exit code, streams and disk."""
    done = process("analyze", "lama-2-7b", "a6000", "--output", "x.csv")
    assert done.returncode == 2 and done.stdout == "" and not list(tmp_path.iterdir())
    assert (
        done.stderr
        == "error: unknown model 'lama-2-7b'; did you mean 'meta-llama/Llama-2-7b-hf' or \
'meta-llama/Llama-2-70b-hf' or 'huggyllama/llama-7b'?\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("explain", "time", *GOOD, "--stage", "decode"), "unknown cell 'time' here; did you mean 'time_s'"),
        (("explain", "time_s", *GOOD, "--stage", "decoding"), "unknown stage 'decoding'; did you mean 'decode'"),
        (("explain", "time_s", *GOOD, "--stage", "decode", "--operator", "q"), "unknown operator 'q'"),
        (("sql", "select * from modells"), "Table with name modells does not exist"),
        (("sql", "selec"), "the query fails"),
        (("sql", "select 1", "--param", "typo=3"), "--param typo: nothing that the query names reads it"),
        (("sql", "select $a", "--param", "a=nan"), "--param a: nan is not a number"),
        (("sql",), "give one query"),
        (("sql", "--file", "nowhere.sql"), "nowhere.sql: cannot be read"),
        (("models", "--output", "m.txt"), "cannot write .txt"),
    ],
)
def test_other_commands(run: Run, arguments: tuple[str, ...], message: str) -> None:
    """The same manners everywhere."""
    done = run(*arguments)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_writing_where_one_may_not(run: Run, tmp_path: Path) -> None:
    """A target that is a folder is said, and not touched."""
    target = tmp_path / "cwd" / "x.csv"
    target.mkdir()
    done = run("analyze", *GOOD, "--output", "x.csv")
    assert done.returncode == 2 and "is a folder" in done.stderr and not list(target.iterdir())


def break_file(data: Path, how: str) -> None:
    """Damage the data folder in one way."""
    models, hardware = data / "models.csv", data / "hardware.csv"
    text = models.read_text(encoding="utf-8")
    if how == "missing column":
        pl.read_csv(models, infer_schema=False).drop("vocab").write_csv(models)
    elif how == "extra column":
        models.write_text("\n".join(f"{line},x" for line in text.splitlines()), encoding="utf-8")
    elif how == "text in a number":
        models.write_text(text.replace(",32,4096,", ",many,4096,", 1), encoding="utf-8")
    elif how == "duplicate key":
        append(models, text.splitlines()[1])
    elif how == "duplicate key in other case":
        append(models, text.splitlines()[1].replace("meta-llama/Llama-2-7b-hf", "META-LLAMA/Llama-2-7b-hf"))
    elif how == "byte-order mark":
        models.write_bytes(b"\xef\xbb\xbf" + text.encode())
    elif how == "windows line ends":
        models.write_bytes(text.encode().replace(b"\n", b"\r\n"))
    elif how == "empty file":
        models.write_text("", encoding="utf-8")
    elif how == "not UTF-8":
        models.write_bytes(text.encode() + "\xe9".encode("latin-1"))
    elif how == "ragged row":
        append(models, "a,b")
    elif how == "missing file":
        models.unlink()
    elif how == "unreadable file":
        models.unlink()
        models.mkdir()
    elif how == "unknown source":
        change(models, "exact; text model,llama_2_7b_hf_config", "exact; text model,llama_2_7b_hf_confih")
    elif how == "range":
        models.write_text(text.replace(",32,4096,", ",0,4096,", 1), encoding="utf-8")
    elif how == "fraction":
        models.write_text(text.replace(",32,4096,", ",31.5,4096,", 1), encoding="utf-8")
    elif how == "rule":
        models.write_text(text.replace(",32,32,32,128,", ",32,32,5,128,", 1), encoding="utf-8")
    elif how == "alias twice":
        change(hardware, "nvidia_a40,a40,", "nvidia_a40,a6000,")
    elif how == "infinite number":
        change(hardware, "RTX A6000,NVIDIA,gpu,2020,", "RTX A6000,NVIDIA,gpu,inf,")
    elif how == "not a boolean":
        models.write_text(text.replace(",11008,true,", ",11008,maybe,", 1), encoding="utf-8")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing column", "models.csv: column 'vocab' is missing"),
        ("extra column", "models.csv: column 'x' is not in data/columns.csv"),
        ("text in a number", "models.csv, row 2, column n_layers: 'many' is not a number"),
        ("duplicate key", "column model_id: 'meta-llama/Llama-2-7b-hf' is already in row 2"),
        ("duplicate key in other case", "'META-LLAMA/Llama-2-7b-hf' is already in row 2"),
        ("byte-order mark", "models.csv: starts with a byte-order mark; save it as UTF-8 without BOM"),
        ("windows line ends", "models.csv: has Windows line ends (CRLF); save it with LF line ends"),
        ("empty file", "models.csv: is empty"),
        ("not UTF-8", "models.csv: is not UTF-8 at byte"),
        ("ragged row", "has 2 fields, the header has 117"),
        ("missing file", "models.csv: cannot be read (No such file or directory)"),
        ("unreadable file", "models.csv: cannot be read (Is a directory)"),
        ("unknown source", "'llama_2_7b_hf_confih' is not in sources.csv; did you mean 'llama_2_7b_hf_config'"),
        ("range", "models.csv, row 2, column n_layers: '0' is below 1"),
        ("fraction", "models.csv, row 2, column n_layers: '31.5' is not a whole number"),
        ("rule", "models.csv, row 2: key/value heads divide query heads; here n_heads 32.0, n_kv_heads 5.0"),
        ("alias twice", "'a6000' already means nvidia_rtx_a6000"),
        ("infinite number", "column year: 'inf' is not a finite number"),
        ("not a boolean", "column is_gated_mlp: 'maybe' is not true or false"),
    ],
)
def test_a_broken_table(run: Run, data: Path, how: str, message: str) -> None:
    """Every command that reads the tables says file, row, column and value."""
    break_file(data, how)
    done = run("check", data=data)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert message in done.stderr, done.stderr
    assert done.stdout == ""


def test_all_violations_come_together(data: Path) -> None:
    """A bad number, a bad flag and a broken rule in two files are reported in one go."""
    break_file(data, "not a boolean")
    break_file(data, "infinite number")
    with pytest.raises(calc.DataError) as caught:
        calc.models(data=data)
    assert len(caught.value.violations) == 2


def test_no_such_data_folder(run: Run, tmp_path: Path) -> None:
    """A data folder that is not there."""
    done = run("check", data=tmp_path / "nowhere")
    assert done.returncode == 2 and "nowhere: cannot be read" in done.stderr


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ({"model_id": ["llama-2-7b"]}, "no column 'hardware_id'"),
        ({"model_id": ["llama-2-7b"], "hardware_id": [None]}, "hardware_id: a row names no device"),
        (
            {"model_id": ["llama-2-7b"], "hardware_id": ["a40"], "time_s": [1]},
            "your column 'time_s' bears the name of a result",
        ),
        (
            {"model_id": ["llama-2-7b"], "hardware_id": ["a40"], "batch": [True]},
            "batch: Boolean values are not numbers",
        ),
        (
            {"model_id": ["llama-2-7b"], "hardware_id": ["a40"], "batch": [[1]]},
            "batch: List(Int64) values are not numbers",
        ),
        ({"model_id": ["llama-2-7b"], "hardware_id": ["a40"], "dp": [0]}, "dp: 0 is below 1"),
        ({"model_id": [["llama-2-7b"]], "hardware_id": ["a40"]}, "model_id: List(String) values are not texts"),
        ({"model_id": ["llama-2-7b"] * 2, "hardware_id": ["a40", None]}, "hardware_id: a row names no device"),
        (
            {"model_id": ["llama-2-7b"], "hardware_id": ["a40"], "batch": [Decimal("1.5")]},
            "batch: 1.5 is not a whole number",
        ),
    ],
)
def test_a_wrong_frame(frame: dict[str, list[object]], message: str) -> None:
    """A user's frame is refused before anything is computed."""
    with pytest.raises(calc.ScenarioError) as caught:
        calc.evaluate(pl.DataFrame(frame))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("batch", "-5", "batch: -5.0 is out of range"),
        ("batch", "1.5", "batch: 1.5 is out of range"),
        ("tp", "0", "tp: 0.0 is out of range"),
        ("precision", "'nope'", "unknown precision nope"),
        ("attention", "'nope'", "unknown attention nope"),
        ("kv_format", "'nope'", "unknown format nope"),
        ("technique", "'sliding_window'", "a technique needs calc.evaluate"),
        ("cached_len", "5000", "cached_len leaves no token"),
        ("model_id", "'nope'", "unknown model nope"),
        ("model_id", "null::varchar", "model_id: a row names no model"),
        ("output_len", "'nan'::double", "output_len: nan is out of range"),
    ],
)
def test_the_sql_macros_refuse_what_evaluate_refuses(column: str, value: str, message: str) -> None:
    """No wrong question gets a number in SQL either."""
    asked = {"model_id": "'llama-2-7b'", "hardware_id": "'h100'", column: value}
    fields = ", ".join(f"{v} as {n}" for n, v in asked.items())
    with pytest.raises(duckdb.Error, match=re.escape(message)):
        CONNECTION.sql(f"with g as (select {fields}) select * from stages_of('g')").fetchall()


def test_a_name_given_twice() -> None:
    """A workload brings its own batch; a column is one axis."""
    with pytest.raises(calc.ScenarioError, match="'batch' is given twice"):
        calc.scenarios(model="llama-2-7b", hardware="a40", workload="chat", batch=2)


def test_printing_nothing_and_writing_what_does_not_fit(run: Run) -> None:
    """An empty table prints its header; a list does not fit into CSV."""
    assert run("models", "--like", "no such model").returncode == 0
    done = run("sql", "select [1, 2] as a", "--output", "x.csv")
    assert done.returncode == 2 and "a type that .csv cannot hold" in done.stderr


@pytest.mark.parametrize(
    ("file", "row", "message"),
    [
        ("parameters.csv", "sliding_window,batch,5,,,true,1,10,Batch,definition", "'batch' is another input already"),
        ("rules.csv", "models,heads,n_heads,", "is not true or false"),
        (
            "columns.csv",
            "models,extra,true,int,,false,false,false,,,,Extra,Extra",
            "'int' is none of number, boolean, text",
        ),
    ],
)
def test_rows_that_would_change_what_others_mean(run: Run, data: Path, file: str, row: str, message: str) -> None:
    """A parameter that hides an input, a rule that is no condition, a type that is none."""
    append(data / file, row.removesuffix(",") if file == "rules.csv" else row)
    done = run("check", data=data)
    assert done.returncode == 2 and message in done.stderr, done.stderr


@pytest.mark.parametrize("rows", [0, 1])
@pytest.mark.parametrize("by", ["operator", "stage", "serving"])
@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_a_frame_of_no_rows_is_an_answer_of_no_rows(rows: int, by: str, engine: str) -> None:
    """No question, no answer, the same columns."""
    frame = pl.DataFrame({"model_id": ["llama-2-7b"], "hardware_id": ["a40"]}).head(rows)
    found = calc.evaluate(frame, by=by, engine=engine).collect()
    assert ((found.height > 0) == (rows > 0) and "time_s" in found.columns) or "ttft_s" in found.columns


def test_own_rows_are_checked_like_a_file() -> None:
    """A caller's model with a missing fact, a typo in a column and a broken rule."""
    with pytest.raises(calc.DataError) as caught:
        calc.evaluate(
            calc.scenarios(model="mine", hardware="a40"), models=pl.DataFrame({"model_id": ["mine"], "hiden": [4096]})
        )
    assert "column 'hiden' is not in data/columns.csv; did you mean 'hidden'" in str(caught.value)
    assert "column hidden: None is empty, but required" in str(caught.value)


def test_a_device_without_the_format_falls_back_and_says_so() -> None:
    """fp8 on an A100 and w4a4 on a V100 run in 16 bits; 16 bits on a CPU without them run in fp32."""
    cases = [("a100", "fp8", "fp16"), ("v100", "w4a4kv4", "fp16"), ("intel_core_i9_13900k", "w16a16kv16", "fp32"),
             ("h100", "w4a4kv4", "int8"), ("a6000", "w4a4kv4", "int4"), ("h100", "w4a16kv16", "fp16"),
             ("h100", "fp8", "fp8"), ("a100", "bf16", "bf16")]  # fmt: skip
    for device, precision, wanted in cases:
        row = calc.analyze("llama-2-7b", device, precision=precision).filter(operator="q_proj", stage="prefill")
        assert row["compute_format"].to_list() == [wanted], (device, precision)


def test_an_unknown_fact_empties_only_what_needs_it() -> None:
    """No bandwidth: no times, one reason; the other device in the frame is unaffected."""
    mine = pl.DataFrame(
        {"hardware_id": ["mine"], "name": ["Mine"], "vendor": ["Me"], "kind": ["gpu"], "fp16_ops_per_s": [1e14],
         "source_id": ["definition"]}
    )  # fmt: skip
    found = calc.evaluate(
        calc.scenarios(model="llama-2-7b", hardware=["mine", "a40"]), by="stage", hardware=mine
    ).collect()
    assert found["time_s"].is_null().to_list() == [True, True, False, False]
    assert found["reason"][0] == "hardware.memory_bandwidth_bytes_per_s is unknown" and found["reason"][2] is None
    assert found["ops"][0] == found["ops"][2]
