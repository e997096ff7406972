"""A program over its questions, as a lazy plan.

The facts of a model and of formats are joined once per configuration (everything but the device), those of a device
once per device and setup. Cells that read nothing of the device are computed on the former, those that read nothing
of the model on the latter, and the rest per question.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import polars as pl

from calc.expressions import expression, expressions
from calc.formula import is_literal
from calc.inputs import fact_columns
from calc.program import Addends, Axis, Program, by_level
from calc.questions import CONFIGURATION, DEGREES, DEVICE, NTH, ROW, Questions
from calc.results import Programs
from calc.shapes import input_axes
from calc.tables import FORMATS, Tables
from calc.tiles import ridge_columns

STREAMED_ROWS = 1 << 16
GATE = "__gate"
"""Whether a question has a row."""
NTH_SETUP, PLACE = "__setup", "__place"


@dataclass(frozen=True, eq=False)
class Known:
    """What a program knows of its questions before configurations meet devices: each side's columns, in order."""

    program: Program
    questions: Questions
    configurations: pl.DataFrame
    devices: pl.DataFrame


def known(tables: Tables, programs: Programs) -> list[Known]:
    """Return each program with what it knows of its questions' configurations and of devices."""
    deployed = [_deployed(tables, questions, program) for questions, program in programs]
    facts = [
        _facts(tables, questions, program, setups)
        for (questions, program), (setups, _) in zip(programs, deployed, strict=True)
    ]
    found = collected(facts, max(questions.configurations.height for questions, _ in programs))
    # a join keeps no order
    return [
        Known(program, questions, mine.sort(CONFIGURATION), devices)
        for (questions, program), mine, (_, devices) in zip(programs, found, deployed, strict=True)
    ]


def _deployed(tables: Tables, questions: Questions, program: Program) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the setups among questions, and each device × setup, with what a program knows of them."""
    setups = questions.configurations.select(_chosen(program)).unique(maintain_order=True)
    if setups.height > 1:
        return _on_devices(tables, program, setups, questions.devices)
    return _of_one(tables, program, setups.row(0), tuple(setups.schema.items()), tuple(questions.devices))


@lru_cache(maxsize=256)
def _of_one(
    tables: Tables,
    program: Program,
    setup: tuple[object, ...],
    schema: tuple[tuple[str, pl.DataType], ...],
    devices: tuple[int, ...],
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return what a program knows of one setup: one question after the other asks the same deployment."""
    return _on_devices(tables, program, pl.DataFrame([setup], schema=dict(schema), orient="row"), list(devices))


