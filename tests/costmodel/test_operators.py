"""Seconds and bytes of each operator of a step against sums written out by hand, all figures primes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from costmodel.arch import read_config
from costmodel.plan.columns import ArchColumns, ClusterColumns, LayoutColumns
from costmodel.plan.exchange_backend import ANY_BACKEND
from costmodel.plan.matrices import rank_matrices
from costmodel.plan.precision import PrecisionColumns
from costmodel.plan.stages import StageTable
from costmodel.step.expert_routing import rank_load
from costmodel.step.memory import Memory, plan_memory
from costmodel.step.operators import StepTime, step_time
from costmodel.step.step_work import decode_work, mean_chunk_context
from tests.costmodel.helpers import BASE, EXPERTS, MLA, TRAITS, cluster, layout
from tests.costmodel.machines import KERNELS, ROW_PASSES, machine, one, prompt_work, seconds

LINEAR = {
    **BASE,
    "layer_types": ["linear_attention"] * 5,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 3,
    "linear_value_head_dim": 5,
    "linear_conv_kernel_dim": 4,
}


def core_s(step: StepTime, layer: str) -> float:
    """Seconds of one layer's attention core; the only thing heard besides norms, which are silent."""
    return float(step.per_layer_s[layer][0])


def test_a_projection() -> None:
    """2 m n k FLOPs; weights, inputs and outputs once through memory."""
    _, m = machine(BASE, "dense_ffn", attn_tp=2)
    step = step_time(m, prompt_work())
    wide, narrow = 2 * 12 / 2, 12 / 2
    up = seconds(2 * 11 * wide * 37, 2 * (wide * 37 + 11 * (wide + 37)))
    down = seconds(2 * 11 * narrow * 37, 2 * (narrow * 37 + 11 * (narrow + 37)))
    assert step.per_layer_s["dense"][0] == pytest.approx(up + down)
    assert step.group_s["dense_ffn"][0] == pytest.approx(5 * (up + down))


def test_the_head_reads_sampled_rows_alone() -> None:
    """Logits of as many rows as are sampled, whatever the step's tokens."""
    _, m = machine(BASE, "lm_head", attn_tp=2)
    step = step_time(m, prompt_work(sampled=3.0))
    assert step.per_layer_s["head"][0] == pytest.approx(seconds(2 * 3 * 22 * 37, 2 * (22 * 37 + 3 * (22 + 37))))


@pytest.mark.parametrize(("tp", "kv_heads"), [(1, 2), (2, 1), (4, 1)])
def test_full_attention(tp: int, kv_heads: int) -> None:
    """4 heads dim FLOPs a pair of tokens; a prompt reads its cache once, decoding reads each sequence's."""
    flops, token_bytes = 4 * 8 / tp * 7, 2 * kv_heads * 7 * 2
    _, m = machine(BASE, "prefill", attn_tp=tp)
    assert core_s(step_time(m, prompt_work()), "full") == pytest.approx(seconds(11 * 17 * flops, 19 * token_bytes))
    _, m = machine(BASE, "decode", attn_tp=tp)
    step = step_time(m, decode_work(one(3), one(101)))
    assert core_s(step, "full") == pytest.approx(seconds(3 * 101 * flops, 3 * 101 * token_bytes))
    assert step.hbm_bytes[0] >= 5 * 3 * 101 * token_bytes


@pytest.mark.parametrize(("context", "seen"), [(101, 13), (11, 11)])
def test_window_attention(context: int, seen: int) -> None:
    """A decoding sequence sees its window at most; a prompt the mean over its positions."""
    config = {**BASE, "model_type": "mistral", "sliding_window": 13}
    flops, token_bytes = 4 * 8 * 7, 2 * 2 * 7 * 2
    _, m = machine(config, "decode")
    step = step_time(m, decode_work(one(3), one(context)))
    assert core_s(step, "window") == pytest.approx(seconds(3 * seen * flops, 3 * seen * token_bytes))
    _, m = machine(config, "prefill")
    step = step_time(m, prompt_work())
    seen_mean = np.mean([min(i + 1, 13) for i in range(29)])
    assert core_s(step, "window") == pytest.approx(seconds(11 * seen_mean * flops, 19 * token_bytes))


def test_latent_attention() -> None:
    """Prompts expand keys and values per head; decoding works on the latent, which every TP rank holds whole."""
    config, latent_bytes = {**BASE, **MLA}, (17 + 29) * 2
    _, m = machine(config, "mla_prefill", attn_tp=4)
    flops = 2 * 8 / 4 * (23 + 29 + 31)
    assert core_s(step_time(m, prompt_work()), "mla") == pytest.approx(seconds(11 * 17 * flops, 19 * latent_bytes))
    _, m = machine(config, "mla_decode", attn_tp=4)
    flops = 2 * 8 / 4 * (2 * 17 + 29)
    step = step_time(m, decode_work(one(3), one(101)))
    assert core_s(step, "mla") == pytest.approx(seconds(3 * 101 * flops, 3 * 101 * latent_bytes))


