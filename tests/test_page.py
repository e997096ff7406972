"""The first page, without a browser: what each control does to the figures, and what bad input looks like."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from streamlit.testing.v1 import AppTest

import calc
from calc import charts
from calc.display import quantity
from calc.loading import sheet_names
from calc.tables import load

ROOT = Path(__file__).parent.parent
SHOWN = {
    "model": "meta-llama/Llama-2-7b-hf",
    "hardware": "nvidia_rtx_a6000",
    "batch": 1,
    "input_len": 2048,
    "output_len": 128,
}
Copy = Callable[..., None]


@pytest.fixture(autouse=True)
def no_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the dashboard from building a grid that no test here asks."""
    monkeypatch.setenv("CALC_GRID", "none")


def opened(**query: str) -> AppTest:
    """Open the dashboard at a URL's parameters."""
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    for key, value in query.items():
        at.query_params[key] = value
    at.run()
    assert not at.exception
    return at


def figures(at: AppTest) -> dict[str, str]:
    """Return the headline figures by label."""
    return {m.label: m.value for m in at.metric}


def options(at: AppTest, key: str) -> list[str]:
    """Return what a list offers."""
    return list(at.selectbox(key=key).options)


def formula(at: AppTest) -> str:
    """Return the formula bar's formula."""
    return str(at.code[-1].value)


def held(at: AppTest) -> dict[str, str]:
    """Return what the bar of the memory says: how much each part holds."""
    spec = json.loads(at.get("vega_lite_chart")[0].proto.spec)
    items = spec["layer"][0]["encoding"]["color"]["scale"]["domain"]
    return {" ".join(i.split()[:-2]): " ".join(i.split()[-2:]) for i in items}


def table(at: AppTest) -> pl.DataFrame:
    """Return the operator table."""
    return pl.from_pandas(at.dataframe[-1].value)


def set_to(at: AppTest, key: str, value: object) -> AppTest:
    """Change one control."""
    at.get_by_key(key).set_value(value)
    at.run()
    assert not at.exception
    return at


@pytest.fixture(scope="module")
def first() -> AppTest:
    """Open what a first visit shows; tests leave it as it is."""
    return opened()


@pytest.fixture
def copied(data: Path, monkeypatch: pytest.MonkeyPatch) -> Copy:
    """Return a function that adds a row to a table of a copy of the data: like an old row, but for some fields."""
    monkeypatch.setenv("CALC_DATA", str(data))

    def add(table: str, like: str, /, **fields: str) -> None:
        with (data / f"{table}.csv").open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        row = next(r for r in rows if r[0] == like)
        rows.append([fields.get(c, "" if c == "aliases" else v) for c, v in zip(header, row, strict=True)])
        with (data / f"{table}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([header, *rows])

    return add


def test_the_headline_figures_are_the_answer(first: AppTest) -> None:
    """Each figure is the API's own, in the display's words."""
    answer = calc.analyze(**SHOWN, by="serving").row(0, named=True)
    shown = figures(first)
    assert shown["Time to first token"] == quantity(answer["ttft_s"], "s")
    assert shown["Time per output token"] == quantity(answer["tpot_s"], "s")
    assert shown["Whole answer"] == quantity(answer["e2e_s"], "s")
    assert shown["Tokens/s per user"] == quantity(answer["tokens_per_s_per_user"], "1/s")
    assert shown["Tokens/s per device"] == quantity(answer["output_tokens_per_s_per_device"], "1/s")
    assert shown["Cost of 1 M tokens"] == quantity(answer["usd_per_million_output_tokens"], "usd")
    assert shown["Energy per token"] == quantity(answer["energy_j_per_token"], "j")
    assert shown["Fits"] == "yes"
    assert held(first)["weights"] == quantity(answer["weight_memory_bytes"], "byte")
    assert held(first)["KV cache"] == quantity(answer["kv_cache_bytes"], "byte")
    bounds = dict(calc.analyze(**SHOWN, by="stage").select("stage", "bound").iter_rows())
    assert {s: shown[f"{s.capitalize()} is bound by"] for s in bounds} == bounds
    assert first.metric[-2].delta == f"{calc.analyze(**SHOWN, by='stage')['mfu'][0]:.1%}"


def test_the_table_holds_every_operator_with_its_share(first: AppTest) -> None:
    """Same rows, same order, same bounds; the shares of a stage make a whole."""
    shown = table(first)
    operators = calc.analyze(**SHOWN)
    assert shown.select("stage", "part", "operator").rows() == operators.select("stage", "part", "operator").rows()
    assert shown["bound"].to_list() == operators["bound"].to_list()
    for _, rows in shown.group_by("stage"):
        assert rows["share"].sum() == pytest.approx(1)
    assert set(shown.columns) >= {"count", "ops", "memory_bytes", "arithmetic_intensity", "compute_format", "all_s"}


def test_replicas_are_told() -> None:
    """They change no figure of one, so the heading counts them."""
    at = set_to(opened(), "dp", 3)
    assert at.header[0].value == "Llama-2-7b-hf on 3 × RTX A6000, 3 replicas"


def test_a_workload_fills_in_its_sizes() -> None:
    """Batch and lengths of the chosen one."""
    at = opened()
    known = load()["workloads"].row(by_predicate=pl.col("workload_id") == "chat_batch", named=True)
    at.get_by_key("workload").click(known["label"]).run()
    assert not at.exception
    assert at.number_input(key="batch").value == known["batch"] and at.number_input(key="input_len").value == 161


def test_settings_of_techniques_count() -> None:
    """A technique brings its settings, and each changes the figures."""
    at = opened(technique="sliding_window")
    before = figures(at)
    assert figures(set_to(at, "window_len", 64)) != before


@pytest.mark.parametrize("view", ["Roofline", "Time", "Graph"])
def test_every_view_of_the_operators(view: str) -> None:
    """Each draws; what it draws follows the stage and the part."""
    at = opened(view=view)
    assert not at.error and not at.exception
    if view == "Graph":
        before = at.get("echarts_chart")[0].proto.spec
        assert at.selectbox(key="graph_part").value == "mlp"
        at = set_to(at, "graph_part", "attention")
        assert at.get("echarts_chart")[0].proto.spec != before
    else:
        assert len(at.get("vega_lite_chart")) == 2


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("technique", ["awq_w4"]),
        ("tp", 2),
        ("model", "facebook/opt-6.7b"),
        ("hardware", "A100 80GB SXM4"),
        ("batch", 2),
        ("input_len", 512),
        ("output_len", 64),
        ("cached_len", 1024),
        ("precision", "w8a8kv8"),
        ("weight_format", "int4"),
        ("activation_format", "fp32"),
        ("kv_format", "int8"),
        ("attention", "eager"),
        ("sheet", "llm_viewer"),
    ],
)
def test_each_control_changes_the_figures(first: AppTest, key: str, value: object) -> None:
    """No control is for show."""
    assert figures(set_to(opened(), key, value)) != figures(first)


