"""SQL that anyone may ask: a hundred hostile statements, the limits, and that it goes on serving."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import calc
from calc.errors import CalcError
from calc.sandbox import Limits, Sandbox
from calc.tables import ROOT

LIMITS = Limits(seconds=3, rows=1000, answer_bytes=5_000_000, memory_bytes=300_000_000, process_bytes=4_000_000_000)
FILES = (
    "/etc/passwd", "/proc/self/environ", "../../etc/shadow", "~/.ssh/id_rsa", "file:///etc/hosts",
    "https://example.com/x.csv", "s3://bucket/x.parquet", "hf://datasets/x/y.csv", "README.md", "/dev/zero",
)  # fmt: skip
READERS = ("read_csv", "read_text", "read_blob", "read_json", "read_parquet", "glob")
REFUSED = [
    *(f"select * from {reader}('{file}')" for reader in READERS for file in FILES[:5]),
    *(f"select * from '{file}'" for file in FILES if not file.endswith((".md", "zero", "passwd", "environ", "shadow", "id_rsa", "hosts"))),
    *(f"select * from read_text('{file}')" for file in FILES[5:]),
    "copy models to '/tmp/stolen.csv'", "copy (select 1) to '/tmp/x.parquet' (format parquet)",
    "copy models from '/etc/passwd'", "export database '/tmp/stolen'", "import database '/tmp/stolen'",
    "attach '/tmp/other.duckdb'", "attach ':memory:' as other", "detach other", "use memory",
    "install httpfs", "load httpfs", "force install spatial from 'http://example.com'", "update extensions",
    "pragma database_list", "pragma memory_limit='100GB'", "pragma enable_profiling", "pragma version",
    "set memory_limit = '100GB'", "set enable_external_access = true", "set lock_configuration = false; select 1",
    "set threads = 512; select 1", "set global temp_directory = '/tmp'; select 1", "reset memory_limit",
    "set allowed_directories = ['/']; select 1", "set session search_path = 'x'; select 1",
    "select getenv('HOME')", "select current_setting('home_directory') from getenv('PATH')",
    "create table t as select 1", "create or replace view models as select 1", "create temp table t (i int)",
    "create macro f(x) as x", "create schema s", "create sequence q", "create type t as enum ('a')",
    "create secret s (type s3)", "drop table models", "drop view serving", "drop schema main cascade",
    "delete from models", "update models set model_id = 'x'", "insert into models default values",
    "truncate models", "alter table models add column x int", "comment on table models is 'x'",
    "begin transaction", "commit", "rollback", "checkpoint", "force checkpoint", "vacuum", "analyze",
    "call pragma_version()", "call force_checkpoint()", "prepare p as select 1", "execute p", "deallocate p",
    "explain analyze copy models to '/tmp/x.csv'", "explain create table t as select 1", "explain analyze delete from models",
    "select 1; drop table models", "select 1; select 2", "from models; copy models to '/tmp/x'",
    "set variable x = 1; delete from models", "set variable x = (select content from read_text('/etc/passwd')); select 1",
    "with x as (select 1) insert into models from x", "merge into models using models on true when matched then delete",
    "select * from query('copy models to ''/tmp/x''')", "select * from query_table('/etc/passwd')",
    "select * from duckdb_secrets(); select 1", "summarize '/etc/passwd'", "describe read_csv('/etc/passwd')",
    "", "   ", ";", "-- nothing", "select", "selekt 1", "select * from nowhere", "select '\x00'; select 2",
]  # fmt: skip
"""What is no question, or asks for what is not the product's."""
STOPPED = [
    "with recursive r as (select 1 as i union all select i + 1 from r) select max(i) from r",
    "with recursive r as (select 1 as i union all select i from r) select count(*) from r",
    "select count(*) from range(1000000) a, range(1000000) b where a.range + b.range = -1",
    "select max(a.range * b.range) from range(100000000) a, range(100000000) b",
    "select sum(length(m.model_id)) from models m, models n, models o, models p, models q",
    "select repeat('x', 2000000000)", "select repeat('x', 100000000) from range(1000)",
    "select string_agg(repeat('x', 1000000), '') from range(100000)",
    "select list(range) from range(1000000000)", "select range(2000000000)", "select array_agg(i) from range(500000000) t(i)",
    "select repeat('ab', 3000000) from range(100)", "select * from range(1000000000) order by random()",
    "select md5(string_agg(i::varchar, ',')) from range(2000000000) t(i)",
    "select histogram(random()) from range(1000000000)",
    "select count(*) from range(1000000) r where regexp_matches(repeat('a', 1000000 + (r.range % 2)::int), '(a|aa)+$')",
    "select " + "(" * 5000 + "1" + ")" * 5000, "select " + "not " * 20000 + "true", "select 1" + " + 1" * 45000,
    "select '" + "x" * 200_000 + "'",
]  # fmt: skip
"""What would never end, or take all memory."""


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """Start one process, with limits that a test can wait for."""
    made = Sandbox(ROOT / "data", None, LIMITS)
    yield made
    made.close()


