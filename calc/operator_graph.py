"""The operators of a part and what each reads, as a graph: from the column ``inputs`` of a sheet's operators."""

from __future__ import annotations

from collections.abc import Iterable

from calc.scopes import Operator

STREAM = "stream"
"""What a part takes in: the residual stream."""
COLUMN, ROW = 190, 62
"""Pixels from one node to the next."""


def edges(operators: Iterable[Operator], present: Iterable[str]) -> list[tuple[str, str]]:
    """Return (read, reader) of a block's operators that a model has; of ``a|b`` the first that is there is read."""
    there = {STREAM, *present}
    found = []
    for operator in operators:
        if operator.name not in there:
            continue
        for choice in operator.inputs.split():
            read = next((name for name in choice.split("|") if name in there), None)
            if read:
                found.append((read, operator.name))
    return found


def layers(names: list[str], links: list[tuple[str, str]]) -> dict[str, int]:
    """Return how many steps after its input each operator can run: the longest way to it."""
    reads: dict[str, list[str]] = {}
    for read, reader in links:
        reads.setdefault(reader, []).append(read)
    depth: dict[str, int] = {}
    for name in names:
        depth[name] = 1 + max((depth.get(r, 0) for r in reads.get(name, [])), default=-1)
    return depth


def drawing(
    names: list[str], links: list[tuple[str, str]], told: dict[str, str], bound: dict[str, str], share: dict[str, float]
) -> dict[str, object]:
    """Return the graph as an ECharts option: a node per operator, layer by layer, coloured by what bounds it.

    ``told`` is what a node says when pointed at, ``share`` its part of the stage's time, which its area shows; nodes
    are in the order of ``names``, which is that of execution.
    """
    depth = layers(names, links)
    rows: dict[int, list[str]] = {}
    for name in names:
        rows.setdefault(depth[name], []).append(name)
    kinds = list(dict.fromkeys(bound.get(n) or "input" for n in names))
    nodes = [
        {
            "name": name, "category": kinds.index(bound.get(name) or "input"), "value": told.get(name, ""),
            "symbolSize": 12 + 40 * share.get(name, 0.0) ** 0.5,
            "x": (place - (len(row) - 1) / 2) * COLUMN, "y": level * ROW,
        }
        for level, row in rows.items() for place, name in enumerate(row)
    ]  # fmt: skip
    order = {name: place for place, name in enumerate(names)}
    return {
        "tooltip": {"formatter": "{b}<br/>{c}"},
        "legend": [{"data": kinds, "bottom": 0}],
        "series": [{
            "type": "graph", "layout": "none", "roam": "move", "preserveAspect": "contain", "selectedMode": "single",
            "top": 16, "bottom": 60, "edgeSymbol": ["none", "arrow"], "edgeSymbolSize": 8, "left": 60, "right": 60,
            "label": {"show": True, "fontSize": 12, "position": "right"}, "labelLayout": {"hideOverlap": False},
            "categories": [{"name": k} for k in kinds],
            "data": sorted(nodes, key=lambda n: order[str(n["name"])]),
            "links": [
                # what skips a layer goes round the operators between
                {"source": a, "target": b, "lineStyle": {"curveness": 0.3 if depth[b] - depth[a] > 1 else 0}}
                for a, b in links
            ],
        }],
    }  # fmt: skip


def height(names: list[str], links: list[tuple[str, str]]) -> int:
    """Return the pixels that the graph takes from top to bottom."""
    return 110 + ROW * max(layers(names, links).values(), default=0)
