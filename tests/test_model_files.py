"""A model's own files: a folder with weights, GGUF, and tables of models that a user keeps."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import polars as pl
import pytest
from conftest import Run
from test_import import LLAMA, LLAMA_COUNT, catalogue, counts

import calc
from calc.errors import CalcError, DataError
from calc.importers import import_model
from calc.tables import load


def safetensors(path: Path, *shapes: list[int], cut: int = 0) -> None:
    """Write a file of 16-bit tensors of some shapes, short of its last bytes."""
    header, at = {}, 0
    for index, shape in enumerate(shapes):
        size = 2
        for n in shape:
            size *= n
        header[f"t{index}"] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(at - cut))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a model's folder with a configuration."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(LLAMA))
    return tmp_path / "model"


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
    """The row is the configuration's; that its weights cannot be read is said beside it."""
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    (tmp_path / "model.safetensors").write_bytes(content)
    imported = import_model(load(), tmp_path)
    assert imported.stored is None
    assert any("model.safetensors" in warning for warning in imported.warnings)


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


def test_a_gguf_in_parts_is_refused(tmp_path: Path) -> None:
    """One part's tensors are not the model's: whether it has a head could not be told."""
    gguf = pytest.importorskip("gguf")
    path = tmp_path / "model-00001-of-00002.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint16("split.count", 2)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(CalcError, match="one of 2 parts"):
        import_model(load(), path)


def test_a_gguf_whose_array_cannot_be_is_refused_at_once(tmp_path: Path) -> None:
    """It says that it holds 2^60 members: they are not looked for."""
    pytest.importorskip("gguf")
    name = b"a.b"
    field = struct.pack("<Q", len(name)) + name + struct.pack("<IIQ", 9, 5, 2**60)
    path = tmp_path / "bomb.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + field + bytes(4096))
    with pytest.raises(CalcError, match=r"bomb\.gguf.*longer than the file"):
        import_model(load(), path)


