"""The devices: enough of them, each peak in a ratio that its architecture has, each price explained.

Peaks are dense. Data sheets often print the figure with 2:4 sparsity, twice as high: the ratios find one that slipped in.
"""

from __future__ import annotations

import re

import polars as pl
import pytest

import calc

TOLERANCE = 0.03  # data sheets round
PEAKS = ["fp32", "tf32", "fp16", "bf16", "fp8", "int8", "int4", "fp4", "fp16_accumulate16", "vector_fp32"]
VENDORS = {
    "NVIDIA", "AMD", "Intel", "Apple", "Google", "AWS", "Groq", "Cerebras", "SambaNova", "Graphcore", "Tenstorrent",
    "Huawei",
}  # fmt: skip

# Ratios between the peaks of one device. "half" is fp16, or bf16 where the device has no fp16; "vector" is the fp32
# rate outside the matrix units. What an architecture does not list, it does not have.
ONE = {"bf16/fp16": 1.0, "fp32/vector": 1.0}
TENSOR = ONE | {"tf32/half": 0.5, "int8/half": 2.0}  # NVIDIA since Ampere: half the bits, twice the rate
GEFORCE = TENSOR | {"half/vector": 2.0, "int8/half": 4.0, "accumulate16/fp16": 2.0}  # fp32 sums at half rate
APPLE = {f"Apple M{generation}": ONE | {"half/vector": 1.0} for generation in range(1, 6)}
RATIOS: dict[str, dict[str, float]] = APPLE | {
    "Pascal GP100": ONE | {"half/vector": 2.0},  # packed fp16
    "Volta": ONE | {"half/vector": 8.0, "int8/half": 0.5},  # int8 on the CUDA cores: DP4A, 4 × fp32
    "Turing": ONE | {"half/vector": 8.0, "int8/half": 2.0, "int4/int8": 2.0},
    "Ampere GA100": TENSOR | {"half/vector": 16.0, "int4/int8": 2.0},
    "Ampere GA10x": TENSOR | {"half/vector": 4.0, "int4/int8": 2.0},
    "Ampere GeForce": GEFORCE | {"int4/int8": 2.0},
    "Ampere GA10B": TENSOR | {"half/vector": 8.0},
    "Ada": TENSOR | {"half/vector": 4.0, "fp8/half": 2.0, "int4/int8": 2.0},
    "Ada GeForce": GEFORCE | {"fp8/half": 2.0, "int4/int8": 2.0},
    "Hopper": TENSOR | {"half/vector": 14.8, "fp8/half": 2.0},  # 16 × at equal clocks; tensor cores clock lower
    "Blackwell": TENSOR | {"half/vector": 30.5, "fp8/half": 2.0, "fp4/fp8": 2.0},
    "Blackwell Ultra": TENSOR | {"half/vector": 30.5, "fp8/half": 2.0, "fp4/fp8": 3.0, "int8/half": 1 / 15},
    "Blackwell RTX": TENSOR | {"half/vector": 4.0, "fp8/half": 2.0, "fp4/fp8": 2.0},
    "Blackwell GeForce": GEFORCE | {"fp8/half": 2.0, "fp4/fp8": 4.0},  # fp4 keeps the full rate
    "Blackwell Thor": TENSOR | {"half/vector": 32.0, "fp8/half": 2.0, "fp4/fp8": 2.0},
    "Blackwell GB10": TENSOR | {"half/vector": 4.0, "fp8/half": 2.0, "fp4/fp8": 2.0},
    "Vega 20": ONE | {"half/vector": 2.0, "int8/half": 2.0},
    "CDNA": {"bf16/fp16": 0.5, "fp32/vector": 2.0, "half/vector": 8.0, "int8/half": 1.0},
    "CDNA 2": ONE | {"fp32/vector": 2.0, "half/vector": 8.0, "int8/half": 1.0, "int4/int8": 1.0},
    "CDNA 3": TENSOR | {"half/vector": 8.0, "fp8/half": 2.0},
    "CDNA 4": ONE | {"half/vector": 16.0, "fp8/half": 2.0, "int8/half": 2.0, "fp4/fp8": 2.0},
    "RDNA 3": ONE | {"half/vector": 2.0, "int8/half": 1.0, "int4/int8": 2.0},
    "RDNA 3.5": ONE | {"half/vector": 2.0},
    "RDNA 4": ONE | {"half/vector": 4.0, "fp8/half": 2.0, "int8/half": 2.0, "int4/int8": 2.0},
    "Zen 4": ONE | {"half/vector": 2.0},
    "Gaudi 2": ONE | {"half/vector": 78.5, "fp8/half": 2.0},
    "Gaudi 3": {"bf16/fp16": 4.0, "tf32/half": 1.0, "fp8/half": 4.0, "fp32/vector": 14.6, "half/vector": 29.2},
    "Xe-HPC": TENSOR | {"half/vector": 16.0},
    "Xe-HPG": ONE | {"half/vector": 7.0, "int8/half": 2.0, "int4/int8": 2.0},  # 8 × at equal clocks
    "Xe2-HPG": ONE | {"half/vector": 8.0, "int8/half": 2.0, "int4/int8": 2.0},
    "Raptor Lake": ONE,
    "Sapphire Rapids": ONE | {"bf16/fp16": 8.0, "half/vector": 2.0, "int8/half": 16.0},  # fp16 has no AMX
    "Granite Rapids": ONE | {"half/vector": 16.0, "int8/half": 2.0},
    "Cortex-A76": ONE | {"half/vector": 2.0},
    "TPU v3": {},
    "TPU v4": {"int8/half": 1.0},
    "TPU v5e": {"int8/half": 2.0},
    "TPU v5p": {"int8/half": 2.0},
    "TPU v6e": {"fp8/half": 1.0, "int8/half": 2.0},
    "TPU v7x": {"fp8/half": 2.0},
    "NeuronCore-v2": ONE | {"fp32/half": 0.25, "tf32/half": 1.0, "fp8/half": 1.0, "int8/half": 2.0},
    "NeuronCore-v3": ONE | {"fp32/half": 0.272, "tf32/half": 1.0, "fp8/half": 2.0},
    "NeuronCore-v4": ONE | {"fp32/half": 0.272, "tf32/half": 1.0, "fp8/half": 3.75, "fp4/fp8": 1.0},
    "Groq TSP": {"int8/half": 4.0},
    "Cerebras WSE-2": ONE,
    "Cerebras WSE-3": {},
    "SambaNova SN40L": {},
    "Graphcore IPU Mk2": {"fp32/half": 0.25},
    "Wormhole": {"fp8/half": 3.55},
    "Da Vinci 910B": ONE | {"int8/half": 2.0},
    "Da Vinci 950": ONE | {"fp8/half": 1.89, "fp4/fp8": 1.94},  # twice, less a clock that falls with the width
    "MLUarch03": ONE | {"fp32/half": 0.25, "int8/half": 2.67, "int4/int8": 2.0},
    "MLUv02": {},
    "Cloud AI 100": {"int8/half": 2.97},
    "HBM2-PIM": {},
    "LPDDR5X-PIM": {"int4/fp8": 2.0},
    "GDDR6-AiM": {},
}
# Devices that a maker set apart from their architecture.
OWN = {
    ("nvidia_dgx_spark_gb10", "half/vector"): 4.2,  # fp4 is rounded to a petaflop with sparsity, the others follow it
    ("nvidia_a10g", "half/vector"): 2.22,  # made for AWS with half the A10's tensor rate
    ("nvidia_l40", "half/vector"): 2.0,  # its data sheet halves every tensor rate
    ("nvidia_l40s", "int4/int8"): 1.0,  # its data sheet gives int4 no gain
    ("nvidia_h20", "half/vector"): 3.36,  # tensor cores cut for export
    ("nvidia_h100_nvl", "half/vector"): 13.9,  # 400 W: the tensor cores clock lower still
    ("nvidia_h200_nvl", "half/vector"): 13.9,
    ("nvidia_b100", "half/vector"): 29.2,
}
# Peaks from the chip: units × operations per unit and clock × clock in GHz.
CHIPS = {
    "nvidia_p100_sxm2_16gb": ("fp16", 56, 256, 1.48),
    "nvidia_v100_sxm2_16gb": ("fp16", 640, 128, 1.53),
    "nvidia_t4": ("fp16", 320, 128, 1.59),
    "nvidia_a10": ("fp16", 72, 1024, 1.695),
    "nvidia_a30": ("fp16", 56, 2048, 1.44),
    "nvidia_a40": ("fp16", 84, 1024, 1.74),
    "nvidia_a100_80gb_sxm": ("bf16", 432, 512, 1.41),
    "nvidia_h100_sxm": ("bf16", 528, 1024, 1.83),
    "nvidia_rtx_3090": ("fp16", 82, 512, 1.695),
    "nvidia_rtx_4090": ("fp16", 128, 512, 2.52),
    "nvidia_rtx_5090": ("fp16", 170, 512, 2.407),
    "nvidia_rtx_pro_6000_blackwell_ws": ("fp16", 188, 1024, 2.617),
    "nvidia_jetson_thor_t5000": ("fp16", 20, 8192, 1.57),
    "nvidia_dgx_spark_gb10": ("fp32", 6144, 2, 2.42),
    "amd_mi100": ("fp16", 120, 1024, 1.502),
    "amd_mi210": ("bf16", 104, 1024, 1.7),
    "amd_mi300x": ("bf16", 304, 2048, 2.1),
    "amd_mi355x": ("bf16", 256, 4096, 2.4),
    "amd_rx_7900_xtx": ("fp16", 96, 512, 2.5),
    "amd_epyc_9654": ("fp32", 96, 32, 2.4),
    "intel_gaudi2": ("bf16", 2 * 256 * 256, 2, 1.65),
    "intel_gaudi3": ("bf16", 8 * 256 * 256, 2, 1.6),
    "intel_max_1550": ("bf16", 128, 4096, 1.6),
    "intel_arc_b580": ("fp16", 20, 2048, 2.67),
    "intel_xeon_8480plus": ("bf16", 56, 1024, 2.0),
    "apple_m4_max": ("fp16", 40 * 128, 2, 1.678),
    "google_tpu_v3": ("bf16", 4 * 128 * 128, 2, 0.94),
    "google_tpu_v4": ("bf16", 8 * 128 * 128, 2, 1.05),
    "google_tpu_v5e": ("bf16", 4 * 128 * 128, 2, 1.5),
    "google_tpu_v5p": ("bf16", 8 * 128 * 128, 2, 1.75),
}
# Bytes that are not a whole number of GiB: what the driver reports, and memory on the chip.
CAPACITIES = {
    "nvidia_gb200": 189_471 * 2**20,
    "nvidia_b300_sxm": 275_040 * 2**20,
    "nvidia_gb300": 284_208 * 2**20,
    "groq_lpu_v1": 230e6,
    "cerebras_wse2": 40e9,
    "cerebras_wse3": 44e9,
    "graphcore_gc200": 0.9e9,
    "graphcore_bow": 0.9e9,
}
HARDWARE = calc.hardware()
DEVICES = HARDWARE.filter(pl.col("source_id") != "llm_viewer")  # the reference tool's own figures are kept as they are
ROWS = {str(row["hardware_id"]): row for row in DEVICES.iter_rows(named=True)}


