"""What starts a serving engine for a scenario: its command line or settings, with what they assume.

Every flag is a row of ``data/engine_flags.csv``: a formula over the cells of the exact sheet, when it is given, and
what the engine's documentation says that it takes.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from calc.calibration.applied import calibrated, is_fitted
from calc.calibration.expected import COLUMN, errors_told
from calc.display import quantity
from calc.errors import CalcError, closest
from calc.explanation import evaluate_cells
from calc.formula import names
from calc.loading import load_sheet
from calc.patches import INPUTS, stack
from calc.questions import canonical, scenario_columns, stack_of
from calc.scopes import Cell
from calc.tables import FORMATS, Tables

Row = Mapping[str, object]
TOLD = (
    "fits", "reason", "ttft_s", "tpot_s", "memory_needed_bytes", "memory_capacity_bytes", "fleet_devices", "held_len",
    "context_limit", "weight_format", "expert_format",
    "n_experts",
)  # fmt: skip
"""What the comments rest on."""
DEGREES = {"tp": 1, "pp": 1, "ep": 1, "cp": 1}
"""What spreads a replica over devices, and what is nothing to say."""
SHARED = ("dp",)
ELSEWHERE = ("accounting", "money", "hardware")
"""Groups of techniques that an engine is not told of."""
KINDS, DTYPES = ("flag", "environment", "yaml"), ("integer", "number", "text", "switch")
ABOUT = "about_"
INDENT = "  "


@dataclass(frozen=True)
class Setting:
    """A flag as it is given: ``value`` is None for a switch; a flag that cannot be given has a ``problem``."""

    row: Row
    value: str | None
    note: str
    problem: str = ""


def engine_ids(tables: Tables) -> list[str]:
    """Return the engines that there are; raises CalcError for a data folder without them."""
    if "engines" not in tables.frames:
        raise CalcError(f"{tables.folder} has no engines.csv: columns.csv there describes none")
    return list(tables["engines"]["engine_id"])


def engine_command(tables: Tables, scenario: Mapping[str, object], engine: str) -> str:
    """Return the shell lines that start an engine for a scenario, comments above them; raises CalcError.

    Times and memory in the comments are the exact sheet's, at the roofline unless the scenario names a calibration.
    """
    known = engine_ids(tables)
    if engine not in known:
        raise CalcError(f"unknown engine {engine!r}{closest(engine, known)}; there are {', '.join(known)}")
    about = tables["engines"].row(by_predicate=pl.col("engine_id") == engine, named=True)
    settings, values = engine_settings(tables, scenario, engine)
    ids = pl.DataFrame([dict(scenario)])
    places = {c: canonical(tables, ids, c)[0] for c in ("model_id", "hardware_id")}
    device = tables["hardware"].row(by_predicate=pl.col("hardware_id") == places["hardware_id"], named=True)["name"]
    given = [s for s in settings if not s.problem]
    model = {"model_id": str(places["model_id"]), "model_name": str(places["model_id"]).rpartition("/")[2]}
    title = f"{places['model_id']} on {quantity(values[f'{ABOUT}fleet_devices'])} × {device}"
    lines = [
        f"{about['label']}, {about['version']}. {about['note']}.",
        *_predicted(values, scenario.get(COLUMN), title),
        *(f"{line}." for line in errors_told(calibrated(tables, ids).told).splitlines()),
        *(f"{s.row['flag']}{f' {s.value}' if s.value else ''}: {s.note}.".format(**model) for s in given),
        *(f"Left out: {s.problem}." for s in settings if s.problem),
        *_untold(tables, scenario, settings, values),
    ]
    return "\n".join(f"# {line}" for line in lines) + "\n" + _shell(str(about["command"]), given, model)


def engine_settings(
    tables: Tables, scenario: Mapping[str, object], engine: str
) -> tuple[list[Setting], dict[str, object]]:
    """Return the flags of an engine for a scenario, and the values that they and the comments rest on."""
    rows = tables["engine_flags"].filter(engine_id=engine).to_dicts()
    chosen = {t for name in stack_of(str(scenario.get("technique") or "")) for t in stack(tables, (name,))}
    rows = [r for r in rows if r["technique_id"] in (None, *chosen)]
    cells = [c for r in rows for c in cells_of(r)]
    cells += [_cell(f"{ABOUT}{c}", c, c) for c in (*TOLD, *DEGREES, *SHARED)]
    values = evaluate_cells(tables, cells, scenario)
    told = [_setting(tables, r, values) for r in rows if values[f"{_name(r)}_applies"] is True]
    return [s for s in told if s is not None], values


def cells_of(row: Row) -> list[Cell]:
    """Return the cells of a flag: whether it is given, and its value."""
    name = _name(row)
    applies = _cell(f"{name}_applies", str(row["condition"] or "TRUE"), str(row["setting"]))
    return [applies, _cell(name, str(row["formula"]), str(row["setting"]))] if row["formula"] else [applies]


def _cell(name: str, formula: str, key: str) -> Cell:
    return Cell("engine_flags.csv", key, name, formula, "", "")


def _name(row: Row) -> str:
    return f"flag_{row['engine_id']}_{row['setting']}"


def _setting(tables: Tables, row: Row, values: Mapping[str, object]) -> Setting | None:
    """Return a flag with its value, checked; None where the engine's own default is what is meant."""
    note = str(row["note"])
    if row["dtype"] == "switch":
        return Setting(row, None, note)
    value = values[_name(row)]
    if value is None:
        return Setting(row, None, note, f"{row['flag']}, whose value is unknown here")
    names = tables["engine_formats"].filter(engine_id=row["engine_id"], setting=row["setting"])
    if names.height:
        found = names.filter(format_id=str(value)).to_dicts()
        if not found or found[0]["value"] is None:
            remark = found[0]["note"] if found else None
            if row["otherwise"] is not None:
                return Setting(row, str(row["otherwise"]), remark or f"{note}: {value}")
            if found and remark is None:
                return None
            return Setting(
                row, None, note, f"{row['flag']} has no value for {value}" + (f" ({remark})" if remark else "")
            )
        value, note = found[0]["value"], ". ".join(t for t in (note, found[0]["note"]) if t)
    text = _text(value)
    problem = _problem(row, text)
    return Setting(row, text, note, f"{row['flag']} {text}: {problem}" if problem else "")


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def _problem(row: Row, text: str) -> str:
    """Return why an engine would not take a value; nothing where it does."""
    if row["dtype"] in ("integer", "number"):
        number = float(text)
        if row["dtype"] == "integer" and not number.is_integer():
            return "is not a whole number"
        if row["minimum"] is not None and number < float(str(row["minimum"])):
            return f"is below {row['minimum']:g}"
        if row["maximum"] is not None and number > float(str(row["maximum"])):
            return f"is above {row['maximum']:g}"
    elif row["choices"] and text not in str(row["choices"]).split():
        return f"is none of {row['choices']}"
    return ""


