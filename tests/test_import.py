"""Importing models: every configuration of the catalogue, broken ones, and files of other kinds."""

from __future__ import annotations

import contextlib
import copy
import http.server
import json
import math
import random
import struct
import threading
from functools import cache
from pathlib import Path

import polars as pl
import pytest
from conftest import Run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import calc
from calc.errors import CalcError
from calc.importers import import_model, parse_config
from calc.importers.config import Imported, import_config
from calc.tables import load

GOLDEN = Path(__file__).parent / "golden"
CONFIGS = json.loads((GOLDEN / "configs.json").read_text())
LLAMA = {
    "model_type": "llama", "num_hidden_layers": 32, "hidden_size": 4096, "intermediate_size": 14336,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": False,
}  # fmt: skip
LLAMA_COUNT = 8_030_261_248


def imported(config: dict[str, object], name: str = "mine") -> Imported:
    """Return what a configuration becomes."""
    return import_config(load(), config, name, "user")


@cache
def catalogue() -> dict[str, float]:
    """Return the parameters of every model in the catalogue."""
    return dict(calc.models().select("model_id", "n_parameters").iter_rows())


def counts(rows: list[Imported]) -> list[float]:
    """Return the parameters of imported models."""
    frame = pl.DataFrame(
        {c: [None if r.row[c] is None else str(r.row[c]).lower() if isinstance(r.row[c], bool) else str(r.row[c])
             for r in rows] for c in rows[0].row},
        schema=dict.fromkeys(rows[0].row, pl.String),
    )  # fmt: skip
    from calc.catalogue import model_facts

    found = dict(model_facts(load().extended("models", frame)).select("model_id", "n_parameters").iter_rows())
    return [found[str(r.row["model_id"])] for r in rows]


def test_every_configuration_gives_its_row() -> None:
    """192 configurations, each with as many parameters as its row, to the last one."""
    names = list(CONFIGS)
    assert len(names) == 192
    found = counts([imported(CONFIGS[n], f"again/{n}") for n in names])
    wrong = {n: (c, catalogue()[n]) for n, c in zip(names, found, strict=True) if c != catalogue()[n]}
    assert not wrong


def test_configurations_of_the_library_are_exact_or_refused() -> None:
    """346 configurations of 115 model types, flags switched and sizes changed: the class's own count, or an error.

    The classes whose configurations say nothing of their experts (DeepSeek-V2), or of a head's size that is not whole
    (GLM-4.5), are refused with their defaults.
    """
    held = pl.read_parquet(GOLDEN / "other_configs.parquet")
    assert held.height == 346
    accepted: list[tuple[Imported, float]] = []
    refused: dict[str, str] = {}
    for model_type, config, n_parameters in held.iter_rows():
        try:
            accepted.append((import_config(load(), json.loads(config), f"m{len(accepted)}", "user"), n_parameters))
        except CalcError as error:
            refused[model_type] = str(error)
    every = {column: None for found, _ in accepted for column in found.row}
    for found, _ in accepted:
        found.row = {**every, **found.row}
    wrong = [
        (found.row["family"], count, n)
        for (found, n), count in zip(accepted, counts([f for f, _ in accepted]), strict=True)
        if count != n
    ]
    assert not wrong
    types = {str(found.row["family"]) for found, _ in accepted}
    known = set(load()["config_types"]["model_type"])
    assert {t for t in refused if t in known and t not in types} == {"deepseek_v2", "glm4_moe"}
    assert len(types & known) > 90 and len(accepted) > 250


def test_a_missing_key_takes_the_class_default_and_is_listed() -> None:
    """Llama's class: no biases, heads of hidden size / heads; what the file says is not listed."""
    found = imported(LLAMA)
    assert found.assumed["attention_bias"] is False
    assert "vocab_size" not in found.assumed
    assert counts([found]) == [LLAMA_COUNT]
    short = {k: v for k, v in LLAMA.items() if k != "vocab_size"}
    assert imported(short).assumed["vocab_size"] == 32000


def test_null_is_not_missing() -> None:
    """DeepSeek-V2-Lite writes q_lora_rank null: no low rank, whatever the class's default is."""
    assert imported(CONFIGS["deepseek-ai/DeepSeek-V2-Lite"]).row["q_lora_rank"] is None


