"""What a study may open beside the layout: GPU counts and types, costs, dtypes, speculation, layers per stage."""

from __future__ import annotations

import json
from itertools import combinations, pairwise
from math import isclose
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autotune.report.answer import tune_report
from autotune.report.document import tune_document
from autotune.report.terminal import print_report
from autotune.scoring.objective import plan_expected
from autotune.scoring.stage_split import balanced_splits, best_split
from autotune.scoring.trial_record import study_header
from autotune.space import format_plan, parse_plan
from autotune.storage import open_store
from autotune.study import Study, cluster_of
from autotune.tuning import TuneResult, tune
from autotune.tuning.answer_study import score_plan
from costmodel.errors import InputError
from costmodel.plan.stages import layer_kinds, stage_counts
from tests.tuning.brute import question

LIMITS = {"ttft_ms": 3000, "tpot_ms": 40}


def asked(search: dict[str, Any] | None = None, **tables: Any) -> Study:
    """A small study with some axes opened."""
    base = {"max_num_batched_tokens": [2048], **(search or {})}
    return question(search=base, constraints=LIMITS, **tables)


def _by_plan(result: TuneResult) -> dict[str, dict[str, float]]:
    return {p.plan: dict(p.metrics) for p in (*result.ranked, *result.infeasible)}


def test_gpu_counts_are_the_union_of_their_studies() -> None:
    """Every plan of every count is scored as in a study of that count alone, and none is left out."""
    together = tune(asked({"gpus": [4, 8, 16]}))
    assert together.complete
    alone: dict[str, dict[str, float]] = {}
    for gpus in (4, 8, 16):
        most = {"concurrency": {"min": 1, "max": 1024 * 16}}
        alone |= _by_plan(tune(asked(most, cluster={"gpus": gpus, "gpu": "h100_sxm", "gpus_per_node": 4})))
    assert _by_plan(together) == alone


def test_gpu_types_compete_side_by_side() -> None:
    """Plans of another type carry its name, cost what a study of it says, and stand in one ranking."""
    result = tune(asked({"gpu": ["h200_sxm"]}))
    other = tune(asked(cluster={"gpus": 8, "gpu": "h200_sxm"}))
    theirs = {k.partition("@")[0]: v for k, v in _by_plan(result).items() if k.endswith("@h200_sxm")}
    assert theirs == _by_plan(other)
    values = [plan_expected(result.study, p) for p in result.ranked]
    assert values == sorted(values, reverse=True)
    document = tune_document(result, top=0)
    assert [c["gpu"] for c in document["clusters"]] == ["h100_sxm", "h200_sxm"]
    assert {c["feasible"] for c in document["clusters"]} == {
        sum(p.gpu is None for p in result.ranked),
        sum(p.gpu == "h200_sxm" for p in result.ranked),
    }


def test_fewest_gpus_that_keep_the_limits() -> None:
    """With a rate to serve, the first plan has the least count on which any plan keeps it, and the document says so."""
    table = {
        "workload": {"isl": 1009, "osl": 211, "request_rate_per_s": 60.0},
        "objective": {"minimize": "gpus"},
    }
    counts = [2, 4, 8, 16]
    result = tune(asked({"gpus": counts}, **table))
    enough = [
        n for n in counts if tune(asked(cluster={"gpus": n, "gpu": "h100_sxm", "gpus_per_node": 4}, **table)).ranked
    ]
    assert 2 not in enough
    assert result.ranked[0].layout.gpus == min(enough)
    assert tune_document(result, top=1)["fewest_gpus"] == {"h100_sxm": min(enough)}
    sizes = [p.layout.gpus for p in result.ranked]
    assert sizes == sorted(sizes)
    same = [p for p in result.ranked if p.layout.gpus == sizes[0]]
    useful = [p.metrics["total_tokens_per_s_per_gpu"] * p.p_meets for p in same]
    assert useful == sorted(useful, reverse=True)


def test_cost_per_million_tokens_ranks() -> None:
    """Price of all GPUs over tokens, and the cheapest type wins whatever its speed."""
    prices = {"h100_sxm": 2.0, "h200_sxm": 2000.0}
    result = tune(asked({"gpu": ["h200_sxm"]}, prices=prices, objective={"minimize": "usd_per_million_tokens"}))
    for plan in result.ranked:
        per_hour = prices[plan.gpu or "h100_sxm"] * 8
        by_hand = per_hour / (plan.metrics["total_tokens_per_s"] * 3600.0) * 1e6
        assert isclose(plan.metrics["usd_per_million_tokens"], by_hand, rel_tol=1e-12)
    types = [p.gpu for p in result.ranked]
    assert types[0] is None
    assert "h200_sxm" in types
    assert types.index("h200_sxm") == types.count(None)


def test_a_cost_needs_prices() -> None:
    """Every type without a price is named."""
    with pytest.raises(InputError, match=r"\$\.prices\.h100_sxm.*must be given"):
        asked(objective={"minimize": "usd_per_million_tokens"})


