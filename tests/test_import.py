"""Importing models: every configuration of the catalogue, broken ones, and files of other kinds."""

from __future__ import annotations

import contextlib
import copy
import http.server
import json
import math
import random
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
from calc.importers import parse_config
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


def compressed(weights: object, activations: object = None, kv_cache: object = None) -> dict[str, object]:
    """Return the quantization that llm-compressor writes of one group of layers."""
    group = {"weights": weights, "input_activations": activations}
    return {"quant_method": "compressed-tensors", "config_groups": {"group_0": group}, "kv_cache_scheme": kv_cache}


@pytest.mark.parametrize(
    ("given", "precision"),
    [
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, "w4a16kv16_g128"),
        ({"quant_method": "gptq", "bits": 8}, "w8a16kv16_g128"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 32}, "w4a16kv16_g32"),
        ({"quant_method": "gptq", "bits": 4}, "w4a16kv16_g128"),
        ({"quant_method": "fp8"}, "fp8_kv16"),
        ({"quant_method": "mxfp4"}, "mxfp4_experts"),
        ({"load_in_4bit": True, "quant_method": "bitsandbytes"}, "nf4"),
        ({"load_in_4bit": True, "quant_method": "bitsandbytes", "bnb_4bit_quant_type": "nf4",
          "bnb_4bit_use_double_quant": True}, "nf4_double"),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8_block"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "nvfp4"),
        (compressed({"num_bits": 4, "type": "int", "group_size": 128, "symmetric": False}), "w4a16kv16_g128"),
        (compressed({"num_bits": 4, "type": "int", "group_size": 128}), "w4a16kv16_g128_sym"),
        (compressed({"num_bits": 4, "type": "float", "group_size": 16}, {"num_bits": 4}), "nvfp4_kv16"),
        (compressed({"num_bits": 8, "type": "float"}, {"num_bits": 8, "type": "float"}), "fp8_kv16"),
        (compressed({"num_bits": 8, "type": "float"}, {"num_bits": 8}, {"num_bits": 8}), "fp8"),
        (compressed({"num_bits": 8, "type": "int"}), "w8a16kv16"),
        (compressed({"num_bits": 8, "type": "int"}, {"num_bits": 8}), "w8a8kv16"),
        ({"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 4}}}, "w4a16kv16"),
        ({"quant_method": "torchao", "quant_type": "int8_weight_only"}, "w8a16kv16"),
        ({"quant_method": "torchao", "quant_type": {"default": {"_type": "Int4WeightOnlyConfig"}}}, "w4a16kv16"),
    ],
)  # fmt: skip
def test_quantization_gives_the_precision(given: dict[str, object], precision: str) -> None:
    """Of the methods that checkpoints name."""
    assert imported({**LLAMA, "quantization_config": given}).precision == precision


@pytest.mark.parametrize(
    "given",
    [
        {"quant_method": "magic", "bits": 3},
        {"quant_method": "gptq"},
        {"quant_method": "awq", "bits": 4, "group_size": 48},
        {"quant_method": "torchao"},
        compressed({"num_bits": 4, "type": "float", "group_size": 16}, {"num_bits": 8}),
        {"quant_method": "compressed-tensors", "config_groups": {
            "a": {"weights": {"num_bits": 4, "type": "int"}}, "b": {"weights": {"num_bits": 8, "type": "int"}}}},
    ],
)  # fmt: skip
def test_an_unknown_quantization_is_a_warning(given: dict[str, object]) -> None:
    """The row stands; the precision is the user's to choose: a near one would be wrong."""
    found = imported({**LLAMA, "quantization_config": given})
    assert found.precision is None and str(given["quant_method"]) in found.warnings[-1]


@pytest.mark.parametrize(
    ("classes", "has_head"),
    [(["LlamaForCausalLM"], True), (["LlamaModel"], False), (["LlamaForSequenceClassification"], False),
     (["ChatGLMModel"], True), (["GPT2LMHeadModel"], True), (["MistralModel", "MistralForCausalLM"], True),
     ([], True), (None, True)],
)  # fmt: skip
def test_a_model_without_a_head_is_counted_without(classes: list[str] | None, has_head: bool) -> None:
    """An embedding model's files hold no head, whatever its configuration says of the tie."""
    found = imported({**LLAMA, "architectures": classes})
    assert counts([found]) == [LLAMA_COUNT - (0 if has_head else 128256 * 4096)]
    assert bool(found.warnings) is not has_head and not found.ignored


@pytest.mark.parametrize(
    ("model_type", "tower"), [("llava", "siglip_vision_model"), ("llava", "pixtral"), ("mistral3", "siglip")]
)
def test_another_tower_than_the_described_one_is_refused(model_type: str, tower: str) -> None:
    """Its blocks differ: its sizes in the described tower's formulas would be a wrong count."""
    with pytest.raises(CalcError, match=rf"vision_config\.model_type: '{tower}'"):
        imported({"model_type": model_type, "text_config": LLAMA, "vision_config": {"model_type": tower}})


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"5", b"null", b"{", b"\xff\xfe", b'{"model_type": "llama"', b"[" * 100_000, b'{"a":' * 50_000,
     b'{"model_type": "llama\\ud800"}', b"x" * 10_000_000, b'{"model_type": "llama", "hidden_size": ' + b"9" * 6000 + b"}"],
)  # fmt: skip
def test_junk_is_refused(tmp_path: Path, run: Run, content: bytes) -> None:
    """Ten megabytes of it, nested deeply, cut off: a message, never a traceback."""
    path = tmp_path / "config.json"
    path.write_bytes(content)
    done = run("import", str(path))
    assert done.returncode == 2 and done.stderr.startswith("error:")
    assert "Traceback" not in done.stderr and len(done.stderr) < 500


@pytest.mark.parametrize(
    "source", ["nowhere.json", "no/such/folder/config.json", "nothing", "a/b/c", "-", "\0", "/dev/zero", "\udcff"]
)
def test_what_is_not_there(run: Run, source: str) -> None:
    """A file that does not exist, or a name that is none."""
    done = run("import", source)
    assert done.returncode == 2 and "Traceback" not in done.stderr


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=True, allow_infinity=True),
    st.text(max_size=8), st.lists(st.integers(0, 5), max_size=4), st.dictionaries(st.text(max_size=3), st.none()),
)  # fmt: skip


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
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