def test_linear_attention() -> None:
    """A decoding sequence reads and writes a state whose size its context does not change."""
    _, m = machine(LINEAR, "decode", attn_tp=2)
    state = 4 / 2 * 3 * 5
    hand = seconds(3 * 6 * state, 3 * 2 * state * 4)
    for context in (7.0, 7919.0):
        assert core_s(step_time(m, decode_work(one(3), one(context))), "linear") == pytest.approx(hand)
    _, m = machine(LINEAR, "prefill", attn_tp=2)
    flops = 11 * 2 * (6 * 15 + 4 * 64 * (3 + 5))
    moved = 11 * 2 * (3 + 5) * 2 * 2 + 11 / 64 * 2 * 15 * 4
    assert core_s(step_time(m, prompt_work()), "linear") == pytest.approx(seconds(flops, moved))


def test_routed_experts() -> None:
    """Experts hit by chance, rows of the fullest rank, padding by expert hit, weights of those hit."""
    sequences, ranks, held = 5.0, 2, 3
    _, m = machine({**BASE, **EXPERTS}, "experts", pad_rows=7.0, attn_dp=2, moe_ep=2)
    step = step_time(m, decode_work(one(sequences), one(101)))
    tokens = sequences * 2
    rows = tokens * 2 / ranks * rank_load(m.arch.experts[0][1], m.layout, one(tokens), one(0.0))[0]
    hit = held * (1 - np.exp(-tokens * 2 / 6))
    weights = 3 * 10 * 37
    moved = hit * weights * 2 + rows * (ROW_PASSES * 37 + 3 * 10) * 2
    hand = seconds((rows + 7 * hit) * 2 * weights, moved)
    assert step.group_s["experts"][0] == pytest.approx(5 * hand)
    assert step.per_layer_s["moe"][0] == pytest.approx(hand)


def test_expert_slices_carry_fewer_weights() -> None:
    """Cut by moe_tp, a rank holds every expert's slice and computes every row."""
    _, m = machine({**BASE, **EXPERTS}, "experts", attn_tp=2, moe_tp=2)
    step = step_time(m, decode_work(one(5), one(101)))
    hit, weights = 6 * (1 - np.exp(-5 * 2 / 6)), 3 * 5 * 37
    assert step.group_s["experts"][0] == pytest.approx(
        5 * seconds(5 * 2 * 2 * weights, hit * weights * 2 + 10 * (ROW_PASSES * 37 + 15) * 2)
    )


def test_tensor_parallel_all_reduces() -> None:
    """One after attention in each layer and one after each dense network, none in one rank."""
    _, m = machine(BASE, attn_tp=2)
    heard = replace(m, links=replace(m.links, all_reduce_t0_s=one(3), all_reduce_bytes_per_s=one(5)))
    each = 3 + 2 * (1 / 2) * 11 * 37 * 2 / 5
    assert step_time(heard, prompt_work()).group_s["tp_all_reduce"][0] == pytest.approx(5 * 2 * each)
    _, alone = machine(BASE)
    heard = replace(alone, links=heard.links)
    assert step_time(heard, prompt_work()).group_s["tp_all_reduce"][0] == 0.0


def test_stage_sends() -> None:
    """One hand-over for each boundary between stages."""
    _, m = machine(BASE, pp=5)
    heard = replace(m, links=replace(m.links, send_t0_s=one(3), send_bytes_per_s=one(5)))
    step = step_time(heard, prompt_work())
    assert step.send_s[0] == pytest.approx(3 + 11 * 37 * 2 / 5)
    assert step.group_s["pp_send"][0] == pytest.approx(4 * step.send_s[0])


@pytest.mark.parametrize("config", [BASE, {**BASE, **MLA}, {**BASE, **EXPERTS}, LINEAR])
def test_layers_and_groups_are_one_sum(config: dict[str, object]) -> None:
    """Seconds by layer over the model's layers are the seconds by operator group."""
    arch, m = machine(config, *KERNELS, attn_tp=2, **({"moe_ep": 2} if "num_local_experts" in config else {}))
    step = step_time(m, prompt_work(decode_sequences=3.0, decode_context=23.0, sampled=3.0))
    counts = {g.name: g.count for g in arch.groups} | {"head": 1}
    by_layer = sum(float(s[0]) * counts[k] for k, s in step.per_layer_s.items())
    assert by_layer == pytest.approx(sum(float(np.broadcast_to(s, 1)[0]) for s in step.group_s.values()))


