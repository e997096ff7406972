"""Grids at scale: rates, memory, queries, and how they stand to loops over the same formulas.

Run ``python tests/bench/grids.py [--models N] [--out DIR] [--keep]``; with numba installed a compiled loop is a second
witness. What is timed: totals of both stages and serving answers of a grid as the library gives them, a plain Python loop
and a compiled one (one thread, every formula at every point), a build of the grid ``full`` over N models into Parquet, and
queries on it. Rates alternate in one run; what counts is their ratio, and the machine's figures are printed beside them.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import grid as dense_grid

import calc

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = 5
STAGE = ("ops", "memory_bytes", "time_s", "bound")
METRICS = ("ttft_s", "tpot_s", "itl_s", "e2e_s", "output_tokens_per_s", "memory_needed_bytes", "fits", "max_batch",
           "usd_per_million_output_tokens", "energy_j_per_token", "mfu", "mbu")  # fmt: skip


def machine() -> str:
    """Return what runs this."""
    name = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    return f"{name}, {os.cpu_count()} cores, Polars {pl.__version__}, Python {platform.python_version()}"


def questions(n_models: int) -> pl.LazyFrame:
    """Return dense models at many sizes on every device whose peaks and bandwidth are known, as the loops need."""
    devices = calc.hardware().filter(
        pl.max_horizontal("fp16_ops_per_s", "bf16_ops_per_s", "fp32_ops_per_s").is_not_null(),
        pl.col("memory_bandwidth_bytes_per_s").is_not_null(),
    )
    return calc.scenarios(
        model=dense_grid.dense()[:n_models], hardware=devices["hardware_id"].to_list(),
        precision=list(dense_grid.PRECISIONS), input_len=[200 * i for i in range(1, 31)],
        batch=[1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512],
    )  # fmt: skip


def rate(n: int, work: Callable[[], object]) -> float:
    """Return how many points a second a piece of work does."""
    start = time.perf_counter()
    work()
    return n / (time.perf_counter() - start)


def compiled_loop() -> Callable[[np.ndarray, np.ndarray], None] | None:
    """Return the lean loop compiled by numba, over rows of numbers; None where numba is not installed."""
    try:
        import numba
    except ImportError:
        return None
    source = inspect.getsource(dense_grid.loop)
    head, _, body = source.partition("    for (\n")
    del head
    names, _, body = body.partition("    ) in rows:")
    read = ", ".join(names.replace("\n", " ").replace(" ", "").strip(",").split(","))
    count = read.count(",") + 1
    body = body.partition("\n")[2].replace(
        "out.append((ops, size, t))",
        "out[2 * i + stage, 0] = ops; out[2 * i + stage, 1] = size; out[2 * i + stage, 2] = t",
    )
    body = body.replace(
        "for q, past in ((length, 0.0), (1.0, length)):",
        "for stage in range(2):\n            q, past = (length, 0.0) if stage == 0 else (1.0, length)",
    )
    body = (
        body.partition("    return out")[0]
        .replace("if learned:", "if learned > 0:")
        .replace("if flash:", "if flash > 0:")
    )
    unpack = f"        {read} = {', '.join(f'rows[i, {k}]' for k in range(count))}\n"
    text = f"def compiled(rows, out):\n    inf = 1e300\n    for i in range(rows.shape[0]):\n{unpack}{body}"
    space: dict[str, object] = {}
    exec(text, space)
    return numba.njit(space["compiled"], fastmath=False)


def rates() -> None:
    """Print rates of the library and of both loops, and their ratios."""
    asked = questions(dense_grid.DENSE)
    mixed = calc.scenarios(
        model=calc.models()["model_id"].to_list(), hardware=calc.hardware()["hardware_id"].to_list(),
        precision=["w16a16kv16", "w4a16kv4"], tp=[1, 4], input_len=[512, 1024, 4096, 16384],
        batch=[1, 4, 16, 64, 256, 512],
    )  # fmt: skip
    mixed_n = mixed.select(pl.len()).collect().item()
    frame = asked.collect().with_columns(pl.lit("flash").alias("attention"))
    frame = frame.select("model_id", "hardware_id", "batch", "input_len", "precision", "attention")
    n, sample = frame.height, frame.gather_every(97)
    rows = list(dense_grid.points(sample))
    numbers = np.array([[float(v) for v in row] for row in rows])
    numbers[~np.isfinite(numbers)] = 1e300
    compiled, found = compiled_loop(), np.zeros((2 * len(rows), 3))
    if compiled is not None:
        compiled(numbers, found)
        wanted = np.array(dense_grid.loop(rows))
        assert np.allclose(found, wanted, rtol=1e-12), "the compiled loop differs"
    works: dict[str, tuple[int, Callable[[], object]]] = {
        "stage totals": (n, lambda: calc.evaluate(asked, by="stage").select(STAGE).collect()),
        "stage totals without bound": (n, lambda: calc.evaluate(asked, by="stage").select(STAGE[:3]).collect()),
        "serving answers, every architecture": (
            mixed_n,
            lambda: calc.evaluate(mixed, by="serving").select(METRICS).collect(),
        ),
        "serving answers": (n, lambda: calc.evaluate(asked, by="serving").select(METRICS).collect()),
        "plain loop, both stages": (len(rows), lambda: dense_grid.loop(rows)),
    }
    if compiled is not None:
        works["compiled loop, both stages"] = (50 * len(rows), lambda: [compiled(numbers, found) for _ in range(50)])
    for _, work in works.values():
        work()
    measured: dict[str, list[float]] = {w: [] for w in works}
    for _ in range(ROUNDS):
        for label, (points, work) in works.items():
            measured[label].append(rate(points, work))
    print(f"{n:,} points of {dense_grid.DENSE} dense models on {frame['hardware_id'].n_unique()} devices")
    for label, each in measured.items():
        print(
            f"  {label:28} {median(each) / 1e6:8.2f} M points/s  (from {min(each) / 1e6:.2f} to {max(each) / 1e6:.2f})"
        )
    for witness in ("plain loop, both stages", "compiled loop, both stages"):
        if witness in measured:
            for label in ("stage totals", "serving answers"):
                ratios = [a / b for a, b in zip(measured[label], measured[witness], strict=True)]
                print(f"  {label} run at {median(ratios):.2f} of the {witness.partition(',')[0]}'s rate")


def held(pid: int) -> float:
    """Return the memory in MB that a process and its children hold, what they share counted once."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:  # it has just ended
        return 0.0
    own = sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1e3
    return own + sum(held(int(child)) for child in children)


