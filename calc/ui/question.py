"""The inputs of a page: one question, chosen in the sidebar, whose state is the URL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import streamlit as st

from calc.errors import CalcError
from calc.questions import ATTENTIONS, DEGREES
from calc.tables import FORMATS, spellings
from calc.ui import answers
from calc.ui.answers import Question, Word

DEVICE = "nvidia_rtx_a6000"
"""What a first visit shows, the survey's own example, where the data has it; else the first row."""
SIZES = {"batch": 1, "input_len": 2048, "output_len": 128, "cached_len": 0}
PRECISION = "w16a16kv16"


def choose() -> Question:
    """Draw the inputs in the sidebar and return the question that they ask."""
    words = answers.words("scenarios")
    with st.sidebar:
        chosen: dict[str, str | int | None] = {}
        chosen["model_id"] = _model(words["model_id"])
        _own_model()
        chosen["hardware_id"] = _device(words["hardware_id"])
        for pair in (("input_len", "output_len"), ("batch", "cached_len")):
            for box, column in zip(st.columns(2), pair, strict=True):
                with box:
                    chosen[column] = _size(column, words[column])
        chosen["precision"] = _precision(words["precision"])
        with st.expander("Formats one by one", icon=":material/tune:"):
            known = answers.formats()
            labels = dict(known.select("format_id", "label").iter_rows())
            for column in FORMATS:
                chosen[column] = st.selectbox(
                    words[column].label, list(labels), index=None, key=column, bind="query-params",
                    placeholder="As the precision", help=words[column].description,
                )  # fmt: skip
        with st.expander("Several devices", icon=":material/hub:"):
            for column in DEGREES:
                chosen[column] = _size(column, words[column])
        chosen["attention"] = _few("attention", words["attention"].label, ATTENTIONS, words["attention"].description)
        sheet = _few(
            "sheet", "Sheet", answers.sheets(),
            "Whose accounting: exact counts unavoidable work and traffic, llm_viewer follows the survey's tool.",
        )  # fmt: skip
    return Question(tuple((k, v) for k, v in chosen.items() if v is not None), sheet)


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


def _model(word: Word) -> str | None:
    known = answers.models().select("model_id", "aliases")
    spelled = {s: key for key, aliases in known.iter_rows() for s in spellings(key, aliases)}
    return _pick("model", word, known["model_id"].to_list(), spelled)


def _own_model() -> None:
    """Draw the place where a configuration becomes a model of this session."""
    with st.expander("A model of your own", icon=":material/upload_file:"):
        st.file_uploader(
            "Its config.json", type="json", key="config_file", on_change=_import,
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
        name, told = answers.import_model(file.getvalue(), file.name.rpartition(".")[0] or file.name)
    except CalcError as error:
        st.session_state["imported"] = [("error", str(error))]
        return
    st.session_state["model"] = name
    st.session_state["imported"] = [("done", f"{name}: {told[0]}"), *(("told", t) for t in told[1:])]


def _device(word: Word) -> str | None:
    known = answers.hardware().select("hardware_id", "name", "aliases")
    known = known.sort(known["hardware_id"] != DEVICE, maintain_order=True)
    twice = set(known.filter(known["name"].is_duplicated())["name"])
    ids = {f"{name} ({key})" if name in twice else str(name): str(key) for key, name, _ in known.iter_rows()}
    names = {key: name for name, key in ids.items()}
    spelled = {s: names[key] for key, _, aliases in known.iter_rows() for s in spellings(key, aliases)}
    name = _pick("hardware", word, list(ids), spelled)
    return ids.get(name) if name else None


def _precision(word: Word) -> str | None:
    known = answers.precisions()
    known = known.sort(known["precision_id"] != PRECISION, maintain_order=True)
    labels = {str(key): str(label) for key, label in known.select("precision_id", "label").iter_rows()}
    chosen = _pick("precision", word, list(labels), {key.lower(): key for key in labels})
    if chosen in labels:
        st.caption(labels[chosen])
    return chosen


def _size(column: str, word: Word) -> int:
    least, most = answers.bounds(column)
    return st.number_input(
        word.label, least, most, value=SIZES.get(column, least), step=1, key=column, bind="query-params",
        help=word.description,
    )  # fmt: skip


def _few(key: str, label: str, options: Sequence[str], help: str) -> str:
    chosen = st.segmented_control(
        label, options, default=options[0], required=True, key=key, bind="query-params", help=help
    )
    return str(chosen or options[0])
