"""From a plan to launch files: `autotune export`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autotune.cli.options import EXIT_INFEASIBLE, QUESTION, SHOWN, VARIABLES, Question, given_variables

if TYPE_CHECKING:
    from collections.abc import Mapping

    from autotune.engines.service import Service
    from autotune.files import OutFile
    from autotune.launch.plan import LaunchPlan
    from autotune.launch.service import LaunchOptions
    from autotune.launch.targets.registry import Target
    from autotune.study import Study
    from autotune.tuning import PlanResult
MOST_REFUSED = 50
"""Plans that a target refuses before no more are tried."""


@click.command()
@QUESTION
@click.option(
    "--plan",
    help="Plan as `autotune tune` prints it, its rank, `baseline`, or `best` (the default) of the target's engine.",
)
@click.option(
    "--top",
    type=click.IntRange(1, 50),
    help="The best plans instead of one, each in a folder of its own: top1, top2, …",
)
@click.option(
    "--target",
    required=True,
    help="What to write launch files for: compose, k8s, dynamo, or an engine's name for a script per node.",
)
@click.option(
    "--out", required=True, type=click.Path(file_okay=False), help="Folder to write; new, empty or an export."
)
@click.option("--engine-version", help="Version of the engine, as 0.33.0. Default: the newest whose options are known.")
@click.option(
    "--model",
    help="What the engine loads: a Hugging Face name or a path on the nodes. Default: the study's, by its "
    "name in the catalog; a model that is a config.json of your own has none.",
)
@click.option(
    "--from",
    "current",
    metavar="CURRENT",
    help="What runs now, for the way from there: a plan string, `baseline`, or what `autotune import` reads (an "
    "exported folder, a file, a command).",
)
@VARIABLES
@click.option("--image", help="Container image for compose, k8s and dynamo. Default: the engine's published one.")
@click.option(
    "--name",
    help="Of the objects in a cluster, for k8s, dynamo, llm-d and disaggregatedset: an export of the same name takes "
    "their place. Default: the study's name and a hash of what is started.",
)
@click.option(
    "--hybrid-lb", is_flag=True, help="Every node of a replica answers HTTP for its own ranks, where the engine can."
)
@SHOWN
def export(
    question: Question,
    plan: str | None,
    top: int | None,
    target: str,
    out: str,
    engine_version: str | None,
    model: str | None,
    current: str | None,
    variables: tuple[str, ...],
    image: str | None,
    name: str | None,
    hybrid_lb: bool,
    as_json: bool,
) -> None:
    """Write what starts a plan of STUDY, how to check it, a benchmark that verifies it, and a README.

    vllm, sglang, trtllm: a script per node, host names as parameters. compose: Docker Compose, for a plan of one node.
    k8s: a Kustomize base, a Deployment or, where replicas span nodes, a LeaderWorkerSet. dynamo: a
    DynamoGraphDeployment. A disaggregated plan is written by vllm, sglang, trtllm and dynamo, and by llm-d (patches of
    its Kustomize bases) and disaggregatedset: both pools, what joins them, and what stands before them. Every option
    is checked against the option list of the engine's version, and the lengths and counts fit the memory model. A plan
    that the target, the engine or the version cannot express is an error (exit code 2) that names the rule; exit code
    3: no plan keeps every limit, name one with --plan.

    \b
    autotune export studies/deepseek-v3-128xh200.toml --target vllm --out out/launch
    autotune export studies/qwen3-235b-64xh100.toml --target sglang --set engine=any --from baseline --out out/sg
    autotune export studies/deepseek-v3-128xh200.toml --top 5 --target vllm --out out/top
    autotune export studies/deepseek-v3-128xh200.toml --target k8s --model /models/deepseek-v3 --out out/k8s
    """
    from autotune.cli.output import show
    from autotune.files import OutFile
    from autotune.launch.export import choose_plan
    from autotune.launch.files import write_export
    from autotune.launch.service import LaunchOptions
    from autotune.launch.targets.registry import find_target
    from autotune.report.launch import export_document, export_report, exports_report
    from autotune.study.portable import portable_study
    from costmodel.errors import InputError

    loaded, chosen = question.load(), find_target(target)
    if name is not None and not chosen.names_objects:
        raise InputError.single("--name", f"is of objects in a cluster, of which {target} writes none")
    asked = LaunchOptions(version=engine_version, model=model, hybrid_lb=hybrid_lb, image=image, name=name)
    own = {file: OutFile(text=text) for file, text in portable_study(loaded).items()}
    if top is not None:
        if plan is not None or current is not None or name is not None:
            raise InputError.single("--top", "must not be given with --plan, --from or --name")
        document = _export_top(loaded, chosen, asked, own, Path(out), top)
        show(document, exports_report, as_json=as_json)
        sys.exit(0 if document["plans"] else EXIT_INFEASIBLE)
    result, said = choose_plan(loaded, chosen, plan)
    if result is None:
        click.echo("error: no plan of the target's engine keeps every limit; name one with --plan", err=True)
        sys.exit(EXIT_INFEASIBLE)
    now = None if current is None else _current(loaded, current, variables)
    launch, files = _launch_files(loaded, result, chosen, asked, said, now)
    files |= own
    write_export(Path(out), files)
    document = export_document(launch, target=target, folder=out, files=sorted(files))
    show(document, export_report, as_json=as_json)


def _launch_files(  # one parameter for each thing that decides what is written
    study: Study,
    result: PlanResult,
    target: Target,
    asked: LaunchOptions,
    said: tuple[str, ...],
    now: Service | None = None,
) -> tuple[LaunchPlan, dict[str, OutFile]]:
    """The processes of a plan, and the files that start them."""
    from autotune.launch.export import make_export
    from autotune.launch.pools.files import pool_files
    from autotune.launch.pools.make import make_pool_launch
    from autotune.launch.targets.registry import target_files
    from costmodel.errors import InputError

    version = target.versions.get(result.engine)
    if result.pools is not None:
        if now is not None:
            raise InputError.single("--from", "must not be given with a disaggregated plan")
        both = make_pool_launch(study, result, asked=asked, assumptions=said, usual_version=version)
        return both.joined, pool_files(both, result.pools, target)
    launch = make_export(study, result, asked=asked, assumptions=said, usual_version=version)
    return launch, target_files(target, launch, current=now)


def _export_top(
    study: Study, target: Target, asked: LaunchOptions, own: Mapping[str, OutFile], out: Path, top: int
) -> dict[str, Any]:
    """Write the best plans that the target takes, a folder each; those that it refuses are named with the rule.

    Nothing is written where a folder of an earlier, longer list would stay beside the new ones.
    """
    from autotune.launch.export import best_plans
    from autotune.launch.files import check_tops, write_export
    from autotune.report.launch import export_document
    from costmodel.errors import InputError

    made: list[tuple[int, LaunchPlan, dict[str, OutFile]]] = []
    refused = []
    for rank, plan in enumerate(best_plans(study, target), start=1):
        try:
            said = (f"plan: rank {rank} of those of {plan.engine} that keep every limit",)
            launch, files = _launch_files(study, plan, target, asked, said)
            made.append((rank, launch, files | dict(own)))
        except InputError as error:
            refused.append({"rank": rank, "plan": plan.plan, "why": "; ".join(p.message for p in error.problems)})
        if len(made) == top or len(refused) > MOST_REFUSED:
            break
    check_tops(out, [rank for rank, _, _ in made])
    documents = []
    for rank, launch, files in made:
        folder = out / f"top{rank}"
        write_export(folder, files)
        document = export_document(launch, target=target.name, folder=str(folder), files=sorted(files))
        documents.append({"rank": rank, **document})
    return {"study": study.name, "target": target.name, "out": str(out), "plans": documents, "refused": refused}


def _current(study: Study, text: str, variables: tuple[str, ...]) -> Service:
    """What runs now: of a file, folder or command as `autotune import` reads it, else a plan string or `baseline`."""
    from autotune.cli.current import imported_current
    from autotune.launch.export import current_service, imported_service

    imported = imported_current(study, text, given_variables(variables))
    return current_service(study, text) if imported is None else imported_service(study, imported)
