"""A spreadsheet-style calculator of LLM inference performance, on DataFrames.

Facts are tables, formulas are data, and every answer is a frame::

    import calc

    calc.analyze("llama-2-7b", "a6000", batch=1, input_len=2048, by="stage")
    calc.ask("llama-2-7b", "a6000", batch=1).roofline()
    grid = calc.scenarios(model=["llama-2-7b", "opt-6.7b"], hardware=["a100", "h100"], batch=[1, 8, 64])
    calc.evaluate(grid, by="stage").filter(stage="decode").sort("time_s").collect()
    print(calc.explain("time_s", calc.scenarios(model="llama-2-7b", hardware="a6000"), stage="decode"))
    calc.connect().sql("select * from stages where model_id like 'meta%'")

Columns, units and meanings are in ``data/columns.csv``. Every function takes ``data=`` to use another data folder
than the product's own (or the one that the environment's CALC_DATA names).
"""

from __future__ import annotations

import os
import warnings
from typing import IO, TYPE_CHECKING, Any

from calc.errors import CalcError, DataError, ScenarioError, SheetError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import duckdb
    import polars as pl

    from calc.explanation import Explanation
    from calc.grid.build import Built
    from calc.result import Result
    from calc.tables import Tables

    Folder = str | os.PathLike[str] | None

__version__ = "0.7.0"
__all__ = [
    "CalcError", "DataError", "ScenarioError", "SheetError", "analyze", "ask", "build_grid", "connect",
    "engine_command", "evaluate", "explain", "export", "hardware", "models", "precisions", "read_scenarios",
    "scenarios", "techniques",
]  # fmt: skip


def models(data: Folder = None) -> pl.DataFrame:
    """Return the models: a row each, the facts of ``data/models.csv`` and what the exact sheet counts from them.

    Counted are ``n_parameters``, ``n_embedding_parameters``, ``n_head_parameters`` and ``kv_bytes_per_token`` (bytes
    at 16 bits). Raises DataError where the tables break a rule.
    """
    from calc.catalogue import model_facts

    tables = _tables(data)
    return tables["models"].join(model_facts(tables), on="model_id", how="left", maintain_order="left")


def hardware(data: Folder = None) -> pl.DataFrame:
    """Return the devices: a row each, base units, unknown is NULL. Raises DataError."""
    return _tables(data)["hardware"]


def precisions(data: Folder = None) -> pl.DataFrame:
    """Return the named precisions: a triple of formats each, for weights, activations and KV cache."""
    return _tables(data)["precisions"]


def techniques(data: Folder = None) -> pl.DataFrame:
    """Return the techniques that a scenario may name, with what each leaves out."""
    return _tables(data)["techniques"]


def scenarios(data: Folder = None, **lists: object) -> pl.LazyFrame:
    """Return a grid of questions: every combination of the lists, the first name varying slowest.

    ``model=`` and ``hardware=`` stand for ``model_id`` and ``hardware_id``; ``workload=`` names rows of
    ``workloads.csv``; a single value is a list of one; ``technique=["a", "b+c", None]`` is three scenarios. Other
    names are scenario columns and techniques' parameters. Raises ScenarioError.
    """
    from calc.questions import scenarios as grid

    return grid(_tables(data), **lists)


def read_scenarios(path: str | os.PathLike[str], data: Folder = None) -> pl.DataFrame:
    """Return the scenarios of a file (.csv, .xlsx, .parquet, .json), a row each, ready for ``evaluate``.

    ``model``, ``hardware`` and ``workload`` stand for the ids; a workload fills the sizes that are empty; other columns
    are the caller's own and come back. Raises DataError and ScenarioError.
    """
    from calc.scenario_files import read_scenarios as read

    return read(_tables(data), os.fspath(path))


def export(
    scenario: pl.DataFrame | pl.LazyFrame | Mapping[str, object],
    target: str | IO[bytes],
    techniques: Sequence[str] = (),
    sheet: str = "exact",
    data: Folder = None,
) -> None:
    """Write scenarios as a live workbook (.xlsx): cells hold the formulas, and inputs can be changed.

    Of several scenarios the workbook calculates the one that is chosen in it. ``techniques`` are stacks (``"a+b"``) to
    choose from beside the scenarios' own, at most eight in all. Raises CalcError and its kinds.
    """
    import polars as pl

    from calc.errors import closest
    from calc.questions import scenario_columns
    from calc.workbook.export import export as write

    tables = _tables(data)
    if isinstance(scenario, pl.LazyFrame):
        scenario = scenario.collect()
    if not isinstance(scenario, pl.DataFrame):
        # a frame may have columns of its own; in a mapping such a name is a slip
        known = scenario_columns(tables)
        for column in scenario:
            if column not in known:
                raise ScenarioError(f"{column!r} is no scenario column{closest(column, known)}")
        scenario = pl.DataFrame([dict(scenario)])
    write(tables, scenario, target, techniques, sheet)


