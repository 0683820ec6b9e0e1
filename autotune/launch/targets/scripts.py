"""The shell target: a script per process and one for the benchmark, with host names as parameters in one file."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from autotune.engines.benchmark import BenchCommand, Drive
from autotune.engines.command_line import HostSlots, NodeHost, Variable
from autotune.files import OutFile
from autotune.launch.bench import RATE_S, ROUNDS, bench_command, share_of_load
from autotune.launch.gpu_types import node_types, types_of
from autotune.launch.plan import LaunchPlan, NodeProcess
from autotune.launch.quoting import to_yaml
from autotune.launch.targets.container import SHM_GIB, STOP_S, amd, needs_rdma
from autotune.launch.template import filled

_NODES_HEAD = """\
# Host names or addresses by which the nodes reach each other. Fill in all; the scripts read this file.
# IPv6 addresses in brackets.
"""
_NODES_TAIL = """\
# The network interface between the nodes, as eth0 (`ip route get ADDRESS` names it). Empty: NCCL and Gloo choose.
INTERFACE=
# A token of the Hugging Face hub, for models that need one, and the folder for what is fetched. Empty: none, the usual.
HF_TOKEN=
HF_HOME=
"""
_GPU_NAMES = """\
# What the driver calls the GPUs of each type; check.sh and slurm.sh hold the nodes against it. Compare it with
# `nvidia-smi --query-gpu=name --format=csv,noheader` on a node of each.
"""
BALANCER_PORT = 8080
"""Where the load balancer over independent servers listens."""
FOLDER = "/opt/autotune"
"""Where systemd's units look for the scripts."""


def script_files(plan: LaunchPlan) -> dict[str, OutFile]:
    """Scripts, node list, rank map and endpoints of a plan, without its README."""
    files = {f"{p.name}.sh": OutFile(text=process_script(plan, p), executable=True) for p in plan.processes}
    files |= config_files(plan)
    folders = [p.folder for p in plan.processes if p.folder is not None]
    wanted = "".join(f"# {one.text[0].upper()}{one.text[1:]}.\n{one.variable}=\n" for one in folders)
    files["nodes.env"] = OutFile(text=_NODES_HEAD + _hosts(plan) + _NODES_TAIL + wanted)
    files["nodes.txt"] = OutFile(text=nodes_list(plan))
    files["ranks.json"] = rank_file(plan)
    files["endpoints.txt"] = OutFile(text="".join(f"{line}\n" for line in endpoints(plan)))
    files["health.sh"] = OutFile(text=filled("health.sh", {"plan": plan}), executable=True)
    files |= {f"{name}.sh": OutFile(text=text, executable=True) for name, text in _operation(plan).items()}
    files["autotune@.service"] = OutFile(
        text=filled("unit.service", {"service": plan.service, "folder": FOLDER, "stop_s": STOP_S})
    )
    if plan.router is None and len(_entrances(plan)) > 1:
        files |= {f"{name}.template": OutFile(text=text) for name, text in _load_balancers(plan).items()}
    files["bench.sh"] = OutFile(text=bench_script(plan), executable=True)
    return files


def _hosts(plan: LaunchPlan) -> str:
    """A line for the name of each node, and what its GPUs must be where that differs."""
    kinds = node_types(plan)
    if not kinds:
        return "".join(f"{name}=\n" for name in plan.nodes)
    lines = [f"# {name}: {kinds[name].gpus} x {kinds[name].gpu}\n{name}=\n" for name in plan.nodes]
    lines.append(_GPU_NAMES)
    for kind in types_of(plan):
        unknown = "" if kind.product else f"# {kind.gpu}: not known here, fill it in\n"
        lines.append(f"{unknown}{kind.variable}={shlex.quote(kind.product or '')}\n")
    return "".join(lines)


def ports(plan: LaunchPlan) -> dict[str, list[int]]:
    """Ports that each node listens at, by the node's name in `nodes.env`."""
    out: dict[str, list[int]] = {}
    for process in plan.processes:
        own = () if process.http_port is None else (process.http_port,)
        out.setdefault(f"NODE_{process.node}", []).extend((*own, *process.other_ports))
    return out


def _operation(plan: LaunchPlan) -> dict[str, str]:
    """What checks, starts and stops all nodes: name -> script."""
    servers = [p for p in plan.processes if p.role != "router"]
    values = {
        "plan": plan,
        "service": plan.service,
        "package": plan.engine.package,
        "router_package": plan.router and plan.engine.router and plan.engine.router.program,
        "ports": ports(plan),
        "servers": servers,
        "stopped": [*([] if plan.router is None else [plan.router]), *servers],
        "ready_s": plan.start_s,
        "shm_mib": SHM_GIB * 1024,
        "stop_s": STOP_S,
        "needs_rdma": needs_rdma(plan),
        "node_types": node_types(plan),
        "types": types_of(plan),
        "counts": Counter(kind.gpu for kind in node_types(plan).values()),
        "list_gpus": "rocm-smi --showid --csv" if amd(plan.service) else "nvidia-smi --list-gpus",
    }
    named = {"check": "check", "start-all": "start_all", "stop-all": "stop_all", "slurm": "slurm"}
    return {name: filled(f"{template}.sh", values) for name, template in named.items()}


