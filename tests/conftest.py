"""What the tests share: a temporary copy of the data folder, and the command line as a user runs it."""

from __future__ import annotations

import atexit
import csv
import gc
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

from calc.__main__ import main

ROOT = Path(__file__).resolve().parent.parent

# the same examples at every run, so that a submission fails for what it changed; pytest --hypothesis-profile=explore
# looks for new ones
settings.register_profile("fixed", derandomize=True)
settings.register_profile("explore", derandomize=False)
settings.load_profile("fixed")


def pytest_sessionfinish() -> None:
    """Spare pytest its last five looks through millions of formulas, for which its workers are not waited for."""
    gc.freeze()
    atexit.register(gc.unfreeze)


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Done]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a copy of the product's data folder that a test may change."""
    return Path(shutil.copytree(ROOT / "data", tmp_path / "data"))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs the command line's ``main`` in an empty folder."""
    (tmp_path / "cwd").mkdir()

    def command(*arguments: str, data: Path | None = None) -> Done:
        monkeypatch.chdir(tmp_path / "cwd")
        monkeypatch.delenv("CALC_DATA", raising=False)
        monkeypatch.delenv("CALC_MODELS", raising=False)
        if data is not None:
            monkeypatch.setenv("CALC_DATA", str(data))
        try:
            code = main(arguments)
        except SystemExit as stop:
            code = int(stop.code or 0)
        return Done(code, *capsys.readouterr())

    return command


@pytest.fixture
def process(tmp_path: Path) -> Run:
    """Return a function that runs ``python -m calc …`` as a process of its own, in an empty folder."""

    def command(*arguments: str) -> Done:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        call = [sys.executable, "-m", "calc", *arguments]
        done = subprocess.run(call, capture_output=True, text=True, env=environment, cwd=tmp_path)
        return Done(done.returncode, done.stdout, done.stderr)

    return command


def append(path: Path, row: str) -> None:
    """Add a line to a CSV file."""
    path.write_text(path.read_text(encoding="utf-8") + row + "\n", encoding="utf-8")


def add_row(path: Path, **fields: object) -> None:
    """Add a row to a CSV file by its columns' names; the others stay empty."""
    with path.open(encoding="utf-8", newline="") as handle:
        header = next(csv.reader(handle))
    assert set(fields) <= set(header), set(fields) - set(header)
    with path.open("a", encoding="utf-8", newline="") as handle:
        csv.writer(handle, lineterminator="\n").writerow([fields.get(c, "") for c in header])


def change(path: Path, old: str, new: str) -> None:
    """Replace a text that stands exactly once in a file."""
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {path.name}"
    path.write_text(text.replace(old, new), encoding="utf-8")
