"""Whole days and whole clusters: how many replicas run when, planned for the load that a log lets expect."""

from autotune.planning.joined_days import DayShape, joined_days
from autotune.planning.plan_day import DayPlan, DayQuestion, plan_day

__all__ = ["DayPlan", "DayQuestion", "DayShape", "joined_days", "plan_day"]
