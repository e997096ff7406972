"""The inputs of a page: one question, whose state is the URL, so that a link asks it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import polars as pl
import streamlit as st

from calc.calibration.applied import IDEAL, TABLE
from calc.errors import CalcError
from calc.patches import FITTED
from calc.questions import ATTENTIONS, DEGREES, stack_of
from calc.tables import FORMATS, spellings
from calc.ui import answers, session
from calc.ui.answers import Question, Version, Word

DEVICE = "nvidia_rtx_a6000"
"""What a first visit shows, the survey's own example, where the data has it; else the first row."""
SIZES = {"batch": 1, "input_len": 2048, "output_len": 128, "cached_len": 0}
PRECISION = "w16a16kv16"
LARGEST_FILE_MB = 8
ASKED = "asked"
"""Where a session keeps the question that was asked last."""
Options = tuple[list[str], dict[str, str]]
"""What a list offers, and every spelling of it."""
Said = dict[str, str | int | float | None]


def choose(suffix: str = "", precision: str = PRECISION, own_model: bool = True) -> Question:
    """Draw the inputs and return the question that they ask.

    ``suffix`` tells several of them on a page apart; ``precision`` is what they say until another is chosen; with
    ``own_model`` a configuration may be uploaded.
    """
    words = answers.words("scenarios")
    said: Said = {"model_id": model(words["model_id"], suffix)}
    if own_model:
        _own_model()
    said["hardware_id"] = _device(words["hardware_id"], suffix)
    _workloads(suffix)
    for pair in (("batch", "cached_len"), ("input_len", "output_len")):
        for box, column in zip(st.columns(2), pair, strict=True):
            with box:
                said[column] = size(column, words[column], suffix)
    said["precision"] = _precision(words["precision"], suffix, precision)
    with st.expander("Formats one by one", icon=":material/tune:"):
        known = session.tables()["formats"]["format_id"].to_list()
        for column in FORMATS:
            said[column] = st.selectbox(
                words[column].label, known, index=None, key=column + suffix, bind="query-params",
                placeholder="As the precision", help=words[column].description,
            )  # fmt: skip
    with st.expander("Several devices", icon=":material/hub:"):
        for column in (*DEGREES, "dp"):
            said[column] = size(column, words[column], suffix)
    said["calibration"] = calibration(words["calibration"], suffix)
    said |= techniques(words, suffix)
    said["attention"] = _few("attention", words["attention"], ATTENTIONS, suffix)
    about = "Whose accounting: exact counts unavoidable work and traffic, llm_viewer follows the survey's tool."
    sheet = _few("sheet", Word("Sheet", "", about), answers.sheets(), suffix)
    asked = Question(tuple((k, v) for k, v in said.items() if v is not None), sheet)
    if not suffix:
        st.session_state[ASKED] = asked
    return asked


def usual() -> Question:
    """Return what a first visit asks."""
    devices = answers.hardware()["hardware_id"].to_list()
    device = DEVICE if DEVICE in devices else next(iter(devices), None)
    said = (("model_id", next(iter(answers.models()["model_id"]), None)), ("hardware_id", device))
    return Question(tuple((c, v) for c, v in said if v is not None))


def _pick(key: str, word: Word, options: Sequence[str], spelled: Mapping[str, str]) -> str | None:
    """Draw a list; the URL may also name an option as ``spelled`` does, by any of its lower-case names."""
    said = st.query_params.get(key, "")
    if said not in options and said.lower() in spelled and key not in st.session_state:
        st.query_params[key] = spelled[said.lower()]
        st.rerun()
    return st.selectbox(
        word.label, options, index=0 if options else None, key=key, bind="query-params", help=word.description,
        placeholder="None in the data folder",
    )  # fmt: skip


def model(word: Word, suffix: str = "") -> str | None:
    """Draw the list of models, which a link may name by any of their spellings; return the model's id."""
    return _pick(f"model{suffix}", word, *_models(answers.version()))


@lru_cache(maxsize=8)
def _models(version: Version) -> Options:
    known = answers.models().select("model_id", "aliases")
    spelled = {s: key for key, aliases in known.iter_rows() for s in spellings(key, aliases)}
    return known["model_id"].to_list(), spelled


def _own_model() -> None:
    """Draw the place where a configuration becomes a model of this session."""
    with st.expander("A model of your own", icon=":material/upload_file:"):
        st.file_uploader(
            "Its config.json", type="json", key="config_file", on_change=_import, max_upload_size=LARGEST_FILE_MB,
            help="Read here, never executed; the model stays in this session.",
        )  # fmt: skip
        for kind, text in st.session_state.get("imported", []):
            (st.error if kind == "error" else st.success if kind == "done" else st.caption)(text)


def _import() -> None:
    """Make the uploaded configuration a model of this session, and choose it."""
    file = st.session_state["config_file"]
    st.session_state["imported"] = []
    if file is None:
        return
    try:
        name, told = session.import_model(file.getvalue(), file.name.rpartition(".")[0] or file.name)
    except CalcError as error:
        st.session_state["imported"] = [("error", str(error))]
        return
    st.session_state["model"] = name
    st.session_state["imported"] = [("done", f"{name}: {told[0]}"), *(("told", t) for t in told[1:])]


def device_names() -> dict[str, str]:
    """Return the devices to choose from: name, with the id where names are equal, and id; the usual one first."""
    return _device_names(answers.version())


