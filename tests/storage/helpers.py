"""A study that exists in its storage alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from autotune.storage import Store, StudyHeader, TrialRecord, open_store

HEADER = StudyHeader(
    name="mine",
    fingerprint="f" * 64,
    question="a" * 64,
    model={"version": 1, "data": {}},
    directions=("maximize",),
    metrics=("expected_total_tokens_per_s_per_gpu",),
    overrides=("cluster.gpus=128",),
    most_gpus=128,
)


def store_at(location: Path | str, header: StudyHeader = HEADER, **options: Any) -> Store:
    """The study's store."""
    return open_store(location, header, **options)


def record(key: int | str, *, value: float = 1.0, excess: float = -1.0, **attrs: Any) -> TrialRecord:
    """A scored plan."""
    params = {"engine": "vllm", "replicas": 4, "pp": 2, "attn_tp": 4, "attn_dp": 4, "moe_tp": 1, "moe_ep": 16}
    return TrialRecord(
        key=str(key), params=params, values=(value,), constraints={"ttft": excess, "memory": -0.1}, attrs=attrs
    )


def optunas(location: Path | str) -> Any:
    """The storage as Optuna itself opens it."""
    import optuna
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if str(location).endswith(".log"):
        return JournalStorage(JournalFileBackend(str(location)))
    return RDBStorage(f"sqlite:///{location}" if "://" not in str(location) else str(location))


def optuna_study(location: Path | str, header: StudyHeader = HEADER) -> Any:
    """The study as Optuna itself loads it."""
    import optuna

    return optuna.load_study(study_name=header.study_name, storage=optunas(location))