def _on_devices(
    tables: Tables, program: Program, setups: pl.DataFrame, devices: list[int]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    (found,) = collected([_setups(tables, setups, program)], 0)
    return found, collected([_devices(tables, devices, program, found)], 0)[0]


def collected(frames: Iterable[pl.LazyFrame], rows: int) -> list[pl.DataFrame]:
    """Return what plans of so many rows give, all of them at once."""
    # the plans are lean as they are: to optimise them costs more than it saves; and to stream few rows costs more
    # than to compute them
    engine: Literal["streaming", "in-memory"] = "streaming" if rows > STREAMED_ROWS else "in-memory"
    return pl.collect_all(frames, optimizations=pl.QueryOptFlags.none(), engine=engine)


def _facts(tables: Tables, questions: Questions, program: Program, setups: pl.DataFrame) -> pl.LazyFrame:
    """Return each configuration with what is carried to its points and does not depend on the device."""
    facts = _with_model(tables, questions.configurations, program.inputs)
    facts = facts.join(setups.lazy(), on=_chosen(program), nulls_equal=True)
    for level in program.levels("configuration"):
        facts = facts.with_columns(expressions(level))
    computed = {c.id for level in program.levels("point") for c in level}
    given = set() if questions.places is None else set(questions.places.columns)
    kept = (program.carried | program.weighed) - _on_device(tables, program) - computed - given
    return facts.select(CONFIGURATION, NTH_SETUP, *sorted(kept))


def _devices(tables: Tables, asked: list[int], program: Program, setups: pl.DataFrame) -> pl.LazyFrame:
    """Return each device × setup with what the sheet says of them: a grid's devices in their order, else all."""
    devices = tables["hardware"].with_row_index(DEVICE)
    if asked:
        devices = devices[asked]
    frame = devices.with_row_index(NTH).lazy().join(setups.lazy(), how="cross")
    for level in program.levels("device"):
        frame = frame.with_columns(expressions(level))
    kept = (program.carried | program.weighed) & _on_device(tables, program)
    return frame.sort(NTH, NTH_SETUP).select(DEVICE, NTH_SETUP, *sorted(kept))


def _on_device(tables: Tables, program: Program) -> set[str]:
    hardware = {n for n, a in input_axes(tables).items() if a is Axis.DEVICE}
    return hardware | {c.id for level in program.levels("device") for c in level}


def points(known: Known, is_whole: bool) -> pl.LazyFrame:
    """Return a program's questions, a row each, with every column that the program's result rows read.

    Where ``is_whole`` says that these are all, rows in order need no number.
    """
    program, questions = known.program, known.questions
    if questions.places is None:
        frame = _tiled(known, is_whole and questions.is_in_order)
    else:
        frame = questions.places.lazy().join(known.configurations.lazy(), on=CONFIGURATION)
        frame = frame.join(known.devices.lazy(), on=[DEVICE, NTH_SETUP])
    for level in program.levels("point"):
        frame = frame.with_columns(expressions(level))
    return _with_sums(frame, program)


def _tiled(known: Known, is_in_order: bool) -> pl.LazyFrame:
    """Return every configuration for every device of a grid.

    Facts of configurations are not copied: the rows of each device are another chunk of the same memory.
    """
    program, questions, facts, devices = known.program, known.questions, known.configurations, known.devices
    n, n_setups = len(questions.devices), devices.height // len(questions.devices)
    ridges = ridge_columns(program.ridges, facts, devices, NTH_SETUP) if program.ridges else []
    only_weighed = program.weighed - program.carried
    facts, devices = facts.drop(only_weighed, strict=False), devices.drop(only_weighed, strict=False)
    nth = np.arange(n, dtype=np.uint32)[:, None]
    told = [pl.Series(PLACE, (nth * n_setups + facts[NTH_SETUP].to_numpy()).reshape(-1)), *ridges]
    if program.addends or program.unfolds or not is_in_order:
        told.append(questions.rows(facts[CONFIGURATION]))
    tiles = pl.concat([facts] * n, rechunk=False).lazy().with_columns(told)
    return tiles.with_columns(
        pl.lit(devices[c]).gather(pl.col(PLACE)).alias(c) for c in devices.columns if c not in (NTH_SETUP, DEVICE)
    )


def _with_sums(points: pl.LazyFrame, program: Program) -> pl.LazyFrame:
    """Return questions with the sums that a program takes over their operators, and what rests on those."""
    if program.addends is None:
        return points
    added = program.addends
    frame = unfolded(points, added, added.broadcast())
    for level in by_level(added.late):
        frame = frame.with_columns(expressions(level))
    # an unknown addend makes the sum unknown, never smaller; in one list each, because where a group lies in memory
    # decides the order in which its floats are added
    sums = [_aggregated(function, expression(n)).alias(c) for c, (function, n) in added.sums.items()]
    found = points.join(frame.group_by(ROW, maintain_order=True).agg(sums), on=ROW, how="left")
    for level in by_level(program.on_sums):
        found = found.with_columns(expressions(level))
    return found


def _aggregated(function: str, term: pl.Expr) -> pl.Expr:
    if function == "MAX":
        return term.max()
    return pl.when(term.is_not_null().all()).then(term.implode().list.sum())


def unfolded(points: pl.LazyFrame, of: Program | Addends, broadcast: list[str]) -> pl.LazyFrame:
    """Return one row per question and operator that it has."""
    structs = pl.concat_list(_structs(of)).alias("__rows")
    frame = points.select(ROW, *broadcast, structs).explode("__rows").unnest("__rows")
    return frame.filter(GATE).with_columns(_labels(of))


def with_facts(tables: Tables, configurations: pl.DataFrame, inputs: set[str]) -> pl.LazyFrame:
    """Return each configuration with the facts of its model and its formats that are read."""
    return _with_formats(tables, _with_model(tables, configurations, inputs), inputs)


def _with_model(tables: Tables, configurations: pl.DataFrame, inputs: set[str]) -> pl.LazyFrame:
    """Return each configuration with the facts of its model that are read."""
    models = [n for n, _ in fact_columns(tables, "models") if n in inputs]
    return configurations.lazy().join(tables["models"].lazy().select("model_id", *models), on="model_id", how="left")


def _chosen(program: Program) -> list[str]:
    """Return what tells the setups of a program apart."""
    return [*FORMATS, *(d for d in DEGREES if d in program.inputs)]


def _setups(tables: Tables, setups: pl.DataFrame, program: Program) -> pl.LazyFrame:
    """Return setups, numbered, with what a program reads and computes of them."""
    frame = _with_formats(tables, setups.with_row_index(NTH_SETUP).lazy(), program.inputs)
    for level in program.levels("setup"):
        frame = frame.with_columns(expressions(level))
    return frame


def _with_formats(tables: Tables, frame: pl.LazyFrame, inputs: set[str]) -> pl.LazyFrame:
    """Return rows with the facts of their formats that are read."""
    for column in FORMATS:
        own = [
            (n, c)
            for n, c in fact_columns(tables, "formats")
            if n.startswith(column.removesuffix("format")) and n in inputs
        ]
        facts = (
            tables["formats"].lazy().select(pl.col("format_id").alias(column), *(pl.col(c).alias(n) for n, c in own))
        )
        frame = frame.join(facts, on=column, how="left")
    return frame


def with_device_facts(tables: Tables, questions: Questions, inputs: set[str]) -> pl.LazyFrame:
    """Return each question with every fact of its model, its formats and its device."""
    hardware = tables["hardware"].lazy().select("hardware_id", *(n for n, _ in fact_columns(tables, "hardware")))
    frame = questions.pairs().join(with_facts(tables, questions.configurations, inputs), on=CONFIGURATION)
    return frame.join(hardware.with_row_index(DEVICE), on=DEVICE)


@lru_cache(maxsize=256)
def _structs(of: Program | Addends) -> list[pl.Expr]:
    """Return each operator's fields as one struct; what is known beforehand of all is told apart by ``__nth``."""
    known = _known_fields(of)
    return [
        pl.struct(
            pl.lit(i, pl.UInt32).alias("__nth"),
            expression(r.gate).alias(GATE),
            *(expression(n).cast(pl.Float64).alias(f) for f, n in r.values.items() if f not in known),
        )
        for i, r in enumerate(of.rows)
    ]


def _known_fields(of: Program | Addends) -> list[str]:
    return [f for f in of.rows[0].values if all(is_literal(r.values[f]) for r in of.rows)]


@lru_cache(maxsize=256)
def _labels(of: Program | Addends) -> list[pl.Expr]:
    return [_label(f, [r.values[f].value for r in of.rows]) for f in _known_fields(of)]


def _label(field: str, values: list[object]) -> pl.Expr:
    dtype = pl.String if any(isinstance(v, str) for v in values) else pl.Float64
    return pl.lit(pl.Series(field, values, dtype=dtype)).gather(pl.col("__nth")).alias(field)
