"""Every operator, memory term and collective against a sum written out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from costmodel.arch import read_config
from costmodel.arch.ffn import Experts
from costmodel.plan.columns import ArchColumns, ClusterColumns, LayoutColumns
from costmodel.plan.matrices import rank_matrices
from costmodel.plan.placement import Placement
from costmodel.plan.precision import PrecisionColumns
from costmodel.plan.stages import StageTable, layer_kinds, maximal_stages, stage_counts
from costmodel.step.collectives import Exchange, Links, all_reduce, gather, pipeline_send
from costmodel.step.expert_routing import popularity, popularity_cv2, rank_load
from costmodel.step.kernel_laws import Rate
from costmodel.step.memory import activation_bytes, kv_sequence_bytes, weight_bytes_by_layer
from costmodel.step.step_work import mean_context, mean_window_context
from tests.costmodel.helpers import BASE, EXPERTS, MLA, TRAITS, cluster, layout


def columns(config: dict[str, object], engine: str = "vllm", **degrees: int) -> tuple[ArchColumns, LayoutColumns]:
    """Columns of one plan of one model."""
    arch = read_config(config, name="x")
    return ArchColumns.of([arch]), LayoutColumns.of([layout(arch, **degrees)], [TRAITS[engine]])


def _first(value: object) -> float:
    """The number of the first plan."""
    return float(np.asarray(value).reshape(-1)[0])


def shapes(config: dict[str, object], **degrees: int) -> dict[tuple[str, str], tuple[float, float, float]]:
    """(n, k, count) of every matrix of a rank."""
    arch, plan = columns(config, **degrees)
    return {(m.layer, m.name): (_first(m.n), _first(m.k), _first(m.count)) for m in rank_matrices(arch, plan)}


def test_grouped_query_matrices() -> None:
    """Queries are split over TP; key and value heads too, and replicated once there are too few."""
    two, four = shapes(BASE, attn_tp=2), shapes(BASE, attn_tp=4)
    assert two["full", "qkv_proj"] == ((8 / 2 + 2 * 2 / 2) * 7, 37, 1)
    assert four["full", "qkv_proj"] == ((8 / 4 + 2 * 1) * 7, 37, 1)
    assert two["full", "o_proj"] == (37, 8 / 2 * 7, 1)
    assert two["dense", "up_proj"] == (2 * 12 / 2, 37, 1)
    assert two["dense", "down_proj"] == (37, 12 / 2, 1)
    assert two["head", "lm_head"] == (44 / 2, 37, 1)


def test_mla_matrices() -> None:
    """Latents lie whole on each rank, heads are split."""
    two = shapes({**BASE, **MLA}, attn_tp=2)
    assert two["mla", "qkv_a_proj"] == (19 + 17 + 29, 37, 1)
    assert two["mla", "q_b_proj"] == (8 / 2 * (23 + 29), 19, 1)
    assert two["mla", "kv_b_proj"] == (8 / 2 * (23 + 31), 17, 1)
    assert two["mla", "o_proj"] == (37, 8 / 2 * 31, 1)


def test_expert_matrices() -> None:
    """A rank holds its experts, each cut by moe_tp; an uneven share rounds up."""
    found = shapes({**BASE, **EXPERTS}, attn_dp=4, moe_ep=4)
    assert found["moe", "experts"] == (3 * 10, 37, 2)
    assert shapes({**BASE, **EXPERTS}, attn_tp=2, moe_tp=2)["moe", "experts"] == (3 * 10 / 2, 37, 6)
    assert found["moe", "router"] == (6, 37, 1)


def test_linear_matrices() -> None:
    """Gated delta net: queries and keys, values and output gate, two gates a value head; a convolution."""
    linear = {
        **BASE,
        "num_hidden_layers": 1,
        "layer_types": ["linear_attention"],
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 3,
        "linear_value_head_dim": 5,
        "linear_conv_kernel_dim": 4,
    }
    found = shapes(linear, attn_tp=2)
    assert found["linear", "in_proj"] == ((2 * 6 + 2 * 20 + 2 * 4) / 2, 37, 1)
    assert found["linear", "conv"] == ((2 * 6 + 20) / 2, 4, 1)
    assert found["linear", "o_proj"] == (37, 20 / 2, 1)


def test_roofline() -> None:
    """Start time, the longer of the two, and the unhidden share of the shorter."""
    one = np.ones(1)
    rate = Rate(
        t0_s=3 * one,
        flops_per_s=5 * one,
        bytes_per_s=7 * one,
        overlap_loss=0.25 * one,
        pad_rows=0 * one,
        row_passes=0 * one,
        peak_flops_per_s=11 * one,
        peak_bytes_per_s=13 * one,
    )
    assert rate.seconds(np.array([100.0]), np.array([70.0]))[0] == 3 + 100 / 5 + 0.25 * 70 / 7
    assert rate.seconds(np.array([10.0]), np.array([70.0]))[0] == 3 + 70 / 7 + 0.25 * 10 / 5
    twice = rate.slowed(2 * one, one, one)
    assert twice.seconds(np.array([100.0]), np.array([70.0]))[0] == 2 * (3 + 20 + 2.5)
    apart = rate.slowed(2 * one, 1.5 * one, 0.5 * one)
    assert apart.seconds(np.array([100.0]), np.array([70.0]))[0] == pytest.approx(2 * (3 + 1.5 * 20 + 0.5 * 2.5))
    # made faster than physics allows, a law stops at its bound
    quick = rate.slowed(0.1 * one, one, one)
    assert (quick.flops_per_s[0], quick.bytes_per_s[0]) == pytest.approx((0.92 * 11, 0.95 * 13))


LINKS = Links(
    **{
        name: np.array([value])
        for name, value in {
            "all_reduce_t0_s": 2.0,
            "all_reduce_rank_s": 3.0,
            "all_reduce_bytes_per_s": 5.0,
            "exchange_t0_s": 7.0,
            "exchange_bytes_per_s": 11.0,
            "normal_t0_s": 13.0,
            "remote_t0_s": 17.0,
            "remote_hop_s": 19.0,
            "remote_bytes_per_s": 23.0,
            "send_t0_s": 29.0,
            "send_bytes_per_s": 31.0,
        }.items()
    }
)


def _one(value: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array([float(value)])


def test_all_reduce() -> None:
    """In one domain a ring's bytes; across domains each rank carries its share."""
    inside = 2 + 3 * 2 + 2 * 3 / 4 * 60 / 5
    assert all_reduce(LINKS, _one(4), _one(1)).seconds(_one(60))[0] == pytest.approx(inside)
    between = 2 * (17 + 19 * 1) + 2 * (1 / 2) * 60 / 4 / 23
    assert all_reduce(LINKS, _one(8), _one(2)).seconds(_one(60))[0] == pytest.approx(inside + between)
    assert all_reduce(LINKS, _one(1), _one(1)).seconds(_one(60))[0] == 0.0


