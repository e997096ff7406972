"""Every operator of two models, derived by hand: the numbers are written out and nothing is asked of the package.

The expected side of each comparison is plain arithmetic over the models' shapes (Llama-2-7b: hidden 4096, 32 heads of
128, intermediate 11008, vocabulary 32000, 32 layers; Llama-3-8B: 8 key/value heads, intermediate 14336, vocabulary
128256) and the devices' datasheet figures. Letters in the comments: B sequences, q new tokens each, c context with the
new tokens, T = B·q, h hidden, H query heads, G key/value heads, d head size, I intermediate, V vocabulary, P attended
pairs per sequence; w, a, k bytes per element of weights, activations, KV cache.
"""

from __future__ import annotations

from typing import NamedTuple

import polars as pl
import pytest

import calc

# ops/s per format ("fp32" is the vector unit) and bytes/s, dense, from the vendors' datasheets
A6000 = {"fp16": 154.8e12, "int8": 309.7e12, "fp32": 38.7e12, "bandwidth": 768e9}
H100 = {"fp16": 989.5e12, "int8": 1979e12, "fp32": 67e12, "bandwidth": 3350e9}


class Row(NamedTuple):
    """What one instance of an operator does; ``runs`` is the format that it computes in, fp32 on the vector unit."""

    count: int
    runs: str | None
    bound: str
    matrix: float = 0
    vector: float = 0
    weight: float = 0
    read: float = 0
    write: float = 0
    kv_read: float = 0
    kv_write: float = 0

    @property
    def memory(self) -> float:
        """Bytes that it moves."""
        return self.weight + self.read + self.write + self.kv_read + self.kv_write

    def compute_s(self, device: dict[str, float]) -> float:
        """Seconds on the slower of the two units, which work side by side."""
        matrix_s = self.matrix / device[self.runs] if self.matrix else 0
        return max(matrix_s, self.vector / device["fp32"])

    def memory_s(self, device: dict[str, float]) -> float:
        """Seconds of its memory traffic."""
        return self.memory / device["bandwidth"]

    def time_s(self, device: dict[str, float]) -> float:
        """Seconds under the greatest ceiling."""
        return max(self.compute_s(device), self.memory_s(device))


def near(value: float, rel: float = 1e-12) -> object:
    """Equal up to rounding; no absolute slack, for times are small numbers."""
    return pytest.approx(value, rel=rel, abs=0)


# Llama-2-7b, eager attention, w16a16kv16: prefill of B = 2, q = c = 512, so T = 2·512, P = 512·513/2 = 131328
LLAMA_2_PREFILL = {
    "embedding": Row(
        count=1,
        runs=None,
        bound="memory",
        weight=2 * 512 * 4096 * 2,  # T·h rows of the table
        write=2 * 512 * 4096 * 2,  # T·h·a
    ),
    "attn_norm": Row(
        count=32,
        runs="fp32",
        bound="memory",
        vector=4 * 2 * 512 * 4096,  # 4·T·h
        weight=4096 * 2,  # gain h
        read=2 * 512 * 4096 * 2,  # T·h·a
        write=2 * 512 * 4096 * 2,  # T·h·a
    ),
    "q_proj": Row(
        count=32,
        runs="fp16",
        bound="compute",
        matrix=2 * (2 * 512) * 4096 * (32 * 128),  # 2·T·h·(H·d)
        vector=3 * 2 * 512 * 32 * 128,  # rotary 3·T·H·d
        weight=4096 * (32 * 128) * 2,  # h·(H·d)·w
        read=2 * 512 * 4096 * 2,  # T·h·a
        write=2 * 512 * 32 * 128 * 2,  # T·H·d·a
    ),
    "k_proj": Row(
        count=32,
        runs="fp16",
        bound="compute",
        matrix=2 * (2 * 512) * 4096 * (32 * 128),  # 2·T·h·(G·d), G = 32
        vector=3 * 2 * 512 * 32 * 128,  # rotary 3·T·G·d
        weight=4096 * (32 * 128) * 2,  # h·(G·d)·w
        read=2 * 512 * 4096 * 2,  # T·h·a
        kv_write=2 * 512 * 32 * 128 * 2,  # T·G·d·k, to the cache instead
    ),
    "v_proj": Row(
        count=32,
        runs="fp16",
        bound="compute",
        matrix=2 * (2 * 512) * 4096 * (32 * 128),  # 2·T·h·(G·d)
        weight=4096 * (32 * 128) * 2,  # h·(G·d)·w
        read=2 * 512 * 4096 * 2,  # T·h·a
        kv_write=2 * 512 * 32 * 128 * 2,  # T·G·d·k
    ),
    "qk_matmul": Row(
        count=32,
        runs="fp16",
        bound="memory",
        matrix=2 * 2 * 32 * 128 * 131328,  # 2·B·H·d·P
        read=2 * 32 * 512 * 128 * 2,  # Q: B·H·q·d·a
        write=2 * 32 * 512 * 512 * 2,  # scores: B·H·q·c·a
        kv_read=2 * 32 * 512 * 128 * 2,  # K once: B·G·c·d·k
    ),
    "softmax": Row(
        count=32,
        runs="fp32",
        bound="memory",
        vector=5 * 2 * 32 * 131328,  # 5·B·H·P
        read=2 * 32 * 512 * 512 * 2,  # scores: B·H·q·c·a
        write=2 * 32 * 512 * 512 * 2,  # scores: B·H·q·c·a
    ),
    "sv_matmul": Row(
        count=32,
        runs="fp16",
        bound="memory",
        matrix=2 * 2 * 32 * 128 * 131328,  # 2·B·H·d·P
        read=2 * 32 * 512 * 512 * 2,  # scores: B·H·q·c·a
        write=2 * 32 * 512 * 128 * 2,  # O: B·H·q·d·a
        kv_read=2 * 32 * 512 * 128 * 2,  # V once: B·G·c·d·k
    ),
    "out_proj": Row(
        count=32,
        runs="fp16",
        bound="compute",
        matrix=2 * (2 * 512) * (32 * 128) * 4096,  # 2·T·(H·d)·h
        weight=(32 * 128) * 4096 * 2,  # (H·d)·h·w
        read=2 * 512 * 32 * 128 * 2,  # T·H·d·a
        write=2 * 512 * 4096 * 2,  # T·h·a
    ),
    "attn_add": Row(
        count=32,
        runs="fp32",
        bound="memory",
        vector=2 * 512 * 4096,  # T·h
        read=2 * (2 * 512 * 4096) * 2,  # two operands: 2·T·h·a
        write=2 * 512 * 4096 * 2,  # T·h·a
    ),
    "mlp_norm": Row(
        count=32,
        runs="fp32",
        bound="memory",
        vector=4 * 2 * 512 * 4096,  # 4·T·h
        weight=4096 * 2,  # gain h
        read=2 * 512 * 4096 * 2,  # T·h·a
        write=2 * 512 * 4096 * 2,  # T·h·a
    ),
    "gate_proj": Row(
        count=32,
        runs="fp16",
        bound="compute",
        matrix=2 * (2 * 512) * 4096 * 11008,  # 2·T·h·I
        weight=4096 * 11008 * 2,  # h·I·w
        read=2 * 512 * 4096 * 2,  # T·h·a
        write=2 * 512 * 11008 * 2,  # T·I·a
    ),
    "up_proj": Row(
        count=32,
        runs="fp16",
        bound="compute",
        matrix=2 * (2 * 512) * 4096 * 11008,  # 2·T·h·I
        weight=4096 * 11008 * 2,  # h·I·w
        read=2 * 512 * 4096 * 2,  # T·h·a
        write=2 * 512 * 11008 * 2,  # T·I·a
    ),
    "mlp_act": Row(
        count=32,
        runs="fp32",
        bound="memory",
        vector=5 * 2 * 512 * 11008,  # gated: 5·T·I
        read=2 * (2 * 512 * 11008) * 2,  # two branches: 2·T·I·a
        write=2 * 512 * 11008 * 2,  # T·I·a
    ),
    "down_proj": Row(
        count=32,
        runs="fp16",
        bound="compute",
        matrix=2 * (2 * 512) * 11008 * 4096,  # 2·T·I·h
        weight=11008 * 4096 * 2,  # I·h·w
        read=2 * 512 * 11008 * 2,  # T·I·a
        write=2 * 512 * 4096 * 2,  # T·h·a
    ),
    "mlp_add": Row(
        count=32,
        runs="fp32",
        bound="memory",
        vector=2 * 512 * 4096,  # T·h
        read=2 * (2 * 512 * 4096) * 2,  # two operands: 2·T·h·a
        write=2 * 512 * 4096 * 2,  # T·h·a
    ),
    "final_norm": Row(
        count=1,
        runs="fp32",
        bound="memory",
        vector=4 * 2 * 4096,  # one position per sequence: 4·B·h
        weight=4096 * 2,  # gain h
        read=2 * 4096 * 2,  # B·h·a
        write=2 * 4096 * 2,  # B·h·a
    ),
    "lm_head": Row(
        count=1,
        runs="fp16",
        bound="memory",
        matrix=2 * 2 * 4096 * 32000,  # one position per sequence: 2·B·h·V
        weight=4096 * 32000 * 2,  # h·V, 16 bits
        read=2 * 4096 * 2,  # B·h·a
        write=2 * 32000 * 2,  # logits: B·V·a
    ),
    "sampling": Row(
        count=1,
        runs="fp32",
        bound="memory",
        vector=5 * 2 * 32000,  # softmax over V: 5·B·V
        read=2 * 32000 * 2,  # logits once: B·V·a
    ),
}

