"""The same command on an existing Dask or Ray cluster of two workers answers as one process does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from autotune.report.document import tune_document
from autotune.report.files import to_json
from autotune.study import load_study
from autotune.tuning import tune
from autotune.tuning.executor import open_executor
from costmodel.errors import InputError
from tests.torture.harness import OVERRIDES, STUDY, answer

DASK = """
import sys
from distributed import LocalCluster
if __name__ == "__main__":
    where = {"protocol": "tcp://", "host": "127.0.0.1", "dashboard_address": None}
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=False, **where) as cluster:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()
"""
RAY = """
import sys
import ray
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR", object_store_memory=10**8)
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""

TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a-token-of-one-test-run-0123456789abcdef"}
"""Ray's clusters ask who comes; by default with a token of the user's home folder."""

DEATH = """
import os, sys, time
import ray
from autotune.tuning.executor import open_executor

@ray.remote(max_retries=1)
def dies_once(path):
    if not os.path.exists(path):
        open(path, "w").close()
        os._exit(1)

with open_executor("ray", scheduler=sys.argv[1]):
    ray.get(dies_once.remote(sys.argv[2]))
    time.sleep(3)
print("answer")
"""
"""A worker dies while a cluster is in use: Ray says so a moment later, by itself."""


@contextmanager
def cluster(script: str) -> Iterator[str]:
    """The address of a cluster that lives for the block."""
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **TOKEN},
    )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address
        yield address
    finally:
        process.communicate("")


def tuned(*arguments: str) -> dict[str, Any]:
    """The answer of `autotune tune` with these arguments."""
    options = [x for o in OVERRIDES for x in ("--set", o)]
    command = [sys.executable, "-m", "autotune", "tune", str(STUDY), *options, "--no-storage", "--json", "--top", "0"]
    done = subprocess.run(
        [*command, *arguments], capture_output=True, text=True, check=False, env={**os.environ, **TOKEN}
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(("backend", "script"), [("dask", DASK), ("ray", RAY)])
def test_a_cluster_answers_as_one_process(backend: str, script: str) -> None:
    """Two workers of a cluster that is there already score what one process scores, to the last digit."""
    pytest.importorskip({"dask": "distributed"}.get(backend, backend))
    with cluster(script) as address:
        found = tuned("--backend", backend, "--scheduler", address)
    assert found["scored_now"] == found["counts"]["valid"] > 0
    alone = answer(json.loads(to_json(tune_document(tune(load_study(STUDY, OVERRIDES)), top=0))))
    assert {name: found[name] for name in alone} == alone


def test_what_ray_says_of_a_dead_worker_stays_out_of_the_answer(tmp_path: Path) -> None:
    """Ray prints its messages on standard output; a command's answer stands there alone."""
    pytest.importorskip("ray")
    with cluster(RAY) as address:
        command = [sys.executable, "-c", DEATH, address, str(tmp_path / "died")]
        done = subprocess.run(command, env=os.environ | TOKEN, capture_output=True, text=True, timeout=120, check=True)
    assert "worker died" in done.stderr
    assert done.stdout == "answer\n"


def test_a_cluster_that_is_not_there() -> None:
    """An address at which nothing listens is one message, at once."""
    for scheduler in ("127.0.0.1:1", "ray://127.0.0.1:1", "nonsense"):
        with pytest.raises(InputError, match="no Ray cluster answers"), open_executor("ray", scheduler=scheduler):
            pytest.fail("connected to nothing")
    with pytest.raises(InputError, match="must go with --backend"), open_executor(scheduler="127.0.0.1:1"):
        pytest.fail("joblib has no scheduler")
