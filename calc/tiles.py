"""Sums of rooflines for every configuration on every device of a grid.

Whether compute or memory limits an operator depends on which side of its intensity a device's ridge point lies. With
the devices in order of their ridge points, each operator changes sides once. So the sum over operators is a running
sum over devices: it costs the same for ten operators as for a hundred.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import local
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from calc.formula import Node, is_literal, names

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]
Flags = npt.NDArray[np.bool_]
BLOCK = 4096
"""Configurations at a time: what is computed for them on all devices stays in a cache, and calls are few."""
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
    shown = [r.id for same in bundles for r in same]
    # as one, because NumPy asks for large pages where an array is large: it is filled in half the time
    found = dict(zip(shown, np.empty((len(shown), n_devices, len(chosen))), strict=True))
    sizes = _Values(configurations)
    jobs = []
    for setups, rated in _rated(ridges, devices, setup):
        rates = _Rates(rated)
        blocks = list(_blocks(np.flatnonzero(np.isin(chosen, setups))))
        jobs += [(rates, at, same) for same in bundles for at in blocks]

    rooms = local()

    def compute(job: tuple[_Rates, slice | Ints, list[Ridge]]) -> None:
        rates, at, same = job
        if not hasattr(rooms, "own"):
            rooms.own = _Room(n_devices)
        tile = _Tile(sizes, rates, at, rooms.own, {r.side for r in same})
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


class _Room:
    """Memory for one tile after the other: to ask for it anew each time takes longer than to fill it."""

    def __init__(self, n_devices: int) -> None:
        self.n_devices = n_devices
        self._found: dict[str, Floats] = {}

    def array(self, use: str, n: int, more: int = 0) -> Floats:
        """Return an array of all devices, and so many rows ``more``, by n configurations, with whatever is in it."""
        height = self.n_devices + more
        if use not in self._found:
            self._found[use] = np.empty(height * BLOCK)
        return self._found[use][: height * n].reshape(height, n)

    def zeros(self, use: str, n: int, more: int = 0) -> Floats:
        """Return an array of nothing."""
        found = self.array(use, n, more)
        found.fill(0.0)
        return found


class _Tile:
    """The sums of terms over one block of configurations on all devices."""

    def __init__(self, sizes: _Values, rates: _Rates, at: slice | Ints, room: _Room, sides: set[str]) -> None:
        self._sizes, self._rates, self._at, self._room = sizes, rates, at, room
        self._n = at.stop - at.start if isinstance(at, slice) else len(at)
        self._apart = sides != {"both"}
        self._sums = {s: room.zeros(s, self._n) for s in (("unit", "other") if self._apart else ("both",))}
        self._exact: dict[str, Floats] = {}
        """What is computed as the formula says, by side: where something is unknown sides do not add up."""
        self._sides = sides

    def side(self, side: str) -> Floats:
        """Return the sum of one side, or of both."""
        found = self._sums.get(side)
        if found is None:
            found = np.add(self._sums["unit"], self._sums["other"], out=self._room.array("both", self._n))
        return np.add(found, self._exact[side], out=self._scratch()[0]) if side in self._exact else found

    def add(self, terms: Iterable[Term]) -> None:
        """Add terms up, each by the way that costs least."""
        pairs: list[_Pairs] = []
        for term in terms:
            if not self._is_known(term):
                self._add_exactly(term)
                continue
            term = Term(term.weight, self._longest(term.unit), self._longest(term.other))
            if len(term.unit) == len(term.other) == 1:
                self._paired(pairs, term)
            elif self._apart:
                self._add_apart(term)
            else:
                self._add_greatest(term)
        for same in pairs:
            if self._apart or len(same.terms) >= FEW:
                self._add_pairs(same)
            else:
                for term in same.terms:
                    self._add_greatest(term)

    def _longest(self, leaves: tuple[Leaf, ...]) -> tuple[Leaf, ...]:
        """Return times without those that another is longer than, for every configuration on every device."""
        kept = list(leaves)
        for leaf in leaves:
            if any(self._is_shorter(leaf, other) for other in kept if other is not leaf):
                kept.remove(leaf)
        return tuple(kept)

    def _is_shorter(self, leaf: Leaf, other: Leaf) -> bool:
        """Tell whether a time is below another everywhere, by more than what is rounded."""
        with np.errstate(divide="ignore", invalid="ignore"):
            sizes = np.fmin.reduce(self._size(other) / self._size(leaf))
            rates = np.fmin.reduce(self._rates.factor(other) / self._rates.factor(leaf))
            return bool(sizes * rates > 1 + 1e-9)

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

    def _add_apart(self, term: Term) -> None:
        """Add a term of which nothing that matters is unknown to the sum of its greater side."""
        unit, other, is_unit = self._times(term)
        for side, time, hides in (("unit", unit, ~is_unit), ("other", other, is_unit)):
            np.copyto(time, 0.0, where=hides)
            np.multiply(time, self._sizes[term.weight][self._at], out=time)
            np.add(self._sums[side], time, out=self._sums[side])

    def _add_exactly(self, term: Term) -> None:
        """Add a term as its formula says."""
        unit, other, is_unit = self._times(term)
        for side in sorted(self._sides):
            if side not in self._exact:
                self._exact[side] = self._room.zeros(f"exact {side}", self._n)
            if side == "both":
                time = np.fmax(unit, other, out=self._scratch()[2])
            else:
                time, hides = (unit, ~is_unit) if side == "unit" else (other, is_unit)
                # not a product: what is unknown and does not count is nothing
                np.copyto(time, 0.0, where=hides)
            np.multiply(time, self._sizes[term.weight][self._at], out=time)
            np.add(self._exact[side], time, out=self._exact[side])

    def _times(self, term: Term) -> tuple[Floats, Floats, Flags]:
        """Return a term's times as its formula gives them, and whether a unit's is the greater."""
        unit, other, time = self._scratch()
        for into, leaves in ((unit, term.unit), (other, term.other)):
            for nth, leaf in enumerate(leaves):
                size, rate = self._sizes[leaf.size][self._at], self._rates[leaf.factor][:, None]
                (np.divide if leaf.divides else np.multiply)(size, rate, out=time if nth else into)
                if nth:
                    np.fmax(into, time, out=into)
        with np.errstate(invalid="ignore"):
            return unit, other, unit >= other

    def _scratch(self) -> list[Floats]:
        """Return room for the times of a term."""
        return [self._room.array(f"time {i}", self._n) for i in range(3)]

    def _add_pairs(self, same: _Pairs) -> None:
        """Add terms of one ridge point: of each device those whose unit takes longer, then the others."""
        units, others = self._rates.factor(same.unit), self._rates.factor(same.other)
        with np.errstate(divide="ignore", invalid="ignore"):
            order = np.argsort(np.nan_to_num(others / units, nan=np.inf), kind="stable")
        sizes = np.stack([self._size(t.unit[0]) for t in same.terms])
        traffic = np.stack([self._size(t.other[0]) for t in same.terms])
        weights = np.stack([self._sizes[t.weight][self._at] for t in same.terms])
        n, rank, place = self._n, self._ranks(same, order, sizes, traffic), np.argsort(order)
        at = (rank * n + np.arange(n)).ravel()
        self._add_rated("unit", self._running(at, weights * sizes, backwards=True), place + 1, units)
        self._add_rated("other", self._running(at, weights * traffic, backwards=False), place, others)

    def _running(self, at: Ints, sizes: Floats, backwards: bool) -> Floats:
        """Return running sums, down or up the rows, of sizes put to places: in few long steps, which threads share."""
        side = math.isqrt(self._room.n_devices) + 1
        joined = self._room.zeros("joined", self._n, side * side - self._room.n_devices)
        np.add.at(joined.reshape(-1), at, sizes.ravel())
        blocks = joined.reshape(side, side, -1)
        first, step = (side - 1, -1) if backwards else (0, 1)
        for nth in range(first + step, side - 1 - first + step, step):
            blocks[:, nth] += blocks[:, nth - step]
        for nth in range(first + step, side - 1 - first + step, step):
            blocks[nth] += blocks[nth - step, side - 1 - first]
        return joined

    def _add_rated(self, side: str, joined: Floats, place: Ints, rates: Floats) -> None:
        """Add the sum at each device's place, times its rate."""
        time, sums = self._scratch()[0], self._sums[side if self._apart else "both"]
        np.take(joined, place, axis=0, out=time, mode="clip")
        np.multiply(time, rates[:, None], out=time)
        np.add(sums, time, out=sums)

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
