"""A day's plan as files: what starts its plans, and what scales them (KEDA, a crontab, bounds of Dynamo's planner).

KEDA's scaler takes the most that any trigger asks for (keda.sh, scalers/cron): each trigger begins as much earlier as
a replica takes to start. Names of Dynamo's bounds are those of its planner's defaults (`min_endpoint`,
`max_gpu_budget`).
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import yaml

from autotune.files import OutFile
from autotune.launch.pools.llm_d import ENGINES_TAKEN
from autotune.launch.quoting import MOST_OF_NAME, dns_label
from autotune.launch.targets import dynamo
from autotune.planning.day_program import REPLICA
from autotune.planning.loads import DAY_S
from autotune.planning.replica_capacity import ScaledPlan
from autotune.study import Study
from autotune.text.escaping import cron_command
from costmodel.errors import InputError
from costmodel.plan.columns import Floats

MINUTE_S = 60
CRON_PATH = "/usr/local/bin:/usr/bin:/bin"
"""Where kubectl lies, as a rule: cron's own path often leaves out the first."""
LEADER_WORKER_SET = {"apiVersion": "leaderworkerset.x-k8s.io/v1", "kind": "LeaderWorkerSet"}
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """A time of day in which at least so many replicas of a plan run."""

    start_s: int
    """Of the day; when the replicas begin to start."""
    end_s: int
    replicas: int


