"""What safetensors files say of themselves: tensors, elements and bytes, from their headers alone."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from calc.errors import CalcError

LARGEST_HEADER = 100_000_000


@dataclass(frozen=True)
class Stored:
    """What is stored of a model: bytes, and elements where every tensor's shape is known."""

    n_bytes: int
    n_elements: int | None
    dtypes: tuple[str, ...]
    note: str


def stored(folder: Path) -> Stored | None:
    """Return what the safetensors files of a folder hold, or what their index says; None where there is neither.

    Raises CalcError for a header that is none.
    """
    files = sorted(folder.glob("*.safetensors"))
    if files:
        shapes = [shape for file in files for shape in _tensors(file)]
        elements = sum(math.prod(s) for _, s, _ in shapes)
        dtypes = tuple(sorted({d for d, _, _ in shapes}))
        note = f"{len(shapes)} tensors in {len(files)} file{'s' if len(files) > 1 else ''}"
        return Stored(sum(n for _, _, n in shapes), elements, dtypes, note)
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return None
    from calc.importers import read_config

    metadata = read_config(index).get("metadata")
    size = metadata.get("total_size") if isinstance(metadata, dict) else None
    if not isinstance(size, int | float) or isinstance(size, bool) or not 0 <= size < 1e18:
        raise CalcError(f"{index.name}: metadata.total_size is not a number of bytes")
    count = metadata.get("total_parameters") if isinstance(metadata, dict) else None
    known = int(count) if isinstance(count, int) and not isinstance(count, bool) and count > 0 else None
    return Stored(int(size), known, (), f"by {index.name}")


def _tensors(file: Path) -> list[tuple[str, list[int], int]]:
    """Return (dtype, shape, bytes) of each tensor in a file's header."""
    try:
        with file.open("rb") as handle:
            length = int.from_bytes(handle.read(8), "little")
            if not 2 <= length <= LARGEST_HEADER:
                raise CalcError(f"{file.name}: its header cannot have {length} bytes; it is no safetensors file")
            header = json.loads(handle.read(length).decode("utf-8"))
    except OSError as error:
        raise CalcError(f"{file}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise CalcError(f"{file.name}: its header is not JSON; it is no safetensors file") from error
    found = []
    for name, entry in header.items() if isinstance(header, dict) else ():
        if name == "__metadata__":
            continue
        try:
            shape, (start, end) = [int(n) for n in entry["shape"]], entry["data_offsets"]
            found.append((str(entry["dtype"]), shape, int(end) - int(start)))
        except (KeyError, TypeError, ValueError) as error:
            raise CalcError(f"{file.name}: tensor {name!r} has no dtype, shape and place") from error
    if not found:
        raise CalcError(f"{file.name}: names no tensor")
    return found
