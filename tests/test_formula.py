"""The formula language, and what the two engines agree on: an upgrade that changes it reports itself here."""

from __future__ import annotations

import duckdb
import polars as pl
import pytest

from calc.folding import replace
from calc.formula import FormulaError, Node, name, names, number, parse, to_sql, to_text

SAMPLE = {"a": 3.0, "b": -2.5, "c": 0.0, "d": None, "s": "x", "t": None, "f": True, "g": False, "u": None}
SCHEMA = {n: pl.String if n in "st" else pl.Boolean if n in "fgu" else pl.Float64 for n in SAMPLE}
FRAME = pl.DataFrame({n: [v] for n, v in SAMPLE.items()}, schema=SCHEMA)

SAME = [
    "a + b * 2 - a / b",
    "-a",
    "-(a + b)",
    "a - (b - c)",
    "a / (b * a)",
    "a / NULLIF(c, 0)",
    "POW(a, 2)",
    "SQRT(a)",
    "EXP(b)",
    "LN(a)",
    "LOG2(a)",
    "LOG10(a)",
    "ABS(b)",
    "CEIL(b)",
    "FLOOR(b)",
    "LEAST(a, b, d)",
    "GREATEST(a, b, d)",
    "GREATEST(d, NULL)",
    "COALESCE(d, a)",
    "NULLIF(a, 3)",
    "IF(a > b, 1, 2)",
    "IF(d > 1, 1, 2)",
    "IF(u, 1, 2)",
    "CASE WHEN a < 0 THEN 1 WHEN b < 0 THEN 2 END",
    "CASE WHEN f AND g THEN 1 ELSE a END",
    "a BETWEEN 1 AND 3",
    "s IN ('x', 'y')",
    "NOT s IN ('y', 'z')",
    "s NOT IN ('x')",
    "t IN ('x')",
    "d IS NULL",
    "d IS NOT NULL",
    "a = 3",
    "a <> 3",
    "a != 3",
    "a >= b",
    "f AND u",
    "g AND u",
    "f OR u",
    "g OR u",
    "NOT u",
    "s || 'y'",
    "s || t",
    "LOWER(UPPER(s))",
    "LENGTH(s)",
    "CONCAT(s, 'z')",
    "s LIKE 'x%'",
    "1e12 * a",
    "a + d",
    "d * 0",
    "TRUE",
    "'text'",
    "12",
]


@pytest.mark.parametrize("text", SAME)
def test_both_engines_evaluate_alike(text: str) -> None:
    """One printed text, one value, unknown for unknown; folding what is literal changes nothing."""
    tree = parse(text)
    polars = FRAME.select(pl.sql_expr(to_sql(tree)).alias("v"))["v"][0]
    connection = duckdb.connect()
    connection.register("frame", FRAME)
    duck = connection.sql(f"select {to_sql(tree)} as v from frame").pl()["v"][0]
    assert (polars is None) == (duck is None)
    assert polars == (pytest.approx(duck, rel=1e-15) if isinstance(duck, float) else duck)
    folded = replace(tree, name)
    if text != "d * 0":  # nothing times an unknown rate is nothing: zero work takes no time
        again = FRAME.select(pl.sql_expr(to_sql(folded)).alias("v"))["v"][0]
        assert again == (pytest.approx(polars, rel=1e-15) if isinstance(polars, float) else polars)


@pytest.mark.parametrize(
    ("text", "polars", "duck"),
    [
        ("ROUND(2.5e0)", 2.0, 3.0),
        ("CAST(2.7e0 AS BIGINT)", 2, 3),
        ("LOG(2e0, 8e0)", pytest.approx(1 / 3), pytest.approx(3.0)),
    ],
)
def test_known_differences(text: str, polars: object, duck: object) -> None:
    """What the language leaves out because the engines differ; once they agree, it may come in."""
    assert pl.select(pl.sql_expr(text)).item() == polars
    assert duckdb.sql(f"select {text}").fetchall() == [(duck,)]
    with pytest.raises(FormulaError):
        parse(text.replace("2.5e0", "3").replace("2.7e0", "3"))


def test_greatest_of_an_unknown_skips_it() -> None:
    """Both engines skip NULL in GREATEST and LEAST: a maximum of ceilings must test for the unknown itself."""
    for text in ("GREATEST(NULL, 1e0)", "LEAST(NULL, 1e0)"):
        assert pl.select(pl.sql_expr(text)).item() == 1.0 and duckdb.sql(f"select {text}").fetchall() == [(1.0,)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it is empty"),
        ("a +", "it ends too early"),
        ("a b", "unexpected 'b'"),
        ("(a", "expected"),
        ("1.5 * a", "decimal-point literal 1.5"),
        (".5", "decimal-point"),
        ("a ** 2", "unexpected"),
        ("a ; b", "cannot read"),
        ("SELECT(a)", "not a function"),
        ("CASE a WHEN 1 THEN 2 END", "CASE WHEN condition"),
        ("NULLIF(a)", "takes 2 argument"),
        ("CAST(a AS DOUBLE)", "not a function"),
        ("a[1]", "cannot read"),
        ("'open", "cannot read"),
        ("IF(a, b)", "takes 3"),
    ],
)
def test_what_is_not_in_the_language(text: str, reason: str) -> None:
    """Each error says what is wrong."""
    with pytest.raises(FormulaError, match=reason.replace("(", r"\(")):
        parse(text)


@pytest.mark.parametrize(
    ("text", "bound", "wanted"),
    [
        ("IF(stage = 'decode', a, b)", {"stage": Node("string", "decode")}, "a"),
        ("count * time", {"count": number(1)}, "time"),
        ("a * 0 + b", {}, "b"),
        ("GREATEST(a, 2, 5, a)", {}, "GREATEST(a, 5e0)"),
        ("kind IN ('x', 'y') AND a > 0", {"kind": Node("string", "x")}, "a > 0e0"),
        ("CASE WHEN FALSE THEN 1 WHEN a > 0 THEN 2 ELSE 3 END", {}, "CASE WHEN a > 0e0 THEN 2e0 ELSE 3e0 END"),
        ("COALESCE(NULL, a)", {}, "a"),
        ("2 * 3 + 1", {}, "7e0"),
    ],
)
def test_folding(text: str, bound: dict[str, Node], wanted: str) -> None:
    """Literals put in the place of names decide branches and vanish from sums."""
    assert to_sql(replace(parse(text), lambda n: bound.get(n, name(n)))) == wanted


def test_names_and_text() -> None:
    """What a formula reads, and how a person would type it."""
    tree = parse("CASE WHEN a > 1e0 THEN b * 25e-1 ELSE c END")
    assert names(tree) == {"a", "b", "c"}
    assert to_text(tree, {"a": "3", "b": "4", "c": "5"}.__getitem__) == "IF(3 > 1, 4 * 2.5, 5)"
