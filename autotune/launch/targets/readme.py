"""The README of an export, in plain words: what starts where, in which order, health, and how to roll."""

from __future__ import annotations

from autotune.launch.document import changes
from autotune.launch.plan import LaunchPlan, Service
from autotune.launch.quoting import one_line
from autotune.launch.targets.guides import Guide, expected_lines
from autotune.launch.targets.scripts import NODES_FILE, endpoints
from autotune.text.escaping import markdown_cell, markdown_code, markdown_text

SHOWN_REPLICAS = 8
ENGINE_NAMES = {"vllm": "vLLM", "sglang": "SGLang", "trtllm": "TensorRT-LLM"}


def readme(plan: LaunchPlan, *, current: Service | None, guide: Guide) -> str:
    """The README.

    Args:
        plan: what is exported.
        current: what runs now, for the way from there; None: not known.
        guide: the target's own words.
    """
    start = ("## Start it", "", *guide.start) if guide.start else _scripts(plan)
    parts = [_head(plan), _fits(plan), start, _health(plan, guide)]
    parts += [("## Measure it", "", *expected_lines(plan), *guide.measure), _roll(plan, current, guide)]
    parts += [_taken(plan, guide)]
    return "\n".join(line for part in parts for line in (*part, "")).rstrip("\n") + "\n"