def test_worst_stage_by_brute_force() -> None:
    """The heaviest stage of every split, summed stage by stage."""
    random = np.random.default_rng(7)
    arch = read_config({**BASE, **EXPERTS, "num_hidden_layers": 13, "first_k_dense_replace": 3}, name="x")
    for _ in range(50):
        cuts = sorted(random.choice(np.arange(1, 13), size=random.integers(0, 6), replace=False).tolist())
        stages = tuple(int(b - a) for a, b in zip([0, *cuts], [*cuts, 13], strict=True))
        cost = {k: float(random.integers(1, 100)) for k in ("full", "dense", "moe", "embed", "head")}
        sums, start = [], 0
        for i, layers in enumerate(stages):
            part = range(start, start + layers)
            total = sum(cost["full"] + (cost["dense"] if j < 3 else cost["moe"]) for j in part)
            total += cost["embed"] if i == 0 else 0.0
            total += cost["head"] if i == len(stages) - 1 else 0.0
            sums.append(total)
            start += layers
        plan = replace(layout(arch, pp=len(stages)), stage_layers=stages)
        table = StageTable.of([arch], [plan])
        assert table.worst({k: one(v) for k, v in cost.items()})[0] == max(sums), stages


def test_chunked_attention_restarts() -> None:
    """In whole chunks a token sees those before it in its chunk, itself included."""
    seen = np.mean([i % 13 + 1 for i in range(13 * 7)])
    assert mean_chunk_context(one(13 * 7), one(13))[0] == pytest.approx(seen)


def test_the_stage_with_room_for_the_fewest_is_full_first() -> None:
    """Two stages: three light layers with cache, and two heavy ones with less of it, which is full before the other."""
    experts = {**EXPERTS, "moe_intermediate_size": 10_000_000}
    arch = read_config({**BASE, **experts, "first_k_dense_replace": 3}, name="x")
    plan = replace(layout(arch, pp=2), stage_layers=(3, 2))
    archs, layouts = ArchColumns.of([arch]), LayoutColumns.of([plan], [TRAITS["vllm"]])

    def memory(sequences: float) -> Memory:
        return plan_memory(
            arch=archs,
            layout=layouts,
            matrices=rank_matrices(archs, layouts),
            precision=PrecisionColumns.of([arch], ["bf16"]),
            cluster=ClusterColumns.of([cluster("h200", 2, hbm_bytes=40e9)]),
            stages=StageTable.of([arch], [plan]),
            backend=ANY_BACKEND,
            batched_tokens=one(1),
            sequences_per_rank=one(sequences),
            mean_tokens=one(100_003),
            longest_tokens=one(100_003),
            memory_fraction=one(0.9),
            fraction_is_of_free=one(0.0),
        )

    each = 100_003 * 2 * 2 * 7 * 2
    for sequences in (1.0, 100_000.0):
        found = memory(sequences)
        assert found.kv_bytes_per_sequence[0] == 2 * each
        assert found.weights_bytes["experts"][0] == pytest.approx(2 * 6 * 3 * 1e7 * 37 * 2)
        assert found.kv_room_bytes[0] == pytest.approx(0.9 * 40e9 - found.fixed_bytes[0])


@pytest.mark.parametrize("of_free", [0.0, 1.0])
def test_memory_adds_up(of_free: float) -> None:
    """Room is what the fraction leaves, of all memory or of what is free; parts sum to what is fixed."""
    arch = read_config(BASE, name="x")
    plan = layout(arch, pp=2, attn_tp=2)
    archs, layouts = ArchColumns.of([arch]), LayoutColumns.of([plan], [TRAITS["vllm"]])
    memory = plan_memory(
        arch=archs,
        layout=layouts,
        matrices=rank_matrices(archs, layouts),
        precision=PrecisionColumns.of([arch], ["bf16"]),
        cluster=ClusterColumns.of([cluster("h200", 4)]),
        stages=StageTable.of([arch], [plan]),
        backend=ANY_BACKEND,
        batched_tokens=one(53),
        sequences_per_rank=one(3),
        mean_tokens=one(101),
        longest_tokens=one(211),
        memory_fraction=one(0.9),
        fraction_is_of_free=one(of_free),
    )
    attention = 2 * ((8 / 2 + 2) * 7 * 37 + 37 * 8 / 2 * 7)
    dense, norms = 2 * 3 * 12 / 2 * 37, 2 * 2 * 37
    first = 3 * (attention + dense + norms) + 2 * 22 * 37  # three layers and the embedding
    assert memory.weight_bytes[0] == pytest.approx(first)
    assert memory.kv_bytes_per_sequence[0] == 3 * 101 * 2 * 1 * 7 * 2
    assert memory.kv_bytes_longest[0] == 3 * 211 * 2 * 1 * 7 * 2
    fixed = first + memory.activation_bytes[0] + 0.4e9 + 1.6e9
    assert memory.fixed_bytes[0] == pytest.approx(fixed)
    total = cluster("h200").gpu.hbm_bytes
    room = 0.9 * (total - fixed) if of_free else 0.9 * total - fixed
    assert memory.kv_room_bytes[0] == pytest.approx(room)
    assert memory.kv_bytes(one(1e9))[0] == pytest.approx(room)
    assert memory.kv_bytes(one(5))[0] == 5 * memory.kv_bytes_per_sequence[0]