def test_an_unknown_type_of_a_known_shape_is_accepted_with_a_warning() -> None:
    """It is a Llama in all but name; the warning says so, and what was assumed."""
    found = imported({**LLAMA, "model_type": "llama_next"})
    assert "'llama_next' is unknown" in found.warnings[0] and "'llama'" in found.warnings[0]
    assert found.assumed["attention_bias"] is False
    assert counts([found]) == [LLAMA_COUNT]
    latent = {**CONFIGS["deepseek-ai/DeepSeek-V3"], "model_type": "deepseek_next"}
    assert counts([imported(latent)]) == [catalogue()["deepseek-ai/DeepSeek-V3"]]


@pytest.mark.parametrize("missing", [k for k in LLAMA if k != "model_type"])
def test_an_unknown_type_with_a_missing_key_is_refused(missing: str) -> None:
    """There is no class whose default would stand in."""
    with pytest.raises(CalcError, match=missing):
        imported({k: v for k, v in LLAMA.items() if k != missing} | {"model_type": "llama_next"})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model_type": None}, "model_type"),
        ({"model_type": 7}, "model_type"),
        ({"num_hidden_layers": -3}, "num_hidden_layers"),
        ({"num_hidden_layers": 0}, "num_hidden_layers"),
        ({"num_hidden_layers": None}, "n_layers"),
        ({"num_hidden_layers": 2.5}, "num_hidden_layers"),
        ({"num_hidden_layers": True}, "num_hidden_layers"),
        ({"hidden_size": "4096"}, "hidden_size"),
        ({"hidden_size": 1e300}, "hidden_size"),
        ({"hidden_size": math.nan}, "hidden_size"),
        ({"hidden_size": math.inf}, "hidden_size"),
        ({"hidden_size": [4096]}, "hidden_size"),
        ({"hidden_size": {"a": 1}}, "hidden_size"),
        ({"hidden_size": 4100}, "head_dim"),
        ({"num_key_value_heads": 7}, "key/value heads"),
        ({"num_attention_heads": 0}, "num_attention_heads"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings"),
        ({"attention_bias": 1}, "attention_bias"),
        ({"n_layer": 31}, "n_layer"),
        ({"model_type": "gemma2", "layer_types": ["full_attention"] * 31}, "layer_types"),
        ({"model_type": "gemma2", "layer_types": ["odd_attention"] * 32}, "odd_attention"),
        ({"model_type": "gemma2", "layer_types": 5}, "layer_types"),
        ({"model_type": "nemotron_h", "hybrid_override_pattern": "M-X*"}, "hybrid_override_pattern"),
        ({"model_type": "never_seen", "kv_lora_rank": 512}, "qk_nope_head_dim|kv_lora_rank|v_head_dim"),
        ({"model_type": "never_seen", "mamba_d_state": 16}, "mamba_d_state"),
        ({"text_config": 5}, "text_config"),
        ({"quantization_config": "awq"}, "quantization_config"),
    ],
)
def test_what_cannot_be_is_refused_by_name(change: dict[str, object], named: str) -> None:
    """The message names the field that stands in the way."""
    with pytest.raises(CalcError, match=named):
        imported({**LLAMA, **change})


@pytest.mark.parametrize(
    ("given", "precision"),
    [
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, "w4a16kv16_g128"),
        ({"quant_method": "gptq", "bits": 8}, "w8a16kv16"),
        ({"quant_method": "fp8"}, "fp8_kv16"),
        ({"quant_method": "mxfp4"}, "mxfp4_experts"),
        ({"load_in_4bit": True, "quant_method": "bitsandbytes"}, "w4a16kv16"),
        ({"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": {"num_bits": 4}}}},
         "w4a16kv16_g128"),
    ],
)  # fmt: skip
def test_quantization_gives_the_precision(given: dict[str, object], precision: str) -> None:
    """Of the methods that checkpoints name."""
    assert imported({**LLAMA, "quantization_config": given}).precision == precision


def test_an_unknown_quantization_is_a_warning() -> None:
    """The row stands; the precision is the user's to choose."""
    found = imported({**LLAMA, "quantization_config": {"quant_method": "magic", "bits": 3}})
    assert found.precision is None and "magic" in found.warnings[-1]