def test_weights_in_two_layouts_are_counted_once(folder: Path) -> None:
    """Mistral's folders hold everything again as consolidated; an index says which files are the model's."""
    safetensors(folder / "consolidated.safetensors", [5, 7])
    safetensors(folder / "model-00001-of-00002.safetensors", [3, 5])
    safetensors(folder / "model-00002-of-00002.safetensors", [2])
    stored = import_model(load(), folder).stored
    assert stored is not None and stored.n_elements == 17
    index = {"metadata": {}, "weight_map": {"t0": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    stored = import_model(load(), folder).stored
    assert stored is not None and stored.n_elements == 15


def test_a_large_index_is_read(folder: Path) -> None:
    """Models of many experts have indices of tens of megabytes."""
    index = {"metadata": {"total_size": 10}, "weight_map": {f"{i:0500d}": "absent.safetensors" for i in range(20_000)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    stored = import_model(load(), folder).stored
    assert stored is not None and stored.n_bytes == 10


def test_a_file_cut_short_is_told(folder: Path) -> None:
    """A download that broke off."""
    safetensors(folder / "model.safetensors", [3, 5], cut=1)
    assert "cut short" in import_model(load(), folder).warnings[-1]


def test_saving_into_another_table_is_refused(tmp_path: Path, folder: Path, run: Run) -> None:
    """What a user mistook for a table of models is as it was."""
    contacts = tmp_path / "contacts.csv"
    contacts.write_text("name,phone\nbob,123\n")
    done = run("import", str(folder), "--save", str(contacts))
    assert done.returncode == 2 and "'phone'" in done.stderr
    assert contacts.read_text() == "name,phone\nbob,123\n"


def test_a_row_that_replaces_another_is_told(tmp_path: Path, folder: Path, run: Run) -> None:
    """Of the saved file, through a link that stays one, or of the catalogue."""
    saved, link = tmp_path / "own.csv", tmp_path / "link.csv"
    link.symlink_to(saved)
    name = "meta-llama/Meta-Llama-3-8B"
    assert "catalogue's own" in run("import", str(folder), "--id", name, "--save", str(link)).stdout
    assert "has been replaced" in run("import", str(folder), "--id", name.lower(), "--save", str(saved)).stdout
    assert link.is_symlink() and pl.read_csv(saved)["model_id"].to_list() == [name.lower()]
    assert run("analyze", "llama-3-8b", "h100", "--models", str(saved)).returncode == 0


@pytest.mark.parametrize("name", ["a\rb", "a\nb", "a\x1b[31m", "llama-3-8b", "\udcff"])
def test_a_name_that_cannot_be(folder: Path, run: Run, name: str) -> None:
    """Signs that cannot be printed would break the table; another model's alias would be ambiguous."""
    done = run("import", str(folder), "--id", name)
    assert done.returncode == 2 and done.stderr.startswith("error:") and "Traceback" not in done.stderr


OWN = {
    "model_id": "me/own", "family": "llama", "n_layers": 2, "hidden": 64, "vocab": 100, "n_heads": 4, "n_kv_heads": 4,
    "head_dim": 16, "rotary_dim": 16, "intermediate": 96, "is_gated_mlp": True, "context_limit": 128,
    "norm_type": "rms", "n_norm_vectors": 1, "n_mixer_norms": 1, "n_mlp_norms": 1, "n_position_rows": 0,
    "source_id": "user",
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_layers": 0}, "own.json, row 2, column n_layers"),
        ({"n_kv_heads": 3}, "own.json, row 2: key/value heads divide query heads"),
        ({"source_id": "nowhere"}, "own.json, row 2, column source_id: 'nowhere' is not in sources.csv"),
        ({"aliases": "llama-3-8b"}, "own.json, row 2, column aliases: 'llama-3-8b' already means"),
        ({"model_id": "ME/FIRST"}, "own.json, row 2, column model_id: 'ME/FIRST' is already in row 1"),
        ({"n_layers": [2]}, "own.json, column n_layers"),
        ({"colour": "red"}, "own.json: column 'colour'"),
    ],
)
def test_own_rows_are_named_as_the_user_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, object], message: str
) -> None:
    """The file and the row of the user's own table, not those of the merged one."""
    path = tmp_path / "own.json"
    rows = [{**OWN, "model_id": "me/first"}, {**OWN, **change}]
    path.write_text(json.dumps(rows if "n_layers" not in change or change["n_layers"] == 0 else rows[1:]))
    monkeypatch.setenv("CALC_MODELS", str(path))
    with pytest.raises(DataError) as caught:
        load()
    assert any(v.startswith(message) for v in caught.value.violations), caught.value.violations


def test_an_own_row_takes_over_the_aliases_of_the_one_it_replaces() -> None:
    """In whatever case it is written."""
    tables = load().extended("models", pl.DataFrame([{**OWN, "model_id": "META-llama/meta-llama-3-8b"}]))
    assert tables["models"].height == load()["models"].height
    row = tables["models"].filter(pl.col("hidden") == 64).row(0, named=True)
    assert "llama-3-8b" in row["aliases"].split("|")


@pytest.mark.parametrize("content", ["[]", "{}", "[{}]", "[5]", "5", '"x"'])
def test_an_own_table_without_rows_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    """It would be silently nothing."""
    (tmp_path / "own.json").write_text(content)
    monkeypatch.setenv("CALC_MODELS", str(tmp_path / "own.json"))
    with pytest.raises(DataError, match=r"own\.json: cannot be read"):
        calc.models()


def test_least_first_is_sorted_with_a_dash(run: Run) -> None:
    """As the help says: `--sort -COLUMN`."""
    done = run("models", "--sort", "-n_parameters", "--output", "least.csv")
    assert done.returncode == 0, done.stderr
    assert pl.read_csv("least.csv")["n_parameters"].is_sorted()
