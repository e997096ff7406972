"""Command lines of serving engines: what they say, and that the engines' own documentation has it so.

``golden/engine_flags.csv`` is what the documents that ``data/sources.csv`` names for each engine say of their flags:
names, types, ranges and choices, those that no row of ours gives among them.
"""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

import polars as pl
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import calc
from calc.__main__ import main
from calc.engines import check_engines, engine_ids
from calc.errors import CalcError
from calc.tables import load

DOCUMENTED = pl.read_csv(Path(__file__).parent / "golden" / "engine_flags.csv", infer_schema=False)
ENGINES = ["vllm", "sglang", "trtllm", "tgi", "llama_cpp", "ollama"]
STARTS = {
    "vllm": ["vllm", "serve"], "sglang": ["python3", "-m", "sglang.launch_server"], "trtllm": ["trtllm-serve"],
    "tgi": ["text-generation-launcher"], "llama_cpp": ["llama-server"], "ollama": ["ollama", "serve"],
}  # fmt: skip
HAVE_A_MODEL = ("vllm", "trtllm")
"""Those whose command names the model without a flag."""
SEQUENCES = {
    "vllm": "--max-num-seqs", "sglang": "--max-running-requests", "trtllm": "--max_batch_size",
    "tgi": "--max-concurrent-requests", "llama_cpp": "--parallel", "ollama": "OLLAMA_NUM_PARALLEL",
}  # fmt: skip
TECHNIQUES = [
    None, "chunked_prefill", "prefill_first", "paged_kv", "vllm_memory", "prefix_cache", "kv_int8", "kv_int4", "fp8",
    "awq_w4", "nvfp4", "chunked_prefill+kv_int8+awq_w4", "tensor_parallel", "batching", "speculative_decoding",
]  # fmt: skip


def checked(row: dict[str, str | None], text: str) -> object:
    """Return a value as the document takes it; raises ValueError where it does not."""
    value: object = {"int": int, "float": float}.get(str(row["type"]), str)(text)
    for bound, wrong in (("minimum", lambda v, b: v < b), ("maximum", lambda v, b: v > b)):
        if row[bound] and wrong(value, float(str(row[bound]))):
            raise ValueError(f"{text} is beyond {row[bound]}")
    if row["choices"] and text not in str(row["choices"]).split():
        raise ValueError(f"{text} is none of {row['choices']}")
    return value


def read(engine: str, command: str) -> dict[str, object]:
    """Return what a command says, read as the engine's documentation says that it reads it."""
    shell = "\n".join(line for line in command.splitlines() if not line.startswith("#"))
    found: dict[str, object] = {}
    documented = {k: v for r in DOCUMENTED.filter(engine=engine).to_dicts() for k in r["flags"].split() for v in [r]}
    if "<<'EOF'" in shell:
        text, shell = shell.partition("<<'EOF'\n")[2].split("\nEOF\n")
        for key, value in yaml.safe_load(text).items():
            for name, its in (
                [(f"{key}.{k}", v) for k, v in value.items()] if isinstance(value, dict) else [(key, value)]
            ):
                (row,) = DOCUMENTED.filter(engine=f"{engine} yaml", flags=name).to_dicts()
                found[name] = checked(row, str(its).lower())
    words = shlex.split(shell.replace("\\\n", " "))
    while re.match(r"[A-Z_]+=", words[0]):
        name, _, value = words.pop(0).partition("=")
        found[name] = checked(documented[name], value)
    start = STARTS[engine]
    assert words[: len(start)] == start
    parser = argparse.ArgumentParser(exit_on_error=False, allow_abbrev=False)
    if engine in HAVE_A_MODEL:
        parser.add_argument("model")
    for row in DOCUMENTED.filter(pl.col("engine") == engine, pl.col("flags").str.starts_with("-")).to_dicts():
        names = row["flags"].split()
        if row["type"] == "switch":
            parser.add_argument(*names, action="store_true", dest=names[0])
        else:
            parser.add_argument(*names, type=lambda text, row=row: checked(row, text), dest=names[0])
    given = parser.parse_args(words[len(start) :])
    named = {r["flags"].split()[0]: r["flags"].split() for r in DOCUMENTED.filter(engine=engine).to_dicts()}
    return found | {n: v for k, v in vars(given).items() if v not in (None, False) for n in named.get(k, [k])}


def said(engine: str, **scenario: object) -> dict[str, object]:
    """Return what an engine is told of Qwen3 8B on A100s."""
    return read(engine, calc.engine_command({"model": "qwen3-8b", "hardware": "a100", **scenario}, engine))