def _predicted(values: Mapping[str, object], calibration: object, title: str) -> list[str]:
    of = {c: values[f"{ABOUT}{c}"] for c in TOLD}
    times = [f"{quantity(of['ttft_s'], 's')} to the first token"] if of["ttft_s"] is not None else []
    times += [f"{quantity(of['tpot_s'], 's')} for each further one"] if of["tpot_s"] is not None else []
    needed, capacity = (of[c] for c in ("memory_needed_bytes", "memory_capacity_bytes"))
    if needed is not None and capacity is not None:
        times.append(f"{quantity(needed, 'byte')} of {quantity(capacity, 'byte')} of each device's memory")
    how = f"as {calibration} was measured" if is_fitted(calibration) else "at the roofline"
    told = f"{title}; {how} {', '.join(times)}" if times else title
    return [f"{told}."] + ([f"But {of['reason']}."] if of["reason"] else [])


def _untold(
    tables: Tables, scenario: Mapping[str, object], settings: Sequence[Setting], values: Mapping[str, object]
) -> list[str]:
    """Return what a scenario asks for that none of the flags says."""
    given = [s for s in settings if not s.problem]
    said = {c for s in given for c in str(s.row["degrees"] or "").split()}
    degrees = [
        f"{c} {quantity(values[f'{ABOUT}{c}'])}"
        for c, nothing in DEGREES.items()
        if values[f"{ABOUT}{c}"] not in (None, nothing) and c not in said
    ]
    found = [f"No flag here says {', '.join(degrees)}."] if degrees else []
    weights, experts, held, limit = (
        values[f"{ABOUT}{c}"] for c in ("weight_format", "expert_format", "held_len", "context_limit")
    )
    if values[f"{ABOUT}n_experts"] is not None and experts not in (None, weights):
        found.append(f"No flag here says that experts are in {experts}: the checkpoint must be so.")
    if limit is not None and float(str(held)) > float(str(limit)):
        found.append(f"The model was made for {quantity(limit)} tokens of context: engines refuse more.")
    copies = values[f"{ABOUT}dp"]
    if copies not in (None, 1):
        found.append(f"Start it {quantity(copies)} times, behind a balancer.")
    labels = dict(tables["techniques"].select("technique_id", "label").iter_rows())
    groups = dict(tables["techniques"].select("technique_id", "group").iter_rows())
    for technique in stack_of(str(scenario.get("technique") or "")):
        told = any(s.row["technique_id"] == technique for s in given) or _is_of_question(tables, technique)
        if not told and groups[technique] not in ELSEWHERE:
            found.append(f"No flag here says {technique}: {labels[technique]}.")
    return found


