"""Scripts that check, start, watch and stop a service, run with stand-in programs in PATH."""

from __future__ import annotations

import os
import re
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from autotune.engines import ENGINES
from autotune.launch.files import write_export
from autotune.launch.targets import scripts
from autotune.launch.targets.registry import find_target, target_files
from costmodel.arch import load_model
from tests.launch.helpers import LIMITS, launched, plans, pool_launch, service

PROGRAMS = {
    # runs what a node would run, here
    "ssh": 'while [ "$1" = -o ]; do shift 2; done; host="$1"; shift; echo "ssh $host" >>"$LOG"; exec bash -c "$*"',
    "nvidia-smi": "for i in 0 1 2 3 4 5 6 7; do echo GPU $i; done",
    "df": "echo Size; echo 65536",
    "curl": 'for last; do :; done; echo "curl $last" >>"$LOG"; [ -e "$STATE/ready" ]',
    "getent": 'echo "10.1.2.3 STREAM $2"',
    "scontrol": 'printf "%s\\n" ${3//,/ }',
    # runs what a node would run, here, as the process whose end is the step's
    "srun": 'out=/dev/null; while [ "${1#--}" != "$1" ]; do case "$1" in --nodelist=*) echo "srun ${1#*=}" >>"$LOG";; '
    '--output=*) out="${1#*=}";; esac; shift; done; echo "step $*" >>"$LOG"; exec "$@" >"$out"',
    "vllm": 'echo "vllm $* IF=${NCCL_SOCKET_IFNAME:-} HOST=${VLLM_HOST_IP:-} TOKEN=${HF_TOKEN-unset}" >>"$LOG"\n'
    'case "$*" in *headless*) [ -e "$STATE/worker-fails" ] && exit 7;; esac\ntouch "$STATE/ready"; exec sleep 60',
    "python3": 'case "$*" in *importlib*) echo "$VERSION"; exit;; esac\n'
    'echo "python3 $*" >>"$LOG"; touch "$STATE/ready"; exec sleep 60',
}


