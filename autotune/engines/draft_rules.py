"""Rules of engines that decode with drafts (speculative decoding), by what a server does.

vLLM and TensorRT-LLM have none: a study does not say by what is drafted, and some way of it runs with stages. vLLM
0.32.0 and 0.33.0, config/speculative.py: the last stage drafts, by a model in one stage; 0.24.0 and 0.29.0 give the
draft model the target's stages, which its class must take. TensorRT-LLM, pyexecutor/py_executor.py: drafters of their
own are refused ("Drafting is not supported for selected executor loop"), drafting within the model (MTP, EAGLE 3) is
not; its newer matrix of features (docs/source/features at 01edceae1757) has "No" for all.
"""

from __future__ import annotations

from collections.abc import Mapping

from autotune.engines.facts import holds_in
from autotune.engines.layout_rules import Rule

DraftRules = Mapping[str | None, tuple[Rule, ...]]
"""By the role of a pool; None: of a replica that does both."""

_ONE_STAGE = Rule(
    name="speculative_stages",
    text="the engine drafts tokens in servers of one pipeline stage, pools that prefill apart: pp must be 1",
    fields=("pp",),
    broken=lambda _, c: c.pp > 1,
)
"""SGLang 0.5.22 and 0.5.23, srt/arg_groups/validation_hook.py, check_pipeline_parallel_compat: "PP + speculative
decoding (MTP) is only supported on prefill nodes (disaggregation-mode=prefill)", unless SGLANG_ENABLE_PP_SPEC, which
is off by itself, opens EAGLE alone. 0.5.9, server_args.py: "Pipeline parallelism is not compatible with ...
speculative decoding", of any server; versions between were not looked at."""
_ONE_STAGE_BEFORE = Rule(
    name=_ONE_STAGE.name,
    text=_ONE_STAGE.text,
    fields=_ONE_STAGE.fields,
    broken=lambda _, c: (c.pp > 1) & holds_in(c.version, None, "0.5.9"),
)
SGLANG_DRAFT_RULES: DraftRules = {None: (_ONE_STAGE,), "decode": (_ONE_STAGE,), "prefill": (_ONE_STAGE_BEFORE,)}