def check_engines(tables: Tables) -> Iterator[str]:
    """Find flags whose formulas read what there is not, and names of formats that the engine does not take."""
    if "engines" not in tables.frames:
        return
    flags = {(r["engine_id"], r["setting"]): r for r in tables["engine_flags"].iter_rows(named=True)}
    for (engine, setting), row in flags.items():
        where = f"engine_flags.csv, {engine}.{setting}"
        for column, allowed in (("kind", KINDS), ("dtype", DTYPES)):
            if row[column] not in allowed:
                yield f"{where}: {column} {row[column]!r} is none of {', '.join(allowed)}"
        if (row["dtype"] == "switch") != (row["formula"] is None):
            yield f"{where}: a switch has no formula, and every other flag has one"
        if wrong := set(str(row["degrees"] or "").split()) - set(DEGREES):
            yield f"{where}: {', '.join(sorted(wrong))} is none of {', '.join(DEGREES)}"
        technique = row["technique_id"]
        if technique and technique not in tables["techniques"]["technique_id"]:
            continue  # a data folder need not have every technique
        known = load_sheet(tables, "exact", (technique,) if technique else ()).serving_scope().known()
        for cell in cells_of(row):
            yield from (f"{where}: unknown name {n!r}{closest(n, known)}" for n in names(cell.tree()) - known)
    for row in tables["engine_formats"].iter_rows(named=True):
        flag = flags.get((row["engine_id"], row["setting"]))
        where = f"engine_formats.csv, {row['engine_id']}.{row['setting']}.{row['format_id']}"
        if flag is None:
            yield f"{where}: engine_flags.csv has no such setting"
        elif row["value"] and (problem := _problem(flag, row["value"])):
            yield f"{where}: {row['value']!r} {problem}"


def _is_of_question(tables: Tables, technique: str) -> bool:
    """Tell whether a technique changes nothing but what a scenario says: then flags follow it."""
    patches = tables["patches"].filter(technique_id=technique, sheet="exact")
    said = {*scenario_columns(tables), *FORMATS}
    return all(r["file"] == INPUTS and r["key"] in said for r in patches.iter_rows(named=True))


def _shell(command: str, given: Sequence[Setting], model: Mapping[str, str]) -> str:
    """Return settings as a shell takes them: variables before, a file of its own for what only that can say."""
    named = {k: shlex.quote(v) for k, v in model.items()}
    texts = {s.row["flag"]: s.value and s.value.format(**model) for s in given}
    of = {k: [s.row["flag"] for s in given if s.row["kind"] == k] for k in ("flag", "environment", "yaml")}
    lines = []
    if of["yaml"]:
        lines += ["cat > engine.yaml <<'EOF'", *_yaml({str(f): str(texts[f]) for f in of["yaml"]}), "EOF"]
    words = [f"{f}={shlex.quote(str(texts[f]))}" for f in of["environment"]] + [command.format(**named)]
    words += [str(f) if texts[f] is None else f"{f} {shlex.quote(str(texts[f]))}" for f in of["flag"]]
    words += ["--config engine.yaml"] if of["yaml"] else []
    return "\n".join([*lines, f" \\\n{INDENT}".join(words)]) + "\n"


def _yaml(values: Mapping[str, str]) -> list[str]:
    """Return keys such as ``outer.inner`` as the lines of a file."""
    lines: list[str] = []
    for key, value in sorted(values.items()):
        outer, _, inner = key.partition(".")
        if inner and f"{outer}:" not in lines:
            lines.append(f"{outer}:")
        lines.append(f"{INDENT}{inner}: {value}" if inner else f"{outer}: {value}")
    return lines