def test_gather() -> None:
    """Half an all-reduce's bytes, one phase."""
    assert gather(LINKS, _one(4), _one(1)).seconds(_one(60))[0] == pytest.approx(7 + 3 / 4 * 60 / 11)
    both = 7 + 3 / 4 * 60 / 11 + 17 + 19 * 1 + (1 / 2) * 60 / 4 / 23
    assert gather(LINKS, _one(8), _one(2)).seconds(_one(60))[0] == pytest.approx(both)


def _placed(engine: str, gpus: int = 64, **degrees: int) -> tuple[LayoutColumns, Placement, ArchColumns]:
    arch, plan = columns({**BASE, **EXPERTS, "num_attention_heads": 16, "num_key_value_heads": 16}, engine, **degrees)
    machines = ClusterColumns.of([cluster("h200", gpus)])
    return plan, Placement.of(plan, machines), arch


def test_expert_exchange_in_one_domain() -> None:
    """DeepEP low latency: a copy per expert that another rank holds, out and back."""
    plan, placed, _ = _placed("sglang", attn_dp=4, moe_ep=4)
    seconds = Exchange.of(LINKS, plan, placed, _one(2), _one(2), _one(1)).seconds(_one(1000), _one(1))[0]
    volume = 1000 / 4 * (1 + 2)
    low = 2 * 7 + 2 * (3 / 4) * volume / 11
    ranks_hit = 4 * (1 - (3 / 4) ** 2) * 3 / 4
    normal = 2 * 7 + 2 * 13 + ranks_hit * volume / 11
    gathered = 2 * 7 + 3 / 4 * 1000 * (1 + 2) / 11
    assert seconds == pytest.approx(min(low, normal, gathered))


