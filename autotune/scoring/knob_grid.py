"""The rows that are scored: every candidate with every knob that is tried rather than solved for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import nan

import numpy as np

from autotune.engines import ENGINES
from autotune.scoring.exchange_choice import with_backend
from autotune.scoring.plan_result import PlanResult
from autotune.space import Candidate
from autotune.study import OwnOptions, Study, cluster_of, started_with
from costmodel.arch import stored_in
from costmodel.engine import NOTHING_CAPTURED, EngineTraits
from costmodel.estimate.batch import PlanBatch, PlanEntry
from costmodel.estimate.open_loop import at_random, evenly, knots_around, with_spare
from costmodel.estimate.request_mix import Kinds, combined, point_loads, with_shared_cache
from costmodel.estimate.result import Estimate, at_rate
from costmodel.plan.columns import Bools, Floats, Ints
from costmodel.serving.load import Load
from costmodel.serving.steady_state import SteadyState

UNBOUNDED_SEQS = 1 << 16
CARRIED = 1.0 - 1e-9
"""Share of a rate at which it counts as carried."""
ROWS_AT_RANDOM = 2_000
"""Rows whose latencies under random arrivals are looked up together, so that memory stays small."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A candidate with its storage dtypes; None is the checkpoint's."""

    candidate: Candidate
    weight_dtype: str | None
    kv_dtype: str | None
    study: int = 0
    """Index into the studies of a grid."""
    own_options: OwnOptions | None = None
    """What its engine is started with where that is not as the study says."""

    @classmethod
    def of(cls, plan: PlanResult) -> Variant:
        """A plan as it is launched, its load and token budget left open."""
        return cls(
            candidate=plan.candidate,
            weight_dtype=plan.knobs.weight_dtype,
            kv_dtype=plan.knobs.kv_dtype,
            own_options=plan.own_options,
        )


def _as_started(studies: tuple[Study, ...], variants: Sequence[Variant]) -> tuple[tuple[Study, ...], Sequence[Variant]]:
    """Studies of which each has one way of starting engines, and the variants with their places among them.

    Where none has options of its own, both are as they were.
    """
    if all(v.own_options is None for v in variants):
        return studies, variants
    asked = sorted(dict.fromkeys((v.study, v.own_options) for v in variants), key=lambda key: key[1] is not None)
    places = {key: place for place, key in enumerate(asked)}
    started = tuple(started_with(studies[study], own) for study, own in asked)
    return started, [replace(v, study=places[v.study, v.own_options]) for v in variants]