def ratios(row: dict[str, object]) -> dict[str, float]:
    """Return each ratio whose two peaks a device has."""
    peak = {name: float(str(row[f"{name}_ops_per_s"] or "nan")) for name in PEAKS}
    peak["vector"], peak["accumulate16"] = peak["vector_fp32"], peak["fp16_accumulate16"]
    peak["half"] = peak["fp16"] if row["fp16_ops_per_s"] else peak["bf16"]
    wanted = {"bf16/fp16", "tf32/half", "fp8/half", "int8/half", "fp4/fp8", "half/vector", "accumulate16/fp16"}
    wanted.add("fp32/vector" if row["vector_fp32_ops_per_s"] else "fp32/half")
    wanted.add("int4/int8" if row["int8_ops_per_s"] else "int4/fp8")
    found = {name: peak[name.split("/")[0]] / peak[name.split("/")[1]] for name in wanted}
    return {name: value for name, value in found.items() if value == value}


def findings(row: dict[str, object]) -> list[str]:
    """Return each ratio of a device that its architecture does not have."""
    device, architecture = str(row["hardware_id"]), str(row["architecture"])
    if architecture not in RATIOS:
        return [f"{device}: no ratios are known of the architecture {row['architecture']!r}; add them to RATIOS"]
    found = []
    for name, value in ratios(row).items():
        wanted = OWN.get((device, name), RATIOS[architecture].get(name))
        if wanted is None:
            found.append(f"{device}: {name} is {value:.3g}, but {architecture} has no such pair of rates")
        elif value != pytest.approx(wanted, rel=TOLERANCE):
            found.append(f"{device}: {name} is {value:.3g}, {architecture} has {wanted:.3g}: is a figure sparse?")
    return found


