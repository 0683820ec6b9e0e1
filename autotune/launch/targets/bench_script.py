"""`bench.sh`: the benchmark of an export that is started with scripts."""

from __future__ import annotations

from autotune.engines.benchmark import BenchCommand, Drive
from autotune.engines.command_line import Variable
from autotune.launch.bench import RATE_S as RATE_RUN_S
from autotune.launch.bench import ROUNDS, bench_command, share_of_load
from autotune.launch.plan import LaunchPlan
from autotune.launch.quoting import one_line, shell_command
from autotune.launch.targets.scripts import NODES_FILE, endpoints

NAME = "bench.sh"


def script_command(plan: LaunchPlan) -> BenchCommand:
    """The client's command with what the script is told as variables."""
    return bench_command(
        plan.service,
        Drive(
            base_url=Variable(name="BASE_URL"),
            result=Variable(name="RESULT"),
            load=Variable(name="LOAD"),
            prompts=Variable(name="PROMPTS"),
            warmups=Variable(name="WARMUPS"),
            replicas=Variable(name="REPLICAS"),
        ),
    )


def reached(plan: LaunchPlan) -> int:
    """Replicas behind the address that the script takes by itself: all with a router, else the first."""
    return len(plan.replicas) if plan.router is not None else 1


def bench_script(plan: LaunchPlan) -> str:
    """The script. It measures the first replica, or all of them behind `BASE_URL`."""
    command, load, all_ = script_command(plan), plan.service.load, len(plan.replicas)
    own = reached(plan)
    by_rate = load.request_rate_per_s is not None
    shares = {n: share_of_load(load, n, all_) for n in {own, all_}}
    result = plan.engine.bench_result
    lines = [
        "#!/usr/bin/env bash",
        "# Measures the service under the study's load. Run it when all servers are ready, on a machine that has",
        f"# `{command.argv[0]}` and reaches them, with nothing else using them.",
        f"# {one_line(plan.service.plan)}",
        "#",
        f"#   ./{NAME} [FILE]               FILE: the result, by default {result} beside this script",
        "#   BASE_URL=http://HOST:PORT       a load balancer in front of all replicas; "
        + (f"without it {_own(own, all_)}" if not plan.service.hybrid_lb else "required: every node answers"),
        f"#   LOAD=N                          {_load(by_rate=by_rate)}",
        "set -euo pipefail",
        'HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"',
        f'. "$HERE/{NODES_FILE}"',
        f'RESULT="${{1:-$HERE/{result}}}"',
    ]
    if plan.service.hybrid_lb:
        lines += [': "${BASE_URL:?set it to the load balancer in front of endpoints.txt}"', f"REPLICAS={all_}"]
        lines += [f'LOAD="${{LOAD:-{shares[all_]}}}"']
    else:
        lines += [
            'if [ -n "${BASE_URL:-}" ]; then',
            f"    REPLICAS={all_}",
            f'    LOAD="${{LOAD:-{shares[all_]}}}"',
            "else",
            f'    : "${{NODE_{_first(plan)}:?set it in {NODES_FILE}}}"',
            f'    BASE_URL="{endpoints(plan)[0]}"',
            f"    REPLICAS={own}",
            f'    LOAD="${{LOAD:-{shares[own]}}}"',
            "fi",
        ]
    if by_rate:
        lines += [f'PROMPTS="$(awk -v r="$LOAD" \'BEGIN {{ n = int(r * {RATE_RUN_S}); print n < 1 ? 1 : n }}\')"']
        lines += ["WARMUPS=1"]
    else:
        lines += [f"PROMPTS=$((LOAD * {ROUNDS}))", "WARMUPS=$LOAD"]
    lines += ["exec " + shell_command(command.argv)]
    return "\n".join(lines) + "\n"


def _first(plan: LaunchPlan) -> int:
    return plan.router.node if plan.router is not None else plan.replicas[0].nodes[0]


def _own(own: int, all_: int) -> str:
    return "the router" if own == all_ and all_ > 1 else "the server" if all_ == 1 else "the first replica alone"


def _load(*, by_rate: bool) -> str:
    return "requests per second" if by_rate else "requests in flight, of all replicas that are reached"