def schedule_files(document: Mapping[str, Any], asked: AskedDay) -> dict[str, OutFile]:
    """Files by name: `day.json`, `launch.sh`, `keda.yaml`, `crontab`, `dynamo-planner.yaml`.

    Raises:
        InputError: a name holds what no line of a crontab can.
    """
    return {
        "day.json": OutFile(text=json.dumps(document, indent=1, ensure_ascii=False) + "\n"),
        "keda.yaml": OutFile(text=keda_objects(document)),
        "launch.sh": OutFile(text=launch_script(document, asked), executable=True),
        "crontab": OutFile(text=crontab(document, asked)),
        "dynamo-planner.yaml": OutFile(text=dynamo_bounds(document)),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """What scalers scale: the replicas of a plan, or the workers of one of its pools."""

    plan_index: int
    role: str
    """`replica`, or the pool's."""


def instance_of(document: Mapping[str, Any], plan_index: int) -> str:
    """What a plan of a day is called in a cluster: the study, the engine and the shape of a replica, a DNS label."""
    plan = document["plans"][plan_index]
    shape = re.sub(r"[^a-z0-9]+", "-", f"{plan['engine']}-{plan['replica']}".lower()).strip("-")
    study = dns_label(document["study"])[: max(MOST_OF_NAME - 1 - len(shape), 1)].strip("-")
    return f"{study}-{shape}"[:MOST_OF_NAME].strip("-")


def deployment_name(document: Mapping[str, Any], one: Deployment) -> str:
    """What holds its replicas, as `launch.sh` has it named: the plan's own name, and the pool's behind it."""
    instance = instance_of(document, one.plan_index)
    return instance if one.role == REPLICA else f"{instance}-{one.role}"


def _scaled(document: Mapping[str, Any], one: Deployment) -> dict[str, str]:
    """What is scaled, as KEDA names it: a Deployment, or a LeaderWorkerSet where replicas lie on several nodes."""
    name = {"name": deployment_name(document, one)}
    return name if _kind(document, one)["nodes"] == 1 else {**LEADER_WORKER_SET, **name}


def deployments(document: Mapping[str, Any]) -> list[Deployment]:
    """Those of every plan that runs at some time."""
    return [
        Deployment(plan_index=index, role=kind["role"])
        for index in sorted({step["plan_index"] for step in document["steps"]})
        for kind in document["plans"][index]["kinds"]
    ]


def _kind(document: Mapping[str, Any], one: Deployment) -> Mapping[str, Any]:
    found: Mapping[str, Any] = next(k for k in document["plans"][one.plan_index]["kinds"] if k["role"] == one.role)
    return found


def triggers(document: Mapping[str, Any], one: Deployment) -> tuple[int, list[Trigger]]:
    """The least replicas of a deployment at any time of day, and the times in which there are more.

    Stretches of the same number are one trigger, also over midnight where the schedule is of a whole day.
    """
    steps, step_s = document["steps"], int(document["step_s"])
    lead = ceil(_kind(document, one)["start_s"] / MINUTE_S) * MINUTE_S
    counts = [s["replicas"][one.role] if s["plan_index"] == one.plan_index else 0 for s in steps]
    least = min(counts) if document["whole_day"] else 0
    runs: list[list[int]] = []
    for i, count in enumerate(counts):
        follows = i > 0 and steps[i]["start_s"] == steps[i - 1]["start_s"] + step_s
        if runs and follows and counts[runs[-1][-1]] == count:
            runs[-1].append(i)
        else:
            runs.append([i])
    if document["whole_day"] and len(runs) > 1 and counts[runs[0][0]] == counts[runs[-1][0]]:
        runs[0] = runs.pop() + runs[0]
    found = [
        Trigger(
            start_s=(steps[run[0]]["start_s"] - lead) % DAY_S,
            end_s=(steps[run[-1]]["start_s"] + step_s) % DAY_S,
            replicas=counts[run[0]],
        )
        for run in runs
        if counts[run[0]] > least
    ]
    return least, found


def keda_objects(document: Mapping[str, Any]) -> str:
    """A ScaledObject for each deployment."""
    objects = []
    for one in deployments(document):
        least, found = triggers(document, one)
        name = deployment_name(document, one)
        most = max([least, *(t.replicas for t in found)])
        objects.append(
            {
                "apiVersion": "keda.sh/v1alpha1",
                "kind": "ScaledObject",
                "metadata": {"name": name},
                "spec": {
                    "scaleTargetRef": _scaled(document, one),
                    "minReplicaCount": least,
                    "maxReplicaCount": most,
                    "cooldownPeriod": 0,
                    # a constant number needs no cron, and a ScaledObject at least one trigger
                    "triggers": [
                        _cron_trigger(t) for t in found or [Trigger(start_s=0, end_s=DAY_S - MINUTE_S, replicas=most)]
                    ],
                },
            }
        )
    return yaml.safe_dump_all(objects, sort_keys=False)


def crontab(document: Mapping[str, Any], asked: AskedDay) -> str:
    """Lines that scale with `kubectl` without KEDA, and that look at the traffic of the day once it is over.

    Raises:
        InputError: a name holds what no line of a crontab can.
    """
    lines = ["# times are UTC: CRON_TZ is read by cronie, other crons take the machine's zone", "CRON_TZ=UTC"]
    lines.append(f"PATH={CRON_PATH}")
    for one in deployments(document):
        least, found = triggers(document, one)
        target = _scaled(document, one)
        kind = target.get("kind", "Deployment").lower()
        for at, replicas in _moments(least, found):
            lines.append(f"{_cron(at)} kubectl scale {kind}/{target['name']} --replicas={replicas}")
    if asked.traffic is None:  # there is nothing to read again
        return "\n".join(lines) + "\n"
    log = ("--traffic", asked.traffic)
    again = asked.words("plan-day", *log, *asked.options, "--out", asked.out)
    judged = asked.words("retune", *log, "--state", asked.state)
    for text in (*again, *judged):
        if not text.isprintable():
            raise InputError.single("--out", f"names in a crontab must hold no control characters, got {text!r}")
    lines.append("# the next day's schedule, and whether the traffic is worth another plan")
    lines.append(f"55 23 * * * {cron_command(again)}")
    lines.append(f"50 23 * * * {cron_command(judged)}")
    return "\n".join(lines) + "\n"


def dynamo_bounds(document: Mapping[str, Any]) -> str:
    """For each step the least workers and the most GPUs between which Dynamo's planner may scale.

    Its planner has one least number for both pools; the schedule's own numbers stand beside it.
    """
    bounds = []
    for step in document["steps"]:
        kinds = document["plans"][step["plan_index"]]["kinds"]
        workers = {f"{role}_workers": n for role, n in step["replicas"].items() if role != REPLICA}
        bounds.append(
            {
                "from": clock(step["start_s"]),
                "min_endpoint": min(step["replicas"].values()),
                "max_gpu_budget": document["gpus"],
                **{f"{'decode' if k['role'] == REPLICA else k['role']}_engine_num_gpu": k["gpus"] for k in kinds},
                **workers,
                "plan": step["plan"],
            }
        )
    return yaml.safe_dump({"timezone": "UTC", "bounds": bounds}, sort_keys=False)


def clock(seconds: float) -> str:
    """A time of day: `06:30`."""
    minutes = int(seconds) // MINUTE_S
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


def _moments(least: int, found: Sequence[Trigger]) -> list[tuple[int, int]]:
    """Times of day at which the most of all triggers changes, and to what."""
    at = sorted({t.start_s for t in found} | {t.end_s for t in found})
    wanted = [(when, max([least, *(t.replicas for t in found if _holds(t, when))])) for when in at]
    return [(when, n) for i, (when, n) in enumerate(wanted) if n != wanted[i - 1][1] or len(wanted) == 1]


def _holds(trigger: Trigger, when: int) -> bool:
    if trigger.start_s < trigger.end_s:
        return trigger.start_s <= when < trigger.end_s
    return when >= trigger.start_s or when < trigger.end_s


def _cron(at_s: int) -> str:
    minutes = at_s // MINUTE_S
    return f"{minutes % 60} {minutes // 60} * * *"


def _cron_trigger(trigger: Trigger) -> dict[str, Any]:
    return {
        "type": "cron",
        "metadata": {
            "timezone": "UTC",
            "start": _cron(trigger.start_s),
            "end": _cron(trigger.end_s),
            "desiredReplicas": str(trigger.replicas),
        },
    }


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
