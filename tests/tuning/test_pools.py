"""Disaggregated plans: the pruned search against joining everything, rate matching, transfer, strings, storage."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autotune.disaggregated.plan_results import disaggregated_plan, pair_results
from autotune.disaggregated.pool_rows import pool_layouts, replica_layouts
from autotune.disaggregated.search import search_pools
from autotune.engines import ENGINES
from autotune.engines.pair_rules import ANY_DEGREE, Degrees, pair_violations
from autotune.report.document import tune_document
from autotune.report.kinds import kinds_line
from autotune.report.ranked_table import ranked_plans
from autotune.report.reach import idle_gpus
from autotune.report.verdict import tune_verdict
from autotune.scoring.dominance import skyband
from autotune.scoring.objective import plan_expected
from autotune.scoring.plan_name import plan_name
from autotune.scoring.plan_order import rank
from autotune.scoring.trial_record import study_header
from autotune.space import enumerate_space
from autotune.space.pool_plan import ALIKE_FRAC, ROLES
from autotune.storage import open_store
from autotune.study import Search, Study, study_from_document
from autotune.tuning import TuneResult, tune
from autotune.tuning.answer_study import score_plan
from autotune.tuning.remedy import find_remedy
from costmodel.arch import load_model
from costmodel.errors import InputError
from costmodel.plan.layout import Layout
from tests.tuning.brute import question

LIMITS = {"ttft_ms": 4000, "tpot_ms": 40}


def asked(
    gpus: int = 16, *, disaggregated: str = "auto", also: Mapping[str, Any] | None = None, **tables: Any
) -> Study:
    """DeepSeek-V3 on a few H200, with pools, of an engine that joins pools with stages."""
    search = {"max_num_batched_tokens": [8192], "disaggregated": disaggregated, **tables.pop("search", {})}
    return question(
        "deepseek-v3",
        cluster={"gpus": gpus, "gpu": "h200_sxm", "gpus_per_node": 8, **(also or {})},
        workload={"isl": 2003, "osl": 251, **tables.pop("workload", {})},
        constraints=tables.pop("constraints", LIMITS),
        search=search,
        disaggregation=tables.pop("disaggregation", {"pool_gpus_multiple_of": 4}),
        engine=tables.pop("engine", "sglang"),
        **tables,
    )


CASES: dict[str, dict[str, Any]] = {
    "limits": {},
    "no limits": {"constraints": {}},
    "tight": {"constraints": {"ttft_ms": 900, "tpot_ms": 22}},
    "infeasible": {"constraints": {"ttft_ms": 20, "tpot_ms": 2}},
    "fastest first token": {"objective": {"minimize": "ttft_s"}},
    "fewest ms per token": {"objective": {"minimize": "tpot_s"}},
    "rate": {"workload": {"request_rate_per_s": 8.0}},
    "in flight": {"workload": {"concurrency": 200}},
    "at most in flight": {"search": {"concurrency": {"min": 1, "max": 150}}},
    "by stage": {"constraints": {**LIMITS, "min_stage_tokens_per_s_per_gpu": 200}},
    "cost": {"objective": {"minimize": "usd_per_million_tokens"}, "prices": {"h200_sxm": 3.0}},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_pruning_loses_nothing_on_16_gpus(case: Mapping[str, Any]) -> None:
    """The best plans are those found by joining every point of every layout with every other, up to ties."""
    study = asked(**json.loads(json.dumps(case)))
    pruned, brute = search_pools(study, keep=12), search_pools(study, keep=12, prune=False)
    assert [p.key for p in pruned.pairs] == pytest.approx([p.key for p in brute.pairs], rel=1e-12)
    assert pruned.plans == brute.plans
    assert pruned.joined <= brute.joined
    found, truth = ({p.plan for p in pair_results(study, s.pairs, home="h200_sxm")} for s in (pruned, brute))
    tied = {p.key for p in brute.pairs if sum(q.key == p.key for q in brute.pairs) > 1} | {brute.pairs[-1].key}
    assert len(found ^ truth) <= 2 * sum(p.key in tied for p in brute.pairs)


@pytest.mark.parametrize("model", ["qwen3-235b", "qwen3.5-397b"])
def test_pair_rules_of_vllm(model: str) -> None:
    """Copied KV heads and recurrent states bar pairs: no plan is one, the best of the others is found, and counted."""
    base = {"cluster": {"gpus": 16, "gpu": "h200_sxm", "gpus_per_node": 8}, "constraints": LIMITS, "engine": "vllm"}
    study = question(
        model,
        workload={"isl": 2003, "osl": 251},
        search={"max_num_batched_tokens": [8192], "disaggregated": "only"},
        disaggregation={"pool_gpus_multiple_of": 8},
        **base,
    )
    pruned, brute = search_pools(study, keep=40), search_pools(study, keep=100_000, prune=False)
    assert [p.key for p in pruned.pairs] == pytest.approx([p.key for p in brute.pairs[:40]], rel=1e-12)
    heads = min(int(a.kv_heads) for a in study.arch.attentions if hasattr(a, "kv_heads"))
    states = any(not hasattr(a, "kv_heads") for a in study.arch.attentions)
    layouts = pool_layouts(study, "vllm", "decode", [8])
    assert layouts == pool_layouts(study, "vllm", "prefill", [8])
    degrees = [c.layout.attn_tp for c in layouts]
    allowed = [(p, d) for p in degrees for d in degrees if (p == d if states else p <= max(d, heads))]
    assert 0 < pruned.plans == len(allowed) < len(degrees) ** 2
    for pair in brute.pairs:
        p, d = pair.prefill.layout_at(pair.prefill_at, 1).attn_tp, pair.decode.layout_at(pair.decode_at, 1).attn_tp
        assert (p, d) in allowed


def test_a_barred_pair_is_refused_by_its_rule() -> None:
    """The plan string of a barred pair has no score, and the rule's name and source."""
    study = question("qwen3-235b", cluster={"gpus": 16, "gpu": "h200_sxm", "gpus_per_node": 8}, engine="vllm")
    resolution, plan = disaggregated_plan(study, "vllm:P8:ATP8/ADP1/EP8+D8:ATP4/ADP2/EP8")
    assert plan is None
    assert [v.rule for v in resolution.violations] == ["nixl_kv_head_copies"]
    assert "base_worker.py" in resolution.violations[0].message
    assert disaggregated_plan(study, "vllm:P8:ATP4/ADP2/EP8+D8:ATP8/ADP1/EP8")[1] is not None


