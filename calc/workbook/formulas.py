"""A formula as a spreadsheet reads it.

Unknown is ``#N/A``: arithmetic hands it on as SQL does NULL. What SQL does otherwise is written out: a condition that
is unknown does not hold, AND and OR know three values, and GREATEST and LEAST leave out what is unknown. A division by
zero is unknown here too; formulas that may meet one say ``NULLIF``.
"""

from __future__ import annotations

from collections.abc import Callable

from calc.formula import Node

Address = Callable[[str], str]
"""Gives what stands for a name: a defined name, or the address of its cell."""
Unknown = Callable[[str], bool]
"""Tells whether what a name stands for may be unknown."""
NOT_AVAILABLE = "NA()"
_STRENGTH = {"=": 1, "<>": 1, "<": 1, "<=": 1, ">": 1, ">=": 1, "||": 2, "+": 3, "-": 3, "*": 4, "/": 4, "POW": 5}
_CALLS = {"ABS": "ABS", "SQRT": "SQRT", "EXP": "EXP", "LN": "LN", "LOG10": "LOG10", "LOWER": "LOWER", "UPPER": "UPPER",
          "LENGTH": "LEN", "FLOOR": "INT"}  # fmt: skip
_EXTREMES = {"GREATEST": ("MAX", "-1E+308"), "LEAST": ("MIN", "1E+308")}
_NEVER = ("IS NULL", "CONCAT")
"""What is never unknown, whatever its operands are."""
_IF_ALL = ("COALESCE", "GREATEST", "LEAST")
"""What is unknown only where all its operands are."""


