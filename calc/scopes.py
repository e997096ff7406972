"""Cells, and the scopes in which their names mean something."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from calc.errors import SheetError
from calc.formula import FormulaError, Node, parse


@dataclass(frozen=True)
class Cell:
    """One cell: where it stands, its formula, and what the reader is told about it."""

    file: str
    key: str
    name: str
    formula: str
    unit: str
    label: str
    note: str = ""
    source_id: str = ""

    def tree(self) -> Node:
        """Return the parsed formula; raises SheetError that names this cell."""
        try:
            return parse(self.formula)
        except FormulaError as error:
            raise SheetError(self.file, self.key, f"{error} in {self.formula!r}") from error


@dataclass(frozen=True)
class Part:
    """An entry of a model's bill: a block, how often it runs and how often it is held in memory."""

    name: str
    block: str
    label: str


@dataclass(frozen=True)
class Operator:
    """An operator of a block: a kind with a shape."""

    name: str
    block: str
    kind: str
    label: str
    inputs: str


@dataclass(frozen=True)
class Alias:
    """A name that stands for a name of another scope, or for nothing (0) where a condition of that scope fails."""

    scope: Scope
    name: str
    condition: str | None = None


Definition = Cell | Node | Alias
GRAPH = {"written": ("activation_write_elements", "applies"), "applies": ("applies", None)}
"""What an operator may read of its neighbours: the name's ending → their name, and the condition of it."""


class Scope:
    """Names in force at one place of the sheet; what is not here is looked up in the parent."""

    def __init__(self, label: str, cells: Mapping[str, Definition], parent: Scope | None) -> None:
        self.label, self.cells, self.parent = label, cells, parent

    def find(self, wanted: str) -> tuple[Definition, Scope] | None:
        """Return the definition of a name and the scope that holds it."""
        scope: Scope | None = self
        while scope is not None:
            definition = scope.own(wanted)
            if definition is not None:
                return definition, scope
            scope = scope.parent
        return None

    def own(self, wanted: str) -> Definition | None:
        """Return the definition of a name that is defined here."""
        return self.cells.get(wanted)

    def ungated(self) -> Scope:
        """Return the scope of an operator's own quantities, whether it applies or not."""
        return self.parent or self

    def known(self) -> set[str]:
        """Return every name in force here."""
        return set(self.cells) | (self.parent.known() if self.parent else set())


class Neighbours(Scope):
    """What an operator may read of the others of its part: ``<operator>__written`` and ``<operator>__applies``."""

    def __init__(self, label: str, parent: Scope, scope_of: Callable[[str], Scope | None]) -> None:
        super().__init__(label, {}, parent)
        self._scope_of, self._found = scope_of, dict[str, Definition]()

    def own(self, wanted: str) -> Definition | None:
        """Return what a name says of a neighbour."""
        operator, _, said = wanted.rpartition("__")
        if wanted not in self._found and said in GRAPH and operator:
            scope = self._scope_of(operator)
            if scope is not None:
                self._found[wanted] = Alias(scope, *GRAPH[said])
        return self._found.get(wanted)


class Aliases(Scope):
    """A scope that also has names of others: each of ``elsewhere`` says whose, and how it is called there."""

    def __init__(
        self,
        label: str,
        cells: Mapping[str, Definition],
        parent: Scope | None,
        elsewhere: Mapping[str, tuple[str, str]],
        scope_of: Callable[[str], Scope],
    ) -> None:
        super().__init__(label, cells, parent)
        self._elsewhere, self._scope_of, self._found = elsewhere, scope_of, dict[str, Definition]()

    def own(self, wanted: str) -> Definition | None:
        """Return what a name says here, or in the scope that it is of."""
        if wanted in self.cells or wanted not in self._elsewhere:
            return self.cells.get(wanted)
        if wanted not in self._found:
            whose, called = self._elsewhere[wanted]
            self._found[wanted] = Alias(self._scope_of(whose), called)
        return self._found[wanted]

    def known(self) -> set[str]:
        """Return every name in force here."""
        return super().known() | set(self._elsewhere)


def live_formulas(operators: list[Operator]) -> dict[str, str]:
    """Return what is in memory while each operator of a block runs, as a formula over its neighbours.

    ``inputs`` names what an operator reads; of ``a|b`` it reads the first that applies.
    """
    reads: list[tuple[int, str, list[str]]] = []
    for place, operator in enumerate(operators):
        for choice in operator.inputs.split():
            names = choice.split("|")
            reads += [(place, n, names[:i]) for i, n in enumerate(names)]
    found = {}
    for place, operator in enumerate(operators):
        before = {"stream": "stream_elements"} | {o.name: f"{o.name}__written" for o in operators[:place]}
        terms = [f"{operator.name}__written"]
        for produced, size in before.items():
            readers = [(at, others) for at, n, others in reads if n == produced and at >= place]
            conditions = [_reads(operators[at].name if at > place else "", others) for at, others in readers]
            if conditions:
                alive = "" if "" in conditions else " OR ".join(dict.fromkeys(conditions))
                terms.append(f"IF({alive}, {size}, 0)" if alive else size)
        found[operator.name] = " + ".join(terms)
    return found


def _reads(reader: str, others: list[str]) -> str:
    """Return the condition under which an operator reads a tensor: it applies, and none that it would read before."""
    # what depends on an unknown fact does not apply, as in every CASE
    parts = [f"COALESCE({reader}__applies, FALSE)"] if reader else []
    return " AND ".join(parts + [f"NOT COALESCE({o}__applies, FALSE)" for o in others])