def test_there_are_a_hundred() -> None:
    """And none twice."""
    assert len(set(REFUSED + STOPPED)) == len(REFUSED + STOPPED) >= 100


@pytest.mark.parametrize("statement", REFUSED, ids=range(len(REFUSED)))
def test_hostile_statements_are_refused(sandbox: Sandbox, statement: str) -> None:
    """With a sentence, and the next question is answered."""
    with pytest.raises(CalcError) as refused:
        sandbox.ask(statement)
    assert str(refused.value).strip() and "Traceback" not in str(refused.value)
    assert sandbox.ask("select 41 + 1 as answer").frame["answer"][0] == 42
    assert not Path("/tmp/stolen.csv").exists() and not Path("/tmp/stolen").exists()


@pytest.mark.parametrize("statement", STOPPED, ids=range(len(STOPPED)))
def test_runaway_queries_are_stopped(sandbox: Sandbox, statement: str) -> None:
    """Within the limit and a grace; nothing is left of them."""
    with pytest.raises(CalcError) as stopped:
        sandbox.ask(statement)
    assert str(stopped.value).strip()
    assert sandbox.ask("select count(*) as n from models").frame["n"][0] == calc.models().height


def test_questions_are_answered(sandbox: Sandbox) -> None:
    """Tables, variables of one question alone, plans, at most so many rows."""
    found = sandbox.ask("select name from hardware where hardware_id = 'nvidia_h100_sxm'")
    assert found.frame.item() == "H100 80GB SXM5" and not found.is_cut
    assert sandbox.ask("select count(*) as n from measurements").frame["n"][0] > 5000
    assert sandbox.ask("set variable x = 7; select getvariable('x') as x").frame["x"][0] == 7
    assert sandbox.ask("select getvariable('x') as x").frame["x"][0] is None
    assert "physical_plan" in sandbox.ask("explain from models").frame["explain_key"].to_list()
    cut = sandbox.ask("from range(100000)")
    assert cut.is_cut and cut.frame.height == LIMITS.rows


def test_views_and_a_grid_are_there(tmp_path: Path) -> None:
    """The grid's own files are all that can be read, and nothing can be written beside them."""
    calc.build_grid({"axes": {"model": "opt-125m", "hardware": ["a100", "h100"], "batch": [1, 8]}}, tmp_path / "g")
    sandbox = Sandbox(ROOT / "data", tmp_path / "g")
    try:
        found = sandbox.ask("select hardware_id, batch, ttft_s from serving order by all").frame
        asked = calc.scenarios(model="opt-125m", hardware=["nvidia_a100_80gb_sxm", "nvidia_h100_sxm"], batch=[1, 8])
        wanted = calc.evaluate(asked, by="serving").select("hardware_id", "batch", "ttft_s").collect()
        wanted = wanted.sort("hardware_id", "batch")
        assert found["hardware_id"].to_list() == wanted["hardware_id"].to_list()
        assert found["ttft_s"].to_list() == pytest.approx(wanted["ttft_s"].to_list(), rel=1e-12)
        assert sandbox.ask("set variable ttft_s = 10; select count(*) as n from slo").frame["n"][0] == 4
        with pytest.raises(CalcError, match="COPY is refused"):
            sandbox.ask(f"copy models to '{tmp_path / 'g' / 'x.csv'}'")
    finally:
        sandbox.close()
