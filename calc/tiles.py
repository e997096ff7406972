"""Sums of rooflines for every configuration on every device of a grid.

Whether compute or memory limits an operator depends on which side of its intensity a device's ridge point lies. With
the devices in order of their ridge points, each operator changes sides once. So the sum over operators is a running
sum over devices: it costs the same for ten operators as for a hundred.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from calc.formula import Node, is_literal, names

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]
Flags = npt.NDArray[np.bool_]
BLOCK = 1024
"""Configurations at a time: what is computed for them on all devices stays in a core's cache."""
FEW = 8
"""Fewer terms of the same rates are computed device by device: a running sum of them costs more."""


class Leaf(NamedTuple):
    """A time as a size of the configuration over a rate of the device: ``size * factor``, or ``size / factor``."""

    size: Node
    factor: Node
    divides: bool


class Term(NamedTuple):
    """An addend: weight × the greater of units' times and others' times; ``unit`` and ``other`` each of several."""

    weight: Node
    unit: tuple[Leaf, ...]
    other: tuple[Leaf, ...]


@dataclass(frozen=True)
class Ridge:
    """A sum of terms: of the greater of both sides, or of one side where that is the greater (a unit's where equal)."""

    id: str
    terms: tuple[Term, ...]
    side: str

    def reads(self) -> set[str]:
        """Return the columns and inputs that it is computed from."""
        leaves = [leaf for t in self.terms for leaf in (*t.unit, *t.other)]
        return {n for t in self.terms for n in names(t.weight)} | {
            n for leaf in leaves for node in (leaf.size, leaf.factor) for n in names(node)
        }


def ridge_columns(
    ridges: Iterable[Ridge], configurations: pl.DataFrame, devices: pl.DataFrame, setup: str
) -> list[pl.Series]:
    """Return each sum as a column: all configurations of the first device, then of the second, and so on.

    ``devices`` has a row per device and setup, the devices in order; ``setup`` is the column of both tables that says
    which setup a row has. What is unknown is left out of a greatest; a greatest of nothing known
    is unknown, and so is a sum with an unknown addend.
    """
    bundles = _bundles(ridges)
    chosen = configurations[setup].to_numpy()
    n_devices = devices.height // devices[setup].n_unique()
    found = {r.id: np.empty((n_devices, len(chosen))) for same in bundles for r in same}
    sizes = _Values(configurations)
    jobs = []
    for setups, rated in _rated(ridges, devices, setup):
        rates = _Rates(rated)
        blocks = list(_blocks(np.flatnonzero(np.isin(chosen, setups))))
        jobs += [(rates, at, same) for same in bundles for at in blocks]

    def compute(job: tuple[_Rates, slice | Ints, list[Ridge]]) -> None:
        rates, at, same = job
        tile = _Tile(sizes, rates, at, n_devices, {r.side for r in same})
        tile.add(same[0].terms)
        for ridge in same:
            found[ridge.id][:, at] = tile.side(ridge.side)

    with ThreadPoolExecutor(pl.thread_pool_size()) as pool:
        list(pool.map(compute, jobs))
    return [pl.Series(r, values.reshape(-1), nan_to_null=True) for r, values in found.items()]


def _rated(ridges: Iterable[Ridge], devices: pl.DataFrame, setup: str) -> list[tuple[list[int], pl.DataFrame]]:
    """Return the devices with their rates, for setups with the same rates: those and the rows of one of them."""
    read = sorted({n for r in ridges for n in r.reads()} & set(devices.columns))
    found: list[tuple[list[int], pl.DataFrame]] = []
    for (nth,), rows in devices.partition_by(setup, as_dict=True, maintain_order=True).items():
        rates = rows.select(read)
        alike = next((setups for setups, known in found if known.select(read).equals(rates)), None)
        if alike is None:
            found.append(([nth], rows))
        else:
            alike.append(nth)
    return found


def _bundles(ridges: Iterable[Ridge]) -> list[list[Ridge]]:
    """Return sums in groups that show sides of the same terms; the first of a group has them all."""
    found: dict[frozenset[Term], list[Ridge]] = {}
    # where a term's unit has nothing to do, the sum of units need not have it
    for ridge in sorted(ridges, key=lambda r: r.side == "unit"):
        terms = frozenset(ridge.terms)
        if ridge.side == "unit":
            terms = next((t for t in found if _with_units(t) == _with_units(terms)), terms)
        found.setdefault(terms, []).append(ridge)
    return list(found.values())


def _with_units(terms: frozenset[Term]) -> set[Term]:
    return {t for t in terms if not all(map(_is_nothing, t.unit))}


def _blocks(places: Ints) -> Iterator[slice | Ints]:
    for first in range(0, len(places), BLOCK):
        block = places[first : first + BLOCK]
        is_run = block[-1] - block[0] + 1 == len(block)
        yield slice(int(block[0]), int(block[-1]) + 1) if is_run else block


