"""``calc validate``: predictions held against measurements, and every one that goes beyond the bound named."""

from __future__ import annotations

from pathlib import Path

import duckdb
import polars as pl

from calc.calibration.judged import held_out, in_use, judge
from calc.errors import CalcError
from calc.files import parse_csv, read_given
from calc.measured import LARGEST_BYTES, MEMORY, Measured, measurements, predictions
from calc.output import print_frame
from calc.tables import ROOT, Tables

WITHIN = 0.02
"""What a source's own precision may be: a time so much below its floor is no violation."""
MOST_EXCEPTIONS = 0.01
"""Share of the times that may go beyond the bound, each with evidence from outside."""
EXCEPTIONS = Path("measured") / "exceptions.csv"
LISTED = 20
GROUPED = ("metric", "engine")
QUANTILES = (0.1, 0.5, 0.9)


def compared(tables: Tables, frame: pl.DataFrame) -> pl.DataFrame:
    """Return times beside their predictions: the columns of ``measured_vs_predicted`` for some measurements."""
    connection = duckdb.connect()
    connection.register("measurements", frame)
    connection.register("predictions", predictions(tables, frame))
    found: pl.DataFrame = connection.sql((ROOT / "sql" / "measured_vs_predicted.sql").read_text(encoding="utf-8")).pl()
    connection.close()
    return found


def memory(tables: Tables, frame: pl.DataFrame) -> pl.DataFrame:
    """Return measured memory beside what is predicted (``value``, ``predicted_bytes``), and the ``relative_error``.

    Both are of all devices of a deployment together.
    """
    asked = frame.filter(pl.col("metric").is_in(MEMORY))
    found = asked.join(predictions(tables, asked), on="measurement_id", maintain_order="left")
    whole = pl.when(pl.col("metric") == "weight_bytes").then("weight_memory_bytes").otherwise("memory_needed_bytes")
    predicted = found.with_columns(predicted_bytes=whole * pl.col("n_devices").fill_null(1)).drop_nulls(
        "predicted_bytes"
    )
    return predicted.with_columns(relative_error=pl.col("predicted_bytes") / pl.col("value") - 1)


def exceptions(tables: Tables) -> pl.DataFrame:
    """Return the measurements that go beyond the bound and why: ``measurement_id``, ``cause``, ``evidence``."""
    place = tables.folder / EXCEPTIONS
    if not place.is_file():
        return pl.DataFrame(schema=dict.fromkeys(("measurement_id", "cause", "evidence"), pl.String))
    return parse_csv(read_given(place, LARGEST_BYTES), place.name)


def beyond(found: pl.DataFrame) -> pl.DataFrame:
    """Return the times below their floor, by more than a source's precision, the furthest first."""
    return found.filter(pl.col("bound_share") > 1 + WITHIN).sort("bound_share", descending=True)


def validate(tables: Tables, file: str | None = None) -> None:
    """Print how a file of measurements, or the product's own, stands to the predictions.

    Raises DataError for a file that is none, CalcError where the bound is broken without an explanation, or too often,
    and where calibrated predictions of a group, or what memory is predicted, miss the aim without one.
    """
    told = measurements(tables, Path(file) if file else None)
    _print_rejected(told)
    found = compared(tables, told.accepted)
    answered = found.drop_nulls("time_s")
    _print_groups(answered)
    for reason, n in found.filter(pl.col("time_s").is_null()).group_by("reason").len().sort("len").iter_rows():
        print(f"\nNo prediction for {n:,}: {reason or 'a fact is unknown'}")
    held = memory(tables, told.accepted)
    _print_memory(held)
    faster = answered.filter(pl.col("roofline_share") > 1 + WITHIN, pl.col("bound_share") <= 1 + WITHIN)
    print(f"\n{faster.height:,} are faster than their operators one by one, and slower than the bound.")
    times = in_use(tables, told.accepted) if file else held_out(tables)
    sizes = held.select(predicted="metric", calibration_id="engine", error="relative_error")
    off = judge(tables, pl.concat([times, sizes], how="diagonal"))
    problems = [p for p in (_judge(answered, exceptions(tables)), off) if p]
    if problems:
        raise CalcError("\n".join(problems))


def _print_rejected(told: Measured) -> None:
    print(f"{told.accepted.height:,} measurements, {told.rejected.height:,} rows rejected")
    for row, name, problem in told.rejected.head(LISTED).iter_rows():
        print(f"  row {row}, {name}: {problem}")
    if told.rejected.height > LISTED:
        print(f"  and {told.rejected.height - LISTED:,} more")


def _print_groups(answered: pl.DataFrame) -> None:
    print(
        "\nShare of the roofline that was reached, by metric and engine (p10, median, p90), "
        "utilisation of matrix units and memory (median), and the most of the bound"
    )
    share = pl.col("roofline_share")
    grouped = answered.group_by(GROUPED).agg(
        n=pl.len(),
        **{f"p{q * 100:.0f}": share.quantile(q) for q in QUANTILES},
        mfu=pl.col("mfu").median(),
        mbu=pl.col("mbu").median(),
        most_of_bound=pl.col("bound_share").max(),
    )
    print_frame(grouped.sort("metric", "n", "engine", descending=[False, True, False]))


def _print_memory(found: pl.DataFrame) -> None:
    if found.is_empty():
        return
    print("\nMemory: predicted over measured, less one")
    error = pl.col("relative_error")
    absolute = error.abs()
    grouped = found.group_by(GROUPED).agg(
        n=pl.len(), median=error.median(), median_absolute=absolute.median(), p90_absolute=absolute.quantile(0.9)
    )
    print_frame(grouped.sort("metric", "n", "engine", descending=[False, True, False]))


def _judge(answered: pl.DataFrame, known: pl.DataFrame) -> str:
    """Print what breaks the bound; return what of it is unexplained, or that it is too much, or nothing."""
    broken = beyond(answered).join(known, on="measurement_id", how="left", maintain_order="left")
    share = broken.height / max(answered.height, 1)
    print(f"\n{broken.height:,} of {answered.height:,} times ({share:.2%}) are below the bound:")
    for cause, rows in broken.drop_nulls("cause").group_by("cause", maintain_order=True):
        print(f"  {rows.height}: {cause[0]}\n     {rows['evidence'][0]}")
    unknown = broken.filter(pl.col("cause").is_null())
    if unknown.height:
        lines = (
            f"{r['measurement_id']}: {r['metric']} of {r['model_id']} on {r['hardware_id']}, "
            f"{r['bound_share']:.2f} of the bound"
            for r in unknown.head(LISTED).iter_rows(named=True)
        )
        return f"{unknown.height:,} are unexplained (data/{EXCEPTIONS}):\n" + "\n".join(lines)
    if share > MOST_EXCEPTIONS:
        return f"{share:.1%} of the times are exceptions; at most {MOST_EXCEPTIONS:.0%} may be"
    return ""