def test_expert_exchange_across_domains() -> None:
    """Throughput kernels send one copy per domain; low latency one per expert; the NIC carries what leaves."""
    plan, placed, _ = _placed("sglang", attn_dp=16, moe_ep=16)
    assert placed.stage_domains[0] == 2
    seconds = Exchange.of(LINKS, plan, placed, _one(2), _one(2), _one(1)).seconds(_one(1e6), _one(1))[0]
    volume = 1e6 / 16 * (1 + 2)
    start = 2 * 7 + 2 * (17 + 19)
    domain_copies = 2 * (1 - (1 / 2) ** 2) * (1 / 2)
    rank_copies = 16 * (1 - (15 / 16) ** 2) * 15 / 16
    normal = start + 2 * 13 + max(rank_copies * volume / 11, domain_copies * volume / 23)
    low = start + max(2 * 15 / 16 * volume / 11, 2 * (1 / 2) * volume / 23)
    assert seconds == pytest.approx(min(low, normal))


def test_expert_exchange_without_attention_dp() -> None:
    """All ranks hold all tokens: partial sums are all-reduced over the stage."""
    plan, placed, _ = _placed("vllm", attn_tp=4, moe_ep=4)
    seconds = Exchange.of(LINKS, plan, placed, _one(2), _one(2), _one(1)).seconds(_one(10), _one(1))[0]
    assert seconds == pytest.approx(all_reduce(LINKS, _one(4), _one(1)).seconds(_one(20))[0])


def test_pipeline_send() -> None:
    """Each TP rank hands over its slice, through the NIC where stages lie in different domains."""
    plan, placed, _ = _placed("sglang", pp=2, attn_tp=4, moe_tp=4)
    assert pipeline_send(LINKS, plan, placed).seconds(_one(124))[0] == pytest.approx(29 + 31 / 31)
    plan, placed, _ = _placed("sglang", pp=4, attn_tp=4, moe_tp=4)
    assert pipeline_send(LINKS, plan, placed).seconds(_one(92))[0] == pytest.approx(29 + 17 + 23 / 23)


def test_rank_order_decides_which_links_a_stage_crosses() -> None:
    """vLLM keeps TP blocks together and puts pipeline stages between them; SGLang keeps a stage together."""
    _, vllm, _ = _placed("vllm", pp=2, attn_tp=4, attn_dp=4, moe_ep=16)
    _, sglang, _ = _placed("sglang", pp=2, attn_tp=4, attn_dp=4, moe_ep=16)
    assert (vllm.stage_local[0], vllm.stage_domains[0]) == (4, 4)
    assert (sglang.stage_local[0], sglang.stage_domains[0]) == (8, 2)
    assert (vllm.pp_crosses[0], sglang.pp_crosses[0]) == (0, 1)


def test_cache_of_one_sequence() -> None:
    """KV heads replicated beyond their number, windows capped, latents whole, linear state fixed."""
    arch, plan = columns(BASE, attn_tp=4)
    precision = PrecisionColumns.of([read_config(BASE, name="x")], ["bf16"])
    assert kv_sequence_bytes(arch, plan, precision, _one(101))["full"][0] == 101 * 2 * 1 * 7 * 2
    arch, plan = columns({**BASE, **MLA}, attn_tp=4)
    assert kv_sequence_bytes(arch, plan, precision, _one(101))["mla"][0] == 101 * (17 + 29) * 2
    arch, plan = columns({**BASE, **MLA}, attn_tp=4, dcp=2)
    assert kv_sequence_bytes(arch, plan, precision, _one(102))["mla"][0] == 102 / 2 * (17 + 29) * 2
    window = {**BASE, "model_type": "mistral", "sliding_window": 13}
    arch, plan = columns(window)
    assert kv_sequence_bytes(arch, plan, precision, _one(101))["window"][0] == 13 * 2 * 2 * 7 * 2
    assert kv_sequence_bytes(arch, plan, precision, _one(11))["window"][0] == 11 * 2 * 2 * 7 * 2