@lru_cache(maxsize=8)
def _device_names(version: Version) -> dict[str, str]:
    known = answers.hardware().select("hardware_id", "name")
    known = known.sort(known["hardware_id"] != DEVICE, maintain_order=True)
    twice = set(known.filter(known["name"].is_duplicated())["name"])
    return {f"{name} ({key})" if name in twice else str(name): str(key) for key, name in known.iter_rows()}


def _device(word: Word, suffix: str) -> str | None:
    name = _pick(f"hardware{suffix}", word, *_devices(answers.version()))
    return device_names().get(name) if name else None


@lru_cache(maxsize=8)
def _devices(version: Version) -> Options:
    ids = device_names()
    names = {key: name for name, key in ids.items()}
    aliases = answers.hardware().select("hardware_id", "aliases")
    return list(ids), {s: names[key] for key, others in aliases.iter_rows() for s in spellings(key, others)}


def _workloads(suffix: str) -> None:
    known = session.tables()["workloads"]
    labels = dict(known.select("label", "workload_id").iter_rows())
    st.menu_button(
        "Fill in a workload", list(labels), key=f"workload{suffix}", icon=":material/list_alt:", on_click=_fill_in,
        args=(labels, suffix), help="Batch and lengths of a known workload.", width="stretch",
    )  # fmt: skip


def _fill_in(labels: dict[str, str], suffix: str) -> None:
    chosen = labels.get(str(st.session_state[f"workload{suffix}"]))
    row = session.tables()["workloads"].filter(pl.col("workload_id") == chosen)
    for column in SIZES:
        if row.height:
            st.session_state[column + suffix] = int(row[column][0])


def _precision(word: Word, suffix: str, usual: str) -> str | None:
    known = session.tables()["precisions"]
    known = known.sort(known["precision_id"] != usual, maintain_order=True)
    labels = {str(key): str(label) for key, label in known.select("precision_id", "label").iter_rows()}
    chosen = _pick(f"precision{suffix}", word, list(labels), {key.lower(): key for key in labels})
    if chosen in labels:
        st.caption(labels[chosen])
    return chosen


def size(column: str, word: Word, suffix: str = "") -> int:
    """Draw a whole number of a scenario, within the dictionary's bounds; return it."""
    least, most = (int(v) for v in answers.bounds(column))
    return st.number_input(
        word.label, least, most, value=SIZES.get(column, least), step=1, key=column + suffix, bind="query-params",
        help=word.description,
    )  # fmt: skip


def calibrations() -> list[str]:
    """Return the calibrations to choose from, the roofline itself first."""
    return [IDEAL, *session.tables()[TABLE]["calibration_id"].unique(maintain_order=True)]


def calibration(word: Word, suffix: str = "") -> str | None:
    """Draw the list of calibrations; return the one chosen, nothing for the roofline itself."""
    chosen = st.selectbox(
        word.label, calibrations(), key=f"calibration{suffix}", bind="query-params",
        help="The roofline itself, or times as measurements of an engine say, with the error to be expected.",
    )  # fmt: skip
    return None if chosen == IDEAL else str(chosen)


def techniques(words: Mapping[str, Word], suffix: str = "", usual: Sequence[str] = ()) -> Said:
    """Draw the list of techniques and what the chosen ones may be told; return the scenario's columns."""
    tables = session.tables()
    listed = tables["techniques"].filter(pl.col("group") != FITTED)
    known = dict(listed.select("technique_id", "label").iter_rows())
    chosen = st.multiselect(
        words["technique"].label, list(known), default=usual, key=f"technique{suffix}", bind="query-params",
        placeholder="None", help="Applied in the order chosen.",
    )  # fmt: skip
    if not chosen:
        return {}
    st.caption("; ".join(known[t] for t in chosen))
    said: Said = {"technique": "+".join(chosen)}
    included = tables["techniques"].filter(pl.col("technique_id").is_in(chosen))["includes"].drop_nulls()
    its = [*chosen, *(t for text in included for t in stack_of(text))]
    parameters = tables["parameters"].filter(pl.col("technique_id").is_in(its))
    if parameters.height:
        with st.expander("Settings of techniques", icon=":material/settings:"):
            for row in parameters.iter_rows(named=True):
                said[row["parameter"]] = _parameter(row, words[row["parameter"]], suffix)
    return said


def _parameter(row: Mapping[str, object], word: Word, suffix: str) -> str | int | float | None:
    key = f"{row['parameter']}{suffix}"
    if row["default_model_id"] is not None:
        known = answers.models()["model_id"].to_list()
        usual = known.index(row["default_model_id"])
        chosen: str = st.selectbox(word.label, known, index=usual, key=key, bind="query-params", help=word.description)
        return chosen
    label = f"{word.label} ({word.unit})" if word.unit else word.label
    least, default, most = (float(str(row[c])) for c in ("minimum", "default_value", "maximum"))
    if row["is_integer"]:
        return st.number_input(
            label, int(least), int(most), value=int(default), step=1, key=key, bind="query-params",
            help=word.description,
        )  # fmt: skip
    return st.number_input(
        label, least, most, value=default, step=abs(default) / 10 or 0.01, key=key, bind="query-params",
        help=word.description, format="%g",
    )  # fmt: skip


def _few(key: str, word: Word, options: Sequence[str], suffix: str) -> str:
    chosen = st.segmented_control(
        word.label, options, default=options[0], required=True, key=key + suffix, bind="query-params",
        help=word.description,
    )  # fmt: skip
    return str(chosen or options[0])
