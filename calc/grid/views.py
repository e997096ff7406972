"""A grid in SQL: the rows of its files, and every other result by the sheet's own formulas over them."""

from __future__ import annotations

import os
from urllib.parse import unquote

from calc.dialects import DUCKDB, levels
from calc.errors import CalcError
from calc.formula import name
from calc.grid.dataset import Dataset
from calc.grid.derive import STORED
from calc.grid.parts import FORMAT, Plan
from calc.grid.spec import Spec, described_spec
from calc.inputs import fact_columns
from calc.program import GRAINS, Axis, Column
from calc.questions import DEGREES, SETUP, defaults, scenario_columns
from calc.results import result_columns
from calc.sheet_queries import KEYS, QUESTION
from calc.tables import FORMATS, Tables

ROWS = "__grid"


class GridViews:
    """The views that a grid gives: its questions, and its results at its grain."""

    rows_view = ROWS

    def __init__(self, tables: Tables, folder: str | os.PathLike[str]) -> None:
        """Read a grid; raises CalcError for a folder that is none, and for one of other formulas or facts."""
        self.dataset = Dataset(folder).read()
        self._tables = tables
        self.spec = self._spec()
        self._plan = Plan(tables, self.spec)
        self._check_alike()
        self.view = GRAINS[self.spec.by][0]
        self._prefix = "" if self.spec.sheet == "exact" else f"{self.spec.sheet}_"
        self.name = f"{self._prefix}{self.view}"
        self.asked = list(self.spec.asked(tables))
        """Scenario columns of its rows."""
        labels = ("stage", "part", "operator") if self.spec.by != "serving" else ()
        self.labels = labels[: 1 if self.spec.by == "stage" else 3]
        """Results that tell the rows of one question apart."""
        self.stored = [str(c) for c in self.dataset.about["stored"]]

    def _spec(self) -> Spec:
        about = self.dataset.about
        if about.get("format") != FORMAT:
            raise CalcError(
                f"{self.dataset.folder}: is a grid of format {about.get('format')}, this version reads {FORMAT}; "
                "build it again"
            )
        return described_spec(self._tables, about["spec"], str(self.dataset.folder))

    def _check_alike(self) -> None:
        """Refuse a grid whose other results would be computed with other facts or formulas than its own."""
        about, now = self.dataset.about, self._plan.described()
        changed = [f"calc {about['versions']['calc']}, now {now['versions']['calc']}"]
        changed = changed if about["versions"]["calc"] != now["versions"]["calc"] else []
        changed += [f"facts of {t}" for t, h in now["facts"].items() if about["facts"].get(t) != h]
        changed += [
            f"formulas{f' with {s}' if s else ''}" for s, h in now["sheets"].items() if about["sheets"].get(s) != h
        ]
        if list(about["stored"]) != list(now["stored"]):
            changed.append("the columns that are stored")
        if changed:
            raise CalcError(
                f"{self.dataset.folder}: was built otherwise than this version would ({'; '.join(changed)}); "
                "build it again: only what changed is computed"
            )

    def rows(self) -> str:
        """Return the SELECT of the files' rows."""
        parts = [str((self.dataset.folder / p).resolve()) for p in self.dataset.parts]
        if not parts:
            raise CalcError(f"{self.dataset.folder}: holds no complete part yet; go on building it")
        files = ", ".join("'" + p.replace("'", "''") + "'" for p in parts)
        first, offsets = 0, []
        for part in self.dataset.parts.values():
            offsets.append(first)
            first += part.rows
        number = f"list_extract({offsets}::bigint[], cast(file_index as bigint) + 1) + file_row_number + 1"
        return (
            f"select *, {number} as __number from read_parquet([{files}], hive_partitioning = true, "
            "hive_types = {'model_id': 'varchar'})"
        )

    def scenarios(self) -> str:
        """Return the SELECT of the grid's questions, one for each."""
        own = ", ".join(f'"{c}"' for c in self.asked)
        found = f"select {own} from {ROWS}"
        return found if self.view == "serving" else f"{found} group by all"

    def stacks(self) -> list[StackView]:
        """Return the views of the questions with each stack of techniques."""
        return [StackView(self._tables, self._plan, self.stored, stack, n) for n, stack in enumerate(self._plan.stacks)]

    def results(self) -> str:
        """Return the SELECT of the results at the grid's grain, in the columns of the live view."""
        selects = [view.select(len(self._plan.stacks) > 1) for view in self.stacks()]
        return selects[0] if len(selects) == 1 else "\nunion all by name\n".join(f"(from ({s}))" for s in selects)

    def model_of(self, path: str) -> str:
        """Return the model that a part's path names."""
        return unquote(path.partition("/")[0].partition("=")[2])


