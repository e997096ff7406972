"""Sums of rooflines by ridge points: against a loop that says the same in plain Python, and against every point alone."""

from __future__ import annotations

import math
import random

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import calc
from calc.formula import ZERO, name, number
from calc.tiles import BLOCK, Leaf, Ridge, Term, ridge_columns

ONE = number(1)
NOTHING = Leaf(ZERO, ONE, False)


def leaf(size: str, rate: str, divides: bool = True) -> Leaf:
    """Return a size over a rate, or times a rate."""
    return Leaf(name(size), name(rate), divides)


def loop(terms: tuple[Term, ...], side: str, sizes: dict[str, object], rates: dict[str, object]) -> float | None:
    """Return a sum of terms for one configuration on one device as SQL says it: None is unknown."""

    def value(node: object) -> float | None:
        text = str(node)
        found = sizes.get(text, rates.get(text)) if text in sizes or text in rates else float(text)
        return None if found is None else float(str(found))

    def greatest(leaves: tuple[Leaf, ...]) -> float | None:
        times = []
        for one in leaves:
            size, rate = value(one.size), value(one.factor)
            if size is not None and rate is not None:
                times.append(size / rate if one.divides else size * rate)
        return max(times, default=None)

    total = 0.0
    for term in terms:
        weight, unit, other = value(term.weight), greatest(term.unit), greatest(term.other)
        known = [t for t in (unit, other) if t is not None]
        is_unit = unit is not None and other is not None and unit >= other
        counted = {
            "both": max(known, default=None),
            "unit": unit if is_unit else 0.0,
            "other": 0.0 if is_unit else other,
        }
        if weight is None or counted[side] is None:
            return None
        total += weight * float(str(counted[side]))
    return total


TERMS = (
    Term(ONE, (leaf("flops", "peak"),), (leaf("bytes", "bandwidth"),)),
    *(Term(name("layers"), (leaf(f"flops_{i}", "peak"),), (leaf(f"bytes_{i}", "bandwidth"),)) for i in range(9)),
    Term(name("layers"), (leaf("flops", "peak"), leaf("vector", "vector_s", False)), (leaf("bytes", "bandwidth"),)),
    Term(number(2), (leaf("vector", "vector_s", False),), (leaf("bytes_1", "bandwidth"),)),
    Term(ONE, (NOTHING,), (leaf("bytes_2", "bandwidth"),)),
)  # fmt: skip


