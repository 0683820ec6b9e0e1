"""Matrices, cache and kernels of every kind of attention against sums written out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from costmodel.arch.attention import INDEX_BYTES, Attention, AttentionKind, Compressed, GroupedQuery, Latent
from costmodel.arch.block import ONE_RANK, Block, Cut, Shards
from costmodel.arch.ffn import Dense, Experts
from costmodel.arch.recurrent import Linear, StateSpace
from costmodel.step.attention_cores import DECODE_CORE, INDEXER, PROMPT_CORE, SCAN_CHUNK, attention_kernels
from tests.costmodel.helpers import BASE
from tests.costmodel.machines import machine, one, prompt_work

HIDDEN = 37
TWO = Shards(attn_tp=2)
"""Two shards of attention heads."""
MAMBA_2 = StateSpace(kind=AttentionKind.SSM, heads=6, key_dim=5, value_dim=3, conv=4, groups=2, state_bytes=4)
MAMBA_1 = StateSpace(kind=AttentionKind.SSM, heads=18, key_dim=5, value_dim=1, conv=4, dt_rank=7)
KIMI_DELTA = Linear(
    kind=AttentionKind.LINEAR,
    heads=4,
    key_heads=4,
    key_dim=5,
    value_dim=5,
    conv=4,
    gate=4,
    gate_rank=3,
    gate_factored=40,
    gate_pairs=2,
)
SPARSE = GroupedQuery(
    kind=AttentionKind.SPARSE, heads=8, kv_heads=2, head_dim=7, value_dim=7, index_heads=3, index_dim=5, index_topk=13
)
FACTORED = GroupedQuery(kind=AttentionKind.FULL, heads=8, kv_heads=2, head_dim=7, value_dim=5, q_rank=11, gate=40)
BORROWED = GroupedQuery(kind=AttentionKind.FULL, heads=8, kv_heads=2, head_dim=7, value_dim=7, own_keys=0, own_values=0)
SPARSE_LATENT = Latent(
    kind=AttentionKind.SPARSE_MLA,
    heads=8,
    q_rank=19,
    kv_rank=17,
    nope_dim=23,
    rope_dim=29,
    value_dim=31,
    index_heads=3,
    index_dim=5,
    index_topk=13,
)
WINDOW_LATENT = Latent(
    kind=AttentionKind.WINDOW_MLA, heads=8, q_rank=0, kv_rank=17, nope_dim=23, rope_dim=29, value_dim=31, window=13
)
COMPRESSED = Compressed(
    kind=AttentionKind.COMPRESSED,
    heads=8,
    head_dim=7,
    q_rank=19,
    output_groups=2,
    output_rank=11,
    window=13,
    ratio=4,
    overlap=1,
    index_heads=3,
    index_dim=5,
    index_topk=9,
)
NARROW = Compressed(
    kind=AttentionKind.COMPRESSED, heads=8, head_dim=7, q_rank=19, output_groups=2, output_rank=11, window=13
)

SHAPES: dict[str, tuple[Block, dict[str, tuple[float, float]]]] = {
    "mamba-2": (
        MAMBA_2,
        {"in_proj": ((2 * 18 + 2 * 2 * 5 + 6) / 2, 37), "conv": ((18 + 2 * 2 * 5) / 2, 4), "o_proj": (37, 9)},
    ),
    "mamba-1": (
        MAMBA_1,
        {"in_proj": (18, 37), "conv": (9, 4), "o_proj": (37, 9), "x_proj": (7 + 2 * 5, 9), "dt_proj": (9, 7)},
    ),
    "kimi delta": (
        KIMI_DELTA,
        {
            "in_proj": ((3 * 20 + 4) / 2, 37),
            "conv": (60 / 2, 4),
            "o_proj": (37, 10),
            "gate_a_proj": (2 * 3, 37),
            "gate_b_proj": (40 / 2, 3),
        },
    ),
    "sparse": (SPARSE, {"qkv_proj": (4 * 7 + 2 * 7, 37), "o_proj": (37, 28), "index_proj": (3 * 5 + 5, 37)}),
    "factored queries and a gate": (
        FACTORED,
        {"qkv_proj": (11 + 1 * (7 + 5) + 40 / 2, 37), "q_b_proj": (4 * 7, 11), "o_proj": (37, 4 * 5)},
    ),
    "another layer's cache": (BORROWED, {"qkv_proj": (4 * 7, 37), "o_proj": (37, 4 * 7)}),
    "sparse latent": (
        SPARSE_LATENT,
        {
            "qkv_a_proj": (19 + 17 + 29, 37),
            "q_b_proj": (4 * 52, 19),
            "kv_b_proj": (4 * 54, 17),
            "o_proj": (37, 4 * 31),
            "index_q_proj": (3 * 5, 19),
            "index_k_proj": (5 + 3, 37),
        },
    ),
    "compressed": (
        COMPRESSED,
        {
            "qkv_a_proj": (19 + 7, 37),
            "q_b_proj": (4 * 7, 19),
            "o_a_proj": (2 * 11 / 2, 8 * 7 / 2),
            "o_proj": (37, 2 * 11 / 2),
            "compress_proj": (2 * 2 * (7 + 5) + 3, 37),
            "index_q_proj": (15, 19),
        },
    ),
    "a window of keys that are values": (
        NARROW,
        {"qkv_a_proj": (19 + 7, 37), "q_b_proj": (28, 19), "o_a_proj": (11, 28), "o_proj": (37, 11)},
    ),
    "experts between latents": (
        Experts(experts=6, top_k=2, width=10, input_width=14, shared_width=12),
        {
            "router": (6, 37),
            "experts": (30, 14),
            "up_proj": (2 * 6, 37),
            "down_proj": (37, 6),
            "latent_down_proj": (14, 37),
            "latent_up_proj": (37, 14),
        },
    ),
    "experts of other modalities": (
        Experts(experts=6, top_k=2, width=10, other_experts=4, other_width=8),
        {"router": (6, 37), "experts": (30, 37), "other_experts": (24, 37)},
    ),
    "a second embedding": (
        Dense(width=12, side_width=5),
        {"up_proj": (12, 37), "down_proj": (37, 6), "side_gate_proj": (10, 37), "side_proj": (37, 5)},
    ),
}


@pytest.mark.parametrize("kind", SHAPES)
def test_matrices(kind: str) -> None:
    """Outputs and inputs of every matrix that one of two ranks holds."""
    block, expected = SHAPES[kind]
    found = {m.name: (float(np.asarray(m.n)), float(np.asarray(m.k))) for m in block.matrices(HIDDEN, TWO)}
    assert found == {name: pytest.approx(shape) for name, shape in expected.items()}


@pytest.mark.parametrize(
    ("block", "cut", "tokens", "expected"),
    [
        (MAMBA_2, TWO, 101, 3 * 5 * 3 * 4 + (18 + 20) / 2 * 3 * 2),
        (MAMBA_1, TWO, 101, 9 * 5 * 1 * 2 + 18 / 2 * 3 * 2),
        (KIMI_DELTA, ONE_RANK, 7, 4 * 25 * 4 + 60 * 3 * 2),
        (SPARSE, TWO, 101, 101 * (1 * 14 + 5) * 2),
        (BORROWED, TWO, 101, 0),
        (SPARSE_LATENT, TWO, 101, 101 * (46 * 2 + 5 * INDEX_BYTES)),
        (WINDOW_LATENT, TWO, 101, 13 * 46 * 2),
        (WINDOW_LATENT, TWO, 11, 11 * 46 * 2),
        (COMPRESSED, TWO, 100, 13 * 7 * 2 + 25 * (7 * 2 + 5 * INDEX_BYTES)),
        (NARROW, ONE_RANK, 100, 13 * 7 * 2),
    ],
)
def test_cache_of_a_sequence(block: Attention, cut: Cut, tokens: int, expected: float) -> None:
    """Bytes of one layer on one rank with two bytes a value: what grows, what a window holds, what stays."""
    assert float(np.asarray(block.cache_bytes(tokens, cut, 2.0, 2.0))) == pytest.approx(expected)


def _kernels(block: Block, **decoding: float) -> dict[str, tuple[float, float]]:
    """FLOPs and bytes of each kernel on one of two ranks, of the prompts' work and of decoding sequences."""
    _, m = machine(BASE, attn_tp=2)
    work = prompt_work(**decoding) if decoding else prompt_work()
    return {
        k.name: (float(np.asarray(k.flops).reshape(-1)[0]), float(np.asarray(k.hbm_bytes).reshape(-1)[0]))
        for k in attention_kernels(block, m, work)
    }


