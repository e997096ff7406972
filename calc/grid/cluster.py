"""The same grid on Apache Spark: the same spec, cells and dataset, computed by a cluster.

Facts are joined by Spark SQL, cells are Spark's ``expr``; what a cell says is the text that every engine reads. Each
part is a job of its own; the driver puts finished files in their places, so the dataset is whole at any moment.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import polars as pl

from calc.dialects import SPARK, joined_facts
from calc.errors import CalcError
from calc.evaluation import POLARS, programs_of, request, with_companions
from calc.formula import Node
from calc.grid.build import Compute, Progress
from calc.grid.dataset import Dataset, Written, failing, write_aside
from calc.grid.parts import Asked, Part, Plan
from calc.program import Program, ResultRow, by_level
from calc.questions import CONFIGURATION, DEVICE, ROW, Questions

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

STAGING = ".spark"
"""Where executors write, in the dataset's folder: drivers and workers share it."""
ASKED = "__asked_"
WIDE = replace(POLARS, form_of_grids="wide", few_rows=0)
"""Says which programs Spark answers: those without sums over rows."""
SETTINGS = {
    # a formula that divides by nothing is unknown, not an error
    "spark.sql.ansi.enabled": "false",
    "spark.sql.parquet.compression.codec": "zstd",
    # a part is a plan of hundreds of columns: to compile it as one, or to plan it anew as it runs, takes longer than it
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.constraintPropagation.enabled": "false",
    "spark.sql.adaptive.enabled": "false",
    "spark.ui.enabled": "false",
    "spark.sql.shuffle.partitions": "8",
}


def on_spark(master: str | None) -> Compute:
    """Return what computes parts on a cluster, or on this machine's cores where no master is named."""
    return lambda dataset, plan, missing, progress: _compute(dataset, plan, missing, progress, master)


def _compute(
    dataset: Dataset, plan: Plan, missing: list[tuple[Part, str]], progress: Progress | None, master: str | None
) -> None:
    """Compute parts and put them in their places. Raises CalcError where Spark is not to be had."""
    if not missing:
        return
    session = _session(master)
    try:
        job = Job(session, plan, dataset.folder)
        with ThreadPoolExecutor(max(session.sparkContext.defaultParallelism, 1)) as pool:
            waiting = {pool.submit(job.part, part, content): part for part, content in missing}
            try:
                for future in as_completed(waiting):
                    dataset.place(*future.result())
                    dataset.save(is_due=False)
                    if progress is not None:
                        progress(plan.questions(waiting[future]))
            finally:
                pool.shutdown(cancel_futures=True)
    finally:
        session.stop()
        shutil.rmtree(dataset.folder / STAGING, ignore_errors=True)


def _session(master: str | None) -> SparkSession:
    try:
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise CalcError(
            "--engine spark needs pyspark: pip install -r calc/grid/requirements.txt, and Java 17"
        ) from error
    builder = SparkSession.builder.appName("calc grid").master(master or "local[*]")
    for key, value in SETTINGS.items():
        builder = builder.config(key, value)
    try:
        session = builder.getOrCreate()
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CalcError(f"Spark does not start at {master or 'local[*]'}: {reason}; is Java 17 there?") from error
    session.sparkContext.setLogLevel("ERROR")
    return session


