"""The command ``export``: a question as a live workbook."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping

from calc.errors import CalcError
from calc.output import aside, writable

ENDINGS = (".xlsx",)


def add_commands(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    scenario: Callable[[argparse.ArgumentParser], None],
    asked: Callable[[argparse.Namespace], Mapping[str, object]],
) -> None:
    """Add the command; ``scenario`` adds what a question says to a parser, ``asked`` reads it."""
    export = commands.add_parser("export", help="a question as a spreadsheet that calculates: every formula live")
    scenario(export)
    export.add_argument("--output", metavar="FILE", required=True, help="the workbook (.xlsx)")
    export.add_argument(
        "--techniques", metavar="A,B+C", default="", help="stacks of techniques to choose from in it, at most eight"
    )
    export.set_defaults(run=lambda options: _export(options, asked))


def _export(options: argparse.Namespace, asked: Callable[[argparse.Namespace], Mapping[str, object]]) -> None:
    import calc
    from calc.tables import load
    from calc.workbook.export import export

    writable(options.output, ENDINGS)
    question = calc.scenarios(**asked(options)).collect()  # type: ignore[arg-type]
    if question.height != 1:
        raise CalcError(f"a workbook calculates one scenario, not {question.height}")
    stacks = [s.strip() for s in options.techniques.split(",") if s.strip()]
    with aside(options.output) as target:
        export(load(), question.row(0, named=True), target, stacks, options.sheet)
