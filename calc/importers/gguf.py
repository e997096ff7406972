"""A GGUF file's metadata as a configuration: the keys of llama.cpp in the spelling of ``config.json``."""

from __future__ import annotations

import math
from pathlib import Path

from calc.errors import CalcError
from calc.importers.safetensors import Stored

INSTALL = "pip install -r calc/importers/requirements.txt"
KEYS = {
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "context_length": "max_position_embeddings",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.sliding_window": "sliding_window",
    "expert_count": "num_experts",
    "expert_used_count": "num_experts_per_tok",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_shared_feed_forward_length": "shared_expert_intermediate_size",
    "vocab_size": "vocab_size",
}
"""llama.cpp's key after its architecture → the key of a configuration."""
TYPES = {
    "llama": "llama", "qwen2": "qwen2", "qwen2moe": "qwen2_moe", "qwen3": "qwen3", "qwen3moe": "qwen3_moe",
    "gemma": "gemma", "gemma2": "gemma2", "gemma3": "gemma3_text", "phi3": "phi3", "olmo2": "olmo2",
    "starcoder2": "starcoder2", "stablelm": "stablelm", "internlm2": "internlm2", "granite": "granite",
}  # fmt: skip
"""llama.cpp's architecture → the model type whose formulas read these keys."""


def read_gguf(path: Path) -> tuple[dict[str, object], Stored]:
    """Return a GGUF file's metadata as a configuration, and what its tensors hold.

    Raises CalcError for a file that is none, or an architecture whose metadata does not say all that is needed.
    """
    try:
        import gguf
    except ImportError as error:
        raise CalcError(f"{path.name}: reading GGUF needs the package gguf: {INSTALL}") from error
    if not path.exists():
        raise CalcError(f"{path}: there is no such file")
    try:
        reader = gguf.GGUFReader(path)
        fields = {name: f.contents() for name, f in reader.fields.items() if not name.startswith("tokenizer.")}
        tokens = reader.fields.get("tokenizer.ggml.tokens")
        tensors = {t.name: (math.prod(map(int, t.shape)), int(t.n_bytes), t.tensor_type.name) for t in reader.tensors}
    except Exception as error:  # the reader raises whatever a broken file makes it stumble over
        raise CalcError(f"{path.name}: is no GGUF file that can be read ({str(error).splitlines()[0]})") from error
    architecture = str(fields.get("general.architecture", ""))
    if architecture not in TYPES:
        known = ", ".join(TYPES)
        raise CalcError(f"general.architecture: {architecture!r} cannot be imported from GGUF; {known} can")
    config = {KEYS[k]: v for k in KEYS if (v := fields.get(f"{architecture}.{k}")) is not None}
    config["model_type"] = "mixtral" if architecture == "llama" and config.get("num_experts") else TYPES[architecture]
    if "vocab_size" not in config and tokens is not None:
        config["vocab_size"] = len(tokens.data)
    if tensors:
        config |= _by_tensors(set(tensors))
    name = fields.get("general.name")
    if isinstance(name, str) and name:
        config["_name_or_path"] = name
    elements, sizes = sum(n for n, _, _ in tensors.values()), sum(b for _, b, _ in tensors.values())
    kinds = tuple(sorted({k for _, _, k in tensors.values()}))
    return config, Stored(sizes, elements or None, kinds, f"{len(tensors)} tensors")


def _by_tensors(names: set[str]) -> dict[str, object]:
    """Return what a file's tensors say and its keys do not."""
    return {
        "tie_word_embeddings": "output.weight" not in names,
        "attention_bias": "blk.0.attn_q.bias" in names,
        "mlp_bias": "blk.0.ffn_up.bias" in names,
    }
