"""How long one question takes: warm in a process, cold from the shell, and what importing the package costs.

Run ``python tests/bench/latency.py``. Imports are compared with ``import polars, duckdb`` in alternating rounds.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
ROUNDS = 9


def seconds(*arguments: str) -> float:
    """Return the wall time of a Python process."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def warm(**question: object) -> list[float]:
    """Return the times of repeated analyses, each of another batch, after one that warms up."""
    import calc

    calc.analyze("llama-2-7b", "a6000", **question)
    times = []
    for batch in range(1, 20 + ROUNDS):
        start = time.perf_counter()
        calc.analyze("llama-2-7b", "a6000", batch=batch, **question)
        times.append(time.perf_counter() - start)
    return times


def main() -> None:
    """Print medians, and the import's ratio."""
    for by in ("operator", "stage", "serving"):
        times = warm(by=by)
        print(f"analysis by {by:9} warm: median {median(times) * 1e3:6.1f} ms, best {min(times) * 1e3:6.1f} ms")
    cold = [seconds("-m", "calc", "analyze", "llama-2-7b", "a6000") for _ in range(ROUNDS)]
    print(f"python -m calc analyze cold: median {median(cold):6.2f} s,  best {min(cold):6.2f} s")
    ratios = []
    for _ in range(ROUNDS):
        ours, base = (seconds("-c", c) for c in ("import calc, polars, duckdb", "import polars, duckdb"))
        alone = seconds("-c", "import calc")
        ratios.append((ours / base, alone / base))
    print(
        f"import calc / import polars, duckdb: {median(a for _, a in ratios):.2f} alone, {median(o for o, _ in ratios):.2f} with both"
    )


if __name__ == "__main__":
    main()
