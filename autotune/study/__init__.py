"""The question: study files, read, checked and resolved."""

from autotune.study.clusters import cluster_choices, cluster_of, in_place, on_cluster, opens_clusters
from autotune.study.field_types import IntRange
from autotune.study.fingerprint import study_fingerprint
from autotune.study.load import load_study, study_from_document
from autotune.study.operation import RetunePolicy, Switch
from autotune.study.question import Study
from autotune.study.read_and_override import field_paths
from autotune.study.sections import (
    Baseline,
    Constraints,
    EngineOptions,
    Objective,
    Search,
    Sessions,
    Workload,
)

__all__ = [
    "Baseline",
    "Constraints",
    "EngineOptions",
    "IntRange",
    "Objective",
    "RetunePolicy",
    "Search",
    "Sessions",
    "Study",
    "Switch",
    "Workload",
    "cluster_choices",
    "cluster_of",
    "field_paths",
    "in_place",
    "load_study",
    "on_cluster",
    "opens_clusters",
    "study_fingerprint",
    "study_from_document",
]
