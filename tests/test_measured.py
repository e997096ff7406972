"""Measurements: which can be used, what is predicted for them, and that nothing measured is beyond the bound unexplained."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

import calc
from calc.__main__ import main
from calc.errors import CalcError
from calc.measured import FILE, KERNELS, TIMES, measurements, predictions
from calc.tables import ROOT, load
from calc.validation import MOST_EXCEPTIONS, beyond, compared, exceptions, memory


@pytest.fixture(scope="module")
def found() -> pl.DataFrame:
    """Return every time beside its prediction."""
    return compared(load(), measurements(load()).accepted)


def test_the_products_measurements_can_all_be_used() -> None:
    """Over forty devices and thirty models, of every kind of metric; each names its source."""
    told = measurements(load())
    assert told.rejected.is_empty() and told.accepted.height > 5000
    assert told.accepted["hardware_id"].n_unique() >= 40 and told.accepted["model_id"].n_unique() >= 30
    assert set(TIMES) | set(KERNELS) | {"peak_memory_bytes", "kv_cache_tokens"} <= set(told.accepted["metric"])
    assert not told.accepted["source"].has_nulls()


def test_what_was_left_out_is_named() -> None:
    """Groups with a reason and a count each; nine in ten of the rows that say everything are kept."""
    dropped = pl.read_csv(ROOT / "data" / "measured" / "dropped.csv")
    assert dropped.select(pl.all_horizontal(pl.all().is_not_null().all())).item()
    kept = measurements(load()).accepted
    full = kept.filter(pl.all_horizontal(pl.col("batch", "input_len", "output_len", "tp", "n_devices").is_not_null()))
    lost = dropped["n_full_rows"].sum()
    assert full.height / (full.height + lost) >= 0.9
    assert dropped["n_rows"].sum() + kept.height == 7520


def test_nothing_measured_is_beyond_the_bound_unexplained(found: pl.DataFrame) -> None:
    """At most one in a hundred is an exception, each with a cause and evidence; no exception is idle."""
    answered = found.drop_nulls("time_s")
    broken = beyond(answered)
    known = exceptions(load())
    assert set(broken["measurement_id"]) == set(known["measurement_id"])
    assert broken.height <= MOST_EXCEPTIONS * answered.height and answered.height > 3900
    assert (known["cause"].str.len_chars() > 20).all() and (known["evidence"].str.len_chars() > 20).all()


def test_predictions_by_hand(found: pl.DataFrame) -> None:
    """A decode of Llama 3 8B in 16 bits on an RTX A6000 with 1,024 tokens from an empty context: 16.06 GB − embedding.

    Each step reads 7.505 G parameters of 2 bytes and half of 1,024 tokens of cache on average, over 768 GB/s.
    """
    row = found.filter(
        pl.col("hardware_id") == "nvidia_rtx_a6000", pl.col("model_id") == "meta-llama/Meta-Llama-3-8B",
        pl.col("precision") == "w16a16kv16", pl.col("metric") == "decode_tokens_per_s_per_user",
        pl.col("output_len") == 1024, pl.col("pp") == 1,
    ).row(0, named=True)  # fmt: skip
    weights = 2 * (8_030_261_248 - 128_256 * 4096)
    cache = 512 * 32 * 2 * 8 * 128 * 2
    assert row["time_s"] == pytest.approx((weights + cache) / 768e9, rel=0.01)
    assert row["measured_s"] == pytest.approx(1 / row["measured_value"], rel=1e-12)
    assert row["floor_s"] <= row["time_s"] < row["measured_s"]


def test_rates_are_the_times_that_they_say(found: pl.DataFrame) -> None:
    """Prompt tokens over seconds, answers of a batch over seconds, a token each over seconds."""
    for metric, wanted in (
        ("prefill_tokens_per_s", pl.col("batch") * pl.col("input_len") / pl.col("measured_value")),
        ("output_tokens_per_s", pl.col("batch") * pl.col("output_len") / pl.col("measured_value")),
        ("decode_tokens_per_s", pl.col("batch") / pl.col("measured_value")),
        ("ttft_s", pl.col("measured_value")),
    ):
        rows = found.filter(metric=metric)
        assert rows.height and rows["measured_s"].to_list() == pytest.approx(rows.select(wanted).to_series().to_list())


def test_the_view_is_the_same_comparison(found: pl.DataFrame) -> None:
    """In SQL, over the connection's own measurements and predictions."""
    asked = (
        "select measurement_id, floor_s from measured_vs_predicted where hardware_id = 'nvidia_rtx_4090' order by all"
    )
    shown = calc.connect().sql(asked).pl()
    wanted = found.filter(hardware_id="nvidia_rtx_4090").select("measurement_id", "floor_s").sort("measurement_id")
    assert shown["measurement_id"].to_list() == wanted["measurement_id"].to_list()
    assert shown["floor_s"].to_list() == pytest.approx(wanted["floor_s"].to_list(), rel=1e-12)