def _load_balancers(plan: LaunchPlan) -> dict[str, str]:
    """The same for two programs: name of the configuration -> text with host names as parameters."""
    entrances = _entrances(plan)
    values = {
        "entrances": entrances,
        "variables": " ".join(f"$NODE_{n}" for n in sorted({p.node for p in entrances})),
        "balancer_port": BALANCER_PORT,
        "health_path": plan.engine.health_path,
    }
    return {name: filled(name, values) for name in ("nginx.conf", "envoy.yaml")}


def words(plan: LaunchPlan) -> dict[str, Any]:
    """What the README's template asks for."""
    listening = [f"{node} {', '.join(map(str, found))}" for node, found in ports(plan).items() if found]
    return {
        "endpoints": endpoints(plan),
        "ports": listening,
        "in_place": True,
        "folder": FOLDER,
        "balancer_port": BALANCER_PORT,
    }


def config_files(plan: LaunchPlan) -> dict[str, OutFile]:
    """What commands read, as YAML."""
    return {name: OutFile(text=to_yaml(content)) for name, content in plan.files.items()}


def process_script(plan: LaunchPlan, process: NodeProcess) -> str:
    """What starts one process; it refuses to run where a host it needs has no name."""
    hosts = {process.node, *(a.node for a in process.argv if isinstance(a, NodeHost))}
    hosts.update(node for a in process.argv if isinstance(a, HostSlots) for node in a.nodes)
    values = {
        "service": plan.service,
        "process": process,
        "hosts": sorted(hosts),
        "many": plan.reaches_nodes and process.role != "router",
        "host_variable": plan.engine.host_variable,
    }
    return filled("process.sh", values)


def script_command(plan: LaunchPlan) -> BenchCommand:
    """The benchmark's command with what its script is told as variables."""
    drive = Drive(
        base_url=Variable(name="BASE_URL"),
        result=Variable(name="RESULT"),
        load=Variable(name="LOAD"),
        prompts=Variable(name="PROMPTS"),
        warmups=Variable(name="WARMUPS"),
        replicas=Variable(name="REPLICAS"),
    )
    return bench_command(plan.service, drive)


def reached(plan: LaunchPlan) -> int:
    """Replicas behind the address that the benchmark takes by itself: all with a router, else the first."""
    return len(plan.replicas) if plan.router is not None else 1


def bench_script(plan: LaunchPlan) -> str:
    """The benchmark's script. It measures the first replica, or all of them behind `BASE_URL`."""
    load, replicas, own = plan.service.load, len(plan.replicas), reached(plan)
    values = {
        "argv": script_command(plan).argv,
        "service": plan.service,
        "result": plan.engine.bench_result,
        "replicas": replicas,
        "reached": own,
        "share_of_all": share_of_load(load, replicas, replicas),
        "share_of_reached": share_of_load(load, own, replicas),
        "by_rate": load.request_rate_per_s is not None,
        "first_node": _entrances(plan)[0].node,
        "first_url": endpoints(plan)[0],
        "rate_run_s": RATE_S,
        "rounds": ROUNDS,
    }
    return filled("bench.sh", values)


def nodes_list(plan: LaunchPlan) -> str:
    """Per node what runs there."""
    kinds = node_types(plan)

    def of(node: int) -> str:
        return f"\t{kinds[f'NODE_{node}'].gpu}" if kinds else ""

    lines = ["node\tscript\trole\tgpus\tport" + ("\ttype" if kinds else "")]
    for process in plan.processes:
        gpus = ",".join(map(str, process.gpus)) or "-"
        own = f"NODE_{process.node}\t{process.name}.sh\t{process.role}\t{gpus}\t{process.http_port or '-'}"
        lines.append(own + of(process.node))
    started = {p.node for p in plan.processes}
    for replica in plan.replicas:
        lines += [
            f"NODE_{n}\t(started by NODE_{replica.nodes[0]})\tworker\tall\t-{of(n)}"
            for n in replica.nodes
            if n not in started
        ]
    return "\n".join(lines) + "\n"


def rank_file(plan: LaunchPlan, names: Mapping[int, str] | None = None) -> OutFile:
    """`ranks.json`, what every GPU holds: replica -> rank -> node, GPU and place in the layout.

    `names` says what a node is called (index into `plan.nodes`); None: by its parameter.
    """
    called = dict(enumerate(plan.nodes)) if names is None else names
    document = {
        "nodes": [called[n] for n in range(len(plan.nodes))],
        "gpus_per_node": plan.gpus_per_node,
        **({"node_gpus": [own.gpu.name for own in plan.node_types]} if plan.node_types else {}),
        "replicas": [
            {
                "replica": replica.index,
                "nodes": [called[n] for n in replica.nodes],
                "ranks": [asdict(r) | {"node": called[r.node]} for r in replica.ranks],
            }
            for replica in plan.replicas
        ],
    }
    return OutFile(text=json.dumps(document, indent=1) + "\n")


def endpoints(plan: LaunchPlan) -> list[str]:
    """Where requests go, one URL a line, hosts as parameters: the router's, or every server's."""
    return [f"http://${{NODE_{p.node}}}:{p.http_port}" for p in _entrances(plan)]


def _entrances(plan: LaunchPlan) -> list[NodeProcess]:
    return [p for p in plan.processes if p.http_port is not None] if plan.router is None else [plan.router]
