"""The result folder of NVIDIA AIConfigurator: its picks, as it ranks them, from `best_config_topn.csv` of each mode.

`--save-dir` of its command line holds a folder per run, and that one per experiment (`agg`, `disagg`, or a name of the
user's): `best_config_topn.csv` with the picks, `pareto.csv` with its front, and `top1`, `top2`, ... with launch files
and `per_ops_source.json`, which says of every operator what its time rests on. Times per operator it does not write.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path

from costmodel.errors import InputError, Problem
from costmodel.files import read_file

PICKS, FRONT, SOURCES = "best_config_topn.csv", "pareto.csv", "per_ops_source.json"
MOST_BYTES = 20_000_000
MEASURED = "silicon"
"""What `per_ops_source.json` says of an operator whose time was measured."""
AXES = {"pp": "PP", "tp": "ATP", "dp": "ADP", "cp": "CP"}
EXPERT_AXES = {"moe_tp": "ETP", "moe_ep": "EP"}
"""Columns of a layout -> axes of a plan string; `cp` is missing in older versions."""
FIGURES = ("ttft", "tpot", "tokens/s/gpu", "concurrency", "isl", "osl")


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerWorker:
    """One kind of worker of a pick: how many a replica has, and how each is cut."""

    workers: int
    axes: Mapping[str, int]
    """Of `AXES` and `EXPERT_AXES`, by the peer's names."""

    @property
    def gpus(self) -> int:
        """GPUs of one worker."""
        return self.axes["pp"] * self.axes["tp"] * self.axes["dp"] * self.axes.get("cp", 1)

    def plan(self, replicas: int, *, dense: bool) -> str:
        """The plan string of so many replicas of the pick."""
        names = AXES if dense else {**AXES, **EXPERT_AXES}
        said = [f"{name}{self.axes[key]}" for key, name in names.items() if key != "cp" or self.axes.get("cp", 1) > 1]
        return "/".join([f"R{replicas * self.workers}", *said])


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerPick:
    """A row of the peer's ranking. Figures are the peer's predictions."""

    mode: str
    """Name of the experiment: `agg`, `disagg`."""
    rank: int
    engine: str
    worker: PeerWorker
    """Of an aggregated pick; of a disaggregated one, its decode workers."""
    prefill: PeerWorker | None
    gpus: int
    """Of one replica: all its workers."""
    in_flight: int
    """Requests of one replica."""
    ttft_s: float
    tpot_s: float
    output_tokens_per_s_per_gpu: float
    """Of the GPUs that replicas hold."""
    isl: int
    osl: int
    model: str
    system: str
    sources: Mapping[str, str] = field(default_factory=dict)
    """Operator -> what its time rests on; empty where the folder does not say."""

    def plan(self, replicas: int, *, dense: bool) -> str:
        """The plan string of so many replicas."""
        own = self.worker.plan(replicas, dense=dense)
        if self.prefill is None:
            return f"{self.engine}:{own}"
        before = self.prefill.plan(replicas, dense=dense)
        sizes = [replicas * side.workers * side.gpus for side in (self.prefill, self.worker)]
        return f"{self.engine}:P{sizes[0]}:{before}+D{sizes[1]}:{own}"


def read_picks(folder: Path) -> tuple[PeerPick, ...]:
    """Every pick of a run, mode by mode in the order of their names, best first in each.

    `folder`: of a run, of one experiment, or the `--save-dir` of a single run.

    Raises:
        InputError: no file of picks is found or several runs are; a column is missing, or a figure is none.
    """
    files = sorted(folder.rglob(PICKS)) if folder.is_dir() else []
    if not files:
        raise InputError.single(str(folder), f"must be a result folder of AIConfigurator, which holds {PICKS}")
    runs = sorted({path.parent.parent for path in files})
    if len(runs) > 1:
        named = ", ".join(str(run) for run in runs[:4])
        raise InputError.single(str(folder), f"holds {len(runs)} runs of AIConfigurator; name one of {named}")
    picks: list[PeerPick] = []
    problems: list[Problem] = []
    for path in files:
        rows = _rows(path)
        for rank, row in enumerate(rows, start=1):
            try:
                picks.append(_pick(row, path, rank))
            except InputError as error:
                problems += error.problems
    if problems:
        raise InputError(problems)
    if not picks:
        raise InputError.single(str(folder), "holds no pick: AIConfigurator found none within its limits")
    return tuple(picks)


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        text = read_file(path, MOST_BYTES).decode("utf-8-sig")
        return [{k: v or "" for k, v in row.items() if k} for row in csv.DictReader(text.splitlines(), strict=True)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError.single(str(path), f"is no CSV file: {error}") from error


def _pick(row: Mapping[str, str], path: Path, rank: int) -> PeerPick:
    problems: list[Problem] = []
    where = f"{path}:{rank + 1}"

    def figure(name: str, *, least: float = 0.0) -> float:
        try:
            value = float(row[name])
        except KeyError:
            problems.append(Problem(path=where, message=f"has no column {name}"))
            return 1.0
        except ValueError:
            value = float("nan")
        if not isfinite(value) or value < least:
            problems.append(
                Problem(path=where, message=f"{name} must be a number of at least {least:g}, got {row[name]!r}")
            )
            return 1.0
        return value

    def whole(name: str) -> int:
        value = figure(name, least=1)
        if not value.is_integer():
            problems.append(Problem(path=where, message=f"{name} must be a whole number, got {row[name]!r}"))
        return int(value)

    def worker(role: str) -> PeerWorker:
        axes = {axis: whole(f"{role}{axis}") for axis in (*AXES, *EXPERT_AXES) if axis != "cp"}
        if row.get(f"{role}cp"):
            axes["cp"] = whole(f"{role}cp")
        return PeerWorker(workers=whole(f"{role}workers") if role else 1, axes=axes)

    pooled = "(p)tp" in row
    own, prefill = worker("(d)" if pooled else ""), worker("(p)") if pooled else None
    known = {name: figure(name, least=1 if name in ("concurrency", "isl", "osl") else 0) for name in FIGURES}
    gpus = whole("num_total_gpus")
    engine = row.get("(d)backend" if pooled else "backend", "")
    if not engine:
        problems.append(Problem(path=where, message="has no column backend"))
    if problems:
        raise InputError(problems)
    return PeerPick(
        mode=path.parent.name,
        rank=rank,
        engine=engine,
        worker=own,
        prefill=prefill,
        gpus=gpus,
        in_flight=int(known["concurrency"]),
        ttft_s=known["ttft"] / 1e3,
        tpot_s=known["tpot"] / 1e3,
        output_tokens_per_s_per_gpu=known["tokens/s/gpu"],
        isl=int(known["isl"]),
        osl=int(known["osl"]),
        model=row.get("model", ""),
        system=row.get("(d)system" if pooled else "system", ""),
        sources=_sources(path.parent / f"top{rank}" / SOURCES),
    )


def _sources(path: Path) -> dict[str, str]:
    """Operator -> what its time rests on, as `phase: operator`."""
    if not path.is_file():
        return {}
    try:
        document = json.loads(read_file(path, MOST_BYTES))
    except ValueError as error:
        raise InputError.single(str(path), "is no JSON document") from error
    phases = document.items() if isinstance(document, dict) else ()
    return {
        f"{phase}: {name}": str(source)
        for phase, found in phases
        if isinstance(found, dict)
        for name, source in found.items()
    }
