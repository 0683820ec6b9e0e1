"""How to start, check, measure and roll an export in the words of its target: parts of its README."""

from __future__ import annotations

from dataclasses import dataclass

from autotune.launch.bench import ROUNDS
from autotune.launch.plan import LaunchPlan
from autotune.launch.targets import bench_script, compose, dynamo, kubernetes
from autotune.launch.targets.kubernetes_pod import CACHE_ON_NODE
from autotune.launch.targets.pods import amd, instance_name, mounted_model

Lines = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Guide:
    """Sections of a README: lines of Markdown without their headings."""

    start: Lines
    check: Lines
    measure: Lines
    roll: Lines
    """How to replace what runs, where the target has a way of its own; empty: replica by replica."""
    said: Lines = ()
    """More that was taken for granted."""


def _replicas(plan: LaunchPlan) -> str:
    count = len(plan.replicas)
    return "1 replica" if count == 1 else f"{count} replicas"


def _minutes(plan: LaunchPlan) -> int:
    return round(plan.health.startup_s / 60)


def _model_line(plan: LaunchPlan) -> str:
    model = mounted_model(plan.service)
    if model is not None:
        return "The model's folder has to be there on every node; containers get it read-only, at the same path."
    if plan.service.model.startswith("/"):
        return (
            "The model is a path, which containers do not see by themselves: mount it at that path, or export again "
            "with `--model` naming it."
        )
    return (
        f"Each node loads the model from the Hugging Face hub once, into `{CACHE_ON_NODE}`: have room there, and fill "
        "it "
        "before if loading takes long."
    )


def verify_lines(result: str) -> Lines:
    """What to do with a result."""
    return (
        "",
        (
            f"`autotune verify {result}` in this folder then says what was predicted and measured, whether it lies "
            "inside "
            "the interval, and whether the ranking would change. Five or more results, at different loads, make a "
            "calibration: "
            "`autotune calibrate RESULTS… --out profile.toml`."
        ),
    )


def script_guide(plan: LaunchPlan) -> Guide:
    """Of the engines' scripts; the start is the README's own."""
    command = bench_script.script_command(plan)
    by_rate = plan.service.load.request_rate_per_s is not None
    own = bench_script.reached(plan)
    some = "" if own == len(plan.replicas) else " alone, with its share of the load"
    what = "the service" if own == len(plan.replicas) else "the first replica"
    return Guide(
        start=(),
        check=("`health.sh` asks all once and exits with 0 when all are.",),
        measure=(
            (
                f"`./{bench_script.NAME}` measures {what}{some}; with `BASE_URL=http://LOAD-BALANCER` all replicas. "
                f"`LOAD={'REQUESTS_PER_SECOND' if by_rate else 'REQUESTS_IN_FLIGHT'}` changes the load. It writes "
                f"`{command.result}`."
            ),
            *verify_lines(command.result),
        ),
        roll=(),
        said=command.assumptions,
    )


def compose_guide(plan: LaunchPlan) -> Guide:
    """Of Docker Compose."""
    command = bench_script.script_command(plan)
    _, reached = compose.address(plan)
    ports = ", ".join(str(r.head.http_port) for r in plan.replicas)
    runtime = "ROCm's driver" if amd(plan.service) else "the NVIDIA driver and Container Toolkit"
    start = [
        f"On the node, with Docker Compose 2.20 or newer and {runtime}, in this folder:",
        "",
        "```",
        "docker compose up -d",
        "```",
        "",
        (
            f"{_replicas(plan)} start at once, each with its own GPUs"
            + (
                f"; when all are ready the router starts and answers at port {plan.router.http_port}."
                if plan.router
                else f", and answer at port {ports}."
            )
        ),
        (
            "`IMAGE=…` in the environment replaces the image, `HF_TOKEN` is for models that need one, `HF_HOME` is the "
            "hub's cache on the node."
        ),
    ]
    if mounted_model(plan.service) is None and plan.service.model.startswith("/"):
        start.append(_model_line(plan))
    if plan.router is None and len(plan.replicas) > 1:
        start.append("The replicas are independent servers: put an HTTP load balancer in front of their ports.")
    return Guide(
        start=tuple(start),
        check=(
            (
                "`docker compose ps` shows `healthy` for each when it is ready, `docker compose logs -f replica0` "
                "what it "
                "does meanwhile."
            ),
        ),
        measure=(
            "```",
            "docker compose run --rm bench",
            "```",
            "",
            (
                "measures "
                f"{'the service' if reached == len(plan.replicas) else 'the first replica alone, with its share'}"
                f"{'' if reached == len(plan.replicas) else ' of the load'} and writes `{command.result}` here."
            ),
            *verify_lines(command.result),
        ),
        roll=(
            (
                "One node holds one plan: stop what runs there (`docker compose down` in its folder; requests get up "
                "to "
                "two minutes to end), then start this. Until it is ready, the node serves nothing: send its traffic "
                "elsewhere before."
            ),
        ),
        said=command.assumptions,
    )