def test_twice_the_batch_takes_twice_the_cache(first: AppTest) -> None:
    """The cache grows with the batch, the weights do not."""
    shown = held(set_to(opened(), "batch", 2))
    assert shown["KV cache"] == "2.282 GB"
    assert held(first)["KV cache"] == "1.141 GB"
    assert shown["weights"] == held(first)["weights"]


def test_eight_bit_weights_take_half() -> None:
    """On the reference tool's sheet, where every weight is quantized."""
    whole, half = opened(sheet="llm_viewer"), opened(sheet="llm_viewer", precision="w8a16kv16")
    assert [float(held(at)["weights"].split()[0]) for at in (whole, half)] == pytest.approx([12.95, 6.476], rel=1e-3)


def test_a_sheet_shows_only_what_it_has() -> None:
    """The reference tool knows no utilisation and other parts."""
    at = opened(sheet="llm_viewer")
    assert "mfu" not in calc.analyze(**SHOWN, by="stage", sheet="llm_viewer").columns
    assert not at.metric[-1].delta
    assert set(table(at)["part"]) == {"layer", "head"}


def test_the_stage_filter_keeps_one_stage() -> None:
    """The table and the bar's default follow the filter."""
    at = set_to(opened(), "stage", "decode")
    assert set(table(at)["stage"]) == {"decode"}
    assert "decode." in at.selectbox(key="cell").placeholder


def test_everything_in_the_data_can_be_chosen(first: AppTest) -> None:
    """Every row of the tables is on offer, nothing else."""
    assert sorted(options(first, "model")) == sorted(calc.models()["model_id"])
    assert sorted(options(first, "hardware")) == sorted(calc.hardware()["name"])
    assert sorted(options(first, "precision")) == sorted(calc.precisions()["precision_id"])
    assert options(first, "kv_format") == load()["formats"]["format_id"].to_list()
    assert list(first.get_by_key("sheet").options) == sheet_names(load())


def test_rows_added_to_the_data_can_be_chosen(copied: Copy) -> None:
    """A model, a device, a format and a precision need a row, no code."""
    copied("models", "facebook/opt-125m", model_id="my/model", n_layers="24")
    copied("hardware", "nvidia_rtx_a6000", hardware_id="mine", name="My device", memory_bandwidth_bytes_per_s="2e12")
    copied("formats", "int4", format_id="int5", label="5-bit integer", bits="5", element_bits="5")
    copied("precisions", "w4a16kv16", precision_id="w5a16kv16", weight_format="int5", label="5-bit weights")
    at = opened(model="my/model", hardware="My device", precision="w5a16kv16")
    assert {"my/model"} < set(options(at, "model"))
    assert "int5" in options(at, "weight_format")
    assert at.header[0].value == "model on My device"
    assert any("2 TB/s" in c.value for c in at.caption)


