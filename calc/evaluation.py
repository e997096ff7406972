"""Scenarios → operators → stages → serving, in Polars.

The answers are a lazy source: only the columns that a query asks for are compiled and computed, batch by batch. A
question's facts are joined once per configuration (everything but the device); cells that read nothing of the device
are computed there, the others per scenario. All arithmetic is the sheet's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import polars as pl
from polars.io.plugins import register_io_source

from calc.errors import CalcError
from calc.expressions import expression, expressions
from calc.formula import TRUE, Node, is_literal
from calc.program import Addends, Axis, Program, by_level, result_scope
from calc.questions import CONFIGURATION, DEVICE, FORMATS, ROW, Questions, prepare
from calc.results import Programs, compiled, result_columns
from calc.shapes import input_axes, shaped
from calc.sheet import Sheet, fact_columns, load_sheet
from calc.tables import DTYPES, Tables

BATCH_ROWS = 1 << 21
SMALL_ROWS = 1000
CHUNK_ROWS = 12_000
Engine = Callable[[Tables, Questions, Programs], tuple[pl.DataFrame, pl.Series | None]]


def evaluate(
    tables: Tables,
    scenarios: pl.DataFrame | pl.LazyFrame,
    by: str = "operator",
    sheet: str = "exact",
    engine: str = "polars",
) -> pl.LazyFrame:
    """Return the answers: the scenarios' own columns, then the results, in the scenarios' order.

    Grain and units are the dictionary's (``operators``, ``stages``, ``serving`` in ``data/columns.csv``). Raises
    CalcError and its kinds for what cannot be asked.
    """
    results = result_columns(tables, by)
    questions = prepare(tables, scenarios, results)
    answer = _engine(engine)
    sheets = {stack: load_sheet(tables, sheet, stack) for stack, _, _ in questions.groups()}
    scope = result_scope(next(iter(sheets.values()), load_sheet(tables, sheet)), by)
    found = {c: DTYPES[t] for c, t in results.items() if scope.find(c) is not None}
    own = {c: t for c, t in scenarios.collect_schema().items() if c not in found}
    if not sheets:
        return pl.LazyFrame(schema={**own, **found})

    def source(
        with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, _batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        # a bare count asks for no column, but a frame without columns has no rows to count
        wanted = [*own, *found] if with_columns is None else with_columns or [next(iter(found))]
        columns = tuple(c for c in found if c in wanted) or tuple(found)[:1]
        keys = [c for c in own if c in wanted]
        asked = scenarios.lazy().select(keys).collect()
        left = n_rows
        for first, batch in questions.batches(BATCH_ROWS):
            frame, rows = answer(tables, batch, _programs(tables, sheets, by, columns, batch))
            if keys:
                if rows is None:
                    rows = pl.int_range(frame.height, eager=True) // (frame.height // batch.height)
                frame = pl.concat([asked.slice(first, batch.height)[rows], frame], how="horizontal")
            frame = frame.select(wanted)
            if predicate is not None:
                frame = frame.filter(predicate)
            if left is not None:
                frame, left = frame.head(left), left - min(left, frame.height)
            yield frame
            if left == 0:
                return

    return register_io_source(source, schema={**own, **found}, validate_schema=False, is_pure=True)


def _programs(
    tables: Tables, sheets: dict[tuple[str, ...], Sheet], by: str, columns: tuple[str, ...], questions: Questions
) -> Programs:
    """Return the questions in groups that one program answers, each with its program."""
    wide = questions.height > SMALL_ROWS
    return [
        (part, compiled(tables, sheets[stack], by, columns, attention, shape, wide))
        for stack, attention, mine in questions.groups()
        for shape, part in shaped(tables, sheets[stack], attention, mine)
    ]


def _engine(title: str) -> Engine:
    if title == "polars":
        return answer
    if title == "duckdb":
        from calc.database import answer as answer_duckdb

        return answer_duckdb
    raise CalcError(f"unknown engine {title!r}; there are polars, duckdb")


def answer(tables: Tables, batch: Questions, programs: Programs) -> tuple[pl.DataFrame, pl.Series | None]:
    """Return the results of a batch in the questions' order, and each result row's question where that is not plain."""
    parts = [part for questions, program in programs for part in _parts(tables, questions, program)]
    if programs[0][1].unfolds:
        rows = [_operator_rows(part, batch) for part in parts]
        whole = pl.concat(rows).sort(ROW, maintain_order=True) if len(rows) > 1 else rows[0]
        return whole.drop(ROW), whole[ROW]
    return _wide_rows(parts, batch)


@dataclass
class _Part:
    """The plan of the questions of one stack, one kind of attention and formats."""

    program: Program
    points: pl.LazyFrame


def _parts(tables: Tables, questions: Questions, program: Program) -> Iterator[_Part]:
    facts = with_facts(tables, questions.configurations, program.inputs)
    for level in program.levels("formats", "configuration"):
        facts = facts.with_columns(expressions(level))
    hardware = {n for n, a in input_axes(tables).items() if a is Axis.DEVICE}
    on_device = hardware | {c.id for level in program.levels("device") for c in level}
    kept = sorted(program.carried - on_device - {c.id for level in program.levels("point") for c in level})
    facts = facts.select(CONFIGURATION, *FORMATS, *(c for c in kept if c not in FORMATS))
    carried = sorted(program.carried & on_device)
    for formats, mine in _by_formats(facts, questions.configurations):
        points = _points(questions, mine, _devices(tables, program, questions, formats, carried))
        for level in program.levels("point"):
            points = points.with_columns(expressions(level))
        yield _Part(program, with_sums(points, program, questions.height))


def with_sums(points: pl.LazyFrame, program: Program, height: int) -> pl.LazyFrame:
    """Return questions with the sums that a program takes over their operators, and what rests on those."""
    if program.addends is None:
        return points
    added = program.addends
    frame = _unfolded(points, added, added.broadcast())
    for level in by_level(added.late):
        frame = frame.with_columns(expressions(level))
    # an unknown addend makes the sum unknown, never smaller
    sums = [
        pl.when(expression(n).is_not_null().all()).then(expression(n).sum()).alias(c) for c, n in added.sums.items()
    ]
    found = points.join(frame.group_by(ROW, maintain_order=True).agg(sums), on=ROW, how="left")
    for level in by_level(program.on_sums):
        found = found.with_columns(expressions(level))
    return found


def _unfolded(points: pl.LazyFrame, of: Program | Addends, broadcast: list[str]) -> pl.LazyFrame:
    """Return one row per question and operator that it has."""
    structs = pl.concat_list(_structs(of)).alias("__rows")
    frame = points.select(ROW, *broadcast, structs).explode("__rows").unnest("__rows")
    return frame.filter(pl.col("__gate")).with_columns(_labels(of))


def _by_formats(facts: pl.LazyFrame, configurations: pl.DataFrame) -> Iterator[tuple[tuple[str, ...], pl.LazyFrame]]:
    """Return configurations in groups of the same formats: a device has one set of peaks for each."""
    formats = configurations.select(FORMATS).unique()
    if formats.height == 1:
        yield formats.row(0), facts
        return
    for key, mine in _collect(facts, configurations.height).group_by(FORMATS, maintain_order=True):
        yield tuple(str(f) for f in key), mine.lazy()


def _devices(
    tables: Tables, program: Program, questions: Questions, formats: tuple[str, ...], carried: list[str]
) -> pl.LazyFrame:
    """Return the devices with what the sheet says of them for formats; ``nth`` is a device's place in a grid."""
    asked = pl.DataFrame(dict(zip(FORMATS, formats, strict=True)))
    wanted = pl.DataFrame({DEVICE: questions.devices}, schema={DEVICE: pl.UInt32}).with_row_index("nth")
    devices = tables["hardware"].with_row_index(DEVICE).join(wanted, on=DEVICE, how="left", maintain_order="left")
    if questions.devices:
        devices = devices.filter(pl.col("nth").is_not_null()).sort("nth")
    frame = _with_formats(tables, devices.lazy().join(asked.lazy(), how="cross"), program.inputs)
    for level in program.levels("formats", "device"):
        frame = frame.with_columns(expressions(level))
    return frame.select(DEVICE, "nth", *carried)


