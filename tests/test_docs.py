"""What is written holds: the README's commands run, every column is documented, SQL files keep their headers."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import duckdb
import polars as pl
import pytest
from conftest import ROOT, Run

import calc
from calc.__main__ import main
from calc.tables import load

README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line.split("#")[0].replace(".venv/bin/python -m calc ", "").strip()
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line.startswith(".venv/bin/python -m calc ")
]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the grid that the README builds first."""
    made = tmp_path_factory.mktemp("demo") / "grid"
    assert main(["grid", "demo", "--out", str(made)]) == 0
    return made


@pytest.mark.parametrize("command", COMMANDS)
def test_readme_commands_run(run: Run, command: str, demo: Path, tmp_path: Path) -> None:
    """Each ends with exit code 0 and prints or writes something; a configuration to import lies there."""
    here = tmp_path / "cwd"
    (here / "config.json").write_text(CONFIG, encoding="utf-8")
    if "mine.csv" in command:
        assert run("import", "config.json", "--id", "me/mine", "--save", "mine.csv").returncode == 0
    if ("grid" in command.split() and "demo" not in command) or "--grid" in command:
        shutil.copytree(demo, here / "grid")
    done = run(*[str(ROOT / w) if w.startswith(("sql/", "data/")) else w for w in shlex.split(command)])
    assert done.returncode == 0, done.stderr
    assert done.stdout or list((tmp_path / "cwd").iterdir())


def test_readme_shows_what_the_commands_print(run: Run) -> None:
    """The worked example's output, line by line."""
    shown = re.findall(r"```text\n(.*?)```", README, re.DOTALL)
    done = run("analyze", "llama-2-7b", "a6000", "--by", "stage")
    assert [line.rstrip() for line in shown[0].splitlines()] == [line.rstrip() for line in done.stdout.splitlines()]
    done = run("explain", "memory_s", "llama-2-7b", "a6000", "--stage", "decode", "--operator", "q_proj")
    assert done.stdout.startswith(shown[1])


def test_the_worked_example_by_hand() -> None:
    """The README's arithmetic: weights without the embedding table, the cache of 1,025 tokens, over 768 GB/s."""
    decode = calc.analyze("llama-2-7b", "a6000", by="stage").filter(stage="decode").row(0, named=True)
    weights = (6_738_415_616 - 32_000 * 4_096 + 4_096) * 2  # one row of the table is read
    cache = 32 * 2 * 4_096 * 2 * 1_025
    assert decode["weight_bytes"] == weights and decode["kv_read_bytes"] == cache
    assert decode["time_s"] == pytest.approx((weights + cache) / 768e9, rel=1e-3)
    assert decode["matrix_ops"] / 154.8e12 == pytest.approx(0.089e-3, rel=0.01)


def test_readme_python_runs() -> None:
    """The Python block runs as it stands."""
    for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        exec(compile(block, "README.md", "exec"), {})


def test_every_column_of_every_table_view_and_result_is_in_the_dictionary() -> None:
    """Names, labels, sentences; and every unit that a name's ending promises."""
    tables = load()
    dictionary = tables.dictionary
    assert dictionary.filter(pl.col("description").is_null()).is_empty()
    connection = calc.connect()
    documented = set(dictionary["column_name"]) | set(tables["parameters"]["parameter"])
    # what DuckDB has noted of each view: to bind them all again takes a minute
    views = connection.sql("select view_name from duckdb_views() where not internal").fetchall()
    shown = connection.sql("select table_name, column_name from duckdb_columns() where not internal").fetchall()
    assert {view for (view,) in views} <= {view for view, _ in shown} and len(views) > 20
    for view, column in shown:
        assert view.startswith("__") or (view,) not in views or column in documented, (view, column)
    endings = {"_bytes": "byte", "_s": "s", "_bytes_per_s": "byte/s", "_ops_per_s": "op/s", "_usd": "usd",
               "_usd_per_hour": "usd/hour", "_w": "w", "_per_s": "1/s"}  # fmt: skip
    for name, unit in dictionary.filter(dtype="number").select("column_name", "unit").iter_rows():
        for ending in sorted(endings, key=len, reverse=True):
            if name.endswith(ending):
                assert unit == endings[ending], name
                break


