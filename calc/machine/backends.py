"""What runs arrays on this machine: NumPy on the processor, PyTorch on a GPU or Apple silicon where it is installed."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Protocol

import numpy as np

from calc.errors import CalcError

Array = Any
"""An array of a backend."""
WARM_UPS = 2
LEAST_S, LEAST_RUNS, MOST_RUNS = 0.3, 7, 200
"""A timing repeats for so long, and so often at least and at most; its median counts."""


class Backend(Protocol):
    """Arrays of one device."""

    name: str
    device: str
    """What the device calls itself."""
    formats: tuple[str, ...]
    """Number formats of products that it runs on its matrix units, by the names of the formats table."""
    memory_bytes: int

    def random(self, shape: tuple[int, ...], fmt: str) -> Array:
        """Return an array of random numbers."""

    def read(self, array: Array) -> object:
        """Read a one-dimensional array once, with all threads."""

    def copy(self, target: Array, source: Array) -> object:
        """Copy a one-dimensional array, with all threads."""

    def matmul(self, left: Array, right: Array) -> Array:
        """Return the product of two matrices, or of two stacks of them."""

    def softmax(self, scores: Array) -> Array:
        """Return the softmax over the last axis."""

    def norm(self, rows: Array) -> Array:
        """Return the rows scaled to a root mean square of 1."""

    def activation(self, gate: Array, up: Array | None) -> Array:
        """Return SiLU of the gate, times the other branch where there is one."""

    def synchronize(self) -> None:
        """Wait until all that was asked has run."""


class Numpy:
    """The processor, in fp32: BLAS runs products on all cores, and threads share what BLAS does not."""

    formats: tuple[str, ...] = ("fp32",)

    def __init__(self) -> None:
        self.name = f"NumPy {np.__version__}"
        self.device = _processor()
        self.threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        self._pool = ThreadPoolExecutor(self.threads)
        self._random = np.random.default_rng(0)

    def random(self, shape: tuple[int, ...], fmt: str) -> Array:
        """Return an array of random numbers."""
        _known(self, fmt)
        return self._random.standard_normal(shape, dtype=np.float32)

    def read(self, array: Array) -> object:
        """Read an array once: each thread the dot product of its share with itself."""
        return sum(self._pool.map(lambda part: float(np.dot(part, part)), np.array_split(array, self.threads)))

    def copy(self, target: Array, source: Array) -> object:
        """Copy an array: each thread its share."""
        parts = (np.array_split(a, self.threads) for a in (target, source))
        return list(self._pool.map(np.copyto, *parts))

    def matmul(self, left: Array, right: Array) -> Array:
        """Return the product of two matrices, or of two stacks of them."""
        return np.matmul(left, right)

    def softmax(self, scores: Array) -> Array:
        """Return the softmax over the last axis."""
        powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
        return powers / powers.sum(axis=-1, keepdims=True)

    def norm(self, rows: Array) -> Array:
        """Return the rows scaled to a root mean square of 1."""
        return rows / np.sqrt(np.mean(rows * rows, axis=-1, keepdims=True) + 1e-6)

    def activation(self, gate: Array, up: Array | None) -> Array:
        """Return SiLU of the gate, times the other branch where there is one."""
        found = gate / 2 * (1 + np.tanh(gate / 2))
        return found if up is None else found * up

    def synchronize(self) -> None:
        """Wait for nothing: NumPy returns when it is done."""


class Torch:
    """A device of PyTorch: an NVIDIA or AMD GPU, Apple silicon, or the processor in narrower formats."""

    def __init__(self, device: str) -> None:
        import torch

        self._torch, self._device = torch, torch.device(device)
        self.name = f"PyTorch {torch.__version__}"
        self._dtypes = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
        self.formats: tuple[str, ...] = tuple(self._dtypes)
        if device == "cuda":
            about = torch.cuda.get_device_properties(0)
            self.device, self.memory_bytes = str(about.name), int(about.total_memory)
        else:
            self.device = _processor()
            self.memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

    def random(self, shape: tuple[int, ...], fmt: str) -> Array:
        """Return an array of random numbers."""
        _known(self, fmt)
        return self._torch.randn(shape, device=self._device, dtype=self._torch.float32).to(self._dtypes[fmt])

    def read(self, array: Array) -> object:
        """Read an array once."""
        return array.sum()

    def copy(self, target: Array, source: Array) -> object:
        """Copy an array."""
        return target.copy_(source)

    def matmul(self, left: Array, right: Array) -> Array:
        """Return the product of two matrices, or of two stacks of them."""
        return self._torch.matmul(left, right)

    def softmax(self, scores: Array) -> Array:
        """Return the softmax over the last axis."""
        return self._torch.softmax(scores, dim=-1)

    def norm(self, rows: Array) -> Array:
        """Return the rows scaled to a root mean square of 1."""
        return self._torch.nn.functional.rms_norm(rows, rows.shape[-1:])

    def activation(self, gate: Array, up: Array | None) -> Array:
        """Return SiLU of the gate, times the other branch where there is one."""
        found = self._torch.nn.functional.silu(gate)
        return found if up is None else found * up

    def synchronize(self) -> None:
        """Wait until all that was asked has run."""
        if self._device.type == "cuda":
            self._torch.cuda.synchronize()
        elif self._device.type == "mps":
            self._torch.mps.synchronize()


def backend(name: str | None = None) -> Backend:
    """Return what a name means, ``numpy``, ``cpu``, ``cuda`` or ``mps``; without one the fastest device there is.

    Raises CalcError for one that is not here.
    """
    if name == "numpy":
        return Numpy()
    try:
        import torch
    except ModuleNotFoundError:
        if name is None:
            return Numpy()
        raise CalcError(f"{name} needs PyTorch: pip install torch; numpy needs nothing more") from None
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name is None:
        name = next(d for d, is_here in there.items() if is_here)
        return Numpy() if name == "cpu" else Torch(name)
    if not there.get(name):
        raise CalcError(f"there is no {name!r} here; there are numpy, {', '.join(d for d in there if there[d])}")
    return Torch(name)


def median_s(work: Callable[[], object], of: Backend) -> float:
    """Return the median time of some work, warmed up, in seconds."""
    for _ in range(WARM_UPS):
        work()
    of.synchronize()
    times: list[float] = []
    while len(times) < LEAST_RUNS or (sum(times) < LEAST_S and len(times) < MOST_RUNS):
        first = perf_counter()
        work()
        of.synchronize()
        times.append(perf_counter() - first)
    return median(times)


def _known(of: Backend, fmt: str) -> None:
    if fmt not in of.formats:
        raise CalcError(f"{of.name} runs no products in {fmt!r} here; there are {', '.join(of.formats)}")


def _processor() -> str:
    """Return what the processor calls itself."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text(encoding="utf-8").splitlines() if told.is_file() else []
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return named or platform.processor() or platform.machine() or "processor"