@pytest.fixture
def nodes(tmp_path: Path) -> dict[str, str]:
    """A folder of stand-ins before PATH, a log of what they were told, and the environment that leads there."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (tmp_path / "state").mkdir()
    for name, body in PROGRAMS.items():
        program = programs / name
        program.write_text(f"#!/bin/bash\n{body}\n")
        program.chmod(0o755)
    return {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "LOG": str(tmp_path / "log"),
        "STATE": str(tmp_path / "state"),
        "VERSION": "0.33.0",
        "HOME": str(tmp_path),
        "POLL_S": "0.2",
        "READY_S": "20",
    }


def exported(folder: Path, engine: str = "vllm", *, nodes: bool = True, routed: bool = False) -> Path:
    """The scripts of two replicas of DeepSeek-V3, of two nodes each or of one."""
    gpus = 32 if nodes else 16
    base = next(
        c
        for c in plans("deepseek-v3", engine, gpus)
        if (c.layout.attn_dp, c.layout.replicas, c.layout.moe_tp) == (gpus // 2, 2, 1)
    )
    more = {"exchange": "routed", "limits": replace(LIMITS, kv_room_bytes=60e9, max_num_batched_tokens=512)}
    made = service(base, load_model("deepseek-v3"), **(more if routed else {}))
    write_export(folder, target_files(find_target(engine), launched(made), current=None))
    return folder


def fill(folder: Path, values: dict[str, str]) -> None:
    """Values in place of the empty ones of `nodes.env`."""
    path = folder / "nodes.env"
    lines = path.read_text().splitlines()
    path.write_text("".join(f"{line}{values.get(line.rstrip('='), '')}\n" for line in lines))


HOSTS = {f"NODE_{i}": f"node{i}" for i in range(4)}


def run(folder: Path, script: str, env: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    """One script to its end."""
    return subprocess.run(
        ["bash", str(folder / script), *words], env=env, capture_output=True, text=True, timeout=60, check=False
    )


def runs(pid: int) -> bool:
    """Whether a process is there and has not ended; one that has ended keeps no command line."""
    line = Path(f"/proc/{pid}/cmdline")
    return line.exists() and bool(line.read_bytes())


def unlimited(folder: Path) -> None:
    """Locked memory is what the machine of the tests has, which is no matter here."""
    check = folder / "check.sh"
    check.write_text(check.read_text().replace('limit="$(ulimit -H -l)"', "limit=unlimited"))


def test_all_is_started_in_order_and_stopped(tmp_path: Path, nodes: dict[str, str]) -> None:
    """Every node is checked before the first starts; then all run, with the interface and addresses; then all end."""
    folder = exported(tmp_path / "out")
    unlimited(folder)
    fill(folder, HOSTS | {"INTERFACE": "lo", "HF_TOKEN": "secret"})
    done = run(folder, "start-all.sh", nodes)
    assert done.returncode == 0, done.stderr
    lines: list[str] = []
    deadline = time.monotonic() + 10.0
    while sum(line.startswith("vllm serve") for line in lines) < 4 and time.monotonic() < deadline:
        lines = Path(nodes["LOG"]).read_text().splitlines()
        time.sleep(0.05)
    assert lines[:4] == [f"ssh node{i}" for i in range(4)]
    started = [line for line in lines if line.startswith("vllm serve")]
    assert len(started) == 4
    assert sum("--headless" in line for line in started) == 2
    assert all("IF=lo HOST=10.1.2.3 TOKEN=secret" in line for line in started)
    pids = [int(p.read_text()) for p in (folder / "logs").glob("*.pid")]
    assert len(pids) == 4
    assert run(folder, "stop-all.sh", nodes).returncode == 0
    deadline = time.monotonic() + 10.0
    while any(runs(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(runs(pid) for pid in pids)


def test_one_node_that_fails_stops_all(tmp_path: Path, nodes: dict[str, str]) -> None:
    """A worker that ends at once is named, and no process is left."""
    folder = exported(tmp_path / "out")
    unlimited(folder)
    fill(folder, HOSTS)
    (Path(nodes["STATE"]) / "worker-fails").touch()
    program = Path(nodes["PATH"].split(":")[0]) / "curl"
    program.write_text("#!/bin/bash\nexit 1\n")
    done = run(folder, "start-all.sh", nodes)
    assert done.returncode == 1
    assert re.search(r"replica[01]-node1 has ended", done.stderr)  # whichever is seen first
    assert list((folder / "logs").glob("*.pid")) == []


@pytest.mark.parametrize(
    ("hosts", "version", "said"),
    [
        ({**HOSTS, "NODE_2": ""}, "0.33.0", "NODE_2"),
        (HOSTS, "0.32.0", "has to be 0.33.0"),
        (HOSTS, "", "not installed"),
        ({**HOSTS, "INTERFACE": "eth99"}, "0.33.0", "no network interface eth99"),
    ],
)
def test_nothing_starts_where_something_is_missing(
    tmp_path: Path, nodes: dict[str, str], hosts: dict[str, str], version: str, said: str
) -> None:
    """An empty host, another version of the engine or none, an interface that is not there: said, and nothing runs."""
    folder = exported(tmp_path / "out")
    unlimited(folder)
    fill(folder, hosts)
    done = run(folder, "start-all.sh", {**nodes, "VERSION": version})
    assert done.returncode == 1
    assert said in done.stderr
    log = Path(nodes["LOG"])
    assert not log.exists() or "vllm serve" not in log.read_text()


def test_a_build_of_the_version_is_the_version(tmp_path: Path, nodes: dict[str, str]) -> None:
    """0.33.0+cu130 is 0.33.0, 0.33.1 is not."""
    folder = exported(tmp_path / "out")
    unlimited(folder)
    fill(folder, HOSTS)
    assert run(folder, "check.sh", {**nodes, "VERSION": "0.33.0+cu130"}, "NODE_0").returncode == 0
    assert run(folder, "check.sh", {**nodes, "VERSION": "0.33.1"}, "NODE_0").returncode == 1


def test_the_router_starts_when_the_servers_are_ready(tmp_path: Path, nodes: dict[str, str]) -> None:
    """SGLang's router is the last to start; the health of the whole asks it too."""
    folder = exported(tmp_path / "out", "sglang", nodes=False)
    fill(folder, HOSTS)
    done = run(folder, "start-all.sh", {**nodes, "VERSION": "0.5.23"})
    assert done.returncode == 0, done.stderr
    deadline = time.monotonic() + 10.0
    started: list[str] = []
    while len(started) < 3 and time.monotonic() < deadline:
        started = [x for x in Path(nodes["LOG"]).read_text().splitlines() if x.startswith("python3 -m sglang")]
        time.sleep(0.05)
    assert "router" in started[-1]
    assert run(folder, "health.sh", nodes).returncode == 0
    assert "curl http://node0:8000" in Path(nodes["LOG"]).read_text()
    assert run(folder, "stop-all.sh", nodes).returncode == 0