def _points(questions: Questions, facts: pl.LazyFrame, devices: pl.LazyFrame) -> pl.LazyFrame:
    """Return one row per question, with what configurations and devices carry."""
    if questions.places is None:
        return devices.join(facts, how="cross").with_columns(questions.row())
    return questions.places.lazy().join(facts, on=CONFIGURATION).join(devices, on=DEVICE)


def with_facts(tables: Tables, configurations: pl.DataFrame, inputs: set[str]) -> pl.LazyFrame:
    """Return each configuration with the facts of its model and its formats that are read."""
    models = [n for n, _ in fact_columns(tables, "models") if n in inputs]
    frame = configurations.lazy().join(tables["models"].lazy().select("model_id", *models), on="model_id", how="left")
    return _with_formats(tables, frame, inputs)


def _with_formats(tables: Tables, frame: pl.LazyFrame, inputs: set[str]) -> pl.LazyFrame:
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


def _operator_rows(part: _Part, batch: Questions) -> pl.DataFrame:
    """Unfold each question into its operators and compute the roofline on their rows."""
    program = part.program
    frame = _unfolded(part.points.sort(ROW), program, program.broadcast)
    for level in by_level(program.late):
        frame = frame.with_columns(expressions(level))
    return _collect(frame.select(ROW, *_values(program.outputs, program)), batch.height)