def _head(plan: LaunchPlan) -> tuple[str, ...]:
    service, layout = plan.service, plan.service.layout
    size = layout.pp * layout.width
    return (
        f"# {markdown_text(one_line(service.name))}: {ENGINE_NAMES[service.engine]} {service.version}",
        "",
        f"- model: {markdown_code(one_line(service.model))}",
        f"- plan: `{service.plan}`",
        (
            f"- {_count(layout.replicas, 'replica')} of {_count(size, 'GPU')} each, {layout.gpus} GPUs on "
            f"{_count(len(plan.nodes), 'node')} of {plan.gpus_per_node}"
        ),
        (
            f"- each replica: {_count(layout.pp, 'pipeline stage')} "
            f"({', '.join(map(str, layout.stage_layers))} layers), "
            f"attention over {layout.attn_tp} (tensor) x {layout.attn_dp} (data), experts over "
            f"{layout.moe_tp} (tensor) x "
            f"{layout.moe_ep} (expert)"
        ),
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _fits(plan: LaunchPlan) -> tuple[str, ...]:
    limits = plan.service.limits
    return (
        "## What it is started with, and what that needs",
        "",
        f"- requests of up to {limits.max_model_len:,} tokens, prompt and output together",
        (
            f"- up to {limits.max_num_seqs:,} sequences at once and {limits.max_num_batched_tokens:,} "
            f"tokens a step, each "
            "for one attention-data-parallel rank"
        ),
        f"- scored with {plan.service.knobs.concurrency:,} requests in flight over all replicas",
        (
            f"- KV cache on the fullest GPU: {limits.kv_needed_bytes / 2**30:.1f} GiB needed of "
            f"{limits.kv_room_bytes / 2**30:.1f} GiB, {limits.margin_frac:.0%} to spare, by the memory model; "
            f"weights {limits.weight_bytes / 2**30:.1f} GiB"
        ),
    )


def _scripts(plan: LaunchPlan) -> tuple[str, ...]:
    lines = [
        "## Start it",
        "",
        f"1. Write the host names into `{NODES_FILE}`; all nodes read the same one.",
        "2. Copy this folder to every node, to the same path. The model has to be where the name above says on each.",
        "3. On each node run its scripts, all of a replica within a few minutes: the head waits for the others.",
        "",
        "| replica | nodes | scripts, in this order | answers at |",
        "|---|---|---|---|",
    ]
    for replica in plan.replicas[:SHOWN_REPLICAS]:
        nodes = _span([plan.nodes[n] for n in replica.nodes])
        scripts = _span([f"`{p.name}.sh`" for p in replica.processes])
        heads = [p for p in replica.processes if p.http_port is not None]
        lines.append(
            f"| {replica.index} | {nodes} | {scripts} | {_span([f'{_at(p.node, p.http_port)}' for p in heads])} |"
        )
    if len(plan.replicas) > SHOWN_REPLICAS:
        lines.append(f"| … | … | {len(plan.replicas) - SHOWN_REPLICAS} more, in `nodes.txt` | |")
    lines.append("")
    if plan.router is not None:
        lines.append(f"4. When the replicas are ready, on NODE_{plan.router.node}: `router.sh`.")
    lines.append(f"Requests go to {_span(endpoints(plan))} (`endpoints.txt`); `ranks.json` says what every GPU holds.")
    if plan.router is None and len(endpoints(plan)) > 1:
        lines.append("These are independent servers: any HTTP load balancer in front of them will do.")
    return tuple(lines)


def _at(node: int, port: int | None) -> str:
    return f"NODE_{node}:{port}"


def _span(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{names[0]} … {names[-1]} ({len(names)})"


def _health(plan: LaunchPlan, guide: Guide) -> tuple[str, ...]:
    return (
        "## Check it",
        "",
        (
            f"A server is ready when `GET {plan.health.path}` answers 200. Allow up to "
            f"{plan.health.startup_s / 60:.0f} minutes for loading the weights and capturing graphs."
        ),
        *guide.check,
    )


_UNKNOWN = (
    "What runs today was not said (`--from CURRENT`). Replica by replica: take as many old replicas out of the load "
    "balancer as one new replica needs GPUs, let their requests finish, stop them, start the new replica, wait for its "
    "health, put it into the load balancer, go on with the next."
)


def _roll(plan: LaunchPlan, current: Service | None, guide: Guide) -> tuple[str, ...]:
    lines = ["## Roll it out", ""]
    if current is None:
        return (*lines, *(guide.roll or (_UNKNOWN,)))
    differs = changes(current, plan.service)
    lines += [f"From `{current.plan}` ({ENGINE_NAMES[current.engine]} {current.version}):", ""]
    taken = [_said(text) for text in current.assumptions if text.startswith("--from")]
    lines += [*taken, ""] if taken else []
    if not differs:
        return (*lines, "Nothing differs: the same command starts both, so that no restart is needed.")
    lines += ["| | now | after |", "|---|---|---|"]
    lines += [f"| {name} | {_cell(old)} | {_cell(new)} |" for name, old, new in differs]
    old_size = current.layout.pp * current.layout.width
    new_size = plan.service.layout.pp * plan.service.layout.width
    down = max(-(-new_size // old_size), 1)
    up = max(down * old_size // new_size, 1)
    total = plan.service.layout.replicas
    lines += ["", f"An old replica has {old_size} GPUs, a new one {new_size}."]
    if guide.roll:
        steps = f"{_count(down, 'old replica')} for {_count(up, 'new one')}"
        return (*lines, f"Go in steps of {steps}, until all {total} run.", "", *guide.roll, "", _BACK)
    lines += [
        f"Repeat until all {total} run:",
        "",
        f"1. Take {_count(down, 'old replica')} out of the load balancer; wait until no request runs there; stop.",
        f"2. Start {_count(up, 'new replica')} on the nodes that are free; wait for health.",
        "3. Put it into the load balancer, watch errors and latency for a while, then go on.",
        "",
        "To go back, do the same the other way round: keep the old scripts.",
        _BACK,
    ]
    return tuple(lines)


_BACK = "`autotune compare` says what the switch costs and whether it pays."


def _cell(text: str) -> str:
    return markdown_cell(one_line(text))


def _said(text: str) -> str:
    return markdown_text(one_line(text))


def _taken(plan: LaunchPlan, guide: Guide) -> tuple[str, ...]:
    said = dict.fromkeys((*plan.assumptions, *guide.said))
    return ("## Taken for granted", "", *(f"- {_said(text)}" for text in said))