def test_clusters_that_a_study_does_not_open() -> None:
    """A plan on other GPUs, or on another number of them, is an error that says what there is."""
    study = asked({"gpus": [4], "gpu": ["h200_sxm"]})
    assert cluster_of(study, "h200_sxm", 4).gpus == 4
    for text, message in (("TP8@b200_sxm", "names GPUs that the study does not open"), ("R2/TP8", "exactly 8 GPUs")):
        with pytest.raises(InputError, match=message):
            score_plan(study, text)


def test_plan_strings_with_a_gpu_type() -> None:
    """The full string of every plan of every cluster means that plan."""
    result = tune(asked({"gpus": [4], "gpu": ["h200_sxm"]}))
    for plan in result.ranked[::7]:
        found = score_plan(result.study, plan.plan).resolution.candidate
        assert (found.layout, found.engine, found.gpu) == (plan.layout, plan.engine, plan.gpu)
        assert format_plan(plan.layout, plan.engine, plan.gpu) == plan.plan
    with pytest.raises(InputError, match="must name a GPU type after @"):
        parse_plan("TP8@")


@pytest.mark.parametrize(
    ("name", "values", "model"),
    [
        ("redundant_experts", [0, 8], "deepseek-v3"),
        ("two_batch_overlap", [False, True], "deepseek-v3"),
        ("attn_cp", [1, 2], "deepseek-v3"),
        ("dcp", [1, 2], "deepseek-v3"),
        ("weight_dtype", ["bf16", "fp8"], "mixtral-8x7b"),
        ("kv_dtype", ["bf16", "fp8"], "mixtral-8x7b"),
    ],
)
def test_every_axis_reaches_the_ranking(name: str, values: list[Any], model: str) -> None:
    """Each value of an opened axis is among the plans scored, and opening it never makes the best plan worse."""
    gpus = 16 if model == "deepseek-v3" else 8
    cluster = {"gpus": gpus, "gpu": "h200_sxm"}
    base, open_ = (
        tune(question(model, cluster=cluster, search={"max_num_batched_tokens": [2048], **s}))
        for s in ({}, {name: values})
    )
    document = tune_document(open_, top=0)
    where = "knobs" if name.endswith("dtype") else "layout"
    found = {p[where].get(name, values[0]) for p in document["plans"]}
    assert found <= set(values)
    if where == "layout":
        assert found == set(values)  # of dtypes each plan keeps its best
    assert open_.complete
    best = [plan_expected(r.study, r.ranked[0]) for r in (base, open_)]
    assert best[1] >= best[0] * (1 - 1e-12)


def test_speculative_decoding_by_hand() -> None:
    """Twice the tokens of a step, half the time per token; drafts that are never right only cost."""

    def tpot(**given: Any) -> float:
        table = {"speculative": given} if given else {}
        study = question(
            workload={"isl": 64, "osl": 4001, "concurrency": 32},
            search={"max_num_batched_tokens": [2048], "min_p_meets": 0.0},
            **table,
        )
        scored = score_plan(study, "TP8").result
        assert scored is not None
        return scored.metrics["tpot_s"]

    plain = tpot()
    never, twice, drafted = (
        tpot(draft_tokens=3, accepted_per_step=a, draft_frac=f) for a, f in ((1.0, 0.0), (2.0, 0.0), (2.0, 0.5))
    )
    assert never > plain
    assert twice == pytest.approx(never / 2.0, rel=0.02)
    assert drafted == pytest.approx(twice * 1.5, rel=0.1)
    assert drafted > twice


def test_speculation_is_said() -> None:
    """What no run measured stands among the assumptions."""
    study = asked(speculative={"draft_tokens": 2, "accepted_per_step": 1.8})
    assert any("no speculative run was measured" in text for text in study.assumptions)
    assert any(text.startswith("speculative.draft_frac not given: 0.1 ") for text in study.assumptions)


def _compositions(layers: int, stages: int) -> list[tuple[int, ...]]:
    return [tuple(np.diff([0, *cuts, layers]).tolist()) for cuts in combinations(range(1, layers), stages - 1)]


def test_best_split_is_exact() -> None:
    """No composition of the layers has a lighter worst stage, whatever the layers cost."""
    random = np.random.default_rng(11)
    for case in range(60):
        layers, kinds = int(random.integers(2, 11)), int(random.integers(1, 3))
        costs = random.exponential(1.0, (kinds, layers)) if case % 2 else random.integers(0, 4, (kinds, layers)) * 1.0
        costs[:, -1] += 2.0
        for stages in range(1, layers + 1):
            worst = {
                split: max(float(costs[:, a:b].sum(axis=1).max()) for a, b in _spans(split))
                for split in _compositions(layers, stages)
            }
            found = best_split(costs, stages)
            assert worst[found] <= min(worst.values()) * (1 + 1e-9) + 1e-12, (costs, stages)