def tables(unknown: float) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return configurations and devices of random sizes; some values are unknown, some operators lie on a ridge."""
    rng = random.Random(7)

    def maybe(value: float) -> float | None:
        return None if rng.random() < unknown else value

    names = ["layers", "flops", "bytes", "vector", *(f"{k}_{i}" for i in range(9) for k in ("flops", "bytes"))]
    rows = [{n: maybe(float(rng.choice([0, 1, 3, 64, 1e3, 2e6]))) for n in names} for _ in range(300)]
    configurations = pl.DataFrame(rows, schema=dict.fromkeys(names, pl.Float64))
    configurations = configurations.with_columns((pl.int_range(300, dtype=pl.UInt32) * 7 % 2).alias("formats"))
    devices = [
        {
            "formats": f,
            "peak": maybe(float(rng.choice([1, 3, 64, 1000]) * (1 + f))),
            "bandwidth": maybe(float(rng.choice([1, 3, 10]))),
            "vector_s": maybe(rng.choice([0.5, 1 / 3, 0.01])),
        }
        for _ in range(11)
        for f in range(2)
    ]
    kinds = {"formats": pl.UInt32, "peak": pl.Float64, "bandwidth": pl.Float64, "vector_s": pl.Float64}
    return configurations, pl.DataFrame(devices, schema=kinds)


@pytest.mark.parametrize("unknown", [0.0, 0.1], ids=["known", "unknown"])
@pytest.mark.parametrize("sides", [("both",), ("both", "unit", "other")], ids=["one side", "each side"])
@pytest.mark.parametrize("n_terms", [3, len(TERMS)])
def test_sums_are_those_of_a_loop(unknown: float, sides: tuple[str, ...], n_terms: int) -> None:
    """With everything known or some of it not, one side or all, few terms or many."""
    configurations, devices = tables(unknown)
    terms = TERMS[-n_terms:]
    found = ridge_columns([Ridge(s, terms, s) for s in sides], configurations, devices, "formats")
    assert {f.name for f in found} == set(sides)
    rows, of_device = configurations.rows(named=True), devices.rows(named=True)
    for column in found:
        wanted = [
            loop(terms, column.name, row, of_device[2 * device + row["formats"]])
            for device in range(11)
            for row in rows
        ]
        for got, want in zip(column, wanted, strict=True):
            assert (got is None) == (want is None)
            assert want is None or math.isclose(got, want, rel_tol=1e-12, abs_tol=0)


def test_more_configurations_than_a_block() -> None:
    """Blocks are put together in order."""
    n = 2 * BLOCK + 5
    sizes = pl.DataFrame({"layers": [1.0] * n, "flops": range(n), "bytes": [100.0] * n, "vector": [0.0] * n})
    sizes = sizes.with_columns(pl.col("flops").cast(pl.Float64), pl.lit(0, pl.UInt32).alias("formats"))
    devices = pl.DataFrame(
        {"peak": [1.0, 10.0], "bandwidth": [1.0, 1.0], "formats": [0, 0]}, schema_overrides={"formats": pl.UInt32}
    )
    (found,) = ridge_columns([Ridge("a", TERMS[:1], "both")], sizes, devices, "formats")
    wanted = [max(float(i), 100.0) for i in range(n)] + [max(i / 10, 100.0) for i in range(n)]
    assert found.to_list() == pytest.approx(wanted, rel=1e-15)


MODELS = {
    "dense": "meta-llama/Meta-Llama-3-8B", "latent attention, experts": "deepseek-ai/DeepSeek-V3",
    "hybrid": "ai21labs/Jamba-v0.1", "encoder": "bert-base-uncased", "windows": "google/gemma-2-27b",
}  # fmt: skip


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_a_grid_answers_as_each_point_alone(model: str) -> None:
    """A grid takes sums by ridge points; the same questions shuffled are computed point by point."""
    grid = calc.scenarios(
        model=model, hardware=calc.hardware()["hardware_id"].gather_every(9).to_list(),
        precision=["w16a16kv16", "w4a8kv8"], tp=[1, 2], input_len=[1, 300, 3000], output_len=[1, 200], batch=[1, 16, 300],
    )  # fmt: skip
    shuffled = grid.collect().sample(fraction=1, shuffle=True, seed=1)
    columns = ["ttft_s", "itl_s", "decode_s", "prefill_compute_bound_s", "prefill_memory_bound_s", "max_batch",
               "energy_j_per_token", "mfu", "mbu", "usd_per_million_output_tokens", "ttft_bound", "reason"]  # fmt: skip
    for by, wanted in (("serving", columns), ("stage", ["ops", "memory_bytes", "time_s", "bound", "floor_s"])):
        rows = [*shuffled.columns, *(["stage"] if by == "stage" else [])]
        whole = calc.evaluate(grid, by=by).select(*rows, *wanted).collect()
        alone = calc.evaluate(shuffled, by=by).select(*rows, *wanted).collect()
        both = whole.join(alone, on=rows, how="left", suffix="_alone", validate="1:1")
        assert both.height == whole.height == alone.height
        for column in wanted:
            got, want = both[column], both[f"{column}_alone"]
            assert got.is_null().equals(want.is_null()), column
            if got.dtype.is_numeric():
                assert ((got - want).abs() <= 1e-12 * want.abs()).all(), column
            else:
                assert got.equals(want), column


def test_rows_keep_their_answers_however_their_facts_are_joined() -> None:
    """Questions of one device are a grid too: of several formats and techniques, each row has its own answer."""
    asked = pl.DataFrame(
        {
            "model_id": [MODELS["dense"]] * 6, "hardware_id": ["h100"] * 6, "batch": [194, 192, 231, 7, 1, 64],
            "input_len": [1658, 5061, 284, 900, 10, 3000], "output_len": [128, 96, 413, 50, 2, 99],
            "precision": ["w4a16kv16", "w16a16kv16", "fp8", "w16a16kv16", "w4a16kv16", "fp8"],
            "technique": ["chunked_prefill", "chunked_prefill", None, None, "prefill_first", "chunked_prefill"],
        }
    )  # fmt: skip
    for by, column in (("serving", "e2e_s"), ("stage", "time_s"), ("operator", "ops")):
        whole = calc.evaluate(asked, by=by).collect()
        alone = [calc.evaluate(asked[i : i + 1], by=by).collect() for i in range(asked.height)]
        for mine in alone:
            found = whole.filter(batch=mine["batch"][0])[column]
            assert ((found - mine[column]).abs() <= 1e-12 * mine[column]).all(), (by, mine["batch"][0])


def test_models_of_several_shapes_in_one_grid_keep_their_rows() -> None:
    """Each shape is another program, of one model or of several: the rows come back in the order asked."""
    asked = calc.scenarios(model=["opt-125m", "llama-2-7b", "llama-3-8b"], hardware=["a100", "h100"],
                           batch=list(range(1, 1201)))  # fmt: skip
    found = calc.evaluate(asked, by="serving").select("model_id", "hardware_id", "batch", "tpot_s").collect()
    rows = asked.collect()
    assert found.select(rows.columns).equals(rows)
    for row in found.gather_every(907).iter_rows(named=True):
        own = calc.evaluate(calc.scenarios(**{k.removesuffix("_id"): row[k] for k in rows.columns}), by="serving")
        assert own.select("tpot_s").collect().item() == pytest.approx(row["tpot_s"], rel=1e-12)


def test_few_questions_beside_many_keep_their_rows() -> None:
    """Programs of a batch have the form that suits their own questions: some written out, some with rows to add up."""
    many = calc.scenarios(model="llama-3-8b", hardware=["a100", "h100"], batch=list(range(1, 1001)))
    few = calc.scenarios(model=MODELS["latent attention, experts"], hardware=["h100", "a100"], batch=[1, 64, 9000])
    asked = pl.concat([many, few]).collect().sample(fraction=1, shuffle=True, seed=3)
    for by, columns in (("serving", ["ttft_s", "tpot_s", "max_batch"]), ("stage", ["time_s", "memory_bytes", "bound"])):
        found = calc.evaluate(asked, by=by).select(*asked.columns, *columns).collect()
        is_few = pl.col("model_id") == MODELS["latent attention, experts"]
        for part in (asked.filter(is_few), asked.filter(~is_few)):
            alone = calc.evaluate(part, by=by).select(*asked.columns, *columns).collect()
            mine = found.join(part, on=asked.columns, how="semi", maintain_order="left")
            assert mine.height == alone.height > 0
            assert_frame_equal(mine, alone, rel_tol=1e-12, abs_tol=0)


@pytest.mark.parametrize("by", ["serving", "stage", "operator"])
def test_models_of_many_shapes_together_answer_as_each_alone(by: str) -> None:
    """One program has the operators of them all, and each question those of its model."""
    models = [*MODELS.values(), *calc.models()["model_id"].gather_every(19)]
    asked = calc.scenarios(model=list(dict.fromkeys(models)), hardware="h200", tp=[1, 2], input_len=700, output_len=50)
    whole = calc.evaluate(asked, by=by).collect()
    one_by_one = pl.concat(calc.evaluate(rows, by=by).collect() for rows in asked.collect().partition_by("model_id"))
    assert whole["model_id"].n_unique() > 14
    assert_frame_equal(whole, one_by_one, rel_tol=1e-12, abs_tol=0)


def test_duckdb_answers_a_large_grid_too() -> None:
    """It has no sums by ridge point: its programs are written out, and give the same."""
    asked = calc.scenarios(model="llama-3-8b", hardware=["a100", "h100", "rtx-4090"], batch=list(range(1, 400)))
    columns = ["ttft_s", "decode_s", "max_batch", "usd_per_million_output_tokens"]
    found, wanted = (
        calc.evaluate(asked, by="serving", engine=e).select(columns).collect() for e in ("duckdb", "polars")
    )
    assert wanted.height == 1197
    for column in columns:
        assert ((found[column] - wanted[column]).abs() <= 1e-12 * wanted[column].abs()).fill_null(True).all(), column
        assert found[column].is_null().equals(wanted[column].is_null())


@pytest.mark.parametrize("technique", ["speculative_decoding", "kv_int8+speculative_decoding", "distillation"])
def test_a_further_model_is_asked_in_grids_too(technique: str) -> None:
    """What is read of it comes row by row, which ridge points cannot do: the same as one by one."""
    grid = calc.scenarios(
        model=["llama-2-7b", "opt-6.7b"], hardware=calc.hardware()["hardware_id"].to_list(), technique=technique,
        batch=[1, 2, 4, 8, 64], input_len=[100, 2000],
    )  # fmt: skip
    found = calc.evaluate(grid, by="serving").select("tpot_s", "ttft_s").collect()
    places = list(range(0, found.height, 97))
    one = [calc.evaluate(grid.slice(n, 1), by="serving").select("tpot_s", "ttft_s").collect() for n in places]
    assert found.height > 1000 and found["tpot_s"].is_not_null().sum() > 300
    for column in ("tpot_s", "ttft_s"):
        for wanted, shown in zip(pl.concat(one)[column], found[places][column], strict=True):
            assert shown == wanted or shown == pytest.approx(wanted, rel=1e-12)
