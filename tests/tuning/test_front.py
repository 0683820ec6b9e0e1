"""Several objectives: the front against its definition, storage, Optuna's own plot, sampling."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from autotune.cli.main import cli
from autotune.cli.stores import front_store
from autotune.disaggregated.front import pool_front
from autotune.disaggregated.operating_points import served_together
from autotune.disaggregated.pairs import Pair
from autotune.disaggregated.plan_results import pair_results
from autotune.disaggregated.search import pool_sides
from autotune.engines.service import Knobs
from autotune.metrics import METRICS
from autotune.report.pareto_front import first_point, front_document, shown_points
from autotune.scoring.dominance import nondominated
from autotune.scoring.knob_grid import KnobGrid, Variant
from autotune.scoring.limits import check_limits, study_limits
from autotune.scoring.objective import figure
from autotune.storage import Store
from autotune.study import Study
from autotune.tuning import tune
from autotune.tuning.pareto_front import Front, front_loads, goal_values, pareto, study_goals
from autotune.tuning.study_space import study_space
from costmodel.errors import InputError
from tests.tuning.brute import question

ROOT = Path(__file__).resolve().parents[2]


SMALL: dict[str, Any] = {"cluster": {"gpus": 4, "gpu": "h100_sxm"}, "model": "llama-3.1-8b"}


def asked(**tables: Any) -> Study:
    """A small study with prices and limits."""
    return question(
        **{
            "constraints": {"ttft_ms": 3000, "tpot_ms": 40},
            "prices": {"h100_sxm": 2.0},
            "search": {"max_num_batched_tokens": [1024, 4096]},
            **tables,
        }
    )


def _brute(values: np.ndarray[Any, Any]) -> list[bool]:
    """By the definition: no other row at least as good everywhere and better somewhere, by more than noise."""
    noise = 1e-12 * np.abs(values)
    over = [(values >= row - own, values > row + own) for row, own in zip(values, noise, strict=True)]
    return [not bool((as_good.all(axis=1) & better.any(axis=1)).any()) for as_good, better in over]


def test_nondominated_is_the_definition() -> None:
    """On small whole numbers, where ties abound, and on many rows, which take several blocks."""
    random = np.random.default_rng(5)
    for columns in (1, 2, 3, 4):
        for size in (0, 1, 40):
            values = random.integers(0, 4, (size, columns)).astype(float)
            assert nondominated(values).tolist() == _brute(values)
    values = random.random((700, 3))
    assert nondominated(values).tolist() == _brute(values)


def test_noise_makes_no_point_of_a_front() -> None:
    """A figure that is larger by one part in 1e15 is the same one; what is not known is worse than all and as bad."""
    best, noisy = [2475.0, -0.106, -np.inf], [2475.0000000000005, -0.218, -np.inf]
    assert nondominated(np.array([noisy, best])).tolist() == [False, True]
    assert nondominated(np.array([noisy, [2475.00001, -0.3, -np.inf], [1.0, -0.5, -1.0]])).all()


def test_no_point_of_a_front_at_a_rate_is_behind_another() -> None:
    """At a request rate all plans serve alike: each point then has another TTFT and TPOT, the better the one."""
    work = {"isl": 3000, "osl": 300, "request_rate_per_s": 6}
    search = {"max_num_batched_tokens": [1024, 2048, 4096, 8192, 16384], "min_p_meets": 0.5}
    front = pareto(asked(model="qwen3-32b", prices={}, workload=work, search=search))
    values = goal_values(front.points, front.goals)
    by_ttft = values[np.lexsort((-values[:, 2], -values[:, 1]))]
    assert len(by_ttft) > 1
    assert np.ptp(values[:, 0]) < 1e-9 * values[0, 0]
    assert (np.diff(by_ttft[:, 2]) > 0.0).all()


def _all_rows(study: Study) -> np.ndarray[Any, Any]:
    """Goals of every feasible setting of every plan, more being better; evaluated in one piece."""
    variants = [Variant(candidate=c, weight_dtype=None, kv_dtype=None) for c in study_space(study).candidates]
    rows = KnobGrid.of(study, variants, study.search.max_num_batched_tokens)
    out = []
    for load in front_loads(rows, np.arange(len(variants)).repeat(rows.variant.size // len(variants))):
        e = rows.serving(load)
        cost = rows.price_per_hour / 3600.0 / e.total_tokens_per_s * 1e6
        table = np.stack([e.total_tokens_per_s_per_gpu, -e.ttft_s, -e.tpot_s, -cost], axis=1)
        out.append(table[check_limits(study_limits(study), e).kept()])
    return np.concatenate(out)


@pytest.mark.parametrize(
    "tables", [{}, {"workload": {"isl": 1009, "osl": 211, "request_rate_per_s": 5.0}}, {"constraints": {}}]
)
def test_the_front_is_that_of_every_setting(tables: dict[str, Any]) -> None:
    """Against all settings of all plans at once, filtered by the definition."""
    study = asked(**tables)
    front = pareto(study)
    everything = _all_rows(study)
    truth = {tuple(row) for row in np.unique(everything, axis=0)[_brute(np.unique(everything, axis=0))].tolist()}
    assert {tuple(row) for row in goal_values(front.points, front.goals).tolist()} == truth
    assert front.complete
    assert all(p.feasible and not p.violations for p in front.points)
    first = [p.metrics["total_tokens_per_s_per_gpu"] for p in front.points]
    assert first == sorted(first, reverse=True)
    best, named = tune(study).ranked[0], first_point(front)
    own, values = goal_values([best], front.goals), goal_values(front.points, front.goals)
    beaten = ((values >= own).all(axis=1) & (values > own).any(axis=1)).any()
    assert beaten or (named.plan, named.knobs) == (best.plan, best.knobs)


def test_its_ends_are_at_least_as_good_as_a_ranking() -> None:
    """No ranked plan of any single objective dominates a point of the front under the same load."""
    load = {"isl": 1009, "osl": 211, "concurrency": 64}
    study = asked(workload=load)
    front = pareto(study)
    values = goal_values(front.points, front.goals)
    for objective in ({"maximize": "total_tokens_per_s_per_gpu"}, {"minimize": "ttft_s"}, {"minimize": "tpot_s"}):
        ranked = tune(asked(objective=objective, workload=load)).ranked
        other = goal_values(ranked, front.goals)
        for row in other:
            worse = (row >= values + 1e-12).all(axis=1)
            assert not worse.any()


def test_the_front_of_pools_is_that_of_all_pairs_of_points() -> None:
    """Every pair of operating points that keeps the limits, joined without pruning, has no point beyond the front.

    Of loads so small that a launch is the same for them, one stands for all.
    """
    study = asked(**SMALL, search={"disaggregated": "only"})
    goals, front = study_goals(study), pareto(study)
    assert front.points
    assert all(p.pools is not None and p.feasible for p in front.points)
    launches = {(p.plan, str(p.knobs)) for p in front.points}
    assert len({p.key for p in front.points}) == len(front.points)
    every, pairs = [np.empty((0, len(goals)))], []
    for sides in pool_sides(study):
        p, d = sides.prefill.columns, sides.decode.columns
        for first, second in sides.splits:
            rows, columns = np.flatnonzero(first % p.gpus == 0), np.flatnonzero(second % d.gpus == 0)
            i, j = np.repeat(rows, columns.size), np.tile(columns, rows.size)
            copies = (first / p.gpus[i]).astype(int), (second / d.gpus[j]).astype(int)
            pools = p.take(i).times(copies[0]), d.take(j).times(copies[1])
            service, price = served_together(study, study.cluster, pools[0], study.cluster, pools[1])
            kept = check_limits(study_limits(study), service).kept()
            own = np.stack([METRICS[name].sign * figure(service, name, price) for name, _ in goals], axis=1)
            every.append(own[kept])
            pairs += [(sides, int(i[k]), int(copies[0][k]), int(j[k]), int(copies[1][k])) for k in np.flatnonzero(kept)]
    whole = np.concatenate(every)
    assert len(whole) > 10 * len(front.points)
    found = {tuple(row) for row in np.round(goal_values(front.points, goals), 9).tolist()}
    best = {tuple(row): k for k, row in enumerate(np.round(whole, 9).tolist())}
    undominated = {tuple(row) for row in np.round(whole[nondominated(whole)], 9).tolist()}
    assert found <= undominated
    for value in undominated - found:
        sides, i, prefill, j, decode = pairs[best[value]]
        pair = Pair(
            prefill=sides.prefill, prefill_at=i, prefill_copies=prefill,
            decode=sides.decode, decode_at=j, decode_copies=decode, feasible=True, key=0.0,
        )  # fmt: skip
        (plan,) = pair_results(study, [pair], home=study.cluster.gpu.name)
        assert (plan.plan, str(plan.knobs)) in launches


def test_pools_with_a_fixed_load_stand_beside_the_others() -> None:
    """With requests in flight given, the front holds no plan that another of either kind is better than in all."""
    front = pareto(
        asked(**SMALL, workload={"isl": 1000, "osl": 200, "concurrency": 32}, search={"disaggregated": "auto"})
    )
    values = goal_values(front.points, front.goals)
    assert nondominated(values).all()
    assert any(p.pools is not None for p in front.points)


def test_loads_of_pools_that_round_to_the_same_requests_are_the_best_of_them() -> None:
    """A light load is no point of its own where a heavier one rounds to as many requests in flight and serves more."""
    study = asked(
        model="llama-3.1-70b",
        constraints={},
        search={"disaggregated": "only"},
        workload={"isl": 4000, "osl": 500},
    )
    goals = study_goals(study)
    served: dict[tuple[str, Knobs], list[float]] = {}
    for plan in pool_front(study, goals):
        served.setdefault((plan.plan, plan.knobs), []).append(plan.metrics[goals[0][0]])
    assert any(max(values) > 2.0 * min(values) for values in served.values())
    for point in pareto(study).points:
        assert point.metrics[goals[0][0]] == max(served[point.plan, point.knobs])


def test_goals_follow_the_study() -> None:
    """The study's own throughput, and cost only where every GPU type has a price, which is said."""
    assert [g for g, _ in study_goals(asked())] == [
        "total_tokens_per_s_per_gpu", "ttft_s", "tpot_s", "usd_per_million_tokens",
    ]  # fmt: skip
    free = asked(prices={}, objective={"maximize": "output_tokens_per_s"})
    assert [g for g, _ in study_goals(free)] == ["output_tokens_per_s", "ttft_s", "tpot_s"]
    assert any("cost is no objective" in text for text in pareto(free).study.assumptions)