def _decoding(sequences: float, context: float) -> dict[str, float]:
    return {
        "decode_sequences": sequences,
        "decode_context": context,
        "decode_tokens": 1.0,
    }


def _mean_seen(window: int, length: int = 29) -> float:
    return float(np.mean([min(i + 1, window) for i in range(length)]))


def test_a_state_is_read_and_written() -> None:
    """A decoding sequence moves its state twice and multiplies it three times, whatever its length."""
    found = _kernels(MAMBA_2, **_decoding(3, 101))
    assert found[DECODE_CORE] == pytest.approx((3 * 6 * 3 * 15, 3 * 2 * 3 * 15 * 4))
    flops = 11 * 3 * (6 * 15 + 4 * SCAN_CHUNK * 8)
    assert found[PROMPT_CORE] == pytest.approx((flops, 11 * 3 * 8 * 2 * 2 + 11 / SCAN_CHUNK * 3 * 15 * 4))
    assert _kernels(MAMBA_2, **_decoding(3, 9_999))[DECODE_CORE] == found[DECODE_CORE]


def test_sparse_attention_reads_what_its_index_picks() -> None:
    """13 tokens are attended to of 101, whose index keys are all scored."""
    found = _kernels(SPARSE, **_decoding(3, 101))
    token_bytes, flops = 2 * 1 * 7 * 2, 4 * 4 * 7
    assert found[DECODE_CORE] == pytest.approx((3 * 13 * flops, 3 * 13 * token_bytes))
    assert found[PROMPT_CORE] == pytest.approx((11 * 13 * flops, 19 * token_bytes))
    scored, read = 11 * 17 + 3 * 101, 19 + 3 * 101
    assert found[INDEXER] == pytest.approx((scored * 2 * 3 * 5, read * 5 * INDEX_BYTES))


