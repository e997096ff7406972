"""Which device should serve a model, and how many? Deployments that keep limits, by cost, and why others do not."""

from __future__ import annotations

from typing import Any

import polars as pl
import streamlit as st

from calc import charts, deployments, reproduce
from calc.calibration.expected import ERRORS, errors_told
from calc.display import quantity
from calc.errors import CalcError
from calc.evaluation import answered
from calc.tables import load
from calc.ui import answers, engine_lines, session, share
from calc.ui.answers import Question, Version, Word
from calc.ui.question import ASKED, calibration, model, size, techniques

SHOWN = (
    "device", "precision", "tp", "dp", "fleet_devices", "batch", "usd_per_million_output_tokens", "ttft_s", "tpot_s",
    "output_tokens_per_s_per_device", "tokens_per_s_per_user",
)  # fmt: skip
PRECISIONS = ["w16a16kv16", "fp8", "w8a8kv8", "w4a16kv16"]
KINDS = ["gpu"]
ERROR_NAMES = {"ttft_s_error": "TTFT ±", "tpot_s_error": "TPOT ±"}
"""Errors to be expected of a calibration, in few words."""
POLICY = "chunk_budget"
"""The setting of what a first visit asks: continuous batching as servers do it, prompts in pieces."""
COMPARED = 6
"""Devices that are compared with each other."""
FRONTS = {
    "Throughput": ("tokens_per_s_per_user", "output_tokens_per_s_per_device", "is_on_throughput_front"),
    "Cost": ("e2e_s", "usd_per_million_output_tokens", "is_on_cost_front"),
}


def page() -> None:
    """Draw the page."""
    st.header("Choose hardware")
    try:
        with st.sidebar:
            asked = _workload()
        limits = _limits()
        if not asked["devices"] or not asked["precisions"]:
            st.info("Choose at least one kind of device and one precision in the sidebar.", icon=":material/tune:")
            return
        with st.spinner("Asking every deployment", show_time=True):
            found = _answered(_frozen(asked), int(limits["devices"] or 1), answers.version())
    except CalcError as error:
        st.error(str(error), title="This question has no answer", icon=":material/error:")
        return
    if found.is_empty():
        st.info("No deployment is left to ask: allow more devices.")
        return
    connection = deployments.over(found, limits)
    names = answers.hardware().select("hardware_id", device="name", vendor="vendor")
    ranked = connection.sql("from best_hardware").pl().join(names, on="hardware_id", how="left")
    extra = found.with_row_index("scenario_row", 1).select(
        pl.col("scenario_row").cast(pl.Int64),
        "dp",
        "tokens_per_s_per_user",
        "technique",
        *(c for c in ERRORS if c in found.columns and c not in ranked.columns),
    )
    ranked = ranked.join(extra, on="scenario_row", how="left", maintain_order="left")
    _best(ranked, asked, limits)
    _rejected(ranked)
    _front(connection, names)
    _overtaken(connection, names, ranked)
    _against_an_api(connection, names)
    connection.close()


def warm(question: Question, version: Version) -> None:
    """Make what a first visit waits for: the program of the usual policy on as many deployments."""
    tables = load(version[0])
    policy = tables["parameters"].filter(parameter=POLICY)["technique_id"].to_list()
    devices = tables["hardware"].filter(pl.col("kind").is_in(KINDS))["hardware_id"].to_list()
    asked = {"model_id": question["model_id"], "technique": "+".join(policy) or None}
    precisions = [p for p in PRECISIONS if p in tables["precisions"]["precision_id"]]
    _answered(_frozen({**asked, "users": 50, "precisions": precisions, "devices": devices}), 8, version)