def _of_precision(role: str) -> str:
    return "coalesce(p.expert_format, p.weight_format)" if role == "expert_format" else f"p.{role}"


class StackView:
    """The rows of a grid whose questions name one stack of techniques, with every result that it has.

    What depends on a model alone, or on a device and setup alone, is computed once in small tables that the rows are
    joined with: a query over all rows pays for what it asks of each.
    """

    def __init__(self, tables: Tables, plan: Plan, stored: list[str], stack: tuple[str, ...], nth: int) -> None:
        """Compile the formulas of derived results."""
        self._tables, self._spec, self._stored, self._stack = tables, plan.spec, stored, stack
        self._asked = list(plan.spec.asked(tables))
        self._found = plan.derivation(stack)
        program = self._found.program(result_columns(tables, plan.spec.by))
        self._of_model, self._of_device, self._of_row = _by_table(program.columns)
        self._inputs = program.inputs
        self._names = f"__of_model_{nth}", f"__of_device_{nth}"
        self._device_keys = ["hardware_id", *(c for c in ("precision", *SETUP) if c in self._asked)]

    def tables(self) -> list[str]:
        """Return the statements that make the small tables."""
        models = [n for n, _ in fact_columns(self._tables, "models") if n in self._inputs]
        own = "".join(f', "{n}"' for n in models)
        ctes = [f"facts as (select model_id{own} from models)"]
        last = levels(ctes, "level", "facts", self._of_model)
        of_model = f"create table {self._names[0]} as with {', '.join(ctes)} select * from {last}"
        ctes = [f"keys as ({self._keys_of_devices()})", f"facts as ({self._device_facts()})"]
        last = levels(ctes, "level", "facts", self._of_device)
        return [of_model, f"create table {self._names[1]} as with {', '.join(ctes)} select * from {last}"]

    def _keys_of_devices(self) -> str:
        """Return the SELECT of every device and setup that is asked."""
        if self._spec.rows is not None:
            return f"select distinct {', '.join(self._device_keys)} from {ROWS}"
        axes = []
        for column in self._device_keys:
            texts = ", ".join("null" if v is None else f"'{v}'" for v in self._spec.axes[column])
            axes.append(f"(select unnest([{texts}]::{'double' if column in DEGREES else 'varchar'}[]) as {column})")
        return "select * from " + " cross join ".join(axes)

    def _device_facts(self) -> str:
        columns = [f"k.{c}" for c in self._device_keys if c not in SETUP]
        columns += [f"k.{c} as __key_{c}" for c in self._device_keys if c in SETUP]
        columns += [f"cast(k.{d} as double) as {d}" for d in DEGREES if d in self._device_keys and d in self._inputs]
        columns += [f'h."{n}"' for n, _ in fact_columns(self._tables, "hardware") if n in self._inputs]
        joins = ["left join hardware as h on h.hardware_id = k.hardware_id"]
        named = "lower(k.precision)" if "precision" in self._asked else "'w16a16kv16'"
        joins.append(f"left join precisions as p on p.precision_id = {named}")
        for role in FORMATS:
            of = "coalesce(p.expert_format, p.weight_format)" if role == "expert_format" else f"p.{role}"
            chosen = f"coalesce(lower(k.{role}), {of})" if role in self._asked else of
            alias = role.removesuffix("_format")
            facts = [(n, c) for n, c in fact_columns(self._tables, "formats") if n.startswith(f"{alias}_")]
            columns += [f'"{alias}"."{c}" as "{n}"' for n, c in facts if n in self._inputs]
            columns += [f"{chosen} as {role}"] if role in self._inputs else []
            joins.append(f'left join formats as "{alias}" on "{alias}".format_id = {chosen}')
        return f"select {', '.join(columns)} from keys as k " + " ".join(joins)

    def select(self, is_one_of_many: bool) -> str:
        """Return the SELECT of the rows, in the columns of the live view."""
        of_stack = f"replace(coalesce(technique, ''), ' ', '') = '{'+'.join(self._stack)}'"
        where = f" where {of_stack}" if is_one_of_many else ""
        ctes = [f"asked as (select * from {ROWS}{where})", f"facts as ({self._joined()})"]
        last = levels(ctes, "level", "facts", self._of_row)
        results = []
        for column, dtype in result_columns(self._tables, self._spec.by).items():
            if column in self._found.derived or column in self._stored:
                text = DUCKDB.sql(self._found.derived.get(column, name(f"{STORED}{column}")))
                results.append(f'cast({text} as {DUCKDB.type(dtype)}) as "{column}"')
        shown = ",\n  ".join([*self._keys(), *self._questions(), *results])
        return "with " + ",\n".join(ctes) + f"\nselect\n  {shown}\nfrom {last}"

    def _joined(self) -> str:
        """Return the SELECT of rows with what formulas read."""
        columns = ["g.__number", *(f'g."{c}" as "__asked_{c}"' for c in self._asked)]
        columns += [f'g."{c}" as "{STORED}{c}"' for c in self._stored]
        numbers = [c for c in defaults(self._tables) if c in self._inputs and c in self._asked and c not in DEGREES]
        columns += [f'cast(g."{c}" as double) as "{c}"' for c in numbers]
        columns += ["g.attention"] if "attention" in self._inputs and "attention" in self._asked else []
        if not self._found.derived:
            return f"select {', '.join(columns)} from asked as g"
        model, device = self._names
        on = [f"d.{'__key_' if c in SETUP else ''}{c} is not distinct from g.{c}" for c in self._device_keys[1:]]
        return (
            f"select {', '.join(columns)}, m.* exclude (model_id), d.* exclude (hardware_id) from asked as g "
            f"left join {model} as m on m.model_id = g.model_id "
            f"left join {device} as d on {' and '.join(['d.hardware_id = g.hardware_id', *on])}"
        )

    def _asked_or_null(self, column: str) -> str:
        return f'"__asked_{column}"' if column in self._asked else "null"

    def _keys(self) -> list[str]:
        """Return what tells questions, formats and devices apart, as the live views do."""
        question = ", ".join(map(self._asked_or_null, ("model_id", "workload_id", *QUESTION)))
        formats = ", ".join(map(self._asked_or_null, ("attention", "precision", *FORMATS)))
        keys = {
            "scenario_row": "__number",
            "question_id": f"hash({question})",
            "formats_id": f"hash({formats})",
            "device_id": '"__asked_hardware_id"',
        }
        return [f"cast({text} as {KEYS[key]}) as {key}" for key, text in keys.items()]

    def _questions(self) -> list[str]:
        types = {n: DUCKDB.type(str(c["dtype"])) for n, c in scenario_columns(self._tables).items()}
        types["workload_id"] = "varchar"
        return [f'cast({self._asked_or_null(c)} as {t}) as "{c}"' for c, t in types.items()]


def _by_table(columns: list[Column]) -> tuple[list[Column], list[Column], list[Column]]:
    """Return columns that depend on the model alone, on device and setup alone, and the others."""
    of_model = [c for c in columns if c.axes and not c.axes & ~Axis.MODEL]
    of_device = [c for c in columns if not c.axes & ~(Axis.DEVICE | Axis.SETUP)]
    apart = {c.id for c in (*of_model, *of_device)}
    return of_model, of_device, [c for c in columns if c.id not in apart]