def test_the_command_prints_the_count_and_saves_the_row(tmp_path: Path, run: Run) -> None:
    """`import` prints `parameters N` on a line of its own; the saved row serves every command."""
    config, saved, row = tmp_path / "config.json", tmp_path / "own.csv", tmp_path / "row.json"
    config.write_text(json.dumps(LLAMA))
    done = run("import", str(config), "--id", "me/mine", "--save", str(saved), "--output", str(row))
    assert done.returncode == 0, done.stderr
    assert f"parameters {LLAMA_COUNT}" in done.stdout.splitlines()
    assert "assumed attention_bias = false" in done.stdout
    assert json.loads(row.read_text())["n_layers"] == 32
    done = run("analyze", "me/mine", "h100", "--by", "stage", "--models", str(saved))
    assert done.returncode == 0, done.stderr
    done = run("describe", "me/mine", "--models", str(saved))
    assert done.returncode == 0 and f"parameters {LLAMA_COUNT}" in done.stdout.splitlines()
    assert "me/mine" in run("models", "--like", "me/mine", "--models", str(saved)).stdout
    assert run("import", str(config), "--id", "me/mine", "--save", str(saved)).returncode == 0
    assert pl.read_csv(saved).height == 1


def test_a_folder_with_safetensors_gives_stored_bytes(tmp_path: Path) -> None:
    """Headers alone are read: bytes, elements and formats of every tensor."""
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    header = json.dumps({
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "BF16", "shape": [3, 5], "data_offsets": [0, 30]},
        "b": {"dtype": "F32", "shape": [], "data_offsets": [30, 34]},
    }).encode()  # fmt: skip
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(34))
    stored = import_model(load(), tmp_path).stored
    assert stored is not None
    assert (stored.n_bytes, stored.n_elements, stored.dtypes) == (34, 16, ("BF16", "F32"))
    (tmp_path / "model.safetensors").unlink()
    index = {"metadata": {"total_size": 16060522496}, "weight_map": {}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    again = import_model(load(), tmp_path).stored
    assert again is not None and again.n_bytes == 2 * LLAMA_COUNT


@pytest.mark.parametrize("content", [b"", b"1234567", b"\xff" * 64, struct.pack("<Q", 10) + b"not json!!"])
def test_a_broken_safetensors_file_is_named(tmp_path: Path, content: bytes) -> None:
    """Never a traceback."""
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(CalcError, match=r"model\.safetensors"):
        import_model(load(), tmp_path)


@pytest.mark.parametrize(
    ("model", "architecture", "sizes"),
    [
        ("mistralai/Mixtral-8x7B-v0.1", "llama", {
            "block_count": 32, "embedding_length": 4096, "feed_forward_length": 14336, "attention.head_count": 32,
            "attention.head_count_kv": 8, "context_length": 32768, "expert_count": 8, "expert_used_count": 2,
            "vocab_size": 32000, "rope.dimension_count": 128}),
        ("deepseek-ai/DeepSeek-V2-Lite", "deepseek2", {
            "block_count": 27, "embedding_length": 2048, "feed_forward_length": 10944, "attention.head_count": 16,
            "attention.head_count_kv": 1, "context_length": 163840, "attention.kv_lora_rank": 512,
            "attention.key_length": 576, "attention.value_length": 512, "attention.key_length_mla": 192,
            "attention.value_length_mla": 128, "rope.dimension_count": 64, "expert_count": 64, "expert_used_count": 6,
            "expert_shared_count": 2, "expert_feed_forward_length": 1408, "leading_dense_block_count": 1,
            "vocab_size": 102400}),
        ("Qwen/Qwen3-30B-A3B", "qwen3moe", {
            "block_count": 48, "embedding_length": 2048, "feed_forward_length": 6144, "attention.head_count": 32,
            "attention.head_count_kv": 4, "attention.key_length": 128, "context_length": 40960, "expert_count": 128,
            "expert_used_count": 8, "expert_feed_forward_length": 768, "vocab_size": 151936}),
    ],
)  # fmt: skip
def test_gguf_metadata_of_known_models(tmp_path: Path, model: str, architecture: str, sizes: dict[str, int]) -> None:
    """What llama.cpp writes of a published model gives the model's row."""
    gguf = pytest.importorskip("gguf")
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in sizes.items():
        writer.add_uint32(f"{architecture}.{key}", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    assert counts([import_model(load(), path)]) == [catalogue()[model]]


def test_gguf(tmp_path: Path) -> None:
    """A file written with llama.cpp's own package: its keys become a row, its tensors the stored count."""
    gguf = pytest.importorskip("gguf")
    import numpy as np

    path = tmp_path / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_context_length(128)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(96)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_vocab_size(100)
    writer.add_tensor("token_embd.weight", np.zeros((100, 64), dtype=np.float16))
    writer.add_tensor("output.weight", np.zeros((100, 64), dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = import_model(load(), path)
    h, layer = 64, 64 * 64 * 2 + 2 * 64 * 32 + 3 * 64 * 96 + 2 * 64
    assert counts([found]) == [2 * 100 * h + 2 * layer + h]
    assert found.stored is not None and found.stored.n_elements == 2 * 100 * 64
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(path.read_bytes()[:40])
    with pytest.raises(CalcError, match=r"broken\.gguf"):
        import_model(load(), broken)


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"5", b"null", b"{", b"\xff\xfe", b'{"model_type": "llama"', b"[" * 100_000, b'{"a":' * 50_000,
     b"x" * 10_000_000, b'{"model_type": "llama", "hidden_size": ' + b"9" * 6000 + b"}"],
)  # fmt: skip
def test_junk_is_refused(tmp_path: Path, run: Run, content: bytes) -> None:
    """Ten megabytes of it, nested deeply, cut off: a message, never a traceback."""
    path = tmp_path / "config.json"
    path.write_bytes(content)
    done = run("import", str(path))
    assert done.returncode == 2 and done.stderr.startswith("error:")
    assert "Traceback" not in done.stderr and len(done.stderr) < 500


@pytest.mark.parametrize("source", ["nowhere.json", "no/such/folder/config.json", "nothing", "a/b/c", "-", "\0"])
def test_what_is_not_there(run: Run, source: str) -> None:
    """A file that does not exist, or a name that is none."""
    done = run("import", source)
    assert done.returncode == 2 and "Traceback" not in done.stderr


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=True, allow_infinity=True),
    st.text(max_size=8), st.lists(st.integers(0, 5), max_size=4), st.dictionaries(st.text(max_size=3), st.none()),
)  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(name=st.sampled_from(sorted(CONFIGS)), seed=st.integers(0, 2**32), value=VALUES, drop=st.booleans())
def test_a_changed_configuration_is_a_row_or_an_error(name: str, seed: int, value: object, drop: bool) -> None:
    """Mutations, at the top or inside: never a traceback; what is accepted keeps the table's rules."""
    config = copy.deepcopy(CONFIGS[name])
    inside = [config, *(v for v in config.values() if isinstance(v, dict) and v)]
    rng = random.Random(seed)
    changed = rng.choice(inside)
    key = rng.choice(sorted(changed))
    if drop:
        del changed[key]
    else:
        changed[key] = value
    try:
        found = imported(config)
    except CalcError as error:
        assert str(error)
        return
    assert found.row["model_id"] == "mine"
    for column, cell in found.row.items():
        assert cell is None or isinstance(cell, bool | str | float), column


