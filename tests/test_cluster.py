"""Grids on Spark: a standalone master with two workers, each a process of its own, gives what Polars gives."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from conftest import Run
from standalone import driver_environment, standalone

import calc
from calc.grid.dataset import Dataset

pyspark = pytest.importorskip("pyspark", reason="needs pyspark: pip install -r calc/grid/requirements.txt")
pytestmark = pytest.mark.slow
SPEC = """
columns = ["ttft_s", "decode_s", "tpot_s", "fits", "usd_per_million_output_tokens", "energy_j_per_token", "tpot_bound", "max_batch"]
where = "fits OR batch < 64"
[axes]
model = ["llama-3-8b", "deepseek-v3", "bert-base-uncased", "jamba-v0.1", "gemma-2-27b", "opt-125m"]
hardware = "all"
precision = ["w16a16kv16", "w4a16kv4"]
tp = [1, 2]
batch = [1, 16, 64]
input_len = [100, 3000]
technique = ["", "prefill_first"]
"""


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a standalone master and two workers of one core each, and return the master's address."""
    try:
        with standalone(tmp_path_factory.mktemp("spark"), 2) as url:
            yield url
    except TimeoutError:
        pytest.skip("Spark does not start here: Java 17 is needed")


def command(spec: Path, out: Path, master: str) -> list[str]:
    """Return the command that builds a grid on a cluster."""
    return [sys.executable, "-m", "calc", "grid", str(spec), "--out", str(out), "--engine", "spark", "--master", master]


def rows(folder: Path) -> pl.DataFrame:
    """Return all rows of a grid, in order."""
    found = pl.read_parquet(folder / "**/*.parquet", hive_partitioning=True)
    return found.sort(sorted(c for c in found.columns if not found[c].dtype.is_float()))


def test_two_workers_give_what_polars_gives_and_go_on_after_a_kill(tmp_path: Path, master: str, run: Run) -> None:
    """Equal rows at 1e-12 and equal row hashes; killed midway, a job goes on and neither loses nor doubles a row."""
    spec = tmp_path / "spec.toml"
    spec.write_text(SPEC)
    calc.build_grid(spec, tmp_path / "polars")
    wanted = Dataset(tmp_path / "polars").read()
    driver = subprocess.Popen(
        command(spec, tmp_path / "spark", master), env=driver_environment(), stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    manifest, done = tmp_path / "spark" / "manifest.json", 0
    while driver.poll() is None and not 0 < done < len(wanted.parts):
        time.sleep(0.1)
        done = len(Dataset(tmp_path / "spark").read().parts) if manifest.exists() else 0
    os.killpg(driver.pid, signal.SIGKILL)
    assert 0 < done < len(wanted.parts)
    again = subprocess.run(
        command(spec, tmp_path / "spark", master), env=driver_environment(), capture_output=True, text=True
    )
    assert again.returncode == 0, again.stderr[-2000:]
    # one more may have come to its place between the look and the kill
    computed = re.search(r"(\d+) parts? computed now", again.stdout)
    assert computed and 0 < int(computed.group(1)) <= len(wanted.parts) - done
    found = Dataset(tmp_path / "spark").read()
    assert {p: w.row_hash for p, w in found.parts.items()} == {p: w.row_hash for p, w in wanted.parts.items()}
    assert found.about == wanted.about and found.about["is_complete"]
    files = {p.relative_to(tmp_path / "spark").as_posix() for p in (tmp_path / "spark").rglob("*") if p.is_file()}
    assert files == {".lock", "manifest.json", *found.parts}
    got, want = rows(tmp_path / "spark"), rows(tmp_path / "polars")
    assert got.height == want.height and got.columns == want.columns
    for column in got.columns:
        if got[column].dtype.is_float():
            assert got[column].is_null().equals(want[column].is_null())
            assert ((got[column] - want[column]).abs() <= 1e-12 * want[column].abs()).all(), column
        else:
            assert (got[column].cast(pl.String).eq_missing(want[column].cast(pl.String))).all(), column
    assert "are whole" in run("grid", "--out", str(tmp_path / "spark"), "--check").stdout


def test_other_grains(tmp_path: Path, master: str) -> None:
    """Stages and operators too."""
    for by in ("stage", "operator"):
        spec = tmp_path / f"{by}.toml"
        spec.write_text(
            f'by = "{by}"\n[axes]\nmodel = ["opt-125m", "bert-base-uncased"]\nhardware = ["a100", "h100"]\n'
        )
        calc.build_grid(spec, tmp_path / f"{by}_polars")
        said = subprocess.run(
            command(spec, tmp_path / by, master), env=driver_environment(), capture_output=True, text=True
        )
        assert said.returncode == 0, said.stderr[-2000:]
        hashes = (
            {p: w.row_hash for p, w in Dataset(f).read().parts.items()}
            for f in (tmp_path / by, tmp_path / f"{by}_polars")
        )
        assert next(hashes) == next(hashes)


def test_a_master_that_is_not_there(tmp_path: Path, run: Run) -> None:
    """A wrong address is said in a sentence."""
    said = run("grid", "demo", "--out", str(tmp_path / "g"), "--engine", "spark", "--master", "nonsense://x")
    assert said.returncode == 2 and "Spark does not start at nonsense://x" in said.stderr
