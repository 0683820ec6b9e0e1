"""One plan on a machine where only the kernel under test takes time, by a law of prime figures."""

from __future__ import annotations

from dataclasses import MISSING, fields

import numpy as np

from costmodel.arch import Arch, read_config
from costmodel.plan.columns import ArchColumns, ClusterColumns, Floats, LayoutColumns
from costmodel.plan.matrices import rank_matrices
from costmodel.plan.placement import Placement
from costmodel.plan.precision import PrecisionColumns
from costmodel.step.collectives import Links
from costmodel.step.kernel_laws import Rate
from costmodel.step.kernel_rates import Rates
from costmodel.step.step_inputs import Machine
from costmodel.step.step_work import StepWork
from tests.costmodel.helpers import TRAITS, cluster, layout

START, FLOPS, BYTES, ROW_PASSES = 0.125, 1009.0, 13.0, 5.0
"""Law of the kernel under test: seconds, FLOPs/s and bytes/s. No overlap, so that every term shows."""
KERNELS = tuple(f.name for f in fields(Rates) if f.default is MISSING and f.default_factory is MISSING)
PROMPT = {"prefill_tokens": 11.0, "prefill_context": 17.0, "prompt_tokens": 29.0, "prefill_kv_tokens": 19.0}


def one(value: float) -> Floats:
    """A column of one plan."""
    return np.array([float(value)])


def law(*, silent: bool, pad_rows: float = 0.0) -> Rate:
    """A kernel that takes no time at all, or the law under test."""
    rate = (0.0, np.inf, np.inf) if silent else (START, FLOPS, BYTES)
    values = (*rate, 1.0, pad_rows, ROW_PASSES, 1e3, 1e3)
    return Rate(**{f.name: one(v) for f, v in zip(fields(Rate), values, strict=True)})


def free_links() -> Links:
    """Collectives that take no time."""
    return Links(**{f.name: one(np.inf if f.name.endswith("bytes_per_s") else 0.0) for f in fields(Links)})


def machine(config: dict[str, object], *heard: str, pad_rows: float = 0.0, **degrees: int) -> tuple[Arch, Machine]:
    """One plan on a machine where only the kernels of `heard` take time."""
    arch = read_config(config, name="x")
    plan = layout(arch, **degrees)
    archs, layouts = ArchColumns.of([arch]), LayoutColumns.of([plan], [TRAITS["sglang"]])
    rates = {name: law(silent=name not in heard, pad_rows=pad_rows) for name in KERNELS}
    return arch, Machine(
        arch=archs,
        layout=layouts,
        precision=PrecisionColumns.of([arch], ["bf16"]),
        placement=Placement.of(layouts, ClusterColumns.of([cluster("h200", plan.gpus)])),
        links=free_links(),
        rates=Rates(**rates),
        matrices=rank_matrices(archs, layouts),
        popularity_cv2=one(0.0),
    )


def prompt_work(**values: float) -> StepWork:
    """A step of prompts, and of decoding sequences where they are given."""
    given = {**dict.fromkeys((f.name for f in fields(StepWork)), 0.0), **PROMPT, **values}
    given["prefill_tokens_group"] = given["prefill_tokens"]
    return StepWork(**{k: one(v) for k, v in given.items()})


def seconds(flops: float, moved: float) -> float:
    """The law under test."""
    return START + flops / FLOPS + moved / BYTES