# Llama-2-7b, eager attention, w16a16kv16: one decode step of B = 2 after 512 tokens: q = 1, T = 2, c = 513, P = 513
LLAMA_2_DECODE = {
    "embedding": Row(
        count=1,
        runs=None,
        bound="memory",
        weight=2 * 4096 * 2,  # T·h rows of the table
        write=2 * 4096 * 2,  # T·h·a
    ),
    "attn_norm": Row(
        count=32,
        runs="fp32",
        bound="memory",
        vector=4 * 2 * 4096,  # 4·T·h
        weight=4096 * 2,  # gain h
        read=2 * 4096 * 2,  # T·h·a
        write=2 * 4096 * 2,  # T·h·a
    ),
    "q_proj": Row(
        count=32,
        runs="fp16",
        bound="memory",
        matrix=2 * 2 * 4096 * (32 * 128),  # 2·T·h·(H·d)
        vector=3 * 2 * 32 * 128,  # rotary 3·T·H·d
        weight=4096 * (32 * 128) * 2,  # h·(H·d)·w
        read=2 * 4096 * 2,  # T·h·a
        write=2 * 32 * 128 * 2,  # T·H·d·a
    ),
    "k_proj": Row(
        count=32,
        runs="fp16",
        bound="memory",
        matrix=2 * 2 * 4096 * (32 * 128),  # 2·T·h·(G·d), G = 32
        vector=3 * 2 * 32 * 128,  # rotary 3·T·G·d
        weight=4096 * (32 * 128) * 2,  # h·(G·d)·w
        read=2 * 4096 * 2,  # T·h·a
        kv_write=2 * 32 * 128 * 2,  # T·G·d·k
    ),
    "v_proj": Row(
        count=32,
        runs="fp16",
        bound="memory",
        matrix=2 * 2 * 4096 * (32 * 128),  # 2·T·h·(G·d)
        weight=4096 * (32 * 128) * 2,  # h·(G·d)·w
        read=2 * 4096 * 2,  # T·h·a
        kv_write=2 * 32 * 128 * 2,  # T·G·d·k
    ),
    "qk_matmul": Row(
        count=32,
        runs="fp16",
        bound="memory",
        matrix=2 * 2 * 32 * 128 * 513,  # 2·B·H·d·P
        read=2 * 32 * 128 * 2,  # Q: B·H·q·d·a
        write=2 * 32 * 513 * 2,  # scores: B·H·q·c·a
        kv_read=2 * 32 * 513 * 128 * 2,  # K once: B·G·c·d·k
    ),
    "softmax": Row(
        count=32,
        runs="fp32",
        bound="memory",
        vector=5 * 2 * 32 * 513,  # 5·B·H·P
        read=2 * 32 * 513 * 2,  # scores: B·H·q·c·a
        write=2 * 32 * 513 * 2,  # scores: B·H·q·c·a
    ),
    "sv_matmul": Row(
        count=32,
        runs="fp16",
        bound="memory",
        matrix=2 * 2 * 32 * 128 * 513,  # 2·B·H·d·P
        read=2 * 32 * 513 * 2,  # scores: B·H·q·c·a
        write=2 * 32 * 128 * 2,  # O: B·H·q·d·a
        kv_read=2 * 32 * 513 * 128 * 2,  # V once: B·G·c·d·k
    ),
    "out_proj": Row(
        count=32,
        runs="fp16",
        bound="memory",
        matrix=2 * 2 * (32 * 128) * 4096,  # 2·T·(H·d)·h
        weight=(32 * 128) * 4096 * 2,  # (H·d)·h·w
        read=2 * 32 * 128 * 2,  # T·H·d·a
        write=2 * 4096 * 2,  # T·h·a
    ),
    "attn_add": Row(
        count=32,
        runs="fp32",
        bound="memory",
        vector=2 * 4096,  # T·h
        read=2 * (2 * 4096) * 2,  # two operands: 2·T·h·a
        write=2 * 4096 * 2,  # T·h·a
    ),
    "mlp_norm": Row(
        count=32,
        runs="fp32",
        bound="memory",
        vector=4 * 2 * 4096,  # 4·T·h
        weight=4096 * 2,  # gain h
        read=2 * 4096 * 2,  # T·h·a
        write=2 * 4096 * 2,  # T·h·a
    ),
    "gate_proj": Row(
        count=32,
        runs="fp16",
        bound="memory",
        matrix=2 * 2 * 4096 * 11008,  # 2·T·h·I
        weight=4096 * 11008 * 2,  # h·I·w
        read=2 * 4096 * 2,  # T·h·a
        write=2 * 11008 * 2,  # T·I·a
    ),
    "up_proj": Row(
        count=32,
        runs="fp16",
        bound="memory",
        matrix=2 * 2 * 4096 * 11008,  # 2·T·h·I
        weight=4096 * 11008 * 2,  # h·I·w
        read=2 * 4096 * 2,  # T·h·a
        write=2 * 11008 * 2,  # T·I·a
    ),
    "mlp_act": Row(
        count=32,
        runs="fp32",
        bound="memory",
        vector=5 * 2 * 11008,  # gated: 5·T·I
        read=2 * (2 * 11008) * 2,  # two branches: 2·T·I·a
        write=2 * 11008 * 2,  # T·I·a
    ),
    "down_proj": Row(
        count=32,
        runs="fp16",
        bound="memory",
        matrix=2 * 2 * 11008 * 4096,  # 2·T·I·h
        weight=11008 * 4096 * 2,  # I·h·w
        read=2 * 11008 * 2,  # T·I·a
        write=2 * 4096 * 2,  # T·h·a
    ),
    "mlp_add": Row(
        count=32,
        runs="fp32",
        bound="memory",
        vector=2 * 4096,  # T·h
        read=2 * (2 * 4096) * 2,  # two operands: 2·T·h·a
        write=2 * 4096 * 2,  # T·h·a
    ),
    "final_norm": Row(
        count=1,
        runs="fp32",
        bound="memory",
        vector=4 * 2 * 4096,  # 4·B·h
        weight=4096 * 2,  # gain h
        read=2 * 4096 * 2,  # B·h·a
        write=2 * 4096 * 2,  # B·h·a
    ),
    "lm_head": Row(
        count=1,
        runs="fp16",
        bound="memory",
        matrix=2 * 2 * 4096 * 32000,  # 2·B·h·V
        weight=4096 * 32000 * 2,  # h·V, 16 bits
        read=2 * 4096 * 2,  # B·h·a
        write=2 * 32000 * 2,  # logits: B·V·a
    ),
    "sampling": Row(
        count=1,
        runs="fp32",
        bound="memory",
        vector=5 * 2 * 32000,  # softmax over V: 5·B·V
        read=2 * 32000 * 2,  # logits once: B·V·a
    ),
}