def evaluate(
    scenarios: pl.DataFrame | pl.LazyFrame,
    by: str = "operator",
    sheet: str = "exact",
    engine: str = "polars",
    models: pl.DataFrame | None = None,
    hardware: pl.DataFrame | None = None,
    data: Folder = None,
) -> pl.LazyFrame:
    """Return the answers to a frame of questions, lazily: the frame's own columns, then the results.

    ``by`` is the grain: ``operator`` (a row per stage, part and operator; each is one instance, ``count`` how many
    the model has), ``stage`` (prefill and one decode step) or ``serving`` (one row per question). Rows keep the
    questions' order. ``models`` and ``hardware`` add a caller's own rows to the facts. Only the columns that are
    asked for are computed. Raises CalcError (ScenarioError, DataError, SheetError) for what cannot be asked; an
    unknown fact is no error: the result is NULL and ``reason`` names it.
    """
    from calc.evaluation import evaluate as answers

    tables = _tables(data).extended("models", models).extended("hardware", hardware)
    return answers(tables, scenarios, by=by, sheet=sheet, engine=engine)


def analyze(
    model: str,
    hardware: str,
    batch: int = 1,
    input_len: int = 1024,
    output_len: int = 128,
    precision: str = "w16a16kv16",
    attention: str = "flash",
    sheet: str = "exact",
    by: str = "operator",
    engine: str = "polars",
    data: Folder = None,
    **more: object,
) -> pl.DataFrame:
    """Return the answer to one question as a frame; columns, grains and errors as in ``evaluate``.

    ``more`` are further scenario columns: ``technique``, ``cached_len``, ``weight_format``…
    """
    asked: Mapping[str, Any] = {
        "model": model, "hardware": hardware, "batch": batch, "input_len": input_len, "output_len": output_len,
        "precision": precision, "attention": attention, **more,
    }  # fmt: skip
    from calc.evaluation import answered

    return answered(_tables(data), scenarios(data, **asked), by, sheet, engine=engine)


def ask(model: str, hardware: str, sheet: str = "exact", data: Folder = None, **more: object) -> Result:
    """Return the whole answer to one question: figures, frames, charts, explanations; it shows itself in notebooks.

    ``more`` are further scenario columns: ``batch``, ``input_len``, ``technique``… Raises CalcError and its kinds.
    """
    from calc.result import Result

    asked: Mapping[str, Any] = {"model": model, "hardware": hardware, **more}
    return Result(_tables(data), scenarios(data, **asked).collect(), sheet)


def explain(
    cell: str,
    row: pl.DataFrame | pl.LazyFrame | Mapping[str, object],
    stage: str | None = None,
    part: str | None = None,
    operator: str | None = None,
    sheet: str = "exact",
    data: Folder = None,
) -> Explanation:
    """Return where a number comes from: formula, the numbers in it, value, unit, source, and the same for precedents.

    ``row`` is one question (a frame of one row, or a mapping of scenario columns); it may be a row of a result, whose
    ``stage``, ``part`` and ``operator`` then say which number is meant. With an operator the cell is the operator's,
    with a stage alone the stage's total, with neither the serving answer's. Raises CalcError for an unknown cell.
    """
    from calc.explanation import explain as explained

    return explained(_tables(data), cell, row, stage=stage, part=part, operator=operator, sheet=sheet)


def engine_command(scenario: Mapping[str, object], engine: str, data: Folder = None) -> str:
    """Return the shell lines that start a serving engine (``vllm``, ``sglang``…) for one scenario.

    Comments above the command say what each flag means and what is left out; ``scenario`` has the names that
    ``scenarios`` takes. Engines and flags are ``data/engines.csv`` and ``data/engine_flags.csv``. Raises CalcError.
    """
    from calc.engines import engine_command as command

    asked = scenarios(data, **scenario).collect()
    if asked.height != 1:
        raise ScenarioError(f"engine_command takes one scenario, not {asked.height}")
    return command(_tables(data), asked.row(0, named=True), engine)


def connect(grid: str | os.PathLike[str] | None = None, data: Folder = None) -> duckdb.DuckDBPyConnection:
    """Return a DuckDB connection with every table of facts and every view, over live answers or over a grid.

    ``scenarios`` is the table of questions behind the views ``operators``, ``stages`` and ``serving`` (and
    ``llm_viewer_operators``…); ``operators_of('t')``… ask any table or common table expression ``t`` of scenarios.
    With a ``grid``, the folder of a dataset that ``build_grid`` wrote, ``scenarios`` are its questions and the view of
    its grain reads its rows; a grid that is not complete gives a UserWarning. Raises CalcError for a folder that is no
    grid, or one of other facts or formulas.
    """
    from calc.database import connect as connected

    if grid is not None:
        from calc.grid.dataset import Dataset

        if missing := Dataset(grid).read().missing():
            warnings.warn(missing, stacklevel=2)
    return connected(_tables(data), grid)


def build_grid(spec: object, out: str | os.PathLike[str], data: Folder = None) -> Built:
    """Write a grid of answers as a Parquet dataset partitioned by model, and return what was done.

    ``spec`` is a TOML file (or the name of one in ``data/grids``), a mapping of the same keys, or a frame of scenarios.
    What an earlier build of the folder left is kept where nothing that it rests on has changed, so an interrupted build
    is gone on with. Raises CalcError for a spec that is none and for a folder that cannot be written.
    """
    from calc.grid.build import build
    from calc.grid.parts import Plan
    from calc.grid.spec import load_spec

    tables = _tables(data)
    return build(Plan(tables, load_spec(tables, spec)), out)


def _tables(data: Folder) -> Tables:
    from calc.tables import load

    return load(data)
