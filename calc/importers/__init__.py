"""Importers: a model's own files become a row of models.csv."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from calc.errors import CalcError
from calc.files import read_bytes, read_json
from calc.importers.config import Imported, import_config
from calc.tables import Tables

LARGEST_BYTES = 8_000_000
"""No configuration is larger; what is, is some other file."""
SOURCE = "user"


def import_model(tables: Tables, target: str | os.PathLike[str], model_id: str | None = None) -> Imported:
    """Return the row of a model: from a config.json, a folder with one, a .gguf file, or a name on the hub.

    The row is checked like models.csv; ``assumed``, ``warnings`` and ``ignored`` say what it rests on. Nothing of the
    model is executed. Raises CalcError that names the file or the field that stands in the way.
    """
    path = Path(target)
    try:
        exists, is_folder = path.exists(), path.is_dir()
    except (OSError, ValueError) as error:
        raise CalcError(f"{str(target)[:80]!r}: cannot be a path ({error})") from error
    if is_folder:
        from calc.importers.safetensors import stored

        config = read_config(path / "config.json")
        imported = import_config(tables, config, model_id or model_name(config, path.resolve().name), SOURCE)
        try:
            imported.stored = stored(path)
        except CalcError as error:
            # the row is the configuration's: weights that cannot be read only leave it without its cross-check
            imported.warnings.append(str(error))
        return imported
    if path.suffix.lower() == ".gguf":
        from calc.importers.gguf import read_gguf

        config, held = read_gguf(tables, path)
        imported = import_config(tables, config, model_id or path.stem, SOURCE)
        imported.stored = held
        return imported
    if exists or path.suffix.lower() == ".json":
        config = read_config(path)
        return import_config(tables, config, model_id or model_name(config, _stem(path)), SOURCE)
    from calc.importers.hub import download

    folder = download(str(target))
    return import_model(tables, folder, model_id or str(target))


def read_config(path: Path, largest: int = LARGEST_BYTES) -> dict[str, object]:
    """Return a JSON file's object; raises CalcError for what is none, or has more than ``largest`` bytes."""
    try:
        content = read_bytes(path, largest)
    except OSError as error:
        raise CalcError(f"{path}: cannot be read ({error.strerror or error})") from error
    return parse_config(content, path.name)


def parse_config(content: bytes, name: str) -> dict[str, object]:
    """Return the object that a JSON text holds; raises CalcError where it holds none."""
    try:
        found = read_json(content)
    except ValueError as error:
        raise CalcError(f"{name}: {error}") from error
    if not isinstance(found, dict):
        raise CalcError(f"{name}: holds {type(found).__name__}, not the object that a configuration is")
    return found


def model_name(config: Mapping[str, object], fallback: str) -> str:
    """Return the name that a configuration gives its model, where it gives one that is no local path."""
    for key in ("_model_id", "_name_or_path"):
        given = config.get(key)
        name = given.strip() if isinstance(given, str) else ""
        if name and name.isprintable() and not name.startswith((".", "/", "~")) and len(name) < 200:
            return name
    return fallback


def _stem(path: Path) -> str:
    return path.stem if path.stem != "config" else path.resolve().parent.name or "model"