def test_sparse_latents() -> None:
    """The same over latents, expanded for prompts and absorbed for decoding."""
    found = _kernels(SPARSE_LATENT, **_decoding(3, 101))
    assert found[PROMPT_CORE] == pytest.approx((11 * 13 * 2 * 4 * (23 + 29 + 31), 19 * 46 * 2))
    assert found[DECODE_CORE] == pytest.approx((3 * 13 * 2 * 4 * (2 * 17 + 29), 3 * 13 * 46 * 2))
    assert INDEXER in found


def test_latents_over_a_window() -> None:
    """A prompt sees its window's mean, a decoding sequence at most the window; there is no index."""
    found = _kernels(WINDOW_LATENT, **_decoding(3, 101))
    assert found[PROMPT_CORE] == pytest.approx((11 * _mean_seen(13) * 2 * 4 * 83, 19 * 46 * 2))
    assert found[DECODE_CORE] == pytest.approx((3 * 13 * 2 * 4 * 63, 3 * 13 * 46 * 2))
    assert INDEXER not in found


def test_compressed_entries() -> None:
    """A window of tokens and at most nine of the entries of four tokens; each score reads an entry's index key."""
    found = _kernels(COMPRESSED, **_decoding(3, 101))
    assert found[DECODE_CORE] == pytest.approx((3 * (13 + 9) * 4 * 4 * 7, 3 * (13 + 9) * 7 * 2))
    assert found[PROMPT_CORE] == pytest.approx((11 * (_mean_seen(13) + 17 / 4) * 4 * 4 * 7, 19 / 4 * 7 * 2))
    scored, read = 11 * 17 + 3 * 101, 19 + 3 * 101
    assert found[INDEXER] == pytest.approx((scored / 4 * 2 * 3 * 5, read / 4 * 5 * INDEX_BYTES))
    alone = _kernels(NARROW, **_decoding(3, 101))
    assert alone[DECODE_CORE] == pytest.approx((3 * 13 * 4 * 4 * 7, 3 * 13 * 7 * 2))


def test_a_borrowed_cache_is_read_all_the_same() -> None:
    """A layer without keys of its own caches nothing and reads another layer's."""
    own = GroupedQuery(kind=AttentionKind.FULL, heads=8, kv_heads=2, head_dim=7, value_dim=7)
    assert _kernels(BORROWED, **_decoding(3, 101)) == _kernels(own, **_decoding(3, 101))
    assert one(0.0)[0] == float(np.asarray(BORROWED.cache_bytes(101, ONE_RANK, 2.0, 2.0)))