def _workload() -> dict[str, Any]:
    words = answers.words("scenarios")
    found: dict[str, Any] = {"model_id": model(words["model_id"])}
    found["users"] = st.number_input(
        "Users at once", 1, 100_000, value=50, key="users", bind="query-params",
        help="Requests in flight, spread evenly over the replicas.",
    )  # fmt: skip
    for box, column in zip(st.columns(2), ("input_len", "output_len"), strict=True):
        with box:
            found[column] = size(column, words[column])
    known = session.tables()["precisions"]["precision_id"].to_list()
    found["precisions"] = st.multiselect(
        "Precisions", known, default=[p for p in PRECISIONS if p in known], key="precisions", bind="query-params",
        help="Each is tried on every device.",
    )  # fmt: skip
    devices = answers.hardware().filter(~pl.col("hardware_id").str.contains("/"))
    kinds = devices["kind"].unique().sort().to_list()
    chosen = st.pills(
        "Kinds of device", kinds, selection_mode="multi", default=[k for k in KINDS if k in kinds], key="kinds",
        bind="query-params",
    )  # fmt: skip
    vendors = devices["vendor"].unique().sort().to_list()
    of = st.multiselect("Vendors", vendors, key="vendors", bind="query-params", placeholder="All")
    mine = devices.filter(pl.col("kind").is_in(chosen or []))
    found["devices"] = (mine.filter(pl.col("vendor").is_in(of)) if of else mine)["hardware_id"].to_list()
    chosen_calibration = calibration(words["calibration"], "_serve")
    if chosen_calibration is None:
        return found | techniques(words, "_serve", answers.technique_with(POLICY))
    # an engine that was measured batches as it does
    found["calibration"] = chosen_calibration
    found |= techniques(words, "_calibrated")
    return found


def _limits() -> dict[str, float | None]:
    with st.grid(4, min_column_width=170, vertical_alignment="bottom"):
        ttft = st.number_input(
            "Time to first token, ms", min_value=1, value=2000, step=100, key="limit_ttft", bind="query-params"
        )
        tpot = st.number_input(
            "Time per output token, ms", min_value=1, value=30, step=5, key="limit_tpot", bind="query-params"
        )
        usd = st.number_input(
            "USD per million tokens", min_value=0.0, value=None, step=0.1, key="limit_usd", bind="query-params",
            placeholder="No limit",
        )  # fmt: skip
        devices = st.number_input("Devices", 1, 4096, value=8, key="limit_devices", bind="query-params")
    return {
        "ttft_s": ttft / 1e3, "tpot_s": tpot / 1e3, "devices": float(devices), "usd_per_million_output_tokens": usd,
    }  # fmt: skip


