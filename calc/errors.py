"""The errors that a user can cause. Each message says where, what and what to do; none needs a traceback."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class CalcError(ValueError):
    """A mistake in what the user gave; the command line prints it and ends with exit code 2."""


class DataError(CalcError):
    """One or more violations in the tables or sheets; ``violations`` lists them all."""

    def __init__(self, violations: Iterable[str]) -> None:
        self.violations = list(violations)
        super().__init__("\n".join(self.violations))


class SheetError(CalcError):
    """A cell that cannot be: its file, its name and the reason."""

    def __init__(self, file: str, cell: str, reason: str) -> None:
        self.file, self.cell, self.reason = file, cell, reason
        super().__init__(f"{file}, cell {cell}: {reason}")


class ScenarioError(CalcError):
    """A question that cannot be asked: an unknown id, a size out of range, a column that clashes."""


def closest_names(wanted: str, known: Iterable[str], n: int = 3) -> list[str]:
    """Return the known names nearest to a wanted one, the nearest first; upper and lower case do not matter."""
    names = {str(k).lower(): str(k) for k in known}
    near = get_close_matches(str(wanted).lower(), names, n=n, cutoff=0.5)
    near += [k for k in names if str(wanted).lower() in k and k not in near][: n - len(near)] if wanted else []
    return [names[k] for k in near]


def closest(wanted: str, known: Iterable[str]) -> str:
    """Return "; did you mean …?" with the nearest known names, or nothing where none is near."""
    near = closest_names(wanted, known)
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
