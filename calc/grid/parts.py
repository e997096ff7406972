"""The parts of a grid: which questions each file answers, what its content rests on, and its rows."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import groupby
from typing import Any
from urllib.parse import quote

import numpy as np
import polars as pl

import calc
from calc.axes import product
from calc.calibration.applied import answerable
from calc.calibration.expected import COLUMN, residuals
from calc.described import digest, hash_of
from calc.errors import CalcError
from calc.evaluation import request
from calc.grid.conditions import Conditions
from calc.grid.derive import Derivation, derivation
from calc.grid.spec import Spec
from calc.loading import load_sheet
from calc.questions import ATTENTIONS, defaults, model_parameters, scenario_columns, scenarios
from calc.results import Answers
from calc.tables import Tables

FORMAT = 1
"""Of the dataset and its manifest."""
ROWS = {"serving": 1 << 19, "stage": 1 << 18, "operator": 1 << 13}
"""Questions of a part, at most: so many are held in memory at once."""
SIZES = ("workload_id", "input_len", "output_len", "cached_len")
"""What a question says of its sequences: files are in their order."""
MIXED = (COLUMN, "technique", "attention")
"""Columns that tell which formulas answer a question: a part asks those of one kind after the other."""


@dataclass(frozen=True)
class Part:
    """One file: a model's questions from the ``first`` on, for every device."""

    model_id: str
    nth: int
    first: int
    n: int

    @property
    def path(self) -> str:
        """Return its place in the dataset: the model is the folder's name, as in every hive-partitioned dataset."""
        return f"model_id={quote(self.model_id, safe='')}/part-{self.nth:05}.parquet"


@dataclass(frozen=True)
class Asked:
    """Questions of one kind, the same of every model; ``own`` are the scenario columns of those of one."""

    frame: pl.LazyFrame
    own: pl.DataFrame