class Printer:
    """Prints formulas; it is told of each name what stands for it and whether it may be unknown."""

    def __init__(self, address: Address, unknown: Unknown) -> None:
        self._address, self._unknown = address, unknown

    def formula(self, node: Node) -> str:
        """Return what a cell holds, without the equals sign."""
        return self._print(node, 0)

    def may_be_unknown(self, node: Node) -> bool:
        """Tell whether a formula may give nothing."""
        if node.kind == "null":
            return True
        if node.kind == "name":
            return self._unknown(str(node.value))
        if node.kind == "case":
            return any(map(self.may_be_unknown, (*node.children[1:-1:2], node.children[-1])))
        if node.value in _NEVER:
            return False
        if node.value == "NULLIF" or (node.value == "/" and not _is_other_than_zero(node.children[1])):
            return True
        found = map(self.may_be_unknown, node.children)
        return all(found) if node.value in _IF_ALL else any(found)

    def _print(self, node: Node, floor: int) -> str:
        if node.kind == "number":
            value = float(str(node.value))
            text = f"{value:.0f}" if value.is_integer() and abs(value) < 1e15 else repr(value).upper()
            return f"({text})" if value < 0 else text
        if node.kind == "string":
            return quoted(str(node.value))
        if node.kind == "boolean":
            return "TRUE" if node.value else "FALSE"
        if node.kind == "null":
            return NOT_AVAILABLE
        if node.kind == "name":
            return self._address(str(node.value))
        if node.kind == "case":
            return self._choice(node)
        strength = _STRENGTH.get(str(node.value), 6)
        text = self._call(str(node.value), node.children, strength)
        return f"({text})" if strength <= floor else text

    def _choice(self, node: Node) -> str:
        text = self._print(node.children[-1], 0)
        pairs = list(zip(node.children[:-1:2], node.children[1:-1:2], strict=True))
        for condition, result in reversed(pairs):
            text = f"IF({self.holds(condition)},{self._print(result, 0)},{text})"
        return text

    def _call(self, value: str, operands: tuple[Node, ...], strength: int) -> str:
        if value in ("AND", "OR"):
            return self._logical(value, operands)
        if value == "POW":
            return self._power(*operands)
        if strength < 6:
            mark = "&" if value == "||" else value
            return f"{self._print(operands[0], strength - 1)}{mark}{self._print(operands[1], strength)}"
        if value in _EXTREMES:
            return self._extreme(value, operands)
        shown = [self._print(o, 0) for o in operands]
        if value in _CALLS:
            return f"{_CALLS[value]}({shown[0]})"
        if value == "NEG":
            return f"(-{self._print(operands[0], 5)})"
        if value == "NOT":
            return f"NOT({shown[0]})"
        if value == "CEIL":
            return f"(-INT(-{self._print(operands[0], 5)}))"
        if value == "LOG2":
            return f"LOG({shown[0]},2)"
        if value == "IS NULL":
            return f"ISERROR({shown[0]})"
        if value == "NULLIF":
            return f"IF({self.holds(Node('call', '=', operands))},{NOT_AVAILABLE},{shown[0]})"
        if value == "COALESCE":
            return self._first_known(operands)
        if value == "CONCAT":
            return "&".join(f"{_if_unknown(s, quoted(''))}" for s in shown)
        if value == "IN":
            return f"OR({','.join(f'{self._print(operands[0], 1)}={self._print(o, 1)}' for o in operands[1:])})"
        if value == "LIKE":
            return self._like(operands)
        raise ValueError(f"{value} is not a function that a spreadsheet is told of")

    def _power(self, base: Node, exponent: Node) -> str:
        # operands stand alone: a spreadsheet reads -2^2 and 2^3^2 otherwise than SQL
        text = f"{self._print(base, 5)}^{self._print(exponent, 5)}"
        if "number" in (base.kind, exponent.kind):
            return text
        # what is too small for a number is 0, but an error to LibreOffice
        logarithm = f"{self._print(exponent, 4)}*LN({self._print(base, 0)})"
        return f"(IF(IFERROR({logarithm},0)<-700,0,{text}))"

    def _first_known(self, operands: tuple[Node, ...]) -> str:
        *others, last = operands
        text = self._print(last, 0)
        for operand in reversed(others):
            text = _if_unknown(self._print(operand, 0), text)
        return text

    def _extreme(self, value: str, operands: tuple[Node, ...]) -> str:
        function, nothing = _EXTREMES[value]
        shown = [self._print(o, 0) for o in operands]
        unsure = [self.may_be_unknown(o) for o in operands]
        told = ",".join(_if_unknown(s, nothing) if u else s for s, u in zip(shown, unsure, strict=True))
        if not all(unsure):
            return f"{function}({told})"
        return f"IF(AND({','.join(f'ISERROR({s})' for s in shown)}),{NOT_AVAILABLE},{function}({told}))"

    def _like(self, operands: tuple[Node, ...]) -> str:
        pattern = str(operands[1].value)
        if operands[1].kind != "string" or "_" in pattern or "%" in pattern[:-1]:
            raise ValueError(f"LIKE {pattern!r}: a spreadsheet is told of beginnings alone, such as 'name%'")
        start = pattern.removesuffix("%")
        text = self._print(operands[0], 1)
        return f"LEFT({text},{len(start)})={quoted(start)}" if pattern.endswith("%") else f"{text}={quoted(start)}"

    def _logical(self, value: str, operands: tuple[Node, ...]) -> str:
        node = Node("call", value, operands)
        text = f"{value}({','.join(self._print(o, 0) for o in operands)})"
        if not self.may_be_unknown(node):
            return text
        decided, given = (self._fails(node), "FALSE") if value == "AND" else (self.holds(node), "TRUE")
        return f"IF({decided},{given},{text})"

    def holds(self, node: Node) -> str:
        """Return what is TRUE where a condition holds, and FALSE where it does not or is unknown."""
        if node.kind == "call" and node.value in ("AND", "OR"):
            return f"{node.value}({','.join(map(self.holds, node.children))})"
        if node.kind == "call" and node.value == "NOT":
            return self._fails(node.children[0])
        shown = self._print(node, 0)
        return _if_unknown(shown, "FALSE") if self.may_be_unknown(node) else shown

    def _fails(self, node: Node) -> str:
        """Return what is TRUE where a condition is known not to hold, and else FALSE."""
        if node.kind == "call" and node.value in ("AND", "OR"):
            other = {"AND": "OR", "OR": "AND"}[str(node.value)]
            return f"{other}({','.join(map(self._fails, node.children))})"
        if node.kind == "call" and node.value == "NOT":
            return self.holds(node.children[0])
        shown = self._print(node, 0)
        return f"NOT({_if_unknown(shown, 'TRUE') if self.may_be_unknown(node) else shown})"


def quoted(text: str) -> str:
    """Return a text as a formula writes it."""
    return '"' + text.replace('"', '""') + '"'


def _is_other_than_zero(node: Node) -> bool:
    return node.kind == "number" and node.value != 0


def _if_unknown(text: str, otherwise: str) -> str:
    return f"IFERROR({text},{otherwise})"