def test_requests_without_room_wait() -> None:
    """A batch that does not fit is taken as what fits, and a prompt as one that is computed when it comes."""
    asked = measurements(load()).accepted.filter(metric="tpot_s", engine="vllm").head(1)
    many = asked.with_columns(
        batch=pl.lit(1e6), model_id=pl.lit("Qwen/Qwen3-8B"), precision=pl.lit("bf16"), tp=1.0, ep=1.0
    )
    row = predictions(load(), many).row(0, named=True)
    scenario = {c: many[c][0] for c in ("input_len", "output_len")}
    wanted = calc.analyze(
        "qwen3-8b", many["hardware_id"][0], batch=int(row["max_batch"]), precision="bf16", by="serving",
        **({"kv_format": many["kv_format"][0]} if many["kv_format"][0] else {}), **scenario,
    )  # fmt: skip
    assert row["tpot_s"] == pytest.approx(wanted["tpot_s"][0], rel=1e-9)


def test_weights_are_what_engines_report() -> None:
    """In 16, 8 and 4 bits, by the logs of engines: within one percent."""
    weights = memory(load(), measurements(load()).accepted).filter(metric="weight_bytes")
    assert weights.height >= 3 and weights["relative_error"].abs().max() <= 0.01


def write(rows: pl.DataFrame, path: Path) -> Path:
    """Write measurements as a file of a user's."""
    rows.write_csv(path)
    return path


def test_bad_rows_are_listed_and_never_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Impossible values, unknown ids, missing fields: each with its row; the others are used."""
    good = pl.read_csv(ROOT / "data" / FILE, infer_schema=False).filter(metric="tpot_s").head(1)
    wrong = {
        "value": ("0", "-3", "nan", "inf", "many", ""), "hardware_id": ("h900", ""), "model_id": ("gpt-9", ""),
        "precision": ("w99", ""), "metric": ("speed", ""), "batch": ("", "0", "2.5"), "tp": ("", "0"),
        "input_len": ("", "-1", "x"), "technique": ("no_such",), "kv_format": ("int99",), "source": ("",),
    }  # fmt: skip
    rows = [good] + [
        good.with_columns(pl.lit(value).alias(column), measurement_id=pl.lit(f"{column}-{nth}"))
        for column, values in wrong.items() for nth, value in enumerate(values)
    ]  # fmt: skip
    path = write(pl.concat(rows), tmp_path / "mine.csv")
    told = measurements(load(), path)
    assert told.accepted.height == 1 and told.rejected.height == len(rows) - 1
    assert told.rejected["row"].to_list() == list(range(3, len(rows) + 2))
    for column, expected in (
        ("value", "not above 0"),
        ("hardware_id", "device"),
        ("model_id", "model"),
        ("tp", "degree"),
    ):
        its = told.rejected.filter(pl.col("measurement_id").str.starts_with(f"{column}-"))
        assert its["problem"].str.contains(expected).all(), column
    assert main(["validate", str(path)]) == 0
    assert f"1 measurements, {len(rows) - 1} rows rejected" in capsys.readouterr().out


def test_files_that_are_none(tmp_path: Path) -> None:
    """No file, another table, nothing at all, a folder, a device without an end."""
    for path in (tmp_path, Path("/dev/zero")):
        with pytest.raises(CalcError, match="cannot be read"):
            measurements(load(), path)
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    (tmp_path / "empty.csv").write_text("")
    for name in ("no.csv", "other.csv", "empty.csv"):
        with pytest.raises(CalcError, match=name.partition(".")[0]):
            measurements(load(), tmp_path / name)


def test_an_unexplained_time_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A token in a nanosecond is beyond what the device can read."""
    good = pl.read_csv(ROOT / "data" / FILE, infer_schema=False).filter(metric="tpot_s", engine="vllm").head(1)
    path = write(good.with_columns(value=pl.lit("1e-9")), tmp_path / "mine.csv")
    assert main(["validate", str(path)]) == 2
    told = capsys.readouterr().err
    assert good["measurement_id"][0] in told and "unexplained" in told


