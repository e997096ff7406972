"""Commands on the catalogue: list models and devices, describe a model, import one."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from calc.errors import CalcError, closest
from calc.files import csv_text
from calc.output import WRITERS, print_frame, writable, write, write_text

if TYPE_CHECKING:
    import polars as pl

    from calc.importers.config import Imported
    from calc.tables import Tables

LISTED = {
    "models": ("model_id", "family", "n_parameters", "n_active_parameters", "n_layers", "hidden", "n_heads",
               "n_kv_heads", "kv_bytes_per_token"),
    "hardware": ("hardware_id", "fp16_ops_per_s", "bf16_ops_per_s", "fp8_ops_per_s", "int8_ops_per_s",
                 "memory_capacity_bytes", "memory_bandwidth_bytes_per_s", "tdp_w", "price_usd_per_hour"),
}  # fmt: skip
ROW_WRITERS = (".json", ".csv")


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the catalogue's commands to the command line."""
    for table, key in (("models", "model_id"), ("hardware", "hardware_id")):
        listing = commands.add_parser(table, help=f"list the {table}")
        listing.add_argument("--like", default="", help="only those whose id, alias or family contains this")
        listing.add_argument("--sort", metavar="COLUMN", help="greatest first by this column; -COLUMN: least first")
        listing.add_argument(
            "--output", metavar="FILE", help="write every column to FILE (.csv, .parquet, .xlsx, .json)"
        )
        listing.set_defaults(run=_list, table=table, key=key)

    describe = commands.add_parser("describe", help="a model's bill: parts, operators, parameters, cache per token")
    describe.add_argument("model", help="model id or alias")
    describe.add_argument("--output", metavar="FILE", help="write the bill to FILE (.csv, .parquet, .xlsx, .json)")
    describe.set_defaults(run=_describe)

    package = commands.add_parser("datapackage", help="the tables of facts described for others: datapackage.json")
    package.set_defaults(run=_datapackage)
    schema = commands.add_parser("schema", help="the JSON Schema of answers, as --output FILE.json writes them")
    schema.add_argument("--by", default="serving", help="operator, stage or serving (default)")
    schema.add_argument("--sheet", default="exact", help="exact (default) or llm_viewer")
    schema.set_defaults(run=_schema)

    imports = commands.add_parser(
        "import", help="make a row of a config.json, a model's folder, a GGUF file, a hub name"
    )
    imports.add_argument("source", help="CONFIG.json, MODEL_DIR, FILE.gguf or OWNER/MODEL")
    imports.add_argument("--id", metavar="NAME", help="name of the model; else what its files say")
    imports.add_argument("--save", metavar="FILE", help="add the row to FILE (.csv), for --models of every command")
    imports.add_argument("--output", metavar="FILE", help="write the row to FILE (.json, .csv)")
    imports.set_defaults(run=_import)


def _list(options: argparse.Namespace) -> None:
    import polars as pl

    import calc
    from calc.tables import load

    writable(options.output, WRITERS)
    found = calc.models() if options.table == "models" else calc.hardware()
    family = "family" if options.table == "models" else "vendor"
    spelled = pl.concat_str(options.key, pl.col("aliases").fill_null(""), family, separator=" ").str.to_lowercase()
    found = found.filter(spelled.str.contains(options.like.lower(), literal=True))
    if options.sort:
        column = options.sort.removeprefix("-")
        if column not in found.columns:
            raise CalcError(f"--sort: there is no column {column!r}{closest(column, found.columns)}")
        ascending = options.sort.startswith("-") != (not found.schema[column].is_numeric())
        found = found.sort(column, descending=not ascending, nulls_last=True, maintain_order=True)
    if options.output:
        write(found, options.output)
        return
    columns = list(LISTED[options.table])
    if options.sort and column not in columns:
        columns.insert(2, column)
    units = {str(c["column_name"]): str(c["unit"] or "") for c in load().columns(options.table)}
    print_frame(found.select(columns), units=units)


def _schema(options: argparse.Namespace) -> None:
    from calc.described import result_schema
    from calc.tables import load

    print(json.dumps(result_schema(load(), options.by, options.sheet), indent=1, ensure_ascii=False))


def _datapackage(options: argparse.Namespace) -> None:
    from calc.described import datapackage
    from calc.tables import load

    print(json.dumps(datapackage(load()), indent=1, ensure_ascii=False))


def _describe(options: argparse.Namespace) -> None:
    from calc.catalogue import bill, model_row
    from calc.tables import load

    writable(options.output, WRITERS)
    tables = load()
    row = model_row(tables, options.model)
    found = bill(tables, str(row["model_id"]))
    if options.output:
        write(found, options.output)
        return
    print(f"{row['model_id']}  ({row['family']})\n")
    _print_bill(found)
    _print_counts(row)