def test_pools_of_vllm_have_one_stage() -> None:
    """No pool of vLLM has pipeline stages, whichever side it is on, and a plan string that asks for them says why."""
    study = question("deepseek-v3", cluster={"gpus": 32, "gpu": "h200_sxm", "gpus_per_node": 8}, engine="vllm")
    for role in ("prefill", "decode"):
        assert {c.layout.pp for c in replica_layouts(study, "vllm", role, [16])} == {1}
    for text in ("vllm:P16:PP2/ATP8/EP8+D16:ADP16/EP16", "vllm:P16:ADP16/EP16+D16:PP2/ATP8/EP8"):
        resolution, plan = disaggregated_plan(study, text)
        assert plan is None
        assert [v.rule for v in resolution.violations] == ["pool_stages"]


def test_decode_pools_of_sglang_hold_whole_prompts() -> None:
    """Ranks that share a prompt's attention are for prefill pools alone."""
    study = question("qwen3-235b", engine="sglang", search={"attn_cp": [1, 2]})
    degrees = {
        role: {c.layout.attn_cp for c in replica_layouts(study, "sglang", role, [8])} for role in ("prefill", "decode")
    }
    assert degrees == {"prefill": {1, 2}, "decode": {1}}


@pytest.mark.parametrize(
    ("model", "stages"), [("qwen3-235b", {1}), ("deepseek-v3", {1}), ("XiaomiMiMo/MiMo-V2-Flash", {1, 2, 4, 8})]
)
def test_two_batches_overlap_in_the_stages_of_few_classes(model: str, stages: set[int]) -> None:
    """SGLang hands two batches the layers of every stage, its own stage's alone in the class of MiMo-V2."""
    search = {"two_batch_overlap": [True]}
    study = question(model, cluster={"gpus": 32, "gpu": "h200_sxm"}, engine="sglang", search=search)
    space = enumerate_space(study.arch, gpus=16, engine="sglang", search=study.search)
    assert {c.layout.pp for c in space.candidates} == stages
    assert ("two_batch_overlap_stages" in space.rejected) is (stages == {1})
    for role in ("prefill", "decode"):
        assert {c.layout.pp for c in replica_layouts(study, "sglang", role, [16])} == stages
    pools = "sglang:P16:PP2/ADP8/EP8/TBO+D16:ADP16/EP16"
    broken = [v.rule for v in disaggregated_plan(study, pools)[0].violations]
    assert broken == (["two_batch_overlap_stages"] if stages == {1} else [])


