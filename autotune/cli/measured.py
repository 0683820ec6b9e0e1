"""What a benchmark's result ran on: what is given, else what an export wrote beside it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from autotune.launch.document import read_plan
from autotune.launch.files import MARK, MAX_MARK_BYTES, is_export
from autotune.study import Study
from autotune.study.portable import STUDY_FILE
from autotune.traffic.load import load_study
from autotune.validation.bench import BenchKnobs, BenchResult, read_results
from costmodel.errors import InputError
from costmodel.files import read_file
from costmodel.hardware import Gpu


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The study and plan of a result."""

    study: Study
    plan: str | None
    """As given; None: what the result says, or `fallback`."""
    fallback: str | None
    knobs: BenchKnobs | None
    assumptions: tuple[str, ...]


def gpus_of(study: str | None) -> dict[str, Gpu]:
    """GPUs of a study's file by name, which rows of runs may name; none where there is no study."""
    if study is None:
        return {}
    loaded = load_study(Path(study))
    return {cluster.gpu.name: cluster.gpu for cluster in (loaded.cluster, *loaded.axes.other_gpus)}


def bench_results(
    path: Path, study: str | None, plan: str | None, overrides: tuple[str, ...] = ()
) -> tuple[Measured, tuple[BenchResult, ...]]:
    """What a result ran on, and the runs it holds.

    Raises:
        InputError: no study is given, and none lies beside the result; or one of them is wrong.
    """
    measured = _measured_on(path, study, plan, overrides)
    return measured, read_results(path, measured.study, measured.plan, measured.knobs, fallback=measured.fallback)


def _measured_on(result: Path, study: str | None, plan: str | None, overrides: tuple[str, ...]) -> Measured:
    """Where the study, the plan and its knobs come from."""
    folder, said = result.parent, []
    document = json.loads(read_file(folder / MARK, MAX_MARK_BYTES)) if is_export(folder) else None
    beside = folder / STUDY_FILE
    if study is None:
        if not beside.is_file():
            raise InputError.single(
                "--study", f"is required: {result} is a benchmark's result, and no export's {STUDY_FILE} lies beside it"
            )
        study = str(beside)
        said.append(f"study: {beside}")
    loaded = load_study(Path(study), overrides)
    knobs = None
    fallback = None if loaded.baseline is None else loaded.baseline.plan
    if document is not None:
        path = str(folder / MARK)
        _, read = read_plan(document, path)
        exported = str(document.get("plan"))
        if plan is None or plan == exported:
            knobs = BenchKnobs(
                batched_tokens=float(read.max_num_batched_tokens),
                max_num_seqs=_started(document, read.max_num_seqs),
                weight_dtype=read.weight_dtype,
                kv_dtype=read.kv_dtype,
            )
            fallback = exported
    if knobs is None:
        said.append("how the servers were started is not known: token budget and sequences as they start by themselves")
    return Measured(study=loaded, plan=plan, fallback=fallback, knobs=knobs, assumptions=tuple(said))


def _started(document: dict[str, object], usual: int) -> float:
    table = document.get("started_with")
    value = table.get("max_num_seqs") if isinstance(table, dict) else None
    return float(value) if isinstance(value, int) and not isinstance(value, bool) and value > 0 else float(usual)
