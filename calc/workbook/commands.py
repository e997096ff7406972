"""The command ``export``: a question as a live workbook."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from calc.output import aside, writable

if TYPE_CHECKING:
    import polars as pl

    Questions = Callable[[argparse.Namespace], pl.DataFrame | pl.LazyFrame]

ENDINGS = (".xlsx",)


def add_commands(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    scenario: Callable[[argparse.ArgumentParser, bool], None],
    questions: Questions,
) -> None:
    """Add the command; ``scenario`` adds what a question says to a parser, ``questions`` reads it."""
    export = commands.add_parser("export", help="a question as a spreadsheet that calculates: every formula live")
    scenario(export, True)
    export.add_argument("--output", metavar="FILE", required=True, help="the workbook (.xlsx)")
    export.add_argument(
        "--techniques", metavar="A,B+C", default="", help="stacks of techniques to choose from in it, at most eight"
    )
    export.set_defaults(run=lambda options: _export(options, questions))


def _export(options: argparse.Namespace, questions: Questions) -> None:
    from calc.tables import load
    from calc.workbook.export import export

    writable(options.output, ENDINGS)
    asked = questions(options).lazy().collect()
    stacks = [s.strip() for s in options.techniques.split(",") if s.strip()]
    with aside(options.output) as target:
        export(load(), asked, target, stacks, options.sheet)
