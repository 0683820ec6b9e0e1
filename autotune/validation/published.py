"""Published deployments that nothing was fitted on, computed step by step as their sources describe them."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

import numpy as np

from autotune.engines import ENGINES, Engine
from costmodel.arch import load_model
from costmodel.disaggregated.decode_pool import decode_pool
from costmodel.disaggregated.kv_transfer import TransferLink
from costmodel.disaggregated.pool_calibration import PoolCalibration
from costmodel.disaggregated.prefill_pool import prefill_pool
from costmodel.estimate.batch import PlanBatch, PlanEntry
from costmodel.hardware import Cluster, load_gpu
from costmodel.plan.layout import Layout
from costmodel.serving.load import Load
from costmodel.step.step_work import StepWork, decode_work, mean_context

PROFILE = "DeepSeek, profile-data (2025-02), github.com/deepseek-ai/profile-data"
DAY_SIX = "DeepSeek, open-infra-index, day 6 (2025-03), github.com/deepseek-ai/open-infra-index"
NODE_GPUS = 8
BUSY_FRAC = 0.95
"""Share of a production pool's passes that are full: requests that arrive when they like leave it idle now and then."""
DAY_CONTEXT, DAY_IN, DAY_OUT, DAY_HITS = 4989.0, 608.0, 168.0, 0.563
"""Of the production day: mean tokens of cache per output token, 1e9 tokens in and out, share found in the cache."""
DAY_PROMPT = DAY_CONTEXT / (1.0 + 0.5 * DAY_OUT / DAY_IN)
"""Tokens of a prompt, if all requests were alike: an output token sees its prompt and half of its output."""
DAY_PROMPTS = f"prompts of {DAY_PROMPT:,.0f} tokens, {DAY_HITS:.1%} of them cached, counted without the hits"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedPoint:
    """One published figure and ours."""

    name: str
    source: str
    assumed: str
    published: float
    predicted: float
    unit: str

    @property
    def ratio(self) -> float:
        """Predicted over published."""
        return self.predicted / self.published


def published_points() -> tuple[PublishedPoint, ...]:
    """DeepSeek-V3 on H800: prefill and decode, on the profiled steps and on a production day."""
    overlap = "two micro-batches, computation of one over communication of the other; balanced routing"
    prefill = _prefill(ranks=32, spare=32, tokens=16384.0, prompt=4096.0, hit=0.0)
    cached = _prefill(ranks=32, spare=32, tokens=16384.0, prompt=DAY_PROMPT, hit=DAY_HITS)
    decode = _decode(ranks=128, sequences=128.0, context=4096.0)
    day, tokens_per_s = _at_speed(lambda n: _decode(ranks=144, sequences=n, context=DAY_CONTEXT), 21.0)
    speed = f"batch of {day:.0f} a GPU, which gives 21 tokens/s per user at {DAY_CONTEXT:,.0f} tokens of context"
    return _beside_published(
        ("prefill EP32 on 4 nodes, 4K prompts, 16K tokens a GPU", overlap, prefill),
        ("decode EP128 on 16 nodes, batch 128 a GPU, 4K context", overlap, decode),
        (
            "production prefill EP32, without cache hits",
            f"{overlap}; {DAY_PROMPTS}; {BUSY_FRAC:.0%} utilised, as requests arrive when they like",
            cached * BUSY_FRAC * NODE_GPUS,
        ),
        ("production decode EP144 on 18 nodes", f"{overlap}; {speed}", tokens_per_s * NODE_GPUS),
    )


def published_pools(calibration: PoolCalibration | None = None) -> tuple[PublishedPoint, ...]:
    """The same deployments as the pools of a disaggregated plan, as `tune` ranks them with two-batch overlap.

    `calibration` stands in for the shipped one.
    """
    stand_in = f"{_engine().title}'s schedule and calibration"
    alone = f"pool model of search.disaggregated with two_batch_overlap; {stand_in}"
    # a profiled step is full, where requests that arrive when they like leave the pool idle now and then
    prefill = _prefill_pool(calibration, ranks=32, spare=32, tokens=16384.0, prompt=4096.0, hit=0.0) / BUSY_FRAC
    cached = _prefill_pool(calibration, ranks=32, spare=32, tokens=16384.0, prompt=DAY_PROMPT, hit=DAY_HITS)
    decode = _decode_pool(calibration, ranks=128, sequences=128.0, context=4096.0)
    day, at_speed = _at_speed(lambda n: _decode_pool(calibration, ranks=144, sequences=n, context=DAY_CONTEXT), 21.0)
    speed = f"batch of {day:.0f} a GPU, which gives 21 tokens/s per user"
    return _beside_published(
        ("prefill pool EP32, 4K prompts", alone, prefill),
        ("decode pool EP128, batch 128 a GPU, 4K context", alone, decode),
        (
            "production prefill pool EP32, without cache hits",
            f"{alone}; {BUSY_FRAC:.0%} utilised; {DAY_PROMPTS}",
            cached * NODE_GPUS,
        ),
        ("production decode pool EP144", f"{alone}; {speed}", at_speed * NODE_GPUS),
    )