def _wide_rows(parts: list[_Part], batch: Questions) -> tuple[pl.DataFrame, pl.Series | None]:
    """Compute each question's result rows side by side, then put them below each other."""
    n = len(parts[0].program.rows)
    if any(len(p.program.rows) != n or any(r.gate != TRUE for r in p.program.rows) for p in parts):
        return _uneven_rows(parts, batch)
    program = parts[0].program
    labels = {c for c in program.outputs if all(is_literal(r.values[c]) for p in parts for r in p.program.rows)}
    wide = [_collect(p.points.select(ROW, *_wide_values(p.program, labels)), batch.height) for p in parts]
    found = pl.concat(wide).sort(ROW)
    nth = pl.int_range(n * found.height, eager=True) % n
    shown: dict[str, pl.Series] = {}
    for column in program.outputs:
        if column in labels:
            dtype = DTYPES[program.dtypes[column]]
            values = pl.Series(column, [r.values[column].value for r in program.rows], dtype=dtype)
            shown[column] = values.gather(nth)
        else:
            both = pl.concat_arr(f"{i} {column}" for i in range(n)).explode()
            shown[column] = found.select(both.alias(column)).to_series()
    return pl.DataFrame(shown), None


def _uneven_rows(parts: list[_Part], batch: Questions) -> tuple[pl.DataFrame, pl.Series | None]:
    """Compute result rows where some questions have fewer than others: an encoder has no decode."""
    long = []
    for part in parts:
        program = part.program
        gates = [expression(r.gate).alias(f"{i} __gate") for i, r in enumerate(program.rows)]
        wide = _collect(part.points.select(ROW, *gates, *_wide_values(program, set())), batch.height)
        for i in range(len(program.rows)):
            columns = [pl.col(f"{i} {c}").alias(c) for c in program.outputs]
            long.append(wide.filter(pl.col(f"{i} __gate")).select(ROW, pl.lit(i).alias("__nth"), *columns))
    whole = pl.concat(long).sort(ROW, "__nth")
    return whole.drop(ROW, "__nth"), whole[ROW]


def _wide_values(program: Program, left_out: set[str]) -> list[pl.Expr]:
    return [
        v.alias(f"{i} {v.meta.output_name()}")
        for i, r in enumerate(program.rows)
        for v in _values({c: n for c, n in r.values.items() if c not in left_out}, program)
    ]


def _collect(frame: pl.LazyFrame, height: int) -> pl.DataFrame:
    # planning costs more than a few rows do; a hundred columns of many rows must stay in the processor's cache
    if height <= SMALL_ROWS:
        return frame.collect(optimizations=pl.QueryOptFlags.none())
    with pl.Config(streaming_chunk_size=CHUNK_ROWS):
        return frame.collect(engine="streaming")


@lru_cache(maxsize=256)
def _structs(of: Program | Addends) -> list[pl.Expr]:
    """Return each operator's fields as one struct; what is known beforehand of all is told apart by ``__nth``."""
    known = _known_fields(of)
    return [
        pl.struct(
            pl.lit(i, pl.UInt32).alias("__nth"),
            expression(r.gate).alias("__gate"),
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


def _values(values: dict[str, Node], program: Program) -> list[pl.Expr]:
    return [expression(node).cast(DTYPES[program.dtypes[c]]).alias(c) for c, node in values.items()]