def test_weights_of_a_rank() -> None:
    """What a rank's matrices weigh, by kind."""
    config = {**BASE, **EXPERTS}
    arch, plan = columns(config, attn_tp=2, moe_ep=2)
    precision = PrecisionColumns.of([read_config(config, name="x")], ["bf16"])
    found = weight_bytes_by_layer(arch, rank_matrices(arch, plan), precision, plan)
    assert found["attention"]["full"][0] == 2 * ((8 / 2 + 2 * 2 / 2) * 7 * 37 + 37 * 8 / 2 * 7)
    assert found["experts"]["moe"][0] == 2 * 3 * (3 * 10 * 37)
    assert found["embedding"]["embed"][0] == 2 * 44 / 2 * 37


def test_activations() -> None:
    """The residual stream twice, the widest operator, and the logits of a full batch."""
    arch, plan = columns(BASE, attn_tp=2)
    widest = max(8 * 7 * 3 / 2, 1.5 * 2 * 12 / 2)
    hand = 53 * (2 * 37 + widest) * 2 + 3 * 44 * 6
    assert activation_bytes(arch, plan, _one(53), _one(3))[0] == pytest.approx(hand)


def test_stages() -> None:
    """Counts per stage sum to the model; only stages that none contains can be the worst."""
    arch = read_config({**BASE, **EXPERTS, "first_k_dense_replace": 2}, name="x")
    counts = stage_counts(arch, (3, 2))
    assert layer_kinds(arch) == ("full", "dense", "moe", "embed", "head")
    assert counts.sum(axis=0).tolist() == [5, 2, 3, 1, 1]
    assert counts[0].tolist() == [3, 2, 1, 1, 0]
    assert len(maximal_stages(arch, (1, 1, 1, 1, 1))) == 2  # first dense with the embedding, last with the head
    table = StageTable.of([arch], [layout(arch, pp=2)])
    cost = {"full": _one(2), "dense": _one(3), "moe": _one(50), "head": _one(7), "embed": _one(1)}
    assert table.worst(cost)[0] == max(3 * 2 + 2 * 3 + 1 * 50 + 1, 2 * 2 + 2 * 50 + 7)


@pytest.mark.parametrize(("tokens", "window"), [(13, 5), (5, 13), (8, 8), (101, 7)])
def test_mean_keys_seen(tokens: int, window: int) -> None:
    """Means over the positions of a prompt, counted one by one."""
    assert mean_context(_one(tokens), _one(3))[0] == np.mean([3 + i + 1 for i in range(tokens)])
    sliding = np.mean([min(i + 1, window) for i in range(tokens)])
    assert mean_window_context(_one(tokens), _one(window))[0] == pytest.approx(sliding)


def test_uneven_experts() -> None:
    """Balanced routing has no spread; a power law has; redundant copies take from the hottest first."""
    assert popularity_cv2(8, 0.0) == pytest.approx(0.0)
    share = np.array([1.0, 0.5, 1 / 3, 0.25])
    share /= share.sum()
    assert popularity(4, 1.0) == pytest.approx(share)
    assert sorted(popularity(4, 1.0, 1)) == pytest.approx(sorted([share[0] / 2, share[0] / 2, *share[1:]]))
    arch, plan = columns({**BASE, **EXPERTS}, attn_dp=2, moe_ep=2)
    spread = 0.09 / 3 + 1 / (1000 * 2 / 2)
    hand = 1 + np.sqrt(spread * 0.5 * 2 * np.log(2))
    (_, experts), *rest = arch.experts
    assert isinstance(experts, Experts)
    assert not rest
    assert rank_load(experts, plan, _one(1000), _one(0.09))[0] == pytest.approx(hand)
