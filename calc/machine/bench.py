"""``calc bench``: a few layers of a model with random weights, run here, beside what the sheet says of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import polars as pl

from calc.errors import CalcError
from calc.evaluation import answered
from calc.machine.backends import Array, Backend, median_s
from calc.tables import Tables

PRECISIONS = {"fp32": "w32a32kv32", "fp16": "w16a16kv16", "bf16": "bf16"}
LAYERS = ("attention", "mlp", "moe")
"""Parts of a model that are its layers."""
OTHER_KINDS = {
    "kv_lora_rank": "latent attention", "n_ssm_layers": "state-space layers",
    "n_linear_attention_layers": "linear attention", "is_diffusion": "diffusion", "is_encoder": "an encoder",
}  # fmt: skip
"""What the bench has no layer for, by the fact that tells it."""
SHORTER = ("window", "chunk", "local", "borrowed", "mtp", "vision")
"""In the names of facts that benched layers do without: each attends to the whole context, and is of the text model."""
BENCHED = "bench"


@dataclass(frozen=True)
class Question:
    """What is run: so many sequences of so many new tokens behind so many in the cache."""

    stage: str
    batch: int
    new_tokens: int
    past_tokens: int


@dataclass(frozen=True)
class Weights:
    """The matrices of a layer."""

    q: Array
    k: Array
    v: Array
    out: Array
    experts: list[list[Array]]
    """Of each expert, or of the one MLP: up, gate where there is one, down."""
    shared: list[Array] | None
    """Of the expert that every token goes through."""


class Layer:
    """One layer of a decoder: attention over a cache, then an MLP or the experts that a router would pick."""

    def __init__(self, of: Backend, model: dict[str, object], fmt: str) -> None:
        self.of, self.fmt = of, fmt
        size = {c: int(float(str(model[c]))) for c in ("hidden", "n_heads", "n_kv_heads", "head_dim")}
        self.hidden, self.heads, self.groups, self.width = size.values()
        is_moe = bool(model["n_moe_layers"])
        self.experts = int(float(str(model["n_experts"]))) if is_moe else 1
        self.active = int(float(str(model["n_active_experts"]))) if is_moe else 1
        columns = int(float(str(model["expert_intermediate" if is_moe else "intermediate"])))
        shared = int(float(str(model["shared_intermediate"] or 0))) if is_moe else 0
        is_gated = bool(model["is_gated_mlp"])

        def matrix(rows: int, cols: int) -> Array:
            return of.random((rows, cols), fmt)

        def mlp(columns: int) -> list[Array]:
            return [*(matrix(self.hidden, columns) for _ in range(1 + is_gated)), matrix(columns, self.hidden)]

        inner, cached = self.heads * self.width, self.groups * self.width
        self.weights = Weights(
            matrix(self.hidden, inner),
            matrix(self.hidden, cached),
            matrix(self.hidden, cached),
            matrix(inner, self.hidden),
            [mlp(columns) for _ in range(self.experts)],
            mlp(shared) if shared else None,
        )

    def run(self, asked: Question) -> Callable[[], object]:
        """Return the work of one pass through the layer."""
        of, held = self.of, asked.past_tokens + asked.new_tokens
        rows = of.random((asked.batch * asked.new_tokens, self.hidden), self.fmt)
        keys, values = (of.random((asked.batch, self.groups, held, self.width), self.fmt) for _ in range(2))
        turned = keys.swapaxes(-1, -2)
        shape = (asked.batch, self.groups, asked.new_tokens * self.heads // self.groups, self.width)

        def attention() -> Array:
            weights, normed = self.weights, of.norm(rows)
            queries = of.matmul(normed, weights.q).reshape(shape)
            of.matmul(normed, weights.k)
            of.matmul(normed, weights.v)
            mixed = of.matmul(of.softmax(of.matmul(queries, turned)), values)
            return rows + of.matmul(mixed.reshape(rows.shape[0], -1), weights.out)

        return lambda: self._mlp(attention())

    def _mlp(self, stream: Array) -> Array:
        """Send rows through the MLP; those of a mixture through experts in turn, as many rows to each."""
        normed = self.of.norm(stream)
        experts, shared = self.weights.experts, self.weights.shared
        if self.experts == 1:
            return stream + self._through(experts[0], normed)
        if shared is not None:
            stream = stream + self._through(shared, normed)
        n_rows = normed.shape[0]
        for nth in range(min(self.experts, n_rows * self.active)):
            share = max(n_rows * self.active // self.experts, 1)
            first = nth * share % max(n_rows - share + 1, 1)
            stream[first : first + share] += self._through(experts[nth], normed[first : first + share])
        return stream

    def _through(self, matrices: list[Array], rows: Array) -> Array:
        up, *gate, down = matrices
        inner = self.of.matmul(rows, up)
        inner = self.of.activation(self.of.matmul(rows, gate[0]), inner) if gate else self.of.activation(inner, None)
        return self.of.matmul(inner, down)


def benched(
    tables: Tables, of: Backend, device: pl.DataFrame, row: dict[str, object], questions: list[Question], fmt: str
) -> pl.DataFrame:
    """Return what the layers of a model's row take here beside the prediction for a device, a row per question.

    ``predicted_s`` and ``measured_s`` are of all its layers, without embedding and head; ``ratio`` is measured over
    predicted.
    """
    known = tables.extended("models", pl.DataFrame([row], infer_schema_length=None))
    known = known.extended("hardware", device)
    layer, layers = Layer(of, row, fmt), int(float(str(row["n_layers"])))
    found = [(*_asked(q), p, median_s(layer.run(q), of) * layers) for q, p in predicted(known, device, questions, fmt)]
    told = pl.DataFrame(
        found, schema=["stage", "batch", "new_tokens", "past_tokens", "predicted_s", "measured_s"], orient="row"
    )
    return told.with_columns(ratio=pl.col("measured_s") / pl.col("predicted_s"))


def _asked(question: Question) -> tuple[str, int, int, int]:
    return question.stage, question.batch, question.new_tokens, question.past_tokens


def layers_of(tables: Tables, model_id: str, layers: int) -> dict[str, object]:
    """Return the row of a model of so many layers, all of the kind that most of its are.

    Raises CalcError for a model whose layers are of another kind than the bench runs.
    """
    row = tables["models"].filter(model_id=model_id).row(0, named=True)
    for fact, kind in OTHER_KINDS.items():
        if row[fact]:
            raise CalcError(
                f"{model_id} has {kind}: the bench runs attention with keys and values, and MLPs or experts"
            )
    is_moe = bool(row["n_moe_layers"])
    counts = {"n_layers": layers, "n_attention_layers": layers, "n_published_parameters": None}
    counts |= {"n_mlp_layers": None if is_moe else layers, "n_moe_layers": layers if is_moe else None}
    plain = {c: None for c in row if any(part in c for part in SHORTER)}
    return row | plain | counts | {"model_id": BENCHED, "aliases": None}


def predicted(
    tables: Tables, device: pl.DataFrame, questions: list[Question], fmt: str
) -> Iterator[tuple[Question, float]]:
    """Return the time that the sheet says of the layers alone, for each question."""
    for question in questions:
        is_prefill = question.stage == "prefill"
        asked = pl.DataFrame([{
            "model_id": BENCHED, "hardware_id": device["hardware_id"][0], "precision": PRECISIONS[fmt],
            "attention": "eager", "batch": question.batch,
            "input_len": question.new_tokens if is_prefill else question.past_tokens,
            "output_len": 0 if is_prefill else 2,
        }])  # fmt: skip
        found = answered(tables, asked, "operator", columns=["stage", "part", "count", "time_s"])
        mine = found.filter(pl.col("stage") == question.stage, pl.col("part").is_in(LAYERS))
        yield question, float((mine["count"] * mine["time_s"]).sum())