@pytest.mark.parametrize(("prefill", "decode"), [(16, 24), (24, 16)])
def test_ranks_of_sglang_are_mapped_by_whole_multiples(prefill: int, decode: int) -> None:
    """Pools of 16 and 24 ranks of attention TP are barred by name; of 8 and 24 they are not."""
    arch, rules = load_model("MiniMaxAI/MiniMax-M2.5"), ENGINES["sglang"].pair_rules

    def rules_broken(*degrees: int) -> list[str]:
        neutral = {"replicas": 1, "pp": 1, "attn_dp": 1, "moe_ep": 1, "stage_layers": (arch.num_hidden_layers,)}
        pools = [Layout(**{**neutral, "attn_tp": n, "moe_tp": n}) for n in degrees]  # type: ignore[arg-type]
        return [v.rule for v in pair_violations(rules, arch, *pools)]

    assert rules_broken(prefill, decode) == ["multiple_attention_tp"]
    assert rules_broken(8, 24) == []
    degrees = Degrees(attn_tp=np.array([1, 8, 24]), pp=np.ones(3, dtype=np.int64))
    reach = rules[-1].reach(arch, degrees, prefill=True)
    assert [column.tolist() for column in reach] == [[ANY_DEGREE, 8, 24], [ANY_DEGREE, -8, -24]]
    assert rules[-1].reach(load_model("deepseek-v3"), degrees, prefill=True) == ()


@pytest.mark.parametrize("model", ["qwen3-235b", "deepseek-v3"])
def test_pair_rules_of_sglang(model: str) -> None:
    """Stages of a decode pool are the prefill pool's, and staged prompts go to ranks of the same degree but latents."""
    study = question(
        model,
        engine="sglang",
        cluster={"gpus": 16, "gpu": "b200_sxm", "gpus_per_node": 8},
        constraints=LIMITS,
        workload={"isl": 2003, "osl": 251},
        search={"max_num_batched_tokens": [8192], "disaggregated": "only"},
        disaggregation={"pool_gpus_multiple_of": 8},
    )
    pruned, brute = search_pools(study, keep=40), search_pools(study, keep=100_000, prune=False)
    assert [p.key for p in pruned.pairs] == pytest.approx([p.key for p in brute.pairs[:40]], rel=1e-12)
    latent = model == "deepseek-v3"

    def allowed(p: Layout, d: Layout) -> bool:
        return d.pp in (1, p.pp) and (latent or p.pp == 1 or p.attn_tp == d.attn_tp)

    layouts = [c.layout for c in pool_layouts(study, "sglang", "decode", [8])]
    count = sum(allowed(p, d) for p in layouts for d in layouts)
    assert 0 < pruned.plans == count < len(layouts) ** 2
    for pair in brute.pairs:
        assert allowed(pair.prefill.layout_at(pair.prefill_at, 1), pair.decode.layout_at(pair.decode_at, 1))


def test_each_pair_of_layouts_is_kept_once_with_its_better_dtype() -> None:
    """With two cache dtypes a plan is one result, the better of what it is with either, and none is crowded out."""
    both, *single = (
        search_pools(asked(8, search={"kv_dtype": dtypes}), keep=20) for dtypes in (["bf16", "fp8"], ["bf16"], ["fp8"])
    )
    better: dict[tuple[object, ...], float] = {}
    for pair in (p for found in single for p in found.pairs):
        better[pair.layouts] = max(pair.key, better.get(pair.layouts, -np.inf))
    assert len({p.layouts for p in both.pairs}) == len(both.pairs) == 20
    assert [p.key for p in both.pairs] == sorted(better.values(), reverse=True)[:20]