class _Values:
    """Columns of a table as arrays; unknown is NaN."""

    def __init__(self, frame: pl.DataFrame) -> None:
        self._frame = frame
        self._found: dict[Node, Floats] = {}
        self._filled: dict[Node, Floats] = {}
        self._are_known: dict[Node, bool] = {}

    def __getitem__(self, node: Node) -> Floats:
        if node not in self._found:
            if is_literal(node):
                self._found[node] = np.full(self._frame.height, node.value, float)
            else:
                self._found[node] = self._frame[str(node.value)].cast(pl.Float64).to_numpy()
        return self._found[node]

    def filled(self, node: Node) -> Floats:
        """Return values, one that is unknown as 0."""
        if node not in self._filled:
            self._filled[node] = self[node] if self.are_known(node) else np.nan_to_num(self[node], nan=0.0)
        return self._filled[node]

    def are_known(self, node: Node) -> bool:
        """Tell whether none is unknown."""
        if node not in self._are_known:
            self._are_known[node] = not np.isnan(self[node]).any()
        return self._are_known[node]


class _Rates(_Values):
    """Rates of devices."""

    def __init__(self, frame: pl.DataFrame) -> None:
        super().__init__(frame)
        self._factors: dict[tuple[Node, bool], Floats] = {}

    def factor(self, leaf: Leaf) -> Floats:
        """Return what a leaf's size is multiplied with on each device; a rate that is unknown takes no time."""
        key = (leaf.factor, leaf.divides)
        if key not in self._factors:
            rate = self[leaf.factor]
            with np.errstate(divide="ignore"):
                self._factors[key] = np.nan_to_num(1 / rate if leaf.divides else rate, nan=0.0)
        return self._factors[key]

    def is_same(self, left: Leaf, right: Leaf) -> bool:
        """Tell whether two leaves have the same rate on every device."""
        same = (left.factor, left.divides) == (right.factor, right.divides)
        return same or np.array_equal(self.factor(left), self.factor(right))


@dataclass
class _Pairs:
    """Terms that are the greater of one size over one rate and another over another, the same rates for all."""

    unit: Leaf
    other: Leaf
    terms: list[Term] = field(default_factory=list)


