"""Which nodes a graph has and what joins them: counts and sums by hand."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import networkx
import numpy as np
import pytest

from autotune.engines import traits_by_name
from autotune.graph import COLLAPSES, InvalidPlanError, PlanGraph, plan_graph
from autotune.graph.program import ReplicaRanks
from costmodel.arch.attention import GroupedQuery
from costmodel.errors import InputError
from costmodel.plan.layout import Layout
from tests.graph.plans import DEEPSEEK, LLAMA, QWEN, REFERENCE, random_plans, study


def _counts(graph: PlanGraph) -> Counter[str]:
    return Counter(graph.tasks[t].name for t in graph.nodes.task)


def test_reference_decode_by_hand() -> None:
    """2 micro-batches, 2 stages of 8 MoE layers on 16 GPUs in 4 TP groups each: every kind of node counted."""
    graph = plan_graph(study(REFERENCE))
    counts = _counts(graph)
    each_layer = 2 * 16
    assert graph.micro_batches == 2
    assert counts["qkv_proj"] == counts["experts"] == each_layer * 16
    assert counts["tp_all_reduce"] == each_layer * 4
    assert counts["ep_dispatch"] + counts["dp_gather"] == each_layer
    assert counts["ep_combine"] + counts["dp_scatter"] == each_layer
    assert counts["pp_send"] == 2 * 16
    assert counts["lm_head"] == 2 * 16
    assert counts["host"] == 2 * 32


def test_drafted_tokens_are_drawn() -> None:
    """With speculative decoding a step runs the drafted tokens of each sequence as well, and the schedule agrees."""
    about = "workload.concurrency=64"
    plain = plan_graph(study(REFERENCE, about))
    drafting = plan_graph(study(REFERENCE, about, "speculative={draft_tokens=3,accepted_per_step=2}"))
    assert any(a.startswith("4 tokens (the last one and the drafted ones) for each") for a in drafting.assumptions)
    assert any(a.startswith("one token for each") for a in plain.assumptions)
    assert abs(drafting.gap_frac) < 0.05
    flops = [next(t.flops for t in g.tasks if t.name == "qkv_proj") for g in (plain, drafting)]
    assert flops[1] > 2.0 * flops[0]


def test_a_prompt_alone_is_the_same_under_every_load() -> None:
    """2,000 tokens are two chunks of a budget of 1,024, whatever else its server does: what is drawn is one prompt."""
    budget = "search.max_num_batched_tokens=[1024]"
    drawn = [
        plan_graph(study(LLAMA, f"workload.request_rate_per_s={rate}", budget), "R2 PP2 TP4", "prefill")
        for rate in (0.2, 8, 12)
    ]
    assert {g.micro_batches for g in drawn} == {2}
    assert {g.scheduled_step_s for g in drawn} == {drawn[0].scheduled_step_s}
    assert any("in 2 chunks of 1000 tokens" in said for said in drawn[0].assumptions)


def test_flops_of_a_dense_prompt() -> None:
    """Kernels of all ranks do 2 FLOPs per token and weight of a layer: the model's parameters come back."""
    isl = 1024
    asked = study(
        QWEN,
        "model=llama-3.1-8b",
        "cluster.gpus=8",
        f"workload.isl={isl}",
        f"workload.longest_prompt={isl}",
        "workload.prefix_cache_hit_frac=0",
        "workload.concurrency=1",
        "search.max_num_batched_tokens=[513]",
    )
    graph = plan_graph(asked, "TP4/PP2", "prefill")
    dense = ("qkv_proj", "o_proj", "up_proj", "down_proj")
    done = sum(graph.tasks[t].flops for t in graph.nodes.task if graph.tasks[t].name in dense)
    arch = asked.arch
    (attention,), (network,) = arch.attentions, arch.dense_shapes
    assert isinstance(attention, GroupedQuery)
    heads = (2 * attention.heads + 2 * attention.kv_heads) * attention.head_dim
    layer = arch.hidden_size * (heads + 3 * network.width)
    assert graph.micro_batches == 2
    assert done == pytest.approx(2 * isl * layer * arch.num_hidden_layers)


@pytest.mark.parametrize(
    ("engine", "second_stage"), [("vllm", [2, 3, 6, 7]), ("sglang", [4, 5, 6, 7]), ("trtllm", [4, 5, 6, 7])]
)
def test_rank_order_of_the_engines(engine: str, second_stage: list[int]) -> None:
    """vLLM puts attention-DP outermost, so that a DP rank's stages are neighbours; the others keep stages whole."""
    layout = Layout(replicas=1, pp=2, attn_tp=2, attn_dp=2, moe_tp=1, moe_ep=4, stage_layers=(1, 1))
    assert ReplicaRanks.of(layout, traits_by_name()[engine]).gpu[1].tolist() == second_stage