def test_skyband_keeps_what_few_dominate() -> None:
    """Against the definition, point by point, on small whole numbers with many ties."""
    random = np.random.default_rng(3)
    for layouts in (1, 2, 3):
        points = random.integers(0, 4, (60, 3)).astype(float)
        owner = np.sort(random.integers(0, 12, 60))
        kept = skyband(points, owner, layouts)

        def beats(j: int, i: int, points: Any = points) -> bool:
            at_least = bool((points[j] >= points[i]).all())
            return at_least and (bool((points[j] > points[i]).any()) or j < i)

        alive = [i for i in range(60) if not any(owner[j] == owner[i] and beats(j, i) for j in range(60) if j != i)]
        wanted = [
            i for i in alive if len({int(owner[j]) for j in alive if owner[j] != owner[i] and beats(j, i)}) < layouts
        ]
        assert np.flatnonzero(kept).tolist() == wanted


def test_pools_rank_beside_other_plans() -> None:
    """One ranking, nothing infeasible in it, both kinds in it, and counts that say what was covered."""
    result = tune(asked())
    kinds = {p.pools is None for p in result.ranked}
    assert kinds == {True, False}
    assert all(p.feasible and not p.violations for p in result.ranked)
    assert rank(result.study, result.ranked)[0] == result.ranked
    document = tune_document(result, top=0)
    assert document["complete"]
    assert document["disaggregated"]["pairs_of_layouts"] > 100
    assert document["counts"]["feasible"] == sum("pools" not in p for p in document["plans"] if p["feasible"])
    pooled = next(p for p in document["plans"] if "pools" in p)
    assert pooled["pools"]["prefill"]["gpus"] + pooled["pools"]["decode"]["gpus"] == 16
    assert pooled["pools"]["overlap_frac"] == 0.0
    best, plans = document["best_of_each_kind"], document["plans"]
    for kind, pooled in (("disaggregated", True), ("one_kind_of_replica", False)):
        first = next(plan for plan in plans if ("pools" in plan) is pooled)
        assert best[kind] == {"rank": first["rank"], "plan": first["plan"]}
    assert best[best["better"]]["rank"] == 1
    # the best plans of the other kind have rows, however few are shown, and a sentence names the ranks of both kinds
    second = max(best[kind]["rank"] for kind in ("disaggregated", "one_kind_of_replica"))
    for most in (1, 3):
        shown = ranked_plans(result, most)
        others = [rank for rank, plan, _ in shown if (plan.pools is None) != (result.ranked[0].pools is None)]
        assert others[0] == second
        assert shown[0][0] == 1
    assert len(ranked_plans(result, 5)) == 5
    assert kinds_line(result).count("# ") == 2
    assert f"# {second:,}." in kinds_line(result)


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
def test_pools_are_replicas_repeated(engine: str) -> None:
    """Layouts of one replica, so many times, are all layouts of a pool size that nodes hold whole, in their order."""
    for model in ("deepseek-v3", "llama-3.1-70b"):
        study = question(model, gpus=24, engine=engine, search={"redundant_experts": [0, 32]})
        whole = enumerate_space(study.arch, gpus=24, engine=engine, search=Search(redundant_experts=(0, 32))).candidates
        assert pool_layouts(study, engine, "prefill", [24]) == tuple(
            c
            for c in whole
            if (engine != "vllm" or c.layout.pp == 1) and study.cluster.takes_whole(c.layout.gpus // c.layout.replicas)
        )


@pytest.mark.parametrize(
    ("tables", "expected"),
    [
        ({}, "auto"),
        ({"search": {"disaggregated": "only"}}, "only"),
        ({"search": {"disaggregated": "off"}}, "off"),
        ({"model": "llama-3.1-8b"}, "off"),
        ({"constraints": {"ttft_ms": 2000}}, "off"),
        ({"constraints": {"ttft_ms": 2000, "tpot_ms": 50, "ttft_p99_ms": 4000}}, "auto"),
        ({"constraints": {"ttft_p99_ms": 4000, "tpot_p90_ms": 50}}, "auto"),
        ({"constraints": {"ttft_p99_ms": 4000}}, "off"),
        ({"cluster": {"gpus": 1, "gpu": "h200"}}, "off"),
        ({"disaggregation": {"pool_gpus_multiple_of": 16}}, "off"),
    ],
)
def test_pools_are_looked_at_where_they_may_pay(tables: Mapping[str, Any], expected: str) -> None:
    """Where a study does not say: with experts, and limits on TTFT and TPOT, of means or of percentiles."""
    document = {
        "model": "qwen3-235b",
        "engine": "vllm",
        "cluster": {"gpus": 16, "gpu": "h200"},
        "workload": {"isl": 2003, "osl": 251, "request_rate_per_s": 1.0},
        "constraints": {"ttft_ms": 2000, "tpot_ms": 50},
        **tables,
    }
    assert study_from_document(document, Path("pools.toml")).axes.disaggregated == expected


def test_the_slower_pool_sets_the_rate() -> None:
    """Rate matching: the plan's rate is the smaller of both pools', and Little's law holds over both.

    What both do at their loads differs by rounding alone: the slower one is that which can do less within its limits.
    """
    result = tune(asked(disaggregated="only"))
    for plan in result.ranked:
        pools = plan.pools
        assert pools is not None
        sides = {"prefill": pools.prefill.requests_per_s, "decode": pools.decode.requests_per_s}
        assert plan.metrics["requests_per_s"] == pytest.approx(min(sides.values()), rel=1e-9)
        able = {role: getattr(pools, role).in_time_per_s for role in ROLES}
        assert able[pools.slower] <= min(able.values()) * (1.0 + ALIKE_FRAC)
        assert all(able[role] >= sides[role] * (1.0 - 1e-9) for role in ROLES)
        m, outputs = plan.metrics, 251 - 1
        inside = m["requests_per_s"] * (m["ttft_s"] + outputs * m["tpot_s"])
        assert plan.knobs.concurrency == max(round(inside), 1)


def test_transfer_is_part_of_the_first_token() -> None:
    """TTFT has the cache's way over the link: bytes over bandwidth, less what overlaps; all of it stated."""
    text = "vllm:P8:R1/ATP1/ADP8/EP8+D8:R1/ATP1/ADP8/EP8"

    def transfer(**table: Any) -> tuple[float, float, float]:
        rate = {"request_rate_per_s": 4.0}  # else a quicker transfer leaves room for more requests
        found = score_plan(asked(workload=rate, disaggregation={"link_gb_per_s": 10.0, **table}), text).result
        assert found is not None
        assert found.pools is not None
        return found.pools.transfer_s, found.pools.kv_bytes_per_request, found.metrics["ttft_s"]

    plain, held, first = transfer()
    assert plain == pytest.approx(held / 10e9, rel=1e-12)
    assert held == pytest.approx(2003 * 61 * (512 + 64) * 2, rel=1e-12)  # MLA's latent in bf16, whole prompt on a rank
    hidden, _, sooner = transfer(overlap_frac=0.75)
    assert hidden == pytest.approx(plain / 4.0, rel=1e-12)
    assert first - sooner == pytest.approx(plain * 0.75, rel=0.05)
    assert any("overlap_frac not given: 0" in text for text in asked().assumptions)


def test_pools_of_two_gpu_types() -> None:
    """All GPUs of both types are used, and strings and costs name the type that is not the cluster's."""
    study = asked(8, also={"also": [{"gpus": 16, "gpu": "h100_sxm"}]}, prices={"h200_sxm": 3.0, "h100_sxm": 2.0})
    pooled = [p for p in tune(study).ranked if p.pools is not None]
    mixed = next(p for p in pooled if p.pools is not None and p.pools.prefill.gpu != p.pools.decode.gpu)
    sides = (mixed.pools.prefill, mixed.pools.decode)  # type: ignore[union-attr]
    assert {(s.gpu, s.gpus) for s in sides} == {("h200_sxm", 8), ("h100_sxm", 16)}
    assert "@h100_sxm" in mixed.plan
    assert "@h100_sxm" in plan_name(mixed, dense=False)
    hourly = 8 * 3.0 + 16 * 2.0
    by_hand = hourly / 3600.0 / mixed.metrics["total_tokens_per_s"] * 1e6
    assert mixed.metrics["usd_per_million_tokens"] == pytest.approx(by_hand, rel=1e-12)


def test_gpus_of_the_other_type_count_as_owned() -> None:
    """Without an objective plans are ranked by what all that is there serves, and GPUs left idle are named."""
    study = asked(8, also={"also": [{"gpus": 16, "gpu": "h100_sxm"}]})
    assert study.objective.metric == "total_tokens_per_s"
    assert asked(8).objective.metric == "total_tokens_per_s_per_gpu"
    result = tune(study)
    first, most = result.ranked[0], max(p.metrics["total_tokens_per_s"] for p in result.ranked)
    assert idle_gpus(study, first) == ""
    assert first.metrics["total_tokens_per_s"] == pytest.approx(most, rel=0.1)
    idle = {idle_gpus(study, p) for p in result.ranked if p.metrics["gpus"] == 8}
    assert idle == {"It leaves 16 x h100_sxm idle."}
    one_type = replace(result, ranked=[p for p in result.ranked if idle_gpus(study, p)])
    assert "It leaves 16 x h100_sxm idle." in tune_verdict(one_type, "first").lines


def test_a_name_of_pools_means_its_pair() -> None:
    """The name of every plan is that of no other, and means the same plan, whichever pools are on the other GPUs."""
    also = {"also": [{"gpus": 16, "gpu": "b200_sxm"}]}
    result = tune(asked(16, disaggregated="only", also=also, workload={"request_rate_per_s": 4.0}))
    names = [plan_name(plan, dense=False, several_engines=True) for plan in result.ranked]
    assert len(set(names)) == len(names)
    types = {tuple(side.gpu for side in (p.pools.prefill, p.pools.decode)) for p in result.ranked if p.pools}
    assert ("b200_sxm", "b200_sxm") in types
    for gpus in sorted(types):
        plan, name = next(
            (p, name)
            for p, name in zip(result.ranked, names, strict=True)
            if p.pools and (p.pools.prefill.gpu, p.pools.decode.gpu) == gpus
        )
        again = score_plan(result.study, name).result
        assert again is not None
        assert again.plan == plan.plan


def test_a_plan_string_means_its_pair() -> None:
    """Scoring a plan by its own string gives the plan of the search."""
    result = tune(asked(disaggregated="only"))
    for plan in result.ranked[:6]:
        again = score_plan(result.study, plan.plan).result
        assert again is not None
        assert again.plan == plan.plan
        assert plan_expected(result.study, again) >= plan_expected(result.study, plan) * (1 - 1e-9)
    with pytest.raises(InputError, match="pools must use the 16 GPUs"):
        score_plan(result.study, "P8:EP8+D4:EP4")


def test_pools_come_from_the_storage(tmp_path: Path) -> None:
    """A second run searches nothing; one that lost some of the plans searches again and ends the same."""
    study = asked()

    def run() -> TuneResult:
        store = open_store(tmp_path / "j.log", study_header(study))
        return tune(study, store)

    first, second = run(), run()
    assert second.scored_now == 0
    plans = [p.plan for p in first.ranked]
    assert [p.plan for p in second.ranked] == plans
    lines = (tmp_path / "j.log").read_text().splitlines(keepends=True)
    at = max(i for i, line in enumerate(lines) if "disaggregated_plans" in line)
    (tmp_path / "j.log").write_text("".join(line for i, line in enumerate(lines) if i != at))
    assert [p.plan for p in run().ranked] == plans


def test_a_wider_link_never_hurts() -> None:
    """More bandwidth between the pools: no plan's first token comes later."""
    slow = {p.plan: p for p in tune(asked(disaggregated="only", disaggregation={"link_gb_per_s": 5.0})).ranked}
    study = asked(disaggregated="only", disaggregation={"link_gb_per_s": 500.0})
    assert slow
    best = [plan_expected(replace(study), p) for p in (next(iter(slow.values())), tune(study).ranked[0])]
    assert best[1] >= best[0]


def test_a_gpu_count_that_holds_no_two_pools_has_none() -> None:
    """Beside counts that do: the answer is theirs and that of plans without pools."""
    search = {"disaggregated": "auto", "gpus": [1, 2, 4], "max_num_batched_tokens": [8192]}
    study = question("qwen3-30b-a3b", cluster={"gpus": 2, "gpu": "h20"}, search=search)
    result = tune(study)
    assert {round(p.metrics["gpus"]) for p in result.ranked if p.pools is not None} <= {2, 4}
    assert {round(p.metrics["gpus"]) for p in result.ranked if p.pools is None} == {1, 2, 4}


def test_too_few_gpus_are_said_beside_pools_too() -> None:
    """Where neither kind of plan holds the model, the answer says how many GPUs do."""
    study = question(
        "deepseek-v3", cluster={"gpus": 4, "gpu": "h200"}, constraints=LIMITS, search={"disaggregated": "auto"}
    )
    found = find_remedy(tune(study))
    assert "weights take" in (found.too_large or "")
    assert found.fewest_gpus is not None
    assert found.fewest_gpus > 4