def kubernetes_guide(plan: LaunchPlan) -> Guide:
    """Of Kubernetes."""
    command = bench_script.script_command(plan)
    name, instance = instance_name(plan.service)
    many = kubernetes.spans_nodes(plan)
    kind = "leaderworkerset" if many else "deployment"
    nodes = len(plan.replicas[0].nodes)
    start = [
        (
            "Needs a cluster with the GPU vendor's device plugin"
            + (", LeaderWorkerSet 0.5 or newer, and Kubernetes 1.31 or newer." if many else ".")
        ),
        "",
        "```",
        "kubectl apply -k .",
        "```",
        "",
        "| object | what it is |",
        "|---|---|",
        (
            f"| {'LeaderWorkerSet' if many else 'Deployment'} `{instance}` | {_replicas(plan)}"
            + (
                f" of {nodes} pods on {nodes} nodes each: a leader that answers, and its workers |"
                if many
                else ", a pod each |"
            )
        ),
    ]
    if plan.router is not None:
        start.append(f"| Deployment `{instance}-router` | SGLang's router; it finds the servers by their labels |")
    start += [
        f"| Service `{name}` | the address: `http://{name}:{kubernetes.SERVICE_PORT}` inside the cluster |",
        "",
        (
            "Leader and workers of a replica start together, the leader waits for them; replicas do not wait for "
            "each other."
            if many
            else "Replicas start all at once and do not wait for each other."
        ),
        _model_line(plan),
        "A token for models that need one: `kubectl create secret generic hf-token --from-literal=token=…`.",
    ]
    if many:
        start += [
            (
                "For RDMA between nodes, patch in your cluster's network resource (as `rdma/ib`): without it NCCL "
                "falls "
                "back to TCP, and the plan was scored with the NIC's full rate."
            ),
        ]
        if kubernetes.domain_key(plan.service.cluster) == kubernetes.DOMAIN:
            start.append(
                f"Workers follow their leader into its NVLink domain by the node label `{kubernetes.DOMAIN}`, which "
                "NVIDIA's DRA driver sets; NVLink between nodes also needs a ComputeDomain of that driver."
            )
    return Guide(
        start=tuple(start),
        check=(
            (
                f"`kubectl get pods -l app.kubernetes.io/instance={instance}` shows them ready; until then `kubectl "
                "logs` "
                "says what they do. Probes ask by themselves."
            ),
        ),
        measure=(
            "From inside the cluster, since a port-forward reaches a single pod:",
            "",
            "```",
            f"kubectl apply -f {kubernetes.BENCH}",
            f"kubectl wait --for=condition=complete --timeout=3h job/{instance}-bench",
            f"kubectl logs job/{instance}-bench | sed -n 's/^{kubernetes.RESULT_MARK}//p' > {command.result}",
            "```",
            *verify_lines(command.result),
        ),
        roll=_side_by_side(plan, kind, instance, name),
        said=command.assumptions,
    )