def test_devices_of_one_name_stay_apart(copied: Copy) -> None:
    """Where names are equal, ids tell devices apart."""
    copied("hardware", "nvidia_rtx_a6000", hardware_id="mine", memory_bandwidth_bytes_per_s="2e12")
    assert {"RTX A6000 (mine)", "RTX A6000 (nvidia_rtx_a6000)"} < set(options(opened(), "hardware"))


def test_an_unknown_fact_is_named(copied: Copy) -> None:
    """Unknown figures are dashes, with the reason beside them; no figure is guessed."""
    copied("hardware", "intel_core_i9_13900k", hardware_id="mine", name="Half known", memory_bandwidth_bytes_per_s="")
    at = opened(hardware="Half known")
    assert figures(at)["Time to first token"] == "—"
    assert "bandwidth" in at.warning[0].value
    assert at.info
    assert formula(at).startswith("time_s = ")


def test_what_stands_in_for_an_unknown_fact_is_said(copied: Copy) -> None:
    """An assumption is never silent."""
    copied("hardware", "nvidia_rtx_a6000", hardware_id="mine", name="No vector peak", vector_fp32_ops_per_s="")
    at = opened(hardware="No vector peak")
    assert any("Assumed" in c.value for c in at.caption)


def test_unknown_values_in_the_url_fall_back(first: AppTest) -> None:
    """A bad link opens the first page, without a traceback."""
    at = opened(
        model="nonsense", hardware="?", batch="0", input_len="abc", output_len="-1", precision="w3", sheet="none",
        attention="no", stage="no", cell="no", weight_format="no",
    )  # fmt: skip
    assert figures(at) == figures(first)
    assert not at.error


def test_the_url_is_the_state() -> None:
    """Inputs, filter and chosen cell come from the URL."""
    at = opened(
        model="facebook/opt-6.7b", batch="8", stage="decode", cell="decode.mlp.up_proj.ops", weight_format="int8"
    )
    assert at.header[0].value.startswith("opt-6.7b on")
    assert at.number_input(key="batch").value == 8
    assert at.selectbox(key="weight_format").value == "int8"
    assert formula(at).startswith("ops = matrix_ops + vector_ops")
    assert set(table(at)["stage"]) == {"decode"}


@pytest.mark.parametrize("spelled", ["a100", "A100-80GB", "nvidia_a100_80gb_sxm"])
def test_the_url_may_name_a_device_by_id_or_alias(spelled: str) -> None:
    """Ids and aliases work, and the URL then says the name in the list."""
    at = opened(hardware=spelled, model="llama-2-13b")
    assert at.header[0].value == "Llama-2-13b-hf on A100 80GB SXM4"
    assert at.query_params["hardware"] == "A100 80GB SXM4"


def test_a_question_without_answer_says_why() -> None:
    """The message is the calculator's; the controls stay usable."""
    at = opened(input_len="0", output_len="0")
    assert "both 0" in at.error[0].value
    set_to(at, "output_len", 5)
    assert not at.error
    assert figures(at)["Time per output token"] != "—"