def test_the_sizes_of_a_deployment() -> None:
    """Sixteen requests of 2,000 + 300 tokens on two devices, weights and cache in eight bits."""
    asked = {"batch": 16, "input_len": 2000, "output_len": 300, "tp": 2, "precision": "fp8"}
    wanted = {
        "vllm": {"--tensor-parallel-size": 2, "--max-num-seqs": 16, "--max-model-len": 2300, "--kv-cache-dtype": "fp8",
                 "--quantization": "fp8", "model": "Qwen/Qwen3-8B"},
        "sglang": {"--tp-size": 2, "--max-running-requests": 16, "--context-length": 2300, "--kv-cache-dtype": "fp8_e4m3",
                   "--quantization": "fp8", "--model-path": "Qwen/Qwen3-8B"},
        "trtllm": {"--tp_size": 2, "--max_batch_size": 16, "--max_seq_len": 2300, "kv_cache_config.dtype": "fp8",
                   "--config": "engine.yaml", "model": "Qwen/Qwen3-8B"},
        "tgi": {"--num-shard": 2, "--max-concurrent-requests": 16, "--max-input-tokens": 2000,
                "--max-total-tokens": 2300, "--max-batch-total-tokens": 36800, "--kv-cache-dtype": "fp8_e4m3fn",
                "--quantize": "fp8"},
        "llama_cpp": {"--ctx-size": 36800, "--parallel": 16, "--split-mode": "tensor", "--flash-attn": "on"},
        "ollama": {"OLLAMA_NUM_PARALLEL": 16, "OLLAMA_CONTEXT_LENGTH": 2300, "OLLAMA_FLASH_ATTENTION": "1"},
    }  # fmt: skip
    for engine, flags in wanted.items():
        found = said(engine, **asked)
        untold = "No flag here says tp 2." in calc.engine_command(
            {"model": "qwen3-8b", "hardware": "a100", **asked}, engine
        )
        assert untold == (engine == "ollama")
        assert {k: found.get(k) for k in flags} == flags
    assert "OLLAMA_KV_CACHE_TYPE" not in said("ollama", **asked)


def test_techniques_are_flags_where_there_are_some() -> None:
    """A chunk of prompts beside the sequences that decode; the cache and the weights of other techniques' formats."""
    asked = {"batch": 16, "technique": "chunked_prefill+kv_int8+awq_w4", "chunk_budget": 512}
    assert said("vllm", **asked).items() >= {
        "--max-num-batched-tokens": 528, "--kv-cache-dtype": "int8_per_token_head", "--quantization": "awq",
    }.items()  # fmt: skip
    assert said("sglang", **asked)["--chunked-prefill-size"] == 512
    assert said("trtllm", **asked).items() >= {"--enable_chunked_prefill": True, "--max_num_tokens": 528}.items()
    assert said("llama_cpp", **asked).items() >= {"--ubatch-size": 512, "--cache-type-k": "q8_0"}.items()
    assert said("sglang", technique="prefill_first")["--chunked-prefill-size"] == -1
    assert said("vllm", technique="tensor_parallel", tensor_ways=4)["--tensor-parallel-size"] == 4
    assert said("vllm", technique="batching", batch=2, batch_factor=8)["--max-num-seqs"] == 16
    assert said("vllm", technique="prefix_cache")["--enable-prefix-caching"] is True


def test_experts_spread_wider_than_attention() -> None:
    """Attention is data-parallel then: each engine says that in its own way, and sequences are each group's."""
    asked = {"model": "deepseek-v3", "hardware": "h200", "batch": 64, "ep": 8, "precision": "fp8"}
    command = calc.engine_command(asked, "vllm")
    assert read("vllm", command).items() >= {
        "--data-parallel-size": 8, "--enable-expert-parallel": True, "--max-num-seqs": 8,
    }.items()  # fmt: skip
    assert read("sglang", calc.engine_command(asked, "sglang")).items() >= {
        "--tp-size": 8, "--dp-size": 8, "--ep-size": 8, "--enable-dp-attention": True, "--max-running-requests": 64,
    }.items()  # fmt: skip
    assert read("trtllm", calc.engine_command(asked, "trtllm")).items() >= {
        "--tp_size": 8, "--ep_size": 8, "enable_attention_dp": "true",
    }.items()  # fmt: skip
    assert "No flag here says ep 8." in calc.engine_command(asked, "tgi")


def test_comments_say_what_is_assumed_and_what_is_left_out() -> None:
    """A format without a name, a degree without a flag, copies, a context that the model was not made for, no room."""
    asked = {"model": "llama-3-8b", "hardware": "a100", "kv_format": "int8", "cp": 2, "dp": 3, "input_len": 100000,
             "technique": "speculative_decoding"}  # fmt: skip
    told = calc.engine_command(asked, "sglang")
    for sentence in ("Left out: --kv-cache-dtype has no value for int8.", "No flag here says cp 2.",
                     "Start it 3 times", "made for 8192 tokens", "No flag here says speculative_decoding"):  # fmt: skip
        assert sentence in told
    told = calc.engine_command({"model": "llama-3-70b", "hardware": "a100"}, "vllm")
    reason = calc.analyze("llama-3-70b", "a100", by="serving")["reason"][0]
    assert reason and f"But {reason}." in told
    tpot = calc.analyze("qwen3-8b", "a100", by="serving")["tpot_s"][0]
    assert f"{tpot * 1e3:.4g} ms for each further one" in calc.engine_command(
        {"model": "qwen3-8b", "hardware": "a100"}, "vllm"
    )
    assert "--quantization" not in said("vllm", precision="w3a16kv16")
    assert said("llama_cpp", precision="w3a16kv16")["--model"] == "Qwen3-8B.gguf"
    assert said("llama_cpp", weight_format="q4_k")["--model"] == "Qwen3-8B-Q4_K_M.gguf"


