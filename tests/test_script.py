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
    """To the last bit, at every grain and in both accountings, and it has every view but those that ask Python."""
    alone, live = duckdb.connect(), calc.connect()
    alone.execute(script.read_text(encoding="utf-8"))
    for relation in ("operators_of", "stages_of", "serving_of", "llm_viewer_stages_of"):
        query = f"{ASKED} from {relation}('asked') order by all"
        rows = alone.sql(query).fetchall()
        assert rows == live.sql(query).fetchall() and len(rows) >= 18
    views = "select view_name from duckdb_views() where not internal"
    assert set(live.sql(views).fetchall()) - set(alone.sql(views).fetchall()) == {
        ("what_helps",), ("predictions",), ("measured_vs_predicted",),
    }  # fmt: skip


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


@pytest.mark.slow
def test_the_script_for_spark_runs_in_its_shell(run: Run, tmp_path: Path) -> None:
    """``spark-sql`` gives what Polars gives, for both stages and the serving figures; what cannot be asked is said."""
    pyspark = pytest.importorskip("pyspark", reason="needs pyspark: pip install -r calc/grid/requirements.txt")
    shell, text = Path(pyspark.__file__).parent / "bin" / "spark-sql", tmp_path / "calculator.sql"
    text.write_text(run("compile", "--dialect", "spark").stdout, encoding="utf-8")
    asked = calc.scenarios(model=["llama-2-7b", "deepseek-v3", "bert-base-uncased", "jamba-v0.1", "gemma-2-27b"],
                           hardware=["a100", "h100", "rtx-4090"], batch=[1, 64], tp=[1, 8], precision="w4a16kv4")  # fmt: skip
    rows = ", ".join(f"({', '.join(map(repr, row))})" for row in asked.collect().iter_rows())
    columns = asked.collect_schema().names()
    shown = {"stages": ["stage", "ops", "memory_bytes", "time_s", "floor_s", "mfu", "bound"],
             "serving": ["ttft_s", "tpot_s", "max_batch", "memory_needed_bytes", "usd_per_million_output_tokens", "fits"]}  # fmt: skip
    script = f"insert into scenarios ({', '.join(columns)}) values {rows};\n"
    for view, results in shown.items():
        script += f"select '{view}', {', '.join([*columns, *results])} from {view};\n"
    script += "insert into scenarios (model_id, hardware_id) values ('gpt-5000', 'h100');\nselect * from serving;"
    (tmp_path / "ask.sql").write_text(script, encoding="utf-8")
    call = [shell, "--driver-memory", "6g", "--conf", "spark.ui.enabled=false", "-i", text, "-f", tmp_path / "ask.sql"]
    done = subprocess.run([*map(str, call)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0 and "unknown model gpt-5000" in done.stderr
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    for view, results in shown.items():
        answers = calc.evaluate(asked, by={"stages": "stage"}.get(view, view)).select(*columns, *results).collect()
        found = sorted(line[1:] for line in lines if line[0] == view)
        wanted = sorted([_as_spark_shows(v) for v in row] for row in answers.iter_rows())
        assert len(found) == len(wanted) == answers.height
        for got, want in zip(found, wanted, strict=True):
            for a, b in zip(got, want, strict=True):
                assert a == b or float(a) == pytest.approx(float(b), rel=1e-12), (view, got, want)


def _as_spark_shows(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "NULL", True: "true", False: "false"}[value]
    return str(float(value)) if isinstance(value, int | float) else str(value)


def test_the_command(run: Run, script: Path) -> None:
    """``compile`` prints it; another dialect is refused."""
    assert run("compile").stdout == script.read_text(encoding="utf-8")
    said = run("compile", "--dialect", "oracle")
    assert said.returncode == 2 and "unknown dialect 'oracle'; there are duckdb, spark" in said.stderr