def _import(options: argparse.Namespace) -> None:
    import polars as pl

    from calc.catalogue import bill, model_row
    from calc.importers import import_model
    from calc.tables import load

    writable(options.output, ROW_WRITERS)
    writable(options.save, (".csv",))
    tables = load()
    imported = import_model(tables, options.source, options.id)
    own = tables.extended("models", pl.DataFrame({k: [csv_text(v)] for k, v in imported.row.items()}))
    row = model_row(own, str(imported.row["model_id"]))
    print(f"{row['model_id']}  ({row['family']})\n")
    _print_bill(bill(own, str(row["model_id"])))
    _print_origin(imported)
    _print_stored(imported, row)
    _print_counts(row)
    if options.output:
        _write_row(imported, options.output)
    if options.save:
        _save(tables, imported, options.save)


def _print_bill(found: pl.DataFrame) -> None:
    exact = ("count", "stored", "n_parameters", "kv_elements_per_token")
    print_frame(found, exact=exact)


def _print_origin(imported: Imported) -> None:
    print()
    for key, value in imported.assumed.items():
        print(f"assumed {key} = {json.dumps(value)}: the model type's default")
    for warning in imported.warnings:
        print(f"warning {warning}")
    if imported.ignored:
        print(f"not read: {', '.join(imported.ignored)}: this model type has no use for them")
    if imported.precision:
        print(f"precision {imported.precision}")


def _print_stored(imported: Imported, row: dict[str, object]) -> None:
    """Print what the files hold, and how far that is from what the row counts: two accounts of one model."""
    if not imported.stored:
        return
    held = imported.stored
    kinds = f" as {', '.join(held.dtypes)}" if held.dtypes else ""
    elements = f", {held.n_elements} elements" if held.n_elements else ""
    print(f"stored {held.n_bytes} bytes{elements}{kinds} ({held.note})")
    counted = sum(float(str(row.get(c) or 0)) for c in ("n_parameters", "n_vision_parameters", "n_mtp_parameters"))
    if held.n_elements and held.n_elements != counted:
        apart = held.n_elements - counted
        print(
            f"warning the files hold {abs(apart):.0f} elements {'more' if apart > 0 else 'fewer'} than are counted here"
        )


def _print_counts(row: dict[str, object]) -> None:
    print()
    for label, column in (
        ("parameters", "n_parameters"), ("active parameters", "n_active_parameters"),
        ("embedding parameters", "n_embedding_parameters"), ("head parameters", "n_head_parameters"),
        ("vision parameters", "n_vision_parameters"), ("prediction-layer parameters", "n_mtp_parameters"),
        ("published parameters", "n_published_parameters"),
        ("published active parameters", "n_published_active_parameters"),
    ):  # fmt: skip
        value = row.get(column)
        if isinstance(value, int | float) and (value or column == "n_parameters"):
            print(f"{label} {value:.0f}")
    if row.get("published_scope"):
        print(f"published: {row['published_scope']}")
    print(f"KV cache {float(str(row['kv_bytes_per_token'])):.0f} bytes per token at 16 bits")


def _write_row(imported: Imported, target: str) -> None:
    row = {k: csv_text(v) for k, v in imported.row.items() if v is not None}
    if Path(target).suffix.lower() == ".json":
        numbers = {k: v for k, v in imported.row.items() if v is not None}
        whole = {k: int(v) if isinstance(v, float) and v.is_integer() else v for k, v in numbers.items()}
        write_text(target, json.dumps(whole, indent=1, ensure_ascii=False) + "\n")
        return
    _write_rows([row], list(row), target)


def _save(tables: Tables, imported: Imported, target: str) -> None:
    """Add the row to a file of models; a row of the same name is replaced."""
    from calc.files import read_rows

    columns = [str(c["column_name"]) for c in tables.columns("models") if c["is_file"]]
    path, model_id = Path(target), str(imported.row["model_id"]).lower()
    before = read_rows(path) if path.exists() and path.stat().st_size else None
    # checked before it is written: what is no table of models is some other work of the user's
    tables.extended("models", before, path.name, first_line=2)
    rows = before.to_dicts() if before is not None else []
    kept = [r for r in rows if str(r["model_id"]).lower() != model_id]
    _write_rows([*kept, {k: csv_text(v) for k, v in imported.row.items()}], columns, target)
    if len(kept) < len(rows):
        print(f"warning {imported.row['model_id']!r} was there and has been replaced; --id gives another name")
    elif model_id in tables["models"]["model_id"].str.to_lowercase():
        print(f"warning {imported.row['model_id']!r} stands for the catalogue's own row now; --id gives another name")
    print(f"saved in {target}: use it with --models {target}")


def _write_rows(rows: Sequence[Mapping[str, object]], columns: list[str], target: str) -> None:
    import polars as pl

    write(
        pl.DataFrame({c: [r.get(c) for r in rows] for c in columns}, schema=dict.fromkeys(columns, pl.String)),
        target,
        is_answer=False,
    )