def _document(front: Front) -> str:
    document = {k: v for k, v in front_document(front, top=0).items() if k not in ("storage", "scored_now")}
    return json.dumps(document, sort_keys=True)


def _store(study: Study, folder: Path) -> Store:
    return front_store(study, str(folder / "journal.log"), None)


def test_it_is_resumed(tmp_path: Path) -> None:
    """Half of the plans stored, some of them without their last record: only the rest is scored, the front the same."""
    study = asked()
    whole = pareto(study, _store(study, tmp_path / "a"))
    assert _document(whole) == _document(pareto(study))
    again = pareto(study, _store(study, tmp_path / "a"))
    assert again.scored_now == 0
    assert _document(again) == _document(whole)
    records = _store(study, tmp_path / "a").records()
    names = {r.attrs["plan"] for r in records}
    kept = set(sorted(names)[::2])
    torn = sorted(kept)[0]
    part = [r for r in records if r.attrs["plan"] in kept and r.key != torn]
    store = _store(study, tmp_path / "b")
    store.add(part)
    rest = pareto(study, store)
    assert rest.scored_now == len(names) - len(kept) + 1
    assert _document(rest) == _document(whole)


def test_optuna_draws_the_front(tmp_path: Path) -> None:
    """A plain multi-objective Optuna study: directions, constraints, and its own best trials are the front."""
    import optuna
    from optuna.visualization import plot_pareto_front

    from tests.storage.helpers import optunas

    study = asked(prices={}, constraints={"ttft_ms": 300, "tpot_ms": 20})
    front = pareto(study, store := _store(study, tmp_path))
    optuna_study = optuna.load_study(study_name=store.name, storage=optunas(store.location))
    assert optuna_study.metric_names == [name for name, _ in front.goals]
    assert [d.name for d in optuna_study.directions] == ["MAXIMIZE", "MINIMIZE", "MINIMIZE"]
    trials = optuna_study.get_trials(deepcopy=False)
    assert any(max(t.constraints.values()) > 0.0 for t in trials)
    best = {tuple(t.values) for t in optuna_study.best_trials}
    assert best == {tuple(p.metrics[name] for name, _ in front.goals) for p in front.points}
    figure = plot_pareto_front(optuna_study)
    drawn = {len(trace.x): trace.name for trace in figure.data}
    assert len(optuna_study.best_trials) in drawn


