"""A benchmark of a plan against its prediction, and what it would change: `autotune verify`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from autotune.study import Study
from autotune.tuning import TuneResult, tune
from autotune.tuning.answer_study import place
from autotune.validation.bench import BenchResult
from autotune.validation.percentiles import (
    MEANS,
    measured_percentiles,
    predicted_latencies,
    run_by_percentiles,
)
from autotune.validation.pool_prediction import THROUGHPUTS, predicted_means, predicted_pool_latencies
from costmodel.calibration.measured_cells import own_key
from costmodel.calibration.profile import LEAST_RUNS, Profile
from costmodel.errors import InputError
from costmodel.estimate.normal import Z90
from costmodel.measured.implausible import Contradiction, contradiction
from costmodel.measured.learn_profile import learn_cell
from costmodel.measured.runs import prepare_runs
from costmodel.simulation.forecast import Likely

SHOWN = 5
"""Plans of the ranking that are shown."""
UNJUDGED = (
    "percentiles of a closed loop depend on how its client begins and on how lengths vary, which results do not say: "
    "they are shown, and no verdict is drawn from them"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """One quantity: what was predicted, the 80 % interval around it, what was measured."""

    name: str
    predicted: float
    p10: float
    p90: float
    measured: float
    """NaN where the result does not hold it."""
    judged: bool = True
    """Whether a measurement outside the interval speaks against the prediction. That of a percentile of a closed loop
    does not: it depends on how the client begins and on how lengths vary, which a result does not say."""

    @property
    def inside(self) -> bool | None:
        """Whether the measurement lies in the interval; None where there is none."""
        return None if np.isnan(self.measured) else self.p10 <= self.measured <= self.p90


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedRun:
    """One run of the benchmark."""

    result: BenchResult
    quantities: tuple[Checked, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A plan in the ranking before and after; None: not ranked, as it breaks a limit."""

    plan: str
    before: int | None
    after: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What a benchmark says of a prediction."""

    study: Study
    plan: str
    runs: tuple[CheckedRun, ...]
    best_before: str | None
    best_after: str | None
    places: tuple[Place, ...]
    """The measured plan, and those that lead before or after, by their place after."""
    p_best_after_is_better: float | None
    """Than the plan that led before, with the run learnt; None: the same leads, or none or one of them is ranked."""
    told_apart: bool
    """Whether the leaders before and after can be told from each other with the run learnt."""
    learnt: bool
    """Whether the ranking learnt from a run: those of disaggregated plans teach it nothing, nor those that cannot be.
    """
    assumptions: tuple[str, ...]

    @property
    def inside(self) -> bool:
        """Whether every measurement that is judged lies in its interval."""
        return all(q.inside is not False for run in self.runs for q in run.quantities if q.judged)

    @property
    def changes(self) -> bool:
        """Whether another plan leads once the run is learnt."""
        return self.best_before != self.best_after


def verify(
    study: Study, results: Sequence[BenchResult], *, progress: Callable[[int, int], None] | None = None
) -> Verification:
    """Hold a benchmark against the prediction, learn it, and rank again.

    `results` are of one plan; `progress` is called with (plans done, plans in all) of both rankings. Runs that are
    faster than physics allows are left out; others that contradict it are held against the prediction and not learnt.

    Raises:
        InputError: the results are of several plans, or none of them can be what it says.
    """
    plans = sorted({r.plan for r in results})
    if len(plans) != 1:
        raise InputError.single("RESULT", f"must hold runs of one plan, got {', '.join(plans) or 'none'}")
    against = [(r, _against(r)) for r in results]
    refused = [found for r, found in against if found is not None and _refuses(r, found)]
    results = [r for r, found in against if found is None or not _refuses(r, found)]
    if not results:
        raise InputError(found.problem for found in refused)
    odd = [found for r, found in against if found is not None and found not in refused]
    taught = [r for r, found in against if found is None and r.teaches_nothing is None]
    said = (
        *(f"left out: {found.problem}" for found in refused),
        *(f"not learnt: {found.problem}" for found in odd),
        *_said(study, results, len(taught)),
    )
    profile = study.calibration
    if not taught:
        answer = tune(study, progress=progress)
        return _verification(study, results, answer, answer, learnt=False, said=said)
    learned = learn(taught, profile)

    def part_of_progress(offset: int) -> Callable[[int, int], None] | None:
        return None if progress is None else lambda done, every: progress(offset * every + done, 2 * every)

    before = tune(study, progress=part_of_progress(0))
    after = tune(replace(study, calibration=learned), progress=part_of_progress(1))
    return _verification(study, results, before, after, learnt=True, said=said)


def _against(result: BenchResult) -> Contradiction | None:
    """What speaks against a run; of a disaggregated plan, whose run is of its decode pool, against its TPOT alone.

    Where a result has percentiles of TTFT and no mean, against the mean that they say.
    """
    if result.pooled is not None:
        return contradiction(replace(result.run, ttft_s=np.nan))
    found = contradiction(result.run)
    if found is not None or np.isfinite(result.run.ttft_s):
        return found
    return contradiction(run_by_percentiles(result)[0])


def _refuses(result: BenchResult, found: Contradiction) -> bool:
    """Whether a run that contradicts physics is not even compared.

    One that waited is, as its user wants to know by how much, and so is one of a server that decodes speculatively:
    several tokens of a step take less than the weights' read time each.
    """
    drafted = result.reported.drafted and found.column == "tpot_ms"
    return found.impossible and (found.other_unit or not drafted)


def learn(results: Sequence[BenchResult], profile: Profile | None) -> Profile:
    """The study's calibration with the cell of the runs moved by them: Bayes' rule, however few they are."""
    runs = [run_by_percentiles(r)[0] for r in results]
    first = runs[0].entry
    cells = {} if profile is None else dict(profile.cells)
    name = own_key(first.engine.name, first.cluster.gpu.name, first.arch)
    return Profile(cells=cells | {name: learn_cell(runs, profile).cell})


def _verification(  # what was measured, both rankings, and what is to be said of them
    study: Study,
    results: Sequence[BenchResult],
    before: TuneResult,
    after: TuneResult,
    *,
    learnt: bool,
    said: tuple[str, ...],
) -> Verification:
    plan = results[0].plan
    first = before.ranked[0] if before.ranked else None
    last = after.ranked[0] if after.ranked else None
    old = None if first is None or last is None or first.plan == last.plan else after.confidence.get(first.plan)
    names = dict.fromkeys(p.plan for p in (*after.ranked[:SHOWN], *before.ranked[:1]))
    names |= {plan: None}
    places = [Place(plan=n, before=_place(before, n), after=_place(after, n)) for n in names]
    places.sort(key=lambda p: (p.after is None, p.after or 0, p.before or 0))
    return Verification(
        study=study,
        plan=plan,
        runs=_checked(results, study.calibration) if results[0].pooled is None else _checked_pools(study, results),
        best_before=None if first is None else first.plan,
        best_after=None if last is None else last.plan,
        places=tuple(places),
        p_best_after_is_better=None if old is None else old.p_best_is_better,
        told_apart=old is not None and not old.among_best,
        learnt=learnt,
        assumptions=said,
    )


def _place(answer: TuneResult, plan: str) -> int | None:
    found = next((p for p in answer.ranked if p.plan == plan), None)
    return None if found is None else place(answer.study, found, answer.ranked)


def _checked(results: Sequence[BenchResult], profile: Profile | None) -> tuple[CheckedRun, ...]:
    estimate = prepare_runs([r.run for r in results], profile).evaluate()
    out = []
    for i, result in enumerate(results):
        rows = (
            ("ttft_s", estimate.ttft_s, estimate.ttft_log_sd, result.run.ttft_s),
            ("tpot_s", estimate.tpot_s, estimate.tpot_log_sd, result.run.tpot_s),
            *((n, getattr(estimate, n), estimate.throughput_log_sd, getattr(result, n)) for n in THROUGHPUTS),
        )
        quantities = tuple(
            Checked(
                name=name,
                predicted=float(value[i]),
                p10=float(value[i] * np.exp(-Z90 * sd[i])),
                p90=float(value[i] * np.exp(Z90 * sd[i])),
                measured=measured,
            )
            for name, value, sd, measured in rows
        )
        means_s = {"ttft": float(estimate.ttft_s[i]), "tpot": float(estimate.tpot_s[i])}
        simulated = [
            _likely(row, judged=result.reported.open_loop) for row in predicted_latencies(result, profile, means_s)
        ]
        out.append(CheckedRun(result=result, quantities=_of_one_prediction(quantities, simulated)))
    return tuple(out)


def _likely(row: tuple[str, Likely, float], *, judged: bool = True) -> Checked:
    """A quantity of its name, prediction and measurement."""
    name, likely, measured = row
    return Checked(name=name, predicted=likely.value, p10=likely.low, p90=likely.high, measured=measured, judged=judged)


def _of_one_prediction(by_formula: Sequence[Checked], simulated: Sequence[Checked]) -> tuple[Checked, ...]:
    """All quantities, each once: the simulation's, where it says something of one, as percentiles stand beside it."""
    return tuple(({q.name: q for q in by_formula} | {q.name: q for q in simulated}).values())