def _spans(split: tuple[int, ...]) -> list[tuple[int, int]]:
    ends = np.cumsum([0, *split]).tolist()
    return list(pairwise(ends))


def test_balanced_stages_are_chosen() -> None:
    """Splits beside the engine's own compete: DeepSeek's dense first layers and head leave the ends fewer or more."""
    cluster = {"gpus": 32, "gpu": "h200_sxm"}
    search = {"max_num_batched_tokens": [4096]}
    study = question("deepseek-v3", cluster=cluster, search={**search, "stage_layers": "balanced"})
    plain = tune(question("deepseek-v3", cluster=cluster, search=search))
    result = tune(study)
    assert result.complete
    assert plan_expected(study, result.ranked[0]) >= plan_expected(study, plain.ranked[0])
    own = [p for p in result.ranked if "SPLIT" in p.plan]
    assert own
    assert all(sum(p.layout.stage_layers) == 61 and len(p.layout.stage_layers) == p.layout.pp for p in own)
    assert not balanced_splits(study, [c for c in plain.space.candidates if c.layout.pp == 1])
    best = {}
    for p in (p for p in result.ranked if p.layout.pp > 1):
        key = (p.engine, p.layout.replicas, p.layout.pp, p.layout.attn_tp, p.layout.attn_dp, p.layout.moe_ep)
        best.setdefault(key, p)
    assert any("SPLIT" in p.plan for p in best.values())
    dense_first = stage_counts(study.arch, (3, 58))
    assert dense_first[0, layer_kinds(study.arch).index("dense")] == 3  # the layers that make an even split uneven


def test_axes_are_resumed(tmp_path: Path) -> None:
    """A second run on the same storage scores nothing and gives the same document."""
    study = asked({"gpus": [4], "gpu": ["h200_sxm"]}, prices={"h100_sxm": 2.0, "h200_sxm": 3.0})

    def run() -> TuneResult:
        store = open_store(tmp_path / "j.log", study_header(study))
        return tune(study, store)

    first, second = run(), run()
    assert second.scored_now == 0
    one, two = (
        {k: v for k, v in tune_document(r, top=0).items() if k not in ("scored_now", "storage")}
        for r in (first, second)
    )
    assert json.dumps(one, sort_keys=True) == json.dumps(two, sort_keys=True)


def test_the_table_shows_clusters_and_costs() -> None:
    """A row per cluster, the fewest GPUs, and the cost of a million tokens."""
    from io import StringIO

    from rich.console import Console

    study = asked({"gpus": [4], "gpu": ["h200_sxm"]}, prices={"h100_sxm": 2.0, "h200_sxm": 3.0})
    out = StringIO()
    print_report(Console(file=out, width=170), tune_report(tune(study), top=3))
    text = out.getvalue()
    for shown in ("Clusters side by side", "4 x h200_sxm", "8 x h100_sxm", "USD/Mtok", "Fewest of h200_sxm"):
        assert shown in text


def test_clusters_on_a_page_and_in_place() -> None:
    """The page draws a ranking by GPU count; in place is the baseline's cluster alone, and says so."""
    from autotune.comparison import compare
    from autotune.report.html.tune import tune_page
    from autotune.study import in_place

    table = {
        "workload": {"isl": 1009, "osl": 211, "request_rate_per_s": 20.0},
        "objective": {"minimize": "gpus"},
        "baseline": {"plan": "TP8"},
    }
    study = asked({"gpus": [4, 16], "disaggregated": "auto"}, **table)
    page = tune_page(tune(study), None)
    assert "GPUs" in page
    own = in_place(study)
    assert own.objective.metric == "total_tokens_per_s_per_gpu"
    assert sum("left out here" in text or "throughput per GPU here" in text for text in own.assumptions) == 3
    both = compare(study, candidate="R2/TP4", scenarios=False)
    assert both.study.objective.metric == "gpus"
    pooled = compare(study, candidate="P4:TP4+D4:TP4", scenarios=False)
    assert pooled.candidate is not None
    assert pooled.candidate.plan == "vllm:P4:R1/PP1/ATP4/ADP1/MTP4/EP1+D4:R1/PP1/ATP4/ADP1/MTP4/EP1"
    assert not any("disaggregated is left out" in text for text in pooled.assumptions)


def test_a_sample_says_nothing_of_what_it_left_out() -> None:
    """With few of the plans scored, clusters without a feasible one are not said to have none."""
    from io import StringIO

    from rich.console import Console

    study = asked({"gpus": [4, 16], "gpu": ["h200_sxm"], "trials": 3})
    result = tune(study)
    assert not result.complete
    out = StringIO()
    print_report(Console(file=out, width=200), tune_report(result, top=3))
    assert "as far as was sampled" in out.getvalue()
    assert "none keeps every limit" not in out.getvalue()
    assert "none sampled keeps every limit" in out.getvalue()
