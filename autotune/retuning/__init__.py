"""Tuning again as traffic drifts: when another plan is worth a switch, and a ledger of what was decided."""

from autotune.retuning.decide import Decision, Inputs, PastSwitch, decide

__all__ = ["Decision", "Inputs", "PastSwitch", "decide"]