PUBLISHED = (
    (PROFILE, 7839.0, "tokens/s per GPU"),
    (PROFILE, 2324.0, "tokens/s per GPU"),
    (DAY_SIX, 32200.0, "tokens/s per node"),
    (DAY_SIX, 14800.0, "tokens/s per node"),
)
"""Source, figure and unit: prefill and decode of the profile, then of the production day."""


def _beside_published(*ours: tuple[str, str, float]) -> tuple[PublishedPoint, ...]:
    """Name, what was assumed and our figure of each of `PUBLISHED`."""
    return tuple(
        PublishedPoint(name=name, source=source, assumed=assumed, published=figure, predicted=predicted, unit=unit)
        for (name, assumed, predicted), (source, figure, unit) in zip(ours, PUBLISHED, strict=True)
    )


MEMORY_FRACTION = np.array([0.9])
OUTPUTS = 1000.0
"""Output tokens of a request of the decode pools: their context is that of the middle of it."""


def _load(prompt: float, hit: float, tokens: float) -> Load:
    return Load(
        isl=np.array([prompt]),
        osl=np.array([OUTPUTS]),
        prefix_hit_frac=np.array([hit]),
        concurrency=np.ones(1),
        batched_tokens=np.array([tokens]),
        max_num_seqs=np.array([4096.0]),
    )


def _prefill_pool(
    calibration: PoolCalibration | None, *, ranks: int, spare: int, tokens: float, prompt: float, hit: float
) -> float:
    """Tokens/s per GPU, cached ones not counted."""
    load, longest = _load(prompt, hit, tokens), np.array([prompt])
    batch = _batch(ranks, spare)
    pool = prefill_pool(
        batch, load, TransferLink(), longest_prompt=longest, memory_fraction=MEMORY_FRACTION, calibration=calibration
    )
    rate = float(pool.at(np.array([BUSY_FRAC])).columns.requests_per_s[0])
    return rate * prompt * (1.0 - hit) / ranks


def _decode_pool(calibration: PoolCalibration | None, *, ranks: int, sequences: float, context: float) -> float:
    """Output tokens/s per GPU."""
    prompt = context - OUTPUTS / 2.0
    load, longest = _load(prompt, 0.0, 1024.0), np.array([prompt])
    batch = _batch(ranks, 0 if 256 % ranks == 0 else -256 % ranks)
    pool = decode_pool(
        batch, load, TransferLink(), longest_prompt=longest, memory_fraction=MEMORY_FRACTION, calibration=calibration
    )
    return sequences / float(pool.at(np.array([sequences * ranks])).columns.latency_s[0])


@lru_cache(maxsize=1)
def _engine() -> Engine:
    """The engine that stands in for DeepSeek's own."""
    table = tomllib.loads((files("autotune.validation") / "published.toml").read_text(encoding="utf-8"))
    return ENGINES[table["engine"]]


def _batch(ranks: int, spare: int) -> PlanBatch:
    arch = load_model("deepseek-v3")
    layout = Layout(
        replicas=1,
        pp=1,
        attn_tp=1,
        attn_dp=ranks,
        moe_tp=1,
        moe_ep=ranks,
        redundant_experts=spare,
        two_batch_overlap=1,
        stage_layers=(arch.num_hidden_layers,),
    )
    cluster = Cluster(gpus=ranks, gpu=load_gpu("h800"), gpus_per_node=NODE_GPUS)
    return PlanBatch.of([PlanEntry(arch=arch, cluster=cluster, engine=_engine().traits, layout=layout)])


def _step_s(batch: PlanBatch, work: StepWork) -> float:
    """Kernels and collectives of a step."""
    return float(np.asarray(sum(batch.step(work).group_s.values()))[0])


def _prefill(*, ranks: int, spare: int, tokens: float, prompt: float, hit: float) -> float:
    """Tokens/s per GPU of a prefill step, cached ones not counted."""
    batch = _batch(ranks, spare)
    mine = np.array([tokens])
    new = np.array([prompt * (1.0 - hit)])
    cached = prompt - new
    work = StepWork(
        prefill_tokens=mine,
        prefill_tokens_group=mine * ranks,
        prefill_context=mean_context(new, cached),
        prompt_tokens=new + cached,
        prefill_kv_tokens=mine / new * prompt,
        decode_sequences=np.zeros(1),
        decode_context=new,
        sampled=mine / new,
    )
    return tokens / (_step_s(batch, work) + float(batch.columns.engine.step_s[0]))


def _decode(*, ranks: int, sequences: float, context: float) -> float:
    """Tokens/s per GPU of a decode step."""
    batch = _batch(ranks, 0 if 256 % ranks == 0 else -256 % ranks)
    engine = batch.columns.engine
    work = decode_work(np.array([sequences]), np.array([context]))
    host_s = float(engine.step_s[0] + engine.sequence_s[0] * sequences)
    return sequences / (_step_s(batch, work) + host_s)


def _at_speed(per_gpu: Callable[[float], float], tokens_per_s_per_user: float) -> tuple[float, float]:
    """The batch per GPU whose users see this speed, and its tokens/s per GPU; `per_gpu`: batch to tokens/s."""
    low, high = 1.0, 4096.0
    for _ in range(40):
        middle = 0.5 * (low + high)
        speed = per_gpu(middle) / middle
        low, high = (middle, high) if speed >= tokens_per_s_per_user else (low, middle)
    return low, per_gpu(low)
