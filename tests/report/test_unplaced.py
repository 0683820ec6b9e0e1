"""Plans that come behind all that are ranked, and were not all simulated, are not said to break a limit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autotune.report.clusters import cluster_rows, clusters_block, clusters_document
from autotune.report.kinds import kinds_document, kinds_line
from autotune.report.ranked_table import ranked_plans, ranked_table
from autotune.tuning import TuneResult, tune
from autotune.tuning.answer_study import score_plan
from autotune.tuning.simulate_ranking import SimulatedRanking
from tests.tuning.brute import question


@pytest.fixture(scope="module")
def of_one_kind() -> TuneResult:
    """Both kinds of plan keep every limit; those of one kind of replica are left behind, as simulations do."""
    study = question(
        "deepseek-v3",
        cluster={"gpus": 16, "gpu": "h200_sxm", "gpus_per_node": 8},
        workload={"isl": 2003, "osl": 251},
        constraints={"ttft_ms": 2500, "tpot_ms": 40},
        search={"max_num_batched_tokens": [8192], "disaggregated": "auto", "gpus": [24]},
        disaggregation={"pool_gpus_multiple_of": 8},
        engine="sglang",
    )
    result = tune(study)
    pooled = tuple(p for p in result.ranked if p.pools is not None and p.pools.prefill.gpus + p.pools.decode.gpus == 16)
    others = tuple(p for p in result.ranked if p.pools is None)
    assert pooled
    assert others
    ranking = SimulatedRanking(ranked=pooled, behind=(), broken=(), simulated=len(pooled), left=others)
    own = next(p for p in others if p.layout.gpus == 16)
    baseline = score_plan(study, own.plan)
    return replace(result, ranked=pooled, by_percentile=ranking, baseline=replace(baseline, result=own))


def test_a_kind_that_was_not_simulated_is_not_said_to_break_a_limit(of_one_kind: TuneResult) -> None:
    """It is said how many plans of it may keep every limit; where none may, that none does."""
    unplaced = len(of_one_kind.unplaced)
    assert f"{unplaced:,} without come behind" in kinds_line(of_one_kind)
    assert kinds_document(of_one_kind)["best_of_each_kind"]["one_kind_of_replica"] is None
    assert of_one_kind.by_percentile is not None
    none_left = replace(of_one_kind, by_percentile=replace(of_one_kind.by_percentile, left=()))
    assert kinds_line(none_left) == "Pools: only plans with separate pools keep every limit."


def test_a_plan_in_production_behind_the_ranked_has_no_cross(of_one_kind: TuneResult) -> None:
    """It keeps every limit: its place is behind the last; one that breaks a limit has a cross."""
    shown = ranked_plans(of_one_kind, 3)
    rank, plan, role = shown[-1]
    assert (rank, role, plan.feasible) == (None, "base", True)
    cell = ranked_table(of_one_kind, shown).rows[-1].cells[0]
    assert (cell.text, cell.small) == (f"> {len(of_one_kind.ranked):,}", "now")
    broken = replace(plan, feasible=False)
    cell = ranked_table(of_one_kind, [(None, broken, "base")]).rows[0].cells[0]
    assert (cell.text, cell.small) == ("✗", "breaks a limit")


def test_a_cluster_whose_plans_were_not_simulated_is_not_said_to_have_none(of_one_kind: TuneResult) -> None:
    """Its row says that they come behind, and how many there are."""
    small, large = cluster_rows(of_one_kind)
    assert (small.feasible, large.feasible) == (len(of_one_kind.ranked), 0)
    assert large.unplaced > 0
    assert clusters_document(of_one_kind)["clusters"][1]["behind_the_ranked"] == large.unplaced
    block = clusters_block(of_one_kind)
    assert block is not None
    assert block.table is not None
    text = "\n".join(" ".join(cell.text for cell in row.cells) for row in block.table.rows)
    assert "none keeps every limit" not in text