# Llama-3-8B, flash attention, w16a16kv16: prefill of B = 4, q = c = 1000: T = 4·1000, P = 1000·1001/2 = 500500
LLAMA_3_PREFILL = {
    "embedding": Row(
        count=1,
        runs=None,
        bound="memory",
        weight=4 * 1000 * 4096 * 2,  # T·h rows of the table
        write=4 * 1000 * 4096 * 2,  # T·h·a
    ),
    "attn_norm": Row(
        count=32,
        runs="fp32",
        bound="memory",
        vector=4 * 4 * 1000 * 4096,  # 4·T·h
        weight=4096 * 2,  # gain h
        read=4 * 1000 * 4096 * 2,  # T·h·a
        write=4 * 1000 * 4096 * 2,  # T·h·a
    ),
    "q_proj": Row(
        count=32,
        runs="fp16",
        bound="compute",
        matrix=2 * (4 * 1000) * 4096 * (32 * 128),  # 2·T·h·(H·d)
        vector=3 * 4 * 1000 * 32 * 128,  # rotary 3·T·H·d
        weight=4096 * (32 * 128) * 2,  # h·(H·d)·w
        read=4 * 1000 * 4096 * 2,  # T·h·a
        write=4 * 1000 * 32 * 128 * 2,  # T·H·d·a
    ),
    "k_proj": Row(
        count=32,
        runs="fp16",
        bound="compute",
        matrix=2 * (4 * 1000) * 4096 * (8 * 128),  # 2·T·h·(G·d), G = 8
        vector=3 * 4 * 1000 * 8 * 128,  # rotary 3·T·G·d
        weight=4096 * (8 * 128) * 2,  # h·(G·d)·w
        read=4 * 1000 * 4096 * 2,  # T·h·a
        kv_write=4 * 1000 * 8 * 128 * 2,  # T·G·d·k
    ),
    "v_proj": Row(
        count=32,
        runs="fp16",
        bound="compute",
        matrix=2 * (4 * 1000) * 4096 * (8 * 128),  # 2·T·h·(G·d)
        weight=4096 * (8 * 128) * 2,  # h·(G·d)·w
        read=4 * 1000 * 4096 * 2,  # T·h·a
        kv_write=4 * 1000 * 8 * 128 * 2,  # T·G·d·k
    ),
    "fused_attention": Row(
        count=32,
        runs="fp16",
        bound="compute",
        matrix=2 * (2 * 4 * 32 * 128 * 500500),  # qk and pv: 2·B·H·d·P each
        vector=5 * 4 * 32 * 500500,  # softmax 5·B·H·P
        read=4 * 1000 * 32 * 128 * 2,  # Q once: T·H·d·a
        write=4 * 1000 * 32 * 128 * 2,  # O once: T·H·d·a
        kv_read=2 * 4 * 8 * 1000 * 128 * 2,  # K and V once per sequence: 2·B·G·c·d·k
    ),
    "out_proj": Row(
        count=32,
        runs="fp16",
        bound="compute",
        matrix=2 * (4 * 1000) * (32 * 128) * 4096,  # 2·T·(H·d)·h
        weight=(32 * 128) * 4096 * 2,  # (H·d)·h·w
        read=4 * 1000 * 32 * 128 * 2,  # T·H·d·a
        write=4 * 1000 * 4096 * 2,  # T·h·a
    ),
    "attn_add": Row(
        count=32,
        runs="fp32",
        bound="memory",
        vector=4 * 1000 * 4096,  # T·h
        read=2 * (4 * 1000 * 4096) * 2,  # two operands: 2·T·h·a
        write=4 * 1000 * 4096 * 2,  # T·h·a
    ),
    "mlp_norm": Row(
        count=32,
        runs="fp32",
        bound="memory",
        vector=4 * 4 * 1000 * 4096,  # 4·T·h
        weight=4096 * 2,  # gain h
        read=4 * 1000 * 4096 * 2,  # T·h·a
        write=4 * 1000 * 4096 * 2,  # T·h·a
    ),
    "gate_proj": Row(
        count=32,
        runs="fp16",
        bound="compute",
        matrix=2 * (4 * 1000) * 4096 * 14336,  # 2·T·h·I
        weight=4096 * 14336 * 2,  # h·I·w
        read=4 * 1000 * 4096 * 2,  # T·h·a
        write=4 * 1000 * 14336 * 2,  # T·I·a
    ),
    "up_proj": Row(
        count=32,
        runs="fp16",
        bound="compute",
        matrix=2 * (4 * 1000) * 4096 * 14336,  # 2·T·h·I
        weight=4096 * 14336 * 2,  # h·I·w
        read=4 * 1000 * 4096 * 2,  # T·h·a
        write=4 * 1000 * 14336 * 2,  # T·I·a
    ),
    "mlp_act": Row(
        count=32,
        runs="fp32",
        bound="memory",
        vector=5 * 4 * 1000 * 14336,  # gated: 5·T·I
        read=2 * (4 * 1000 * 14336) * 2,  # two branches: 2·T·I·a
        write=4 * 1000 * 14336 * 2,  # T·I·a
    ),
    "down_proj": Row(
        count=32,
        runs="fp16",
        bound="compute",
        matrix=2 * (4 * 1000) * 14336 * 4096,  # 2·T·I·h
        weight=14336 * 4096 * 2,  # I·h·w
        read=4 * 1000 * 14336 * 2,  # T·I·a
        write=4 * 1000 * 4096 * 2,  # T·h·a
    ),
    "mlp_add": Row(
        count=32,
        runs="fp32",
        bound="memory",
        vector=4 * 1000 * 4096,  # T·h
        read=2 * (4 * 1000 * 4096) * 2,  # two operands: 2·T·h·a
        write=4 * 1000 * 4096 * 2,  # T·h·a
    ),
    "final_norm": Row(
        count=1,
        runs="fp32",
        bound="memory",
        vector=4 * 4 * 4096,  # one position per sequence: 4·B·h
        weight=4096 * 2,  # gain h
        read=4 * 4096 * 2,  # B·h·a
        write=4 * 4096 * 2,  # B·h·a
    ),
    "lm_head": Row(
        count=1,
        runs="fp16",
        bound="memory",
        matrix=2 * 4 * 4096 * 128256,  # one position per sequence: 2·B·h·V
        weight=4096 * 128256 * 2,  # h·V, 16 bits
        read=4 * 4096 * 2,  # B·h·a
        write=4 * 128256 * 2,  # logits: B·V·a
    ),
    "sampling": Row(
        count=1,
        runs="fp32",
        bound="memory",
        vector=5 * 4 * 128256,  # softmax over V: 5·B·V
        read=4 * 128256 * 2,  # logits once: B·V·a
    ),
}

