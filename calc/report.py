"""The survey's report of one question as one document, in Markdown or HTML."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

import polars as pl

import calc
from calc.calibration.expected import errors_told
from calc.display import quantity
from calc.loading import load_sheet
from calc.tables import Tables, load

OPERATOR_COLUMNS = (
    "stage", "part", "operator", "count", "ops", "memory_bytes", "arithmetic_intensity", "compute_format",
    "attainable_ops_per_s", "time_s", "bound",
)  # fmt: skip
STAGE_COLUMNS = ("stage", "ops", "memory_bytes", "arithmetic_intensity", "attainable_ops_per_s", "time_s", "bound")
MEMORY_COLUMNS = ("weight_memory_bytes", "kv_cache_bytes", "kv_bytes_per_token")
Section = tuple[str, str, pl.DataFrame]


def report(asked: Mapping[str, object], sheet: str, ending: str) -> str:
    """Return the report of one question: maximum performance and bottleneck of each operator and of the network,
    memory footprint, settings and sources; ``ending`` is .md or .html. Raises what ``calc.evaluate`` raises.
    """
    tables = load()
    question = calc.scenarios(**asked)  # type: ignore[arg-type]
    frames = {by: calc.evaluate(question, by=by, sheet=sheet).collect() for by in ("operator", "stage", "serving")}
    row = frames["serving"].row(0, named=True)
    title = f"{row['model_id']} on {row['hardware_id']}"
    stage_memory = tuple(c for c in frames["stage"].columns if c.startswith("memory_consumption"))
    sections: list[Section] = [
        ("Settings", "", _settings(tables, asked, sheet)),
        ("The network", "Maximum performance and bottleneck of each stage.",
         _shown(tables, "stages", frames["stage"], STAGE_COLUMNS)),
        ("Serving", "", _turned(tables, "serving", frames["serving"])),
        ("Memory footprint", "", _turned(tables, "serving", frames["serving"], MEMORY_COLUMNS)),
        ("The operators", "Each row is one instance; the model has count of them.",
         _shown(tables, "operators", frames["operator"], OPERATOR_COLUMNS)),
        ("Sources", "", _sources(tables, row, sheet)),
    ]  # fmt: skip
    if stage_memory:
        tool = _shown(tables, "stages", frames["stage"], ("stage", *stage_memory))
        sections.insert(4, ("Memory footprint of each stage, as the reference tool counts it", "", tool))
    notes = [t for t in (errors_told(frames["serving"]), *(row.get(c) for c in ("assumed", "reason"))) if t]
    return _html(title, notes, sections) if ending == ".html" else _markdown(title, notes, sections)


def _settings(tables: Tables, asked: Mapping[str, object], sheet: str) -> pl.DataFrame:
    defaults = tables["workloads"].row(by_predicate=pl.col("workload_id") == "defaults", named=True)
    given = {{"model": "model_id", "hardware": "hardware_id"}.get(k, k): v for k, v in asked.items()}
    lines: list[tuple[str, str]] = []
    for column in tables.columns("scenarios"):
        name = str(column["column_name"])
        value = given.get(name, defaults.get(name, {"precision": "w16a16kv16", "attention": "flash"}.get(name)))
        if value is not None:
            lines.append((str(column["label"]), quantity(value)))
    lines += [(k, str(v)) for k, v in given.items() if k not in {c["column_name"] for c in tables.columns("scenarios")}]
    lines.append(("Sheet", sheet))
    return pl.DataFrame(lines, schema=["Setting", "Value"], orient="row")


def _shown(tables: Tables, table: str, frame: pl.DataFrame, columns: tuple[str, ...]) -> pl.DataFrame:
    about = {str(c["column_name"]): c for c in tables.columns(table)}
    return pl.DataFrame(
        {
            str(about[c]["label"]): [quantity(v, str(about[c]["unit"] or "")) for v in frame[c]]
            for c in columns
            if c in frame.columns
        }
    )


def _turned(tables: Tables, table: str, frame: pl.DataFrame, only: tuple[str, ...] = ()) -> pl.DataFrame:
    lines = []
    for column in tables.columns(table):
        name = str(column["column_name"])
        wanted = name in only if only else name not in MEMORY_COLUMNS and column["dtype"] == "number"
        if wanted and name in frame.columns:
            value = quantity(frame[name][0], str(column["unit"] or ""))
            lines.append((str(column["label"]), value, str(column["description"] or "")))
    return pl.DataFrame(lines, schema=["Figure", "Value", "Meaning"], orient="row")


def _sources(tables: Tables, row: Mapping[str, object], sheet: str) -> pl.DataFrame:
    used: list[str] = []
    for table, key in (("models", "model_id"), ("hardware", "hardware_id")):
        spelled = str(row[key]).lower()
        facts = tables[table].filter(
            (pl.col(key).str.to_lowercase() == spelled)
            | pl.col("aliases").fill_null("").str.to_lowercase().str.split("|").list.contains(spelled)
        )
        used += facts["source_id"].to_list()
    for rows in load_sheet(tables, sheet).rows.values():
        used += [r["source_id"] for r in rows]
    found = tables["sources"].filter(pl.col("source_id").is_in(list(dict.fromkeys(used))))
    order = pl.DataFrame({"source_id": list(dict.fromkeys(used))})
    found = order.join(found, on="source_id", how="left", maintain_order="left")
    return found.select(pl.col("title").alias("Source"), pl.col("locator").fill_null("").alias("Where"))


def _markdown(title: str, notes: list[str], sections: list[Section]) -> str:
    lines = [f"# {title}", ""]
    lines += [f"> {note}\n" for note in notes]
    for heading, text, frame in sections:
        lines += [f"## {heading}", ""] + ([text, ""] if text else [])
        lines.append("| " + " | ".join(frame.columns) + " |")
        lines.append("|" + "|".join("---" for _ in frame.columns) + "|")
        lines += ["| " + " | ".join(str(v).replace("|", "\\|") for v in row) + " |" for row in frame.iter_rows()]
        lines.append("")
    return "\n".join(lines)


def _html(title: str, notes: list[str], sections: list[Section]) -> str:
    body = [f"<h1>{escape(title)}</h1>"] + [f"<p><em>{escape(note)}</em></p>" for note in notes]
    for heading, text, frame in sections:
        body.append(section_html(heading, frame, text))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        "<style>:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;max-width:75rem;margin:2rem auto;"
        "padding:0 1rem}table{border-collapse:collapse}th,td{padding:.2rem .8rem .2rem 0;text-align:left;"
        "border-bottom:1px solid #8884}</style></head><body>" + "\n".join(body) + "</body></html>\n"
    )


def section_html(heading: str, frame: pl.DataFrame, text: str = "") -> str:
    """Return a heading and a table of texts as HTML."""
    head = "".join(f"<th>{escape(c)}</th>" for c in frame.columns)
    body = "\n".join("<tr>" + "".join(f"<td>{escape(str(v))}</td>" for v in row) + "</tr>" for row in frame.iter_rows())
    told = f"<p>{escape(text)}</p>" if text else ""
    return f"<h2>{escape(heading)}</h2>{told}<table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table>"
