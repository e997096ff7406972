"""A dataset on disk: files that are whole or not there, and a manifest that says what is in them."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import polars as pl

from calc.errors import CalcError

MANIFEST, LOCK, ASIDE = "manifest.json", ".lock", ".aside"
ROW_GROUP = 122_880
"""Rows of a row group: what DuckDB reads at once."""
ROUNDED = 7
"""Last bits of a number in single precision that a row's hash leaves out: engines round otherwise."""
SAVE_S = 1.0
"""How long after a part is complete it may take until the manifest says so."""


@dataclass(frozen=True)
class Written:
    """What the manifest says of a part: what its content rests on, and how to tell that it is whole."""

    path: str
    hash: str
    rows: int
    bytes: int
    sha256: str
    row_hash: str


class Dataset:
    """A folder with a grid's files and its manifest."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.about: dict[str, Any] = {}
        self.parts: dict[str, Written] = {}
        self._saved = 0.0

    def read(self) -> Dataset:
        """Read the manifest; raises CalcError where the folder is no grid."""
        path = self.folder / MANIFEST
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            parts = [Written(**p) for p in content.pop("parts")]
        except FileNotFoundError:
            raise CalcError(f"{self.folder}: is no grid: it has no {MANIFEST}") from None
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise CalcError(f"{path}: cannot be read as a manifest ({error}); build the grid again") from error
        self.about, self.parts = content, {p.path: p for p in parts}
        return self

    def save(self, about: dict[str, Any] | None = None, is_due: bool = True) -> None:
        """Write the manifest, whole or not at all."""
        self.about = self.about if about is None else about
        now = time.monotonic()
        if not is_due and now - self._saved < SAVE_S:
            return
        self._saved = now
        text = json.dumps({**self.about, "parts": [asdict(p) for p in self.parts.values()]}, indent=1)
        aside = self.folder / f"{MANIFEST}{ASIDE}"
        with failing(self.folder):
            try:
                aside.write_text(text + "\n", encoding="utf-8")
                _sync(aside)
                aside.replace(self.folder / MANIFEST)
            finally:
                aside.unlink(missing_ok=True)
            _sync(self.folder)

    def place(self, aside: str, part: Written) -> None:
        """Put a part's file, written aside, in its place and note it."""
        target = self.folder / part.path
        with failing(self.folder):
            (self.folder / aside).replace(target)
            _sync(target.parent)
        self.parts[part.path] = part

    def missing(self) -> str:
        """Return what is to be said of a grid that is not complete; nothing of one that is."""
        if self.about.get("is_complete"):
            return ""
        of = self.about.get("n_parts")
        return f"{self.folder}: the grid is not complete: {len(self.parts)} of {of} parts"

    def is_whole(self, part: Written) -> bool:
        """Tell whether a part's file is what was written."""
        try:
            data = (self.folder / part.path).read_bytes()
        except OSError:
            return False
        return len(data) == part.bytes and hashlib.sha256(data).hexdigest() == part.sha256

    def clear(self, wanted: set[str]) -> None:
        """Remove what no part of the grid is: files of an earlier spec, and what an interrupted build left."""
        for path in list(self.parts):
            if path not in wanted:
                del self.parts[path]
        with failing(self.folder):
            for file in [*self.folder.glob("*/*.parquet"), *self.folder.glob(f"**/*{ASIDE}")]:
                if file.relative_to(self.folder).as_posix() not in self.parts:
                    file.unlink()
            for folder in self.folder.glob("model_id=*"):
                if not any(folder.iterdir()):
                    folder.rmdir()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep others from building here; raises CalcError where another does, or the folder is something else."""
        with failing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            others = [p.name for p in self.folder.iterdir() if p.name != LOCK]
            if others and MANIFEST not in others:
                raise CalcError(f"{self.folder}: holds other files ({others[0]}…) and no grid; choose a new folder")
            lock = (self.folder / LOCK).open("w")
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise CalcError(f"{self.folder}: another build is at work here; wait until it ends") from None
            yield


def write_aside(folder: Path, path: str, content: str, frame: pl.DataFrame) -> tuple[str, Written]:
    """Write a part's rows beside its place; return the file, in the folder, and what a manifest says of it.

    Raises CalcError where the disk does not take it.
    """
    aside = (folder / path).with_name(f"{Path(path).name}.{os.getpid()}{ASIDE}")
    with failing(folder):
        aside.parent.mkdir(parents=True, exist_ok=True)
        try:
            frame.write_parquet(
                aside, compression="zstd", compression_level=1, row_group_size=ROW_GROUP, statistics=True
            )
            data = aside.read_bytes()
            _sync(aside)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
    found = Written(path, content, frame.height, len(data), hashlib.sha256(data).hexdigest(), row_hash(frame))
    return aside.relative_to(folder).as_posix(), found


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def failing(folder: Path) -> Iterator[None]:
    """Turn what a disk says into a sentence."""
    try:
        yield
    except (OSError, pl.exceptions.PolarsError) as error:
        if isinstance(error, pl.exceptions.PolarsError) and "os error" not in str(error):
            raise
        code = getattr(error, "errno", None)
        is_full = code in (errno.ENOSPC, errno.EDQUOT) or "os error 28" in str(error)
        reason = "the disk is full" if is_full else (getattr(error, "strerror", None) or str(error).splitlines()[0])
        raise CalcError(
            f"{folder}: cannot be written: {reason}. What is complete is kept; run the same command again to go on"
        ) from error


def row_hash(frame: pl.DataFrame) -> str:
    """Return a hash of a frame's rows that does not depend on their order, nor on the last bits of floats."""
    if frame.is_empty():
        return f"{0:016x}"
    texts = [c for c in frame.columns if frame[c].dtype in (pl.String, pl.Categorical)]
    frame = frame.with_columns(frame[c].cast(pl.Enum(frame[c].cast(pl.String).drop_nulls().unique())) for c in texts)
    row = pl.col("row")
    plan = frame.lazy().select(reduce(add, (_bits(frame[c]) * _odd(c) for c in sorted(frame.columns))).alias("row"))
    plan = plan.select(((row ^ (row // (1 << 33))) * pl.lit(0xFF51AFD7ED558CCD, pl.UInt64)).alias("row"))
    return f"{plan.select((row ^ (row // (1 << 29))).sum()).collect(engine='streaming').item():016x}"


def _bits(column: pl.Series) -> pl.Expr:
    """Return 64 bits for each value, alike for what engines give as equal."""
    if isinstance(column.dtype, pl.Enum):
        known = pl.Series([_digest(t) for t in column.dtype.categories], dtype=pl.UInt64)
        return pl.lit(known).gather(pl.col(column.name).to_physical()).fill_null(0)
    value = pl.col(column.name).cast(pl.Float32).fill_null(-1.0) + 0.0
    bits = value.reinterpret(dtype=pl.UInt32) + pl.lit(1 << (ROUNDED - 1), pl.UInt32)
    return (bits & pl.lit((1 << 32) - (1 << ROUNDED), pl.UInt32)).cast(pl.UInt64)


def _odd(text: str) -> pl.Expr:
    return pl.lit(_digest(text) | 1, pl.UInt64)


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
