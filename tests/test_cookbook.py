"""The cookbook: every question is asked of the demonstration grid, and its page shows what it answers."""

from __future__ import annotations

import io
import re
from contextlib import redirect_stdout
from pathlib import Path

import duckdb
import polars as pl
import pytest
from conftest import ROOT

import calc
from calc.output import print_frame

FOLDER = ROOT / "sql" / "cookbook"
QUERIES = sorted(FOLDER.glob("*.sql"))
SHOWN_ROWS = 3


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> duckdb.DuckDBPyConnection:
    """Return a connection to the demonstration grid."""
    folder = tmp_path_factory.mktemp("grid") / "demo"
    calc.build_grid("demo", folder)
    return calc.connect(grid=folder)


def answer(connection: duckdb.DuckDBPyConnection, path: Path) -> pl.DataFrame:
    """Return the answer to a question of the cookbook."""
    return connection.sql(path.read_text(encoding="utf-8")).pl()


def first_rows(frame: pl.DataFrame) -> str:
    """Return the first rows of an answer as the command line prints them."""
    lists = [c for c, t in frame.schema.items() if isinstance(t, pl.List)]
    frame = frame.with_columns(pl.col(lists).list.join(", ")).head(SHOWN_ROWS)
    with redirect_stdout(io.StringIO()) as out:
        print_frame(frame)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def page(answers: dict[str, pl.DataFrame]) -> str:
    """Return the cookbook's page: each question with the first rows of its answer."""
    parts = [
        "# A cookbook of questions over grids",
        "Every question is a file of this folder; the answers are those of the grid `demo`. Ask them of your own grid:",
        "```sh\n.venv/bin/python -m calc grid demo --out demo\n"
        ".venv/bin/python -m calc sql --grid demo --file sql/cookbook/what_limits.sql\n```",
    ]
    for path in QUERIES:
        question = re.match(r"-- question: (.*)\n", path.read_text(encoding="utf-8"))
        assert question, path.name
        rows = answers[path.stem]
        more = f"{rows.height:,} rows, the first:" if rows.height > SHOWN_ROWS else "All rows:"
        text = f"```text\n{first_rows(rows)}\n```"
        parts.append(f"## {question.group(1)}\n\n[{path.name}]({path.name}). {more}\n\n{text}")
    return "\n\n".join(parts) + "\n"


def test_the_page_shows_what_the_questions_answer(connection: duckdb.DuckDBPyConnection) -> None:
    """The page is what the questions give now; where facts changed, write it anew with ``python tests/test_cookbook.py``."""
    assert len(QUERIES) >= 20
    assert page({p.stem: answer(connection, p) for p in QUERIES}) == (FOLDER / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", QUERIES, ids=lambda p: p.stem)
def test_headers_say_grain_and_what_is_read(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    """The grain is unique, and the query reads what its header says."""
    text = path.read_text(encoding="utf-8")
    grain, reads = (re.search(rf"^-- {k}: (.*)$", text, re.MULTILINE) for k in ("grain", "reads"))
    assert grain and reads
    body = re.sub(r"^--.*$", "", text, flags=re.MULTILINE)
    named = set(re.findall(r"\b(?:from|join) (\w+)", body)) - set(re.findall(r"(\w+) as \(", body))
    assert named == set(reads.group(1).split(", "))
    found, keys = answer(connection, path), grain.group(1).split(", ")
    assert found.height and not found.select(keys).is_duplicated().any()


def test_answers_follow_from_the_rows(connection: duckdb.DuckDBPyConnection) -> None:
    """Some questions by another way: in Polars over all rows."""
    rows = connection.sql("from serving").pl().filter("fits")
    priced = rows.filter(pl.col("usd_per_million_output_tokens").is_not_null())
    top = answer(connection, FOLDER / "top_devices.sql")
    wanted = priced.group_by("hardware_id").agg(pl.col("usd_per_million_output_tokens").min().alias("usd"))
    assert top["cheapest_usd"].to_list() == sorted(wanted["usd"])[:20]
    kept = priced.filter((pl.col("ttft_s") <= 0.5) & (pl.col("tpot_s") <= 0.05))
    cheapest = answer(connection, FOLDER / "cheapest_under_latency.sql")
    wanted = kept.group_by("model_id").agg(pl.col("usd_per_million_output_tokens").min())
    assert sorted(cheapest["usd_per_million_output_tokens"]) == sorted(wanted["usd_per_million_output_tokens"])
    front = answer(connection, FOLDER / "pareto_front.sql")
    mine = rows.filter(pl.col("model_id").str.ends_with("Llama-3-8B") & (pl.col("input_len") == 2048))
    axes = ["tokens_per_s_per_user", "output_tokens_per_s_per_device"]
    points = mine.select(axes).rows()
    beaten = [any(a >= c and b >= d and (a, b) != (c, d) for a, b in points) for c, d in points]
    wanted = sorted(p for p, is_beaten in zip(points, beaten, strict=True) if not is_beaten)
    assert sorted(front.select(axes).rows()) == wanted
    everything = answer(connection, FOLDER / "pareto_of_everything.sql")
    axes = ["usd_per_million_output_tokens", "tpot_s"]
    fastest, wanted = float("inf"), []
    for usd, tpot in priced.select(axes).drop_nulls().sort(axes).rows():
        if tpot < fastest:
            fastest = tpot
            wanted.append((usd, tpot))
    assert everything.select(axes).rows() == wanted and len(wanted) > 3
    limits = answer(connection, FOLDER / "what_limits.sql")
    assert limits.group_by("batch").agg(pl.col("share").sum())["share"].to_list() == pytest.approx([1.0] * 6)


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        calc.build_grid("demo", folder)
        over = calc.connect(grid=folder)
        text = page({p.stem: answer(over, p) for p in QUERIES})
    (FOLDER / "README.md").write_text(text, encoding="utf-8")
