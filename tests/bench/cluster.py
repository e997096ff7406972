"""One grid of a million rows by every engine: Polars, DuckDB, and Spark with one worker and with two.

Run ``python tests/bench/cluster.py`` (``pip install -r calc/grid/requirements.txt``, Java 17). It checks that all rows are
equal, to 1e-12, and prints how long each took.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from grids import machine
from standalone import driver_environment, standalone

import calc
from calc.evaluation import evaluate
from calc.grid.dataset import Dataset
from calc.grid.parts import Plan
from calc.grid.spec import load_spec
from calc.tables import load

SPEC = """
columns = ["ttft_s", "decode_s", "e2e_s", "output_tokens_per_s", "kv_cache_bytes", "memory_needed_bytes", "fits",
           "usd_per_million_output_tokens", "energy_j_per_token", "max_batch"]
[axes]
model = ["llama-2-7b", "llama-3-8b", "llama-3-70b", "mistral-7b", "deepseek-v3", "gemma-2-27b", "jamba-v0.1", "opt-6.7b",
         "qwen2.5-32b", "microsoft/Phi-3-mini-4k-instruct", "tiiuae/falcon-7b", "bert-base-uncased", "llama-2-13b"]
hardware = "all"
precision = ["w16a16kv16", "w4a16kv4"]
tp = [1, 2, 4]
batch = [1, 4, 16, 64, 256]
input_len = [128, 512, 2048, 8192, 32768]
output_len = [1, 128, 256, 1024]
"""


def same(left: pl.DataFrame, right: pl.DataFrame) -> None:
    """Stop where two tables differ in more than the last digits."""
    assert left.columns == right.columns and left.height == right.height
    for column in left.columns:
        a, b = left[column], right[column]
        if a.dtype.is_float():
            assert a.is_null().equals(b.is_null()), column
            assert ((a - b).abs() <= 1e-12 * b.abs()).fill_null(True).all(), column
        else:
            assert a.cast(pl.String).equals(b.cast(pl.String)), column


def read(folder: Path) -> pl.DataFrame:
    """Return all rows of a grid, in order."""
    found = pl.read_parquet(folder / "**/*.parquet", hive_partitioning=True)
    return found.sort(sorted(c for c in found.columns if not found[c].dtype.is_float()))


def by_duckdb(spec: Path, polars: Path) -> float:
    """Compute every part in DuckDB, compare it with the dataset's and return the seconds of the computing."""
    plan, seconds = Plan(load(), load_spec(load(), spec)), 0.0
    for part in plan.parts():
        start = time.perf_counter()
        kept = [*plan.keys, *plan.wanted]
        answers = [
            evaluate(plan.tables, a.frame, "serving", engine="duckdb").select(kept).collect()
            for a in plan.asked_by([part])
        ]
        seconds += time.perf_counter() - start
        same(plan.finished(part, pl.concat(answers)), pl.read_parquet(polars / part.path, hive_partitioning=False))
    return seconds


def main() -> None:
    """Print what each engine took."""
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spec = folder / "spec.toml"
        spec.write_text(SPEC)
        start = time.perf_counter()
        built = calc.build_grid(spec, folder / "polars")
        print(f"  {built.rows:,} rows in {built.parts} parts; Polars, one process: {time.perf_counter() - start:.1f} s")
        print(f"  DuckDB: {by_duckdb(spec, folder / 'polars'):.1f} s, equal")
        wanted, took = read(folder / "polars"), []
        for workers in (1, 2):
            out, logs = folder / f"spark_{workers}", folder / f"logs_{workers}"
            logs.mkdir()
            with standalone(logs, workers) as master:
                call = [
                    sys.executable,
                    "-m",
                    "calc",
                    "grid",
                    spec,
                    "--out",
                    out,
                    "--engine",
                    "spark",
                    "--master",
                    master,
                ]
                start = time.perf_counter()
                subprocess.run([*map(str, call)], env=driver_environment(), check=True, capture_output=True)
                took.append(time.perf_counter() - start)
            same(read(out), wanted)
            hashes = [{p: w.row_hash for p, w in Dataset(f).read().parts.items()} for f in (out, folder / "polars")]
            assert hashes[0] == hashes[1]
            print(f"  Spark, {workers} worker{'s' if workers > 1 else ''} of one core: {took[-1]:.1f} s, equal")
        print(f"  from one worker to two: {took[0] / took[1]:.2f} times as fast")


if __name__ == "__main__":
    main()
