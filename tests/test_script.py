"""The calculator as one SQL script: it gives the same numbers without Python."""

from __future__ import annotations

import csv
import shutil
import subprocess
from pathlib import Path

import duckdb
import pytest
from conftest import Run

import calc

ASKED = (
    "with asked as (select m as model_id, h as hardware_id, b as batch, 2000 as input_len, 'w4a16kv4' as precision, 2 as tp "
    "from (select unnest(['llama-2-7b', 'deepseek-v3', 'bert-base-uncased']) as m), "
    "(select unnest(['a100', 'h100', 'rtx-4090']) as h), (select unnest([1, 64]) as b)) "
)


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the script in a file."""
    from calc.script import script
    from calc.tables import load

    path = tmp_path_factory.mktemp("script") / "calculator.sql"
    path.write_text("\n".join(script(load(None))) + "\n", encoding="utf-8")
    return path


def test_the_script_gives_the_same_numbers(script: Path) -> None:
    """To the last bit, at every grain and in both accountings, and it has every view but that of techniques."""
    alone, live = duckdb.connect(), calc.connect()
    alone.execute(script.read_text(encoding="utf-8"))
    for relation in ("operators_of", "stages_of", "serving_of", "llm_viewer_stages_of"):
        query = f"{ASKED} from {relation}('asked') order by all"
        rows = alone.sql(query).fetchall()
        assert rows == live.sql(query).fetchall() and len(rows) >= 18
    views = "select view_name from duckdb_views() where not internal"
    assert set(live.sql(views).fetchall()) - set(alone.sql(views).fetchall()) == {("what_helps",)}


def test_the_script_runs_in_the_shell(script: Path) -> None:
    """In a database file, without Python."""
    shell = shutil.which("duckdb")
    if shell is None:
        pytest.skip("needs DuckDB's shell on the path")
    database = script.with_suffix(".db")
    with script.open() as text:
        subprocess.run([shell, str(database)], stdin=text, check=True, capture_output=True)
    query = f"{ASKED} select model_id, ttft_s, usd_per_million_output_tokens from serving_of('asked') order by all"
    done = subprocess.run(
        [shell, "-csv", "-nullvalue", "", str(database), query], check=True, capture_output=True, text=True
    )
    found = [
        (row[0], *(float(v) if v else None for v in row[1:])) for row in list(csv.reader(done.stdout.splitlines()))[1:]
    ]
    assert found == calc.connect().sql(query).fetchall()


def test_the_command(run: Run, script: Path) -> None:
    """``compile`` prints it; another dialect is refused."""
    assert run("compile").stdout == script.read_text(encoding="utf-8")
    said = run("compile", "--dialect", "oracle")
    assert said.returncode == 2 and "unknown dialect 'oracle'; there are duckdb" in said.stderr