class Plan:
    """Everything that the parts of one grid have in common."""

    def __init__(self, tables: Tables, spec: Spec) -> None:
        self.tables, self.spec = tables, spec
        self._conditions = Conditions(tables, spec)
        # what is to be expected of a calibration is another for each model
        self._are_alike = self._conditions.are_of_all and not spec.is_calibrated
        self._asked = spec.asked(tables)
        self._orders: dict[tuple[int, int], tuple[pl.Series, pl.DataFrame]] = {}
        self._texts = {c for c, r in scenario_columns(tables).items() if r["dtype"] == "text"} | {"workload_id"}
        self.keys = [c for c in self._asked if c != "model_id"]
        """Scenario columns of the files, which do not hold the model."""

    @cached_property
    def configurations(self) -> pl.DataFrame:
        """Return every question but for model and device."""
        axes = {c: list(v) for c, v in self.spec.axes.items() if c not in ("model_id", "hardware_id")}
        found = scenarios(self.tables, **axes).collect() if axes else pl.DataFrame({"batch": [1]})
        return self._conditions.of_configurations(found.with_columns(_compact(c, self._texts) for c in found))

    @cached_property
    def devices(self) -> pl.DataFrame:
        """Return the devices."""
        ids = [str(h) for h in self.spec.axes["hardware_id"]]
        found = self._conditions.of_devices(pl.DataFrame({"hardware_id": ids}))
        return found.with_columns(pl.col("hardware_id").cast(pl.Enum(ids)))

    @cached_property
    def stored(self) -> tuple[str, ...]:
        """Return the results that the files hold: those that do not follow from others, for any technique."""
        held = {c for s in self.stacks for c in self.derivation(s).stored}
        return tuple(c for c in self.spec.columns if c in held)

    def derivation(self, stack: tuple[str, ...]) -> Derivation:
        """Return what the files hold of questions with some techniques, and how the rest follows from it."""
        absent = {"attention": ATTENTIONS[0], **defaults(self.tables)}
        bound = tuple((c, v) for c, v in absent.items() if c not in self._asked)
        spec = self.spec
        return derivation(self.tables, load_sheet(self.tables, spec.sheet, stack), spec.by, spec.columns, bound)

    @cached_property
    def stacks(self) -> list[tuple[str, ...]]:
        """Return the techniques that its questions name, each stack once."""
        return self.spec.stacks(self.tables)

    def parts(self) -> list[Part]:
        """Return the parts in order."""
        found = []
        largest = ROWS[self.spec.by]
        for model in self.spec.models():
            if self.spec.rows is None:
                height, step = self.configurations.height, max(largest // max(self.devices.height, 1), 1)
            else:
                height, step = self._rows_of(model).height, largest
            found += [Part(model, i, a, min(step, height - a)) for i, a in enumerate(range(0, height, step))]
        if not found:
            raise CalcError("no question keeps where; the grid would be empty")
        return found

    def _rows_of(self, model: str) -> pl.DataFrame:
        rows = self.spec.rows
        return rows.filter(model_id=model) if rows is not None else pl.DataFrame()

    def questions(self, part: Part) -> int:
        """Return how many questions a part asks, before ``where`` leaves some out."""
        return part.n * (self.devices.height if self.spec.rows is None else 1)

    def hash(self, part: Part) -> str:
        """Return a hash of everything that a part's content rests on: facts, formulas, questions, version."""
        if self.spec.rows is None:
            asked = digest(self.configurations.slice(part.first, part.n))
        else:
            asked = digest(self._rows_of(part.model_id).slice(part.first, part.n))
        model = digest(self.tables["models"].filter(model_id=part.model_id))
        return hash_of([*self._alike, model, asked])

    @cached_property
    def _alike(self) -> list[object]:
        spec, facts = self.spec, self.facts()
        tables = [t for t in facts if t != "models"]
        found = [FORMAT, calc.__version__, spec.by, self.stored, str(spec.where), *self.sheets().values()]
        found += [self._device_ids(), *(facts[t] for t in tables)]
        if any(self.stacks) and model_parameters(self.tables):
            # a technique may ask a further model
            found.append(digest(self.tables["models"]))
        return found

    def described(self) -> dict[str, Any]:
        """Return what a manifest says of a grid but its parts."""
        return {
            "format": FORMAT,
            "versions": {"calc": calc.__version__, "polars": pl.__version__, "python": platform.python_version()},
            "spec": self.spec.described(),
            "stored": list(self.stored),
            "sheets": self.sheets(),
            "facts": self.facts(),
        }

    def sheets(self) -> dict[str, str]:
        """Return a hash of the formulas of each stack of techniques."""
        sheets = {s: load_sheet(self.tables, self.spec.sheet, s) for s in self.stacks}
        return {"+".join(s): hash_of(sheet.rows) for s, sheet in sheets.items()}

    @cache  # noqa: B019 - plans are few
    def facts(self) -> dict[str, str]:
        """Return a hash of the rows of each table of facts that answers rest on."""
        found = {t: digest(self.tables[t]) for t in ("formats", "precisions", "parameters")}
        asked = {"models": self.spec.models(), "hardware": self._device_ids()}
        for table, ids in asked.items():
            found[table] = digest(self.tables[table].filter(pl.first().is_in(ids)))
        if self.spec.is_calibrated:
            found |= {"calibrations": digest(self.tables["calibrations"]), "residuals": digest(residuals(self.tables))}
        return found

    def _device_ids(self) -> list[str]:
        return [str(h) for h in self.spec.axes["hardware_id"]]

    def rows(self, parts: list[Part]) -> Iterator[pl.DataFrame]:
        """Return the rows of each part: scenario columns and stored results, in the file's order.

        Parts that ask the same of several models, one after the other, are answered together.
        """
        for same in self._alike_in(parts):
            kinds = [self._answered(asked) for asked in self.asked_by(same)]
            for part in same:
                # nothing bears a name that is not needed any more: rows take as much memory as their computation
                yield self.finished(part, self._together([next(answers) for answers in kinds]))

    def _alike_in(self, parts: list[Part]) -> Iterator[list[Part]]:
        """Return parts in groups that ask the same."""
        for _, same in groupby(parts, lambda p: (p.first, p.n) if self._are_alike else p.path):
            yield list(same)

    def _answered(self, asked: Asked) -> Iterator[pl.DataFrame]:
        """Return the answers to questions, with their own columns: those of each model."""
        ready = request(self.tables, asked.frame, self.spec.by, self.spec.sheet)
        each, begun = asked.own.height, list[pl.DataFrame]()
        for found in ready.answers(tuple(c for c in self.wanted if c in ready.results), ROWS[self.spec.by]):
            last = found.first + found.height
            pieces = [_of_model(found, asked.own, model) for model in range(found.first // each, -(-last // each))]
            del found
            pieces[0] = pl.concat([*begun, pieces[0]]) if begun else pieces[0]
            begun = [pieces.pop()] if last % each else []
            while pieces:
                yield pieces.pop(0)

    def _together(self, kinds: list[pl.DataFrame]) -> pl.DataFrame:
        """Return the rows of all kinds, one after the other."""
        if kinds:
            return pl.concat(kinds, how="diagonal") if len(kinds) > 1 else kinds[0]
        types = self._asked | {c: pl.Float64() for c in self.wanted}
        return pl.DataFrame(schema={c: t for c, t in types.items() if c != "model_id"})

    @cached_property
    def wanted(self) -> list[str]:
        """Return the results that a part is computed from: those that are stored, and what ``where`` reads."""
        return [*self.stored, *(c for c in self._conditions.results if c not in self.stored)]

    def finished(self, part: Part, rows: pl.DataFrame, is_in_order: bool = True) -> pl.DataFrame:
        """Return a part's rows as its file holds them: those that ``where`` keeps, in order and types of every part.

        Rows that are not ``is_in_order`` come from elsewhere, in any order.
        """
        whole = self._conditions.of_rows(rows, part.model_id)
        kept = whole.select(*self.keys, *(c for c in self.stored if c in whole.columns))
        if is_in_order:
            order, keys = self._order(part, kept)
            results = kept.drop(self.keys).get_columns()
            # each column goes as soon as its copy is there: rows take as much memory as their computation
            del rows, whole, kept
            results.reverse()
            return keys.hstack([results.pop().gather(order) for _ in range(len(results))])
        types = {c: t for c, t in self._types.items() if c in kept.columns}
        return kept.cast(pl.Schema({**kept.schema, **types})).sort(
            [c for c in self._sorted if c in kept.columns], maintain_order=True
        )

    @cached_property
    def _sorted(self) -> list[str]:
        first = [c for c in SIZES if c in self.keys]
        return [*first, *(c for c in self.keys if c not in first)]

    @cached_property
    def _types(self) -> dict[str, pl.DataType]:
        """Return the types of scenario columns in the files."""
        if self.spec.rows is not None:
            return {c: t for c, t in self.spec.rows.schema.items() if c in self.keys}
        found = {**self.configurations.schema, **self.devices.schema}
        return found | ({"technique": pl.String()} if self.spec.is_calibrated else {})

    def _order(self, part: Part, rows: pl.DataFrame) -> tuple[pl.Series, pl.DataFrame]:
        """Return the places of rows in the order of a file, by the sizes of a question, then by device; and its keys.

        Queries ask for a workload or a device: a reader skips the row groups of others.
        """
        known = (part.first, part.n)
        # what one model's rows are sorted by is another's where each question has one row, and the same are kept
        is_of_all = self._are_alike and self.spec.by == "serving"
        if known not in self._orders or not is_of_all:
            places = _order(rows.select(c for c in self._sorted if c in rows.columns))
            self._orders = {known: (places, rows.select(self.keys)[places])}
        return self._orders[known]

    def asked_by(self, parts: list[Part]) -> Iterator[Asked]:
        """Return the questions of parts that ask the same, those of one kind after the other.

        So each answer is one program's.
        """
        first, models = parts[0], [p.model_id for p in parts]
        if self.spec.rows is not None:
            yield self._calibrated(self._rows_of(first.model_id).slice(first.first, first.n))
            return
        mine = self._conditions.of_model(self.configurations.slice(first.first, first.n), first.model_id)
        kinds = [c for c in MIXED if c in mine.columns]
        for group in mine.partition_by(kinds, maintain_order=True) if kinds else [mine]:
            if group.height and self.devices.height:
                configured = [c for c in group.columns if c in self._asked]
                axes = [self.devices, group.select(configured)] if configured else [self.devices]
                every = product([pl.DataFrame({"model_id": models}), *axes])
                if self.spec.is_calibrated:
                    yield self._calibrated(answerable(self.tables, every).lazy().collect())
                else:
                    yield Asked(every, product(axes).select(self.keys).collect())

    def _calibrated(self, rows: pl.DataFrame) -> Asked:
        """Return questions of one model in whose rows all is that a calibration says."""
        absent = [pl.lit(None, t).alias(c) for c, t in self._asked.items() if c not in rows.columns]
        texts = [pl.col(c).cast(pl.String) for c in ("technique",) if c in rows.columns]
        return Asked(rows.drop(COLUMN, strict=False).lazy(), rows.with_columns(*absent, *texts).select(self.keys))


def _of_model(found: Answers, own: pl.DataFrame, nth: int) -> pl.DataFrame:
    """Return the answers to the nth model's questions, whose scenario columns are ``own``."""
    a, b = nth * own.height - found.first, (nth + 1) * own.height - found.first
    if found.is_one_each():
        mine, keys = found.frame[max(a, 0) : b], own[max(-a, 0) : found.height - a]
    else:
        question = found.question_of()
        ends = np.searchsorted(question, [a, b])
        mine = found.frame[ends[0] : ends[1]]
        keys = own[question[ends[0] : ends[1]] - a]
    return pl.concat([keys, mine], how="horizontal")


def _order(keys: pl.DataFrame) -> pl.Series:
    """Return the places of rows by all columns, the first one first, unknown before known; equal rows as they come.

    As by a sort of the columns, in a fraction of its memory.
    """
    found, most = pl.zeros(keys.height, pl.Int64, eager=True), 1
    for column in (*keys.get_columns(), pl.int_range(keys.height, eager=True)):
        place, n = _places(column)
        if most * n > 1 << 62:
            found, most = _places(found.rank("dense"))
        found, most = found * n + place, most * n
    return found.arg_sort()


def _places(column: pl.Series) -> tuple[pl.Series, int]:
    """Return a column's values as places from 0 on, unknown the first, and how many places there are."""
    value = column.to_physical() if isinstance(column.dtype, pl.Enum) else column
    if not value.dtype.is_integer():
        value = value.rank("dense")
    value = value.cast(pl.Int64)
    least, greatest = (int(v or 0) for v in value.to_frame("").select(least=pl.min(""), greatest=pl.max("")).row(0))
    if greatest - least > len(column):
        return _places(value.rank("dense"))
    return (value - (least - 1)).fill_null(0), greatest - least + 2


def _compact(column: pl.Series, texts: set[str]) -> pl.Series:
    """Return a scenario column in the type that a file holds in the fewest bytes."""
    if column.name in texts and column.dtype == pl.String:
        return column.cast(pl.Enum(column.drop_nulls().unique(maintain_order=True)))
    return column.cast(pl.Int32) if column.dtype == pl.Int64 else column
