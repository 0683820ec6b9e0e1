"""Tables of a study of several models on one cluster, beside those that every study has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from autotune.study import field_types as ft

Hour = Annotated[ft.Real, Field(ge=0, le=24)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShare:
    """What a model of a cluster has beside its study."""

    __pydantic_config__ = ft.TABLE
    name: str = ft.entry("what the model is called in tables", min_length=1, max_length=60)
    weight: ft.Positive = ft.entry("importance: what it is worth to serve all of its requests; default 1", 1.0)
    gpus: ft.Whole | None = ft.entry("GPUs of the cluster's own type that it has today", None, ge=0, le=ft.MAX_GPUS)
    also_gpus: Mapping[str, Annotated[ft.Whole, Field(ge=0, le=ft.MAX_GPUS)]] = ft.entry(
        "GPUs of other types that it has today, by catalog name", {}
    )
    min_gpus: ft.Whole = ft.entry("GPUs that it gets at least while it is awake", 0, ge=0, le=ft.MAX_GPUS)
    awake_h: tuple[Hour, Hour] | None = ft.entry(
        "hours of the day, from and to, in which it has traffic; others may have its GPUs otherwise; default: always",
        None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DivisionTable:
    """How a cluster is divided."""

    __pydantic_config__ = ft.TABLE
    unit: Literal["node", "domain", "gpu"] = ft.entry(
        "what is handed out whole: a host, an NVLink domain, or single GPUs; default node", "node"
    )
