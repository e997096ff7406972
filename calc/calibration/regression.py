"""The regression: times of measurements as a sum of named columns, with factors that are at least what physics asks.

A column is what one parameter of the calibrated sheet adds to a time: the sheet is linear in them, so that each is
the sheet's own answer with that parameter 1 and the others 0. Nothing is typed twice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from calc.calibration.applied import CONTINUOUS, calibrating, fitted_parameters
from calc.calibration.expected import PREDICTED
from calc.errors import CalcError
from calc.evaluation import answered
from calc.loading import load_sheet
from calc.measured import JOINING, SCENARIO, TIMES, predictions
from calc.questions import stack_of
from calc.tables import Tables

Matrix = NDArray[np.float64]
FIGURE = {"ttft_s": "ttft_s", "prefill_tokens_per_s": "ttft_s", "output_tokens_per_s": "e2e_s"}
"""The figure of an answer that a metric measures; of the others the time per output token."""
PRIOR_ROWS = 10.0
"""So many measurements weigh as much as what the engine does on other architectures."""
ROOT_ROWS = 1.0
"""So many weigh as much as the roofline itself: what was not measured stays there."""
FEWEST = 3
"""Measurements of an architecture from which it has factors of its own."""
ROUNDS = 25
SMALL = 0.03
"""Relative errors below it are not told apart: sources are no more precise."""
TYPICAL = 0.1
"""Relative error of a row whose weight is 1; rows that are further off weigh less."""
MOST = 2.0
"""Weight of the best rows."""
SHARE = 0.05
"""A factor of work that is a small share of every time is not seen well: it stays near what is believed of it, lest
another model, of whose times it is most, be far off."""
TINY = 1e-30


@dataclass(frozen=True)
class Design:
    """Measurements beside the columns that their times are sums of."""

    rows: pl.DataFrame
    """A row per measurement, with ``figure`` and ``measured_s``."""
    parameters: tuple[str, ...]
    columns: Matrix
    """Seconds per unit of each parameter, a row per measurement."""

    def only(self, kept: pl.Series) -> Design:
        """Return some of its rows."""
        return Design(self.rows.filter(kept), self.parameters, self.columns[kept.to_numpy()])

    @property
    def measured_s(self) -> Matrix:
        """The times that were measured."""
        return self.rows["measured_s"].to_numpy()

    def errors(self, factors: Matrix) -> Matrix:
        """Return the relative error of what factors predict (a row of them for all, or one per measurement)."""
        predicted: Matrix = (self.columns * factors).sum(axis=1)
        return predicted / self.measured_s - 1


@dataclass(frozen=True)
class Bounds:
    """Between what each factor lies: the roofline's own at the least, the parameter's maximum at most."""

    lower: Matrix
    upper: Matrix
    share: Matrix
    """Of a time, that each column is taken to have at least when its factor is held near what is believed."""


def bounds(tables: Tables, parameters: tuple[str, ...]) -> Bounds:
    """Return the bounds of factors: defaults are those of the roofline, which nothing can beat."""
    wanted = tables["parameters"].select("parameter", "default_value", "maximum", pl.col("unit").is_null())
    rows = {p: v for p, *v in wanted.iter_rows()}
    lower, upper, is_factor = np.array([rows[p] for p in parameters], dtype=np.float64).T
    return Bounds(lower, upper, is_factor * SHARE)


def design(tables: Tables, frame: pl.DataFrame) -> Design:
    """Return measurements of times with their columns.

    Left out are those that have no prediction, and those of techniques that no calibration goes with.
    """
    parameters = fitted_parameters(tables)
    timed = frame.filter(
        pl.col("metric").is_in(TIMES), ~pl.col("technique").is_in(_apart(tables, frame)).fill_null(False)
    )
    known = predictions(tables, timed).filter(pl.col("ttft_s").is_not_null() | pl.col("tpot_s").is_not_null())
    facts = tables["hardware"].select("hardware_id", "architecture")
    timed = timed.join(known.select("measurement_id", "max_batch"), on="measurement_id", how="inner")
    timed = timed.join(facts, on="hardware_id", how="left", maintain_order="left").with_columns(
        shape=_shape(tables, timed),
        figure=pl.col("metric").replace_strict(FIGURE, default="tpot_s"),
        measured_s=measured_time(),
        in_flight=pl.min_horizontal("batch", pl.when(pl.col("max_batch") >= 1).then("max_batch").otherwise("batch")),
    )
    asked = timed.select(
        "measurement_id", *[c for c in SCENARIO if c not in ("technique", "batch")], batch="in_flight",
        technique=pl.concat_str(pl.lit(calibrating(tables)), "technique", separator="+", ignore_nulls=True),
        **{CONTINUOUS: pl.col("engine").is_in(JOINING).cast(pl.Float64)},
    )  # fmt: skip
    units = pl.DataFrame(
        [{p: float(p == unit) for p in parameters} for unit in parameters], schema=dict.fromkeys(parameters, pl.Float64)
    )
    figures = [*PREDICTED]
    crossed = asked.join(units.with_row_index("nth"), how="cross")
    answers = answered(tables, crossed, "serving", columns=["measurement_id", "nth", *figures])
    picked = answers.join(timed.select("measurement_id", "figure"), on="measurement_id", maintain_order="left")
    time = pl.coalesce(pl.when(pl.col("figure") == f).then(f) for f in figures)
    columns = picked.with_columns(time=time)["time"].to_numpy().reshape(timed.height, len(parameters))
    kept = pl.Series(np.isfinite(columns).all(axis=1) & (columns.sum(axis=1) > 0))
    return Design(timed.filter(kept), parameters, columns[kept.to_numpy()])


def _apart(tables: Tables, frame: pl.DataFrame) -> list[str]:
    """Return the stacks of techniques of measurements that cannot stand beside a calibration."""
    found = []
    for stack in frame["technique"].drop_nulls().unique():
        try:
            load_sheet(tables, "exact", (calibrating(tables), *stack_of(stack)))
        except CalcError:
            found.append(str(stack))
    return found


def _shape(tables: Tables, rows: pl.DataFrame) -> pl.Series:
    """Return what tells the model of each row from others: fine-tuned models have the sizes of what they come from."""
    sizes = pl.concat_str("n_layers", "hidden", "vocab", separator="×").alias("shape")
    known = tables["models"].select("model_id", sizes)
    return rows.join(known, on="model_id", how="left", maintain_order="left")["shape"]


def measured_time() -> pl.Expr:
    """Return the time that a measurement says, in seconds: of a step, of a prompt or of an answer."""
    value, metric = pl.col("value"), pl.col("metric")
    return (
        pl.when(metric == "decode_tokens_per_s_per_user").then(1 / value)
        .when(metric == "decode_tokens_per_s").then(pl.col("batch") / value)
        .when(metric == "prefill_tokens_per_s").then(pl.col("batch") * pl.col("input_len") / value)
        .when(metric == "output_tokens_per_s").then(pl.col("batch") * pl.col("output_len") / value)
        .otherwise(value)
    )  # fmt: skip


def fit(data: Design, within: Bounds, prior: Matrix, prior_rows: float) -> Matrix:
    """Return the factors, within bounds, that make relative errors small in the sense of their median.

    ``prior`` is what is believed without measurements: as much as ``prior_rows`` of them weigh.
    """
    shares = data.columns / data.measured_s[:, None]
    scale = np.maximum(np.abs(shares).mean(axis=0), TINY)
    shares, floor, room = shares / scale, within.lower * scale, (within.upper - within.lower) * scale
    pull = np.diag(np.sqrt(prior_rows) * np.maximum(within.share / scale, 1))
    pulled = pull @ ((prior - within.lower) * scale)
    balance = _balance(data.rows)
    weights, found = balance, floor
    for _ in range(ROUNDS):
        system = np.vstack([shares * weights[:, None], pull])
        found = _bounded(system, np.append(weights * (1 - shares @ floor), pulled), room) + floor
        missed = np.maximum(np.abs(shares @ found - 1), SMALL)
        weights = balance * np.minimum(np.sqrt(TYPICAL / missed), MOST)
    result: Matrix = found / scale
    return result


def _bounded(system: Matrix, target: Matrix, room: Matrix) -> Matrix:
    """Return the non-negative least-squares solution; what goes beyond its room stays at its end."""
    from scipy.optimize import nnls

    found: Matrix = nnls(system, target)[0]
    over = found > room
    if over.any():
        found = np.where(over, room, 0.0)
        found[~over] = np.minimum(nnls(system[:, ~over], target - system @ found)[0], room[~over])
    return found


def _balance(rows: pl.DataFrame) -> Matrix:
    """Return weights by which a device or model that was measured often does not drown the others."""
    many = rows.select(pl.len().over("figure", "hardware_id", "model_id")).to_series().to_numpy()
    weights: Matrix = 1 / np.sqrt(many)
    return weights / float(weights.mean())


@dataclass(frozen=True)
class Fitted:
    """Factors of one engine: of all architectures together, and of each that was measured."""

    together: Matrix
    of: dict[str, Matrix]

    def factors(self, rows: pl.DataFrame) -> Matrix:
        """Return the factors that hold for each measurement, a row each."""
        return np.array([self.of.get(a, self.together) for a in rows["architecture"]])


def fit_engine(data: Design, within: Bounds) -> Fitted:
    """Return the factors of an engine's measurements; those of an architecture lean on those of all."""
    together = fit(data, within, within.lower, ROOT_ROWS)
    every = data.rows["architecture"].drop_nulls().unique(maintain_order=True)
    mine = {a: data.only(data.rows["architecture"].eq_missing(a)) for a in every}
    return Fitted(
        together, {a: fit(d, within, together, PRIOR_ROWS) for a, d in mine.items() if d.rows.height >= FEWEST}
    )
