"""Files say what they hold: units in Parquet's metadata and beside a CSV, the facts as a Frictionless data package."""

from __future__ import annotations

import json
from pathlib import Path

import frictionless
import polars as pl

import calc
from calc.__main__ import main
from calc.described import datapackage, metadata
from calc.output import write
from calc.tables import ROOT, load

ASKED = ("analyze", "opt-125m", "a100", "--batch", "3", "--by", "serving", "--output")


def test_parquet_carries_units_and_what_it_was_computed_from(tmp_path: Path) -> None:
    """Units and labels of every column that has them, hashes of formulas and facts, the version."""
    target = tmp_path / "answers.parquet"
    assert main([*ASKED, str(target)]) == 0
    told = {k: json.loads(v) for k, v in pl.read_parquet_metadata(target).items() if k in ("units", "labels", "calc")}
    assert told["units"]["ttft_s"] == "s" and told["units"]["memory_needed_bytes"] == "byte"
    assert "fits" not in told["units"] and told["labels"]["fits"] == "Fits"
    assert told["calc"]["version"] == calc.__version__ and told["calc"]["sheet"] == "exact"
    assert len(told["calc"]["sheet_sha256"]) == len(told["calc"]["facts_sha256"]) == 64
    assert pl.read_parquet(target).equals(
        calc.analyze("opt-125m", "a100", batch=3, by="serving").select(pl.read_parquet(target).columns)
    )


def test_a_changed_formula_changes_the_hash() -> None:
    """Of the sheet alone: the facts are the same."""
    exact, paper = (json.loads(metadata(load(), ["ops"], s)["calc"]) for s in ("exact", "llm_viewer"))
    assert exact["sheet_sha256"] != paper["sheet_sha256"] and exact["facts_sha256"] == paper["facts_sha256"]


def test_a_csv_has_its_units_beside_it(tmp_path: Path) -> None:
    """A Frictionless resource, which others can check the file with; columns keep the order of the dictionary."""
    target = tmp_path / "my answers.csv"
    assert main([*ASKED, str(target)]) == 0
    about = json.loads((tmp_path / "my answers.resource.json").read_text(encoding="utf-8"))
    fields = {f["name"]: f for f in about["schema"]["fields"]}
    assert fields["ttft_s"]["unit"] == "s" and fields["ttft_s"]["title"] == "Time to first token"
    frame = pl.read_csv(target)
    assert list(fields) == frame.columns
    order = [str(c["column_name"]) for c in load().columns("serving")]
    assert [c for c in frame.columns if c in order] == [c for c in order if c in frame.columns]
    assert frictionless.Resource(str(tmp_path / "my answers.resource.json")).validate().valid


def test_a_users_column_that_bears_a_known_name_is_described_as_it_is(tmp_path: Path) -> None:
    """A text called year, a date, a column of nothing."""
    frame = pl.DataFrame(
        {"year": ["late"], "when": [pl.date(2026, 1, 2)], "none": [None], "ttft_s": [1.5]}, strict=False
    )
    frame = frame.with_columns(when=pl.lit("2026-01-02").str.to_date())
    write(frame, str(tmp_path / "own.csv"))
    about = json.loads((tmp_path / "own.resource.json").read_text(encoding="utf-8"))
    fields = {f["name"]: f for f in about["schema"]["fields"]}
    assert fields["year"]["type"] == "string" and "title" not in fields["year"] and fields["ttft_s"]["unit"] == "s"
    assert frictionless.Resource(str(tmp_path / "own.resource.json")).validate().valid


def test_the_facts_are_a_data_package() -> None:
    """The shipped description is what the dictionary says, and every file keeps it: types, ranges, keys, references."""
    shipped = ROOT / "data" / "datapackage.json"
    made = json.dumps(datapackage(load()), indent=1, ensure_ascii=False) + "\n"
    assert shipped.read_text(encoding="utf-8") == made, "python -m calc datapackage > data/datapackage.json"
    report = frictionless.Package(str(shipped)).validate()
    assert report.valid, report.flatten(["title", "message"])[:5]
    assert {r["name"] for r in datapackage(load())["resources"]} == set(load().frames)
    models = next(r for r in datapackage(load())["resources"] if r["name"] == "models")["schema"]
    assert models["primaryKey"] == ["model_id"]
    assert {"fields": ["source_id"], "reference": {"resource": "sources", "fields": ["source_id"]}} in models[
        "foreignKeys"
    ]


def test_a_wrong_fact_is_found_by_others(tmp_path: Path) -> None:
    """The description is worth something: a text for a number and a source that is not there are refused."""
    package = json.loads((ROOT / "data" / "datapackage.json").read_text(encoding="utf-8"))
    for resource in package["resources"]:
        (tmp_path / resource["path"]).write_bytes((ROOT / "data" / resource["path"]).read_bytes())
    (tmp_path / "datapackage.json").write_text(json.dumps(package))
    text = (tmp_path / "formats.csv").read_text(encoding="utf-8").splitlines()
    header = text[0].split(",")
    row = dict(zip(header, text[1].split(","), strict=False)) | {"bits": "many", "source_id": "nobody"}
    (tmp_path / "formats.csv").write_text(
        "\n".join([text[0], ",".join(row[h] for h in header)]) + "\n", encoding="utf-8"
    )
    found = frictionless.Package(str(tmp_path / "datapackage.json")).validate().flatten(["type"])
    assert ["type-error"] in found and ["foreign-key"] in found