def _checked_pools(study: Study, results: Sequence[BenchResult]) -> tuple[CheckedRun, ...]:
    """The same of a disaggregated plan."""
    out = []
    for result in results:
        if result.pooled is None:
            raise ValueError(f"runs must be of a disaggregated plan, got {result.plan}")
        measured = {"ttft_s": result.run.ttft_s, "tpot_s": result.run.tpot_s}
        measured |= {name: getattr(result, name) for name in THROUGHPUTS}
        means = predicted_means(study, result.pooled, result)
        by_formula = [_likely((name, likely, measured[name])) for name, likely in means.items()]
        means_s = {name: means[f"{name}_s"].value for name in MEANS}
        simulated = [
            _likely(row, judged=result.reported.open_loop)
            for row in predicted_pool_latencies(study, result.pooled, result, means_s)
        ]
        out.append(CheckedRun(result=result, quantities=_of_one_prediction(by_formula, simulated)))
    return tuple(out)


def _said(study: Study, results: Sequence[BenchResult], learnt: int) -> tuple[str, ...]:
    """What is assumed of the runs that are compared; `learnt`: how many of them taught the ranking."""
    assumptions = list(dict.fromkeys(note for r in results for note in r.notes))
    if any(measured_percentiles(r) and not r.reported.open_loop for r in results):
        assumptions.append(UNJUDGED)
    if results[0].pooled is not None:
        assumptions.append(
            "disaggregated: the run is held against the prediction alone; the ranking learns nothing from it, as a "
            "calibration of one's own is of servers that prefill and decode"
        )
        return tuple(assumptions)
    if drafted := [r.run.id for r in results if r.reported.drafted]:
        assumptions.append(
            f"not learnt: {', '.join(drafted)} of servers that decode speculatively; predicted as if they did not"
        )
    replicas = results[0].run.entry.layout.replicas
    driven = sorted({r.replicas for r in results})
    if driven != [replicas]:
        assumptions.append(
            f"{', '.join(map(str, driven))} of {replicas} replicas were driven; load and throughput are scaled to all"
        )
    if any(not (r.reported.open_loop or np.isnan(r.output_tokens_per_s)) for r in results):
        assumptions.append("measured throughput is over the whole run, start and end included: a little low")
    failed = sum(r.failed for r in results)
    if failed:
        assumptions.append(f"{failed:,} requests failed: the figures are of the others")
    hit = results[0].run.prefix_hit_frac
    if hit:
        assumptions.append(f"{hit:.0%} of prompt tokens taken to be in the prefix cache, as the study has it")
    if 0 < learnt < LEAST_RUNS:
        assumptions.append(
            f"learnt from {learnt} run{'' if learnt == 1 else 's'}; `autotune calibrate` asks for {LEAST_RUNS}"
        )
    wanted = study.workload
    isl, osl = results[0].run.mean_isl, results[0].run.mean_osl
    if abs(isl / wanted.isl.mean - 1.0) > 0.1 or abs(osl / wanted.osl.mean - 1.0) > 0.1:
        assumptions.append(
            f"measured with {isl:,.0f} prompt and {osl:,.0f} output tokens, the study is about {wanted.isl.mean:,.0f} "
            f"and {wanted.osl.mean:,.0f}: predicted for what was measured, ranked for the study"
        )
    return tuple(assumptions)
