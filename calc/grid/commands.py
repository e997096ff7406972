"""Commands on grids: build one, go on with one, check one."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING

from calc.errors import CalcError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from calc.grid.parts import Plan

ENGINES = ("polars", "spark")
MOST_WORKERS = 2
"""Without ``--workers``: each takes up to 800 MB and shares the cores, so that a build stays below 2 GiB."""
SMALL = 500_000
"""Questions: a second process, which takes a second to start, saves many models half of their time from there on."""


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands."""
    grid = commands.add_parser("grid", help="answers to every combination of models, devices and sizes, as Parquet")
    grid.add_argument("spec", nargs="?", help="a TOML file, or a grid of data/grids: demo, catalogue, full")
    grid.add_argument("--out", metavar="DIR", required=True, help="the dataset's folder; what is there is gone on with")
    grid.add_argument("--check", action="store_true", help="check the dataset's files and ask a sample of it again")
    grid.add_argument("--workers", type=int, metavar="N", help="processes of up to 800 MB; at most 2 if absent")
    grid.add_argument("--engine", default="polars", help="polars (default) or spark")
    grid.add_argument("--master", metavar="URL", help="Spark's master, such as spark://host:7077; local[*] if absent")
    grid.set_defaults(run=_grid)

    compiled = commands.add_parser("compile", help="the whole calculator as one SQL script, for a shell without Python")
    compiled.add_argument("--dialect", default="duckdb", help="duckdb (default) or spark")
    compiled.set_defaults(run=_compile)


def _compile(options: argparse.Namespace) -> None:
    from calc.script import script
    from calc.tables import load

    for statement in script(load(), options.dialect):
        print(statement)


def _grid(options: argparse.Namespace) -> None:
    from calc.tables import load

    if options.engine not in ENGINES:
        raise CalcError(f"unknown engine {options.engine!r} for grids; there are {', '.join(ENGINES)}")
    if options.workers is not None and options.workers < 1:
        raise CalcError(f"--workers: {options.workers} is below 1")
    if options.master and options.engine != "spark":
        raise CalcError("--master is Spark's: add --engine spark")
    tables = load()
    if options.check:
        from calc.grid.check import check

        print(check(tables, options.out))
        return
    if options.spec is None:
        raise CalcError("grid needs a spec: a TOML file, or the name of a grid of data/grids (demo, catalogue, full)")
    from calc.grid.build import build, by_workers
    from calc.grid.parts import Plan
    from calc.grid.spec import load_spec

    plan = Plan(tables, load_spec(tables, options.spec))
    with _progress(sum(map(plan.questions, plan.parts()))) as progress:
        if options.engine == "spark":
            from calc.grid.cluster import on_spark

            built = build(plan, options.out, progress, on_spark(options.master))
        else:
            built = build(plan, options.out, progress, by_workers(options.workers or _workers(plan)))
    noun = "part" if built.computed == 1 else "parts"
    print(
        f"{options.out}: {built.rows:,} rows in {built.parts:,} parts, {built.bytes / 1e6:,.1f} MB; "
        f"{built.computed:,} {noun} computed now"
    )


def _workers(plan: Plan) -> int:
    """Return how many processes are worth their start."""
    is_small = sum(map(plan.questions, plan.parts())) < SMALL
    return 1 if is_small else min(os.cpu_count() or 1, MOST_WORKERS)


@contextmanager
def _progress(questions: int) -> Iterator[Callable[[int], None]]:
    """Show how many questions are answered, how many a second, and how long the rest will take."""
    from tqdm import tqdm

    with tqdm(total=questions, unit=" questions", unit_scale=True, smoothing=0.1) as bar:
        try:
            yield lambda n: bar.update(n) and None
        except KeyboardInterrupt:
            bar.close()
            print("stopped; what is complete is kept: run the same command again to go on")
            raise
