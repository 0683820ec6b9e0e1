"""The serving engines, a file each: layouts, hardware, the commands that start them and how those are read back."""

from autotune.engines.dynamo import DynamoBackend
from autotune.engines.engine import Engine
from autotune.engines.layout_rules import Violation
from autotune.engines.registry import (
    ANY,
    ENGINES,
    engine_title,
    engines_of,
    listed,
    policies_by_name,
    prefills_no_prompts,
    rule_texts,
    split_layers,
    split_name,
    traits_by_name,
)
from autotune.engines.surroundings import ReplicaNodes, Router, ServerMetrics

__all__ = [
    "ANY",
    "ENGINES",
    "DynamoBackend",
    "Engine",
    "ReplicaNodes",
    "Router",
    "ServerMetrics",
    "Violation",
    "engine_title",
    "engines_of",
    "listed",
    "policies_by_name",
    "prefills_no_prompts",
    "rule_texts",
    "split_layers",
    "split_name",
    "traits_by_name",
]