def _side_by_side(plan: LaunchPlan, kind: str, instance: str, name: str) -> Lines:
    size = plan.service.layout.pp * plan.service.layout.width
    return (
        (
            f"The name `{instance}` belongs to this plan, the Service `{name}` to the study: two plans of one study "
            "run "
            "side by side, and the Service sends requests to the servers of both that are ready."
        ),
        "",
        f"1. `kubectl apply -k .`: pods for which there are no free GPUs wait ({size} GPUs for each replica).",
        (
            "2. Scale what runs today down a replica at a time (`kubectl scale KIND/OLD --replicas=…`); its requests "
            "get up "
            "to two minutes to end, and the GPUs go to pods that wait."
        ),
        f"3. Before the next step, wait until the new replicas are ready (`kubectl get {kind}/{instance}`).",
        "4. Delete the old objects when none of their pods is left. To go back, scale the other way.",
        "",
        "Changes that keep the plan, such as the image, roll by `kubectl apply -k .` a replica at a time.",
    )


def dynamo_guide(plan: LaunchPlan) -> Guide:
    """Of NVIDIA Dynamo."""
    command = bench_script.script_command(plan)
    _, instance = instance_name(plan.service)
    nodes = len(plan.replicas[0].nodes)
    many = (
        f" of {nodes} nodes each; the operator adds the options that join them, and needs Grove or LeaderWorkerSet"
        if nodes > 1
        else ""
    )
    return Guide(
        start=(
            f"Needs the Dynamo platform {dynamo.RELEASE} (operator with `nvidia.com/v1beta1`) in the cluster.",
            "",
            "```",
            f"kubectl apply -f {dynamo.FILE}",
            "```",
            "",
            (
                f"A frontend, and {_replicas(plan)} as workers{many}. Workers register with the frontend when they are "
                "ready."
            ),
            f"Requests go to `{dynamo.frontend_address(plan)}` inside the cluster.",
            _model_line(plan),
            "A token for models that need one: `kubectl create secret generic hf-token --from-literal=token=…`.",
        ),
        check=(
            (
                f"`kubectl get dynamographdeployment {instance}` shows READY; `GET /health` of the frontend lists the "
                "workers."
            ),
        ),
        measure=(
            "```",
            f"kubectl apply -f {dynamo.BENCH}",
            f"kubectl wait --for=condition=complete --timeout=3h job/{instance}-bench",
            f"kubectl logs job/{instance}-bench | sed -n 's/^{kubernetes.RESULT_MARK}//p' > {command.result}",
            "```",
            *verify_lines(command.result),
        ),
        roll=(
            (
                f"The name `{instance}` belongs to this plan: it stands beside the old deployment until that is gone. "
                "Apply "
                "it, lower `replicas` of the old one's worker a step at a time as new workers get ready, move your "
                "traffic from the old frontend to the new one, delete the old deployment."
            ),
        ),
        said=command.assumptions,
    )


def expected_lines(plan: LaunchPlan) -> Lines:
    """What is measured, and what is predicted for it."""
    load = plan.service.load
    span = [_span(*load.isl), _span(*load.osl)]
    drive = (
        f"{load.request_rate_per_s:g} requests per second over all replicas"
        if load.request_rate_per_s is not None
        else f"{load.concurrency:,} requests in flight over all replicas"
    )
    count = ROUNDS * load.concurrency
    took = (
        f"about {max(count / load.requests_per_s / 60.0, 1.0):.0f} minutes"
        if load.request_rate_per_s is None
        else "5 minutes"
    )
    burst = (
        f" Requests of one length come in bursts; where lengths vary, TTFT is {load.ttft_varied_s:.3g} s."
        if abs(load.ttft_varied_s / load.ttft_s - 1.0) > 0.02
        else ""
    )
    return (
        f"The study's workload: prompts of {span[0]} tokens, outputs of {span[1]}, {drive}; {took}.",
        (
            f"Predicted for it: TTFT {load.ttft_s:.3g} s, TPOT {load.tpot_s * 1e3:.3g} ms, "
            f"{load.output_tokens_per_s:,.0f} output tokens per second (means, queueing included).{burst}"
        ),
        "",
    )


def _span(low: int, high: int) -> str:
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
