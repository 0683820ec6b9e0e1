"""What starts commands for others: container runtimes, Slurm, systemd."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from autotune.engines import ENGINES
from costmodel.errors import InputError

_TAKES_NOTHING = frozenset(
    ("--rm", "--privileged", "--init", "--detach", "--tty", "--interactive", "--read-only", "--publish-all",
     "--no-healthcheck", "--oom-kill-disable", "--sig-proxy", "--quiet", "--disable-content-trust")
)  # fmt: skip
_RUNNERS = ("docker", "podman", "nerdctl")


def container_of_run(words: list[str]) -> dict[str, object] | None:
    """What `docker run` starts, as a Compose service says it; None: the words are no such command.

    Raises:
        InputError: no image is named.
    """
    at = next((i for i, word in enumerate(words) if word.rpartition("/")[2] in _RUNNERS), None)
    if at is None or "run" not in words[at + 1 : at + 3]:
        return None
    rest = words[words.index("run", at) + 1 :]
    env: dict[str, str] = {}
    ports: list[str] = []
    node: dict[str, object] = {"environment": env, "ports": ports}
    while rest and rest[0].startswith("-"):
        option, equals, value = rest.pop(0).partition("=")
        if not equals:
            if option in _TAKES_NOTHING or re.fullmatch(r"-[ditPq]+", option):
                continue
            value = rest.pop(0) if rest else ""
        if option in ("-e", "--env"):
            name, _, said = value.partition("=")
            env[name] = said
        elif option == "--name":
            node["container_name"] = value
        elif option in ("-p", "--publish"):
            ports.append(value)
        elif option == "--entrypoint":
            node["entrypoint"] = [value]
        elif option == "--gpus":
            devices = re.search(r"device=([\d,]+)", value)
            count = value if value.isdecimal() else str(len(devices[1].split(","))) if devices else ""
            node |= {"resources": {"limits": {"nvidia.com/gpu": count}}} if count else {}
    if not rest:
        raise InputError.single("COMMAND", "docker run must name an image")
    return {**node, "image": rest[0], "command": rest[1:]}


_SRUN_VALUES = {
    "-n": "tasks", "--ntasks": "tasks", "-N": "nodes", "--nodes": "nodes", "--ntasks-per-node": "each",
    "--gpus-per-node": "gpus", "--gres": "gpus", "--gpus-per-task": "gpus_each",
}  # fmt: skip


def tasks_of_srun(words: Sequence[str], env: Mapping[str, str]) -> tuple[int, int | None]:
    """How many tasks `srun` starts of a command, one where there is no `srun`; and the GPUs of each, None: not said.

    Tasks that are ranks of one MPI program count as one.
    """
    launchers = [engine.rank_launcher for engine in ENGINES.values() if engine.rank_launcher is not None]
    if "srun" not in words or any(launcher in word for launcher in launchers for word in words):
        return 1, None
    said: dict[str, int] = {}
    for i, word in enumerate(words[words.index("srun") :], start=words.index("srun")):
        flag, equals, value = word.partition("=")
        short = re.fullmatch(r"(-[nN])(\d+)", word)
        if short is not None:
            flag, equals, value = short[1], "=", short[2]
        if flag in _SRUN_VALUES:
            value = value if equals else words[i + 1] if i + 1 < len(words) else ""
            number = value.rpartition(":")[2]
            if number.isdecimal() and len(number) < 6:
                said.setdefault(_SRUN_VALUES[flag], int(number))

    def known(name: str) -> int | None:
        value = env.get(name, "")
        return int(value) if value.isdecimal() and len(value) < 6 else None

    nodes = said.get("nodes") or known("SLURM_NNODES") or 1
    each = said.get("each") or known("SLURM_NTASKS_PER_NODE")
    tasks = said.get("tasks") or (None if "nodes" in said or each else known("SLURM_NTASKS")) or nodes * (each or 1)
    of_node = said.get("gpus") or known("SLURM_GPUS_PER_NODE")
    return tasks, None if tasks < 2 else said.get("gpus_each") or (of_node if tasks <= nodes else None)


def hosts_of_shell(words: Sequence[str]) -> int:
    """On how many hosts `pdsh` or `clush` runs a command, as in `-w node[1-4,7],other`; 1 where neither does."""
    shell = next((i for i, word in enumerate(words) if word in ("pdsh", "clush")), None)
    at = None if shell is None else next((i for i in range(shell, len(words) - 1) if words[i] == "-w"), None)
    if at is None:
        return 1
    hosts = 0
    for name in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", words[at + 1]):
        several = re.search(r"\[([\d,-]{1,200})\]", name)
        ranges = [] if several is None else re.findall(r"(\d{1,6})(?:-(\d{1,6}))?", several[1])
        hosts += sum(max(int(high or low) - int(low), 0) + 1 for low, high in ranges) or 1
    return max(min(hosts, MOST_HOSTS), 1)


REPEATING = ("xargs", "parallel", "ansible")
"""Programs that run a command so often as what they are given says."""
MOST_HOSTS = 100_000
_SBATCH = re.compile(r"^#SBATCH\s+(?P<option>-\w|--[\w-]+)(?:[=\s]+(?P<value>\S+))?")
_SLURM: Mapping[str, tuple[str, ...]] = {
    "--nodes": ("SLURM_NNODES", "SLURM_JOB_NUM_NODES"),
    "-N": ("SLURM_NNODES", "SLURM_JOB_NUM_NODES"),
    "--gpus-per-node": ("SLURM_GPUS_PER_NODE", "SLURM_GPUS_ON_NODE"),
    "--gres": ("SLURM_GPUS_PER_NODE", "SLURM_GPUS_ON_NODE"),
    "--ntasks-per-node": ("SLURM_NTASKS_PER_NODE",),
    "--ntasks": ("SLURM_NTASKS",),
    "-n": ("SLURM_NTASKS",),
}
"""Options of a job -> variables that Slurm sets by them."""
JOBS = "SLURM_ARRAY_TASK_COUNT"


def variables_of_job(text: str) -> dict[str, str]:
    """What Slurm sets by the options in a script's head."""
    out: dict[str, str] = {}
    for line in text.split("\n")[:500]:
        found = _SBATCH.match(line.strip())
        if found is None or found["value"] is None:
            continue
        if found["option"] in ("--array", "-a"):
            out[JOBS] = str(_jobs_of_array(found["value"]))
        value = found["value"].rpartition(":")[2]
        for name in _SLURM.get(found["option"], ()) if value.isdecimal() else ():
            out[name] = value
    return out