def test_many_devices_of_every_kind_of_maker() -> None:
    """At least eighty devices beside the reference tool's, with every maker wanted and near-memory devices."""
    assert DEVICES.height >= 80
    assert set(DEVICES["vendor"]) >= VENDORS
    near = DEVICES.filter(kind="pim")
    assert near["vendor"].n_unique() >= 2
    assert near["note"].str.contains("internal").all(), "a reader must learn which bandwidth it is"


@pytest.mark.parametrize("device", ROWS)
def test_each_ratio_of_peaks_is_the_architectures(device: str) -> None:
    """A peak with sparsity is twice too high and breaks a ratio."""
    assert findings(ROWS[device]) == []


@pytest.mark.parametrize("device", ROWS)
def test_a_sparse_figure_would_be_found(device: str) -> None:
    """Doubling any peak that stands in a ratio, or all matrix peaks beside a vector peak, is a finding."""
    row = ROWS[device]
    columns = [f"{name}_ops_per_s" for name in PEAKS]
    known = [c for c in columns if row[c]]
    for column in known:
        if ratios(row).keys() - ratios({**row, column: None}).keys():
            assert findings({**row, column: 2 * row[column]}), column
    matrix = [c for c in known if c != "vector_fp32_ops_per_s" and row[c] != row["vector_fp32_ops_per_s"]]
    if row["vector_fp32_ops_per_s"] and {"fp16_ops_per_s", "bf16_ops_per_s"} & set(matrix):
        assert findings({**row, **{c: 2 * row[c] for c in matrix}})