@pytest.mark.parametrize("engine", ["sglang", "vllm"])
def test_the_front_of_pools_starts_when_both_are_ready(engine: str, tmp_path: Path, nodes: dict[str, str]) -> None:
    """Nothing starts where its folder is missing; else it is the last to start, is asked for its health, and ends."""
    write_export(tmp_path / "out", scripts.script_files(pool_launch(engine, "P8:TP8+D8:R2/TP4").joined))
    folder = tmp_path / "out"
    unlimited(folder)
    env = {**nodes, "VERSION": ENGINES[engine].versions()[0]}
    fill(folder, HOSTS)
    if engine == "vllm":
        assert "VLLM_SOURCE in nodes.env has to be a checkout" in run(folder, "start-all.sh", env).stderr
        fill(folder, {"VLLM_SOURCE": str(tmp_path)})
    done = run(folder, "start-all.sh", env)
    assert done.returncode == 0, done.stderr
    front = {"vllm": "python3 tests/v1/", "sglang": "python3 -m sglang_router"}[engine]
    (line,) = logged(nodes, front, 1)
    lines = Path(nodes["LOG"]).read_text().splitlines()
    assert sum("serve" in x or "launch_server" in x for x in lines[: lines.index(line)]) == 3
    path = {"vllm": "healthcheck", "sglang": "health"}[engine]
    assert f"curl http://node0:8100/{path}" in lines
    assert (folder / "logs" / "front.pid").exists()
    assert run(folder, "stop-all.sh", env).returncode == 0
    assert list((folder / "logs").glob("*.pid")) == []


def logged(nodes: dict[str, str], start: str, count: int) -> list[str]:
    """Lines of the log that begin with `start`, once there are so many or ten seconds are over."""
    found: list[str] = []
    deadline = time.monotonic() + 10.0
    while len(found) < count and time.monotonic() < deadline:
        log = Path(nodes["LOG"])
        found = [line for line in log.read_text().splitlines() if line.startswith(start)] if log.exists() else []
        time.sleep(0.05)
    return found


def slurm(folder: Path, nodes: dict[str, str]) -> subprocess.Popen[bytes]:
    """The job's script as Slurm starts it on its first node."""
    env = {**nodes, "SLURM_SUBMIT_DIR": str(folder), "SLURM_JOB_NODELIST": "gpu7,gpu8,gpu9,gpu10"}
    return subprocess.Popen(["bash", str(folder / "slurm.sh")], env=env)


