"""What safetensors files say of themselves: tensors, elements and bytes, from their headers alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from calc.errors import CalcError
from calc.files import read_json

LARGEST_HEADER = 100_000_000
"""Bytes that the safetensors format allows a header; the index of a model names the same tensors."""
INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Stored:
    """What is stored of a model: bytes, and elements where every tensor's shape is known."""

    n_bytes: int
    n_elements: int | None
    dtypes: tuple[str, ...]
    note: str


def stored(folder: Path) -> Stored | None:
    """Return what the safetensors files of a folder hold, or what their index says; None where there is neither.

    Raises CalcError for a header or an index that is none.
    """
    from calc.importers import read_config

    index = folder / INDEX
    listed = read_config(index, LARGEST_HEADER) if index.exists() else {}
    files = _files(folder, listed)
    if files:
        shapes = [shape for file in files for shape in _tensors(file)]
        dtypes = tuple(sorted({d for d, _, _ in shapes}))
        note = f"{len(shapes)} tensors in {len(files)} file{'s' if len(files) > 1 else ''}"
        return Stored(sum(n for _, _, n in shapes), sum(math.prod(s) for _, s, _ in shapes), dtypes, note)
    if not listed:
        return None
    metadata = listed.get("metadata")
    said = metadata if isinstance(metadata, dict) else {}
    size, count = said.get("total_size"), said.get("total_parameters")
    if not _is_whole(size):
        raise CalcError(f"{INDEX}: metadata.total_size is not a number of bytes")
    return Stored(int(size), int(count) if _is_whole(count) and count > 0 else None, (), f"by {INDEX}")


def _files(folder: Path, index: Mapping[str, object]) -> list[Path]:
    """Return the files that hold the model once: those of the index, else those named as its, else all.

    A folder may hold the same weights in a second layout (``consolidated*``) or adapters beside them.
    """
    placed = index.get("weight_map")
    names = sorted(set(map(str, placed.values()))) if isinstance(placed, dict) else []
    if names:
        listed = [folder / name for name in names]
        return listed if all(f.name == n and f.is_file() for f, n in zip(listed, names, strict=True)) else []
    found = sorted(folder.glob("*.safetensors"))
    return [f for f in found if f.name.startswith("model")] or found


def _tensors(file: Path) -> list[tuple[str, list[int], int]]:
    """Return (dtype, shape, bytes) of each tensor in a file's header."""
    try:
        with file.open("rb") as handle:
            length = int.from_bytes(handle.read(8), "little")
            if not 2 <= length <= LARGEST_HEADER:
                raise CalcError(f"{file.name}: its header cannot have {length} bytes; it is no safetensors file")
            header = read_json(handle.read(length))
            held = file.stat().st_size - 8 - length
    except OSError as error:
        raise CalcError(f"{file}: cannot be read ({error.strerror})") from error
    except CalcError:
        raise
    except ValueError as error:
        raise CalcError(f"{file.name}: its header is not JSON; it is no safetensors file") from error
    tensors = {n: e for n, e in header.items() if n != "__metadata__"} if isinstance(header, dict) else {}
    if not tensors:
        raise CalcError(f"{file.name}: names no tensor")
    return [_tensor(file.name, name, entry, held) for name, entry in tensors.items()]


def _tensor(file: str, name: str, entry: object, held: int) -> tuple[str, list[int], int]:
    described = entry if isinstance(entry, dict) else {}
    dtype, shape, place = described.get("dtype"), described.get("shape"), described.get("data_offsets")
    if not (isinstance(dtype, str) and _are_whole(shape) and _are_whole(place) and len(place) == 2):
        raise CalcError(f"{file}: tensor {name!r} has no dtype, shape and place")
    if not place[0] <= place[1] <= held:
        raise CalcError(f"{file}: tensor {name!r} lies outside of the file; is it cut short?")
    return dtype, shape, place[1] - place[0]


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _are_whole(values: object) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(map(_is_whole, values))
