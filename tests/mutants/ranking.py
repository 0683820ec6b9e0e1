"""Mistakes in what plans are held against, ranked by and compared by."""

from __future__ import annotations

from tests.mutants.change import Change, changes_of

RANKING: tuple[Change, ...] = (
    *changes_of(
        "autotune/scoring/objective.py",
        ("figures[metric.name] * p_meets if", "figures[metric.name] if"),
        ("figures[COST] / np.maximum(p_meets, 1e-300)", "figures[COST] * p_meets"),
        ("figures[GPUS] - useful / (1.0 + useful)", "figures[GPUS] + useful / (1.0 + useful)"),
        ("np.lexsort((-gain, worst, owners))", "np.lexsort((gain, worst, owners))"),
        ("for limit in limits]].max(axis=0)", "for limit in limits]].min(axis=0)"),
        ("tier + own, out)", "own, out)"),
    ),
    *changes_of(
        "autotune/scoring/limits.py",
        ("np.where(carried, out, out * normal_cdf(", "np.where(carried, out, normal_cdf("),
        ('metric="ttft_longest_s"', 'metric="ttft_s"'),
    ),
    *changes_of(
        "autotune/scoring/solve_concurrency.py",
        ("(estimate.kv_wait_s <= 0.0) & likely & check.kept()", "(estimate.kv_wait_s <= 0.0) & check.kept()"),
        ("np.ceil(asked.min / replicas)", "np.floor(asked.min / replicas)"),
    ),
    *changes_of(
        "autotune/scoring/knob_grid.py",
        ("self.offered_per_s * CARRIED", "self.offered_per_s * 0.9"),
    ),
    *changes_of(
        "autotune/scoring/best_knobs.py",
        ("min(layout.replicas, concurrency) / layout.attn_dp", "min(layout.replicas, concurrency)"),
    ),
    *changes_of(
        "autotune/scoring/joint_uncertainty.py",
        ("else values / self.throughput_factor", "else values * self.throughput_factor"),
        ("TOLD_APART = 0.8", "TOLD_APART = 0.5"),
    ),
    *changes_of(
        "autotune/scoring/dominance.py",
        ("at_least &= theirs >= own", "at_least &= theirs > own"),
        ("sum(axis=1) < owners", "sum(axis=1) <= owners"),
    ),
    *changes_of(
        "autotune/tuning/pareto_front.py",
        ("table * np.array([METRICS[name].sign for name, _ in goals])", "table"),
    ),
    *changes_of(
        "autotune/tuning/sensitivity.py",
        ('lost.metric == "e2e_s"', 'lost.metric != "e2e_s"'),
    ),
    *changes_of(
        "autotune/scoring/value_and_gain.py",
        ("rate * max(horizon_s - duration_s, 0.0) - loss", "rate * horizon_s - loss"),
        ("duration_s + max(loss, 0.0) / rate", "max(loss, 0.0) / rate"),
        ("return served * plan.p_meets * ratio", "return served * ratio"),
        ("np.minimum(capacities, load)", "np.maximum(capacities, load)"),
    ),
    *changes_of(
        "autotune/scoring/joint_uncertainty.py",
        ("0.5 * (first == second).mean()", "0.0 * (first == second).mean()"),
    ),
    *changes_of("autotune/comparison/verdict.py", ("if net < policy.min_gain_frac", "if net < 0.0")),
    *changes_of(
        "autotune/comparison/switching.py",
        ("w.capacity_requests_per_s, 0.0) * w.duration_s", "w.capacity_requests_per_s, 0.0)"),
    ),
    *changes_of("autotune/comparison/robustness.py", ("np.where(kept[1], 1, -1)", "np.where(kept[1], -1, 1)")),
)