# Llama-3-8B, flash attention, w16a16kv16: one decode step of B = 4 after 1000 tokens: q = 1, T = 4, c = 1001, P = 1001
LLAMA_3_DECODE = {
    "embedding": Row(
        count=1,
        runs=None,
        bound="memory",
        weight=4 * 4096 * 2,  # T·h rows of the table
        write=4 * 4096 * 2,  # T·h·a
    ),
    "attn_norm": Row(
        count=32,
        runs="fp32",
        bound="memory",
        vector=4 * 4 * 4096,  # 4·T·h
        weight=4096 * 2,  # gain h
        read=4 * 4096 * 2,  # T·h·a
        write=4 * 4096 * 2,  # T·h·a
    ),
    "q_proj": Row(
        count=32,
        runs="fp16",
        bound="memory",
        matrix=2 * 4 * 4096 * (32 * 128),  # 2·T·h·(H·d)
        vector=3 * 4 * 32 * 128,  # rotary 3·T·H·d
        weight=4096 * (32 * 128) * 2,  # h·(H·d)·w
        read=4 * 4096 * 2,  # T·h·a
        write=4 * 32 * 128 * 2,  # T·H·d·a
    ),
    "k_proj": Row(
        count=32,
        runs="fp16",
        bound="memory",
        matrix=2 * 4 * 4096 * (8 * 128),  # 2·T·h·(G·d), G = 8
        vector=3 * 4 * 8 * 128,  # rotary 3·T·G·d
        weight=4096 * (8 * 128) * 2,  # h·(G·d)·w
        read=4 * 4096 * 2,  # T·h·a
        kv_write=4 * 8 * 128 * 2,  # T·G·d·k
    ),
    "v_proj": Row(
        count=32,
        runs="fp16",
        bound="memory",
        matrix=2 * 4 * 4096 * (8 * 128),  # 2·T·h·(G·d)
        weight=4096 * (8 * 128) * 2,  # h·(G·d)·w
        read=4 * 4096 * 2,  # T·h·a
        kv_write=4 * 8 * 128 * 2,  # T·G·d·k
    ),
    "fused_attention": Row(
        count=32,
        runs="fp16",
        bound="memory",
        matrix=2 * (2 * 4 * 32 * 128 * 1001),  # qk and pv: 2·B·H·d·P each
        vector=5 * 4 * 32 * 1001,  # softmax 5·B·H·P
        read=4 * 32 * 128 * 2,  # Q once: T·H·d·a
        write=4 * 32 * 128 * 2,  # O once: T·H·d·a
        kv_read=2 * 4 * 8 * 1001 * 128 * 2,  # K and V once per sequence: 2·B·G·c·d·k
    ),
    "out_proj": Row(
        count=32,
        runs="fp16",
        bound="memory",
        matrix=2 * 4 * (32 * 128) * 4096,  # 2·T·(H·d)·h
        weight=(32 * 128) * 4096 * 2,  # (H·d)·h·w
        read=4 * 32 * 128 * 2,  # T·H·d·a
        write=4 * 4096 * 2,  # T·h·a
    ),
    "attn_add": Row(
        count=32,
        runs="fp32",
        bound="memory",
        vector=4 * 4096,  # T·h
        read=2 * (4 * 4096) * 2,  # two operands: 2·T·h·a
        write=4 * 4096 * 2,  # T·h·a
    ),
    "mlp_norm": Row(
        count=32,
        runs="fp32",
        bound="memory",
        vector=4 * 4 * 4096,  # 4·T·h
        weight=4096 * 2,  # gain h
        read=4 * 4096 * 2,  # T·h·a
        write=4 * 4096 * 2,  # T·h·a
    ),
    "gate_proj": Row(
        count=32,
        runs="fp16",
        bound="memory",
        matrix=2 * 4 * 4096 * 14336,  # 2·T·h·I
        weight=4096 * 14336 * 2,  # h·I·w
        read=4 * 4096 * 2,  # T·h·a
        write=4 * 14336 * 2,  # T·I·a
    ),
    "up_proj": Row(
        count=32,
        runs="fp16",
        bound="memory",
        matrix=2 * 4 * 4096 * 14336,  # 2·T·h·I
        weight=4096 * 14336 * 2,  # h·I·w
        read=4 * 4096 * 2,  # T·h·a
        write=4 * 14336 * 2,  # T·I·a
    ),
    "mlp_act": Row(
        count=32,
        runs="fp32",
        bound="memory",
        vector=5 * 4 * 14336,  # gated: 5·T·I
        read=2 * (4 * 14336) * 2,  # two branches: 2·T·I·a
        write=4 * 14336 * 2,  # T·I·a
    ),
    "down_proj": Row(
        count=32,
        runs="fp16",
        bound="memory",
        matrix=2 * 4 * 14336 * 4096,  # 2·T·I·h
        weight=14336 * 4096 * 2,  # I·h·w
        read=4 * 14336 * 2,  # T·I·a
        write=4 * 4096 * 2,  # T·h·a
    ),
    "mlp_add": Row(
        count=32,
        runs="fp32",
        bound="memory",
        vector=4 * 4096,  # T·h
        read=2 * (4 * 4096) * 2,  # two operands: 2·T·h·a
        write=4 * 4096 * 2,  # T·h·a
    ),
    "final_norm": Row(
        count=1,
        runs="fp32",
        bound="memory",
        vector=4 * 4 * 4096,  # 4·B·h
        weight=4096 * 2,  # gain h
        read=4 * 4096 * 2,  # B·h·a
        write=4 * 4096 * 2,  # B·h·a
    ),
    "lm_head": Row(
        count=1,
        runs="fp16",
        bound="memory",
        matrix=2 * 4 * 4096 * 128256,  # 2·B·h·V
        weight=4096 * 128256 * 2,  # h·V, 16 bits
        read=4 * 4096 * 2,  # B·h·a
        write=4 * 128256 * 2,  # logits: B·V·a
    ),
    "sampling": Row(
        count=1,
        runs="fp32",
        bound="memory",
        vector=5 * 4 * 128256,  # softmax over V: 5·B·V
        read=4 * 128256 * 2,  # logits once: B·V·a
    ),
}

