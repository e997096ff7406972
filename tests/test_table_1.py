"""Table 1 of the survey (arXiv:2402.16363), as printed there."""

from __future__ import annotations

from pathlib import Path

import calc

PAPER = """
prefill q_proj 69G 67M 1024 155T compute
prefill k_proj 69G 67M 1024 155T compute
prefill v_proj 69G 67M 1024 155T compute
prefill o_proj 69G 67M 1024 155T compute
prefill gate_proj 185G 152M 1215 155T compute
prefill up_proj 185G 152M 1215 155T compute
prefill down_proj 185G 152M 1215 155T compute
prefill qk_matmul 34G 302M 114 87T memory
prefill sv_matmul 34G 302M 114 87T memory
prefill softmax 671M 537M 1.25 960G memory
prefill norm 59M 34M 1.75 1T memory
prefill add 8M 34M 0.25 192G memory
decode q_proj 34M 34M 1 768G memory
decode k_proj 34M 34M 1 768G memory
decode v_proj 34M 34M 1 768G memory
decode o_proj 34M 34M 1 768G memory
decode gate_proj 90M 90M 1 768G memory
decode up_proj 90M 90M 1 768G memory
decode down_proj 90M 90M 1 768G memory
decode qk_matmul 17M 17M 0.99 762G memory
decode sv_matmul 17M 17M 0.99 762G memory
decode softmax 328K 262K 1.25 960G memory
decode norm 29K 16K 1.75 1T memory
decode add 4K 16K 0.25 192G memory
"""


def test_every_figure_at_the_papers_rounding() -> None:
    """All 24 rows, in the paper's order."""
    query = (Path(__file__).parent.parent / "sql" / "survey" / "table_1.sql").read_text(encoding="utf-8")
    rows = calc.connect().sql(query).fetchall()
    found = [" ".join(row) for sheet, *row in rows if sheet == "llm_viewer"]
    assert found == PAPER.strip().splitlines()
    # the exact accounting has the same operators
    assert [row[1:3] for row in rows if row[0] == "exact"] == [row[1:3] for row in rows if row[0] == "llm_viewer"]
