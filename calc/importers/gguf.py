"""A GGUF file's metadata as a configuration: the keys of llama.cpp in the spelling of ``config.json``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from calc.errors import CalcError
from calc.expressions import value_of
from calc.formula import names, parse
from calc.importers.safetensors import Stored
from calc.tables import Tables

INSTALL = "pip install -r calc/importers/requirements.txt"


def read_gguf(tables: Tables, path: Path) -> tuple[dict[str, object], Stored]:
    """Return a GGUF file's metadata as a configuration, and what its tensors hold.

    Raises CalcError for a file that is none, or an architecture whose metadata does not say all that is needed.
    """
    try:
        import gguf
    except ImportError as error:
        raise CalcError(f"{path.name}: reading GGUF needs the package gguf: {INSTALL}") from error
    if not path.is_file():
        raise CalcError(f"{path}: there is no such file")

    class Reader(gguf.GGUFReader):
        """Refuses an array that says it is longer than its file, which would be walked through for hours."""

        def _get_field_parts(self, orig_offs: int, raw_type: int) -> Any:
            if raw_type == gguf.GGUFValueType.ARRAY and int(self._get(orig_offs + 4, "u8")[0]) > self.data.nbytes:
                raise ValueError("an array is longer than the file")
            return super()._get_field_parts(orig_offs, raw_type)

    try:
        reader = Reader(path)
        fields = {name: f.contents() for name, f in reader.fields.items() if not name.startswith("tokenizer.")}
        tokens = reader.fields.get("tokenizer.ggml.tokens")
        tensors = {t.name: (math.prod(map(int, t.shape)), int(t.n_bytes), t.tensor_type.name) for t in reader.tensors}
    except Exception as error:  # the reader raises whatever a broken file makes it stumble over
        raise CalcError(f"{path.name}: is no GGUF file that can be read ({str(error).splitlines()[0]})") from error
    parts = fields.get("split.count")
    if isinstance(parts, int) and parts > 1:
        raise CalcError(
            f"{path.name}: is one of {parts} parts of a model; put them together first: llama-gguf-split --merge"
        )
    config = _configuration(tables, fields)
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


def _configuration(tables: Tables, fields: Mapping[str, object]) -> dict[str, object]:
    """Return what the formulas of a file's architecture make of its metadata."""
    own = str(fields.get("general.architecture", ""))
    # llama.cpp calls a Mixtral a llama
    architecture = "mixtral" if own == "llama" and fields.get("llama.expert_count") else own
    types = dict(tables["gguf_types"].iter_rows())
    if architecture not in types:
        raise CalcError(f"general.architecture: {own!r} cannot be imported from GGUF; {', '.join(types)} can")
    values = {n.removeprefix(f"{own}.").replace(".", "__"): (n, v) for n, v in fields.items()}
    rows = [r for r in tables["gguf_formulas"].iter_rows() if r[0] in ("*", architecture)]
    config: dict[str, object] = {"model_type": types[architecture]}
    for of, key, text in rows:
        formula = parse(text)
        value = value_of(formula, {n: _number(*values.get(n, (n, None))) for n in names(formula)}, key)
        # null of a key of the architecture's own says something, too: the model has none
        if value is not None or of == architecture:
            config[key] = int(value) if isinstance(value, float) and value.is_integer() else value
    return config


def _number(name: str, value: object) -> pl.Series:
    """Return a value of the metadata; a list of one value per layer must say the same of each."""
    values = value if isinstance(value, list) else [value]
    if len(set(map(str, values))) > 1:
        raise CalcError(f"{name}: differs from layer to layer")
    one = values[0] if values else None
    if isinstance(one, bool) or not (one is None or isinstance(one, int | float)):
        raise CalcError(f"{name}: {one!r} is not a number")
    return pl.Series([one], dtype=pl.Float64)


def _by_tensors(names: set[str]) -> dict[str, object]:
    """Return what a file's tensors say and its keys do not."""
    return {
        "tie_word_embeddings": "output.weight" not in names,
        "attention_bias": "blk.0.attn_q.bias" in names,
        "mlp_bias": "blk.0.ffn_up.bias" in names,
    }