def test_a_broken_data_folder_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does a missing folder end in a traceback."""
    monkeypatch.setenv("CALC_DATA", str(tmp_path / "missing"))
    assert "missing" in opened().error[0].value


def test_the_formula_bar_starts_with_the_longest_operator(first: AppTest) -> None:
    """Before any click it shows the time of what takes most of it."""
    operators = calc.analyze(**SHOWN)
    top = operators[(operators["count"] * operators["time_s"]).arg_max()].row(0, named=True)
    assert f"{top['stage']}.{top['part']}.{top['operator']}.time_s" in first.selectbox(key="cell").placeholder
    assert (
        formula(first).splitlines()[0]
        == "time_s = IF(is_known, GREATEST(compute_s, memory_s, network_s, host_s), NULL)"
    )
    assert formula(first).endswith(f"= {quantity(top['time_s'], 's')}")
    assert "memory_s" in list(first.dataframe[-2].value["Name"])


@pytest.mark.parametrize(
    "cell", ["ttft_s", "decode.mfu", "prefill.attention.q_proj.bound", "decode.head.lm_head.count"]
)
def test_the_formula_bar_shows_the_chosen_cell(cell: str) -> None:
    """Cells of the answer, of a stage and of an operator."""
    at = set_to(opened(), "cell", cell)
    assert formula(at).startswith(f"{cell.rpartition('.')[2]} = ")


@pytest.mark.parametrize("sheet", sheet_names(load()))
def test_every_cell_on_offer_has_an_explanation(sheet: str) -> None:
    """A dozen of them, evenly spread."""
    at = opened(sheet=sheet)
    offered = options(at, "cell")
    for cell in offered[:: max(1, len(offered) // 12)]:
        set_to(at, "cell", cell)
        assert not at.error, cell
        assert formula(at).startswith(f"{cell.rpartition('.')[2]} = ")


def test_the_bar_follows_precedents_and_comes_back() -> None:
    """A step that is no longer there is ignored."""
    at = opened()
    at.session_state["trail"] = (1,)
    at.run()
    assert formula(at).startswith("compute_s = ")
    at.button(key="back-0").click().run()
    assert formula(at).startswith("time_s = ")
    at.session_state["trail"] = (1, 99)
    at.run()
    assert formula(at).startswith("compute_s = ")


def test_the_ceilings_are_the_peaks_in_use() -> None:
    """One line per unit and format, each from its ridge point on."""
    operators = calc.analyze(**SHOWN)
    made = charts.ceilings(operators, 768e9)
    assert made["name"].to_list() == ["fp16 154.8 TOP/s", "vector fp32 38.7 TOP/s"]
    assert (made["ridge"] * 768e9).to_list() == pytest.approx(made["peak_ops_per_s"].to_list())


def test_every_operator_that_computes_is_on_the_roofline() -> None:
    """And the ceilings lie where the facts put them."""
    operators = calc.analyze(**SHOWN).with_columns(share=pl.lit(0.5))
    drawn = charts.roofline(operators, 768e9).to_dict()
    memory, flat, _, _, points = (drawn["datasets"][layer["data"]["name"]] for layer in drawn["layer"])
    assert len(points) == operators.filter(pl.col("ops") > 0).height < operators.height
    assert all(p["attainable_ops_per_s"] == pytest.approx(768e9 * p["arithmetic_intensity"]) for p in memory)
    assert {p["attainable_ops_per_s"] for p in flat} == {154.8e12, 38.7e12}


def test_only_the_pages_know_streamlit() -> None:
    """The package computes without it, and app.py only lists pages."""
    allowed = [ROOT / "app.py", *(ROOT / "calc" / "ui").glob("*.py")]
    others = [p for p in [ROOT / "app.py", *(ROOT / "calc").rglob("*.py")] if p not in allowed]
    assert not [p.name for p in others if "import streamlit" in p.read_text(encoding="utf-8")]
    assert len((ROOT / "app.py").read_text(encoding="utf-8").splitlines()) < 60


def test_an_uploaded_configuration_becomes_the_model() -> None:
    """A config.json of this session: chosen at once, answered like any model, its count told; junk is refused."""
    app = opened()
    config = {
        "model_type": "llama", "num_hidden_layers": 4, "hidden_size": 256, "intermediate_size": 512,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 1000, "tie_word_embeddings": False,
    }  # fmt: skip
    app.file_uploader(key="config_file").upload("tiny.json", json.dumps(config).encode(), "application/json").run()
    assert not app.exception
    assert app.selectbox(key="model").value == "tiny"
    assert any("parameters" in s.value for s in app.success)
    app.file_uploader(key="config_file").upload("bad.json", b"{", "application/json").run()
    assert not app.exception and app.error


def test_several_devices() -> None:
    """Degrees of parallelism are inputs; the heading counts devices; a degree that does not divide says so."""
    at = opened(model="meta-llama/Meta-Llama-3-70B", hardware="nvidia_h100_sxm", tp="8")
    assert at.header[0].value.startswith("Meta-Llama-3-70B on 8 × H100")
    assert not at.warning
    at = opened(model="meta-llama/Meta-Llama-3-70B", hardware="nvidia_h100_sxm", tp="3")
    assert "tp does not divide models.n_heads" in at.warning[0].value


def test_what_does_not_fit_says_how_much_is_missing() -> None:
    """The shortfall, and the devices that would hold it all."""
    at = opened(model="meta-llama/Meta-Llama-3-70B", hardware="nvidia_h100_sxm")
    assert "weights do not fit" in at.warning[0].value and "2 devices" in at.warning[0].value


def test_the_question_as_an_engine_is_started() -> None:
    """Computed when it is opened; the command of the engine that is chosen."""
    app = opened()
    assert not any("vllm serve" in c.value for c in app.code)
    app = opened(engines="true", engine="SGLang", batch="7", model="facebook/opt-125m")
    (shown,) = [c.value for c in app.code if c.value.startswith("# SGLang")]
    asked = {"model": "opt-125m", "hardware": "a6000", "batch": 7, "input_len": 2048, "output_len": 128}
    assert shown == calc.engine_command(asked, "sglang").strip()