def test_collectives_join_their_whole_group() -> None:
    """Every rank of a TP group feeds its all-reduce and waits for it; an exchange does so for the stage."""
    for asked, plan, phase in random_plans(seed=3, count=12):
        graph = plan_graph(asked, plan, phase)
        after: dict[int, list[int]] = {}
        for source, target in zip(graph.edges.source.tolist(), graph.edges.target.tolist(), strict=True):
            after.setdefault(target, []).append(source)
        for node in np.flatnonzero(graph.nodes.group >= 0).tolist():
            group = graph.groups[graph.nodes.group[node]]
            feeding = {r for s in after[node] for r in _ranks(graph, s)}
            assert feeding >= set(group.ranks if group.kind != "send" else group.ranks[:1])
            stages = {graph.ranks[r].stage for r in group.ranks}
            assert len({graph.ranks[r].replica for r in group.ranks}) == 1
            assert len(stages) == (2 if group.kind == "send" else 1)


def _ranks(graph: PlanGraph, node: int) -> tuple[int, ...]:
    group = graph.nodes.group[node]
    return graph.groups[group].ranks if group >= 0 else (int(graph.nodes.rank[node]),)


def test_a_prompt_is_one_attention_dp_ranks_work() -> None:
    """In prefill attention runs on the first DP rank's GPUs alone, experts on all."""
    graph = plan_graph(study(REFERENCE), phase="prefill")
    on = {
        name: {graph.ranks[r].index for t, r in zip(graph.nodes.task, graph.nodes.rank, strict=True) if t == i}
        for i, name in enumerate(t.name for t in graph.tasks)
    }
    assert on["qkv_proj"] == {0, 1, 2, 3}
    assert on["experts"] == set(range(16))


def test_replicas_share_nothing() -> None:
    """Two replicas are two components of equal size, the second one's ranks 32 further on."""
    one, two = (plan_graph(study(REFERENCE), replicas=n) for n in (1, 2))
    joined = networkx.Graph(zip(two.edges.source.tolist(), two.edges.target.tolist(), strict=True))
    parts = list(networkx.connected_components(joined))
    assert [len(p) for p in parts] == [one.num_nodes, one.num_nodes]
    assert two.scheduled_step_s == one.scheduled_step_s
    assert {r.replica for r in two.ranks[32:]} == {1}


@pytest.mark.parametrize("collapse", COLLAPSES)
@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_collapsed_views(collapse: str, phase: str) -> None:
    """A view keeps the step, the sums of FLOPs and bytes, and has no cycle; it is small."""
    asked = study(REFERENCE, "search.max_num_batched_tokens=[8192]")
    whole, view = (plan_graph(asked, phase=phase, collapse=c) for c in (None, collapse))
    assert view.scheduled_step_s == whole.scheduled_step_s
    assert float(view.end_s.max()) == whole.scheduled_step_s
    for name in ("flops", "hbm_bytes", "message_bytes"):
        sums = [sum(getattr(g.tasks[t], name) for t in g.nodes.task) for g in (whole, view)]
        assert sums[1] == pytest.approx(sums[0])
    graph = networkx.DiGraph(zip(view.edges.source.tolist(), view.edges.target.tolist(), strict=True))
    assert networkx.is_directed_acyclic_graph(graph)
    assert graph.number_of_nodes() == view.num_nodes
    if collapse == "layer":
        # a node per layer, a host node per stage, a send and the head, of each micro-batch
        assert view.num_nodes == view.micro_batches * (16 + 2 + 1 + 1)
    assert view.num_nodes < whole.num_nodes / 2


def test_wrong_arguments() -> None:
    """Every problem at once, with its name and value."""
    with pytest.raises(InputError, match=r"(?s)phase: .*'train'.*collapse: .*'node'.*replicas: must be from 1 to .* 4"):
        plan_graph(study(REFERENCE), phase="train", collapse="node", replicas=5)
    with pytest.raises(InputError, match="micro_batches: must be at least 1, got 0"):
        plan_graph(study(REFERENCE), micro_batches=0)
    with pytest.raises(InputError, match="cannot read 'nonsense'"):
        plan_graph(study(REFERENCE), "nonsense")
    with pytest.raises(InputError, match=r"\$\.baseline: the study has none"):
        plan_graph(replace(study(REFERENCE), baseline=None))
    with pytest.raises(InputError, match="micro_batches: the graph of 32 GPUs has about"):
        plan_graph(study(REFERENCE), micro_batches=1_000_000)


def test_invalid_plan_names_the_rule() -> None:
    """A plan that the engine refuses is no graph: the rule is in the exception."""
    with pytest.raises(InvalidPlanError, match="attention_dp_all_or_nothing") as caught:
        plan_graph(study(REFERENCE, "engine=trtllm"), "EP16/PP2/TP4/DP4")
    assert [v.rule for v in caught.value.violations] == ["attention_dp_all_or_nothing"]


def test_long_prompts_are_cut_to_what_can_be_drawn() -> None:
    """A prompt in hundreds of chunks is drawn in fewer, and says so; each chunk costs the same."""
    asked = study(
        DEEPSEEK,
        "engine=any",
        "workload.isl=100000",
        "workload.longest_prompt=100000",
        "search.max_num_batched_tokens=[512]",
    )
    graph = plan_graph(asked, "sglang:R2/PP1/ATP64/ADP1/MTP1/EP64", "prefill", micro_batches=2)
    assert graph.micro_batches == 2
    assert any("2 micro-batches are drawn where the step has 196" in a for a in graph.assumptions)
    assert graph.gap_frac == pytest.approx(0.0, abs=0.05)
