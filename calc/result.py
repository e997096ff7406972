"""The answer to one question, whole: its figures, stages and operators, their charts, and the ways on from there.

Made for notebooks: a result shows itself as a table of its foremost figures, each chart is an Altair chart.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import IO, TYPE_CHECKING

import polars as pl

from calc import report
from calc.calibration.expected import errors_told
from calc.display import quantities, quantity
from calc.engines import engine_command
from calc.errors import CalcError, closest
from calc.evaluation import answered
from calc.explanation import Explanation, explain
from calc.questions import canonical, scenario_columns
from calc.tables import Tables

if TYPE_CHECKING:
    import altair as alt

FOREMOST = (
    "fits", "ttft_s", "tpot_s", "e2e_s", "output_tokens_per_s", "memory_needed_bytes", "memory_capacity_bytes",
    "usd_per_million_output_tokens", "energy_j_per_token", "ttft_bound", "tpot_bound", "reason",
)  # fmt: skip
"""Figures that a result shows of itself."""
HELD = {
    "weight_memory_bytes": "weights", "kv_cache_bytes": "KV cache", "activation_peak_bytes": "activations",
    "reserve_bytes": "reserve",
}  # fmt: skip
"""What fills the memory of a device."""
WIDTH = 620
"""Pixels of a chart, which a notebook leaves to it."""


class Result:
    """The answer to one scenario on one sheet; frames are computed when they are first looked at."""

    def __init__(self, tables: Tables, scenario: pl.DataFrame, sheet: str = "exact") -> None:
        if scenario.height != 1:
            raise CalcError(f"a result is of one scenario, not {scenario.height}")
        self.tables, self.scenario, self.sheet = tables, scenario, sheet

    @cached_property
    def serving(self) -> pl.DataFrame:
        """The whole answer: one row."""
        return answered(self.tables, self.scenario, "serving", self.sheet)

    @cached_property
    def stages(self) -> pl.DataFrame:
        """A row for prefill and one for a decode step."""
        return answered(self.tables, self.scenario, "stage", self.sheet)

    @cached_property
    def operators(self) -> pl.DataFrame:
        """A row per stage, part and operator, with ``all_s`` (s, of all instances) and ``share`` of its stage."""
        return with_shares(answered(self.tables, self.scenario, "operator", self.sheet), self.stages)

    def __getitem__(self, figure: str) -> object:
        """Return a figure of the whole answer, such as ``tpot_s``; raises CalcError for another name."""
        if figure not in self.serving.columns:
            raise CalcError(f"there is no figure {figure!r}{closest(figure, self.serving.columns)}")
        return self.serving[figure][0]

    def roofline(self) -> alt.LayerChart:
        """Return the roofline with a point per operator and stage; raises CalcError for an unknown bandwidth."""
        from calc import charts

        device = self.tables["hardware"].filter(hardware_id=self.hardware_id)
        bandwidth = device["memory_bandwidth_bytes_per_s"][0]
        if bandwidth is None:
            raise CalcError(f"the memory bandwidth of {self.hardware_id} is unknown")
        return charts.roofline(self.operators, float(bandwidth)).properties(width=WIDTH)

    def time(self) -> alt.Chart:
        """Return the operators that take the most of each stage's time, as bars."""
        from calc import charts

        return charts.time_bars(self.operators).properties(width=WIDTH)

    def memory(self) -> alt.LayerChart:
        """Return what fills a device's memory, as a bar; raises CalcError where its capacity is unknown."""
        from calc import charts

        items, capacity = held(self.serving), self["memory_capacity_bytes"]
        if capacity is None:
            raise CalcError(f"the memory capacity of {self.hardware_id} is unknown")
        return charts.memory_bar(items, float(str(capacity))).properties(width=WIDTH)

    def curve(self, column: str, values: Sequence[float], figure: str = "tpot_s") -> alt.LayerChart:
        """Return a figure over a column of the scenario (``batch``, ``input_len``…), all else as it is.

        Raises CalcError for another column or figure.
        """
        from calc import charts

        known = scenario_columns(self.tables)
        about = {str(c["column_name"]): c for t in ("scenarios", "serving") for c in self.tables.columns(t)}
        for name, among, what in ((column, known, "scenario column"), (figure, about, "figure")):
            if name not in among:
                raise CalcError(f"{name!r} is no {what}{closest(name, among)}")
        asked = self.scenario.drop(column, strict=False).join(pl.DataFrame({column: list(values)}), how="cross")
        found = answered(self.tables, asked, "serving", self.sheet, columns=(*asked.columns, figure)).drop_nulls(figure)
        units = {c: str((about.get(c) or known[c]).get("unit") or "") for c in (column, figure)}
        titles = [
            f"{(about.get(c) or known[c])['label']}{f' ({units[c]})' if units[c] else ''}" for c in (column, figure)
        ]
        name = _named(self.scenario.drop(column, strict=False))
        shown = quantities(found[figure], units[figure])
        points = found.select(x=column, y=figure, line=pl.lit(name), shown=shown)
        none = pl.DataFrame(schema={"x": pl.Float64, "y": pl.Float64, "told": pl.String})
        return charts.curves(points, "x", "y", (titles[0], titles[1]), (False, False), none).properties(width=WIDTH)

    def explain(self, cell: str, stage: str | None = None, operator: str | None = None) -> Explanation:
        """Return where a number comes from, as ``calc.explain`` does."""
        return explain(self.tables, cell, self.scenario, stage=stage, operator=operator, sheet=self.sheet)

    def engine(self, name: str) -> str:
        """Return the command line that starts a serving engine for the scenario, with what it assumes."""
        return engine_command(self.tables, self.scenario.row(0, named=True), name)

    def export(self, target: str | IO[bytes], techniques: Sequence[str] = ()) -> None:
        """Write the question as a live workbook, as ``calc.export`` does."""
        from calc.workbook.export import export

        export(self.tables, self.scenario, target, techniques, self.sheet)

    @property
    def hardware_id(self) -> str:
        """The device, as the tables spell it."""
        return str(canonical(self.tables, self.scenario, "hardware_id")[0])

    def __str__(self) -> str:
        """Name the scenario."""
        return _named(self.scenario)

    def __repr__(self) -> str:
        """Show the foremost figures as lines, and how far off they may be where a calibration tells."""
        told = errors_told(self.serving)
        lines = [str(self), *(f"  {label}: {value}" for label, value, _ in self._foremost())]
        return "\n".join([*lines, f"  {told}"] if told else lines)

    def _repr_html_(self) -> str:
        """Show the foremost figures as a table, in notebooks."""
        frame = pl.DataFrame(self._foremost(), schema=["Figure", "Value", "Meaning"], orient="row")
        return report.section_html(str(self), frame, errors_told(self.serving))

    def _foremost(self) -> list[tuple[str, str, str]]:
        about = {str(c["column_name"]): c for c in self.tables.columns("serving")}
        row = self.serving.row(0, named=True)
        return [
            (str(about[c]["label"]), quantity(row[c], str(about[c]["unit"] or "")), str(about[c]["description"] or ""))
            for c in FOREMOST if row.get(c) is not None
        ]  # fmt: skip


def _named(scenario: pl.DataFrame) -> str:
    said = scenario.row(0, named=True).items()
    return ", ".join(f"{v}" if c.endswith("_id") else f"{c} {v}" for c, v in said)


def with_shares(operators: pl.DataFrame, stages: pl.DataFrame) -> pl.DataFrame:
    """Return operators with the time of all instances (``all_s``) and its ``share`` of the stage's."""
    total = stages.select("stage", stage_s="time_s")
    return operators.join(total, on="stage", how="left", maintain_order="left").with_columns(
        all_s=pl.col("count") * pl.col("time_s"),
        share=pl.col("count") * pl.col("time_s") / pl.when(pl.col("stage_s") > 0).then(pl.col("stage_s")),
    )


def held(serving: pl.DataFrame) -> pl.DataFrame:
    """Return what fills the memory of a device: ``item``, with its size in words, and ``held_bytes``."""
    row = serving.row(0, named=True)
    found = [(f"{name} {quantity(row[c], 'byte')}", row[c]) for c, name in HELD.items() if row.get(c)]
    return pl.DataFrame(found, schema={"item": pl.String, "held_bytes": pl.Float64}, orient="row")
