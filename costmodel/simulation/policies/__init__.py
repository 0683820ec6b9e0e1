"""The engines' schedulers: which prompts run in a step, beside what, and who gets cache."""

from costmodel.simulation.policies.base import Policy
from costmodel.simulation.policies.sglang import SGLANG
from costmodel.simulation.policies.trtllm import TRTLLM
from costmodel.simulation.policies.vllm import VLLM

__all__ = ["SGLANG", "TRTLLM", "VLLM", "Policy"]
