"""The question: study files, and the Optuna storage that keeps the answers."""

from autotune.study.clusters import cluster_choices, cluster_of, in_place, on_cluster, opens_clusters
from autotune.study.document import field_paths
from autotune.study.fingerprint import study_fingerprint
from autotune.study.json_schema import json_schema
from autotune.study.load import load_study, study_from_document
from autotune.study.operation import RetunePolicy, Switch
from autotune.study.storage import Store, TrialRecord, default_location, open_store
from autotune.study.values import (
    FEWEST_IN_FLIGHT,
    OBJECTIVES,
    Baseline,
    Constraints,
    EngineOptions,
    IntRange,
    Objective,
    Point,
    Search,
    Study,
    Workload,
)

__all__ = [
    "FEWEST_IN_FLIGHT",
    "OBJECTIVES",
    "Baseline",
    "Constraints",
    "EngineOptions",
    "IntRange",
    "Objective",
    "Point",
    "RetunePolicy",
    "Search",
    "Store",
    "Study",
    "Switch",
    "TrialRecord",
    "Workload",
    "cluster_choices",
    "cluster_of",
    "default_location",
    "field_paths",
    "in_place",
    "json_schema",
    "load_study",
    "on_cluster",
    "open_store",
    "opens_clusters",
    "study_fingerprint",
    "study_from_document",
]
