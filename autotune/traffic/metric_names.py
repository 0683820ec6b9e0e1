"""What servers and gateways call their counts of requests by length, as Prometheus has them.

Names are compared without punctuation and without what collectors put before them (Ray Serve's `ray_`, a gateway's own
name), so that `vllm:request_prompt_tokens` and `ray_vllm_request_prompt_tokens` are one.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache
from typing import Any

from autotune.engines import ENGINES, ServerMetrics

MODEL_LABELS = (
    "model_name", "model", "served_model_name", "gen_ai_request_model", "gen_ai_response_model", "target_model_name",
)  # fmt: skip
"""Labels that say of which model a series is."""
STATUS_LABELS = ("status_code", "status", "code")
STARTED = "process_start_time_seconds"
_BEFORE = re.compile(
    r"^\w*?(?=(?:vllm|sglang|trtllm|tgi|gen_ai_client|gen_ai_server|dynamo_frontend|inference_objective|inference_model)_)"
)


@lru_cache(maxsize=4096)
def plain_name(name: str) -> str:
    """A metric's name without punctuation and what a collector put before it."""
    return _BEFORE.sub("", re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_"))


def _plain(metrics: ServerMetrics) -> ServerMetrics:
    """The same with plain names."""
    plain: dict[str, Any] = {name: tuple(map(plain_name, getattr(metrics, name))) for name in _NAMES}
    return replace(metrics, **plain)


_NAMES = (
    "prompt", "output", "prompt_total", "output_total", "requests_total", "ttft_s", "cache_hits", "cache_queries",
)  # fmt: skip
"""Fields of `ServerMetrics` that name metrics."""
_IN_FRONT = (
    ServerMetrics(
        title="Dynamo's frontend",
        prompt=("dynamo_frontend_input_sequence_tokens",),
        output=("dynamo_frontend_output_sequence_tokens",),
        ttft_s=("dynamo_frontend_time_to_first_token_seconds",),
        cache_hits=("dynamo_frontend_cached_tokens_sum",),
        cache_queries=("dynamo_frontend_input_sequence_tokens_sum",),
    ),
    ServerMetrics(
        title="the Gateway API's inference extension",
        prompt=("inference_objective_input_tokens", "inference_model_input_tokens"),
        output=("inference_objective_output_tokens", "inference_model_output_tokens"),
    ),
)
"""Programs that see each request once, whatever serves it behind them."""
_OPEN = (
    ServerMetrics(
        title="OpenTelemetry's gen_ai",
        prompt=("gen_ai_client_token_usage", "gen_ai_client_token_usage_tokens", "gen_ai_client_token_usage_token"),
        output=("gen_ai_client_token_usage", "gen_ai_client_token_usage_tokens", "gen_ai_client_token_usage_token"),
        prompt_labels=(("gen_ai_token_type", "input"),),
        output_labels=(("gen_ai_token_type", "output"), ("gen_ai_token_type", "completion")),
        ttft_s=("gen_ai_server_time_to_first_token_seconds",),
    ),
    ServerMetrics(
        title="LiteLLM's proxy",
        prompt_total=("litellm_input_tokens_metric_total",),
        output_total=("litellm_output_tokens_metric_total",),
        requests_total=("litellm_proxy_total_requests_metric_total",),
        cache_hits=("litellm_input_cached_tokens_metric_total",),
        cache_queries=("litellm_input_tokens_metric_total",),
    ),
    ServerMetrics(title="TGI", prompt=("tgi_request_input_length",), output=("tgi_request_generated_tokens",)),
)


def known_metrics() -> list[ServerMetrics]:
    """Every program whose counts are read, those first that see each request once."""
    engines = [_plain(engine.metrics) for engine in ENGINES.values() if engine.metrics is not None]
    return [*_IN_FRONT, *engines, *_OPEN]


def is_read(name: str) -> bool:
    """Whether a metric is one that is read, by a name without the endings that Prometheus gives."""
    return plain_name(name).removesuffix("_total") in _stems()


@lru_cache(maxsize=1)
def _stems() -> frozenset[str]:
    names = (name for known in known_metrics() for part in _NAMES for name in getattr(known, part))
    return frozenset(name.removesuffix("_total").removesuffix("_sum") for name in (*names, STARTED))
