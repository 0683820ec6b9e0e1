"""The closed form against the simulation: `python -m benchmarks.closed_form [--plans 300] [--seed 1]`, both against
measured runs: `--runs RUNS.csv [--models FOLDER]`, or the closed form of requests that arrive at a rate: `--arrivals`.

Random valid plans of models of the catalog under random closed loops, a third of the plans on each engine: by how much
mean TTFT and TPOT of the closed form differ from those of requests that are simulated one by one, where the closed form
is known to be off, and elsewhere. Of measured closed loops: how far the formulas alone and a simulation of the same steps
are off, and how much either scatters among the runs of one engine, version, model and GPU, which is what orders plans.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from autotune.engines import ENGINES, policies_by_name
from autotune.scoring.unsure_means import MUCH_PROMPT_FRAC
from autotune.space import enumerate_space
from autotune.study.resolve import SHORT_OUTPUT_TOKENS
from costmodel.arch import load_model
from costmodel.estimate.batch import PlanBatch, PlanEntry
from costmodel.estimate.open_loop import at_random, knots_around
from costmodel.estimate.result import Estimate
from costmodel.hardware import Cluster, load_gpu
from costmodel.measured.implausible import plausible
from costmodel.measured.runs import BENCHMARK_WAVES, Run, prepare_runs
from costmodel.measured.runs_csv import read_runs
from costmodel.plan.columns import Floats, Ints
from costmodel.plan.layout import Layout
from costmodel.serving.load import Load
from costmodel.serving.steady_state import SteadyState
from costmodel.simulation.requests import Requests, arrivals
from costmodel.simulation.server import server_model
from costmodel.simulation.simulate import Simulated, simulate, simulate_closed

MODELS = ("llama-3.1-8b", "llama-3.1-70b", "qwen3-32b", "qwen3-30b-a3b", "qwen3-235b", "mixtral-8x22b",
          "gpt-oss-120b", "deepseek-v3", "gemma-3-27b", "glm-4.5")  # fmt: skip
ENGINE_NAMES = ("vllm", "sglang", "trtllm")
GPUS = ("h100_sxm", "h200_sxm")
NODES = (8, 16, 32)
HITS = (0.0, 0.0, 0.3, 0.7, 0.9, 0.97)
FRACTION = np.array([0.9])
MOST_IN_FLIGHT = 1333
MOST_AT_A_RATE = 200.0
"""Requests in flight per replica at most where they arrive at a rate: more take simulations too long to settle."""
GROWS = 1.5
"""Times that the second half of the requests takes over the first, where a queue is taken to grow."""
LENGTHS_SPREAD = 1.0 / 9.0
"""Lengths of measured runs that vary lie within so much of their mean: benchmarks draw them from 0.8 to 1 of the most.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Both:
    """A plan by its closed form and by simulation."""

    formula: SteadyState
    ttft_s: float
    tpot_s: float
    requests_per_s: float
    simulated: Simulated


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A plan under a load."""

    entry: PlanEntry
    load: Load
    found: Both

    def error(self, name: str) -> float:
        """Of the closed form, as a share of what was simulated."""
        return abs(float(getattr(self.found.formula, name)[0]) / float(getattr(self.found, name)) - 1.0)


def drawn(mean: float, count: int, random: np.random.Generator) -> Ints:
    """Lengths around a mean, from half of it to half more."""
    return np.maximum(np.round(mean * random.uniform(0.5, 1.5, count)), 1.0).astype(np.int64)


def both(entry: PlanEntry, load: Load, *, waves: int = 12, seed: int = 2) -> Both:
    """Serve a closed loop whose lengths vary; its first third and its last wave are not counted."""
    batch = replace(PlanBatch.of([entry]), residual=None)
    formula = batch.steady(load, longest_prompt=load.isl, memory_fraction=FRACTION)
    policy = policies_by_name()[entry.engine.name]
    model = server_model(batch, load, policy=policy, longest_prompt=load.isl, memory_fraction=FRACTION)
    concurrency, random = int(load.concurrency[0]), np.random.default_rng(seed)
    count = max(waves * concurrency, 200)
    prompt, output = drawn(float(load.isl[0]), count, random), drawn(float(load.osl[0]), count, random)
    cached = (prompt * load.prefix_hit_frac[0]).astype(np.int64)
    simulated = simulate_closed(model, prompt, cached, output, concurrency=concurrency)
    served = simulated.served
    kept = slice(count // 3, count - concurrency)
    outputs = served.requests.output[kept]
    ttft, e2e = served.ttft_s[kept], served.e2e_s[kept]
    arrivals = served.requests.arrival_s[kept]
    return Both(
        formula=formula,
        ttft_s=float(ttft.mean()),
        tpot_s=float((e2e - ttft).sum() / max(int(np.maximum(outputs - 1, 0).sum()), 1)),
        requests_per_s=float((arrivals.size - 1) / (arrivals[-1] - arrivals[0])),
        simulated=simulated,
    )


def cases(count: int, seed: int) -> Iterator[Case]:
    """Random plans that fit their memory, as many on each engine, each under a random load."""
    for _, (entry, load) in zip(range(count), plans(np.random.default_rng(seed)), strict=False):
        yield Case(entry=entry, load=load, found=both(entry, load))


def plans(random: np.random.Generator) -> Iterator[tuple[PlanEntry, Load]]:
    """The plans of `cases`, without end, before they are served."""
    found = 0
    while True:
        engine = ENGINE_NAMES[found % 3]
        arch, gpus = load_model(str(random.choice(MODELS))), int(random.choice(NODES))
        cluster = Cluster(gpu=load_gpu(str(random.choice(GPUS))), gpus=gpus, gpus_per_node=8)
        space = enumerate_space(arch, gpus=gpus, engine=engine).candidates
        if not space:
            continue
        layout = space[int(random.integers(len(space)))].layout
        entry = PlanEntry(arch=arch, cluster=cluster, engine=ENGINES[engine].traits, layout=layout)
        load = _load(random, layout.replicas)
        batch = PlanBatch.of([entry])
        if batch.memory(load, longest_prompt=2.0 * load.isl, memory_fraction=FRACTION).kv_fits_longest[0] < 1.0:
            continue
        found += 1
        yield entry, load


def _load(random: np.random.Generator, replicas: int) -> Load:
    def between(least: float, most: float) -> Floats:
        return np.array([np.round(least * (most / least) ** random.random())])

    in_flight = min(float(between(1.0, 400.0)[0]) * replicas, MOST_IN_FLIGHT)
    return Load(
        isl=between(128.0, 16_384.0),
        osl=between(16.0, 1024.0),
        prefix_hit_frac=np.array([random.choice(HITS)]),
        concurrency=np.array([np.round(in_flight)]),
        batched_tokens=np.array([float(random.choice((2048, 8192)))]),
        max_num_seqs=np.array([float(random.choice((256, 1024)))]),
    )


def prompt_frac(case: Case) -> float:
    """Share of the time in which a stage runs prompts, mean over stages (`autotune.report.document`)."""
    return _prompt_frac(case.found.formula, case.entry.layout)


def _prompt_frac(formula: SteadyState, layout: Layout) -> float:
    passes_s = sum(float(seconds[0]) for seconds in formula.prefill_loaded.step.group_s.values())
    passes_s *= float(formula.prefill_passes_per_request[0])
    return passes_s / layout.pp * float(formula.requests_per_s[0]) / layout.replicas


def off(case: Case) -> bool:
    """Whether means of the closed form are known to be off."""
    return bool(case.load.osl[0] < SHORT_OUTPUT_TOKENS) or prompt_frac(case) >= MUCH_PROMPT_FRAC


def _outside(inside: Callable[[Case], bool]) -> Callable[[Case], bool]:
    return lambda case: not off(case) and inside(case)


def _engine(name: str) -> Callable[[Case], bool]:
    return lambda case: case.entry.engine.name == name


REGIONS: dict[str, Callable[[Case], bool]] = {
    "all": lambda _: True,
    "where the closed form is off": off,
    f"  outputs under {SHORT_OUTPUT_TOKENS:g} tokens": lambda case: bool(case.load.osl[0] < SHORT_OUTPUT_TOKENS),
    "  prompts take a third of the time and more": lambda case: prompt_frac(case) >= MUCH_PROMPT_FRAC,
    "elsewhere": _outside(lambda _: True),
    **{f"  {engine}": _outside(_engine(engine)) for engine in ENGINE_NAMES},
    "  attention-DP": _outside(lambda case: case.entry.layout.attn_dp > 1),
    "  pipelines": _outside(lambda case: case.entry.layout.pp > 1),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredBoth:
    """A measured run by both ways of telling. Pairs are TTFT and TPOT, seconds; a TTFT that was not measured is NaN."""

    run: Run
    measured_s: tuple[float, float]
    formula_s: tuple[float, float]
    simulated_s: tuple[float, float]
    prompt_frac: float

    @property
    def stays_in_step(self) -> bool:
        """Whether its requests begin and end together."""
        return self.run.same_lengths and not self.run.staggered

    @property
    def group(self) -> tuple[str, ...]:
        """Runs that plans are chosen among."""
        entry = self.run.entry
        return entry.engine.name, str(entry.engine_version), entry.arch.name, entry.cluster.gpu.name


def measured(path: Path, models: Path | None) -> Iterator[MeasuredBoth]:
    """Every plausible run of a file by its closed form and by simulation, without what is learnt from such runs.

    A benchmark sends `BENCHMARK_WAVES` requests from each slot, all slots beginning at once.
    """
    runs, _ = plausible(read_runs(path, {name: e.traits for name, e in ENGINES.items()}, models))
    for number, run in enumerate(runs):
        own = prepare_runs([run])
        batch, load, fraction = replace(own.batch, residual=None), own.load, own.memory_fraction
        formula = batch.steady(load, longest_prompt=load.isl, memory_fraction=fraction)
        policy = policies_by_name()[run.entry.engine.name]
        model = server_model(batch, load, policy=policy, longest_prompt=load.isl, memory_fraction=fraction)
        count, random = int(BENCHMARK_WAVES * run.concurrency), np.random.default_rng(number)
        # what does not begin together is put out of step by its lengths
        spread = 0.0 if run.same_lengths and not run.staggered else LENGTHS_SPREAD
        prompt, output = (
            np.maximum(np.round(mean * random.uniform(1.0 - spread, 1.0 + spread, count)), 1.0).astype(np.int64)
            for mean in (load.isl[0], load.osl[0])
        )
        cached = (prompt * load.prefix_hit_frac[0]).astype(np.int64)
        served = simulate_closed(model, prompt, cached, output, concurrency=int(run.concurrency)).served
        tpot_s = (served.e2e_s - served.ttft_s) / np.maximum(output - 1, 1)
        yield MeasuredBoth(
            run=run,
            measured_s=(np.nan if run.ttft_s is None else run.ttft_s, run.tpot_s),
            formula_s=(float(formula.ttft_s[0]), float(formula.tpot_s[0])),
            simulated_s=(float(served.ttft_s.mean()), float(tpot_s.mean())),
            prompt_frac=_prompt_frac(formula, run.entry.layout),
        )


def scatter(errors: Floats, groups: Sequence[tuple[str, ...]]) -> float:
    """Standard deviation of logarithms about the median of their group."""
    names = sorted(set(groups))
    code = np.array([names.index(group) for group in groups])
    apart = np.concatenate([errors[code == i] - np.median(errors[code == i]) for i in range(len(names))])
    return float(np.sqrt(np.mean(apart**2)))


def _against_runs(path: Path, models: Path | None) -> None:
    found = [both for both in measured(path, models) if not both.stays_in_step]
    regions = {
        "all": found,
        "prompts take a third of the time and more": [b for b in found if b.prompt_frac >= MUCH_PROMPT_FRAC],
    }
    print(f"{'runs whose requests do not stay in step':<44} {'runs':>5} {'mean':>7} {'median':>7} {'scatter':>8}")
    for region, own in regions.items():
        for column, latency in enumerate(("TTFT", "TPOT")):
            for name in ("formula", "simulated"):
                logs = np.log([getattr(b, f"{name}_s")[column] / b.measured_s[column] for b in own])
                known = np.isfinite(logs)
                groups = [b.group for b, seen in zip(own, known, strict=True) if seen]
                off = np.abs(np.expm1(logs[known]))
                print(
                    f"{region + ', ' + latency + ', ' + name:<60} {off.size:>5} {off.mean():>7.1%} "
                    f"{np.median(off):>7.1%} {scatter(logs[known], groups):>8.1%}"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Arriving:
    """A plan at a rate: errors of its closed form, TTFT and TPOT, as shares of what was simulated, below it negative."""

    in_flight: int
    """Per replica, of those that carry the rate."""
    prompt_frac: float
    """Share of the time in which a stage runs prompts, mean over stages."""
    carrying: tuple[float, float]
    """With the fewest that carry the rate."""
    at_random: tuple[float, float]
    """With what random arrivals add (`costmodel.estimate.open_loop`)."""


def arriving(count: int, seed: int, cv: float = 1.0) -> Iterator[Arriving]:
    """Plans of `cases` with outputs that are not short, at 0.3 to 0.9 times what they serve in their closed loop."""
    random = np.random.default_rng(seed)
    found = 0
    for entry, load in plans(random):
        if found == count:
            return
        replicas = entry.layout.replicas
        most = max(round(min(float(load.concurrency[0]) / replicas, MOST_AT_A_RATE)), 1)
        if load.osl[0] < SHORT_OUTPUT_TOKENS:
            continue
        batch = replace(PlanBatch.of([entry]), residual=None)
        every = np.arange(1.0, most + 1.0)
        loads = replace(load, concurrency=every * replicas)
        table = batch.take(np.zeros(most, dtype=np.int64))
        bounds = {"longest_prompt": load.isl, "memory_fraction": FRACTION}
        closed = table.steady(loads, **bounds)
        rate = float(closed.requests_per_s[-1] * random.uniform(0.3, 0.9))
        at = int((closed.requests_per_s >= rate).argmax())
        simulated = _arrived(batch, load, rate, int(min(max(2500, 20 * every[at] * replicas), 12_000)), cv)
        if simulated is None:
            continue
        found += 1
        carrying, own = _at_rate(batch, loads.slice(slice(at, at + 1)), rate, every[at : at + 1], cv)
        errors = [
            (float(e.ttft_s[0] / simulated[0] - 1.0), float(e.tpot_s[0] / simulated[1] - 1.0)) for e in (carrying, own)
        ]
        one = batch.steady(replace(load, concurrency=loads.concurrency[at : at + 1]), **bounds)
        yield Arriving(
            in_flight=int(every[at]),
            prompt_frac=_prompt_frac(one, entry.layout),
            carrying=errors[0],
            at_random=errors[1],
        )


def _at_rate(batch: PlanBatch, load: Load, rate: float, in_flight: Floats, cv: float) -> tuple[Estimate, Estimate]:
    """A plan with so many in flight per replica, and what its requests meet which come at random, by the formulas."""
    bounds = {"longest_prompt": load.isl, "memory_fraction": FRACTION}
    knots, layout, rows = knots_around(in_flight), batch.layout, np.zeros(1, dtype=np.int64)
    carrying = batch.evaluate(load, **bounds)
    table = batch.take(np.zeros(knots.size, dtype=np.int64))
    found = table.evaluate(replace(load, concurrency=knots[0] * layout.replicas), **bounds)
    offered, replicas = np.array([rate]), layout.replicas
    return carrying, at_random(
        carrying, rows, found, knots, offered_per_s=offered, replicas=replicas, stages=layout.pp, cv2=cv**2
    )


def _arrived(batch: PlanBatch, load: Load, rate: float, count: int, cv: float) -> tuple[float, float] | None:
    """Mean TTFT and TPOT of simulated arrivals; None: they queue without end."""
    entry, random = batch.cells[0], np.random.default_rng(5)
    policy = policies_by_name()[entry[2].name]
    model = server_model(batch, load, policy=policy, longest_prompt=load.isl, memory_fraction=FRACTION)
    prompt, output = drawn(float(load.isl[0]), count, random), drawn(float(load.osl[0]), count, random)
    cached = (prompt * load.prefix_hit_frac[0]).astype(np.int64)
    times = arrivals(count, rate, cv, random)
    served = simulate(model, Requests(arrival_s=times, prompt=prompt, cached=cached, output=output)).served
    kept = slice(count // 4, count - count // 20)
    ttft, e2e, outputs = served.ttft_s[kept], served.e2e_s[kept], output[kept]
    early, late = np.array_split(e2e, 2)
    if late.mean() > GROWS * early.mean():
        return None
    return float(ttft.mean()), float((e2e - ttft).sum() / np.maximum(outputs - 1, 0).sum())


def _at_rates(count: int, seed: int, cv: float) -> None:
    found = list(arriving(count, seed, cv))
    most = int(MOST_AT_A_RATE) + 1
    regions = {f"{low} to {high - 1} in flight": (low, high) for low, high in ((1, 4), (4, 8), (8, 20), (20, most))}
    groups = {name: [a for a in found if low <= a.in_flight < high] for name, (low, high) in regions.items()}
    groups["prompts take a third of the time"] = [a for a in found if a.prompt_frac >= MUCH_PROMPT_FRAC]
    groups["all"] = found
    for latency, column in (("TTFT", 0), ("TPOT", 1)):
        for name, own in groups.items():
            if not own:
                continue
            said = []
            for way, words in (("carrying", "as many as carry it"), ("at_random", "at random")):
                errors = np.array([getattr(a, way)[column] for a in own])
                median, most_of_them = np.quantile(abs(errors), (0.5, 0.9))
                said.append(f"{words}: {errors.mean():+.1%}, {median:.1%}, {most_of_them:.1%}")
            print(f"{latency}, {name}, {len(own)} plans; {'; '.join(said)}")
    print("mean, median of the size, nine of ten within")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, help="measured closed loops, as `autotune validate` takes them")
    parser.add_argument("--arrivals", action="store_true", help="arrivals at random instead of closed loops")
    parser.add_argument("--cv", type=float, default=1.0, help="coefficient of variation of the gaps between them")
    parser.add_argument("--models", type=Path, help="folder with config.json files of the runs' models")
    parser.add_argument("--plans", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if options.runs is not None:
        _against_runs(options.runs, options.models)
        return
    if options.arrivals:
        _at_rates(options.plans, options.seed, options.cv)
        return
    began = time.process_time()
    found = list(cases(options.plans, options.seed))
    print(f"{'':<42} {'plans':>5} {'TTFT median':>12} {'p90':>7} {'TPOT median':>12} {'p90':>7}")
    for name, inside in REGIONS.items():
        own = [case for case in found if inside(case)]
        if not own:
            continue
        ttft, tpot = ([case.error(error) for case in own] for error in ("ttft_s", "tpot_s"))
        print(
            f"{name:<42} {len(own):>5} {np.median(ttft):>12.1%} {np.quantile(ttft, 0.9):>7.1%} "
            f"{np.median(tpot):>12.1%} {np.quantile(tpot, 0.9):>7.1%}"
        )
    print(f"{time.process_time() - began:.0f} CPU-s")


if __name__ == "__main__":
    main()