def test_every_row_has_a_source_and_every_source_is_used() -> None:
    """No fact without a source; no source that nothing cites."""
    tables = load()
    used: set[str] = set()
    for frame in tables.frames.values():
        if "source_id" in frame.columns and frame.columns[0] != "source_id":
            assert not frame["source_id"].has_nulls()
            used |= set(frame["source_id"])
    for path in (ROOT / "data" / "sheets").rglob("*.csv"):
        used |= set(pl.read_csv(path, infer_schema=False)["source_id"].drop_nulls())
    # "user" is the source of rows that a user imports
    assert used | {"user"} == set(tables["sources"]["source_id"])


CONFIG = """{"model_type": "llama", "num_hidden_layers": 4, "hidden_size": 256, "intermediate_size": 512,
"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 1000, "tie_word_embeddings": false}"""


@pytest.fixture(scope="module")
def connection() -> duckdb.DuckDBPyConnection:
    """A connection whose scenarios are every twentieth, at two batches."""
    made = calc.connect()
    made.execute("create or replace table scenarios as from scenarios where hash(model_id, hardware_id) % 20 = 0")
    made.execute("insert into scenarios select * replace (64 as batch) from scenarios")
    # each query over them would plan them anew
    for view in ("serving", "stages"):
        made.execute(f"create table answered_{view} as from {view}")
        made.execute(f"create or replace view {view} as from answered_{view}")
    return made


SQL_FILES = sorted(p for p in (ROOT / "sql").rglob("*.sql") if p.parent.name != "cookbook")
"""Questions of the cookbook are asked of a grid: tests/test_cookbook.py."""


@pytest.mark.parametrize("path", SQL_FILES, ids=lambda p: p.stem)
def test_sql_files(path: Path, connection: duckdb.DuckDBPyConnection) -> None:
    """One SELECT; its header says its name and sentence, its grain, which is unique, and what it reads."""
    text = path.read_text(encoding="utf-8")
    if path.stem == "what_helps":
        # every technique for every shape of model is a program of its own: one question is enough
        one = "select * replace ('llama-2-7b' as model_id, 'h100' as hardware_id), rowid from scenarios limit 1"
        text = text.replace("from scenarios as s", f"from ({one}) as s")
    first, grain, reads = text.splitlines()[:3]
    assert re.fullmatch(rf"-- {path.stem}: .+\.", first), first
    listed = reads.removeprefix("-- reads: ").split(", ")
    assert all(re.search(rf"\b(from|join) {name}\b", path.read_text(encoding="utf-8")) for name in listed), reads
    base: set[str] = set()
    for name in listed:
        asked = "('scenarios')" if name.endswith("_of") else ""
        base |= set(connection.get_table_names(f"from {name}{asked}")) - ({"scenarios"} if asked else set())
    assert set(connection.get_table_names(text)) == base
    keys = grain.removeprefix("-- grain: ")
    wide = f"select count(*), count(distinct ({keys})) from ({text})"
    rows, distinct = connection.sql(wide).fetchall()[0]
    assert rows == distinct > 0
    assert text == text.lower() or path.parent.name == "survey"


def test_the_readme_lists_every_technique_with_the_size_of_its_patch() -> None:
    """By group, each with the rows of its patch."""
    tables = load()
    sizes = dict(tables["patches"].group_by("technique_id").len().rows())
    wanted = {
        group: ", ".join(sorted(f"{t} {sizes[t]}" for t in rows["technique_id"]))
        for (group,), rows in tables["techniques"].group_by(["group"])
    }
    listed = README.partition("| group | technique and rows of its patch |\n|---|---|\n")[2].partition("\n\n")[0]
    assert dict(tuple(line.strip("| ").split(" | ")) for line in listed.splitlines()) == wanted


def test_the_changelog_names_the_version() -> None:
    """What calc says of itself is in the changelog."""
    assert f"## {calc.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
