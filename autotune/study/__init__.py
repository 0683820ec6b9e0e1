"""The question: study files, read, checked and resolved."""

from autotune.study.clusters import (
    cluster_choices,
    cluster_of,
    in_place,
    on_cluster,
    on_one_cluster,
    on_throughput,
    opens_clusters,
)
from autotune.study.engine_hardware import dtype_choices, in_production, refused_dtypes
from autotune.study.field_types import IntRange
from autotune.study.fingerprint import study_fingerprint
from autotune.study.load import load_study, study_from_document
from autotune.study.operation import RetunePolicy, Switch
from autotune.study.own_options import (
    own_option_sentence,
    own_option_values,
    own_option_words,
    own_options,
    own_options_from,
    started_with,
)
from autotune.study.question import Study
from autotune.study.read_and_override import field_paths
from autotune.study.sections import (
    Baseline,
    Constraints,
    EngineOptions,
    Objective,
    OwnOptions,
    Search,
)
from autotune.study.workload import Sessions, Workload

__all__ = [
    "Baseline",
    "Constraints",
    "EngineOptions",
    "IntRange",
    "Objective",
    "OwnOptions",
    "RetunePolicy",
    "Search",
    "Sessions",
    "Study",
    "Switch",
    "Workload",
    "cluster_choices",
    "cluster_of",
    "dtype_choices",
    "field_paths",
    "in_place",
    "in_production",
    "load_study",
    "on_cluster",
    "on_one_cluster",
    "on_throughput",
    "opens_clusters",
    "own_option_sentence",
    "own_option_values",
    "own_option_words",
    "own_options",
    "own_options_from",
    "refused_dtypes",
    "started_with",
    "study_fingerprint",
    "study_from_document",
]