def test_caches_hold_as_many_tokens_as_engines_say() -> None:
    """The logged size of the pool over the predicted bytes of a token is the logged number of tokens, within 2 %."""
    rows = measurements(load()).accepted.filter(
        pl.col("metric") == "kv_cache_tokens", pl.col("note").str.contains("KV pool")
    )
    assert rows.height == 3
    pools = rows["note"].str.extract(r"KV pool ([\d.]+) GiB").cast(pl.Float64) * 2**30
    asked = rows.select("model_id", "hardware_id", "precision", "tp")
    per_token = calc.evaluate(asked, by="serving").select("kv_bytes_per_token").collect().to_series()
    assert (pools / per_token).to_list() == pytest.approx(rows["value"].to_list(), rel=0.02)


def test_peak_memory_is_that_of_engines() -> None:
    """A median error of 5 %, nine in ten within 15 %.

    Some rows are what nvidia-smi shows. Those of transformers and llama.cpp among them, whose memory is weights, cache
    and the process, are within 10 % but for one (8-bit weights of Mistral, 2 GB more than of Llama).
    """
    rows = measurements(load()).accepted.filter(metric="peak_memory_bytes")
    found = memory(load(), rows).with_columns(error=pl.col("relative_error").abs())
    assert found.height > 230 and found["error"].median() <= 0.05  # type: ignore[operator]
    assert found["error"].quantile(0.9, "linear") <= 0.15  # type: ignore[operator]
    shown = found.filter(pl.col("technique").fill_null("").str.contains("process_memory"))
    assert shown.height == 42
    plain = shown.filter(pl.col("engine_version").is_in(["llama.cpp", "transformers (pytorch)"]))
    assert plain.height == 12 and (plain["error"] > 0.1).sum() == 1


def test_logits_of_every_position_are_in_memory() -> None:
    """Qwen2 0.5B under transformers 4.38 with a prompt of 30,720 tokens: 2 + 4 bytes for each of 151,936 logits."""
    asked = pl.DataFrame([
        {"model_id": "Qwen/Qwen2-0.5B", "hardware_id": "nvidia_a100_80gb_sxm", "precision": "bf16", "technique": t,
         "input_len": 30720, "output_len": 2048}
        for t in (None, "all_logits")
    ])  # fmt: skip
    plain, whole = calc.evaluate(asked, by="serving").select("memory_needed_bytes").collect().to_series()
    logits = 30720 * 151936 * (2 + 4)
    assert whole - plain == pytest.approx(logits, rel=0.05)
    # 29.65 GB were measured
    assert whole == pytest.approx(29.65e9, rel=0.02)


def test_layers_keep_the_sines_and_cosines_of_every_position() -> None:
    """Qwen2 under transformers 4.38: 2 × 32,768 positions × what is rotated × layers in 16 bits.

    The memory of short prompts, 1 GB to 16 GB, is then within 7 % of what was measured; it was up to 34 % too low.
    """
    asked = {"model_id": "Qwen/Qwen2-0.5B", "hardware_id": "nvidia_a100_80gb_sxm", "precision": "bf16"}
    frame = pl.DataFrame([{**asked, "technique": t, "pp": pp} for pp in (1, 2) for t in (None, "rotary_cache")])
    reserve = calc.evaluate(frame, by="serving").select("reserve_bytes").collect().to_series()
    kept = 2 * 32768 * 64 * 24 * 2
    assert reserve.to_list() == [0, kept, 0, kept / 2]
    rows = measurements(load()).accepted.filter(
        pl.col("metric") == "peak_memory_bytes", pl.col("technique").str.contains("rotary_cache")
    )
    found = memory(load(), rows)
    assert found.height == 48 and found["relative_error"].abs().max() < 0.07  # type: ignore[operator]


def test_weights_take_what_files_take() -> None:
    """GGUF files of known size: formats alike throughout within 1 %, mixtures (Q4_K_M, MXFP4 beside Q8_0) within 3 %."""
    size = pl.col("note").str.extract(r"gguf (?:file )?([\d.]+) GiB").cast(pl.Float64) * 2**30
    rows = measurements(load()).accepted.with_columns(file_bytes=size).drop_nulls("file_bytes")
    rows = rows.filter(pl.col("tp") * pl.col("pp") == 1)
    asked = (
        rows.select("model_id", "precision", "expert_format", "head_format", "file_bytes")
        .unique()
        .with_columns(hardware_id=pl.lit("h200"))
    )
    found = calc.evaluate(asked, by="serving").collect()
    error = (found["weight_memory_bytes"] / found["file_bytes"] - 1).abs()
    is_mixed = (found["precision"] == "q4_k_m") | found["model_id"].str.contains("gpt-oss")
    assert found.height >= 12 and is_mixed.sum() >= 4
    assert (error.filter(~is_mixed) <= 0.01).all() and (error.filter(is_mixed) <= 0.03).all()