def built(n_models: int, n_batches: int, out: Path) -> tuple[int, float, float, float]:
    """Build ``full`` over so many models and batches as the command does.

    Returns rows, seconds, bytes a row and metric, and MB.
    """
    spec = tomllib.loads((ROOT / "data/grids/full.toml").read_text())
    models = calc.models()["model_id"].gather_every(max(208 // n_models, 1)).head(n_models).to_list()
    lists = {**spec["axes"], "model": models, "batch": spec["axes"]["batch"][:n_batches]}
    text = f"columns = {spec['columns']}\n[axes]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in lists.items())
    path = out.with_suffix(".toml")
    path.write_text(text)
    start, most = time.perf_counter(), 0.0
    command = [sys.executable, "-m", "calc", "grid", str(path), "--out", str(out)]
    build = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while build.poll() is None:
        most = max(most, held(build.pid))
        time.sleep(0.5)
    seconds = time.perf_counter() - start
    assert build.returncode == 0, "the build failed"
    from calc.grid.dataset import Dataset

    dataset = Dataset(out).read()
    rows = sum(p.rows for p in dataset.parts.values())
    size = sum(p.bytes for p in dataset.parts.values())
    return rows, seconds, size / rows / len(dataset.about["stored"]), most


QUERIES = {
    "cheapest under a latency target": "select model_id, hardware_id, precision, tp, batch, usd_per_million_output_tokens from serving "
    "where fits and ttft_s <= 0.5 and tpot_s <= 0.05 and {} order by usd_per_million_output_tokens limit 1",
    "top 20 devices": "select hardware_id, min(usd_per_million_output_tokens) as usd from serving where fits and {} group by 1 order by 2 limit 20",
}  # fmt: skip


def queries(folder: Path) -> None:
    """Print how long queries take, warm, on two threads."""
    connection = calc.connect(grid=folder)
    connection.execute("set threads = 2")
    some = connection.sql("select model_id from serving limit 1").fetchall()[0][0]
    given = {
        "a model": f"model_id = '{some}'",
        "a workload": "input_len = 1024 and output_len = 128",
        "all rows": "true",
    }

    def asked(label: str, text: str) -> None:
        times = []
        for _ in range(4):
            start = time.perf_counter()
            connection.sql(text).fetchall()
            times.append(time.perf_counter() - start)
        print(f"  {label:50} {min(times[1:]) * 1e3:7.0f} ms")

    for question, text in QUERIES.items():
        for what, condition in given.items():
            asked(f"{question}, {what}", text.format(condition))
    front = (ROOT / "sql/cookbook/pareto_front.sql").read_text()
    connection.execute(f"set variable model_id = '{some}'")
    connection.execute("set variable input_len = 1024")
    asked("Pareto front, a model and a length", front)
    connection.execute("set variable input_len = 128")
    asked("Pareto front, all rows", (ROOT / "sql/cookbook/pareto_of_everything.sql").read_text())
    device = "hardware_id = 'nvidia_h100_sxm' and precision = 'w4a16kv16' and tp = 2 and batch = 16"
    asked(
        "one deployment",
        f"select ttft_s, tpot_s from serving where {given['a model']} and {given['a workload']} and {device}",
    )


def main() -> None:
    """Print everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=21, help="models of the largest build; 208 are 100 million rows")
    parser.add_argument("--out", type=Path, help="folder for the builds")
    parser.add_argument("--keep", action="store_true", help="leave the largest build there")
    options = parser.parse_args()
    print(machine())
    rates()
    folder = options.out or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    builds: list[tuple[int, float]] = []
    # the same models at three sizes: then what formulas and the start take is the same in each
    for n_models, n_batches in ((2, 10), *((options.models, n) for n in (2, 5, 10))):
        rows, seconds, size, most = built(n_models, n_batches, folder / f"grid_{n_models}_{n_batches}")
        builds.append((rows, seconds))
        print(f"  written: {rows:11,} rows in {seconds:6.1f} s, {rows / seconds / 1e6:.2f} M/s, "
              f"{size:.2f} bytes per metric and row, {most:,.0f} MB in all processes")  # fmt: skip
    _, *(few, some, many) = builds
    before, after = ((b[1] - a[1]) / (b[0] - a[0]) * 1e6 for a, b in ((few, some), (some, many)))
    print(f"  a million rows more take {before:.2f} s, then {after:.2f} s: {after / before:.2f} of it")
    queries(folder / f"grid_{options.models}_10")
    if not options.keep:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
