"""One's own machine: what is measured of it, what is kept, and layers that run beside their prediction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import Run

import calc
from calc.errors import CalcError
from calc.machine import backends, bench, measure
from calc.machine.backends import Numpy, backend, median_s
from calc.tables import ROOT, load

SMALL = "HuggingFaceTB/SmolLM2-135M"
MIXTURE = "ibm-granite/granite-3.1-3b-a800m-instruct"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure small arrays, a few times."""
    monkeypatch.setattr(measure, "READ_BYTES", (1 << 20, 2 << 20))
    monkeypatch.setattr(measure, "SIDES", (64, 128))
    monkeypatch.setattr(backends, "LEAST_S", 0.0)
    monkeypatch.setattr(backends, "LEAST_RUNS", 3)


def test_numpy_reads_copies_and_multiplies_all_of_an_array() -> None:
    """Each thread has its share, and none is left out."""
    of = Numpy()
    array = of.random((100_003,), "fp32")
    assert of.read(array) == pytest.approx(float(np.dot(array, array)), rel=1e-3)
    target = np.zeros_like(array)
    of.copy(target, array)
    assert (target == array).all()
    with pytest.raises(CalcError, match="no products in 'fp8'"):
        of.random((1,), "fp8")


def test_a_median_is_of_many_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Warm-ups are run and not counted."""
    runs: list[int] = []
    monkeypatch.setattr(backends, "LEAST_S", 0.0)
    assert median_s(lambda: runs.append(1), Numpy()) < 0.1
    assert len(runs) == backends.WARM_UPS + backends.LEAST_RUNS


def test_rates_are_work_over_time() -> None:
    """A read of so many bytes, two operations per multiply-add; the larger sizes and the best product count."""
    rows = [
        ("read", "fp32", 1, 1.0, 9e9), ("read", "fp32", 2, 1.0, 8e9), ("read", "fp32", 4, 1.0, 5e9),
        ("read", "fp32", 8, 1.0, 3e9), ("matrix", "fp32", 64, 1.0, 1e9), ("matrix", "fp32", 128, 1.0, 2e9),
    ]  # fmt: skip
    found = pl.DataFrame(rows, schema=["what", "format", "size", "seconds", "rate"], orient="row")
    assert measure.rates(found) == {"measured_memory_bandwidth_bytes_per_s": 4e9, "measured_fp32_ops_per_s": 2e9}


@pytest.mark.usefixtures("quick")
def test_measured_rows_say_what_they_moved() -> None:
    """Rates follow from sizes and seconds."""
    found = measure.measured(Numpy())
    assert set(found["what"]) == {"read", "copy", "matrix"}
    for row in found.iter_rows(named=True):
        work = 2 * row["size"] ** 3 if row["what"] == "matrix" else row["size"]
        assert row["rate"] == pytest.approx(work / row["seconds"]) and row["rate"] > 0


@pytest.mark.usefixtures("quick")
def test_the_figures_are_kept_beside_the_datasheets(run: Run, data: Path) -> None:
    """A known device keeps its peaks; this machine becomes a device that can be asked; twice is once."""
    done = run("measure", "--device", "numpy", "--save", "--hardware", "intel_core_i9_13900k", data=data)
    assert done.returncode == 0 and "of the datasheet's" in done.stdout
    row = load(data)["hardware"].filter(hardware_id="intel_core_i9_13900k").row(0, named=True)
    assert row["memory_bandwidth_bytes_per_s"] == 89.6e9 and row["measured_fp32_ops_per_s"] > 0 and row["measured_on"]
    for _ in range(2):
        assert run("measure", "--device", "numpy", "--save", data=data).returncode == 0
    after = load(data)
    mine = after["hardware"].filter(source_id="user")
    assert mine.height == 1 and after["hardware"].height == load(ROOT / "data")["hardware"].height + 1
    asked = calc.scenarios(
        model=SMALL, hardware=["intel_core_i9_13900k", mine["hardware_id"][0]], precision="w32a32kv32",
        technique=[None, "measured_rates"],
    )  # fmt: skip
    found = calc.evaluate(asked, by="serving", data=data).collect()
    assert found["tpot_s"].is_not_null().all()
    known = found.filter(hardware_id="intel_core_i9_13900k")["tpot_s"]
    assert known[0] != known[1]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("model_id", [SMALL, MIXTURE])
def test_layers_run_beside_their_prediction(model_id: str) -> None:
    """Dense and mixture, prefill and decode: both times are there; twice the layers are predicted twice as long."""
    tables, of = load(), Numpy()
    device = measure.device_row(tables, of, measure.rates(measure.measured(of)), None)
    questions = [bench.Question("prefill", 1, 16, 0), bench.Question("decode", 2, 1, 16)]
    one, two = (
        bench.benched(tables, of, device, bench.layers_of(tables, model_id, n), questions, "fp32") for n in (1, 2)
    )
    assert (one["measured_s"] > 0).all() and (one["predicted_s"] > 0).all()
    assert two["predicted_s"].to_list() == pytest.approx((2 * one["predicted_s"]).to_list())


def test_a_predicted_layer_by_hand() -> None:
    """A decode step of one layer of Llama 3 8B in fp32 reads 218.1 M weights of 4 bytes, and the cache."""
    tables = load()
    facts = {"measured_memory_bandwidth_bytes_per_s": 1e10, "measured_fp32_ops_per_s": 1e15}
    device = measure.device_row(tables, Numpy(), facts, None)
    row = bench.layers_of(tables, "meta-llama/Meta-Llama-3-8B", 1)
    known = tables.extended("models", pl.DataFrame([row], infer_schema_length=None)).extended("hardware", device)
    ((_, seconds),) = bench.predicted(known, device, [bench.Question("decode", 1, 1, 512)], "fp32")
    weights = 4 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336)
    cache = 4 * 2 * 1024 * 513
    assert seconds == pytest.approx((weights + cache) / 1e10, rel=2e-3)


def test_what_cannot_be_run_is_said_in_a_line(run: Run) -> None:
    """Other kinds of layers, formats, numbers and devices."""
    for arguments, said in (
        (("bench", "deepseek-ai/DeepSeek-V3", "--device", "numpy"), "has latent attention"),
        (("bench", SMALL, "--device", "numpy", "--format", "fp8"), "--format fp8"),
        (("bench", SMALL, "--device", "numpy", "--batch", "1,x"), "whole numbers"),
        (("bench", SMALL, "--device", "numpy", "--batch", "0"), "at least 1"),
        (("bench", SMALL, "--device", "numpy", "--layers", "0"), "at least one"),
        (("bench", "no-such-model", "--device", "numpy"), "unknown model"),
        (("measure", "--device", "numpy", "--hardware", "no_such_device"), "unknown device"),
    ):
        done = run(*arguments)
        assert done.returncode and said in done.stderr and done.stderr.count("\n") == 1, arguments


def test_a_backend_that_is_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without PyTorch only NumPy runs, and a GPU is refused by name."""
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    assert isinstance(backend("numpy"), Numpy)
    with pytest.raises(CalcError, match="cuda"):
        backend("cuda")
