"""The shell target: a script per process, with host names as parameters in one file."""

from __future__ import annotations

import json
from collections.abc import Mapping

from autotune.files import OutFile
from autotune.launch.plan import LaunchPlan, NodeHost, NodeProcess
from autotune.launch.quoting import one_line, shell_command, shell_word

NODES_FILE = "nodes.env"


def script_files(plan: LaunchPlan) -> dict[str, OutFile]:
    """Scripts, node list, rank map and endpoints of a plan, without its README."""
    files = {f"{p.name}.sh": OutFile(text=process_script(plan, p), executable=True) for p in plan.processes}
    files |= {name: OutFile(text=text) for name, text in plan.files.items()}
    files[NODES_FILE] = OutFile(text=nodes_env(plan))
    files["nodes.txt"] = OutFile(text=nodes_list(plan))
    files["ranks.json"] = rank_file(plan)
    files["endpoints.txt"] = OutFile(text="".join(f"{line}\n" for line in endpoints(plan)))
    files["health.sh"] = OutFile(text=health_script(plan), executable=True)
    return files


def process_script(plan: LaunchPlan, process: NodeProcess) -> str:
    """What starts one process; it refuses to run where a host it needs has no name."""
    hosts = sorted({*_hosts(process), process.node})
    lines = [
        "#!/usr/bin/env bash",
        (
            f"# {process.name}: {process.role} on NODE_{process.node}, {len(process.gpus)} GPUs, "
            f"{plan.service.engine} {plan.service.version}"
        ),
        f"# {one_line(plan.service.plan)}",
        "set -euo pipefail",
        'HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"',
        "set -a",
        f'. "$HERE/{NODES_FILE}"',
        "set +a",
        *(f': "${{NODE_{n}:?set it in {NODES_FILE}}}"' for n in hosts),
        *(f"export {name}={shell_word(value)}" for name, value in process.env.items()),
        "exec " + shell_command(process.argv),
    ]
    return "\n".join(lines) + "\n"


def _hosts(process: NodeProcess) -> set[int]:
    found: set[int] = set()
    for arg in (*process.argv, *process.env.values()):
        if isinstance(arg, NodeHost):
            found.add(arg.node)
        elif not isinstance(arg, str):
            found.update(getattr(arg, "nodes", ()))
    return found


def nodes_env(plan: LaunchPlan) -> str:
    """Host names as parameters."""
    head = (
        "# Host names or addresses by which the nodes reach each other. Fill in all; the scripts read this file.\n"
        "# IPv6 addresses in brackets.\n"
    )
    return head + "".join(f"{name}=\n" for name in plan.nodes)


def nodes_list(plan: LaunchPlan) -> str:
    """Per node what runs there."""
    lines = ["node\tscript\trole\tgpus\tport"]
    for process in plan.processes:
        gpus = ",".join(map(str, process.gpus)) or "-"
        lines.append(f"NODE_{process.node}\t{process.name}.sh\t{process.role}\t{gpus}\t{process.http_port or '-'}")
    started = {p.node for p in plan.processes}
    for replica in plan.replicas:
        lines += [
            f"NODE_{n}\t(started by NODE_{replica.nodes[0]})\tworker\tall\t-" for n in replica.nodes if n not in started
        ]
    return "\n".join(lines) + "\n"


def rank_file(plan: LaunchPlan, names: Mapping[int, str] | None = None) -> OutFile:
    """`ranks.json`: `rank_document` as a file."""
    return OutFile(text=json.dumps(rank_document(plan, names), indent=1) + "\n")


def rank_document(plan: LaunchPlan, names: Mapping[int, str] | None = None) -> dict[str, object]:
    """What every GPU holds: replica -> rank -> node, GPU and place in the layout.

    `names` says what a node is called (index into `plan.nodes`); None: by its parameter.
    """
    called = dict(enumerate(plan.nodes)) if names is None else names
    return {
        "nodes": [called[n] for n in range(len(plan.nodes))],
        "gpus_per_node": plan.gpus_per_node,
        "replicas": [
            {
                "replica": replica.index,
                "nodes": [called[n] for n in replica.nodes],
                "ranks": [
                    {
                        "rank": r.rank,
                        "node": called[r.node],
                        "gpu": r.gpu,
                        "pp": r.pp,
                        "attn_dp": r.attn_dp,
                        "attn_cp": r.attn_cp,
                        "attn_tp": r.attn_tp,
                        "moe_ep": r.moe_ep,
                        "moe_tp": r.moe_tp,
                    }
                    for r in replica.ranks
                ],
            }
            for replica in plan.replicas
        ],
    }


def endpoints(plan: LaunchPlan) -> list[str]:
    """Where requests go, one URL a line, hosts as parameters: the router's, or every server's."""
    serving = [p for p in plan.processes if p.http_port is not None]
    if plan.router is not None:
        serving = [plan.router]
    return [f"http://${{NODE_{p.node}}}:{p.http_port}" for p in serving]


def health_script(plan: LaunchPlan) -> str:
    """Asks every server once and says which are ready; exit code 0 when all are."""
    checks = [
        f'check {p.name} "http://${{NODE_{p.node}}}:{p.http_port}{plan.health.path}"'
        for p in plan.processes
        if p.http_port is not None
    ]
    lines = [
        "#!/usr/bin/env bash",
        "# Asks every server whether it is ready. Exit code 0: all of them are.",
        "set -uo pipefail",
        'HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"',
        f'. "$HERE/{NODES_FILE}"',
        "missing=0",
        "check() {",
        '    if curl --silent --fail --max-time 10 --output /dev/null "$2"; then',
        '        echo "ready     $1"',
        "    else",
        '        echo "not ready $1"',
        "        missing=1",
        "    fi",
        "}",
        *checks,
        'exit "$missing"',
    ]
    return "\n".join(lines) + "\n"