class _Tile:
    """The sums of terms over one block of configurations on all devices."""

    def __init__(self, sizes: _Values, rates: _Rates, at: slice | Ints, n_devices: int, sides: set[str]) -> None:
        self._sizes, self._rates, self._at = sizes, rates, at
        n = at.stop - at.start if isinstance(at, slice) else len(at)
        self._apart = sides != {"both"}
        self._sums = {s: np.zeros((n_devices, n)) for s in (("unit", "other") if self._apart else ("both",))}
        self._exact: dict[str, Floats] = {}
        """What is computed as the formula says, by side: where something is unknown sides do not add up."""
        self._sides = sides
        self._room: list[Floats] = []

    def side(self, side: str) -> Floats:
        """Return the sum of one side, or of both."""
        is_sum = side == "both" and self._apart
        found = self._sums["unit"] + self._sums["other"] if is_sum else self._sums[side]
        return found + self._exact[side] if side in self._exact else found

    def add(self, terms: Iterable[Term]) -> None:
        """Add terms up, each by the way that costs least."""
        pairs: list[_Pairs] = []
        for term in terms:
            if not self._is_known(term):
                self._add_exactly(term)
            elif len(term.unit) == len(term.other) == 1:
                self._paired(pairs, term)
            elif self._apart:
                self._add_exactly(term)
            else:
                self._add_greatest(term)
        for same in pairs:
            if self._apart or len(same.terms) >= FEW:
                self._add_pairs(same)
            else:
                for term in same.terms:
                    self._add_greatest(term)

    def _paired(self, pairs: list[_Pairs], term: Term) -> None:
        """Put a term to others of the same rates; where a side is nothing, its rate does not matter."""
        (unit,), (other,) = term.unit, term.other
        for same in pairs:
            if self._rates.is_same(same.other, other) and (_is_nothing(unit) or self._rates.is_same(same.unit, unit)):
                same.terms.append(term)
                return
        pairs.append(_Pairs(unit, other, [term]))

    def _is_known(self, term: Term) -> bool:
        """Tell whether nothing is unknown but for units, which are left out then."""
        sizes, rates = self._sizes.are_known, self._rates.are_known
        return sizes(term.weight) and all(sizes(leaf.size) and rates(leaf.factor) for leaf in term.other)

    def _size(self, leaf: Leaf) -> Floats:
        """Return a leaf's sizes; one that is unknown is nothing."""
        return self._sizes.filled(leaf.size)[self._at]

    def _add_greatest(self, term: Term) -> None:
        """Add a term of which nothing that matters is unknown, and whose sides need not be told apart."""
        weight, sums = self._sizes[term.weight][self._at], self._sums["both"]
        first, *others = (leaf for leaf in (*term.unit, *term.other) if not _is_nothing(leaf))
        found, time, _ = self._scratch()
        np.multiply(self._rates.factor(first)[:, None], weight * self._size(first), out=found)
        for leaf in others:
            np.multiply(self._rates.factor(leaf)[:, None], weight * self._size(leaf), out=time)
            np.maximum(found, time, out=found)
        np.add(sums, found, out=sums)

    def _add_exactly(self, term: Term) -> None:
        """Add a term as its formula says."""
        weight = self._sizes[term.weight][self._at]
        unit, other, time = self._scratch()
        for into, leaves in ((unit, term.unit), (other, term.other)):
            for nth, leaf in enumerate(leaves):
                size, rate = self._sizes[leaf.size][self._at], self._rates[leaf.factor][:, None]
                (np.divide if leaf.divides else np.multiply)(size, rate, out=time if nth else into)
                if nth:
                    np.fmax(into, time, out=into)
        with np.errstate(invalid="ignore"):
            is_unit = unit >= other
        for side in self._sides:
            if side not in self._exact:
                self._exact[side] = np.zeros_like(unit)
            if side == "both":
                np.fmax(unit, other, out=time)
            else:
                counts, shown = (is_unit, unit) if side == "unit" else (~is_unit, other)
                # not a product: what is unknown and does not count is nothing
                time.fill(0.0)
                np.copyto(time, shown, where=counts)
            np.multiply(time, weight, out=time)
            np.add(self._exact[side], time, out=self._exact[side])

    def _scratch(self) -> list[Floats]:
        """Return room for the times of a term."""
        if not self._room:
            self._room = [np.empty_like(next(iter(self._sums.values()))) for _ in range(3)]
        return self._room

    def _add_pairs(self, same: _Pairs) -> None:
        """Add terms of one ridge point: of each device those whose unit takes longer, then the others."""
        units, others = self._rates.factor(same.unit), self._rates.factor(same.other)
        with np.errstate(divide="ignore", invalid="ignore"):
            order = np.argsort(np.nan_to_num(others / units, nan=np.inf), kind="stable")
        sizes = np.stack([self._size(t.unit[0]) for t in same.terms])
        traffic = np.stack([self._size(t.other[0]) for t in same.terms])
        weights = np.stack([self._sizes[t.weight][self._at] for t in same.terms])
        n, rank = sizes.shape[1], self._ranks(same, order, sizes, traffic)
        place, shape = (rank * n + np.arange(n)).ravel(), (len(order) + 1, n)
        joined = np.bincount(place, (weights * sizes).ravel(), shape[0] * n).reshape(shape)
        for nth in range(len(order) - 1, 0, -1):
            joined[nth] += joined[nth + 1]
        self._sums["unit" if self._apart else "both"][order] += joined[1:] * units[order, None]
        joined = np.bincount(place, (weights * traffic).ravel(), shape[0] * n).reshape(shape)
        for nth in range(1, len(order)):
            joined[nth] += joined[nth - 1]
        self._sums["other" if self._apart else "both"][order] += joined[:-1] * others[order, None]

    def _ranks(self, same: _Pairs, order: Ints, sizes: Floats, traffic: Floats) -> Ints:
        """Return on how many devices, in their order, a unit takes at least as long as the other ceiling."""
        units, others = self._rates.factor(same.unit)[order], self._rates.factor(same.other)[order]
        with np.errstate(divide="ignore", invalid="ignore"):
            ridge, intensity = (np.nan_to_num(q, nan=np.inf) for q in (others / units, sizes / traffic))
        rank = np.searchsorted(ridge, intensity, side="right")
        # a quotient is rounded otherwise than what a formula compares: near a ridge point that one decides
        while True:
            down = (rank > 0) & ~self._is_longer(same, order, sizes, traffic, rank - 1)
            up = (rank < len(order)) & self._is_longer(same, order, sizes, traffic, rank)
            if not (down | up).any():
                return rank
            rank = rank - down + (up & ~down)

    def _is_longer(
        self, same: _Pairs, order: Ints, sizes: Floats, traffic: Floats, rank: Ints
    ) -> npt.NDArray[np.bool_]:
        device = order[np.clip(rank, 0, len(order) - 1)]
        unit = _time(same.unit, sizes, self._rates[same.unit.factor][device])
        with np.errstate(invalid="ignore"):
            return unit >= _time(same.other, traffic, self._rates[same.other.factor][device])


def _is_nothing(leaf: Leaf) -> bool:
    return is_literal(leaf.size) and not leaf.size.value


def _time(leaf: Leaf, size: Floats, rate: Floats) -> Floats:
    """Return the time that a leaf's formula gives."""
    return size / rate if leaf.divides else size * rate