# The decode step of Llama-2-7b above at w4a16kv4, where it differs: linear weights and cache are half a byte an
# element; unpacked, so products still run in 16 bits; embedding, head and norms stay at two bytes
W4A16KV4_DECODE = LLAMA_2_DECODE | {
    "q_proj": LLAMA_2_DECODE["q_proj"]._replace(weight=4096 * 4096 * 0.5),
    "k_proj": LLAMA_2_DECODE["k_proj"]._replace(weight=4096 * 4096 * 0.5, kv_write=2 * 32 * 128 * 0.5),
    "v_proj": LLAMA_2_DECODE["v_proj"]._replace(weight=4096 * 4096 * 0.5, kv_write=2 * 32 * 128 * 0.5),
    "qk_matmul": LLAMA_2_DECODE["qk_matmul"]._replace(kv_read=2 * 32 * 513 * 128 * 0.5),
    "sv_matmul": LLAMA_2_DECODE["sv_matmul"]._replace(kv_read=2 * 32 * 513 * 128 * 0.5),
    "out_proj": LLAMA_2_DECODE["out_proj"]._replace(weight=4096 * 4096 * 0.5),
    "gate_proj": LLAMA_2_DECODE["gate_proj"]._replace(weight=4096 * 11008 * 0.5),
    "up_proj": LLAMA_2_DECODE["up_proj"]._replace(weight=4096 * 11008 * 0.5),
    "down_proj": LLAMA_2_DECODE["down_proj"]._replace(weight=11008 * 4096 * 0.5),
}

# The prefill of Llama-2-7b above at w8a8kv8, every row: linear weights, activations and cache are one byte an element
# and linear and attention products run in int8; the head's weights have 16 bits, so its product runs in fp16
W8A8KV8_PREFILL = {
    "embedding": LLAMA_2_PREFILL["embedding"]._replace(write=2 * 512 * 4096),
    "attn_norm": LLAMA_2_PREFILL["attn_norm"]._replace(read=2 * 512 * 4096, write=2 * 512 * 4096),
    "q_proj": LLAMA_2_PREFILL["q_proj"]._replace(
        runs="int8", weight=4096 * 4096, read=2 * 512 * 4096, write=2 * 512 * 4096
    ),
    "k_proj": LLAMA_2_PREFILL["k_proj"]._replace(
        runs="int8", weight=4096 * 4096, read=2 * 512 * 4096, kv_write=2 * 512 * 4096
    ),
    "v_proj": LLAMA_2_PREFILL["v_proj"]._replace(
        runs="int8", weight=4096 * 4096, read=2 * 512 * 4096, kv_write=2 * 512 * 4096
    ),
    "qk_matmul": LLAMA_2_PREFILL["qk_matmul"]._replace(
        runs="int8", read=2 * 512 * 4096, write=2 * 32 * 512 * 512, kv_read=2 * 512 * 4096
    ),
    "softmax": LLAMA_2_PREFILL["softmax"]._replace(read=2 * 32 * 512 * 512, write=2 * 32 * 512 * 512),
    "sv_matmul": LLAMA_2_PREFILL["sv_matmul"]._replace(
        runs="int8", read=2 * 32 * 512 * 512, write=2 * 512 * 4096, kv_read=2 * 512 * 4096
    ),
    "out_proj": LLAMA_2_PREFILL["out_proj"]._replace(
        runs="int8", weight=4096 * 4096, read=2 * 512 * 4096, write=2 * 512 * 4096
    ),
    "attn_add": LLAMA_2_PREFILL["attn_add"]._replace(read=2 * 2 * 512 * 4096, write=2 * 512 * 4096),
    "mlp_norm": LLAMA_2_PREFILL["mlp_norm"]._replace(read=2 * 512 * 4096, write=2 * 512 * 4096),
    "gate_proj": LLAMA_2_PREFILL["gate_proj"]._replace(
        runs="int8", weight=4096 * 11008, read=2 * 512 * 4096, write=2 * 512 * 11008
    ),
    "up_proj": LLAMA_2_PREFILL["up_proj"]._replace(
        runs="int8", weight=4096 * 11008, read=2 * 512 * 4096, write=2 * 512 * 11008
    ),
    "mlp_act": LLAMA_2_PREFILL["mlp_act"]._replace(read=2 * 2 * 512 * 11008, write=2 * 512 * 11008),
    "down_proj": LLAMA_2_PREFILL["down_proj"]._replace(
        runs="int8", weight=11008 * 4096, read=2 * 512 * 11008, write=2 * 512 * 4096
    ),
    "mlp_add": LLAMA_2_PREFILL["mlp_add"]._replace(read=2 * 2 * 512 * 4096, write=2 * 512 * 4096),
    "final_norm": LLAMA_2_PREFILL["final_norm"]._replace(read=2 * 4096, write=2 * 4096),
    "lm_head": LLAMA_2_PREFILL["lm_head"]._replace(read=2 * 4096, write=2 * 32000),
    "sampling": LLAMA_2_PREFILL["sampling"]._replace(read=2 * 32000),
}