def _frozen(asked: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple((c, tuple(v) if isinstance(v, list) else v) for c, v in asked.items())


@st.cache_data(max_entries=32, show_spinner=False)
def _answered(asked: tuple[tuple[str, Any], ...], most: int, version: Version) -> pl.DataFrame:
    said = dict(asked)
    devices, precisions, users = said.pop("devices"), said.pop("precisions"), said.pop("users")
    said.setdefault("technique", None)
    rows = deployments.candidates(said, devices, precisions, users, most)
    if rows.is_empty():
        return rows
    columns = dict.fromkeys((*rows.columns, *deployments.COLUMNS, *ERRORS))
    return answered(load(version[0]), rows, "serving", columns=columns)


def _words() -> dict[str, Word]:
    words = answers.words("scenarios") | answers.words("serving") | answers.words("expected_errors")
    words |= {c: Word(label, "", words[c].description) for c, label in ERROR_NAMES.items()}
    return words | {
        "device": Word("Device", "", "Name of the device"), "vendor": Word("Vendor"),
        "dp": Word("Replicas", "", words["dp"].description),
        "batch": Word("Users of a replica", "", "Requests in flight on the fullest replica"),
        "tp": Word("TP", "", words["tp"].label),
        "usd_per_million_output_tokens": Word("USD/M tokens", "", words["usd_per_million_output_tokens"].label),
        "ttft_s": Word("TTFT", "s", words["ttft_s"].label), "tpot_s": Word("TPOT", "s", words["tpot_s"].label),
        "tokens_per_s_per_user": Word("Tokens/s per user", "", words["tokens_per_s_per_user"].description),
        "output_tokens_per_s_per_device": Word("Tokens/s per device", "", "Output tokens; of the replica's devices"),
        "fleet_devices": Word("Devices", "", words["fleet_devices"].description),
        "reason": Word("Why not", "", "The limits that it misses"), "n": Word("Deployments", "", "That were tried"),
        "cheaper_before": Word("Cheaper below"), "cheaper_after": Word("Cheaper from there"),
        "break_even_batch": Word("Users of a replica", "", "Where a million tokens cost the same on both"),
        "break_even_requests_per_day": Word("Break-even", "1/day", "Requests a day from which it is cheaper"),
        "usd_per_request": Word("USD per request, own", "usd"),
        "api_usd_per_request": Word("USD per request, bought", "usd"),
    }  # fmt: skip


def _best(ranked: pl.DataFrame, asked: dict[str, Any], limits: dict[str, float | None]) -> None:
    accepted = ranked.filter(pl.col("cost_rank").is_not_null()).sort("cost_rank")
    every = st.session_state.get("every", False)
    shown = accepted if every else accepted.unique("hardware_id", keep="first", maintain_order=True)
    first = accepted.row(0, named=True) if accepted.height else {}
    best = {c: first[c] for c in deployments.SCENARIO if first.get(c) is not None}
    best |= {c: v for c, v in asked.items() if c not in (*deployments.SCENARIO, "devices", "precisions", "users")}
    texts = reproduce.texts({c: v for c, v in best.items() if v != 1 or c == "batch"}) if first else {}
    share.section("Cheapest first", "deployments", accepted, texts=texts)
    if first:
        st.session_state[ASKED] = Question(tuple(best.items()))
    if accepted.is_empty():
        st.warning(
            "No deployment that fits and has a price keeps these limits. Allow more time, more devices, fewer bits or "
            "other devices; the table below says what each misses.",
            title="Nothing is left", icon=":material/filter_alt_off:",
        )  # fmt: skip
        return
    usd, name = first["usd_per_million_output_tokens"], first["device"]
    st.success(
        f"**{quantity(first['fleet_devices'])} × {name}** in {first['precision']}: {usd:.3g} USD per million tokens, "
        f"{quantity(first['tpot_s'], 's')} per token, {quantity(first['ttft_s'], 's')} to the first"
        + (f", {quantity(first['dp'])} replicas" if first["dp"] > 1 else "") + ".",
        icon=":material/trophy:",
    )  # fmt: skip
    st.toggle("Every deployment, not only the best of each device", key="every", bind="query-params")
    told = {c: st.column_config.NumberColumn(w, format="percent") for c, w in ERROR_NAMES.items()}
    share.table(
        shown.select(*SHOWN, *(c for c in told if c in shown.columns)), _words(), key="best", column_config=told,
        alt="Deployments that keep the limits, the cheapest first",
    )  # fmt: skip
    st.caption(f"{accepted.height:,} of {ranked.height:,} deployments keep the limits.")
    if errors := errors_told(accepted.head(1)):
        st.caption(f":material/target: {errors}. Empty errors lie outside of what was measured.")
    engine_lines.draw(Question(tuple(best.items())))


def _rejected(ranked: pl.DataFrame) -> None:
    lost = ranked.filter(~pl.col("is_accepted").any().over("hardware_id"))
    if lost.is_empty():
        return
    nearest = lost.sort("tpot_s", "ttft_s", nulls_last=True).group_by("device", maintain_order=True).agg(
        n=pl.len(), reason=pl.col("reason").first()
    )  # fmt: skip
    with st.expander(f"{nearest.height} devices on which nothing keeps the limits", icon=":material/block:"):
        share.section("Rejected", "rejected", lost)
        about = {"reason": st.column_config.TextColumn("What the fastest misses", width="large")}
        share.table(nearest, _words(), alt="Devices without a deployment, and why", key="rejected", column_config=about)


def _front(connection: Any, names: pl.DataFrame) -> None:
    found = connection.sql("from pareto").pl()
    found = found.drop_nulls(["e2e_s", "usd_per_million_output_tokens"]).join(names, on="hardware_id", how="left")
    if found.is_empty():
        return
    head = st.container()
    chosen = st.segmented_control(
        "Front", list(FRONTS), default="Throughput", required=True, key="front", bind="query-params",
        label_visibility="collapsed",
    )  # fmt: skip
    x, y, on = FRONTS[str(chosen)]
    words = answers.words("serving")
    titles = tuple(f"{words[c].label} ({words[c].unit})" for c in (x, y))
    told = pl.format("{}, {}, tp {}, batch {}", "device", "precision", pl.col("tp").cast(pl.Int64), "batch")
    points = found.select(x, y, "device", told=told, is_on_front=on)
    drawn = charts.front(points, x, y, (titles[0], titles[1]), "device")
    with head:
        share.section(
            "Which nothing beats", "front", found, drawn, "Every deployment that fits; the line joins the best."
        )
    share.draw(drawn, key=f"front-{chosen}", alt=f"{titles[1]} over {titles[0]}, the best joined by a line")


def _overtaken(connection: Any, names: pl.DataFrame, ranked: pl.DataFrame) -> None:
    """Draw from how many users of a replica on one of the best devices is cheaper than another."""
    best = ranked.filter(pl.col("cost_rank").is_not_null()).sort("cost_rank")
    few = best["hardware_id"].unique(maintain_order=True).head(COMPARED).to_list()
    found = connection.sql("from break_even").pl()
    found = found.filter(pl.col("cheaper_before").is_in(few), pl.col("cheaper_after").is_in(few))
    if found.is_empty():
        return
    called = dict(names.select("hardware_id", "device").iter_rows())
    told = found.select(
        pl.col("cheaper_before").replace(called), pl.col("cheaper_after").replace(called), "precision", "tp",
        "break_even_batch",
    ).sort("break_even_batch")  # fmt: skip
    with st.expander(f"Which of the best {len(few)} devices overtakes which", icon=":material/swap_horiz:"):
        share.section("Break-even between devices", "break_even", found)
        share.table(told, _words(), alt="From how many users one device is cheaper than another", key="break-even")


def _against_an_api(connection: Any, names: pl.DataFrame) -> None:
    st.subheader("Or buy by the token")
    with st.grid(2, min_column_width=220):
        for part in ("input", "output"):
            price = st.number_input(
                f"Price asked, USD per million {part} tokens", min_value=0.0, value=None, step=0.1, key=f"api_{part}",
                bind="query-params", placeholder="None",
            )  # fmt: skip
            if price is not None:
                connection.execute(f"set variable api_usd_per_million_{part}_tokens = {float(price)!r}")
    if st.session_state.get("api_output") is None:
        st.caption(
            "Name the price of a provider to see from how many requests a day a deployment of your own is cheaper."
        )
        return
    found = connection.sql(
        "select a.*, b.cost_rank from api_break_even as a join best_hardware as b using (scenario_row) "
        "where b.cost_rank is not null qualify row_number() over (partition by a.hardware_id order by cost_rank) = 1 "
        "order by break_even_requests_per_day nulls last, cost_rank"
    ).pl().join(names, on="hardware_id", how="left")  # fmt: skip
    if found.is_empty():
        st.info("No deployment keeps the limits, so there is none to compare.")
        return
    share.table(
        found.select("device", "break_even_requests_per_day", "usd_per_request", "api_usd_per_request", "reason"),
        _words(), alt="From how many requests a day each deployment is cheaper than buying", key="api",
    )  # fmt: skip
