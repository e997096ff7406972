"""How far is reality from the roofline? Published measurements beside what the sheet says for the same question."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
import streamlit as st

from calc import validation, validation_charts
from calc.calibration.expected import residuals
from calc.calibration.held_out import summary
from calc.display import quantity
from calc.errors import CalcError
from calc.tables import ROOT, load
from calc.ui import answers, share
from calc.ui.answers import Question, Version, Word

METRICS = {
    "decode_tokens_per_s_per_user": "Decode, one user", "tpot_s": "Time per output token",
    "ttft_s": "Time to first token", "prefill_tokens_per_s": "Prefill",
    "output_tokens_per_s": "Throughput", "decode_tokens_per_s": "Decode, a batch",
}  # fmt: skip
GROUPS = {
    "Engine": "engine",
    "Device": "hardware_id",
    "Model": "model_id",
    "Precision": "precision",
    "Metric": "metric",
}
ERRORS_BY = {
    "Calibration": "calibration_id",
    "Architecture": "architecture",
    "Device": "hardware_id",
    "Model": "model_id",
}
PREFILLS = ("ttft_s", "prefill_tokens_per_s")
UTILISATIONS = {
    "mfu": pl.col("mfu").filter(pl.col("metric").is_in(PREFILLS)).median(),
    "mbu": pl.col("mbu").filter(~pl.col("metric").is_in(PREFILLS)).median(),
}
"""What tells how well a stage uses a device: matrix units in prefill, memory in decode."""
UTILISED = {
    "MFU of prefill": "model FLOPs utilisation: matrix operations over the measured time × the peak of all devices.",
    "MBU of decode": "memory bandwidth utilisation: traffic over the measured time × the bandwidth of all devices.",
}
CALIBRATE = {"bash": "python -m calc calibrate"}
TEXTS = {
    "bash": "python -m calc validate",
    "sql": "select engine, count(*) as n, median(roofline_share) as share\nfrom measured_vs_predicted\n"
    "where time_s is not null\ngroup by engine order by n desc",
}  # fmt: skip


def page() -> None:
    """Draw the page."""
    st.header("Validation")
    try:
        with st.spinner("Asking every measurement", show_time=True):
            found = _compared(answers.version())
    except CalcError as error:
        st.error(str(error), title="The measurements cannot be read", icon=":material/error:")
        return
    chosen = _chosen(found)
    answered = chosen.drop_nulls("time_s")
    if answered.is_empty():
        st.info("No measurement is left: choose other metrics, engines or devices.", icon=":material/filter_alt_off:")
        return
    _headlines(answered)
    drawn = validation_charts.beside(answered)
    share.section("Measured over predicted", "measured_vs_predicted", chosen, drawn, texts=TEXTS)
    share.draw(drawn, key="beside", alt="Measured times over the roofline's, a point each")
    st.caption(
        "A point is a published figure; on the dashed line it is what the roofline says of its operators one by one. "
        "What is below the bound, everything fused and overlapped, is listed at the end."
    )
    _groups(answered)
    _calibrations()
    _beyond(answered, chosen.height - answered.height)


def warm(_question: Question, version: Version) -> None:
    """Make what a first visit waits for: every prediction."""
    _compared(version)


@st.cache_data(max_entries=4, show_spinner=False)
def _compared(version: Version) -> pl.DataFrame:
    """Return measurements beside predictions; raises CalcError.

    Programs for all measured models take ten seconds and half a gigabyte that nothing else here needs: a process of
    its own has them, and ends.
    """
    with TemporaryDirectory() as folder:
        found = Path(folder) / "found.parquet"
        command = [sys.executable, "-m", "calc", "--data", version[0], "sql", "from measured_vs_predicted"]
        done = subprocess.run([*command, "--output", str(found)], cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            said = done.stderr.strip().rpartition("\n")[2].removeprefix("error: ")
            raise CalcError(said or f"the process that asks them ended with {done.returncode}")
        return pl.read_parquet(found)


def _chosen(found: pl.DataFrame) -> pl.DataFrame:
    """Draw the filters and return what they leave."""
    metrics = st.pills(
        "Metrics", list(METRICS), selection_mode="multi", format_func=METRICS.__getitem__, key="metrics",
        bind="query-params", default=list(METRICS),
    )  # fmt: skip
    picked = found.filter(pl.col("metric").is_in(metrics or []))
    for box, (label, column) in zip(st.columns(3), list(GROUPS.items())[:3], strict=True):
        with box:
            known = found[column].value_counts(sort=True)[column].to_list()
            some = st.multiselect(label, known, key=f"of_{column}", bind="query-params", placeholder="All")
            if some:
                picked = picked.filter(pl.col(column).is_in(some))
    return picked


def _headlines(answered: pl.DataFrame) -> None:
    reached = pl.col("roofline_share")
    median, best, mfu, mbu = answered.select(
        reached.median(), reached.quantile(0.9).alias("best"), **UTILISATIONS
    ).row(0)  # fmt: skip
    about = "Time at the roofline over the time that was measured: 1 is what no engine can do better."
    with st.grid(3, min_column_width=150, gap=("small", "xsmall")):
        st.metric("Measurements", quantity(answered.height), help="Published, with their whole configuration.")
        st.metric("Median share", f"{median:.0%}", help=about)
        st.metric("Best tenth above", f"{best:.0%}", help=about)
        for (name, share_of), told in zip(UTILISED.items(), (mfu, mbu), strict=True):
            st.metric(name, "—" if told is None else f"{told:.0%}", help=f"Median {share_of}")
        st.metric(
            "Below the bound", quantity(validation.beyond(answered).height),
            help="More than 2 % faster than everything fused and overlapped: each has its cause below.",
        )  # fmt: skip


def _groups(answered: pl.DataFrame) -> None:
    by = GROUPS[str(st.segmented_control(
        "By", list(GROUPS), default="Engine", required=True, key="by", bind="query-params",
    ))]  # fmt: skip
    reached = pl.col("roofline_share")
    table = answered.group_by(by).agg(
        n=pl.len(), median=reached.median(), p10=reached.quantile(0.1), p90=reached.quantile(0.9),
        **UTILISATIONS, most=pl.col("bound_share").max(),
    ).sort("n", descending=True)  # fmt: skip
    share.section("Share of the roofline", f"share_by_{by}", table)
    words = {
        by: Word(next(label for label, column in GROUPS.items() if column == by)), "n": Word("Measurements"),
        "median": Word("Median"), "p10": Word("Worst tenth below"), "p90": Word("Best tenth above"),
        **{c: Word(name, "", f"Median {told}") for c, (name, told) in zip(UTILISATIONS, UTILISED.items(), strict=True)},
        "most": Word("Most of the bound", "", "Floor over measured; above 1 is beyond the bound"),
    }  # fmt: skip
    percents = {
        c: st.column_config.NumberColumn(words[c].label, help=words[c].description, format="percent")
        for c in ("p10", "p90", *UTILISATIONS, "most")
    }
    shown = table.with_columns(pl.col("median").clip(0, 1))
    share.table(
        shown, words, alt="Share of the roofline that was reached", key="groups", shares=("median",),
        column_config=percents,
    )  # fmt: skip


def _calibrations() -> None:
    """Draw how far calibrated predictions are from measurements, left out and not."""
    by = ERRORS_BY[str(st.segmented_control(
        "Errors by", list(ERRORS_BY), default="Calibration", required=True, key="errors_by", bind="query-params",
    ))]  # fmt: skip
    found = residuals(load(answers.version()[0]))
    if found.is_empty():
        st.info("No calibration is fitted yet: `python -m calc calibrate`.", icon=":material/target:")
        return
    table = summary(found, ["predicted", by]).drop("n device out", "n model out")
    share.section("Errors of calibrated predictions", f"calibration_errors_by_{by}", table, texts=CALIBRATE)
    names = {"device out": "Device left out", "model out": "Model left out", "fitted": "Fitted to all"}
    words = {
        "predicted": Word("Figure"), by: Word(next(label for label, column in ERRORS_BY.items() if column == by)),
        "n fitted": Word("Measurements"),
    }  # fmt: skip
    percents = {}
    for column, label in names.items():
        told = "Median of the relative errors" if column == "fitted" else "Of fits that never saw it"
        for suffix, half in (("", ""), (" p90", ", 90 %")):
            words[column + suffix] = Word(label + half, "", told)
            percents[column + suffix] = st.column_config.NumberColumn(label + half, help=told, format="percent")
    labels = {name: word.label for name, word in answers.words("serving").items()}
    shown = table.with_columns(pl.col("predicted").replace(labels))
    share.table(shown, words, alt="Errors of calibrated predictions", key="errors", column_config=percents)
    st.caption("Empty where nothing of the sort would be left to predict from.")


def _beyond(answered: pl.DataFrame, unanswered: int) -> None:
    known = validation.exceptions(load(answers.version()[0]))
    broken = validation.beyond(answered).join(known, on="measurement_id", how="left", maintain_order="left")
    if broken.height:
        with st.expander(f"{broken.height} are below the bound", icon=":material/policy:"):
            table = broken.select(
                "measurement_id", "metric", "model_id", "hardware_id", "bound_share", "cause", "evidence"
            )
            words = answers.words("measurements") | answers.words("measured_vs_predicted")
            words |= {"cause": Word("Cause"), "evidence": Word("Evidence")}
            share.table(table, words, alt="Measurements below the bound, with their causes", key="beyond")
    if unanswered:
        st.caption(f"{unanswered:,} more have no prediction: a fact is unknown, or the sheet refuses the question.")