LLAMA_2 = {"model": "meta-llama/Llama-2-7b-hf", "hardware": "nvidia_rtx_a6000", "batch": 2, "input_len": 512}
LLAMA_2 |= {"output_len": 128, "attention": "eager"}
LLAMA_3 = {"model": "meta-llama/Meta-Llama-3-8B", "hardware": "nvidia_h100_sxm", "batch": 4, "input_len": 1000}
LLAMA_3 |= {"output_len": 128, "attention": "flash"}

CASES = {
    "llama-2-7b eager prefill": (LLAMA_2, "w16a16kv16", "prefill", A6000, LLAMA_2_PREFILL),
    "llama-2-7b eager decode": (LLAMA_2, "w16a16kv16", "decode", A6000, LLAMA_2_DECODE),
    "llama-3-8b flash prefill": (LLAMA_3, "w16a16kv16", "prefill", H100, LLAMA_3_PREFILL),
    "llama-3-8b flash decode": (LLAMA_3, "w16a16kv16", "decode", H100, LLAMA_3_DECODE),
    "llama-2-7b w4a16kv4 decode": (LLAMA_2, "w4a16kv4", "decode", A6000, W4A16KV4_DECODE),
    "llama-2-7b w8a8kv8 prefill": (LLAMA_2, "w8a8kv8", "prefill", A6000, W8A8KV8_PREFILL),
}


def compare(got: dict, row: Row, device: dict[str, float]) -> None:
    """Hold one row of the answer against the row derived by hand."""
    assert got["count"] == row.count
    assert got["matrix_ops"] == near(row.matrix)
    assert got["vector_ops"] == near(row.vector)
    assert got["ops"] == near(row.matrix + row.vector)
    assert got["weight_bytes"] == near(row.weight)
    assert got["activation_read_bytes"] == near(row.read)
    assert got["activation_write_bytes"] == near(row.write)
    assert got["kv_read_bytes"] == near(row.kv_read)
    assert got["kv_write_bytes"] == near(row.kv_write)
    assert got["memory_bytes"] == near(row.memory)
    assert got["network_bytes"] == got["host_bytes"] == got["network_s"] == got["host_s"] == 0
    assert got["arithmetic_intensity"] == near((row.matrix + row.vector) / row.memory)
    if row.runs is not None:  # the lookup computes nothing, so that no peak is right or wrong for it
        assert got["compute_format"] == row.runs
        assert got["peak_ops_per_s"] == near(device[row.runs])
    assert got["compute_s"] == near(row.compute_s(device))
    assert got["memory_s"] == near(row.memory_s(device))
    assert got["time_s"] == near(row.time_s(device))
    assert got["bound"] == row.bound
    assert row.bound == ("compute" if row.compute_s(device) > row.memory_s(device) else "memory")


@pytest.mark.parametrize("case", CASES)
def test_operators(case: str) -> None:
    """The model has exactly these operators, and each does exactly this."""
    question, precision, stage, device, rows = CASES[case]
    answer = calc.analyze(**question, precision=precision, by="operator").filter(pl.col("stage") == stage)
    assert sorted(answer["operator"]) == sorted(rows)
    for got in answer.iter_rows(named=True):
        compare(got, rows[got["operator"]], device)


@pytest.mark.parametrize(
    ("precision", "changed"),
    [
        (
            "w4a16kv4",
            {
                "weight_bytes": "q_proj k_proj v_proj out_proj gate_proj up_proj down_proj",
                "activation_read_bytes": "",
                "activation_write_bytes": "",
                "kv_read_bytes": "fused_attention",
                "kv_write_bytes": "k_proj v_proj",
                "compute_format": "",
                "matrix_ops": "",
                "vector_ops": "",
            },
        ),
        (
            "w8a8kv8",
            {
                "weight_bytes": "q_proj k_proj v_proj out_proj gate_proj up_proj down_proj",
                "activation_read_bytes": "attn_norm q_proj k_proj v_proj fused_attention out_proj attn_add mlp_norm "
                "gate_proj up_proj mlp_act down_proj mlp_add final_norm lm_head sampling",
                "activation_write_bytes": "embedding attn_norm q_proj fused_attention out_proj attn_add mlp_norm "
                "gate_proj up_proj mlp_act down_proj mlp_add final_norm lm_head",
                "kv_read_bytes": "fused_attention",
                "kv_write_bytes": "k_proj v_proj",
                "compute_format": "q_proj k_proj v_proj fused_attention out_proj gate_proj up_proj down_proj",
                "matrix_ops": "",
                "vector_ops": "",
            },
        ),
    ],
)
def test_quantization_changes(precision: str, changed: dict[str, str]) -> None:
    """Against 16 bits, quantization changes these columns of these operators and nothing else, in either stage."""
    question = LLAMA_2 | {"attention": "flash"}
    wide = calc.analyze(**question, precision="w16a16kv16", by="operator")
    narrow = calc.analyze(**question, precision=precision, by="operator")
    for column, names in changed.items():
        differs = wide.filter(wide[column] != narrow[column])
        for stage in ("prefill", "decode"):
            assert sorted(differs.filter(stage=stage)["operator"]) == sorted(names.split()), (column, stage)


def total(rows: dict[str, Row], field: str) -> float:
    """Sum one of a row's numbers over all instances."""
    return sum(row.count * getattr(row, field) for row in rows.values())


@pytest.mark.parametrize(("stage", "bound"), [("prefill", "compute"), ("decode", "memory")])
def test_stage(stage: str, bound: str) -> None:
    """A stage is the sum of its operators; its floor lets everything fuse and overlap."""
    rows = {"prefill": LLAMA_2_PREFILL, "decode": LLAMA_2_DECODE}[stage]
    answer = calc.analyze(**LLAMA_2, by="stage")
    assert answer["stage"].to_list() == ["prefill", "decode"]
    got = answer.row(by_predicate=pl.col("stage") == stage, named=True)
    assert got["matrix_ops"] == near(total(rows, "matrix"))
    assert got["vector_ops"] == near(total(rows, "vector"))
    assert got["ops"] == near(total(rows, "matrix") + total(rows, "vector"))
    assert got["weight_bytes"] == near(total(rows, "weight"))
    assert got["activation_read_bytes"] == near(total(rows, "read"))
    assert got["activation_write_bytes"] == near(total(rows, "write"))
    assert got["kv_read_bytes"] == near(total(rows, "kv_read"))
    assert got["kv_write_bytes"] == near(total(rows, "kv_write"))
    assert got["memory_bytes"] == near(total(rows, "memory"))
    assert got["arithmetic_intensity"] == near((total(rows, "matrix") + total(rows, "vector")) / total(rows, "memory"))
    time_s = sum(row.count * row.time_s(A6000) for row in rows.values())
    assert got["compute_s"] == near(sum(row.count * row.compute_s(A6000) for row in rows.values()))
    assert got["memory_s"] == near(total(rows, "memory") / 768e9)
    assert got["time_s"] == near(time_s)
    # the context's cache is touched once: what was there is read, what is new need not be read again
    cache = total(rows, "kv_read")
    assert got["floor_s"] == near(max(total(rows, "matrix") / 154.8e12, (total(rows, "weight") + cache) / 768e9))
    assert got["mfu"] == near(total(rows, "matrix") / (time_s * 154.8e12))
    assert got["mbu"] == near(total(rows, "memory") / (time_s * 768e9))
    assert got["bound"] == bound


