"""From our records to Optuna's trials."""

from __future__ import annotations

from functools import lru_cache

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from autotune.engines import ENGINES
from autotune.storage.record import TrialRecord
from costmodel.dtypes import BYTES_PER_WEIGHT, KV_BYTES
from costmodel.hardware import gpu_names
from costmodel.plan.layout import LAYOUT_AXES

LISTED_ATTR = "constraints"
"""System attribute in which Optuna before 5 kept a trial's constraints, a list without names. optuna-dashboard 0.21
reads no other: without it, it would draw what breaks a limit as if it kept all."""
LAYOUT_PARAMS = LAYOUT_AXES
POOL_PARAMS = tuple(f"prefill_{name}" for name in ("gpus", "replicas", "pp", "attn_tp", "attn_dp", "moe_tp", "moe_ep"))
"""The prefill pool of a disaggregated plan, whose other layout parameters are those of its decode pool."""
KNOB_PARAMS = (
    "concurrency",
    "max_num_batched_tokens",
    "weight_dtype",
    "kv_dtype",
    "gpus",
    "gpu",
    "max_local_prefill_tokens",
)
PARAMS = ("engine", *LAYOUT_PARAMS, *KNOB_PARAMS, *POOL_PARAMS)
"""Names that `TrialRecord.params` may hold: numbers on logarithmic axes, so that plots can be read."""


def distributions(gpus: int) -> dict[str, BaseDistribution]:
    """Distribution of every parameter: the same for all trials of a study, as samplers need it."""
    return _distributions(gpus, tuple(ENGINES))


@lru_cache(maxsize=8)
def _distributions(gpus: int, engines: tuple[str, ...]) -> dict[str, BaseDistribution]:
    degree = IntDistribution(1, max(gpus, 2), log=True)
    found: dict[str, BaseDistribution] = dict.fromkeys(PARAMS, degree)
    found["gpu"] = CategoricalDistribution(("cluster", *gpu_names()))
    found["engine"] = CategoricalDistribution(engines)
    found["two_batch_overlap"] = IntDistribution(0, 1)
    found["redundant_experts"] = IntDistribution(0, 100_000)
    found["max_local_prefill_tokens"] = IntDistribution(0, 100_000_000)
    found["concurrency"] = IntDistribution(1, 100_000_000, log=True)
    found["max_num_batched_tokens"] = IntDistribution(16, 10_000_000, log=True)
    found["weight_dtype"] = CategoricalDistribution(("checkpoint", *BYTES_PER_WEIGHT))
    found["kv_dtype"] = CategoricalDistribution(("checkpoint", *KV_BYTES))
    return found


def frozen_trial(record: TrialRecord, gpus: int) -> FrozenTrial:
    """A finished trial: COMPLETE, or PRUNED where the objective has no finite value.

    Parameters, values and constraints are there for Optuna's tools; we read the attributes, which have a checksum.
    PRUNED and not a worst value, because an infinity breaks plots and JSON readers and an invented number
    would be read as a result; not FAIL, because the plan was scored, and TPE may learn that it is bad.

    Raises:
        ValueError: a parameter that is not one of `PARAMS` or lies outside its distribution.
    """
    known = distributions(gpus)
    if unknown := sorted(set(record.params) - set(known)):
        raise ValueError(f"params must be among {', '.join(PARAMS)}, got {', '.join(unknown)}")
    return create_trial(
        state=TrialState.COMPLETE if record.values else TrialState.PRUNED,
        values=record.values or None,
        params=dict(record.params),
        distributions={name: known[name] for name in record.params},
        user_attrs=record.attributes(),
        system_attrs={LISTED_ATTR: list(record.constraints.values())} if record.constraints else None,
        constraints=dict(record.constraints),
    )


def named_constraints(trial: FrozenTrial) -> dict[str, float]:
    """Constraint -> excess, without those of the list (`LISTED_ATTR`), which Optuna names by their place in it."""
    listed = len(trial.system_attrs.get(LISTED_ATTR, ()))
    places = {str(i) for i in range(listed)}
    named = {code: excess for code, excess in trial.constraints.items() if code not in places}
    return named or trial.constraints
