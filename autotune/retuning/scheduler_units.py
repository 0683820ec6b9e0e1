"""What runs `autotune retune` again and again: units for systemd, a line for cron, a Kubernetes CronJob.

Paths and addresses come from a user and are quoted as each of the three wants it.
"""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType

import yaml

from autotune.text.escaping import cron_command
from costmodel.errors import InputError

MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86400
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,50}[a-z0-9])?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
IMAGE_USER = 10001
"""User of the image, by the Dockerfile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One command, to be run at an interval."""

    name: str
    """Of the unit: lower case letters, digits and hyphens."""
    command: tuple[str, ...]
    """The program and its arguments."""
    every_s: int
    image: str = "autotune:latest"
    """Of the container, for Kubernetes."""
    volume_claim: str = "autotune-state"
    """Holds study, traffic and state in the pod, under `mount`."""
    mount: str = "/data"


def cron_interval_s(every_s: float, given: str) -> int:
    """An interval that cron can say, in whole seconds.

    Raises:
        InputError: cron cannot say it; the message has the interval as it was `given`.
    """
    seconds = int(every_s)
    if seconds != every_s or cron_fields(seconds) is None:
        raise InputError.single(
            "--every", f"must be 1m to 30m, 1h to 12h, or 24h, and divide an hour or a day evenly, got {given}"
        )
    return seconds


def job(*, name: str, command: tuple[str, ...], every_s: int, image: str, volume_claim: str, mount: str) -> Job:
    """Check and build a job, at an interval of `cron_interval_s`.

    Raises:
        InputError: a name is no DNS label, or text holds control characters.
    """
    for path, text in (("--name", name), ("--volume-claim", volume_claim)):
        if not _NAME.fullmatch(text):
            raise InputError.single(path, f"must be lower case letters, digits and hyphens, 52 at most, got {text!r}")
    for text in (*command, image, mount):
        if _CONTROL.search(text):
            raise InputError.single("arguments", f"must hold no control characters, got {text!r}")
    if not mount.startswith("/") or not image.strip():
        raise InputError.single(
            "--mount" if image.strip() else "--image", "must be an absolute path, and an image's name"
        )
    return Job(name=name, command=command, every_s=every_s, image=image, volume_claim=volume_claim, mount=mount)


def cron_fields(every_s: int) -> str | None:
    """The five fields of an interval; None: it does not divide an hour or a day evenly."""
    if every_s % MINUTE_S == 0 and 0 < every_s < HOUR_S and HOUR_S % every_s == 0:
        return f"*/{every_s // MINUTE_S} * * * *"
    if every_s % HOUR_S == 0 and 0 < every_s <= DAY_S and DAY_S % every_s == 0:
        hours = every_s // HOUR_S
        return "0 * * * *" if hours == 1 else "0 0 * * *" if hours == 24 else f"0 */{hours} * * *"
    return None


def cron_line(asked: Job) -> str:
    """A line of a crontab."""
    return f"{cron_fields(asked.every_s)} {cron_command(asked.command)}\n"


def systemd_units(asked: Job) -> str:
    """A service and its timer, with the file each goes to as a comment before it."""
    return f"""# /etc/systemd/system/{asked.name}.service
[Unit]
Description=autotune: is today's traffic worth another plan?
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
ExecStart={" ".join(_systemd_word(word) for word in asked.command)}
# 75: another run is at work, 4: the traffic cannot be judged; neither is a failure of the unit
SuccessExitStatus=4 75

# /etc/systemd/system/{asked.name}.timer
[Unit]
Description=autotune every {asked.every_s} s

[Timer]
OnBootSec=60
OnUnitActiveSec={asked.every_s}
AccuracySec=1

[Install]
WantedBy=timers.target
"""


def _systemd_word(word: str) -> str:
    """Quoted as systemd.syntax(7) and systemd.service(5) ask: specifiers, variables, quotes and backslashes."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'


def kubernetes_manifest(asked: Job) -> str:
    """A CronJob of batch/v1 that never runs twice at once."""
    pod = {
        "restartPolicy": "Never",
        "securityContext": {
            "runAsNonRoot": True,
            # new volumes are root's: without a group of its own the user cannot write the state into one
            "fsGroup": IMAGE_USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": "autotune",
                "image": asked.image,
                "command": [asked.command[0]],
                "args": list(asked.command[1:]),
                "workingDir": asked.mount,
                "resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "2Gi"}},
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                "volumeMounts": [{"name": "data", "mountPath": asked.mount}],
            }
        ],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": asked.volume_claim}}],
    }
    manifest = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": asked.name},
        "spec": {
            "schedule": cron_fields(asked.every_s),
            "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": 300,
            "successfulJobsHistoryLimit": 3,
            "failedJobsHistoryLimit": 3,
            "jobTemplate": {"spec": {"backoffLimit": 0, "template": {"spec": pod}}},
        },
    }
    return str(yaml.safe_dump(manifest, sort_keys=False))


EMIT = {"systemd": systemd_units, "cron": cron_line, "k8s": kubernetes_manifest}
"""Name of a target -> what writes it."""


def run_every(seconds: float, once: Callable[[], None]) -> None:
    """Call `once` now and every `seconds` after, never twice at a time, until SIGTERM or SIGINT.

    A call that is at work when the signal comes is finished; one that was missed meanwhile is made up for once.
    """
    stopped = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  # signal's signature
        stopped.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        due_s = time.monotonic()
        while not stopped.wait(max(due_s - time.monotonic(), 0.0)):
            once()
            # of the calls that fell due while this one ran, the last is made at once and the others are left out
            due_s += seconds * max((time.monotonic() - due_s) // seconds, 1.0)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