def test_a_large_space_is_sampled() -> None:
    """NSGA-II within its budget, the same each time, marked as no whole cover, and nothing infeasible on its front."""
    search = {"max_num_batched_tokens": [4096], "trials": 30}
    study = asked(engine="any", cluster={"gpus": 32, "gpu": "h100_sxm"}, search=search)
    one, two = pareto(study), pareto(study)
    assert not one.complete
    assert one.plans_scored == 30
    assert _document(one) == _document(two)
    assert all(p.feasible for p in one.points)
    assert all(nondominated(goal_values(one.points, one.goals)))


def test_points_shown_are_spread() -> None:
    """The ends and as many between them as asked for."""
    front = pareto(asked())
    points = shown_points(front, 5)
    assert points[0] is front.points[0]
    assert points[-1] is front.points[-1]
    assert len(points) == 5
    assert shown_points(front, 0) == list(front.points)


def test_the_command(tmp_path: Path) -> None:
    """A table on request, JSON in a pipe, files in the folder, 3 where nothing keeps the limits, 2 with a page."""
    study = str(ROOT / "studies" / "llama-70b-16xh100.toml")
    run = CliRunner().invoke

    table = run(cli, ["tune", study, "--pareto", "--table", "--out", str(tmp_path)])
    assert table.exit_code == 0, table.output
    assert "Pareto front of" in " ".join(table.output.split())
    document = json.loads((tmp_path / "pareto.json").read_text())
    assert document["counts"]["front"] == len(document["plans"]) > 0
    assert (tmp_path / "pareto.csv").read_text().count("\n") == len(document["plans"]) + 1
    piped = run(cli, ["tune", study, "--pareto", "--json", "--out", str(tmp_path), "--top", "2"])
    assert json.loads(piped.stdout)["scored_now"] == 0
    nothing = run(cli, ["tune", study, "--pareto", "--table", "--no-storage", "--set", "constraints.ttft_ms=0.01"])
    assert nothing.exit_code == 3
    assert "the front is empty" in nothing.output
    with pytest.raises(InputError, match="must go without --pareto"):
        run(cli, ["tune", study, "--pareto", "--html", str(tmp_path / "x.html")], catch_exceptions=False)
