"""What starts the plans of a day: the commands that write their launch files, under the names that scalers know."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np

from autotune.launch.pools.llm_d import ENGINES_TAKEN
from autotune.launch.quoting import MOST_OF_NAME, dns_label
from autotune.launch.targets import dynamo
from autotune.planning.replica_capacity import ScaledPlan
from autotune.study import Study
from costmodel.plan.columns import Floats

CLUSTER_TARGETS = {"k8s": "-k {folder}", "llm-d": "-k {folder}", "dynamo": f"-f {{folder}}/{dynamo.FILE}"}
"""Targets whose servers a cluster scales -> how `kubectl apply` takes their folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedDay:
    """How a day was asked for, in words that hold in any folder."""

    program: tuple[str, ...]
    """What starts autotune."""
    study: str
    traffic: str | None
    """The log; None: it cannot be read again."""
    settings: tuple[str, ...] = ()
    """Of the study, as `--set` takes them."""
    options: tuple[str, ...] = ()
    """Further words of `autotune plan-day`."""
    of_log: tuple[str, ...] = ()
    """Settings that make the study one of the log."""
    out: str
    """Folder of the files."""
    state: str
    """Folder of what `autotune retune` keeps."""
    model_named: bool = True
    """Whether an engine finds the weights by the study's name of the model."""

    def words(self, command: str, *more: str, settings: Sequence[str] = ()) -> list[str]:
        """A command about the study."""
        changes = [word for setting in (*self.settings, *settings) for word in ("--set", setting)]
        return [*self.program, command, self.study, *changes, *more]


def instance_of(document: Mapping[str, Any], plan_index: int) -> str:
    """What a plan of a day is called in a cluster: the study, the engine and the shape of a replica, a DNS label."""
    plan = document["plans"][plan_index]
    shape = re.sub(r"[^a-z0-9]+", "-", f"{plan['engine']}-{plan['replica']}".lower()).strip("-")
    study = dns_label(document["study"])[: max(MOST_OF_NAME - 1 - len(shape), 1)].strip("-")
    return f"{study}-{shape}"[:MOST_OF_NAME].strip("-")


def launched(study: Study, plan: ScaledPlan, planned_per_s: Floats) -> tuple[str, list[int]]:
    """The target that a cluster scales, and the replicas of each kind that the fullest step needs.

    `planned_per_s`: the load that each step has room for, shape `(steps,)`.
    """
    most = float(np.max(planned_per_s))
    counts = [max(ceil(most / max(float(k.capacity_per_s.min()), 1e-9) - 1e-9), 1) for k in plan.kinds]
    counts = [min(n, max(study.cluster.gpus // k.gpus, 1)) for n, k in zip(counts, plan.kinds, strict=True)]
    if plan.result.pools is None:
        return "k8s", counts
    one_node = all(kind.gpus <= study.cluster.gpus_per_node for kind in plan.kinds)
    return "llm-d" if one_node and plan.result.engine in ENGINES_TAKEN else "dynamo", counts


def launch_script(document: Mapping[str, Any], asked: AskedDay) -> str:
    """A shell script that exports every plan that runs at some time, and starts it, so that scalers find it."""
    lines = [
        "#!/usr/bin/env bash",
        "# Writes the launch files of each plan of the schedule and starts it; keda.yaml or crontab then scales it.",
        "set -euo pipefail",
    ]
    if not asked.model_named:
        lines.append(': "${MODEL:?set it to the model\'s name on the Hugging Face hub or its folder on the nodes}"')
    for index in sorted({step["plan_index"] for step in document["steps"]}):
        launch, name = document["plans"][index]["launch"], instance_of(document, index)
        folder = f"{asked.out}-launch/{name}"
        settings = (*asked.of_log, *launch["settings"])
        own = ["--plan", launch["plan"], "--target", launch["target"], "--name", name, "--out", folder]
        command = shlex.join(asked.words("export", *own, settings=settings))
        lines.append(command if asked.model_named else f'{command} --model "$MODEL"')
        lines.append(f"kubectl apply {CLUSTER_TARGETS[launch['target']].format(folder=shlex.quote(folder))}")
    return "\n".join(lines) + "\n"
