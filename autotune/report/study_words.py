"""What a study asks, on one line."""

from __future__ import annotations

from autotune.engines import engine_title
from autotune.study import Study


def study_headline(study: Study, about: str) -> str:
    """What a study is about, on one line."""
    gpus = f"{study.cluster.gpus} x {study.cluster.gpu.name}"
    return f"{study.name}: {study.arch.name} on {gpus}, {engine_title(study.engine)}; {about}"
