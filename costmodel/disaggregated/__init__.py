"""Pools of replicas that only prefill or only decode, and what they do together."""
