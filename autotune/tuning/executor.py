"""Where plans are scored: in this process, in processes beside it, or on an existing Dask or Ray cluster.

All but the first go through joblib, so that one piece of code serves every kind of cluster.
"""

from __future__ import annotations

import importlib
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from autotune.scoring.best_knobs import score
from autotune.scoring.plan_result import PlanResult
from autotune.space import Candidate
from autotune.study import Study
from autotune.study.fingerprint import model_stamp
from autotune.version import DISTRIBUTION
from costmodel.errors import InputError

Scorer = Callable[[Study, Sequence[Candidate]], list[PlanResult]]
ATTEMPTS = 3
"""Times that plans are handed out whose process was killed."""
CONNECT_TIMEOUT_S = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Executor:
    """What scores batches of candidates."""

    jobs: int = 1
    """Batches scored at once."""
    backend: str = "joblib"

    def scored(
        self, study: Study, batches: Sequence[Sequence[Candidate]], scorer: Scorer = score
    ) -> Iterator[list[PlanResult]]:
        """Results of every batch as they come, in any order. `scorer` is a function of a module, sent by its name.

        Raises:
            InputError: a process dies again and again, or the cluster has another version of the cost model.
        """
        if self.backend == "joblib" and (self.jobs == 1 or len(batches) == 1):
            for batch in batches:
                yield scorer(study, batch)
            return
        left = dict(enumerate(batches))
        for _ in range(ATTEMPTS):
            try:
                for index, results in self._parallel(study, left, scorer):
                    del left[index]
                    yield results
            except BrokenExecutor:
                continue
            return
        raise InputError.single("--jobs", f"the scoring processes were killed {ATTEMPTS} times (out of memory?)")

    def _parallel(
        self, study: Study, left: dict[int, Sequence[Candidate]], scorer: Scorer
    ) -> Iterator[tuple[int, list[PlanResult]]]:
        from joblib import Parallel, delayed, parallel_config

        ordered = "list" if self.backend == "ray" else "generator_unordered"  # ray's backend has no generators
        stamp = model_stamp(study)
        work = [delayed(_score)(index, study, batch, stamp, scorer) for index, batch in left.items()]
        if self.backend == "joblib":
            yield from Parallel(n_jobs=self.jobs, return_as=ordered)(work)
            return
        with parallel_config(self.backend, n_jobs=self.jobs):
            yield from Parallel(return_as=ordered, batch_size=1)(work)


def _score(
    index: int, study: Study, batch: Sequence[Candidate], stamp: object, scorer: Scorer
) -> tuple[int, list[PlanResult]]:
    """Score one batch wherever this runs, with the model that whoever asks has."""
    if model_stamp(study) != stamp:
        raise InputError.single("--scheduler", "the cluster's workers must have this version of autotune installed")
    return index, scorer(study, batch)


@contextmanager
def open_executor(backend: str = "joblib", *, jobs: int = 1, scheduler: str | None = None) -> Iterator[Executor]:
    """What scores, connected for as long as the block runs.

    Args:
        backend: `joblib`, `dask` or `ray`.
        jobs: batches scored at once; on a cluster 1 means as many as it has processors.
        scheduler: address of a cluster: `tcp://host:8786` of Dask, `host:6379` or `ray://host:10001` of Ray.

    Raises:
        InputError: not installed, not reachable, or an address where none is needed.
    """
    if backend == "joblib":
        if scheduler is not None:
            raise InputError.single("--scheduler", f"must go with --backend dask or ray, got {scheduler!r} alone")
        yield Executor(jobs=jobs)
        return
    with (_dask if backend == "dask" else _ray)(scheduler) as slots:
        yield Executor(jobs=jobs if jobs > 1 else slots, backend=backend)


@contextmanager
def _dask(scheduler: str | None) -> Iterator[int]:
    """Connect to a Dask cluster; how many batches it scores at once."""
    if scheduler is None:
        raise InputError.single("--scheduler", "must be the address of a Dask scheduler, tcp://host:8786, got nothing")
    distributed = _import("distributed", "dask")
    try:
        client = distributed.Client(scheduler, timeout=CONNECT_TIMEOUT_S, set_as_default=True)
    except (OSError, ValueError, TimeoutError) as error:
        raise InputError.single("--scheduler", f"no Dask scheduler answers at {scheduler}") from error
    with client:
        threads = sum(client.nthreads().values())
        if not threads:
            raise InputError.single("--scheduler", f"the Dask scheduler at {scheduler} has no workers")
        yield threads


@contextmanager
def _ray(scheduler: str | None) -> Iterator[int]:
    """Connect to a Ray cluster; how many batches it scores at once."""
    _require_answer(scheduler)  # Ray itself tries for many minutes
    ray = _import("ray", "ray")
    register = importlib.import_module("ray.util.joblib").register_ray
    mine = not ray.is_initialized()
    if mine:
        try:
            ray.init(address=scheduler or "auto", log_to_driver=False, logging_level="ERROR")
        except (OSError, ConnectionError, RuntimeError, ValueError, ImportError) as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            where = scheduler or "this machine"
            raise InputError.single("--scheduler", f"no Ray cluster can be used at {where}: {reason}") from error
    try:
        register()
        with redirect_stdout(sys.stderr):  # Ray's own messages must not stand before an answer in a pipe
            yield max(int(ray.cluster_resources().get("CPU", 1)), 1)
    finally:
        if mine:
            ray.shutdown()


def _require_answer(scheduler: str | None) -> None:
    """Raise `InputError` where nothing listens at an address."""
    if scheduler is None:
        return
    try:
        parts = urlsplit(scheduler if "://" in scheduler else f"ray://{scheduler}")
        socket.create_connection((parts.hostname or "", parts.port or 0), timeout=CONNECT_TIMEOUT_S).close()
    except (OSError, ValueError) as error:
        raise InputError.single("--scheduler", f"no Ray cluster answers at {scheduler}") from error


def _import(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError.single(
            "--backend", f'{extra} is not installed: pip install "{DISTRIBUTION}[{extra}]"'
        ) from error