def test_slurm_checks_starts_and_stops(tmp_path: Path, nodes: dict[str, str]) -> None:
    """Nodes come from the job; each is checked first and runs its own process; the end of the job ends them all."""
    folder = exported(tmp_path / "out")
    unlimited(folder)
    fill(folder, {"NODE_0": "stale", "INTERFACE": "lo", "HF_TOKEN": "secret"})
    job = slurm(folder, nodes)
    started = logged(nodes, "vllm serve", 4)
    assert len(started) == 4
    assert all("IF=lo HOST=10.1.2.3 TOKEN=secret" in line for line in started)
    steps = logged(nodes, "step ", 8)
    assert steps[:4] == [f"step ./check.sh NODE_{i}" for i in range(4)]
    assert set(steps[4:]) == {f"step ./replica{r}-node{n}.sh" for r in (0, 1) for n in (0, 1)}
    assert logged(nodes, "srun", 8)[:4] == [f"srun gpu{i}" for i in range(7, 11)]
    assert "NODE_0=gpu7\nNODE_1=gpu8\nNODE_2=gpu9\nNODE_3=gpu10\n" in (folder / "nodes.env").read_text()
    children = [int(p) for p in Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()]
    assert len(children) == 4
    job.terminate()
    assert job.wait(timeout=20) != 0
    deadline = time.monotonic() + 10.0
    while any(runs(pid) for pid in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(runs(pid) for pid in children)


def test_slurm_ends_when_a_node_fails(tmp_path: Path, nodes: dict[str, str]) -> None:
    """With the failed process's code where one ends, and before any starts where a check fails."""
    folder = exported(tmp_path / "out")
    unlimited(folder)
    (Path(nodes["STATE"]) / "worker-fails").touch()
    assert slurm(folder, nodes).wait(timeout=30) == 7
    Path(nodes["LOG"]).unlink()
    assert slurm(folder, {**nodes, "VERSION": "0.32.0"}).wait(timeout=30) == 1
    assert not any("vllm serve" in line for line in Path(nodes["LOG"]).read_text().splitlines())


def test_systemd_starts_each_script_of_a_node(tmp_path: Path, nodes: dict[str, str]) -> None:
    """The unit's command, with the name of a process in place of `%i`, is a script that starts it; it is restarted."""
    folder = exported(tmp_path / "out")
    fill(folder, HOSTS)
    unit = dict(
        line.split("=", 1) for line in (folder / "autotune@.service").read_text().splitlines() if "=" in line[1:]
    )
    command = unit["ExecStart"].replace("%i", "replica0-node1").replace(unit["WorkingDirectory"], str(folder))
    assert (unit["Restart"], unit["KillMode"], unit["LimitMEMLOCK"]) == ("on-failure", "control-group", "infinity")
    process = subprocess.Popen([command], env=nodes)
    (line,) = logged(nodes, "vllm serve", 1)
    assert "--headless" in line
    process.terminate()
    assert process.wait(timeout=20) == -15


def test_independent_servers_get_a_load_balancer(tmp_path: Path) -> None:
    """The files for nginx and Envoy name every server, once their variables are filled in."""
    folder = exported(tmp_path / "out")
    text = (folder / "nginx.conf.template").read_text()
    (cluster,) = yaml.safe_load((folder / "envoy.yaml.template").read_text())["static_resources"]["clusters"]
    ends = [
        e["endpoint"]["address"]["socket_address"] for e in cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    ]
    assert [(e["address"], e["port_value"]) for e in ends] == [("${NODE_0}", 8000), ("${NODE_2}", 8000)]
    assert cluster["health_checks"][0]["http_health_check"]["path"] == "/health"
    assert "server ${NODE_0}:8000" in text
    assert "server ${NODE_2}:8000" in text
    assert not (exported(tmp_path / "other", "sglang") / "nginx.conf.template").exists()


def test_scripts_are_bash(tmp_path: Path) -> None:
    """Every script of an export parses."""
    for engine in ("vllm", "sglang", "trtllm"):
        folder = exported(tmp_path / engine, engine, nodes=False, routed=engine == "vllm")
        for script in folder.glob("*.sh"):
            done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
