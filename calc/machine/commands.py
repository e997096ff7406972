"""The command line's own machine: ``measure`` and ``bench``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from calc.errors import CalcError, closest

if TYPE_CHECKING:
    import polars as pl

    from calc.tables import Tables

STAGES = "prefill, then decode"


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands to a parser's."""
    measure = commands.add_parser("measure", help="measure this machine's memory bandwidth and matrix products")
    measure.add_argument("--device", metavar="NAME", help="numpy, cpu, cuda or mps (default: the fastest there is)")
    measure.add_argument("--save", action="store_true", help="keep the figures in the data folder's hardware.csv")
    measure.add_argument("--hardware", metavar="ID", help="the device that this is: its row gets the figures")
    measure.set_defaults(run=_measure)
    bench = commands.add_parser("bench", help="run layers of a model here, beside the prediction")
    bench.add_argument("model", help="model id or alias")
    bench.add_argument("--device", metavar="NAME", help="numpy, cpu, cuda or mps (default: the fastest there is)")
    bench.add_argument("--layers", type=int, default=1, metavar="N", help="layers that are counted (default 1)")
    bench.add_argument("--batch", default="1,4", metavar="N,N", help="sequences at once (default 1,4)")
    bench.add_argument("--input-len", default="128,512", metavar="N,N", help="prompt tokens (default 128,512)")
    bench.add_argument("--format", metavar="NAME", help="number format (default: fp32 of numpy, else bf16)")
    bench.set_defaults(run=_bench)


def _measure(options: argparse.Namespace) -> None:
    from calc.machine.backends import backend
    from calc.machine.measure import device_row, measured, rates
    from calc.output import print_frame
    from calc.tables import load

    of = backend(options.device)
    tables = load()
    if options.hardware and options.hardware not in (ids := tables["hardware"]["hardware_id"].to_list()):
        raise CalcError(f"unknown device {options.hardware!r}{closest(options.hardware, ids)}")
    print(f"{of.device}, {of.name}")
    found = measured(of)
    print_frame(_shown(found))
    facts = rates(found)
    row = device_row(tables, of, facts, options.hardware)
    print()
    for fact, value in facts.items():
        datasheet = row[fact.removeprefix("measured_")][0]
        beside = f", {value / datasheet:.0%} of the datasheet's" if options.hardware and datasheet else ""
        print(f"{fact} = {value:.4g}{beside}")
    if options.save:
        place = _save(tables, row)
        print(f"Kept as {row['hardware_id'][0]} in {place}; --technique measured_rates counts with it")


def _shown(found: pl.DataFrame) -> pl.DataFrame:
    """Return measurements for people."""
    from calc.display import quantity

    told = []
    for row in found.iter_rows(named=True):
        is_product = row["what"] == "matrix"
        size = f"{row['size']:,.0f}²" if is_product else quantity(row["size"], "byte")
        told.append((row["what"], row["format"], size, quantity(row["seconds"], "s"),
                     quantity(row["rate"], "op/s" if is_product else "byte/s")))  # fmt: skip
    import polars as pl

    return pl.DataFrame(told, schema=["what", "format", "size", "median", "rate"], orient="row")


def _save(tables: Tables, row: pl.DataFrame) -> str:
    """Write a device's row into the data folder's table, in place of one of its id."""
    import polars as pl

    from calc.output import replace_table

    known = tables["hardware"]
    mine = row.select(
        (pl.col(c) if c in row.columns else pl.lit(None)).cast(t).alias(c) for c, t in known.schema.items()
    )
    same = known["hardware_id"] == row["hardware_id"][0]
    place = tables.folder / "hardware.csv"
    if same.any():
        nth = int(same.arg_max() or 0)
        whole = pl.concat([known.head(nth), mine, known.slice(nth + 1)])
    else:
        whole = pl.concat([known, mine])
    replace_table(place, whole)
    return str(place)


def _bench(options: argparse.Namespace) -> None:
    import polars as pl

    from calc.machine.backends import backend
    from calc.machine.bench import PRECISIONS, Question, benched, layers_of
    from calc.machine.measure import device_row, measured, rates
    from calc.output import print_frame
    from calc.questions import canonical
    from calc.tables import load

    of, tables = backend(options.device), load()
    fmt = options.format or ("fp32" if of.formats == ("fp32",) else "bf16")
    if fmt not in of.formats or fmt not in PRECISIONS:
        raise CalcError(f"--format {fmt}: {of.name} runs {', '.join(of.formats)}{closest(fmt, of.formats)}")
    if options.layers < 1:
        raise CalcError(f"--layers {options.layers}: at least one")
    batches, lengths = (_numbers(getattr(options, o), o) for o in ("batch", "input_len"))
    model_id = str(canonical(tables, pl.DataFrame({"model_id": [options.model]}), "model_id")[0])
    questions = [Question("prefill", b, n, 0) for b in batches for n in lengths]
    questions += [Question("decode", b, 1, n) for b in batches for n in lengths]
    row = layers_of(tables, model_id, options.layers)
    device = device_row(tables, of, rates(measured(of)), None)
    found = benched(tables, of, device, row, questions, fmt)
    print(f"{options.layers} layers of {model_id} in {fmt} on {of.device}, {of.name}; predicted from what it reaches")
    print_frame(found)


def _numbers(text: str, option: str) -> list[int]:
    """Return a list of whole numbers; raises CalcError for what is none."""
    try:
        found = [int(n) for n in text.split(",")]
    except ValueError:
        raise CalcError(f"--{option.replace('_', '-')} {text}: whole numbers with commas between them") from None
    if min(found) < 1:
        raise CalcError(f"--{option.replace('_', '-')} {text}: at least 1")
    return found
