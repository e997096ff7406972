"""Commands on techniques and on the survey: what would help, and the paper's figures as charts."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from calc.errors import CalcError, closest
from calc.output import WRITERS, print_frame, writable, write

if TYPE_CHECKING:
    import polars as pl

DRAWN = (".png", ".svg", ".html")
"""Endings of files that hold a chart."""
CHANGES = ("ttft", "tpot", "throughput", "memory", "cost", "energy")
Asked = Callable[[argparse.Namespace], Mapping[str, object]]


def add_commands(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    scenario: Callable[[argparse.ArgumentParser], None],
    asked: Asked,
) -> None:
    """Add the commands; ``scenario`` adds what a question says to a parser, ``asked`` reads it."""
    figure = commands.add_parser("figure", help="a table or figure of the survey: its rows, or its chart")
    figure.add_argument("name", help="such as 8, figure_8 or table_1")
    figure.add_argument(
        "--output", metavar="FILE", help="the chart (.png, .svg, .html) or the rows (.csv, .parquet, .xlsx, .json)"
    )
    figure.set_defaults(run=_figure)

    helps = commands.add_parser("helps", help="what every technique would change for a model on a device")
    scenario(helps)
    helps.add_argument("--by", default="throughput", help=f"rank by {', '.join(CHANGES)}; throughput if absent")
    helps.add_argument("--top", type=int, metavar="N", help="only the first N")
    helps.add_argument("--output", metavar="FILE", help="write every column to FILE (.csv, .parquet, .xlsx, .json)")
    helps.set_defaults(run=lambda options: _helps(options, asked))


def _figure(options: argparse.Namespace) -> None:
    from calc.survey_charts import CHARTS
    from calc.tables import ROOT

    name = options.name if options.name in CHARTS else f"figure_{options.name}"
    if name not in CHARTS:
        raise CalcError(f"unknown figure {options.name!r}{closest(name, CHARTS)}; there are {', '.join(CHARTS)}")
    writable(options.output, (*DRAWN, *WRITERS))
    found = _queried((ROOT / "sql" / "survey" / f"{name}.sql").read_text(encoding="utf-8"))
    if options.output and Path(options.output).suffix.lower() in DRAWN:
        CHARTS[name](found).save(options.output, scale_factor=2)
    elif options.output:
        write(found, options.output)
    else:
        print_frame(found)


def _queried(query: str) -> pl.DataFrame:
    from calc.database import connect
    from calc.tables import load

    connection = connect(load(), query=query, is_asked=True)
    found: pl.DataFrame = connection.sql(query).pl()
    connection.close()
    return found


def _helps(options: argparse.Namespace, asked: Asked) -> None:
    import polars as pl

    import calc
    from calc.calibration.expected import errors_told
    from calc.stacks import what_helps
    from calc.tables import load

    writable(options.output, WRITERS)
    if options.by not in CHANGES:
        raise CalcError(f"--by {options.by}: nothing is ranked by it; there are {', '.join(CHANGES)}")
    if options.top is not None and options.top < 1:
        raise CalcError(f"--top {options.top}: show at least one")
    if options.sheet != "exact":
        raise CalcError(f"--sheet {options.sheet}: techniques are weighed on the sheet 'exact' alone")
    scenario = calc.scenarios(**asked(options)).collect()  # type: ignore[arg-type]
    found = what_helps(load(), scenario.row(0, named=True)).sort(f"{options.by}_rank", "technique", nulls_last=True)
    if options.output:
        write(found, options.output)
        return
    shown = found.filter("applies").head(options.top or found.height)
    changes = [
        pl.col(f"{c}_change").map_elements(_percent, return_dtype=pl.String).fill_null("—").alias(c) for c in CHANGES
    ]
    limits = [
        pl.format("{} → {}", f"{s}_bound_before", f"{s}_bound_after").alias(f"{s} limited by")
        for s in ("prefill", "decode")
    ]
    why = pl.concat_str("prefill_why", "decode_why", separator="; ", ignore_nulls=True).alias("why nothing changes")
    print_frame(shown.select("technique", *changes, *limits, why))
    if told := errors_told(calc.evaluate(scenario, by="serving").collect()):
        print(told)
    if options.top is None:
        for row in found.filter(~pl.col("applies")).iter_rows(named=True):
            print(f"{row['technique']}: {row['reason']}")


def _percent(change: float) -> str:
    return f"{change:+.1%}" if abs(change) < 10 else f"×{change + 1:.3g}"