def test_every_known_ratio_is_used() -> None:
    """No architecture and no exception stays behind after its last device."""
    assert set(RATIOS) == set(DEVICES["architecture"])
    assert all(name in ratios(ROWS[device]) for device, name in OWN)


@pytest.mark.parametrize(("device", "chip"), CHIPS.items(), ids=list(CHIPS))
def test_a_peak_is_units_times_rate_times_clock(device: str, chip: tuple[str, int, int, float]) -> None:
    """What the chip is made of gives the same peak."""
    column, units, per_clock, gigahertz = chip
    assert ROWS[device][f"{column}_ops_per_s"] == pytest.approx(units * per_clock * gigahertz * 1e9, rel=0.01)


def test_ridge_points_are_finite_and_positive() -> None:
    """Each device with a bandwidth has one for each of its peaks that a sheet uses."""
    found = calc.connect().sql("from ridge_points where ridge_intensity is not null").pl()
    assert found["ridge_intensity"].is_finite().all() and (found["ridge_intensity"] > 0).all()
    known = HARDWARE.filter(pl.col("memory_bandwidth_bytes_per_s").is_not_null())
    peaks = [f"{name}_ops_per_s" for name in PEAKS if name != "fp16_accumulate16"]
    assert found.height == known.select(pl.sum_horizontal(pl.col(c).is_not_null() for c in peaks).sum()).item()


def test_capacities_are_whole_gibibytes() -> None:
    """Nominal GB are GiB; the exceptions are what drivers report and memory on the chip."""
    for device, row in ROWS.items():
        bytes_, odd = row["memory_capacity_bytes"], CAPACITIES.get(device)
        assert bytes_ is None or (bytes_ == odd if odd else bytes_ % 2**30 == 0), device


def test_prices_say_what_they_are() -> None:
    """Each price has a note, each date has a price."""
    for device, row in ROWS.items():
        priced = bool(row["price_usd"] or row["price_usd_per_hour"])
        assert bool(row["price_note"]) == priced, device
        assert priced or not row["price_date"], device
        assert ("rent: " in row["price_note"].lower()) == bool(row["price_usd_per_hour"]) if priced else True, device
        for date in (row["price_date"] or "").split("; "):
            assert re.fullmatch(r"((rent )?20\d\d(-\d\d)?)?", date), device


def test_uncertain_columns_are_columns_with_a_value() -> None:
    """A mark of doubt stands at a figure."""
    for device, row in ROWS.items():
        for column in filter(None, (row["uncertain_columns"] or "").split("|")):
            assert row[column] is not None, f"{device}: {column}"


def test_names_are_unique() -> None:
    """People choose a device by its name."""
    assert HARDWARE["name"].is_unique().all()