def test_stage_in_closed_form() -> None:
    """The sums once more, from the whole model's figures and not from its operators."""
    prefill, decode = calc.analyze(**LLAMA_2, by="stage").iter_rows(named=True)
    # a multiply-add per linear weight and token, the head for 2 positions only, 2 products of 4096·P each per sequence
    linear = 32 * (4 * 4096 * 4096 + 3 * 4096 * 11008)
    assert prefill["matrix_ops"] == near(2 * 1024 * linear + 2 * 2 * 131072000 + 32 * 2 * 2 * 2 * 4096 * 131328)
    assert decode["matrix_ops"] == near(2 * 2 * linear + 2 * 2 * 131072000 + 32 * 2 * 2 * 2 * 4096 * 513)
    # all 6738415616 parameters but the embedding's 131072000, of which only the tokens' rows
    assert prefill["weight_bytes"] == near(2 * (6738415616 - 131072000) + 2 * 1024 * 4096)
    assert decode["weight_bytes"] == near(2 * (6738415616 - 131072000) + 2 * 2 * 4096)
    # 524288 bytes of cache per token: 2 · 32 layers · 4096 · 2 bytes
    assert prefill["kv_write_bytes"] == near(1024 * 524288)
    assert prefill["kv_read_bytes"] == near(1024 * 524288)
    assert decode["kv_write_bytes"] == near(2 * 524288)
    assert decode["kv_read_bytes"] == near(2 * 513 * 524288)


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        ("meta-llama/Llama-2-7b-hf", 6738415616),
        ("meta-llama/Llama-2-13b-hf", 13015864320),
        ("meta-llama/Llama-2-70b-hf", 68976648192),
        ("meta-llama/Meta-Llama-3-8B", 8030261248),
        ("mistralai/Mistral-7B-v0.1", 7241732096),
        ("Qwen/Qwen2.5-7B", 7615616512),
        ("facebook/opt-6.7b", 6658473984),
    ],
)
def test_weight_memory(model: str, parameters: int) -> None:
    """Two bytes for each published parameter, not one more or less."""
    answer = calc.analyze(model, "nvidia_h100_sxm", by="serving")
    assert answer["weight_memory_bytes"].item() == 2 * parameters


@pytest.mark.parametrize(
    ("model", "precision", "size"),
    [
        # linear weights and, in 16 bits, 2·V·h of embedding and head and 65·h of norms
        ("meta-llama/Llama-2-7b-hf", "w4a16kv4", 6476005376 * 0.5 + (2 * 32000 * 4096 + 65 * 4096) * 2),
        ("meta-llama/Llama-2-7b-hf", "w8a8kv8", 6476005376 + (2 * 32000 * 4096 + 65 * 4096) * 2),
        ("meta-llama/Meta-Llama-3-8B", "w4a16kv4", 6979321856 * 0.5 + (2 * 128256 * 4096 + 65 * 4096) * 2),
    ],
)
def test_weight_memory_quantized(model: str, precision: str, size: float) -> None:
    """Quantized: linear weights in the weights' format, all others in 16 bits.

    6476005376 = 32·(4·4096·4096 + 3·4096·11008); 6979321856 = 32·(2·4096·4096 + 2·4096·1024 + 3·4096·14336).
    """
    answer = calc.analyze(model, "nvidia_h100_sxm", precision=precision, by="serving")
    assert answer["weight_memory_bytes"].item() == size


def test_cache_memory() -> None:
    """The cache holds keys and values of every token, in a sliding window no more than its tokens."""
    llama_2_70b = calc.analyze("meta-llama/Llama-2-70b-hf", "nvidia_h100_sxm", by="serving")
    assert llama_2_70b["kv_bytes_per_token"].item() == 327680  # 2 · 80 layers · 8 heads · 128 · 2 bytes
    llama_2_7b = calc.analyze(**LLAMA_2, by="serving")
    assert llama_2_7b["kv_bytes_per_token"].item() == 2 * 32 * 32 * 128 * 2
    assert llama_2_7b["kv_cache_bytes"].item() == 2 * (512 + 128) * 2 * 32 * 32 * 128 * 2
    int4 = calc.analyze(**LLAMA_2, precision="w4a16kv4", by="serving")
    assert int4["kv_cache_bytes"].item() == 2 * (512 + 128) * 2 * 32 * 32 * 128 * 0.5
    mistral = {"model": "mistralai/Mistral-7B-v0.1", "hardware": "nvidia_h100_sxm", "batch": 2, "by": "serving"}
    below = calc.analyze(**mistral, input_len=3000, output_len=300)["kv_cache_bytes"].item()
    assert below == 2 * 3300 * 2 * 32 * 8 * 128 * 2
    beyond = calc.analyze(**mistral, input_len=4000, output_len=300)["kv_cache_bytes"].item()
    assert beyond == 2 * 4096 * 2 * 32 * 8 * 128 * 2


def test_sliding_window() -> None:
    """A window of 4096 bounds the pairs of a prefill of 5000 and what a decode step reads, not the prefill's reads."""
    answer = calc.analyze("mistralai/Mistral-7B-v0.1", "nvidia_h100_sxm", batch=3, input_len=5000, by="operator")
    prefill, decode = answer.filter(operator="fused_attention").iter_rows(named=True)
    # the first 4096 tokens see 1, 2, … 4096 tokens, the other 904 see 4096: 8390656 + 3702784 pairs
    assert prefill["matrix_ops"] == 4 * 3 * 32 * 128 * (8390656 + 3702784)
    assert prefill["vector_ops"] == 5 * 3 * 32 * (8390656 + 3702784)
    assert prefill["kv_read_bytes"] == 2 * 3 * 8 * 5000 * 128 * 2  # min(c, W + q - 1) = 5000
    assert decode["matrix_ops"] == 4 * 3 * 32 * 128 * 4096
    assert decode["kv_read_bytes"] == 2 * 3 * 8 * 4096 * 128 * 2
    # one token short of the window, and at it
    for input_len, attended in ((4094, 4095), (4095, 4096), (4096, 4096)):
        answer = calc.analyze("mistral-7b", "nvidia_h100_sxm", batch=3, input_len=input_len, by="operator")
        decode = answer.row(
            by_predicate=(pl.col("stage") == "decode") & (pl.col("operator") == "fused_attention"), named=True
        )
        assert decode["matrix_ops"] == 4 * 3 * 32 * 128 * attended
        assert decode["kv_read_bytes"] == 2 * 3 * 8 * attended * 128 * 2