@settings(max_examples=30, deadline=None)
@given(
    engine=st.sampled_from(ENGINES),
    model=st.sampled_from(["qwen3-8b", "opt-125m", "deepseek-v3", "mamba2-2.7b", "t5-large", "gpt-oss-20b"]),
    sizes=st.fixed_dictionaries({
        "batch": st.integers(1, 10**6), "input_len": st.integers(1, 10**6), "output_len": st.integers(0, 10**5),
    }),
    degrees=st.dictionaries(st.sampled_from(["tp", "pp", "ep", "cp", "dp"]), st.sampled_from([1, 2, 8])),
    formats=st.dictionaries(
        st.sampled_from(["weight_format", "activation_format", "kv_format"]),
        st.sampled_from(load()["formats"]["format_id"].to_list()),
    ),
    technique=st.sampled_from(TECHNIQUES),
)  # fmt: skip
def test_engines_take_every_command(
    engine: str,
    model: str,
    sizes: dict[str, int],
    degrees: dict[str, int],
    formats: dict[str, str],
    technique: str | None,
) -> None:
    """No flag that the documentation does not have, no value beyond what it takes."""
    asked = {"model": model, "hardware": "h100", **sizes, **degrees, **formats, "technique": technique}
    try:
        command = calc.engine_command(asked, engine)
    except CalcError:
        return
    found = read(engine, command)
    groups = max(1, degrees.get("ep", 1) // degrees.get("tp", 1)) if engine in HAVE_A_MODEL else 1
    batch = sizes["batch"] * (8 if technique == "batching" else 1)
    assert found[SEQUENCES[engine]] == -(-batch // groups)


def test_every_flag_and_name_is_documented() -> None:
    """Rows of ours have the documents' types and no wider ranges; names of formats are among their choices."""
    tables = load()
    assert engine_ids(tables) == ENGINES and not list(check_engines(tables))
    types = {"integer": "int", "number": "float", "text": "str", "switch": "switch"}
    for row in tables["engine_flags"].to_dicts():
        kind = f"{row['engine_id']} yaml" if row["kind"] == "yaml" else row["engine_id"]
        (documented,) = [r for r in DOCUMENTED.filter(engine=kind).to_dicts() if row["flag"] in r["flags"].split()]
        assert types[row["dtype"]] == documented["type"], row
        if documented["choices"] and row["choices"]:
            assert set(row["choices"].split()) <= set(documented["choices"].split()), row
        if documented["minimum"] and row["dtype"] != "switch":
            assert row["minimum"] >= float(documented["minimum"]), row
        assert row["technique_id"] in (None, *tables["techniques"]["technique_id"])
    assert set(tables["engine_formats"]["format_id"]) <= set(tables["formats"]["format_id"])
    sources = dict(tables["sources"].select("source_id", "locator").iter_rows())
    for row in tables["engines"].to_dicts():
        assert row["version"].removeprefix("commit ") in sources[row["source_id"]]


def test_bad_questions_have_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """An engine, a model or a column that there is not; several scenarios; another sheet."""
    for engine, asked in (("vlm", {}), ("vllm", {"modle": 1}), ("vllm", {"batch": [1, 2]}), ("vllm", {"batch": -1})):
        with pytest.raises(CalcError):
            calc.engine_command({"model": "qwen3-8b", "hardware": "a100", **asked}, engine)
    assert main(["engines", "qwen3-8b", "a100", "--sheet", "llm_viewer"]) == 2
    assert "leave --sheet out" in capsys.readouterr().err
    assert main(["engines", "qwen3-8b", "a100", "--engine", "ollama"]) == 0
    assert capsys.readouterr().out.endswith("  ollama serve\n")


def test_names_are_quoted_for_the_shell() -> None:
    """A model's name never becomes a word of its own, or a command."""
    rows = load()["models"].filter(model_id="Qwen/Qwen3-8B").with_columns(
        model_id=pl.lit("me/x; rm -rf $HOME"), aliases=pl.lit(None, pl.String)
    )  # fmt: skip
    from calc.engines import engine_command

    tables = load().extended("models", rows)
    for engine in ("vllm", "llama_cpp"):
        command = engine_command(tables, {"model_id": "me/x; rm -rf $HOME", "hardware_id": "a100"}, engine)
        found = read(engine, command)
        assert found.get("model", found.get("--model")) in ("me/x; rm -rf $HOME", "x; rm -rf $HOME-F16.gguf")
