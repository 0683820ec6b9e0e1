"""What servers and gateways call their counts of requests by length, as Prometheus has them.

Names are compared without punctuation and without what collectors put before them (Ray Serve's `ray_`, a gateway's own
name), so that `vllm:request_prompt_tokens` and `ray_vllm_request_prompt_tokens` are one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from autotune.engines import ENGINES, ServerMetrics

MODEL_LABELS = (
    "model_name", "model", "served_model_name", "gen_ai_request_model", "gen_ai_response_model", "target_model_name",
)  # fmt: skip
"""Labels that say of which model a series is."""
STATUS_LABELS = ("status_code", "status", "code")
STARTED = "process_start_time_seconds"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenMetrics:
    """One program's counts. Names are as `plain_name` gives them."""

    title: str
    prompt: tuple[str, ...]
    """Histograms of requests by prompt tokens, names of several versions."""
    output: tuple[str, ...]
    prompt_labels: tuple[tuple[str, str], ...] = ()
    """Labels of the series in question, where one histogram counts prompts and outputs."""
    output_labels: tuple[tuple[str, str], ...] = ()
    prompt_total: tuple[str, ...] = ()
    """Counters of prompt tokens, for programs without such histograms."""
    output_total: tuple[str, ...] = ()
    requests_total: tuple[str, ...] = ()
    ttft_s: tuple[str, ...] = ()
    """Histogram of requests by time to first token."""
    cache_hits: tuple[str, ...] = ()
    cache_queries: tuple[str, ...] = ()


_BEFORE = re.compile(
    r"^\w*?(?=(?:vllm|sglang|trtllm|tgi|gen_ai_client|gen_ai_server|dynamo_frontend|inference_objective|inference_model)_)"
)


@lru_cache(maxsize=4096)
def plain_name(name: str) -> str:
    """A metric's name without punctuation and what a collector put before it."""
    return _BEFORE.sub("", re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_"))


def _of_engine(title: str, names: ServerMetrics) -> TokenMetrics:
    def plain(texts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(plain_name(text) for text in texts)

    return TokenMetrics(
        title=title,
        prompt=plain((names.prompt_tokens,)) if names.prompt_tokens else (),
        output=plain((names.output_tokens,)) if names.output_tokens else (),
        prompt_total=plain(names.prompt_total),
        output_total=plain(names.output_total),
        requests_total=plain(names.requests_total),
        ttft_s=plain((names.ttft_s,)),
        cache_hits=plain(names.cache_hits),
        cache_queries=plain(names.cache_queries),
    )


_IN_FRONT = (
    TokenMetrics(
        title="Dynamo's frontend",
        prompt=("dynamo_frontend_input_sequence_tokens",),
        output=("dynamo_frontend_output_sequence_tokens",),
        ttft_s=("dynamo_frontend_time_to_first_token_seconds",),
        cache_hits=("dynamo_frontend_cached_tokens_sum",),
        cache_queries=("dynamo_frontend_input_sequence_tokens_sum",),
    ),
    TokenMetrics(
        title="the Gateway API's inference extension",
        prompt=("inference_objective_input_tokens", "inference_model_input_tokens"),
        output=("inference_objective_output_tokens", "inference_model_output_tokens"),
    ),
)
"""Programs that see each request once, whatever serves it behind them."""
_OPEN = (
    TokenMetrics(
        title="OpenTelemetry's gen_ai",
        prompt=("gen_ai_client_token_usage", "gen_ai_client_token_usage_tokens", "gen_ai_client_token_usage_token"),
        output=("gen_ai_client_token_usage", "gen_ai_client_token_usage_tokens", "gen_ai_client_token_usage_token"),
        prompt_labels=(("gen_ai_token_type", "input"),),
        output_labels=(("gen_ai_token_type", "output"), ("gen_ai_token_type", "completion")),
        ttft_s=("gen_ai_server_time_to_first_token_seconds",),
    ),
    TokenMetrics(
        title="LiteLLM's proxy",
        prompt=(),
        output=(),
        prompt_total=("litellm_input_tokens_metric_total",),
        output_total=("litellm_output_tokens_metric_total",),
        requests_total=("litellm_proxy_total_requests_metric_total",),
        cache_hits=("litellm_input_cached_tokens_metric_total",),
        cache_queries=("litellm_input_tokens_metric_total",),
    ),
    TokenMetrics(
        title="TGI",
        prompt=("tgi_request_input_length",),
        output=("tgi_request_generated_tokens",),
    ),
)


def known_metrics() -> list[TokenMetrics]:
    """Every program whose counts are read, those first that see each request once."""
    engines = [_of_engine(engine.title, engine.metrics) for engine in ENGINES.values() if engine.metrics is not None]
    return [*_IN_FRONT, *engines, *_OPEN]


def is_read(name: str) -> bool:
    """Whether a metric is one that is read, by a name without the endings that Prometheus gives."""
    return plain_name(name).removesuffix("_total") in _stems()


@lru_cache(maxsize=1)
def _stems() -> frozenset[str]:
    names = {
        name
        for known in known_metrics()
        for part in (
            known.prompt, known.output, known.prompt_total, known.output_total, known.requests_total, known.ttft_s,
            known.cache_hits, known.cache_queries,
        )
        for name in part
    }  # fmt: skip
    return frozenset(name.removesuffix("_total").removesuffix("_sum") for name in (*names, STARTED))