class Job:
    """What every part of a grid has in common on a cluster: the tables of facts, as views of Spark SQL."""

    def __init__(self, session: SparkSession, plan: Plan, folder: Path) -> None:
        """Give the tables to the session."""
        self._session, self._plan, self._folder = session, plan, folder
        tables = plan.tables
        for table in ("models", "formats"):
            self._frame(tables[table]).createOrReplaceTempView(table)
        self._frame(tables["hardware"].with_row_index(DEVICE)).createOrReplaceTempView("__devices")

    def _frame(self, frame: pl.DataFrame) -> DataFrame:
        texts = [c for c, t in frame.schema.items() if isinstance(t, pl.Enum | pl.Categorical)]
        whole = [c for c, t in frame.schema.items() if t == pl.UInt32]
        plain = frame.with_columns(pl.col(texts).cast(pl.String), pl.col(whole).cast(pl.Int64))
        return self._session.createDataFrame(plain.to_arrow())

    def part(self, part: Part, content: str) -> tuple[str, Written]:
        """Compute a part, write it aside and return what a manifest says of it."""
        staging = self._folder / STAGING / part.path
        frames = [frame for asked in self._plan.asked_by([part]) for frame in self._rows(asked)]
        if frames:
            whole = frames[0]
            for frame in frames[1:]:
                whole = whole.unionByName(frame, allowMissingColumns=True)
            whole.coalesce(1).write.mode("overwrite").parquet(str(staging))
            rows = pl.read_parquet(staging / "*.parquet")
        else:
            (rows,) = self._plan.rows([part])
        with failing(self._folder):
            shutil.rmtree(staging, ignore_errors=True)
        return write_aside(self._folder, part.path, content, self._plan.finished(part, rows, is_in_order=False))

    def _rows(self, asked: Asked) -> Iterator[DataFrame]:
        """Return the answers to questions, with their own columns and what conditions read."""
        plan, tables = self._plan, self._plan.tables
        by, sheet = plan.spec.by, plan.spec.sheet
        ready = request(tables, asked.frame, by, sheet)
        columns = tuple(c for c in ready.results if c in plan.wanted)
        programs = programs_of(tables, ready.sheets, by, columns, ready.questions, WIDE)
        for mine, program in with_companions(tables, sheet, programs, POLARS):
            yield self._answers(mine, program, asked.own)

    def _answers(self, questions: Questions, program: Program, own: pl.DataFrame) -> DataFrame:
        view = f"questions_{uuid4().hex}"
        self._questions(questions, own.select(pl.all().name.prefix(ASKED))).createOrReplaceTempView(view)
        facts = joined_facts(self._plan.tables, program, view, SPARK)
        frame = self._session.sql(facts)
        for level in by_level(program.columns):
            frame = frame.withColumns({c.id: _expr(c.node) for c in level})
        kept = [c for c in frame.columns if c.startswith(ASKED)]
        frame = self._unfolded(frame, program, kept)
        for level in by_level(program.late):
            frame = frame.withColumns({c.id: _expr(c.node) for c in level})
        outputs = program.outputs if program.unfolds else {c: Node("name", c) for c in program.outputs}
        found = [_expr(node).cast(SPARK.type(program.dtypes[c])).alias(c) for c, node in outputs.items()]
        from pyspark.sql import functions

        return frame.select(*(functions.col(c).alias(c.removeprefix(ASKED)) for c in kept), *found)

    def _questions(self, questions: Questions, own: pl.DataFrame) -> DataFrame:
        """Return one row per question; a grid's configurations meet its devices on the cluster."""
        configurations = questions.configurations
        if questions.places is not None:
            asked = questions.places.join(own.with_row_index(ROW), on=ROW)
            return self._frame(asked.join(configurations, on=CONFIGURATION).drop(ROW))
        device = f"{ASKED}hardware_id"
        devices = pl.DataFrame({DEVICE: questions.devices, device: own[device].gather_every(questions.run)})
        mine = own.head(questions.run).drop(device).with_row_index(CONFIGURATION)
        return self._frame(configurations.join(mine, on=CONFIGURATION)).crossJoin(self._frame(devices))

    def _unfolded(self, frame: DataFrame, program: Program, kept: list[str]) -> DataFrame:
        """Return a row for each result row that a question has."""
        carried = [*kept, *program.broadcast]
        every = SPARK.rows.format(",\n".join(_struct(row) for row in program.rows))
        rows = frame.selectExpr(*map(SPARK.name, carried), every)
        return rows.where("__gate")


def _struct(row: ResultRow) -> str:
    values = {"__gate": row.gate, **row.values}
    return SPARK.struct.format(", ".join(SPARK.field.format(c, SPARK.sql(n)) for c, n in values.items()))


def _expr(node: Node):  # type: ignore[no-untyped-def]
    from pyspark.sql import functions

    return functions.expr(SPARK.sql(node))