@settings(max_examples=60, deadline=None)
@given(content=st.binary(max_size=200))
def test_bytes_are_an_object_or_an_error(content: bytes) -> None:
    """Whatever the bytes."""
    with contextlib.suppress(CalcError):
        assert isinstance(parse_config(content, "config.json"), dict)


class Hub(http.server.BaseHTTPRequestHandler):
    """One public model, as the hub serves it."""

    def do_HEAD(self) -> None:
        """Answer what the client asks before it downloads."""
        self._answer()

    def do_GET(self) -> None:
        """Answer the file."""
        self.wfile.write(self._answer())

    def _answer(self) -> bytes:
        known = self.path == "/owner/model/resolve/main/config.json"
        content = json.dumps(LLAMA).encode() if known else b""
        self.send_response(200 if known else 404)
        for header, value in {
            "ETag": '"1"', "X-Repo-Commit": "0" * 40, "Content-Length": str(len(content)),
            **({} if known else {"X-Error-Code": "EntryNotFound" if "/owner/model/" in self.path else "RepoNotFound"}),
        }.items():  # fmt: skip
            self.send_header(header, value)
        self.end_headers()
        return content

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def test_a_name_on_the_hub(tmp_path: Path, process: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a hub that is there, once; from the cache when it is gone; a message where there is neither."""
    pytest.importorskip("huggingface_hub")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    first = process("import", "owner/model")
    assert first.returncode == 0 and f"parameters {LLAMA_COUNT}" in first.stdout.splitlines(), first.stderr
    missing = process("import", "owner/other")
    assert missing.returncode == 2 and "gated or unknown" in missing.stderr
    server.shutdown()
    server.server_close()
    again = process("import", "owner/model")
    assert again.returncode == 0 and f"parameters {LLAMA_COUNT}" in again.stdout.splitlines()
    gone = process("import", "owner/other")
    assert gone.returncode == 2 and "cannot be reached" in gone.stderr and len(gone.stderr.splitlines()) == 1