# Devices of our own, on which Mistral's attention changes from memory to compute between 4001 and 4096 tokens. Per
# query head and step, d = 128, and 4 query heads share a key/value head:
# - balanced: qk_matmul computes 256·c ops at 1e12; it moves 2·128 + (2·128/4 + 2)·c bytes at 258.06e9: equal where
#   256·0.25806·c = 256 + 66·c, at c = 4040.4; sv_matmul the same
# - slow_vector: the softmax in fused_attention computes 5·c ops at 39.0239e9; it moves 512 + 2·2·128/4·c bytes at
#   1e12: equal where 128.1266·c = 512 + 128·c, at c = 4043.9; its products, 512·c ops at 1e15, are never the longer
OWN_DEVICES = pl.DataFrame(
    {
        "hardware_id": ["balanced", "slow_vector"],
        "name": ["Balanced", "Slow vector unit"],
        "vendor": ["nobody", "nobody"],
        "kind": ["gpu", "gpu"],
        "source_id": ["definition", "definition"],
        "fp16_ops_per_s": [1e12, 1e15],
        "vector_fp32_ops_per_s": [1e12, 39.0239e9],
        "memory_bandwidth_bytes_per_s": [258.06e9, 1e12],
    }
)


QUESTIONS = [
    {"model_id": model, "hardware_id": hardware, "precision": precision, "attention": attention, "batch": batch}
    | {"input_len": input_len, "output_len": output_len}
    for model, hardware, precision, batch, input_len, output_len in [
        ("meta-llama/Llama-2-7b-hf", "nvidia_rtx_a6000", "w16a16kv16", 2, 512, 200),
        ("meta-llama/Meta-Llama-3-8B", "nvidia_h100_sxm", "w16a16kv16", 256, 1, 200),
        ("zai-org/chatglm3-6b", "intel_core_i9_13900k", "w16a16kv2", 256, 10, 200),
        ("mistralai/Mistral-7B-v0.1", "nvidia_rtx_a6000", "w16a16kv16", 8, 4000, 300),
        ("mistralai/Mistral-7B-v0.1", "intel_core_i9_13900k", "w16a16kv16", 512, 4000, 300),
        ("mistralai/Mistral-7B-v0.1", "balanced", "w16a16kv16", 512, 4000, 300),
        ("mistralai/Mistral-7B-v0.1", "slow_vector", "w16a16kv16", 512, 4000, 300),
        ("mistralai/Mistral-7B-v0.1", "slow_vector", "w16a16kv16", 512, 4000, 97),  # ends as the window fills
        ("mistralai/Mistral-7B-v0.1", "slow_vector", "w16a16kv16", 512, 4095, 300),
        ("mistralai/Mistral-7B-v0.1", "slow_vector", "w16a16kv16", 512, 4096, 2),
    ]
    for attention in ("eager", "flash")
]


@pytest.fixture(scope="module")
def closed_form() -> pl.DataFrame:
    """Answer all the questions in closed form."""
    return calc.evaluate(pl.DataFrame(QUESTIONS), by="serving", hardware=OWN_DEVICES).collect()


@pytest.fixture(scope="module")
def brute_force() -> pl.DataFrame:
    """Every decode step of every question, asked on its own: step i is the first one after input + i - 1 tokens."""
    steps = pl.DataFrame(
        [
            question | {"question": number, "input_len": question["input_len"] + i - 1}
            for number, question in enumerate(QUESTIONS)
            for i in range(1, question["output_len"])
        ]
    )
    return calc.evaluate(steps, by="stage", hardware=OWN_DEVICES).filter(pl.col("stage") == "decode").collect()


@pytest.mark.parametrize("number", range(len(QUESTIONS)), ids=lambda n: " ".join(map(str, QUESTIONS[n].values())))
def test_tpot(number: int, closed_form: pl.DataFrame, brute_force: pl.DataFrame) -> None:
    """The closed form of the mean step agrees with the sum over all steps, wherever attention's bound changes."""
    question = QUESTIONS[number]
    got = closed_form.row(number, named=True)
    step_s = brute_force.filter(question=number)["time_s"].to_list()
    assert len(step_s) == question["output_len"] - 1
    assert got["tpot_s"] == near(sum(step_s) / (question["output_len"] - 1), rel=1e-9)
    assert got["e2e_s"] == near(got["ttft_s"] + (question["output_len"] - 1) * got["tpot_s"])
    assert got["output_tokens_per_s"] == near(question["batch"] * question["output_len"] / got["e2e_s"])
    assert got["tokens_per_s_per_user"] == near(1 / got["tpot_s"])


@pytest.mark.parametrize(
    ("model", "hardware", "precision", "operator", "last_memory_bound"),
    [
        # two key/value heads for 32 query heads, 2-bit cache, 2480e9 ops/s and 89.6e9 bytes/s: 256·c ops against
        # 256 + (128/4/16 + 2)·c bytes are equal at c = 48.8, 512·c against 512 + 2·128/4/16·c at c = 35.3
        ("zai-org/chatglm3-6b", "intel_core_i9_13900k", "w16a16kv2", "qk_matmul", 48),
        ("zai-org/chatglm3-6b", "intel_core_i9_13900k", "w16a16kv2", "sv_matmul", 48),
        ("zai-org/chatglm3-6b", "intel_core_i9_13900k", "w16a16kv2", "fused_attention", 35),
        ("mistralai/Mistral-7B-v0.1", "balanced", "w16a16kv16", "qk_matmul", 4040),
        ("mistralai/Mistral-7B-v0.1", "balanced", "w16a16kv16", "sv_matmul", 4040),
        ("mistralai/Mistral-7B-v0.1", "slow_vector", "w16a16kv16", "fused_attention", 4043),
    ],
)
def test_bound_changes(model: str, hardware: str, precision: str, operator: str, last_memory_bound: int) -> None:
    """Attention's bound changes with the context where the two lines cross, so the tests above cover the crossing."""
    grid = calc.scenarios(
        model=model,
        hardware=hardware,
        precision=precision,
        batch=512,
        input_len=[last_memory_bound - 1, last_memory_bound],
        attention="flash" if operator == "fused_attention" else "eager",
    )
    answer = calc.evaluate(grid, by="operator", hardware=OWN_DEVICES).collect()
    rows = answer.filter(stage="decode", operator=operator).sort("input_len")
    assert rows["bound"].to_list() == ["memory", "compute"]


def test_no_step_no_mean() -> None:
    """One token comes from the prefill alone: no decode step, no mean; no token, prefill only."""
    for output_len in (0, 1):
        got = calc.analyze("llama-2-7b", "a6000", output_len=output_len, by="serving").row(0, named=True)
        assert got["tpot_s"] is None
        assert got["tokens_per_s_per_user"] is None
        assert got["e2e_s"] == got["ttft_s"]
