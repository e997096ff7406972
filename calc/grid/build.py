"""Building a grid: part after part, what is already there left alone."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from multiprocessing import get_context, parent_process
from pathlib import Path

import polars as pl

from calc.errors import CalcError
from calc.grid.dataset import Dataset, Written, write_aside
from calc.grid.parts import Part, Plan
from calc.inputs import fact_columns

Progress = Callable[[int], None]
Compute = Callable[[Dataset, Plan, list[tuple[Part, str]], Progress | None], None]
"""Computes parts, each with the hash of what it rests on, and puts them in their places."""
TOGETHER = 8
"""Parts that one worker computes before it says so: of models whose formulas are alike."""
SETTINGS = {
    # the C library, which NumPy asks, keeps the memory of one part for the next: a sixth faster
    "MALLOC_MMAP_THRESHOLD_": str(1 << 32),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 32),
    # rows that Polars streams at once with some hundreds of columns: they stay near the core, and few are held
    "POLARS_IDEAL_MORSEL_SIZE": str(1 << 15),
}
"""Settings of a worker."""
_at_work: tuple[Plan, Path]
"""What a worker computes, and where."""


@dataclass(frozen=True)
class Built:
    """What a build did: parts and rows of the dataset, and how many of the parts were computed now."""

    parts: int
    computed: int
    rows: int
    bytes: int


def build(
    plan: Plan, out: str | os.PathLike[str], progress: Progress | None = None, compute: Compute | None = None
) -> Built:
    """Write a grid as a dataset; what an earlier build left and nothing has changed stays.

    ``progress`` hears of each part how many questions it answers; ``compute`` says who computes them, one worker if
    absent. Raises CalcError for a folder that cannot be written; an interrupted build leaves a dataset with the parts
    that are complete.
    """
    dataset = Dataset(out)
    with dataset.locked():
        parts = {p.path: (p, plan.hash(p)) for p in plan.parts()}
        with started(dataset, plan, parts) as missing:
            _told(progress, sum(plan.questions(parts[p][0]) for p in dataset.parts))
            (compute or by_workers(1))(dataset, plan, missing, progress)
    rows, size = (sum(getattr(p, f) for p in dataset.parts.values()) for f in ("rows", "bytes"))
    return Built(len(dataset.parts), len(missing), rows, size)


@contextmanager
def started(dataset: Dataset, plan: Plan, parts: dict[str, tuple[Part, str]]) -> Iterator[list[tuple[Part, str]]]:
    """Give the parts that are to be computed, and leave a manifest that says what is there, however it ends."""
    try:
        dataset.read()
    except CalcError:
        dataset.parts = {}
    kept = {p: w for p, w in dataset.parts.items() if p in parts and w.hash == parts[p][1] and dataset.is_whole(w)}
    dataset.parts = kept
    about = {**plan.described(), "n_parts": len(parts)}
    dataset.save({**about, "is_complete": False})
    dataset.clear(set(parts))
    is_complete = False
    try:
        yield [parts[p] for p in parts if p not in kept]
        is_complete = True
    finally:
        dataset.parts = {p: dataset.parts[p] for p in parts if p in dataset.parts}
        dataset.save({**about, "is_complete": is_complete})


def by_workers(workers: int) -> Compute:
    """Return what computes parts by so many processes side by side, or in this one."""
    return lambda dataset, plan, missing, progress: _compute(dataset, plan, missing, progress, workers)


def _compute(
    dataset: Dataset, plan: Plan, missing: list[tuple[Part, str]], progress: Progress | None, workers: int
) -> None:
    """Compute parts and put them in their places; models of one make one after the other, whose formulas are alike."""
    make = _makes(plan)
    order = sorted(missing, key=lambda m: (make[m[0].model_id], m[0].nth))
    alike = [list(group) for _, group in groupby(order, key=lambda m: make[m[0].model_id])]
    tasks = [group[i : i + TOGETHER] for group in alike for i in range(0, len(group), TOGETHER)]
    # the small ones last: then no worker waits long for another
    tasks.sort(key=len, reverse=True)
    asked = {part.path: part for part, _ in missing}
    pool: Executor
    if workers == 1:
        pool = ThreadPoolExecutor(1, initializer=_begin, initargs=(plan, dataset.folder))
    else:
        pool = ProcessPoolExecutor(workers, get_context("spawn"), _begin, (plan, dataset.folder))
    try:
        # workers start with the first task; each has its share of the cores
        with _environment({**SETTINGS, "POLARS_MAX_THREADS": str(max((os.cpu_count() or 1) // workers, 1))}):
            futures = [pool.submit(_parts, task) for task in tasks]
        for future in as_completed(futures):
            for aside, written in future.result():
                dataset.place(aside, written)
                dataset.save(is_due=False)
                _told(progress, plan.questions(asked[written.path]))
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _environment(settings: dict[str, str]) -> Iterator[None]:
    """Give processes that start meanwhile some settings, but where the user has set them."""
    added = {k: v for k, v in settings.items() if k not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def _makes(plan: Plan) -> dict[str, str]:
    """Return what tells the makes of models apart: which facts a model has, and of what kind."""
    models = plan.tables["models"]
    facts = [c for c, _ in fact_columns(plan.tables, "models") if c != "family"]
    numbers = [pl.col(c).sign() if models[c].dtype.is_numeric() else pl.col(c) for c in facts]
    make = pl.concat_str([n.cast(pl.String).fill_null("-") for n in numbers], separator=" ")
    return dict(models.select("model_id", make.alias("make")).iter_rows())


def _begin(plan: Plan, folder: Path) -> None:
    """Make a worker ready."""
    global _at_work  # a worker is given it once, not with every task
    _at_work = plan, folder
    if parent_process() is not None:
        # who builds hears the interrupt, and tells the workers
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _parts(task: list[tuple[Part, str]]) -> list[tuple[str, Written]]:
    """Compute parts and write them aside."""
    plan, folder = _at_work
    rows = plan.rows([part for part, _ in task])
    return [write_aside(folder, part.path, content, next(rows)) for part, content in task]


def _told(progress: Progress | None, questions: int) -> None:
    if progress is not None:
        progress(questions)
