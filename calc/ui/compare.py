"""How do whole scenarios differ? Two to four side by side, each figure beside the first's, or rows of one's own."""

from __future__ import annotations

import polars as pl
import streamlit as st

from calc import charts, reproduce
from calc.calibration.expected import errors_told
from calc.display import quantity
from calc.errors import CalcError
from calc.ui import answers, own_scenarios, share
from calc.ui.answers import Question, Word
from calc.ui.question import choose

OTHER = "w4a16kv16"
"""What the further scenarios have for a precision at the first visit: that there is a difference to see."""
OWN = "Your own rows"
LETTERS = ("A", "B", "C", "D")
FIGURES = (
    "fits", "ttft_s", "tpot_s", "e2e_s", "tokens_per_s_per_user", "output_tokens_per_s",
    "output_tokens_per_s_per_device", "fleet_devices", "usd_per_million_output_tokens", "energy_j_per_token",
    "weight_memory_bytes", "kv_cache_bytes", "memory_needed_bytes", "memory_capacity_bytes", "max_batch", "max_context",
    "mfu", "mbu", "ttft_bound", "tpot_bound", "prefill_ops", "decode_ops", "prefill_memory_bytes",
    "decode_memory_bytes",
)  # fmt: skip
CHARTED = (
    "ttft_s",
    "tpot_s",
    "output_tokens_per_s",
    "usd_per_million_output_tokens",
    "energy_j_per_token",
    "memory_needed_bytes",
)


def page() -> None:
    """Draw the page."""
    st.header("Compare")
    many = st.segmented_control(
        "Scenarios", ("2", "3", "4", OWN), default="2", required=True, key="many", bind="query-params"
    )
    if many == OWN:
        own_scenarios.draw()
        return
    letters = LETTERS[: int(many)]
    asked: dict[str, Question] = {}
    found: dict[str, pl.DataFrame] = {}
    for letter, column in zip(letters, st.columns(len(letters), border=True), strict=True):
        with column:
            st.subheader(letter)
            # the first is the scenario of the other pages; links to either work for both
            asked[letter] = choose(own_model=False) if letter == "A" else choose(f"_{letter.lower()}", OTHER, False)
            try:
                found[letter] = answers.ask(asked[letter], "serving")
            except CalcError as error:
                st.error(str(error), title="This question has no answer", icon=":material/error:")
    if len(found) == len(letters):
        _difference(asked, found)


def _difference(asked: dict[str, Question], found: dict[str, pl.DataFrame]) -> None:
    words = answers.words("serving")
    first = found["A"].row(0, named=True)
    rows: list[dict[str, object]] = []
    for figure in FIGURES:
        values = {letter: row[figure][0] if figure in row.columns else None for letter, row in found.items()}
        if all(v is None for v in values.values()):
            continue
        row: dict[str, object] = {"figure": words[figure].label}
        for letter, value in values.items():
            row[letter] = quantity(value, words[figure].unit)
            if letter != "A":
                row[f"{letter}_change"] = _change(first.get(figure), value)
        rows.append(row)
    table = pl.DataFrame(rows, infer_schema_length=None)
    raw = pl.concat(
        [frame.select(pl.lit(letter).alias("scenario"), pl.all()) for letter, frame in found.items()],
        how="diagonal_relaxed",
    )
    drawn = _chart(found)
    texts = {"python": "\n".join(reproduce.python(q.told(), "serving", q.sheet) for q in asked.values())}
    share.section("Difference", "comparison", raw, drawn, texts=texts)
    if drawn is not None:
        share.draw(drawn, key="relative", alt="Figures of each scenario as a multiple of the first's")
    named = {letter: Word(f"{letter}: {_named(q)}") for letter, q in asked.items()}
    named |= {f"{letter}_change": Word(f"{letter} against A") for letter in asked}
    columns = {
        f"{letter}_change": st.column_config.NumberColumn(f"{letter} against A", format="percent")
        for letter in asked if letter != "A"
    }  # fmt: skip
    share.table(
        table, {"figure": Word("Figure"), **named}, alt="Figures of every scenario", key="differences",
        column_config=columns, height="content",
    )  # fmt: skip
    for letter, frame in found.items():
        if errors := errors_told(frame):
            st.caption(f":material/target: {letter}: {errors}")
    same = {c for c, _ in asked["A"].scenario if len({q[c] for q in asked.values()}) == 1}
    told = (f"{c} {asked['A'][c]}" for c in asked["A"].told() if c in same)
    st.caption(f"Alike: {', '.join(told) or 'nothing'}. The address of this page reproduces it.")


def _change(first: object, value: object) -> float | None:
    if isinstance(first, bool) or not isinstance(first, int | float) or not isinstance(value, int | float) or not first:
        return None
    return value / first - 1


def _named(question: Question) -> str:
    device = answers.device(question["hardware_id"])["name"]
    return f"{str(question['model_id']).rpartition('/')[2]} on {device}"


def _chart(found: dict[str, pl.DataFrame]) -> charts.Chart | None:
    words = answers.words("serving")
    rows = [
        (words[c].label, letter, frame[c][0] / found["A"][c][0], quantity(frame[c][0], words[c].unit))
        for c in CHARTED for letter, frame in found.items()
        if c in frame.columns and c in found["A"].columns and frame[c][0] and found["A"][c][0]
    ]  # fmt: skip
    if not rows:
        return None
    return charts.relative(pl.DataFrame(rows, schema=["figure", "scenario", "times", "shown"], orient="row"))
