"""The command line: ``python -m calc COMMAND …``; ``python -m calc COMMAND --help`` says what each takes."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING

from calc import survey_commands
from calc.catalogue_commands import add_commands
from calc.errors import CalcError, closest
from calc.grid import commands as grid_commands
from calc.machine import commands as machine_commands
from calc.output import WRITERS, print_frame, writable, write, write_text
from calc.workbook import commands as workbook_commands

if TYPE_CHECKING:
    import duckdb
    import polars as pl

SCENARIO_OPTIONS = (
    "batch", "input-len", "output-len", "cached-len", "n-images", "precision", "weight-format", "expert-format",
    "embedding-format", "head-format", "activation-format", "kv-format", "attention", "calibration", "technique",
    "tp", "pp", "ep", "cp", "dp",
)  # fmt: skip
SHOWN = {
    "operator": ("stage", "part", "operator", "count", "ops", "memory_bytes", "arithmetic_intensity", "compute_format",
                 "attainable_ops_per_s", "time_s", "bound"),
    "stage": ("stage", "ops", "memory_bytes", "time_s", "floor_s", "mfu", "mbu", "bound", "memory_consumption_bytes"),
    "serving": ("n_devices", "ttft_s", "tpot_s", "e2e_s", "output_tokens_per_s", "weight_memory_bytes",
                "kv_cache_bytes", "activation_peak_bytes", "fits", "max_batch", "usd_per_million_output_tokens",
                "energy_j_per_token"),
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, or 2 with a message on standard error for a user's mistake."""
    try:
        options = _parser().parse_args(_readable(sys.argv[1:] if arguments is None else arguments))
    except CalcError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    asked = {"CALC_DATA": options.data, "CALC_MODELS": getattr(options, "models", None)}
    try:
        with _environment({k: v for k, v in asked.items() if v}):
            options.run(options)
        sys.stdout.flush()
    except CalcError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except RecursionError:
        print("error: a formula is too long or nests too deeply; split it into several cells", file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    return 0


def _readable(arguments: Sequence[str]) -> list[str]:
    """Return the arguments as argparse reads them; raises CalcError for one that is no text."""
    found: list[str] = []
    for argument in arguments:
        try:
            argument.encode("utf-8")
        except UnicodeEncodeError as error:
            raise CalcError(f"{argument!a}: an argument is not UTF-8") from error
        # argparse takes what starts with a dash for an option, even where it is the value of one
        if found and found[-1] == "--sort":
            found[-1] = f"--sort={argument}"
        else:
            found.append(argument)
    return found


@contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Hold settings in the environment, where everything that loads tables reads them, for one command."""
    before = {k: os.environ.get(k) for k in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m calc", description="What an LLM costs to run, what limits it, what would help."
    )
    parser.add_argument("--data", metavar="DIR", help="data folder to use instead of the product's own")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    analyze = commands.add_parser("analyze", help="operators, stages or serving figures of one model on one device")
    _scenario(analyze, may_be_file=True)
    analyze.add_argument("--by", default="operator", help="operator (default), stage or serving")
    analyze.add_argument("--engine", default="polars", help="polars (default) or duckdb")
    analyze.add_argument("--output", metavar="FILE", help="write every column to FILE (.csv, .parquet, .xlsx, .json)")
    analyze.add_argument("--report", metavar="FILE", help="write the whole analysis as one document (.md, .html)")
    analyze.set_defaults(run=_analyze)

    explain = commands.add_parser("explain", help="where a number comes from: formula, numbers, precedents, sources")
    explain.add_argument("cell", help="name of the cell, such as time_s")
    _scenario(explain)
    explain.add_argument("--stage", help="prefill or decode; without, the serving answer's cell")
    explain.add_argument("--operator", help="the operator's cell instead of the stage's total")
    explain.add_argument("--part", help="the part whose operator is meant, where several parts have it")
    explain.set_defaults(run=_explain)

    engines = commands.add_parser("engines", help="command lines that start serving engines for a question")
    _scenario(engines)
    engines.add_argument("--engine", metavar="NAME", help="one of data/engines.csv; all of them without")
    engines.set_defaults(run=_engines)

    sql = commands.add_parser("sql", help="a query over every table and view")
    sql.add_argument("query", nargs="?", help="the SELECT")
    sql.add_argument("--file", help="read the SELECT from a file")
    sql.add_argument("--param", action="append", default=[], metavar="NAME=VALUE", help="value of $NAME in the query")
    sql.add_argument("--grid", metavar="DIR", help="ask a dataset that the command grid wrote")
    sql.add_argument("--output", metavar="FILE", help="write the result to FILE (.csv, .parquet, .xlsx, .json)")
    sql.set_defaults(run=_sql)

    check = commands.add_parser(
        "check", help="check tables and sheets, then show each device's and model's key figures"
    )
    check.set_defaults(run=_check)

    add_commands(commands)
    grid_commands.add_commands(commands)
    machine_commands.add_commands(commands)
    survey_commands.add_commands(commands, _scenario, _asked)
    workbook_commands.add_commands(commands, _scenario, _questions)
    validate = commands.add_parser("validate", help="predictions held against measurements, and what breaks the bound")
    validate.add_argument("measurements", nargs="?", metavar="FILE", help="a CSV of yours (default: the product's own)")
    validate.set_defaults(run=_validate)
    calibrate = commands.add_parser("calibrate", help="fit efficiencies and overheads to measurements")
    calibrate.add_argument(
        "measurements", nargs="?", metavar="FILE", help="a CSV of yours (default: the product's own)"
    )
    calibrate.add_argument("--name", metavar="X", help="one calibration of this name (default: one per engine)")
    calibrate.set_defaults(run=_calibrate)
    for command in commands.choices.values():
        command.add_argument("--models", metavar="FILE", help="further rows of models (.csv, .json, .parquet)")
    return parser


def _scenario(parser: argparse.ArgumentParser, may_be_file: bool = False) -> None:
    parser.add_argument("model", help="model id or alias", nargs="?" if may_be_file else None)
    parser.add_argument("hardware", help="device id or alias", nargs="?" if may_be_file else None)
    if may_be_file:
        parser.add_argument(
            "--scenarios", metavar="FILE", help="a row per scenario instead (.csv, .xlsx, .parquet, .json); options "
            "are of every row, columns of your own come back",
        )  # fmt: skip
    for option in SCENARIO_OPTIONS:
        parser.add_argument(f"--{option}", metavar="N" if option.endswith(("len", "p", "batch", "images")) else "NAME")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="parameter of a technique")
    parser.add_argument("--sheet", default="exact", help="exact (default) or llm_viewer, the paper's accounting")


def _questions(options: argparse.Namespace) -> pl.DataFrame | pl.LazyFrame:
    """Return the scenarios that the arguments or a file of theirs ask."""
    import polars as pl

    import calc
    from calc.scenario_files import read_scenarios
    from calc.tables import load

    if not options.scenarios:
        if options.model is None or options.hardware is None:
            raise CalcError("name a MODEL and a HARDWARE, or a file of scenarios with --scenarios")
        return calc.scenarios(**_asked(options))  # type: ignore[arg-type]
    frame = read_scenarios(load(), options.scenarios)
    asked = {k: v for k, v in _asked(options).items() if v is not None}
    for column in asked:
        if {column, f"{column}_id"} & set(frame.columns):
            raise CalcError(f"{column} is said twice: by {options.scenarios} and by the command line")
    given = {f"{c}_id" if c in ("model", "hardware") else c: v for c, v in asked.items()}
    return frame.with_columns(**{c: pl.lit(v) for c, v in given.items()})


def _asked(options: argparse.Namespace) -> dict[str, object]:
    asked: dict[str, object] = {"model": options.model, "hardware": options.hardware}
    for option in SCENARIO_OPTIONS:
        value = getattr(options, option.replace("-", "_"))
        if value is not None:
            asked[option.replace("-", "_")] = _value(value)
    return asked | _pairs(options.set)


def _value(text: str) -> object:
    """Return a number where the text is one, else the text: what is wrong with it is said where it is checked."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _pairs(texts: list[str]) -> dict[str, object]:
    for text in texts:
        if "=" not in text:
            raise CalcError(f"{text!r} is not NAME=VALUE")
    return {t.partition("=")[0]: _value(t.partition("=")[2]) for t in texts}


def _analyze(options: argparse.Namespace) -> None:
    import calc

    for target, endings in ((options.output, WRITERS), (options.report, (".md", ".html"))):
        writable(target, endings)
    question = _questions(options)
    found = calc.evaluate(question, by=options.by, sheet=options.sheet, engine=options.engine).collect()
    if options.report:
        from calc.report import report

        if options.scenarios:
            raise CalcError("--report is of one scenario: name a MODEL and a HARDWARE")
        write_text(options.report, report(_asked(options), options.sheet, Path(options.report).suffix))
    if options.output:
        write(found, options.output, options.sheet)
    if not options.output and not options.report:
        _print(found, options.by, question.collect_schema().names() if options.scenarios else ())


def _explain(options: argparse.Namespace) -> None:
    import calc

    question = calc.scenarios(**_asked(options))  # type: ignore[arg-type]
    place = {"stage": options.stage, "part": options.part, "operator": options.operator}
    print(calc.explain(options.cell, question, sheet=options.sheet, **place))


def _engines(options: argparse.Namespace) -> None:
    import calc
    from calc.engines import engine_ids
    from calc.tables import load

    if options.sheet != "exact":
        raise CalcError("flags are formulas over the sheet exact: leave --sheet out")
    wanted = [options.engine] if options.engine else engine_ids(load())
    print("\n".join(calc.engine_command(_asked(options), engine) for engine in wanted), end="")


def _sql(options: argparse.Namespace) -> None:
    import duckdb

    from calc.database import connect
    from calc.grid.dataset import Dataset
    from calc.tables import load

    if (options.query is None) == (options.file is None):
        raise CalcError("give one query: as an argument, or with --file")
    writable(options.output, WRITERS)
    query = options.query
    if options.file:
        try:
            query = Path(options.file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CalcError(f"{options.file}: cannot be read ({error})") from error
    try:
        connection = connect(load(), grid=options.grid, query=query)
        found = _asked_with(connection, query, _pairs(options.param))
        frame = found.pl() if found is not None else None
    except duckdb.Error as error:
        is_damaged = options.grid and ".parquet" in str(error)
        mend = f"\nA file of {options.grid} is damaged: build the grid again" if is_damaged else ""
        raise CalcError(f"the query fails: {error}{mend}") from error
    if options.grid and (missing := Dataset(options.grid).read().missing()):
        print(missing, file=sys.stderr)
    if frame is None:
        return
    if options.output:
        write(frame, options.output)
    else:
        print_frame(frame)


def _asked_with(
    connection: duckdb.DuckDBPyConnection, query: str, values: dict[str, object]
) -> duckdb.DuckDBPyRelation | None:
    """Ask with values for ``$name`` in the query and for variables, which views read with ``getvariable('name')``."""
    texts = [query, *(row[0] for row in connection.sql("select sql from duckdb_views()").fetchall())]
    read = {n for text in texts for found in re.findall(r"getvariable\('(\w+)'\)|\$(\w+)", text) for n in found if n}
    for name, value in values.items():
        if name not in read:
            raise CalcError(f"--param {name}: nothing that the query names reads it{closest(name, read)}")
        if isinstance(value, float) and isnan(value):
            raise CalcError(f"--param {name}: {value} is not a number")
        connection.execute(f"set variable {name} = ?", [value])
    placed = {n: v for n, v in values.items() if re.search(rf"\${n}\b", query)}
    return connection.sql(query, params=placed or None)


def _check(options: argparse.Namespace) -> None:
    from calc.check import check, headlines
    from calc.tables import load

    tables = load()
    check(tables)
    ridges, models = headlines(tables)
    rows = sum(frame.height for frame in tables.frames.values())
    print(f"{len(tables.frames)} tables with {rows} rows and every sheet keep their rules.\n")
    print("Ridge point of each device (op/byte): above it an operator is limited by compute, below by memory")
    print_frame(ridges)
    print("\nParameters and KV cache of each model")
    print_frame(models, exact=models.columns[1:])


def _calibrate(options: argparse.Namespace) -> None:
    from calc.tables import load

    try:
        from calc.calibration.calibrate import calibrate

        calibrate(load(), options.measurements, options.name)
    except ModuleNotFoundError as error:
        if error.name != "scipy":
            raise
        raise CalcError("calibrate needs scipy: pip install -r calc/calibration/requirements.txt") from None


def _validate(options: argparse.Namespace) -> None:
    from calc.tables import load
    from calc.validation import validate

    validate(load(), options.measurements)


def _units(table: str) -> dict[str, str]:
    from calc.tables import load

    return {str(c["column_name"]): str(c["unit"] or "") for c in load().columns(table)}


def _print(found: pl.DataFrame, by: str, own: Sequence[str] = ()) -> None:
    from calc.calibration.expected import errors_told

    table = {"operator": "operators", "stage": "stages", "serving": "serving"}[by]
    units = _units(table)
    print_frame(found.select(*own, *(c for c in SHOWN[by] if c in found.columns)), units=units)
    if by == "operator":
        print("\nEach row is one instance; the model has count of them.")
    if told := errors_told(found):
        print(told if by != "operator" else "Calibrations are of whole steps: operators are those of the roofline.")
    for column in ("assumed", "reason"):
        for text in dict.fromkeys(found[column].drop_nulls()) if column in found.columns else ():
            print(f"{column}: {text}")


if __name__ == "__main__":
    sys.exit(main())
