"""The condition of a grid: which of its questions are kept, decided as early as what it reads is known."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from calc.expressions import expression
from calc.formula import Node, names
from calc.grid.spec import Spec, condition_inputs
from calc.results import result_columns
from calc.tables import Tables


class Conditions:
    """A spec's ``where``, each part of it at the least table that has what it reads."""

    def __init__(self, tables: Tables, spec: Spec) -> None:
        self._tables, self._spec = tables, spec
        self._inputs = set(condition_inputs(tables, spec))
        self._configured = set(spec.axes) - {"model_id", "hardware_id"}
        if "workload_id" in spec.axes:
            self._configured |= {"batch", "input_len", "output_len", "cached_len"}
        self._models, self._devices = (set(tables[t].columns) for t in ("models", "hardware"))
        self._terms = list(_terms(spec.where)) if spec.where else []
        known = set(result_columns(tables, spec.by))
        self.results = sorted({n for t in self._terms for n in names(t) if n in known and not self._is_early(t)})
        """Results that it reads."""

    @property
    def are_of_all(self) -> bool:
        """Tell whether the same questions are kept of every model."""
        return self._spec.rows is None and all(self._reads(t) in ("configurations", "devices") for t in self._terms)

    def _reads(self, term: Node) -> str:
        read = names(term)
        if self._spec.rows is None:
            if read <= self._configured:
                return "configurations"
            if read <= self._devices:
                return "devices"
            if read <= self._configured | (self._models - self._devices):
                return "models"
        return "rows"

    def _is_early(self, term: Node) -> bool:
        return self._reads(term) != "rows"

    def _kept(self, frame: pl.DataFrame, where: str) -> pl.DataFrame:
        terms = [expression(t) for t in self._terms if self._reads(t) == where]
        return frame.filter(*terms) if terms else frame

    def of_configurations(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Return the configurations that are kept for any model and device."""
        return self._kept(frame, "configurations")

    def of_devices(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Return the devices that are kept for any question."""
        facts = frame.join(self._tables["hardware"], on="hardware_id", how="left", maintain_order="left")
        return self._kept(facts, "devices").select("hardware_id")

    def of_model(self, frame: pl.DataFrame, model: str) -> pl.DataFrame:
        """Return the configurations that are kept for a model on any device."""
        facts = self._tables["models"].filter(model_id=model).drop(frame.columns, strict=False)
        return self._kept(frame.join(facts, how="cross"), "models").select(frame.columns)

    def of_rows(self, frame: pl.DataFrame, model: str) -> pl.DataFrame:
        """Return the rows that are kept."""
        terms = [t for t in self._terms if not self._is_early(t)]
        if not terms:
            return frame
        read = {n for t in terms for n in names(t)} - set(frame.columns)
        models = self._tables["models"].filter(model_id=model).select(sorted(read & self._models))
        devices = self._tables["hardware"].select("hardware_id", *sorted(read & self._devices - {"hardware_id"}))
        devices = devices.with_columns(pl.col("hardware_id").cast(frame["hardware_id"].dtype, strict=False)).drop_nulls(
            "hardware_id"
        )
        facts = frame.join(models, how="cross") if models.width else frame
        facts = facts.join(devices, on="hardware_id", how="left", maintain_order="left")
        return facts.filter(*map(expression, terms)).select(frame.columns)


def _terms(condition: Node) -> Iterator[Node]:
    """Return the conditions that must all hold."""
    if condition.kind == "call" and condition.value == "AND":
        for child in condition.children:
            yield from _terms(child)
    else:
        yield condition
