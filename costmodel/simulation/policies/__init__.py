"""The engines' schedulers: which prompts run in a step, beside what, and who gets cache."""

from costmodel.simulation.policies.base import Policy
from costmodel.simulation.policies.sglang import PREFILL_FIRST
from costmodel.simulation.policies.trtllm import NO_EVICT
from costmodel.simulation.policies.vllm import VLLM_V1

__all__ = ["NO_EVICT", "PREFILL_FIRST", "VLLM_V1", "Policy"]