def _jobs_of_array(text: str) -> int:
    """How many jobs `0-3`, `0,2,4` or `1-8%2` are; 1 where that is not known."""
    jobs = 0
    for part in text.partition("%")[0].split(","):
        found = re.fullmatch(r"(\d{1,6})(?:-(\d{1,6})(?::(\d{1,6}))?)?", part)
        if found is None:
            return 1
        low, high, step = int(found[1]), int(found[2] or found[1]), int(found[3] or 1)
        jobs += max(high - low, 0) // max(step, 1) + 1
    return min(jobs, MOST_HOSTS)


_SECTION = re.compile(r"^\[(Service|Container)\]\s*$", re.MULTILINE)
_SETTING = re.compile(r"^(?P<name>Environment|ExecStart|Exec|Image)=(?P<value>.*)$")


def script_of_unit(text: str) -> str | None:
    """A unit of systemd, or of Podman's Quadlet, as the shell script that it stands for; None: the text is none."""
    if _SECTION.search(text) is None:
        return None
    lines, image = [], ""
    for line in re.sub(r"\\\s*\n", " ", text).split("\n"):
        found = _SETTING.match(line.strip())
        if found is None:
            continue
        value = found["value"].strip()
        if found["name"] == "Environment":
            lines += [f"export {name}='{held}'" for name, held in _ASSIGNMENTS.findall(value.replace("'", '"'))]
        elif found["name"] == "Image":
            image = value
        elif found["name"] == "ExecStart":
            lines.append(value.lstrip("-@:+!"))
        else:
            lines.append(f"podman run {image} {value}")
    return "\n".join(lines)


_ASSIGNMENTS = re.compile(r"(?:^|(?<=[\s\"]))([A-Za-z_]\w*)=\"?([^\"\s]*)\"?")
