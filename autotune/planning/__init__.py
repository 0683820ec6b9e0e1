"""Whole days and whole clusters: how many replicas run when, how models share GPUs, and what a failure takes down."""

from autotune.planning.divide_cluster import Division, divide_cluster
from autotune.planning.joined_days import DayShape, joined_days
from autotune.planning.models_study import ClusterStudy, load_models_study
from autotune.planning.plan_day import DayPlan, DayQuestion, plan_day
from autotune.planning.survive import Survival, survive

__all__ = [
    "ClusterStudy",
    "DayPlan",
    "DayQuestion",
    "DayShape",
    "Division",
    "Survival",
    "divide_cluster",
    "joined_days",
    "load_models_study",
    "plan_day",
    "survive",
]