@dataclass(frozen=True, slots=True, kw_only=True)
class KnobGrid:
    """Rows of (variant, token budget), prepared for evaluation."""

    studies: tuple[Study, ...]
    """Of the rows: alike in all but their clusters, their requests' lengths and their prompts' longest, and in how
    engines are started."""
    variants: tuple[Variant, ...]
    variant: Ints
    """Index into `variants`, shape `(num_rows,)`."""
    batched_tokens: Floats
    batch: PlanBatch
    price_per_hour: Floats
    """Of all GPUs of each row, US dollars; NaN where the study gives none. Shape `(num_rows,)`."""
    prefix_hit_frac: Floats
    """Share of prompt tokens that each row's caches find. Shape `(num_rows,)`."""
    offered_per_s: Floats | None
    """Requests per second that come to each row, shape `(num_rows,)`; None: a fixed number is in flight."""

    @property
    def study(self) -> Study:
        """The question, in which all studies of the rows are alike."""
        return self.studies[0]

    @classmethod
    def of(cls, study: Study, variants: Sequence[Variant], batched_tokens: Sequence[int]) -> KnobGrid:
        """Every variant with every token budget."""
        return cls.of_studies((study,), variants, batched_tokens)

    @classmethod
    def of_studies(
        cls, studies: tuple[Study, ...], variants: Sequence[Variant], batched_tokens: Sequence[int]
    ) -> KnobGrid:
        """Every variant, under a study of its own, with every token budget; see `studies`."""
        studies, variants = _as_started(studies, variants)
        study = studies[0]
        archs = {d: stored_in(study.arch, d) for d in dict.fromkeys(v.weight_dtype for v in variants)}
        asked = dict.fromkeys((v.study, v.candidate.gpu, v.candidate.layout.gpus) for v in variants)
        clusters = {(place, gpu, gpus): cluster_of(studies[place], gpu, gpus) for place, gpu, gpus in asked}
        named = dict.fromkeys(v.candidate.engine for v in variants)
        rules = {name: ENGINES[name].cache_rule(study.arch, study.engine_version) for name in named}
        entries = [
            PlanEntry(
                arch=archs[v.weight_dtype],
                cluster=clusters[v.study, v.candidate.gpu, v.candidate.layout.gpus],
                engine=engine_traits(studies[v.study], v.candidate.engine),
                layout=v.candidate.layout,
                kv_dtype=v.kv_dtype,
                engine_version=study.engine_version,
                cache=rules[v.candidate.engine],
            )
            for v in variants
        ]
        batch = PlanBatch.of(entries, expert_skew=study.workload.expert_skew, profile=study.calibration)
        index = np.repeat(np.arange(len(variants)), len(batched_tokens))
        price = np.array([nan if (p := e.cluster.gpu.price_per_hour) is None else p * e.layout.gpus for e in entries])
        grid = cls(
            studies=studies,
            variants=tuple(variants),
            variant=index,
            batched_tokens=np.tile(np.array(batched_tokens, dtype=np.float64), len(variants)),
            batch=batch.take(index) if len(batched_tokens) > 1 else batch,
            price_per_hour=price[index],
            prefix_hit_frac=np.full(index.size, study.workload.prefix_cache_hit_frac),
            offered_per_s=None if (rate := study.workload.request_rate_per_s) is None else np.full(index.size, rate),
        )
        batch = with_backend(grid.batch, entries, index, grid.load(np.ones(1)), grid.bounds())
        return replace(grid, batch=batch, prefix_hit_frac=replace(grid, batch=batch).found_frac())

    def found_frac(self) -> Floats:
        """Share of prompt tokens that each row's caches find: of a log with blocks what they have room for."""
        recorded = self.study.workload.recorded
        if recorded is None or recorded.blocks is None:
            return self.prefix_hit_frac
        layout, tokens = self.batch.layout, self.batch.kv_tokens(self.load(np.ones(1)), **self.bounds())
        caches = (layout.replicas * layout.attn_dp).astype(np.int64)
        return recorded.blocks.hit_frac(caches=caches, tokens=tokens)

    def take(self, index: Ints) -> KnobGrid:
        """Gather rows, with repetition: one row at several loads is several rows."""
        return replace(
            self,
            variant=self.variant[index],
            batched_tokens=self.batched_tokens[index],
            batch=self.batch.take(index),
            price_per_hour=self.price_per_hour[index],
            prefix_hit_frac=self.prefix_hit_frac[index],
            offered_per_s=None if self.offered_per_s is None else self.offered_per_s[index],
        )

    def load(self, concurrency: Floats) -> Load:
        """What is asked of every row with so many requests in flight over all replicas."""
        return Load(
            isl=self.asked(lambda study: study.workload.isl.mean),
            osl=self.asked(lambda study: study.workload.osl.mean),
            prefix_hit_frac=self.prefix_hit_frac,
            concurrency=concurrency,
            batched_tokens=self.batched_tokens,
            max_num_seqs=self.asked(lambda study: float(study.engine_options.max_num_seqs or UNBOUNDED_SEQS)),
            shared_grows=np.array([float(self.study.workload.sessions is not None)]),
            **self._speculation(),
        )

    def evaluate(self, concurrency: Floats) -> Estimate:
        """Estimate every row with so many requests in flight over all replicas, as many as the study says arrive or
        others."""
        load, kinds, arrivals = self.load(concurrency), self._kinds(), self.offered_per_s is not None
        if kinds is None:
            return self.batch.evaluate(load, **self.bounds(), arrivals=arrivals)
        # all kinds in one batch: what an evaluation takes is mostly numpy's overhead per call
        rows, count = len(self.batched_tokens), len(kinds.isl)
        spread = self.batch.take(np.tile(np.arange(rows), count))
        bounds = {name: np.tile(b, count) if b.size > 1 else b for name, b in self.bounds().items()}
        return combined(spread.evaluate(point_loads(load, kinds, rows), **bounds, arrivals=arrivals), kinds)

    def admitted(self, concurrency: Floats) -> Floats:
        """Requests of a replica that have KV cache and a seat with so many in flight over all replicas."""
        load, kinds = self.load(concurrency), self._kinds()
        return self.batch.admitted(load if kinds is None else with_shared_cache(load, kinds), **self.bounds())

    def serving(self, concurrency: Floats) -> Estimate:
        """The same where no more is served than arrives, if the rows have request rates."""
        estimate, rate = self.evaluate(concurrency), self.offered_per_s
        return estimate if rate is None else at_rate(self._arriving(estimate, concurrency, rate), rate)

    @property
    def wanted_per_s(self) -> Floats:
        """Requests per second with which a row serves all that comes to it, shape `(num_rows,)`; 0 without a rate."""
        return np.zeros(self.variant.size) if self.offered_per_s is None else self.offered_per_s * CARRIED

    def carries(self, estimate: Estimate) -> Bools:
        """Which rows serve all that comes to them, shape `(num_rows,)`."""
        return np.asarray(estimate.requests_per_s >= self.wanted_per_s)

    def _arriving(self, estimate: Estimate, concurrency: Floats, rate_per_s: Floats) -> Estimate:
        """The estimate with latencies of requests that come as the study says, of rows that carry them."""
        carry = np.flatnonzero(self.carries(estimate))
        if not carry.size:
            return estimate
        cv2 = self.study.workload.arrival_cv**2
        layout = self.batch.layout
        replicas, stages = (np.broadcast_to(c, concurrency.shape) for c in (layout.replicas, layout.pp))

        def of(rows: Ints) -> dict[str, Floats]:
            return {"offered_per_s": rate_per_s[rows], "replicas": replicas[rows], "stages": stages[rows]}

        for rows in np.array_split(carry, -(-carry.size // ROWS_AT_RANDOM)):
            own = replicas[rows]
            knots = knots_around(concurrency[rows] / own)
            found = self.take(np.repeat(rows, knots.shape[1])).evaluate((knots * own[:, None]).ravel())
            estimate = with_spare(estimate, rows, found, knots, rate_per_s[rows])
            if cv2 > 0.0:
                estimate = at_random(estimate, rows, found, knots, cv2=cv2, **of(rows))
        return estimate if cv2 > 0.0 else evenly(estimate, carry, **of(carry))

    def steady(self, concurrency: Floats) -> SteadyState:
        """The same before the calibration's residuals: the steps that every row settles into."""
        return self.batch.steady(self.load(concurrency), **self.bounds())

    def asked(self, figure: Callable[[Study], float]) -> Floats:
        """A figure of every row's study, shape `(num_rows,)`; of a single study `(1,)`."""
        values = np.array([figure(study) for study in self.studies])
        return values if len(self.studies) == 1 else values[self._places()]

    def _places(self) -> Ints:
        """The study of each row, as index into `studies`."""
        return np.array([variant.study for variant in self.variants])[self.variant]

    def _kinds(self) -> Kinds | None:
        """Kinds of requests that rows are asked for; None: all of a study's requests have its mean lengths."""
        if not self.study.workload.points:
            return None
        kinds = Kinds.of([study.workload.points for study in self.studies])
        return kinds if len(self.studies) == 1 else kinds.take(self._places())

    def _speculation(self) -> dict[str, Floats]:
        return {n: v if len(self.studies) == 1 else v[self._places()] for n, v in speculation(*self.studies).items()}

    def bounds(self) -> dict[str, Floats]:
        """Longest prompt and memory fraction of the rows, as `PlanBatch.evaluate` takes them."""
        return {
            "longest_prompt": self.asked(lambda study: float(study.workload.longest_prompt)),
            "memory_fraction": self.asked(lambda study: study.engine_options.gpu_memory_utilization),
        }


def speculation(*studies: Study) -> dict[str, Floats]:
    """The fields of a `Load` that speculative decoding sets, shape `(len(studies),)`; none where no study has it."""
    given = [study.axes.speculative for study in studies]
    if all(one is None for one in given):
        return {}
    return {
        "step_tokens": np.array([1.0 if one is None else one.draft_tokens + 1.0 for one in given]),
        "accepted_tokens": np.array([1.0 if one is None else one.accepted_per_step for one in given]),
        "draft_frac": np.array([0.0 if one is None else one.draft_frac or 0.0 for one in given]),
    }


def engine_traits(study: Study, engine: str) -> EngineTraits:
    """The engine as the cost model sees it, started with the study's options."""
    traits = ENGINES[engine].traits
    return traits if study.engine_options.cuda_graphs else replace(traits, captured_prompt_tokens=NOTHING_CAPTURED)
